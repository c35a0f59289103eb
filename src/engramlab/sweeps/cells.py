"""What a sweep runs: a cell for every variant and seed, and the command line of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engramlab.base.errors import UserError
from engramlab.base.options import once
from engramlab.corpora.variants import SIXTEEN, parse_variant
from engramlab.files import runs


@dataclass(frozen=True)
class SweepTask:
    """One command line and the run folder it fills."""

    words: tuple[str, ...]
    folder: Path

    @property
    def finished(self) -> bool:
        """A run writes its summary last."""
        return (self.folder / "summary.json").exists()


@dataclass(frozen=True)
class Cell:
    """One run of the experiment, and what is done with it afterwards (probing), in turn.

    Attributes:
        name: the folder's name in the sweep's.
        config: the resolved config of the run.
        tasks: the run first.
    """

    name: str
    variant: str | None
    seed: int | None
    config: Any
    tasks: tuple[SweepTask, ...]

    @property
    def folder(self) -> Path:
        return self.tasks[0].folder

    @property
    def finished(self) -> bool:
        return all(task.finished for task in self.tasks)


@dataclass(frozen=True)
class Sweep:
    """What decides the numbers of a sweep; recorded in its folder.

    Attributes:
        options: the experiment's config; its seed and variants are each cell's.
    """

    experiment: str
    variants: tuple[str, ...]
    seeds: tuple[int, ...]
    options: Any


def sweep(experiment: str, config: Any, *, variants: Sequence[str] | None, seeds: int) -> Sweep:
    """The sweep over these variants and over ``seeds`` seeds from the config's own on.

    Args:
        variants: names, or ``["all"]`` for the paper's sixteen; None for the config's own.

    Raises:
        UserError: no seeds, an unknown variant, one twice, or an experiment without the option that is swept over.
    """
    known = {field.name for field in dataclasses.fields(config)}
    if seeds < 1:
        raise UserError(f"seeds: must be at least 1, not {seeds}")
    if "seed" not in known and seeds > 1:
        raise UserError(f"seeds: {experiment} has no seed")
    if variants is not None and "variants" not in known:
        raise UserError(f"variants: {experiment} has no corpus variants to sweep over")
    chosen: tuple[str, ...] = ()
    if "variants" in known:
        chosen = SIXTEEN if variants is not None and list(variants) == ["all"] else tuple(variants or config.variants)
    for name in chosen:
        parse_variant(name)
    once("variants", chosen)
    first = config.seed if "seed" in known else 0
    counted = tuple(range(first, first + seeds)) if "seed" in known else ()
    return Sweep(experiment, chosen, counted, config)


def cells(sweep: Sweep, out: Path, words: Sequence[str], probing: Sequence[str] | None = None) -> list[Cell]:
    """The cells, seed by seed, so that an early look at the sweep finds every variant.

    Args:
        words: command line of the experiment, without its ``--out``, ``--seed`` and ``--variants``.
        probing: command line options of hidden-state-probing, to be run on every finished cell; None for no probing.

    Raises:
        UserError: the folder of a cell holds a run of another config.
    """
    found = []
    for seed in sweep.seeds or (None,):
        for variant in sweep.variants or (None,):
            name = "-".join([*([variant] if variant else []), *([] if seed is None else [f"seed{seed}"])]) or "run"
            change: dict[str, Any] = {} if seed is None else {"seed": seed}
            more = [] if seed is None else ["--seed", str(seed)]
            if variant is not None:
                change["variants"], more = (variant,), [*more, "--variants", variant]
            config, folder = replace(sweep.options, **change), out / name
            runs.RunFolder(folder, sweep.experiment, config)
            tasks = [SweepTask(("run", sweep.experiment, "--out", str(folder), *words, *more), folder)]
            if probing is not None:
                probed = out / "probing" / name
                tasks.append(
                    SweepTask(
                        ("run", "hidden-state-probing", "--model", str(folder), "--out", str(probed), *probing), probed
                    )
                )
            found.append(Cell(name, variant, seed, config, tuple(tasks)))
    return found
