"""How often a corpus states each fact."""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engramlab.base.errors import UserError
from engramlab.corpora.passages import read_passages

SAMPLED = 1_000  # documents that tokens per character are measured on


def count_facts(
    pairs: Sequence[tuple[str, str]], texts: Iterable[str], tokenizer: Any
) -> tuple[np.ndarray, float, int]:
    """How many texts hold both subject and object of each pair, as whole words.

    Returns:
        float64 ``[F]`` counts; tokens of all texts, estimated by those of the first ones; how many texts there are.

    Raises:
        UserError: there is no text.
    """
    by_word: dict[str, list[int]] = {}
    for i, (subject, _) in enumerate(pairs):
        words = re.findall(r"\w+", subject)
        by_word.setdefault(words[0] if words else subject, []).append(i)
    counts = np.zeros(len(pairs))
    characters = sampled = sampled_tokens = number = 0
    for text in texts:
        if number < SAMPLED:
            sampled += len(text)
            sampled_tokens += len(tokenizer(text, add_special_tokens=False)["input_ids"]) + 1
        number += 1
        characters += len(text)
        for word in set(re.findall(r"\w+", text)) & by_word.keys():
            for i in by_word[word]:
                subject, target = pairs[i]
                counts[i] += _holds(text, subject) and _holds(text, target)
    if not number:
        raise UserError("corpus: holds no text")
    return counts, characters * sampled_tokens / max(sampled, 1), number


def _holds(text: str, words: str) -> bool:
    """Do the words stand in the text, not as a part of longer ones?"""
    start = text.find(words)
    while start >= 0:
        end = start + len(words)
        if not (text[start - 1 : start].isalnum() or text[end : end + 1].isalnum()):
            return True
        start = text.find(words, start + 1)
    return False


def read_pairs(path: Path) -> Iterator[tuple[str, str]]:
    """(subject, object) of each fact of a table, or of each passage's queries."""
    first = path.read_text(encoding="utf-8", errors="replace").lstrip()[:2000] if path.exists() else ""
    if path.suffix.lower() in (".json", ".jsonl", ".ndjson") and ('"text"' in first or '"train_context"' in first):
        for record in read_passages(path):
            for target in dict.fromkeys(query.target for query in record.queries):
                subject = next((q.subject for q in record.queries if q.target == target), record.id)
                yield subject, target
        return
    for row in read_table(path, ("subject", "object")):
        yield str(row["subject"]), str(row["object"])


def read_table(path: Path, needed: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of a .csv, .tsv or .jsonl that have these columns."""
    kind = path.suffix.lower()
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if kind not in (".csv", ".tsv", ".jsonl", ".ndjson"):
        raise UserError(f"{path}: cannot read a table that ends in {kind!r}; use .csv, .tsv or .jsonl")
    with path.open(encoding="utf-8", newline="") as file:
        rows: Iterable[Any]
        if kind in (".csv", ".tsv"):
            rows = csv.DictReader(file, delimiter="\t" if kind == ".tsv" else ",")
        else:
            rows = (_parsed(line, path, n) for n, line in zip(itertools.count(1), file) if line.strip())
        for number, row in enumerate(rows, 1):
            for name in needed:
                if not isinstance(row, dict) or row.get(name) in (None, ""):
                    raise UserError(f"{path}, row {number}: has no {name!r}; each row needs {' and '.join(needed)}")
            yield row


def _parsed(line: str, path: Path, number: int) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise UserError(f"{path}, line {number}: not JSON ({error})") from None
