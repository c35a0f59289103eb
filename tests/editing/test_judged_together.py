"""Judges of a file beside other edits: what another edit overrules is not asked for."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support import zoo

from engramlab.base.facts import Case
from engramlab.core.text.chat import Chat
from engramlab.editing.benchmarks import mquake, plain
from engramlab.editing.cases import judged_together


def hop(question: str, cloze: str, answer: str) -> dict[str, Any]:
    return {"question": question, "cloze": cloze, "answer": answer, "answer_alias": [answer.upper()]}


def chain(id: str, club: str, city: str, now: str, edited: str) -> Case:
    """Ann's club, the club's city: the city is edited, of which the club is a hop that stays."""
    club_hop = hop("What is Ann's club?", "Ann plays for", club)
    city_hop = hop(f"Where is {club} based?", f"{club} is based in", city)
    record = {
        "case_id": id,
        "requested_rewrite": [{
            "prompt": "{} is based in", "subject": club, "question": f"Where is {club} based?",
            "target_new": {"str": now}, "target_true": {"str": city},
        }],
        "questions": ["Where is Ann's club based?"],
        "new_answer": now,
        "single_hops": [club_hop, city_hop],
        "new_single_hops": [club_hop, {**city_hop, "answer": now}],
    }  # fmt: skip
    if edited:
        record["requested_rewrite"] = [{
            "prompt": "{} plays for", "subject": "Ann", "question": "What is Ann's club?",
            "target_new": {"str": edited}, "target_true": {"str": club},
        }]  # fmt: skip
        record |= {
            "questions": ["What is the club of Ann?"],
            "new_answer": edited,
            "single_hops": [],
            "new_single_hops": [],
        }
    return mquake.case(record, 0)


def roles(cases: list[Case]) -> list[list[str]]:
    return [sorted(query.role for edit in case.edits for query in edit.judges) for case in cases]


WHOLE = ["generality", "locality", "portability"]


def test_a_chain_falls_with_the_hop_that_another_case_edits() -> None:
    moved, left = chain("a", "Ajax", "Rome", "Oslo", ""), chain("b", "Ajax", "Rome", "Oslo", "Bern FC")
    assert roles([moved]) == roles(judged_together([moved])) == [WHOLE]
    # Ann's club is another now: neither the chain through it nor the unedited hop can be asked.
    assert roles(judged_together([moved, left])) == roles(judged_together([left, moved]))[::-1]
    assert roles(judged_together([moved, left])) == [["generality"], ["generality", "portability"]]
    # The same answer again, if in other letters, overrules nothing.
    assert roles(judged_together([moved, chain("b", "Ajax", "Rome", "Oslo", "AJAX")])) == [WHOLE, WHOLE[::2]]


@pytest.mark.parametrize(
    ("answer", "stays"), [("Paris", True), ("paris", True), ("Lyon", False), ("", False)], ids=str
)  # fmt: skip
def test_what_was_to_stay_is_not_asked_where_it_is_edited(answer: str, stays: bool) -> None:
    asked = {"prompt": "The capital of  France is", "target": answer}
    first = {"prompt": "The capital of Japan is", "target": "Edo", "locality": [asked]}
    other = {"prompt": "the capital of France is", "target": "Paris"}
    cases = [plain.case(record, number) for number, record in enumerate((first, other))]
    assert roles(judged_together(cases)) == [["locality"] if stays else [], []]
    assert roles(judged_together(cases[:1])) == [["locality"]]


def test_the_last_edit_counts_and_a_chat_changes_nothing() -> None:
    first = {"prompt": "The capital of Japan is", "target": "Edo", "rephrase": ["Japan's capital is"]}
    again = {"prompt": "Japan's capital is", "target": "Lund"}
    cases = [plain.case(record, number) for number, record in enumerate((first, again))]
    tokenizer = zoo.ZOO["llama3"](zoo.SENTENCES)
    tokenizer.chat_template = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}<|assistant|>"
    for told in (cases, list(map(Chat(tokenizer).case, cases))):
        assert roles(judged_together(told)) == [[], []]
        assert roles(judged_together(told[::-1])) == [[], ["generality"]]
