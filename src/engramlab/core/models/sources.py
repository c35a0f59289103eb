"""Where a model's files are, and what they tell before anything is loaded: a folder, a GGUF file, an adapter, or a hub id."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engramlab.base.errors import UserError
from engramlab.files.hub import hub_answers

INDEX, ADAPTER = "model.safetensors.index.json", "adapter_config.json"
_LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")
_CAUSAL = "take one that writes one token after another from what stands before (GPT-2, Llama, Qwen, Gemma, Phi, ...)"
_MOST_LAYERS = 10_000  # where no file tells; the deepest models have a few hundred


def source(name: str) -> tuple[str, dict[str, Any]]:
    """Where ``from_pretrained`` finds ``name``: a folder, a GGUF file (``model.gguf``), or a hub id, ``@revision`` or not; and
    what to tell it, that no code of a model's own is run among it.

    Raises:
        UserError: nothing is there, or something that is no whole model.
    """
    path = Path(name).expanduser()
    safe: dict[str, Any] = {"trust_remote_code": False}
    if path.suffix == ".gguf":
        if not path.is_file():
            raise UserError(f"model {name!r}: there is no such GGUF file")
        try:
            import gguf  # noqa: F401
        except ImportError:
            raise UserError(f"model {name!r} is a GGUF file: reading it needs `pip install gguf`") from None
        return str(path.parent), {"gguf_file": path.name, "local_files_only": True, **safe}
    if path.is_dir():
        _check_files(name, path)
        return str(path), {"local_files_only": True, **safe}
    if path.exists():
        raise UserError(f"model {name!r} is a file; give a model folder, a .gguf file or a hub id (owner/name)")
    repository, at, revision = name.partition("@")
    if name.startswith((".", "/", "~")) or repository.count("/") > 1:
        raise UserError(f"model {name!r}: there is no such folder")
    if at and not (repository and revision):
        raise UserError(f"model {name!r}: write owner/name@revision, such as EleutherAI/pythia-70m@step1000")
    extra: dict[str, Any] = {"revision": revision, **safe} if at else safe
    return repository, extra if hub_answers() else extra | {"local_files_only": True}


def _check_files(name: str, folder: Path) -> None:
    """Raises UserError for a folder that holds a GGUF file alone, lacks a part of its weights, or speaks of absurd depths."""
    config = folder / "config.json"
    if not config.is_file() and (found := sorted(folder.glob("*.gguf"))):
        raise UserError(f"model {name!r}: the folder holds {found[0].name}; give that file, {folder / found[0].name}")
    if (index := folder / INDEX).is_file():
        parts = json_of(index).get("weight_map")
        for part in sorted(set(map(str, parts.values()))) if isinstance(parts, dict) else ():
            if not (folder / part).is_file():
                raise UserError(
                    f"model {name!r}: {part} is missing, which {INDEX} names; copy it from where the model is"
                )
    told = json_of(config)
    text = told.get("text_config")
    for values in (told, text if isinstance(text, dict) else {}):
        most = min(_MOST_LAYERS, tensors(folder)[0] or _MOST_LAYERS)
        for key in _LAYERS:
            if isinstance(values.get(key), int) and values[key] > most:
                raise UserError(
                    f"model {name!r}: config.json speaks of {values[key]:,} layers ({key}), its files hold {most:,} tensors "
                    "at most; it belongs to another model"
                )


def json_of(path: Path) -> dict[str, Any]:
    """What a file holds; nothing where it cannot be read, which whoever loads it will say."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def tensors(folder: Path) -> tuple[int, int]:
    """How many tensors the safetensors files of a folder hold, and how many numbers in all; zeros where they cannot be read."""
    count = numbers = 0
    for path in folder.glob("*.safetensors"):
        try:
            with path.open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                header = json.loads(file.read(min(length, path.stat().st_size)))
            shapes = [torch.Size(about["shape"]) for key, about in header.items() if key != "__metadata__"]
            count, numbers = count + len(shapes), numbers + sum(shape.numel() for shape in shapes)
        except (OSError, ValueError, RecursionError, struct.error, KeyError, TypeError, AttributeError, RuntimeError):
            return 0, 0
    return count, numbers


def skeleton(name: str, config: Any) -> nn.Module:
    """The causal LM of a config without any weights, on the meta device: what it is made of, in a moment.

    Raises:
        UserError: no causal LM, or sizes that cannot be.
    """
    from transformers import AutoModelForCausalLM

    layers = getattr(config.get_text_config(), "num_hidden_layers", 0) or 0
    if layers > _MOST_LAYERS:
        raise UserError(f"model {name!r}: its config speaks of {layers:,} layers; there is no such model")
    if getattr(config, "is_encoder_decoder", False):
        raise UserError(f"model {name!r} ({config.model_type}) has an encoder besides its decoder; {_CAUSAL}")
    try:
        with torch.device("meta"):
            made: nn.Module = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
            return made
    except Exception as error:  # every architecture checks, or does not, in its own way
        raise refused("model", name, error) from error


def check_size(name: str, model: nn.Module, dtype: torch.dtype) -> None:
    """Raises UserError where a ``skeleton`` is far larger than its files, or than this machine's memory."""
    import psutil

    size = sum(p.numel() for p in model.parameters())
    folder = Path(name).expanduser()
    held = tensors(folder)[1] if folder.is_dir() else 0
    packed = getattr(model.config, "quantization_config", None) is not None
    if held and size > 2 * held and not packed:
        raise UserError(
            f"model {name!r}: config.json speaks of {size:,} parameters, its files hold {held:,}; it belongs to another model"
        )
    needed, there = size * dtype.itemsize / 1e9, psutil.virtual_memory().total / 1e9
    if needed > there:
        less = "; give --dtype bfloat16, or a smaller model" if dtype.itemsize > 2 and needed < 2 * there else ""
        raise UserError(
            f"model {name!r}: its {size:,} parameters need {needed:,.1f} GB as {str(dtype).removeprefix('torch.')}, this "
            f"machine has {there:,.1f} GB of memory{less}"
        )


def refused(kind: str, name: str, error: Exception) -> UserError:
    """What to say where transformers could not load something; it raises whatever it likes."""
    text = str(error).strip()
    first = (text.splitlines() or [type(error).__name__])[0][:200]
    if "custom code" in text or "trust_remote_code" in text:
        return UserError(
            f"{kind} {name!r} needs code of its own, which engramlab does not run; take a model that transformers itself knows"
        )
    if "Unrecognized configuration class" in text:
        what = text.partition("models.")[2].split(".")[0] or "of another kind"
        return UserError(f"{kind} {name!r} ({what}) is no causal language model; {_CAUSAL}")
    if isinstance(error, OSError) and "safetensors" in str(error):
        return UserError(
            f"{kind} {name!r} has no weights in safetensors form ({first}); pickled weights can run code when loaded, so "
            "convert them first"
        )
    if Path(name).expanduser().exists():
        return UserError(f"{kind} {name!r} is damaged or not the whole folder of a causal language model ({first})")
    return UserError(
        f"{kind} {name!r} is no folder here and could not be fetched as a hub id ({first}); without a network give a "
        "local folder or a .gguf file"
    )
