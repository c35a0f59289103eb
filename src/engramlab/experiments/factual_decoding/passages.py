"""Passages that are true, counterfactual or on something else: does the model follow them, or keep its own answer?"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from engramlab.base.facts import Fact, Query
from engramlab.base.progress import Progress
from engramlab.base.random_access import key, permute
from engramlab.core.forward.decoding import Decoding, cad, greedy, micd
from engramlab.core.text.tokens import encode_queries
from engramlab.corpora.facts import FactTable
from engramlab.experiments.factual_decoding.asking import prompt, shots
from engramlab.experiments.factual_decoding.config import Config
from engramlab.experiments.factual_decoding.numbers import beside, mean
from engramlab.measuring.answers import is_answer
from engramlab.measuring.asking import Room, write
from engramlab.measuring.scoring import score_each
from engramlab.reading import contexts
from engramlab.reading.contexts import Reading

KINDS = ("true", "counterfactual", "irrelevant")
_END = re.compile(r"[.,;:!?\n(]")


@dataclass(frozen=True)
class Asked:
    """A fact, its question, and passages.

    Attributes:
        question: without a passage.
        passages: by kind, what is read and the object it states.
        prompts: by kind, the question behind it.
        other: the question behind another irrelevant passage, which MICD compares with.
    """

    fact: Fact
    question: str
    passages: dict[str, tuple[str, str]]
    prompts: dict[str, str]
    other: str


def made(config: Config, table: FactTable, facts: list[Fact]) -> list[Asked]:
    """Passages for each fact whose relation has enough others, in an order of the seed."""
    found = []
    shown = {relation: shots(config, table, relation) for relation in table.relations}
    for fact in facts:
        before = [one for one in shown[fact.relation] if one != fact]
        names = {name.lower() for name in (fact.object, *fact.aliases)}
        others = [f for f in table if f.relation == fact.relation and f.object.lower() not in names]
        if len({f.object for f in others}) < 3:
            continue
        order = permute(key(config.seed, "passages", fact.relation, fact.subject), np.arange(len(others)), len(others))
        one, two, three = _different([others[i] for i in order])
        stated = {"true": fact, "counterfactual": replace(fact, object=one.object), "irrelevant": two}
        said = {kind: (table.wordings.sentence(f, 0)[0], f.object) for kind, f in stated.items()}
        prompts = {kind: prompt(table, before, fact, passage) for kind, (passage, _) in said.items()}
        other = prompt(table, before, fact, table.wordings.sentence(three, 0)[0])
        found.append(Asked(fact, prompt(table, before, fact), said, prompts, other))
    return found


def _different(facts: list[Fact]) -> list[Fact]:
    """The first three with objects of their own."""
    return list({f.object: f for f in reversed(facts)}.values())[::-1][:3]


def ways(config: Config) -> list[tuple[str, float | None, Decoding]]:
    """Every decoder, with its weight."""
    contrasts = [(name, a, kind.Config(a)) for name, kind in (("cad", cad), ("micd", micd)) for a in config.alphas]
    return [("plain", None, greedy.Config()), *contrasts, ("micd", None, micd.Config(dynamic=True))]


def followed(
    config: Config, model: Any, tokenizer: Any, asked: list[Asked], progress: Progress | None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A row a kind of passage and decoder, and one a fact.

    What a decoder writes is read off its scores: an answer whose every token is the likeliest is what it writes first.
    """
    written = write(model, tokenizer, [a.question for a in asked], Room(config.new_tokens))
    own = [_END.split(text, maxsplit=1)[0].strip() for text in written]
    known = np.array(
        [is_answer(text, (a.fact.object, *a.fact.aliases)) for text, a in zip(written, asked, strict=True)]
    )
    rows, answers = [], []
    for number, kind in enumerate(KINDS):
        targets, prompts, bare, other, marks = [], [], [], [], []
        for i, (a, mine) in enumerate(zip(asked, own, strict=True)):
            stated = a.passages[kind][1]
            wanted = {"follows": stated, "own": mine, "right": a.fact.object}
            for name, target in wanted.items():
                if target:
                    marks.append((i, name))
                    targets.append(target)
                    prompts.append(a.prompts[kind])
                    bare.append(a.question)
                    other.append(a.other)
        streams = [
            encode_queries(tokenizer, [Query(p, t) for p, t in zip(of, targets, strict=True)]).sequences
            for of in (prompts, bare, other)
        ]
        hows = ways(config)
        told = None if progress is None else lambda done, of, n=number, tell=progress: tell(n * of + done, 3 * of)
        found = score_each(
            model,
            streams[0],
            [how for _, _, how in hows],
            beside={"bare": streams[1], "irrelevant": streams[2]},
            progress=told,
        )
        base: dict[str, np.ndarray] = {}
        for (name, alpha, _), scores in zip(hows, found, strict=True):
            says = {what: np.zeros(len(asked), dtype=bool) for what in ("follows", "own", "right")}
            for (i, what), exact in zip(marks, scores.exact(), strict=True):
                says[what][i] = exact
            base = base or says
            row: dict[str, Any] = {"kind": kind, "way": name, "alpha": alpha, "facts": len(asked)}
            row |= {"known": int(known.sum())}
            for what, values in says.items():
                row |= beside(what, values, base[what], config.seed)
            row |= mean("kept", says["right"][known], config.seed)
            rows.append(row)
            answers += [
                {"subject": a.fact.subject, "relation": a.fact.relation, "kind": kind, "way": name, "alpha": alpha}
                | {what: bool(values[i]) for what, values in says.items()}
                | {"passage": a.passages[kind][0], "alone": own[i]}
                for i, a in enumerate(asked)
            ]
    return rows, answers


def files(config: Config) -> dict[str, list[Reading]]:
    """The questions with passages of the user's files, by format; raises UserError."""
    found = {}
    if config.cad_file is not None:
        found["cad"] = contexts.load("cad").read(config.cad_file)
    if config.micd_questions is not None and config.micd_passages is not None:
        found["micd"] = contexts.load("micd").read(
            config.micd_questions, config.micd_passages, shots=config.shots, seed=config.seed
        )
    return found


def read(config: Config, model: Any, tokenizer: Any, name: str, asked: list[Reading]) -> list[dict[str, Any]]:
    """A row a decoder: how often what is written behind the passage is a right answer."""
    rows: list[dict[str, Any]] = []
    base: np.ndarray | None = None
    own = sorted({a.alpha for a in asked if a.alpha is not None})
    shares = {a.plausible or 0.0 for a in asked}
    share = shares.pop() if len(shares) == 1 else 0.0
    hows: list[tuple[str, float | None, Decoding]] = [("plain", None, greedy.Config())]
    hows += [("cad", alpha, cad.Config(alpha, share)) for alpha in (own or config.alphas)]
    if all(a.irrelevant for a in asked):
        hows += [("micd", alpha, micd.Config(alpha)) for alpha in config.alphas]
    for way, alpha, how in hows:
        streams = {"bare": [a.bare for a in asked], "irrelevant": [a.irrelevant for a in asked]}
        texts = write(
            model,
            tokenizer,
            [a.prompt for a in asked],
            Room(config.new_tokens),
            decoding=how,
            beside=[streams[context] for context in how.beside],
        )
        right = np.array([is_answer(text, a.answers) for text, a in zip(texts, asked, strict=True)])
        base = right if base is None else base
        rows.append(
            {"file": name, "way": way, "alpha": alpha, "questions": len(asked)}
            | beside("right", right, base, config.seed)
        )
    return rows
