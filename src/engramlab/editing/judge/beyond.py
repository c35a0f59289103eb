"""What right and wrong answers do not show: how a model goes on writing, how likely ordinary text is to it, and how far its
distributions moved."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import nn

from engramlab.base.arrays import brief
from engramlab.base.facts import Case, Query
from engramlab.base.random_access import key
from engramlab.base.rows import Row
from engramlab.base.sentences import sentences
from engramlab.core.deltas import Delta, active, routing, together
from engramlab.core.forward.decoding import sampling
from engramlab.core.forward.generation import generate
from engramlab.core.forward.hooks import mode
from engramlab.core.forward.passes import select_positions
from engramlab.core.models import context_limit
from engramlab.core.text.tokens import Sequences, encode, encode_queries, start_tokens
from engramlab.core.training.losses import distilled
from engramlab.editing.judge.evaluation import Before, queries_of
from engramlab.editing.judge.metrics import fluency
from engramlab.editing.keys.running_text import TextSource, source_texts
from engramlab.measuring.asking import as_read
from engramlab.measuring.scoring import score

#: The name of the text below, where a file could stand.
ORDINARY = "ordinary"
_TEXTS = (
    "It rained for most of the morning, and by noon the road along the river was under water. Nobody minded much; the children "
    "stayed at home and the shops opened late.",
    "To make the soup, cut two onions and fry them slowly in butter until they are soft. Add the carrots and a litre of stock, "
    "let it boil for twenty minutes, and season it with salt and pepper.",
    "Most birds build a new nest every spring. Some use twigs and grass, others mud; a few simply take over the nest of "
    "another bird and add a little of their own.",
    "The meeting was called for nine, but the train was late and half of us missed the beginning. What was decided about the "
    "budget we only learnt from the minutes that were sent around a week later.",
    "When water freezes it takes up more room than before, which is why a full bottle breaks in the cold. Almost every other "
    "liquid shrinks when it becomes solid.",
    "She had not played the piano for years, and her fingers were slow at first. After a while the old tunes came back, one "
    "after another, as if they had been waiting for her.",
    "A good map leaves out almost everything. What it keeps depends on who will use it: a sailor wants to know how deep the "
    "water is, a walker where the path is steep.",
    "Prices rose again last month, though more slowly than in spring. Bread and milk cost about as much as a year ago, while "
    "heating has become a good deal more expensive for most families.",
)
#: Sentences of that page, the first one of each passage before the second ones: short texts that no method reads.
SENTENCES = tuple(said[i] for i in range(2) for said in map(sentences, _TEXTS) if i < len(said))
_TOKENS = 128  # of a passage of running text
_NUCLEUS = 0.9


def passages(model: nn.Module, tokenizer: Any, text: str, rows: int, seed: int) -> list[str]:
    """The first passages of a running text: ``ordinary`` (a page of ours, embedded), or what a ``TextSource`` takes."""
    texts = _TEXTS if text == ORDINARY else source_texts(model, tokenizer, TextSource(text, seed=seed))
    return list(islice(filter(str.strip, texts), rows))


def nats(model: nn.Module, tokenizer: Any, texts: Sequence[str]) -> float | None:
    """Mean negative log-probability of a token of the texts, in nats; None where there is none, or it is no number.

    What puts notes or virtual tokens before a prompt (``as_read``) puts them before each text too; they are not counted.
    """
    return _nats(_rows(model, tokenizer, texts, None), model, None)[0]


def nats_under(model: nn.Module, tokenizer: Any, texts: Sequence[str], own: Sequence[Delta]) -> list[float | None]:
    """``nats`` under each delta by itself, all in one batch."""
    rows = _rows(model, tokenizer, list(texts) * len(own), [delta for delta in own for _ in texts])
    with together(model, own):
        return _nats(rows, model, len(own))


#: Token ids of a text and which of them are counted; None for a text that leaves nothing to count.
_Marked = tuple[list[int], list[int]] | None


def _rows(model: nn.Module, tokenizer: Any, texts: Sequence[str], own: Sequence[Delta] | None) -> list[_Marked]:
    """Each text as it is read: its first tokens, behind what a delta puts there."""
    start, limit = start_tokens(tokenizer), context_limit(model)
    read = as_read(model, tokenizer, texts, own)
    found: list[_Marked] = []
    for text, whole, ids, spans in zip(texts, read, *encode(tokenizer, read), strict=True):
        before = len(start) + sum(a < len(whole) - len(text) for a, _ in spans)
        # Nothing is before a text's first token but for a start token or what was put there; with both it counts all the same.
        first = before + (not start)
        row = (start + ids)[: min(before + _TOKENS - len(start), limit or len(start + ids))]
        found.append((row, [0] * first + [1] * (len(row) - first)) if len(row) > first else None)
    return found


def _nats(rows: Sequence[_Marked], model: nn.Module, owners: int | None) -> list[float | None]:
    count = owners or 1
    of = np.arange(len(rows)) // max(1, len(rows) // count)
    there = [i for i, row in enumerate(rows) if row is not None]
    if not there:
        return [None] * count
    kept = [row for row in rows if row is not None]
    sequences = Sequences.of([ids for ids, _ in kept], [marks for _, marks in kept])
    found = score(model, sequences, owner=None if owners is None else of[there]).logprobs
    tokens = np.repeat(of[there], [sum(marks) for _, marks in kept])
    means = [found[tokens == one].mean() if (tokens == one).any() else math.nan for one in range(count)]
    return [-float(one) if math.isfinite(one) else None for one in means]


def fluencies(
    model: nn.Module, tokenizer: Any, cases: Sequence[Case], tokens: int, own: Sequence[Delta] | None = None
) -> list[float | None]:
    """Fluency of each case's last prompt with what the model goes on to write: up to so many tokens, drawn from the likeliest
    that together have 0.9 of the probability, by random numbers of the case's own.

    The field writes up to 100 tokens with the prompt, drawn from the likeliest five (ROME's authors' code). None where a prompt
    leaves no room for as many tokens in the model's context.
    """
    limit = context_limit(model)
    prompts = [case.edits[-1].query.prompt for case in cases]
    read = as_read(model, tokenizer, prompts, own)
    lengths = [len(ids) for ids in tokenizer(read)["input_ids"]] if read else []
    fit = [i for i, length in enumerate(lengths) if not limit or length + tokens <= limit]
    if not fit:
        return [None] * len(cases)
    with contextlib.nullcontext() if own is None else together(model, own):
        written = generate(
            model,
            tokenizer,
            [read[i] for i in fit],
            decoding=sampling.Config(top_p=_NUCLEUS),
            seeds=[key(0, "fluency", cases[i].id, prompts[i]) for i in fit],
            max_new_tokens=tokens,
            owner=None if own is None else np.array(fit, dtype=np.int64),
        )
    found: list[float | None] = [None] * len(cases)
    for i, text in zip(fit, written, strict=True):
        found[i] = fluency([f"{prompts[i]} {text}"])
    return found


@torch.inference_mode()
def divergence(model: nn.Module, tokenizer: Any, case: Case, before: Before, delta: Delta) -> float | None:
    """KL(unedited || edited) in nats, the mean over the tokens that the unedited model wrote to a case's locality queries,
    each given those before it. None where it has none. The model comes without the delta."""
    queries = [q for q in queries_of(case) if q.role == "locality" and before.target(q).strip()]
    if not queries:
        return None
    texts = [Query(q.prompt, before.target(q)) for q in queries]
    was = _said(model, tokenizer, texts)
    with active(model, delta):
        prompts = as_read(model, tokenizer, [q.prompt for q in texts])
        now = _said(model, tokenizer, [Query(p, q.target) for p, q in zip(prompts, texts, strict=True)])
    # Behind another context a target can be cut into other tokens; such a place has no counterpart.
    pairs = [(a, b) for a, b in zip(was, now, strict=True) if len(a) == len(b)]
    return float(torch.cat([distilled(b, a) for a, b in pairs]).mean()) if pairs else None


def _said(model: nn.Module, tokenizer: Any, queries: Sequence[Query]) -> list[torch.Tensor]:
    """Logits ``[n, V]`` where each query's target tokens are predicted."""
    found, device = [], next(model.parameters()).device
    encoded = encode_queries(tokenizer, queries)
    rows = encoded.sequences
    with mode(model, False):
        for i, (a, b) in enumerate(zip(rows.offsets, rows.offsets[1:], strict=False)):
            ids = torch.from_numpy(rows.ids[a:b].astype(np.int64)).to(device)[None]
            keep = torch.from_numpy(rows.marks[a:b] > 0).to(device).roll(-1)[None]
            ends = torch.tensor([int(encoded.prompt_ends[i])], device=device)
            with select_positions(model, keep), routing(model, ends):
                found.append(model(input_ids=ids, use_cache=False).logits[0].float())
    return found


@dataclass(frozen=True)
class Beyond:
    """What is measured of every case beside its answers.

    Attributes:
        tokens: written behind each case's prompt for its fluency; 0 for none.
        texts: running text; none for no perplexity.
        fluent: by case id, fluency before any edit.
        nats: of the texts before.
    """

    __repr__ = brief

    tokens: int
    texts: Sequence[str]
    fluent: dict[str, float | None]
    nats: float | None

    @classmethod
    def of(cls, model: nn.Module, tokenizer: Any, cases: Sequence[Case], tokens: int, texts: Sequence[str]) -> Beyond:
        """Of the unedited model."""
        fluent = fluencies(model, tokenizer, cases, tokens) if tokens else []
        by = {case.id: value for case, value in zip(cases, fluent, strict=False)}
        return cls(tokens, list(texts), by, nats(model, tokenizer, texts) if texts else None)

    def measured(
        self, model: nn.Module, tokenizer: Any, cases: Sequence[Case], own: Sequence[Delta] | None = None
    ) -> list[Row]:
        """Of each case, under its own delta or all under what is on the model: ``fluency_before`` and ``fluency``;
        ``nats_before`` and ``nats`` a token of the texts."""
        found: list[Row] = [{} for _ in cases]
        if self.tokens and cases:
            values = fluencies(model, tokenizer, cases, self.tokens, own)
            for row, case, value in zip(found, cases, values, strict=True):
                row |= {"fluency_before": self.fluent.get(case.id), "fluency": value}
        if self.texts and cases:
            one = [nats(model, tokenizer, self.texts)] * len(cases) if own is None else None
            for row, value in zip(found, one or nats_under(model, tokenizer, self.texts, own or ()), strict=True):
                row |= {"nats_before": self.nats, "nats": value}
        return found

    def under(
        self, model: nn.Module, tokenizer: Any, groups: Sequence[Sequence[Case]], own: Sequence[Delta]
    ) -> list[Row]:
        """What is ``measured`` of the cases of each group under the edit of that group; the text is read once a group."""
        if all(len(group) == 1 for group in groups):
            return self.measured(model, tokenizer, [case for group in groups for case in group], own)
        found: list[Row] = []
        for group, delta in zip(groups, own, strict=True):
            with active(model, delta):
                found += self.measured(model, tokenizer, group)
        return found

    def told(
        self,
        model: nn.Module,
        tokenizer: Any,
        cases: Sequence[Case],
        rows: Sequence[Row],
        before: Before,
        own: Sequence[Delta] | None = None,
    ) -> None:
        """Writes into the first row of each case what is ``measured`` of it; under deltas of their own also ``kl``, see
        ``divergence``, of cases whose texts are ``wanted``."""
        found = dict(zip((case.id for case in cases), self.measured(model, tokenizer, cases, own), strict=True))
        for case, delta in zip(cases, own or (), strict=False):
            if any(query.role == "wanted" for query in queries_of(case)):
                found[case.id]["kl"] = divergence(model, tokenizer, case, before, delta)
        for row in rows:
            if row["query"] == 0:
                row |= found[row["case"]]
