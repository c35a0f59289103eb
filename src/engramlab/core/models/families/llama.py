"""Llama, and the families that keep their modules where it does."""

from __future__ import annotations

from typing import Any

from engramlab.core.models.paths import ModulePaths
from engramlab.core.models.sizes import Size

MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3", "olmo2")
PATHS = ModulePaths(
    layers="model.layers",
    embedding="model.embed_tokens",
    query="self_attn.q_proj",
    value="self_attn.v_proj",
    mlp_down="mlp.down_proj",
    final_norm="model.norm",
)


def config(size: Size, common: dict[str, Any], dropout: float) -> Any:
    from transformers import LlamaConfig

    # Three feed-forward matrices instead of two: 8/3 of the width keeps the parameter count of the same size.
    return LlamaConfig(
        **common,
        intermediate_size=8 * size.width // 3,
        num_key_value_heads=size.heads,
        attention_dropout=dropout,
    )
