"""Vectors that stand among the words a model reads, where no word could: virtual tokens.

They are spliced into what the model's input embedding puts out (transformers' ``inputs_embeds``), and their ids count on
behind that embedding's rows: whatever takes token ids takes them too, and nothing of the model is resized: a tied output
cannot write one. Without such an id a model with virtual tokens on it computes what it does without them, bit for bit.

Source: SPRING, arXiv 2405.19670 (trainable tokens between retrieved passages and the question of a frozen model).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engramlab.base.errors import UserError
from engramlab.core.deltas.files import digest_of
from engramlab.core.deltas.stack import fingerprint
from engramlab.files import writing

FILE = "virtual_tokens.safetensors"
NAME = "virtual_tokens"  # of the module, while a model has some
#: What they are before training, said again and again until there are enough (ours).
INSTRUCTION = "Answer the question below with what the passages above say, in as few words as you can. "


class VirtualTokens(nn.Module):
    """``n`` trainable vectors of a model's width.

    Args:
        vectors: ``[n, d]``, in the place where the model's input embedding puts its rows (behind a scale that is part of it).
        first: the id of the first: how many rows the model's input embedding has.
        model: ``fingerprint`` of the model they belong to.
    """

    def __init__(self, vectors: torch.Tensor, first: int, model: str) -> None:
        super().__init__()
        if vectors.dim() != 2 or not len(vectors) or not torch.isfinite(vectors).all():
            raise UserError(
                f"virtual tokens must be finite numbers [n, d] with n at least 1, not {list(vectors.shape)}"
            )
        self.vectors = nn.Parameter(vectors.detach().float().clone())
        self.first, self.model = first, model

    @classmethod
    def of_text(cls, model: nn.Module, tokenizer: Any, count: int, text: str = INSTRUCTION) -> VirtualTokens:
        """The embeddings of a text's tokens, repeated (or cut) to ``count``. Raises UserError for a count below 1."""
        if count < 1:
            raise UserError(f"virtual tokens: there must be at least 1, not {count}")
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        embedding = model.get_input_embeddings()  # type: ignore[operator]
        repeated = torch.tensor([ids[k % len(ids)] for k in range(count)], device=embedding.weight.device)
        with torch.no_grad():
            return cls(embedding(repeated), embedding.weight.shape[0], fingerprint(model))

    def __len__(self) -> int:
        return len(self.vectors)

    def ids(self, k: int | None = None) -> list[int]:
        """The ids of the first ``k``, of all by default. Raises UserError for fewer than 1 or more than there are."""
        k = len(self) if k is None else k
        if not 1 <= k <= len(self):
            raise UserError(f"k must be from 1 to {len(self)}, as there are {len(self)} virtual tokens, not {k}")
        return list(range(self.first, self.first + k))

    def save(self, folder: Path | str) -> None:
        """Writes the vectors and whose they are into a folder, whole or not at all."""
        from safetensors.torch import save_file

        vectors = self.vectors.detach().cpu().contiguous()
        about = {"model": self.model, "first": str(self.first), "digest": digest_of(vectors)}
        writing.write_folder(
            Path(folder), lambda path: save_file({"vectors": vectors}, str(path / FILE), metadata=about)
        )

    @classmethod
    def load(cls, folder: Path | str, model: nn.Module) -> VirtualTokens:
        """The vectors that ``save`` wrote, for the model that they were trained for.

        Raises:
            UserError: no such file, one that is damaged or says not whose it is, vectors of another width or another model.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(folder).expanduser()
        path = path / FILE if path.is_dir() else path
        if not path.is_file():
            raise UserError(f"{path}: there are no virtual tokens; give the folder that a training has written")
        try:
            with safe_open(path, "pt") as file:
                about, vectors = file.metadata() or {}, file.get_tensor("vectors")
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} is damaged ({error}); take it from a copy, or train again") from None
        embedding = model.get_input_embeddings()  # type: ignore[operator]
        rows, width = embedding.weight.shape
        if vectors.dim() != 2 or vectors.shape[1] != width:
            raise UserError(f"{path}: vectors of shape {list(vectors.shape)} do not fit a model of width {width}")
        if about.get("digest") != digest_of(vectors):
            raise UserError(f"{path} is damaged (its vectors are not those that were written); take it from a copy")
        if about.get("model") != (found := fingerprint(model)):
            raise UserError(
                f"{path}: these virtual tokens belong to another model (fingerprint {about.get('model')}, not {found}); "
                "load the one they were trained for, in the number type it had"
            )
        return cls(vectors, rows, found)


@contextmanager
def placed(model: nn.Module, tokens: VirtualTokens) -> Iterator[None]:
    """Inside the block the model reads the ids of virtual tokens as their vectors, and has them as a module to be trained.

    Afterwards it is as it was, bit for bit.

    Raises:
        UserError: there are some on the model already, or it has another width or vocabulary.
    """
    embedding = model.get_input_embeddings()  # type: ignore[operator]
    rows, width = embedding.weight.shape
    if hasattr(model, NAME):
        raise UserError("this model has virtual tokens on it already; take them off first")
    if (tokens.first, tokens.vectors.shape[1]) != (rows, width):
        raise UserError(
            f"virtual tokens of width {tokens.vectors.shape[1]} for a vocabulary of {tokens.first} do not fit a model of width "
            f"{width} with {rows}"
        )
    read: list[torch.Tensor] = []

    def enter(module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        read[:] = args[:1]
        return (args[0].masked_fill(args[0] >= rows, 0), *args[1:])

    def splice(module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        virtual = read[0] >= rows
        if not bool(virtual.any()):
            return output
        return output.clone().index_put_((virtual,), tokens.vectors[read[0][virtual] - rows].to(output))

    handles = [embedding.register_forward_pre_hook(enter), embedding.register_forward_hook(splice)]
    model.add_module(NAME, tokens)
    try:
        yield
    finally:
        delattr(model, NAME)
        for handle in handles:
            handle.remove()
