"""FACTOR: a text, how it goes on, and three ways in which it would contradict the facts.

Source: arXiv 2307.06908 and its CSV files (expert MIT, news ODC-By, wiki MIT): `completion`, `contradiction_0` to `_2`, behind
`full_prefix` (news, expert) or `turncated_prefixes` (wiki; the file's spelling, cut to what models of 2023 could read).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engramlab.reading.completions import BadRecord, Choice, text

_FALSE = ("contradiction_0", "contradiction_1", "contradiction_2")


def recognises(record: Mapping[str, Any]) -> bool:
    return {"completion", *_FALSE} <= record.keys()


def question(record: Mapping[str, Any], name: str) -> Choice:
    """Behind the whole prefix. Raises BadRecord."""
    return _of(record, name, "full_prefix")


def cut(record: Mapping[str, Any], name: str) -> Choice:
    """Behind the cut prefix, as wiki is asked. Raises BadRecord."""
    return _of(record, name, "turncated_prefixes")


def _of(record: Mapping[str, Any], name: str, prefix: str) -> Choice:
    true, *false = (" ".join(text(record, key).split()) for key in ("completion", *_FALSE))
    if true in false:
        raise BadRecord(f"key {_FALSE[false.index(true)]!r} is the completion itself")
    return Choice(name, text(record, prefix).rstrip(), (true,), tuple(dict.fromkeys(false)))
