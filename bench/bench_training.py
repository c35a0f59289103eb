"""Optimizer steps a second: engramlab's loop beside transformers.Trainer, same model, batches, optimizer and precision.

    python bench/bench_training.py [--sizes tiny,small] [--steps 40] [--rounds 3]
    python bench/bench_training.py --sizes gpt2-small --batch 96 --context 512 --precision bf16 --steps 30   # with a GPU

Batches are made beforehand for both sides, so that only training is timed. Rounds alternate; the ratio printed is that of
the medians. On a GPU it also prints the share of the chip's peak (--peak-tflops) that the model's arithmetic reaches,
6 x parameters + 12 x layers x width x context floating point operations a token (arXiv 2204.02311, appendix B).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from _options import compared
from engramlab.core import models
from engramlab.core.text import batches, tokenizers, tokens
from engramlab.core.text.assembly import TokenTable
from engramlab.core.training import loop as training
from engramlab.corpora.sources.bios import Config as BiosConfig
from engramlab.corpora.sources.bios import bios


class Replay:
    """Batches made beforehand, again and again."""

    def __init__(self, made: list[batches.Batch]) -> None:
        self.made, self.next = made, 0

    def take(self, rows: int) -> batches.Batch:
        self.next += 1
        return self.made[(self.next - 1) % len(self.made)]

    def state(self) -> dict[str, Any]:
        return {"next": self.next}

    def restore(self, state: dict[str, Any]) -> None:
        self.next = state["next"]


def ours(model: torch.nn.Module, made: list[batches.Batch], recipe: training.Recipe, precision: str) -> float:
    state = training.TrainState(model, recipe, accelerator=Accelerator(mixed_precision=precision))
    loop = training.train(state, Replay(made))
    for _ in range(3):
        next(loop)
    synchronise()
    began = time.perf_counter()
    steps = sum(1 for _ in loop)
    synchronise()
    return (time.perf_counter() - began) / steps


def trainer(model: torch.nn.Module, made: list[batches.Batch], recipe: training.Recipe, precision: str) -> float:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    rows = recipe.batch
    # Trainer shifts labels itself: what stands at position t is the label of t.
    data = [
        {"input_ids": ids, "labels": torch.cat([torch.full((1,), batches.IGNORE), goal[:-1]])}
        for batch in made
        for ids, goal in zip(batch.input_ids, batch.targets, strict=True)
    ]
    clock: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            synchronise()
            clock.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=recipe.steps,
            per_device_train_batch_size=rows,
            learning_rate=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            adam_beta2=recipe.beta2,
            adam_epsilon=recipe.eps,
            max_grad_norm=recipe.clip or 0.0,
            lr_scheduler_type="cosine",
            optim="adamw_torch_fused",
            bf16=precision == "bf16",
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            dataloader_num_workers=0,
        )
        Trainer(model=model, args=arguments, train_dataset=data, callbacks=[Clock()]).train()
    return (clock[-1] - clock[2]) / (len(clock) - 3)


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="tiny,small")
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--layout", choices=("entries", "packed"), default="entries")
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--precision", choices=("no", "bf16"), default="no")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peak-tflops", type=float, default=989.0, help="of the GPU, dense bf16 (H100, H200: 989)")
    args = parser.parse_args()

    corpus = bios(BiosConfig(people=2000))
    texts = (corpus.passage(int(i)).text for i in range(0, len(corpus), 5))
    tokenizer = tokenizers.train_compact_tokenizer(texts, args.vocabulary)
    table, end = TokenTable(corpus, tokenizer), tokens.end_token(tokenizer)
    order = batches.Order(len(corpus), 0)
    stream: batches.Stream
    if args.layout == "packed" or torch.cuda.is_available():
        stream = batches.Packed(table, order, end=end, length=args.context)
    else:
        stream = batches.OneEntryARow(table, order, start=[end], end=end, length=args.context)
    made = [stream.take(args.batch) for _ in range(args.steps)]
    if not torch.cuda.is_available():  # one width for both sides: Trainer's default collator does not pad
        width = min(batch.input_ids.shape[1] for batch in made)
        made = [batches.Batch(b.input_ids[:, :width], b.targets[:, :width], args.batch * width, b.source) for b in made]
    per_step = int(np.mean([b.input_ids.numel() for b in made]))
    recipe = training.Recipe(steps=args.steps, batch=args.batch)
    for size in args.sizes.split(","):
        times: dict[str, list[float]] = {"Trainer": [], "engramlab": []}
        for _ in range(args.rounds):
            for name, side in (("Trainer", trainer), ("engramlab", ours)):
                model = models.build(size, tokenizer, context=args.context)
                times[name].append(side(model, made, recipe, args.precision))
        shape, count = models.SIZES[size], models.parameters(models.build(size, tokenizer))
        flops = 6 * count + 12 * shape.layers * shape.width * made[0].input_ids.shape[1]
        for name, took in times.items():
            rate = per_step / statistics.median(took)
            share = f"  {flops * rate / args.peak_tflops / 1e12:.1%} of peak" if torch.cuda.is_available() else ""
            print(
                f"{size} {name:>10}: {1e3 * statistics.median(took):8.1f} ms a step "
                f"(min {1e3 * min(took):.1f}, max {1e3 * max(took):.1f}), {rate:,.0f} tokens/s{share}"
            )
        mine, theirs = (1e3 * statistics.median(times[name]) for name in ("engramlab", "Trainer"))
        compared(f"training step, {size}", f"{mine:.0f} ms", f"transformers.Trainer: {theirs:.0f} ms", theirs / mine)
        print(f"{size} ratio: {statistics.median(times['Trainer']) / statistics.median(times['engramlab']):.2f}x")


if __name__ == "__main__":
    main()
