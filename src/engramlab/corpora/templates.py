"""Sentence templates: their grammar, their data files, and what a template becomes as literals around a
value.

A template is one line such as

    {subject} [was|were] born while {his} parents lived in {value}.

It has one `{subject}` or `{subject's}` and one `{value}`. `{he} {him} {his} {himself}` are later
mentions of the subject and `[was|were]` is the singular and the plural of a verb: the plural follows "they",
whether that is the subject of the sentence or the `{he}` right before the brackets. `{attribute}` is what the
attribute is called, so that one template can serve several.

Where a template starts with its subject, a sentence that is not the first about it says a pronoun there. Where the subject
stands elsewhere ("In {value} lives {subject}."), it is always said by its name, for nothing tells which case a pronoun would
have there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
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
    """What stands around a name and a value.

    Attributes:
        before: follows the name, or the value where that comes first, or holds the pronoun.
        after: ends the sentence.
        bare: is there no space before the value?
        lead: opens the sentence, where neither name nor pronoun does.
        bare_name: is there no space between `lead` or `before` and the name?
        turned: does the value come before the name?
    """

    before: str
    after: str
    bare: bool
    lead: str = ""
    bare_name: bool = False
    turned: bool = False


class Template:
    """A parsed template line.

    Attributes:
        opens: does it start with its subject?
        turned: does its value come before its subject? Then its beginning asks for nothing.

    Raises:
        UserError: the line breaks the grammar; `where` (file and line) opens the message.
    """

    def __init__(self, line: str, where: str = "template", attribute: str = "") -> None:
        self.line, self.where = line, where
        self._attribute = attribute
        for name in ("{subject}", "{value}"):
            seen = line.count(name) + (line.count("{subject's}") if name == "{subject}" else 0)
            if seen != 1:
                raise UserError(f"{where}: a template needs exactly one {name}, this one has {seen}: {quoted(line)}")
        self.opens = line.startswith(("{subject}", "{subject's}"))
        self.turned = line.index("{value}") < line.index("{subject")
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
        birthday is"). Where the subject stands elsewhere it is always named.

        >>> Template("{subject} [calls|call] {value} {his} home.").frame("they", named=False)
        Frame(before=' They call', after=' their home.', bare=False, lead='', bare_name=False, turned=False)
        """
        named = named or not self.opens
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
                    text += "" if self.opens else "\0"
                    text += "'s" if possessive else ""
                else:
                    text += " " + forms["his" if possessive else "he"].capitalize()
            else:
                text += forms[placeholder]
            # Verbs agree with the last mention that can be their subject: {he}, else the sentence's own.
            plural = pronoun == "they" and (placeholder == "he" or not named)
        *parts, before, after = (text + self.line[end:]).split("\0")
        first, bare = "".join(parts), not before.endswith(" ")
        sentence = Frame(before.removesuffix(" "), after, bare)
        if self.opens:
            return sentence
        glued, lead = not first.endswith(" "), first.removesuffix(" ")
        if self.turned:
            return replace(sentence, lead=lead, bare=glued, bare_name=bare, turned=True)
        return replace(sentence, lead=lead, bare_name=glued)


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
