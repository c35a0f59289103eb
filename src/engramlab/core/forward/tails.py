"""A model from one layer on: the layers below it, and the positions before a change, are computed once and never again.

An edit that only touches layer ``start`` and what follows runs dozens of optimizer steps over the same few tokens. All that
lies below ``start`` gives the same numbers every time, and so do the positions before the first one that changes.
"""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import torch
from torch import nn

from engramlab.base.errors import UserError
from engramlab.core.forward.hooks import mode
from engramlab.core.forward.passes import output_logits, select_positions
from engramlab.core.forward.shortcuts import mapped, only_at, recording, repeating
from engramlab.core.models import module_paths


class Tail:
    """The layers of a causal LM from ``start`` on, over fixed token rows.

    The layers' own modules are called with the arguments that the model itself gave them, so hooks on them act and every
    family is computed by its own code.

    Args:
        model: comes back as it was (mode, hooks).
        start: first layer to recompute, 0 to the number of layers - 1.
        input_ids: int64 ``[B, T]``. Rows padded at the right need no mask, as a causal model never looks ahead.
        attention_mask: ``[B, T]``, for rows padded at the left.
        begin: positions before this one are taken as unchanged: their keys and values serve every run.
        first: path of the one module of layer ``start`` that is going to change: what that layer computes before it is
            computed once.

    Raises:
        UserError: no such layer, or a model that is more than one layer after another and a norm.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: nn.Module,
        start: int,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        begin: int = 0,
        first: str | None = None,
    ) -> None:
        paths = module_paths(model)
        layers: Any = model.get_submodule(paths.layers)
        if not 0 <= start < len(layers):
            raise UserError(f"layer {start} does not exist: this model has layers 0 to {len(layers) - 1}")
        self.model, self.start, self.layers = model, start, list(layers[start:])
        self.mlp = paths.mlp_down.rpartition(".")[0]
        self.still: dict[str, Any] = {}  # what modules of the first layer always say
        self.norm = model.get_submodule(paths.final_norm) if paths.final_norm else nn.Identity()
        self.keys_values: list[tuple[torch.Tensor, torch.Tensor]] = []
        positions = None
        if attention_mask is not None:
            positions = (attention_mask.cumsum(1) - 1).clamp(min=0)
        more: dict[str, Any] = {}
        with mode(model, False):
            if begin:
                unchanged = input_ids[:, :begin]
                out = self._silent(
                    unchanged,
                    use_cache=True,
                    attention_mask=None if attention_mask is None else attention_mask[:, :begin],
                    position_ids=None if positions is None else positions[:, :begin],
                )
                more = {"past_key_values": out.past_key_values, "use_cache": True}
                pairs = [(layer.keys, layer.values) for layer in out.past_key_values.layers]
                self.keys_values = [(k.clone(), v.clone()) for k, v in pairs]
                input_ids = input_ids[:, begin:]
                positions = None if positions is None else positions[:, begin:]
            self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
            self._said: list[torch.Tensor] = []
            body = model.get_submodule(paths.layers.rpartition(".")[0])
            with contextlib.ExitStack() as hooks:
                if first is not None:
                    name = first.removeprefix(f"{paths.layers}.{start}.")
                    self.still = hooks.enter_context(recording(self.layers[0], name))
                for layer in self.layers:
                    hooks.enter_context(layer.register_forward_pre_hook(self._record, with_kwargs=True))
                    hooks.enter_context(layer.register_forward_hook(self._keep))
                hooks.enter_context(body.register_forward_hook(self._keep))
                self._silent(input_ids, attention_mask=attention_mask, position_ids=positions, **more)
        #: ``[B, T - begin, D]``: the hidden states entering layer ``start``.
        self.entering: torch.Tensor = _hidden(*self.calls[0])
        self._check()

    def _check(self) -> None:
        """Raises UserError unless each layer took what the one before it said, and the model ends with the last one's norm."""
        with mode(self.model, False):
            last = self.norm(self._said[-2])
        pairs = [(said, _hidden(*call)) for said, call in zip(self._said, self.calls[1:], strict=False)]
        if not all(
            a.shape == b.shape and torch.allclose(a, b, 1e-2, 1e-3, True) for a, b in [*pairs, (last, self._said[-1])]
        ):
            raise UserError(
                f"architecture {self.model.config.model_type!r} does more than one layer after another and a norm; "  # type: ignore[union-attr]
                "such a model cannot be edited here (ike changes no weights, and can)"
            )
        del self._said

    def only(self, rows: torch.Tensor) -> Tail:
        """The tail of some of its rows (int64 indices); nothing is computed again."""
        count = len(self.entering)

        def cut(value: Any, name: str = "") -> Any:
            if isinstance(value, torch.Tensor):
                if name == "alibi":  # BLOOM's and Falcon's: heads of the first row, of the second, ...
                    return value.unflatten(0, (count, -1))[rows].flatten(0, 1)
                # What belongs to rows has them first and positions after them; a mere list of positions is everybody's, and
                # so are MPT's biases, which have heads first.
                of_rows = value.dim() > 1 and len(value) == count and count > 1 and name != "position_bias"
                return value[rows] if of_rows else value
            return type(value)(cut(v) for v in value) if isinstance(value, (tuple, list)) else value

        positions = self.entering.shape[1]

        def cut_said(value: torch.Tensor) -> torch.Tensor:
            if len(value) == count:
                return value[rows]
            return value.unflatten(0, (count, positions))[rows].flatten(0, 1)  # OPT lays rows end to end

        chosen = copy.copy(self)
        chosen.still = {name: mapped(cut_said, value) for name, value in self.still.items()}
        chosen.entering = self.entering[rows]
        chosen.keys_values = [(keys[rows], values[rows]) for keys, values in self.keys_values]
        chosen.calls = [(cut(args), {name: cut(v, name) for name, v in kwargs.items()}) for args, kwargs in self.calls]
        return chosen

    def _silent(self, input_ids: torch.Tensor, **more: Any) -> Any:
        """A pass of the model without logits."""
        more = {name: value for name, value in more.items() if value is not None}
        more.setdefault("use_cache", False)
        with select_positions(self.model, torch.zeros_like(input_ids, dtype=torch.bool)):
            return self.model(input_ids=input_ids, **more)

    def _record(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.calls.append((args, kwargs))

    def _keep(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._said.append(output if isinstance(output, torch.Tensor) else output[0])

    def _cache(self) -> Any:
        """The keys and values of the unchanged positions again, in a cache that this run may append to."""
        from transformers import DynamicCache

        cache = DynamicCache()
        for i, (keys, values) in enumerate(self.keys_values):
            cache.update(keys, values, i)
        return cache

    def run(self) -> torch.Tensor:
        """Hidden states ``[B, T - begin, D]`` after the final norm, differentiable in whatever hooks on the layers add."""
        from transformers import Cache

        cache = self._cache() if self.keys_values else None

        def fresh(value: Any) -> Any:
            return cache if isinstance(value, Cache) else value

        hidden = self.entering
        with mode(self.model, False), repeating(self.layers[0], self.still):
            for layer, (args, kwargs) in zip(self.layers, self.calls, strict=True):
                more = {name: fresh(value) for name, value in kwargs.items() if name != "hidden_states"}
                out = layer(hidden, *(fresh(value) for value in args[1:]), **more)
                hidden = out[0] if isinstance(out, tuple) else out
            return self.norm(hidden)

    def logits(self, keep: torch.Tensor) -> torch.Tensor:
        """Logits ``[n, V]`` where ``keep[B, T - begin]`` is true, in row-major order; see ``run``."""
        index = keep.flatten().nonzero().squeeze(1)
        last = self.layers[-1].get_submodule(self.mlp) if self.mlp else None
        with contextlib.nullcontext() if last is None else only_at(last, index, keep.numel()):
            hidden = self.run()
        return output_logits(self.model, hidden.flatten(0, 1).index_select(0, index))


class Whole:
    """All of a causal LM over fixed token rows, where the embedding itself changes: a ``Tail`` of which nothing could be
    computed once.

    Args:
        input_ids: int64 ``[B, T]``, padded at the right.
    """

    def __init__(self, model: nn.Module, input_ids: torch.Tensor) -> None:
        self.model, self.ids = model, input_ids

    def only(self, rows: torch.Tensor) -> Whole:
        """Some of its rows (int64 indices)."""
        return Whole(self.model, self.ids[rows])

    def logits(self, keep: torch.Tensor) -> torch.Tensor:
        """Logits ``[n, V]`` where ``keep[B, T]`` is true, in row-major order."""
        with mode(self.model, False), select_positions(self.model, keep):
            logits: torch.Tensor = self.model(input_ids=self.ids, use_cache=False).logits
        return logits.flatten(0, -2)


def _hidden(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The hidden states that a layer was called with."""
    return args[0] if args else kwargs["hidden_states"]
