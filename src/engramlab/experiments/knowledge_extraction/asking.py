"""Asking one dataset's model: along training, and everybody at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from engramlab.base.random_access import key as random_key
from engramlab.base.rows import Row
from engramlab.core.text.assembly import TokenTable
from engramlab.core.text.tokens import Sequences
from engramlab.corpora.datasets import Dataset
from engramlab.experiments.knowledge_extraction.shared import Run
from engramlab.files import records
from engramlab.measuring import extraction

EXAMPLES = 5  # entries kept to look at, and questions kept of each group and attribute


class Asker:
    """One dataset's entries and questions, and whom they are about.

    Attributes:
        entries, asking: the entries and the questions as tokens.
        groups: of those asked about, by name, in the order in which some of them are chosen.
    """

    def __init__(self, run: Run, data: Dataset) -> None:
        self.run, self.data, self.config = run, data, run.config
        self.entries = TokenTable(data.corpus, run.tokenizer)
        self.asking = TokenTable(data.questions, run.tokenizer)
        for what, tokenised in (("entries", self.entries), ("questions", self.asking)):
            if tokenised.fallback:
                run.say(f"{data.name}: {what} are tokenised as text ({tokenised.fallback})")
        rng = np.random.default_rng(random_key(self.config.seed, "evaluated"))
        self.groups = {name: rng.permutation(members) for name, members in data.split.groups.items()}

    def _chosen(self, each: int) -> tuple[np.ndarray, np.ndarray]:
        """Up to ``each`` subjects of every group (counted from the first asked about), and the names of their groups."""
        chosen = {name: members[:each] for name, members in self.groups.items()}
        return np.concatenate([*chosen.values()]), np.repeat([*chosen], [len(members) for members in chosen.values()])

    def _asked(self, each: int) -> tuple[extraction.Asked, np.ndarray]:
        """Questions about up to ``each`` subjects of every group, and their numbers."""
        subjects, groups = self._chosen(each)
        questions = self.data.questions
        about = subjects + questions.subjects.start
        numbers, group_of = questions.entries(about), dict(zip(about.tolist(), groups.tolist(), strict=True))
        # A masked model is asked for the answer's tokens alone: how many there are it is told.
        counts = 0 if self.run.masked else 1
        sequences = self.asking.tokens(numbers).wrapped(self.run.start, [self.run.end], suffix_mark=counts)
        marked = extraction.Asked(
            Sequences(sequences.ids, sequences.offsets, np.maximum(sequences.marks, 0)),
            questions.attribute(numbers),
            np.array([group_of[subject] for subject in questions.subject(numbers).tolist()]),
            tuple(questions.attributes),
        )
        return marked, numbers

    def _read(self, each: int) -> tuple[Sequences, np.ndarray]:
        """The first entries about up to ``each`` subjects of every group, and the names of their groups."""
        subjects, groups = self._chosen(each)
        firsts = self.data.corpus.first_entry(subjects + self.data.questions.subjects.start)
        return self.entries.tokens(firsts).wrapped(self.run.start, [self.run.end]), groups

    def tokens_right(self, model: nn.Module) -> dict[str, float]:
        """How much of the next tokens of entries it has learnt, and of values': what the paper reads a pretraining's end by."""
        return extraction.tokens_right(model, self._read(self.config.evaluated_people)[0])

    def along(self, model: nn.Module) -> list[Row]:
        """First-token and whole-value accuracies of entries and questions, for every group: the "study to pass the test"
        curve."""
        entries, groups = self._read(self.config.evaluated_people)
        rows = extraction.values_in_entries(model, entries, groups, self.data.corpus.attributes)
        asked, _ = self._asked(self.config.evaluated_people)
        found, _ = extraction.ask(model, asked)
        return rows + [
            {"corpus": "qa", **{k: r[k] for k in ("group", "attribute", "first_token", "exact_match")}} for r in found
        ]

    def ask(self, model: nn.Module, folder: Path) -> dict[str, Any]:
        """The final accuracy; examples with the model's own answers go to ``examples.json``."""
        asked, numbers = self._asked(self.config.asked_people)
        rows, scores = extraction.ask(model, asked)
        longest = int(np.diff(scores.offsets).max())  # of all answers, the end token included
        questions = self.data.questions
        if self.config.beams > 1:
            queries = [questions.query(int(n)) for n in numbers]
            written = extraction.answers(
                model, self.run.tokenizer, [q.prompt for q in queries], beams=self.config.beams, longest=longest
            )
            right = np.array([a == q.target for a, q in zip(written, queries, strict=True)])
            for row, other in zip(rows, asked.rows({"generated": right}), strict=True):
                row["generated"] = other["generated"]
        chosen = np.concatenate([np.flatnonzero(where)[:EXAMPLES] for _, _, where in asked.groups()])
        queries = [questions.query(int(n)) for n in numbers[chosen]]
        if self.run.masked:
            said = extraction.named(self.run.tokenizer, scores)
            written = [said[i] for i in chosen]
        else:
            written = extraction.answers(model, self.run.tokenizer, [q.prompt for q in queries], longest=longest)
        examples = {
            "entries": [self.data.corpus.passage(i).text for i in range(min(EXAMPLES, len(self.data.corpus)))],
            "answers": [
                {
                    "group": q.group,
                    "attribute": q.relation,
                    "prompt": q.prompt,
                    "gold": q.target,
                    "answer": answer,
                    "correct": answer == q.target,
                }
                for q, answer in zip(queries, written, strict=True)
            ],
        }
        records.write_record(folder / "examples.json", examples)
        return {"rows": rows}
