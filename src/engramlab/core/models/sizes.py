"""Sizes of models that are trained from scratch: named ones, and any LAYERSxWIDTH.

Named sizes are the networks of Physics of Language Models 3.1 (arXiv 2309.14316, section 2.2 and appendix).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from engramlab.base.errors import UserError


@dataclass(frozen=True)
class Size:
    """Depth, heads and width of a transformer; the feed-forward width is four times the width."""

    layers: int
    heads: int
    width: int
    note: str = ""


SIZES: dict[str, Size] = {
    "tiny": Size(4, 4, 128, "the demo: minutes on two CPU cores"),
    "small": Size(6, 8, 256, "an afternoon on a CPU, minutes on a GPU"),
    "gpt2-small": Size(12, 12, 768, "the paper's model for bioS, 124M"),
    "gpt2-bior": Size(12, 20, 1280, "the paper's model for bioR, 302M"),
    "gpt2-682m": Size(12, 32, 2048, "the paper's larger model, 682M"),
}
_SHAPE = re.compile(r"([1-9]\d{0,3})x([1-9]\d{0,4})")
HEAD = 64  # dimensions of a head of a size given by its shape


def is_size(name: str) -> bool:
    """Is this a named size or of the form LAYERSxWIDTH?"""
    return name in SIZES or _SHAPE.fullmatch(name) is not None


def shape(name: str) -> Size:
    """A named size, or one given as LAYERSxWIDTH (``4x256``), with heads of 64 dimensions, or fewer where it is narrower.

    Raises:
        UserError: neither of them, or a width that heads cannot share.
    """
    if name in SIZES:
        return SIZES[name]
    found = _SHAPE.fullmatch(name)
    if found is None:
        raise UserError(
            f"model size {name!r} is unknown; choose one of: {', '.join(SIZES)}; or give LAYERSxWIDTH, such as 4x256"
        )
    layers, width = int(found[1]), int(found[2])
    heads = max(1, width // HEAD)
    if width % (8 * heads):  # rotary embedding turns pairs in a quarter of each head
        raise UserError(f"model size {name!r}: the width must be a multiple of 8, and above {HEAD} of {HEAD}")
    return Size(layers, heads, width)
