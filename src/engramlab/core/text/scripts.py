"""What writing systems do at a word's edge: which put no space between words, and how a sentence ends in each."""

from __future__ import annotations

import unicodedata

_SPACELESS = ("CJK ", "HIRAGANA", "KATAKANA", "BOPOMOFO", "YI ", "THAI", "LAO ", "KHMER", "MYANMAR", "TIBETAN")
_WIDE = ("IDEOGRAPHIC ", "FULLWIDTH ")
_STOPS = {"DEVANAGARI": "।", "BENGALI": "।", "ARABIC": ".", "ARMENIAN": "։", "ETHIOPIC": "።", "TIBETAN": "།"}
_STOPS |= {"KHMER": "។", "MYANMAR": "။", "THAI": " ", "LAO ": " "}


def spaceless(letter: str) -> bool:
    """Is it of a script that puts no space between words (Han, Hiragana, Katakana, Thai, Lao, Khmer, Myanmar, Tibetan ...; not
    Hangul), or a mark of punctuation as wide as its letters?

    >>> [spaceless(letter) for letter in "国のク：กa한:"]
    [True, True, True, True, True, False, False, False]
    """
    name = unicodedata.name(letter, "") if letter else ""
    return name.startswith(_SPACELESS) or (name.startswith(_WIDE) and unicodedata.category(letter).startswith("P"))


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
