"""What stands beside the weights of an edited folder: config and tokenizer files, so that it loads wherever its base does.

An edit changes weights only. The base folder's files are copied byte for byte, but for the number type in ``config.json``;
where there are none (GGUF) they are written so that transformers 4 and 5 both read them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from engramlab.base.errors import UserError
from engramlab.core import models
from engramlab.files import writing

_CONFIG = ("config.json", "generation_config.json", "LICENSE*", "NOTICE*")
_TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt",
    "merges.txt", "*.model", "chat_template.json", "chat_template.jinja", "additional_chat_templates/*.jinja",
)  # fmt: skip
_OF_LOADING = ("dtype", "torch_dtype", "_name_or_path", "transformers_version", "use_cache")


def write(model: nn.Module, tokenizer: Any, base: str, folder: Path, precision: str) -> None:
    """Puts config and tokenizer files beside the weights in ``folder``, replacing those that are there.

    Args:
        base: where the unedited model is: a folder, a .gguf file, a hub id, or "".
        precision: number type of the weights in ``folder``.
    """
    origin = folder_of(base)
    if origin is not None and _config(models.load_config(str(origin))) == _config(model.config):
        for path in folder.glob("*config.json"):  # what save_pretrained wrote
            path.unlink()
        _copy(origin, folder, _CONFIG)
        _say(folder / "config.json", precision)
    else:
        config = writing.read_json(folder / "config.json")
        writing.write_json(
            folder / "config.json", both_spellings(config) | {"dtype": precision, "torch_dtype": precision}
        )
    if origin is not None and _same_tokenizer(origin, tokenizer):
        _copy(origin, folder, _TOKENIZER)
        return
    tokenizer.save_pretrained(str(folder))
    path = folder / "tokenizer_config.json"
    if path.is_file():
        inputs = {"model_input_names": tokenizer.model_input_names}  # transformers 4 has others by default
        writing.write_json(path, inputs | _older(writing.read_json(path)))


def folder_of(base: str) -> Path | None:
    """The folder of a model's files, for a hub id that of its snapshot on this machine; None where there is none."""
    path = Path(base).expanduser()
    if not base or path.suffix == ".gguf":
        return None
    if not path.is_dir():
        from transformers.utils import cached_file

        repository, _, revision = base.partition("@")
        try:
            path = Path(cached_file(repository, "config.json", revision=revision or None, local_files_only=True)).parent
        except Exception:  # whatever the hub's client raises for a name that is none
            return None
    return path if (path / "config.json").is_file() and not (path / "adapter_config.json").exists() else None


def both_spellings(config: dict[str, Any]) -> dict[str, Any]:
    """A config with what transformers 5 keeps under ``rope_parameters`` at the places where transformers 4 looks for it."""
    rope = config.get("rope_parameters") or {}
    found: dict[str, Any] = {}
    for name, at in (
        ("rope_theta", rope.get("full_attention", rope)),
        ("rope_local_base_freq", rope.get("sliding_attention")),
    ):
        if at and "rope_theta" in at:
            found[name] = at["rope_theta"]
            scaling = {key: value for key, value in at.items() if key != "rope_theta"}
            if name == "rope_theta" and scaling.get("rope_type", "default") != "default":
                found["rope_scaling"] = scaling
    return config | found


def _older(config: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer's config as transformers 4 reads it too."""
    plain = {k: v for k, v in config.items() if k not in ("is_local", "local_files_only", "backend")}
    if plain.get("tokenizer_class") in (None, "TokenizersBackend"):
        plain["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(plain.get("extra_special_tokens"), list):
        plain["additional_special_tokens"] = plain.pop("extra_special_tokens")
    return plain


def _copy(origin: Path, folder: Path, patterns: Sequence[str]) -> None:
    for pattern in patterns:
        for path in origin.glob(pattern):
            to = folder / path.relative_to(origin)
            to.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, to)  # not its mode: that of a hub's cache, or of a folder nobody else may read


def _say(path: Path, precision: str) -> None:
    """The number type in a config, wherever it names one; a config that says it already stays as it is."""

    def said(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {k: precision if k in ("dtype", "torch_dtype") and v is not None else said(v) for k, v in value.items()}

    old = writing.read_json(path)
    new = said(old)
    if new.get("dtype") is None and new.get("torch_dtype") is None:
        new["torch_dtype"] = precision
    if new != old:
        writing.write_json(path, new)


def _config(config: Any) -> Any:
    """What of a config says how the model computes."""

    def plain(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {k: plain(v) for k, v in value.items() if k not in _OF_LOADING}

    return json.dumps(plain(config.to_dict()), sort_keys=True, default=str)


def _same_tokenizer(origin: Path, tokenizer: Any) -> bool:
    try:
        known = models.load_tokenizer(str(origin))
    except UserError:
        return False
    return all(
        getattr(known, name, None) == getattr(tokenizer, name, None) for name in ("chat_template", "special_tokens_map")
    ) and bool(known.get_vocab() == tokenizer.get_vocab())
