"""Keys and values: what ROME, MEMIT and AlphaEdit share.

All three read an MLP's down-projection ``W`` as a memory: its input at the last token of a subject is a *key* ``k``, its
output ``W k`` the *value*, what the model recalls of the subject (arXiv 2202.05262, section 3.1). An edit first searches the
change ``d`` of the value that makes the model say the target (``valuesearch.py``), then changes ``W`` so that the key
yields it: ROME in one layer, MEMIT and AlphaEdit in several (``spread.py``). They protect other keys through statistics of
ordinary text (``moments.py``).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from engramlab.base.arrays import brief
from engramlab.base.options import check_rules, meant
from engramlab.base.random_access import key as stream_key
from engramlab.core import deltas
from engramlab.core.forward.hooks import grafting, mode, reading
from engramlab.core.models.geometry import down_projection, layer_path
from engramlab.core.text.tokens import start_tokens
from engramlab.editing.keys.running_text import OPENINGS, TextSource, continuations, keep
from engramlab.editing.requests import Requests

#: How the texts before the prompt begin (as MEMIT's code has it), in turn.
_OPENINGS = ("The", "Therefore", "Because", "I", "You")
_ANCHOR_TOKENS = 24  # of each text that the anchor is measured on


@dataclass(frozen=True)
class Search:
    """Settings of the value search and of the statistics; the methods' configurations add theirs.

    The defaults are those that the field's usual evaluations take for llama-2-7b.

    ``objective``: of ROME's paper (arXiv 2202.05262, equation 4) and of its authors' code, which the code of MEMIT and
    AlphaEdit and the field's usual evaluations share, one searches the same value by two losses. (MEMIT's paper, arXiv
    2210.07229, equation 16, has the target's loss alone: ``kl`` 0.) Both add the change to the value at the subject's last
    token and hold KL(after || before) of "{subject} is a" down.

    - ``paper``: of the next token after that prompt, read at its end. Equation 4 has no penalty on length; ours is weight decay
      as the word is used, quadratic, in lengths of the value, so that it means the same in any model.
    - ``code``: of the token predicted at the subject's last token, before "is a" is read, and a penalty
      ``weight_decay |d| / |v|^2``, the length itself: its weight depends on the model's scale.

    On SmolLM2-135M, four counterfactual edits by ROME with these settings: the changes that the two find are as long (the clamp
    decides) and have a cosine of 0.970 to 0.9995; without the divergence (``kl`` 0) 0.999 to 1.000, so what sets them apart
    is where the divergence is read, and at this small a weight not the penalty.
    """

    READS = ("statistics_text",)  # files, see ``inputs`` in experiments/_run.py

    steps: int = 25
    """Adam steps of the search at most."""
    learning_rate: float = 0.5
    """Of Adam."""
    weight_decay: float = 1e-3
    """Weight of the penalty on the change's length, see objective; in paper, of |d|^2 / |v|^2, d the change and v the value
    before it: free of the model's scale."""
    clamp: float = 4.0
    """Longest change d, in lengths of the value before it."""
    kl: float = 0.0625
    """Weight of KL(after || before) of what the model predicts after "{subject} is a", see objective."""
    objective: Literal["paper", "code"] = "paper"
    """Whose loss is searched: that of equation 4 of ROME's paper, or that of its authors' code; see Search."""
    stop: float = 0.05
    """An edit's search ends when its whole loss is below this."""
    norm_anchor: float | None = None
    """A new value longer than so many times the mean length that values have in the unedited model is shortened to that mean
    (norm-anchor scaling, arXiv 2602.02543, with 2), so that thousands of edits do not make it grow; None for no bound."""
    context_lengths: tuple[tuple[int, int], ...] = ((10, 5),)
    """Texts that the model writes itself, put before the prompt so that the edit holds in any context: (tokens, how many)."""
    noise: Literal["none", "edit", "deep"] = "none"
    """Noise shaped like what those texts do to keys, in place of the texts (after arXiv 2401.07544, see context_noise.py):
    added in the edited layer alone (edit), or there and in all layers above (deep)."""
    noise_rows: int = 4
    """Noisy rows beside the clean one; drawn anew each step."""
    noise_scale: float = 1.0
    """Times the deviation that was measured."""
    noise_mean: bool = True
    """Draw about the mean of what texts do; about zero without it."""
    noise_shape: Literal["estimated", "isotropic"] = "estimated"
    """As measured, or (to compare with) alike in all directions and of the same mean length, about zero."""
    at_once: int = 16
    """Edits searched in one batch; changes memory and speed, not results."""
    seed: int = 0
    """Of the contexts and of sampled text."""
    statistics_text: str = "sampled"
    """Text of the statistics: sampled (by the model itself), a .txt, .jsonl or .parquet file, or hub:owner/name."""
    statistics_tokens: int | None = None
    """Tokens of that text to read; None for 8 times the width of the MLP and at least 10,000."""
    cache: str | None = None
    """Folder that keeps statistics and contexts; None for $ENGRAMLAB_CACHE or ~/.cache/engramlab."""

    def __post_init__(self) -> None:
        meant(self)
        rules = (
            ("steps", self.steps >= 1, "at least 1"),
            ("learning_rate", self.learning_rate > 0, "above 0"),
            ("weight_decay", self.weight_decay >= 0, "at least 0"),
            ("clamp", self.clamp > 0, "above 0"),
            ("kl", self.kl >= 0, "at least 0"),
            ("norm_anchor", self.norm_anchor is None or self.norm_anchor >= 1, "at least 1, or none"),
            ("objective", self.objective in ("paper", "code"), "paper or code"),
            (
                "context_lengths",
                all(min(pair) >= 1 for pair in self.context_lengths),
                "pairs (tokens, how many), each at least 1",
            ),
            ("noise", self.noise in ("none", "edit", "deep"), "none, edit or deep"),
            ("noise_rows", self.noise_rows >= 1, "at least 1"),
            ("noise_scale", self.noise_scale >= 0, "at least 0"),
            ("noise_shape", self.noise_shape in ("estimated", "isotropic"), "estimated or isotropic"),
            (
                "context_lengths",
                self.noise == "none" or sum(count for _, count in self.context_lengths) >= 2,
                "at least 2 texts together where noise is to stand for them",
            ),
            ("at_once", self.at_once >= 1, "at least 1"),
        )
        check_rules(self, rules)

    @property
    def source(self) -> TextSource:
        """The text of the statistics."""
        return TextSource(self.statistics_text, self.statistics_tokens, seed=self.seed, cache=self.cache)


def prefixes(model: nn.Module, tokenizer: Any, search: Search) -> tuple[str, ...]:
    """The contexts to put before a prompt, none first; with noise nothing stands before any row, and those behind the first are
    the noisy ones."""
    if search.noise != "none":
        return ("",) * (1 + search.noise_rows)
    return ("", *written_contexts(model, tokenizer, search))


def written_contexts(model: nn.Module, tokenizer: Any, search: Search) -> tuple[str, ...]:
    """Short texts by the model, each closed by a full stop, see ``Search.context_lengths``.

    They are those of the unedited model and kept in the cache folder; where deltas are on the model and the cache has none,
    the edited model writes them, and they are not kept.
    """
    about = json.dumps([deltas.fingerprint(model), search.context_lengths, search.seed])
    name = f"contexts-{hashlib.blake2b(about.encode(), digest_size=10).hexdigest()}.json"
    path: Path = search.source.folder / name
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(path.read_text(encoding="utf-8"))["contexts"]
        if len(found) == sum(count for _, count in search.context_lengths) and all(
            isinstance(text, str) for text in found
        ):
            return tuple(found)
    texts: list[str] = []
    for length, count in search.context_lengths:
        openings = [_OPENINGS[i % len(_OPENINGS)] for i in range(count)]
        seeds = [stream_key(search.seed, "contexts", length, i) for i in range(count)]
        written = continuations(model, tokenizer, openings, seeds, max(1, length - 1))
        texts += [" ".join(text.split()) + "." for text in written]
    if not deltas.installed(model):
        keep(path, json.dumps({"of": about, "contexts": texts}, indent=2).encode())
    return tuple(texts)


@torch.no_grad()
def mean_length(
    model: nn.Module, tokenizer: Any, layer: int, site: Literal["value", "output"], search: Search
) -> float:
    """The mean length of a layer's values (or outputs) in ordinary text that the unedited model writes: the anchor of
    ``Search.norm_anchor``. A text's first token, whose state is a giant in many models, does not count.

    Kept in the cache folder like the contexts, and like them the edited model's where deltas are on it and none is kept.
    """
    about = json.dumps([deltas.fingerprint(model), layer, site, search.seed])
    path: Path = search.source.folder / f"length-{hashlib.blake2b(about.encode(), digest_size=10).hexdigest()}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return float(json.loads(path.read_text(encoding="utf-8"))["length"])
    seeds = [stream_key(search.seed, "anchor", i) for i in range(len(OPENINGS))]
    at = down_projection(model, layer) if site == "value" else layer_path(model, layer)
    total, count = 0.0, 0
    for text in continuations(model, tokenizer, OPENINGS, seeds, _ANCHOR_TOKENS):
        ids = torch.tensor([start_tokens(tokenizer) + tokenizer(text, add_special_tokens=False)["input_ids"]])
        with mode(model, False), reading(model, (at,), until=at) as seen:
            model(input_ids=ids.to(next(model.parameters()).device), use_cache=False)
        lengths = seen[at].said[0, 1:].float().norm(dim=-1)
        total, count = total + float(lengths.sum()), count + len(lengths)
    length = total / max(1, count)
    if not deltas.installed(model):
        keep(path, json.dumps({"of": about, "length": length}, indent=2).encode())
    return length


def anchored(values: torch.Tensor, length: float, anchor: float) -> torch.Tensor:
    """``[B, D]``: values longer than ``anchor`` times ``length`` are shortened to ``length``, the others left bit for bit."""
    norms = values.norm(dim=-1, keepdim=True)
    return torch.where(norms > anchor * length, values * (length / norms), values)


@torch.no_grad()
def value_share(model: nn.Module, layer: int) -> float | None:
    """By how much of a change of the layer's value its output moves: 1 in most models, Granite's residual multiplier there;
    None where the value is normed before it is added (Gemma 2 and 3, OLMo 2), so that no fixed share is.
    """
    path, whole = down_projection(model, layer), layer_path(model, layer)
    ids = torch.ones(1, 1, dtype=torch.int64, device=next(model.parameters()).device)

    def outputs(change: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        graft = {} if change is None else {path: lambda x, y: y + change.to(y.dtype)}
        with mode(model, False), reading(model, (path, whole), until=whole) as seen, grafting(model, graft):
            model(input_ids=ids, use_cache=False)
        return seen[path].said.float(), seen[whole].said.float()

    value, plain = outputs()
    change = torch.linspace(1, 2, value.shape[-1], device=value.device).cos() * value.norm()
    moved = outputs(change)[1] - plain
    share = float((moved * change).sum() / change.square().sum())
    if float((moved - share * change).norm()) > 0.05 * float(moved.norm()):
        return None
    return 1.0 if abs(share - 1) < 0.02 else share  # bfloat16 rounds


@dataclass(frozen=True)
class AlignedRows:
    """Token rows shifted so that the last tokens of their subjects stand in one column.

    Attributes:
        requests: what the rows are; positions there are before the shift.
        ids: int64 ``[R, T]``.
        mask: int64 ``[R, T]``, 0 for padding at the left; None where there is none.
        begin: the column of the subjects' last tokens.
        shift: int64 ``[R]``: by how many columns each row was moved.
    """

    __repr__ = brief

    requests: Requests
    ids: torch.Tensor
    mask: torch.Tensor | None
    begin: int
    shift: torch.Tensor

    @classmethod
    def of(cls, requests: Requests, *, whole: bool = True) -> AlignedRows:
        """Rows of encoded edits; cut behind the subject unless ``whole``."""
        begin = int(requests.subject_ends.max())
        shift = begin - requests.subject_ends
        width = int((requests.lengths + shift).max()) if whole else begin + 1
        source = torch.arange(width, device=shift.device) - shift[:, None]
        there = (source >= 0) & (source < requests.lengths[:, None])
        ids = requests.ids.gather(1, source.clamp(0, requests.ids.shape[1] - 1)) * there
        return cls(requests, ids, (source >= 0).long() if bool(shift.any()) else None, begin, shift)

    def columns(self, positions: torch.Tensor) -> torch.Tensor:
        """Positions ``[R]`` of the requests as columns counted from ``begin``."""
        return positions + self.shift - self.begin

    def kept(self) -> torch.Tensor:
        """bool ``[R, T - begin]``: where target tokens are predicted."""
        keep = self.ids.new_zeros(self.ids.shape, dtype=torch.bool)
        row, position = self.requests.keep.nonzero(as_tuple=True)
        keep[row, position + self.shift[row]] = True
        return keep[:, self.begin :]


def stacked(*parts: AlignedRows) -> tuple[torch.Tensor, torch.Tensor | None, int]:
    """Rows under each other, the last tokens of their subjects in one column: ids ``[R, T]``, mask and ``begin`` as there."""
    begin = max(part.begin for part in parts)
    after = max(part.ids.shape[1] - part.begin for part in parts)

    def padded(part: AlignedRows, values: torch.Tensor, right: int) -> torch.Tensor:
        left = begin - part.begin
        return functional.pad(
            functional.pad(values, (left, 0)), (0, begin + after - left - values.shape[1]), value=right
        )

    ids = torch.cat([padded(part, part.ids, 0) for part in parts])
    mask = torch.cat([padded(p, torch.ones_like(p.ids) if p.mask is None else p.mask, 1) for p in parts])
    return ids, None if bool(mask.all()) else mask, begin


def key_weights(count: int, *, grouped: bool, device: torch.device | None = None) -> torch.Tensor:
    """Weights ``[count]`` of a key's contexts, which average to one key: equal, or the bare prompt as much as all others."""
    weights = torch.ones(count, device=device)
    if grouped and count > 1:
        weights[0] = count - 1
    return weights / weights.sum()
