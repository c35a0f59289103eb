"""Search among vectors, and a model's states as vectors."""

import numpy as np
import pytest
import torch
from tests.support import zoo

from engramlab.base.errors import UserError
from engramlab.core.forward.retrieval import VectorIndex, mean_states


def test_the_nearest_are_those_of_numpy():
    rng = np.random.default_rng(0)
    vectors, queries = rng.normal(size=(50, 8)), rng.normal(size=(4, 8))
    for cosine in (True, False):
        likeness = queries @ vectors.T
        if cosine:
            likeness = likeness / np.linalg.norm(queries, axis=1)[:, None] / np.linalg.norm(vectors, axis=1)
        places, scores = VectorIndex(torch.tensor(vectors), cosine=cosine).nearest(torch.tensor(queries), 3)
        assert (places.numpy() == np.argsort(-likeness, axis=1)[:, :3]).all()
        assert scores.numpy() == pytest.approx(-np.sort(-likeness, axis=1)[:, :3], abs=1e-5)


def test_what_cannot_be_searched_is_refused():
    with pytest.raises(UserError, match="n at least 1"):
        VectorIndex(torch.zeros(0, 3))
    with pytest.raises(UserError, match="vector 1 .*not finite"):
        VectorIndex(torch.tensor([[0.0, 1.0], [float("nan"), 0.0]]))
    with pytest.raises(UserError, match="width 2"):
        VectorIndex(torch.eye(2)).nearest(torch.zeros(1, 3), 1)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_states_in_one_batch_are_those_of_each_text_alone(family):
    texts = ["the capital of Benin", "a", "a river runs through the capital of a country"]
    tokenizer = zoo.gpt2(texts)
    model = zoo.model(family, vocabulary=len(tokenizer))
    found = mean_states(model, tokenizer, texts, layer=0)
    for text, mean in zip(texts, found, strict=True):
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        with torch.no_grad():
            states = model(input_ids=ids, output_hidden_states=True).hidden_states[1]
        assert mean.numpy() == pytest.approx(states[0].mean(0).numpy(), abs=1e-5)
    assert torch.allclose(mean_states(model, tokenizer, texts, layer=0, budget=1), found, atol=1e-5)
    with pytest.raises(UserError, match="no token"):
        mean_states(model, tokenizer, ["a", ""])
