"""What an edit changed: the kinds of deltas. How they go on a model and come off is ``core/deltas/installing.py``'s."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from engramlab.base.arrays import brief
from engramlab.core.deltas.changes import Change, Dense, LowRank, add
from engramlab.core.text.prompts import Route as Route

#: ``(x, y, route) -> new y``: the module's input ``[R, T, in]`` and output ``[R, T, out]``, of the rows under this delta.
Modifier = Callable[[torch.Tensor, torch.Tensor, Route], torch.Tensor]


class Delta(ABC):
    """What an edit changed. Subclasses name their ``kind``, under which they are saved and found again.

    Attributes:
        model: ``fingerprint`` of the model it was made for.
        routed: whether what it does depends on where the prompt ends.
        reads: what it puts before a prompt: nothing, texts that state edits, or tokens that stand for nothing.
        continues: an older delta on the same model whose work this one takes over while it is installed.
    """

    kind: ClassVar[str]
    routed: ClassVar[bool] = False
    reads: ClassVar[Literal["", "notes", "tokens"]] = ""
    model: str
    continues: Delta | None = None

    def __init_subclass__(cls) -> None:
        if "__repr__" not in vars(cls):  # a dataclass keeps it
            cls.__repr__ = brief  # type: ignore[method-assign]

    @abstractmethod
    def modifiers(self, model: nn.Module) -> dict[str, Modifier]:
        """What to do at which module (by path), without changing any weight."""

    def context(self, prompt: str) -> str:
        """The prompt as the model should read it."""
        return prompt

    @classmethod
    def read(
        cls,
        deltas: Sequence[Delta],
        prompts: Sequence[str],
        model: nn.Module,
        tokenizer: Any,
        around: Sequence[tuple[str, str]] = (),
    ) -> list[str]:
        """Prompts as the model should read them, each under its delta of this kind; a kind that must ask the model itself asks
        about all of them at once, on the prompts alone.

        Args:
            around: what a chat template puts before and behind each prompt, by whoever calls; nothing by default.
        """
        return [delta.context(prompt) for delta, prompt in zip(deltas, prompts, strict=True)]

    @abstractmethod
    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything of it that is a tensor."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Everything else, fit for JSON."""

    @classmethod
    @abstractmethod
    def restore(cls, model: str, tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> Delta:
        """The delta again, from what ``tensors`` and ``settings`` gave."""


@dataclass
class WeightDelta(Delta):
    """Changes of weight matrices, by module path.

    Attributes:
        extras: tensors a method wants to find again on the model (the keys of its earlier edits, say); they change nothing.
    """

    model: str
    changes: dict[str, Change]
    extras: dict[str, torch.Tensor] = field(default_factory=dict)
    kind: ClassVar[str] = "weights"

    def modifiers(self, model: nn.Module) -> dict[str, Modifier]:
        def of(change: Change) -> Modifier:
            return lambda x, y, route: y + change.apply(x)

        return {path: of(change) for path, change in self.changes.items()}

    def tensors(self) -> dict[str, torch.Tensor]:
        found = {f"extra:{name}": tensor for name, tensor in self.extras.items()}
        for path, change in self.changes.items():
            if isinstance(change, Dense):
                found[f"dense:{path}"] = change.update
            else:
                found[f"left:{path}"], found[f"right:{path}"] = change.left, change.right
        return found

    def settings(self) -> dict[str, Any]:
        return {}

    @classmethod
    def restore(cls, model: str, tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> WeightDelta:
        changes: dict[str, Change] = {}
        extras: dict[str, torch.Tensor] = {}
        for name, tensor in tensors.items():
            part, path = name.split(":", 1)
            if part == "dense":
                changes[path] = Dense(tensor)
            elif part == "left":
                changes[path] = LowRank(tensor, tensors[f"right:{path}"])
            elif part == "extra":
                extras[path] = tensor
        return cls(model, changes, extras)

    @classmethod
    def sum(cls, deltas: Sequence[WeightDelta]) -> WeightDelta:
        """One delta that does what all of them do; extras of the same name are laid end to end."""
        paths = dict.fromkeys(path for delta in deltas for path in delta.changes)
        names = dict.fromkeys(name for delta in deltas for name in delta.extras)
        return cls(
            deltas[0].model,
            {p: add([d.changes[p] for d in deltas if p in d.changes]) for p in paths},
            {n: torch.cat([d.extras[n] for d in deltas if n in d.extras]) for n in names},
        )
