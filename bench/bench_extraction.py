"""Exact match of 3,000 questions: one teacher-forced pass beside batched greedy generation, same answers.

    python bench/bench_extraction.py [--questions 3000] [--size tiny] [--steps 300]

A small model is trained first, so that some answers are right and some are wrong. The generating side batches 64 questions of
like length, uses the key-value cache and stops at the end token; it may write as many tokens as the longest answer has.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from engramlab.core import batches, models, scoring, tokens, training
from engramlab.core.assembly import TokenTable
from engramlab.corpora.bios import BiosConfig, bios, bios_questions
from engramlab.corpora.people import Pools


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=3000)
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    corpus = bios(BiosConfig(people=-(-args.questions // 6), pools=Pools(birth_cities=20, universities=20, majors=10, companies=20)))
    questions = bios_questions(corpus)
    texts = [questions.passage(i).text for i in range(len(questions))]
    tokenizer = tokens.train_compact_tokenizer(texts, 4096)
    end, start = tokens.end_token(tokenizer), tokens.start_tokens(tokenizer)
    table = TokenTable(questions, tokenizer)
    model = models.build(args.size, tokenizer, context=128)
    half = batches.Order(len(questions), 0, subset=np.arange(0, len(questions) // 2))
    stream = batches.OneEntryARow(table, half, start=start, end=end, length=128, answers_only=True)
    state = training.TrainState(model, training.Recipe(steps=args.steps, batch=48, learning_rate=2e-3))
    for _ in training.train(state, stream):
        pass

    queries = [questions.query(i) for i in range(args.questions)]
    longest = max(len(tokenizer(" " + q.target, add_special_tokens=False)["input_ids"]) for q in queries) + 1
    ratios = []
    for _ in range(args.rounds):
        began = time.perf_counter()
        sequences = table.tokens(np.arange(args.questions)).wrapped(start, [end], suffix_mark=1)
        marked = tokens.Sequences(sequences.ids, sequences.offsets, np.maximum(sequences.marks, 0))
        exact = scoring.score(model, marked).exact()
        scored = time.perf_counter() - began
        began = time.perf_counter()
        written = scoring.generate(
            model, tokenizer, [q.prompt for q in queries], max_new_tokens=longest, batch=args.batch
        )
        generated = time.perf_counter() - began
        right = np.array([answer == q.target for answer, q in zip(written, queries, strict=True)])
        assert (right == exact).all(), f"{(right != exact).sum()} answers differ"
        ratios.append(generated / scored)
        print(
            f"scored {scored:.2f} s, generated {generated:.2f} s: {ratios[-1]:.1f}x; the same {args.questions} verdicts, "
            f"{exact.mean():.1%} right"
        )
    print(f"ratio (median): {np.median(ratios):.1f}x")


if __name__ == "__main__":
    main()
