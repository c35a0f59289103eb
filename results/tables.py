"""The tables of README and docs, from the results kept here.

    python results/tables.py            # which pages are out of date
    python results/tables.py --write    # draw every table between its markers anew

Each folder under ``results/`` holds the summary.json of a run and its config.json, which names the command, seed, versions and
commit that made it. ``make demo`` makes the first; the commands of the others stand in their config.json.
"""

from __future__ import annotations

import re
import sys

from acquisition_tables import acquisition, forecast
from bench_table import bench
from editing_tables import ablation, continual, editing, sweep
from kept import HERE
from picture import FILE, picture
from storage_tables import asked, before_attributes, capacity, closer, extraction, sixteen

ROOT = HERE.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
TABLES = {
    "editing single teacher-forced": lambda: editing("teacher-forced", "editing-single-"),
    "editing single generated": lambda: editing("generated", "editing-single-"),
    "editing tuned teacher-forced": lambda: editing("teacher-forced", "editing-tuned-"),
    "editing continual teacher-forced": lambda: continual("teacher-forced"),
    "editing continual generated": lambda: continual("generated"),
    "editing sweep": sweep,
    "editing ablation": ablation,
    "acquisition tiny": lambda: acquisition("acquisition-tiny"),
    "acquisition again": lambda: acquisition("acquisition-tiny-1"),
    "acquisition batches": lambda: acquisition("acquisition-batches"),
    "acquisition smollm2": lambda: acquisition("acquisition-smollm2"),
    "acquisition forecast": forecast,
    "sixteen": lambda: sixteen("sweep", "sweep-1"),
    "before attributes": lambda: before_attributes("probing-text"),
    "celebrities": lambda: asked(*(f"celebrities-{name}" for name in ("none", "text", "half", "quarter", "sixth"))),
    "closer": lambda: closer("probing-couple", "pairs"),
    "masked": lambda: asked("masked", "masked-longer", "masked-few"),
    "bench": bench,
    "capacity": lambda: capacity("capacity"),
    "demo": lambda: extraction("demo", "demo-1"),
    "countries": lambda: extraction("countries"),
}


def drawn(text: str) -> str:
    """A page with every table between its markers drawn anew; raises KeyError for a table nobody draws."""

    def draw(marker: re.Match[str]) -> str:
        return f"<!-- {marker[1]} table -->\n{TABLES[marker[1]]()}\n<!-- end -->"

    # Up to its own end, never to that of a later table.
    return re.sub(r"<!-- ([\w -]+?) table -->(?:(?:(?!<!-- ).)*<!-- end -->)?", draw, text, flags=re.DOTALL)


def main() -> None:
    for page in PAGES:
        text = page.read_text()
        new = drawn(text)
        if new != text and "--write" in sys.argv:
            page.write_text(new)
        if new != text:
            print(f"{page.relative_to(ROOT)}: {'drawn anew' if '--write' in sys.argv else 'is out of date'}")
    if "--write" in sys.argv:
        FILE.write_text(picture())


if __name__ == "__main__":
    main()
