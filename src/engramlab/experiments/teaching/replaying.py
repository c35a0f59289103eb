"""Text that is replayed against forgetting: the user's, or what the model writes by itself; and how likely text is that was
never trained on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from torch import nn

from engramlab.base.errors import UserError, quoted
from engramlab.base.progress import ProgressBar
from engramlab.base.random_access import key
from engramlab.core.text.tokens import Sequences, start_tokens
from engramlab.editing.keys.running_text import TextSource, source_texts
from engramlab.experiments._run import Run
from engramlab.experiments.teaching import tables
from engramlab.experiments.teaching.config import Config
from engramlab.experiments.teaching.stated import Stated
from engramlab.experiments.teaching.text import as_read, texts_as_rows
from engramlab.files.documents import documents
from engramlab.measuring.scoring import nats

TEXT_ROWS = 256  # of another text, that drift is measured on
FEWEST_TEXTS, MOST_TEXTS = 256, 20_000  # texts that are replayed, where nobody says how many
OFTEN = 2  # times that a replayed text is read, from which on it is said
REDRAWN = 4  # times as many texts as are wanted are sampled at most, as some cannot be replayed


def wanted(rows: float) -> int:
    """Texts that so many rows of replayed text need, so that each is read once."""
    return min(max(FEWEST_TEXTS, math.ceil(rows)), MOST_TEXTS)


def often(rows: float, texts: int) -> str:
    """What is to be said where training reads each of so many replayed texts many times; or ""."""
    if not texts or rows / texts <= OFTEN:
        return ""
    return (
        f"each of the {texts:,} replayed texts is read {rows / texts:.0f} times: what is read so often is learnt by heart, "
        "and other text is forgotten all the same; give more of them (--replay-texts, or a longer --replay file)"
    )


class Replay:
    """The texts of a run of teaching.

    Args:
        rows: rows of replayed text that training is going to read.

    Attributes:
        count: texts that are replayed or kept unseen, as many as are wanted.
        file: rows of the user's own replayed text; None where the model writes it, or nothing is replayed.
        other: rows of other text, on which drift is measured too.

    Raises:
        UserError: a file that is not there, or holds too little.
    """

    def __init__(self, config: Config, tokenizer: Any, rows: float) -> None:
        self.config, self.tokenizer = config, tokenizer
        texts = config.replay_texts or wanted(rows)
        self.count = texts + -(-texts // 4)
        self.other: Sequences | None = None
        self.file: Sequences | None = None
        if config.text is not None:
            self.other = self._rows(self._documents(str(config.text)), TEXT_ROWS, "text", config.text)
        if config.replay not in ("self", "none"):
            self.file = self._rows(self._documents(config.replay), self.count, "replay", config.replay, fewest=2)

    def _documents(self, source: str) -> Iterable[str]:
        return documents(source, self.config.text_column, by_line=True)

    def _rows(self, texts: Iterable[str], count: int, option: str, name: Any, fewest: int = 1) -> Sequences:
        rows = texts_as_rows(list(islice(texts, count)), self.tokenizer, self.config.replay_tokens)
        if not len(rows):
            raise UserError(f"{option}: {name} holds no text of two tokens or more")
        if len(rows) < fewest:
            raise UserError(
                f"{option}: {name} holds {len(rows)} text of two tokens or more; at least {fewest} are needed, for one in "
                "five is never trained and tells how far the model drifts"
            )
        return rows

    def check(self, stated: Stated) -> None:
        """Raises UserError where the replayed text of a file gives away what is taught.

        All facts of the table count, also those that the model turns out to know: they shall stay known by themselves.
        """
        config = self.config
        texts = list(islice(self._documents(config.replay), self.count))
        found = [(n, stated.fact(text)) for n, text in enumerate(as_read(texts, self.tokenizer, config.replay_tokens))]
        if wrong := [(n, fact) for n, fact in found if fact is not None]:
            n, fact = wrong[0]
            place = tables.place_of(config.replay, n + 1, texts[n])
            raise UserError(
                f"replay: {place} ({quoted(texts[n])}) states or asks for what is taught, the "
                f"{fact.relation} {quoted(fact.object)} of {quoted(fact.subject)}; leave such texts out ({len(wrong)} of "
                f"{len(texts)} do)"
            )

    def stating(self, stated: Stated) -> tuple[int, int]:
        """How many of the replayed texts of a file state or ask for such a fact, and of how many."""
        texts = list(islice(self._documents(self.config.replay), self.count))
        read = as_read(texts, self.tokenizer, self.config.replay_tokens)
        return sum(stated.fact(text) is not None for text in read), len(texts)

    def sampled(
        self, model: nn.Module, stated: Stated, run: Run, texts: int | None = None, *of: str
    ) -> tuple[list[str], int]:
        """Texts that the model writes by itself and that do not give away what is taught, and how many did and were left out.

        Args:
            texts: so many; None for ``count``.
            of: which others than those that are drawn without it.

        Raises:
            UserError: it writes hardly any text that could be replayed.
        """
        wanted, found, left_out = texts or self.count, list[str](), 0
        source = TextSource(seed=key(self.config.seed, "replay", *of) >> 1)
        most = self.config.replay_tokens
        with ProgressBar("replayed text", wanted, console=run.console) as bar:
            for text in islice(source_texts(model, self.tokenizer, source, most), REDRAWN * wanted):
                (seen,) = as_read([text], self.tokenizer, most)
                if seen and stated.fact(seen) is not None:
                    left_out += 1
                elif seen:
                    found.append(text)
                    bar.update(len(found))
                if len(found) >= wanted:
                    break
        if len(found) < min(2, wanted):
            raise UserError(
                f"replay: of {REDRAWN * wanted} texts that {self.config.model} wrote by itself {len(found)} could be replayed "
                f"({left_out} gave away what is taught, the others were empty); give it text with --replay FILE, or "
                "--replay none"
            )
        if left_out:
            run.say(
                f"{left_out} texts that the model wrote for replay state or ask for what is taught: they are left out, and "
                f"others drawn ({len(found)} of {wanted} are there)"
            )
        return found, left_out

    def as_rows(self, texts: Sequence[str]) -> Sequences:
        """Texts that the model wrote, as rows."""
        return texts_as_rows(texts, self.tokenizer, self.config.replay_tokens)

    def rows(self, sampled: Sequence[str]) -> tuple[Sequences | None, Sequences | None]:
        """Rows that are replayed, and a fifth of the same kind that are not; of the model's own texts, if they are what is
        replayed."""
        if self.config.replay == "none":
            return None, None
        rows = self.file
        if rows is None:
            rows = self.as_rows(sampled)
        cut = max(1, len(rows) - -(-len(rows) // 5))
        parts = [[rows.row(i).tolist() for i in some] for some in (range(cut), range(cut, len(rows)))]
        return Sequences.of(parts[0]), Sequences.of(parts[1]) if parts[1] else None

    def drift(self, model: nn.Module, unseen: Sequences | None) -> dict[str, float]:
        """Nats a token of text that was never trained on, by kind; ``unseen``: of the kind that is replayed."""
        kinds = {"replayed kind": unseen, "other text": self.other}
        return {
            name: nats(model, rows, start_tokens(self.tokenizer)) for name, rows in kinds.items() if rows is not None
        }
