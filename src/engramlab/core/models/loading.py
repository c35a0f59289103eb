"""Causal (or masked) language models and tokenizers from a folder, a GGUF file or a hub id."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engramlab.base.errors import UserError
from engramlab.base.progress import announced
from engramlab.core.models.paths import families
from engramlab.files.hub import hub_answers


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


def _source(name: str) -> tuple[str, dict[str, Any]]:
    """Where ``from_pretrained`` finds ``name``: a folder, a GGUF file (``model.gguf``), or a hub id, ``@revision`` or not."""
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise UserError(f"model {name!r}: there is no such GGUF file")
        try:
            import gguf  # noqa: F401
        except ImportError:
            raise UserError(f"model {name!r} is a GGUF file: reading it needs `pip install gguf`") from None
        return str(path.parent), {"gguf_file": path.name, "local_files_only": True}
    if path.is_dir():
        return str(path), {"local_files_only": True}
    if path.exists():
        raise UserError(f"model {name!r} is a file; give a model folder, a .gguf file or a hub id (owner/name)")
    repository, at, revision = name.partition("@")
    if name.startswith((".", "/", "~")) or repository.count("/") > 1:
        raise UserError(f"model {name!r}: there is no such folder")
    if at and not (repository and revision):
        raise UserError(f"model {name!r}: write owner/name@revision, such as EleutherAI/pythia-70m@step1000")
    extra: dict[str, Any] = {"revision": revision} if at else {}
    return repository, extra if hub_answers() else extra | {"local_files_only": True}


def _refuse(kind: str, name: str, error: Exception) -> UserError:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    if isinstance(error, OSError) and "safetensors" in str(error):
        return UserError(
            f"{kind} {name!r} has no weights in safetensors form ({first}); pickled weights can run code when loaded, so "
            "convert them first"
        )
    if Path(name).expanduser().exists():
        return UserError(f"{kind} {name!r} is damaged or not the whole folder of a causal language model ({first})")
    return UserError(
        f"{kind} {name!r} is no folder here and could not be fetched as a hub id ({first}); without a network give a "
        "local folder or a .gguf file"
    )


def load_config(name: str) -> Any:
    """The transformers config of a folder, GGUF file or hub id (see ``load``). Raises UserError as that does."""
    from transformers import AutoConfig

    families()
    source, extra = _source(name)
    try:
        return AutoConfig.from_pretrained(source, **extra)
    except Exception as error:
        raise _refuse("model", name, error) from error


@announced("loading the tokenizer of")
def load_tokenizer(name: str) -> Any:
    """The tokenizer of a folder, GGUF file or hub id (see ``load``); no remote code is run. Raises UserError as that does."""
    from transformers import AutoTokenizer

    source, extra = _source(name)
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(source, **extra)
    except Exception as error:  # a damaged file may raise anything
        raise _refuse("tokenizer", name, error) from error
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # what transformers makes where the files are missing
        raise UserError(f"tokenizer {name!r} has no vocabulary; its folder needs a tokenizer.json")
    return tokenizer


@announced("loading")
def load(
    name: str, *, dtype: torch.dtype = torch.float32, device: str | torch.device | None = None
) -> tuple[nn.Module, Any]:
    """A causal LM (or a masked one, see ``mask_token``) and its tokenizer from a folder, a GGUF file or a hub id, in evaluation
    mode.

    A hub id may name a branch, tag or commit, ``owner/name@revision``: some models have their checkpoints of training there.

    Only safetensors and GGUF weights are read and no remote code is run.

    Raises:
        UserError: nothing there, no network for a hub id, pickled, damaged or missing weights, or not a causal LM.
    """
    from transformers import AutoModelForCausalLM

    families()
    source, extra = _source(name)
    tokenizer = load_tokenizer(name)
    if "gguf_file" not in extra:
        extra["use_safetensors"] = True
    try:
        with quiet():
            model, info = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, output_loading_info=True, **extra)
    except Exception as error:
        raise _refuse("model", name, error) from error
    if missing := sorted(info["missing_keys"]):
        raise UserError(f"model {name!r} lacks weights, among them {missing[0]}; they would be random")
    if "gguf_file" in extra:
        # The weights were expanded on loading; transformers would still refuse to save them as "quantized".
        model.hf_quantizer = None
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
    if device is not None:
        model.to(device)
    model.eval()
    return model, tokenizer
