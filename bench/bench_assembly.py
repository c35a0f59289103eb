"""bioS entries to token ids: assembled from piece tokens, beside formatting the text and tokenising it.

    python bench/bench_assembly.py [--people 20000000] [--seconds 10]

Both sides make the same token ids (checked first), each with two processes on the same machine. The plain side formats
text with the corpus's own vectorised draws and calls the fast tokenizer on batches; only its last step differs. Prints
people/s, tokens/s, the ratio, and the largest memory each side took while streaming.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from typing import Any

import numpy as np

from _options import compared, options
from engramlab.core.text import tokenizers
from engramlab.core.text.assembly import TokenTable
from engramlab.corpora.sources.bios import Config as BiosConfig
from engramlab.corpora.sources.bios import bios

BATCH = 4096


def gpt2_style_tokenizer(corpus: Any, vocabulary: int) -> Any:
    """A byte-level BPE with GPT-2's splitting rule, trained on entries; GPT-2's own needs a download."""
    texts = (corpus.passage(int(i)).text for i in np.linspace(0, len(corpus) - 1, 20_000).astype(np.int64))
    return tokenizers.train_compact_tokenizer(texts, vocabulary)


def as_text(corpus: Any, entries: np.ndarray) -> list[str]:
    pieces = corpus.pieces
    return ["".join([pieces[p] for p in row]) for row in corpus.layout(entries).pieces.tolist()]


def worker(side: str, people: int, variant: str, folder: str, seconds: float, rank: int, out: Any, start: Any) -> None:
    from transformers import AutoTokenizer

    corpus = bios(BiosConfig(people=people), variant)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    table = TokenTable(corpus, tokenizer)
    rng = np.random.default_rng(rank)
    start.wait()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, entries, made = time.perf_counter(), 0, 0
    while (took := time.perf_counter() - began) < seconds:
        numbers = rng.integers(0, len(corpus), BATCH)
        if side == "assembled":
            made += len(table.tokens(numbers).ids)
        else:
            made += sum(map(len, tokenizer(as_text(corpus, numbers), add_special_tokens=False)["input_ids"]))
        entries += BATCH
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    out.put((entries / took, made / took, before / 1024, after / 1024))


def measure(side: str, args: argparse.Namespace, folder: str) -> tuple[float, float]:
    context = multiprocessing.get_context("spawn")
    out, start = context.Queue(), context.Barrier(args.processes)
    jobs = [
        context.Process(target=worker, args=(side, args.people, args.variant, folder, args.seconds, r, out, start))
        for r in range(args.processes)
    ]
    for job in jobs:
        job.start()
    results = np.array([out.get() for _ in jobs])
    for job in jobs:
        job.join()
    entries, made = results[:, 0].sum(), results[:, 1].sum()
    print(
        f"{side:>10}: {entries:12,.0f} entries/s {made:13,.0f} tokens/s   peak memory a process "
        f"{results[:, 2].max():,.0f} MiB before, {results[:, 3].max():,.0f} MiB after streaming"
    )
    return entries, made


def main() -> None:
    args = options(
        __doc__,
        people=20_000_000,
        variant="multi5+permute",
        vocabulary=8192,
        seconds=10.0,
        processes=2,
        rounds=2,
    )

    import tempfile

    corpus = bios(BiosConfig(people=args.people), args.variant)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = gpt2_style_tokenizer(corpus, args.vocabulary)
        tokenizer.save_pretrained(folder)
        table = TokenTable(corpus, tokenizer)
        assert table.fallback is None, table.fallback
        numbers = np.random.default_rng(0).integers(0, len(corpus), BATCH)
        same = tokenizer(as_text(corpus, numbers), add_special_tokens=False)["input_ids"]
        assert table.tokens(numbers).ids.tolist() == [t for row in same for t in row]
        print(
            f"{args.people:,} people, {args.variant}, {args.processes} processes; {BATCH} entries equal token for token"
        )
        for _ in range(args.rounds):
            plain = measure("plain", args, folder)
            ours = measure("assembled", args, folder)
            print(f"     ratio: {ours[0] / plain[0]:.1f}x")
        said = [f"{side[1] / 1e6:.1f} M tokens/s" for side in (ours, plain)]
        compared("bioS to token ids", said[0], f"formatting and the fast tokenizer: {said[1]}", ours[0] / plain[0])


if __name__ == "__main__":
    main()
