"""bioR: have a chat model write biographies of the bioS people, until each text states all six facts word for word.

    engramlab corpus bior --model owner/chat-model --people 1000 --entries 5 --out corpora/bior

Every answer is asked for with a seed of its own, made from (seed, person, entry, try); see `rounds`.

Source: Physics of Language Models, Part 3.1 (arXiv 2309.14316), section 2 (bioR). The wording of the prompt is our own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from engramlab.base.errors import UserError
from engramlab.base.options import at_least
from engramlab.base.progress import ProgressBar
from engramlab.base.random_access import key, random_words
from engramlab.base.sentences import whole_sentences
from engramlab.base.terminal import Console
from engramlab.corpora.export import export
from engramlab.corpora.people import ATTRIBUTES, People, Pools
from engramlab.corpora.questions import Split
from engramlab.corpora.rewriting import RewrittenCorpus, people_table, rewritten_questions, stated_in
from engramlab.corpora.templates import PRONOUNS
from engramlab.files import runs, tables
from engramlab.files.locks import place
from engramlab.writing.rounds import Author, Rounds, Turn, Writer, finished_corpus, generating

REQUEST = "Rewrite these six facts about {name} ({pronoun}) as one paragraph. Leave none out:\n{facts}"
TRANSLATED = "\nWrite it in {language}, but leave every name and every value exactly as it is written above."

# One worked example goes before the question: small models learn from it to leave nothing out. Its sentences come in the
# order in which its facts are listed, so that the order of the answer follows the list, which is shuffled anew each time.
EXAMPLE_NAME = "Odette Marlow Finch"


@cache
def sentences() -> dict[str, dict[str, str]]:
    """What `bior.tsv` has for each attribute: how its fact is put, the example's value and its sentence."""
    return {row["attribute"]: row for _, row in tables.objects(str(Path(__file__).with_name("bior.tsv")))}


def conversation(
    name: str,
    pronoun: str,
    values: Sequence[str],
    order_key: int,
    *,
    example: bool = True,
    language: str = "English",
) -> list[dict[str, str]]:
    """What a chat model is asked: an example with its answer, then the facts about one person.

    Args:
        values: in the order of ATTRIBUTES, as they must appear in the answer.
        order_key: decides the order of the facts, here and in the example.
        example: show the example, which is English; without it there is one message.
        language: of the answer.

    Returns:
        Messages with "role" and "content".
    """
    order = np.argsort(random_words(order_key, np.arange(len(ATTRIBUTES)))).tolist()
    listed = [ATTRIBUTES[a] for a in order]
    asked = {"role": "user", "content": _request(name, pronoun, dict(zip(ATTRIBUTES, values, strict=True)), listed)}
    if language != "English":
        asked["content"] += TRANSLATED.format(language=language)
    if not example or language != "English":
        return [asked]
    later, worded = PRONOUNS[pronoun], sentences()
    named = {"who": EXAMPLE_NAME, "whose": f"{EXAMPLE_NAME}'s", "was": "was"}
    was = "were" if pronoun == "they" else "was"
    pronouns = {"who": later["he"].capitalize(), "whose": later["his"].capitalize(), "was": was}
    told = [
        worded[a]["sentence"].format(value=worded[a]["example"], **(pronouns if place else named))
        for place, a in enumerate(listed)
    ]
    return [
        {"role": "user", "content": _request(EXAMPLE_NAME, pronoun, {a: worded[a]["example"] for a in listed}, listed)},
        {"role": "assistant", "content": " ".join(told)},
        asked,
    ]


def _request(name: str, pronoun: str, values: dict[str, str], listed: Sequence[str]) -> str:
    lines = [f"- {sentences()[a]['fact'].format(name=name, value=values[a])}" for a in listed]
    return REQUEST.format(name=name, pronoun=pronoun, facts="\n".join(lines))


@dataclass(frozen=True)
class BiorConfig(Author):
    """Biographies of the bioS people, rewritten by a chat model from their six facts."""

    people: int = 1000
    """People, the same as bioS has with this seed."""
    entries: int = 1
    """Texts about each person."""
    pools: Pools = field(default_factory=Pools)
    """How much of each pool of names and values is used."""
    example: bool = True
    """Show the model a worked example first; small models need it, large ones write more freely without."""
    languages: tuple[str, ...] = ()
    """Languages of the texts about each person in turn: `--languages English French --entries 2` has a French text beside each
    English one (translation as augmentation; compare bior1 with bior2). Names and values stay as they are (ours), and the
    worked example is shown with English alone."""
    missing: Literal["leave-out", "fail"] = "leave-out"
    """What becomes of entries that were given up: leave them out (with several languages all texts of their people, so that the
    first texts stay those in the first language), or write no corpus."""

    def __post_init__(self) -> None:
        at_least(self, 1, "people", "entries")
        super().__post_init__()

    def decisive(self) -> dict[str, Any]:
        """See `Author.decisive`; corpora made before there were languages have none."""
        return {name: value for name, value in super().decisive().items() if name != "languages" or value}


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
        UserError: `out` is another corpus or no corpus, the model cannot be loaded, no answer was accepted, some entries were
            given up and `missing` is "fail", or with several languages nobody has all texts.
    """
    out, decisive = place(out), config.decisive()
    about = finished_corpus(out, decisive)
    if about is not None:
        return about
    people = People(config.people, config.seed, config.pools)
    with generating(out, "corpus bior", decisive) as folder:
        work = _Work(config, people, folder, write or config.writer())
        work.run(console or Console(stderr=True))
        about = work.about()
        _judge(config, about, folder)
        corpus = work.corpus()
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
    if len(about.get("people_left_out", ())) == config.people:
        raise UserError(
            f"languages: nobody has all {config.entries} texts after {config.tries} tries, and with several languages people "
            "who lack one are left out; run the same command with more --tries"
        )


class _Work:
    """Item e * people + s is entry e about person s."""

    def __init__(self, config: BiorConfig, people: People, folder: Path, write: Writer) -> None:
        self.config, self.people, self.write = config, people, write
        self.rounds = Rounds(config, folder)
        self.texts: dict[int, tuple[str, int]] = {}  # item -> text and try
        self.lacking: Counter[str] = Counter()
        self.answers = 0

    def facts(self, person: int) -> tuple[str, list[str]]:
        return self.people.name(person), [self.people.value(person, a) for a in range(len(ATTRIBUTES))]

    def run(self, console: Console) -> None:
        """All rounds: those in the log are read, the others written."""
        items = range(self.config.people * self.config.entries)
        with ProgressBar("corpus bior", len(items), console=console) as bar:
            for turn in self.rounds.turns({}, items, self.texts, bar):
                row = turn.record = turn.record or self._ask(turn)
                self.answers += len(turn.items)
                self.lacking.update(row["lacking"])
                for item, text in zip(turn.items, row["texts"], strict=True):
                    if text is not None:
                        self.texts[item] = (text, turn.attempt)

    def _ask(self, turn: Turn) -> dict[str, Any]:
        seeds = []
        for item in turn.items:
            entry, person = divmod(item, self.config.people)
            seeds.append(key(self.config.seed, "bior text", person, entry, turn.attempt))
        texts: list[str | None] = []
        lacking: Counter[str] = Counter()
        conversations = [self._conversation(item, turn.attempt) for item in turn.items]
        for item, answer in zip(turn.items, self.write(conversations, seeds), strict=True):
            text = whole_sentences(answer)
            missing = stated_in(text, *self.facts(item % self.config.people)).missing
            lacking.update(missing)
            texts.append(None if missing else text)
        return {"texts": texts, "lacking": dict(lacking)}

    def _conversation(self, item: int, attempt: int) -> list[dict[str, str]]:
        entry, person = divmod(item, self.config.people)
        name, values = self.facts(person)
        order = key(self.config.seed, "bior facts", person, entry, attempt)
        languages = self.config.languages or ("English",)
        language = languages[entry % len(languages)]
        return conversation(name, self._pronoun(person), values, order, example=self.config.example, language=language)

    def _pronoun(self, person: int) -> str:
        return self.people.pronouns[int(self.people.pronoun(np.array([person]))[0])]

    def about(self) -> dict[str, Any]:
        """What dataset.json holds."""
        config, total = self.config, self.config.people * self.config.entries
        without = [divmod(item, config.people) for item in range(total) if item not in self.texts]
        people = {"people_left_out": self._left_out()} if self._several else {}  # else those without any text
        return {
            "corpus": "bior",
            "config": config.decisive(),
            "prompt": self._conversation(0, 1),
            "tries": config.tries,
            "answers": self.answers,
            "accepted": len(self.texts),
            "acceptance_rate": round(len(self.texts) / self.answers, 4),
            "lacking": dict(self.lacking.most_common()),
            "left_out": [{"person": person, "entry": entry} for entry, person in without],
            **people,
            "versions": runs.versions(),
        }

    @property
    def _several(self) -> bool:
        return len(set(self.config.languages)) > 1

    def _left_out(self) -> list[int]:
        """People who lack a text: a later one, moved up, would be in another language than the others' at its place."""
        config = self.config
        return sorted({n % config.people for n in range(config.people * config.entries) if n not in self.texts})

    def corpus(self) -> RewrittenCorpus:
        """The accepted texts; people without any are not in it, nor with several languages those who lack one."""
        left_out = set(self._left_out()) if self._several else set()
        items = sorted(item for item in self.texts if item % self.config.people not in left_out)
        there = sorted({item % self.config.people for item in items})
        number = {person: subject for subject, person in enumerate(there)}
        facts = [self.facts(person) for person in there]
        profiles = {"name": [name for name, _ in facts], "pronoun": [self._pronoun(person) for person in there]}
        for a, attribute in enumerate(ATTRIBUTES):
            profiles[attribute] = [values[a] for _, values in facts]
        subjects = [number[item % self.config.people] for item in items]
        texts = [self.texts[item][0] for item in items]
        spans = [stated_in(text, *facts[subject]).spans for text, subject in zip(texts, subjects, strict=True)]
        return RewrittenCorpus(people_table(profiles), texts, subjects, spans, [self.texts[item][1] for item in items])
