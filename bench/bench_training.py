"""Optimizer steps a second: engramlab's loop beside transformers.Trainer, same model, batches, optimizer and precision.

    python bench/bench_training.py [--sizes tiny,small] [--layouts entries,mixed] [--steps 40] [--rounds 3]
    python bench/bench_training.py --sizes small --compile           # ours with compiled layers too
    python bench/bench_training.py --sizes gpt2-small --batch 96 --context 512 --precision bf16 --steps 30   # with a GPU

Batches are made beforehand for both sides, so that only training is timed; of rows of many lengths Trainer pads each batch to
its longest, which is what its collators do. Rounds alternate; the ratio printed is that of
the medians. On a GPU it also prints the share of the chip's peak (--peak-tflops) that the model's arithmetic reaches,
6 x parameters + 12 x layers x width x context floating point operations a token (arXiv 2204.02311, appendix B).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from _options import compared, kept
from engramlab.core import models
from engramlab.core.text import batches, tokenizers, tokens
from engramlab.core.text.assembly import TokenTable
from engramlab.core.training import loop as training
from engramlab.corpora.questions import QuestionCorpus
from engramlab.corpora.sources.bios import Config as BiosConfig
from engramlab.corpora.sources.bios import bios


class Replay:
    """Batches made beforehand, again and again."""

    def __init__(self, made: list[batches.Batch]) -> None:
        self.made, self.next = made, 0

    def take(self, rows: int, own: slice = batches.ALL) -> batches.Batch:  # one process: all rows are its own
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
    data = []
    for batch in made:
        lengths = [batch.input_ids.shape[1]] * rows if batch.inside is None else batch.inside.sum(1).tolist()
        for ids, goal, length in zip(batch.input_ids, batch.targets, lengths, strict=True):
            labels = torch.cat([torch.full((1,), batches.IGNORE), goal[: length - 1]])
            data.append({"input_ids": ids[:length], "labels": labels})
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
        Trainer(model=model, args=arguments, train_dataset=data, data_collator=padded, callbacks=[Clock()]).train()
    return (clock[-1] - clock[2]) / (len(clock) - 3)


def padded(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Rows as a batch, padded to the longest of them."""
    fill = {"input_ids": 0, "labels": batches.IGNORE}
    return {
        name: torch.nn.utils.rnn.pad_sequence([row[name] for row in rows], batch_first=True, padding_value=value)
        for name, value in fill.items()
    }


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def rows_of(layout: str, corpus: Any, tokenizer: Any, context: int) -> batches.Stream:
    """Endless batches of texts, or of texts and questions."""
    table, end = TokenTable(corpus, tokenizer), tokens.end_token(tokenizer)
    order = batches.Order(len(corpus), 0)
    if layout == "packed":
        return batches.Packed(table, order, end=end, length=context)
    texts = batches.OneEntryARow(table, order, start=[end], end=end, length=context)
    if layout == "entries":
        return texts
    asked = TokenTable(QuestionCorpus(corpus.population), tokenizer)
    order = batches.Order(len(asked), 1)
    questions = batches.OneEntryARow(asked, order, start=[end], end=end, length=context)
    return batches.Mixed(texts, questions, ratio=0.7, end=end, seed=0)


def batches_of(args: argparse.Namespace, layout: str, corpus: Any, tokenizer: Any) -> list[batches.Batch]:
    """The batches of a layout; those of entries cut to one width."""
    stream = rows_of(layout, corpus, tokenizer, args.context)
    made = [stream.take(args.batch) for _ in range(args.steps)]
    if layout != "entries":
        return made
    width = min(batch.input_ids.shape[1] for batch in made)
    return [batches.Batch(b.input_ids[:, :width], b.targets[:, :width], args.batch * width, b.source) for b in made]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="tiny,small")
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument(
        "--layouts",
        default="packed" if torch.cuda.is_available() else "entries,mixed",
        help="packed: windows of --context tokens; entries: a text a row; mixed: questions beside texts, of many lengths",
    )
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--precision", choices=("no", "bf16"), default="no")
    parser.add_argument("--compile", action="store_true", help="beside both, ours with compiled layers")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peak-tflops", type=float, default=989.0, help="of the GPU, dense bf16 (H100, H200: 989)")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()

    corpus = bios(BiosConfig(people=2000))
    texts = (corpus.passage(int(i)).text for i in range(0, len(corpus), 5))
    tokenizer = tokenizers.train_compact_tokenizer(texts, args.vocabulary)
    recipe = training.Recipe(steps=args.steps, batch=args.batch)
    rows: list[dict[str, Any]] = []
    for size in args.sizes.split(","):
        for layout in args.layouts.split(","):
            rows += one(args, size, layout, batches_of(args, layout, corpus, tokenizer), tokenizer, recipe)
    if args.out:
        kept(args.out, peak_tflops=args.peak_tflops, batch=args.batch, context=args.context, steps=rows)


def one(
    args: argparse.Namespace,
    size: str,
    layout: str,
    made: list[batches.Batch],
    tokenizer: Any,
    recipe: training.Recipe,
) -> list[dict[str, Any]]:
    """Both sides train a network of a size on the same batches; what each took."""
    per_step = int(np.mean([b.tokens for b in made]))
    sides = {"Trainer": (trainer, recipe), "engramlab": (ours, recipe)}
    if args.compile:
        sides["compiled"] = (ours, replace(recipe, compile=True))
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(args.rounds):
        for name, (side, by) in sides.items():
            model = models.build(size, tokenizer, context=args.context)
            times[name].append(side(model, made, by, args.precision))
    shape, count = models.SIZES[size], models.parameters(models.build(size, tokenizer))
    flops = 6 * count + 12 * shape.layers * shape.width * made[0].input_ids.shape[1]
    rows: list[dict[str, Any]] = []
    for name, took in times.items():
        rate = per_step / statistics.median(took)
        part = flops * rate / args.peak_tflops / 1e12 if torch.cuda.is_available() else None
        share = "" if part is None else f"  {part:.1%} of peak"
        seconds = sorted(round(one, 5) for one in took)
        rows.append(
            {
                "size": size,
                "layout": layout,
                "side": name,
                "seconds": seconds,
                "tokens_a_second": round(rate),
                "share": part,
            }
        )
        print(
            f"{size} {layout} {name:>10}: {1e3 * statistics.median(took):8.1f} ms a step "
            f"(min {1e3 * min(took):.1f}, max {1e3 * max(took):.1f}), {rate:,.0f} tokens/s{share}"
        )
    mine, theirs = (1e3 * statistics.median(times[name]) for name in ("engramlab", "Trainer"))
    about = ", questions beside texts" if layout == "mixed" else ""
    compared(f"training step, {size}{about}", f"{mine:.0f} ms", f"transformers.Trainer: {theirs:.0f} ms", theirs / mine)
    print(f"{size} {layout} ratio: {theirs / mine:.2f}x")
    if args.compile:
        fast = 1e3 * statistics.median(times["compiled"])
        what = f"training step, {size}{about}, compiled"
        compared(what, f"{fast:.0f} ms", f"transformers.Trainer: {theirs:.0f} ms", theirs / fast)
        print(f"{size} {layout} ratio, compiled: {theirs / fast:.2f}x")
    return rows


if __name__ == "__main__":
    main()
