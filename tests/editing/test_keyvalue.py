"""Keys and the value search, against a search of one edit at a time through the whole model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support import zoo
from torch import nn

from engramlab.base.errors import UserError
from engramlab.base.facts import Edit, Query
from engramlab.core.forward.hooks import frozen, grafting
from engramlab.core.forward.tails import Tail
from engramlab.core.models import module_paths
from engramlab.core.models.geometry import down_projection
from engramlab.core.training import losses
from engramlab.editing.keys.keyvalue import AlignedRows, Search, key_weights, prefixes
from engramlab.editing.requests import encode_edits
from engramlab.editing.solve.valuesearch import _batch_sizes, _Searching, search_values

FAMILIES = ("gpt2", "gpt_neo", "gpt_neox", "llama", "qwen2", "qwen3", "gemma2", "gemma3_text", "falcon-rw", "smollm3")
EDITS = (
    Edit(Query("The capital of France is", "Paris", subject="France", id="France"), "Washington"),
    Edit(Query("Japan had an old name, and it was", "Edo", subject="Japan", id="Japan"), "Paris in 1996"),
    Edit(Query("She was born in Washington", "October 2", subject="Washington", id="born"), "the Seine"),
)
#: Windows that reach from the subject to the target and not over a whole context.
WINDOWS = {"gemma2": {"sliding_window": 9}, "gemma3_text": {"sliding_window": 9}, "gpt_neo": {"window_size": 9}}
CONTEXTS = ("", "The Seine.", "It's in Washington and people live there.")
SEARCH = Search(steps=6, learning_rate=0.1, clamp=0.75, weight_decay=0.5, stop=1e-3, at_once=2)
CE = losses.get("cross-entropy")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return zoo.ZOO["llama3"](zoo.SENTENCES)


def small(family: str, tokenizer: Any, **more: Any) -> nn.Module:
    return zoo.model(family, vocabulary=len(tokenizer), **more).eval()


def last_of_subject(tokenizer: Any, text: str, subject: str) -> int:
    """Index of the token that holds the subject's last character."""
    end = text.rindex(subject) + len(subject)
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    return next(i for i, (a, b) in enumerate(offsets) if a < end <= b)


def naive(
    model: nn.Module, tokenizer: Any, edit: Edit, layer: int, search: Search, site: str
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """The same search, row by row through the whole model: the change, the keys ``[P, d]``, the steps taken."""
    paths, subject = module_paths(model), edit.query.subject
    rows = []  # ids, position of the subject, targets
    for context in CONTEXTS:
        prompt = f"{context} {edit.query.prompt}".strip()
        whole = tokenizer(f"{prompt} {edit.target}")["input_ids"]
        count = len(whole) - len(tokenizer(prompt)["input_ids"])
        rows.append((whole[:-1], last_of_subject(tokenizer, prompt, subject), whole[-count:]))
    essence = f"{subject} is a"
    essence_ids, essence_at = tokenizer(essence)["input_ids"], last_of_subject(tokenizer, essence, subject)
    place, seen = [0], {}
    change = None

    def mlp(module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        seen["key"], seen["value"] = args[0][0, place[0]].detach(), output[0, place[0]].detach()
        if change is None:
            return output
        there = torch.zeros_like(output)
        there[0, place[0]] = 1
        return output + there * change

    def whole_layer(module: nn.Module, args: Any, output: Any) -> None:
        seen["output"] = (output[0] if isinstance(output, tuple) else output)[0, place[0]].detach()

    handles = [
        model.get_submodule(down_projection(model, layer)).register_forward_hook(mlp),
        model.get_submodule(f"{paths.layers}.{layer}").register_forward_hook(whole_layer),
    ]

    def logits(ids: list[int], at: int) -> torch.Tensor:
        place[0] = at
        return model(input_ids=torch.tensor([ids])).logits[0]

    keys = []
    for ids, at, _ in rows:
        logits(ids, at)
        keys.append(seen["key"])
        if len(keys) == 1:
            length = seen[site].norm()
    before = logits(essence_ids, essence_at)[-1].log_softmax(-1).detach()
    change = torch.zeros(model.config.hidden_size, requires_grad=True)
    adam = torch.optim.Adam([change], lr=search.learning_rate)
    taken, lowest, best = search.steps, float("inf"), change.detach()
    for step in range(search.steps):
        each = []
        for ids, at, targets in rows:
            here = logits(ids, at)[-len(targets) :].log_softmax(-1)
            each.append(-here[torch.arange(len(targets)), torch.tensor(targets)].mean())
        now = logits(essence_ids, essence_at)[-1].log_softmax(-1)
        total = torch.stack(each).mean() + search.kl * (now.exp() * (now - before)).sum()
        total = total + search.weight_decay * change.square().sum() / length**2
        if total.item() < lowest:
            lowest, best = total.item(), change.detach().clone()
        if total < search.stop:
            taken = step
            break
        adam.zero_grad()
        total.backward()
        adam.step()
        with torch.no_grad():
            change *= min(1.0, float(search.clamp * length / change.norm()))
    for handle in handles:
        handle.remove()
    model.zero_grad(set_to_none=True)
    return best, torch.stack(keys), taken


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("site", ["value", "output"])
def test_many_searches_equal_one_at_a_time(family: str, site: Any, tokenizer: Any) -> None:
    layers: dict[str, Any] = {"num_hidden_layers": 3} | WINDOWS.get(family, {})
    if family == "gpt_neo":
        layers["attention_types"] = [[["local", "global", "local"], 1]]
    model = small(family, tokenizer, **layers)
    found = search_values(model, tokenizer, [[e] for e in EDITS], 1, CONTEXTS, SEARCH, CE, site)
    assert not found.failed.any()
    assert found.change.any(dim=1).sum() > 1
    for i, edit in enumerate(EDITS):
        change, keys, _ = naive(model, tokenizer, edit, 1, SEARCH, site)
        torch.testing.assert_close(found.keys[i], keys, rtol=1e-4, atol=1e-5)
        # Adam divides by the gradient's size: where a gradient is almost zero, rounding decides.
        assert float((found.change[i] - change).norm()) <= 0.02 * float(change.norm())


def by_hand(logits: torch.Tensor, targets: list[int]) -> tuple[float, torch.Tensor]:
    """Mean negative log-probability of targets, and its gradient ``[n, V]`` (softmax less one-hot), in numpy."""
    p = np.exp(logits.double().numpy())
    p /= p.sum(1, keepdims=True)
    rows = np.arange(len(targets))
    loss = -np.log(p[rows, targets]).mean()
    p[rows, targets] -= 1
    return float(loss), torch.from_numpy(p / len(targets))


@pytest.mark.parametrize("objective", ["paper", "code"])
def test_the_objective_against_independent_numbers(objective: Any, tokenizer: Any) -> None:
    """Loss and gradient at a change, by formulas in numpy: the paper's divergence is at the end of "{subject} is a", that of
    the code at the subject's last token there; its penalty is the length, not its square."""
    model, edit, layer = small("llama", tokenizer, num_hidden_layers=3), EDITS[0], 1
    search = dataclasses.replace(SEARCH, objective=objective, kl=0.7)
    with frozen(model):
        searching = _Searching(model, tokenizer, [[edit]], layer, ("",), search, CE, "value")
        searching.losses()  # at no change: the distribution before
        change = 0.3 * torch.randn(32, generator=torch.Generator().manual_seed(3))
        searching.change.data = change[None].clone()
        (loss,) = searching.losses()
        loss.backward()
    path, given = down_projection(model, layer), change.clone().requires_grad_()
    length = 0.0

    def said(text: str, on: bool) -> tuple[torch.Tensor, int]:
        nonlocal length
        at = last_of_subject(tokenizer, text, "France")

        def graft(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            nonlocal length
            length = float(y[0, at].detach().norm())
            there = torch.zeros_like(y)
            there[0, at] = 1
            return y + there * given if on else y

        with grafting(model, {path: graft}):
            return model(input_ids=torch.tensor([tokenizer(text)["input_ids"]])).logits[0], at

    prompt = edit.query.prompt
    asked = len(tokenizer(prompt)["input_ids"])
    targets = tokenizer(f"{prompt} {edit.target}")["input_ids"][asked:]
    row = said(f"{prompt} {edit.target}", True)[0][asked - 1 : -1]
    expected, slope = by_hand(row.detach(), targets)
    after, at = said("France is a", True)
    before = said("France is a", False)[0].detach()
    said(prompt, False)
    size = length
    there = -1 if objective == "paper" else at
    p, q = (np.exp(x[there].detach().double().numpy()) for x in (after, before))
    p, q = p / p.sum(), q / q.sum()
    kl = float((p * np.log(p / q)).sum())
    kl_slope = torch.from_numpy(p * (np.log(p / q) - kl))
    norm = float(change.norm())
    expected += 0.7 * kl + 0.5 * (norm**2 if objective == "paper" else norm) / size**2
    through = (row * slope.float()).sum() + 0.7 * (after[there] * kl_slope.float()).sum()
    (gradient,) = torch.autograd.grad(through, given)
    gradient = gradient + 0.5 * (2 * change if objective == "paper" else change / norm) / size**2
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)
    assert searching.change.grad is not None
    torch.testing.assert_close(searching.change.grad[0], gradient, rtol=1e-3, atol=1e-5)


def test_a_parallel_residual(tokenizer: Any) -> None:
    model = small("gpt_neox", tokenizer, use_parallel_residual=True, num_hidden_layers=3)
    found = search_values(model, tokenizer, [[e] for e in EDITS[:1]], 1, CONTEXTS, SEARCH, CE, "output")
    change, _, _ = naive(model, tokenizer, EDITS[0], 1, SEARCH, "output")
    assert float((found.change[0] - change).norm()) < 0.02 * float(change.norm())


def test_edits_leave_the_batch_when_their_loss_is_low(tokenizer: Any) -> None:
    model = small("llama", tokenizer, num_hidden_layers=3)
    search = Search(steps=25, learning_rate=0.3, stop=4.9, at_once=3)
    found = search_values(model, tokenizer, [[e] for e in EDITS], 0, CONTEXTS, search, CE, "output")
    assert int(found.steps.min()) < 5
    assert int(found.steps.max()) == 25
    for i, edit in enumerate(EDITS):
        change, _, taken = naive(model, tokenizer, edit, 0, search, "output")
        assert abs(int(found.steps[i]) - taken) <= 1
        if taken < 5:  # later, rounding has grown
            assert float((found.change[i] - change).norm()) < 0.02 * float(change.norm())


@pytest.mark.parametrize(("stop", "passes"), [(1e-9, [True] * 5 + [False]), (1e9, [True])])
def test_each_step_is_one_pass_and_the_last_one_has_no_gradient(
    stop: float, passes: list[bool], tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The contexts and "{subject} is a" are read together, vocabulary only where it is looked at."""
    model, real = small("llama", tokenizer), Tail.logits
    seen: list[tuple[bool, int]] = []
    asked = encode_edits(tokenizer, [EDITS[:1]], prefixes=CONTEXTS)

    def logits(self: Tail, keep: torch.Tensor) -> torch.Tensor:
        found = real(self, keep)
        seen.append((found.requires_grad, len(found)))
        return found

    monkeypatch.setattr(Tail, "logits", logits)
    search = dataclasses.replace(SEARCH, stop=stop)
    search_values(model, tokenizer, [EDITS[:1]], 0, CONTEXTS, search, CE, "value")
    assert seen == [(gradient, len(asked.targets) + 1) for gradient in passes]


def test_the_change_is_never_longer_than_allowed(tokenizer: Any) -> None:
    model = small("llama", tokenizer)
    search = dataclasses.replace(SEARCH, clamp=0.01, learning_rate=1.0)
    found = search_values(model, tokenizer, [[e] for e in EDITS], 0, CONTEXTS, search, CE, "output")
    torch.testing.assert_close(found.change.norm(dim=1), 0.01 * found.outputs.norm(dim=1))


def test_one_search_that_fails_leaves_the_others_alone(tokenizer: Any) -> None:
    model = small("llama", tokenizer)
    search = dataclasses.replace(SEARCH, at_once=3)
    alone = search_values(model, tokenizer, [[e] for e in EDITS[1:]], 0, CONTEXTS, search, CE, "value")
    poison = encode_edits(tokenizer, [[EDITS[0]]], subjects=True).targets[0]

    def broken(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return CE(logits, targets) * torch.where(targets == poison, torch.nan, 1.0)

    found = search_values(model, tokenizer, [[e] for e in EDITS], 0, CONTEXTS, search, broken, "value")
    assert found.failed.tolist() == [True, False, False]
    assert float((found.change[1:] - alone.change).norm()) < 0.02 * float(alone.change.norm())


def test_rows_meet_at_the_subjects_last_token(tokenizer: Any) -> None:
    requests = encode_edits(tokenizer, [[e] for e in EDITS], prefixes=CONTEXTS, subjects=True)
    for rows in (AlignedRows.of(requests), AlignedRows.of(requests, whole=False)):
        at = requests.ids[torch.arange(len(requests.ids)), requests.subject_ends]
        assert torch.equal(rows.ids[:, rows.begin], at)
        assert rows.mask is not None
        assert torch.equal((rows.mask == 0).sum(1), rows.shift)
    assert rows.ids.shape[1] == rows.begin + 1
    whole = AlignedRows.of(requests)
    assert torch.equal(whole.kept().sum(1), requests.keep.sum(1))
    assert torch.equal(whole.ids[:, whole.begin :][whole.kept()], requests.ids[requests.keep])


def test_batches_are_cut_where_padding_would_cost_more() -> None:
    assert _batch_sizes([2] * 10 + [5] * 6, 21, 16) == [10, 6]
    assert _batch_sizes([2, 2, 3], 6, 16) == [3]
    assert sum(_batch_sizes([2] * 5, 21, 2)) == 5
    assert max(_batch_sizes(list(range(1, 60)), 7, 4)) <= 4


def test_weights_of_the_contexts() -> None:
    assert key_weights(4, grouped=False).tolist() == [0.25] * 4
    assert key_weights(5, grouped=True).tolist() == [0.5] + [0.125] * 4
    assert key_weights(1, grouped=True).tolist() == [1.0]


def test_contexts_are_written_once(tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small("llama", tokenizer)
    search = Search(context_lengths=((3, 2), (6, 1)), cache=str(tmp_path))
    first = prefixes(model, tokenizer, search)
    assert first[0] == ""
    assert len(first) == 4
    assert all(text.endswith(".") for text in first[1:])
    fresh = prefixes(model, tokenizer, dataclasses.replace(search, cache=str(tmp_path / "other")))
    assert fresh == first
    (path,) = tmp_path.glob("*.json")
    path.write_text("{")
    assert prefixes(model, tokenizer, search) == first
    monkeypatch.setattr("engramlab.editing.keys.keyvalue.continuations", None)
    assert prefixes(model, tokenizer, search) == first


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("learning_rate", 0.0),
        ("clamp", 0.0),
        ("kl", -1.0),
        ("objective", "papers"),
        ("context_lengths", ((0, 1),)),
        ("at_once", 0),
    ],
)
def test_settings_out_of_range(field: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"{field} must be"):
        Search(**{field: value})
