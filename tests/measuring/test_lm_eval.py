"""Choices against an independent tool: lm-evaluation-harness' `acc` picks the same option for the same multiple-choice rows."""

from __future__ import annotations

import numpy as np
import pytest
from tests.support import zoo

from engramlab.corpora.facts import FactTable
from engramlab.measuring.candidates import choose

pytest.importorskip("lm_eval", reason="lm_eval is not installed: pip install 'engramlab[oracle]'")
ROWS, OPTIONS = 500, 5


@pytest.mark.slow
@pytest.mark.parametrize(("family", "words"), [("gpt2", "gpt2"), ("llama", "llama3")])
def test_the_same_choice_on_500_rows(family: str, words: str) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    table = FactTable.read("countries")
    facts = list(table)
    contexts = [table.wordings.prompts(f.relation, f.subject)[i % 4] for i, f in enumerate(facts)]
    pools = {relation: list(objects) for relation, objects in table.choices().items()}
    options = []
    for i, fact in enumerate(facts):
        others = [o for o in pools[fact.relation] if o != fact.object]
        options.append(
            [fact.object, *(others[(7 * i + k) % len(others)] for k in range(min(OPTIONS - 1, len(others))))]
        )
    tokenizer = zoo.ZOO[words]([*contexts, *(" " + o for of in options for o in of)])
    tokenizer.add_special_tokens({"pad_token": tokenizer.eos_token})
    model = zoo.model(family, vocabulary=len(tokenizer), seed=3).eval()
    theirs = HFLM(pretrained=model, tokenizer=tokenizer, backend="causal", device="cpu", batch_size=64)
    # A small vocabulary leaves some spaces in tokens of their own, which they count as the option's and we as the prompt's.
    spaces = [any(tokenizer.tokenize(f" {option}")[0] in ("Ġ", "▁") for option in of) for of in options]
    kept = [i for i, alone in enumerate(spaces) if not alone and len(options[i]) == OPTIONS][:ROWS]
    assert len(kept) == ROWS
    contexts, options = [contexts[i] for i in kept], [options[i] for i in kept]
    asked = [
        Instance("loglikelihood", {}, (context, f" {option}"), k)
        for context, of in zip(contexts, options, strict=True)
        for k, option in enumerate(of)
    ]
    expected = np.array([found[0] for found in theirs.loglikelihood(asked, disable_tqdm=True)]).reshape(ROWS, OPTIONS)
    found = choose(model, tokenizer, contexts, options)
    scores = found.scores.reshape(ROWS, OPTIONS)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-3)
    ordered = np.sort(expected)
    clear = ordered[:, -1] - ordered[:, -2] > 2e-3  # of the others the last digits decide
    assert clear.mean() > 0.95
    assert (scores.argmax(1) == expected.argmax(1))[clear].all()
    assert ((found.right([0] * ROWS) == 1) == (expected.argmax(1) == 0))[clear].all()  # what `acc` counts
