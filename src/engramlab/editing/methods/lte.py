"""LTE: no weight changes; new facts that bear on a question stand in a block before it, for a model that was trained once to go
by such a block where it applies and only there (arXiv 2402.11905).

``engramlab run learning-to-edit`` trains such a model. The wording of the block is ours. A model that was not trained on it
reads it as any other text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from torch import nn

from engramlab.base.errors import UserError, note, quoted
from engramlab.base.options import check_rules, meant
from engramlab.core.deltas import Delta, Modifier, fingerprint, installed
from engramlab.core.training.losses import Loss
from engramlab.editing.method import Cases, Made
from engramlab.editing.routed.texts import By, Texts, check_room, gathered, nearest_each, vectors_of

TAKES_LOSS, NEEDS_SUBJECT, TOGETHER, WATCHED = False, False, True, False
TOUCHES = "nothing"
#: In the config of a model that was trained on blocks: the name of this method.
ALIGNED = "engramlab_aligned"
HEADER, ASKED = "[New facts]", "[Asked]"


@dataclass(frozen=True)
class Config:
    """How the memory is read. One fact before a prompt is what the authors' script takes."""

    facts: int = 1
    """Most facts before a prompt: those whose own prompts are most like it."""
    retrieval: By = "words"
    """What prompts are compared by: rare words, or the mean of the model's own states (the authors take a sentence encoder)."""

    def __post_init__(self) -> None:
        meant(self)
        check_rules(
            self,
            (
                ("facts", self.facts >= 1, "at least 1"),
                ("retrieval", self.retrieval in ("words", "states"), "words or states"),
            ),
        )


def block(facts: Sequence[str], prompt: str) -> str:
    """What stands before a prompt and the prompt, in training and afterwards; nothing stands there without facts."""
    if not facts:
        return prompt
    listed = facts if len(facts) == 1 else [f"{i}. {fact}" for i, fact in enumerate(facts, 1)]
    lines = "".join(f"{fact}.\n" for fact in listed)
    return f"Go by the new facts where they bear on what is asked, and only there.\n{HEADER}\n{lines}{ASKED}\n{prompt}"


def check_lines(texts: Iterable[str]) -> None:
    """Raises UserError for a fact or a prompt to be learnt that holds a line of the block's own. (Who asks may write what they
    like: a model finds the first such lines, which are the block's.)"""
    for text in texts:
        if HEADER in text or ASKED in text:
            raise UserError(
                f"{quoted(text)} holds {HEADER} or {ASKED}, by which a model finds new facts and question; word it otherwise"
            )


class LteDelta(Delta):
    """New facts.

    Attributes:
        memory: the facts, found by the prompts they answer.
        facts: how many stand before a prompt.
    """

    kind: ClassVar[str] = "lte"
    reads: ClassVar[Literal["", "notes", "tokens"]] = "notes"

    def __init__(self, model: str, memory: Texts, facts: int, continues: Delta | None = None) -> None:
        self.model, self.memory, self.facts, self.continues = model, memory, facts, continues

    def context(self, prompt: str) -> str:
        """The block and the prompt, by words; see ``read``."""
        return block(self.memory.nearest([prompt], self.facts)[0], prompt)

    @classmethod
    def read(
        cls,
        deltas: Sequence[Delta],
        prompts: Sequence[str],
        model: nn.Module,
        tokenizer: Any,
        around: Sequence[tuple[str, str]] = (),
    ) -> list[str]:
        """Each prompt behind its delta's block; one search a delta."""
        mine = cast("Sequence[LteDelta]", deltas)
        facts = nearest_each([one.memory for one in mine], [one.facts for one in mine], prompts, model, tokenizer)
        return [block(some, prompt) for some, prompt in zip(facts, prompts, strict=True)]

    def modifiers(self, model: nn.Module) -> dict[str, Modifier]:
        return {}

    def tensors(self) -> dict[str, torch.Tensor]:
        return {} if self.memory.vectors is None else {"vectors": self.memory.vectors}

    def settings(self) -> dict[str, Any]:
        return {"prompts": self.memory.prompts, "texts": self.memory.texts, "facts": self.facts}

    @classmethod
    def restore(cls, model: str, tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> LteDelta:
        prompts = settings["prompts"]
        return cls(model, Texts(prompts, settings["texts"], prompts, tensors.get("vectors")), settings["facts"])


def edit_each(model: nn.Module, tokenizer: Any, cases: Cases, config: Config, loss: Loss) -> Made:
    """The facts of each case, after those of an LTE delta on the model.

    Raises:
        UserError: an empty target, a blank statement, a text with a line of the block's own, or a block that takes more than
            half of the model's context.
    """
    if getattr(model.config, ALIGNED, None) != "lte":
        note(
            "lte wants a model that was trained to go by the block it puts before prompts, and this one was not: make one by "
            "engramlab run learning-to-edit"
        )
    older = next((delta for delta in reversed(installed(model)) if isinstance(delta, LteDelta)), None)
    made: Made = []
    for edits in cases:
        prompts, texts = gathered(edits, None if older is None else older.memory, tokenizer)
        check_lines([*texts, *(edit.query.question for edit in edits)])
        longest = sorted(texts, key=len)[-config.facts :]
        check_room(model, tokenizer, edits, [block(longest, edit.query.prompt) for edit in edits], share=0.5)
        memory = Texts(prompts, texts, prompts, vectors_of(model, tokenizer, prompts, config.retrieval))
        made.append(LteDelta(fingerprint(model), memory, config.facts, continues=older))
    return made
