"""What the editing commands show: answers before and after, whether edits hold, what a folder holds."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from engramlab.base.rows import Row
from engramlab.base.terminal import Console
from engramlab.editing.folders.disk import Saved, State
from engramlab.editing.judge.preview import AFTER, CHAT, FORMS, Scores, holds, kept
from engramlab.measuring.answers import runs_on

if TYPE_CHECKING:
    from engramlab.editing.changing import Changed
    from engramlab.editing.trying import Tried

SHOWN = 12  # edits of a file shown one by one
_ROLES = {
    "reliability": "the edit",
    "generality": "in other words",
    "portability": "what follows",
    "locality": "unrelated",
}


@contextlib.contextmanager
def noting(notes: list[str]) -> Iterator[None]:
    """Warnings given inside the block become notes."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    notes += dict.fromkeys(str(one.message) for one in caught if issubclass(one.category, UserWarning))


def show_edit(rows: Sequence[Row], notes: Sequence[str], failed: Sequence[str], method: str) -> None:
    """The table before and after, and in words what it says."""
    console = Console()
    by_role = {role: [row for row in rows if row["role"] == role] for role in _ROLES}
    many = len(by_role["reliability"]) > 1
    shown = by_role["reliability"][:SHOWN]
    for role in ("generality", "portability") if not many else ():
        shown += by_role[role]
    unrelated = [row for row in by_role["locality"] if row["group"] == "unrelated"]
    table = Table("", "prompt", "before", "after", "log p of the target", title="Before and after", show_lines=not many)
    for row in shown + unrelated:
        table.add_row(*map(Text, _cells(row)))
    console.print(table)
    left = len(by_role["reliability"]) - SHOWN
    if left > 0:
        console.print(f"and {left} more edits, all in edit.json", highlight=False, markup=False)
    for line in _verdicts(by_role, unrelated):
        console.print(line, highlight=False, markup=False)
    for line in _damage(unrelated, method):
        console.print(line, style="bold red", highlight=False, markup=False)
    for reason in failed:
        console.print(f"failed: {reason}", highlight=False, markup=False)
    for note in notes:
        console.print(f"note: {note}", highlight=False, markup=False)


def show_ability(moved: Sequence[tuple[str, float | None, float | None]]) -> None:
    """What became of ordinary text and of tests, a line each: its name, before and after."""
    for name, before, after in moved:
        if before is None or after is None:
            line = f"{name}: {'no number' if before is None else f'{before:.4g}'} before, no number after"
        else:
            share = f" ({100 * (after / before - 1):+.1f} %)" if before else ""
            line = f"{name}: {before:.4g} before, {after:.4g} after{share}"
        Console().print(line, highlight=False, markup=False)


def show_tried(tried: Sequence[Tried], best: Changed) -> None:
    """One table of the methods that were tried, the one that is kept marked."""
    columns = ("", "method", "holds", "other wordings", "in chat", "unrelated kept", "drift (nats)", "seconds", "")
    table = Table(*columns, title="Methods tried")
    for one in tried:
        found = one.scores
        cells = [f"{right} of {of}" if of else "" for right, of in _counts(found)] if found else ["", "", "", ""]
        drift = f"{found.drift:.2f}" if found else ""
        mark = "kept" if one.changed is best else ""
        table.add_row(*map(Text, (mark, one.method, *cells, drift, f"{one.seconds:.1f}", _short(one.reason, 80))))
    Console().print(table)


def _counts(found: Scores) -> tuple[tuple[int, int], ...]:
    return found.held, found.reworded, found.chat, found.kept


def _cells(row: Row) -> tuple[str, str, str, str, str]:
    sums = [sum(row[f"logprobs_{when}"]) for when in ("before", "after")]
    scored = row["role"] != "locality" and row["tokens"]
    kind = row["group"] if row["role"] == "generality" and row["group"] != "rephrase" else ""
    return (
        kind or _ROLES[row["role"]],
        _asked_with(row),
        _short(row["written_before"]),
        _short(row["written_after"]),
        f"{sums[0]:.2f} -> {sums[1]:.2f}" if scored else "",
    )


def _asked_with(row: Row) -> str:
    """The prompt without the chat template around it."""
    said = row.get("said", "")
    return said if said and row["group"] not in FORMS else row["prompt"]


def _verdicts(by_role: dict[str, list[Row]], unrelated: Sequence[Row]) -> Iterator[str]:
    asked = by_role["reliability"]
    if len(asked) == 1:
        yield _verdict(asked[0])
    elif asked:
        yield f"{_count(asked)} edits hold" + _named(asked)
    kinds = {kind: [row for row in by_role["generality"] if row["group"] == kind] for kind in (CHAT, AFTER)}
    others = [row for row in by_role["generality"] if row["group"] not in kinds]
    if others:
        not_in = [row["group"] for row in others if not holds(row) and row["group"] != "rephrase"]
        yield f"The new answer in other words: {_count(others)}" + (f" (not {', '.join(not_in)})." if not_in else ".")
    if kinds[AFTER]:
        yield f"The same prompt after other text: {_count(kinds[AFTER])}."
    if len(asked) == 1 and kinds[CHAT]:
        (row, *_), (now, was) = kinds[CHAT], (_short(kinds[CHAT][0][f"written_{w}"], 60) for w in ("after", "before"))
        says = "holds there too" if holds(row) else "does not hold there"
        yield f"Asked in chat the edit {says}: it answers {now!r} (before: {was!r})."
    elif kinds[CHAT]:
        yield f"Asked in chat: {_count(kinds[CHAT])}."
    if by_role["portability"]:
        yield f"The new answer of what follows from them: {_count(by_role['portability'])}."
    near = [row for row in by_role["locality"] if row["group"] != "unrelated"]
    if near:
        same = sum(bool(row["generated"]) for row in near)
        yield f"Answers of the file that must stay as they are: {same} of {len(near)} did."
    if unrelated and all(map(kept, unrelated)):
        same = sum(bool(row["generated"]) for row in unrelated)
        words = "word for word" if same == len(unrelated) else f"{same} of them word for word"
        yield f"Unrelated answers: all {len(unrelated)} as before, {words}."


def _verdict(row: Row) -> str:
    """Of the one edit that was made."""
    wrote, target = _short(row["written_after"]), row["target"]
    if holds(row):
        return f"The edit holds: the model now writes {target!r}."
    begun = runs_on(row["written_after"], (target, *row["aliases"]), row.get("said", ""))
    if begun is not None:
        return (
            f"The edit does not hold: the model writes {wrote!r}, which begins with {begun!r} and goes on inside the word: "
            "it has not learnt where the answer ends. End the target in a full stop (and leave out --no-closing), or take "
            "another --method; more steps do not help."
        )
    return (
        f"The edit does not hold: the model writes {wrote!r}, not {target!r}. More steps (--config.steps) or another --method "
        "may help."
    )


def _damage(unrelated: Sequence[Row], method: str) -> Iterator[str]:
    changed = [row for row in unrelated if not kept(row)]
    if changed:
        which = "; ".join(
            f"{_asked_with(row)!r} ({_short(row['written_before'], 20)!r} -> {_short(row['written_after'], 20)!r})"
            for row in changed
        )
        others = ",".join(name for name in ("ft-m", "lora", "rome", "wise") if name != method)
        yield (
            f"Unrelated answers: {len(changed)} of {len(unrelated)} changed: {which}. Another method may leave them alone: "
            f"--try {method + ',' if method else ''}{others} compares."
        )


def _count(rows: Sequence[Row]) -> str:
    return f"{sum(map(holds, rows))} of {len(rows)}"


def _named(rows: Sequence[Row]) -> str:
    bad = [row["prompt"] for row in rows if not holds(row)]
    more = ", ..." if len(bad) > 5 else ""
    return f"; not: {', '.join(map(repr, bad[:5]))}{more}." if bad else "."


def show_saved(
    out: Path,
    number: int,
    *,
    weights: bool,
    alone: bool,
    new: Sequence[int] = (),
    merged: bool = False,
    reads: bool = False,
) -> None:
    """Where it is, how to load it, and how to take it back.

    Args:
        number: of the last edit.
        new: of each edit of this call, how many facts are in it.
    """
    console = Console()
    kept = (
        f"{number} edits"
        if merged
        else f"edits {number - len(new) + 1} to {number}"
        if len(new) > 1
        else f"edit {number}"
    )
    lines = [f"saved   {out} ({kept}{', without the model' if alone else ''})"]
    load = f'model, tokenizer = engramlab.editing.load("{out}")'
    if alone:
        lines.append(f"load    {load}; it reads the unedited model where it was")
    elif weights:
        lines.append(f'load    transformers.AutoModelForCausalLM.from_pretrained("{out}"), as any model')
    else:
        lines.append(f"load    {load}")
        lines.append(
            "        This method changes no weights: it acts while the model runs, so transformers alone loads the model "
            "without this edit."
            if not merged
            else "        Some of the edits change no weights: they act while the model runs, so transformers alone loads the "
            "model without them."
        )
    if reads:
        lines.append(
            "ask     It puts a text before what is asked: give the model asking.as_read(model, tokenizer, [prompt])[0], with "
            "asking from engramlab.measuring."
        )
    lines.append(f"undo    engramlab undo {out}")
    if len(new) > 1:
        lines[-1] += f", one alone with --edit {number}"
    elif sum(new) > 1:
        lines[-1] += f", all {sum(new)} facts at once: this method works them out together"
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def show_undone(folder: Path, gone: Sequence[Saved], left: int) -> None:
    """What was taken off and what is left."""
    for one in gone:
        print(f"undone  edit {one.number}{f' ({one.record.method})' if one.record.method else ''}: {_asked(one)}")
    print(f"{folder} now holds " + (f"{left} edit{'s' * (left > 1)}" if left else "the unedited model"))


def show_merged(rows: Sequence[Row]) -> None:
    """Does every edit still hold, and what became of the rest?"""
    table = Table("from", "edit", "prompt", "target", "before", "after", "holds", title="The merged model")
    by_role = {role: [row for row in rows if row["role"] == role] for role in _ROLES}
    for row in by_role["reliability"]:
        cells = (row["folder"], str(row["number"]), row["prompt"], row["target"], row["written_before"])
        table.add_row(*map(Text, (*cells, _short(row["written_after"]), "yes" if row["holds"] else "no")))
    console = Console()
    console.print(table)
    unrelated = [row for row in by_role["locality"] if row["group"] == "unrelated"]
    for line in _verdicts(by_role, unrelated) if rows else ():
        console.print(line, highlight=False, markup=False)


def show_listing(state: State, listed: Sequence[Saved]) -> None:
    """The edits of a folder."""
    console = Console()
    if not listed:
        console.print(
            f"{state.folder} has no edits: it is the unedited model {state.base}", highlight=False, markup=False
        )
        return
    table = Table("edit", "method", "loss", "what", "holds", "made", title=f"Edits of {state.base}")
    for one in listed:
        rows = [row for row in one.record.rows if row["role"] == "reliability"]
        held = _count(rows) if rows else ""
        what = one.record.method or one.kind, one.record.loss, _asked(one), held, one.record.created[:10]
        table.add_row(*map(Text, (str(one.number), *what)))
    console.print(table)


def _asked(one: Saved) -> str:
    said = [f"{edit.query.prompt} -> {edit.target}" for edit in one.record.edits[:3]]
    more = len(one.record.edits) - len(said)
    return "\n".join(said) + (f"\nand {more} more" if more else "") if said else "(not recorded)"


def _short(text: str, most: int = 40) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= most else plain[: most - 1] + "…"
