"""What `engramlab corpus check` finds in passages and queries: defects of the text, reported and never repaired.

The kinds are those known of FICTIONAL KNOWLEDGE (arXiv 2406.11813). Whether a target is an exact suffix of a query's tokens is
a question to a tokenizer, and answered where queries are encoded.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from engramlab.base.facts import Query
from engramlab.core.text.tokens import join
from engramlab.corpora.passages import PassageRecord

KINDS = {
    "target not at the end": "text stands behind the target; only the text before it is used",
    "final full stop": "the target ends with the sentence's full stop, which is scored with it",
    "space after a quote": "the space that joins the target stands behind an opening quotation mark",
    "target in its prompt": "the target already stands in its own prompt and can be copied from there",
    "duplicate query": "another query has the same prompt",
    "not in the passage": "a memorization query is no literal part of its passage",
    "fact lost": "the target stands in the passage and in none of its paraphrases",
    "fact lost in some": "the target stands in the passage and only in some of its paraphrases",
    "stray quote": "a paraphrase begins with a quotation mark and its passage does not",
    "duplicate paraphrase": "a paraphrase is the same text as the passage or another paraphrase",
    "short paraphrases": "the paraphrases have on average less than three quarters of the passage's words",
}
SHORT = 0.75

_OPENING = re.compile(r"(?:^|[\s(\[])[\"'“‘«„‚]+$")
_STOP = re.compile(r"(?<!\.[A-Z])(?<!\b[A-Z])\.$")  # not that of "D.C."
_QUOTES = ('"', "'", "“", "”", "‘", "’", "«", "»", "„")


@dataclass(frozen=True, slots=True)
class Defect:
    """One defect: its kind (a key of `KINDS`), the passage's id, the query's depth if it is one's, where it is and what."""

    kind: str
    passage: str
    depth: str
    place: str
    detail: str

    def __str__(self) -> str:
        return f"passage {self.passage}, {self.place}: {self.kind}: {self.detail}"


def defects(records: Sequence[PassageRecord]) -> list[Defect]:
    """All defects of some passages, in their order."""
    return [*_of_records(records)]


def count_defects(found: Iterable[Defect]) -> dict[tuple[str, str], int]:
    """How many defects there are of each kind and depth ("" for those of paraphrases), in the order of `KINDS`."""
    counts = Counter((defect.kind, defect.depth) for defect in found)
    order = list(KINDS)
    return dict(sorted(counts.items(), key=lambda item: order.index(item[0][0])))


def _of_records(records: Sequence[PassageRecord]) -> Iterator[Defect]:
    first: dict[str, str] = {}
    for record in records:
        numbers: Counter[str] = Counter()
        leftovers = record.leftovers or ("",) * len(record.queries)
        for query, leftover in zip(record.queries, leftovers, strict=True):
            numbers[query.group] += 1
            place = f"{query.group} query {numbers[query.group]}"
            own = f"passage {record.id}, {place}"
            for kind, detail in _of_query(record, query, leftover):
                yield Defect(kind, record.id, query.group, place, detail)
            if query.prompt in first:
                detail = f"{query.prompt[-60:]!r} is also the prompt of {first[query.prompt]}"
                yield Defect("duplicate query", record.id, query.group, place, detail)
            first.setdefault(query.prompt, own)
        for place, kind, detail in _of_paraphrases(record):
            yield Defect(kind, record.id, "", place, detail)


def _of_query(record: PassageRecord, query: Query, leftover: str) -> Iterator[tuple[str, str]]:
    prompt, target = query.prompt, query.target
    if leftover.strip():
        yield "target not at the end", f"{leftover.strip()[:40]!r} stands behind {target!r}"
    if _STOP.search(target):
        yield "final full stop", f"{target!r}"
    quoted = _OPENING.search(prompt)
    if quoted:
        yield "space after a quote", f"{prompt[-20:]!r} is followed by a space and then {target!r}"
    if target in prompt:
        yield "target in its prompt", f"{target!r} in {prompt!r}"
    whole = join(prompt, target)[0]
    if query.group == "memorization" and not quoted and whole not in record.text:
        yield "not in the passage", f"{whole[-60:]!r}"
    bare = _STOP.sub("", target)
    if record.paraphrases and bare in record.text:
        keep = sum(bare in paraphrase for paraphrase in record.paraphrases)
        if keep < len(record.paraphrases):
            detail = f"{bare!r} stands in {keep} of {len(record.paraphrases)} paraphrases"
            yield ("fact lost in some" if keep else "fact lost"), detail


def _of_paraphrases(record: PassageRecord) -> Iterator[tuple[str, str, str]]:
    seen = {record.text.strip(): "the passage"}
    for number, paraphrase in enumerate(record.paraphrases, 1):
        place = f"paraphrase {number}"
        if paraphrase.startswith(_QUOTES) and not record.text.startswith(paraphrase[0]):
            yield place, "stray quote", _quotation(paraphrase)
        if paraphrase.strip() in seen:
            yield place, "duplicate paraphrase", f"the same text as {seen[paraphrase.strip()]}"
        seen.setdefault(paraphrase.strip(), place)
    if record.paraphrases:
        mean = sum(len(p.split()) for p in record.paraphrases) / len(record.paraphrases)
        if mean < SHORT * (whole := len(record.text.split())):
            yield "paraphrases", "short paraphrases", f"{mean:.0f} words on average, the passage has {whole}"


def _quotation(text: str) -> str:
    """What the quotation mark a text begins with may be: a whole text in marks, or a title."""
    mark = text[0]
    if text.endswith(mark) and text.count(mark) == 2:
        return f"the whole text stands in {mark}{mark}"
    return f"it begins with {text[:40]!r}"
