"""The demo's result as a picture: held-out questions answered, by corpus and attribute, drawn from ``results/demo*``."""

from __future__ import annotations

from html import escape
from statistics import mean

from kept import HERE, load

FILE = HERE.parent / "docs" / "assets" / "demo.svg"
COLOURS = {"single": "#9aa5b1", "multi5+permute": "#0072b2"}  # told apart by lightness too
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 760, 300, 44, 64, 248


def picture() -> str:
    """SVG of P_test by attribute for the demo's two corpora, mean over its seeds."""
    rows = [row for name in ("demo", "demo-1") for row in load(name)[0]["rows"] if row["group"] == "test"]
    attributes = ["mean", *dict.fromkeys(row["attribute"] for row in rows if row["attribute"] != "mean")]
    step = (WIDTH - LEFT - 8) / len(attributes)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        "<title>Held-out questions answered after reading one wording of every biography, and five</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="22" font-size="15" font-weight="bold">Same people, same network, same steps</text>',
    ]
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = BOTTOM - share * (BOTTOM - TOP)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 8}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e3e7eb"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#555">{share:.0%}</text>')
    for k, (corpus, colour) in enumerate(COLOURS.items()):
        told = {"single": "one wording, read again and again", "multi5+permute": "five wordings, sentences shuffled"}[
            corpus
        ]
        parts.append(f'<rect x="{LEFT + 300 * k}" y="36" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{LEFT + 18 + 300 * k}" y="46">{escape(corpus)}: {told}</text>')
    for a, attribute in enumerate(attributes):
        for k, (corpus, colour) in enumerate(COLOURS.items()):
            value = mean(r["exact_match"] for r in rows if (r["dataset"], r["attribute"]) == (corpus, attribute))
            height = value * (BOTTOM - TOP)
            x = LEFT + a * step + step / 2 - 37 + 38 * k
            parts.append(
                f'<rect x="{x:.1f}" y="{BOTTOM - height:.1f}" width="36" height="{height:.1f}" fill="{colour}"/>'
            )
            middle, above = x + 18, BOTTOM - height - 5
            parts.append(f'<text x="{middle:.1f}" y="{above:.1f}" text-anchor="middle">{100 * value:.0f}</text>')
        weight = ' font-weight="bold"' if attribute == "mean" else ""
        name = escape(attribute.replace("_", " "))
        parts.append(f'<text x="{LEFT + (a + 0.5) * step:.1f}" y="266" text-anchor="middle"{weight}>{name}</text>')
    parts.append(
        f'<text x="{LEFT}" y="290" fill="#555">Questions about people whose biographies were read and whose questions were '
        "not; per cent answered exactly, mean of two seeds</text></svg>"
    )
    return "\n".join(parts) + "\n"
