"""audit --model M --facts F  does a model know these facts, and by which way can each be got out?

usage: engramlab audit --model MODEL --facts TABLE [options]

Each fact of your table is written in several wordings, ranked among its relation's objects, ranked behind lists of other facts,
and asked for behind a passage that states it. What comes out is its class: extractable, prompt-dependent, latent, recognised or
unknown, with what chance gives beside it, as facts.csv and as a page. --quick asks in two wordings only; --beside OTHER asks a
second model the same and shows what it won and lost. --facts countries, as without --facts, asks for the embedded table of the
world's countries: capital, currency, language, continent and calling code.

    engramlab audit --quick --model MODEL --facts countries
    engramlab audit --model MODEL --beside edited/ --facts my_facts.csv

It is engramlab run fact-audit --preset full, kept in runs/audit-TABLE unless --out says otherwise.
What a model does not know can be taught: engramlab teach --facts runs/audit-TABLE/facts.csv --only recognised unknown.
"""

from __future__ import annotations

from pathlib import Path

from engramlab.cli import run
from engramlab.cli._words import help_of, take

GOES_ON = True


def main(given: list[str]) -> None:
    """Runs fact-audit."""
    rest = [word for word in given or ["--help"] if word != "--quick"]
    facts = take(rest, "--facts")[1]
    out = f"runs/audit-{Path(facts).stem if facts else 'countries'}"
    about = help_of(__doc__).partition("\n\n")[2]
    preset = "tiny" if "--quick" in given else "full"
    run.start("fact-audit", rest, command="audit", about=about, preset=preset, out=out)
