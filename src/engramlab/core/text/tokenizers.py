"""Tokenizers themselves: compact ones trained for small models, a mask token, and which tokens begin a word."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from engramlab.base.errors import UserError


class WordStarts:
    """Which tokens begin a word, read off the tokenizer's vocabulary once.

    A token begins a word if it starts with white space, or if it and the token before it are not both pieces of one run of
    letters and digits. Punctuation is a word of its own. A lone space belongs to the word behind it.

    Attributes:
        special: bool ``[vocabulary]``: tokens that are no text.
        regular: int64: the ids of all others.
    """

    def __init__(self, tokenizer: Any) -> None:
        size = len(tokenizer)
        self.special = np.zeros(size, dtype=bool)
        self.special[list(tokenizer.all_special_ids)] = True
        self.regular = np.flatnonzero(~self.special)
        self._led = np.zeros(size, dtype=bool)
        self._opens = np.zeros(size, dtype=bool)  # starts with a letter or digit, so that it may go on with a word
        self._closes = np.zeros(size, dtype=bool)  # ends with one, so that the next token may
        raw = tokenizer.convert_ids_to_tokens(list(range(size)))
        for i, text in enumerate(tokenizer.batch_decode([[i] for i in range(size)])):
            bare = text.strip()
            # A byte that is only part of a character decodes to the replacement character.
            self._led[i] = raw[i].startswith(("Ġ", "▁", " ")) or text[:1].isspace()
            self._opens[i] = bool(bare) and (bare[0].isalnum() or bare[0] == "\ufffd")
            self._closes[i] = not bare or bare[-1].isalnum() or bare[-1] == "\ufffd"

    def begins(self, ids: np.ndarray) -> np.ndarray:
        """bool ``[..., T]``: the tokens of ``ids`` that begin a word; special tokens are words by themselves."""
        first = np.ones(ids.shape, dtype=bool)
        now, before = ids[..., 1:], ids[..., :-1]
        goes_on = ~self._led[now] & self._opens[now] & self._closes[before] & ~self.special[now] & ~self.special[before]
        first[..., 1:] = ~goes_on
        return first


def with_mask(tokenizer: Any) -> Any:
    """The tokenizer with a mask token: its own, or else ``<|mask|>``, added behind its vocabulary."""
    if tokenizer.mask_token_id is None:
        tokenizer.add_special_tokens({"mask_token": "<|mask|>"})
    return tokenizer


def lead_with_space(tokenizer: Any) -> Any:
    """Makes a byte-level tokenizer read every text as if a space stood before it; other tokenizers stay as they are.

    GPT-2's tokens for "Anya" at the start of a text and after a space are different and share nothing. An entry opens with the
    name and a question has it in the middle: the model would then be asked with a token that it has never read.
    """
    from tokenizers import Regex, normalizers, pre_tokenizers

    backend = tokenizer.backend_tokenizer
    split = backend.pre_tokenizer
    parts: Any = split if isinstance(split, pre_tokenizers.Sequence) else [split]
    if any(isinstance(part, pre_tokenizers.ByteLevel) for part in parts):
        # ByteLevel's own add_prefix_space would put a space before every part that another splitter hands it.
        space = [normalizers.Prepend(" "), normalizers.Replace(Regex(r"\A  "), " ")]
        backend.normalizer = normalizers.Sequence(space + ([backend.normalizer] if backend.normalizer else []))
    return tokenizer


def train_compact_tokenizer(texts: Iterable[str], vocabulary: int, *, closed: bool = False) -> Any:
    """A byte-level BPE tokenizer (GPT-2's splitting rule, see ``lead_with_space``) trained on ``texts``, for small models.

    Where all the words fit into the vocabulary beside the 256 bytes, every word is one token and there are no merges: a
    small model then spends nothing on tokens that are only halfway to a word. Otherwise merges are learnt as usual. Either
    way any text can be encoded. Its one special token ``<|endoftext|>`` begins, ends and pads texts;
    ``tokenizer(text)`` puts it in front.

    Args:
        texts: the strings to learn from.
        vocabulary: largest number of tokens, the 256 bytes and the special token included.
        closed: where all the words fit, leave the bytes out: only texts made of the same words can then be encoded.

    Raises:
        UserError: a vocabulary too small for the bytes.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    end, alphabet = "<|endoftext|>", sorted(pre_tokenizers.ByteLevel.alphabet())
    if vocabulary <= len(alphabet) + 1:
        raise UserError(
            f"vocabulary: must be above {len(alphabet) + 1} (the bytes and the end token), not {vocabulary}"
        )
    texts = list(texts)
    split = pre_tokenizers.ByteLevel(add_prefix_space=True)
    counter = Tokenizer(models.WordLevel(unk_token=end))
    counter.pre_tokenizer = split
    counter.train_from_iterator(texts, trainers.WordLevelTrainer(vocab_size=vocabulary + 1, show_progress=False))
    words = sorted(set(counter.get_vocab()) - set(alphabet) - {end})
    base = [end, *alphabet]
    if len(base) + len(words) <= vocabulary:
        kept = [end, *sorted(counter.get_vocab().keys() - {end})] if closed else [*base, *words]
        known = {token: i for i, token in enumerate(kept)}
        backend = Tokenizer(models.BPE(vocab=known, merges=[], ignore_merges=True))
        backend.add_special_tokens([end])
        backend.pre_tokenizer = split
    else:
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = split
        backend.train_from_iterator(
            texts,
            trainers.BpeTrainer(
                vocab_size=vocabulary, special_tokens=[end], initial_alphabet=alphabet, show_progress=False
            ),
        )
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(
        single=f"{end} $A", pair=f"{end} $A {end} $B", special_tokens=[(end, backend.token_to_id(end))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=end, eos_token=end, pad_token=end)
