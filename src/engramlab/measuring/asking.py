"""Asking a model: what it writes after a prompt, and how a target fares token by token; under one delta or many at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from engramlab.base.facts import Query
from engramlab.base.progress import Progress
from engramlab.base.random_access import key as random_key
from engramlab.core.deltas import Delta, installed
from engramlab.core.forward.decoding import Decoding
from engramlab.core.forward.generation import generate
from engramlab.core.models import context_limit
from engramlab.core.text.chat import Chat, chat_of
from engramlab.core.text.tokens import encode_queries, join
from engramlab.measuring.scoring import score

#: What a model writes after a prompt, at most, where no right answer is longer.
MOST_NEW_TOKENS = 24


@dataclass(frozen=True)
class Evidence:
    """A target after its prompt, token by token.

    Attributes:
        target: the text that was scored: the query's target, or what the unedited model wrote where a locality query has none.
        tokens: its token ids.
        logprobs: natural log-probability of each, given the true ones before it.
        ranks: how many tokens of the vocabulary are likelier.
        predicted: the likeliest token at each place.
    """

    target: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    ranks: tuple[int, ...] = ()
    predicted: tuple[int, ...] = ()

    @property
    def greedy(self) -> list[bool]:
        """Is the token the likeliest one?"""
        return [a == b for a, b in zip(self.tokens, self.predicted, strict=True)]


def contexts(model: nn.Module) -> tuple[Delta, ...]:
    """The deltas on a model that have a say in what it reads: those that no later one has taken over from."""
    there = installed(model)
    over = {id(delta.continues) for delta in there}
    return tuple(delta for delta in there if id(delta) not in over)


def as_read(
    model: nn.Module, tokenizer: Any, prompts: Sequence[str], own: Sequence[Delta | None] | None = None
) -> list[str]:
    """The prompts as the model reads them under what is on it, decided on the prompts alone.

    Notes for a prompt in the model's chat template are put into the message, and are found by the message alone; virtual tokens
    stand before the whole, as in their training.

    Args:
        own: a delta for each prompt that is not on the model, and reads before those that are.
    """
    texts, common = list(prompts), contexts(model)
    layers: list[Sequence[Delta | None]] = [] if own is None else [own]
    layers += [[delta] * len(texts) for delta in common]
    chat = chat_of(tokenizer) if _notes(layers) else None
    for layer in layers:
        kinds: dict[type[Delta], list[int]] = {}
        for i, delta in enumerate(layer):
            if delta is not None:
                kinds.setdefault(type(delta), []).append(i)
        for kind, some in kinds.items():
            deltas = [delta for i in some if (delta := layer[i]) is not None]
            parts = [_parts(chat if kind.reads == "notes" else None, texts[i]) for i in some]
            around = [(front, back) for front, _, back in parts]
            read = kind.read(deltas, [said for _, said, _ in parts], model, tokenizer, around)
            for i, text, (front, _, back) in zip(some, read, parts, strict=True):
                texts[i] = f"{front}{text}{back}"
    return texts


def _notes(layers: Sequence[Sequence[Delta | None]]) -> bool:
    return any(delta is not None and delta.reads == "notes" for layer in layers for delta in layer)


def _parts(chat: Chat | None, prompt: str) -> tuple[str, str, str]:
    return (chat.inside(prompt) if chat else None) or ("", prompt, "")


@dataclass(frozen=True)
class Room:
    """How much a model may write after a prompt: at most so many tokens, the first line of them or ``lines``."""

    tokens: int
    lines: bool = False


def rooms(tokenizer: Any, queries: Sequence[Query], most: int, *, grows: bool) -> dict[str, Room]:
    """By prompt, the room that its right answers need, where ``most`` tokens of one line are not enough.

    What must stay as it was has no right answer. Where a question is put in a conversation, it may be said again first.
    Where an answer may stand anywhere in so many tokens (``Query.within``), no more are written, whatever ``most`` is.

    Args:
        grows: more than ``most`` tokens for longer answers (in steps of 16, so that batches stay few).
    """
    found: dict[str, Room] = {}
    lengths = lengths_of(tokenizer, queries)
    again = lengths_of(tokenizer, [Query("", q.said) for q in queries if q.said])
    for query in queries:
        if query.role == "locality":
            continue
        answers = [a.strip() for a in (query.target, *query.aliases)]
        needed = max(lengths[a] for a in (query.target, *query.aliases)) + again.get(query.said, 0) + 2
        least = query.within or most
        old = found.get(query.prompt, Room(least))
        longer = -(-needed // 16) * 16 if grows and needed > most and not query.within else least
        found[query.prompt] = Room(
            max(old.tokens, longer), old.lines or bool(query.within) or any(len(a.splitlines()) > 1 for a in answers)
        )
    return {prompt: room for prompt, room in found.items() if room != Room(most)}


def write(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str],
    room: Room | Sequence[Room],
    owner: np.ndarray | None = None,
    progress: Progress | None = None,
    *,
    decoding: Decoding | None = None,
    beside: Sequence[Sequence[str]] = (),
    seed: int = 0,
) -> list[str]:
    """What the model writes after each prompt, up to the end of the line and in the room there is.

    Args:
        decoding: how the next token is chosen; greedy by default.
        beside: for decoders that compare: for each context they name, one a prompt, the prompt behind that context.
        seed: of decoders that draw; each prompt has random numbers of its own.
    """
    each = [room] * len(prompts) if isinstance(room, Room) else list(room)
    new = [one.tokens for one in each]
    large = [i for i, tokens in enumerate(new) if tokens > MOST_NEW_TOKENS]
    if (limit := context_limit(model)) and large:
        for i, ids in zip(large, tokenizer([prompts[i] for i in large])["input_ids"], strict=True):
            new[i] = max(MOST_NEW_TOKENS, min(new[i], limit - len(ids)))
    return generate(
        model,
        tokenizer,
        prompts,
        max_new_tokens=new,
        decoding=decoding,
        beside=beside,
        seeds=[random_key(seed, "asked", i) for i in range(len(prompts))],
        batch=256,
        stop_at_line_end=[not one.lines for one in each],
        owner=owner,
        progress=progress,
    )


def evidence_on(
    model: nn.Module, tokenizer: Any, queries: Sequence[Query], owner: np.ndarray | None, progress: Progress | None
) -> list[Evidence]:
    """Evidence on each query's target; nothing on blank ones."""
    found = [Evidence(query.target) for query in queries]
    solid = [i for i, query in enumerate(queries) if query.target.strip()]
    encoded = encode_queries(tokenizer, [queries[i] for i in solid])
    rows = encoded.sequences
    scores = score(
        model, rows, owner=None if owner is None else owner[solid], ends=encoded.prompt_ends, progress=progress
    )
    tokens = rows.ids[rows.marks > 0]
    for i, a, b in zip(solid, scores.offsets, scores.offsets[1:], strict=False):
        columns = (v[a:b].tolist() for v in (tokens, scores.logprobs, scores.ranks, scores.predicted))
        found[i] = Evidence(queries[i].target, *map(tuple, columns))
    return found


def lengths_of(tokenizer: Any, queries: Sequence[Query]) -> dict[str, int]:
    """Tokens of every target and alias, as they are after a prompt that ends in a word."""
    texts = list(dict.fromkeys(text for query in queries for text in (query.target, *query.aliases)))
    behind = [join("a", text.strip())[0][1:] for text in texts]
    ids = tokenizer(behind, add_special_tokens=False)["input_ids"] if texts else []
    return {text: len(row) if text.strip() else 0 for text, row in zip(texts, ids, strict=True)}


class TokenTexts:
    """Tokens as text, each decoded once."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.known: dict[int, str] = {}

    def __call__(self, tokens: Iterable[int]) -> list[str]:
        listed = list(tokens)
        for token in listed:
            if token not in self.known:
                self.known[token] = self.tokenizer.decode([token])
        return [self.known[token] for token in listed]
