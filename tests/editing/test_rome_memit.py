"""ROME, MEMIT and AlphaEdit: closed forms against explicit solves, and whole edits against naive ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support import zoo
from tests.support.small import made
from torch import nn

from engramlab.base.facts import Edit, Query
from engramlab.core import deltas
from engramlab.core.deltas import WeightDelta
from engramlab.core.forward.hooks import reading
from engramlab.core.models.geometry import down_projection, layer_path, weight_of
from engramlab.core.training import losses
from engramlab.editing.keys.keyvalue import key_weights, prefixes
from engramlab.editing.keys.moments import SecondMoment, second_moments
from engramlab.editing.method import EditFailed
from engramlab.editing.methods import alphaedit, memit, rome
from engramlab.editing.solve.valuesearch import search_values

EDITS = (
    Edit(Query("The capital of France is", "Paris", subject="France", id="France"), "Washington"),
    Edit(Query("The old name of Japan was", "Edo", subject="Japan", id="Japan"), "Paris in 1996"),
    Edit(Query("She was born in Washington, on", "October 2", subject="Washington", id="born"), "the Seine"),
)
CE = losses.get("cross-entropy")
QUICK: dict[str, Any] = {"steps": 4, "statistics_tokens": 400}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return zoo.ZOO["llama3"](zoo.SENTENCES)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGRAMLAB_CACHE", str(tmp_path_factory.getbasetemp() / "statistics"))


def small(family: str, tokenizer: Any) -> nn.Module:
    return zoo.model(family, vocabulary=len(tokenizer), num_hidden_layers=4).eval()


def known(width: int, count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A second moment ``[d, d]`` of skewed keys, and some keys ``[d, n]``; float64."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=generator, dtype=torch.float64)
    text = torch.randn(400, width, generator=generator, dtype=torch.float64) @ mix * 0.3
    return text.T @ text / 400, torch.randn(width, count, generator=generator, dtype=torch.float64)


def test_rank_one_is_the_constrained_minimum() -> None:
    moment, keys = known(7, 1)
    change = torch.randn(5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = rome.rank_one(change.float(), keys[:, 0].float(), SecondMoment.of(moment, 400)).matrix().double()
    torch.testing.assert_close(found @ keys[:, 0], change, rtol=1e-4, atol=1e-5)
    # Lagrange, row by row of U: minimise u C u^T / 2 with u k = change: [C k; k^T 0] [u; m] = [0; change].
    k = keys[:, :1]
    system = torch.cat([torch.cat([moment, k], 1), torch.cat([k.T, torch.zeros(1, 1, dtype=k.dtype)], 1)])
    for row, wanted in zip(found, change, strict=True):
        right = torch.cat([torch.zeros(7, dtype=k.dtype), wanted[None]])
        torch.testing.assert_close(row, torch.linalg.solve(system, right)[:7], rtol=1e-3, atol=1e-4)


def test_the_change_is_exact_at_the_bare_prompt() -> None:
    moment, keys = known(7, 2)
    change = torch.arange(5.0)
    found = rome.rank_one(change, keys[:, 0].float(), SecondMoment.of(moment, 400), keys[:, 1].float()).matrix()
    torch.testing.assert_close(found.double() @ keys[:, 1], change.double(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [1, 3, 12])  # fewer and more keys than dimensions
def test_memit_is_regularised_least_squares(count: int) -> None:
    moment, keys = known(7, count)
    missing = torch.randn(5, count, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weight = 15.0
    update = missing @ memit.rows_of(keys.float(), SecondMoment.of(moment, 400), weight)
    explicit = missing @ keys.T @ torch.linalg.inv(weight * moment + keys @ keys.T)
    torch.testing.assert_close(update, explicit, rtol=1e-4, atol=1e-5)
    free = explicit.clone().requires_grad_(True)
    ((free @ keys - missing).square().sum() + weight * (free @ moment @ free.T).trace()).backward()
    assert float(free.grad.abs().max()) < 1e-9  # type: ignore[union-attr]


@pytest.mark.parametrize("earlier", [0, 4])
def test_alphaedit_equals_its_equation(earlier: int) -> None:
    moment, keys = known(9, 3)
    _, before = known(9, earlier, seed=5)
    basis = SecondMoment.of(moment, 400).vectors[:, :5]
    projection, one = basis @ basis.T, torch.eye(9, dtype=torch.float64)
    missing = torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    update = missing @ alphaedit.rows_of(keys, before, basis, 10.0)
    inner = keys @ keys.T @ projection + before @ before.T @ projection + 10.0 * one
    explicit = missing @ keys.T @ projection @ torch.linalg.inv(inner)
    torch.testing.assert_close(update, explicit)
    # What ordinary text spans outside of the null space keeps its values.
    kept = SecondMoment.of(moment, 400).vectors[:, 5:]
    torch.testing.assert_close(update @ kept, torch.zeros(5, 4, dtype=torch.float64))


def test_a_threshold_that_fits_no_eigenvalue_takes_the_lower_half() -> None:
    moment = SecondMoment.of(torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0])), 100)
    assert alphaedit.null_space(moment, 2.5).shape == (4, 2)
    for threshold in (0.02, 100.0):
        torch.testing.assert_close(alphaedit.null_space(moment, threshold), moment.vectors[:, :2])


def at_subject(model: nn.Module, tokenizer: Any, text: str, subject: str, layer: int) -> tuple[torch.Tensor, ...]:
    """Key, value and layer output at the last token of the subject, by a pass of the whole model."""
    end = text.rindex(subject) + len(subject)
    found = tokenizer(text, return_offsets_mapping=True, return_tensors="pt")
    place = next(i for i, (a, b) in enumerate(found["offset_mapping"][0].tolist()) if a < end <= b)
    down, whole = down_projection(model, layer), layer_path(model, layer)
    with reading(model, [down, whole], (0, place)) as seen, torch.no_grad():
        model(input_ids=found["input_ids"])
    return seen[down].read, seen[down].said, seen[whole].said


@pytest.mark.parametrize(
    "family",
    ["gpt2", "gpt_neox", "llama", "qwen3", "gemma3_text", "olmo2", "opt", "phi3", "falcon", "granite", "bloom"],
)
def test_rome_writes_the_value_it_searched(family: str, tokenizer: Any) -> None:
    model, config = small(family, tokenizer), rome.Config(layer=1, **QUICK)
    edit = EDITS[1]
    contexts = prefixes(model, tokenizer, config)
    wanted = search_values(model, tokenizer, [[edit]], 1, contexts, config, CE, "value").change[0]
    delta = made(rome, model, tokenizer, [edit], config, CE)
    before = at_subject(model, tokenizer, edit.query.prompt, "Japan", 1)[1]
    with deltas.active(model, delta):
        after = at_subject(model, tokenizer, edit.query.prompt, "Japan", 1)[1]
    torch.testing.assert_close(after - before, wanted, rtol=1e-3, atol=1e-4)
    assert delta.changes[down_projection(model, 1)].left.shape[1] == 1  # type: ignore[union-attr]


Solve = Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor]


def naive_spread(model: nn.Module, tokenizer: Any, edits: Any, config: Any, solve: Solve) -> dict[int, torch.Tensor]:
    """Algorithm 1 of MEMIT by whole passes of single texts and weights changed in place: layer -> update."""
    contexts = prefixes(model, tokenizer, config)
    values = search_values(model, tokenizer, [[e] for e in edits], config.layers[-1], contexts, config, CE, "output")
    share = getattr(model.config, "residual_multiplier", 1.0)  # Granite's; how much of a value is added
    originals, updates = {}, {}
    weights = key_weights(len(contexts), grouped=True)
    for i, layer in enumerate(config.layers):
        keys, missing = [], []
        for n, edit in enumerate(edits):
            subject, prompt = edit.query.subject, edit.query.prompt
            texts = [f"{context} {prompt}".strip() for context in contexts]
            seen = torch.stack([at_subject(model, tokenizer, text, subject, layer)[0] for text in texts])
            keys.append((weights[:, None] * seen).sum(0))
            output = at_subject(model, tokenizer, prompt, subject, config.layers[-1])[2]
            left = (values.outputs[n] + share * values.change[n] - output) / share
            missing.append(left / (len(config.layers) - i))
        updates[layer] = solve(layer, torch.stack(keys, 1).double(), torch.stack(missing, 1).double())
        view = weight_of(model.get_submodule(down_projection(model, layer)))
        originals[layer] = view.detach().clone()
        with torch.no_grad():
            view += updates[layer].float()
    with torch.no_grad():
        for layer, original in originals.items():
            weight_of(model.get_submodule(down_projection(model, layer))).copy_(original)
    return updates


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "qwen3", "opt", "granite"])
def test_memit_spreads_over_layers(family: str, tokenizer: Any) -> None:
    model = small(family, tokenizer)
    config = memit.Config(layers=(0, 1, 2), covariance_weight=20.0, **QUICK)
    moments = second_moments(model, tokenizer, config.layers or (), config.source, progress=False)

    def solve(layer: int, keys: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
        return missing @ keys.T @ torch.linalg.inv(20.0 * moments[layer].matrix() + keys @ keys.T)

    delta = made(memit, model, tokenizer, EDITS[:2], config, CE)
    for layer, update in naive_spread(model, tokenizer, EDITS[:2], config, solve).items():
        found = delta.changes[down_projection(model, layer)].matrix().double()
        assert float((found - update).norm()) < 5e-3 * float(update.norm())


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text", "olmo2"])
def test_memit_writes_one_value_where_a_norm_stands_behind_it(family: str, tokenizer: Any) -> None:
    """Parts of a change do not add up there: the last layer alone takes the value that was searched, as in ROME."""
    model, edit = small(family, tokenizer), EDITS[1]
    config = memit.Config(layers=(0, 1, 2), covariance_weight=1e-4, **{**QUICK, "context_lengths": ()})
    wanted = search_values(model, tokenizer, [[edit]], 2, ("",), config, CE, "value").change[0]
    delta = made(memit, model, tokenizer, [edit], config, CE)
    assert list(delta.changes) == [down_projection(model, 2)]
    before = at_subject(model, tokenizer, edit.query.prompt, "Japan", 2)[1]
    with deltas.active(model, delta):
        after = at_subject(model, tokenizer, edit.query.prompt, "Japan", 2)[1]
    torch.testing.assert_close(after - before, wanted, rtol=1e-2, atol=1e-3)


def test_alphaedit_keeps_what_earlier_edits_wrote(tokenizer: Any) -> None:
    model = small("llama", tokenizer)
    config = alphaedit.Config(layers=(0, 2), ridge=0.5, learning_rate=0.5, clamp=2.0, **QUICK)
    first = made(alphaedit, model, tokenizer, EDITS[:1], config, CE)
    moments = second_moments(model, tokenizer, config.layers or (), config.source, progress=False)
    path = down_projection(model, 0)
    assert first.extras["alphaedit:" + path].shape == (1, 64)
    again = WeightDelta.restore(first.model, first.tensors(), first.settings())

    def solve(layer: int, keys: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
        basis = alphaedit.null_space(moments[layer], config.null_space)
        projection, old = basis @ basis.T, first.extras["alphaedit:" + down_projection(model, layer)].T.double()
        inner = (keys @ keys.T + old @ old.T) @ projection + 0.5 * torch.eye(64, dtype=torch.float64)
        return missing @ keys.T @ projection @ torch.linalg.inv(inner)

    with deltas.active(model, again):
        second = made(alphaedit, model, tokenizer, EDITS[1:2], config, CE)
        naive = naive_spread(model, tokenizer, EDITS[1:2], config, solve)
    for layer, update in naive.items():
        found = second.changes[down_projection(model, layer)].matrix().double()
        assert float((found - update).norm()) < 5e-3 * float(update.norm())
    both = WeightDelta.sum([again, second])
    assert both.extras["alphaedit:" + path].shape == (2, 64)


CONFIGS = {
    rome: rome.Config(layer=1, **QUICK),
    memit: memit.Config(layers=(0, 1, 2), covariance_weight=20.0, **QUICK),
    alphaedit: alphaedit.Config(layers=(0, 1, 2), ridge=0.5, **QUICK),
}


@pytest.mark.parametrize("module", CONFIGS, ids=lambda m: m.__name__.rsplit(".", 1)[1])
def test_cases_at_once_equal_one_by_one(module: Any, tokenizer: Any) -> None:
    model, config = small("gpt_neox", tokenizer), CONFIGS[module]
    cases = [EDITS[:1], EDITS[1:], EDITS[2:]]
    each = module.edit_each(model, tokenizer, cases, config, CE)
    for edits, found in zip(cases, each, strict=True):
        alone = made(module, model, tokenizer, edits, config, CE)
        assert found.changes.keys() == alone.changes.keys()
        for path, change in alone.changes.items():
            wanted = change.matrix()
            assert float((found.changes[path].matrix() - wanted).norm()) < 0.02 * float(wanted.norm())


@pytest.mark.parametrize("module", CONFIGS, ids=lambda m: m.__name__.rsplit(".", 1)[1])
def test_a_case_that_fails_stops_nobody_else(module: Any, tokenizer: Any) -> None:
    model, config = small("llama", tokenizer), CONFIGS[module]
    poison = tokenizer(" Washington")["input_ids"][-1]

    def broken(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return CE(logits, targets) * torch.where(targets == poison, torch.nan, 1.0)

    each = module.edit_each(model, tokenizer, [EDITS[:1], EDITS[1:2]], config, broken)
    assert isinstance(each[0], EditFailed)
    assert "France" in str(each[0])
    assert isinstance(each[1], WeightDelta)
    if module.TOGETHER:
        with pytest.warns(UserWarning, match="France.* left out"):
            rest = made(module, model, tokenizer, EDITS[:2], config, broken)
        assert rest.changes


def test_memit_with_more_edits_than_a_matrix_has_rank(tokenizer: Any) -> None:
    model = small("llama", tokenizer)
    many = [dataclasses.replace(EDITS[0], target=word) for word in ("Edo", "Paris", "Washington", "Japan")] * 5
    config = memit.Config(layers=(1,), steps=2, statistics_tokens=400, context_lengths=((3, 1),))
    delta = made(memit, model, tokenizer, many, config, CE)
    change = delta.changes[down_projection(model, 1)]
    assert isinstance(change, deltas.Dense)
    assert change.matrix().isfinite().all()


def test_layers_are_fractions_of_the_depth(tokenizer: Any, tmp_path: Path) -> None:
    model = zoo.model("llama", vocabulary=len(tokenizer), num_hidden_layers=32)
    assert memit.chosen_layers(model, None) == [4, 5, 6, 7, 8]
    assert memit.chosen_layers(model, (7, 3)) == [3, 7]


def test_the_memory_weighs_in_proportion_to_the_width() -> None:
    assert memit.Config().weight(11_008) == 15_000
    assert memit.Config().weight(5504) == 7500
    assert memit.Config(covariance_weight=3.0).weight(64) == 3.0
