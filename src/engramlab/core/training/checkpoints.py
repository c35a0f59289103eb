"""Checkpoints of a training in the middle: safetensors and JSON, no pickle, never half-written.

A checkpoint is a folder that is written under another name, flushed to disk and renamed; only then are older ones removed.
It holds the trained parameters, the optimizer's state, the streams' places and the generators' states, so that a process
killed at any moment goes on to bit-identical losses.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from engramlab.base.errors import UserError
from engramlab.core.text.batches import Resumable
from engramlab.core.training.loop import TrainState
from engramlab.files import writing


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.glob("step-*") if p.is_dir() and p.suffix != ".partial")


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
    if not state.accelerator.is_main_process:
        state.accelerator.wait_for_everyone()
        return
    named = dict(state.bare.named_parameters())
    parameters = {name: named[name].detach().contiguous() for name in state.names}
    moments, counters = _flatten(state)
    record = {"step": state.step, "processes": everyone, "counters": counters, "extra": extra or {}}

    def write(folder: Path) -> None:
        save_file(parameters, folder / "parameters.safetensors")
        save_file(moments, folder / "optimizer.safetensors")
        (folder / "state.json").write_text(json.dumps(record))

    writing.write_folder(root / f"step-{state.step:08d}", write)
    for old in _folders(root)[:-keep]:
        shutil.rmtree(old)
    if state.world > 1:
        state.accelerator.wait_for_everyone()


def _flatten(state: TrainState) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """AdamW's state by parameter name: its moments as tensors, its step counters as numbers."""
    by_id = {id(p): name for name, p in state.bare.named_parameters()}
    moments, counters = {}, {}
    for p, values in state.optimizer.state.items():
        for key, value in values.items():
            if value.dim() == 0:
                counters[f"{by_id[id(p)]}/{key}"] = float(value)
            else:
                moments[f"{by_id[id(p)]}/{key}"] = value.detach().contiguous()
    return moments, counters


def latest(root: Path) -> Path | None:
    """The newest complete checkpoint under ``root``, or None."""
    found = _folders(root)
    return found[-1] if found else None


def load(folder: Path, state: TrainState, stream: Resumable | None) -> dict[str, Any]:
    """Puts ``state``, ``stream`` and the generators where they were when ``folder`` was saved; returns ``extra``.

    Args:
        stream: None leaves the place in the stream that it was saved with alone, where training goes on with another one.

    Raises:
        UserError: another number of processes, or other parameters than the checkpoint's.
    """
    record = json.loads((folder / "state.json").read_text())
    if len(record["processes"]) != state.world:
        raise UserError(
            f"checkpoint {folder} was saved by {len(record['processes'])} processes and cannot go on with {state.world}"
        )
    saved = load_file(folder / "parameters.safetensors")
    named = dict(state.bare.named_parameters())
    if {name: value.shape for name, value in saved.items()} != {name: named[name].shape for name in state.names}:
        raise UserError(f"checkpoint {folder} is of another model: its parameters have other names or shapes")
    with torch.no_grad():
        for name, value in saved.items():
            named[name].copy_(value)
    moments = load_file(folder / "optimizer.safetensors")
    state.optimizer.state.clear()
    for name, value in moments.items():
        parameter, key = name.rsplit("/", 1)
        p = named[parameter]
        state.optimizer.state[p][key] = value.to(p.device)
    for name, number in record["counters"].items():
        parameter, key = name.rsplit("/", 1)
        p = named[parameter]
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
