"""cite --model R "question"   what a model answers, and which document it names as its source

usage: engramlab cite --model RUN QUESTION ... [options]

Asks a model that was trained with sources (engramlab run source-attribution). Beside the answer stand the documents it may have
been read in, with the probabilities of the best few: exact, over all documents that the model was trained on.

    engramlab run source-attribution --preset tiny --out runs/sources
    engramlab cite --model runs/sources "Where did Anya Briar Forger work?"
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engramlab.base.errors import UserError
from engramlab.cli._words import help_of, parse, starting, wants_help


@dataclass(frozen=True, kw_only=True)
class CiteOptions:
    """Options of ``engramlab cite``."""

    questions: tuple[str, ...]
    model: str = ""
    """The folder of a finished run of source-attribution, or the folder model in it. Required."""
    best: int = 5
    """How many documents to name."""
    json: bool = False
    """Print a JSON object a question instead of tables."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number type of the weights."""
    device: str | None = None
    """cpu, cuda, cuda:1 ...; by default the CPU."""


def main(given: list[str]) -> None:
    """Asks and prints."""
    rest = given or ["--help"]
    options = parse(CiteOptions, "cite --model RUN QUESTION ...", rest, positional=True, description=help_of(__doc__))
    if not options.model:
        raise UserError("engramlab cite needs --model: the folder of a finished run of source-attribution")
    if not options.questions:
        raise UserError('engramlab cite needs a question, such as "Where did Anya Briar Forger work?"')
    if not wants_help(given):
        starting()
    from engramlab.measuring.citing import cite

    rows = cite(options.model, options.questions, best=options.best, dtype=options.dtype, device=options.device)
    if options.json:
        import json

        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
        return
    from rich.table import Table
    from rich.text import Text

    from engramlab.base.terminal import Console

    for row in rows:
        table = Table(title=Text(row["question"]), title_justify="left", show_header=False)
        table.add_row("answer", Text(row["answer"] or "(nothing)"))
        for source, share in row["probabilities"].items():
            table.add_row(f"{100 * share:.1f} %", Text(source))
        table.add_row(row["source"], Text(row["text"]))
        Console().print(table)
