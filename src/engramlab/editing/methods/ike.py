"""IKE: no weight changes; the new fact, and demonstrations of what follows from such facts and what does not, are put before
the prompt (arXiv 2305.12740)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from engramlab.base.errors import UserError
from engramlab.base.facts import Edit
from engramlab.base.likeness import WordIndex
from engramlab.base.options import check_rules, meant
from engramlab.core.deltas import Delta, Modifier, fingerprint, installed
from engramlab.core.models import context_limit
from engramlab.core.text.tokens import join
from engramlab.core.training.losses import Loss
from engramlab.editing.method import Cases, Made
from engramlab.editing.requests import encode_edits, told
from engramlab.files import tables

TAKES_LOSS, NEEDS_SUBJECT, TOGETHER, WATCHED = False, False, True, False
TOUCHES = "nothing"


@dataclass(frozen=True)
class Config:
    """Demonstrations copy, update and retain as 1 : 3 : 4, as in the paper, where there are 32 of them.

    The paper takes demonstrations from a benchmark's training part and ranks them with a sentence encoder. Here they come from
    a file, or from a dozen facts of our own that no benchmark asks for, so that an edit never sees a query it is judged by; and
    they are ranked by the words they share with the edit, rare words counting more.
    """

    demonstrations: int = 16
    """How many (the field's usual evaluations take 16); fewer where they would fill more than half of the model's context."""
    file: str | None = None
    """A table with prompt, target (the new answer), rephrased, unrelated and answer (to unrelated); None for our own."""
    facts: int = 4
    """Of several edits, how many new facts stand before a prompt: those that share most with it."""

    def __post_init__(self) -> None:
        meant(self)
        check_rules(
            self,
            (("demonstrations", self.demonstrations >= 0, "at least 0"), ("facts", self.facts >= 1, "at least 1")),
        )


@dataclass(frozen=True)
class Demonstration:
    """A new fact, the same in other words, and a question it leaves alone."""

    prompt: str
    target: str
    rephrased: str
    unrelated: str
    answer: str

    @property
    def fact(self) -> str:
        """The new fact as a sentence."""
        return join(self.prompt, self.target)[0]

    def show(self, kind: str) -> str:
        """The demonstration as text; ``kind`` is copy, update or retain."""
        prompt = {"copy": self.prompt, "update": self.rephrased, "retain": self.unrelated}[kind]
        return _block([self.fact], join(prompt, self.answer if kind == "retain" else self.target)[0])


def _block(facts: Sequence[str], text: str) -> str:
    return "".join(f"From now on: {fact}.\n" for fact in facts) + f"So: {text}"


_OWN = Path(__file__).with_name("ike.tsv")


class IkeDelta(Delta):
    """New facts, and demonstrations as text.

    Attributes:
        prompts: of the edits, ``[n]``.
        facts: the edits as sentences, ``[n]``.
        shown: demonstrations, in the order they are read.
        most: how many facts stand before a prompt.
    """

    kind: ClassVar[str] = "ike"
    routed: ClassVar[bool] = False
    reads: ClassVar[Literal["", "notes", "tokens"]] = "notes"

    def __init__(
        self,
        model: str,
        prompts: Sequence[str],
        facts: Sequence[str],
        shown: Sequence[str],
        most: int,
        continues: Delta | None = None,
    ) -> None:
        self.model, self.continues, self.most = model, continues, most
        self.prompts, self.facts, self.shown = tuple(prompts), tuple(facts), tuple(shown)
        self._words = WordIndex(self.prompts)

    def context(self, prompt: str) -> str:
        """Demonstrations, the facts nearest to the prompt (the nearest last), and the prompt."""
        facts = [self.facts[i] for i in reversed(self._words.nearest(prompt, self.most))]
        return "\n\n".join([*self.shown, _block(facts, prompt)])

    def modifiers(self, model: nn.Module) -> dict[str, Modifier]:
        return {}

    def tensors(self) -> dict[str, torch.Tensor]:
        return {}

    def settings(self) -> dict[str, Any]:
        return {"prompts": self.prompts, "facts": self.facts, "shown": self.shown, "most": self.most}

    @classmethod
    def restore(cls, model: str, tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> IkeDelta:
        return cls(model, settings["prompts"], settings["facts"], settings["shown"], settings["most"])


def edit_each(model: nn.Module, tokenizer: Any, cases: Cases, config: Config, loss: Loss) -> Made:
    """The facts of each case, after those of an IKE delta on the model.

    Raises:
        UserError: an empty target, or a file of demonstrations that cannot be read (names file, line and key).
    """
    pool = _read(config.file or str(_OWN))
    return [_edit(model, tokenizer, edits, config, pool) for edits in cases]


def _edit(
    model: nn.Module, tokenizer: Any, edits: Sequence[Edit], config: Config, pool: Sequence[Demonstration]
) -> IkeDelta:
    encode_edits(tokenizer, [edits])  # only to refuse what no method could edit
    older = next((d for d in reversed(installed(model)) if isinstance(d, IkeDelta)), None)
    prompts = [e.query.question for e in edits]
    facts = [told(e).rstrip(" .") for e in edits]
    if older is not None:
        new = set(prompts)
        held = [(p, f) for p, f in zip(older.prompts, older.facts, strict=True) if p not in new]
        prompts, facts = [p for p, _ in held] + prompts, [f for _, f in held] + facts
    room = (context_limit(model) or 4096) // 2

    def made(shown: Sequence[str]) -> IkeDelta:
        return IkeDelta(fingerprint(model), prompts, facts, shown, config.facts, continues=older)

    def length(delta: IkeDelta) -> int:
        return max(len(tokenizer(delta.context(p), add_special_tokens=False)["input_ids"]) for p in prompts[-8:])

    shown = _choose(pool, prompts, config.demonstrations)
    while shown and length(made(shown)) > room:
        shown = shown[1:]  # the least alike ones come first
    return made(shown)


def _choose(pool: Sequence[Demonstration], prompts: Sequence[str], count: int) -> list[str]:
    """``count`` demonstrations, one copy, three updates and four retains in turn, those most like the edits last."""
    words = WordIndex([d.prompt for d in pool])
    order = sorted(pool, key=lambda d: -max(words.likeness(d.prompt, p) for p in prompts))
    kinds = ("retain", "update", "retain", "update", "retain", "update", "retain", "copy")
    shown: dict[str, None] = {}
    for i in range(len(order) * 3):
        if len(shown) >= count:
            break
        shown[order[i % len(order)].show(kinds[(i + i // len(order)) % len(kinds)])] = None
    return list(shown)[::-1]


def _read(name: str) -> list[Demonstration]:
    keys = [field.name for field in fields(Demonstration)]
    found = []
    for place, record in tables.objects(name):
        for key in keys:
            if not isinstance(record.get(key), str) or not record[key].strip():
                raise UserError(f"{name}, {place}: {key!r} must be a text that is not empty")
        found.append(Demonstration(**{key: record[key] for key in keys}))
    if not found:
        raise UserError(f"{name}: holds no demonstrations")
    return found
