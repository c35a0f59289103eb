"""Small tokenizers of every common kind, trained in a moment on the texts they are given."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

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
        texts, trainers.BpeTrainer(vocab_size=size, special_tokens=[END], initial_alphabet=alphabet)
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


def _metaspace_bpe(texts: Iterable[str]) -> Tokenizer:
    backend = Tokenizer(models.BPE(unk_token=UNK, byte_fallback=True, fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    special = [UNK, END, *(f"<0x{i:02X}>" for i in range(256))]
    # Letters of a few texts only, so that rare ones fall back to bytes.
    backend.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=900, special_tokens=special, limit_alphabet=60)
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
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
        backend.decoder = decoders.Metaspace(prepend_scheme=scheme)
        trainer = trainers.UnigramTrainer(
            vocab_size=500, special_tokens=[UNK, END], unk_token=UNK, show_progress=False
        )
        backend.train_from_iterator(texts, trainer)
        return _ready(backend)

    return make


def words(splitter: Any) -> Callable[[Iterable[str]], PreTrainedTokenizerFast]:
    """Word level: one token a word, and one for all unknown words."""

    def make(texts: Iterable[str]) -> PreTrainedTokenizerFast:
        backend = Tokenizer(models.WordLevel(unk_token=UNK))
        backend.pre_tokenizer = splitter
        backend.train_from_iterator(
            texts, trainers.WordLevelTrainer(vocab_size=3000, special_tokens=[UNK, END])
        )
        return _ready(backend)

    return make


def bert(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """WordPiece over lower-cased text without accents, between [CLS] and [SEP]."""
    backend = Tokenizer(models.WordPiece(unk_token=UNK))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=500, special_tokens=[UNK, END, "[CLS]", "[SEP]"])
    )
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(t, backend.token_to_id(t)) for t in ("[CLS]", "[SEP]")]
    )
    return _ready(backend)


#: Tokenizers that never let a token cross from one word into the next, and those that may.
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
