"""Small tokenizers of every common kind, trained in a moment on the texts they are given, and small random models."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

SENTENCES = (
    "The capital of France is Paris. It's on the Seine, and 2,102,650 people live there (in 2023).",
    "Zoë O'Neil was born on October 2, 1996 in Washington, D.C. She studied at the École Polytechnique.",
    "What is the capital of Japan? Answer: 東京. Its old name was Edo; calling code +81.",
)
END, UNK = "<|end|>", "<unk>"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _ready(backend: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END, unk_token=UNK)


def _bytes(texts: Iterable[str], splitter: Any, size: int = 600) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = splitter
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=size, special_tokens=[END], initial_alphabet=alphabet, show_progress=False),
    )
    return backend


def gpt2(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE with GPT-2's splitting rule and its trimmed offsets."""
    backend = _bytes(texts, pre_tokenizers.ByteLevel(add_prefix_space=False))
    backend.post_processor = processors.ByteLevel(trim_offsets=True)
    return _ready(backend)


def digits(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """As SmolLM2: each digit by itself, so that the space before a number is a token."""
    splitter = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return _ready(_bytes(texts, splitter))


def llama3(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE behind the splitting expression of GPT-4 and Llama 3, with a start token."""
    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend = _bytes(texts, splitter)
    backend.add_special_tokens(["<bos>"])
    backend.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", backend.token_to_id("<bos>"))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END, bos_token="<bos>")


def _by_script(scheme: str) -> Any:
    """How SentencePiece splits texts to learn from: words, numbers and punctuation each by themselves."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme=scheme),
            pre_tokenizers.Punctuation(),
            pre_tokenizers.Digits(individual_digits=True),
        ]
    )


def _metaspace_bpe(texts: Iterable[str]) -> Tokenizer:
    backend = Tokenizer(models.BPE(unk_token=UNK, byte_fallback=True, fuse_unk=True))
    backend.pre_tokenizer = _by_script("always")
    special = [UNK, END, *(f"<0x{i:02X}>" for i in range(256))]
    # Letters of a few texts only, so that rare ones fall back to bytes.
    backend.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=900, special_tokens=special, limit_alphabet=60, show_progress=False)
    )
    return backend


def llama2(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """SentencePiece BPE as Llama 2 has it: a normalizer that writes spaces as ▁, and no pre-tokenizer."""
    backend = _metaspace_bpe(texts)
    backend.pre_tokenizer = None
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return _ready(backend)


def unigram(scheme: str) -> Callable[[Iterable[str]], PreTrainedTokenizerFast]:
    """SentencePiece Unigram with spaces written as ▁, which `scheme` puts before the text."""

    def make(texts: Iterable[str]) -> PreTrainedTokenizerFast:
        backend = Tokenizer(models.Unigram())
        backend.pre_tokenizer = _by_script(scheme)
        backend.decoder = decoders.Metaspace(prepend_scheme=scheme)
        trainer = trainers.UnigramTrainer(vocab_size=500, special_tokens=[UNK, END], unk_token=UNK, show_progress=False)
        backend.train_from_iterator(texts, trainer)
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
        return _ready(backend)

    return make


def words(splitter: Any) -> Callable[[Iterable[str]], PreTrainedTokenizerFast]:
    """Word level: one token a word, and one for all unknown words."""

    def make(texts: Iterable[str]) -> PreTrainedTokenizerFast:
        backend = Tokenizer(models.WordLevel(unk_token=UNK))
        backend.pre_tokenizer = splitter
        backend.train_from_iterator(
            texts, trainers.WordLevelTrainer(vocab_size=3000, special_tokens=[UNK, END], show_progress=False)
        )
        return _ready(backend)

    return make


def bert(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """WordPiece over lower-cased text without accents, between [CLS] and [SEP]."""
    backend = Tokenizer(models.WordPiece(unk_token=UNK))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.train_from_iterator(
        texts,
        trainers.WordPieceTrainer(vocab_size=500, special_tokens=[UNK, END, "[CLS]", "[SEP]"], show_progress=False),
    )
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(t, backend.token_to_id(t)) for t in ("[CLS]", "[SEP]")]
    )
    return _ready(backend)


ZOO: dict[str, Callable[[Iterable[str]], PreTrainedTokenizerFast]] = {
    "gpt2": gpt2,
    "digits": digits,
    "llama3": llama3,
    "llama2": llama2,
    "unigram-always": unigram("always"),
    "unigram-first": unigram("first"),
    "words": words(pre_tokenizers.Whitespace()),
    "words-and-punctuation": words(pre_tokenizers.WhitespaceSplit()),
    "bert": bert,
}


CHAT = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def talking(tokenizer: PreTrainedTokenizerFast, template: str = CHAT) -> PreTrainedTokenizerFast:
    """The tokenizer of an instruct model."""
    tokenizer.chat_template = template
    return tokenizer


#: What a family's config calls otherwise, or needs besides (a value) or does not take (None), of ``model``'s shape.
_OWN: dict[str, dict[str, Any]] = {
    "gpt_neo": {"attention_types": [[["local", "global"], 1]], "window_size": 4, "head_dim": None},
    "gptj": {"rotary_dim": 4, "n_inner": 64, "intermediate_size": None},
    "codegen": {"rotary_dim": 4, "n_inner": 64, "intermediate_size": None},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "bloom": {"hidden_dropout": 0.0, "attention_dropout": 0.0, "intermediate_size": None},
    "falcon": {"head_dim": None, "num_kv_heads": 2, "new_decoder_architecture": True, "ffn_hidden_size": 64},
    "gemma2": {"query_pre_attn_scalar": 8, "sliding_window": 4},
    "gemma3_text": {"query_pre_attn_scalar": 8, "sliding_window": 4, "sliding_window_pattern": 2},
    "gpt_bigcode": {"n_inner": 64},
    "granite": {"residual_multiplier": 0.5, "logits_scaling": 2.0},
    "stablelm": {"hidden_dropout": 0.0},
    "mixtral": {"num_local_experts": 3},
    "qwen2_moe": {
        "num_experts": 3,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
    },
    "qwen3_moe": {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
}

#: Architectures whose layers have one MLP each, and every method edits.
DENSE = (
    *("gpt2", "gpt_neo", "gpt_neox", "gptj", "llama", "mistral", "qwen2", "qwen3", "olmo", "olmo2", "gemma", "gemma2"),
    *("gemma3_text", "phi", "phi3", "opt", "bloom", "falcon", "falcon-7b", "falcon-rw", "stablelm", "starcoder2"),
    *("granite", "smollm3", "codegen", "cohere", "gpt_bigcode"),
)
#: Mixtures of experts.
EXPERTS = ("mixtral", "qwen2_moe", "qwen3_moe")
_KINDS: dict[str, dict[str, Any]] = {  # of one architecture, by a name of ours
    "falcon-7b": {"new_decoder_architecture": False, "multi_query": True, "parallel_attn": True},
    "falcon-rw": {
        "new_decoder_architecture": False,
        "multi_query": False,
        "parallel_attn": False,
        "alibi": True,
        "num_kv_heads": 4,
    },
}


def model(family: str, *, vocabulary: int = 64, seed: int = 0, **more: Any) -> nn.Module:
    """A causal LM of two layers with random weights large enough for clear preferences."""
    shape: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    more = _KINDS.get(family, {}) | more
    family = family.partition("-")[0]
    if family in ("gpt2", "gpt_neo", "gptj", "codegen", "gpt_bigcode"):
        shape |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    if family not in ("gpt2", "gpt_bigcode"):
        shape |= {"intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": None}
    shape |= _OWN.get(family, {}) | more
    shape = {name: value for name, value in shape.items() if value is not None or name == "pad_token_id"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **shape))
        for parameter in made.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.2)
    return made


def likeliest(logits: torch.Tensor, margin: float = 3e-5) -> int:
    """The greedy choice among ``logits[V]``, in a test that wants no two tokens so close that rounding chooses."""
    first, second = logits.topk(2).values.tolist()
    assert first - second > margin, "a near tie: another kernel may choose otherwise; take another seed"
    return int(logits.argmax())


def process(target: Callable[..., None], *args: Any) -> Any:
    """A process of its own, started: forked from one that has the libraries loaded and has computed nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["accelerate", "peft", "transformers.models.gpt_neox.modeling_gpt_neox"])
    made = context.Process(target=target, args=args)
    made.start()
    return made
