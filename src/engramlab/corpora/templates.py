"""Sentence templates: their grammar, their data files, and what a template becomes as literals around a
value.

A template is one line such as

    {subject} [was|were] born while {his} parents lived in {value}.

It starts with `{subject}` or `{subject's}` and has one `{value}`. `{he} {him} {his} {himself}` are later
mentions of the subject and `[was|were]` is the singular and the plural of a verb: the plural follows "they",
whether that is the subject of the sentence or the `{he}` right before the brackets. `{attribute}` is what the
attribute is called, so that one template can serve several.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from engramlab.base.errors import UserError, listed, quoted

PRONOUNS: dict[str, dict[str, str]] = {
    "he": {"he": "he", "him": "him", "his": "his", "himself": "himself"},
    "she": {"he": "she", "him": "her", "his": "her", "himself": "herself"},
    "they": {"he": "they", "him": "them", "his": "their", "himself": "themselves"},
    "it": {"he": "it", "him": "it", "his": "its", "himself": "itself"},
}

_MARKUP = re.compile(r"\{([^{}]*)\}|\[([^\[\]|]*)\|([^\[\]|]*)\]")
_KNOWN = ("subject", "subject's", "value", "attribute", "he", "him", "his", "himself")


@dataclass(frozen=True)
class Frame:
    """What stands around a value: `before` follows the name or holds the pronoun; no space if `bare`."""

    before: str
    after: str
    bare: bool


class Template:
    """A parsed template line.

    Raises:
        UserError: the line breaks the grammar; `where` (file and line) opens the message.
    """

    def __init__(self, line: str, where: str = "template", attribute: str = "") -> None:
        self.line = line
        self._attribute = attribute
        for name in ("{subject}", "{value}"):
            seen = line.count(name) + (line.count("{subject's}") if name == "{subject}" else 0)
            if seen != 1:
                raise UserError(f"{where}: a template needs exactly one {name}, this one has {seen}: {quoted(line)}")
        if not line.startswith(("{subject}", "{subject's}")):
            raise UserError(f"{where}: a template must start with {{subject}} or {{subject's}}: {quoted(line)}")
        rest = _MARKUP.sub("", line)
        if stray := next((c for c in rest if c in "{}[]"), None):
            raise UserError(f"{where}: stray {stray!r} in {quoted(line)}; verbs are written [singular|plural]")
        for placeholder in _MARKUP.finditer(line):
            if placeholder[1] is not None and placeholder[1] not in _KNOWN:
                raise UserError(
                    f"{where}: unknown placeholder {listed([placeholder[0]])} in {quoted(line)}; "
                    "there are " + " ".join(f"{{{known}}}" for known in _KNOWN)
                )

    def frame(self, pronoun: str, named: bool) -> Frame:
        """The sentence about a subject who goes by `pronoun`, without the name and the value.

        With `named` the sentence opens with the name, and `before` starts right behind it ("'s birthday is");
        else it opens with the capitalised pronoun and, because a sentence stands before it, a space (" His
        birthday is").

        >>> Template("{subject} [calls|call] {value} {his} home.").frame("they", named=False)
        Frame(before=' They call', after=' their home.', bare=False)
        """
        forms = PRONOUNS[pronoun]
        plural = not named and pronoun == "they"
        text = ""
        end = 0
        for markup in _MARKUP.finditer(self.line):
            between = self.line[end : markup.start()]
            text += between
            end = markup.end()
            placeholder, singular, several = markup.groups()
            if placeholder is None:
                text += several if plural else singular
            elif placeholder == "value":
                text += "\0"
            elif placeholder == "attribute":
                text += self._attribute
            elif placeholder in ("subject", "subject's"):
                possessive = placeholder != "subject"
                if named:
                    text += "'s" if possessive else ""
                else:
                    text += " " + forms["his" if possessive else "he"].capitalize()
            else:
                text += forms[placeholder]
            # Verbs agree with the last mention that can be their subject: {he}, else the sentence's own.
            plural = pronoun == "they" and (placeholder == "he" or not named)
        before, after = (text + self.line[end:]).split("\0")
        led = before.endswith(" ")
        return Frame(before.removesuffix(" "), after, bare=not led)


def parse_templates(text: str, where: str, attribute: str = "") -> tuple[Template, ...]:
    """Templates of a file's text, one a line; empty lines are skipped. `where` names the file in messages."""
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    templates = tuple(Template(line, f"{where}, line {number}", attribute) for number, line in lines if line)
    if not templates:
        raise UserError(f"{where}: no templates; write one a line, such as '{{subject}} was born in {{value}}.'")
    return templates


@cache
def read_data(*path: str) -> str:
    """A data file of this package, such as `read_data("pools", "majors.txt")`."""
    return files(__package__).joinpath(*path).read_text(encoding="utf-8")


@cache
def pool(name: str) -> tuple[str, ...]:
    """The lines of a pool: "first_names", "birth_cities", "companies" (company, tab, city), ..."""
    return tuple(read_data("pools", f"{name}.txt").splitlines())
