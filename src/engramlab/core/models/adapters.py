"""Low-rank updates: LoRA on query and value plus a low-rank update of the token embedding, through peft; adapters of others
merged into their models; and many independent updates of the token embedding at once.

Source: arXiv 2309.14316 (LoRA finetuning: rank r on the query and value projections, rank r' = 128 on the embedding; probes of
a frozen model: rank 2 or 16 on the embedding alone).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from engramlab.base.errors import UserError
from engramlab.core.models.paths import matrix, module_paths
from engramlab.core.models.sources import ADAPTER, json_of


def add_lora(
    model: nn.Module,
    *,
    rank: int,
    embedding_rank: int | Literal["full"] = 0,
    alpha: float | None = None,
    projections: Literal["query and value", "all"] = "query and value",
    seed: int = 0,
) -> nn.Module:
    """Wraps ``model`` with LoRA on query and value, and on the token embedding unless ``embedding_rank`` is 0.

    The updates start at zero, so the wrapped model computes what the model did. Where query, key and value share one
    projection, the update's key rows are held at zero (query and value then share the factor A). The output projection is
    not updated, also where it is tied to the embedding.

    Args:
        rank: r of the query and value updates.
        embedding_rank: r' of the embedding update; "full" trains a copy of the whole embedding instead.
        alpha: LoRA's scale numerator; default ``rank`` for each module, which makes the scale 1.
        projections: "all" for every linear map of the layers (of a Llama the seven of attention and MLP), keys included.
        seed: of the factors that start at random; the global generator is left as it was.

    Returns:
        The peft model; ``unwrap`` gives the original back, bit for bit.

    Raises:
        UserError: the model is no decoder-only transformer.
    """
    from peft import LoraConfig, get_peft_model

    paths = module_paths(model)
    some = projections == "query and value"
    targets = sorted({paths.query, paths.value}) if some else _linear(model, paths.layers)
    pattern = {}
    if embedding_rank and embedding_rank != "full":
        targets.append(paths.embedding)
        pattern[paths.embedding] = embedding_rank
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha if alpha is not None else rank,
        rank_pattern=pattern,
        alpha_pattern={} if alpha is not None else dict(pattern),
        target_modules=targets,
        modules_to_save=[paths.embedding] if embedding_rank == "full" else None,
        lora_dropout=0.0,
        bias="none",
    )
    first = f"{paths.layers}.0."
    held = {name: key_rows(model, first + name) for name in {paths.query, paths.value}} if some else {}
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's note that a tied embedding cannot be merged; it is not merged here
        torch.default_generator.manual_seed(seed)  # not torch.manual_seed, which seeds every device
        required = [(p, p.requires_grad) for p in model.parameters()]
        wrapped: nn.Module = get_peft_model(model, config)
        wrapped.required_before = required  # type: ignore[assignment]
    for name, module in wrapped.named_modules():
        for path, rows in held.items():
            if rows is not None and name.endswith(f".{path}") and hasattr(module, "lora_B"):
                _hold_still(module.lora_B["default"].weight, rows)
    return wrapped


def _linear(model: nn.Module, layers: str) -> list[str]:
    """The paths of all linear maps inside the layers."""
    return [
        name for name, module in model.named_modules() if name.startswith(f"{layers}.") and matrix(module) is not None
    ]


def _hold_still(factor: torch.Tensor, rows: torch.Tensor) -> None:
    """Zero gradient on some rows of factor B, which starts at zero: no optimizer step or decay can then move them."""
    factor.register_hook(lambda gradient: gradient * (~rows).to(gradient.device, gradient.dtype)[:, None])


def key_rows(model: nn.Module, path: str) -> torch.Tensor | None:
    """bool ``[rows]``: which output rows of the projection at ``path``, in the first layer, make keys; None if none does.

    The model itself is asked, for there are many layouts of a fused projection: rows are of keys through which a gradient of
    the first layer's cached keys flows.
    """
    from transformers import DynamicCache

    said: list[torch.Tensor] = []

    def leaf(module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        said.append(output.detach().requires_grad_())
        return said[-1]

    modes = [(module, module.training) for module in model.modules()]
    handle = model.get_submodule(path).register_forward_hook(leaf)
    model.eval()
    try:
        with torch.enable_grad():
            ids = torch.zeros(1, 1, dtype=torch.int64, device=next(model.parameters()).device)
            cache = model(input_ids=ids, past_key_values=DynamicCache(), use_cache=True).past_key_values
            keys = cache.layers[0].keys.flatten().float()
            weights = torch.linspace(1.0, 2.0, len(keys), device=keys.device).cos()
            (gradient,) = torch.autograd.grad((keys * weights).sum(), said[-1:], allow_unused=True)
    finally:
        handle.remove()
        for module, was in modes:
            module.training = was
    return None if gradient is None else (gradient.flatten(0, -2) != 0).any(0).cpu()


def unwrap(wrapped: nn.Module) -> nn.Module:
    """The model as it was before ``add_lora``, the update removed."""
    from peft.utils import ModulesToSaveWrapper

    # A fully trained embedding is a copy, which peft would leave in the original's place.
    originals = [m.original_module for m in wrapped.modules() if isinstance(m, ModulesToSaveWrapper)]
    model: nn.Module = wrapped.unload()  # type: ignore[operator]
    for module in originals:
        model.set_input_embeddings(module)  # type: ignore[operator]
    for parameter, required in wrapped.required_before:  # type: ignore[union-attr]
        parameter.requires_grad_(required)
    return model


def name_base(wrapped: nn.Module, name: str) -> None:
    """Has an adapter that will be saved say what it goes on: a full path, or a hub id and its revision, as PEFT reads it."""
    here = Path(name).expanduser()
    base, _, revision = (str(here.resolve()), "", "") if here.exists() else name.partition("@")
    for config in wrapped.peft_config.values():  # type: ignore[operator]
        config.base_model_name_or_path, config.revision = base, revision or None


def how_to_put_on(folder: Path, base: str) -> str:
    """How an adapter in a folder is put on the model it was made for again, a sentence for the terminal."""
    plain = "AutoModelForCausalLM.from_pretrained(MODEL)"
    if base.endswith(".gguf"):
        here = Path(base).expanduser().resolve()
        plain = (
            f"AutoModelForCausalLM.from_pretrained({str(here.parent)!r}, gguf_file={here.name!r}, dtype=torch.float32)"
        )
    return (
        f"{folder} is the update alone: engramlab takes it wherever it takes a model (--model {folder}), and PEFT as "
        f"PeftModel.from_pretrained({plain}, {str(folder)!r})"
    )


def adapted_from(name: str, base: str | None = None) -> str | None:
    """The base of a PEFT adapter's folder, as its adapter_config.json names it (a path, from there or from here, or a hub id)
    or as ``base`` says; None for what is no such folder.

    Raises:
        UserError: a base for what is no adapter, or none for one.
    """
    folder = Path(name).expanduser()
    if not (folder / ADAPTER).is_file() or (folder / "config.json").is_file():
        if base:
            raise UserError(f"--base {base}: {name} is no folder of edits alone, and no adapter; leave the option out")
        return None
    told = json_of(folder / ADAPTER)
    found = base or str(told.get("base_model_name_or_path") or "")
    if not found:
        raise UserError(f"model {name!r} is an adapter, and its {ADAPTER} names no base (base_model_name_or_path)")
    if (near := folder / found).is_dir() and not Path(found).is_absolute():
        found = str(near)
    if (Path(found).expanduser() / ADAPTER).is_file() and not (Path(found).expanduser() / "config.json").is_file():
        raise UserError(
            f"model {name!r} is an adapter of an adapter ({found}); merge that one first, with PEFT's merge_and_unload"
        )
    revision = told.get("revision")
    return f"{found}@{revision}" if revision and not base and not Path(found).expanduser().exists() else found


def merged(name: str, model: nn.Module) -> nn.Module:
    """The base of an adapter with the adapter's update in its weights, as a whole model. Raises UserError for what PEFT cannot
    merge."""
    from peft import PeftModel

    folder = Path(name).expanduser()
    if not (folder / "adapter_model.safetensors").is_file():
        raise UserError(
            f"adapter {name!r} has no adapter_model.safetensors; pickled weights are not read, so convert them first"
        )
    required = [p.requires_grad for p in model.parameters()]
    try:
        whole: nn.Module = PeftModel.from_pretrained(model, str(folder)).merge_and_unload(safe_merge=True)
    except Exception as error:  # a damaged file, or another base, may raise anything
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"adapter {name!r} does not fit its base ({first}); give --base with the model it was made for"
        ) from error
    for parameter, was in zip(whole.parameters(), required, strict=False):
        parameter.requires_grad_(was)
    return whole


class EmbeddingUpdates(nn.Module):
    """Independent low-rank updates of one token embedding: the same tokens read under each of them.

    Update ``k`` adds ``left[k, token] @ right[k]`` to a token's embedding. ``left`` starts at zero, so the updates change
    nothing before they are trained. A token that training never reads would keep its zeros whatever the vocabulary: only
    tokens that it does read have rows.

    Args:
        tokens: int64: the ids that training reads; others share row 0, which stays zero as long as none of them is trained on.
        vocabulary: rows of the embedding.
        width: columns of the embedding.
        rank: of each update.
        seeds: one an update: of its ``right``, normal as in peft; the global generator is left as it was.
    """

    def __init__(self, tokens: torch.Tensor, vocabulary: int, width: int, rank: int, seeds: Sequence[int]) -> None:
        super().__init__()
        rows = torch.zeros(vocabulary, dtype=torch.int64)
        known = tokens.unique()
        rows[known] = torch.arange(1, len(known) + 1)
        self.register_buffer("rows", rows, persistent=False)
        self.left = nn.Parameter(torch.zeros(len(seeds), len(known) + 1, rank))
        made = [torch.randn(rank, width, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        self.right = nn.Parameter(torch.stack(made))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """What the updates add to the embeddings of ``ids[B, T]``: ``[updates, B, T, D]``."""
        rows: torch.Tensor = self.get_buffer("rows")[ids.flatten()]
        added = torch.bmm(self.left.index_select(1, rows), self.right)
        return added.view(len(self.left), *ids.shape, -1)
