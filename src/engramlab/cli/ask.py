"""ask --model M "question"     what a model answers, what it would have said otherwise, and which of given answers it prefers

usage: engramlab ask --model MODEL QUESTION ... [options]

Asks a model one or several questions. --decoding says how the answer is chosen: greedy (the likeliest token), sampling, beam,
dola (the last layer against earlier ones), and with a --context cad (the passage against none) and micd (the passage against an
irrelevant one); its options go by --config. Beside the answer stands what greedy decoding writes, and what it writes without
the passage.

    engramlab ask --model models/SmolLM2-135M.gguf "The capital of France is"
    engramlab ask --model M --context passage.txt --decoding cad "Who founded it?"
    engramlab ask --model M "The capital of France is" --options Paris Rome London
    engramlab ask --model M --context passage.txt --virtual-tokens runs/tokens/reading/tokens/vectors "Who founded it?"
"""

from __future__ import annotations

from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Any, Literal

from engramlab.base.errors import UserError
from engramlab.cli._help import Option
from engramlab.cli._words import help_of, parse, starting, take, wants_help


@dataclass(frozen=True)
class AskOptions:
    """Options of ``engramlab ask``."""

    model: str = ""
    """A model folder, a .gguf file, a hub id, or an edited folder. Required."""
    context: Path | None = None
    """A file with a passage that stands before every question."""
    irrelevant: Path | None = None
    """A file with a passage on something else, for --decoding micd; by default the passage's words in another order."""
    virtual_tokens: Path | None = None
    """A folder of virtual tokens trained for this model (`engramlab run retrieval-tokens`); needs --context."""
    k: int | None = None
    """How many of the virtual tokens are read, the first ones; all by default."""
    options: tuple[str, ...] = ()
    """Answers to choose from: each with its probability among them."""
    chat: bool = False
    """Put each question as a message of a user, in the model's chat template."""
    new_tokens: int = 24
    """Most tokens of an answer."""
    json: bool = False
    """Print a JSON object a question instead of tables."""
    seed: int = 0
    """Of decoders that draw."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Number type of the weights; by default float32, or that of an edited folder."""
    device: str | None = None
    """cpu, cuda, cuda:1 ...; by default a GPU where there is one."""


def main(given: list[str]) -> None:
    """Asks and prints."""
    if given and not wants_help(given):
        starting()
    from engramlab.core.forward import decoding

    rest, name = take(given or ["--help"], "--decoding", "greedy")
    how = decoding.load(str(name))
    more: list[Any] = [("questions", tuple[str, ...]), ("config", type(how), field(default=how))]
    kind = make_dataclass("AskOptions", more, bases=(AskOptions,), frozen=True, kw_only=True)
    about = f"{help_of(__doc__)}\n\nShown are the options of --decoding {name}."
    also = [Option("--decoding", "|".join(decoding.names()), "How the answer is chosen. [greedy]")]
    options = parse(kind, "ask --model MODEL QUESTION ...", rest, positional=True, description=about, also=also)
    if not options.model:
        raise UserError("engramlab ask needs --model: a model folder, a .gguf file, a hub id, or an edited folder")
    if not options.questions:
        raise UserError('engramlab ask needs a question, such as "The capital of France is"')
    if options.new_tokens < 1:
        raise UserError(f"new_tokens must be at least 1, not {options.new_tokens}")
    passage, irrelevant = _passage(options.context, "context"), _passage(options.irrelevant, "irrelevant")
    if options.config.beside and not passage:
        raise UserError(f"--decoding {name} compares reading a passage with not reading it: give --context FILE")
    if irrelevant and "irrelevant" not in options.config.beside:
        raise UserError(f"--irrelevant goes with --decoding micd; {name} reads no other passage")
    if options.virtual_tokens is not None:
        if not passage or name != "greedy" or options.chat or options.options:
            raise UserError(
                "--virtual-tokens stand between a passage and a question, whose answer is written greedily: give --context "
                "FILE, and leave --decoding, --chat and --options out"
            )
        _answer_with_tokens(options, passage)
        return
    if options.k is not None:
        raise UserError("--k says how many virtual tokens are read; give --virtual-tokens FOLDER too")
    _answer(options, str(name), passage, irrelevant)


def _passage(path: Path | None, option: str) -> str:
    from engramlab.files.tables import read_text

    if path is None:
        return ""
    text = read_text(path).strip()
    if not text:
        raise UserError(f"--{option} {path}: is empty; give a file with a passage")
    return text


def _answer(options: Any, name: str, passage: str, irrelevant: str) -> None:
    from engramlab.editing.folders.opening import load_model
    from engramlab.measuring.questions import ask

    model, tokenizer = load_model(options.model, dtype=options.dtype, device=options.device)
    common: dict[str, Any] = {"new_tokens": options.new_tokens, "chat": options.chat, "seed": options.seed}
    asked = list(options.questions)
    texts: dict[str, Any] = {"passage": passage, "irrelevant": irrelevant}
    found = ask(model, tokenizer, asked, decoding=options.config, options=options.options, **texts, **common)
    ways = {} if name == "greedy" else {"greedy": ask(model, tokenizer, asked, passage=passage, **common)}
    if passage:
        ways["greedy, without the passage"] = ask(model, tokenizer, asked, **common)
    _print(options, name, found, ways)


def _answer_with_tokens(options: Any, passage: str) -> None:
    from engramlab.core.deltas.virtual_tokens import VirtualTokens
    from engramlab.editing.folders.opening import load_model
    from engramlab.measuring.reading import answer_from

    model, tokenizer = load_model(options.model, dtype=options.dtype, device=options.device)
    tokens = VirtualTokens.load(options.virtual_tokens, model)

    def answered(passages: list[str], **more: Any) -> list[dict[str, Any]]:
        rows = answer_from(model, tokenizer, options.questions, passages, new_tokens=options.new_tokens, **more)
        return [{"prompt": row["question"], "written": row["written"]} for row in rows]

    found = answered([passage], virtual_tokens=tokens, k=options.k)
    ways = {"without virtual tokens": answered([passage]), "without the passage": answered([])}
    _print(options, "virtual tokens", found, ways)


def _print(options: Any, name: str, found: Any, ways: dict[str, Any]) -> None:
    import json

    for label, rows in ways.items():
        for row, other in zip(found, rows, strict=True):
            row.setdefault("otherwise", {})[label] = other["written"]
    for row in found:
        if options.json:
            print(json.dumps(row, ensure_ascii=False))
        else:
            _show(name, row)


def _show(name: str, row: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    from engramlab.base.terminal import Console

    table = Table(title=Text(row["prompt"]), title_justify="left", show_header=False)
    for label, text in {name: row["written"], **row.get("otherwise", {})}.items():
        table.add_row(label, Text(text or "(nothing)"))
    for option, share in sorted(row.get("probabilities", {}).items(), key=lambda pair: -pair[1]):
        table.add_row(f"{100 * share:.1f} %", Text(option))
    Console().print(table)
