"""What a model's device is, the most memory that was taken on it, and what a number type costs there."""

from __future__ import annotations

import sys
import time
import warnings
from functools import cache

import torch

#: A number type this many times slower than float32 is worth a word.
MUCH = 2.0


def device_name(device: torch.device) -> str:
    """The device as its maker calls it; "cpu" for the processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def forget_peak(device: torch.device) -> None:
    """From now on ``peak_memory`` is of what comes; on a CPU it stays that of the whole process, which nobody can set back."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int | None:
    """Bytes: on a GPU the most that tensors took there since ``forget_peak``; on a CPU the most that the process took since it
    began (its resident set), loading included. None where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if device.type != "cpu" or sys.platform == "win32":
        return None
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most  # kilobytes everywhere but there


@cache
def slowness(dtype: torch.dtype) -> float:
    """How many times as long as in float32 a product of matrices takes in ``dtype`` on this processor, timed once: one without
    instructions for it converts every number, and takes several times as long."""

    def seconds(kind: torch.dtype) -> float:
        rows, weights = torch.ones(64, 512, dtype=kind), torch.ones(512, 512, dtype=kind)
        took = []
        for _ in range(4):  # the first warms up
            began = time.perf_counter()
            rows @ weights
            took.append(time.perf_counter() - began)
        return min(took)

    return seconds(dtype) / seconds(torch.float32)


def warn_if_slow(dtype: torch.dtype, device: torch.device) -> None:
    """A note where weights of this type make every step much slower than it could be."""
    if device.type != "cpu" or dtype == torch.float32 or (times := slowness(dtype)) < MUCH:
        return
    name = str(dtype).removeprefix("torch.")
    warnings.warn(
        f"weights in {name} on this processor: products of them take about {times:.0f} times as long as in float32 (timed just "
        "now); leave dtype out unless float32 does not fit in memory",
        stacklevel=3,
    )
