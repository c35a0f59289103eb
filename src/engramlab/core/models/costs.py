"""What a model's device is, and the most memory that was taken on it."""

from __future__ import annotations

import sys

import torch


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
