"""Build or load causal language models; the one table of where each architecture family keeps its modules.

Named sizes are the networks of Physics of Language Models 3.1 (arXiv 2309.14316, section 2.2 and appendix): GPT-2 with its
learned positions replaced by rotary embeddings of base 10,000 on a quarter of each head's dimensions. ``transformers``
has that network as GPT-NeoX with a sequential residual; the same sizes exist as Llama.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from engramlab.base.errors import UserError
from engramlab.files.hub import hub_answers


@dataclass(frozen=True)
class Size:
    """Depth, heads and width of a transformer; the feed-forward width is four times the width."""

    layers: int
    heads: int
    width: int
    note: str = ""


SIZES: dict[str, Size] = {
    "tiny": Size(4, 4, 128, "the demo: minutes on two CPU cores"),
    "small": Size(6, 8, 256, "an afternoon on a CPU, minutes on a GPU"),
    "gpt2-small": Size(12, 12, 768, "the paper's model for bioS, 124M"),
    "gpt2-bior": Size(12, 20, 1280, "the paper's model for bioR, 302M"),
    "gpt2-682m": Size(12, 32, 2048, "the paper's larger model, 682M"),
}
FAMILIES = ("gpt-neox", "llama")
_SHAPE = re.compile(r"([1-9]\d{0,3})x([1-9]\d{0,4})")
HEAD = 64  # dimensions of a head of a size given by its shape


def shape(name: str) -> Size:
    """A named size, or one given as LAYERSxWIDTH (``4x256``), with heads of 64 dimensions, or fewer where it is narrower.

    Raises:
        UserError: neither of them, or a width that heads cannot share.
    """
    if name in SIZES:
        return SIZES[name]
    found = _SHAPE.fullmatch(name)
    if found is None:
        raise UserError(
            f"model size {name!r} is unknown; choose one of: {', '.join(SIZES)}; or give LAYERSxWIDTH, such as 4x256"
        )
    layers, width = int(found[1]), int(found[2])
    heads = max(1, width // HEAD)
    if width % (8 * heads):  # rotary embedding turns pairs in a quarter of each head
        raise UserError(f"model size {name!r}: the width must be a multiple of 8, and above {HEAD} of {HEAD}")
    return Size(layers, heads, width)


@dataclass(frozen=True)
class ModulePaths:
    """Where a family keeps what experiments touch; paths inside a layer are relative to it.

    ``query`` and ``value`` may name one fused projection; ``fused_qkv`` then tells how its output rows are laid out:
    ``"heads"`` (for each head: query, key, value) or ``"blocks"`` (all queries, all keys, all values).
    """

    layers: str
    embedding: str
    query: str
    value: str
    mlp_down: str
    final_norm: str
    fused_qkv: str | None = None


_LLAMA = ModulePaths(
    "model.layers",
    "model.embed_tokens",
    "self_attn.q_proj",
    "self_attn.v_proj",
    "mlp.down_proj",
    "model.norm",
)
#: One row an architecture family, keyed by ``config.model_type``. A new family is a new row (and a row in the tests).
MODULE_PATHS: dict[str, ModulePaths] = {
    "gpt_neox": ModulePaths(
        "gpt_neox.layers",
        "gpt_neox.embed_in",
        "attention.query_key_value",
        "attention.query_key_value",
        "mlp.dense_4h_to_h",
        "gpt_neox.final_layer_norm",
        fused_qkv="heads",
    ),
    "gpt2": ModulePaths(
        "transformer.h",
        "transformer.wte",
        "attn.c_attn",
        "attn.c_attn",
        "mlp.c_proj",
        "transformer.ln_f",
        "blocks",
    ),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "olmo2": _LLAMA,
}


def module_paths(model: nn.Module) -> ModulePaths:
    """The row of ``MODULE_PATHS`` for this model; raises UserError for a family that has none."""
    family = str(model.config.model_type)  # type: ignore[union-attr]
    if family not in MODULE_PATHS:
        raise UserError(
            f"architecture family {family!r} has no row in engramlab.core.models.MODULE_PATHS (there: "
            f"{', '.join(sorted(MODULE_PATHS))}); add one that names its layers, embedding, query, value and MLP modules"
        )
    return MODULE_PATHS[family]


def build(
    size: str,
    tokenizer: Any,
    *,
    family: str = "gpt-neox",
    context: int = 512,
    dropout: float = 0.0,
    seed: int = 0,
    masked: bool = False,
) -> nn.Module:
    """A randomly initialised LM of a named size, in float32 on the CPU.

    Args:
        size: a key of ``SIZES``, or LAYERSxWIDTH (see ``shape``).
        tokenizer: gives the vocabulary size and the end token.
        family: ``"gpt-neox"`` (GPT-2 with rotary embedding: sequential residual, rotary on a quarter of each head) or
            ``"llama"``.
        context: longest sequence in tokens.
        dropout: on embeddings, attention and residual branches while training (GPT-2 used 0.1).
        seed: of the initial weights; the global generator is left as it was.
        masked: a masked LM (GBERT): the same network and weights with full attention; the tokenizer must have a mask token.

    Raises:
        UserError: unknown size or family.
    """
    from transformers import AutoModelForCausalLM, GPTNeoXConfig, LlamaConfig

    form = shape(size)
    if family not in FAMILIES:
        raise UserError(f"model family {family!r} is unknown; choose one of: {', '.join(FAMILIES)}")
    common: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": form.width,
        "num_hidden_layers": form.layers,
        "num_attention_heads": form.heads,
        "max_position_embeddings": context,
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "use_cache": True,
    }
    if family == "gpt-neox":
        config: Any = GPTNeoXConfig(
            **common,
            intermediate_size=4 * form.width,
            use_parallel_residual=False,
            hidden_act="gelu",
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.25},
            attention_dropout=dropout,
            hidden_dropout=dropout,
        )
    else:
        # Three feed-forward matrices instead of two: 8/3 of the width keeps the parameter count of the same size.
        config = LlamaConfig(
            **common,
            intermediate_size=8 * form.width // 3,
            num_key_value_heads=form.heads,
            attention_dropout=dropout,
        )
    if masked:
        config.is_causal, config.mask_token_id, config.use_cache = False, int(tokenizer.mask_token_id), False
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # not torch.manual_seed, which seeds every device
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa")


def mask_token(model: nn.Module) -> int | None:
    """The mask token of a masked LM, which sees every position from every other; None for a causal LM.

    It is the model's config that tells: ``is_causal`` false, which transformers itself answers with full attention, and a
    ``mask_token_id``. ``build`` writes both and saved models keep them.
    """
    return _mask_token(getattr(model, "config", None))


def _mask_token(config: Any) -> int | None:
    token = getattr(config, "mask_token_id", None)
    return None if token is None or getattr(config, "is_causal", True) else int(token)


def objective(name: str) -> Literal["causal", "masked"]:
    """What the model of a folder or hub id was trained for, from its config. Raises UserError as ``load`` does."""
    from transformers import AutoConfig

    source, extra = _source(name)
    try:
        config = AutoConfig.from_pretrained(source, **extra)
    except Exception as error:
        raise _refuse("model", name, error) from error
    return "causal" if _mask_token(config) is None else "masked"


def parameters(model: nn.Module) -> int:
    """Number of distinct parameters (tied weights count once)."""
    return sum(p.numel() for p in model.parameters())


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
