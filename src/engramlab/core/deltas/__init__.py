"""What an edit changed, as a thing of its own: put on a model, taken off again bit for bit, saved, or many at once.

A delta either changes weights (``WeightDelta``), or adds to what modules compute depending on the prompt (a subclass with
``modifiers``), or puts text before the prompt (``context``). Deltas on a model form a stack: the last one put on is the first
one to come off.
"""

from engramlab.core.deltas.changes import Change, Dense, LowRank, OwnRows
from engramlab.core.deltas.delta import Delta, Modifier, Route, WeightDelta
from engramlab.core.deltas.installing import active, changed, install, installed, put, remove_all, routed, together
from engramlab.core.deltas.stack import Installed, Several, fingerprint, narrow, routing, stack_of

__all__ = [
    "Change",
    "Delta",
    "Dense",
    "Installed",
    "LowRank",
    "Modifier",
    "OwnRows",
    "Route",
    "Several",
    "WeightDelta",
    "active",
    "changed",
    "fingerprint",
    "install",
    "installed",
    "narrow",
    "put",
    "remove_all",
    "routed",
    "routing",
    "stack_of",
    "together",
]
