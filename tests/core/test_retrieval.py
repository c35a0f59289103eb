"""Search among vectors, and a model's states as vectors."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from tests.support import zoo

from engramlab.base.errors import UserError
from engramlab.core.forward.retrieval import FaissIndex, VectorIndex, mean_states, read_vectors


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


@pytest.mark.parametrize("cosine", [True, False])
def test_faiss_finds_the_same(cosine: bool) -> None:
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    vectors, queries = (torch.tensor(rng.normal(size=(n, 8))) for n in (50, 4))
    ours, theirs = (kind(vectors, cosine=cosine).nearest(queries, 60) for kind in (VectorIndex, FaissIndex))
    assert torch.equal(ours[0], theirs[0])
    torch.testing.assert_close(ours[1], theirs[1])


def test_without_faiss_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UserError, match=r"engramlab\[retrieval\]"):
        FaissIndex(torch.ones(1, 2))


def test_vectors_of_a_user(tmp_path: Path) -> None:
    numbers = np.arange(6, dtype=np.float64).reshape(3, 2)
    np.save(tmp_path / "a.npy", numbers)
    save_file({"x": numbers.astype(np.float32)}, tmp_path / "a.safetensors")
    save_file({"x": numbers, "y": numbers}, tmp_path / "two.safetensors")
    (tmp_path / "bad.npy").write_bytes(b"no")
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    for name in ("a.npy", "a.safetensors"):
        found = read_vectors(tmp_path / name, count=3, width=2)
        assert found.dtype == torch.float32
        assert found.numpy().tolist() == numbers.tolist()
    for name, count, width, words in (
        ("a.npy", 4, None, "shape .3, 2., but there are 4 texts"),
        ("a.npy", 3, 5, "width 2, .* with 5"),
        ("none.npy", 3, None, "no vectors"),
        ("bad.npy", 3, None, "cannot be read"),
        ("objects.npy", 1, None, "cannot be read"),
        ("two.safetensors", 3, None, "holds 2 tensors"),
    ):
        with pytest.raises(UserError, match=words):
            read_vectors(tmp_path / name, count=count, width=width)
    (tmp_path / "a.pt").write_bytes(b"")
    with pytest.raises(UserError, match="only"):
        read_vectors(tmp_path / "a.pt", count=3)
