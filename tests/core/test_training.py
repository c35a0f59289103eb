"""The training loop against one written by hand, and what it leaves alone."""

import copy
import math
import shutil
from dataclasses import replace

import pytest
import torch
from tests.support import zoo

from engramlab.base.errors import UserError
from engramlab.core.text.batches import ALL, IGNORE, Batch, OneEntryARow, Order, Packed, TokenRows
from engramlab.core.text.tokens import Sequences
from engramlab.core.training import schedules
from engramlab.core.training.loop import Recipe, TrainState, train
from engramlab.core.training.step import NonFiniteLoss

FAMILIES = ["gpt_neox", "llama"]
RECIPE = Recipe(steps=4, batch=6, learning_rate=1e-2, warmup=1, beta2=0.95, clip=0.5)


def stream(answers_only: bool = False) -> OneEntryARow:
    rows = [[(7 * i + 3 * k) % 60 + 2 for k in range(3 + i % 6)] for i in range(20)]
    marks = [[0] * (len(row) - 2) + [1, 1] for row in rows]
    source = TokenRows(Sequences.of(rows, marks))
    return OneEntryARow(source, Order(20, 1), start=[0], end=1, length=16, answers_only=answers_only)


def by_hand(model, recipe: Recipe, answers_only: bool) -> list[float]:
    """The same training with nothing but transformers' own loss and torch's plain AdamW."""
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(
        groups, betas=(recipe.beta1, recipe.beta2), eps=recipe.eps, foreach=False, fused=False
    )
    batches, found = stream(answers_only), []
    model.train()
    for step in range(recipe.steps):
        batch = batches.take(recipe.batch)
        last = torch.full((recipe.batch, 1), IGNORE)
        labels = torch.cat([last, batch.targets], 1)
        ids = torch.cat([batch.input_ids, torch.zeros_like(last)], 1)
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(step)
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


def parameters(model) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("micro_batch", [None, 4, 1])
@pytest.mark.parametrize("answers_only", [False, True])
def test_equals_a_loop_written_by_hand(family, micro_batch, answers_only):
    """With an eps as large as usual gradients: under a tiny one Adam makes a full step of a tiny gradient's rounding."""
    model = zoo.model(family)
    naive = copy.deepcopy(model)
    expected = by_hand(naive, replace(RECIPE, eps=1e-3), answers_only)
    recipe = replace(RECIPE, eps=1e-3, micro_batch=micro_batch)
    steps = list(train(TrainState(model, recipe), stream(answers_only)))
    assert [step.loss for step in steps] == pytest.approx(expected, rel=1e-5)
    assert [step.number for step in steps] == [1, 2, 3, 4]
    for name, p in naive.named_parameters():
        torch.testing.assert_close(model.get_parameter(name), p, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_step_tells(family):
    model = zoo.model(family)
    first = stream().take(6)
    step = next(train(TrainState(model, RECIPE), stream()))
    assert (step.tokens, step.targets) == (first.tokens, int((first.targets != IGNORE).sum()))
    assert step.learning_rate == RECIPE.rate(0)
    assert step.gradient_norm > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_given_parameters_change_and_the_model_comes_back_as_it_was(family):
    model = zoo.model(family)
    chosen = [p for name, p in model.named_parameters() if "layers.1" in name and "norm" not in name]
    frozen = next(model.parameters())
    frozen.requires_grad_(False)
    model.eval()
    model.get_submodule("model" if family == "llama" else "gpt_neox").layers[0].train()
    modes, required = ([m.training for m in model.modules()], [p.requires_grad for p in model.parameters()])
    before = parameters(model)
    for _ in train(TrainState(model, RECIPE, parameters=chosen), stream()):
        assert [m.training for m in model.modules()] == modes
    ids = {id(p) for p in chosen}
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name]) != (id(p) in ids)
        assert p.grad is None
    assert [p.requires_grad for p in model.parameters()] == required


def test_leaving_the_loop_early_restores_too_and_going_on_is_possible():
    model, whole = zoo.model("gpt_neox"), zoo.model("gpt_neox")
    model.get_input_embeddings().requires_grad_(False)
    whole.get_input_embeddings().requires_grad_(False)
    state, batches = TrainState(model, RECIPE), stream()
    losses = []
    while state.step < RECIPE.steps:
        loop = train(state, batches)
        losses.append(next(loop).loss)
        loop.close()
        assert not model.get_input_embeddings().weight.requires_grad
    assert losses == [step.loss for step in train(TrainState(whole, RECIPE), stream())]


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_layers_train_the_same_and_are_there_in_a_step_only():
    """A program that layers and batches share; between steps the model is the plain one."""
    from torch._dynamo.utils import counters

    plain, model = zoo.model("llama", num_hidden_layers=3), zoo.model("llama", num_hidden_layers=3)
    recipe = replace(RECIPE, eps=1e-3)
    expected = list(train(TrainState(plain, recipe), stream()))
    torch._dynamo.reset()
    counters.clear()
    state, found = TrainState(model, replace(recipe, compile=True)), []
    for step in train(state, stream()):
        found.append(step.loss)
        assert all("forward" not in vars(layer) for layer in model.model.layers)
        compiled = dict(counters["stats"])
        model(torch.tensor([[1, 2, 3]])).logits.sum().backward()  # of a shape and mode that no step has
        model.zero_grad()
        assert dict(counters["stats"]) == compiled
    assert 1 <= counters["stats"]["unique_graphs"] < len(model.model.layers)
    assert found == pytest.approx([step.loss for step in expected], rel=1e-4)
    for name, p in plain.named_parameters():
        torch.testing.assert_close(model.get_parameter(name), p, rtol=1e-3, atol=1e-5)


def test_nothing_to_compile_or_to_compile_with(monkeypatch):
    with pytest.raises(UserError, match="compile: the model keeps its layers in no list"):
        TrainState(torch.nn.Linear(2, 2), replace(RECIPE, compile=True))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match=r"compile: there is no C\+\+ compiler here"):
        TrainState(zoo.model("llama"), replace(RECIPE, compile=True))


def test_dropout_is_on_in_a_step_only():
    model = zoo.model("gpt_neox", hidden_dropout=0.5, attention_dropout=0.5).eval()
    torch.manual_seed(0)
    (noisy, *_) = train(TrainState(model, RECIPE), stream())
    (plain, *_) = train(TrainState(zoo.model("gpt_neox"), RECIPE), stream())
    assert noisy.loss != plain.loss
    assert not model.training
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(model(ids).logits, model(ids).logits)


class Broken(OneEntryARow):
    """From the second batch on, weights overflow: the model is handed an embedding of infinities."""

    model = None
    taken = 0

    def take(self, rows: int, own: slice = ALL) -> Batch:
        self.taken += 1
        if self.taken == 2:
            with torch.no_grad():
                self.model.get_input_embeddings().weight.mul_(math.inf)
        return super().take(rows, own)


def test_a_loss_that_is_not_finite_stops_before_it_reaches_the_parameters():
    model = zoo.model("llama")
    source = stream()
    broken = Broken(source.entries, source.order, start=[0], end=1, length=16)
    broken.model = model
    state = TrainState(model, RECIPE)
    loop = train(state, broken)
    next(loop)
    before = parameters(model)
    with pytest.raises(NonFiniteLoss, match=r"step 2: the loss became nan .*lower the learning rate \(now 0.01\)"):
        next(loop)
    assert state.step == 1
    for name, p in model.named_parameters():
        assert p.grad is None
        if "embed" not in name:
            assert torch.equal(p, before[name])


def test_batches_without_a_target_are_refused():
    source = TokenRows(Sequences.of([list(range(2, 30))]))
    batches = Packed(source, Order(1, 0), end=1, length=4, answers_only=True)
    with pytest.raises(UserError, match="step 1: the batch has no target token"):
        next(train(TrainState(zoo.model("llama"), RECIPE), batches))


# recipes ------------------------------------------------------------------------------------------------------------


def test_schedules():
    cosine = Recipe(steps=110, learning_rate=2.0, warmup=10)
    assert [cosine.rate(step) for step in (0, 4, 9, 10)] == pytest.approx([0.2, 1.0, 2.0, 2.0])
    assert cosine.rate(60) == pytest.approx(2 * (0.1 + 0.9 / 2))
    assert cosine.rate(109) == pytest.approx(0.2, rel=0.01)
    assert cosine.rate(110) == pytest.approx(0.2)
    linear = Recipe(steps=100, learning_rate=1.0, schedule="linear", final=0.0)
    assert [linear.rate(step) for step in (0, 50, 100)] == pytest.approx([1.0, 0.5, 0.0])
    assert {Recipe(steps=100, learning_rate=3.0, schedule="constant").rate(step) for step in range(100)} == {3.0}
    rates = [cosine.rate(step) for step in range(10, 110)]
    assert rates == sorted(rates, reverse=True)
    halving = Recipe(steps=9, learning_rate=1.0, schedule="halving:every=3")
    assert [halving.rate(step) for step in range(7)] == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25]
    plateau = Recipe(steps=12, learning_rate=1.0, final=0.0, schedule="plateau:fall=0.3333333")
    assert [plateau.rate(step) for step in range(13)] == [*[1.0] * 9, 0.75, 0.5, 0.25, 0.0]


@pytest.mark.parametrize("schedule", schedules.SCHEDULES)
@pytest.mark.parametrize("warmup", [0, 3])
def test_a_schedule_begins_at_the_highest_rate_and_can_be_gone_on_with(schedule, warmup):
    whole = Recipe(steps=40, learning_rate=3.0, warmup=warmup, schedule=schedule)
    assert whole.rate(warmup) == 3.0
    rest = replace(whole, steps=7, schedule_start=25, schedule_steps=40)
    assert [rest.rate(step) for step in range(20)] == [whole.rate(25 + step) for step in range(20)]


def test_a_schedule_that_there_is_not():
    with pytest.raises(
        UserError, match=r"schedule 'cosin' is unknown; did you mean 'cosine'\? There are: cosine, linear"
    ):
        Recipe(schedule="cosin")
    with pytest.raises(UserError, match="schedule 'linear' has no setting 'every'; it has no settings"):
        Recipe(schedule="linear:every=3")
    with pytest.raises(UserError, match="schedule 'halving': every must be at least 1, not 0"):
        Recipe(schedule="halving:every=0")
    with pytest.raises(UserError, match="schedule 'plateau': fall must be above 0 and at most 1, not 0"):
        Recipe(schedule="plateau:fall=0")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "recipe: steps must be at least 1, not 0"),
        ({"batch": -1}, "recipe: batch must be at least 1"),
        ({"learning_rate": 0.0}, "recipe: learning_rate must be above 0"),
        ({"learning_rate": math.nan}, "recipe: learning_rate must be above 0, not nan"),
        ({"weight_decay": -0.1}, "recipe: weight_decay must be at least 0"),
        ({"eps": 0.0}, "recipe: eps must be above 0"),
        ({"beta2": 1.0}, "recipe: beta2 must be at least 0 and below 1"),
        ({"warmup": -1}, "recipe: warmup must be at least 0"),
        ({"final": 1.5}, "recipe: final must be between 0 and 1"),
        ({"clip": 0.0}, "recipe: clip must be above 0, or None"),
        ({"micro_batch": 0}, "recipe: micro_batch must be at least 1, or None"),
        ({"loss": "crossentropy"}, r"loss 'crossentropy' is unknown; did you mean 'cross-entropy'\?"),
    ],
)
def test_recipes_that_make_no_sense(change, message):
    with pytest.raises(UserError, match=message):
        Recipe(**change)


def test_nothing_to_train():
    with pytest.raises(UserError, match="there is no parameter to train"):
        TrainState(zoo.model("llama").requires_grad_(False), RECIPE)
