"""Fictional passages from a chat model: to be injected into a training stream, with paraphrases and queries at three depths.

    engramlab corpus passages --model owner/chat-model --passages 40 --out corpora/passages
    engramlab run knowledge-acquisition --inject corpora/passages/passages.jsonl --model MODEL --stream TEXT --out runs/mine

Five kinds of requests, one after another: the passages, a target in each of their sentences, the semantic and the
compositional queries, the paraphrases; each kind is asked for in `rounds`. What is asked and what is accepted stands in
`prompts`.

Source: the recipe of FICTIONAL KNOWLEDGE (arXiv 2406.11813).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engramlab.base.errors import UserError
from engramlab.base.facts import Query
from engramlab.base.options import at_least
from engramlab.base.rows import DEPTHS
from engramlab.base.sentences import sentences
from engramlab.base.terminal import Console
from engramlab.corpora.fictional import QUERIES, Fictional
from engramlab.corpora.passages import ROLE, PassageRecord, to_jsonl
from engramlab.files import runs, writing
from engramlab.files.locks import place
from engramlab.writing import prompts as asking
from engramlab.writing.rounds import Author, Conversation, Item, Stages, Writer, finished_corpus, generating

STAGES = ("passage", "target", "semantic", "compositional", "paraphrase")
FILE = "passages.jsonl"


@dataclass(frozen=True)
class PassagesConfig(Author):
    """Fictional passages, their queries at three depths and their paraphrases, written by a chat model."""

    passages: int = 120
    """Passages to write, each about an entity of its own."""
    sentences: int = 8
    """Sentences to ask for; an answer needs at least as many as there are queries a depth."""
    paraphrases: int = 9
    """Paraphrases of each passage."""
    max_new_tokens: int = 400
    batch: int = 16

    def __post_init__(self) -> None:
        at_least(self, 1, "passages")
        at_least(self, QUERIES, "sentences")
        at_least(self, 0, "paraphrases")
        super().__post_init__()


def write_passages(
    config: PassagesConfig, out: str | Path, *, write: Writer | None = None, console: Console | None = None
) -> dict[str, Any]:
    """Writes passages.jsonl and dataset.json into the folder `out`, which appears only when it is complete.

    Args:
        write: answers in place of the config's model.

    Returns:
        What dataset.json holds: config, answers and acceptance rate of each stage, and which passages were left out for what.

    Raises:
        UserError: `out` is another corpus or no corpus, the model cannot be loaded, or no passage came out whole.
    """
    out, decisive = place(out), config.decisive()
    about = finished_corpus(out, decisive)
    if about is not None:
        return about
    with generating(out, "corpus passages", decisive) as folder:
        work = _Work(config, folder, write or config.writer())
        work.run(console or Console(stderr=True))
        records, about = work.records(), work.about()
        if not records:
            lacking = ", ".join(f"{stage} ({n})" for stage, n in about["lacking"].items())
            raise UserError(
                f"{config.model}: none of {config.passages} passages came out whole; given up after {config.tries} tries: "
                f"{lacking}. Take a larger model or more --tries; the answers' log is in {folder}"
            )

        def save(path: Path) -> None:
            (path / FILE).write_text(to_jsonl(records), encoding="utf-8")
            writing.write_json(path / "dataset.json", about)

        writing.write_folder(out, save)
    return about


class _Work(Stages):
    """Items are passages, and behind those their sentences, queries or paraphrases."""

    config: PassagesConfig

    def __init__(self, config: PassagesConfig, folder: Path, write: Writer) -> None:
        super().__init__(config, folder, write, STAGES)
        self.entities = Fictional(config.passages, config.seed)

    def run(self, console: Console) -> None:
        """Every stage over what the one before made."""
        numbers = range(self.config.passages)
        passages = self.found["passage"]
        self.stage("passage", [(p,) for p in numbers], self._ask_passage, self._read_passage, console)
        places = [(p, k) for (p,) in passages for k in range(len(sentences(passages[(p,)])))]
        self.stage("target", places, self._ask_target, self._read_target, console)
        asked = [(p, k) for (p,) in passages if len(self.targets(p)) == QUERIES for k in range(QUERIES)]
        self.stage("semantic", asked, self._ask_semantic, self._read_semantic, console)
        asked = [item for item in asked if self._complete("semantic", item[0], QUERIES)]
        self.stage("compositional", asked, self._ask_compositional, self._read_compositional, console)
        kept = [p for p in numbers if self._complete("compositional", p, QUERIES)]
        versions = [(p, k) for p in kept for k in range(self.config.paraphrases)]
        self.stage("paraphrase", versions, self._ask_paraphrase, self._read_paraphrase, console)

    def targets(self, passage: int) -> list[tuple[str, str]]:
        """(prompt, target) of a passage's memorization queries: of its first sentences that have one, no target twice."""
        chosen: dict[str, str] = {}
        for (p, _), (prompt, target) in sorted(self.found["target"].items()):
            if p == passage and len(chosen) < QUERIES:
                chosen.setdefault(target, prompt)
        return [(prompt, target) for target, prompt in chosen.items()]

    def records(self) -> list[PassageRecord]:
        """The passages that have everything."""
        made = []
        for p in self._whole():
            text = self.found["passage"][(p,)]
            by_depth = [self.targets(p)]
            by_depth += [[self.found[depth][p, k] for k in range(QUERIES)] for depth in DEPTHS[1:]]
            queries = tuple(
                Query(prompt, target, (), f"{p}/{depth}/{k}", str(p), "", ROLE, depth)
                for depth, pairs in zip(DEPTHS, by_depth, strict=True)
                for k, (prompt, target) in enumerate(pairs)
            )
            versions = tuple(self.found["paraphrase"][p, k] for k in range(self.config.paraphrases))
            made.append(PassageRecord(str(p), text, versions, queries, ("",) * len(queries)))
        return made

    def about(self) -> dict[str, Any]:
        """What dataset.json holds."""
        rates = {stage: len(self.found[stage]) / n for stage, n in self.answers.items() if n}
        left = {p: self._lacks(p) for p in range(self.config.passages) if p not in set(self._whole())}
        return {
            "corpus": "passages",
            "config": self.config.decisive(),
            "tries": self.config.tries,
            "answers": dict(self.answers),
            "acceptance_rate": {stage: round(rate, 4) for stage, rate in rates.items()},
            "passages": self.config.passages - len(left),
            "left_out": [{"passage": p, "lacks": stage} for p, stage in left.items()],
            "lacking": dict(Counter(left.values()).most_common()),
            "versions": runs.versions(),
        }

    def _whole(self) -> list[int]:
        return [p for p in range(self.config.passages) if not self._lacks(p)]

    def _lacks(self, passage: int) -> str:
        """The first stage a passage did not come through; empty when it has everything."""
        if (passage,) not in self.found["passage"]:
            return "passage"
        if len(self.targets(passage)) < QUERIES:
            return "target"
        needed = {"semantic": QUERIES, "compositional": QUERIES, "paraphrase": self.config.paraphrases}
        return next((stage for stage, n in needed.items() if not self._complete(stage, passage, n)), "")

    def _complete(self, stage: str, passage: int, needed: int) -> bool:
        return all((passage, k) in self.found[stage] for k in range(needed))

    def _ask_passage(self, item: Item) -> Conversation:
        name, kind = self.entities.name(item[0]), self.entities.kind(item[0])
        return asking.ask("passage", name=name, kind=kind, count=self.config.sentences)

    def _read_passage(self, item: Item, answer: str) -> str:
        return asking.read_passage(answer, self.entities.name(item[0]), QUERIES)

    def _ask_target(self, item: Item) -> Conversation:
        return asking.ask("target", sentence=self._sentence(item))

    def _read_target(self, item: Item, answer: str) -> tuple[str, str] | None:
        return asking.read_target(answer, self._sentence(item))

    def _sentence(self, item: Item) -> str:
        return sentences(self.found["passage"][item[:1]])[item[1]]

    def _ask_semantic(self, item: Item) -> Conversation:
        prompt, target = self.targets(item[0])[item[1]]
        return asking.ask("semantic", prompt=prompt, target=target)

    def _read_semantic(self, item: Item, answer: str) -> tuple[str, str] | None:
        prompt, target = self.targets(item[0])[item[1]]
        return asking.read_ending(answer, target, [prompt])

    def _ask_compositional(self, item: Item) -> Conversation:
        _, target = self.targets(item[0])[item[1]]
        return asking.ask("compositional", passage=self.found["passage"][item[:1]], target=target)

    def _read_compositional(self, item: Item, answer: str) -> tuple[str, str] | None:
        prompt, target = self.targets(item[0])[item[1]]
        found = asking.read_ending(answer, target, [prompt, self.found["semantic"][item][0]])
        return found if found and asking.composed(found[0], target, self.found["passage"][item[:1]]) else None

    def _ask_paraphrase(self, item: Item) -> Conversation:
        kept = "; ".join(dict.fromkeys(target for _, target in self.targets(item[0])))
        return asking.ask("paraphrase", passage=self.found["passage"][item[:1]], kept=kept)

    def _read_paraphrase(self, item: Item, answer: str) -> str:
        known = [text for (p, _), text in self.found["paraphrase"].items() if p == item[0]]
        targets = [target for _, target in self.targets(item[0])]
        return asking.read_paraphrase(answer, self.found["passage"][item[:1]], targets, known)
