"""The contract of editing methods, applied to every file in editing/methods."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import typing
import unicodedata
from typing import Any

import pytest
import torch
from tests.support import zoo
from tests.support.small import EDITS, quick
from tokenizers import normalizers
from torch import nn

from engramlab.base.errors import UserError
from engramlab.base.facts import Edit, Query
from engramlab.core import deltas
from engramlab.core.deltas import Delta, fingerprint
from engramlab.core.text.tokens import encode_queries
from engramlab.core.training import losses
from engramlab.editing import method
from engramlab.editing.requests import sharing
from engramlab.measuring.asking import as_read
from engramlab.measuring.scoring import score

#: One of each kind: how projections are fused, where norms and MLPs stand, what becomes of logits. The others are slow.
FAMILIES = ("gpt2", "gpt_neox", "llama", "qwen3", "gemma2", "gemma3_text", "opt", "phi3", "falcon", "granite")
OTHERS = tuple(family for family in zoo.DENSE if family not in FAMILIES)
NAMES = method.names()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return zoo.ZOO["llama3"](zoo.SENTENCES)


def small(family: str, tokenizer: Any, dtype: torch.dtype = torch.float32) -> nn.Module:
    context = {"max_position_embeddings": 256}
    seed = (
        1 if family in ("codegen", "gpt_neo") else 0
    )  # half of a random network's keys are AlphaEdit's to write with, or not
    return zoo.model(family, vocabulary=len(tokenizer), seed=seed, **context).to(dtype).eval()


def snapshot(model: nn.Module) -> dict[str, Any]:
    return {
        "weights": {n: p.detach().clone() for n, p in model.named_parameters()},
        "requires": [p.requires_grad for p in model.parameters()],
        "grads": [p.grad is None for p in model.parameters()],
        "modes": [m.training for m in model.modules()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()],
        "dict": sorted(model.__dict__),
        "random": torch.get_rng_state(),
    }


def unchanged(before: dict[str, Any], after: dict[str, Any]) -> None:
    for name, weight in before["weights"].items():
        assert torch.equal(weight, after["weights"][name]), f"{name} changed"
    assert torch.equal(before["random"], after["random"]), "the global generator moved"
    for key in ("requires", "grads", "modes", "hooks", "dict"):
        assert before[key] == after[key], f"{key} changed"


#: Methods that only put text before the prompt: a random network makes nothing of it, so whether the target becomes likelier is
#: asked of a real one (test_real_model.py).
BESIDE = ("eren", "grace", "ike", "lte", "melo", "p-tuning", "wise")  # what they make is no change of weights
IN_CONTEXT = ("eren", "ike", "lte")


def likelihood(model: nn.Module, tokenizer: Any, edit: Edit) -> float:
    """Log-probability of the target after the prompt, whatever is on the model."""
    (prompt,) = as_read(model, tokenizer, [edit.query.prompt])
    encoded = encode_queries(tokenizer, [Query(prompt, edit.target)])
    return float(score(model, encoded.sequences, ends=encoded.prompt_ends).logprobs.sum())


@pytest.mark.parametrize("family", [*FAMILIES, *(pytest.param(other, marks=pytest.mark.slow) for other in OTHERS)])
@pytest.mark.parametrize("name", NAMES)
def test_the_target_becomes_likelier_and_the_model_comes_back(name: str, family: str, tokenizer: Any) -> None:
    model = small(family, tokenizer)
    model.train()
    next(iter(model.parameters())).requires_grad_(False)
    before, was = snapshot(model), likelihood(model, tokenizer, EDITS[0])
    with method.applied(model, tokenizer, EDITS[0], method=name, config=quick(name)) as delta:
        assert delta.model == fingerprint(model)
        assert (delta.context("x") != "x") == bool(delta.reads)
        assert (delta.reads == "notes") == (name in IN_CONTEXT)
        assert likelihood(model, tokenizer, EDITS[0]) > was or name in IN_CONTEXT
    unchanged(before, snapshot(model))


@pytest.mark.parametrize("name", NAMES)
def test_bf16(name: str, tokenizer: Any) -> None:
    model = small("llama", tokenizer, torch.bfloat16)
    before, was = snapshot(model), likelihood(model, tokenizer, EDITS[0])
    with method.applied(model, tokenizer, EDITS[0], method=name, config=quick(name)) as delta:
        assert isinstance(delta, deltas.WeightDelta) == (name not in BESIDE)
        assert likelihood(model, tokenizer, EDITS[0]) > was or name in IN_CONTEXT
    unchanged(before, snapshot(model))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("name", NAMES)
def test_on_a_gpu(name: str, tokenizer: Any) -> None:
    model = small("llama", tokenizer).cuda()
    was = likelihood(model, tokenizer, EDITS[0])
    with method.applied(model, tokenizer, EDITS[0], method=name, config=quick(name)):
        assert likelihood(model, tokenizer, EDITS[0]) > was or name in IN_CONTEXT


@pytest.mark.parametrize("name", NAMES)
def test_sequential_edits_unwind_in_order(name: str, tokenizer: Any) -> None:
    model = small("llama", tokenizer)
    states = [snapshot(model)]
    entries = []
    for edit in EDITS[:3]:
        made = method.make(model, tokenizer, [edit], method=name, config=quick(name))
        unchanged(states[-1], snapshot(model))
        entries.append(deltas.install(model, made))
        states.append(snapshot(model))
    for entry in reversed(entries):
        unchanged(states.pop(), snapshot(model))
        entry.remove()
    unchanged(states.pop(), snapshot(model))


@pytest.mark.parametrize("name", [n for n in NAMES if n not in IN_CONTEXT])
def test_several_edits_in_one_call(name: str, tokenizer: Any) -> None:
    model = small("llama", tokenizer)
    was = [likelihood(model, tokenizer, edit) for edit in EDITS[:3]]
    with method.applied(model, tokenizer, EDITS[:3], method=name, config=quick(name)):
        now = [likelihood(model, tokenizer, edit) for edit in EDITS[:3]]
    assert sum(b > a for a, b in zip(was, now, strict=True)) >= 2, (was, now)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("name", NAMES)
def test_many_at_once_equal_one_by_one(name: str, family: str, tokenizer: Any) -> None:
    model = small(family, tokenizer)
    cases = [[edit] for edit in EDITS[:3]]
    before, config = snapshot(model), quick(name)
    if hasattr(config, "steps"):
        config = dataclasses.replace(config, steps=10)  # each step of Adam makes more of the last one's rounding
    each = method.make_each(model, tokenizer, cases, method=name, loss=losses.get("cross-entropy"), config=config)
    unchanged(before, snapshot(model))
    for edits, delta in zip(cases, each, strict=True):
        assert isinstance(delta, Delta)
        alone = method.make(model, tokenizer, edits, method=name, config=config)
        with deltas.active(model, delta):
            many = likelihood(model, tokenizer, edits[0])
        with deltas.active(model, alone):
            assert many == pytest.approx(likelihood(model, tokenizer, edits[0]), rel=1e-2, abs=1e-2)


@pytest.mark.parametrize("name", NAMES)
def test_deltas_survive_saving(name: str, tokenizer: Any) -> None:
    model = small("llama", tokenizer)
    delta = method.make(model, tokenizer, EDITS[:1], method=name, config=quick(name))
    kind = method.kinds()[delta.kind]
    again = kind.restore(delta.model, delta.tensors(), delta.settings())
    with deltas.active(model, delta):
        first = likelihood(model, tokenizer, EDITS[0])
    with deltas.active(model, again):
        assert likelihood(model, tokenizer, EDITS[0]) == first


@pytest.mark.parametrize("name", [n for n in NAMES if method.load(n).TAKES_LOSS])
def test_every_loss_fits(name: str, tokenizer: Any) -> None:
    model = small("llama", tokenizer)
    was = likelihood(model, tokenizer, EDITS[0])
    with method.applied(model, tokenizer, EDITS[0], method=name, loss="overtone", config=quick(name)):
        assert likelihood(model, tokenizer, EDITS[0]) > was


@pytest.mark.parametrize("name", [n for n in NAMES if method.load(n).TAKES_LOSS])
def test_one_edit_that_fails_leaves_the_others_alone(name: str, tokenizer: Any) -> None:
    model = small("llama", tokenizer)
    before = snapshot(model)

    def broken(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return losses.cross_entropy(logits, targets) * torch.nan

    with pytest.raises(method.EditFailed, match="Japan"):
        method.make(model, tokenizer, [EDITS[1]], method=name, loss=broken, config=quick(name))
    unchanged(before, snapshot(model))


@pytest.mark.parametrize("name", [n for n in NAMES if method.load(n).NEEDS_SUBJECT])
def test_a_subject_that_is_not_in_the_prompt_is_refused(name: str, tokenizer: Any) -> None:
    model = small("llama", tokenizer)
    edit = Edit(Query("The capital of France is", "Paris", subject="Spain", id="7"), "Japan")
    with pytest.raises(UserError, match=r"edit 7 .*'Spain' is not in the prompt"):
        method.make(model, tokenizer, [edit], method=name, config=quick(name))


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_target_is_refused(name: str, tokenizer: Any) -> None:
    model = small("llama", tokenizer)
    edit = Edit(Query("The capital of France is", "Paris", subject="France", id="8"), "  ")
    with pytest.raises(UserError, match="edit 8"):
        method.make(model, tokenizer, [edit], method=name, config=quick(name))


def test_an_unknown_method_is_named_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'ft-m'"):
        method.load("ft-n")


@pytest.mark.parametrize("family", zoo.EXPERTS)
def test_of_a_mixture_of_experts_the_attention_is_edited(family: str, tokenizer: Any) -> None:
    model = small(family, tokenizer)
    before, was = snapshot(model), likelihood(model, tokenizer, EDITS[0])
    with method.applied(model, tokenizer, EDITS[0], method="lora", config=quick("lora")):
        assert likelihood(model, tokenizer, EDITS[0]) > was
    unchanged(before, snapshot(model))
    with method.applied(model, tokenizer, EDITS[0], method="ike", config=quick("ike")) as delta:
        assert delta.context("x") != "x"
    for name in NAMES:
        if method.touches(name) == "mlp":
            with pytest.raises(
                UserError,
                match=f"several experts, and {name} changes an MLP; choose .*: eren, ike, lora, lte, p-tuning",
            ):
                method.make(model, tokenizer, EDITS[:1], method=name)
    down = dataclasses.replace(quick("lora"), projections=("mlp_down",))
    with pytest.raises(UserError, match="layer 0 of this .* has no MLP of its own"):
        method.make(model, tokenizer, EDITS[:1], method="lora", config=down)


@pytest.mark.parametrize("name", NAMES)
def test_weights_that_are_no_numbers_are_named(name: str, tokenizer: Any) -> None:
    model = small("llama", tokenizer)
    with torch.no_grad():
        model.get_submodule("model.layers.0.self_attn.v_proj").weight[0, 0] = torch.nan  # type: ignore[index,operator]
    with pytest.raises(
        UserError, match=r"model\.layers\.0\.self_attn\.v_proj\.weight holds values that are no numbers"
    ):
        method.make(model, tokenizer, EDITS[:1], method=name, config=quick(name))


def test_a_masked_model_is_refused(tokenizer: Any) -> None:
    model = small("llama", tokenizer)
    model.config.is_causal, model.config.mask_token_id = False, 3  # as `models.build(..., masked=True)` writes them
    with pytest.raises(UserError, match="masked language model"):
        method.make(model, tokenizer, [EDITS[0]], method="ft-m")
    with pytest.raises(UserError, match="masked language model"):
        method.make_each(model, tokenizer, [[EDITS[0]]], method="ft-m", loss=losses.get("cross-entropy"), config=None)


@pytest.mark.parametrize("name", NAMES)
def test_settings_that_cannot_be_meant_are_refused_by_their_option(name: str) -> None:
    config = method.load(name).Config()
    kinds = typing.get_type_hints(type(config))
    tried = 0
    for option, kind in kinds.items():
        listed = {kind, *typing.get_args(kind)}
        wrong = [math.nan, math.inf, 1e30, -1.0] if float in listed else [-1] if int in listed else []
        for value in wrong:
            with pytest.raises(UserError, match=f"^{option} must be"):
                dataclasses.replace(config, **{option: value})
        tried += bool(wrong)
    assert tried


@pytest.mark.parametrize("name", ["rome", "memit", "alphaedit"])
def test_a_search_that_finds_nothing_better_than_no_change_has_failed(name: str, tokenizer: Any) -> None:
    model = small("llama", tokenizer)
    before = snapshot(model)

    def hopeless(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (
            1.0 + logits.float().square().sum(-1).mul(0.0) + (logits.float() - logits.detach().float()).square().sum(-1)
        )

    config = dataclasses.replace(quick(name), steps=3)
    (one,) = method.make_each(model, tokenizer, [[EDITS[0]]], method=name, loss=hopeless, config=config)
    assert isinstance(one, method.EditFailed)
    assert "no change of the value that is better than none" in str(one)
    unchanged(before, snapshot(model))


@pytest.mark.parametrize("name", NAMES)
def test_a_subject_in_pieces_is_found(name: str, tokenizer: Any) -> None:
    composed = copy.deepcopy(tokenizer)
    composed.backend_tokenizer.normalizer = normalizers.NFC()
    model = small("llama", composed)
    prompt, subject = "The capital of São Tomé is", "São Tomé"
    for asked in (subject, unicodedata.normalize("NFD", subject)):
        wish = Edit(Query(unicodedata.normalize("NFD", prompt), "", subject=asked), "Washington")
        method.make(model, composed, [wish], method=name, config=quick(name))


@pytest.mark.parametrize("name", [name for name in NAMES if method.load(name).NEEDS_SUBJECT])
def test_edits_with_one_key_share_one_value(name: str, tokenizer: Any) -> None:
    model = small("llama", tokenizer)
    wishes = [
        Edit(Query("Japan was the", "", subject="Japan"), "Seine"),
        Edit(Query("Japan is", "", subject="Japan"), "Washington"),
        Edit(Query("In France the capital is", "", subject="France"), "Edo"),
    ]
    assert sharing(tokenizer, wishes) == [[0, 1], [2]]
    delta = method.make(model, tokenizer, wishes, method=name, config=quick(name))
    alone = method.make(model, tokenizer, wishes[:1], method=name, config=quick(name))
    asked = encode_queries(tokenizer, [Query(wish.query.prompt, wish.target) for wish in wishes])

    def likely() -> list[float]:
        found = score(model, asked.sequences)
        return [float(found.logprobs[a:b].sum()) for a, b in itertools.pairwise(found.offsets)]

    before = likely()
    with deltas.active(model, delta):
        together = likely()
    with deltas.active(model, alone):
        only = likely()
    assert all(now > was for now, was in zip(together, before, strict=True))
    assert together[1] > only[1]
