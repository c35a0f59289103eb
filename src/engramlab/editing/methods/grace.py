"""GRACE: a codebook beside one module; at the end of a prompt near a key, a learnt value replaces the module's output
(arXiv 2211.11031)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from engramlab.base.options import check_rules, meant
from engramlab.core.deltas import Delta, Modifier, Route, fingerprint
from engramlab.core.models.geometry import depth, down_projection, layer_at, matrix_shape
from engramlab.core.training.losses import Loss
from engramlab.editing.method import Cases, Made, Watch, failed, recipe
from engramlab.editing.requests import encode_edits
from engramlab.editing.routed.codebook import Codebook, Verdict, decide_where, rounding
from engramlab.editing.routed.learning import TrainedRows, continued, standing_in, train_routed

TAKES_LOSS, NEEDS_SUBJECT, TOGETHER, WATCHED = True, False, False, True


@dataclass(frozen=True)
class Config:
    """The field's usual settings for LLaMA-2-7B (layer, rate, radius, replacement); the codebook's rules are the paper's
    Algorithm 1, where a radius grows just to the new key.

    The radius is in the units of the module's input. In SmolLM2-135M rewordings of a prompt lie 12 to 25 away from it at this
    layer, but "The capital of Spain is" only 11 from "The capital of Italy is": no radius holds the rewordings and leaves the
    neighbours out. At 1.0 an edit holds for its very prompt, and locality is perfect.
    """

    layer: int | None = None
    """Layer whose MLP down-projection gets the codebook; None for the one at 27/32 of the depth."""
    steps: int = 100
    """Adam steps for a value, at most."""
    learning_rate: float = 1.0
    """Of Adam."""
    radius: float = 1.0
    """First deferral radius (epsilon_init) of a key."""
    replacement: Literal["replace_last", "replace_prompt"] = "replace_last"
    """Where a value stands in for the module's output: at the prompt's last token, or at all of the prompt's tokens."""
    start: Literal["random", "output"] = "random"
    """A value begins uniformly random in [0, 1), or as what the module put out."""
    stop_below: float = 1e-2
    """An edit is done when its mean loss over target tokens is below this; 0 for never."""
    seed: int = 0
    """Of the first values."""

    def __post_init__(self) -> None:
        meant(self)
        check_rules(
            self,
            (
                ("steps", self.steps >= 1, "at least 1"),
                ("learning_rate", self.learning_rate > 0, "above 0"),
                ("radius", self.radius > 0, "above 0"),
                (
                    "replacement",
                    self.replacement in ("replace_last", "replace_prompt"),
                    "replace_last or replace_prompt",
                ),
                ("start", self.start in ("random", "output"), "random or output"),
            ),
        )


@dataclass(eq=False)
class GraceDelta(Delta):
    """A codebook at the module ``path``, and a value ``values[n, out]`` for each of its keys.

    Attributes:
        replacement: see ``Config.replacement``.
    """

    kind: ClassVar[str] = "grace"
    routed: ClassVar[bool] = True

    model: str
    path: str
    codebook: Codebook
    values: torch.Tensor
    replacement: str
    continues: Delta | None = None

    def modifiers(self, model: nn.Module) -> dict[str, Modifier]:
        if not len(self.codebook):
            return {}
        device = next(model.get_submodule(self.path).parameters()).device
        codebook, values = self.codebook.to(device), self.values.to(device)

        def modify(x: torch.Tensor, y: torch.Tensor, route: Route) -> torch.Tensor:
            entry, reads_prompt = decide_where(route, (id(self), "entry"), x, codebook.find)
            if not reads_prompt:
                return y
            where = _positions(x, route.ends, self.replacement) & (entry >= 0)[:, None]
            return torch.where(where[..., None], values[entry.clamp(min=0)].to(y.dtype)[:, None], y)

        return {self.path: modify}

    def tensors(self) -> dict[str, torch.Tensor]:
        return {"keys": self.codebook.keys, "radii": self.codebook.radii, "values": self.values}

    def settings(self) -> dict[str, Any]:
        return {"path": self.path, "labels": self.codebook.labels, "replacement": self.replacement}

    @classmethod
    def restore(cls, model: str, tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> GraceDelta:
        codebook = Codebook(tensors["keys"], tensors["radii"], settings["labels"])
        return cls(model, settings["path"], codebook, tensors["values"], settings["replacement"])


def _positions(x: torch.Tensor, ends: torch.Tensor, replacement: str) -> torch.Tensor:
    """bool ``[R, T]``: where a value stands in for the output."""
    at, last = torch.arange(x.shape[1], device=x.device), ends.to(x.device)[:, None]
    return at == last if replacement == "replace_last" else at <= last


def edit_each(model: nn.Module, tokenizer: Any, cases: Cases, config: Config, loss: Loss, watch: Watch = None) -> Made:
    """A codebook of its own for each case; the values of all of them are learnt in one batch."""
    layer = layer_at(model, config.layer, 27 / 32)
    if config.layer is None:
        # Where no layer follows, what stands at the prompt's end says nothing to later target tokens.
        layer = max(0, min(layer, depth(model) - 2))
    path, name = down_projection(model, layer), fingerprint(model)
    out, into = matrix_shape(model, path)
    device = next(model.parameters()).device
    older = continued(model, GraceDelta, path)
    edits = [edit for case in cases for edit in case]
    requests = encode_edits(tokenizer, [[edit] for edit in edits], device=device)
    empty = GraceDelta(name, path, Codebook.empty(into), torch.zeros(0, out), config.replacement, continues=older)
    with (
        standing_in(model, empty),
        TrainedRows(model, layer, path, requests, after_end=config.replacement == "replace_last") as rows,
    ):
        first = _first_values(rows.wrote, config)
        books: list[_Book] = []
        problems: list[tuple[int, int]] = []  # (case, entry) of every value that is learnt
        of: list[int] = []  # the problem of each edit; -1 for one that a later edit of the same prompt has replaced
        for number, case in enumerate(cases):
            book = _Book(older, into, device)
            for _ in case:
                row = len(of)
                entry, verdict = book.place(rows.read[row], edits[row].target.strip(), first[row], config.radius)
                if (number, entry) not in problems:
                    problems.append((number, entry))
                problem = problems.index((number, entry))
                if verdict == "replaced":
                    of = [-1 if p == problem else p for p in of]
                of.append(problem)
            books.append(book)
        _share(rows, of, len(problems))
        starts = torch.stack([books[number].values[entry] for number, entry in problems])
        parameter = nn.Parameter(starts.to(device))

        def change(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            where = _positions(x, rows.ends, config.replacement)
            return torch.where(where[..., None], parameter[rows.requests.owner].to(y.dtype)[:, None], y)

        plan = recipe(config.steps, config.learning_rate)
        values, bad = train_routed(
            rows,
            parameter,
            change,
            plan,
            lambda step: rows.losses(loss, watch, step),
            enough=config.stop_below,
        )
    lost = {problems[problem][0] for problem in bad}
    for value, (number, entry) in zip(values, problems, strict=True):
        books[number].values[entry] = value
    return [
        failed(case)
        if number in lost
        else GraceDelta(name, path, book.codebook, torch.stack(book.values), config.replacement, continues=older)
        for number, (case, book) in enumerate(zip(cases, books, strict=True))
    ]


class _Book:
    """A codebook being extended, and the values of its entries."""

    def __init__(self, older: GraceDelta | None, into: int, device: torch.device) -> None:
        self.codebook = older.codebook.to(device).copy() if older else Codebook.empty(into, device)
        self.values = list(older.values.to(device)) if older else []

    def place(self, key: torch.Tensor, label: str, first: torch.Tensor, radius: float) -> tuple[int, Verdict]:
        entry, verdict = self.codebook.place(key, label, radius, noise=float(rounding(key)))
        if entry == len(self.values):
            self.values.append(first)
        elif verdict == "replaced":
            self.values[entry] = first
        return entry, verdict


def _first_values(wrote: torch.Tensor, config: Config) -> torch.Tensor:
    """What values begin as, float32 ``[R, out]``; random ones are alike for all edits."""
    if config.start == "output":
        return wrote.float()
    generator = torch.Generator().manual_seed(config.seed)
    return torch.rand(wrote.shape[1], generator=generator).to(wrote.device).expand(len(wrote), -1)


def _share(rows: TrainedRows, of: Sequence[int], count: int) -> None:
    """Rows become those of their problems; those that have none leave."""
    problem = torch.tensor(of, device=rows.requests.ids.device)
    if bool((problem < 0).any()):
        rows.keep((problem >= 0).nonzero().squeeze(1))
        problem = problem[problem >= 0]
    rows.regroup(problem, count)
