"""How often a corpus states each fact."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engramlab.base.errors import UserError
from engramlab.base.joining import parts, standing
from engramlab.base.sentences import sentences
from engramlab.corpora.facts import FactTable
from engramlab.files import tables
from engramlab.reading import read_passages

#: Stand for them: letters, with which a sentence can begin, of a script that no corpus has.
_SUBJECT, _OBJECT = "\U00010500", "\U00010501"
SAMPLED = 1_000  # documents that tokens per character are measured on


def count_facts(
    pairs: Sequence[tuple[str, str]], texts: Iterable[str], tokenizer: Any
) -> tuple[np.ndarray, float, int]:
    """How often the texts state each pair: sentences that hold both subject and object, as whole words.

    A text that holds both, but in no one sentence (the subject may be a pronoun there), counts as one statement.

    Returns:
        float64 ``[F]`` counts; tokens of all texts, estimated by those of the first ones; how many texts there are.

    Raises:
        UserError: there is no text.
    """
    by_start: dict[str, list[int]] = {}
    for i, (subject, _) in enumerate(pairs):
        by_start.setdefault(next(iter(parts(subject)), subject), []).append(i)
    counts = np.zeros(len(pairs))
    characters = sampled = sampled_tokens = number = 0
    for text in texts:
        if number < SAMPLED:
            sampled += len(text)
            sampled_tokens += len(tokenizer(text, add_special_tokens=False)["input_ids"]) + 1
        number += 1
        characters += len(text)
        for start in set(parts(text)) & by_start.keys():
            for i in by_start[start]:
                subject, target = pairs[i]
                if any(standing(text, subject)) and any(standing(text, target)):
                    counts[i] += _sentences_with(text, subject, target) or 1
    if not number:
        raise UserError("corpus: holds no text")
    return counts, characters * sampled_tokens / max(sampled, 1), number


def _sentences_with(text: str, subject: str, target: str) -> int:
    """Sentences that hold both; a full stop in either, as in "Mr. Low", ends none."""
    for mark, words in ((_SUBJECT, subject), (_OBJECT, target)):
        for start, end in reversed(list(standing(text, words))):
            text = f"{text[:start]}{mark}{text[end:]}"
    return sum(_SUBJECT in part and _OBJECT in part for line in text.split("\n") for part in sentences(line))


def read_pairs(path: Path, key: str | None = None) -> Iterator[tuple[str, str]]:
    """(subject, object) of each fact of a table, with a row a fact or a row a subject (named by ``key``), or of each passage's
    queries."""
    first = next(tables.records(path), tables.Record(None)).value
    if isinstance(first, dict) and {"text", "train_context"} & first.keys():
        for record in read_passages(path):
            for target in dict.fromkeys(query.target for query in record.queries):
                subject = next((q.subject for q in record.queries if q.target == target), record.id)
                yield subject, target
        return
    if key is None and isinstance(first, dict) and {"subject", "object"} & first.keys():
        for row in rows_with(path, ("subject", "object")):
            yield str(row["subject"]), str(row["object"])
        return
    for fact in FactTable.read(path, key=key):
        yield fact.subject, fact.object


def rows_with(path: Path, needed: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of a table that has these columns, none of their cells empty."""
    for place, row in tables.objects(path):
        for name in needed:
            if row.get(name) in (None, ""):
                raise UserError(f"{path}, {place}: has no {name!r}; each row needs {' and '.join(needed)}")
        yield row
