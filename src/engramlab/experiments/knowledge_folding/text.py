"""Episodes as the rows that are read: facts that are folded in, prompts, and what is to be said behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from engramlab.base.errors import UserError
from engramlab.base.facts import Query
from engramlab.base.random_access import key, permute
from engramlab.core.text.batches import Batch, OneEntryARow, Order, TokenRows
from engramlab.core.text.tokens import Sequences, encode_queries, end_token
from engramlab.corpora.episodes import Episode, worlds
from engramlab.experiments.knowledge_folding.config import Arm, Config
from engramlab.reading.deductions import read_episodes

REASONS, SO = ":", "So"
"""Behind a question whose facts are to be said first, and before the answer then; ours."""


def episodes_of(config: Config) -> tuple[list[Episode], list[Episode]]:
    """What is trained on and what is asked. Raises UserError for a file without enough questions."""
    if config.data == "worlds":
        shape = {"hops": config.hops, "people": config.people, "colours": config.colours}
        test = worlds(config.tests, config.seed, "test", **shape)
        held = {frozenset((*one.facts, *one.distractors)) for one in test}
        train = worlds(config.worlds, config.seed, "train", **shape)
        return [one for one in train if frozenset((*one.facts, *one.distractors)) not in held], test
    train = _drawn(read_episodes(config.data), config.seed)
    if config.test_data:
        return train[: config.worlds], _drawn(read_episodes(config.test_data), config.seed)[: config.tests]
    if len(train) < 2:
        raise UserError(f"{config.data}: one question cannot be trained on and asked; give more, or --test-data")
    asked = min(config.tests, len(train) // 2)
    return train[asked:][: config.worlds], train[:asked]


def _drawn(episodes: Sequence[Episode], seed: int) -> list[Episode]:
    return [episodes[i] for i in permute(key(seed, "episodes"), np.arange(len(episodes)), len(episodes))]


def given(episode: Episode, distractors: int, seed: int) -> list[str]:
    """The facts that are given, so many distractors among them, in an order of the episode's own."""
    facts = [*episode.facts, *episode.distractors[:distractors]]
    return [facts[i] for i in permute(key(seed, "facts", episode.id), np.arange(len(facts)), len(facts))]


def prompt(arm: Arm, episode: Episode, facts: Sequence[str]) -> str:
    """What is read before the answer."""
    asked = episode.question + (REASONS if arm.reasons else "")
    return f"{' '.join(facts)} {asked}" if arm.reads and facts else asked


def target(arm: Arm, episode: Episode) -> str:
    """What is to be said."""
    return f"{' '.join(episode.facts)} {SO} {episode.answer}" if arm.reasons else episode.answer


def said(arm: Arm, text: str) -> str:
    """The answer in what was written."""
    return (text.rpartition(f"{SO} ")[2] if arm.reasons else text).strip().casefold()


class Writer:
    """Makes batches of episodes for a model with a window of ``context`` tokens."""

    def __init__(self, tokenizer: Any, config: Config, context: int | None) -> None:
        self.tokenizer, self.config, self.context = tokenizer, config, context
        self._end = end_token(tokenizer)

    def facts(self, episodes: Sequence[Episode], facts: Sequence[Sequence[str]]) -> tuple[Batch, torch.Tensor]:
        """The rows that are folded, and the episode of each. Raises UserError for a fact longer than the window."""
        queries = [
            self._fact(n, fact, f"{episode.id}, fact {n}")
            for episode, listed in zip(episodes, facts, strict=True)
            for n, fact in enumerate(listed)
        ]
        owner = [i for i, listed in enumerate(facts) for _ in listed]
        rows = encode_queries(self.tokenizer, queries, context=self.context).sequences
        return self._batch(rows), torch.tensor(owner, dtype=torch.int64)

    def _fact(self, number: int, fact: str, name: str) -> Query:
        if self.config.numbered:
            return Query(f"Fact {number}:", fact, id=name)
        first, _, rest = fact.partition(" ")  # something must stand before what is learnt
        return Query(first, rest, id=name) if rest else Query("", fact, id=name)

    def questions(self, arm: Arm, episodes: Sequence[Episode], facts: Sequence[Sequence[str]]) -> Batch:
        """A row an episode; the loss is on what is to be said, and on the end behind it."""
        queries = [
            Query(prompt(arm, episode, listed), target(arm, episode), id=episode.id)
            for episode, listed in zip(episodes, facts, strict=True)
        ]
        return self._batch(encode_queries(self.tokenizer, queries, end=True, context=self.context).sequences)

    def _batch(self, rows: Sequences) -> Batch:
        limit = self.context or int(rows.lengths.max())
        layout = OneEntryARow(
            TokenRows(rows), Order(len(rows), 0), start=[], end=self._end, length=limit, answers_only=True
        )
        return layout.batch(rows)

    def checked(self, arms: Sequence[Arm], episodes: Sequence[Episode]) -> int:
        """The most tokens of anything to be said, its end included. Raises UserError for what does not fit the window."""
        most = max(self.config.distractors)
        facts = [given(episode, most, self.config.seed) for episode in episodes]
        longest = 0
        if any(arm.folds for arm in arms):
            self.facts(episodes, facts)
        for arm in arms:
            batch = self.questions(arm, episodes, facts)
            longest = max(longest, int((batch.targets >= 0).sum(1).max()))
        return longest


def of_others(facts: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """Each episode with the facts of the next one."""
    return [*facts[1:], facts[0]]


def vocabulary_texts(config: Config, episodes: Sequence[Episode]) -> list[str]:
    """What a tokenizer for these episodes must know."""
    both = [Arm(), Arm(reasons=True)]
    numbers = [f"Fact {n}:" for n in range(64)] if config.numbered else []
    return [
        *numbers,
        *(fact for e in episodes for fact in (*e.facts, *e.distractors)),
        *(f"{prompt(arm, e, ())} {target(arm, e)}" for e in episodes for arm in both),
    ]
