"""A plug-in memory: documents, their keys and values, and how the two are made of a document's words.

Source: PlugLM (arXiv 2305.11564; abstract and released code), the wording and what is marked ours by us.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from engramlab.base.errors import UserError
from engramlab.files.writing import replacing

FILE = "memory.safetensors"
_TENSORS = ("tokens", "offsets", "keys", "values")


class AttentivePool(nn.Module):
    """A weighted mean of vectors ``[..., d]``, weights proportional to exp(u·tanh(A·x))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, 1, bias=False)

    def strength(self, x: torch.Tensor) -> torch.Tensor:
        """u·tanh(A·x), ``[...]``."""
        found: torch.Tensor = self.outer(torch.tanh(self.inner(x))).squeeze(-1)
        return found

    def forward(self, x: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        """Of each row of ``x[B, T, d]`` over the positions ``inside[B, T]``, at least one in a row: ``[B, d]``."""
        weights = self.strength(x).float().masked_fill(~inside, -torch.inf).softmax(-1)
        return torch.einsum("bt,btd->bd", weights.to(x.dtype), x)


class PlugMemory(nn.Module):
    """Documents as token ids, with a key and a value each.

    Document i is pooled into e_i from its tokens' embeddings, which know no positions here: a document is a bag of its words.
    Its key is K·e_i, its value V·e_i. What a search compares with, and what a network in evaluation reads, are the keys and
    values as they were last encoded.

    Attributes:
        tokens: int32 ``[total]``: the documents laid end to end.
        offsets: int64 ``[n + 1]``: where each begins.
        keys: float ``[n, K]``, values: float ``[n, d]``.
        encoder: digest of the weights that made them; "" where they are none.
    """

    changing: ClassVar[tuple[str, ...]] = ("keys",)  # while a network is trained; a checkpoint keeps them
    tokens: torch.Tensor
    offsets: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, width: int, keys: int) -> None:
        super().__init__()
        self.pool = AttentivePool(width)
        self.key = nn.Linear(width, keys)
        self.value = nn.Linear(width, width)
        self.encoder = ""
        self._own: torch.Tensor | None = None
        empty = torch.zeros(0, dtype=torch.int32), torch.zeros(1, dtype=torch.int64)
        for name, tensor in zip(_TENSORS, (*empty, torch.zeros(0, keys), torch.zeros(0, width)), strict=True):
            self.register_buffer(name, tensor, persistent=False)

    def __len__(self) -> int:
        return len(self.keys)

    def document(self, number: int) -> list[int]:
        """Its token ids."""
        found: list[int] = self.tokens[self.offsets[number] : self.offsets[number + 1]].tolist()
        return found

    # changing it -----------------------------------------------------------------------------------------------------

    def fill(self, documents: Sequence[Sequence[int]], embedding: nn.Embedding) -> None:
        """These documents in the place of all there were.

        Raises:
            UserError: none at all (``clear`` empties a memory), one without a token, ids beyond the vocabulary, or one twice.
        """
        if not documents:
            raise UserError("a memory is filled with documents: give at least one (clear() empties it)")
        self._check(documents, embedding.num_embeddings, torch.zeros(len(self), dtype=torch.bool))
        self.tokens, self.offsets = self._laid(documents)
        self.encode(embedding)

    def add(self, documents: Sequence[Sequence[int]], embedding: nn.Embedding) -> None:
        """More documents, behind those there are, which stay as they are bit for bit. Raises UserError as ``fill`` does."""
        self._check(documents, embedding.num_embeddings, torch.ones(len(self), dtype=torch.bool))
        if not len(self):
            self.encoder = self.digest(embedding)
        if len(documents):
            tokens, offsets, keys, values = self._made(documents, embedding)
            self.offsets = torch.cat([self.offsets, self.offsets[-1] + offsets[1:]])
            self.tokens = torch.cat([self.tokens, tokens])
            self.keys, self.values = torch.cat([self.keys, keys]), torch.cat([self.values, values])

    @torch.no_grad()
    def swap(self, number: int, document: Sequence[int], embedding: nn.Embedding) -> None:
        """Another document in the place of one; all others stay bit for bit. Raises UserError as ``fill`` does."""
        self._there([number])
        beside = torch.ones(len(self), dtype=torch.bool)
        beside[number] = False
        self._check([document], embedding.num_embeddings, beside)
        tokens, _, keys, values = self._made([document], embedding)
        begin, end = self.offsets[number : number + 2].tolist()
        if len(tokens) == end - begin:
            self.tokens[begin:end] = tokens
        else:
            self.tokens = torch.cat([self.tokens[:begin], tokens, self.tokens[end:]])
            self.offsets[number + 1 :] += len(tokens) - (end - begin)
        self.keys[number], self.values[number] = keys[0], values[0]

    def remove(self, numbers: Sequence[int]) -> None:
        """Takes documents out; the others stay bit for bit, in their order. Raises UserError for one that is not there."""
        self._there(numbers)
        lengths = self.offsets.diff()
        stays = torch.ones(len(self), dtype=torch.bool, device=self.keys.device)
        stays[list(numbers)] = False
        self.tokens = self.tokens[stays.repeat_interleave(lengths)]
        self.offsets = torch.cat([self.offsets[:1], lengths[stays].cumsum(0)])
        self.keys, self.values = self.keys[stays], self.values[stays]

    def clear(self) -> None:
        """Empties it."""
        self.remove(range(len(self)))

    @torch.no_grad()
    def encode(self, embedding: nn.Embedding) -> None:
        """Makes all keys and values anew, from the weights of now."""
        self.keys, self.values = self._encoded(self.tokens, self.offsets, embedding)
        self.encoder = self.digest(embedding)

    def _laid(self, documents: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        device = self.keys.device
        tokens = torch.tensor([t for d in documents for t in d], dtype=torch.int32, device=device)
        lengths = torch.tensor([len(d) for d in documents], dtype=torch.int64, device=device)
        return tokens, torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])

    @torch.no_grad()
    def _made(self, documents: Sequence[Sequence[int]], embedding: nn.Embedding) -> tuple[torch.Tensor, ...]:
        """Tokens, offsets, keys and values of documents alone."""
        self.require(embedding)
        tokens, offsets = self._laid(documents)
        return tokens, offsets, *self._encoded(tokens, offsets, embedding)

    def _there(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            if not 0 <= number < len(self):
                raise UserError(f"document {number} is not in the memory: it holds {len(self)}, numbered from 0")

    def _check(self, documents: Sequence[Sequence[int]], vocabulary: int, beside: torch.Tensor) -> None:
        """Refuses documents that cannot be, or are there already: among themselves, or as one of those ``beside``, bool
        ``[n]``."""
        seen: dict[tuple[int, ...], int] = {}
        lengths, starts, tokens = self.offsets.diff().cpu(), self.offsets[:-1].cpu(), self.tokens.cpu()
        for number, document in enumerate(documents):
            if not len(document):
                raise UserError(f"document {number} has no token; leave it out")
            wrong = next((token for token in document if not 0 <= token < vocabulary), None)
            if wrong is not None:
                raise UserError(
                    f"document {number} holds token {wrong}, but the vocabulary has {vocabulary}; it is another tokenizer's"
                )
            if (first := seen.setdefault(tuple(document), number)) != number:
                raise UserError(f"document {number} is document {first} again; leave it out")
            alike = starts[beside & (lengths == len(document))]
            for place, word in enumerate(document):  # few are alike beyond their first words
                if not len(alike):
                    break
                alike = alike[tokens[alike + place] == word]
            if len(alike):
                raise UserError(f"document {number} is in the memory already; leave it out")

    # reading it ------------------------------------------------------------------------------------------------------

    def _encoded(
        self, tokens: torch.Tensor, offsets: torch.Tensor, embedding: nn.Embedding
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys ``[n, K]`` and values ``[n, d]`` of documents laid end to end, with gradients."""
        # A word's strength is the same wherever it stands: it is computed once a word and not once a token.
        if len(tokens) > embedding.num_embeddings:
            words, at = embedding.weight, tokens.long()
        else:
            different, at = tokens.long().unique(return_inverse=True)
            words = embedding(different)
        count = len(offsets) - 1
        row = torch.arange(count, device=at.device).repeat_interleave(offsets.diff())
        strength = self.pool.strength(words).float()[at]
        most = strength.detach().new_full((count,), -torch.inf).scatter_reduce(0, row, strength.detach(), "amax")
        weight = (strength - most[row]).exp()
        weight = weight / weight.new_zeros(count).index_add(0, row, weight)[row]
        pooled = nn.functional.embedding_bag(
            at, words, offsets[:-1], mode="sum", per_sample_weights=weight.to(words.dtype)
        )
        return self.key(pooled), self.value(pooled)

    @contextlib.contextmanager
    def leaving_out(self, own: torch.Tensor | None) -> Iterator[None]:
        """Inside the block no row of a pass finds its own document: ``own`` is int64 ``[B]``, its number, or -1."""
        self._own = own
        try:
            yield
        finally:
            self._own = None

    @torch.no_grad()
    def search(self, queries: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The documents whose stored keys have the largest inner products with ``queries[B, K]``.

        Returns:
            Their numbers, int64 ``[B, k]``, the largest first, ``k`` being ``count`` or all there are; and which of them count
            (where all but a row's own document were asked for, it stands last and does not).
        """
        scores = queries.float() @ self.keys.float().T
        if self._own is not None:
            rows = (self._own >= 0).nonzero().squeeze(1)
            scores[rows, self._own[rows]] = -torch.inf
        best, numbers = scores.topk(min(count, len(self)), dim=1)
        return numbers, best > -torch.inf

    def read(self, numbers: torch.Tensor, embedding: nn.Embedding) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys ``[B, k, K]`` and values ``[B, k, d]`` of documents: in training made anew, with gradients; else the stored."""
        if not self.training:
            return self.keys[numbers], self.values[numbers]
        different, at = numbers.unique(return_inverse=True)
        lengths = self.offsets.diff()[different]
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        token = torch.arange(int(offsets[-1]), device=lengths.device)
        token = token + (self.offsets[different] - offsets[:-1]).repeat_interleave(lengths)
        keys, values = self._encoded(self.tokens[token], offsets, embedding)
        return keys[at], values[at]

    # the file --------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def digest(self, embedding: nn.Embedding) -> str:
        """A name for the weights that make keys and values; in bfloat16, so that it is the same in every number type."""
        made = hashlib.blake2b(digest_size=8)
        for weight in (embedding.weight, *self.parameters()):
            made.update(weight.detach().cpu().to(torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes())
        return made.hexdigest()

    def require(self, embedding: nn.Embedding) -> None:
        """Raises UserError where the keys were made by other encoder weights than there are now."""
        if len(self) and self.encoder != (now := self.digest(embedding)):
            raise UserError(
                f"the keys of this memory were made by other encoder weights ({self.encoder or 'unknown'}, now {now}); "
                "encode its documents anew: engramlab memory encode MODEL_FOLDER, or memory.encode(embedding)"
            )

    def save(self, folder: Path) -> None:
        """Writes ``memory.safetensors`` to a model's folder, whole or not at all; removes an older one where it is empty."""
        from safetensors.torch import save_file

        path = folder / FILE
        if not len(self):
            path.unlink(missing_ok=True)
            return
        held = {name: getattr(self, name).detach().cpu().contiguous() for name in _TENSORS}
        with replacing(path) as partial:
            save_file(held, partial, metadata={"encoder": self.encoder})  # of several keys the order is drawn

    def restore(self, path: Path, embedding: nn.Embedding, *, stale: bool = False) -> None:
        """What ``save`` has written.

        Args:
            stale: keys of other encoder weights are made anew.

        Raises:
            UserError: no such file, of another network, or keys of other encoder weights.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                about: dict[str, Any] = file.metadata() or {}
                held = {name: file.get_tensor(name) for name in _TENSORS}
        except (SafetensorError, OSError) as error:
            raise UserError(f"memory {path}: cannot be read ({error}); take it from a copy, or remove it") from None
        count, device = len(held["offsets"]) - 1, self.keys.device
        shapes = [tuple(held[name].shape) for name in ("keys", "values")]
        if shapes != [(count, self.keys.shape[1]), (count, self.values.shape[1])]:
            raise UserError(
                f"memory {path}: its keys and values are {shapes[0]} and {shapes[1]}, this network's documents have keys of "
                f"{self.keys.shape[1]} and values of {self.values.shape[1]}; it belongs to another network"
            )
        if len(held["tokens"]) and int(held["tokens"].max()) >= embedding.num_embeddings:
            raise UserError(
                f"memory {path}: holds token {int(held['tokens'].max())}, the vocabulary has {embedding.num_embeddings}"
            )
        for name in _TENSORS:
            there = getattr(self, name)
            setattr(self, name, held[name].to(device, there.dtype))
        self.encoder = str(about.get("encoder", ""))
        if stale:
            self.encode(embedding)
        try:
            self.require(embedding)
        except UserError as error:
            raise UserError(f"memory {path}: {error}") from None
