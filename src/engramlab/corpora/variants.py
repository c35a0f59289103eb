"""The names of biography datasets: `single`, `multi5+permute`, `couple2`, `single+permute5+fullname+CEL`, ...

Source: Physics of Language Models, Part 3.1 (arXiv 2309.14316), section 2 and appendix A.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from engramlab.base.errors import UserError, nearest, quoted

MAX_ENTRIES = 65535  # entries a subject; their number takes 16 bits of the index of a random draw


@dataclass(frozen=True)
class Variant:
    """How a subject's entries are written.

    kind: "single" draws one template an attribute and uses it in every entry; "multi" and "couple" draw anew
    for each.
    entries: entries a subject (M of multiM, P of single+permuteP, C of coupleC; 1 for single).
    permute: each entry's sentences are shuffled. For "couple" this is False: its pairs always are.
    fullname: every sentence carries the full name instead of a pronoun.
    celebrities: a second group of subjects is added ("+CEL"), with `multi5+permute` entries if nothing else is said.
    text: unrelated text is read in training in the celebrities' place ("+TEXT"); the entries are as without it.
    translated: each entry has a second one that says the same in a second vocabulary ("+translate", see
        `second_vocabulary`).
    """

    kind: Literal["single", "multi", "couple"] = "single"
    entries: int = 1
    permute: bool = False
    fullname: bool = False
    celebrities: bool = False
    text: bool = False
    translated: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.entries <= MAX_ENTRIES:
            raise UserError(f"a variant has 1 to {MAX_ENTRIES} entries a subject, not {self.entries}")
        if self.kind == "single" and self.entries > 1 and not self.permute:
            raise UserError("`single` has one entry a subject; several are single+permuteP, multiM or coupleC")
        if self.kind == "couple" and self.permute:
            raise UserError("`couple` already shuffles its pairs of sentences; +permute does not go with it")
        if self.celebrities and self.text:
            raise UserError("variants: +CEL+TEXT has both celebrities and text beside the people; use one of them")

    @property
    def pairs(self) -> bool:
        """Do sentences stand in ordered pairs, the first of which leads to the second?"""
        return self.kind == "couple"

    @property
    def texts(self) -> int:
        """Entries a subject, those of the second vocabulary among them."""
        return self.entries * (1 + self.translated)

    def __str__(self) -> str:
        number = "" if self.kind == "single" else str(self.entries)
        permute = ("+permute" + (str(self.entries) if self.kind == "single" else "")) if self.permute else ""
        suffixes = ("+fullname" if self.fullname else "") + ("+translate" if self.translated else "")
        suffixes += ("+CEL" if self.celebrities else "") + ("+TEXT" if self.text else "")
        return f"{self.kind}{number}{permute}{suffixes}"


_GRAMMAR = re.compile(
    r"(?:(?P<single>single)(?:\+permute(?P<shuffles>[1-9]\d{0,4}))?"
    r"|multi(?P<redraws>[1-9]\d{0,4})(?P<permute>\+permute)?"
    r"|couple(?P<couples>[1-9]\d{0,4}))"
    r"(?P<fullname>\+fullname)?(?P<translated>\+translate)?(?P<celebrities>\+CEL)?(?P<text>\+TEXT)?",
    re.ASCII,
)

CELEBRITY = Variant("multi", 5, permute=True)  # how celebrities' entries are written


def _sixteen() -> tuple[str, ...]:
    single = [Variant(), *(Variant("single", p, permute=True) for p in (1, 2, 5))]
    multi = [Variant("multi", m, permute) for permute in (False, True) for m in (2, 5)]
    return tuple(
        str(Variant(v.kind, v.entries, v.permute, fullname))
        for group in (single, multi)
        for fullname in (False, True)
        for v in group
    )


SIXTEEN = _sixteen()  # the datasets of the paper's main figure


def parse_variant(name: str) -> Variant:
    """Read a variant's name; `str` prints it back unchanged.

    >>> parse_variant("multi7+permute+fullname")
    Variant(kind='multi', entries=7, permute=True, fullname=True, celebrities=False, text=False, translated=False)

    Raises:
        UserError: no variant has this name; the message gives the nearest that exists.
    """
    match = _GRAMMAR.fullmatch(name)
    number = match and int(match["shuffles"] or match["redraws"] or match["couples"] or 1)
    if match is None or not number or number > MAX_ENTRIES:
        raise UserError(
            f"variant: there is no {quoted(name)}; the nearest is {nearest(name, _near(name))!r} "
            "(single, single+permuteP, multiM, multiM+permute or coupleC, then +fullname, +translate and +CEL or +TEXT if "
            "wanted)"
        )
    suffixes = {
        "fullname": bool(match["fullname"]),
        "celebrities": bool(match["celebrities"]),
        "text": bool(match["text"]),
        "translated": bool(match["translated"]),
    }
    if match["single"]:
        return Variant("single", number, permute=bool(match["shuffles"]), **suffixes)
    if match["redraws"]:
        return Variant("multi", number, permute=bool(match["permute"]), **suffixes)
    return Variant("couple", number, **suffixes)


def _near(name: str) -> list[str]:
    """Valid names to compare a wrong one with: every form, with the numbers in it or else the paper's."""
    numbers = [n for n in map(int, re.findall(r"\d{1,5}", name[:100], re.ASCII)) if 1 <= n <= MAX_ENTRIES]
    heads = ["single"]
    for n in numbers or (5, 1, 2):
        heads += [f"single+permute{n}", f"multi{n}", f"multi{n}+permute", f"couple{n}"]
    firsts = [first + second for first in ("", "+fullname") for second in ("", "+translate")]
    tails = [first + last for first in firsts for last in ("", "+CEL", "+TEXT")]
    return [head + tail for head in heads for tail in tails]
