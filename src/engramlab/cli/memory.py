"""memory add|remove|list DIR    the documents that a network with a plug-in memory looks up

Changes what a network trained by `engramlab run plug-in-memory` looks up, without training. Documents are a text on the command
line, the texts of files or a folder (plain text, JSON lines, CSV, Parquet), or the passages of a table of facts, one a subject.
Only memory.safetensors in the folder is changed, in one moment; what was added is taken back to the same bytes by removing it.

    engramlab memory list runs/plug/memory/model
    engramlab memory add runs/plug/memory/model --document "Ada Wren was born on May 3, 1911. She studied Botany."
    engramlab memory add runs/plug/memory/model --text notes/
    engramlab memory swap runs/plug/memory/model --number 3 --document "Ada Wren studied Law."
    engramlab memory remove runs/plug/memory/model --number 3 4

encode makes all keys anew where the network's weights have changed since.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engramlab.base.errors import UserError, quoted
from engramlab.cli._words import help_of, parse, starting


@dataclass(frozen=True)
class Options:
    """Options of ``engramlab memory``."""

    action: Literal["add", "remove", "swap", "list", "encode"]
    """What to do."""
    folder: Path
    """Folder of a network with a plug-in memory."""
    document: tuple[str, ...] = ()
    """Documents, each a text."""
    text: str | None = None
    """A file, a folder or a pattern of texts: each is a document."""
    column: str = "text"
    """Column of the text in JSON lines, CSV and Parquet."""
    facts: Path | None = None
    """A table of facts: each subject's passage is a document."""
    number: tuple[int, ...] = ()
    """Numbers of documents in the memory, as list shows them."""
    limit: int | None = 20
    """How many documents list shows; None for all."""


def main(given: list[str]) -> None:
    """Does it and says how many documents there are."""
    options = parse(
        Options,
        "memory add|remove|swap|list|encode MODEL_FOLDER",
        given or ["--help"],
        positional=True,
        description=help_of(__doc__),
    )
    _check(options)
    from engramlab.files.locks import held, place

    folder = place(options.folder)
    if not (folder / "config.json").is_file():
        raise UserError(f"{options.folder} is no folder of a model; give that of a network with a plug-in memory")
    starting()
    with held(folder):
        _change(options, folder)


def _check(options: Options) -> None:
    given = [name for name in ("document", "text", "facts") if getattr(options, name) not in ((), None)]
    if options.action in ("list", "encode"):
        if given or options.number:
            raise UserError(f"engramlab memory {options.action} takes no --{(given or ['number'])[0]}; leave it out")
        return
    if len(given) > 1:
        raise UserError(f"--{given[0]} and --{given[1]}: give one of them")
    if options.action == "add" and (not given or options.number):
        raise UserError("engramlab memory add needs documents: --document TEXT, --text FILE or --facts TABLE")
    if options.action == "remove" and bool(given) == bool(options.number):
        raise UserError(
            "engramlab memory remove needs --number N, or the documents themselves (--document, --text, --facts)"
        )
    if options.action == "swap" and (len(options.number) != 1 or len(options.document) != 1):
        raise UserError("engramlab memory swap needs one --number N and one --document TEXT")


def _texts(options: Options) -> Iterator[str]:
    from engramlab.corpora.facts import FactTable
    from engramlab.files.documents import documents

    if options.facts is not None:
        yield from (passage.text for passage in FactTable.read(options.facts).passages(paraphrases=0))
    elif options.text is not None:
        yield from documents(options.text, options.column)
    yield from options.document


def _change(options: Options, folder: Path) -> None:
    from engramlab.core import models

    kind = models.load_config(str(folder)).model_type
    if kind != "pluglm":
        raise UserError(f"{folder}: a {kind} has no plug-in memory; engramlab run plug-in-memory trains one that has")
    texts = list(_texts(options))
    model: Any
    model, tokenizer = models.load(str(folder), stale=options.action == "encode")
    memory, embedding = model.memory, model.get_input_embeddings()
    made = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    before = len(memory)
    if options.action == "list":
        _show(options, memory, tokenizer)
        return
    if options.action == "add":
        memory.add(made, embedding)
    elif options.action == "swap":
        memory.swap(options.number[0], made[0], embedding)
    elif options.action == "remove":
        memory.remove(options.number or _found(memory, made, texts))
    else:
        memory.encode(embedding)
    memory.save(folder)
    top = model.config.memory_top
    few = f"; a row reads {top} and finds no more" if 0 < len(memory) < top else ""
    said = "it is empty, and nothing is looked up" if not len(memory) else f"{len(memory)} documents{few}"
    print(f"{folder}: {said} (before: {before})")


def _found(memory: Any, made: list[list[int]], texts: list[str]) -> list[int]:
    """The numbers of documents that are in the memory word for word."""
    numbers = {tuple(memory.document(i)): i for i in range(len(memory))}
    for ids, text in zip(made, texts, strict=True):
        if tuple(ids) not in numbers:
            raise UserError(f"document {quoted(text)} is not in the memory; engramlab memory list shows what is")
    return [numbers[tuple(ids)] for ids in made]


def _show(options: Options, memory: Any, tokenizer: Any) -> None:
    from rich.table import Table
    from rich.text import Text

    from engramlab.base.terminal import Console

    count = len(memory) if options.limit is None else min(len(memory), options.limit)
    table = Table("number", "document", title=Text(f"{len(memory)} documents, keys of {memory.keys.shape[1]} numbers"))
    for number in range(count):
        table.add_row(str(number), Text(tokenizer.decode(memory.document(number)).strip()))
    if count < len(memory):
        table.add_row("…", Text(f"{len(memory) - count} more (--limit None shows all)"))
    Console().print(table)
