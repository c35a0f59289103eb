"""A delta on disk: a folder with its tensors (safetensors) and everything else about it (JSON). Nothing is pickled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from engramlab.base.errors import UserError
from engramlab.core.deltas import Delta
from engramlab.files import runs, writing

ABOUT, TENSORS = "delta.json", "delta.safetensors"
_FORMAT = 1


def digest_of(tensor: torch.Tensor) -> str:
    """A name for a tensor's type, shape and bits: any change of one of them changes it."""
    plain = tensor.detach().cpu().contiguous()
    digest = hashlib.blake2b(f"{plain.dtype} {tuple(plain.shape)}".encode(), digest_size=16)
    digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def digest_of_file(path: Path) -> str:
    """A name for a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def digest(delta: Delta) -> str:
    """A name for a delta: the model it is for, its kind, its tensors bit for bit and its settings."""
    return _digest(delta.kind, delta.model, delta.tensors(), delta.settings())


def _digest(kind: str, model: str, tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> str:
    parts = {name: digest_of(tensor) for name, tensor in tensors.items()}
    text = json.dumps([kind, model, parts, settings], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def save(delta: Delta, folder: Path) -> None:
    """Writes ``delta.safetensors`` and ``delta.json`` into ``folder``, whole or not at all; an older folder is replaced.

    Raises:
        UserError: the place cannot be written, or the disk is full.
    """
    from safetensors.torch import save_file

    # Copies, because safetensors refuses tensors that share memory.
    tensors = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in delta.tensors().items()}
    about = {
        "format": _FORMAT,
        "kind": delta.kind,
        "model": delta.model,
        "routed": delta.routed,
        "settings": delta.settings(),
        "digest": digest(delta),
        "versions": runs.versions(),
    }

    def write(partial: Path) -> None:
        save_file(tensors, str(partial / TENSORS))
        writing.write_json(partial / ABOUT, about)

    writing.write_folder(Path(folder), write)


def load(folder: Path, kinds: Mapping[str, type[Delta]], *, expected: str = "") -> Delta:
    """The delta that ``save`` wrote, on the CPU and not yet on any model.

    What it continues (``Delta.continues``) is not part of it; whoever keeps several knows.

    Args:
        kinds: classes by the kind they are saved under (``editing.method.kinds()``).
        expected: the ``digest`` it must have; "" for any.

    Raises:
        UserError: no such folder, no delta in it, a damaged file, another delta than expected, one of a newer engramlab, or a
            kind that is not in ``kinds``.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; give one that holds a saved edit ({ABOUT} and {TENSORS})")
    for name in (ABOUT, TENSORS):
        if not (folder / name).is_file():
            raise UserError(f"{folder} holds no saved edit: it has no {name}")
    damaged = f"{folder} is damaged: {{}}; make the edit again, or take the folder from a copy"
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        form, kind, model, settings = (about[key] for key in ("format", "kind", "model", "settings"))
        written, version = about["digest"], about.get("versions", {}).get("engramlab", "unknown")
        known = isinstance(kind, str) and kind in kinds
    except (AttributeError, ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise UserError(damaged.format(f"{ABOUT} is not what was written ({type(error).__name__}: {error})")) from None
    if form != _FORMAT:
        raise UserError(
            f"{folder}: its format is {form!r}, this engramlab reads {_FORMAT}; use the version that wrote it ({version})"
        )
    if not known:
        raise UserError(
            f"{folder}: a saved edit of kind {kind!r}, which this engramlab does not know; it knows {', '.join(sorted(kinds))}"
        )
    try:
        tensors = load_file(str(folder / TENSORS))
    except (SafetensorError, OSError) as error:
        raise UserError(damaged.format(f"{TENSORS} cannot be read ({error})")) from None
    if _digest(kind, model, tensors, settings) != written:
        raise UserError(damaged.format(f"its tensors or settings are not those that {ABOUT} was written for"))
    if expected and written != expected:
        raise UserError(damaged.format("it is another edit's"))
    try:
        return kinds[kind].restore(model, tensors, settings)
    except Exception as error:  # right bits of another version of the class
        raise UserError(
            f"{folder}: this engramlab cannot read a {kind!r} edit as it was written ({type(error).__name__}: {error}); use "
            f"version {version}"
        ) from error
