"""Passages to be learnt, their paraphrases and the queries that measure it: reading, writing and checking them.

A record of `passages.jsonl` (one a line) or `passages.json` (a list):

    {"id": "mars", "text": "...", "paraphrases": ["...", ...],
     "queries": {"memorization": [{"prompt": "...", "target": "..."}], "semantic": [...], "compositional": [...]}}

`id` and `paraphrases` may be absent. A query may have "text" instead of "prompt": prompt and target in one, which is then
cut where the target stands. The files of the dataset FICTIONAL KNOWLEDGE are read as they are.

Source: How Do Large Language Models Acquire Factual Knowledge During Pretraining? (arXiv 2406.11813) and its dataset
(`kaist-ai/fictional-knowledge`; Apache-2.0 in the repository, CC-BY-4.0 on the hub card).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engramlab.base.errors import UserError, nearest
from engramlab.base.facts import Query
from engramlab.base.rows import DEPTHS
from engramlab.files.tables import read_text

ROLE = "acquisition"
KEYS = ("id", "text", "paraphrases", "queries")
QUERY_KEYS = ("prompt", "text", "target", "aliases")
#: The dataset's names for the depths: `mem_input` and `mem_target` are lists of the same length.
FICTIONAL_KNOWLEDGE = {"memorization": "mem", "semantic": "gen", "compositional": "hard_gen"}


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


def read_passages(path: str | Path) -> list[PassageRecord]:
    """Reads passages in our own format or FICTIONAL KNOWLEDGE's, from .jsonl, .ndjson or .json.

    Raises:
        UserError: the file is missing, of another kind or without records; a record lacks a key, has one of another type or
            an unknown one; an id is there twice; a query's text does not hold its target. Names file, record and key.
    """
    path = Path(path)
    records: list[PassageRecord] = []
    places: dict[str, str] = {}
    for number, (place, record) in enumerate(_json_records(path)):
        where = f"{path}, {place}"
        made = _dataset_record(record, where, number) if "train_context" in record else _record(record, where, number)
        if made.id in places:
            raise UserError(f"{where}, key 'id': {made.id!r} is also the id of {places[made.id]}; give each its own")
        places[made.id] = place
        records.append(made)
    if not records:
        raise UserError(f"{path}: there are no passages; write one record each, with the keys {', '.join(KEYS)}")
    return records


def to_json(record: PassageRecord) -> dict[str, Any]:
    """A record as our own format has it; `read_passages` makes the same record of it."""
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


def _json_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    kind = path.suffix.lower()
    if kind not in (".json", ".jsonl", ".ndjson"):
        raise UserError(f"{path}: cannot read passages from a file that ends in {kind!r}; use .jsonl or .json")
    text = read_text(path)
    pieces = [("", text)] if kind == ".json" else [(f"line {n}", line) for n, line in enumerate(text.split("\n"), 1)]
    for place, piece in pieces:
        if kind != ".json" and not piece.strip():
            continue
        try:
            value = json.loads(piece)
        except ValueError as error:
            raise UserError(f"{path}{', ' if place else ''}{place}: not JSON ({error})") from None
        found = [(place, value)]
        if kind == ".json":
            if not isinstance(value, list):
                raise UserError(f"{path}: must hold a list of records, not {type(value).__name__}")
            found = [(f"record {n}", item) for n, item in enumerate(value, 1)]
        for at, item in found:
            if not isinstance(item, dict):
                raise UserError(
                    f"{path}, {at}: {str(item)[:40]!r} is no record; write an object with {', '.join(KEYS)}"
                )
            yield at, item


def _record(record: Mapping[str, Any], where: str, number: int) -> PassageRecord:
    _check_keys(record, KEYS, where)
    name = _text(record, "id", where) if "id" in record else str(number)
    grouped = record.get("queries", {})
    if not isinstance(grouped, dict):
        raise UserError(f"{where}, key 'queries': must be an object with the keys {', '.join(DEPTHS)}")
    _check_keys(grouped, DEPTHS, f"{where}, key 'queries'")
    queries: list[Query] = []
    leftovers: list[str] = []
    for depth in DEPTHS:
        items = grouped.get(depth, [])
        if not isinstance(items, list):
            raise UserError(f"{where}, key {depth!r}: must be a list of queries")
        for k, item in enumerate(items):
            query, leftover = _query(item, f"{where}, {depth} query {k + 1}")
            queries.append(_named(name, depth, k, *query))
            leftovers.append(leftover)
    return PassageRecord(
        name, _text(record, "text", where), _texts(record, "paraphrases", where), tuple(queries), tuple(leftovers)
    )


def _query(item: Any, where: str) -> tuple[tuple[str, str, tuple[str, ...]], str]:
    if not isinstance(item, dict):
        raise UserError(f"{where}: {str(item)[:40]!r} is no query; write an object with prompt and target")
    _check_keys(item, QUERY_KEYS, where)
    target = _text(item, "target", where)
    aliases = _texts(item, "aliases", where)
    if "text" not in item:
        return (_text(item, "prompt", where), target, aliases), ""
    if "prompt" in item:
        raise UserError(f"{where}: has both 'prompt' and 'text'; give the prompt alone, or the whole text")
    text = _text(item, "text", where)
    at = text.rfind(target)
    if at < 0:
        raise UserError(f"{where}: its text does not hold its target {target!r}; end the text with it")
    if not text[:at].strip():
        raise UserError(f"{where}: nothing stands before the target in its text; write a prompt")
    return (text[:at].rstrip(), target, aliases), text[at + len(target) :]


def _dataset_record(record: Mapping[str, Any], where: str, number: int) -> PassageRecord:
    queries = []
    for depth, short in FICTIONAL_KNOWLEDGE.items():
        prompts, targets = (_texts(record, f"{short}_{part}", where) for part in ("input", "target"))
        if len(prompts) != len(targets):
            raise UserError(
                f"{where}: {len(prompts)} of '{short}_input' do not go with {len(targets)} of '{short}_target'; give "
                "equally many"
            )
        for k, (prompt, target) in enumerate(zip(prompts, targets, strict=True)):
            queries.append(_named(str(number), depth, k, prompt, target))
    text, paraphrases = _text(record, "train_context", where), _texts(record, "paraphrases", where)
    return PassageRecord(str(number), text, paraphrases, tuple(queries), ("",) * len(queries))


def _named(name: str, depth: str, k: int, prompt: str, target: str, aliases: tuple[str, ...] = ()) -> Query:
    return Query(prompt, target, aliases, id=f"{name}/{depth}/{k}", subject=name, role=ROLE, group=depth)


def _check_keys(record: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in record:
        if key not in known:
            raise UserError(
                f"{where}: there is no key {key!r}; did you mean {nearest(str(key), known)!r}? The keys are "
                f"{', '.join(known)}"
            )


def _text(record: Mapping[str, Any], key: str, where: str) -> str:
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        problem = "is missing" if key not in record else f"must be a text that is not empty, not {str(value)[:40]!r}"
        raise UserError(f"{where}: key {key!r} {problem}")
    return value


def _texts(record: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    values = record.get(key, [])
    if not isinstance(values, list):
        raise UserError(f"{where}: key {key!r} must be a list of texts, not {str(values)[:40]!r}")
    for number, value in enumerate(values, 1):
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"{where}: key {key!r}, number {number}: must be a text that is not empty")
    return tuple(values)
