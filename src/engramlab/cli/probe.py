"""probe --model M --facts F  what a model's hidden states say about a table of your own: Q- and P-probing

usage: engramlab probe --model MODEL --facts TABLE [options]

Can a nearly linear classifier read the facts of your table out of the model's hidden states, at the entity's name alone (Q) and
in a text about it, before the fact is stated (P)? The table has a row an entity and a column an attribute; half of the entities
teach the classifiers, the other half judge them, beside the same classifiers on shuffled labels. The model is not changed.

    engramlab probe --model MODEL --facts countries.csv

It is engramlab run hidden-state-probing --preset pretrained, kept in runs/probe-TABLE unless --out says otherwise.
"""

from __future__ import annotations

from pathlib import Path

from engramlab.base.errors import UserError
from engramlab.cli import run
from engramlab.cli._words import help_of, take, wants_help

GOES_ON = True


def main(given: list[str]) -> None:
    """Runs hidden-state-probing."""
    given = given or ["--help"]
    facts = take(given, "--facts")[1]
    if facts is None and not wants_help(given):
        raise UserError("engramlab probe needs --facts TABLE: one row an entity, one column an attribute")
    out = f"runs/probe-{Path(facts).stem}" if facts else "runs/probe-TABLE"
    about = help_of(__doc__).partition("\n\n")[2]
    run.start("hidden-state-probing", given, command="probe", about=about, preset="pretrained", out=out)
