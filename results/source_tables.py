"""The tables of docs/estimation.md about documents that a model names as its source."""

from __future__ import annotations

from typing import Any

from kept import ABSENT, kept, made_by, percent, table

GROUPS = ("in-domain", "out-of-document")


def sources(prefix: str = "sources-") -> str:
    """A line an arm of every run: answers and named sources of held-out questions, against guessing; and what texts cost."""
    found = kept(prefix)
    if not found:
        return ABSENT
    lines = []
    for summary, config in found:
        texts = {one["dataset"]: one for one in summary["texts"]}
        for name in texts:
            rows = {r["group"]: r for r in summary["rows"] if (r["dataset"], r["ids"]) == (name, "all")}
            out, plain = rows.get("out-of-document", {}), texts[name]
            cells = [_cell(rows.get(group, {}), "hits1") for group in GROUPS]
            cells += [_cell(out, "right1"), _cell(out, "told1"), percent(out.get("answered"))]
            cells += [percent(out.get(f"{kind}1")) for kind in ("guess", "chance")]
            cells += [percent(plain.get("recital")), f"{plain['read']:.3f}"]
            seed = config["config"].get("seed", 0)
            lines.append([f"{name.replace('-', ' ')}, seed {seed}", *cells])
    heads = ["documents read", *GROUPS, "… if answered rightly", "… told the answer", "answered", "guess", "chance"]
    return "\n".join([*table([*heads, "recited", "nats a token"], lines), "", made_by(found)])


def _cell(row: dict[str, Any], name: str) -> str:
    if row.get(name) is None:
        return "–"
    return f"{percent(row[name])} [{percent(row[name + '_low'])}, {percent(row[name + '_high'])}]"
