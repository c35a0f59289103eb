"""What the editing commands show: answers before and after, whether edits hold, what a folder holds."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from engramlab.base.progress import NamedProgress, ProgressBar
from engramlab.base.rows import Row
from engramlab.base.terminal import Console
from engramlab.editing.folders.disk import Saved, State
from engramlab.editing.judge.preview import holds

SHOWN = 12  # edits of a file shown one by one
_ROLES = {
    "reliability": "the edit",
    "generality": "in other words",
    "portability": "what follows",
    "locality": "unrelated",
}


@contextlib.contextmanager
def progress_bars() -> Iterator[NamedProgress]:
    """Progress bars, one after another, for something that says what it does and how far it is."""
    with contextlib.ExitStack() as stack:
        shown: ProgressBar | None = None

        def report(what: str, done: int, total: int) -> None:
            nonlocal shown
            if shown is None or shown.label != what:
                stack.close()
                shown = stack.enter_context(ProgressBar(what, total))
            shown.to(done, total)

        yield report


@contextlib.contextmanager
def noting(notes: list[str]) -> Iterator[None]:
    """Warnings given inside the block become notes."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    notes += dict.fromkeys(str(one.message) for one in caught if issubclass(one.category, UserWarning))


def show_edit(rows: Sequence[Row], notes: Sequence[str], failed: Sequence[str]) -> None:
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
    for reason in failed:
        console.print(f"failed: {reason}", highlight=False, markup=False)
    for note in notes:
        console.print(f"note: {note}", highlight=False, markup=False)


def _cells(row: Row) -> tuple[str, str, str, str, str]:
    sums = [sum(row[f"logprobs_{when}"]) for when in ("before", "after")]
    scored = row["role"] != "locality" and row["tokens"]
    return (
        _ROLES[row["role"]],
        row["prompt"],
        _short(row["written_before"]),
        _short(row["written_after"]),
        f"{sums[0]:.2f} -> {sums[1]:.2f}" if scored else "",
    )


def _verdicts(by_role: dict[str, list[Row]], unrelated: Sequence[Row]) -> Iterator[str]:
    asked = by_role["reliability"]
    if len(asked) == 1:
        (row,) = asked
        if holds(row):
            yield f"The edit holds: the model now writes {row['target']!r}."
        else:
            yield (
                f"The edit does not hold: the model writes {_short(row['written_after'])!r}, not {row['target']!r}. More steps "
                "(--config.steps) or another --method may help."
            )
    else:
        yield f"{_count(asked)} edits hold" + _named(asked)
    for role, words in (("generality", "in other words"), ("portability", "of what follows from them")):
        if by_role[role]:
            yield f"The new answer {words}: {_count(by_role[role])}."
    others = [row for row in by_role["locality"] if row["group"] != "unrelated"]
    if others:
        same = sum(bool(row["generated"]) for row in others)
        yield f"Answers of the file that must stay as they are: {same} of {len(others)} did."
    changed = [row for row in unrelated if not row["generated"]]
    if changed:
        which = "; ".join(
            f"{row['prompt']!r} ({_short(row['written_before'], 20)!r} -> {_short(row['written_after'], 20)!r})"
            for row in changed
        )
        yield f"Unrelated answers: {len(changed)} of {len(unrelated)} changed: {which}."
    elif unrelated:
        yield f"Unrelated answers: all {len(unrelated)} as before, word for word."


def _count(rows: Sequence[Row]) -> str:
    return f"{sum(map(holds, rows))} of {len(rows)}"


def _named(rows: Sequence[Row]) -> str:
    bad = [row["prompt"] for row in rows if not holds(row)]
    more = ", ..." if len(bad) > 5 else ""
    return f"; not: {', '.join(map(repr, bad[:5]))}{more}." if bad else "."


def show_saved(
    out: Path, number: int, *, weights: bool, alone: bool, merged: bool = False, reads: bool = False
) -> None:
    """Where it is, how to load it, and how to take it back."""
    console = Console()
    kept = f"{number} edits" if merged else f"edit {number}"
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
            "ask     It puts a text before what is asked: give the model asking.in_context(asking.contexts(model), "
            "prompt), with asking from engramlab.editing."
        )
    lines.append(f"undo    engramlab undo {out}")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def show_undone(folder: Path, gone: Sequence[Saved]) -> None:
    """What was taken off and what is left."""
    for one in gone:
        print(f"undone  edit {one.number}{f' ({one.record.method})' if one.record.method else ''}: {_asked(one)}")
    left = gone[-1].number - 1
    print(f"{folder} now holds " + (f"{left} edit{'s' * (left > 1)}" if left else "the unedited model"))


def show_merged(rows: Sequence[Row]) -> None:
    """Does every edit still hold?"""
    table = Table("from", "edit", "prompt", "target", "before", "after", "holds", title="The merged model")
    for row in rows:
        cells = (row["folder"], str(row["number"]), row["prompt"], row["target"], row["written_before"])
        table.add_row(*map(Text, (*cells, _short(row["written_after"]), "yes" if row["holds"] else "no")))
    console = Console()
    console.print(table)
    if rows:
        console.print(f"{_count(rows)} edits hold{_named(rows)}", highlight=False, markup=False)


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
