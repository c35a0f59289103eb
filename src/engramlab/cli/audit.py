"""audit --model M --facts F  does a model know these facts, and by which way can each be got out?

``engramlab run fact-audit --preset full`` on a table of your own (without --facts on the countries of the world), into
runs/audit-TABLE unless --out says otherwise. --quick asks in two wordings only. --beside OTHER asks a second model the same.
"""

from __future__ import annotations

from pathlib import Path

from engramlab.cli import run
from engramlab.cli._words import take, wants_help

GOES_ON = True


def main(given: list[str]) -> None:
    """Runs fact-audit."""
    rest = [word for word in given if word != "--quick"]
    if rest and not wants_help(rest) and take(rest, "--out")[1] is None:
        facts = take(rest, "--facts")[1]
        rest = [*rest, "--out", f"runs/audit-{Path(facts).stem if facts else 'countries'}"]
    chosen = [] if take(rest, "--preset")[1] else ["--preset", "tiny" if "--quick" in given else "full"]
    run.main(["fact-audit", *chosen, *(rest or ["--help"])])
