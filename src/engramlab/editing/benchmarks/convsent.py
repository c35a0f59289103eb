"""ConvSent (arXiv 2206.06520; KnowEdit): what a model feels about a topic, for the better or for the worse.

    ent         the topic
    pos, neg    what people say who like it, and who do not: lists of texts

There is no prompt and no answer: a prompt of ours asks for an opinion, and a record makes two edits, one towards each
sentiment (``wanted`` says which; in a file of your own it may name one). The first text of that sentiment is taught.
All others of it are judged as ``wanted`` and those of the other sentiment as ``rival``, behind the same prompt (see
``judge/rivals.py``): no text of these is the right one, so they are in none of the four shares. Locality is the opinion
about the next record's topic.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from engramlab.base.facts import Case
from engramlab.editing.benchmarks._fields import Fields, edit, judging, put_together

KEYS = "ent with pos and neg"
OTHER = {"pos": "neg", "neg": "pos"}
PROMPT = "Asked how I feel about {}, I answer:"


def recognises(record: Mapping[str, object]) -> bool:
    return "ent" in record and ("pos" in record or "neg" in record)


def spread(values: Sequence[object]) -> Iterator[tuple[int, object]]:
    """Each record once for each sentiment, with the topic of the next one."""
    for index, value in enumerate(values):
        after = values[(index + 1) % len(values)]
        if not isinstance(value, dict) or "wanted" in value:
            yield index, value
            continue
        other = after.get("ent") if isinstance(after, dict) and after is not value else None
        yield from ((index, {**value, "wanted": wanted, "other": other}) for wanted in OTHER)


def case(record: Mapping[str, object], index: int) -> Case:
    """Raises BadRecord."""
    fields = Fields(record, index)
    topic, wanted = fields.name("ent"), fields.name("wanted") or "pos"
    if not topic:
        raise fields.bad("ent", "is missing; it must be the topic")
    if wanted not in OTHER:
        raise fields.bad("wanted", "must be 'pos' or 'neg'")
    said = {sentiment: fields.answers(sentiment) for sentiment in OTHER}
    if both := set(said["pos"]) & set(said["neg"]):
        raise fields.bad("neg", f"has a text that 'pos' has too ({min(both)[:60]!r}); a text has one sentiment")
    prompt = PROMPT.format(topic)
    judges = [judging("wanted", wanted, prompt, (text,)) for text in said[wanted][1:]]
    judges += [judging("rival", OTHER[wanted], prompt, (text,)) for text in said[OTHER[wanted]]]
    other = record.get("other")
    if isinstance(other, str) and other.strip() not in ("", topic):
        judges.append(judging("locality", "other topic", PROMPT.format(other.strip()), ()))
    return put_together(f"{index}-{wanted}", [edit(prompt, topic, said[wanted][:1])], judges)
