"""What the paper changes of a network, beside its size: tied embeddings, the kind and width of its MLP, and its precision.

``FAMILY[+untied][+gated|+plain][+mlp1/4|+nomlp]``: ``gpt-neox`` (GPT-2 with rotary embedding; a plain MLP four times as
wide as the network), ``llama+untied`` (the paper's Llama; a gated MLP of 8/3 of the width), ``llama+untied+plain``,
``gpt-neox+mlp1/4``, ...
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from engramlab.base.errors import UserError
from engramlab.core import models

WORDS = ("tied", "untied", "gated", "plain", "mlp1/4", "nomlp")
_APART = (("tied", "untied"), ("gated", "plain", "nomlp"), ("mlp1/4", "nomlp"))


@dataclass(frozen=True)
class Network:
    """A family and what is changed of it.

    mlp: the width of the MLP as a share of the family's; 0 for none.
    """

    family: str
    tied: bool = True
    kind: Literal["", "gated", "plain"] = ""
    mlp: float = 1.0


def parse(name: str) -> Network:
    """Reads a network's name.

    Raises:
        UserError: an unknown family or word, or words that do not go together.
    """
    family, *words = name.split("+")
    models.family(family)
    for word in words:
        if word not in WORDS:
            raise UserError(f"networks: {name!r} has {word!r}; behind the family may stand +{', +'.join(WORDS)}")
    for group in _APART:
        if len(both := [word for word in words if word in group]) > 1:
            raise UserError(f"networks: {name!r} has both +{both[0]} and +{both[1]}; use one of them")
    kind: Literal["", "gated", "plain"] = "gated" if "gated" in words else "plain" if "plain" in words else ""
    mlp = 0.0 if "nomlp" in words else 0.25 if "mlp1/4" in words else 1.0
    return Network(family, "untied" not in words, kind, mlp)


class Mlp(nn.Module):
    """An MLP, plain (two matrices and a GELU) or gated (three and a SiLU, as Llama's)."""

    def __init__(self, width: int, inner: int, gated: bool, bias: bool) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, inner, bias), nn.Linear(inner, width, bias)
        self.gate = nn.Linear(width, inner, bias) if gated else None
        self.act: nn.Module = nn.SiLU() if gated else nn.GELU()

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        up = self.up(hidden)
        made: torch.Tensor = self.down(self.act(up) if self.gate is None else self.act(self.gate(hidden)) * up)
        return made


class Nothing(nn.Module):
    """Adds nothing to the residual stream."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(hidden)


def change(model: nn.Module, network: Network, seed: int) -> nn.Module:
    """The model with its MLPs replaced, new ones initialised as the model's own matrices are; the same model otherwise.

    The global generator is left as it was.
    """
    if not network.kind and network.mlp == 1:
        return model
    spread = float(getattr(model.config, "initializer_range", 0.02))
    with torch.random.fork_rng(devices=[]), torch.device("meta" if _bare(model) else "cpu"):
        torch.default_generator.manual_seed(seed)
        for layer in model.get_submodule(models.module_paths(model).layers).children():
            if not network.mlp:
                layer.mlp = Nothing()
                layer.post_attention_layernorm = nn.Identity()
                continue
            matrices = [m for m in layer.get_submodule("mlp").modules() if isinstance(m, nn.Linear)]
            own = len(matrices) == 3
            gated = network.kind == "gated" or (own and network.kind != "plain")
            width = matrices[0].in_features
            inner = math.ceil((8 * width / 3 if gated else 4 * width) * network.mlp)
            new = Mlp(width, inner, gated, matrices[0].bias is not None)
            for name, parameter in new.named_parameters():
                nn.init.normal_(parameter, 0, spread) if name.endswith("weight") else nn.init.zeros_(parameter)
            layer.mlp = new
    return model


def _bare(model: nn.Module) -> bool:
    return next(model.parameters()).device.type == "meta"


@torch.no_grad()
def quantise(model: nn.Module, bits: int) -> nn.Module:
    """Rounds every matrix, in place, to numbers of so many bits: whole multiples of a scale of its row.

    Ours: to the nearest, the largest of each row kept as it is; vectors (norms, biases) stay as they are.
    """
    most = 2 ** (bits - 1) - 1
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            scale = parameter.abs().amax(dim=-1, keepdim=True).clamp_min(torch.finfo(parameter.dtype).tiny) / most
            parameter.copy_((parameter / scale).round_().mul_(scale))
    return model
