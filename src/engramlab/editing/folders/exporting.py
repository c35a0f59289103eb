"""Edited folders for others: a LoRA edit as a PEFT adapter, and a model pushed to the hub. (As a GGUF file: ``gguf_files``.)"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from engramlab.base.errors import UserError
from engramlab.core.deltas import Change, LowRank, WeightDelta
from engramlab.editing.folders import card, checking, disk, loading
from engramlab.editing.folders.disk import Saved, State
from engramlab.editing.folders.saving import OTHER_OUT
from engramlab.files import hub, writing
from engramlab.files.locks import held, place, vacant

_KEPT_HERE = (disk.ABOUT, f"{disk.EDITS}/*", ".*", "*.partial")  # they name places on this machine


def opened(folder: str | Path) -> tuple[State, list[Saved]]:
    """The state and the edits of a folder all of whose edits are changes of weights.

    Raises:
        UserError: no edited folder, no edits in it, or one that acts while the model runs.
    """
    state = disk.read(folder)
    known = disk.listing(state)
    if not known:
        raise UserError(f"{state.folder} has no edits: it is the unedited model {state.base}")
    for one in known:
        if one.kind != WeightDelta.kind:
            raise UserError(
                f"{state.folder}: edit {one.number} ({one.record.method or one.kind}) changes no weights: it acts while the "
                "model runs, which only engramlab can load; share the folder as it is, or undo that edit first"
            )
    return state, known


def to_peft(folder: str | Path, out: str | Path, *, base: str | None = None) -> Path:
    """All edits of a folder as one LoRA adapter: ``peft.PeftModel.from_pretrained(unedited model, out)``.

    Args:
        base: name of the unedited model that the adapter is to say; by default where it was.

    Raises:
        UserError: as ``opened``; ``out`` exists; a change of a matrix that is not of low rank.
    """
    from peft import LoraConfig
    from safetensors.torch import save_file

    state, known = opened(folder)
    checking.check(state, known)
    by_path: dict[str, list[LowRank]] = {}
    for one, delta in zip(known, loading.load_deltas(state, known), strict=True):
        assert isinstance(delta, WeightDelta)
        for path, change in delta.changes.items():
            by_path.setdefault(path, []).append(_low_rank(state, one, path, change))
    tensors: dict[str, torch.Tensor] = {}
    for path, some in by_path.items():
        tensors[f"base_model.model.{path}.lora_A.weight"] = torch.cat([c.right for c in some], 0).contiguous()
        tensors[f"base_model.model.{path}.lora_B.weight"] = torch.cat([c.left for c in some], 1).contiguous()
    ranks = {path: sum(c.right.shape[0] for c in some) for path, some in by_path.items()}
    most = max(ranks.values())
    patterns = {path: rank for path, rank in ranks.items() if rank != most}
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=most,
        lora_alpha=most,  # the changes are scaled already
        rank_pattern=patterns,
        alpha_pattern=patterns,
        target_modules=list(by_path),
        base_model_name_or_path=base or state.base,
        inference_mode=True,
    )
    how = "`peft.PeftModel.from_pretrained(MODEL, FOLDER)` puts it on the unedited model."

    def write(partial: Path) -> None:
        config.save_pretrained(str(partial))
        save_file(tensors, str(partial / "adapter_model.safetensors"), metadata={"format": "pt"})
        writing.write_text(partial / card.CARD, card.text(state, known, how, library="peft"))

    there = place(out)
    with held(there, OTHER_OUT):
        if not vacant(there):
            raise UserError(f"{there} exists; give another folder, it will be made")
        writing.write_folder(there, write)
    return there


def _low_rank(state: State, one: Saved, path: str, change: Change) -> LowRank:
    """The change as a product of two factors. Raises UserError where it is none."""
    if isinstance(change, LowRank):
        return change
    update = change.update
    left, scale, right = torch.linalg.svd(update.double(), full_matrices=False)
    rank = max(1, int((scale > scale[0] * max(update.shape) * torch.finfo(update.dtype).eps).sum()))
    if rank * 2 > min(update.shape):
        raise UserError(
            f"{state.folder}: edit {one.number} ({one.record.method}) changes all of {path} ({update.shape[0]} x "
            f"{update.shape[1]}, rank {rank}), which no adapter of low rank holds; edit with --method lora or rome, or export "
            "the whole model (--gguf, --hub)"
        )
    return LowRank((left[:, :rank] * scale[:rank]).float(), right[:rank].float())


def to_hub(folder: str | Path, name: str, *, public: bool = False) -> str:
    """Uploads the model and its card, without what takes the edits back, which names places on this machine.

    Args:
        name: ``owner/name`` of a repository, made if it is not there.
        public: for everyone to see.

    Returns:
        Its address.

    Raises:
        UserError: as ``opened``; a folder of edits alone, no network, no token, or whatever the hub says.
    """
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name):
        raise UserError(f"--hub {name}: write owner/name, such as me/my-edited-model")
    state, known = opened(folder)
    if state.delta_only:
        raise UserError(
            f"{state.folder} holds edits alone; save the whole model first (engramlab merge, or edit without --delta-only)"
        )
    checking.check(state, known)
    if not hub.hub_answers():
        raise UserError(f"--hub {name}: the hub cannot be reached; nothing was uploaded")
    import huggingface_hub

    api: Any = huggingface_hub.HfApi()
    try:
        api.whoami()
        api.create_repo(name, private=not public, exist_ok=True)
        api.upload_folder(
            repo_id=name,
            folder_path=str(state.folder),
            ignore_patterns=list(_KEPT_HERE),
            commit_message=f"{state.edits} edit{'s' * (state.edits > 1)} of {Path(state.base).name}",
        )
    except Exception as error:  # whatever the hub's client raises
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"--hub {name}: could not be uploaded ({first}); log in with `hf auth login`, or set HF_TOKEN to a token that may "
            "write there"
        ) from error
    return f"https://huggingface.co/{name}"
