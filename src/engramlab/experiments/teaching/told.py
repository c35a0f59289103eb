"""What a chat model tells about the subjects of a table, in the place of the templates' entries: kept, counted, said.

Where it gave no text about a subject that can be used, the template entry of the same number stands in, so that every subject
has equally many texts. ``written/texts.json`` has all of them, and says which are whose.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engramlab.base.errors import UserError
from engramlab.base.terminal import Console
from engramlab.core import models
from engramlab.core.forward.generation import encode_prompts
from engramlab.corpora.facts import FactTable
from engramlab.experiments.teaching.config import AUGMENTED
from engramlab.files import records
from engramlab.writing.rounds import Author
from engramlab.writing.subjects import longest_requests, write_subject_texts

TRIES = 6  # answers that a chat model is asked for each text, before it is given up
ROOM, A_FACT = 300, 40  # tokens of an answer: so many, or for each fact that it is to state, where they are many
_COUNTS = ("writer", "written", "fell_back", "seconds")


def room(table: FactTable) -> int:
    """Tokens of an answer that states all facts about a subject, at most."""
    return max(ROOM, A_FACT * max(sum(1 for _ in table.about(n)) for n in range(len(table.subjects))))


def check_writer(name: str, table: FactTable) -> None:
    """Raises UserError for a model that cannot write about the subjects of a table, by its config and its tokenizer alone: it
    is loaded much later, when the taught one has been asked."""
    writer = models.about(name)
    if writer.from_scratch:
        raise UserError(f"writer: {name!r} is a size; name a chat model that exists")
    if writer.objective != "causal":
        raise UserError(f"writer: {name} is a masked language model; name a chat model")
    asked = max(map(len, encode_prompts(models.load_tokenizer(name), longest_requests(table))))
    needed = asked + room(table)
    if (limit := writer.context(needed)) < needed:
        raise UserError(
            f"writer: a request of {asked} tokens and an answer of {room(table)} do not fit the context of {name}, {limit}; "
            "take a model with a longer one, or fewer --attributes"
        )


def write(
    path: Path, author: Author, table: FactTable, texts: int, usable: Callable[[str], bool], console: Console
) -> None:
    """Has so many texts about each subject of a table written, and keeps them; a killed call goes on from its log beside them.

    Args:
        table: the facts to be taught, in the wordings that are trained.
        usable: may a text that states every fact be trained?

    Raises:
        UserError: see ``write_subject_texts``.
    """
    began = time.monotonic()
    made = write_subject_texts(author, table, texts, path.parent, usable, console=console)
    entries, subjects = table.entries(AUGMENTED, author.seed), dict[str, list[dict[str, Any]]]()
    for number, (subject, found) in enumerate(made.items()):
        plain = [entries.passage((k * len(made) + number) % len(entries)).text for k in range(texts)]
        pairs = zip(found, plain, strict=True)
        subjects[subject] = [{"text": text or entry, "written": text is not None} for text, entry in pairs]
    kept = [one["written"] for of in subjects.values() for one in of]
    about = {"writer": author.model, "written": kept.count(True), "fell_back": kept.count(False)}
    seconds = round(time.monotonic() - began, 2)
    records.write_record(path, {"facts": table.digest, **about, "seconds": seconds, "subjects": subjects})


def read(path: Path, table: FactTable) -> dict[str, Any]:
    """The record that ``write`` kept. Raises UserError where it is damaged, or of other facts than the table's."""
    found = records.read_record(path, ("facts", *_COUNTS, "subjects"))
    if found["facts"] != table.digest:
        raise UserError(
            f"{path} is of other facts than are taught now; remove {path.parent} to have the texts written again"
        )
    return found


def texts_of(record: Mapping[str, Any]) -> dict[str, list[str]]:
    """The texts of a record by subject, equally many about each."""
    return {subject: [one["text"] for one in of] for subject, of in record["subjects"].items()}


def counts(record: Mapping[str, Any]) -> dict[str, Any]:
    """Of a record: ``writer``, how many texts are ``written`` by it, how many ``fell_back`` to templates, ``seconds``."""
    return {name: record[name] for name in _COUNTS}


def sentence(found: Mapping[str, Any], subjects: int) -> str:
    """What is said of such counts."""
    every = found["written"] + found["fell_back"]
    said = f"{found['written']:,} of {every:,} texts about {subjects:,} subjects are written by {found['writer']}"
    if not found["fell_back"]:
        return said
    return (
        f"{said}; {found['fell_back']:,} fell back to templates: in {TRIES} answers none stated every fact word for word, "
        "without a question and in no wording that is held out"
    )
