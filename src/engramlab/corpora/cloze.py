"""Questions as statements with a gap, so that a model can be asked by what it finds likely, without a word of instruction.

    rules("What does a cat like to chase?").cloze        # Cloze("A cat likes to chase ", ".")
    bare("Who is it?").filled("Anna")                    # "Who is it? Anna"

Source: Dou and Peng, arXiv 2201.00136, whose rules cut a question along a parse of its constituents. Ours need no parser: they
know the wh-words, the auxiliaries and a list of verbs (``verbs.tsv``), and give up, counted, where these do not do. The paper's
other three translators are trained networks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from engramlab.base.errors import UserError, quoted
from engramlab.corpora.templates import read_data

GAP = "[MASK]"
"""How a gap is written in a text; three or more underscores will do too."""
_GAPS = re.compile(r"\[MASK\]|_{3,}", re.IGNORECASE)
_SENTENCES = re.compile(r"(?<=[.!?])(?<!\b[A-Z]\.)(?<!\b[A-Z][a-z]\.)(?<!\b[A-Z][a-z][a-z]\.)\s+")
_OF_THESE = re.compile(r"\bwhich (?:one )?of (?:these|the following)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Cloze:
    """The text before a gap and behind it."""

    before: str
    after: str = ""

    @classmethod
    def of(cls, text: str, where: str = "") -> Cloze:
        """The cloze that a text with one gap is. Raises UserError for another number of gaps; ``where`` opens the message."""
        found = list(_GAPS.finditer(text))
        if len(found) != 1:
            raise UserError(f"{where}{quoted(text)} has {len(found)} gaps; write {GAP} once")
        return cls(text[: found[0].start()], text[found[0].end() :])

    def __str__(self) -> str:
        return f"{self.before}{GAP}{self.after}"

    def filled(self, option: str) -> tuple[str, int, int]:
        """The text with an option in the gap, and the characters ``[start, end)`` of the option in it.

        >>> Cloze("", " is tall.").filled("the pine")
        ('The pine is tall.', 0, 8)
        """
        option = option.strip()
        if not self.before.strip() or (self.before.rstrip()[-1] in ".!?" and self.after.strip(" .")):
            option = option[:1].upper() + option[1:]
        after = self.after.removeprefix(".") if option.endswith((".", "!", "?")) else self.after
        start = len(self.before)
        return self.before + option + after, start, start + len(option)


@dataclass(frozen=True, slots=True)
class Translated:
    """A question's statement, and how it was got: by a rule, by putting the gap where the wh-word stood, by going on with a
    text that asks nothing, or not at all (the question with a gap behind it)."""

    cloze: Cloze
    how: Literal["rule", "wh-word", "continued", "fallback"]


def bare(question: str) -> Cloze:
    """The question and a gap: no translation, and what translations are compared with.

    >>> str(bare("Where do fish live?"))
    'Where do fish live? [MASK]'
    """
    return Cloze(question.strip() + " ")


def rules(question: str) -> Translated:
    """The statement that a question's answer makes true, by rules for English.

    >>> [str(rules(q).cloze) for q in ("What is the capital of France?", "Where do fish live?", "When did she found it?")]
    ['The capital of France is [MASK].', 'Fish live at [MASK].', 'She founded it when [MASK].']
    """
    *context, sentence = _SENTENCES.split(" ".join(question.split()))
    front = "".join(f"{one} " for one in context)
    asks = sentence.endswith("?")
    words = re.findall(r"[^\s,;]+|[,;]", _OF_THESE.sub("what", sentence).rstrip(" .?!:"))
    found = _clause(words)
    how: Literal["rule", "wh-word"] = "rule"
    said = None if found is None else _inverted(words, found)
    low = [word.lower() for word in words]
    if found is None and not asks and "what" not in low and low[:1] not in (["which"], ["who"]):
        return Translated(Cloze(question.strip().rstrip(":. ") + " ", "."), "continued")
    if found is None:
        said, how = _where_it_stood(words), "wh-word"
    if said is not None and said.count(GAP) == 1:
        return Translated(Cloze.of(front + _sentence(said)), how)
    return Translated(bare(question), "fallback")


_DO, _BE, _HAVE = {"do", "does", "did"}, {"is", "are", "was", "were", "am"}, {"has", "have", "had"}
_MODAL = {"can", "could", "will", "would", "shall", "should", "may", "might", "must"}
_AUXILIARY = _DO | _BE | _HAVE | _MODAL
_WH = {"what", "which", "who", "whom", "where", "when", "why", "how"}
_OWN = {"where": "at", "when": "when", "why": "because", "how": "by", "how long": "for", "how often": ""}
_KIND = {"kind", "type", "sort", "kinds", "types", "sorts", "piece"}
_JOINS = {",", ";", "and", "but", "so", "then", "or"}
_WORDS = dict(line.split("\t") for line in read_data("english.tsv").splitlines() if not line.startswith("#"))
_PREPOSITION, _SUBORDINATE, _DETERMINER, _PRONOUN, _ADVERB, _PREDICATE = (
    frozenset(_WORDS[kind].split())
    for kind in ("preposition", "subordinate", "determiner", "pronoun", "adverb", "predicate")
)


@dataclass(frozen=True)
class _Clause:
    """Where an inverted clause stands: at ``start`` a preposition or the wh-word, then ``noun`` words that go with it, and the
    auxiliary at ``aux``."""

    start: int
    wh: str
    noun: tuple[str, ...]
    aux: int


def _clause(words: Sequence[str]) -> _Clause | None:
    """The clause that asks: one that opens the sentence, else the last that follows a comma or the like, else any "what"."""
    low = [word.lower() for word in words]
    ranked = []
    for i, word in enumerate(low):
        if word not in _WH:
            continue
        led = i > 0 and low[i - 1] in _PREPOSITION and (i == 1 or low[i - 2] in _JOINS)
        start = i - 1 if led else i
        opens = start == 0 or low[start - 1] in _JOINS
        asks = word == "what" or (
            _auxiliary("".join(low[i + 1 : i + 2])) and low[i + 2 : i + 3] and low[i + 2] in _PRONOUN
        )
        if not opens and not asks:
            continue
        at, wh, noun = i + 1, "what" if word in ("which", "who", "whom") else word, 0
        if wh == "how" and low[at : at + 1] in (["long"], ["often"]):
            wh, at = f"how {low[at]}", at + 1
        elif wh == "what":
            while noun < 7 and at + noun < len(low) and low[at + noun] not in _AUXILIARY | _PRONOUN | _JOINS:
                noun += 1
        if at + noun < len(low) and _auxiliary(low[at + noun]):
            place = (2, 0) if start == 0 else (int(opens), i)
            ranked.append((place, _Clause(start, wh, tuple(words[at : at + noun]), at + noun)))
    return max(ranked, key=lambda one: one[0])[1] if ranked else None


def _auxiliary(word: str) -> str:
    """The auxiliary without its negation; "" where it is none."""
    plain = {"can't": "can", "won't": "will"}.get(word, word.removesuffix("n't"))
    return plain if plain in _AUXILIARY else ""


def _inverted(words: Sequence[str], clause: _Clause) -> list[str] | None:
    """The clause as a statement with its gap, behind what stands before it; None where its subject cannot be told."""
    front, body, aux = list(words[: clause.start]), list(words[clause.aux + 1 :]), words[clause.aux].lower()
    led = words[clause.start].lower() if words[clause.start].lower() in _PREPOSITION else ""
    noun = () if {word.lower() for word in clause.noun} & _KIND else clause.noun
    gap = [led] * bool(led) + (["the", *noun] if noun and noun[0] not in _DETERMINER else [*noun]) + [GAP]
    length = _subject(body, aux, clause, bool(led))
    if length is None or (length == 0 and clause.wh != "what"):
        return None
    if length == 0:
        return [*front, *gap, aux, *body]
    subject, rest = body[:length], body[length:]
    rest = _moved(aux, rest)
    if clause.wh != "what" or led:
        own = _OWN.get(clause.wh, "")
        if led or (clause.wh == "where" and rest[-1].lower() in _PREPOSITION | {"from", "to"}):
            own = ""
        return [*front, *subject, *rest, *[own] * bool(own), *gap]
    at = _before_phrase(rest)
    # "What can you do to stay busy?" asks for the doing.
    done = next((k for k, word in enumerate(rest[:at]) if word == "do" or (k == 0 and word in ("does", "did"))), None)
    if done is not None and not noun:
        return [*front, *subject, *rest[:done], GAP, *rest[done + 1 :]]
    return [*front, *subject, *rest[:at], *gap, *rest[at:]]


def _moved(aux: str, rest: list[str]) -> list[str]:
    """What follows the subject: the auxiliary and the rest, or the verb bent as *do* was."""
    verb = next((k for k, word in enumerate(rest) if not _adverb(word)), 0)
    if aux not in _DO or not rest or rest[verb] == "not":
        return [aux, *rest]
    bend: dict[str, Callable[[str], str]] = {"does": third_person, "did": past, "do": str}
    return [*rest[:verb], bend[aux](rest[verb]), *rest[verb + 1 :]]


def _adverb(word: str) -> bool:
    return word in _ADVERB or word.lower().endswith("ly")


def _subject(body: Sequence[str], aux: str, clause: _Clause, led: bool) -> int | None:
    """How many words of the clause behind its auxiliary are its subject; 0 where the subject is asked for; None: unknown."""
    low, plain = [word.lower() for word in body], _auxiliary(aux)
    if not low:
        return None
    some = plain in _BE and clause.wh == "what" and not led and low[0] in ("a", "an", "one", "something", "someone")
    if low[0] in _PRONOUN and not (some and len(low) > 1):
        return 1
    if plain in _DO | _MODAL:
        first = next((k for k, word in enumerate(low) if not _adverb(word)), 0)
        if (plain in _MODAL or clause.noun) and (low[first] in bases() or low[first] == "not"):
            return 0
        verbs = (k for k in range(1, len(low)) if low[k] in bases() and low[k - 1] not in _DETERMINER | {"to", "of"})
        stop = next((k for k in verbs if low[k + 1 : k + 2] != ["be"]), None)
        while stop and stop > 1 and _adverb(low[stop - 1]):
            stop -= 1
        return stop
    participles = _participles()
    # "The international calling code of France" is one noun with what belongs to it.
    inside = low.index("of") if low[0] in _DETERMINER and "of" in low[:-1] else 0

    def says(k: int) -> bool:
        """Does the predicate begin there?"""
        word, before = low[k], low[k - 1] if k else ""
        ends = word in participles or word in _PREDICATE or word.endswith(("ed", "ing"))
        return ends and k >= inside and before not in _DETERMINER | _PREPOSITION | {"and", "most", "very"}

    if plain in _HAVE:
        if says(0) or not any(map(says, range(1, len(low)))):
            return 0 if clause.wh == "what" and not led else None
        return next(k for k in range(1, len(low)) if says(k))
    if low[0] in ("this", "that", "these", "those") and len(low) > 1 and low[1] in _PREDICATE | _PREPOSITION:
        return 1
    if clause.wh == "what" and not led and (says(0) or low[0] in _PREPOSITION | {"not"}):
        return 0
    stop = next((k for k in range(1, len(low)) if says(k)), len(low) - 1 if low[-1] in _PREPOSITION else None)
    relative = next((k for k, word in enumerate(low) if word in ("that", "who", "which", "where")), len(low))
    if some and (
        stop is None or relative < stop or low[0] in ("something", "one")
    ):  # "what is a place that has a bench"
        return 0
    if stop is None and clause.noun and not led and clause.wh == "what":
        return 0
    whole = next((k for k, word in enumerate(low) if k and word in _SUBORDINATE | {","}), len(low))
    if stop is not None and (stop < whole or clause.wh == "what"):
        return stop
    apart = [] if clause.wh == "what" else [k for k in range(1, whole) if low[k] in _PREPOSITION - {"of"}]
    return apart[0] if apart else whole if clause.wh != "what" else len(low)


def _before_phrase(rest: Sequence[str]) -> int:
    """Where the gap of a statement stands behind its subject: before its first phrase, or at its end (a lone last preposition
    is no phrase)."""
    for k, word in enumerate(rest[:-1]):
        opens = word.lower() in _PREPOSITION | _SUBORDINATE or word == ","
        if k and opens and not (word in _PREPOSITION and rest[k + 1].lower() in _PREPOSITION | _SUBORDINATE):
            return k
    return len(rest)


def _where_it_stood(words: Sequence[str]) -> list[str] | None:
    """The sentence with the gap in the place of its last wh-word that can be one of a question; None without one."""
    low = [word.lower() for word in words]
    asked = [k for k, word in enumerate(low) if word in ("what", "which", "whom")]
    asked = asked or [
        k for k, word in enumerate(low) if word in _WH and (k == len(low) - 1 or (word == "who" and not k))
    ]
    if not asked:
        return None
    at = asked[-1]
    behind = list(words[at + 1 :])
    if low[at + 1 : at + 2] and low[at + 1] in _KIND:  # "live in what sort of environment"
        behind = behind[next((k for k, word in enumerate(behind) if _verb(word)), len(behind)) :]
    elif at == 0 and len(behind) > 1 and not behind[0].endswith(("s", "ed")) and _verb(low[2]) and not _verb(low[1]):
        return ["the", behind[0], GAP, *behind[1:]]  # "what animal eats plants"
    own = _OWN.get(low[at], "")
    at_do = int(low[at] == "what" and low[at - 1 : at] == ["do"])  # "he was forced to do what"
    return [*words[: at - at_do], *[own] * bool(own), GAP, *behind]


def _verb(word: str) -> bool:
    """Is it the third person, or the past, of a verb that is known?"""
    return word in _bent()


def _sentence(words: Sequence[str]) -> str:
    text = re.sub(r" ([,;])", r"\1", " ".join(words))
    return f"{text[:1].upper()}{text[1:]}."


@cache
def bases() -> dict[str, tuple[str, str]]:
    """Verbs that are known: past and participle by base."""
    found = {}
    for line in read_data("verbs.tsv").splitlines():
        if not line.startswith("#"):
            verbs = line.split()
            if len(verbs) == 3:
                found[verbs[0]] = (verbs[1], verbs[2])
            else:
                found |= {verb: (_regular(verb),) * 2 for verb in verbs if verb not in found}
    return found


@cache
def _participles() -> frozenset[str]:
    return frozenset(participle for _, participle in bases().values()) | {"born"}


@cache
def _bent() -> frozenset[str]:
    return frozenset(form for base, (past_form, _) in bases().items() for form in (third_person(base), past_form))


def third_person(verb: str) -> str:
    """The verb behind he, she or it.

    >>> [third_person(verb) for verb in ("live", "go", "carry", "play", "have", "be", "pass")]
    ['lives', 'goes', 'carries', 'plays', 'has', 'is', 'passes']
    """
    if verb in ("have", "be"):
        return {"have": "has", "be": "is"}[verb]
    if re.search(r"[^aeiou]y$", verb):
        return verb[:-1] + "ies"
    return verb + ("es" if verb.endswith(("s", "x", "z", "ch", "sh", "o")) else "s")


def past(verb: str) -> str:
    """The verb in the past.

    >>> [past(verb) for verb in ("found", "find", "carry", "stop", "visit", "live", "play")]
    ['founded', 'found', 'carried', 'stopped', 'visited', 'lived', 'played']
    """
    known = bases().get(verb)
    return known[0] if known else _regular(verb)


def _regular(verb: str) -> str:
    if verb.endswith("e"):
        return verb + "d"
    if re.search(r"[^aeiou]y$", verb):
        return verb[:-1] + "ied"
    if re.fullmatch(r"[^aeiou]*[aeiou][^aeiouwxy]", verb):  # of one syllable that ends in a vowel and a consonant
        verb += verb[-1]
    return verb + "ed"
