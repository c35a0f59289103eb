"""bioR: have a chat model write biographies of the bioS people, until each text states all six facts word for word.

    engramlab corpus bior --model owner/chat-model --people 1000 --entries 5 --out corpora/bior

Every answer is asked for with a seed of its own, made from (seed, person, entry, try), and answers are asked for in rounds:
try 1 for every entry, then try 2 for those that are still without a text, and so on, in batches cut in order. What happened
is appended to a log batch by batch, so a killed run reads the log, goes on with the batch it was at, and ends with the very
texts that an uninterrupted run would have: batches have the same members either way.

Source: Physics of Language Models, Part 3.1 (arXiv 2309.14316), section 2 (bioR).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console

from engramlab.base.errors import UserError
from engramlab.base.progress import Bar
from engramlab.base.random_access import key
from engramlab.corpora.export import export
from engramlab.corpora.people import ATTRIBUTES, People, Pools
from engramlab.corpora.questions import Split
from engramlab.corpora.rewriting import RewrittenCorpus, clean, conversation, people_table, read, rewritten_questions
from engramlab.files import runs
from engramlab.files.journal import Journal
from engramlab.writing.author import LOG, Writer, finished, generating, writer


@dataclass(frozen=True)
class BiorConfig:
    """Biographies of the bioS people, rewritten by a chat model from their six facts."""

    model: str
    """A chat model: a folder, a .gguf file or a hub id. A model without a chat template continues the example instead."""
    people: int = 1000
    """People, the same as bioS has with this seed."""
    entries: int = 1
    """Texts about each person."""
    seed: int = 0
    """Decides the people, the order of the facts and the texts."""
    pools: Pools = field(default_factory=Pools)
    """How much of each pool of names and values is used."""
    temperature: float = 0.7
    """Divides the logits; lower is safer and more alike."""
    top_p: float = 0.9
    """Sample among the likeliest tokens that together have this probability."""
    max_new_tokens: int = 160
    """Longest answer, in tokens; a sentence that is cut off is dropped."""
    batch: int = 32
    """Answers written at once."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the model."""
    example: bool = True
    """Show the model a worked example first; small models need it, large ones write more freely without."""
    tries: int = 20
    """Answers asked for an entry before it is given up; with more of them the same command goes on."""
    missing: Literal["leave-out", "fail"] = "leave-out"
    """What becomes of entries that were given up: leave them out, or write no corpus."""

    def __post_init__(self) -> None:
        for name in ("people", "entries", "max_new_tokens", "batch", "tries"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: must be at least 1, not {getattr(self, name)}")
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise UserError(
                f"temperature must be at least 0 and top_p above 0 and at most 1, not {self.temperature} and {self.top_p}"
            )

    def decisive(self) -> dict[str, Any]:
        """The options that decide what is written; the others only say when to stop."""
        return {k: v for k, v in runs.plain(self).items() if k not in ("tries", "missing")}


def write_bior(
    config: BiorConfig, out: str | Path, *, write: Writer | None = None, console: Console | None = None
) -> dict[str, Any]:
    """Writes a bioR corpus into the folder `out`, which appears only when it is complete; see `export` for its tables.

    Until then the answers lie in a folder beside it whose name ends in ".generating"; the same call goes on from there.

    Args:
        write: answers in place of the config's model.

    Returns:
        What dataset.json holds: config, prompt, attempts, acceptance rate, what refused answers lacked, what was left out.

    Raises:
        UserError: `out` is another corpus or no corpus, the model cannot be loaded, no answer was accepted, or some entries
            were given up and `missing` is "fail".
    """
    out, decisive = Path(out), config.decisive()
    about = finished(out, decisive)
    if about is not None:
        return about
    people = People(config.people, config.seed, config.pools)
    with generating(out, "corpus bior", decisive) as folder:
        write = write or writer(
            config.model,
            dtype=config.dtype,
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            top_p=config.top_p,
        )
        work = _Work(config, people, folder / LOG, write)
        work.run(console or Console(stderr=True))
        about = work.about()
        _judge(config, about, folder)
        corpus = work.corpus(out)
        questions = rewritten_questions(corpus, Split(len(corpus.subjects), config.seed))
        export(corpus, questions, out, about=about, entry_columns={"tries": corpus.tries})
    return about


def _judge(config: BiorConfig, about: dict[str, Any], folder: Path) -> None:
    lacking = ", ".join(f"{name} ({n})" for name, n in list(about["lacking"].items())[:3])
    if not about["accepted"]:
        raise UserError(
            f"{config.model}: none of {about['answers']} answers states all six facts; most often missing: {lacking}. Take a "
            f"larger model or lower the temperature; the refused answers' log is in {folder}"
        )
    if about["left_out"] and config.missing == "fail":
        first = ", ".join(f"{row['entry']} of person {row['person']}" for row in about["left_out"][:5])
        raise UserError(
            f"{len(about['left_out'])} entries have no acceptable text after {config.tries} tries (entry {first}"
            f"{', …' if len(about['left_out']) > 5 else ''}); run the same command with more --tries, or --missing leave-out"
        )


class _Work:
    """Item e * people + s is entry e about person s."""

    def __init__(self, config: BiorConfig, people: People, log: Path, write: Writer) -> None:
        self.config, self.people, self.write = config, people, write
        self.journal = Journal(log)
        self.texts: dict[int, tuple[str, int]] = {}  # item -> text and try
        self.lacking: Counter[str] = Counter()
        self.answers = 0

    def facts(self, person: int) -> tuple[str, list[str]]:
        return self.people.name(person), [self.people.value(person, a) for a in range(len(ATTRIBUTES))]

    def run(self, console: Console) -> None:
        """All rounds: those in the log are read, the others written."""
        waiting = list(range(self.config.people * self.config.entries))
        known = iter(self.journal.rows)
        with Bar("corpus bior", len(waiting), console=console) as bar:
            for attempt in range(1, self.config.tries + 1):
                still: list[int] = []
                for start in range(0, len(waiting), self.config.batch):
                    items = waiting[start : start + self.config.batch]
                    row = next(known, None)
                    if row is None:
                        row = self._ask(attempt, items)
                        self.journal.add(**row)
                    elif (row["try"], row["items"]) != (attempt, items):
                        raise UserError(f"{self.journal.path}: not what this command wrote; remove that folder")
                    still += self._take(row)
                    rate = len(self.texts) / self.answers
                    bar.update(len(self.texts), f"try {attempt}, {rate:.1%} of answers accepted")
                waiting = still
                if not waiting:
                    break

    def _ask(self, attempt: int, items: list[int]) -> dict[str, Any]:
        conversations, seeds = [], []
        for item in items:
            entry, person = divmod(item, self.config.people)
            name, values = self.facts(person)
            order = key(self.config.seed, "bior facts", person, entry, attempt)
            conversations.append(conversation(name, self._pronoun(person), values, order, example=self.config.example))
            seeds.append(key(self.config.seed, "bior text", person, entry, attempt))
        texts: list[str | None] = []
        lacking: Counter[str] = Counter()
        for item, answer in zip(items, self.write(conversations, seeds), strict=True):
            text = clean(answer)
            missing = read(text, *self.facts(item % self.config.people)).missing
            lacking.update(missing)
            texts.append(None if missing else text)
        return {"try": attempt, "items": items, "texts": texts, "lacking": dict(lacking)}

    def _pronoun(self, person: int) -> str:
        return self.people.pronouns[int(self.people.pronoun(np.array([person]))[0])]

    def _take(self, row: dict[str, Any]) -> Iterator[int]:
        """Counts a batch in; the items that are still without a text."""
        self.answers += len(row["items"])
        self.lacking.update(row["lacking"])
        for item, text in zip(row["items"], row["texts"], strict=True):
            if text is not None:
                self.texts[item] = (text, row["try"])
        return (item for item in row["items"] if item not in self.texts)

    def about(self) -> dict[str, Any]:
        """What dataset.json holds."""
        config, total = self.config, self.config.people * self.config.entries
        without = [divmod(item, config.people) for item in range(total) if item not in self.texts]
        name, values = self.facts(0)
        order = key(config.seed, "bior facts", 0, 0, 1)
        return {
            "corpus": "bior",
            "config": config.decisive(),
            "prompt": conversation(name, self._pronoun(0), values, order, example=config.example),
            "tries": config.tries,
            "answers": self.answers,
            "accepted": len(self.texts),
            "acceptance_rate": round(len(self.texts) / self.answers, 4),
            "lacking": dict(self.lacking.most_common()),
            "left_out": [{"person": person, "entry": entry} for entry, person in without],
            "versions": runs.versions(),
        }

    def corpus(self, out: Path) -> RewrittenCorpus:
        """The accepted texts; people without any are not in it."""
        items = sorted(self.texts)
        there = sorted({item % self.config.people for item in items})
        number = {person: subject for subject, person in enumerate(there)}
        facts = [self.facts(person) for person in there]
        profiles = {"name": [name for name, _ in facts], "pronoun": [self._pronoun(person) for person in there]}
        for a, attribute in enumerate(ATTRIBUTES):
            profiles[attribute] = [values[a] for _, values in facts]
        subjects = [number[item % self.config.people] for item in items]
        texts = [self.texts[item][0] for item in items]
        spans = [read(text, *facts[subject]).spans for text, subject in zip(texts, subjects, strict=True)]
        return RewrittenCorpus(people_table(profiles), texts, subjects, spans, [self.texts[item][1] for item in items])
