"""run EXPERIMENT --out DIR   run an experiment; run the same command again to go on after an interruption

usage: engramlab run EXPERIMENT [--preset NAME] --out DIR [options]

engramlab run EXPERIMENT --help shows the options, with the preset's values as defaults.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engramlab.base.errors import UserError
from engramlab.cli._words import help_of, no_name_yet, parse, take, wants_help

GOES_ON = True


def main(given: list[str]) -> None:
    """Runs the experiment, prints its table and writes its page."""
    from engramlab import experiments

    if no_name_yet(given):
        print(f"{help_of(__doc__)}\n\nexperiments: {', '.join(experiments.names())}")
        return
    name, module = given[0], experiments.load(given[0])
    rest, chosen = take(given[1:], "--preset")
    preset = experiments.preset_of(module, name, chosen)
    rest, out = take(rest, "--out")
    presets = f"Presets: --preset {'|'.join(module.PRESETS)}; shown are the defaults of {preset!r}."
    described = f"{(module.__doc__ or '').strip()}\n\n{presets}"
    config = parse(module.Config, f"run {name} --out DIR", rest, default=module.PRESETS[preset], description=described)
    if out is None and not wants_help(rest):
        raise UserError(f"engramlab run {name} needs --out DIR: where the run is kept, for example --out runs/{preset}")
    folder = Path(str(out))
    _show(experiments.run(name, folder, config, preset=preset), folder)


def _show(summary: dict[str, Any], folder: Path) -> None:
    from accelerate import PartialState

    if not PartialState().is_main_process:
        return
    from engramlab.base.terminal import Console
    from engramlab.report import print_summary, write_report

    console = Console()
    print_summary(summary, console)
    page = write_report([folder], folder / "report.html")
    console.print(f"\nsummary  {folder / 'summary.json'}", highlight=False, markup=False)
    console.print(f"report   {page.resolve()}", highlight=False, markup=False)
