"""Our own passages.jsonl, as `corpora/passages.py` describes and writes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engramlab.base.errors import UserError, quoted
from engramlab.base.facts import Query
from engramlab.base.rows import DEPTHS
from engramlab.corpora.passages import PassageRecord
from engramlab.reading import fields

KEYS = ("id", "text", "paraphrases", "queries")
QUERY_KEYS = ("prompt", "text", "target", "aliases")


def recognises(record: Mapping[str, Any]) -> bool:
    return "text" in record


def passage(record: Mapping[str, Any], where: str, number: int) -> PassageRecord:
    """Raises UserError."""
    fields.check_keys(record, KEYS, where)
    name = fields.text(record, "id", where) if "id" in record else str(number)
    grouped = record.get("queries", {})
    if not isinstance(grouped, dict):
        raise UserError(f"{where}, key 'queries': must be an object with the keys {', '.join(DEPTHS)}")
    fields.check_keys(grouped, DEPTHS, f"{where}, key 'queries'")
    queries: list[Query] = []
    leftovers: list[str] = []
    for depth in DEPTHS:
        items = grouped.get(depth, [])
        if not isinstance(items, list):
            raise UserError(f"{where}, key {depth!r}: must be a list of queries")
        for k, item in enumerate(items):
            query, leftover = _query(item, f"{where}, {depth} query {k + 1}")
            queries.append(fields.query(name, depth, k, *query))
            leftovers.append(leftover)
    return PassageRecord(
        name,
        fields.text(record, "text", where),
        fields.text_list(record, "paraphrases", where),
        tuple(queries),
        tuple(leftovers),
    )


def _query(item: Any, where: str) -> tuple[tuple[str, str, tuple[str, ...]], str]:
    if not isinstance(item, dict):
        raise UserError(f"{where}: {quoted(item)} is no query; write an object with prompt and target")
    fields.check_keys(item, QUERY_KEYS, where)
    target = fields.text(item, "target", where)
    aliases = fields.text_list(item, "aliases", where)
    if "text" not in item:
        return (fields.text(item, "prompt", where), target, aliases), ""
    if "prompt" in item:
        raise UserError(f"{where}: has both 'prompt' and 'text'; give the prompt alone, or the whole text")
    text = fields.text(item, "text", where)
    at = text.rfind(target)
    if at < 0:
        raise UserError(f"{where}: its text does not hold its target {quoted(target)}; end the text with it")
    if not text[:at].strip():
        raise UserError(f"{where}: nothing stands before the target in its text; write a prompt")
    return (text[:at].rstrip(), target, aliases), text[at + len(target) :]
