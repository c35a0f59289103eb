"""A second vocabulary: every word of a text in another one, always the same one for the same word.

The paper (arXiv 2309.14316) also tries a French translation of each biography as augmentation. This is ours, and no language:
order and grammar stay, so that the two statements of a fact share its name and its value and no other word. A real translation
is a chat model's, see `engramlab corpus bior --languages`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

from engramlab.base.random_access import key
from engramlab.corpora.templates import Frame, Template

_SYLLABLES = [onset + vowel for onset in "bdfgklmnprstvz" for vowel in ("a", "e", "i", "o", "u", "ai", "ei", "ou")]
_WORD = re.compile(r"(?<!['\u2019\w])[^\W\d_]+")  # the s of a genitive stays, as names are not translated


@cache
def other_word(word: str) -> str:
    """The word of the second vocabulary for one of the first: four syllables, with a capital where it has one."""
    number, made = key(0, "second vocabulary", word.lower()), ""
    for _ in range(4):
        number, syllable = divmod(number, len(_SYLLABLES))
        made += _SYLLABLES[syllable]
    return made.capitalize() if word[0].isupper() else made


def in_second_vocabulary(text: str) -> str:
    """The text with every word replaced; all else stays where it is.

    >>> text = "was born in 1996."
    >>> in_second_vocabulary(text).split()[-1]
    '1996.'
    """
    return _WORD.sub(lambda found: other_word(found[0]), text)


class SecondTemplate(Template):
    """A template whose words, pronouns among them, are the second vocabulary's; name and value stay."""

    def __init__(self, first: Template) -> None:
        super().__init__(first.line, attribute=first._attribute)

    def frame(self, pronoun: str, named: bool) -> Frame:
        frame = super().frame(pronoun, named)
        lead, before, after = map(in_second_vocabulary, (frame.lead, frame.before, frame.after))
        return replace(frame, lead=lead, before=before, after=after)
