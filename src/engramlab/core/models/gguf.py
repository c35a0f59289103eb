"""GGUF files unpacked once: their weights as safetensors in the user's cache folder, from where they load in seconds."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

from torch import nn

from engramlab.base.terminal import Console
from engramlab.files import writing

SWITCH = "ENGRAMLAB_GGUF_CACHE"
TOKENIZER = "tokenizer"  # the folder in the folder
_FORMAT = 1
_WEIGHTS, _SIZE = "model.safetensors", "size.txt"


def is_file(name: str) -> bool:
    """Is a model's name that of a GGUF file?"""
    path = Path(name).expanduser()
    return path.suffix == ".gguf" and path.is_file()


def kept(path: Path) -> Path | None:
    """The folder that a GGUF file was, or is to be, unpacked to; None where $ENGRAMLAB_GGUF_CACHE is ``off``.

    Another file of the same name (another size or time), or another transformers, has another folder.
    """
    import transformers

    if os.environ.get(SWITCH, "").lower() in ("off", "0", "no", "false"):
        return None
    at, about = path.expanduser().resolve(), path.stat()
    what = f"{_FORMAT} {about.st_size} {about.st_mtime_ns} {transformers.__version__}"
    return writing.cache_folder() / "gguf" / f"{at.stem}-{_digest(str(at))}" / _digest(what)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def whole(folder: Path) -> bool:
    """Is what was unpacked there, and of its full length? Another program may have cut it."""
    path = folder / _WEIGHTS
    with contextlib.suppress(OSError, ValueError):
        return path.stat().st_size == int((folder / _SIZE).read_text())
    return False


def room(folder: Path, bare: nn.Module) -> bool:
    """Is there room for the weights of such a model, twice over? If not, a warning says so."""
    needed = 4 * sum(p.numel() for p in bare.parameters())
    near = next(one for one in folder.parents if one.exists())
    free = shutil.disk_usage(near).free
    if free < 2 * needed:
        what = f"{needed / 1e9:,.1f} GB, of {free / 1e9:,.1f} GB that are free"
        warnings.warn(
            f"there is no room in {near} to keep the weights unpacked ({what}): unpacked each time", stacklevel=3
        )
    return free >= 2 * needed


def announce(path: Path, folder: Path) -> None:
    """Says that a file is being unpacked, which takes a while."""
    Console(stderr=True).print(
        f"{path.name}: its weights are unpacked, which takes a minute or so and is done once (kept in {folder.parent}; "
        f"{SWITCH}=off keeps nothing)",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def keep(folder: Path, model: nn.Module, tokenizer: Any) -> None:
    """Writes what was unpacked, whole or not at all, in place of older copies of the same file; where another process was
    faster nothing happens, and where it cannot be written there is a warning."""
    partial = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=folder.parent, suffix=".partial"))
        model.save_pretrained(partial, max_shard_size=1 << 60)  # type: ignore[operator]
        tokenizer.save_pretrained(partial / TOKENIZER)
        # Beside a config, or under their own name, some families' tokenizers (Qwen's) take rules of their class for the file's.
        about = partial / TOKENIZER / "tokenizer_config.json"
        told = json.loads(about.read_text(encoding="utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"}
        about.write_text(json.dumps(told), encoding="utf-8")
        (partial / _SIZE).write_text(str((partial / _WEIGHTS).stat().st_size))
        older = [one for one in folder.parent.iterdir() if one.is_dir() and one.suffix != ".partial"]
        if not folder.is_dir():
            os.rename(partial, folder)
        writing.clear(*(one for one in older if one != folder))
    except Exception as error:  # safetensors reports a full disk as its own error type
        warnings.warn(f"{folder} could not be kept ({error}): unpacked again next time", stacklevel=3)
    finally:
        if partial is not None:
            writing.clear(partial)
