"""``editing.change``: edits, asks before and after, and saves; what goes wrong leaves the model as it was."""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support import zoo
from tests.support.small import EDITS, quick
from torch import nn

from engramlab import editing
from engramlab.base.errors import UserError
from engramlab.base.facts import Case, Edit, Query
from engramlab.core import deltas
from engramlab.core.training import losses
from engramlab.editing import changing
from engramlab.editing.folders.opening import load_model
from engramlab.editing.judge import preview
from engramlab.editing.method import EditFailed
from engramlab.editing.methods import ft_m
from engramlab.measuring import answers

STRONG = ft_m.Config(steps=60, learning_rate=0.02)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return zoo.ZOO["llama3"](zoo.SENTENCES)


@pytest.fixture
def model(tokenizer: Any) -> nn.Module:
    return zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=256).eval()


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, b[name]) for name, value in a.items())


def test_a_change_is_judged_saved_and_comes_off(model: nn.Module, tokenizer: Any, tmp_path: Path) -> None:
    before, parts = weights(model), []
    changed = editing.change(
        model,
        tokenizer,
        EDITS[0],
        loss="overtone:mixing=0.5",
        config=STRONG,
        out=tmp_path / "edited",
        source="some/model",
        progress=lambda what, done, total: parts.append(what),
    )
    assert changed.holds()
    assert changed.made == [EDITS[0]]
    assert changed.rows[0]["written_after"].startswith("Washington")
    assert {row["role"] for row in changed.rows} == {"reliability", "locality"}
    assert list(dict.fromkeys(parts)) == ["asking the model as it is", "editing with ft-m", "asking the edited model"]
    assert deltas.installed(model) == (changed.delta,)
    after = weights(model)
    assert not same(before, after)
    changed.entry.remove()
    assert same(before, weights(model))

    (one,) = editing.listing(tmp_path / "edited")
    assert (one.record.method, one.record.loss) == ("ft-m", "overtone")
    assert one.record.loss_settings["mixing"] == 0.5
    assert one.record.config["steps"] == 60
    again, _ = editing.load(tmp_path / "edited")
    assert same(after, weights(again))
    second = editing.change(
        again, tokenizer, EDITS[1], config=STRONG, out=tmp_path / "edited", source=tmp_path / "edited"
    )
    assert second.holds()
    assert len(editing.undo(tmp_path / "edited", to=0)) == 2
    bare, _ = editing.load(tmp_path / "edited")
    assert same(before, weights(bare))


@pytest.mark.parametrize("target", ["on Washington\non the Seine", " ".join(["Paris", "Seine", "Japan"] * 9)])
def test_a_target_of_several_lines_or_many_tokens_is_judged_whole(
    model: nn.Module, tokenizer: Any, target: str
) -> None:
    config = ft_m.Config(steps=200, learning_rate=0.02)
    changed = editing.change(model, tokenizer, Edit(EDITS[0].query, target), config=config, closing=False)
    assert changed.holds()
    assert changed.rows[0]["generated"] == 1.0
    assert changed.rows[0]["written_after"].startswith(target)


def test_examples_in_docstrings() -> None:
    for module in (preview, answers):
        result = doctest.testmod(module)
        assert result.attempted >= 2
        assert result.failed == 0


def test_cases_keep_their_judges_and_names(model: nn.Module, tokenizer: Any) -> None:
    judged = Edit(EDITS[0].query, "Edo", judges=(Query("It is", "", role="locality", group="own"),))
    rows = editing.change(model, tokenizer, [Case("mine", (judged,)), EDITS[1]], config=STRONG).rows
    assert {row["case"] for row in rows} == {"mine", "Japan"}
    assert [row["prompt"] for row in rows if row["group"] == "own"] == ["It is"]


def test_what_fails_is_left_out_or_leaves_the_model(model: nn.Module, tokenizer: Any) -> None:
    before = weights(model)
    poison = tokenizer(" Washington")["input_ids"][-1]

    def broken(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return losses.cross_entropy(logits, targets) * torch.where(targets == poison, torch.nan, 1.0)

    with pytest.raises(EditFailed, match="France"):
        editing.change(model, tokenizer, EDITS[0], loss=broken)
    assert deltas.installed(model) == ()
    changed = editing.change(model, tokenizer, EDITS[:2], loss=broken, config=STRONG)
    assert changed.made == [EDITS[1]]
    assert [edit for edit, _ in changed.failed] == [EDITS[0]]
    assert "non-finite" in changed.failed[0][1]
    assert not changed.holds()
    changed.entry.remove()
    assert same(before, weights(model))


@pytest.mark.parametrize(
    ("edits", "how", "words"),
    [
        ([], {}, "give at least one edit"),
        ([EDITS[0], Edit(EDITS[0].query, "Edo")], {}, "no model can satisfy both"),
        ([Edit(EDITS[0].query, "  ")], {}, "no token of its own"),
        ([EDITS[0]], {"method": "ft-n"}, "did you mean 'ft-m'"),
        ([EDITS[0]], {"loss": "overtune"}, "loss 'overtune' is unknown"),
        ([EDITS[0]], {"out": "full"}, "exists and is no edited folder"),
    ],
)
def test_mistakes_are_found_before_anything_is_done(
    model: nn.Module, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edits: Any, how: Any, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("full").mkdir()
    Path("full/file").write_text("")
    monkeypatch.setattr(changing.evaluation, "before", lambda *_, **__: pytest.fail("the model was asked"))
    with pytest.raises(UserError, match=words):
        editing.change(model, tokenizer, edits, **how)


def test_what_cannot_be_kept_is_not_left_on_the_model(
    model: nn.Module, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = weights(model)

    def full(*_: Any, **__: Any) -> None:
        raise UserError("the disk is full")

    monkeypatch.setattr(changing.saving, "save", full)
    with pytest.raises(UserError, match="the disk is full"):
        editing.change(model, tokenizer, EDITS[0], out=tmp_path / "edited")
    assert deltas.installed(model) == ()
    assert same(before, weights(model))


def test_edits_made_one_by_one_are_records_of_their_own(model: nn.Module, tokenizer: Any, tmp_path: Path) -> None:
    """ROME's can be taken back alone; MEMIT's are solved together, and stay together."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    changed = editing.change(model, tokenizer, EDITS[:3], method="rome", config=quick("rome"), out=tmp_path / "rome")
    listed = editing.listing(tmp_path / "rome")
    assert [one.record.edits for one in listed] == [(edit,) for edit in changed.made]
    assert sorted(row["prompt"] for one in listed for row in one.record.rows) == sorted(
        r["prompt"] for r in changed.rows
    )
    for one in listed:
        asked = [row for row in one.record.rows if row["role"] == "reliability"]
        assert [row["prompt"] for row in asked] == [edit.query.prompt for edit in one.record.edits]
    (gone,) = editing.undo(tmp_path / "rome", edit=2)
    assert gone.record.edits == (EDITS[1],)
    changed.entry.remove()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    changed = editing.change(model, tokenizer, EDITS[:3], method="memit", config=quick("memit"), out=tmp_path / "memit")
    assert [len(one.record.edits) for one in editing.listing(tmp_path / "memit")] == [3]
    changed.entry.remove()


def test_what_is_judged_is_what_is_kept(tokenizer: Any, tmp_path: Path) -> None:
    source = zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=512).bfloat16()
    source.save_pretrained(str(tmp_path / "base"))
    tokenizer.save_pretrained(str(tmp_path / "base"))
    model, tokenizer = load_model(str(tmp_path / "base"), device="cpu")
    editing.change(model, tokenizer, EDITS[0], config=quick("ft-m"), out=tmp_path / "out")
    again, _ = editing.load(tmp_path / "out")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
