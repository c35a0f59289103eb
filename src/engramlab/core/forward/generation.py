"""What a model writes: one loop, token by token, in as few passes as it takes; how the next token is chosen is a ``Decoding``.

``decode`` is the loop; ``generate`` goes on with texts, many batches of them; ``answer`` answers conversations, one batch.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from engramlab.base.errors import UserError
from engramlab.base.progress import Progress
from engramlab.base.random_access import random_words
from engramlab.core import deltas
from engramlab.core.forward import prefixes
from engramlab.core.forward.decoding import DecoderLogits, Decoding, decoder_name, greedy
from engramlab.core.forward.hooks import mode
from engramlab.core.forward.passes import early_states, shared_cache
from engramlab.core.models import context_limit, mask_token
from engramlab.core.text.tokens import Sequences, end_token, start_tokens

#: A prompt: plain text, or the messages of a conversation (``{"role": "user", "content": ...}``), the last one to be answered.
Prompt = str | Sequence[Mapping[str, str]]


class CachedReader:
    """A model reading rows that end together, a token at a time; what it has read is in its cache.

    Args:
        ids: int64 ``[rows, T]``, padded at the left; ``mask`` is 0 there.
        cache: keys and values of a beginning that was read already. ``text`` are the rows as they were, -1 for padding.
        edited: what ``deltas.routing`` was told of, where ``model`` is a part of it.
    """

    def __init__(
        self,
        model: nn.Module,
        ids: torch.Tensor,
        mask: torch.Tensor,
        cache: Any = None,
        edited: nn.Module | None = None,
    ) -> None:
        self.model, self.cache, self.text = model, cache, ids.masked_fill(mask == 0, -1)
        self.edited = model if edited is None else edited
        self.new = ids if cache is None else ids[:, cache.get_seq_length() :]
        self.places = (mask.cumsum(-1) - 1).clamp(min=0)[:, -self.new.shape[1] :]
        self.mask = None if bool(mask.all()) else mask
        self.takes = inspect.signature(model.forward).parameters

    def next(self, decoding: Decoding) -> DecoderLogits:
        """Reads what is new: what the model says of each row's next token, and what ``decoding`` wants to see beside it."""
        more: dict[str, Any] = {"position_ids": self.places, "logits_to_keep": 1}
        more = {name: value for name, value in more.items() if name in self.takes}
        with early_states(self.model, decoding, (slice(None), -1)) as apart:
            out = self.model(
                input_ids=self.new, attention_mask=self.mask, past_key_values=self.cache, use_cache=True, **more
            )
        self.cache = out.past_key_values
        said = apart(out.logits if decoding.layers(self.model) else out.logits[:, -1:])
        return replace(said, logits=said.logits.float())

    def read(self, tokens: torch.Tensor) -> None:
        """Puts a token behind each row."""
        self.new, self.places = tokens[:, None], self.places[:, -1:] + 1
        if self.mask is not None:
            self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=1)

    def keep(self, rows: torch.Tensor) -> bool:
        """Goes on with these rows (int64) alone, and says so; False where it cannot: what was decided where prompts end holds
        for all of them, and caches of other kinds than plain keys and values are left as they are."""
        from transformers.cache_utils import DynamicCache, DynamicLayer

        plain = type(self.cache) is DynamicCache and all(type(layer) is DynamicLayer for layer in self.cache.layers)
        if not plain or deltas.routed(self.edited):
            return False
        self.cache.batch_select_indices(rows)
        self.text, self.places = self.text[rows], self.places[rows]
        self.mask = None if self.mask is None else self.mask[rows]
        deltas.narrow(self.edited, rows)
        return True


def decode(
    model: nn.Module,
    decoding: Decoding,
    reader: CachedReader,
    *,
    new: int,
    ends: Sequence[int],
    uniform: torch.Tensor | None = None,
    done: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    room: np.ndarray | None = None,
) -> torch.Tensor:
    """The loop: what follows each row, until all rows have come to an end. Rows that have are read no further, once half of
    those that are read have, or some have no more room.

    Args:
        reader: of the rows, and below them of the same rows behind each other context that the decoder compares with.
        new: most tokens to write.
        ends: tokens that end a text; a row that is done is filled up with the first of them.
        uniform: ``[rows, new]``: random numbers.
        done: says of rows (int64) and what is written in them, ``[rows, n]``, which are done.
        room: int64 ``[rows]``: most tokens of each row, at most ``new``; what stands in a row behind them is nothing.

    Returns:
        int64 ``[rows, at most new]``.
    """
    streams = 1 + len(decoding.beside)
    stop = torch.tensor(ends, device=reader.new.device)
    count = len(reader.new) // streams
    rows = torch.arange(count, device=stop.device)  # that are read
    going = torch.ones(count, dtype=torch.bool, device=stop.device)
    written = torch.empty(count, 0, dtype=torch.int64, device=stop.device)
    cut = True
    limits = [] if room is None else np.unique(room).tolist()
    roomy = {limit: torch.from_numpy(room > limit).to(stop.device) for limit in limits}  # rows with more room than that
    for step in range(new):
        seen = reader.next(decoding)
        logits, *beside = seen.logits.chunk(streams)
        early = {layer: said[: len(rows)] for layer, said in seen.early.items()}
        before = torch.cat([reader.text[: len(rows)], written[rows]], dim=1) if decoding.reads_text else None
        tokens = decoding.choose(
            DecoderLogits(logits, early, tuple(beside), before), None if uniform is None else uniform[rows, step]
        )
        tokens = torch.where(going, tokens, stop[0])
        written = torch.cat([written, stop[:1].expand(count, 1)], dim=1)
        written[rows, -1] = tokens
        going &= ~torch.isin(tokens, stop)
        if done is not None:
            going &= ~done(rows, written[rows])
        if full := step + 1 in roomy:
            going &= roomy[step + 1][rows]
        left = going.nonzero().squeeze(1)
        if not len(left):
            break
        if cut and (len(left) <= len(rows) // 2 or (full and len(left) < len(rows))):
            cut = reader.keep(torch.cat([left + len(rows) * stream for stream in range(streams)]))
            if cut:
                rows, tokens, going = rows[left], tokens[left], going[left]
        reader.read(tokens.repeat(streams))
    return written


def generate(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str | list[int]],
    *,
    decoding: Decoding | None = None,
    seeds: Sequence[int] | None = None,
    beside: Sequence[Sequence[str]] = (),
    max_new_tokens: int | Sequence[int] = 32,
    batch: int = 64,
    budget: int = 16_384,
    stop_at_line_end: bool | Sequence[bool] = False,
    owner: np.ndarray | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """What the model writes after each prompt, until its end token.

    Prompts are tokenised as the tokenizer does by itself (start token included), unless they are token ids; a beginning that
    many share is read once. The model's own generation settings play no part. Deltas on the model that decide something at the
    end of a prompt decide it once, for all that is written after it.

    Args:
        decoding: greedy by default.
        seeds: one a prompt, for decoders that draw.
        beside: for decoders that compare: for each context they name, one a prompt, the prompt behind that context.
        max_new_tokens: one for all, or one a prompt.
        batch: most prompts in a batch.
        budget: most padded prompt tokens in a batch.
        stop_at_line_end: only the first line that is not empty; for all, or one a prompt.
        owner: int64 ``[prompts]``: index of the delta (of ``deltas.together``) each prompt is continued under.
        progress: called with (prompts done, prompts in all).

    Returns:
        The continuation of each prompt, without special tokens, stripped.

    Raises:
        UserError: a prompt without a token, or with too many for the model's context; a decoder that lacks its contexts.
    """
    found = continuations(
        model,
        tokenizer,
        prompts,
        decoding=decoding,
        seeds=seeds,
        beside=beside,
        max_new_tokens=max_new_tokens,
        batch=batch,
        budget=budget,
        stop_at_line_end=stop_at_line_end,
        owner=owner,
        progress=progress,
    )
    return [text for text, _ in found]


@torch.inference_mode()
def continuations(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str | list[int]],
    *,
    decoding: Decoding | None = None,
    seeds: Sequence[int] | None = None,
    beside: Sequence[Sequence[str]] = (),
    max_new_tokens: int | Sequence[int] = 32,
    batch: int = 64,
    budget: int = 16_384,
    stop_at_line_end: bool | Sequence[bool] = False,
    stripped: bool = True,
    owner: np.ndarray | None = None,
    progress: Progress | None = None,
) -> list[tuple[str, bool]]:
    """What ``generate`` gives, and of each text whether it came to its end by itself: by the end token (or, where a line was
    asked for, the end of the line) within the room that there was. Arguments and errors are those of ``generate``; with
    ``stripped=False`` white space around a text that is no line is kept."""
    decoding = decoding or greedy.Config()
    check_beside(decoding, beside, len(prompts))
    rows, *others = (_encode_texts(tokenizer, texts) for texts in (prompts, *beside))
    room = np.broadcast_to(np.asarray(max_new_tokens, dtype=np.int64), len(rows))
    lines = np.broadcast_to(np.asarray(stop_at_line_end, dtype=bool), len(rows))
    for given, of in zip((prompts, *beside), (rows, *others), strict=True):
        _check_room(model, of, given, room)
    if not rows:
        return []
    uniform = None if seeds is None else _uniform(seeds, int(room.max()))
    end = end_token(tokenizer)
    device = next(model.parameters()).device
    bare: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    sequences = Sequences.of(rows)
    # Whether rows that have come to an end are read to the end of their batch: then those of one room are together.
    kept = decoding.beams > 1 or deltas.routed(model) or bool(getattr(model.config, "sliding_window", None))
    texts = [("", False)] * len(rows)
    finished = 0

    def batches() -> Iterator[tuple[np.ndarray, int]]:
        for some in [np.flatnonzero(room == most) for most in np.unique(room)] if kept else [np.arange(len(rows))]:
            of = Sequences.of([rows[i] for i in some]) if len(some) < len(rows) else sequences
            for chosen, shared in prefixes.batches(
                of,
                of.lengths,
                budget // (1 + len(others)),
                owner=None if owner is None else owner[some],
                share=not (kept or others),
                most=batch,
                # On a GPU a batch more is a pass more for every token that is written.
                cost=prefixes.a_pass(device) * (1 if device.type == "cpu" else 1 + int(room[some].max())),
            ):
                yield some[chosen], shared

    with mode(model, False):
        for chosen, shared in batches():
            new = int(room[chosen].max())
            under = None if owner is None else torch.from_numpy(np.tile(owner[chosen], 1 + len(others))).to(device)
            streams = [of[i] for of in (rows, *others) for i in chosen]  # in one batch, below each other
            ids, mask, cache = _begun(model, streams, shared, end, under)
            last = ids.shape[1] - 1 - (shared if cache is not None else 0)
            stops = torch.full((len(ids) * decoding.beams,), last, device=device)
            with deltas.routing(model, stops, None if under is None else under.repeat_interleave(decoding.beams)):
                if decoding.beams > 1:
                    out = decoding.search(bare, ids, mask, new, end)
                else:
                    out = decode(
                        bare,
                        decoding,
                        CachedReader(bare, ids, mask, cache, edited=model),
                        new=new,
                        ends=[end],
                        uniform=None if uniform is None else uniform[chosen].to(device),
                        done=_LineEnd(tokenizer, lines[chosen]) if lines[chosen].any() else None,
                        room=room[chosen],
                    )
            for i, behind in zip(chosen, out, strict=True):
                behind = behind[: room[i]]
                text = tokenizer.decode(behind, skip_special_tokens=True)
                ended = bool((behind == end).any()) or (bool(lines[i]) and bool(_LINE_END.search(text.lstrip())))
                texts[i] = first_line(text) if lines[i] else text.strip() if stripped else text, ended
            finished += len(chosen)
            if progress:
                progress(finished, len(rows))
    return texts


@torch.inference_mode()
def answer(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    seeds: Sequence[int],
    decoding: Decoding,
    *,
    max_new_tokens: int = 256,
) -> list[str]:
    """What the model answers to each prompt, until any of its end tokens; all prompts in one batch, in their order.

    Args:
        tokenizer: where it has a chat template, a prompt is put through it (plain text as one user message); else the texts
            of a conversation are joined by blank lines and continued.
        seeds: one a prompt.

    Returns:
        The answers, without special tokens, stripped.

    Raises:
        UserError: no end token, or a prompt that leaves the model no room to answer.
    """
    if not prompts:
        return []
    rows = encode_prompts(tokenizer, prompts)
    _check_room(model, rows, prompts, [max_new_tokens] * len(rows))
    ends, device = _end_tokens(model, tokenizer), next(model.parameters()).device
    ids, mask = left_padded(rows, ends[0], device)
    uniform = _uniform(seeds, max_new_tokens).to(device)
    with mode(model, False), deltas.routing(model, torch.full((len(ids),), ids.shape[1] - 1, device=device)):
        out = decode(model, decoding, CachedReader(model, ids, mask), new=max_new_tokens, ends=ends, uniform=uniform)
    return [text.strip() for text in tokenizer.batch_decode(out, skip_special_tokens=True)]


def check_beside(decoding: Decoding, beside: Sequence[Any], rows: int) -> None:
    """Raises UserError unless each context the decoder compares with, and no other, is there for every row."""
    name = decoder_name(decoding)
    if len(decoding.beside) != len(beside):
        wanted = " and ".join(repr(context) for context in decoding.beside)
        raise UserError(
            f"decoder {name!r} compares with what the model says in other contexts ({wanted}); give each for every prompt"
            if wanted
            else f"decoder {name!r} compares with nothing; leave the other contexts out"
        )
    for context, texts in zip(decoding.beside, beside, strict=True):
        if len(texts) != rows:
            raise UserError(
                f"decoder {name!r}: {rows} prompts, but {len(texts)} in context {context!r}; give one for each"
            )


def encode_prompts(tokenizer: Any, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Token ids of each prompt, with whatever the tokenizer's chat template, or else the tokenizer itself, puts around it."""
    if getattr(tokenizer, "chat_template", None):
        texts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(m) for m in prompt],
                tokenize=False,
                add_generation_prompt=True,
            )
            for prompt in prompts
        ]
        return list(tokenizer(texts, add_special_tokens=False)["input_ids"])
    texts = [p if isinstance(p, str) else "\n\n".join(m["content"] for m in p) for p in prompts]
    return _encode_texts(tokenizer, texts)


def _encode_texts(tokenizer: Any, texts: Sequence[Any]) -> list[list[int]]:
    if not texts or isinstance(texts[0], list):
        return list(texts)
    first = start_tokens(tokenizer)
    return [first + ids for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]


def left_padded(rows: Sequence[Sequence[int]], fill: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of token ids side by side, ending together: ids and attention mask, int64 ``[rows, longest]``."""
    width = max(map(len, rows))
    ids = torch.tensor([[fill] * (width - len(row)) + list(row) for row in rows], dtype=torch.int64)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], dtype=torch.int64)
    return ids.to(device), mask.to(device)


def _begun(
    model: nn.Module, rows: Sequence[Sequence[int]], shared: int, fill: int, under: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, Any]:
    """Rows that begin with the same ``shared`` tokens, side by side, and the keys and values of those tokens, read once."""
    device = next(model.parameters()).device
    # Padding stands between what is shared and the rest: positions are counted from the mask.
    ids, mask = left_padded([row[shared:] for row in rows], fill, device)
    if not shared:
        return ids, mask, None
    begin = torch.tensor([rows[0][:shared]], device=device)
    with deltas.routing(model, torch.full((1,), shared - 1, device=device), None if under is None else under[:1]):
        cache = shared_cache(model, begin, len(ids))
    ids = torch.cat([begin.expand(len(ids), -1), ids], dim=1)
    return ids, torch.cat([torch.ones_like(mask[:, :1]).expand(-1, shared), mask], dim=1), cache


def first_line(text: str) -> str:
    """The first line that is not blank, stripped.

    >>> first_line("\\n\\n Paris. \\nThe capital of")
    'Paris.'
    """
    return _LINE_END.split(text.lstrip(), maxsplit=1)[0].rstrip()


_LINE_END = re.compile(r"[\r\n]")


class _LineEnd:
    """Which rows, of those that are to end there, have come to the end of a line that is not blank."""

    def __init__(self, tokenizer: Any, wanted: np.ndarray) -> None:
        self.tokenizer, self.wanted = tokenizer, wanted
        self.ends: dict[int, bool] = {}

    def __call__(self, rows: torch.Tensor, written: torch.Tensor) -> torch.Tensor:
        done = torch.zeros(len(written), dtype=torch.bool)
        for row, (of, token) in enumerate(zip(rows.tolist(), written[:, -1].tolist(), strict=True)):
            if not self.wanted[of]:
                continue
            if token not in self.ends:
                self.ends[token] = bool(_LINE_END.search(self.tokenizer.decode([token])))
            if self.ends[token]:  # rarely: only then is it worth reading the whole row
                text = self.tokenizer.decode(written[row], skip_special_tokens=True)
                done[row] = bool(_LINE_END.search(text.lstrip()))
        return done.to(written.device)


def _uniform(seeds: Sequence[int], steps: int) -> torch.Tensor:
    """float32 ``[seeds, steps]`` in [0, 1), by seed and position."""
    drawn = [random_words(int(seed) & 0xFFFFFFFFFFFFFFFF, np.arange(steps)) >> np.uint64(40) for seed in seeds]
    return torch.from_numpy((np.stack(drawn) * 2.0**-24).astype(np.float32))


def _end_tokens(model: nn.Module, tokenizer: Any) -> list[int]:
    """Every token that ends an answer: the model's own list (chat models end turns, not texts) and the tokenizer's."""
    own = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends = [] if own is None else [own] if isinstance(own, int) else list(own)
    if tokenizer.eos_token_id is not None or not ends:
        ends.append(end_token(tokenizer))
    return list(dict.fromkeys(int(end) for end in ends))


def _check_room(
    model: nn.Module, rows: Sequence[Sequence[int]], prompts: Sequence[Any], room: Sequence[int] | np.ndarray
) -> None:
    """Raises UserError for a row without tokens, one with too many, or a model that cannot write."""
    if mask_token(model) is not None:
        raise UserError("a masked language model cannot write text; ask it with mask tokens in the place of the answer")
    limit = context_limit(model)
    for i, (row, new) in enumerate(zip(rows, room, strict=True)):
        if not row:
            raise UserError(f"prompt {i} has no tokens, and this tokenizer puts none before a text")
        if limit and len(row) + new > limit:
            raise UserError(
                f"prompt {i} ({str(prompts[i])[:40]!r} ...) has {len(row)} tokens; with {new} new ones it does not fit the "
                f"model's context of {limit}; ask for fewer or take a model with a longer context"
            )
