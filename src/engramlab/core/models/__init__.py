"""Models: named sizes and families to build, folders, GGUF files and hub ids to load, and where each keeps its modules."""

from engramlab.core.models.about import About, about
from engramlab.core.models.adapters import (
    EmbeddingUpdates,
    adapted_from,
    add_lora,
    how_to_put_on,
    key_rows,
    name_base,
    unwrap,
)
from engramlab.core.models.building import build, check, context_limit, mask_token, parameters
from engramlab.core.models.loading import check_finite, check_vocabulary, load, load_config, load_tokenizer, quiet, save
from engramlab.core.models.paths import ModulePaths, buildable, family, known_paths, module_paths
from engramlab.core.models.sizes import HEAD, SIZES, Size, is_size, shape
from engramlab.core.models.sources import skeleton

__all__ = [
    "HEAD",
    "SIZES",
    "About",
    "EmbeddingUpdates",
    "ModulePaths",
    "Size",
    "about",
    "adapted_from",
    "add_lora",
    "build",
    "buildable",
    "check",
    "check_finite",
    "check_vocabulary",
    "context_limit",
    "family",
    "how_to_put_on",
    "is_size",
    "key_rows",
    "known_paths",
    "load",
    "load_config",
    "load_tokenizer",
    "mask_token",
    "module_paths",
    "name_base",
    "parameters",
    "quiet",
    "save",
    "shape",
    "skeleton",
    "unwrap",
]
