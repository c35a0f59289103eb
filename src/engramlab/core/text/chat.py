"""Prompts in the form of a conversation: what a model's chat template makes of what a user says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from engramlab.base.errors import UserError
from engramlab.base.facts import NO_SPACE, Case, Edit, Query
from engramlab.core.text.tokens import join, start_tokens

_ANSWER = "Xyzzy"


class Chat:
    """The chat template of a tokenizer, as text around one message.

    Raises:
        UserError: the tokenizer has none, or one that does not take a lone message.
    """

    def __init__(self, tokenizer: Any) -> None:
        if not has_template(tokenizer):
            raise UserError(
                f"tokenizer {getattr(tokenizer, 'name_or_path', '')!r} has no chat template: this is a base model, which is "
                "asked with plain text; leave chat out, or take the model's instruct version"
            )
        self.tokenizer = tokenizer
        # What the tokenizer puts before every text by itself: the template must not put it there again.
        self._begin = tokenizer.decode(start_tokens(tokenizer))
        try:
            asked = self.prompt("a")
            whole = self._render([{"role": "user", "content": "a"}, {"role": "assistant", "content": _ANSWER}])
        except Exception as error:  # a template is a program of its own
            raise UserError(
                f"tokenizer {getattr(tokenizer, 'name_or_path', '')!r}: its chat template fails on a lone message ({error})"
            ) from None
        direct = whole.startswith(asked + _ANSWER) and join(asked, _ANSWER)[0] != asked + _ANSWER
        self._gap = NO_SPACE if direct else ""
        self._front, _, self._back = self.prompt(_ANSWER).partition(_ANSWER)
        behind = whole.rpartition(_ANSWER)[2].lstrip()
        #: The special token that ends an answer; "" where the template has none.
        self.stop = max((t for t in tokenizer.all_special_tokens if behind.startswith(t)), key=len, default="")

    def prompt(self, said: str) -> str:
        """What the model reads when a user says this; the answer follows."""
        return self._render([{"role": "user", "content": said}], add_generation_prompt=True)

    def inside(self, prompt: str) -> tuple[str, str, str] | None:
        """What stands before a message, the message, and what stands behind it; None where a prompt is in no template."""
        front, back = self._front, self._back
        framed = bool(front + back) and prompt.startswith(front) and prompt.endswith(back)
        if not framed or len(prompt) < len(front + back):
            return None
        return front, prompt[len(front) : len(prompt) - len(back)], back

    def holds(self, prompt: str) -> bool:
        """Is a prompt in a template already: does it hold special tokens?"""
        return any(token in prompt for token in self.tokenizer.all_special_tokens)

    def query(self, query: Query) -> Query:
        """The same question in a conversation."""
        target = self._gap + query.target if query.target.strip() else query.target
        return replace(query, prompt=self.prompt(query.prompt), target=target, said=query.prompt)

    def edit(self, edit: Edit) -> Edit:
        """The same edit of what is answered in a conversation, and what judges it."""
        judges = tuple(map(self.query, edit.judges))
        said = tuple(map(self.prompt, edit.wordings))
        return replace(edit, query=self.query(edit.query), target=self._gap + edit.target, judges=judges, wordings=said)

    def case(self, case: Case) -> Case:
        """The same case in a conversation."""
        return replace(case, edits=tuple(map(self.edit, case.edits)))

    def _render(self, messages: Sequence[dict[str, str]], **more: Any) -> str:
        text = str(self.tokenizer.apply_chat_template(list(messages), tokenize=False, **more))
        return text.removeprefix(self._begin)


def chat_of(tokenizer: Any) -> Chat | None:
    """The template of a tokenizer; None where it has none, or one that takes no lone message: no prompt can be in that."""
    try:
        return Chat(tokenizer) if has_template(tokenizer) else None
    except UserError:
        return None


def has_template(tokenizer: Any) -> bool:
    """Is it the tokenizer of a model for conversations?"""
    return bool(getattr(tokenizer, "chat_template", None))
