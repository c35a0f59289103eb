"""GPT-2 as OpenAI released it: loaded and edited, not built from scratch (that is ``gpt-neox``)."""

from engramlab.core.models.paths import ModulePaths

MODEL_TYPES = ("gpt2",)
PATHS = ModulePaths(
    layers="transformer.h",
    embedding="transformer.wte",
    query="attn.c_attn",
    value="attn.c_attn",
    mlp_down="mlp.c_proj",
    final_norm="transformer.ln_f",
)
