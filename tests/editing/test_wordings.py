"""One edit in several wordings: a value that serves all, a row more where weights are trained, and none that judges."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.support import zoo
from tests.support.small import EDITS, quick

from engramlab.base.errors import UserError
from engramlab.base.facts import Case, Edit, Query
from engramlab.core.deltas import WeightDelta
from engramlab.core.training.losses import LOSSES
from engramlab.editing import method, wording
from engramlab.editing.requests import encode_edits, spoken
from engramlab.editing.solve.valuesearch import search_values

WORDS = ("Of France the capital is", "As for France, it is")


def pair() -> tuple[Any, Any]:
    tokenizer = zoo.ZOO["llama3"]([*zoo.SENTENCES, *WORDS])
    return zoo.model("llama", vocabulary=len(tokenizer)), tokenizer


def test_rows_of_wordings_stand_behind_the_prompt() -> None:
    _, tokenizer = pair()
    edit = replace(EDITS[0], wordings=WORDS)
    together = encode_edits(tokenizer, [[edit], [EDITS[1]]], subjects=True)
    apart = encode_edits(tokenizer, [spoken(edit), [EDITS[1]]], subjects=True)
    assert [one.query.prompt for one in spoken(edit)] == [EDITS[0].query.prompt, *WORDS]
    assert torch.equal(together.ids, apart.ids)
    assert together.owner.tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("name", ["rome", "memit", "alphaedit"])
def test_one_wording_is_the_edit_as_it_was_and_company_changes_nothing(name: str) -> None:
    model, tokenizer = pair()
    plain, more = [EDITS[0]], [replace(EDITS[0], wordings=WORDS)]
    how: dict[str, Any] = {"method": name, "config": quick(name)}
    alone = method.make_each(model, tokenizer, [plain], **how)[0]
    wordy = method.make_each(model, tokenizer, [more], **how)[0]
    both = method.make_each(model, tokenizer, [plain, more], **how)
    assert isinstance(alone, WeightDelta)
    assert isinstance(wordy, WeightDelta)
    for one, other in ((alone, both[0]), (wordy, both[1])):
        assert isinstance(other, WeightDelta)
        for path, tensor in one.tensors().items():
            torch.testing.assert_close(tensor, other.tensors()[path], atol=1e-4, rtol=1e-3)
    first = next(iter(alone.changes))
    assert not torch.allclose(alone.changes[first].matrix(), wordy.changes[first].matrix())


def test_wordings_share_one_value_whose_loss_is_their_mean() -> None:
    """Against a search by hand: the change found lowers the mean of the wordings' losses, each computed for itself."""
    model, tokenizer = pair()
    edit = replace(EDITS[0], wordings=WORDS)
    loss = LOSSES["cross-entropy"]
    search = replace(quick("rome"), kl=0.0, weight_decay=0.0)
    found = search_values(model, tokenizer, [[edit]], 0, ("",), search, loss, "value")
    assert found.change.shape[0] == 1
    assert found.rows.tolist() == [3]
    assert (found.keys[0].abs().sum(-1) > 0).all()

    def mean(change: torch.Tensor | None) -> float:
        total = 0.0
        for one in spoken(edit):
            rows = encode_edits(tokenizer, [[one]], subjects=True)
            at = int(rows.subject_ends[0])
            module = model.get_submodule("model.layers.0.mlp.down_proj")

            def add(_: Any, __: Any, y: torch.Tensor, at: int = at) -> torch.Tensor:
                if change is not None:
                    y = y.clone()
                    y[:, at] += change
                return y

            handle = module.register_forward_hook(add)
            with torch.no_grad():
                logits = model(input_ids=rows.ids).logits[rows.keep]
            handle.remove()
            total += float(torch.nn.functional.cross_entropy(logits, rows.targets)) / 3
        return total

    assert mean(found.change[0]) < mean(None)


def test_copies_of_one_prompt_are_one_prompt() -> None:
    model, tokenizer = pair()
    copies = replace(EDITS[0], wordings=(EDITS[0].query.prompt,) * 3)
    for name in ("rome", "ft-m"):
        one, many = (
            method.make(model, tokenizer, [edit], method=name, config=quick(name)) for edit in (EDITS[0], copies)
        )
        for path, tensor in one.tensors().items():
            torch.testing.assert_close(tensor, many.tensors()[path], atol=2e-4, rtol=2e-3)


def test_no_wording_is_one_that_judges_and_short_ones_are_told() -> None:
    judge = Query("It is a fact that the capital of France is", "Rome", role="generality")
    edit = Edit(Query("The capital of France is", "Paris", subject="France"), "Rome", judges=(judge,), wordings=WORDS)
    (case,), notes = wording.worded([Case("1", (edit,))], 6)
    taught = case.edits[0].wordings
    assert taught[:2] == WORDS  # the record's own first
    assert len(taught) == 5
    assert judge.prompt not in taught
    assert not notes
    (none,), _ = wording.worded([Case("1", (edit,))], 1)
    assert none.edits[0].wordings == ()
    _, notes = wording.worded([Case("1", (edit,))], 6, made=lambda edit: [])
    assert "is taught in 3 wordings" in notes[0]
    with pytest.raises(UserError, match="wordings: must be between 1 and 21, not 40"):
        wording.check(40)


def test_a_chat_models_wordings_end_where_the_target_begins() -> None:
    edit = Edit(Query("The capital of France is", "Paris", subject="France"), "Rome")
    answers = iter(["In France the seat of power is Rome.", "France is a land.", "They govern France from Rome."] * 4)

    def write(conversations: Any, seeds: Any) -> list[str]:
        return [next(answers) for _ in conversations]

    (case,), notes = wording.worded([Case("1", (edit,))], 3, write=write)
    assert case.edits[0].wordings == ("In France the seat of power is", "They govern France from")
    assert not notes


def test_the_command_takes_wordings_that_do_not_judge() -> None:
    from engramlab.cli._edit_options import EditOptions, cases_of

    about: dict[str, Any] = {"model": "m", "prompt": "The capital of France is", "target": "Rome", "subject": "France"}
    cases, notes = cases_of(EditOptions(**about, wordings=4), "rome", True)
    edit = cases[0].edits[0]
    assert len(edit.wordings) == 3
    assert not set(edit.wordings) & {judge.prompt for judge in edit.judges}
    assert not notes
    with pytest.raises(UserError, match="say how many in all with --wordings"):
        cases_of(EditOptions(**about, writer="chat"), "rome", True)
    with pytest.raises(UserError, match="wordings: must be between 1 and 21, not 99"):
        cases_of(EditOptions(**about, wordings=99), "rome", True)


def test_the_command_says_that_many_new_facts_are_better_taught(tmp_path: Any) -> None:
    from engramlab.cli._edit_options import EditOptions, cases_of

    rows = "".join(f"The home of Mr {i} is,Arlo,Mr {i}\n" for i in range(100))
    (tmp_path / "edits.csv").write_text("prompt,target,subject\n" + rows)
    _, notes = cases_of(EditOptions(model="m", file=str(tmp_path / "edits.csv")), "memit", True)
    assert any("engramlab teach" in note for note in notes)


def test_a_run_edits_in_wordings_and_keeps_them(tmp_path: Any) -> None:
    import json

    from engramlab.base.terminal import Console
    from engramlab.experiments import knowledge_editing

    model, tokenizer = pair()
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    record = {"prompt": "The capital of France is", "target": "Edo", "subject": "France", "wordings": list(WORDS)}
    (tmp_path / "edits.json").write_text(json.dumps([record]))
    config = knowledge_editing.Config(
        model=str(tmp_path / "model"),
        benchmark=str(tmp_path / "edits.json"),
        methods=("ft-m",),
        losses=("cross-entropy",),
        wordings=3,
    )
    first = knowledge_editing.run(config, tmp_path / "run", console=Console(quiet=True))
    kept = json.loads((tmp_path / "run" / "wordings.json").read_text())["wordings"]
    assert kept == [[list(WORDS)]]
    assert first["rows"]
    with pytest.raises(UserError, match="leave --chat out"):
        knowledge_editing.run(replace(config, chat=True), tmp_path / "chat", console=Console(quiet=True))
