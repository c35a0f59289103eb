"""Questions answered from passages, and the scores of SQuAD."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support import zoo

from engramlab.base.errors import UserError
from engramlab.core.deltas.virtual_tokens import NAME, VirtualTokens
from engramlab.measuring.answers import exact_match, f1
from engramlab.measuring.reading import answer_from

PASSAGES = ["Zoë lives in the city of Edo.", "The capital of France is Paris."]


@pytest.fixture(scope="module")
def made() -> tuple[Any, Any, VirtualTokens]:
    tokenizer = zoo.ZOO["llama3"](zoo.SENTENCES)
    model = zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=160)
    return model, tokenizer, VirtualTokens.of_text(model, tokenizer, 4)


def test_several_at_once_are_each_alone(made: tuple[Any, Any, VirtualTokens]) -> None:
    model, tokenizer, tokens = made
    how = {"virtual_tokens": tokens, "k": 3, "new_tokens": 4}
    questions, each = ["Where is Zoë?", "What is Paris?", "Who?"], [PASSAGES, PASSAGES[1:], []]
    together = answer_from(model, tokenizer, questions, each, **how)
    assert [row["passages"] for row in together] == [2, 1, 0]
    for question, of, row in zip(questions, each, together, strict=True):
        assert answer_from(model, tokenizer, question, of, **how)[0] == row
    shared = answer_from(model, tokenizer, questions[:2], PASSAGES, **how)
    assert shared[0] == together[0]
    assert not hasattr(model, NAME)


def test_what_cannot_be_answered(made: tuple[Any, Any, VirtualTokens]) -> None:
    model, tokenizer, tokens = made

    def refused(words: str, questions: Any, passages: Any, **more: Any) -> None:
        with pytest.raises(UserError, match=words):
            answer_from(model, tokenizer, questions, passages, **more)

    refused("2 questions have 1 lists", ["a", "b"], [["c"]])
    refused("not empty", "a", [" "])
    refused("not empty", " ", ["a"])
    refused("there are none", "a", ["b"], k=2)
    for k in (0, 5):
        refused(f"from 1 to 4.*not {k}", "a", ["b"], virtual_tokens=tokens, k=k)
    refused("1 passages do not fit the model's 160", "a", ["b", "c " * 150])  # never left out unsaid
    refused("'a'.*more than the model's 160", "a", ["c " * 150], virtual_tokens=tokens)


def test_the_scores_of_squad() -> None:
    for text, answers, em, share in (
        ("The  U.S.A.!", ["usa"], True, 1.0),
        ("an apple a day", ["apple day"], True, 1.0),
        ("apple apple pie", ["apple pie"], False, 0.8),  # 2 shared of 3 and 2
        ("pear", ["apple", "a pear tree"], False, 2 / 3),
        ("pear", ["apple"], False, 0.0),
        ("", ["apple"], False, 0.0),
        ("the", ["a"], True, 1.0),
    ):
        assert exact_match(text, answers) is em
        assert f1(text, answers) == pytest.approx(share)
