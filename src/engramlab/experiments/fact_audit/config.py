"""Options and presets of fact audit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engramlab.base.errors import UserError
from engramlab.base.options import at_least
from engramlab.corpora.facts import FactOptions, FactTable
from engramlab.measuring.audit import QUICK, Asking


@dataclass(frozen=True)
class Config(FactOptions):
    """Everything that decides the numbers of a run."""

    READS = ("model", "beside")
    BASIC = (
        ("what is asked", ("model", "beside", "facts", "key", "attributes", "limit")),
        ("how", ("statement_wordings", "question_wordings", "options", "draws", "decoding", "seed")),
    )

    model: str = ""
    """What is asked: a model folder, a .gguf file, a hub id or an edited folder. Required."""
    beside: str = ""
    """A second model that is asked the same; the report shows what it has won and lost."""
    limit: int | None = None
    """At most so many of the facts, drawn by the seed; None for all."""
    statement_wordings: int = 3
    """Beginnings of sentences that ask for a fact, at most."""
    question_wordings: int = 3
    """Forms of the question, at most three."""
    options: int = 50
    """Objects of the relation that a fact's own is ranked among."""
    draws: int = 3
    """Lists of other facts before a fact; 0 shows none, and then no fact is latent."""
    read: bool = True
    """Ask behind a passage that states the fact, too: where that fails, the wording is at fault."""
    probe: bool = True
    """Probe the hidden state at a subject's name, where a relation has subjects enough in classes large enough; a probe that is
    surely better than the commonest object and than shuffled labels makes a fact latent that it reads."""
    decoded: bool = False
    """Write under DoLa too, into a column of its own that moves no class."""
    chat: bool = True
    """Put the question as a message of a user, too, where the model has a chat template."""
    decoding: Literal["greedy", "dola"] = "greedy"
    """How answers are written and options scored."""
    seed: int = 0
    """Of options, lists, made-up subjects and the bootstrap."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Number type of the weights; by default float32, or that of an edited folder."""

    def asking(self) -> Asking:
        """The options of the asking."""
        how = (
            self.statement_wordings,
            self.question_wordings,
            self.options,
            self.draws,
            self.read,
            self.chat,
            self.seed,
            self.decoded,
        )
        return Asking(*how)


PRESETS = {
    "full": Config(),
    "tiny": Config(
        statement_wordings=QUICK.statements,
        question_wordings=QUICK.questions,
        options=QUICK.options,
        draws=QUICK.draws,
        read=QUICK.read,
    ),
}


def check(config: Config) -> FactTable:
    """The facts. Raises UserError for options that cannot work, and whatever is wrong with the facts."""
    if not config.model.strip():
        raise UserError("model: say which model is asked, with --model and a model folder, a .gguf file or a hub id")
    config.asking()
    at_least(config, 1, "limit")
    table = config.fact_table() or FactTable.read("countries", relations=config.attributes)
    return table.sample(config.limit, config.seed)
