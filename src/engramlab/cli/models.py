"""models                     named model sizes, and what else can be loaded

usage: engramlab models

The named sizes that are trained from scratch, the families they come in, and what else --model.name takes.
"""

from __future__ import annotations

from engramlab.cli._words import show_help, wants_help


def main(given: list[str]) -> None:
    """Prints the table."""
    if wants_help(given):
        show_help(__doc__)
        return
    from rich.table import Table

    from engramlab.base.terminal import Console
    from engramlab.core.models import SIZES, buildable

    console = Console()
    rows = Table("name", "layers", "heads", "width", "parameters", "for", title="Named sizes, trained from scratch")
    for name, size in SIZES.items():
        parameters = f"{12 * size.layers * size.width**2 / 1e6:,.1f}M + {size.width} a token"
        rows.add_row(name, str(size.layers), str(size.heads), str(size.width), parameters, size.note)
    console.print(rows)
    console.print(
        f"Families of a named size (--model.family): {', '.join(buildable())}.\n"
        "Instead of a name (--model.name): a model folder, a .gguf file, or a hub id such as owner/name.",
        highlight=False,
    )
