"""``--dry-run``: what a run would do, and what it would cost on this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engramlab.base.progress import clock, size
from engramlab.base.terminal import Console

_CHECKPOINT = 12  # bytes a parameter that is trained: the weight and AdamW's two moments


def show(start: Callable[[], Any]) -> None:
    """Checks the run that ``start`` would make, and prints its stages, time, memory and disk."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from engramlab.core.training.cost import Cost, cost
    from engramlab.experiments import _run

    run = _run.tried(start)
    console, todo = Console(), {stage.label: stage for stage in run.stages}
    table = Table("stage", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("steps", "rows", "tokens", "parameters", "time"):
        table.add_column(name, justify="right")
    costs: dict[tuple[Any, ...], Cost] = {}
    seconds, most, disk, tried = 0.0, 0, 0, True
    for stage in todo.values():
        cells = [stage.label, f"{stage.steps:,}", f"{stage.rows:,}"]
        if stage.make is not None:
            shape = (stage.rows, max(2, round(stage.length)))
            made = getattr(stage.make, "func", stage.make), getattr(stage.make, "args", ()), shape
            if made not in costs:
                costs[made] = cost(stage.make, *shape, run.accelerator.device)
            found = costs[made]
            seconds, most = seconds + stage.steps * found.seconds, max(most, found.bytes)
            disk, tried = disk + found.parameters * 4, tried and found.tried
            tokens = stage.steps * stage.rows * stage.length
            cells += [f"{tokens:,.0f}", f"{found.parameters:,}", clock(stage.steps * found.seconds)]
        table.add_row(*cells)
    console.print(table)
    lines = [f"{run.folder}: {'would go on with the run there' if run.resumed else 'would be a new run'}."]
    if costs:
        largest = max(found.trained for found in costs.values())
        disk += largest * _CHECKPOINT
        how = "from a step tried here" if tried else "from the speed of a matrix product here"
        processes = f", for one of {run.accelerator.num_processes} processes" * (run.accelerator.num_processes > 1)
        lines += [
            f"Time: about {clock(seconds)} of training on {run.accelerator.device} ({how}{processes}); measuring comes on top.",
            f"Memory: about {size(most)}, beside the half gigabyte of Python and torch.",
            f"Disk: up to {size(disk)}, of which {size(largest * _CHECKPOINT)} is a checkpoint.",
        ]
    else:
        lines.append("How long that takes depends on the model, which has not been loaded.")
    lines.append("Options and files are in order. Nothing was written.")
    for line in lines:
        console.print(line, markup=False, highlight=False)
