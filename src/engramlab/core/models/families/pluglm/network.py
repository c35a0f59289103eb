"""The network: layers that look up, and what saves and loads it with its memory."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GPTNeoXConfig, GPTNeoXForCausalLM
from transformers import initialization as init
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXLayer

from engramlab.base.errors import UserError
from engramlab.core.models.families.pluglm.memory import FILE, AttentivePool, PlugMemory
from engramlab.core.text.prompts import Route, free_route

KEYS = 128  # width of the paper's keys


class PlugLMConfig(GPTNeoXConfig):
    """Of a GPT-NeoX, and what its memory is like.

    Attributes:
        memory_layers: which layers look up; None for one, the last but one (the last of two).
        memory_keys: width of keys and queries; None for half the width, 128 at most.
        memory_top: documents that a row reads.
        memory_intermediate: width of the FFN of layers that look up; None for that of the network.
        memory_beta: what β, the weight of a document's nearness, is learnt from: 1 in the paper. Queries and keys learn through
            it alone, their gradients are proportional to it.
    """

    model_type = "pluglm"
    memory_layers: list[int] | None = None
    memory_keys: int | None = None
    memory_top: int = 5
    memory_intermediate: int | None = None
    memory_beta: float = 1.0

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.memory_layers is None:
            self.memory_layers = [max(self.num_hidden_layers // 2, self.num_hidden_layers - 2)]
        self.memory_keys = self.memory_keys or min(KEYS, self.hidden_size // 2)
        self.memory_intermediate = self.memory_intermediate or self.hidden_size


@dataclass(frozen=True)
class LookUp:
    """What the layers of a pass share.

    Attributes:
        memory: where documents are.
        embedding: the network's token embedding, of which they are made.
        inside: bool ``[B, T]``: no padding.
        route: of the causal variant: where prompts end.
    """

    memory: PlugMemory
    embedding: nn.Embedding
    inside: torch.Tensor
    route: Route | None


@dataclass(frozen=True)
class Found:
    """What a layer has found for the rows of a batch.

    Attributes:
        numbers: int64 ``[B, k]``, counts: bool ``[B, k]``: the documents, and which of them count.
        near: ``[B, k]``: the cosine of query and key.
        values: ``[B, k, d]``.
    """

    numbers: torch.Tensor
    counts: torch.Tensor
    near: torch.Tensor
    values: torch.Tensor


class MemoryAttention(nn.Module):
    """From x ``[B, T, d]``: a query a row, the nearest documents, and every position's attention over their values.

    Attributes:
        found: of the latest pass; None without a memory.
    """

    def __init__(self, config: PlugLMConfig) -> None:
        super().__init__()
        width, self.heads, self.top = config.hidden_size, config.num_attention_heads, config.memory_top
        self.pool = AttentivePool(width)
        self.query = nn.Linear(width, config.memory_keys)  # type: ignore[arg-type]
        self.norm = nn.BatchNorm1d(config.memory_keys)  # type: ignore[arg-type]
        self.asks, self.offers, self.gives, self.output = (nn.Linear(width, width) for _ in range(4))
        self.beta = nn.Parameter(torch.ones(self.heads))
        self.found: Found | None = None

    def forward(self, x: torch.Tensor, look: LookUp) -> torch.Tensor:
        """What is to be added to ``x``; zero where a row finds nothing, and before a prompt's end."""
        if look.route is None:
            found = self._find(x, look, look.inside)
            return self._attend(x, found)
        decided = look.route.decided(id(self))
        found = look.route.decide(id(self), lambda ends: self._find(x, look, look.inside & _until(ends, x)))
        said = self._attend(x, found)
        if decided is None:
            said = said * _until(look.route.ends - 1, x).logical_not().unsqueeze(-1)
        return said

    def _find(self, x: torch.Tensor, look: LookUp, inside: torch.Tensor) -> Found:
        if self.training and len(x) < 2:
            raise UserError("a batch of one row has no statistics to train a memory's queries with; take two at least")
        query = self.norm(self.query(self.pool(x, inside)))
        numbers, counts = look.memory.search(query, self.top)
        keys, values = look.memory.read(numbers, look.embedding)
        near = nn.functional.cosine_similarity(query.float()[:, None], keys.float(), dim=-1)
        self.found = Found(numbers, counts, near, values)
        return self.found

    def _attend(self, x: torch.Tensor, found: Found) -> torch.Tensor:
        def split(states: torch.Tensor) -> torch.Tensor:
            return states.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, H, T or k, d / H]

        asks, offers, gives = split(self.asks(x)), split(self.offers(found.values)), split(self.gives(found.values))
        scores = (asks @ offers.transpose(-1, -2)).float() / asks.shape[-1] ** 0.5
        scores = scores + (self.beta.float()[None, :, None] * found.near[:, None])[:, :, None]
        counts = found.counts[:, None, None]
        weights = scores.masked_fill(~counts, torch.finfo(scores.dtype).min).softmax(-1) * counts
        said: torch.Tensor = self.output((weights.to(gives.dtype) @ gives).transpose(1, 2).flatten(2))
        return said * found.counts.any(1)[:, None, None]  # the projection's bias is no document's


def _until(ends: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """bool ``[B, T]``: positions up to each row's end."""
    return torch.arange(x.shape[1], device=x.device) <= ends[:, None]


class MemoryLayer(GPTNeoXLayer):
    """LayerNorm(x + FFN(x) + memory), x being the normed output of the attention."""

    def __init__(self, config: PlugLMConfig, layer_idx: int) -> None:
        small = copy.copy(config)
        small.intermediate_size = config.memory_intermediate
        super().__init__(small, layer_idx)
        self.look_up = MemoryAttention(config)
        self.output_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden_states: torch.Tensor, look: LookUp | None = None, **kwargs: Any) -> torch.Tensor:
        attended, _ = self.attention(self.input_layernorm(hidden_states), **kwargs)
        x = self.post_attention_layernorm(hidden_states + self.post_attention_dropout(attended))
        y = x + self.post_mlp_dropout(self.mlp(x))
        if look is not None:
            y = y + self.post_mlp_dropout(self.look_up(x, look))
        made: torch.Tensor = self.output_layernorm(y)
        return made


class PlugLMForCausalLM(GPTNeoXForCausalLM):
    """A masked network (a causal one, by its config) with ``memory``; saved and loaded with it.

    Attributes:
        memory: its documents; changing them takes its ``get_input_embeddings()``. Without any the network is one that looks
            nothing up.
    """

    config_class = PlugLMConfig

    def __init__(self, config: PlugLMConfig) -> None:
        super().__init__(config)
        for number in config.memory_layers or ():
            self.gpt_neox.layers[number] = MemoryLayer(config, number)
        self.memory = PlugMemory(config.hidden_size, config.memory_keys)  # type: ignore[arg-type]
        self._route: Route | None = None
        self._free: Route | None = None
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        # The memory stands behind all layers; these are handed to the network inside, and never to this method.
        if isinstance(module, PlugMemory):
            width = self.config.hidden_size
            init.orthogonal_(module.key.weight)
            # Wider than usual, or what layers add to a word at random would drown what it shares with documents.
            init.normal_(self.gpt_neox.embed_in.weight, std=width**-0.5)
            # What is read begins as the document's words themselves, as long as the state that it is added to (√d; a mean of
            # several words has the length of one of them over the root of their number). From matrices of the usual size it
            # would begin far shorter, and queries and keys, whose gradients go through it, would learn slowly.
            init.copy_(module.value.weight, 4 * width**0.5 * torch.eye(width))
            for layer in self.looking():
                init.copy_(layer.query.weight, module.key.weight)
                init.constant_(layer.beta, self.config.memory_beta)
                init.orthogonal_(layer.gives.weight)
                init.copy_(layer.output.weight, layer.gives.weight.T)

    def looking(self) -> list[MemoryAttention]:
        """What looks up, from the lowest layer on."""
        return [layer.look_up for layer in self.gpt_neox.layers if isinstance(layer, MemoryLayer)]

    @property
    def decides(self) -> bool:
        """Does it decide where a prompt ends what it reads? The causal variant does."""
        return bool(getattr(self.config, "is_causal", True)) and len(self.memory) > 0

    @contextlib.contextmanager
    def routed_at(self, route: Route) -> Iterator[None]:
        """Inside the block prompts end where ``route`` says."""
        before, self._route = self._route, route
        try:
            yield
        finally:
            self._route = before

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        given = input_ids if inputs_embeds is None else inputs_embeds
        if given is not None and len(self.memory):
            kwargs["look"] = self._look(given, attention_mask, kwargs)
        return super().forward(
            input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, **kwargs
        )

    def _look(self, given: torch.Tensor, mask: torch.Tensor | None, kwargs: dict[str, Any]) -> LookUp:
        rows, length = given.shape[:2]
        inside = torch.ones(rows, length, dtype=torch.bool, device=given.device)
        if mask is not None and mask.dim() == 2:
            inside = mask[:, -length:].bool()
            if not inside.any(1).all():
                raise UserError(f"row {int((~inside.any(1)).nonzero()[0])} holds nothing but padding; leave it out")
        route = None
        if self.decides:
            if self._route is None:
                self._free = free_route(self._free, given, {"attention_mask": mask, **kwargs})
            route = self._free if self._route is None else self._route
        return LookUp(self.memory, self.get_input_embeddings(), inside, route)

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        super().save_pretrained(save_directory, **kwargs)
        self.memory.save(Path(save_directory))

    @classmethod
    def from_pretrained(cls, name: Any, *args: Any, stale: bool = False, **kwargs: Any) -> Any:
        """As transformers' own, with the memory that lies beside the weights.

        Args:
            stale: keys that were made by other encoder weights are made anew, not refused.

        Raises:
            UserError: a memory that is damaged, another network's, or of other encoder weights.
        """
        from transformers.utils.hub import cached_file

        made = super().from_pretrained(name, *args, **kwargs)
        model = made[0] if isinstance(made, tuple) else made
        known = ("revision", "local_files_only", "cache_dir", "token", "subfolder")
        where = {key: value for key, value in kwargs.items() if key in known}
        path = cached_file(name, FILE, **where, **dict.fromkeys(_QUIET, False))
        if path is not None:
            model.memory.restore(Path(path), model.get_input_embeddings(), stale=stale)
        return made


_QUIET = [f"_raise_exceptions_for_{what}" for what in ("gated_repo", "missing_entries", "connection_errors")]
AutoConfig.register("pluglm", PlugLMConfig, exist_ok=True)
AutoModelForCausalLM.register(PlugLMConfig, PlugLMForCausalLM, exist_ok=True)
