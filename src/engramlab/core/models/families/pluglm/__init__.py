"""PlugLM: a network whose upper layers look documents up in a memory that can be changed without training.

Source: PlugLM (arXiv 2305.11564; abstract and released code): attentive pooling, keys and values of documents, a query a
sequence behind a BatchNorm, documents by inner product, weights by cosine, the small FFN. Ours: it stands in the networks
of `gpt-neox` (whose embeddings know no positions, so a document is a bag of its words), Q begins as K and embeddings begin wide
(so that what shares words is found from the first step on), what is read begins as the document's words themselves, about as
large as what it is added to, one layer looks up by default, and there is a causal variant, which decides once, where the prompt
ends. Heads and positions are not scrambled, as they are in the released code.
"""

from __future__ import annotations

from typing import Any

from engramlab.core.models.families.pluglm.network import PlugLMConfig
from engramlab.core.models.paths import ModulePaths
from engramlab.core.models.sizes import Size

MODEL_TYPES = ("pluglm",)
PATHS = ModulePaths(
    layers="gpt_neox.layers",
    embedding="gpt_neox.embed_in",
    query="attention.query_key_value",
    value="attention.query_key_value",
    mlp_down="mlp.dense_4h_to_h",
    final_norm="gpt_neox.final_layer_norm",
)


def config(size: Size, common: dict[str, Any], dropout: float) -> Any:
    return PlugLMConfig(
        **common,
        intermediate_size=4 * size.width,
        use_parallel_residual=False,
        hidden_act="gelu",
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.25},
        attention_dropout=dropout,
        hidden_dropout=dropout,
    )
