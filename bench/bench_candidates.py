"""A hundred options behind fifty demonstrations: read as a tree, beside rows with a shared beginning, beside one row an option.

    python bench/bench_candidates.py [--model MODEL] [--subjects 10] [--options 100] [--shown 50] [--rounds 2]

Also: writing with DoLa, CAD and MICD beside greedy, at batch 1 and 16. Without --model a network of random weights with
SmolLM2-135M's shape is used: what is timed does not depend on what it knows. All sides take turns in each round.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from _options import compared, options
from engramlab.base.facts import Query
from engramlab.core.forward import branches
from engramlab.core.forward.decoding import Decoding, cad, dola, greedy, micd
from engramlab.core.forward.generation import generate
from engramlab.core.models import load
from engramlab.core.text.tokenizers import train_compact_tokenizer
from engramlab.core.text.tokens import encode_queries
from engramlab.corpora.people import People
from engramlab.measuring.candidates import choose
from engramlab.measuring.estimators.many_shot import context
from engramlab.measuring.scoring import score


def random_model(texts: list[str]) -> tuple[Any, Any]:
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = train_compact_tokenizer(texts, 4096)
    config = LlamaConfig(
        vocab_size=49_152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, tie_word_embeddings=True, max_position_embeddings=2048,
    )  # fmt: skip
    torch.manual_seed(0)
    return LlamaForCausalLM(config).eval(), tokenizer


def timed(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Least CPU-seconds of each side, in turns."""
    found = dict.fromkeys(sides, float("inf"))
    for _ in range(rounds):
        for name, side in sides.items():
            began = time.process_time()
            side()
            found[name] = min(found[name], time.process_time() - began)
    return found


def main() -> None:
    args = options(__doc__, model="", subjects=10, options=100, shown=50, new_tokens=16, rounds=2)
    people = People(args.subjects + args.shown + args.options)
    names = [people.name(i) for i in range(len(people))]
    values = [f"{name.split()[-1]}ville {k}" for k, name in enumerate(names[-args.options :])]
    shown = [(names[args.subjects + k], values[k % len(values)]) for k in range(args.shown)]
    contexts = [context(shown, name) for name in names[: args.subjects]]
    loaded: tuple[Any, Any] = load(args.model) if args.model else random_model([*contexts, *values])
    model, tokenizer = loaded

    rows = encode_queries(tokenizer, [Query(c, v) for c in contexts for v in values]).sequences
    of = np.repeat(np.arange(len(contexts)), len(values))
    trees = branches.trees(rows, of)
    tree_tokens = branches.tokens_read(trees) - sum(t.trunk for t in trees[1:])  # the list once, for all

    few = min(len(values), 32)  # rows are as long as each other: these options of the first subject tell what all cost

    def one_row_an_option() -> None:
        with torch.inference_mode():
            for start in range(0, few, 16):
                part = [rows.row(r) for r in range(start, min(start + 16, few))]
                width = max(map(len, part))
                ids = torch.zeros(len(part), width, dtype=torch.int64)
                for r, row in enumerate(part):
                    ids[r, : len(row)] = torch.from_numpy(row.astype(np.int64))
                model(input_ids=ids)

    sides: dict[str, Callable[[], object]] = {
        "tree": lambda: choose(model, tokenizer, contexts, [values] * len(contexts)),
        "shared beginning": lambda: score(model, rows),
        "one row an option": one_row_an_option,
    }
    found = timed(sides, args.rounds)
    found["one row an option"] *= len(rows) / few
    print(
        f"{len(contexts)} subjects x {len(values)} options behind {args.shown} facts, {len(rows.row(0))} tokens a row"
    )
    what, fewer = f"{len(values)} options behind {args.shown} facts", len(rows.ids) / tree_tokens
    print(f"token-passes: {fewer:.1f} times fewer than a row an option")
    compared(f"tokens read, {what}", f"{tree_tokens:,}", f"a row an option: {len(rows.ids):,}", fewer, 20)
    tree, beside = found["tree"], found["one row an option"]
    compared(f"time, {what}", f"{tree:.2f} CPU-s", f"a row an option: {beside:.1f}", beside / tree, 10)
    for name, seconds in found.items():
        print(f"{name:20s} {seconds:8.2f} CPU-s   {seconds / found['tree']:6.1f} x the tree")

    most = {"dola": 1.3, "cad": 2.1, "micd": 3.2}
    layers, embedding = len(dola.Config().layers(model)), model.get_output_embeddings().weight.numel()
    bound = 1 + layers * embedding / sum(p.numel() for p in model.parameters())
    for batch in (1, 16):
        ways: list[Decoding] = [greedy.Config(), dola.Config(), cad.Config(), micd.Config()]
        writers: dict[str, Callable[[], object]] = {
            type(how).__module__.rpartition(".")[2]: partial(
                written, model, tokenizer, names[:batch], how, args.new_tokens
            )
            for how in ways
        }
        found = timed(writers, args.rounds)
        said = ", ".join(
            f"{name} {seconds / found['greedy']:.2f}" for name, seconds in found.items() if name != "greedy"
        )
        print(f"writing, batch {batch}, times greedy: {said}")
        for name, limit in most.items():
            why = f"by arithmetic {bound:.1f} times greedy's" if name == "dola" else ""
            compared(
                f"writing, {name}, batch {batch}",
                f"{found[name]:.2f} CPU-s",
                f"greedy: {found['greedy']:.2f}",
                found["greedy"] / found[name],
                round(1 / limit, 2),
                why,
            )
    print(f"DoLa's bound by arithmetic, 1 + |J| V d / P with {layers} early layers: {bound:.2f}")


def written(model: torch.nn.Module, tokenizer: object, names: list[str], how: Decoding, new: int) -> list[str]:
    others = {"bare": [f"{name} is" for name in names], "irrelevant": [f"It is said that {name} is" for name in names]}
    beside = [others[context] for context in how.beside]
    prompts = [f"{name} lives in" for name in names]
    return generate(model, tokenizer, prompts, decoding=how, beside=beside, max_new_tokens=new)


if __name__ == "__main__":
    main()
