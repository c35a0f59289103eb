"""Numbers as pages and terminals say them; an en dash where nothing was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from engramlab.report.parts.figures import percent
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
    value, low, high = _ends(row, name, bounds)
    text = fixed(value, digits)
    return text if None in (low, high) else f"{text} ({low:.{digits}f} to {high:.{digits}f})"


def percent_ranged(row: Mapping[str, Any], name: str, bounds: str | None = None) -> str:
    """A row's share as `86.6 % (80 to 92)`, where it has ends as for ``ranged``."""
    value, low, high = _ends(row, name, bounds)
    return percent(value) + ("" if None in (value, low, high) else f" ({100 * low:.0f} to {100 * high:.0f})")


def points_ranged(row: Mapping[str, Any], name: str, bounds: str | None = None) -> str:
    """A row's difference of shares, in points, as `+1.0 (-0.5 to +2.0)`; an en dash without its ends."""
    value, low, high = _ends(row, name, bounds)
    return "–" if None in (value, low, high) else f"{100 * value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _ends(row: Mapping[str, Any], name: str, bounds: str | None) -> tuple[Any, Any, Any]:
    low, high = (row.get(f"{name}_{end}" if bounds is None else f"{bounds}{end}") for end in ("low", "high"))
    return number(row.get(name)), number(low), number(high)


def duration(seconds: object) -> str:
    """512.3 as `8 min 32 s`."""
    found = number(seconds)
    if found is None or found < 60:
        return "–" if found is None else f"{found:.1f} s"
    hours, rest = divmod(round(found), 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"
