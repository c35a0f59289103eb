"""Numbers as pages and terminals say them; an en dash where nothing was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from engramlab.report.rows import number

_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
TARGETS = {"whole": "whole value", "first": "first token"}  # what a probe reads


def fixed(value: object, digits: int = 2) -> str:
    """0.5 as `0.50`."""
    return _said(value, f".{digits}f")


def signed(value: object) -> str:
    """0.5 as `+0.50`."""
    return _said(value, "+.2f")


def short(value: object) -> str:
    """0.012345 as `0.0123`: three digits that count."""
    return _said(value, ".3g")


def count(value: object) -> str:
    """12345.6 as `12,346`."""
    return _said(value, ",.0f")


def _said(value: object, form: str) -> str:
    found = number(value)
    return "–" if found is None else format(found, form)


def big(value: object, most: float = 1e9) -> str:
    """1234567 as `1,234,567`, what is above `most` as `> 10⁹`, and an infinity by its name."""
    found = number(value)
    if value == "infinite":
        return "∞"
    power = str(round(math.log10(most))).translate(_RAISED)
    return count(value) if found is None or found <= most else f"> 10{power}"


def ranged(row: Mapping[str, Any], name: str, digits: int = 2, bounds: str | None = None) -> str:
    """A row's `name` as `0.50 (0.40 to 0.60)`, where it has `{bounds}low` and `{bounds}high` (`name_low` by default)."""
    ends = [number(row.get(f"{name}_{end}" if bounds is None else f"{bounds}{end}")) for end in ("low", "high")]
    text = fixed(row.get(name), digits)
    return text if None in ends else f"{text} ({ends[0]:.{digits}f} to {ends[1]:.{digits}f})"


def duration(seconds: object) -> str:
    """512.3 as `8 min 32 s`."""
    found = number(seconds)
    if found is None or found < 60:
        return "–" if found is None else f"{found:.1f} s"
    hours, rest = divmod(round(found), 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"
