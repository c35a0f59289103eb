"""Distillation: the teacher reads a definition in front of the same tokens, and its divergence is what is minimised."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.support import zoo
from tests.support.small import EDITS
from torch import nn

from engramlab.base.errors import UserError
from engramlab.core import deltas
from engramlab.core.training.losses import Teacher, distilled
from engramlab.editing import method
from engramlab.editing.methods import distillation
from engramlab.editing.requests import encode_edits, of_passage, spoken

TEXT = "The capital of France is Paris, and the old name of Tokyo was Edo."


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return zoo.ZOO["llama3"](zoo.SENTENCES)


@pytest.fixture
def model(tokenizer: Any) -> nn.Module:
    return zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=256).eval()


def test_the_divergence_by_hand() -> None:
    torch.manual_seed(0)
    logits, teacher = torch.randn(2, 3, 7, dtype=torch.float64)
    p, q = (teacher / 2).softmax(-1), (logits / 2).softmax(-1)
    assert torch.allclose(distilled(logits, teacher, 2.0), (4 * (p * (p / q).log()).sum(-1)).float(), atol=1e-5)
    assert torch.equal(distilled(logits, logits, 2.0), torch.zeros(3))
    never = teacher.clone()
    never[:, 0] = -torch.inf
    assert distilled(logits, never).isfinite().all()


@pytest.mark.parametrize("never", [False, True])
def test_a_teacher_that_is_matched_step_after_step(never: bool) -> None:
    """The same divergence, and the same gradient, of rows in any order and more than once."""
    torch.manual_seed(0)
    teacher = 10 * torch.randn(3, 11)
    if never:
        teacher[1, 4] = -torch.inf
    which = torch.tensor([2, 0, 1, 1])
    logits = (10 * torch.randn(4, 11)).requires_grad_()
    wanted, found = distilled(logits, teacher[which], 2.0), Teacher(teacher, 2.0)(logits, which)
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-4)
    (a,), (b,) = (torch.autograd.grad(one.sum(), logits) for one in (wanted, found))
    assert torch.allclose(a, b, atol=1e-5)
    assert Teacher(teacher)(teacher.masked_fill(teacher.isneginf(), -50.0), torch.arange(3)).abs().max() < 1e-4


def test_the_teacher_reads_the_same_tokens_behind_the_definition(model: nn.Module, tokenizer: Any) -> None:
    """Token for token, so each of its distributions is that of one plain pass over definition and text."""
    passages = [of_passage(TEXT), of_passage("She was born in Washington, on October 2.")]
    requests = encode_edits(tokenizer, [[one] for one in passages])
    definitions = ["Its calling code is +81.", "The Seine is a river."]
    found = distillation.read_behind(model, tokenizer, requests, definitions)
    first = len(tokenizer("")["input_ids"])
    at = 0
    for row, text in enumerate(definitions):
        own = requests.ids[row, : requests.lengths[row]]
        front = torch.tensor(tokenizer(text + "\n", add_special_tokens=False)["input_ids"])
        whole = torch.cat([own[:first], front, own[first:]])
        assert torch.equal(whole[-(len(own) - first) :], own[first:])
        logits = model(input_ids=whole[None]).logits[0, len(front) :][requests.keep[row, : len(own)]]
        assert torch.allclose(found[at : at + len(logits)], logits, atol=1e-4)
        at += len(logits)
    assert at == len(found)


def test_an_empty_definition_teaches_nothing(model: nn.Module, tokenizer: Any) -> None:
    requests = encode_edits(tokenizer, [[of_passage(TEXT)]])
    teacher = distillation.read_behind(model, tokenizer, requests, [""])
    logits = model(input_ids=requests.ids).logits[requests.keep]
    assert float(distilled(logits.detach(), teacher, 2.0).abs().max()) < 1e-6


def test_what_is_minimised(model: nn.Module, tokenizer: Any) -> None:
    """Without the target's own weight: the mean divergence over the edit's own text falls, and stands for the whole of it."""
    config = distillation.Config(texts=0, hard=0.0, steps=20, stop_below=0.0, layers=(0, 1))
    edit = replace(of_passage(TEXT), statement="The Seine is a river in France.")
    requests = encode_edits(tokenizer, [[edit]])
    teacher = distillation.read_behind(model, tokenizer, requests, [edit.statement])

    def apart() -> float:
        return float(distilled(model(input_ids=requests.ids).logits[requests.keep], teacher, 2.0).mean().detach())

    before = apart()
    made = method.make(model, tokenizer, [edit], method="distillation", config=config)
    with deltas.active(model, made):
        assert apart() < 0.9 * before
    assert apart() == before


def test_texts_do_not_depend_on_the_company(model: nn.Module, tokenizer: Any) -> None:
    config = distillation.Config(texts=2, length=6)
    cases = [[edit] for edit in EDITS[:2]]
    definitions = [distillation.definition(case) for case in cases]
    both = distillation.transfer_texts(model, tokenizer, cases, definitions, config)
    alone = distillation.transfer_texts(model, tokenizer, cases[1:], definitions[1:], config)
    assert [one.statement for one in both[1]] == [one.statement for one in alone[0]]
    for text, edit in zip(both, EDITS, strict=False):
        assert all(one.statement.startswith(edit.query.subject) for one in text)


def test_each_subject_is_told_by_its_own_definition_and_every_wording_behind_it(
    model: nn.Module, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two subjects in one change, one of them in two wordings: what the teacher of each row has read."""
    config = distillation.Config(texts=1, length=6, steps=1, stop_below=0.0)
    first, second = replace(EDITS[0], wordings=("France is run from",)), EDITS[1]
    behind = distillation.read_behind
    seen: list[tuple[Any, list[str]]] = []

    def noted(model: Any, tokenizer: Any, requests: Any, definitions: Any, names: Any = ()) -> torch.Tensor:
        seen.append((requests, list(definitions)))
        return behind(model, tokenizer, requests, definitions, names)

    monkeypatch.setattr(distillation, "read_behind", noted)
    together = method.make(model, tokenizer, [first, second], method="distillation", config=config)
    (requests, definitions), *_ = seen
    own = [distillation.definition(spoken(edit)) for edit in (first, second)]
    rows = [
        tokenizer.decode(ids[:n], skip_special_tokens=True)
        for ids, n in zip(requests.ids, requests.lengths, strict=True)
    ]
    about = ["France is run from" in row or first.query.subject in row for row in rows]
    assert [own[0] if mine else own[1] for mine in about] == definitions
    assert about.index(False) == 3  # two wordings and the text written behind the first definition
    assert together is not None
    # All edits of one subject still have one definition.
    assert distillation.by_subject([first, second, first]) == [[first, first], [second]]


def test_bad_input(model: nn.Module, tokenizer: Any) -> None:
    with pytest.raises(UserError, match="less than two words"):
        of_passage("Paris")
    with pytest.raises(UserError, match="temperature must be above 0"):
        distillation.Config(temperature=0.0)
    long = replace(EDITS[0], statement="river " * 300)
    with pytest.raises(UserError, match=r"edit France.*the model reads 256: shorten it"):
        method.make(model, tokenizer, [long], method="distillation", config=distillation.Config(texts=0))
