"""The arithmetic of an edit: the token-passes through layers that it takes, and their share of the machine's peak."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from engramlab.core.forward.tails import Tail


@dataclass
class Work:
    """Passes of a search, forward and back to the activations (all weights are frozen).

    Attributes:
        layers: positions, each as often as there are layers that it passes.
        heads: positions whose logits are computed.
        flops: 2 a weight and position forward, and 2 back.
    """

    layers: int = 0
    heads: int = 0
    flops: float = 0.0

    def text(self, seconds: float, edits: int, peak: float) -> str:
        """What one of so many edits took, which took so many CPU-seconds each."""
        least = self.flops / edits / peak
        return (
            f"  {self.layers / edits:,.0f} token-passes through a layer and {self.heads / edits:,.0f} to the vocabulary "
            f"an edit = {self.flops / edits / 1e12:.2f} TFLOP: {least:.2f} CPU-s at this machine's {peak / 1e9:.0f} GFLOP/s, "
            f"{least / seconds:.0%} of its peak"
        )


@contextlib.contextmanager
def counted(model: nn.Module) -> Iterator[Work]:
    """Counts what searches compute inside the block; attention itself, norms and what is read once are left out."""
    work, real = Work(), Tail.logits
    head = model.get_output_embeddings().weight.numel()  # type: ignore[operator]

    def logits(self: Tail, keep: torch.Tensor) -> torch.Tensor:
        weights = sum(p.numel() for layer in self.layers for p in layer.parameters() if p.dim() == 2)
        work.layers += keep.numel() * len(self.layers)
        work.heads += int(keep.sum())
        work.flops += 4.0 * (keep.numel() * weights + int(keep.sum()) * head)
        return real(self, keep)

    Tail.logits = logits  # type: ignore[method-assign]
    try:
        yield work
    finally:
        Tail.logits = real  # type: ignore[method-assign]


def peak(size: int = 1536, tries: int = 8) -> float:
    """Floating-point operations a CPU-second of a matrix product, the best of some."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    best = float("inf")
    for _ in range(tries):
        before = time.process_time()
        a @ b
        best = min(best, time.process_time() - before)
    return 2.0 * size**3 / best
