"""Which text of which passage is met at which step: groups of passages and the encounters they plan.

Source: How Do Large Language Models Acquire Factual Knowledge During Pretraining? (arXiv 2406.11813), "Experimental setup":
40 passages each are injected ten times as they are ("duplicate"), ten times in other words ("paraphrase": the original, then
nine paraphrases) and once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from engramlab.base.errors import UserError
from engramlab.base.options import check_rules

InjectionSchedule = Literal["duplicate", "paraphrase", "once", "never"]
INJECTION_SCHEDULES: tuple[str, ...] = get_args(InjectionSchedule)
PAPER_ORDER: tuple[InjectionSchedule, ...] = ("paraphrase", "duplicate", "once")  # passages 1-40, 41-80, 81-120


@dataclass(frozen=True)
class Group:
    """Passages that are met by one schedule.

    Attributes:
        name: how reports call it.
        schedule: "duplicate": the same text each time; "paraphrase": the original first, then its paraphrases in order;
            "once": the original at ``start`` alone; "never": a control, measured and not injected.
        passages: their numbers.
        start: step of the first injection; it enters update ``start`` -> ``start + 1``.
        interval: steps from one injection to the next.
        times: injections a passage ("duplicate" and "paraphrase").
    """

    name: str
    schedule: InjectionSchedule
    passages: tuple[int, ...]
    start: int = 0
    interval: int = 100
    times: int = 10

    def __post_init__(self) -> None:
        if self.schedule not in INJECTION_SCHEDULES:
            raise UserError(
                f"group {self.name!r}: there is no schedule {self.schedule!r}; use one of {', '.join(INJECTION_SCHEDULES)}"
            )
        leasts = (("start", 0), ("interval", 1), ("times", 1))
        rules = [(name, getattr(self, name) >= least, f"at least {least}") for name, least in leasts]
        check_rules(self, rules, f"group {self.name!r}: ")

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps of its injections, rising."""
        times = {"never": 0, "once": 1}.get(self.schedule, self.times)
        return tuple(self.start + self.interval * k for k in range(times))

    def version(self, encounter: int) -> int:
        """Which text is met at the ``encounter``-th injection: 0 is the original, k its k-th paraphrase."""
        return encounter if self.schedule == "paraphrase" else 0


@dataclass(frozen=True)
class Encounter:
    """One passage in one row of one step's batch.

    Attributes:
        step: of the update it is part of, ``step`` -> ``step + 1``.
        row: in the batch over all workers.
        place: token of the row it begins at.
        passage: its number.
        version: 0 for the original, k for its k-th paraphrase.
        group: the group's name.
        tokens: of the text, without the end token.
    """

    step: int
    row: int
    place: int
    passage: int
    version: int
    group: str
    tokens: int


def make_groups(
    schedule: InjectionSchedule | Literal["all"],
    paraphrases: Sequence[int],
    *,
    control: int = 0,
    start: int = 0,
    interval: int = 100,
    times: int = 10,
) -> tuple[Group, ...]:
    """The groups of a run: all passages under one schedule, or as in the paper a third each under three.

    Args:
        schedule: one for all passages, or "all" for paraphrase, duplicate and once, in this order, of equal size but for a
            passage or two.
        paraphrases: how many paraphrases each passage has. With "all" the first passages that have enough of them make the
            paraphrase group.
        control: how many passages, the last ones, are never injected.

    Raises:
        UserError: too few passages, or too few with enough paraphrases.
    """
    if not 0 <= control < len(paraphrases):
        raise UserError(
            f"control: {control} of {len(paraphrases)} passages cannot be left out; leave at least one to inject"
        )
    injected = list(range(len(paraphrases) - control))
    kinds: tuple[InjectionSchedule, ...] = PAPER_ORDER if schedule == "all" else (schedule,)
    if len(injected) < len(kinds):
        raise UserError(f"schedule all: needs at least {len(kinds)} passages to inject, there are {len(injected)}")
    sizes = [len(injected) // len(kinds) + (k < len(injected) % len(kinds)) for k in range(len(kinds))]
    groups = []
    for kind, size in zip(kinds, sizes, strict=True):
        chosen = injected[:size]
        if kind == "paraphrase" and schedule == "all":
            chosen = [p for p in injected if paraphrases[p] >= times - 1][:size]
            if len(chosen) < size:
                raise UserError(
                    f"schedule all: {size} passages need {times - 1} paraphrases each, {len(chosen)} have them; give more "
                    f"paraphrases, fewer times, or another schedule"
                )
        injected = [p for p in injected if p not in set(chosen)]
        groups.append(Group(kind, kind, tuple(chosen), start, interval, times))
    if control:
        last = tuple(range(len(paraphrases) - control, len(paraphrases)))
        groups.append(Group("never", "never", last, start, interval, times))
    return tuple(groups)


def check_groups(groups: Sequence[Group], versions: Sequence[int], steps: int, names: Sequence[str]) -> None:
    """Raises UserError for groups that cannot be run.

    Args:
        versions: how many texts each passage has, the original included.
        steps: updates of the run.
        names: of the passages, for messages.
    """
    owner: dict[int, str] = {}
    for group in groups:
        if group.steps and group.steps[-1] >= steps:
            raise UserError(
                f"group {group.name!r}: its last injection is at step {group.steps[-1]} (start {group.start} + "
                f"{len(group.steps) - 1} x interval {group.interval}), but the run ends after {steps} steps; make it at "
                f"least {group.steps[-1] + 1} steps, or inject fewer times or more often"
            )
        for passage in group.passages:
            if not 0 <= passage < len(versions):
                raise UserError(
                    f"group {group.name!r}: there is no passage number {passage}; there are {len(versions)}, from 0"
                )
            if passage in owner:
                raise UserError(
                    f"passage {names[passage]}: is in group {owner[passage]!r} and in {group.name!r}; put it in one"
                )
            owner[passage] = group.name
            needed = group.version(max(len(group.steps) - 1, 0)) + 1
            if versions[passage] < needed:
                raise UserError(
                    f"passage {names[passage]}: has {versions[passage] - 1} paraphrases, but group {group.name!r} injects "
                    f"it {needed} times in different words; give it {needed - 1}, or lower times to {versions[passage]}"
                )


def injections_by_step(groups: Sequence[Group]) -> dict[int, list[tuple[int, int, str]]]:
    """(passage, version, group's name) of every encounter at each step that has any."""
    found: dict[int, list[tuple[int, int, str]]] = {}
    for group in groups:
        for encounter, step in enumerate(group.steps):
            for passage in group.passages:
                found.setdefault(step, []).append((passage, group.version(encounter), group.name))
    return found


def fill_rows(lengths: Sequence[int], rows: int, window: int) -> list[list[int]] | None:
    """Which items go into which row: one a row while rows last; then the longest first into the emptiest row.

    Where that is too tight, each goes into the first row with room, which wastes less.

    Args:
        lengths: tokens of each item.
        window: most tokens a row.

    Returns:
        Items of each row, or None when they do not fit.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    for evenly in (True, False):
        filled: list[list[int]] = [[] for _ in range(rows)]
        used = [0] * rows
        for item in order:
            room = [row for row in range(rows) if used[row] + lengths[item] <= window]
            if not room:
                break
            row = min(room, key=used.__getitem__) if evenly else room[0]
            filled[row].append(item)
            used[row] += lengths[item]
        else:
            return filled
    return None
