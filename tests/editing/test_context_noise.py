"""Noise in place of contexts (after arXiv 2401.07544): what it is, and what it must not touch."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support import zoo
from tests.support.small import EDITS, made
from torch import nn

from engramlab.base.errors import UserError
from engramlab.core import deltas
from engramlab.core.forward.hooks import reading
from engramlab.core.models.geometry import down_projection
from engramlab.core.training import losses
from engramlab.editing import method
from engramlab.editing.keys import context_noise
from engramlab.editing.keys.context_noise import ContextNoise, Moment
from engramlab.editing.keys.keyvalue import prefixes, written_contexts
from engramlab.editing.methods import alphaedit, memit, rome
from engramlab.editing.solve import valuesearch
from engramlab.editing.solve.valuesearch import search_values

CE = losses.get("cross-entropy")
QUICK: dict[str, Any] = {"steps": 4, "statistics_tokens": 400, "context_lengths": ((3, 3),)}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return zoo.ZOO["llama3"](zoo.SENTENCES)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGRAMLAB_CACHE", str(tmp_path / "cache"))


def small(family: str, tokenizer: Any) -> nn.Module:
    return zoo.model(family, vocabulary=len(tokenizer), num_hidden_layers=3, max_position_embeddings=128).eval()


def search(model: nn.Module, tokenizer: Any, groups: Any, config: Any, contexts: Any = None) -> Any:
    contexts = prefixes(model, tokenizer, config) if contexts is None else contexts
    return search_values(model, tokenizer, groups, 1, contexts, config, CE, "value")


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3_text"])
def test_noise_of_nothing_is_no_noise_bit_for_bit(family: str, tokenizer: Any) -> None:
    model = small(family, tokenizer)
    groups = [[edit] for edit in EDITS[:3]]
    still = rome.Config(**QUICK, noise="deep", noise_scale=0.0, noise_mean=False)
    found = search(model, tokenizer, groups, still)
    plain = search(model, tokenizer, groups, rome.Config(**QUICK), ("",) * 5)
    for name, value in vars(plain).items():
        assert torch.equal(vars(found)[name], value), name
    noisy = search(model, tokenizer, groups, rome.Config(**QUICK, noise="deep"))
    assert not torch.equal(noisy.change, plain.change)


def test_a_search_without_noise_sees_the_texts(tokenizer: Any) -> None:
    model, config = small("llama", tokenizer), rome.Config(**QUICK)
    assert prefixes(model, tokenizer, config) == ("", *written_contexts(model, tokenizer, config))
    assert prefixes(model, tokenizer, rome.Config(**QUICK, noise="edit", noise_rows=2)) == ("", "", "")
    assert ContextNoise.of(model, tokenizer, 1, config) is None


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_moments_are_those_of_whole_passes_of_single_texts(family: str, tokenizer: Any) -> None:
    model, config = small(family, tokenizer), rome.Config(**QUICK)
    contexts, prompts = written_contexts(model, tokenizer, config), context_noise.PROMPTS[:4]
    found = context_noise.shifts(model, tokenizer, [0, 2], contexts, prompts)

    def key(text: str, subject: str, layer: int) -> torch.Tensor:
        end = text.rindex(subject) + len(subject)
        rows = tokenizer(text, return_offsets_mapping=True, return_tensors="pt")
        place = next(i for i, (a, b) in enumerate(rows["offset_mapping"][0].tolist()) if a < end <= b)
        path = down_projection(model, layer)
        with reading(model, [path], (0, place)) as seen, torch.no_grad():
            model(input_ids=rows["input_ids"])
        return seen[path].read

    for layer, rows in found.items():
        naive = [
            key(f"{context} {prompt}", subject, layer) - key(prompt, subject, layer)
            for prompt, subject in prompts
            for context in contexts
        ]
        torch.testing.assert_close(rows, torch.stack(naive), rtol=1e-3, atol=1e-4)
    whole = context_noise.moments(model, tokenizer, config)
    of = context_noise.shifts(model, tokenizer, [0, 1, 2], contexts)[2]
    torch.testing.assert_close(whole[2].mean, of.sum(0) / len(of))
    torch.testing.assert_close(whole[2].deviation.square(), (of - of.mean(0)).square().sum(0) / (len(of) - 1))
    again = context_noise.moments(model, tokenizer, config)  # from the cache
    assert all(torch.equal(a, b) for a, b in zip(vars(whole[1]).values(), vars(again[1]).values(), strict=True))


def noise_of(search: Any, width: int = 6) -> ContextNoise:
    generator = torch.Generator().manual_seed(0)
    moment = Moment(torch.randn(width, generator=generator), torch.rand(width, generator=generator) + 0.5)
    return ContextNoise(search, {1: moment, 2: moment}, 1, 2)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_what_is_drawn_has_the_moments_measured(scale: float) -> None:
    noise = noise_of(rome.Config(**QUICK, noise="deep", noise_scale=scale))
    count = 4000
    drawn = torch.cat([noise.while_searching(EDITS[0], step, 1, 40) for step in range(count // 40)])
    wanted = noise.moments[1]
    error = scale * wanted.deviation / count**0.5
    assert float(((drawn.mean(0) - wanted.mean) / error).abs().max()) < 3
    spread = (scale * wanted.deviation).square()
    assert float(((drawn.var(0) - spread) / (spread * (2 / (count - 1)) ** 0.5)).abs().max()) < 3


def test_isotropic_noise_is_as_long_as_the_measured_one() -> None:
    noise = noise_of(rome.Config(**QUICK, noise="deep", noise_shape="isotropic"), width=400)
    drawn = noise.while_searching(EDITS[0], 0, 1, 200)
    wanted = noise.moments[1].mean.square().sum() + noise.moments[1].deviation.square().sum()
    assert float(drawn.square().sum(1).mean()) == pytest.approx(float(wanted), rel=0.03)


@pytest.mark.parametrize("name", ["rome", "memit", "alphaedit"])
def test_the_same_seed_gives_the_same_edit_in_any_batch(name: str, tokenizer: Any) -> None:
    model, module = small("llama", tokenizer), method.load(name)
    base = module.Config(**QUICK, noise="deep", seed=3)
    cases = [[edit] for edit in EDITS[:3]]
    many = method.make_each(model, tokenizer, cases, method=name, config=base)
    few = method.make_each(model, tokenizer, cases, method=name, config=dataclasses.replace(base, at_once=1))
    other = method.make_each(model, tokenizer, cases, method=name, config=dataclasses.replace(base, seed=4))

    def matrix(delta: Any) -> torch.Tensor:
        return torch.cat([change.matrix().flatten() for change in delta.changes.values()])

    for a, b, c in zip(many, few, other, strict=True):
        torch.testing.assert_close(matrix(a), matrix(b), rtol=1e-2, atol=1e-3)
        assert float((matrix(a) - matrix(c)).norm()) > 1e-2 * float(matrix(a).norm())


def test_noise_is_in_no_clean_row_and_in_no_row_of_what_the_subject_is(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, seen = small("llama", tokenizer), []
    real = valuesearch._Searching._noise

    def watched(self: Any, noise: Any) -> Any:
        found = real(self, noise)
        seen.append((len(self.change), self.owner.clone(), dict(found)))
        return found

    monkeypatch.setattr(valuesearch._Searching, "_noise", watched)
    wishes = [
        EDITS[0],
        dataclasses.replace(EDITS[0], query=dataclasses.replace(EDITS[0].query, prompt="The capital of France was")),
    ]
    config = rome.Config(**QUICK, noise="deep", noise_rows=2)
    values = search(model, tokenizer, [wishes, [EDITS[1]]], config)
    assert seen
    for groups, owner, found in seen:
        assert set(found) == {down_projection(model, layer) for layer in (1, 2)}
        for drawn in found.values():
            assert len(drawn) == len(owner)
            requests = len(owner) - groups
            clean = [*range(0, requests, 3), *range(requests, len(owner))]
            assert not drawn[clean].any()
            assert drawn[[r for r in range(len(owner)) if r not in clean]].any(1).all()
            torch.testing.assert_close(drawn[1], drawn[4])  # edits of one key are under one noise
    bare = search(model, tokenizer, [[EDITS[1]]], rome.Config(**QUICK), ("",))
    torch.testing.assert_close(values.keys[1, 0], bare.keys[0, 0])
    torch.testing.assert_close(values.outputs[1], bare.outputs[0])


def test_the_best_step_is_the_one_of_the_lowest_clean_loss(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tried = small("llama", tokenizer), []
    real = valuesearch._Searching.over

    def watched(self: Any, given: torch.Tensor, idle: torch.Tensor) -> torch.Tensor:
        tried.append((self.tried[0].clone(), float(self.clean[0]), float(given[0])))
        return real(self, given, idle)

    monkeypatch.setattr(valuesearch._Searching, "over", watched)
    config = rome.Config(**{**QUICK, "steps": 12}, noise="deep", noise_scale=3.0, learning_rate=0.1)
    found = search(model, tokenizer, [[EDITS[0]]], config)
    assert any(abs(clean - noisy) > 1e-3 for _, clean, noisy in tried)
    best = min(tried, key=lambda one: one[1])
    torch.testing.assert_close(found.change[0], best[0])


def test_what_noise_cannot_be(tokenizer: Any) -> None:
    model = small("llama", tokenizer)
    with pytest.raises(UserError, match="^noise_scale must be"):
        rome.Config(noise_scale=-1.0)
    with pytest.raises(UserError, match="^noise_rows must be at least 1, not 0"):
        rome.Config(noise_rows=0)
    with pytest.raises(UserError, match="^context_lengths must be at least 2 texts"):
        memit.Config(noise="edit", context_lengths=((10, 1),))
    with pytest.raises(UserError, match="takes at least 2 of them, not 1"):
        context_noise.shifts(model, tokenizer, [1], ["One text."])
    with pytest.raises(UserError, match="layer 0 is not noisy, but layers 1 to 2: none below the edited"):
        noise_of(rome.Config(**QUICK, noise="deep")).while_searching(EDITS[0], 0, 0, 2)


def test_an_edit_under_noise_holds_and_leaves_the_model_alone(tokenizer: Any) -> None:
    model = small("llama", tokenizer)
    before = {name: p.clone() for name, p in model.named_parameters()}
    for module in (rome, memit):
        delta = made(module, model, tokenizer, [EDITS[0]], module.Config(**QUICK, noise="edit"), CE)
        assert all(change.matrix().isfinite().all() for change in delta.changes.values())
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


@pytest.mark.parametrize("module", [rome, memit, alphaedit])
def test_what_is_prepared_is_not_measured_again(
    module: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, config = small("llama", tokenizer), module.Config(**QUICK, noise="edit")
    module.prepare(model, tokenizer, module.Config(**QUICK))
    assert not list(tmp_path.glob("cache/**/context-noise-*"))
    module.prepare(model, tokenizer, config)
    assert len(list(tmp_path.glob("cache/**/context-noise-*"))) == 1

    def measured(*given: Any, **more: Any) -> Any:
        raise AssertionError("measured again")

    monkeypatch.setattr(context_noise, "shifts", measured)
    assert made(module, model, tokenizer, [EDITS[0]], config, CE).changes


def test_noise_of_an_edited_model_is_told_and_not_kept(tokenizer: Any, tmp_path: Path) -> None:
    model, config = small("llama", tokenizer), rome.Config(**QUICK, noise="edit")
    first = made(rome, model, tokenizer, [EDITS[0]], rome.Config(**QUICK), CE)
    told = (
        "no noise of contexts in the unedited model is in the cache: that of the edited model serves, and is not kept"
    )
    with deltas.active(model, first), pytest.warns(UserWarning, match=told):
        edited = context_noise.moments(model, tokenizer, config)
    assert not list(tmp_path.glob("cache/**/context-noise-*"))
    plain = context_noise.moments(model, tokenizer, config)
    assert not torch.equal(edited[2].mean, plain[2].mean)
    with deltas.active(model, first), warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = context_noise.moments(model, tokenizer, config)
    assert torch.equal(kept[2].mean, plain[2].mean)
