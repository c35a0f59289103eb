"""What a sweep runs: a cell for every variant, seed and value of the options swept over, and the command line of each."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engramlab.base.errors import UserError, quoted
from engramlab.base.options import once
from engramlab.corpora import datasets
from engramlab.corpora.variants import SIXTEEN
from engramlab.files import runs
from engramlab.files.writing import name_of


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
        over: what its options that are swept over are, such as ``qa-ratio=0.2``; empty where there are none.
        config: the resolved config of the run.
        tasks: the run first.
    """

    name: str
    variant: str | None
    seed: int | None
    config: Any
    tasks: tuple[SweepTask, ...]
    over: str = ""

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
        over: other options that are swept over, each as ``OPTION=VALUE,VALUE``.
    """

    experiment: str
    variants: tuple[str, ...]
    seeds: tuple[int, ...]
    options: Any
    over: tuple[str, ...] = ()


def sweep(
    experiment: str, config: Any, *, variants: Sequence[str] | None, seeds: int, over: Sequence[str] = ()
) -> Sweep:
    """The sweep over these variants and over ``seeds`` seeds from the config's own on.

    Args:
        variants: names, or ``["all"]`` for the paper's sixteen; None for the config's own.

    Raises:
        UserError: no seeds, an unknown variant or value, one twice, or an experiment without the option that is swept over.
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
    if chosen:
        datasets.parse_variants(config, chosen)
    once("variants", chosen)
    once("over", [name for name, _ in map(swept, over)])
    first = config.seed if "seed" in known else 0
    counted = tuple(range(first, first + seeds)) if "seed" in known else ()
    return Sweep(experiment, chosen, counted, config, tuple(over))


def swept(text: str) -> tuple[str, list[str]]:
    """The option and the values of ``OPTION=VALUE,VALUE``; a value may be several words.

    >>> swept("qa-ratio=0.2,0.8")
    ('qa-ratio', ['0.2', '0.8'])

    Raises:
        UserError: no option, fewer than two values, or one twice.
    """
    name, _, listed = text.partition("=")
    name, values = name.strip().removeprefix("--").replace("_", "-"), [" ".join(v.split()) for v in listed.split(",")]
    if not name or name in ("seed", "variants", "out", "preset") or len(values) < 2 or not all(values):
        raise UserError(
            f"over: give an option and two values or more, as in qa-ratio=0.2,0.8, not {quoted(text)} (seeds and variants "
            "have --seeds and --variants)"
        )
    once(f"over: {name}", values)
    return name, values


def cells(
    sweep: Sweep,
    out: Path,
    words: Sequence[str],
    probing: Sequence[str] | None = None,
    configure: Callable[[list[str]], Any] | None = None,
) -> list[Cell]:
    """The cells, seed by seed, so that an early look at the sweep finds every variant.

    Args:
        words: command line of the experiment, without its ``--out``, ``--seed`` and ``--variants``.
        probing: command line options of hidden-state-probing, to be run on every finished cell; None for no probing.
        configure: the experiment's config under the options of a cell; needed where options are swept over.

    Raises:
        UserError: the folder of a cell holds a run of another config.
    """
    found = []
    combinations = itertools.product(*([(name, v) for v in values] for name, values in map(swept, sweep.over)))
    chosen = [(settings, [word for n, v in settings for word in (f"--{n}", *v.split())]) for settings in combinations]
    configs = [configure(own) if configure is not None and own else sweep.options for _, own in chosen]
    for seed, variant in itertools.product(sweep.seeds or (None,), sweep.variants or (None,)):
        for (settings, own), options_here in zip(chosen, configs, strict=True):
            over = [f"{name}={value}" for name, value in settings]
            safe = [part if re.fullmatch(r"[\w.=-]+", part) else name_of(part) for part in over]
            name = (
                "-".join([*([variant] if variant else []), *safe, *([] if seed is None else [f"seed{seed}"])]) or "run"
            )
            change: dict[str, Any] = {} if seed is None else {"seed": seed}
            more = own if seed is None else [*own, "--seed", str(seed)]
            if variant is not None:
                change["variants"], more = (variant,), [*more, "--variants", variant]
            config, folder = replace(options_here, **change), out / name
            runs.RunFolder(folder, sweep.experiment, config)
            tasks = [SweepTask(("run", sweep.experiment, "--out", str(folder), *words, *more), folder)]
            if probing is not None:
                probed = out / "probing" / name
                tasks.append(
                    SweepTask(
                        ("run", "hidden-state-probing", "--model", str(folder), "--out", str(probed), *probing), probed
                    )
                )
            found.append(Cell(name, variant, seed, config, tuple(tasks), ", ".join(over)))
    return found
