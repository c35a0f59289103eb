"""The README's tables, from the results kept here.

    python results/tables.py            # print them
    python results/tables.py --write    # put them between their markers in README.md

Each folder under ``results/`` holds the summary.json of a run and its config.json, which names the command, seed, versions and
commit that made it. ``make demo`` makes the first; the commands of the others stand in their config.json.
"""

from __future__ import annotations

import re
import sys

from acquisition_tables import acquisition, forecast
from editing_tables import ablation, continual, editing, sweep
from kept import HERE
from storage_tables import asked, before_attributes, capacity, closer, extraction, sixteen

README = HERE.parent / "README.md"
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
    "capacity": lambda: capacity("capacity"),
    "demo": lambda: extraction("demo", "demo-1"),
    "countries": lambda: extraction("countries"),
}


def main() -> None:
    text = README.read_text()
    for name, build in TABLES.items():
        if f"<!-- {name} table -->" not in text:
            continue
        table = f"<!-- {name} table -->\n{build()}\n<!-- end -->"
        print(table + "\n")
        # Up to its own end, never to that of a later table.
        place = rf"<!-- {name} table -->((?:(?!<!-- ).)*<!-- end -->)?"
        text = re.sub(place, lambda _, t=table: t, text, count=1, flags=re.DOTALL)
    if "--write" in sys.argv:
        README.write_text(text)


if __name__ == "__main__":
    main()
