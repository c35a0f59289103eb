"""Prompts in a chat template: as text like any other, without a second start token, and where the answer ends."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support import zoo

from engramlab.base.errors import UserError
from engramlab.base.facts import NO_SPACE, Case, Edit, Query
from engramlab.core.forward.generation import encode_prompts
from engramlab.core.text.chat import Chat, has_template
from engramlab.core.text.tokens import encode_queries, join
from engramlab.measuring import questions

WISH = Edit(Query("The capital of France is", "Paris", subject="France"), "Edo", judges=(Query("It is", ""),))


def talking(template: str = zoo.CHAT) -> Any:
    return zoo.talking(zoo.ZOO["llama3"](zoo.SENTENCES), template)


def test_a_question_in_a_conversation_is_a_prompt_like_any_other() -> None:
    tokenizer = talking()
    chat = Chat(tokenizer)
    asked = chat.query(WISH.query)
    assert asked.prompt == "<|user|>\nThe capital of France is<|end|>\n<|assistant|>\n"
    assert (asked.said, asked.target, chat.stop) == ("The capital of France is", "Paris", "<|end|>")
    ids = encode_queries(tokenizer, [asked]).sequences.row(0).tolist()
    (whole,) = encode_prompts(tokenizer, ["The capital of France is"])
    assert ids[: len(whole)] == whole
    assert ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode(ids[len(whole) :]) == "Paris"
    made = chat.case(Case("a", (WISH,))).edits[0]
    assert made.judges[0].prompt == chat.prompt("It is")
    assert chat.holds(made.query.prompt)
    assert not chat.holds("The capital of France is")


def test_a_template_that_leaves_no_space_before_the_answer() -> None:
    tokenizer = talking(
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    asked = Chat(tokenizer).query(WISH.query)
    assert asked.target == NO_SPACE + "Paris"
    assert join(asked.prompt, asked.target)[0] == "<user>The capital of France is<assistant>Paris"


def test_base_models_are_refused() -> None:
    base = zoo.ZOO["llama3"](zoo.SENTENCES)
    assert not has_template(base)
    with pytest.raises(UserError, match="has no chat template: this is a base model"):
        Chat(base)
    with pytest.raises(UserError, match="its chat template fails on a lone message"):
        Chat(talking("{{ raise_exception('system first') }}"))


def test_asking_and_scoring_in_a_conversation() -> None:
    tokenizer = talking()
    model = zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=256).eval()
    (plain,), (said,) = (questions.ask(model, tokenizer, WISH.query, chat=chat) for chat in (False, True))
    (put,) = questions.ask(model, tokenizer, Chat(tokenizer).prompt(WISH.query.prompt))
    assert said["prompt"] == plain["prompt"]
    assert said["written"].startswith(put["written"][:5])
    (scored,) = questions.score(model, tokenizer, WISH.query, chat=True)
    assert scored["prompt"] == WISH.query.prompt
    with pytest.raises(UserError, match="has no chat template"):
        questions.ask(model, zoo.ZOO["llama3"](zoo.SENTENCES), "It is", chat=True)
