"""All tasks of a probe trained together, beside each trained by itself: same model, same batches, same numbers.

    python bench/bench_probing.py [--size tiny] [--people 200] [--tasks 11] [--steps 10] [--linear-steps 300]

Both sides take the same optimizer steps on the one training loop; separately the network is read once a task and step with a
batch of one task's rows, together once a step with all tasks' rows. Also measured: linear probes (rank 0), whose hidden states
are computed once, beside the same probes reading the network at every step.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from _options import compared
from engramlab.core import models
from engramlab.core.text import tokenizers, tokens
from engramlab.core.text.assembly import TokenTable
from engramlab.core.training.loop import Recipe
from engramlab.corpora.sources.bios import Config as BiosConfig
from engramlab.corpora.sources.bios import bios
from engramlab.probing import fitting, p_probing, q_probing
from engramlab.probing.classifier import Probe
from engramlab.probing.examples import Examples, Task, Tasks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--tasks", type=int, default=11)
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument(
        "--linear-steps", type=int, default=300, help="of linear probes, whose steps are cheap and many"
    )
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    corpus = bios(BiosConfig(people=args.people), "multi5+permute")
    tokenizer = tokenizers.train_compact_tokenizer((corpus.passage(i).text for i in range(len(corpus))), 4096)
    model = models.build(args.size, tokenizer, context=128)
    start = tokens.start_tokens(tokenizer)
    entries = np.arange(args.people)
    texts = TokenTable(corpus, tokenizer).tokens(entries).wrapped(start, [])
    names = [corpus.population.name(i) for i in range(args.people)]
    recipe = Recipe(steps=args.steps, batch=args.batch, eps=1e-6, weight_decay=0.3, clip=None)
    sides = {
        "Q": (q_probing.examples(tokenizer, names), Probe(16, "batch", recipe=recipe)),
        "P": (p_probing.examples(texts, entries, corpus.attributes, "bench")[0], Probe(2, "layer", recipe=recipe)),
    }
    rng = np.random.default_rng(0)
    tasks = Tasks(
        [Task(f"attribute {k}", "whole", args.classes) for k in range(args.tasks)],
        rng.integers(0, args.classes, (args.tasks, args.people)),
    )

    def seconds(examples: Examples, probe: Probe, parts: list[Tasks]) -> float:
        began = time.perf_counter()
        for part in parts:
            with tempfile.TemporaryDirectory() as folder:
                fitting.fit(
                    Path(folder) / "probe",
                    model,
                    examples,
                    part,
                    probe,
                    train=entries[: args.people // 2],
                    test=entries[:1],
                    accelerator=Accelerator(),
                    finish=lambda predicted: {},
                    label="bench",
                )
        return time.perf_counter() - began

    def compare(label: str, first: Callable[[], float], second: Callable[[], float]) -> None:
        first(), second()  # warm up
        a, b = np.median([[first(), second()] for _ in range(args.rounds)], axis=0)
        compared(label, f"{a:.2f} s", f"{b:.2f} s", b / a)
        print(f"{label}: {a:.2f} s and {b:.2f} s (medians of {args.rounds}), {b / a:.2f}x")

    each = [Tasks([task], tasks.labels[k : k + 1]) for k, task in enumerate(tasks.tasks)]
    print(f"{args.tasks} tasks, {args.steps} steps of {args.batch} texts, {torch.get_num_threads()} threads")
    for name, (examples, probe) in sides.items():
        compare(
            f"{name}, rank {probe.rank}, together and separately",
            partial(seconds, examples, probe, [tasks]),
            partial(seconds, examples, probe, each),
        )
        linear = replace(probe, rank=0, recipe=replace(recipe, steps=args.linear_steps))
        compare(
            f"{name}, rank 0, {args.linear_steps} steps, states kept and read at every step",
            partial(seconds, examples, linear, [tasks]),
            partial(reread, seconds, examples, linear, tasks),
        )


def reread(
    seconds: Callable[[Examples, Probe, list[Tasks]], float], examples: Examples, probe: Probe, tasks: Tasks
) -> float:
    """The same linear probes with hidden states computed anew at every step, as if dropout moved them."""
    real = fitting.random_while_training
    fitting.random_while_training = lambda model: True
    try:
        return seconds(examples, probe, [tasks])
    finally:
        fitting.random_while_training = real


if __name__ == "__main__":
    main()
