"""GPT-2 with its learned positions replaced by rotary ones, which is GPT-NeoX with a sequential residual.

Source: Physics of Language Models, Part 3.1 (arXiv 2309.14316), section 2.2 and appendix: base 10,000, a quarter of each head.
"""

from __future__ import annotations

from typing import Any

from engramlab.core.models.paths import ModulePaths
from engramlab.core.models.sizes import Size

MODEL_TYPES = ("gpt_neox",)
PATHS = ModulePaths(
    layers="gpt_neox.layers",
    embedding="gpt_neox.embed_in",
    query="attention.query_key_value",
    value="attention.query_key_value",
    mlp_down="mlp.dense_4h_to_h",
    final_norm="gpt_neox.final_layer_norm",
)


def config(size: Size, common: dict[str, Any], dropout: float) -> Any:
    from transformers import GPTNeoXConfig

    return GPTNeoXConfig(
        **common,
        intermediate_size=4 * size.width,
        use_parallel_residual=False,
        hidden_act="gelu",
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.25},
        attention_dropout=dropout,
        hidden_dropout=dropout,
    )
