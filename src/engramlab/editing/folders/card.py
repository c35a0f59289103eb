"""The README.md of an edited folder, or of what is made of one: which edits are in it, and what was seen of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from engramlab.editing.folders import disk
from engramlab.editing.folders.disk import Saved, State
from engramlab.editing.judge import preview
from engramlab.files import writing

CARD = "README.md"
_BEGIN, _END = "<!-- engramlab: written anew with every edit, up to the next such line -->", "<!-- engramlab: end -->"
_MOST = 200  # edits listed
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def write(state: State) -> None:
    """Writes the card of a folder, or its part of a README.md that others have added to."""
    path = state.folder / CARD
    new = text(state, disk.listing(state), _loading(state))
    old = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    if old:
        begin, end = old.find(_BEGIN), old.find(_END)
        if not 0 <= begin < end:
            return  # it is someone's own
        new = old[:begin] + new[new.index(_BEGIN) : new.index(_END)] + old[end:]
    writing.write_text(path, new)


def text(state: State, known: Sequence[Saved], loading: str, library: str = "transformers") -> str:
    """A card in Markdown.

    Args:
        known: the edits in it.
        loading: how it is loaded, in Markdown.
        library: what it is loaded with, for the hub.
    """
    name = state.base if is_hub(state.base) else Path(state.base).name
    front = [f"base_model: {name.partition('@')[0]}"] if is_hub(state.base) else []
    lines = ["---", *front, f"library_name: {library}", "tags: [knowledge-editing, engramlab]", "---", ""]
    lines += [f"# {escaped(name or 'A model')}, edited", "", _BEGIN, "", loading, ""]
    lines += [*_table(known), "", _END, ""]
    return "\n".join(lines)


def is_hub(base: str) -> bool:
    """Is this the name of a model on the hub, not a path?"""
    return _HUB.fullmatch(base.partition("@")[0]) is not None and not Path(base).exists()


def escaped(given: Any) -> str:
    """Text as one line that Markdown shows as it is: no markup, no link, no cell of its own."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in str(given)).split())
    plain = re.sub(r"[&<>|`*_\[\]\\~@#$!]", lambda found: f"&#{ord(found[0])};", plain)
    return plain.replace("://", "&#58;//").replace("www.", "www&#46;")


def _loading(state: State) -> str:
    if state.delta_only:
        return "What edits changed, without the model; `engramlab.load_model(FOLDER)` puts them on it (`base=` if it moved)."
    return (
        "`transformers.AutoModelForCausalLM.from_pretrained(FOLDER)` loads it; `engramlab edits list FOLDER` says what was "
        "changed, `engramlab undo FOLDER` takes it back, bit for bit."
    )


def _table(known: Sequence[Saved]) -> Iterator[str]:
    if not known:
        yield "No edit is in effect: these are the weights of the unedited model."
        return
    yield "| edit | method | made | prompt | new answer | before | after | holds |"
    yield "|---|---|---|---|---|---|---|---|"
    made = [(one, edit, row) for one in known for edit, row in _asked(one)]
    for one, edit, row in made[:_MOST]:
        answers = (row.get("written_before", ""), row.get("written_after", ""), _holds(row))
        cells = (
            one.number,
            one.record.method or one.kind,
            one.record.created[:10],
            edit.query.prompt,
            edit.target,
            *answers,
        )
        yield f"| {' | '.join(map(escaped, cells))} |"
    if len(made) > _MOST:
        yield f"\nand {len(made) - _MOST} more."
    for one in known:
        if seen := "; ".join(_figures(one)):
            yield f"\nEdit {one.number}: {seen}."


def _asked(one: Saved) -> Iterator[tuple[Any, dict[str, Any]]]:
    rows = {row.get("prompt"): row for row in one.record.rows if row.get("role") == "reliability"}
    for edit in one.record.edits:
        yield edit, rows.get(edit.query.prompt, {})


def _holds(row: dict[str, Any]) -> str:
    return "" if "generated" not in row else "yes" if preview.holds(row) else "no"


def _figures(one: Saved) -> Iterator[str]:
    for role, words in (
        ("reliability", "{} of {} edits hold"),
        ("generality", "the new answer in other words {} of {} times"),
        ("portability", "what follows from it answered {} of {} times"),
        ("locality", "{} of {} other answers as before"),
    ):
        rows = [row for row in one.record.rows if row.get("role") == role and "generated" in row]
        if rows:
            yield words.format(sum(map(preview.holds, rows)), len(rows))
