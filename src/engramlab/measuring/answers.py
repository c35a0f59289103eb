"""Is what a model wrote the answer? The matching rule of the *generated* protocol.

A base model does not stop after its answer, and often begins it with a quote or an article; comparing whole sentences would
call nearly everything wrong. So what it wrote must *begin* with the answer or one of its aliases, and the answer must end
there: not in the middle of a word ("Niger" is no "Nigeria"), of a compound ("Austria" is no "Austria-Hungary") or of a number
("+4" is no "+49", "2" no "2,102,650"). An answer that comes later in the text ("I think it is Paris") does not count, unless
what comes before is what was asked, said again ("The capital of France is Paris", in a chat).

Where a script puts no space between words, one ends at punctuation, white space, another script (東京です, 1996年), 是 or 的; a
letter more may be more of a name (王岚岚 is no 王岚).
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable

from engramlab.base.facts import NO_SPACE
from engramlab.base.joining import spaceless

_SIGNS = str.maketrans(dict.fromkeys("’‘‛ʼ`´", "'") | dict.fromkeys("“”„‟«»", '"') | dict.fromkeys("‐‑‒–−", "-"))
_SPACE = re.compile(r"\s+")
_ARTICLE = re.compile(r"\A(?:the|an|a) (?=\S)")
_MORE = re.compile(
    r"\w|[+#]|[-.·・‧]\w"
)  # Nigeria, C++, Austria-Hungary, U.S.S.R.; but "Rome's" and "Paris (France)" end
_MORE_DIGITS = re.compile(r"[,:/']\d")  # 2,102,650; 12:30
_QUESTION = re.compile(r"(?:what|who|where|when|which) (is|was|are|were) (.+)")
_BEFORE, _AFTER = (
    " \"'*_([{:",
    " \"'*_)]}.,;:!?",
)  # quotes, brackets, emphasis, the end of a sentence: no part of an answer


def normalise(text: str) -> str:
    """A text as answers are compared: Unicode NFKC, case folded, one kind of quote and hyphen, single spaces, without quotes,
    brackets and final punctuation around it and without a leading English article. Accents stay.

    >>> normalise(' “The  Hague”.'), normalise("Washington, D.C."), normalise("+49"), normalise("?")
    ('hague', 'washington, d.c', '+49', '?')
    """
    plain = _SPACE.sub(" ", unicodedata.normalize("NFKC", text).casefold().translate(_SIGNS)).strip(" " + NO_SPACE)
    bare = plain.lstrip(_BEFORE).rstrip(_AFTER)
    return _ARTICLE.sub("", bare) or plain


def is_answer(written: str, answers: Iterable[str], said: str = "") -> bool:
    """Does the text begin with one of these answers, and does the answer end where a word does? Blank answers never match.

    Args:
        said: what was asked, which the text may say again first.

    >>> is_answer("the Netherlands, a country in", ["Netherlands"]), is_answer("+49 (0)", ["+4"]), is_answer("", [""])
    (True, False, False)
    >>> is_answer("The capital of France is **Rome**.", ["Rome"], "The capital of France is")
    True
    >>> is_answer("The capital of France is Rome.", ["Rome"], "What is the capital of France?")
    True
    """
    return any(ends for _, ends in _begun(written, answers, said))


def is_named(written: str, answers: Iterable[str]) -> bool:
    """Does one of these answers stand anywhere in the text, beginning and ending where a word does? Weaker than ``is_answer``:
    a reply in whole sentences passes, and so does one that names several answers or denies this one.

    >>> is_named("He was born in Rome.", ["Rome"]), is_named("born in Romeoville", ["Rome"]), is_named("a +49 number", ["+4"])
    (True, False, False)
    """
    text = normalise(written)
    for answer in filter(None, map(normalise, answers)):
        for at in (found.start() for found in re.finditer(re.escape(answer), text)):
            begins = not at or not text[at - 1].isalnum() or not answer[0].isalnum() or spaceless(answer[0])
            if begins and _ends(answer, text[at + len(answer) :]):
                return True
    return False


def runs_on(written: str, answers: Iterable[str], said: str = "") -> str | None:
    """The answer that the text begins with, but goes on inside its last word ("Ostrela" for "Ostrel"); None without one.

    >>> runs_on("Ostrela is", ["Ostrel"]), runs_on("Ostrel. It", ["Ostrel"])
    ('Ostrel', None)
    """
    found = _begun(written, answers, said)
    return None if any(ends for _, ends in found) else next((answer for answer, _ in found), None)


def _begun(written: str, answers: Iterable[str], said: str) -> list[tuple[str, bool]]:
    """The answers that the text begins with, and whether each ends there."""
    text = normalise(written)
    again = [normalise(said)] if said else []
    if again and (question := _QUESTION.fullmatch(again[0])):
        again.append(normalise(f"{question[2]} {question[1]}"))
    texts = [text, *(normalise(text[len(one) :]) for one in again if text.startswith(one))]
    pairs = [(answer, normalise(answer)) for answer in answers]
    return [(a, _ends(b, text[len(b) :])) for text in texts for a, b in pairs if b and text.startswith(b)]


class AnswerIndex:
    """Many answers, of which those are found that a text begins with, in time that does not grow with their number."""

    def __init__(self, answers: Iterable[str]) -> None:
        self._of: dict[str, list[str]] = {}
        for answer in answers:
            if plain := normalise(answer):
                self._of.setdefault(plain, []).append(answer)
        self._lengths = sorted({len(plain) for plain in self._of})

    def begun(self, written: str) -> list[str]:
        """The answers of which ``is_answer(written, [answer])`` is true.

        >>> AnswerIndex(["Rome", "rome", "Oslo", "New York", "New"]).begun("New York, a city")
        ['New', 'New York']
        """
        text, found = normalise(written), list[str]()
        for length in self._lengths:
            same = self._of.get(text[:length]) if length <= len(text) else None
            if same and _ends(text[:length], text[length:]):
                found += same
        return found


def same_answer(one: str, other: str) -> bool:
    """Are these two written texts the same from beginning to end, once normalised?"""
    return normalise(one) == normalise(other)


def squad_words(text: str) -> list[str]:
    """The words that SQuAD's scores compare: lower case, without ASCII punctuation and English articles.

    >>> squad_words("The U.S. of A, a country")
    ['us', 'of', 'country']
    """
    bare = text.casefold().translate(str.maketrans("", "", string.punctuation))
    return [word for word in bare.split() if word not in ("a", "an", "the")]


def exact_match(written: str, answers: Iterable[str]) -> bool:
    """Are the text's words those of an answer, no more and no fewer (SQuAD's EM, arXiv 1606.05250)?"""
    return any(squad_words(written) == squad_words(answer) for answer in answers)


def f1(written: str, answers: Iterable[str]) -> float:
    """How much a text's words overlap with those of the nearest answer: SQuAD's F1 (arXiv 1606.05250), 0 to 1.

    >>> f1("the city of Paris", ["Paris"]), f1("", ["Paris"])
    (0.5, 0.0)
    """

    def of(own: Counter[str], other: Counter[str]) -> float:
        shared = (own & other).total()
        return 2 * shared / (own.total() + other.total()) if shared else float(own == other)

    return max((of(Counter(squad_words(written)), Counter(squad_words(answer))) for answer in answers), default=0.0)


def _ends(answer: str, rest: str) -> bool:
    """Does an answer end here, or is the text that follows more of its last word or number?"""
    if not rest:
        return True
    if unicodedata.category(rest[0]).startswith("M"):  # a mark on the answer's last letter
        return False
    if rest[0].isalnum() and (spaceless(answer[-1]) or spaceless(rest[0])):
        return rest[0] in "是的" or _script(answer[-1]) != _script(rest[0])
    return not ((answer[-1].isalnum() and _MORE.match(rest)) or (answer[-1].isdigit() and _MORE_DIGITS.match(rest)))


def _script(letter: str) -> str:
    """The first word of its name: CJK, HIRAGANA, KATAKANA, THAI, LATIN, DIGIT."""
    return unicodedata.name(letter, "").split("-")[0].split(" ")[0]
