"""In how many wordings an edit is taught: its record's, then a chat model's or plain ones; never one that judges it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from engramlab.base.errors import UserError
from engramlab.base.facts import Case, Edit
from engramlab.base.joining import standing
from engramlab.base.random_access import key
from engramlab.corpora.facts.rewording import FORMS, framed, relation_of, said_in
from engramlab.writing.prompts import ask, read_ending
from engramlab.writing.rounds import Author, Writer

MOST = len(FORMS) + 1  # wordings of an edit that templates can make, its own included
TRIES = 4  # answers of a chat model for each wording that is missing
#: The wordings that an edit may be taught in, beside its own prompt and those of its record.
Wordings = Callable[[Edit], Sequence[str]]


def check(count: int, writer: str = "") -> None:
    """Raises UserError for a number of wordings that cannot be."""
    most = 10 * MOST if writer else MOST
    if not 1 <= count <= most:
        raise UserError(
            f"wordings: must be between 1 and {most}, not {count}" + ("" if writer else "; a chat model writes more")
        )


def templated(edit: Edit) -> list[str]:
    """Our plain wordings of an edit's prompt, as far as that can be done without knowing what it says."""
    called = relation_of(edit.query.prompt, edit.query.subject)
    return said_in(called, edit.query.subject) if called else framed(edit.query.prompt)


def worded(
    cases: Sequence[Case], count: int, *, made: Wordings = templated, write: Writer | None = None, seed: int = 0
) -> tuple[list[Case], list[str]]:
    """The cases with edits in so many wordings, their own prompt included; and a note on each that has fewer.

    No wording asks what a judge of any case asks, or quotes the edit without its subject.

    Args:
        made: where wordings come from, when the record has none left.
        write: a chat model, in place of it.
        seed: of the chat model.
    """
    judged = {judge.prompt for case in cases for edit in case.edits for judge in edit.judges}
    found, notes = [], []
    for case in cases:
        edits = []
        for number, edit in enumerate(case.edits):
            more = _free(edit.wordings, edit, judged)
            if len(more) < count - 1:
                others = (
                    made(edit) if write is None else _written(edit, count - 1 - len(more), write, seed, case.id, number)
                )
                more = _free([*more, *others], edit, judged)
            edits.append(replace(edit, wordings=tuple(more[: count - 1])))
            if len(more) < count - 1:
                notes.append(f"{edit.query.prompt!r} is taught in {len(more) + 1} wordings: no others were found")
        found.append(replace(case, edits=tuple(edits)))
    return found, notes


def author(model: str, seed: int = 0) -> Writer:
    """A chat model as writer of wordings. Raises UserError, when it is first asked, where it cannot be loaded."""
    return Author(model, seed=seed, max_new_tokens=48).writer()


def _free(texts: Sequence[str], edit: Edit, judged: set[str]) -> list[str]:
    own, said = edit.query.prompt, edit.target.strip()
    return [
        text
        for text in dict.fromkeys(texts)
        if text not in judged and text != own and edit.query.subject in text and not any(standing(text, said))
    ]


def _written(edit: Edit, missing: int, write: Writer, seed: int, case: str, number: int) -> list[str]:
    """Wordings by a chat model: sentences that end in the target."""
    known = [edit.query.prompt]
    for attempt in range(TRIES):
        if len(known) > missing:
            break
        wanted = [ask("semantic", prompt=edit.query.prompt, target=edit.target) for _ in range(missing)]
        seeds = [key(seed, "wording", case, number, attempt, k) for k in range(missing)]
        for answer in write(wanted, seeds):
            said = read_ending(answer, edit.target, known)
            if said is not None:
                known.append(said[0])
    return known[1:]
