"""How the next token is chosen: one file a decoder, and the file name is the registration.

A decoder is a module with a frozen dataclass ``Config``, a subclass of ``Decoding`` whose fields are its options:

    decoding.load("sampling", temperature=0.7)

Writing (``forward/generation.py``) and scoring (``measuring/scoring.py``) take the same object. It says what it wants to see
beside the model's logits (``layers``, ``beside``) and what it makes of it (``scores``); what is written is the likeliest token
by its scores unless it draws otherwise (``choose``), and what is scored has the log-probability that its scores give.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import nn

from engramlab.base import registry
from engramlab.base.arrays import brief
from engramlab.base.errors import UserError


@dataclass(frozen=True)
class DecoderLogits:
    """What a model says at ``n`` places.

    Attributes:
        logits: ``[n, V]``.
        early: by hidden state (0 is the embedding, ``i`` what the ``i``-th layer gives): ``[n, V]``, what the model would say
            if its layers ended there.
        beside: ``[n, V]`` each: its logits behind the other contexts, after the same target tokens; see ``Decoding.beside``.
        before: int64 ``[n, T]``: the tokens that stand before each place, padded at the left with -1; only for decoders that
            look at them (``Decoding.reads_text``).
    """

    __repr__ = brief

    logits: torch.Tensor
    early: Mapping[int, torch.Tensor] = field(default_factory=dict)
    beside: tuple[torch.Tensor, ...] = ()
    before: torch.Tensor | None = None


class Decoding:
    """How the next token is chosen from what the model says. This one: the likeliest.

    Attributes:
        beside: the other contexts whose logits it compares with, by name, which the caller then gives for each text:
            "bare", the question without its passage, and "irrelevant", with a passage on something else in its place.
        early_norm: are the logits of hidden states taken behind the model's final norm?
        beams: rows that one text takes in the model; with more than one, ``search`` writes whole batches.
        penalty: of tokens that stand in the text already (see ``penalised``), for what is written; never in likelihoods.
        by_text: do the scores themselves depend on the tokens before the place?
    """

    beside: ClassVar[tuple[str, ...]] = ()
    early_norm: bool = True
    beams: int = 1
    penalty: float = 1.0
    by_text: bool = False

    @property
    def reads_text(self) -> bool:
        """Does it want to see ``DecoderLogits.before``?"""
        return self.by_text or self.penalty != 1

    def layers(self, model: nn.Module) -> tuple[int, ...]:
        """The hidden states whose logits it wants to see, each below the number of layers; see ``DecoderLogits.early``."""
        return ()

    def scores(self, seen: DecoderLogits) -> torch.Tensor:
        """``[n, V]``: scores whose softmax is the distribution the next token is taken from."""
        return seen.logits

    def mass(self, scores: torch.Tensor) -> torch.Tensor:
        """``[n]``: what is to be taken off scores ``[n, V]`` to make log-probabilities of them."""
        return scores.logsumexp(-1)

    def likeliest(self, seen: DecoderLogits, scores: torch.Tensor) -> torch.Tensor:
        """int64 ``[n]``: the token that greedy decoding writes by these scores."""
        if self.penalty != 1 and seen.before is not None:
            scores = penalised(scores, seen.before, self.penalty)
        return scores.argmax(-1)

    def choose(self, seen: DecoderLogits, uniform: torch.Tensor | None) -> torch.Tensor:
        """int64 ``[n]``: the next tokens.

        Args:
            uniform: ``[n]`` in [0, 1): each text's own random number at this place; None where the caller gave no seeds.
        """
        return self.likeliest(seen, self.scores(seen))

    def search(self, model: nn.Module, ids: torch.Tensor, mask: torch.Tensor, new: int, end: int) -> torch.Tensor:
        """int64 ``[rows, at most new]``: what follows rows padded at the left, filled up with ``end``; for ``beams`` > 1."""
        raise NotImplementedError


def plausible(logits: torch.Tensor, share: float) -> torch.Tensor:
    """bool ``[n, V]``: tokens at least ``share`` times as likely as the likeliest (all of them with 0).

    Contrasting raises what the model itself thinks impossible, so contrasts are taken among these only: V_head of contrastive
    decoding (arXiv 2210.15097, equation 2).
    """
    if not share:
        return torch.ones_like(logits, dtype=torch.bool)
    return logits >= logits.max(-1, keepdim=True).values + math.log(share)


def penalised(scores: torch.Tensor, before: torch.Tensor, penalty: float) -> torch.Tensor:
    """Scores ``[n, V]`` with those of tokens in ``before [n, T]`` lowered: divided by the penalty above 0, else times it.

    Source: CTRL (arXiv 1909.05858, section 4.1), as transformers does it; the prompt's tokens count too.
    """
    tokens = torch.where(before < 0, before.amax(-1, keepdim=True), before)  # padding stands for a token that is there
    there = scores.gather(-1, tokens)
    return scores.scatter(-1, tokens, torch.where(there < 0, there * penalty, there / penalty))


def check_penalty(penalty: float) -> None:
    """Raises UserError unless it is a finite number above 0."""
    if not (math.isfinite(penalty) and penalty > 0):
        raise UserError(f"penalty: must be a finite number above 0 (1 is none), not {penalty}")


#: Score of a token that is not plausible: never written, yet a likelihood that can be summed (as DoLa's code has it).
IMPLAUSIBLE = -1000.0


def names() -> list[str]:
    """The decoders there are."""
    return registry.names(sys.modules[__name__])


def decoder_name(decoding: Decoding) -> str:
    """The name a decoder is registered under."""
    return type(decoding).__module__.rpartition(".")[2]


def load(name: str, **options: object) -> Decoding:
    """A decoder by name, with its options; raises UserError for an unknown name or a value out of range."""
    found: Decoding = registry.load(sys.modules[__name__], name, "decoder").Config(**options)
    return found
