"""Is what a model wrote the answer? The matching rule of the *generated* protocol.

A base model does not stop after its answer, and often begins it with a quote or an article; comparing whole sentences would
call nearly everything wrong. So what it wrote must *begin* with the answer or one of its aliases, and the answer must end
there: not in the middle of a word ("Niger" is no "Nigeria"), of a compound ("Austria" is no "Austria-Hungary") or of a number
("+4" is no "+49", "2" no "2,102,650"). An answer that comes later in the text ("I think it is Paris") does not count.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_SIGNS = str.maketrans(dict.fromkeys("’‘‛ʼ`´", "'") | dict.fromkeys("“”„‟«»", '"') | dict.fromkeys("‐‑‒–−", "-"))
_SPACE = re.compile(r"\s+")
_ARTICLE = re.compile(r"\A(?:the|an|a) (?=\S)")
_MORE = re.compile(r"\w|[+#]|[-.]\w")  # Nigeria, C++, Austria-Hungary, U.S.S.R.; but "Rome's" and "Paris (France)" end
_MORE_DIGITS = re.compile(r"[,:/']\d")  # 2,102,650; 12:30
_BEFORE, _AFTER = (
    " \"'*_([{:",
    " \"'*_)]}.,;:!?",
)  # quotes, brackets, emphasis, the end of a sentence: no part of an answer
_SPACELESS = ("CJK ", "HIRAGANA", "KATAKANA", "THAI", "LAO ", "KHMER", "MYANMAR", "TIBETAN")


def normalise(text: str) -> str:
    """A text as answers are compared: Unicode NFKC, case folded, one kind of quote and hyphen, single spaces, without quotes,
    brackets and final punctuation around it and without a leading English article. Accents stay.

    >>> normalise(' “The  Hague”.'), normalise("Washington, D.C."), normalise("+49"), normalise("?")
    ('hague', 'washington, d.c', '+49', '?')
    """
    plain = _SPACE.sub(" ", unicodedata.normalize("NFKC", text).casefold().translate(_SIGNS)).strip()
    bare = plain.lstrip(_BEFORE).rstrip(_AFTER)
    return _ARTICLE.sub("", bare) or plain


def is_answer(written: str, answers: Iterable[str]) -> bool:
    """Does the text begin with one of these answers, and does the answer end where a word does? Blank answers never match.

    >>> is_answer("the Netherlands, a country in", ["Netherlands"]), is_answer("+49 (0)", ["+4"]), is_answer("", [""])
    (True, False, False)
    """
    text = normalise(written)
    return any(text.startswith(a) and _ends(a, text[len(a) :]) for a in map(normalise, answers) if a)


def same_answer(one: str, other: str) -> bool:
    """Are these two written texts the same from beginning to end, once normalised?"""
    return normalise(one) == normalise(other)


def _ends(answer: str, rest: str) -> bool:
    """Does an answer end here, or is the text that follows more of its last word or number?"""
    if not rest:
        return True
    if unicodedata.category(rest[0]).startswith("M"):  # a mark on the answer's last letter
        return False
    if rest[0].isalnum() and (_spaceless(answer[-1]) or _spaceless(rest[0])):
        return True
    return not ((answer[-1].isalnum() and _MORE.match(rest)) or (answer[-1].isdigit() and _MORE_DIGITS.match(rest)))


def _spaceless(letter: str) -> bool:
    """Is it of a script that puts no space between words?"""
    return unicodedata.name(letter, "").startswith(_SPACELESS)
