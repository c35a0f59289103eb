"""Sentences of running text, in any script: where they end, and which of them are whole. Standard library only."""

from __future__ import annotations

import re
from itertools import pairwise

_CLOSERS = "\"'”’»」』）)\\]"
# Behind most marks there must be a space, for names and numbers hold full stops; Chinese and Japanese have neither.
_STOP = re.compile(rf"[.!?।؟۔։።។။][{_CLOSERS}]*(?=\s|$)|[。！？][{_CLOSERS}]*")
_OPENERS = "\"'(“‘«„「『（¿¡"


def sentences(text: str) -> list[str]:
    """The sentences of a text, as far as marks tell that a capital, an opening quote or a letter without case follows.

    >>> sentences('Ada lives in Tarn. She has a mill, built in 1802. "It is old." Ödön saw it.')
    ['Ada lives in Tarn.', 'She has a mill, built in 1802.', '"It is old."', 'Ödön saw it.']
    >>> sentences("他住在东京。他是医生！")
    ['他住在东京。', '他是医生！']
    """
    plain = " ".join(text.split())
    ends = [
        found.end() for found in _STOP.finditer(plain) if _begins(plain[found.end() : found.end() + 2].lstrip()[:1])
    ]
    cuts = [0, *ends, len(plain)]
    return [part for a, b in pairwise(cuts) if (part := plain[a:b].strip())]


def whole_sentences(text: str) -> str:
    """A text as one line that ends with a whole sentence; empty if it has none.

    >>> whole_sentences("She was born in 1996.\\n\\nShe went to")
    'She was born in 1996.'
    >>> whole_sentences("她生于1996年。她去")
    '她生于1996年。'
    """
    plain = " ".join(text.split())
    ends = [found.end() for found in _STOP.finditer(plain)]
    return plain[: ends[-1]] if ends else ""


def _begins(character: str) -> bool:
    """Can a sentence begin with it?"""
    return character in _OPENERS or (character.isalpha() and not character.islower()) if character else False
