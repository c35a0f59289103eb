"""version                    versions of engramlab and of what its numbers depend on

usage: engramlab version
"""

from __future__ import annotations

from engramlab.cli._words import show_help, wants_help


def main(given: list[str]) -> None:
    """Prints one version a line."""
    if wants_help(given):
        show_help(__doc__)
        return
    from engramlab.files.runs import git_commit, versions

    found = versions()
    print(f"engramlab {found.pop('engramlab', '(not installed)')}" + (f" ({c})" if (c := git_commit()) else ""))
    for name, value in found.items():
        print(f"  {name} {value}")
