"""EREN: no weight changes; edits are notes, and the model reads those nearest to a question and says itself whether they answer
it; where they do not, it is asked without them (arXiv 2403.17431).

The paper's reader is instruction-tuned (Flan-T5-XL) and finds notes by a trained encoder (Contriever). Here the model that is
edited reads, notes are found by rare words or by its own states, and the wording of what it reads is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from torch import nn

from engramlab.base.facts import Query
from engramlab.base.joining import cut
from engramlab.base.options import check_rules, meant
from engramlab.core.deltas import Delta, Modifier, fingerprint, installed
from engramlab.core.training.losses import Loss
from engramlab.editing.method import Cases, Made
from engramlab.editing.routed.texts import By, Texts, check_room, gathered, nearest_each, vectors_of
from engramlab.measuring.answers import is_answer
from engramlab.measuring.asking import MOST_NEW_TOKENS, Room, evidence_on, write

TAKES_LOSS, NEEDS_SUBJECT, TOGETHER, WATCHED = False, False, True, False
TOUCHES = "nothing"
#: What the model is to write where the notes do not answer.
REFUSAL = "unanswerable"


@dataclass(frozen=True)
class Config:
    """The defaults are the paper's: two steps, five notes, the model's own word."""

    mode: Literal["two-step", "one-step"] = "two-step"
    """Whether notes that do not answer are put aside (two-step), or always read (one-step)."""
    decision: Literal["generated", "scored"] = "generated"
    """Whether they do: the model writes "unanswerable" (the paper), or the word is at most `margin` less likely than what it
    writes (ours: small models hardly ever write it)."""
    margin: float = 0.0
    """Of a scored decision, nats a token; best chosen on cases that are not reported (`run knowledge-editing --part tune`)."""
    notes: int = 5
    """Most notes read before a prompt."""
    retrieval: By = "words"
    """What notes and prompt are compared by: rare words, or the mean of the model's own states."""

    def __post_init__(self) -> None:
        meant(self)
        check_rules(
            self,
            (
                ("mode", self.mode in ("two-step", "one-step"), "two-step or one-step"),
                ("decision", self.decision in ("generated", "scored"), "generated or scored"),
                ("retrieval", self.retrieval in ("words", "states"), "words or states"),
                ("notes", self.notes >= 1, "at least 1"),
            ),
        )


def put(notes: Sequence[str], prompt: str, *, refuses: bool) -> str:
    """What the model reads: notes, the nearest last, and the prompt; ``refuses``: it is offered to say that they do not
    answer."""
    offer = f' If the notes do not tell, write "{REFUSAL}".' if refuses else ""
    listed = "".join(f"- {note}.\n" for note in reversed(notes))
    return f"Read the notes and go on with the last line as they say.{offer}\nNotes:\n{listed}\n{prompt}"


class ErenDelta(Delta):
    """Notes.

    Attributes:
        memory: the notes, and the prompts they answer.
        config: how they are read.
    """

    kind: ClassVar[str] = "eren"
    reads: ClassVar[Literal["", "notes", "tokens"]] = "notes"

    def __init__(self, model: str, memory: Texts, config: Config, continues: Delta | None = None) -> None:
        self.model, self.memory, self.config, self.continues = model, memory, config, continues

    def context(self, prompt: str) -> str:
        """The notes nearest by words, and the prompt; whether they answer it is for the model to say, see ``read``."""
        return self._put(self.memory.nearest([prompt], self.config.notes)[0], prompt)

    def _put(self, notes: Sequence[str], prompt: str) -> str:
        return put(notes, prompt, refuses=self.config.mode == "two-step") if notes else prompt

    @classmethod
    def read(
        cls,
        deltas: Sequence[Delta],
        prompts: Sequence[str],
        model: nn.Module,
        tokenizer: Any,
        around: Sequence[tuple[str, str]] = (),
    ) -> list[str]:
        """With notes where the model takes them for an answer, bare elsewhere; it is asked about all prompts at once."""
        mine = cast("Sequence[ErenDelta]", deltas)
        notes = nearest_each(
            [one.memory for one in mine], [one.config.notes for one in mine], prompts, model, tokenizer
        )
        texts = [one._put(some, prompt) for one, some, prompt in zip(mine, notes, prompts, strict=True)]
        open_ = [i for i, one in enumerate(mine) if one.config.mode == "two-step" and texts[i] != prompts[i]]
        frames = around or [("", "")] * len(texts)
        asked = [f"{frames[i][0]}{texts[i]}{frames[i][1]}" for i in open_]
        gaps = decide(model, tokenizer, asked, [mine[i].config.decision for i in open_])
        for i, gap in zip(open_, gaps, strict=True):
            if gap >= -mine[i].config.margin:
                texts[i] = prompts[i]
        return texts

    def modifiers(self, model: nn.Module) -> dict[str, Modifier]:
        return {}

    def tensors(self) -> dict[str, torch.Tensor]:
        return {} if self.memory.vectors is None else {"vectors": self.memory.vectors}

    def settings(self) -> dict[str, Any]:
        return {"prompts": self.memory.prompts, "texts": self.memory.texts, "config": vars(self.config)}

    @classmethod
    def restore(cls, model: str, tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> ErenDelta:
        texts = settings["texts"]
        return cls(
            model, Texts(settings["prompts"], texts, texts, tensors.get("vectors")), Config(**settings["config"])
        )


def decide(model: nn.Module, tokenizer: Any, texts: Sequence[str], decisions: Sequence[str]) -> list[float]:
    """How much more likely the model is to refuse each text than to answer it, in nats a token.

    Of a generated decision that is infinite, one way or the other; a text to which nothing is written is refused.
    """
    replies = write(model, tokenizer, list(texts), Room(MOST_NEW_TOKENS)) if texts else []
    gaps = [float("inf") if not r.strip() or is_answer(r, (REFUSAL,)) else -float("inf") for r in replies]
    scored = [i for i, how in enumerate(decisions) if how == "scored" and replies[i].strip()]
    asked = [one for i in scored for one in (Query(texts[i], REFUSAL), _as_written(texts[i], replies[i]))]
    found = [sum(e.logprobs) / max(1, len(e.logprobs)) for e in evidence_on(model, tokenizer, asked, None, None)]
    for i, refused, said in zip(scored, found[::2], found[1::2], strict=True):
        gaps[i] = refused - said
    return gaps


def _as_written(text: str, reply: str) -> Query:
    """The reply behind the text to the letter: no space joins them that the model did not write."""
    whole = text + reply
    prompt, target = cut(whole, len(text), len(whole))
    return Query(prompt, target)


def edit_each(model: nn.Module, tokenizer: Any, cases: Cases, config: Config, loss: Loss) -> Made:
    """The notes of each case, after those of an EREN delta on the model.

    Raises:
        UserError: an empty target, a blank statement, or notes that do not fit into the model's context.
    """
    older = next((delta for delta in reversed(installed(model)) if isinstance(delta, ErenDelta)), None)
    made: Made = []
    for edits in cases:
        prompts, texts = gathered(edits, None if older is None else older.memory, tokenizer)
        longest = sorted(texts, key=len)[-config.notes :]
        reads = [put(longest, edit.query.prompt, refuses=True) for edit in edits]
        check_room(model, tokenizer, edits, reads)
        memory = Texts(prompts, texts, texts, vectors_of(model, tokenizer, texts, config.retrieval))
        made.append(ErenDelta(fingerprint(model), memory, config, continues=older))
    return made
