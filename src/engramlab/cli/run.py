"""run EXPERIMENT --out DIR   run an experiment; run the same command again to go on after an interruption

usage: engramlab run EXPERIMENT [--preset NAME] --out DIR [options]

engramlab run EXPERIMENT --help shows the options that matter most, with the preset's values as defaults, --help-all every one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engramlab.base.errors import UserError
from engramlab.cli import _dry
from engramlab.cli._help import Option
from engramlab.cli._words import no_name_yet, parse, show_help, starting, take, wants_help
from engramlab.files.locks import place

GOES_ON = True
_WIDE = 60  # letters of all presets' names beside the option


def main(given: list[str]) -> None:
    """Runs the experiment, prints its table and writes its page."""

    if no_name_yet(given):
        show_help(f"{__doc__}\n\nExperiments:", experiments_there())
        return
    start(given[0], given[1:], command=f"run {given[0]}")


def experiments_there() -> list[Option]:
    """The experiments, and in a line what each does."""
    from engramlab import experiments

    return [Option(name, "", experiments.about(name)) for name in experiments.names()]


def start(
    name: str, given: list[str], *, command: str, about: str = "", preset: str | None = None, out: str | None = None
) -> None:
    """Reads an experiment's options and runs it.

    Args:
        command: as the user calls it.
        about: what its help says; the experiment's docstring by default.
        preset: where none is given; the experiment's first by default.
        out: the folder where none is given; it has to be given by default.
    """
    from engramlab import experiments

    rest, out = take(given, "--out", out)
    rest, chosen = take(rest, "--preset", preset)
    if not wants_help(given) and name in experiments.names():
        if out is None:
            example = f"--out runs/{chosen or 'mine'}"
            raise UserError(f"engramlab {command} needs --out DIR: where the run is kept, for example {example}")
        starting()
    module = experiments.load(name)
    chosen = experiments.preset_of(module, name, chosen)
    dry, rest = "--dry-run" in rest, [word for word in rest if word != "--dry-run"]
    config = parse(
        module.Config,
        f"{command} --out DIR" if out is None else command,
        rest,
        default=module.PRESETS[chosen],
        description=about or module.__doc__ or "",
        also=_also(module, chosen, out),
    )
    folder = place(str(out))
    if dry:
        _dry.show(lambda: experiments.run(name, folder, config, preset=chosen))
        return
    _show(experiments.run(name, folder, config, preset=chosen), folder)


def _also(module: Any, preset: str, out: str | None) -> Sequence[Option]:
    """The options of every run, for the help."""
    where = "Where the run is kept; the same command goes on there after an interruption."
    presets, there = (
        f"Values to start from; those of {preset} stand behind the options below.",
        "|".join(module.PRESETS),
    )
    if len(there) > _WIDE:
        presets, there = f"{presets} There are {', '.join(module.PRESETS)}.", "NAME"
    return (
        Option("--out", "DIR", f"{where} [{out}]" if out else f"{where} (needed)"),
        Option("--preset", there, presets),
        Option(
            "--dry-run", "", "Checks all of it and says what would be done, how long it takes here; writes nothing."
        ),
    )


def _show(summary: dict[str, Any], folder: Path) -> None:
    from engramlab.experiments._run import launched

    if not launched().is_main_process:
        return
    from engramlab.base.terminal import Console
    from engramlab.report import print_summary, write_report

    console = Console()
    print_summary(summary, console)
    page = write_report([folder], folder / "report.html")
    console.print(f"\nsummary  {folder / 'summary.json'}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"report   {page.resolve()}", highlight=False, markup=False, soft_wrap=True)
