"""Layers of a model compiled (``torch.compile``) for the steps of its training alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from engramlab.base.errors import UserError


class Compiled:
    """Compiled forward passes of layers that are alike, one program for all of them and for batches of any shape.

    The layers are theirs only inside ``running``: whoever asks, edits or saves the model between steps sees it as it was, and
    does not make it compile anew. What is computed is the same but for the order of sums.

    Raises:
        UserError: there are no layers, or nothing to compile with.
    """

    def __init__(self, blocks: list[nn.Module], device: torch.device) -> None:
        if not blocks:
            raise UserError("recipe: compile: the model keeps its layers in no list; leave it out")
        if device.type == "cpu" and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++"))):
            raise UserError("recipe: compile: there is no C++ compiler here (g++); install one, or leave it out")
        self.forwards = [(block, torch.compile(block.forward, dynamic=True)) for block in blocks]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Inside the block the layers run as compiled."""
        own = [block.__dict__.get("forward") for block, _ in self.forwards]
        try:
            for block, forward in self.forwards:
                block.forward = forward
            yield
        finally:
            for (block, _), before in zip(self.forwards, own, strict=True):
                del block.forward
                if before is not None:
                    block.forward = before
