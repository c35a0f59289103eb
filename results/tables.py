"""The tables of README and docs, from the results kept here.

    python results/tables.py            # which pages are out of date
    python results/tables.py --write    # draw every table between its markers anew

Each folder under ``results/`` holds the summary.json of a run and its config.json, which names the command, seed, versions and
commit that made it. ``make demo`` makes the first; the commands of the others stand in their config.json.
"""

from __future__ import annotations

import re
import sys

import decoding_tables as decoding
import estimation_tables as estimation
import lifecycle_tables as lifecycle
import pitfalls_tables as pitfalls
import retrieval_tables as retrieval
import timed_tables as timed
from acquisition_tables import CLAIMS, acquisition, claims, forecast, popularity
from bench_table import bench, gpu_edits, gpu_training
from cloze_tables import cloze
from editing_tables import ablation, continual, editing, lifelong, overfitting, overtone, sweep
from folding_tables import folding
from kept import HERE, if_any, if_kept
from learning_tables import learning
from picture import FILE, picture
from plug_tables import plug
from source_tables import sources
from storage_tables import (
    asked,
    before_attributes,
    capacity,
    capacity_terms,
    closer,
    extraction,
    probed,
    ranks,
    sixteen,
    swept,
)
from where_tables import where

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
    "editing overfitting": lambda: if_any(overfitting, "overfitting-"),
    "editing overtone teacher-forced": lambda: if_any(lambda: overtone("teacher-forced"), "overtone-"),
    "editing overtone generated": lambda: if_any(lambda: overtone("generated"), "overtone-"),
    "editing lifelong": lambda: if_any(lifelong, "lifelong-"),
    "learning to edit": learning,
    "acquisition tiny": lambda: acquisition("acquisition-tiny"),
    "acquisition again": lambda: acquisition("acquisition-tiny-1"),
    "acquisition batches": lambda: acquisition("acquisition-batches"),
    "acquisition smollm2": lambda: acquisition("acquisition-smollm2"),
    "acquisition forecast": forecast,
    "acquisition claims": lambda: if_kept(claims, *CLAIMS),
    "acquisition sizes": lambda: if_kept(acquisition, "acquisition-sizes"),
    "acquisition stages": lambda: if_kept(acquisition, "acquisition-stages"),
    "acquisition moments": lambda: if_kept(acquisition, "acquisition-moments"),
    "acquisition popularity": lambda: if_kept(popularity, "acquisition-popularity"),
    "audit classes": estimation.classes,
    "audit bios": lambda: estimation.classes("audit-bios"),
    "audit ways": estimation.ways,
    "audit popularity": estimation.popularity,
    "estimation lists": estimation.lists,
    "estimation controls": estimation.controls,
    "sixteen": lambda: sixteen("sweep", "sweep-1"),
    "before attributes": lambda: before_attributes("probing-text"),
    "celebrities": lambda: asked(*(f"celebrities-{name}" for name in ("none", "text", "half", "quarter", "sixth"))),
    "closer": lambda: closer("probing-couple", "pairs"),
    "masked": lambda: asked("masked", "masked-longer", "masked-few"),
    "qa ratio": lambda: if_kept(swept, "sweep-qa"),
    "translation": lambda: if_kept(swept, "sweep-translate"),
    "ranks": lambda: if_kept(ranks, "ranks"),
    "minority probing": lambda: if_kept(probed, "probing-minority"),
    "closer again": lambda: if_kept(closer, "probing-couples", "couples"),
    "gbert": lambda: if_kept(asked, "gbert"),
    "gbert mixed": lambda: if_kept(swept, "sweep-gbert-mixed"),
    "gbert probing": lambda: if_kept(probed, "probing-gbert"),
    "capacity": lambda: capacity("capacity", "capacity-permuted", "capacity-simple", "capacity-1000", "capacity-depth"),
    "capacity kinds": lambda: capacity("capacity-networks", "capacity-quantised", "capacity-junk"),
    "capacity bioD": lambda: capacity_terms("capacity-biod"),
    "bench": bench,
    "gpu training": gpu_training,
    "gpu edits": gpu_edits,
    "demo": lambda: extraction("demo", "demo-1"),
    "countries": lambda: extraction("countries"),
    "cloze": cloze,
    "folding": folding,
    "sources": sources,
    "lifecycle half-lives": lifecycle.half_lives,
    "lifecycle matched": lifecycle.matched,
    "lifecycle name": lifecycle.name,
    "lifecycle wordings": lifecycle.wordings,
    "teaching arms": lifecycle.teaching,
    "teaching kinds": lifecycle.kinds,
    "teaching scratch": lifecycle.scratch,
    "decoding choices": decoding.choices,
    "decoding passages": decoding.passages,
    "decoding speed": decoding.speed,
    "plug-in memory": plug,
    "retrieval tokens": retrieval.tokens,
    "retrieval without": retrieval.without,
    "pitfalls conflicts": pitfalls.conflicts,
    "pitfalls rounds": pitfalls.rounds,
    "propagation": pitfalls.propagation,
    "where": where,
    "timed editing": timed.arms,
    "timed layers": timed.layers,
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
