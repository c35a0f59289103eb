"""The tables of what becomes of facts: half-lives, what an edit reached, wordings at edit time; and of the arms of teaching."""

from __future__ import annotations

from typing import Any

from estimation_tables import of
from kept import ABSENT, Kept, interval, made_by, share, table

from engramlab.experiments.fact_lifecycle.numbers import FEWEST_PAIRS
from engramlab.report.parts.reach import UNREADABLE, can_be_read, probe_of

HALF, NAME, WORDINGS = "lifecycle-half-life", "lifecycle-name", "lifecycle-wordings"


def half_lives() -> str:
    found = of(HALF)
    return _half_lives(found) if found else ABSENT


def matched() -> str:
    found = of(HALF)
    return _matched(found) if found else ABSENT


def name() -> str:
    found = of(NAME)
    return _name(found) if found else ABSENT


def wordings() -> str:
    found = of(WORDINGS)
    return _wordings(found) if found else ABSENT


def teaching() -> str:
    """The arms of every run kept under ``teaching-``."""
    found = of("teaching-")
    if not found:
        return ABSENT
    lines = []
    for summary, config in found:
        rows, given = summary["rows"], config["config"]
        for arm, name in _arms(summary, given):
            cells = [
                _taught(rows, arm, group, part)
                for group, part in (("unasked", "held-out"), ("unasked", "trained"), ("asked", "trained"))
            ]
            drift = next((r["nats"] for r in summary["drift"] if (r["arm"], r["text"]) == (arm, "replayed kind")), None)
            more = _taught(rows, arm, "unasked", "held-out", value="named"), _kept(summary, arm)
            lines.append(
                [
                    _model(given),
                    str(given["seed"]),
                    name + (_recited(summary) if arm == "edit" else ""),
                    *cells,
                    *more,
                    "–" if drift is None else f"{drift:+.2f}",
                ]
            )
    heads = [
        "model",
        "seed",
        "arm",
        "never asked, held-out wordings",
        "never asked, trained wordings",
        "asked, trained wordings",
        "never asked, held-out: named",
        "answers about capitals: right before, lost, won",
        "drift",
    ]
    return "\n".join([*table(heads, lines), "", made_by(found)])


def kinds() -> str:
    """Of subjects whose questions were never trained, by the form of what is asked."""
    found = of("teaching-")
    if not found:
        return ABSENT
    forms = {
        "trained sentences": ("trained", "statement", "share"),
        "trained questions": ("trained", "question", "share"),
        "held-out sentences": ("held-out", "statement", "share"),
        "held-out questions": ("held-out", "question", "share"),
        "named in a chat": ("held-out", "chat", "named"),
    }
    lines = [
        [
            _model(config["config"]),
            str(config["config"]["seed"]),
            name,
            *(_taught(summary["rows"], arm, "unasked", part, kind, value) for part, kind, value in forms.values()),
        ]
        for summary, config in found
        for arm, name in _arms(summary, config["config"])
        if arm != "untouched"
    ]
    return "\n".join(table(["model", "seed", "arm", *forms], lines))


def _arms(summary: dict[str, Any], given: dict[str, Any]) -> list[tuple[str, str]]:
    """The arms that a run was asked for, and what tables call them: with what was tried beside the usual."""
    share = given["replay_share"]
    if share == USUAL:
        tried = ""
    elif share:
        texts = given["replay_texts"]  # None: as many as are read once each
        tried = f", {share:.0%} replay" + (f" of {texts} texts" if texts else "")
    else:
        tried = ", no replay"
    tried += f", rate {rate:g}" if (rate := given["learning_rate"]) else ""
    if given["pilot"]:
        found = summary["chosen"]
        tried += f", pilot: rate {found['rate']:g}, {found['encounters']} texts"
    there = dict.fromkeys(row["arm"] for row in summary["rows"] if row["arm"] in given["arms"])
    return [(arm, arm + tried * (arm in ARMS)) for arm in there]


def _recited(summary: dict[str, Any]) -> str:
    edited = summary.get("edited")  # runs of older versions did not count it
    return f" ({edited['method']}; own prompt {interval(edited, 'recited')})" if edited else ""


USUAL = 0.1  # share of rows that are replayed text
ARMS = ("augmented+questions", "augmented", "single", "single+questions", "rote")  # that train


def _model(given: dict[str, Any]) -> str:
    return str(given["model"]).rpartition("/")[2].split(".")[0]


def scratch() -> str:
    """What a network that knows some people learns of others, by how it is asked; and what it keeps."""
    found = of("scratch-teaching-")
    if not found:
        return ABSENT
    lines = []
    for summary, config in found:
        rows = summary["rows"]
        for name, group, part, kind in (
            ("new people, questions never trained: the question", "unasked", "trained", "question"),
            ("the same: sentences in trained wordings", "unasked", "trained", "statement"),
            ("the same: sentences in held-out wordings", "unasked", "held-out", "statement"),
            ("new people, questions trained: the question", "asked", "trained", "question"),
            ("people known before: the question", "native", "trained", "question"),
            ("the same: sentences", "native", "trained", "statement"),
            ("the same: sentences held out from the new", "native", "held-out", "statement"),
        ):
            cells = [_taught(rows, arm, group, part, kind) for arm in ("untouched", "augmented+questions")]
            lines.append([name, str(config["config"]["seed"]), *cells])
        lines.append(
            ["all that was right about them: before, lost, won", "", "", _kept(summary, "augmented+questions")]
        )
    network = of("scratch-network")
    for summary, _ in network:
        row = next(r for r in summary["rows"] if (r["group"], r["attribute"]) == ("test", "mean"))
        lines.insert(0, ["the network's own people, questions never trained", "", share(row["exact_match"]), ""])
    return "\n".join([*table(["", "seed", "before", "after"], lines), "", made_by([*network, *found])])


def _taught(
    rows: list[dict[str, Any]], arm: str, group: str, part: str, kind: str = "any", value: str = "share"
) -> str:
    wanted = (arm, group, part, kind)
    row = next((r for r in rows if (r["arm"], r["group"], r["wordings"], r["kind"]) == wanted), None)
    if row is None or row.get(value) is None:
        return "–"
    low, high = ("low", "high") if value == "share" else (f"{value}_low", f"{value}_high")
    return f"{share(row[value])} [{100 * row[low]:.0f}, {100 * row[high]:.0f}]"


def _kept(summary: dict[str, Any], arm: str) -> str:
    row = next((r for r in summary["kept"] if (r["arm"], r["group"]) == (arm, "native")), None)
    return "–" if row is None else f"{row['right_before']}, {row['lost']}, {row['won']}"


def _half_lives(found: list[Kept]) -> str:
    lines = []
    for summary, config in found:
        for row in summary["half_life"]:
            last = [r for r in summary["courses"] if (r["arm"], r["training"]) == (row["arm"], row["training"])][-1]
            lines.append(
                [
                    str(config["config"]["seed"]),
                    row["arm"],
                    row["training"],
                    f"{row['written']} of {row['facts']}",
                    str(row["left_out"]),
                    _half(row, last["steps"]),
                    interval(last, "retention"),
                    interval(last, "survival"),
                    interval(last, "margin"),
                ]
            )
    heads = [
        "seed",
        "arm",
        "trained",
        "written",
        "left out",
        "half-life, steps",
        "retention at the end",
        "survive",
        "margin kept",
    ]
    return "\n".join([*table(heads, lines), "", made_by(found)])


def _half(row: dict[str, Any], steps: int) -> str:
    if row["half"] is None:
        return f"over {steps}" if row["censored"] else "–"
    high = f"over {steps}" if row["half_high"] is None else f"{row['half_high']:.0f}"
    return f"{row['half']:.0f} [{row['half_low']:.0f}, {high}]"


def _matched(found: list[Kept]) -> str:
    lines = [
        [
            str(config["config"]["seed"]),
            *(str(row[name]) for name in ("arm", "other", "training", "pairs", "unmatched")),
            _signed(row),
        ]
        for summary, config in found
        for row in summary["matched"]
        if row["pairs"] >= FEWEST_PAIRS
    ]
    heads = ["seed", "arm", "against", "trained", "pairs", "unmatched", "retention more"]
    return "\n".join([*table(heads, lines), "", f"Arms with fewer than {FEWEST_PAIRS} pairs are left out."])


def _signed(row: dict[str, Any]) -> str:
    return "–" if row["difference"] is None else f"{row['difference']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"


def _name(found: list[Kept]) -> str:
    lines = []
    for summary, config in found:
        given = config["config"]
        scratch = "a network that was also asked" if given["run"] else "a network from scratch"
        of_network = _model(given) if given["of_model"] else scratch
        last = max(row["layer"] for row in summary["name"])
        edits = {row["method"]: row for row in summary["name_edits"]}
        for row in summary["name"]:
            if row["layer"] == last:
                made, probe = edits[row["method"]], probe_of(summary, row)
                read = [*(interval(row, what) for what in ("new", "old", "random"))]
                read.append("–" if row["beside"] is None else share(row["beside"]))
                lines.append(
                    [
                        of_network,
                        str(given["seed"]),
                        row["method"],
                        f"{share(made['written'])}, {share(made['written_held'])}" if made["edits"] else "–",
                        row["place"],
                        f"{share(probe['accuracy'])} ({share(probe['majority'])})",
                        str(row["subjects"]),
                        *(read if can_be_read(summary, row) else [UNREADABLE, *["–"] * 3]),
                    ]
                )
    heads = [
        "of",
        "seed",
        "method",
        "written, in other words",
        "read at",
        "probe right before (majority)",
        "subjects",
        "new",
        "old",
        "a third object",
        "others as before",
    ]
    return "\n".join([*table(heads, lines), "", made_by(found)])


def _wordings(found: list[Kept]) -> str:
    lines = []
    for summary, config in found:
        row = next((r for r in summary["wordings"] if r["protocol"] == "generated"), {})
        if "reliability_unedited" in row:  # runs of older versions did not ask
            cells = [f"{row[f'{role}_unedited']:.2f}" for role in ("reliability", "generality", "portability")]
            control = [str(config["config"]["seed"]), "unedited", "–", "–", *cells, "1.00", "–"]
            lines += [control] if control not in lines else []
        for row in summary["wordings"]:
            if row["protocol"] == "generated":
                old = "–" if row["old"] is None else f"{row['old']:.2f} (was {row['old_before']:.2f})"
                lines.append(
                    [
                        str(config["config"]["seed"]),
                        row["method"],
                        row["kind"],
                        str(row["wordings"]),
                        *(interval(row, role) for role in ("reliability", "generality", "portability", "locality")),
                        old,
                    ]
                )
    heads = [
        "seed",
        "method",
        "rows",
        "wordings",
        "reliability",
        "generality",
        "portability",
        "locality",
        "old object's K",
    ]
    return "\n".join([*table(heads, lines), "", made_by(found)])
