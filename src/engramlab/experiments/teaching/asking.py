"""What a model says of the facts: in which wordings each is written, and how likely other text has become."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from engramlab.base import bootstrap
from engramlab.base.facts import Fact, Query
from engramlab.base.progress import Progress
from engramlab.base.rows import Row
from engramlab.core.text.chat import Chat, has_template
from engramlab.corpora.facts.teaching import Divided
from engramlab.experiments.teaching.documents import DocumentWords
from engramlab.measuring.answers import AnswerIndex, is_answer, is_named
from engramlab.measuring.asking import MOST_NEW_TOKENS, Evidence, Room, evidence_on, lengths_of, write
from engramlab.measuring.audit.classes import ALWAYS
from engramlab.measuring.questions import behind


@dataclass(frozen=True)
class Asked:
    """A fact asked for in one wording.

    Attributes:
        part: "trained" or "held-out".
        kind: "statement", "question" or "chat".
        said: the question that an answer may say again first.
    """

    fact: Fact
    group: str
    part: str
    kind: str
    prompt: str
    said: str = ""


#: What stands before a question, "" for nothing.
Passages = Callable[[Asked], str]


@dataclass(frozen=True)
class Group:
    """Facts that are asked for, and their wordings."""

    facts: Sequence[Fact]
    words: Divided | DocumentWords


class Examiner:
    """Asks a model for facts in all wordings.

    Args:
        groups: by name: "asked" (their questions are trained), "unasked" (never), "known" (extractable before), "native"
            (what the model shall keep: of a table of the user's, or of the countries).
    """

    def __init__(self, groups: dict[str, Group], tokenizer: Any) -> None:
        self.groups, self.tokenizer = groups, tokenizer
        self.chat = Chat(tokenizer) if has_template(tokenizer) else None

    def wordings(self, name: str, most: int | None = None) -> list[Asked]:
        """Every wording of the facts of a group, at most of so many: the first ones."""
        found, group = [], self.groups[name]
        for fact in group.facts[:most]:
            for part in ("trained", "held-out"):
                for kind, prompt in group.words.prompts(fact.relation, fact.subject, part):
                    found.append(Asked(fact, name, part, kind, prompt))
            if self.chat is not None:
                plain = group.words.trained.plain(fact.relation, fact.subject)
                found.append(Asked(fact, name, "held-out", "chat", self.chat.prompt(plain), plain))
        return found

    def ask(
        self,
        model: nn.Module,
        *,
        groups: Sequence[str] = (),
        most: int | None = None,
        passages: Passages | None = None,
        progress: Progress | None = None,
    ) -> list[Row]:
        """What is written in each wording: a row each; ``right`` where it begins with the object, ``named`` where the object
        stands in it anywhere, as in a chat's reply in whole sentences.

        Args:
            groups: those to ask for; all by default.
            most: facts of each group, at most: the first ones.
            passages: gives a text to stand before each question.
        """
        asked = [one for name in groups or self.groups for one in self.wordings(name, most)]
        if not asked:
            return []
        prompts = [self._put(one, passages) for one in asked]
        longest = max(lengths_of(self.tokenizer, [Query("", one.fact.object) for one in asked]).values())
        room = min(MOST_NEW_TOKENS, longest + 4)
        rooms = [Room(MOST_NEW_TOKENS + room if one.kind == "chat" else room) for one in asked]
        texts = write(model, self.tokenizer, prompts, rooms, progress=progress)
        return [
            {
                "subject": one.fact.subject,
                "relation": one.fact.relation,
                "object": one.fact.object,
                "group": one.group,
                "wordings": one.part,
                "kind": one.kind,
                "prompt": one.prompt,
                "written": text,
                "right": is_answer(text, (one.fact.object, *one.fact.aliases), one.said),
                "named": is_named(text, (one.fact.object, *one.fact.aliases)),
            }
            for one, text in zip(asked, texts, strict=True)
        ]

    def _put(self, one: Asked, passages: Passages | None) -> str:
        text = passages(one) if passages is not None else ""
        if one.kind == "chat" and text and self.chat is not None:
            return self.chat.prompt(behind(text, one.said))
        return behind(text, one.prompt)

    def _held(self, name: str, most: int | None) -> list[Asked]:
        return [one for one in self.wordings(name, most) if one.part == "held-out" and one.kind != "chat"]

    def whom(self) -> list[str]:
        """The subjects that the answers of ``chances`` and ``held`` are about."""
        return [one.fact.subject for name in self.groups for one in self._held(name, None)]

    def chances(self, model: nn.Module, most: int | None = None) -> list[float]:
        """Of every fact in every held-out wording (but the chat's), the object's mean log-probability a token, in nats."""
        return [float(np.mean(one.logprobs)) for one in self._evidence(model, most)]

    def _evidence(self, model: nn.Module, most: int | None) -> list[Evidence]:
        asked = [one for name in self.groups for one in self._held(name, most)]
        return evidence_on(model, self.tokenizer, [Query(one.prompt, one.fact.object) for one in asked], None, None)

    def held(self, model: nn.Module) -> list[bool]:
        """Is the object written, of the same?"""
        rows = self.ask(model)
        return [bool(row["right"]) for row in rows if row["wordings"] == "held-out" and row["kind"] != "chat"]

    def likely(self, model: nn.Module, most: int) -> list[Row]:
        """A row a group, of every fact in every held-out wording (but the chat's): ``logprob``, the mean of ``chances``, and
        ``first``, the mean probability of the object's first token."""
        seen, counts = self._evidence(model, most), [len(self._held(name, most)) for name in self.groups]
        logprobs = np.array([float(np.mean(one.logprobs)) for one in seen])
        first = np.exp([one.logprobs[0] for one in seen])
        edges = np.cumsum(counts)[:-1]
        parts = zip(self.groups, np.split(logprobs, edges), np.split(first, edges), strict=True)
        return [{"group": n, "logprob": float(a.mean()), "first": float(b.mean())} for n, a, b in parts if len(a)]


def shares(answers: Sequence[Row], seed: int, **about: Any) -> list[Row]:
    """The shares of answers that are right, by group, part and kind ("any" for all of them together), with 95 % bootstrap
    intervals over subjects; and of those that name the object somewhere (``named``, ``named_low``, ``named_high``)."""
    found = []
    for group in dict.fromkeys(row["group"] for row in answers):
        for part in ("trained", "held-out"):
            of = [row for row in answers if row["group"] == group and row["wordings"] == part]
            for kind in ("any", *dict.fromkeys(row["kind"] for row in of)):
                rows = [row for row in of if kind in ("any", row["kind"])]
                if rows:
                    found.append({**about, "group": group, "wordings": part, "kind": kind, **_share(rows, seed)})
    return found


def _share(rows: Sequence[Row], seed: int) -> Row:
    subjects = np.array([row["subject"] for row in rows])
    facts = len({(row["subject"], row["relation"]) for row in rows})
    found: Row = {"subjects": len(set(subjects.tolist())), "facts": facts}
    for name, key in (("share", "right"), ("named", "named")):
        if key in rows[0]:  # rows of an older version have no "named"
            values = np.array([float(row[key]) for row in rows])
            found |= bootstrap.ranged(values, subjects, seed, name)
    found |= {end: found.pop(f"share_{end}") for end in ("low", "high")}
    return found


#: What to do instead, by the way of an arm whose passages stand in the prompt.
_IN_PROMPT = {
    "context": "a passage that states the fact, in the prompt,",
    "retrieved": "the passage that shares the most words with the question, in the prompt,",
}


def advice(rows: Sequence[Row], taught: str, edited: str = "", prompted: Sequence[str] = ()) -> str:
    """Should these facts be taught, edited, or put in the prompt? By what was never trained.

    Of teaching and editing the one that answers more is named where their intervals lie apart. A passage in the prompt is where
    it answers more than teaching, or cannot be told from it.

    Args:
        taught, edited: the arms; "" for none that edits.
        prompted: arms with a passage in the prompt, among "context" and "retrieved".
    """

    def found(arm: str) -> Row | None:
        wanted = (arm, "unasked", "held-out", "any")
        return next((r for r in rows if (r["arm"], r["group"], r["wordings"], r["kind"]) == wanted), None)

    if (one := found(taught)) is None:
        return ""
    said = []
    if (other := found(edited)) is not None and _apart(one, other):
        shares = {"teaching": one["share"], "editing": other["share"]}
        better, worse = sorted(shares, key=lambda name: -shares[name])
        said.append(
            f"Of questions and wordings never trained, {better} answers {shares[better]:.0%} and {worse} {shares[worse]:.0%}: "
            f"for facts like these use engramlab {'edit' if better == 'editing' else 'teach'}."
        )
    for arm in prompted:
        row = found(arm)
        if row is None or (row["share"] < one["share"] and _apart(row, one)):
            continue
        verdict = "more than" if _apart(row, one) else "which cannot be told from"
        said.append(
            f"Of what was never trained, {_IN_PROMPT[arm]} answers {row['share']:.0%}, {verdict} the {one['share']:.0%} after "
            "teaching: where it fits, put it there."
        )
    return " ".join(said)


def _apart(one: Row, other: Row) -> bool:
    return bool(one["low"] > other["high"] or other["low"] > one["high"])


def watched(drift: Mapping[str, float]) -> float | None:
    """Of what unseen text is in nats, by kind, the number that is watched: that of the kind that is replayed, or else of the
    other text; None where there is neither."""
    return drift.get("replayed kind", drift.get("other text"))


STILL, ROSE = 3, 0.01  # measurements over which the share must rise so much, and drift may stay over its limit


def enough(course: Sequence[tuple[float, float | None]], before: float | None, limit: float) -> str:
    """Why a training should end, or "".

    While the rate is high a model is further from what it was than it ends: drift over its limit ends a training only where it
    was there for three measurements and is not coming back.

    Args:
        course: at each measurement, the share of held-out questions that are answered, and the nats of the text watched.
        before: those nats before training.
        limit: most nats that they may rise.
    """
    shares = [share for share, _ in course]
    if len(shares) > STILL and max(shares[-STILL:]) < max(shares[:-STILL]) + ROSE and max(shares) > 0:
        return "the share of questions that are answered no longer rose"
    rises = [nats - before for _, nats in course[-STILL:] if nats is not None and before is not None]
    if len(rises) == STILL and min(rises) > limit and rises[-1] >= rises[0]:
        return f"unseen text stayed more than {limit} nats less likely"
    return ""


def known(answers: Sequence[Row], objects: Mapping[str, Sequence[str]]) -> tuple[list[list[str]], int]:
    """The facts that were extractable (see ``measuring/audit/classes``: written in four fifths of the wordings, a statement and
    a question among them), and how many others had the same wrong object of the relation written in as many.

    Args:
        answers: of all wordings.
        objects: of each relation.
    """
    of: dict[tuple[str, str], list[Row]] = {}
    for row in answers:
        if row["group"] != "native":
            of.setdefault((row["subject"], row["relation"]), []).append(row)
    found, contradicted = [], 0
    index = {relation: AnswerIndex(others) for relation, others in objects.items()}
    for (subject, relation), rows in of.items():
        right = [bool(row["right"]) for row in rows]
        kinds = {row["kind"] == "statement" for row in rows if row["right"]}
        if np.mean(right) >= ALWAYS and kinds == {True, False}:
            found.append([subject, relation])
            continue
        if relation in index:
            begun = Counter(o for row in rows for o in index[relation].begun(row["written"]) if o != rows[0]["object"])
            contradicted += any(count / len(rows) >= ALWAYS for count in begun.values())
    return found, contradicted
