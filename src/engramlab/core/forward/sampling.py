"""Texts written by a model at random, each from random numbers of its own.

Transformers' ``generate`` does the writing; which token comes next is decided here, by inverting the cumulative distribution
at a uniform number that is a function of (seed of the text, position). A text's randomness therefore never depends on which
other texts are in its batch or were written before it. The *probabilities* can: a batch of another shape or padding may round
differently in their last bits. So the same prompts with the same seeds in the same batches give the same texts, bit for bit
on one machine; callers who want that after an interruption cut their batches by item number, not by what is left to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from engramlab.base.errors import UserError
from engramlab.base.random_access import words
from engramlab.core.forward.hooks import mode
from engramlab.core.text.tokens import end_token, start_tokens

#: A prompt: plain text, or the messages of a conversation (``{"role": "user", "content": ...}``), the last one to be answered.
Prompt = str | Sequence[Mapping[str, str]]

_HEAD = 256  # tokens looked at before the whole vocabulary is sorted


@torch.inference_mode()
def sample(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    seeds: Sequence[int],
    *,
    max_new_tokens: int = 256,
    temperature: float = 1.0,
    top_p: float = 1.0,
) -> list[str]:
    """What the model answers to each prompt, until its end token; all prompts in one batch, padded at the left.

    Args:
        model: a causal LM with ``generate``; its mode is restored.
        tokenizer: where it has a chat template, a prompt is put through it (plain text as one user message); else the texts
            of a conversation are joined by blank lines and continued.
        seeds: one a prompt.
        temperature: divides the logits; 0 always takes the likeliest token.
        top_p: sample among the likeliest tokens that together have this probability (nucleus sampling, arXiv 1904.09751).

    Returns:
        The answers, without special tokens, stripped.

    Raises:
        UserError: temperature or top_p out of range, no end token, or a prompt that leaves the model no room to answer.
    """
    from transformers import GenerationConfig, LogitsProcessorList

    if temperature < 0:
        raise UserError(f"temperature: must be at least 0, not {temperature}")
    if not 0 < top_p <= 1:
        raise UserError(f"top_p: must be above 0 and at most 1, not {top_p}")
    if not prompts:
        return []
    rows = encode_prompts(tokenizer, prompts)
    width = max(map(len, rows))
    _check_room(model, width, max_new_tokens)
    ends = _end_tokens(model, tokenizer)
    ids, mask = left_padded(rows, ends[0], next(model.parameters()).device)
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=ends, pad_token_id=ends[0], use_cache=True
    )
    pick = _Pick(seeds, width, max_new_tokens, temperature, top_p)
    with mode(model, False):
        out = model.generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=mask,
            generation_config=settings,
            logits_processor=LogitsProcessorList([pick] if temperature else []),
        )
    return [text.strip() for text in tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)]


def encode_prompts(tokenizer: Any, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Token ids of each prompt, with whatever the tokenizer's chat template, or else the tokenizer itself, puts around it."""
    if getattr(tokenizer, "chat_template", None):
        texts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(m) for m in prompt],
                tokenize=False,
                add_generation_prompt=True,
            )
            for prompt in prompts
        ]
        first = []
    else:
        texts = [p if isinstance(p, str) else "\n\n".join(m["content"] for m in p) for p in prompts]
        first = start_tokens(tokenizer)
    return [first + ids for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]


def left_padded(rows: Sequence[Sequence[int]], fill: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of token ids side by side, ending together: ids and attention mask, int64 ``[rows, longest]``."""
    width = max(map(len, rows))
    ids = torch.tensor([[fill] * (width - len(row)) + list(row) for row in rows], dtype=torch.int64)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], dtype=torch.int64)
    return ids.to(device), mask.to(device)


def _end_tokens(model: nn.Module, tokenizer: Any) -> list[int]:
    """Every token that ends an answer: the model's own list (chat models end turns, not texts) and the tokenizer's."""
    own = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends = [] if own is None else [own] if isinstance(own, int) else list(own)
    if tokenizer.eos_token_id is not None or not ends:
        ends.append(end_token(tokenizer))
    return list(dict.fromkeys(int(end) for end in ends))


def _check_room(model: nn.Module, prompt: int, new: int) -> None:
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None and prompt + new > limit:
        raise UserError(
            f"a prompt of {prompt} tokens and {new} new ones do not fit the model's context of {limit}; ask for fewer new "
            "tokens or take a model with a longer context"
        )


class _Pick:
    """A logits processor that leaves one token possible in each row: the one its random number falls on."""

    def __init__(self, seeds: Sequence[int], width: int, steps: int, temperature: float, top_p: float) -> None:
        drawn = [words(int(seed) & 0xFFFFFFFFFFFFFFFF, np.arange(steps)) >> np.uint64(40) for seed in seeds]
        self.uniform = torch.from_numpy((np.stack(drawn) * 2.0**-24).astype(np.float32))  # in [0, 1)
        self.width, self.temperature, self.top_p = width, temperature, top_p

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        uniform = self.uniform[:, input_ids.shape[1] - self.width].to(scores.device)
        probabilities = (scores.float() / self.temperature).softmax(-1)
        # Sorting the whole vocabulary costs as much as a small model's step, and the head nearly always holds the nucleus.
        likeliest, tokens = probabilities.topk(min(_HEAD, probabilities.shape[-1]))
        if bool((likeliest.sum(-1) < self.top_p).any()):
            likeliest, tokens = probabilities.sort(dim=-1, descending=True, stable=True)
        total = likeliest.cumsum(-1)
        inside = (total - likeliest) < self.top_p
        mass = torch.where(inside, likeliest, 0).sum(-1)
        at = (total <= (uniform * mass)[:, None]).sum(-1).minimum(inside.sum(-1) - 1)
        chosen = tokens.gather(-1, at[:, None])
        return torch.full_like(scores, -torch.inf).scatter_(-1, chosen, 0.0)
