"""An edited model as a GGUF file, with the metadata and the tokenizer of a GGUF file of the same model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from engramlab.base.errors import UserError
from engramlab.editing.folders import card, exporting, loading
from engramlab.editing.folders.saving import OTHER_OUT
from engramlab.files import writing
from engramlab.files.locks import held, place

TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_COPIED = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
_DROPPED = ("general.file_type", "general.quantization_version")
_TRANSPOSED = ("attn_qkv.weight", "ffn_down.weight", "ffn_up.weight", "attn_output.weight")


def to_gguf(
    folder: str | Path, out: str | Path, *, like: str = "", kind: str | None = None, base: str | None = None
) -> Path:
    """Writes the edited model as a GGUF file that transformers loads to the same weights, and beside it a card, ``OUT.md``.

    Matrices are written in the folder's number type, vectors (norms, biases) in float32.

    Args:
        like: a .gguf file of the same model, for its metadata and tokenizer; by default the one that was edited.
        kind: number type of the matrices: "float32", "float16" or "bfloat16".
        base: as of ``loading.load``.

    Raises:
        UserError: as ``exporting.opened``; ``out`` exists or does not end in .gguf; no file to be like, one of another model,
            or of an architecture that is not known here.
    """
    try:
        import gguf
    except ImportError:
        raise UserError("--gguf needs the package gguf: pip install 'engramlab[gguf]'") from None
    path = place(out, folder=False)
    if path.suffix != ".gguf":
        raise UserError(f"--gguf {out}: give a file name that ends in .gguf")
    if path.exists():
        raise UserError(f"{path} exists; choose another file name")
    state, known = exporting.opened(folder)
    name = like or base or state.base
    source = Path(name).expanduser()
    if source.suffix != ".gguf" or not source.is_file():
        raise UserError(
            f"{name} is no .gguf file, and one needs a tokenizer in llama.cpp's own form: give a .gguf file of the same model "
            f"with --like, or convert {state.folder} with llama.cpp's convert_hf_to_gguf.py"
        )
    reader, architecture = _read(source)
    moved = base if state.delta_only else None
    values = _tensors(loading.load(folder, base=moved)[0], architecture, str(state.folder))
    there = {tensor.name: tensor for tensor in reader.tensors}
    for one in sorted(there.keys() ^ values.keys()):
        if one not in (*_COPIED, "output.weight"):  # where that is missing it is the embedding
            raise UserError(f"{source} is of another model than {state.folder}: only one of them has {one}")
    for one in there.keys() & values.keys():
        if values[one].shape != tuple(reversed(there[one].shape.tolist())):
            raise UserError(f"{source} is of another model than {state.folder}: {one} has another shape")
    chosen = TYPES[kind or state.precision]
    with held(path, OTHER_OUT), writing.replacing(path) as partial:
        writer = gguf.GGUFWriter(str(partial), architecture)
        for field in reader.fields.values():
            if field.name in _DROPPED or field.name.startswith("GGUF."):
                continue
            of = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=of)
        writer.add_file_type(gguf.LlamaFileType["ALL_F32" if chosen == "F32" else f"MOSTLY_{chosen}"])
        for one, value in values.items():
            form = gguf.GGMLQuantizationType[chosen if value.ndim > 1 else "F32"]
            writer.add_tensor(one, gguf.quants.quantize(value, form), raw_dtype=form)
        for one in there.keys() & set(_COPIED):
            writer.add_tensor(one, there[one].data, raw_dtype=there[one].tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    how = f"`{path.name}`, for llama.cpp and everything that reads its files."
    writing.write_text(path.with_name(f"{path.name}.md"), card.text(state, known, how))
    return path


def _read(source: Path) -> tuple[Any, str]:
    """A GGUF file and its architecture. Raises UserError for a damaged file, and one of an architecture not known here."""
    import gguf

    try:
        reader = gguf.GGUFReader(str(source))
        architecture = str(reader.fields["general.architecture"].contents())
    except Exception as error:  # a damaged file may raise anything
        raise UserError(f"{source} is damaged or no GGUF file ({type(error).__name__}: {error})") from None
    if architecture not in _FORMS or "split.count" in reader.fields:
        what = "one part of several" if "split.count" in reader.fields else f"of the architecture {architecture!r}"
        raise UserError(f"{source} is {what}; what can be written is whole files of {', '.join(sorted(_FORMS))}")
    return reader, architecture


def _tensors(model: nn.Module, architecture: str, folder: str) -> dict[str, np.ndarray]:
    """A model's weights by their names in GGUF files, in their form there."""
    import gguf

    config: Any = model.config
    number = next(number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    embedding = model.get_input_embeddings().weight  # type: ignore[operator]
    found: dict[str, np.ndarray] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if name == "lm_head.weight" and tensor is embedding:
            continue
        there = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if there is None:
            raise UserError(f"{folder}: {name} has no place in a GGUF file of the architecture {architecture!r}")
        value = tensor.detach().float().cpu().numpy()
        found[there] = np.ascontiguousarray(_FORMS[architecture](there, value, config))
    return found


def _plain(name: str, value: np.ndarray, config: Any) -> np.ndarray:
    return value


def _llama(name: str, value: np.ndarray, config: Any) -> np.ndarray:
    """llama.cpp turns pairs of neighbours where transformers turns halves: rows of query and key change places."""
    if ".attn_q." not in name and ".attn_k." not in name:
        return value
    heads = config.num_attention_heads if ".attn_q." in name else config.num_key_value_heads
    return value.reshape(heads, 2, -1, *value.shape[1:]).swapaxes(1, 2).reshape(value.shape)


def _gpt2(name: str, value: np.ndarray, config: Any) -> np.ndarray:
    return value.T if name.endswith(_TRANSPOSED) else value


def _gemma(name: str, value: np.ndarray, config: Any) -> np.ndarray:
    return value + 1 if name.endswith("norm.weight") else value


#: By architecture, what a tensor of transformers becomes there.
_FORMS: dict[str, Callable[[str, np.ndarray, Any], np.ndarray]] = {
    "llama": _llama,
    "gpt2": _gpt2,
    "gemma2": _gemma,
    "gemma3": _gemma,
    **dict.fromkeys(("qwen2", "qwen3", "phi3", "stablelm", "starcoder2", "falcon", "olmo2", "gemma"), _plain),
}
