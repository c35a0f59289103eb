"""Multiple-choice rows: our choice beside lm-evaluation-harness', which reads one row an option; equal choices, and how fast.

    python bench/bench_choices.py [--model MODEL] [--rows 500] [--options 10] [--rounds 2]

Needs lm_eval (pip install 'engramlab[oracle]'). Without --model a network of random weights with SmolLM2-135M's shape is used:
what is timed does not depend on what it knows. Both sides take turns in each round; least CPU-seconds of each.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

try:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
except ImportError:
    raise SystemExit("needs lm_eval: pip install 'engramlab[oracle]'") from None

from _options import compared
from _options import options as told
from bench_candidates import random_model, timed
from engramlab.core.models import load
from engramlab.corpora.facts import FactTable
from engramlab.measuring.candidates import choose


def main() -> None:
    given = told(__doc__, model="", rows=500, options=10, rounds=2, batch=64)
    table = FactTable.read("countries", relations=("capital", "currency", "calling_code"))
    facts = list(table)[: given.rows]
    contexts = [table.wordings.question(fact.relation, fact.subject) for fact in facts]
    listed = []
    for i, fact in enumerate(facts):
        others = [one for one in table.choices()[fact.relation] if one != fact.object]
        listed.append([fact.object, *(others[(7 * i + k) % len(others)] for k in range(given.options - 1))])
    loaded: tuple[Any, Any] = (
        load(given.model) if given.model else random_model([*contexts, *(" ".join(of) for of in listed)])
    )
    model, tokenizer = loaded
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    theirs = HFLM(pretrained=model, tokenizer=tokenizer, backend="causal", device="cpu", batch_size=given.batch)
    asked = [
        Instance("loglikelihood", {}, (context, f" {option}"), k)
        for context, of in zip(contexts, listed, strict=True)
        for k, option in enumerate(of)
    ]
    ours = partial(choose, model, tokenizer, contexts, listed)
    other = partial(theirs.loglikelihood, asked, disable_tqdm=True)
    expected = np.array([found[0] for found in other()]).reshape(len(facts), -1)
    scores = ours().scores.reshape(expected.shape)
    same = (scores.argmax(1) == expected.argmax(1)).mean()
    print(f"{len(facts)} rows of {given.options} options: equal choices {same:.2%}, scores apart at most "
          f"{np.abs(scores - expected).max():.1e} nats")  # fmt: skip
    seconds = timed({"ours": ours, "lm-evaluation-harness": other}, given.rounds)
    print(", ".join(f"{name} {value:.1f} CPU-s" for name, value in seconds.items()), end="; ")
    ours_s, other_s = seconds["ours"], seconds["lm-evaluation-harness"]
    print(f"{other_s / ours_s:.1f} times as fast")
    what = f"{len(facts)} rows of {given.options} options, {same:.1%} equal choices"
    compared(what, f"{ours_s:.1f} CPU-s", f"lm-evaluation-harness: {other_s:.1f}", other_s / ours_s, 3)


if __name__ == "__main__":
    main()
