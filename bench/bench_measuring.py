"""What measuring a state costs: tokens of forward work and time, beside a padded, every-position, three-pass reference.

    python bench/bench_measuring.py [--passages FILE] [--model NAME] [--size tiny] [--queries 1800] [--rounds 3]
    python bench/bench_measuring.py --overhead 16 [--passages FILE] [--model NAME] [--size tiny]

The reference does what the released code of arXiv 2406.11813 does with its 1,800 queries: in their order, in padded batches,
three forward passes a batch (over the text with the loss of the whole, of the prompt and of the target), logits at every
position of each. It leaves out the 130 whole passages which that code also scores and never uses. Ours is
`acquisition.measuring`. Both must agree on every target's log-probability. Time is that of the processor over all threads, so
that other work on the machine does not count; run it with one thread (OMP_NUM_THREADS=1).

`--overhead K` compares measuring with training instead, at the K-th part of the paper's smaller setting: a step of 128/K rows
of 512 tokens, 1,800/K queries, and its schedule of ten injections in 2,500 steps with every state measured, or those of
`--measure window`.

`--passages` takes FICTIONAL KNOWLEDGE's file; by default passages are made up. The tokenizer is the model's, or a compact one.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from _options import compared
from engramlab.acquisition.dynamics import measured_steps, span_logprobs
from engramlab.acquisition.measuring import measure
from engramlab.core import models
from engramlab.core.forward import prefixes
from engramlab.core.text import tokenizers
from engramlab.core.text.batches import IGNORE, Batch
from engramlab.core.text.tokens import EncodedQueries, encode_queries
from engramlab.core.training.loop import Recipe, TrainState, train
from engramlab.corpora.fictional import Fictional
from engramlab.corpora.passages import all_queries
from engramlab.reading import read_passages


def forward_tokens(asked: EncodedQueries, budget: int) -> tuple[int, int]:
    """Padded tokens that go through the model in one measurement, and how many forward passes they make."""
    sequences = asked.sequences
    wanted = np.flatnonzero(sequences.marks > 0)
    owner = np.repeat(np.arange(len(sequences)), sequences.lengths)[wanted]
    first = np.full(len(sequences), np.iinfo(np.int64).max)
    np.minimum.at(first, owner, wanted - sequences.offsets[owner])
    total = passes = 0
    for rows, shared in prefixes.batches(sequences, first, budget):
        width = int(sequences.lengths[rows].max()) - 1  # the last token is only a target
        total += shared + len(rows) * (width - shared)
        passes += 1 + bool(shared)
    return total, passes


@torch.inference_mode()
def reference(model: Any, asked: EncodedQueries, batch: int) -> tuple[np.ndarray, int, int]:
    """Mean log-probability of each target, the tokens and the passes it took."""
    sequences = asked.sequences
    device = next(model.parameters()).device
    means, total, passes = np.empty(len(sequences)), 0, 0
    for start in range(0, len(sequences), batch):
        rows = range(start, min(start + batch, len(sequences)))
        width = max(int(sequences.lengths[i]) for i in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        marks = torch.zeros(len(rows), width, dtype=torch.bool)
        inside = torch.zeros(len(rows), width, dtype=torch.bool)
        for k, i in enumerate(rows):
            length = int(sequences.lengths[i])
            ids[k, :length] = torch.from_numpy(sequences.row(i).astype(np.int64))
            marks[k, :length] = torch.from_numpy(sequences.marks[sequences.offsets[i] : sequences.offsets[i + 1]] > 0)
            inside[k, :length] = True
        ids, marks, inside = ids.to(device), marks.to(device), inside.to(device)
        for labels in (inside, inside & ~marks, marks):  # the whole, the prompt, the target
            logits = model(ids).logits.float()
            loss = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
            counted = labels[:, 1:]
            mean = -(loss * counted).sum(1) / counted.sum(1)
            total, passes = total + ids.numel(), passes + 1
        means[start : start + len(rows)] = mean.cpu().numpy()
    return means, total, passes


def overhead(model: Any, tokenizer: Any, asked: EncodedQueries, rows: int, budget: int, rounds: int) -> None:
    """Prints how much measuring adds to training with steps of ``rows`` x 512 tokens."""
    text = np.random.default_rng(0).integers(0, len(tokenizer), size=(rows, 512))
    ids = torch.from_numpy(text)
    batch = Batch(
        ids, torch.cat([ids[:, 1:], torch.full((rows, 1), IGNORE)], dim=1), ids.numel(), np.zeros(rows, np.uint8)
    )
    stream = SimpleNamespace(take=lambda n: batch)
    state = TrainState(model, Recipe(steps=rounds + 1, batch=rows, learning_rate=1e-6))
    steps, measurements = [], []
    began = time.process_time()
    for _ in train(state, stream):
        steps.append(time.process_time() - began)
        began = time.process_time()
        measure(model, asked, budget)
        measurements.append(time.process_time() - began)
        began = time.process_time()
    step, once = np.median(steps[1:]), np.median(measurements[1:])
    injections = [100 * k for k in range(10)]
    print(f"{rows} x 512 tokens, {len(asked.queries)} queries: a step {step:.2f} s, a measurement {once:.2f} s")
    for how in ("every", "window"):
        states = len(measured_steps(how, 2500, injections))
        print(
            f"--measure {how}: {states:,} of 2,501 states, measuring adds {states * once / (2500 * step):.0%} to training"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=Path)
    parser.add_argument("--model", help="a folder, .gguf file or hub id instead of a named size with random weights")
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--queries", type=int, default=1800)
    parser.add_argument("--batch", type=int, default=32, help="rows of the reference's batches")
    parser.add_argument("--budget", type=int, default=4_096)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--overhead", type=int, metavar="K")
    args = parser.parse_args()

    records = read_passages(args.passages)[:120] if args.passages else Fictional(120).records(range(120))
    queries = all_queries(records)[0][: args.queries]
    if args.model:
        model, tokenizer = models.load(args.model)
    else:
        texts = [text for record in records for text in record.versions] + [f"{q.prompt} {q.target}" for q in queries]
        tokenizer = tokenizers.train_compact_tokenizer(texts, 8192)
        model = models.build(args.size, tokenizer, context=512)
    model.eval()
    if args.overhead:
        some = encode_queries(tokenizer, queries[:: args.overhead])
        overhead(model, tokenizer, some, 128 // args.overhead, args.budget, args.rounds)
        return
    asked = encode_queries(tokenizer, queries)
    plain = int(asked.sequences.lengths.sum())
    work, passes = forward_tokens(asked, args.budget)
    print(f"{len(asked.queries)} queries, {plain:,} tokens without padding, {int(asked.offsets[-1]):,} target tokens")
    ours, theirs = [], []
    for _ in range(args.rounds):
        began = time.process_time()
        got = span_logprobs(measure(model, asked, args.budget), asked.offsets)
        ours.append(time.process_time() - began)
        began = time.process_time()
        want, their_work, their_passes = reference(model, asked, args.batch)
        theirs.append(time.process_time() - began)
    rows = (("ours", work, passes, ours), ("reference", their_work, their_passes, theirs))
    for name, count, times, took in rows:
        print(
            f"{name:>9}: {count:>9,} tokens of forward work in {times:,} passes, {np.median(took):.2f} s of processor time"
        )
    ours_said, theirs_said = (f"{work:,} tokens, {np.median(ours):.2f} s", f"{np.median(theirs):.2f} s")
    beside = f"three padded passes, logits everywhere: {theirs_said}"
    compared(f"{len(asked.queries):,} queries measured", ours_said, beside, np.median(theirs) / np.median(ours))
    print(
        f"time: {np.median(theirs) / np.median(ours):.1f}x less; largest difference {np.abs(got - want).max():.1e} nats"
    )


if __name__ == "__main__":
    main()
