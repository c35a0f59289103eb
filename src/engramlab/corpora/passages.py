"""Passages to be learnt, their paraphrases and the queries that measure it; files of them are read by `reading`.

A record of `passages.jsonl` (one a line) or `passages.json` (a list):

    {"id": "mars", "text": "...", "paraphrases": ["...", ...],
     "queries": {"memorization": [{"prompt": "...", "target": "..."}], "semantic": [...], "compositional": [...]}}

`id` and `paraphrases` may be absent. A query may have "text" instead of "prompt": prompt and target in one, which is then
cut where the target stands.

Source: How Do Large Language Models Acquire Factual Knowledge During Pretraining? (arXiv 2406.11813) and its dataset
(`kaist-ai/fictional-knowledge`; Apache-2.0 in the repository, CC-BY-4.0 on the hub card).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from engramlab.base.facts import Query

ROLE = "acquisition"


@dataclass(frozen=True, slots=True)
class PassageRecord:
    """A passage and what belongs to it.

    id: distinct in its file.
    text: the original.
    paraphrases: the same facts in other words.
    queries: `group` is the depth, `role` is "acquisition"; ids are "ID/DEPTH/NUMBER".
    leftovers: for each query what its writer left behind the target; empty where the target ends the text, as it should.
    """

    id: str
    text: str
    paraphrases: tuple[str, ...] = ()
    queries: tuple[Query, ...] = ()
    leftovers: tuple[str, ...] = ()

    def of_depth(self, depth: str) -> tuple[Query, ...]:
        """Its queries of one depth."""
        return tuple(query for query in self.queries if query.group == depth)

    @property
    def versions(self) -> tuple[str, ...]:
        """The original and its paraphrases."""
        return (self.text, *self.paraphrases)


def all_queries(records: Sequence[PassageRecord]) -> tuple[list[Query], list[int]]:
    """The queries of all records one after another, and the number of the record each belongs to."""
    queries = [query for record in records for query in record.queries]
    return queries, [number for number, record in enumerate(records) for _ in record.queries]


def to_json(record: PassageRecord) -> dict[str, Any]:
    """A record as our own format has it; `reading.read_passages` makes the same record of it."""
    queries: dict[str, list[dict[str, Any]]] = {}
    for query, leftover in zip(record.queries, record.leftovers or [""] * len(record.queries), strict=True):
        item: dict[str, Any] = {"prompt": query.prompt, "target": query.target}
        if leftover:
            gap = " " if query.prompt and not query.prompt[-1].isspace() else ""
            item = {"text": query.prompt + gap + query.target + leftover, "target": query.target}
        if query.aliases:
            item["aliases"] = list(query.aliases)
        queries.setdefault(query.group, []).append(item)
    return {"id": record.id, "text": record.text, "paraphrases": list(record.paraphrases), "queries": queries}


def to_jsonl(records: Iterable[PassageRecord]) -> str:
    """The text of a `passages.jsonl`."""
    return "".join(json.dumps(to_json(record), ensure_ascii=False) + "\n" for record in records)
