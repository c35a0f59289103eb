"""Build or load causal language models; the one table of where each architecture family keeps its modules.

Named sizes are the networks of Physics of Language Models 3.1 (arXiv 2309.14316, section 2.2 and appendix): GPT-2 with its
learned positions replaced by rotary embeddings of base 10,000 on a quarter of each head's dimensions. ``transformers``
has that network as GPT-NeoX with a sequential residual; the same sizes exist as Llama.
"""

from engramlab.core.models.loading import (
    FAMILIES,
    HEAD,
    MODULE_PATHS,
    SIZES,
    ModulePaths,
    Size,
    build,
    hub_answers,
    load,
    load_tokenizer,
    mask_token,
    module_paths,
    objective,
    parameters,
    quiet,
    shape,
)

__all__ = [
    "FAMILIES",
    "HEAD",
    "MODULE_PATHS",
    "SIZES",
    "ModulePaths",
    "Size",
    "build",
    "hub_answers",
    "load",
    "load_tokenizer",
    "mask_token",
    "module_paths",
    "objective",
    "parameters",
    "quiet",
    "shape",
]
