"""What numpy arrays hold, in signatures, and how what holds arrays is shown: in one line."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt

Booleans = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_LONGEST = 60  # characters of a value, and members of a collection that are still shown


def brief(self: Any) -> str:
    """The ``__repr__`` of a dataclass that holds arrays, tensors or long lists: their kinds and sizes, in one line."""
    return f"{type(self).__name__}({', '.join(f'{f.name}={_shown(getattr(self, f.name))}' for f in fields(self))})"


def _shown(value: Any) -> str:
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{str(value.dtype).removeprefix('torch.')}[{', '.join(map(str, value.shape))}]"
    whole = "" if isinstance(value, list | tuple | dict) and len(value) > _LONGEST else repr(value)
    if whole and len(whole) <= _LONGEST and "\n" not in whole:
        return whole
    if hasattr(value, "__len__") and not isinstance(value, str):
        return f"<{type(value).__name__} of {len(value)}>"
    return f"{' '.join(whole[:_LONGEST].split())}…" if isinstance(value, str) else f"<{type(value).__name__}>"
