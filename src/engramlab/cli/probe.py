"""probe --model M --facts F  what a model's hidden states say about a table of your own: Q- and P-probing

``engramlab run hidden-state-probing --preset pretrained`` on a table of your own, into runs/probe-TABLE unless --out says
otherwise.
"""

from __future__ import annotations

from pathlib import Path

from engramlab.base.errors import UserError
from engramlab.cli import run
from engramlab.cli._words import take, wants_help

GOES_ON = True


def main(given: list[str]) -> None:
    """Runs hidden-state-probing."""
    if given and not wants_help(given):
        _, facts = take(given, "--facts")
        if facts is None:
            raise UserError("engramlab probe needs --facts TABLE: one row an entity, one column an attribute")
        if take(given, "--out")[1] is None:
            given = [*given, "--out", f"runs/probe-{Path(facts).stem}"]
    given = given or ["--help"]
    chosen = [] if take(given, "--preset")[1] else ["--preset", "pretrained"]
    run.main(["hidden-state-probing", *chosen, *given])
