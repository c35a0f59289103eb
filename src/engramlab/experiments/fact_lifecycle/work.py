"""What the parts of a run share: the facts that are edited, those that are native, and models with facts in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from engramlab.base.errors import UserError
from engramlab.base.facts import Case, Edit, Fact
from engramlab.base.progress import ProgressBar
from engramlab.base.random_access import key, permute
from engramlab.core import models
from engramlab.core.deltas import Delta
from engramlab.corpora.facts import FactTable
from engramlab.corpora.facts.teaching import Divided, divide, only
from engramlab.editing import method
from engramlab.editing.folders.opening import load_model, require_in_weights
from engramlab.experiments._run import Run
from engramlab.experiments.fact_lifecycle.asking import Asked, wrong_objects
from engramlab.experiments.fact_lifecycle.config import Config, check
from engramlab.files import records
from engramlab.measuring.answers import is_answer
from engramlab.measuring.asking import MOST_NEW_TOKENS, Room, write

HELD = 3  # held-out wordings that a fact is asked in, at most
AT_ONCE = 4  # cases that a method edits beside each other


class Lifecycle:
    """One run: its facts and the model they are about.

    Attributes:
        table: all facts; None where no part is about any.
        words: its wordings, those that may be edited with and those that never are.

    Raises:
        UserError: whatever can be found wrong before a model is loaded.
    """

    def __init__(self, config: Config, out: Path, preset: str, console: Any) -> None:
        self.config, self.table = config, check(config)
        self.run = Run("fact-lifecycle", config, out, preset=preset, console=console)
        self.run.alone()
        if self.table is not None:
            require_in_weights("model", config.model)
            about = models.about(config.model)
            if about.from_scratch or about.objective != "causal":
                raise UserError(f"model: {config.model} cannot be edited; name a causal model that exists")
            self.tokenizer = models.load_tokenizer(config.model)
            self.words: Divided = divide(self.table.wordings)
            self.cases = self._cases()

    @property
    def facts(self) -> FactTable:
        """The table, where a part needs it."""
        assert self.table is not None
        return self.table

    def fresh(self) -> nn.Module:
        """The model as it is."""
        model: nn.Module = load_model(self.config.model)[0].to(self.run.accelerator.device)
        return model

    def _cases(self) -> list[Case]:
        """The edits, each to another object of its relation, with judges about other subjects: first one a subject."""
        found = only(self.facts, self.facts, self.words.trained).edits("other", seed=self.config.seed)
        first: dict[str, Case] = {}
        for case in found:
            first.setdefault(case.edits[0].query.subject, case)
        chosen = [*first.values(), *(case for case in found if first[case.edits[0].query.subject] is not case)]
        return chosen[: self.config.count]

    @cached_property
    def edits(self) -> list[Edit]:
        """The edits of the cases, bare."""
        return [replace(case.edits[0], judges=()) for case in self.cases]

    @cached_property
    def edited(self) -> list[Asked]:
        """How the edits' new facts are asked for."""
        return [self.asked(Fact(e.query.subject, e.query.relation, e.target, e.aliases)) for e in self.edits]

    def asked(self, fact: Fact) -> Asked:
        """How a fact is asked for: in the wording of an edit, and in held-out ones."""
        prompt = self.words.trained.prompts(fact.relation, fact.subject)[0]
        held = [text for _, text in self.words.prompts(fact.relation, fact.subject, "held-out")]
        wrong = wrong_objects(fact, self.facts.choices(), self.config.options, self.config.seed)
        return Asked(fact, prompt, tuple(held[:HELD]), wrong)

    @cached_property
    def natives(self) -> list[Asked]:
        """Facts that the model writes in the edit's wording and in a held-out one, about subjects that are not edited: as many
        as are edited, if it knows so many. Found once."""
        path, config = self.run.folder / "natives.json", self.config
        if not path.exists():
            gone = {edit.query.subject for edit in self.edits}
            free = [fact for fact in self.facts if fact.subject not in gone]
            order = permute(key(config.seed, "natives"), range(len(free)), len(free)).tolist() if free else []
            known: list[list[str]] = []
            model = self.fresh()
            for start in range(0, len(order), 128):
                some = [self.asked(free[i]) for i in order[start : start + 128]]
                known += [[one.fact.subject, one.fact.relation] for one in self._known(model, some)]
                if len(known) >= config.count:
                    break
            records.write_record(path, {"natives": known[: config.count]})
        there = {(fact.subject, fact.relation): fact for fact in self.facts}
        kept = records.read_record(path, ("natives",))["natives"]
        return [self.asked(there[subject, relation]) for subject, relation in kept]

    def _known(self, model: nn.Module, asked: Sequence[Asked]) -> list[Asked]:
        prompts = [prompt for one in asked for prompt in (one.prompt, one.held[0])]
        texts = write(model, self.tokenizer, prompts, Room(MOST_NEW_TOKENS))
        return [
            one
            for i, one in enumerate(asked)
            if all(is_answer(text, (one.fact.object, *one.fact.aliases)) for text in texts[2 * i : 2 * i + 2])
        ]


def edited(
    model: nn.Module, tokenizer: Any, cases: Sequence[Sequence[Edit]], name: str, label: str, console: Any
) -> list[Delta | method.EditFailed]:
    """Each case's edits by a method, a few cases at a time, so that it is seen how far it is."""
    made: list[Delta | method.EditFailed] = []
    with ProgressBar(label, len(cases), console=console) as bar:
        for start in range(0, len(cases), AT_ONCE):
            made += method.make_each(model, tokenizer, cases[start : start + AT_ONCE], method=name)
            bar.update(len(made))
    return made
