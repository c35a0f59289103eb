"""Every question as statements with a gap, by every translator that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engramlab.base.errors import UserError
from engramlab.base.progress import ProgressBar
from engramlab.base.random_access import key, permute
from engramlab.corpora import cloze
from engramlab.corpora.choices import ChoiceQuestion, chosen, of_table, read_translations
from engramlab.corpora.cloze import Cloze
from engramlab.corpora.facts import FactTable
from engramlab.experiments._run import Run
from engramlab.experiments.cloze_questions.config import Config
from engramlab.files import records
from engramlab.reading.choices import read_questions
from engramlab.writing.rounds import Author, Rounds, Turn

REQUEST = (
    "Turn the question into a statement with ____ in the place of the answer. Do not answer it.\nQuestion: {question}"
)
EXAMPLES = (
    ("What is the largest planet of the solar system?", "The largest planet of the solar system is ____."),
    ("Where did the miners sleep when it rained?", "When it rained, the miners slept in ____."),
)


@dataclass(frozen=True)
class Translations:
    """One way of putting the questions: a name, a cloze for each question, and how each was got (see ``cloze.Translated``)."""

    name: str
    clozes: list[Cloze]
    hows: list[str]

    @property
    def fallbacks(self) -> float:
        """Share of the questions that were not translated."""
        return self.hows.count("fallback") / len(self.hows)

    def of_others(self, seed: int) -> Translations:
        """Every question with the cloze of another one."""
        count = len(self.clozes)
        order = permute(key(seed, "others"), np.arange(count), count)
        other = np.empty(count, dtype=np.int64)
        other[order] = np.roll(order, 1)
        return Translations(self.name, [self.clozes[i] for i in other], ["other"] * count)


def questions_of(config: Config) -> list[ChoiceQuestion]:
    """The questions that are asked, their options shuffled. Raises UserError for fewer than two."""
    if config.questions == "facts":
        table = config.table.fact_table() or FactTable.read("countries", relations=config.table.attributes)
        every = of_table(table, config.wrong, config.seed)
    else:
        every = read_questions(config.questions)
    found = [one.shuffled(config.seed) for one in chosen(every, config.limit, config.seed)]
    if len(found) < 2:
        raise UserError(f"questions: {config.questions} has {len(found)}; at least two are compared")
    return found


def offline(config: Config, questions: Sequence[ChoiceQuestion]) -> list[Translations]:
    """The translations that need no model, in the order of ``translators``; ``own`` is left out where the questions have none.

    Raises:
        UserError: what ``read_translations`` says of a user's file, or a statement of a question without exactly one gap.
    """
    found = []
    for name in config.translators:
        if name == "rules":
            made = [cloze.rules(question.text) for question in questions]
            found.append(Translations(name, [one.cloze for one in made], [one.how for one in made]))
        elif name == "bare":
            found.append(Translations(name, [cloze.bare(q.text) for q in questions], ["bare"] * len(questions)))
        elif name == "own":
            found += _own(config, questions)
    return found


def _own(config: Config, questions: Sequence[ChoiceQuestion]) -> list[Translations]:
    if config.translations is not None:
        lists = read_translations(config.translations, questions)
    else:
        lists = [[Cloze.of(text, f"question {q.id}: ") for text in q.translations] for q in questions]
    count = min(map(len, lists))
    names = ["own"] if count == 1 else [f"own {k}" for k in range(1, count + 1)]
    return [Translations(name, [one[k] for one in lists], ["own"] * len(lists)) for k, name in enumerate(names)]


def translated(run: Run, questions: Sequence[ChoiceQuestion], plain: Sequence[Translations]) -> list[Translations]:
    """All translations, those by a chat model from the run's folder or asked for now; written down in the folder."""
    config: Config = run.config
    found = {one.name: one for one in plain}
    if "model" in config.translators:
        found["model"] = _written(run, questions)
    order = {name: k for k, name in enumerate(config.translators)}
    every = sorted(found.values(), key=lambda one: order[one.name.split()[0]])  # type: ignore[index]
    path = run.folder / "translations.parquet"
    if not path.exists():
        rows = [
            {"id": q.id, "question": q.text, "translator": one.name, "cloze": str(made), "how": how}
            for one in every
            for q, made, how in zip(questions, one.clozes, one.hows, strict=True)
        ]
        records.write_rows(path, rows)
    return every


def _written(run: Run, questions: Sequence[ChoiceQuestion]) -> Translations:
    config: Config = run.config
    author = Author(config.writer or config.model, config.seed, max_new_tokens=80, batch=16, tries=config.tries)
    folder, write = run.folder / "writing", author.writer()
    folder.mkdir(exist_ok=True)
    texts: dict[int, str] = {}

    def asked(turn: Turn) -> dict[str, Any]:
        seeds = [key(config.seed, "translation", questions[i].id, turn.attempt) for i in turn.items]
        answers = write([conversation(questions[i].text) for i in turn.items], seeds)
        return {"texts": [answer.strip().partition("\n")[0].strip() for answer in answers]}

    with ProgressBar("translating", len(questions), console=run.console) as bar:
        for turn in Rounds(author, folder).turns({}, range(len(questions)), texts, bar):
            turn.record = turn.record or asked(turn)
            for item, text in zip(turn.items, turn.record["texts"], strict=True):
                if _one_gap(text):
                    texts[item] = text
    clozes = [Cloze.of(texts[i]) if i in texts else cloze.bare(q.text) for i, q in enumerate(questions)]
    return Translations("model", clozes, ["written" if i in texts else "fallback" for i in range(len(questions))])


def conversation(question: str) -> list[dict[str, str]]:
    """What a chat model is asked: two examples, then the question."""
    shown = [
        message
        for asked, said in EXAMPLES
        for message in (
            {"role": "user", "content": REQUEST.format(question=asked)},
            {"role": "assistant", "content": said},
        )
    ]
    return [*shown, {"role": "user", "content": REQUEST.format(question=question)}]


def _one_gap(text: str) -> bool:
    try:
        return bool(str(Cloze.of(text)).replace(cloze.GAP, "").strip(" ."))
    except UserError:
        return False
