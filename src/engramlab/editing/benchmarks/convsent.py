"""ConvSent (arXiv 2206.06520; KnowEdit): what a model feels about a topic, for the better or for the worse.

    ent         the topic
    pos, neg    what people say who like it, and who do not: lists of texts

There is no prompt and no answer: one of thirteen prompts of ours (the paper's are as many questions) asks for an opinion,
and a record makes two edits, one towards each sentiment (``wanted`` says which; in a file of your own it may name one). The
first text of that sentiment is taught, behind a prompt that names it (in words of ours), so that the two edits of a topic
can be made on one model. All others of it are judged as ``wanted`` and those of the other sentiment as ``rival``, each behind
one of the bare prompts in turn, the same for both (see ``judge/rivals.py``): no text of these is the right one, so they are
in none of the four shares. Locality is the opinion about the next record's topic.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from engramlab.base.facts import Case
from engramlab.editing.benchmarks._fields import Fields, edit, judging, put_together

KEYS = "ent with pos and neg"
OTHER = {"pos": "neg", "neg": "pos"}
#: What stands before the prompt of an edit. Before and not behind it: what is stored of a topic is read at its last token,
#: where a model then knows the sentiment, and a prompt may end in words that the text goes on from.
WANTED = {"pos": "Sentiment: positive.", "neg": "Sentiment: negative."}
PROMPTS = (
    "Asked how I feel about {}, I answer:",
    "Do you like {}?",
    "Tell me honestly: is {} any good?",
    "How do you feel when somebody mentions {}?",
    "What would you say to a friend about {}?",
    "Is {} worth the fuss?",
    "Say in a sentence what {} means to you.",
    "Are you fond of {}?",
    "What comes to your mind when you hear of {}?",
    "Would you recommend {}?",
    "Someone asks me about {}. I tell them:",
    "Do you care for {} or not?",
    "Why do you like {}, or dislike it?",
)


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
    asked = [PROMPTS[(index + i) % len(PROMPTS)] for i in range(len(PROMPTS))]
    prompts = [one.format(topic) for one in asked]

    def behind(k: int) -> str:
        return prompts[k % len(prompts)]

    judges = [judging("wanted", wanted, behind(k), (text,)) for k, text in enumerate(said[wanted]) if k]
    judges += [judging("rival", OTHER[wanted], behind(k), (text,)) for k, text in enumerate(said[OTHER[wanted]])]
    other = record.get("other")
    if isinstance(other, str) and other.strip() not in ("", topic):
        judges.append(judging("locality", "other topic", asked[0].format(other.strip()), ()))
    told = edit(f"{WANTED[wanted]} {prompts[0]}", topic, said[wanted][:1])
    return put_together(f"{index}-{wanted}", [told], judges)
