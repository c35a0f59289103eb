"""Checkpoints of a training in the middle: safetensors and JSON, no pickle, never half-written.

A checkpoint is a folder that is written under another name, flushed to disk and renamed; only then are older ones removed.
It holds the trained parameters, the optimizer's state, the streams' places and the generators' states, so that a process
killed at any moment goes on to bit-identical losses; and digests of its files, so that no other ones are gone on with.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from engramlab.base.errors import UserError
from engramlab.core.text.batches import Resumable
from engramlab.core.training import sharding
from engramlab.core.training.loop import TrainState
from engramlab.files import records, writing

_STATE, _BUFFERS = "state.json", "buffers.safetensors"


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.glob("step-*") if p.is_dir() and p.name.removeprefix("step-").isdigit())


def save(root: Path, state: TrainState, stream: Resumable, extra: dict[str, Any] | None = None, keep: int = 1) -> None:
    """Saves ``state`` and the place of ``stream`` under ``root/step-…`` and removes all but the newest ``keep``.

    Call it on every process: each one's stream and generator states are gathered; the main process writes.
    """
    from accelerate.utils import gather_object

    generators = {"cpu": torch.get_rng_state().numpy().tobytes().hex()}
    if torch.cuda.is_available():
        generators["cuda"] = torch.cuda.get_rng_state().numpy().tobytes().hex()
    own = {"stream": stream.state(), "generators": generators}
    everyone = gather_object([own]) if state.world > 1 else [own]
    moments, counters = _flatten(state)  # every process: what is shared out is put together
    if not state.accelerator.is_main_process:
        state.accelerator.wait_for_everyone()
        return
    named = dict(state.bare.named_parameters())
    parameters = {name: named[name].detach().contiguous() for name in state.names}
    record = {"step": state.step, "processes": everyone, "counters": counters, "extra": extra or {}}

    def write(folder: Path) -> None:
        save_file(parameters, folder / "parameters.safetensors")
        save_file(moments, folder / "optimizer.safetensors")
        if buffers := _buffers(state.bare):
            save_file({name: value.contiguous() for name, value in buffers.items()}, folder / _BUFFERS)
        (folder / _STATE).write_text(json.dumps(record))

    records.write_sealed(root / f"step-{state.step:08d}", write)
    writing.clear(*_folders(root)[:-keep])
    if state.world > 1:
        state.accelerator.wait_for_everyone()


def _buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    """What training changes beside parameters: buffers that are saved with the model, and those that their module names as
    ``changing``."""
    found = {}
    for path, module in model.named_modules():
        for name, value in module.named_buffers(path, recurse=False):
            own = name.rpartition(".")[2]
            if own not in module._non_persistent_buffers_set or own in getattr(module, "changing", ()):
                found[name] = value
    return found


def _flatten(state: TrainState) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """AdamW's state by parameter name: its moments as tensors, its step counters as numbers."""
    by_id = {id(p): name for name, p in state.own.named_parameters()}
    moments, counters = {}, {}
    for p, values in state.optimizer.state.items():
        for key, value in values.items():
            if value.dim() == 0:
                counters[f"{by_id[id(p)]}/{key}"] = float(value)
            else:
                moments[f"{by_id[id(p)]}/{key}"] = sharding.whole(value.detach()).contiguous()
    return moments, counters


def latest(root: Path) -> Path | None:
    """The newest checkpoint under ``root``, or None."""
    found = _folders(root)
    return found[-1] if found else None


def newest_whole(root: Path, say: Callable[[str], None]) -> Path | None:
    """The newest checkpoint under ``root`` whose files are what was written, or None where there is none at all.

    Args:
        say: called with a line about each newer one that is passed over.

    Raises:
        UserError: there are some, and all are damaged.
    """
    refused: UserError | None = None
    for folder in reversed(_folders(root)):
        try:
            records.check_sealed(folder, _again(folder))
        except UserError as error:
            refused = refused or error
        else:
            if refused is not None:
                say(f"{refused}; gone on with is the older {folder.name}")
            return folder
    if refused is not None:
        raise refused
    return None


def _again(folder: Path) -> str:
    return f"remove {folder} to do that part again"


def read_state(folder: Path, remedy: str = "") -> dict[str, Any]:
    """What a checkpoint says of itself beside its tensors: ``step``, ``processes``, ``counters``, ``extra``.

    Raises:
        UserError: a file of it is not what was written.
    """
    records.check_sealed(folder, remedy or _again(folder))
    return records.read_record(folder / _STATE, ("step", "processes", "counters", "extra"), remedy or _again(folder))


def load(folder: Path, state: TrainState, stream: Resumable | None, remedy: str = "") -> dict[str, Any]:
    """Puts ``state``, ``stream`` and the generators where they were when ``folder`` was saved; returns ``extra``.

    Args:
        stream: None leaves the place in the stream that it was saved with alone, where training goes on with another one.
        remedy: what the user can do about a damaged file, for the message.

    Raises:
        UserError: a damaged file, another number of processes, or other parameters than the checkpoint's.
    """
    record = read_state(folder, remedy)
    try:
        return _restore(folder, record, state, stream)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        why = f"{type(error).__name__}: {error}"  # of one that was not sealed yet
        raise records.damaged(folder, why, remedy or _again(folder)) from error


def _restore(folder: Path, record: dict[str, Any], state: TrainState, stream: Resumable | None) -> dict[str, Any]:
    if len(record["processes"]) != state.world:
        raise UserError(
            f"checkpoint {folder} was saved by {len(record['processes'])} processes and cannot go on with {state.world}"
        )
    saved = load_file(folder / "parameters.safetensors")
    named = dict(state.bare.named_parameters())
    if {name: value.shape for name, value in saved.items()} != {name: named[name].shape for name in state.names}:
        raise UserError(f"checkpoint {folder} is of another model: its parameters have other names or shapes")
    trained = dict(state.own.named_parameters())
    with torch.no_grad():
        for name, value in saved.items():
            named[name].copy_(value)
            if state.own is not state.bare:
                trained[name].copy_(sharding.like(value, trained[name]))
    if (folder / _BUFFERS).exists():
        for name, value in load_file(folder / _BUFFERS).items():
            path, _, own = name.rpartition(".")
            there = state.bare.get_buffer(name)
            setattr(state.bare.get_submodule(path), own, value.to(there.device, there.dtype))
    moments = load_file(folder / "optimizer.safetensors")
    state.optimizer.state.clear()
    for name, value in moments.items():
        parameter, key = name.rsplit("/", 1)
        p = trained[parameter]
        state.optimizer.state[p][key] = sharding.like(value, p)
    for name, number in record["counters"].items():
        parameter, key = name.rsplit("/", 1)
        p = trained[parameter]
        state.optimizer.state[p][key] = torch.tensor(number, dtype=torch.float32, device=p.device)
    state.step = int(record["step"])
    own = record["processes"][state.accelerator.process_index]
    if stream is not None:
        stream.restore(own["stream"])
    torch.set_rng_state(_bytes(own["generators"]["cpu"]))
    if torch.cuda.is_available() and "cuda" in own["generators"]:
        torch.cuda.set_rng_state(_bytes(own["generators"]["cuda"]))
    return dict(record["extra"])


def _bytes(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
