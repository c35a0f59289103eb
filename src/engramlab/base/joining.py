"""How a target joins its prompt, and what writing systems do at a word's edge: all of it on text alone.

**The space rule.** A target is joined to its prompt by one space, unless the prompt is empty or already ends in white
space, the prompt's last letter (where it has none, the target's first) is of a script that puts no space between words, or the
target begins with white space, with ``NO_SPACE``, or with closing punctuation (", who", "'s car", but not ".NET" or
"'s-Hertogenbosch", where the mark begins a word).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from engramlab.base.facts import NO_SPACE

# Punctuation or a clitic, unless a word begins with it.
_CLOSING = re.compile(r"(?:[,.;:!?)\]}%”»]++|['’](?:s|d|m|t|re|ve|ll)?)(?![\w-])")

_SPACELESS = ("CJK ", "HIRAGANA", "KATAKANA", "BOPOMOFO", "YI ", "THAI", "LAO ", "KHMER", "MYANMAR", "TIBETAN")
_WIDE = ("IDEOGRAPHIC ", "FULLWIDTH ")
_STOPS = {"DEVANAGARI": "।", "BENGALI": "।", "ARABIC": ".", "ARMENIAN": "։", "ETHIOPIC": "።", "TIBETAN": "།"}
_STOPS |= {"KHMER": "។", "MYANMAR": "။", "THAI": " ", "LAO ": " "}


def join(prompt: str, target: str) -> tuple[str, int, int]:
    """Joins a target to its prompt by the space rule.

    Returns:
        The text and the character span ``[start, end)`` of the target in it, without the joining space.

    Examples:
        >>> join("The capital of France is", "Paris")
        ('The capital of France is Paris', 25, 30)
        >>> join("It is called ", "Paris")
        ('It is called Paris', 13, 18)
        >>> join("He said", ", loudly")
        ('He said, loudly', 7, 15)
        >>> join("The capital is", "'s-Hertogenbosch")
        ("The capital is 's-Hertogenbosch", 15, 31)
        >>> join("我的姓名是", "王岚")
        ('我的姓名是王岚', 5, 7)
        >>> join("She is a Paris", NO_SPACE + "ienne")
        ('She is a Parisienne', 14, 19)
    """
    bare = target.removeprefix(NO_SPACE).lstrip()
    own = target[: len(target) - len(bare)]
    if own:
        gap = own.removeprefix(NO_SPACE)
    elif not prompt or prompt[-1].isspace() or _CLOSING.match(bare) or spaceless(last_letter(prompt) or bare[:1]):
        gap = ""
    else:
        gap = " "
    start = len(prompt) + len(gap)
    return prompt + gap + bare, start, start + len(bare)


def cut(text: str, start: int, end: int) -> tuple[str, str]:
    """A text up to ``end`` as a prompt and the target ``[start, end)`` that join to that text again.

    >>> cut("Its capital is Rome.", 15, 19), cut("Its code is +39.", 13, 15)
    (('Its capital is', 'Rome'), ('Its code is +', '\\u206039'))
    """
    prompt, target = text[:start].rstrip(" "), text[start:end]
    own = text[len(prompt) : start] or NO_SPACE
    return prompt, target if join(prompt, target)[0] == text[:end] else own + target


def spaceless(letter: str) -> bool:
    """Is it of a script that puts no space between words (Han, Hiragana, Katakana, Thai, Lao, Khmer, Myanmar, Tibetan ...; not
    Hangul), or a mark of punctuation as wide as its letters?

    >>> [spaceless(letter) for letter in "国のク：กa한:"]
    [True, True, True, True, True, False, False, False]
    """
    name = unicodedata.name(letter, "") if letter else ""
    return name.startswith(_SPACELESS) or (name.startswith(_WIDE) and unicodedata.category(letter).startswith("P"))


def parts(text: str) -> list[str]:
    """What names in a text are made of: words, and the letters of those that have no spaces between them.

    >>> parts("Ann Lee, 东京 and O'Hara")
    ['Ann', 'Lee', '东', '京', 'and', 'O', 'Hara']
    """
    words = re.findall(r"\w+", text)
    wide = set(filter(spaceless, set(text)))  # looked at once a letter, for texts are long
    return [part for word in words for part in (word if wide.intersection(word) else (word,))] if wide else words


def standing(text: str, words: str) -> Iterator[tuple[int, int]]:
    """Where the words stand in a text, in characters ``[start, end)``: not as a part of longer words, of which scripts without
    spaces have none; no two of them overlap.

    >>> list(standing("Low Lowe, Low", "Low"))
    [(0, 3), (10, 13)]
    >>> list(standing("他在Lund住，不在东京。", "Lund")), list(standing("他在Lund住，不在东京。", "东京"))
    ([(2, 6)], [(10, 12)])
    """
    start = text.find(words) if words else -1
    while start >= 0:
        end = start + len(words)
        whole = not (_one_word(text[start - 1 : start], words[0]) or _one_word(text[end : end + 1], words[-1]))
        if whole:
            yield start, end
        start = text.find(words, end if whole else start + 1)


def _one_word(beside: str, edge: str) -> bool:
    """Does the character beside the edge of some words make longer words of them?"""
    return (beside.isalnum() or beside == "_") and not (spaceless(beside) or spaceless(edge))


def continues_letter(character: str) -> bool:
    """Is it a mark on the letter before it, or a vowel or final of a Hangul syllable in pieces?"""
    return unicodedata.category(character).startswith("M") or "\u1160" <= character <= "\u11ff"


def last_letter(text: str) -> str:
    """The last letter of a text, which tells its script, or a wide mark of punctuation behind it; "" without either."""
    return next((c for c in reversed(text) if c.isalpha() or spaceless(c)), "")


def full_stop(text: str) -> str:
    """What ends a sentence that ends in this text; "" where it ends in punctuation or white space itself.

    >>> full_stop("Ostrel"), full_stop("王岚"), full_stop("C++"), full_stop("Washington, D.C."), full_stop("กรุงเทพ")
    ('.', '。', '.', '', ' ')
    """
    if not text or text[-1].isspace() or unicodedata.category(text[-1]).startswith("P"):
        return ""
    letter = last_letter(text)
    name = unicodedata.name(letter, "") if letter else ""
    for script, stop in _STOPS.items():
        if name.startswith(script):
            return stop
    return "。" if letter and spaceless(letter) else "."
