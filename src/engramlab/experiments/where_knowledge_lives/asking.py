"""What is asked, what stands before the questions, and a way's line of numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from engramlab.base import bootstrap
from engramlab.base.facts import Fact
from engramlab.base.likeness import WordIndex
from engramlab.base.rows import Row
from engramlab.core.text.passages import Asked, prompts
from engramlab.corpora.facts import FactTable
from engramlab.experiments.where_knowledge_lives import data as made
from engramlab.experiments.where_knowledge_lives.texts import Texts
from engramlab.measuring.answers import is_answer
from engramlab.measuring.reading import written

#: What a way reads for questions, and whether it is the subject's own document (None: nothing is retrieved).
Find = Callable[[Sequence[Asked]], tuple[list[Asked], list[bool] | None]]


def as_they_are(asked: Sequence[Asked]) -> tuple[list[Asked], list[bool] | None]:
    """Nothing stands before the questions."""
    return list(asked), None


class Examiner(Texts):
    """Asks."""

    def _answers(
        self, model: nn.Module, way: str, when: str, find: Find = as_they_are, ids: Sequence[int] = ()
    ) -> tuple[list[Row], dict[str, float]]:
        """What is written to every question, a row each, and what a question about the facts put in costs."""
        found: list[Row] = []
        cost: dict[str, float] = {}
        for group, asked in zip(("put in", "known before"), self.asked, strict=True):
            began = time.monotonic()
            read, own = find(asked)
            said = written(model, self.tokenizer, read, ids, new_tokens=self.config.new_tokens)
            if group == "put in":
                rows = prompts(self.tokenizer, read, ids)
                cost = {
                    "question_seconds": (time.monotonic() - began) / len(asked),
                    "question_tokens": float(np.mean([len(row) for row in rows])),
                }
            found += [
                {"way": way, "when": when, "group": group, "subject": one.subject, "question": one.question}
                | {"answers": list(one.answers), "written": text, "right": is_answer(text, one.answers)}
                | {"own": None if own is None else own[i]}
                for i, (one, text) in enumerate(zip(asked, said, strict=True))
            ]
        return found, cost

    def _says(self, model: nn.Module, fact: Fact, new: str, find: Find = as_they_are, ids: Sequence[int] = ()) -> float:
        """Share of the held-out questions about a changed fact to which the new object is written."""
        asked = made.questions(self.data.words, [replace(fact, object=new, aliases=())], "held-out")
        said = written(model, self.tokenizer, find(asked)[0], ids, new_tokens=self.config.new_tokens)
        return float(np.mean([is_answer(text, one.answers) for text, one in zip(said, asked, strict=True)]))

    def _row(self, way: str, before: Sequence[Row], after: Sequence[Row], **costs: Any) -> Row:
        """A way's line: what is answered, against the same questions before, what is forgotten, and what it costs."""
        seed = self.config.seed
        found: Row = {"way": way, **costs}
        for group, name in (("put in", "right"), ("known before", "known")):
            a, b = ([row for row in of if row["group"] == group] for of in (before, after))
            subjects = np.array([row["subject"] for row in b])
            was, now = (np.array([float(row["right"]) for row in of]) for of in (a, b))
            found |= {f"{name}_before": float(was.mean()), f"{name}_questions": len(b)}
            found |= bootstrap.ranged(now, subjects, seed, name) | bootstrap.ranged(
                now - was, subjects, seed, f"{name}_more"
            )
        own = [row for row in after if row["group"] == "put in" and row["own"] is not None]
        found["source"] = found["source_low"] = found["source_high"] = None
        if own:
            hits = np.array([float(row["own"]) for row in own])
            found |= bootstrap.ranged(hits, np.array([row["subject"] for row in own]), seed, "source")
        return found

    def _retriever(self, stated: dict[str, str]) -> Find:
        """Puts the passage that shares the most words with a question before it."""
        names, listed = list(stated), list(stated.values())
        index = WordIndex(listed)

        def find(asked: Sequence[Asked]) -> tuple[list[Asked], list[bool] | None]:
            at = [index.nearest(one.question, 1)[0] for one in asked]
            found = [replace(one, passages=(listed[i],)) for one, i in zip(asked, at, strict=True)]
            return found, [names[i] == one.subject for one, i in zip(asked, at, strict=True)]

        return find

    def _changed(self) -> Iterator[tuple[Fact, str, FactTable]]:
        for fact, new in self.data.changes:
            yield fact, new, made.after(self.data.taught, fact, new)
