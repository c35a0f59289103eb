"""EREN: edits as notes that the model reads, and says itself whether they answer (arXiv 2403.17431)."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from tests.support import zoo
from tests.support.small import EDITS
from torch import nn

from engramlab.base.errors import UserError
from engramlab.base.facts import Case, Edit, Query
from engramlab.core import deltas
from engramlab.core.text.chat import Chat
from engramlab.editing import method
from engramlab.editing.judge import evaluation, metrics
from engramlab.editing.methods import eren, ike, lte
from engramlab.editing.routed.texts import Texts
from engramlab.measuring import asking


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return zoo.ZOO["llama3"](zoo.SENTENCES)


def small(tokenizer: Any, context: int = 256) -> nn.Module:
    return zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=context).eval()


def make(model: nn.Module, tokenizer: Any, edits: Sequence[Edit], **config: Any) -> Any:
    return method.make(model, tokenizer, list(edits), method="eren", config=eren.Config(**config))


LOCAL = Query("It's on the Seine, and people live", "there", role="locality")
CASES = [Case(e.query.id, (dataclasses.replace(e, judges=(LOCAL,)),)) for e in EDITS[:3]]


@pytest.fixture
def reply(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[list[str]]]:
    """What the model writes when it is asked to decide; the questions are kept."""
    asked: list[list[str]] = []

    def say(text: str) -> list[list[str]]:
        def writes(model: Any, tokenizer: Any, prompts: Sequence[str], room: Any) -> list[str]:
            asked.append(list(prompts))
            return [text] * len(prompts)

        monkeypatch.setattr(eren, "write", writes)
        return asked

    return say


def test_no_notes_are_no_edit(tokenizer: Any) -> None:
    model = small(tokenizer)
    empty = eren.ErenDelta(deltas.fingerprint(model), Texts((), (), ()), eren.Config())
    before = evaluation.before(model, tokenizer, CASES)
    rows = evaluation.judge(model, tokenizer, CASES, before, deltas=[empty] * len(CASES))
    assert all(row["bare"] and row["logprobs_after"] == row["logprobs_before"] for row in rows)
    assert all(row["generated"] == row["teacher_forced"] == 1.0 for row in rows if row["role"] == "locality")


@pytest.mark.parametrize("retrieval", ["words", "states"])
def test_the_prompt_of_an_edit_finds_its_note(retrieval: Any, tokenizer: Any) -> None:
    model = small(tokenizer)
    delta = make(model, tokenizer, EDITS, retrieval=retrieval, notes=1, mode="one-step")
    texts = asking.as_read(model, tokenizer, [e.query.prompt for e in EDITS], [delta] * len(EDITS))
    found = [
        text.endswith(f"- {e.query.prompt} {e.target}.\n\n{e.query.prompt}")
        for text, e in zip(texts, EDITS, strict=True)
    ]
    assert all(found) if retrieval == "words" else any(found)


def test_a_model_that_always_refuses_is_the_unedited_one(tokenizer: Any, reply: Any) -> None:
    model, asked = small(tokenizer), reply(" Unanswerable.")
    before = evaluation.before(model, tokenizer, CASES)
    made: Any = method.make_each(model, tokenizer, [case.edits for case in CASES], method="eren", config=eren.Config())
    rows = evaluation.judge(model, tokenizer, CASES, before, deltas=made)
    assert len(asked) == 1  # all prompts, of all cases, in one batch,
    assert len(asked[0]) == len(set(asked[0])) == 6
    assert all(
        text.endswith(prompt) for text in asked[0] for prompt in [text.rpartition("\n")[2]]
    )  # and no target read
    assert all(row["bare"] and not row["recalled"] for row in rows)
    assert [row["written_after"] for row in rows] == [row["written_before"] for row in rows]
    assert metrics.metrics(rows)["generated"]["locality"] == 1.0


def test_a_model_that_never_refuses_reads_every_note(tokenizer: Any, reply: Any) -> None:
    model, asked = small(tokenizer), reply(" Edo")
    prompts = [LOCAL.prompt, EDITS[0].query.prompt]
    delta = make(model, tokenizer, EDITS[:1])
    with deltas.active(model, delta):
        texts = asking.as_read(model, tokenizer, prompts)
    assert asked == [texts]
    note = "The capital of France is Washington"
    assert texts == [eren.put([note], prompt, refuses=True) for prompt in prompts]
    once = make(model, tokenizer, EDITS[:1], mode="one-step")
    assert asking.as_read(model, tokenizer, prompts, [once] * 2) == [
        eren.put([note], prompt, refuses=False) for prompt in prompts
    ]
    assert len(asked) == 1  # nothing is asked in one step
    assert eren.REFUSAL in texts[0]
    assert eren.REFUSAL not in once.context(prompts[0])


def test_prompts_together_are_read_as_one_by_one(tokenizer: Any) -> None:
    model = small(tokenizer)
    delta = make(model, tokenizer, EDITS, decision="scored", margin=2.0)
    prompts = [*(e.query.prompt for e in EDITS), LOCAL.prompt, "Zoë O'Neil was born in"]
    together = asking.as_read(model, tokenizer, prompts, [delta] * len(prompts))
    alone = [asking.as_read(model, tokenizer, [prompt], [delta])[0] for prompt in prompts]
    assert together == alone


def test_a_scored_decision_weighs_the_word_against_the_reply(tokenizer: Any) -> None:
    model = small(tokenizer)
    texts = [eren.put(["A is B"], e.query.prompt, refuses=True) for e in EDITS[:2]]
    gaps = eren.decide(model, tokenizer, texts, ["scored"] * 2)
    for text, gap in zip(texts, gaps, strict=True):
        (said,) = asking.write(model, tokenizer, [text], asking.Room(asking.MOST_NEW_TOKENS))
        assert said.strip()
        assert not said.startswith(" ")  # so none may be put before what was written

        @torch.no_grad()
        def mean(behind: str, text: str = text) -> float:
            """Of the tokens behind the text, each after a pass over those before it; a lone space is no part of a word."""
            ids, whole = tokenizer(text)["input_ids"], tokenizer(text + behind)["input_ids"]
            assert whole[: len(ids)] == ids
            first = len(ids) + (tokenizer.decode(whole[len(ids)]) == " ")
            logprobs = [
                float(model(torch.tensor([whole[:i]])).logits[0, -1].log_softmax(-1)[whole[i]])
                for i in range(first, len(whole))
            ]
            return sum(logprobs) / len(logprobs)

        assert gap == pytest.approx(mean(f" {eren.REFUSAL}") - mean(said), abs=1e-3)
    sure = make(model, tokenizer, EDITS[:1], decision="scored", margin=0.0)
    shy = make(model, tokenizer, EDITS[:1], decision="scored", margin=1000.0)
    prompt = EDITS[0].query.prompt
    assert asking.as_read(model, tokenizer, [prompt], [shy]) == [prompt]
    assert asking.as_read(model, tokenizer, [prompt], [sure]) != [prompt]


def test_a_later_note_on_the_same_prompt_wins_and_that_is_said(tokenizer: Any) -> None:
    model = small(tokenizer)
    other = dataclasses.replace(EDITS[0], target="Edo")
    with pytest.warns(UserWarning, match="contradicts an earlier edit of the same call"):
        delta = make(model, tokenizer, [EDITS[0], EDITS[1], other])
    assert delta.memory.texts == ("The old name of Japan was Paris", "The capital of France is Edo")
    with deltas.active(model, delta):
        with pytest.warns(
            UserWarning, match="edit France .* contradicts an earlier edit of an earlier call, .* Edo'; the"
        ):
            again = make(model, tokenizer, [EDITS[1], EDITS[0]])
        assert again.continues is delta
        assert again.memory.texts == ("The old name of Japan was Paris", "The capital of France is Washington")


@pytest.mark.parametrize("name", ["eren", "lte"])
def test_what_contradicts_an_earlier_call_is_named_once(name: str, tokenizer: Any) -> None:
    model = small(tokenizer)
    setattr(model.config, lte.ALIGNED, "lte")
    first, same = EDITS[:2]
    targets = ("Edo", "Paris", "Paris")
    others = [dataclasses.replace(first, target=target) for target in targets]
    with deltas.active(model, method.make(model, tokenizer, [first, same], method=name)), warnings.catch_warnings():
        warnings.simplefilter("error")
        method.make(model, tokenizer, [same, first], method=name)  # said again: nothing contradicts
        with pytest.warns(UserWarning, match="edit France .* contradicts an earlier") as said:
            method.make(model, tokenizer, others, method=name)
    assert [str(one.message).partition(" contradicts ")[2] for one in said] == [
        "an earlier edit of an earlier call, 'The capital of France is Washington'; the later one counts",
        "an earlier edit of the same call, 'The capital of France is Edo'; the later one counts",
    ]


def test_a_statement_is_the_note(tokenizer: Any) -> None:
    model = small(tokenizer)
    edit = dataclasses.replace(EDITS[0], statement="Washington is where France is ruled from.")
    assert make(model, tokenizer, [edit]).memory.texts == ("Washington is where France is ruled from",)
    with pytest.raises(UserError, match="edit France .* its statement is blank"):
        make(model, tokenizer, [dataclasses.replace(edit, statement="  ")])


def test_more_notes_than_there_are_and_notes_beyond_the_context(tokenizer: Any) -> None:
    model = small(tokenizer)
    delta = make(model, tokenizer, EDITS[:2], notes=50)
    assert delta.context("x").count("\n- ") == 2
    long = dataclasses.replace(EDITS[0], statement="Paris " * 300)
    with pytest.raises(UserError, match="edit France .* it has .* tokens, and 232 of the model's context of 256"):
        make(model, tokenizer, [long])


def test_edit_quality_is_a_harmonic_mean_of_means_over_cases() -> None:
    def row(case: str, role: str, right: float) -> dict[str, Any]:
        return {"case": case, "role": role, "group": "", "generated": right, "teacher_forced": None}

    rows = [row("a", "reliability", 1.0), row("a", "generality", 0.936), row("b", "reliability", 1.0)]
    rows += [row("a", "locality", 0.0), row("b", "locality", 0.49)]
    found = metrics.edit_quality(rows)
    assert found is not None
    assert [round(100 * found[name], 1) for name in ("es", "bp", "eq")] == [98.4, 24.5, 39.2]
    assert metrics.edit_quality(rows[:3]) is None
    assert metrics.edit_quality([row("a", "reliability", 0.0), row("a", "locality", 0.0)]) == {
        "es": 0,
        "bp": 0,
        "eq": 0,
    }


def test_settings_are_one_of_those_there_are() -> None:
    for name in ("mode", "decision", "retrieval"):
        with pytest.raises(UserError, match=f"^{name} must be"):
            eren.Config(**{name: "other"})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["eren", "ike", "lte"])
def test_notes_stand_inside_of_a_message(name: str) -> None:
    """In a chat template notes are part of what the user says, and hold nothing of the template."""
    talking = zoo.talking(zoo.ZOO["llama3"](zoo.SENTENCES))
    model, chat = small(talking), Chat(talking)
    settings = {"eren": eren.Config(mode="one-step"), "ike": ike.Config(demonstrations=0), "lte": lte.Config()}
    edits = [chat.edit(edit) for edit in EDITS[:2]]
    setattr(model.config, lte.ALIGNED, "lte")
    delta = method.make(model, talking, edits, method=name, config=settings[name])
    plain = method.make(model, talking, EDITS[:2], method=name, config=settings[name])
    for bare, edit in zip(EDITS[:2], edits, strict=True):
        with deltas.active(model, delta):
            (read,) = asking.as_read(model, talking, [edit.query.prompt])
        assert read == chat.prompt(delta.context(bare.query.prompt)) == chat.prompt(plain.context(bare.query.prompt))
        assert asking.as_read(model, talking, [edit.query.prompt], [delta]) == [read]
        assert f"{bare.query.prompt} {bare.target}" in read
    cases = [Case("a", (edits[0],))]
    rows = evaluation.judge(model, talking, cases, evaluation.before(model, talking, cases), deltas=[delta])
    assert [row["recalled"] for row in rows if row["role"] == "reliability"] == [True]


def test_whether_notes_answer_is_asked_in_the_template(reply: Any) -> None:
    talking = zoo.talking(zoo.ZOO["llama3"](zoo.SENTENCES))
    model, chat, asked = small(talking), Chat(talking), reply(eren.REFUSAL)
    edit = chat.edit(EDITS[0])
    delta = make(model, talking, [edit])
    assert asking.as_read(model, talking, [edit.query.prompt], [delta]) == [edit.query.prompt]
    assert asked == [[chat.prompt(delta.context(EDITS[0].query.prompt))]]


def test_a_template_that_takes_no_lone_message_is_none_that_a_prompt_is_in() -> None:
    odd = zoo.talking(zoo.ZOO["llama3"](zoo.SENTENCES), "{{ raise_exception('two messages are needed') }}")
    model = small(odd)
    delta = make(model, odd, EDITS[:1], mode="one-step")
    prompt = EDITS[0].query.prompt
    assert asking.as_read(model, odd, [prompt], [delta]) == [delta.context(prompt)]
