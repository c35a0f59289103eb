"""The files behind the tables of docs/teaching.md. python results/people.py FOLDER writes there:

invented.csv: 32 made-up people, for models that have heard of none of them.
old.csv, replay.jsonl: those that the network of `run knowledge-extraction --preset tiny-mixed --variants multi5+permute` knows
and whose questions it was not trained on; and its training text, with the questions it was trained on.
new.csv, questions.tsv, templates/: 100 people that it does not know, and the wordings that it does.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from engramlab.corpora.datasets import dataset
from engramlab.corpora.layout import Population
from engramlab.corpora.people import QUESTIONS
from engramlab.experiments.knowledge_extraction.presets import PRESETS

KNOWN, NEW, INVENTED = 300, 100, 32
TEMPLATES = Path(__file__).parents[1] / "src/engramlab/corpora/templates/bios"


def main() -> None:
    out = Path(sys.argv[1])
    (out / "templates").mkdir(parents=True, exist_ok=True)
    config = PRESETS["tiny-mixed"]
    assert config.people == KNOWN
    data = dataset(config, "multi5+permute")
    more = dataset(replace(config, people=KNOWN + NEW), "multi5+permute").questions.population
    held = np.flatnonzero(~data.split.is_train(np.arange(KNOWN)))
    assert all(more.name(n) == data.questions.population.name(n) for n in range(KNOWN))
    write(out / "old.csv", more, held.tolist(), more.attributes)
    write(out / "new.csv", more, range(KNOWN, KNOWN + NEW), more.attributes)
    others = dataset(replace(config, people=INVENTED, seed=7), "multi5+permute").questions.population
    write(out / "invented.csv", others, range(INVENTED), ("employer", "birth_city"))
    texts = [data.corpus.passage(n).text for n in range(len(data.corpus))]
    asked = [
        data.questions.passage(n).text
        for n in range(len(data.questions))
        if data.split.is_train(data.questions.subject([n]))[0]
    ]
    order = np.random.default_rng(0).permutation(len(texts) + len(asked))
    lines = [json.dumps({"text": [*texts, *asked][n]}) + "\n" for n in order]
    (out / "replay.jsonl").write_text("".join(lines), encoding="utf-8")
    (out / "questions.tsv").write_text("".join(f"{a}\t{QUESTIONS[a]}\n" for a in more.attributes), encoding="utf-8")
    for name in more.attributes:
        found = (TEMPLATES / f"{name}.txt").read_text(encoding="utf-8").splitlines()
        (out / "templates" / f"{name}.txt").write_text(
            "\n".join(found[: config.first_templates]) + "\n", encoding="utf-8"
        )


def write(path: Path, people: Population, numbers: Iterable[int], attributes: Iterable[str]) -> None:
    named = list(attributes)
    columns = [people.attributes.index(a) for a in named]
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["name", *named])
        rows.writerows([people.name(n), *(people.value(n, a) for a in columns)] for n in numbers)


if __name__ == "__main__":
    main()
