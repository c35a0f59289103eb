"""P-tuning: no weight changes; a few virtual tokens, vectors that no word has, stand before every prompt and are trained on the
target tokens (arXiv 2103.10385).

The vectors are what a small network makes of a table, as in the paper (there an LSTM or an MLP; here an MLP), and only they are
kept. To everything that reads text they are a run of one unusual token, whose embedding is replaced where the run stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from engramlab.base.errors import UserError
from engramlab.base.facts import Edit
from engramlab.base.options import check_rules, meant
from engramlab.core.deltas import Change, Delta, Dense, Modifier, OwnRows, Route, fingerprint, installed
from engramlab.core.models import module_paths
from engramlab.core.training.losses import Loss
from engramlab.editing.method import Cases, Made, Watch, failed, recipe
from engramlab.editing.requests import encode_edits
from engramlab.editing.solve.descent import descend

TAKES_LOSS, NEEDS_SUBJECT, TOGETHER, WATCHED = True, False, True, True
TOUCHES = "layers"
_WORDS = (" ~", " @", " %", " =", " *", " the")  # of which a run may stand for the virtual tokens
_TRIED = 3000  # tokens of the vocabulary beside them


@dataclass(frozen=True)
class Config:
    """Ours, chosen on a small model: the paper tunes these per task."""

    tokens: int = 8
    """Virtual tokens before every prompt."""
    width: int = 64
    """Of the table and of the network that makes vectors of it."""
    steps: int = 100
    """Optimizer steps at most."""
    learning_rate: float = 1e-2
    """Of Adam."""
    stop_below: float = 1e-2
    """An edit is done when its mean loss over target tokens is below this; 0 for never."""
    seed: int = 0
    """Of the table and the network."""

    def __post_init__(self) -> None:
        meant(self)
        check_rules(
            self,
            (
                ("tokens", self.tokens >= 2, "at least 2"),
                ("width", self.width >= 1, "at least 1"),
                ("steps", self.steps >= 1, "at least 1"),
                ("learning_rate", self.learning_rate > 0, "above 0"),
            ),
        )


def stand_in(tokenizer: Any, count: int) -> tuple[str, int]:
    """A text that any tokenizer of this kind cuts into ``count`` equal tokens before a new line, and their id.

    Raises:
        UserError: there is none.
    """
    special = set(tokenizer.all_special_ids)
    decoded = (tokenizer.decode([i]) for i in range(min(len(tokenizer), _TRIED)) if i not in special)
    for word in (*_WORDS, *decoded):
        if not word.strip():
            continue
        ids = tokenizer(f"{word * count}\nThe", add_special_tokens=False)["input_ids"]
        alike = len(ids) > count and len(set(ids[:count])) == 1 and ids[count] != ids[0]
        if alike and ids[0] not in special:
            return word * count, ids[0]
    raise UserError(f"tokens: this tokenizer has no token of which {count} stand beside each other; p-tuning needs one")


def runs(ids: torch.Tensor, token: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Where runs of ``count`` such tokens stand in ``ids[R, T]``: rows ``[k, 1]`` and positions ``[k, count]``."""
    there = ids == token
    if ids.shape[1] < count:
        return ids.new_zeros(0, 1), ids.new_zeros(0, count)
    whole = there.unfold(1, count, 1).all(-1)
    whole[:, 1:] &= ~there[:, : whole.shape[1] - 1]  # where a run begins
    row, column = whole.nonzero(as_tuple=True)
    return row[:, None], column[:, None] + torch.arange(count, device=ids.device)


class PrefixUpdates:
    """Virtual tokens of several problems: for each a table and a two-layer network, the same at the start.

    Args:
        level: the length that vectors begin with, an entry.
        start_at_nothing: begin with no change at all, where an earlier prefix is trained on.
    """

    def __init__(
        self, count: int, config: Config, size: int, token: int, level: float, device: Any, *, start_at_nothing: bool
    ) -> None:
        generator = torch.Generator().manual_seed(config.seed)
        width, self.tokens, self.token = config.width, config.tokens, token
        table = torch.randn(self.tokens, width, generator=generator)
        inner = torch.randn(width, width, generator=generator) / width**0.5
        outer = torch.randn(width, size, generator=generator) * (2 / width) ** 0.5 * level
        self.parts = [nn.Parameter(part.to(device).expand(count, -1, -1).clone()) for part in (table, inner, outer)]
        with torch.no_grad():
            self.less = self.vectors() if start_at_nothing else None

    def parameters(self) -> list[nn.Parameter]:
        return self.parts

    def vectors(self) -> torch.Tensor:
        """``[problems, tokens, D]``, of the problems still there."""
        table, inner, outer = self.parts
        return torch.relu(table @ inner) @ outer

    def apply(self, x: torch.Tensor, rows: OwnRows) -> torch.Tensor:
        """What is added to the embeddings ``[R, T, D]`` of the ids ``x[R, T]``."""
        vectors = self.vectors()
        if self.less is not None:
            vectors = vectors - self.less[:1]  # alike for all problems
        row, places = runs(x, self.token, self.tokens)
        added = vectors.new_zeros(*x.shape, vectors.shape[-1])
        return added.index_put((row, places), vectors[rows.owner[row[:, 0]]])

    def change(self, b: int) -> Change:
        """The vectors of a problem, ``[tokens, D]``."""
        vectors = self.vectors().detach()[b]
        return Dense((vectors if self.less is None else vectors - self.less[0]).cpu().clone())


class PTuningDelta(Delta):
    """Virtual tokens before every prompt.

    Attributes:
        vectors: float32 ``[n, D]``: what is added to the embedding of the token that stands in for each.
        text, token: what stands in: its text, ``n`` tokens long, and the token's id.
    """

    kind: ClassVar[str] = "p-tuning"
    reads: ClassVar[Literal["", "notes", "tokens"]] = "tokens"

    def __init__(
        self, model: str, vectors: torch.Tensor, text: str, token: int, continues: Delta | None = None
    ) -> None:
        self.model, self.vectors, self.text, self.token, self.continues = model, vectors, text, token, continues

    def context(self, prompt: str) -> str:
        """The stand-in's text, a new line, and the prompt."""
        return f"{self.text}\n{prompt}"

    def modifiers(self, model: nn.Module) -> dict[str, Modifier]:
        def act(x: torch.Tensor, y: torch.Tensor, route: Route) -> torch.Tensor:
            row, places = runs(x, self.token, len(self.vectors))
            added = self.vectors.to(y.device, y.dtype).expand(len(row), -1, -1)
            return y.index_put((row, places), y[row, places] + added) if len(row) else y

        return {module_paths(model).embedding: act}

    def tensors(self) -> dict[str, torch.Tensor]:
        return {"vectors": self.vectors}

    def settings(self) -> dict[str, Any]:
        return {"text": self.text, "token": self.token}

    @classmethod
    def restore(cls, model: str, tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> PTuningDelta:
        return cls(model, tensors["vectors"], settings["text"], int(settings["token"]))


def edit_each(model: nn.Module, tokenizer: Any, cases: Cases, config: Config, loss: Loss, watch: Watch = None) -> Made:
    """Virtual tokens of its own for each case, all in one batch; those of a p-tuning delta on the model are trained on.

    Raises:
        UserError: an edit that cannot be encoded, or another number of tokens than the prefix on the model has.
    """
    older = next((delta for delta in reversed(installed(model)) if isinstance(delta, PTuningDelta)), None)
    if older is not None and len(older.vectors) != config.tokens:
        raise UserError(f"tokens must be {len(older.vectors)}, as in the prefix on the model, not {config.tokens}")
    text, token = stand_in(tokenizer, config.tokens) if older is None else (older.text, older.token)
    name, path, device = fingerprint(model), module_paths(model).embedding, next(model.parameters()).device
    encode_edits(tokenizer, cases)  # refuses in the user's words
    behind = [[_behind(f"{text}\n", edit) for edit in edits] for edits in cases]
    requests = encode_edits(tokenizer, behind, device=device)
    weight: Any = model.get_submodule(path).weight
    level = float(weight.detach()[:4096].float().std())
    updates = PrefixUpdates(
        len(cases), config, weight.shape[1], token, level, device, start_at_nothing=older is not None
    )

    def finish(row: int) -> Delta:
        vectors = updates.change(row).matrix()
        vectors = vectors if older is None else older.vectors + vectors
        return PTuningDelta(name, vectors, text, token, continues=older)

    plan = recipe(config.steps, config.learning_rate)
    found = descend(model, requests, None, {path: updates}, plan, loss, watch, config.stop_below, finish=finish)
    return [delta or failed(edits) for delta, edits in zip(found, cases, strict=True)]


def _behind(text: str, edit: Edit) -> Edit:
    return replace(edit, query=replace(edit.query, prompt=text + edit.query.prompt))
