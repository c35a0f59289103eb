"""Probes: together as each by itself, the embedding update as it is defined, and a model that never notices."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from tests.support import zoo
from torch import nn

from engramlab.base.errors import UserError
from engramlab.core.models import adapters
from engramlab.core.text.tokens import Sequences
from engramlab.core.training.loop import Recipe
from engramlab.probing import classifier, fitting
from engramlab.probing.classifier import Probe, Probes, hidden_states
from engramlab.probing.examples import Examples, Task, Tasks

# Under a tiny eps Adam would make a full step of the rounding in a tiny gradient, and trained weights could not be compared.
RECIPE = Recipe(
    steps=12, batch=6, learning_rate=1e-2, weight_decay=0.3, eps=1e-3, schedule="linear", final=0.0, clip=None
)
PROBES = {
    "P": Probe(rank=2, norm="layer", recipe=RECIPE),
    "Q": Probe(rank=3, norm="batch", recipe=RECIPE),
    "linear": Probe(rank=0, norm="none", recipe=RECIPE),
}


def examples(places: int, n: int = 20) -> Examples:
    rng = np.random.default_rng(0)
    lengths = rng.integers(4, 9, n)
    texts = Sequences.of([rng.integers(1, 40, k).tolist() for k in lengths])
    at = np.sort(np.stack([rng.choice(k, places, replace=False) for k in lengths]), axis=1)
    return Examples(texts, at, np.arange(n))


def tasks(n: int = 20) -> Tasks:
    rng = np.random.default_rng(1)
    found = [Task("city", "first", 3), Task("city", "whole", 5), Task("date", "first", 2)]
    labels = np.stack([rng.integers(0, task.classes, n) for task in found])
    labels[1, 4] = classifier.UNKNOWN
    return Tasks(found, labels)


def fitted(
    folder: Path, model: nn.Module, probe: Probe, asked: Tasks, monkeypatch: pytest.MonkeyPatch, **more: Any
) -> tuple[Probes, Any]:
    """Trained probes, and what they read in everything."""
    kept: list[Probes] = []
    made = fitting.make_probes
    monkeypatch.setattr(fitting, "make_probes", lambda *given: kept.append(made(*given)) or kept[0])
    read: list[np.ndarray] = []

    def finish(predicted: np.ndarray) -> dict:
        read.append(predicted)
        return {}

    given = {
        "train": np.arange(12),
        "test": np.arange(20),
        "accelerator": Accelerator(),
        "finish": finish,
        "label": "t",
    } | more
    fitting.fit(folder, model, examples(1 if probe.norm == "batch" else 2), asked, probe, **given)
    return kept[0], read[0]


@pytest.mark.parametrize("kind", PROBES)
def test_together_is_each_by_itself_and_the_model_stays_as_it_was(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = zoo.model("gpt_neox")
    next(model.parameters()).requires_grad_(False)
    before = copy.deepcopy(model)
    whole, read = fitted(tmp_path / "all", model, PROBES[kind], tasks(), monkeypatch)
    for k, task in enumerate(tasks().tasks):
        monkeypatch.undo()
        one, alone = fitted(
            tmp_path / str(k), model, PROBES[kind], Tasks([task], tasks().labels[k : k + 1]), monkeypatch
        )
        for name, value in one.named_parameters():
            stacked = dict(whole.named_parameters())[name][k]
            here = stacked[..., : value.shape[-1]]
            torch.testing.assert_close(here, value[0], rtol=1e-4, atol=1e-5, msg=f"{task.name} {name}")
            assert stacked[..., value.shape[-1] :].abs().sum() == 0  # classes that the task does not have
        assert (alone[0] == read[k]).all()
    for p, old in zip(model.parameters(), before.parameters(), strict=True):
        assert torch.equal(p, old)
        assert p.requires_grad == old.requires_grad
        assert p.grad is None
    assert model.training == before.training
    moved = dict(whole.named_parameters())
    assert not moved.keys() >= {"updates.left"} or moved["updates.left"].abs().max() > 0


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama"])
@pytest.mark.parametrize("layer", [None, 0, 1])
def test_hidden_states_are_those_of_a_model_with_the_updated_embedding(family: str, layer: int | None) -> None:
    """Against a copy of the model for each task whose embedding matrix is changed, read row by row without padding."""
    model = zoo.model(family).eval()
    of = examples(2)
    updates = adapters.EmbeddingUpdates(torch.arange(1, 30), 64, 32, 4, seeds=[5, 6])
    nn.init.normal_(updates.left)
    with torch.no_grad():
        updates.left[:, 0] = 0  # tokens that training did not read
    ids, lengths, places = of.batch(np.arange(8), torch.device("cpu"))
    head = model.get_output_embeddings().register_forward_hook(lambda *_: pytest.fail("logits were computed"))
    found = hidden_states(model, ids, lengths, places, layer, updates)
    head.remove()
    for k in range(2):
        changed = copy.deepcopy(model)
        changed.config.tie_word_embeddings = False
        for token in range(1, 30):
            changed.get_input_embeddings().weight.data[token] += (updates.left[k, token] @ updates.right[k]).detach()
        for i in range(8):
            out = changed(input_ids=torch.tensor(of.texts.row(i))[None].long(), output_hidden_states=True)
            state = out.hidden_states[-1 if layer is None else layer + 1][0, of.places[i]]
            torch.testing.assert_close(found[k, i], state, rtol=1e-4, atol=1e-4)


def test_norms_and_losses_are_torch_s() -> None:
    hidden, labels = torch.randn(2, 9, 6) * 3 + 1, torch.randint(0, 3, (2, 9))
    labels[0, 2] = classifier.UNKNOWN
    for norm, made in (("layer", nn.LayerNorm(6)), ("batch", nn.BatchNorm1d(6)), ("none", nn.Identity())):
        probes = Probes([3, 4], 6, norm, seeds=[1, 2])
        for k, count in enumerate((3, 4)):
            if norm != "none":
                nn.init.normal_(probes.scale)
                nn.init.normal_(probes.shift)
                made.weight.data, made.bias.data = probes.scale[k].data.clone(), probes.shift[k].data.clone()
            logits = made(hidden[k]) @ probes.weight[k, :, :count] + probes.bias[k, :count]
            wanted = nn.functional.cross_entropy(logits, labels[k], ignore_index=classifier.UNKNOWN)
            torch.testing.assert_close(probes.losses(hidden, labels)[k], wanted, rtol=1e-5, atol=1e-6)


def test_fixed_states_are_computed_once_and_dropout_makes_them_move(tmp_path: Path) -> None:
    model, of = zoo.model("gpt_neox").eval(), examples(2)
    linear = PROBES["linear"]
    probes = Probes([3], 32, "none", seeds=[0])
    passes: list[int] = []
    model.base_model.register_forward_hook(lambda *_: passes.append(1))
    reader = fitting.HiddenStateReader(model, of, linear, probes, "t", None)
    first, numbers = reader.read(np.array([3, 7])), np.array([7, 3])
    assert torch.equal(reader.read(numbers)[:, [1, 0]], first)
    assert len(passes) == 1
    ids, lengths, places = of.batch(np.array([3, 7]), torch.device("cpu"))
    torch.testing.assert_close(first, hidden_states(model, ids, lengths, places), rtol=1e-4, atol=1e-5)
    restless = zoo.model("gpt_neox", hidden_dropout=0.1)
    assert not fitting.HiddenStateReader(restless, of, linear, probes, "t", None).fixed
    assert fitting.HiddenStateReader(restless, of, replace(linear, dropout=False), probes, "t", None).fixed


def test_batch_norm_stands_on_all_of_p_train() -> None:
    model, of = zoo.model("gpt_neox").eval(), examples(1)
    probes = Probes([3, 2], 32, "batch", seeds=[0, 1])
    reader = fitting.HiddenStateReader(model, of, replace(PROBES["linear"], norm="batch"), probes, "t", None)
    train = np.arange(10)
    states = reader.read(train)[0, :, 0]
    norm = nn.BatchNorm1d(32, affine=False, momentum=1.0)
    norm(states)
    norm.running_var.mul_(9 / 10)  # torch keeps the unbiased one
    read = norm.eval()(reader.read(np.arange(20))[0, :, 0])
    wanted = (read @ probes.weight[0, :, :3] + probes.bias[0, :3]).argmax(-1)
    assert (fitting.predict(reader, train, np.arange(20))[0, :, 0] == wanted.numpy()).all()


def test_a_killed_fit_goes_on_to_the_same_probes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, probe = zoo.model("gpt_neox", hidden_dropout=0.1), PROBES["P"]
    whole, read = fitted(tmp_path / "whole", model, probe, tasks(), monkeypatch)
    monkeypatch.undo()
    real = fitting.hidden_states
    calls: list[int] = []

    def dies(*given: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(fitting, "hidden_states", dies)
        with pytest.raises(KeyboardInterrupt):
            fitted(tmp_path / "cut", model, probe, tasks(), patch, minutes_between_checkpoints=0.0)
    again, found = fitted(tmp_path / "cut", model, probe, tasks(), monkeypatch)
    assert (found == read).all()
    for p, q in zip(again.parameters(), whole.parameters(), strict=True):
        assert torch.equal(p, q)


def test_refusals() -> None:
    with pytest.raises(UserError, match="layers 0 to 1"):
        classifier.check_layer(zoo.model("gpt2"), 2)
    with pytest.raises(UserError, match="clip must be None"):
        Probe(rank=0, norm="none")
    with pytest.raises(UserError, match="rank must be"):
        Probe(rank=-1, norm="none", recipe=RECIPE)
