"""merge DIR DIR --out DIR    the edits of several folders in one model

One model with the edits of several folders that were made on the same model; the changes of weights are summed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engramlab.base.errors import UserError
from engramlab.cli._words import help_of, parse, starting, take
from engramlab.files.locks import place


@dataclass(frozen=True)
class Options:
    """Options of ``engramlab merge``."""

    folders: tuple[Path, ...]
    """Folders that engramlab edit wrote."""
    delta_only: bool = False
    """Save what the edits changed, not the model."""
    device: str | None = None
    """cpu, cuda, cuda:1 ...; by default a GPU where there is one."""
    base: str | None = None
    """Where the unedited model is now, if the folders hold edits alone and it has moved."""


def main(given: list[str]) -> None:
    """Merges, and asks whether every edit still holds."""
    rest, out = take(given, "--out")
    options = parse(Options, "merge DIR DIR --out DIR", rest, positional=True, description=help_of(__doc__))
    if out is None:
        raise UserError("engramlab merge needs --out DIR: where the merged model is kept, for example --out merged/")
    where = place(out)
    starting()
    from engramlab.base.progress import ProgressBar
    from engramlab.cli import _edit_tables as tables
    from engramlab.editing.folders import merging, opening, saving

    with ProgressBar("asking the model before and after", 1) as bar:
        rows = merging.merge(
            options.folders,
            where,
            delta_only=options.delta_only,
            device=opening.place(options.device),
            base=options.base,
            progress=lambda part, done, total: bar.to(done + total * (part == "after"), 2 * total),
        )
    listed = saving.listing(where)
    tables.show_merged(rows)
    tables.show_saved(
        where,
        len(listed),
        weights=all(one.kind == "weights" for one in listed),
        alone=options.delta_only,
        merged=True,
    )
