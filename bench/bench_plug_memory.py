"""What a plug-in memory costs: a training step, encoding all documents anew, and a changed fact beside a ROME edit.

    python bench/bench_plug_memory.py [--documents 10000] [--size tiny] [--batch 32] [--length 64] [--rounds 5]

Steps of the same masked network with and without its memory, turn about, on the same rows of random words. A changed fact is a
document swapped (its key and value made, and the file written); beside it stands one ROME edit of a causal network of the same
size, without the second moments that it would else compute first. With --edits 0 ROME is left out.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from _options import compared, options
from engramlab.base.facts import Edit, Query
from engramlab.core import models
from engramlab.core.text import tokenizers
from engramlab.core.training import losses
from engramlab.corpora.sources.bios import Config as BiosConfig
from engramlab.corpora.sources.bios import bios
from engramlab.editing import method


def timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def main() -> None:
    args = options(__doc__, documents=10_000, size="tiny", batch=32, length=64, rounds=5, edits=1, people=500)
    corpus = bios(BiosConfig(people=args.people), "single")
    texts = [corpus.passage(i).text for i in range(len(corpus))]
    tokenizer = tokenizers.with_mask(tokenizers.train_compact_tokenizer(texts, 4096))
    generator = torch.Generator().manual_seed(0)
    high = len(tokenizer) - 1
    rows = torch.randint(1, high, (args.batch, args.length), generator=generator)
    documents = torch.randint(1, high, (args.documents, args.length), generator=generator).tolist()

    kept: Any = models.build(args.size, tokenizer, family="pluglm", masked=True, context=args.length)
    bare = models.build(args.size, tokenizer, family="pluglm", masked=True, context=args.length)
    whole = models.build(args.size, tokenizer, masked=True, context=args.length)  # with the wide FFN in every layer
    embedding = kept.get_input_embeddings()
    kept.memory.fill(documents, embedding)

    def step(model: torch.nn.Module) -> None:
        model.train()
        model.zero_grad(set_to_none=True)
        model(input_ids=rows, labels=rows).loss.backward()

    for model in (kept, bare, whole):
        step(model)
    best = {name: float("inf") for name in ("kept", "bare", "whole", "encode")}
    for _ in range(args.rounds):
        for name, act in (
            ("kept", lambda: step(kept)),
            ("bare", lambda: step(bare)),
            ("whole", lambda: step(whole)),
            ("encode", lambda: kept.memory.encode(embedding)),
        ):
            best[name] = min(best[name], timed(act))
    print(f"{args.documents:,} documents of {args.length} tokens, {args.size}, {args.batch} rows of {args.length}")
    print(
        f"a step: {best['kept']:.3f} s with the memory, {best['bare']:.3f} s emptied, {best['whole']:.3f} s plain gpt-neox"
    )
    ratio = best["kept"] / best["bare"]
    print(
        f"with the memory {ratio:.2f} times itself emptied, {best['kept'] / best['whole']:.2f} times the plain network"
    )
    print(f"encoding all: {best['encode']:.3f} s, {best['encode'] / best['kept']:.2f} steps")
    seconds = f"{best['kept']:.3f} s"
    compared(
        "a training step of the network without its memory",
        seconds,
        f"{best['bare']:.3f} s",
        1 / ratio,
        round(1 / 1.3, 2),
    )
    encoded = best["kept"] / best["encode"]
    compared("encoding a memory's documents beside a step", f"{best['encode']:.3f} s", seconds, encoded, 1 / 5)

    kept.eval()
    with tempfile.TemporaryDirectory() as folder:
        memory, at = kept.memory, iter(range(1_000_000))

        def swap() -> None:
            memory.swap(7, [next(at) % high + 1, *documents[7][1:]], embedding)

        swap()
        changed = min(timed(swap) for _ in range(args.rounds))
        saved = min(timed(lambda: memory.save(Path(folder))) for _ in range(2))
    print(f"a changed fact: {1000 * changed:.1f} ms in memory, {1000 * saved:.1f} ms to write the file")
    if args.edits:
        rome = method.load("rome")
        small = models.build(args.size, tokenizer, context=256).eval()
        config = replace(rome.Config(), covariance=False, norm_anchor=None)  # no moments, which would take longer still
        name, city = corpus.population.name(0), corpus.population.value(1, 1)
        edit = Edit(Query(f"{name} was born in", corpus.population.value(0, 1), subject=name, id="edit"), city)
        loss = losses.parse("cross-entropy")
        rome.edit_each(small, tokenizer, [[edit]], config, loss)  # what is computed once
        edited = min(timed(lambda: rome.edit_each(small, tokenizer, [[edit]], config, loss)) for _ in range(args.edits))
        print(f"a ROME edit: {edited:.3f} s, {edited / changed:.0f} times a changed document")
        compared(
            "a fact changed by a ROME edit",
            f"{1000 * changed:.1f} ms",
            f"{1000 * edited:.0f} ms",
            edited / changed,
            100,
        )


if __name__ == "__main__":
    main()
