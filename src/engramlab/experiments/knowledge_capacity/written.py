"""bioR: biographies that a chat model wrote, from the folder that ``engramlab corpus bior`` made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from engramlab.base.errors import UserError
from engramlab.core.text import tokens
from engramlab.core.text.assembly import TokenTable
from engramlab.core.text.batches import Entries
from engramlab.core.text.tokens import Sequences
from engramlab.corpora.people import People
from engramlab.corpora.rewriting import rewritten
from engramlab.experiments.knowledge_capacity.config import Config
from engramlab.experiments.knowledge_capacity.reading import GENDER, Reading, by_mention, chosen, facts, occurring


class Some:
    """Some of the entries there are."""

    def __init__(self, entries: Entries, which: np.ndarray) -> None:
        self.entries, self.which = entries, which

    def __len__(self) -> int:
        return len(self.which)

    def tokens(self, entries: np.ndarray) -> Sequences:
        """Rows with these numbers among the chosen."""
        return self.entries.tokens(self.which[entries])


class Written(Reading):
    """bioR. Where everybody has several texts, each one's last is not trained on, and measured on.

    The pronoun is not counted, since nobody has marked where a text first tells it.
    """

    def __init__(self, config: Config, tokenizer: Callable[[Callable[[], Iterator[str]]], Any]) -> None:
        super().__init__(config)
        folder = Path(config.written or "")
        corpus = rewritten(folder)
        people = len(corpus.population)
        if config.people != (people,):
            raise UserError(f"people: {folder} is about {people} people, and all are read about; use --people {people}")
        pools = People(people, config.seed, config.pools)
        shown = "".join(pools.pieces)  # every name and value there could be, for whoever guesses
        every = np.arange(len(corpus))

        def texts() -> Iterator[str]:
            return chain((corpus.passage(i).text for i in range(len(corpus))), [shown])

        self.tokenizer = tokenizer(texts)
        self.end = tokens.end_token(self.tokenizer)
        self.occurring = occurring(self.tokenizer, texts())
        self.table = TokenTable(corpus, self.tokenizer)
        self.attributes = corpus.attributes
        found = facts(pools, self.tokenizer, config.pools)
        sizes = {name: size for name, size in found.sizes.items() if name != GENDER}
        self.facts = replace(found, sizes=sizes, guesses={k: v for k, v in found.guesses.items() if k != GENDER})
        self.subject = corpus.subject(every)
        self.last = np.zeros(people, np.int64)
        self.last[self.subject] = every  # texts are in the order of their numbers
        held = self.last[self.last != corpus.first_entry(np.arange(people))]
        several = len(held) == people
        self.trained = np.setdiff1d(every, held) if several else every
        self.lengths = self.table.tokens(every).lengths
        self.dataset = "bioR" if several else "bioR, measured on texts read"

    def tables(self, people: int, mixture: str) -> list[Entries]:
        return [Some(self.table, self.trained)]

    def measured(self, people: int, whom: np.ndarray) -> Sequences:
        return self.table.tokens(self.last[whom])

    def trained_on(self, people: int, whom: np.ndarray) -> Sequences:
        return self.table.tokens(self.trained[np.isin(self.subject[self.trained], whom)])

    def bits(self, model: nn.Module, people: int, asked: int, mixture: str) -> dict[str, float]:
        rows = self.measured(people, chosen(people, asked))
        found = by_mention(model, rows, [self.end], self.attributes)
        losses = {name: float(value.mean()) for name, value in found.items()}
        return {**self.facts.bits(people, losses), **{f"loss_{name}": value for name, value in losses.items()}}
