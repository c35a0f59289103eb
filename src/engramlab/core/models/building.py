"""Models from scratch, and what a model's config says of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from engramlab.core.models import paths
from engramlab.core.models.sizes import is_size, shape


def build(
    size: str,
    tokenizer: Any,
    *,
    family: str = "gpt-neox",
    context: int = 512,
    dropout: float = 0.0,
    seed: int = 0,
    masked: bool = False,
    tied: bool = True,
    own: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A randomly initialised LM of a named size, in float32 on the CPU.

    Args:
        size: a key of ``SIZES``, or LAYERSxWIDTH (see ``shape``).
        tokenizer: gives the vocabulary size and the end token.
        family: a name of ``buildable()``: ``"gpt-neox"`` (GPT-2 with rotary embedding), ``"llama"``, ...
        context: longest sequence in tokens.
        dropout: on embeddings, attention and residual branches while training (GPT-2 used 0.1).
        seed: of the initial weights; the global generator is left as it was.
        masked: a masked LM (GBERT): the same network and weights with full attention; the tokenizer must have a mask token.
        tied: the matrix that gives the logits is the token embedding.
        own: fields of the family's config that are to be other than it says, by name.

    Raises:
        UserError: unknown size or family.
    """
    from transformers import AutoModelForCausalLM

    form = shape(size)
    common: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": form.width,
        "num_hidden_layers": form.layers,
        "num_attention_heads": form.heads,
        "max_position_embeddings": context,
        "tie_word_embeddings": tied,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "use_cache": True,
    }
    config = paths.family(family).config(form, common, dropout)
    for name, value in (own or {}).items():
        setattr(config, name, value)
    if masked:
        config.is_causal, config.mask_token_id, config.use_cache = False, int(tokenizer.mask_token_id), False
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # not torch.manual_seed, which seeds every device
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa")


def check(name: str, family: str) -> None:
    """Raises UserError for a model from scratch (see ``is_size``) that ``build`` could not build; others are not looked at."""
    if is_size(name):
        shape(name)
        paths.family(family)


def mask_token(model: Any) -> int | None:
    """The mask token of a masked LM, which sees every position from every other; None for a causal LM.

    It is the model's config that tells: ``is_causal`` false, which transformers itself answers with full attention, and a
    ``mask_token_id``. ``build`` writes both and saved models keep them.
    """
    config = getattr(model, "config", None)
    token = getattr(config, "mask_token_id", None)
    return None if token is None or getattr(config, "is_causal", True) else int(token)


def context_limit(model: Any) -> int | None:
    """Most tokens that a model reads at once; None where its config names no limit."""
    limit = getattr(model.config, "max_position_embeddings", None)
    return None if limit is None else int(limit)


def parameters(model: nn.Module) -> int:
    """Number of distinct parameters (tied weights count once)."""
    return sum(p.numel() for p in model.parameters())
