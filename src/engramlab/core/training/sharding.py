"""Training state shared out between the processes of a launch (FSDP2): gradients, moments and the trained copy of the weights.

`accelerate launch --use_fsdp --fsdp_version 2` asks for it. Each process keeps the whole weights too, brought up to date behind
every step, so that whoever measures, saves or edits the model sees an ordinary one.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from engramlab.base.errors import UserError


def wanted() -> bool:
    """Was FSDP2 asked for when this process was launched? Raises UserError for the first FSDP, which is not done."""
    asked = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("true", "1")
    if asked and (version := os.environ.get("FSDP_VERSION", "1")) != "2":
        raise UserError(f"launch: training is shared out by FSDP version 2, not {version}; add --fsdp_version 2")
    return asked


def shard(model: nn.Module, device: torch.device) -> nn.Module:
    """A copy of the model whose parameters are shared out over all processes, block by block."""
    from torch.distributed import get_world_size
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (get_world_size(),))
    made = copy.deepcopy(model)
    for block in blocks(made):
        fully_shard(block, mesh=mesh)
    fully_shard(made, mesh=mesh)
    return made


def blocks(model: nn.Module) -> list[nn.Module]:
    """The longest list of layers that a model has; what each shares out is gathered while it runs."""
    lists = [list(module) for module in model.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len, default=[])


def whole(value: Any) -> torch.Tensor:
    """All of a tensor that is shared out (every process must ask); any other as it is."""
    found: torch.Tensor = value.full_tensor() if hasattr(value, "full_tensor") else value
    return found


def like(value: torch.Tensor, parameter: Any) -> torch.Tensor:
    """This process's part of a whole tensor, shared out as ``parameter`` is, on its device."""
    if not hasattr(parameter, "full_tensor"):
        return value.to(parameter.device)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)


@torch.no_grad()
def gather(own: nn.Module, into: nn.Module, names: Iterable[str]) -> None:
    """Brings the whole weights up to date; nothing where the model is trained as it is."""
    if own is into:
        return
    shared, plain = dict(own.named_parameters()), dict(into.named_parameters())
    for name in names:
        plain[name].copy_(whole(shared[name]))
