"""Knowledge editing: benchmarks, methods and their evaluation.

from engramlab import editing

wish = editing.Edit(editing.Query("The capital of France is", "Paris", subject="France"), "Rome")
with editing.applied(model, tokenizer, wish, method="rome", loss="overtone"):
    ...                                                  # the model says Rome; afterwards it is as it was, bit for bit
editing.change(model, tokenizer, wish, out="edited/")    # edits, asks before and after, and saves
model, tokenizer = editing.load("edited/")               # what it, or ``engramlab edit --out edited/``, saved
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engramlab.base.facts import Case as Case
    from engramlab.base.facts import Edit as Edit
    from engramlab.base.facts import Query as Query
    from engramlab.core.deltas import install as install
    from engramlab.editing.changing import change as change
    from engramlab.editing.folders.merging import merge as merge
    from engramlab.editing.folders.saving import listing as listing
    from engramlab.editing.folders.saving import load as load
    from engramlab.editing.folders.saving import save as save
    from engramlab.editing.folders.saving import undo as undo
    from engramlab.editing.method import applied as applied
    from engramlab.editing.method import make as make
    from engramlab.editing.method import names as names

#: Where each name is; loaded when first asked for, so that reading a benchmark file needs no torch.
_WHERE = {
    **dict.fromkeys(("Case", "Edit", "Query"), "engramlab.base.facts"),
    "change": "engramlab.editing.changing",
    "install": "engramlab.core.deltas",
    **dict.fromkeys(("applied", "make", "names"), "engramlab.editing.method"),
    **dict.fromkeys(("listing", "load", "save", "undo"), "engramlab.editing.folders.saving"),
    "merge": "engramlab.editing.folders.merging",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
