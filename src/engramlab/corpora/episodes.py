"""Facts, a question that they answer, and the answer: episodes of reasoning, made of small worlds or read from files.

A world is some people, each with one leader (all in a ring) and one colour. A question of n hops goes from leader to leader
n - 1 times and asks for the colour there: its facts are the n that it needs, and all others of its world are distractors. Names
and wordings are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engramlab.base.arrays import Integers
from engramlab.base.errors import UserError, listed, quoted
from engramlab.base.joining import standing
from engramlab.base.random_access import draw, key, random_words

NAMES = (
    *("Ada", "Ben", "Cid", "Dan", "Eva", "Fay", "Gus", "Hal", "Ida", "Jon", "Kim", "Lea", "Max", "Ned", "Ona", "Pia"),
    *("Quin", "Rob", "Sue", "Tom", "Una", "Vic", "Wes", "Zoe"),
)
COLOURS = ("red", "blue", "green", "white", "black", "pink", "grey", "gold")


@dataclass(frozen=True, slots=True)
class Episode:
    """A question, what answers it, and what does not.

    Attributes:
        id: distinct among the episodes used together.
        facts: what the answer needs, in the order of the argument; all that is given, where a file does not tell.
        question: what the answer stands behind.
        labels: the answers there can be.
        distractors: facts of the same world that the answer does not need.
        hops: how many facts are to be combined; 0 where that is not known.
    """

    id: str
    facts: tuple[str, ...]
    question: str
    answer: str
    labels: tuple[str, ...]
    distractors: tuple[str, ...] = ()
    hops: int = 0


def checked(episode: Episode, where: str) -> Episode:
    """The episode, if it can be asked. Raises UserError; ``where`` opens the message."""
    if not episode.facts:
        raise UserError(f"{where}: has no facts; give at least one, or there is nothing to fold")
    if episode.answer not in episode.labels:
        raise UserError(f"{where}: its answer must be one of {listed(episode.labels)}, not {quoted(episode.answer)}")
    if any(standing(episode.question.casefold(), episode.answer.casefold())):
        raise UserError(
            f"{where}: its answer {quoted(episode.answer)} stands in the question {quoted(episode.question)}, from which it "
            "could be copied; word the question without it"
        )
    return episode


def worlds(count: int, seed: int, part: str, *, hops: int = 2, people: int = 4, colours: int = 4) -> list[Episode]:
    """One episode of each of ``count`` worlds; those of two parts, or of two seeds, are drawn apart.

    Args:
        part: "train", "test", ...
        hops: most hops; each number of them from 1 on is as frequent.

    Raises:
        UserError: more hops than people, or more people or colours than there are names for.
    """
    for name, value, least, most in (
        ("people", people, 2, len(NAMES)),
        ("colours", colours, 2, len(COLOURS)),
        ("hops", hops, 1, people),
    ):
        if not least <= value <= most:
            raise UserError(f"{name} must be from {least} to {most}, not {value}")
    names, colour, order = (key(seed, "world", part, what) for what in ("names", "colours", "order"))
    who = _shuffled(names, count, len(NAMES))[:, :people].tolist()
    has = draw(colour, np.arange(count * people), colours).reshape(count, people).tolist()
    others = _shuffled(order, count, 2 * people).tolist()
    return [_world(n, 1 + n % hops, *of, COLOURS[:colours]) for n, of in enumerate(zip(who, has, others, strict=True))]


def _shuffled(of: int, rows: int, n: int) -> Integers:
    """int64 ``[rows, n]``: each row 0 to n - 1 in an order of its own."""
    found: Integers = random_words(of, np.arange(rows * n)).reshape(rows, n).argsort(axis=1, kind="stable")
    return found


def _world(
    number: int, hops: int, who: list[int], colour: list[int], order: list[int], labels: tuple[str, ...]
) -> Episode:
    names, last = [NAMES[i] for i in who], hops - 1
    leads = [f"{one}'s leader is {names[(i + 1) % len(names)]}." for i, one in enumerate(names)]
    has = [f"{one}'s colour is {labels[colour[i]]}." for i, one in enumerate(names)]
    facts, every = (*leads[:last], has[last]), [*leads, *has]
    rest = tuple(every[i] for i in order if every[i] not in facts)
    question = f"{names[0]}'s" + " leader's" * last + " colour is"
    return Episode(f"world {number}", facts, question, labels[colour[last]], labels, rest, hops)
