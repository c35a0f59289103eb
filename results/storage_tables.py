"""The README's tables about storage and extraction."""

from __future__ import annotations

from kept import load, share


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
            middle = share(sum(values) / len(values))
            if len(values) == 1 or attribute != "mean":
                return middle
            return f"{middle} ({100 * min(values):.0f}–{100 * max(values):.0f})"

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
