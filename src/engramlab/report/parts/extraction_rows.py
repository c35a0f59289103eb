"""Exact match by dataset, people and attribute, with what chance gives and what noise hides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engramlab.base.rows import ATTRIBUTES
from engramlab.report.parts.figures import percent
from engramlab.report.parts.paper import Published, published
from engramlab.report.parts.verdicts import LEARNT, Interval, more, wilson
from engramlab.report.rows import Row, distinct, number

TOO_SHORT = "not trained long enough to judge"
ABOVE, NOT_ABOVE, HIDDEN = (
    "above the commonest value",
    "below the commonest value",
    "within noise of the commonest value",
)
NOT_RECORDED = "commonest value not recorded"


@dataclass(frozen=True)
class Measured:
    """One share over the runs that may be averaged.

    Attributes:
        mean, low, high: over runs.
        interval: its 95 % interval; None where it is not recorded how much was asked.
        chance: the share that always naming the commonest value of P_train would have; None where it is not recorded.
    """

    mean: float
    low: float
    high: float
    runs: int
    interval: Interval | None
    chance: float | None

    def __str__(self) -> str:
        text = percent(self.mean)
        return text if self.runs == 1 else f"{text} ({100 * self.low:.1f}–{100 * self.high:.1f})"

    def ends(self) -> str:
        """The interval in percent, as `76–88`."""
        return "–" if self.interval is None else f"{100 * self.interval.low:.0f}–{100 * self.interval.high:.0f}"


@dataclass(frozen=True)
class Key:
    """What is one line of a table: a dataset and way of training, and, where runs are unlike, which runs."""

    dataset: str
    mode: str
    series: str = ""


class ExtractionRows:
    """The exact-match rows of several runs.

    Args:
        series: by run, whom it may be averaged with (see ``alike.series``).
    """

    def __init__(self, rows: Sequence[Row], series: Mapping[str, str] | None = None) -> None:
        self._series = series or {}
        self.rows = [row for row in rows if number(row.get("exact_match")) is not None]
        self.keys: list[Key] = distinct(self.key(row) for row in self.rows)
        named = distinct(str(row.get("attribute")) for row in self.rows)
        self.attributes = [attribute for attribute in named if attribute != "mean"]
        self.modes = distinct(key.mode for key in self.keys)
        self.several = len({key.series for key in self.keys}) > 1
        self._of: dict[tuple[Key, str, str], dict[str, Row]] = {}
        for row in self.rows:
            place = (self.key(row), str(row.get("group")), str(row.get("attribute")))
            self._of.setdefault(place, {})[row["run"]] = row

    def key(self, row: Row) -> Key:
        return Key(row["label"], str(row.get("mode", "finetune")), self._series.get(row["run"], ""))

    def name(self, key: Key) -> str:
        """The dataset, with the mode where the page has more than one or the model is a masked one, and unlike runs."""
        parts = [key.mode] if len(self.modes) > 1 or key.mode.startswith("masked ") else []
        parts += [key.series] if self.several else []
        return f"{key.dataset} ({', '.join(parts)})" if parts else key.dataset

    def values(self, key: Key, group: str, attribute: str = "mean") -> dict[str, float]:
        """Exact match by run, as shares."""
        return {run: float(row["exact_match"]) for run, row in self._of.get((key, group, attribute), {}).items()}

    def asked(self, key: Key, group: str, attribute: str = "mean") -> float:
        """How many things a share is of; for the mean over attributes the subjects, as their questions are not independent."""
        of = self.attributes if attribute == "mean" else [attribute]
        counts = [
            [number(row.get("questions")) or 0.0 for row in self._of.get((key, group, one), {}).values()] for one in of
        ]
        return min((sum(each) for each in counts if each), default=0.0)

    def spread(self, key: Key, group: str, attribute: str = "mean") -> Measured | None:
        rows = list(self._of.get((key, group, attribute), {}).values())
        if not rows:
            return None
        values = [float(row["exact_match"]) for row in rows]
        mean, n = min(1.0, max(0.0, sum(values) / len(values))), self.asked(key, group, attribute)
        chances = [chance for row in rows if (chance := number(row.get("commonest"))) is not None]
        found = wilson(mean, n) if n else None
        if found and len(rows) > 1:  # runs of other seeds may differ by more than their questions
            found = Interval(mean, min(found.low, *values), max(found.high, *values))
        chance = sum(chances) / len(chances) if len(chances) == len(rows) else None
        return Measured(mean, min(values), max(values), len(rows), found, chance)

    def judged(self, key: Key) -> str:
        """What P_test says: above the commonest value, within noise of it, or nothing, as training was too short."""
        test, train = self.spread(key, "test"), self.spread(key, "train")
        if test is None:
            return "–"
        found = None if test.chance is None else more(test.interval, test.chance)
        if train is not None and train.mean < LEARNT and found is not True:
            return TOO_SHORT
        if test.chance is None or test.interval is None:
            return NOT_RECORDED
        return {True: ABOVE, False: NOT_ABOVE, None: HIDDEN}[found]

    def ranking(self) -> list[Key]:
        """The datasets asked about held-out subjects, best first."""
        scores = {key: spread.mean for key in self.keys if (spread := self.spread(key, "test")) is not None}
        return sorted(scores, key=lambda key: -scores[key])

    def beside(self, key: Key, dataset: str) -> Key | None:
        """Another dataset trained alike: of the same runs, else of the only others that have it."""
        found = [one for one in self.keys if (one.dataset, one.mode) == (dataset, key.mode)]
        own = [one for one in found if one.series == key.series]
        return own[0] if own else found[0] if len(found) == 1 else None

    def paper(self, key: Key, attribute: str = "mean") -> Published | None:
        """The published figure for the same texts and training; None for people other than the paper's."""
        if not set(self.attributes) <= set(ATTRIBUTES):
            return None
        row = next(row for row in self.rows if self.key(row) == key)
        dataset, family = row["dataset"], str(row.get("family") or "bioS")
        if dataset == "bior1" or dataset.startswith(
            "bior1+"
        ):  # the first text about each person that a chat model wrote
            dataset, family = "single" + dataset.removeprefix("bior1"), "bioR"
        return published(dataset, key.mode, family, attribute)
