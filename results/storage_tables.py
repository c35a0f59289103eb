"""The README's tables about storage and extraction."""

from __future__ import annotations

from statistics import mean
from typing import Any

from kept import ABSENT, HERE, Kept, load, made_by, share, table

from engramlab.base.rows import ATTRIBUTES
from engramlab.report.parts.paper import SOURCE, published
from engramlab.report.parts.verdicts import of_seeds
from engramlab.sweeps.summary import correlations_over_cells


def extraction(*names: str) -> str:
    """Exact match by dataset: P_train, P_test, P_test by attribute; means and ranges where several seeds were run."""
    summaries = [load(name)[0] for name in names]
    config = load(names[0])[1]
    rows = [row for summary in summaries for row in summary["rows"]]
    attributes = list(dict.fromkeys(row["attribute"] for row in rows if row["attribute"] != "mean"))
    lines = [
        "| corpus | P_train | **P_test** | " + " | ".join(a.replace("_", " ") for a in attributes) + " |",
        "|---|---|---|" + "---|" * len(attributes),
    ]
    for dataset in dict.fromkeys(row["dataset"] for row in rows):

        def cell(group: str, attribute: str, dataset: str = dataset) -> str:
            values = [
                r["exact_match"]
                for r in rows
                if (r["dataset"], r["group"], r["attribute"]) == (dataset, group, attribute)
            ]
            return spread(values) if attribute == "mean" else share(mean(values))

        cells = [cell("train", "mean"), f"**{cell('test', 'mean')}**", *(cell("test", a) for a in attributes)]
        lines.append(f"| `{dataset}` | " + " | ".join(cells) + " |")
    seeds = ", ".join(str(summary["seed"]) for summary in summaries)
    minutes = sum(summary["seconds"] for summary in summaries) / len(summaries) / 60
    questions = next(r["questions"] for r in rows if (r["group"], r["attribute"]) == ("test", "mean"))
    lines.append("")
    lines.append(
        f"Questions answered exactly ({questions} of each group); the columns on the right are P_test by attribute. "
        f"Seed{'s' if len(names) > 1 else ''} {seeds}; {minutes:.1f} minutes of training on two CPU cores; "
        f"`{config['command']}`; engramlab {config['commit']}."
    )
    return "\n".join(lines)


def sixteen(*names: str) -> str:
    """Extraction and Q-probing of every corpus variant of sweeps, each with its own seeds, and how the two go together."""
    found = [load(name) for name in names]
    rows = [
        row for summary, _ in found for row in summary["rows"] if (row["group"], row["attribute"]) == ("test", "mean")
    ]
    probed = [row for summary, _ in found for row in summary["probing"] if row["target"] == "whole"]
    lines = []
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        asked = [row["exact_match"] for row in rows if row["dataset"] == dataset]
        read = [row for row in probed if row["dataset"] == dataset]
        theirs = published(dataset, "finetune")
        lines.append(
            [
                f"`{dataset}`",
                spread(asked),
                "" if theirs is None else f"{100 * theirs.exact_match:.1f} %",
                *(share(mean(row[name] for row in read)) for name in ("accuracy", "majority")),
            ]
        )
    rho = correlations_over_cells([row for summary, _ in found for row in summary["probing"]])
    told = "; ".join(
        f"{'whole values' if one['target'] == 'whole' else 'first tokens'} ρ = {one['rho']:.2f} "
        f"[{one['low']:.2f}, {one['high']:.2f}] over {one['points']} points, {one['by_dataset']['rho']:.2f} "
        f"[{one['by_dataset']['low']:.2f}, {one['by_dataset']['high']:.2f}] over the {one['by_dataset']['points']} corpora"
        for one in rho
    )
    people = found[0][1]["config"]["options"]["people"]
    note = (
        f"{people} people, P_test; mean (lowest–highest) of seeds {seeds(found)} where there is more than one. Q-probing: "
        f"whole values, mean over five attributes; majority: of always naming the commonest. Paper: {SOURCE}, 100,000 people, "
        "124M parameters, answers written with 4 beams; here greedily. Spearman's rank correlation of Q-probing and extraction "
        "over corpora × attributes, and with "
        f"attributes averaged, 95 % bootstrap over points: {told}."
    )
    heads = ["corpus", "extraction", "paper", "Q-probing", "majority"]
    return "\n".join([*table(heads, lines), "", f"{note} {made_by(found)}"])


def spread(values: list[float]) -> str:
    """Mean, and lowest and highest where there are several."""
    middle = share(mean(values))
    return middle if len(values) == 1 else f"{middle} ({100 * min(values):.0f}–{100 * max(values):.0f})"


def seeds(found: list[Kept]) -> str:
    """The seeds of runs and sweeps."""
    return ", ".join(map(str, sorted({row["seed"] for summary, _ in found for row in summary.get("cells", [summary])})))


def before_attributes(name: str) -> str:
    """P-probing of whole values right behind the name and, where the order is fixed, just before each value."""
    summary, config = load(name)
    rows = [row for row in summary["rows"] if (row["probe"], row["target"], row["control"]) == ("P", "whole", False)]
    lines = []
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        of = [row for row in rows if row["dataset"] == dataset]
        first = [row for row in of if row["position"] == 0]
        own = [row["accuracy"] for row in of if row["position"] == ATTRIBUTES.index(row["attribute"])]
        lines.append(
            [
                f"`{dataset}`",
                *(share(mean(row[key] for row in first)) for key in ("majority", "accuracy")),
                "–" if "permute" in dataset else share(mean(own)),
                share(mean(row["extraction"] for row in first)),
            ]
        )
    note = f"Whole values, P_test, mean over five attributes; seed {summary['seed']}."
    heads = ["corpus", "majority", "right behind the name", "just before the value itself", "extraction"]
    return "\n".join([*table(heads, lines), "", f"{note} {made_by([(summary, config)])}"])


def swept(*names: str) -> str:
    """Extraction of the cells of sweeps, by corpus and by what is swept over; means and ranges over seeds."""
    found = [load(name) for name in names]
    rows = [row for summary, _ in found for row in summary["rows"]]
    attributes = [a for a in dict.fromkeys(row["attribute"] for row in rows) if a != "mean"]
    lines = []
    for dataset, over in dict.fromkeys((row["dataset"], row.get("over", "")) for row in rows):
        shares = {
            key: [
                row["exact_match"]
                for row in rows
                if (row["dataset"], row.get("over", ""), row["group"], row["attribute"]) == (dataset, over, *key)
            ]
            for key in [("train", "mean"), ("test", "mean"), *(("test", a) for a in attributes)]
        }
        cells = [spread(shares["train", "mean"]), f"**{spread(shares['test', 'mean'])}**"]
        cells += [share(mean(shares["test", a])) for a in attributes]
        lines.append(
            [f"`{dataset}`", *([over.replace("=", " ")] if any("over" in row for row in rows) else []), *cells]
        )
    heads = ["corpus", *(["swept over"] if any("over" in row for row in rows) else []), "P_train", "**P_test**"]
    heads += [a.replace("_", " ") for a in attributes]
    note = f"Questions answered exactly; the columns on the right are P_test by attribute. Seeds {seeds(found)}."
    return "\n".join([*table(heads, lines), "", f"{note} {made_by(found)}"])


def ranks(name: str) -> str:
    """P_test of each pair of ranks in a grid of finetunings of one pretraining, the best of the learning rates tried."""
    summary, config = load(name)
    rows = [row for row in summary["grid"] if (row["group"], row["attribute"]) == ("test", "mean")]
    best: dict[tuple[int, object], float] = {}
    for row in rows:
        place = row["lora_rank"], row["embedding_rank"] if row["lora_rank"] else "full"
        best[place] = max(best.get(place, 0.0), row["exact_match"])
    columns = sorted({c for _, c in best}, key=lambda c: (c == "full", c if isinstance(c, int) else 0))
    lines = [
        [str(rank) if rank else "full", *(share(best[rank, c]) if (rank, c) in best else "–" for c in columns)]
        for rank in sorted({rank for rank, _ in best}, key=lambda rank: rank or 10**9)
    ]
    heads = ["rank of query and value", *(f"embedding {c}" for c in columns)]
    dataset = rows[0]["dataset"]
    note = f"`{dataset}`, P_test answered exactly, the best of the learning rates tried; seed {summary['seed']}."
    return "\n".join([*table(heads, lines), "", f"{note} {made_by([(summary, config)])}"])


def probed(*names: str) -> str:
    """Q-probing, and P-probing right behind the name, beside extraction, by corpus; means over attributes."""
    found = [load(name) for name in names]
    rows = [row for summary, _ in found for row in summary["rows"] if not row["control"] and not row["position"]]
    lines = []
    for part, probe in dict.fromkeys((row["part"], row["probe"]) for row in rows):
        of = [row for row in rows if (row["part"], row["probe"]) == (part, probe)]
        cells = []
        for target in ("first", "whole"):
            chosen = [row for row in of if row["target"] == target]
            cells += [share(mean(row[key] for row in chosen)) if chosen else "–" for key in ("majority", "accuracy")]
        asked = [row["extraction"] for row in of if row["target"] == "whole" and row["extraction"] is not None]
        lines.append([f"`{part}`", probe, *cells, share(mean(asked)) if asked else "–"])
    heads = ["corpus", "probe", "majority, first tokens", "read", "majority, whole values", "read", "extraction"]
    note = f"P_test (of celebrities' corpora the minority), means over attributes; seed {seeds(found)}."
    return "\n".join([*table(heads, lines), "", f"{note} {made_by(found)}"])


def closer(name: str, trained: str) -> str:
    """P-probing of the second value of each pair, by whether the text has stated the first."""
    summary, config = load(name)
    every = [row for row in summary["closer"] if row["target"] == "whole" and row["second"]]
    several = len({row["dataset"] for row in every}) > 1
    lines = []
    for dataset, attribute in dict.fromkeys((row["dataset"], row["attribute"]) for row in every):
        of = [row for row in every if (row["dataset"], row["attribute"]) == (dataset, attribute)]
        extraction = {
            r["attribute"]: r["extraction"]
            for r in summary["rows"]
            if (r["target"], r["dataset"]) == ("whole", dataset)
        }
        shares = []
        for stated in (False, True):
            chosen = [row for row in of if (row["partner"] in row["seen"]) == stated]
            right = sum(row["accuracy"] * row["examples"] for row in chosen)
            shares.append(share(right / sum(row["examples"] for row in chosen)) if chosen else "–")
        first, second = (value.replace("_", " ") for value in (of[0]["partner"], attribute))
        lines.append([*([f"`{dataset}`"] if several else []), first, second, *shares, share(extraction[attribute])])
    heads = ["first of the pair", "second", "read before the first is stated", "after", "second, extraction"]
    heads = [*(["corpus"] if several else []), *heads]
    named = "" if several else f"`{every[0]['dataset']}`, w"
    note = f"{named or 'W'}hole values, P_test, where the second is still to come; seed {summary['seed']}."
    return "\n".join([*table(heads, lines), "", f"{note} {made_by([load(trained), (summary, config)])}"])


def asked(*names: str) -> str:
    """Questions about P_test answered exactly, by attribute, in several runs; what is alike in all of them is left out."""
    found = [load(name) for name in names]
    rows = [(config["config"], row) for summary, config in found for row in summary["rows"] if row["group"] != "train"]
    attributes = list(dict.fromkeys(row["attribute"] for _, row in rows))
    lines: dict[tuple[str, ...], list[str]] = {}
    for config, row in rows:
        others, share_of = "–", "–"
        if "+CEL" in row["dataset"] or "+TEXT" in row["dataset"]:
            others = f"{config['celebrities']} celebrities" if "+CEL" in row["dataset"] else "text"
            own = config.get("text_share") if "+TEXT" in row["dataset"] else None  # the texts' part, if it was given
            share_of = share(config["minority_share"] if own is None else 1 - own)
        key = (
            f"`{row['dataset']}`",
            config["mode"],
            str(config["people"]),
            others,
            share_of,
            f"{config['pretrain']['steps']:,}",
            row.get("people", "people"),
        )
        lines.setdefault(key, []).append(share(row["exact_match"]))
    heads = ["corpus", "training", "people", "read beside them", "people's rows", "steps", "asked about"]
    kept = [k for k in range(len(heads)) if not k or len({key[k] for key in lines}) > 1]
    cells = [[*(key[k] for k in kept), *values] for key, values in lines.items()]
    heads = [*(heads[k] for k in kept), *(name.replace("_", " ") for name in attributes)]
    note = f"Answered exactly, of people whose questions were never trained on; seed {seeds(found)}."
    return "\n".join([*table(heads, cells), "", f"{note} {made_by(found)}"])


READ_BEFORE = (
    " **Measured by an earlier rule**: on texts drawn anew, of which most had been read in training where the order is fixed "
    "(64 texts a person) and of bioD (120); `results/capacity.sh` makes the runs that take its place."
)


def read_before(summary: dict[str, Any]) -> bool:
    """Was the run made before measured texts were kept out of training?"""
    return any("read_in_training" not in row for row in summary["rows"])


def capacity(*names: str) -> str:
    """Bits stored, by model, corpus and people, of those runs that are kept; means where runs differ in their seed alone."""
    found = [load(name) for name in names if (HERE / name / "summary.json").exists()]
    if not found:
        return f"{ABSENT} `results/capacity.sh` has the commands."
    lines, first = [], {}
    earlier = any("ratio" not in row for summary, _ in found for row in summary["rows"])
    for (run, size, arm, people, _), rows in _by_seeds(found).items():
        one, bits = rows[0], mean(row["bits_per_parameter"] for row in rows)
        base = first.setdefault((run, size, people), bits)
        spread = of_seeds([row["bits_per_parameter"] for row in rows])
        lines.append(
            [
                ", ".join(filter(None, (size, arm))),
                one.get("corpus", "bioS^simple"),
                *(f"{mean(row[key] for row in rows):,.0f}" for key in ("people", "exposures", "parameters", "bits")),
                share(mean(row["share"] for row in rows)),
                f"{bits:.2f}" + (f" [{spread.low:.2f}, {spread.high:.2f}]" if spread else ""),
                f"{mean(row['bits_per_body_parameter'] for row in rows):.2f}",
                *(
                    f"{mean(row[key] for row in rows):.2f}" if key in one else "–"
                    for key in ("ratio", "ratio_theorem", "ratio_most")
                ),
                f"{bits / base:.2f} ×" if base and arm else "",
            ]
        )
    heads = [
        *("model", "corpus", "people", "exposures", "parameters", "bits stored", "of all there is", "bits a parameter"),
        *("without embeddings", "R of the paper", "by its theorem", "its Rmax", "beside the plain one"),
    ]
    kept = [k for k in range(len(heads)) if any(line[k] not in ("", "–") for line in lines)]
    note = f"At least; seed {seeds(found)}."
    if len(lines) < sum(len(summary["rows"]) for summary, _ in found):
        note += " Means over seeds; in brackets Student's 95 % interval."
    if earlier:
        note += (
            " **Counted by an earlier definition**: names by N0 where the theorem has N0 - N, some hundred bits more, "
            "values on a text that was trained on, no gender; `results/capacity.sh` makes the runs that take its place."
        )
    elif any(read_before(summary) for summary, _ in found):
        note += READ_BEFORE
    rows = [[line[k] for k in kept] for line in lines]
    return "\n".join([*table([heads[k] for k in kept], rows), "", f"{note} {made_by(found)}"])


def _by_seeds(found: list[Kept]) -> dict[tuple[str, str, str, int, int], list[dict[str, Any]]]:
    """Rows of capacity by their run but for its seed, size, arm, people and exposures."""
    groups: dict[tuple[str, str, str, int, int], list[dict[str, Any]]] = {}
    for summary, config in found:
        run = repr({name: value for name, value in config["config"].items() if name not in ("seed", "seeds")})
        for row in summary["rows"]:
            about = (row["size"], row.get("arm", ""), row["people"], row["exposures"])
            groups.setdefault((run + row.get("over", ""), *about), []).append(row)
    return groups


def capacity_terms(name: str) -> str:
    """What is stored of bioD, by the theorem's three terms and by ours."""
    if not (HERE / name / "summary.json").exists():
        return f"{ABSENT} `results/capacity.sh` has the commands."
    summary, config = load(name)
    keys = ("people", "exposures", "parameters", "paper_name", "paper_value", "paper_diversity", "bits_theorem", "bits")
    lines = [
        [row["size"], *(f"{row[key]:,.0f}" for key in keys), *(f"{row[k]:.2f}" for k in ("ratio", "ratio_most"))]
        for row in summary["rows"]
    ]
    heads = ["model", "people", "exposures", "parameters", "names", "values", "diversity", "the theorem's bits", "ours"]
    shape = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in config["config"]["biod"].items())
    note = f"Bits; {shape}; seed {summary['seed']}." + READ_BEFORE * read_before(summary)
    drawn = table([*heads, "R of the paper", "its Rmax"], lines)
    return "\n".join([*drawn, "", f"{note} {made_by([(summary, config)])}"])
