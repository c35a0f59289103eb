"""A step on virtual tokens beside one on all weights and one on LoRA: same model, same rows, same loop.

    python bench/bench_virtual_tokens.py [--size 6x256] [--batch 4] [--passages 5] [--tokens 50] [--steps 4] [--rounds 3]

The frozen model needs no gradient of its weights, a third of a training step's arithmetic. All three read the same passages;
rows with virtual tokens are longer by them (on average by half of them), and the ratio includes that. Also: writing behind
passages with all tokens beside without.
"""

from __future__ import annotations

import time

import numpy as np
import torch

from _options import compared, options
from engramlab.core import models
from engramlab.core.deltas.virtual_tokens import VirtualTokens, placed
from engramlab.core.forward.generation import generate
from engramlab.core.text import tokenizers
from engramlab.core.text.passages import Asked, PassageRows, head, prompts, tail
from engramlab.core.training.loop import Recipe, TrainState, train
from engramlab.corpora.facts import FactTable


def main() -> None:
    args = options(__doc__, size="6x256", batch=4, passages=5, tokens=50, steps=4, rounds=3, vocabulary=8192)
    table = FactTable.read("countries")
    stated = [one.text for one in table.passages(paraphrases=0)]
    asked = [
        Asked(table.wordings.plain(f.relation, f.subject), tuple(stated[i : i + args.passages]), (f.object,))
        for i, f in enumerate(list(table)[: len(stated) - args.passages])
    ]
    texts = [head(one.passages) + tail(one.question) for one in asked]
    tokenizer = tokenizers.train_compact_tokenizer(texts, args.vocabulary)

    def made() -> torch.nn.Module:
        return models.build(args.size, tokenizer, family="llama", context=2048)

    recipe = Recipe(steps=10**6, batch=args.batch, weight_decay=0.0)
    model = made()
    tokens = VirtualTokens.of_text(model, tokenizer, args.tokens)

    def seconds(state: TrainState, virtual: list[int]) -> float:
        steps = train(state, PassageRows(tokenizer, asked, virtual=virtual), until=state.step + 1 + args.steps)
        next(steps)
        began = time.process_time()
        for _ in steps:
            pass
        return (time.process_time() - began) / args.steps

    other, third = made(), models.add_lora(made(), rank=8, projections="all")
    with placed(model, tokens):
        states = {
            "virtual tokens": TrainState(model, recipe, parameters=[tokens.vectors]),
            "all weights": TrainState(other, recipe),
            "LoRA": TrainState(third, recipe),
        }
        times = [
            [seconds(state, tokens.ids() if name == "virtual tokens" else []) for name, state in states.items()]
            for _ in range(args.rounds)
        ]
        spring, full, lora = np.median(times, axis=0)
        some = [prompts(tokenizer, asked[:16], ids) for ids in ([], tokens.ids())]
        plain, read = np.median(
            [[_writing(model, tokenizer, rows) for rows in some] for _ in range(args.rounds)], axis=0
        )
    for what, beside, aim in (("all weights", full, 0.75), ("LoRA", lora, 1.0)):
        print(f"step on virtual tokens over one on {what}: {spring / beside:.2f} (aimed at: at most {aim})")
        label = f"a training step on {args.tokens} virtual tokens, beside one on {what}"
        compared(
            label, f"{1000 * spring:.0f} ms", f"{1000 * beside:.0f} ms", beside / spring, 1 / aim, "no weight gradients"
        )
    print(f"writing behind passages with {args.tokens} tokens over without: {read / plain:.2f}")
    lengths = [np.mean([len(row) for row in rows]) for rows in some]
    print(f"tokens read: {lengths[1] / lengths[0]:.2f} times as many")


def _writing(model: torch.nn.Module, tokenizer: object, rows: list[list[int]]) -> float:
    began = time.process_time()
    generate(model, tokenizer, rows, max_new_tokens=16)
    return time.process_time() - began


if __name__ == "__main__":
    main()
