"""Exact match of 3,000 questions: one teacher-forced pass beside greedy generation and beam search, same answers.

    python bench/bench_extraction.py [--questions 3000] [--size tiny] [--steps 300]

A small model is trained first, so that some answers are right and some are wrong. Generation is measured three ways: as usually
written (left-padded batches in file order, up to 32 new tokens), as tightly as it can be (batches of like length, as many new
tokens as the longest answer has), and by beam search of 4 as in the paper. All use the key-value cache and stop at the end
token. Where a model does not yet know when to stop, the usual way costs its 32 tokens.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from _options import compared, options
from engramlab.core import models
from engramlab.core.forward import generation
from engramlab.core.forward.decoding import beam
from engramlab.core.text import batches, tokenizers, tokens
from engramlab.core.text.assembly import TokenTable
from engramlab.core.training import loop as training
from engramlab.corpora.people import Pools
from engramlab.corpora.sources.bios import Config as BiosConfig
from engramlab.corpora.sources.bios import bios, bios_questions
from engramlab.measuring import scoring


def main() -> None:
    args = options(__doc__, questions=3000, size="tiny", steps=300, batch=64, rounds=3)

    corpus = bios(
        BiosConfig(
            people=-(-args.questions // 6), pools=Pools(birth_cities=20, universities=20, majors=10, companies=20)
        )
    )
    questions = bios_questions(corpus)
    texts = [questions.passage(i).text for i in range(len(questions))]
    tokenizer = tokenizers.train_compact_tokenizer(texts, 4096)
    end, start = tokens.end_token(tokenizer), tokens.start_tokens(tokenizer)
    table = TokenTable(questions, tokenizer)
    model: Any = models.build(args.size, tokenizer, context=128)
    half = batches.Order(len(questions), 0, subset=np.arange(0, len(questions) // 2))
    stream = batches.OneEntryARow(table, half, start=start, end=end, length=128, answers_only=True)
    state = training.TrainState(model, training.Recipe(steps=args.steps, batch=48, learning_rate=2e-3))
    for _ in training.train(state, stream):
        pass

    queries = [questions.query(i) for i in range(args.questions)]
    longest = max(len(tokenizer(" " + q.target, add_special_tokens=False)["input_ids"]) for q in queries) + 1
    prompts = [q.prompt for q in queries]

    def scored() -> np.ndarray:
        sequences = table.tokens(np.arange(args.questions)).wrapped(start, [end], suffix_mark=1)
        marked = tokens.Sequences(sequences.ids, sequences.offsets, np.maximum(sequences.marks, 0))
        return scoring.score(model, marked).exact()

    def written(answers: list[str]) -> np.ndarray:
        return np.array([answer == q.target for answer, q in zip(answers, queries, strict=True)])

    def tight(beams: int = 1) -> np.ndarray:
        return written(
            generation.generate(
                model, tokenizer, prompts, decoding=beam.Config(beams), max_new_tokens=longest, batch=args.batch
            )
        )

    def usual() -> np.ndarray:
        tokenizer.padding_side = "left"
        answers = []
        for k in range(0, len(prompts), args.batch):
            inputs = tokenizer(
                prompts[k : k + args.batch], padding=True, return_tensors="pt", return_token_type_ids=False
            )
            out = model.generate(**inputs, max_new_tokens=32, do_sample=False, pad_token_id=end, eos_token_id=end)
            answers += tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return written([answer.strip() for answer in answers])

    model.eval()
    sides = {"scored": scored, "generated, usual": usual, "generated, tight": tight, "beam 4": lambda: tight(4)}
    times: dict[str, list[float]] = {name: [] for name in sides}
    verdicts = {}
    for _ in range(args.rounds):
        for name, side in sides.items():
            began = time.perf_counter()
            verdicts[name] = side()
            times[name].append(time.perf_counter() - began)
    print(f"{args.questions} questions, {verdicts['scored'].mean():.1%} right")
    for name, took in times.items():
        ratio = np.median(took) / np.median(times["scored"])
        agree = (verdicts[name] == verdicts["scored"]).mean()
        print(
            f"{name:>17}: {np.median(took):6.2f} s (median of {args.rounds}), {ratio:5.1f}x, verdicts agree {agree:.2%}"
        )
        if name != "scored":
            ours = f"{np.median(times['scored']):.2f} s"
            what = f"{args.questions:,} questions asked, {args.size}"
            compared(what, ours, f"{name}: {np.median(took):.2f} s", ratio)


if __name__ == "__main__":
    main()
