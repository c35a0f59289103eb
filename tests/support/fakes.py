"""Deltas for tests: one whose doing depends on the end of the prompt, one that puts text before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from engramlab.core.deltas import Delta, Modifier, Route, fingerprint
from engramlab.core.models import module_paths


class Leaning(Delta):
    """Looks at the last prompt position of one module's input, and pushes the module's output one of eight ways."""

    kind: ClassVar[str] = "leaning (a test's)"
    routed: ClassVar[bool] = True

    def __init__(self, model: nn.Module, seed: int = 0, size: float = 3.0) -> None:
        paths = module_paths(model)
        self.model, self.path = fingerprint(model), f"{paths.layers}.0.{paths.mlp_down}"
        width = model.get_input_embeddings().weight.shape[1]  # type: ignore[operator]
        self.ways = torch.randn(8, width, generator=torch.Generator().manual_seed(seed)) * size
        self.decisions: list[list[int]] = []

    def decide(self, x: torch.Tensor) -> torch.Tensor:
        """``x[R, in] -> [R]``: on which side of three planes."""
        planes = torch.randn(x.shape[-1], 3, generator=torch.Generator().manual_seed(9))
        return (x.float() @ planes > 0).long() @ torch.tensor([1, 2, 4])

    def modifiers(self, model: nn.Module) -> dict[str, Modifier]:
        def push(x: torch.Tensor, y: torch.Tensor, route: Route) -> torch.Tensor:
            def look(ends: torch.Tensor) -> torch.Tensor:
                found = self.decide(x[torch.arange(len(x)), ends])
                self.decisions.append(found.tolist())
                return found

            return y + self.ways[route.decide("way", look)][:, None].to(y.dtype)

        return {self.path: push}

    def tensors(self) -> dict[str, torch.Tensor]:
        return {"ways": self.ways}

    def settings(self) -> dict[str, Any]:
        return {}

    @classmethod
    def restore(cls, model: str, tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> Delta:
        raise NotImplementedError


class Preface(Delta):
    """Puts a text before every prompt."""

    kind: ClassVar[str] = "preface (a test's)"

    def __init__(self, model: nn.Module, text: str, continues: Delta | None = None) -> None:
        self.model, self.text, self.continues = fingerprint(model), text, continues

    def modifiers(self, model: nn.Module) -> dict[str, Modifier]:
        return {}

    def context(self, prompt: str) -> str:
        return f"{self.text} {prompt}"

    def tensors(self) -> dict[str, torch.Tensor]:
        return {}

    def settings(self) -> dict[str, Any]:
        return {"text": self.text}

    @classmethod
    def restore(cls, model: str, tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> Delta:
        raise NotImplementedError
