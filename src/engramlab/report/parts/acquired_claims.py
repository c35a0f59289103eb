"""What the paper finds about acquisition and forgetting beside what is so here, and what a run could have shown."""

from __future__ import annotations

from collections.abc import Sequence

from engramlab.base.rows import DEPTHS
from engramlab.report.parts.acquired_parts import PartRows, by_depth, measured
from engramlab.report.parts.blocks import Section, Table
from engramlab.report.parts.training import missing, table_by_run
from engramlab.report.parts.verdicts import NOISE, NOT_SO, SO, Interval, every, interval, less, more, verdict
from engramlab.report.parts.words import big, count, fixed, ranged
from engramlab.report.rows import Row, RunData, number


def findings(part: PartRows) -> list[tuple[str, str, str]]:
    """What the paper finds, the numbers here, and the verdict: said by intervals, not by eye."""
    found = []
    for group in part.groups:
        if group == "never":
            continue
        values = [interval(part.row(group, depth), "effectivity") for depth in DEPTHS]
        if any(number(part.row(group, depth).get("effectivity")) is not None for depth in DEPTHS):
            text = f"{group}: " + ", ".join(ranged(part.row(group, depth), "effectivity") for depth in DEPTHS)
            found.append(("effectivity: memorization > semantic > compositional", text, verdict(values)))
    for group in part.groups:
        fits = {depth: number(part.row(group, depth).get("r_squared")) for depth in DEPTHS}
        shown = [f"{depth} {fixed(value)}" for depth, value in fits.items() if value is not None]
        if shown and fits["memorization"] is not None:
            finding = "R falls linearly in log t (R² ≥ 0.8 for memorization)"
            found.append((finding, f"{group}: {', '.join(shown)}", SO if fits["memorization"] >= 0.8 else NOT_SO))
    for depth in DEPTHS:
        rows = [part.row(group, depth) for group in ("duplicate", "paraphrase")]
        if all(number(row.get("decay_constant")) is not None for row in rows):
            two, one = (ranged(row, "decay_constant", 3, "decay_") for row in rows)
            said = verdict([interval(row, "decay_constant", "decay_") for row in rows])
            found.append(
                ("duplicates decay faster than paraphrases", f"{depth}: duplicates {two}, paraphrases {one}", said)
            )
    return [*found, *_of_groups(part)]


def _of_groups(part: PartRows) -> list[tuple[str, str, str]]:
    """The claims about which schedule gains most from an encounter."""
    claims = (
        ("the passages met once", "once", ("duplicate", "paraphrase")),
        ("duplicates", "duplicate", ("paraphrase",)),
    )
    found = []
    for who, best, others in claims:
        if best not in part.groups or not set(others) & set(part.groups):
            continue
        said, texts = [], []
        for depth in (depth for depth in DEPTHS if part.row(best, depth)):
            rows = {group: part.row(group, depth) for group in (best, *others) if part.row(group, depth)}
            values = {group: interval(row, "effectivity") for group, row in rows.items()}
            said += [verdict([values[best], values[group]]) for group in values if group != best]
            texts.append(
                f"{depth}: " + ", ".join(f"{group} {ranged(row, 'effectivity')}" for group, row in rows.items())
            )
        whom = "of all" if best == "once" else "than paraphrases"
        word = "the largest mean effectivity" if best == "once" else "a larger mean effectivity"
        found.append((f"{who} have {word} {whom}, at all depths", "; ".join(texts), every(said)))
    return found


def between(parts: Sequence[PartRows]) -> list[tuple[str, str, str, str]]:
    """The claims about parts that differ in one thing alone: the label of what is compared, and as ``findings``."""
    found: list[tuple[str, str, str, str]] = []
    for name, words in (("batch", "smaller batch"), ("parameters", "larger model"), ("stage", "later checkpoint")):
        for first, second in _pairs(parts, name):
            label = f"{first.label} beside {second.label}"
            for group in (group for group in first.groups if group != "never" and group in second.groups):
                found += [(label, *row) for row in _beside(first, second, group, words)]
    return found


def _beside(first: PartRows, second: PartRows, group: str, words: str) -> list[tuple[str, str, str]]:
    """The first one has the smaller batch, the larger model, or the later checkpoint."""

    def differences(name: str, bounds: str | None = None) -> dict[str, Interval | None]:
        rows = {depth: (first.row(group, depth), second.row(group, depth)) for depth in DEPTHS}
        there = {depth: pair for depth, pair in rows.items() if all(number(row.get(name)) is not None for row in pair)}
        return {d: less(interval(a, name, bounds), interval(b, name, bounds)) for d, (a, b) in there.items()}

    def text(of: dict[str, Interval | None]) -> str:
        said = [f"{d} {i.value:+.3f} ({i.low:.3f} to {i.high:.3f})" for d, i in of.items() if i is not None]
        return f"{group}, differences: " + ", ".join(said)

    none = Interval(0.0, 0.0, 0.0)
    net = all("never" in part.groups for part in (first, second))
    gains = differences("effectivity_net" if net else "effectivity")
    decays = differences("decay_constant", "decay_")
    found = []
    if gains and words == "later checkpoint":
        higher = [more(gain, none) for gain in gains.values()]
        said = NOT_SO if True in higher else NOISE if None in higher else SO
        found.append((f"a {words} gains no more from an encounter", text(gains), said))
    elif gains:
        said = every([verdict([gain, none]) for gain in gains.values()])
        found.append((f"a {words} gains more from an encounter", text(gains), said))
    if decays and words == "smaller batch":
        said = every([verdict([decay, none]) for decay in decays.values()])
        found.append((f"a {words} forgets faster", text(decays), said))
        if "compositional" in decays and len(decays) > 1:
            rest = [decay for depth, decay in decays.items() if depth != "compositional"]
            said = every(
                [verdict([decays["compositional"], none]), *(verdict([decays["compositional"], d]) for d in rest)]
            )
            found.append((f"a {words} hurts composition most", text(decays), said))
    return found


def _pairs(parts: Sequence[PartRows], name: str) -> list[tuple[PartRows, PartRows]]:
    """Parts of a run that differ in ``name`` and not in the other things that are compared: the extreme ones."""

    def of(part: PartRows, name: str) -> float | None:
        optimizer = part.about.get("optimizer")
        return number((optimizer if name == "parameters" and isinstance(optimizer, dict) else part.about).get(name))

    kinds: dict[tuple[object, ...], list[PartRows]] = {}
    for part in parts:
        if of(part, name) is not None:
            others = [of(part, other) for other in ("batch", "parameters", "stage") if other != name]
            # An interval in steps goes with the batch where tokens are kept equal.
            others.append(number(part.about.get("interval")) if name != "batch" else None)
            optimizer = part.about.get("optimizer")
            moments = optimizer.get("moments") if isinstance(optimizer, dict) and name != "stage" else None
            kinds.setdefault((part.run, *others, str(part.about.get("rate")), str(moments)), []).append(part)
    found = []
    for members in kinds.values():
        ordered = sorted(members, key=lambda part: of(part, name) or 0.0, reverse=name != "batch")
        if of(ordered[0], name) != of(ordered[-1], name):
            found.append((ordered[0], ordered[-1]))
    return found


def written_section(runs: Sequence[RunData], parts: Sequence[PartRows]) -> Section:
    """Which targets the model would write itself: knowledge by generation, beside log-probabilities."""
    rows = []
    for start, row in measured(parts):
        if number(row.get("written")) is not None:
            each = row.get("written_by_encounter") or [None]
            cells = [fixed(row.get("written_before"), 3), fixed(each[0], 3), fixed(each[-1], 3)]
            rows.append([*start, *cells, ranged(row, "written", 3), str(row.get("queries"))])
    columns = "before|at the first maximum|at the last|at the end|queries"
    caption = (
        "The share of targets that greedy decoding would write behind their prompt, word for word (ours: the paper names it a "
        "limit that it looks at log-probabilities alone)."
    )
    return Section("What the model would write", by_depth(parts, columns, rows, caption), missing(runs))


def claims_section(runs: Sequence[RunData], parts: Sequence[PartRows]) -> Section:
    """What the paper finds, and whether it is so here: said by numbers, not by eye."""
    rows = []
    for part in parts:
        rows += [[part.label, *finding] for finding in findings(part)]
    rows += [list(finding) for finding in between(parts)]
    columns = ["part", "the paper finds", "here", ""]
    caption = "arXiv 2406.11813 used models of 1 to 7 billion parameters: compare the shape, not the numbers."
    table = table_by_run(parts, columns, rows, caption)
    return Section("Beside the paper", [table] if rows else [], missing(runs))


def power_section(runs: Sequence[RunData]) -> Section:
    """Which difference between decay constants the runs could have shown, by how the control moved."""
    rows = []
    for run in runs:
        for row in run.summary.get("power") or []:
            start = [f"{run.name}: {row['compared']}" if len(runs) > 1 else row["compared"], row["depth"]]
            cells = [fixed(row.get(name), 3) for name in ("spread", "detectable", "detectable_as_varied", "difference")]
            cells += [count(row.get("passages")), fixed(row.get("aim")), count(row.get("passages_needed"))]
            rows.append([*start, *cells, _times(row), big(row.get("steps_needed"))])
    heads = ["compared", "depth", "a passage's chance", "detectable", "as they varied", "seen", "passages", "aimed at"]
    heads += ["passages needed", "or rows", "or steps after"]
    caption = (
        "A passage's chance: how far a decay constant of one passage is off for no reason, by the slopes of passages that "
        "were never injected over the gain of those that were. Detectable: the difference that so many passages a group show "
        "in four runs of five (95 % interval, power 0.8) by the control's noise alone; as they varied: by how the injected "
        "passages differ, which is what a run can show. Needed for the difference aimed at, by the control's noise: so many "
        "passages a group; or so many rows, if the noise's variance falls as their number and the gain is kept by a higher "
        "rate; or so many steps behind the last injection, if the noise goes on falling as it did. The calculation is ours."
    )
    return Section("What this run could show", [Table(heads, rows, caption, 2)] if rows else [], missing(runs))


def _times(row: Row) -> str:
    rows, quieter = number(row.get("rows")), number(row.get("quieter"))
    return "–" if rows is None or quieter is None else count(rows * quieter)
