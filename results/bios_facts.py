"""The table behind `audit-bios-*`: the people of `make demo` whose questions are never trained, and bioS' questions.

python results/bios_facts.py FOLDER writes test.csv and questions.tsv there; the networks are those of runs/demo.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np

from engramlab.corpora.datasets import dataset, halved
from engramlab.corpora.people import QUESTIONS
from engramlab.experiments.knowledge_extraction.presets import PRESETS


def main() -> None:
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    config = PRESETS["tiny"]
    data, split = halved(dataset(config, "single"), config.seed)
    people, names, first = data.questions.population, data.questions.attributes, data.questions.subjects.start
    others = first + np.flatnonzero(~split.is_train(np.arange(split.subjects)))
    with (out / "test.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["name", *names])
        rows.writerows([people.name(s), *(people.value(s, a) for a in range(len(names)))] for s in others.tolist())
    lines = [f"{name}\t{QUESTIONS[name]}\n" for name in names]
    (out / "questions.tsv").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
