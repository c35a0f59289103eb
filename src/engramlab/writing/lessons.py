"""Lessons about a user's own texts: rewrites and what can be asked about each, by a chat model or plainly, without one.

A chat model is asked, in `rounds`, for a phrase of each sentence that is worth remembering, for a sentence in other words that
ends in it, for two questions that it answers, and for rewrites that keep all of them. Without a model a sentence that ends in a
name or a number is asked for by its beginning, and rewrites are the same sentences in another order.

Sources: diverse rewrites and questions about a text, arXiv 2409.07431 and 2402.12847; requests and checks are ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engramlab.base.random_access import key, permute
from engramlab.base.sentences import sentences
from engramlab.base.terminal import Console
from engramlab.files.writing import room
from engramlab.writing import prompts as asking
from engramlab.writing.passages import STAGES, _Work
from engramlab.writing.rounds import Author, Conversation, Item, Stages, Writer

QUESTIONS = 2  # about each phrase: one to be trained, one to be asked only
WORDS = 90  # of a passage, about
_UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u9fff]")
_ENDING = re.compile(r"^(.*?\S) ((?:[A-Z][\w'’-]*|\d[\d.,]*\d|\d)(?: (?:[A-Z][\w'’-]*|\d[\d.,]*\d|\d)){0,3})[.!?]$")


@dataclass(frozen=True)
class Known:
    """One thing that a text says.

    Attributes:
        target: the phrase.
        own: the text's own sentence up to it.
        other: another wording that it ends.
        questions: that it answers; none without a chat model.
    """

    target: str
    own: str
    other: str
    questions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lesson:
    """A text, the same told otherwise, and what can be asked about it."""

    text: str
    rewrites: tuple[str, ...]
    known: tuple[Known, ...]

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Lesson:
        """From ``plain``."""
        known = tuple(Known(**{**one, "questions": tuple(one["questions"])}) for one in plain["known"])
        return cls(plain["text"], tuple(plain["rewrites"]), known)


def passages_of(text: str, words: int = WORDS) -> list[str]:
    """A document in passages of whole sentences, each of about so many words; those of a single sentence are left out."""
    found: list[list[str]] = [[]]
    for sentence in sentences(" ".join(text.split())):
        if sum(map(_words, (*found[-1], sentence))) > words and len(found[-1]) > 1:
            found.append([])
        found[-1].append(sentence)
    return [" ".join(some) for some in found if len(some) > 1]


def _words(text: str) -> int:
    """How many words, about; Chinese and Japanese put no spaces between theirs, of about two characters."""
    return len(text.split()) + len(_UNSPACED.findall(text)) // 2


def plain_lesson(text: str, rewrites: int, seed: int) -> Lesson:
    """A lesson without a chat model."""
    said = sentences(text)
    orders = [permute(key(seed, "order", text, k), range(len(said)), len(said)).tolist() for k in range(rewrites)]
    known: dict[str, Known] = {}
    for sentence in said:
        found = _ENDING.match(sentence)
        if found and len(found[1].split()) >= asking.FEWEST_PROMPT and found[2] not in found[1]:
            gap = f"Fill in the gap: {found[1]} ___.\nThe gap:"
            known.setdefault(found[2], Known(found[2], found[1], gap))
    return Lesson(text, tuple(" ".join(said[i] for i in order) for order in orders), tuple(known.values()))


def write_lessons(
    config: Author,
    texts: Sequence[str],
    rewrites: int,
    folder: Path,
    *,
    write: Writer | None = None,
    console: Console | None = None,
) -> list[Lesson]:
    """Lessons about texts, by a chat model, in the order of the texts; a killed call goes on from its log in ``folder``.

    What the model says nothing usable about has no lesson to speak of: ``known`` is then empty.

    Raises:
        UserError: the model cannot be loaded; the log is of other texts or options.
    """
    with room(folder):
        folder.mkdir(parents=True, exist_ok=True)
    work = _Lessons(config, folder, write or config.writer(), texts, rewrites)
    work.run(console or Console(stderr=True))
    return work.lessons()


class _Lessons(_Work):
    """The same stages as of made-up passages, about passages that are there, with questions."""

    def __init__(self, config: Author, folder: Path, write: Writer, texts: Sequence[str], rewrites: int) -> None:
        Stages.__init__(self, config, folder, write, (*STAGES, "question"))
        self.found["passage"] = {(p,): text for p, text in enumerate(texts)}
        self.rewrites = rewrites

    def run(self, console: Console) -> None:
        """Every stage over what the one before made."""
        every = range(len(self.found["passage"]))
        places = [(p, k) for p in every for k in range(len(sentences(self.found["passage"][(p,)])))]
        self.stage("target", places, self._ask_target, self._read_target, console)
        asked = [(p, k) for p in every for k in range(len(self.targets(p)))]
        self.stage("semantic", asked, self._ask_semantic, self._read_semantic, console)
        twice = [(p, k, j) for p, k in asked for j in range(QUESTIONS)]
        self.stage("question", twice, self._ask_question, self._read_question, console)
        versions = [(p, k) for p in every for k in range(self.rewrites)]
        self.stage("paraphrase", versions, self._ask_paraphrase, self._read_paraphrase, console)

    def lessons(self) -> list[Lesson]:
        """What came of it; a phrase without another wording or without both questions is not asked about."""
        found = []
        for (p,), text in self.found["passage"].items():
            known = []
            for k, (prompt, target) in enumerate(self.targets(p)):
                other = self.found["semantic"].get((p, k))
                questions = [self.found["question"].get((p, k, j)) for j in range(QUESTIONS)]
                if other and all(questions):
                    known.append(Known(target, prompt, other[0], tuple(str(one) for one in questions)))
            told = [self.found["paraphrase"].get((p, k)) for k in range(self.rewrites)]
            found.append(Lesson(text, tuple(filter(None, told)), tuple(known)))
        return found

    def _ask_question(self, item: Item) -> Conversation:
        _, target = self.targets(item[0])[item[1]]
        return asking.ask("question", passage=self.found["passage"][item[:1]], target=target)

    def _read_question(self, item: Item, answer: str) -> str:
        _, target = self.targets(item[0])[item[1]]
        known = [text for other, text in self.found["question"].items() if other[:2] == item[:2]]
        return asking.read_question(answer, target, known)
