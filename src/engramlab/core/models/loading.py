"""Causal (or masked) language models and tokenizers from a folder, a GGUF file or a hub id."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from engramlab.base.errors import UserError
from engramlab.base.progress import announced
from engramlab.core.models import gguf
from engramlab.core.models.adapters import adapted_from, merged
from engramlab.core.models.costs import warn_if_slow
from engramlab.core.models.paths import families
from engramlab.core.models.sources import check_size, refused, skeleton, source
from engramlab.files.writing import clear


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Inside the block transformers shows no progress bars and no advice; our own progress says what goes on."""
    from transformers.utils import logging as hf

    level, bars = hf.get_verbosity(), hf.is_progress_bar_enabled()
    hf.set_verbosity(logging.ERROR)
    hf.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # some bars (GGUF's) do not ask
            yield
    finally:
        hf.set_verbosity(level)
        if bars:
            hf.enable_progress_bar()


def save(model: nn.Module, tokenizer: Any, folder: Path) -> None:
    """Writes a model and its tokenizer so that transformers loads both."""
    with quiet():
        model.save_pretrained(folder)  # type: ignore[operator]
        tokenizer.save_pretrained(folder)


def load_config(name: str, *, base: str | None = None) -> Any:
    """The transformers config of a folder, GGUF file or hub id (see ``load``). Raises UserError as that does."""
    from transformers import AutoConfig

    families()
    if (adapted := adapted_from(name, base)) is not None:
        return load_config(adapted)
    at, extra = source(_unpacked(name))
    try:
        return AutoConfig.from_pretrained(at, **extra)
    except Exception as error:
        raise refused("model", name, error) from error


@announced("loading the tokenizer of")
def load_tokenizer(name: str, *, base: str | None = None) -> Any:
    """The tokenizer of a folder, GGUF file or hub id (see ``load``). Raises UserError as that does."""
    from transformers import AutoTokenizer

    if (adapted := adapted_from(name, base)) is not None and not any(Path(name).expanduser().glob("tokenizer*")):
        return load_tokenizer(adapted)
    at, extra = source(_unpacked(name, gguf.TOKENIZER))
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(at, **extra)
    except Exception as error:  # a damaged file may raise anything
        raise refused("tokenizer", name, error) from error
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # what transformers makes where the files are missing
        raise UserError(f"tokenizer {name!r} has no vocabulary; its folder needs a tokenizer.json")
    return tokenizer


def check_vocabulary(name: str, tokenizer: Any, rows: int) -> None:
    """Raises UserError for a tokenizer that makes ids beyond a model's embedding of so many rows.

    More rows than tokens are fine, and so are special tokens beyond them that no text is turned into (Gemma 3's of images).
    """
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    used = {*tokenizer("a")["input_ids"], tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id}
    for token, number in tokenizer.get_vocab().items():
        if number >= rows and (token not in special or number in used):
            raise UserError(
                f"model {name!r}: its tokenizer makes token {number:,} ({token!r}), but the model's vocabulary has only "
                f"{rows:,}; the tokenizer is another model's"
            )


#: Models whose weights were found to be finite; and which these were: where they are, and how often they were written to.
_FINITE: WeakKeyDictionary[nn.Module, list[tuple[int, int]]] = WeakKeyDictionary()


@torch.no_grad()
def check_finite(name: str, model: nn.Module) -> None:
    """Raises UserError where a weight is NaN or infinite; names its tensor.

    Weights that were not written to since are not read again: an edit that is a note would otherwise cost nothing but this.
    """
    weights = None
    if not any(parameter.is_inference() for parameter in model.parameters()):  # whose writes are not counted
        weights = [(parameter.data_ptr(), parameter._version) for parameter in model.parameters()]
        if _FINITE.get(model) == weights:
            return
    for tensor, parameter in model.named_parameters():
        if not parameter.sum().isfinite() and not parameter.isfinite().all():  # the sum alone may overflow
            raise UserError(
                f"model {name!r}: {tensor} holds values that are no numbers (NaN or infinite); take the weights from a copy"
            )
    if weights is not None:
        _FINITE[model] = weights


@announced("loading")
def load(
    name: str,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device | None = None,
    tokenizer: str | None = None,
    base: str | None = None,
    stale: bool = False,
) -> tuple[nn.Module, Any]:
    """A causal LM (or a masked one, see ``mask_token``) and its tokenizer from a folder, a GGUF file or a hub id, in evaluation
    mode.

    A hub id may name a branch, tag or commit, ``owner/name@revision``: some models have their checkpoints of training there.
    The folder of a PEFT adapter gives its base with the adapter merged. A GGUF file is unpacked once, see ``gguf.py``.

    Only safetensors and GGUF weights are read, and no code that comes with a model is run.

    Args:
        tokenizer: where to take the tokenizer from, if not from there.
        base: of an adapter: where its base is, if not where the adapter says.
        stale: of a network with a plug-in memory: keys of other encoder weights are made anew, not refused.

    Raises:
        UserError: nothing there, no network for a hub id, pickled, damaged or missing weights or such as are no numbers, more
            of them than memory, a tokenizer with other tokens, or not a causal LM.
    """
    families()
    config = load_config(name, base=base)
    if (adapted := adapted_from(name, base)) is not None:
        words = load_tokenizer(tokenizer or name, base=base)
        model, _ = load(adapted, dtype=dtype)
        model = merged(name, model)
    else:
        bare = skeleton(name, config)
        check_size(name, bare, dtype)
        _unpack(name, bare)
        words = load_tokenizer(tokenizer or name)
        model = _loaded(name, dtype, **({"stale": True} if stale else {}))
    check_finite(name, model)
    check_vocabulary(tokenizer or name, words, model.get_input_embeddings().weight.shape[0])  # type: ignore[operator]
    if device is not None:
        model.to(device)
    if device is not None or not torch.cuda.is_available():  # else whoever asked moves it to a GPU
        warn_if_slow(dtype, next(model.parameters()).device)
    model.eval()
    return model, words


def _loaded(name: str, dtype: torch.dtype, *, packed: bool = False, **own: Any) -> nn.Module:
    """The model, ``packed`` from the GGUF file itself and not from what it was unpacked to; ``own`` is for its class."""
    from transformers import AutoModelForCausalLM

    at, extra = source(name if packed else _unpacked(name))
    if "gguf_file" not in extra:
        extra["use_safetensors"] = True
    try:
        with quiet():
            model, info = AutoModelForCausalLM.from_pretrained(
                at, dtype=dtype, output_loading_info=True, **extra, **own
            )
    except UserError:  # of a family of ours
        raise
    except Exception as error:
        raise refused("model", name, error) from error
    if missing := sorted(info["missing_keys"]):
        raise UserError(f"model {name!r} lacks weights, among them {missing[0]}; they would be random")
    if "gguf_file" in extra:
        # The weights were expanded on loading; transformers would still refuse to save them as "quantized".
        model.hf_quantizer = None
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
    elif at != name and gguf.is_file(name):
        model.config._name_or_path = str(Path(name).expanduser().parent)  # as if it had been read from there
    whole: nn.Module = model
    return whole


def _unpacked(name: str, part: str = ".") -> str:
    """The folder that a GGUF file (or ``part`` of it) was unpacked to, if it was; any other name as it is."""
    folder = gguf.kept(Path(name).expanduser()) if gguf.is_file(name) else None
    return str(folder / part) if folder is not None and folder.is_dir() else name


def _unpack(name: str, bare: nn.Module) -> None:
    """Unpacks a GGUF file, where that was not done and is wanted; ``bare`` is its skeleton."""
    folder = gguf.kept(Path(name).expanduser()) if gguf.is_file(name) else None
    if folder is not None and not gguf.whole(folder) and gguf.room(folder, bare):
        gguf.announce(Path(name), folder)
        clear(folder)
        model, tokenizer = _loaded(name, torch.float32, packed=True), load_tokenizer(name)
        with quiet():
            gguf.keep(folder, model, tokenizer)
