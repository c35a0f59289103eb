"""Edits a second on a network of the shape of a real model, with random weights: what an edit costs where a GPU is.

    python bench/bench_large.py --width 4096 --layers 32 --heads 32 --inner 11008 --vocabulary 32000   # as LLaMA-2-7B, in bf16
    python bench/bench_large.py --width 64 --layers 4 --heads 4 --inner 172 --vocabulary 512           # looks whether it runs

The weights are random: when a method that may stop early does so here says nothing of a real model. Statistics of text (ROME,
MEMIT, AlphaEdit) are made before the clock starts, timed apart.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from _options import kept
from bench_training import synchronise
from engramlab.core.models import costs, parameters
from engramlab.core.text import tokenizers
from engramlab.editing import method
from engramlab.editing.benchmarks.world import world
from engramlab.editing.judge import evaluation


def clock(work: Callable[[], Any]) -> float:
    """Seconds of the work, with whatever it gave the GPU to do."""
    began = time.perf_counter()
    work()
    synchronise()
    return time.perf_counter() - began


def network(args: argparse.Namespace, device: torch.device) -> torch.nn.Module:
    """A LLaMA of the shape asked for, drawn on the device."""
    shape = LlamaConfig(
        vocab_size=args.vocabulary,
        hidden_size=args.width,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        num_key_value_heads=args.heads,
        intermediate_size=args.inner,
        max_position_embeddings=4096,
        dtype=torch.bfloat16,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = LlamaForCausalLM(shape)
    finally:
        torch.set_default_dtype(torch.float32)
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("width", 4096), ("layers", 32), ("heads", 32), ("inner", 11008), ("vocabulary", 32000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--methods", default="ft-m,lora,grace,melo,rome,memit,wise,alphaedit")
    parser.add_argument("--cases", type=int, default=8, help="edits at once")
    parser.add_argument("--seconds", type=float, default=600.0, help="after which no further method is begun")
    parser.add_argument("--statistics-tokens", type=int, default=20_000, help="of text, for ROME, MEMIT and AlphaEdit")
    parser.add_argument("--out", type=Path, help="write the figures as JSON, after each method")
    args = parser.parse_args()

    began = time.perf_counter()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cases = world(seed=1)[:: max(1, 600 // args.cases)][: args.cases]
    edits = [case.edits for case in cases]
    texts = [f"{edit.query.prompt}{edit.target}" for some in edits for edit in some]
    tokenizer = tokenizers.train_compact_tokenizer(texts, min(args.vocabulary, 2000))
    model = network(args, device)
    print(
        f"{parameters(model) / 1e9:.2f} G parameters in bf16 on {costs.device_name(device)}; torch {torch.__version__}; "
        f"{args.cases} edits at once",
        flush=True,
    )
    asked = [q for case in cases for q in evaluation.queries_of(case) if q.target.strip()]
    clock(lambda: evaluation.before(model, tokenizer, cases[:2]))
    took = clock(lambda: evaluation.before(model, tokenizer, cases))
    print(f"judging, both protocols: {len(asked) / took:.1f} queries a second", flush=True)
    found = {"parameters": parameters(model), "edits": args.cases, "queries_a_second": round(len(asked) / took, 1)}
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as cache:
        os.environ["ENGRAMLAB_CACHE"] = cache
        for name in args.methods.split(","):
            if time.perf_counter() - began > args.seconds:
                print(f"{name}: not begun, --seconds are over")
                continue
            rows.append(one(name, model, tokenizer, edits, args.statistics_tokens))
            if args.out:
                kept(args.out, **found, methods=rows)


def one(name: str, model: torch.nn.Module, tokenizer: Any, edits: list[Any], statistics_tokens: int) -> dict[str, Any]:
    """What a method's edits cost, with default settings: alone after a first one that warms up, and all at once."""
    module = method.load(name)
    more = {}
    if "statistics_tokens" in {field.name for field in dataclasses.fields(module.Config)}:
        more["statistics_tokens"] = statistics_tokens
    config = module.Config(**more)
    device = next(model.parameters()).device
    prepared = clock(lambda: module.prepare(model, tokenizer, config)) if hasattr(module, "prepare") else 0.0

    def make(some: list[Any]) -> None:
        method.make_each(model, tokenizer, some, method=name, config=config)

    make(edits[:1])
    costs.forget_peak(device)
    alone = clock(lambda: make(edits[1:2]))
    together = clock(lambda: make(edits)) / len(edits)
    memory = costs.peak_memory(device)
    text = f"{name:10s} {alone:7.2f} s an edit alone; {len(edits)} at once {together:7.3f} s = {1 / together:6.2f} a second"
    text += f"; at most {memory / 2**30:.1f} GiB" if memory else ""
    print(text + (f"; statistics before {prepared:.1f} s" if prepared > 0.05 else ""), flush=True)
    return {"method": name, "alone": alone, "together": together, "memory": memory, "statistics": prepared}


if __name__ == "__main__":
    main()
