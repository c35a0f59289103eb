"""A step through N unrolled steps beside plain ones; and many questions about facts: folded in once, read each time, or shared.

    python bench/bench_folding.py [--size 4x256] [--inner-steps 4] [--facts 16] [--words 16] [--questions 300] [--rounds 3]

A plain step is the same model's over as many rows as hold the facts. N unrolled steps and the
outer one are N + 1 passes: at most 3 (N + 1) plain steps, and 1.3 (N + 1) where steps are not differentiated through, is what
is aimed at. All sides take turns in each round; random weights and tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from _options import compared, options
from engramlab.core import deltas, models
from engramlab.core.text.batches import IGNORE, Batch
from engramlab.core.text.tokenizers import train_compact_tokenizer
from engramlab.core.text.tokens import Sequences
from engramlab.core.training import unrolled
from engramlab.measuring.scoring import score

ASKED = (1, 10, 100)


def timed(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Least CPU-seconds of each side, in turns."""
    found = dict.fromkeys(sides, float("inf"))
    for _ in range(rounds):
        for name, side in sides.items():
            began = time.process_time()
            side()
            found[name] = min(found[name], time.process_time() - began)
    return found


def rows(generator: torch.Generator, count: int, length: int, vocabulary: int) -> Batch:
    """Random rows, every token of which is to be predicted."""
    ids = torch.randint(1, vocabulary, (count, length), generator=generator)
    targets = ids.roll(-1, 1)
    targets[:, -1] = IGNORE
    return Batch(ids, targets, ids.numel(), np.zeros(count, dtype=np.uint8))


def main() -> None:
    args = options(__doc__, size="4x256", inner_steps=4, facts=16, words=16, episodes=4, questions=300, rounds=3)
    generator = torch.Generator().manual_seed(0)
    tokenizer = train_compact_tokenizer([" ".join(f"word{n}" for n in range(900))], 2000)
    length = args.facts * args.words + 64
    model = models.build(args.size, tokenizer, context=length).eval()
    rates = unrolled.Rates(unrolled.matrices(model), args.inner_steps, 1e-3)
    n = args.inner_steps + 1

    learnt = [*model.parameters(), rates.learnt]
    optimizer = torch.optim.AdamW(learnt, lr=0.0, fused=True)

    def plain(batch: Batch) -> None:
        logits = model(input_ids=batch.input_ids, use_cache=False).logits
        F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORE).backward()
        optimizer.step()
        optimizer.zero_grad()

    def meta(batch: Batch, owner: torch.Tensor, rule: unrolled.Rule, first_order: bool) -> None:
        weights = unrolled.folded(model, rates, batch, owner, rule=rule, first_order=first_order)
        unrolled.losses_under(model, weights, batch, owner).mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    for episodes in dict.fromkeys((1, args.episodes)):
        batch = rows(generator, episodes * args.facts, args.words, len(tokenizer))
        owner = torch.arange(episodes).repeat_interleave(args.facts)
        sides: dict[str, Callable[[], object]] = {"plain": partial(plain, batch)}
        for rule in ("adam", "sgd"):
            for name, constant in (("unrolled", False), ("first-order", True)):
                sides[f"{name}, {rule}"] = partial(meta, batch, owner, rule, constant)
        found = timed(sides, args.rounds + 1)
        print(f"{episodes} episodes of {args.facts} facts, N = {args.inner_steps}:")
        why = f"{n} passes, N of them differentiated twice where steps are not constants"
        if episodes > 1:
            why += f"; each episode has weights of its own, so {episodes} products where a plain step has one"
        for name in list(sides)[1:]:
            times, limit = found[name] / found["plain"], (3.0 if name.startswith("unrolled") else 1.3) * n
            print(
                f"  {name}: {found[name]:.3f} s, {times:.1f} plain steps ({found['plain']:.3f} s); at most {limit:.1f}"
            )
            compared(
                f"folding, {name}, {episodes} episodes at once",
                f"{found[name]:.3f} s",
                f"{limit:.1f} plain steps: {limit * found['plain']:.3f} s",
                limit / times,
                1.0,
                why,
            )

    facts = rows(generator, args.facts, args.words, len(tokenizer))
    read = facts.input_ids.flatten().tolist()
    asked = torch.randint(1, len(tokenizer), (args.questions, 12), generator=generator).tolist()
    marks = [0] * 11 + [1]
    bare = Sequences.of([[1, *q] for q in asked], [[0, *marks]] * len(asked))
    behind = Sequences.of([[1, *read, *q] for q in asked], [[0] * (1 + len(read)) + marks] * len(asked))
    apart = np.arange(args.questions)  # rows of different owners share nothing
    zeros = torch.zeros(args.facts, dtype=torch.int64)

    def folded(k: int) -> None:
        (delta,) = unrolled.fold(model, rates, facts, zeros)
        with deltas.active(model, delta):
            score(model, bare.take(np.arange(k)))

    for k in [k for k in dict.fromkeys((*ASKED, args.questions)) if k <= args.questions]:
        some = np.arange(k)
        found = timed(
            {
                "folded": partial(folded, k),
                "read": partial(score, model, behind.take(some), owner=apart[:k]),
                "shared": partial(score, model, behind.take(some)),
            },
            args.rounds,
        )
        print(f"{k} questions about {args.facts} facts: " + ", ".join(f"{name} {s:.3f} s" for name, s in found.items()))
        if k == args.questions:
            for name, what in (("read", "facts read with each question"), ("shared", "facts read once, as a prefix")):
                compared(
                    f"{k} questions, facts folded in",
                    f"{found['folded']:.3f} s",
                    f"{what}: {found[name]:.3f} s",
                    found[name] / found["folded"],
                )


if __name__ == "__main__":
    main()
