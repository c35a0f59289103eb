"""sweep EXPERIMENT --out DIR  run it over corpus variants and seeds, and report on all of them

usage: engramlab sweep EXPERIMENT --out DIR [--variants all] [--seeds N] [options of the experiment]

Runs an experiment for every corpus variant, seed and value of --over, each in a run folder of its own, and makes one report.
The same command goes on after an interruption; with more seeds or variants it runs those as well. All options of the experiment
(engramlab run EXPERIMENT --help) can be given too. engramlab sweep EXPERIMENT --help shows the options of a sweep. Leaves with
exit code 1 when a cell failed for good.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engramlab.base.errors import UserError
from engramlab.base.options import at_least
from engramlab.cli import _dry
from engramlab.cli._help import Option
from engramlab.cli._words import help_of, no_name_yet, parse, show_help, starting, take, wants_help
from engramlab.cli.run import experiments_there
from engramlab.files import locks

GOES_ON = True


@dataclass(frozen=True)
class Options:
    """Options of ``engramlab sweep``."""

    out: Path | None = None
    """The sweep's folder: OUT/VARIANT-seedS for each cell, OUT/report.html, OUT/summary.json, OUT/logs."""
    preset: str | None = None
    """Preset of the experiment; its first by default."""
    variants: tuple[str, ...] | None = None
    """Corpus variants, each with cells of its own; `all` is the sixteen of the paper's main figure."""
    seeds: int = 1
    """How many seeds, counted from --seed."""
    over: tuple[str, ...] = ()
    """Other options to sweep over, with their values: --over qa-ratio=0.2,0.5,0.8; every combination has cells of its own."""
    processes: int = 1
    """Cells that run at once on this machine."""
    threads: int | None = None
    """Threads of each cell; by default the cores (or OMP_NUM_THREADS) are shared out evenly. Another number may
    change the last digits of what is measured."""
    retries: int = 1
    """How often a cell that failed is tried again, after the others."""
    ray: str | None = None
    """Run the cells on a Ray cluster instead: `local`, `auto` or HOST:PORT on one of its machines, ray://HOST:PORT from
    elsewhere (Ray's client: `pip install ray[client]`). Needs the ray extra."""
    gpus: float = 0.0
    """GPUs of each cell on a Ray cluster, parts of one allowed."""
    probe: bool = False
    """Also run hidden-state-probing on every finished cell, into OUT/probing."""
    probe_options: str = ""
    """Its options, in one string: --probe-options "--preset tiny --probes Q"."""


def main(given: list[str]) -> None:
    """Checks the whole sweep, runs what is left of it, and reports on all of it."""
    from engramlab import experiments

    if no_name_yet(given):
        show_help(f"{__doc__}\n\nExperiments:", experiments_there())
        return
    from engramlab.files import runs
    from engramlab.sweeps import cells as plan

    if not wants_help(given) and given[0] in experiments.names():
        starting()
    name, module = given[0], experiments.load(given[0])
    rest, probe_options = take(given[1:], "--probe-options")  # its value begins with dashes
    also = [Option("--dry-run", "", "Checks all of it and says what would be done, by the first cell; writes nothing.")]
    usage = f"sweep {name} --out DIR"
    options, words = parse(Options, usage, rest, description=help_of(__doc__), also=also, others=True)
    if options.out is None:
        raise UserError(
            f"engramlab sweep {name} needs --out DIR: where the sweep is kept, for example --out runs/sweep"
        )
    out = locks.place(options.out)
    options = replace(options, out=out)
    at_least(options, 1, "processes", "threads")
    at_least(options, 0, "retries", "gpus")
    dry, words = "--dry-run" in words, [word for word in words if word != "--dry-run"]
    preset = experiments.preset_of(module, name, options.preset)
    config = parse(module.Config, f"sweep {name} --out DIR", words, default=module.PRESETS[preset])
    probing = None
    if options.probe:
        probing = shlex.split(probe_options or "")
        _check_probing(experiments.load("hidden-state-probing"), probing)
    elif probe_options:
        raise UserError("probe_options: given without --probe")
    chosen = plan.sweep(name, config, variants=options.variants, seeds=options.seeds, over=options.over)
    for option, _ in map(plan.swept, options.over):
        if any(word == f"--{option}" or word.startswith(f"--{option}=") for word in words):
            raise UserError(f"over: --{option} is given beside it; leave one of them out")
    place = runs.RunFolder(out, "sweep", chosen, preset=preset, grows=("variants", "seeds"))

    def configure(own: list[str]) -> Any:
        return parse(module.Config, f"sweep {name} --over", [*words, *own], default=module.PRESETS[preset])

    bare = ["--preset", preset, *take(words, "--seed")[0]]
    cells = plan.cells(chosen, out, bare, probing, configure)
    if check := getattr(module, "check", None):
        for cell in cells:
            check(cell.config)
    if dry:
        done = sum(cell.finished for cell in cells)
        print(f"{len(cells)} cells, {done} of them done: {', '.join(cell.name for cell in cells)}. The first one:")
        _dry.show(lambda: experiments.run(name, cells[0].folder, cells[0].config, preset=preset))
        return
    _run(options, name, chosen, cells, place)


def _run(options: Options, name: str, chosen: Any, cells: list[Any], place: Any) -> None:

    from engramlab.base.terminal import Console
    from engramlab.files import records
    from engramlab.report import print_summary, write_report
    from engramlab.sweeps import work
    from engramlab.sweeps.executors import Executor, Processes, RayTasks
    from engramlab.sweeps.summary import summary

    assert options.out is not None
    executor: Executor
    if options.ray is not None:
        executor = RayTasks(options.ray, options.threads, options.gpus)
    else:
        executor = Processes(options.processes, options.threads)
    console = Console(stderr=True)
    place.open()
    try:
        console.print(
            f"{options.out}: {'going on' if place.resumed else 'new sweep'}; {len(cells)} cells of {name}, "
            f"{sum(cell.finished for cell in cells)} done before",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        outcomes = work.run(cells, executor, options.out / "logs", retries=options.retries, console=console)
        made = summary(chosen, outcomes, options.out)
        records.write_record(options.out / "summary.json", made)
    finally:
        place.close()
    print_summary(made, Console())
    print(f"\nsummary  {options.out / 'summary.json'}")
    print(f"report   {write_report([options.out], options.out / 'report.html').resolve()}")
    failed = [one.cell.name for one in outcomes if one.error]
    if failed:
        print(
            f"engramlab: {len(failed)} of {len(cells)} cells failed ({', '.join(failed)}; see {options.out / 'logs'}); the "
            "same command tries them again",
            file=sys.stderr,
        )
        sys.exit(1)


def _check_probing(module: Any, words: list[str]) -> None:
    """Refuses probing options that cannot be read, before the first cell is run."""
    from engramlab import experiments

    words, chosen = take(words, "--preset")
    preset = experiments.preset_of(module, "hidden-state-probing (--probe-options)", chosen)
    parse(module.Config, "sweep --probe-options", words, default=module.PRESETS[preset])
