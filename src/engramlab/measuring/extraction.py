"""Can the model be asked? Exact match and first-token accuracy of questions and biographies.

Source: arXiv 2309.14316, section 2.2 (accuracy = share of answers equal to the gold answer) and section 4 ("study to pass the
test": first-token accuracies of BIO and QA data for P_train and P_test along training).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from torch import nn

from engramlab.base.arrays import brief
from engramlab.base.rows import Row
from engramlab.core.forward.decoding import beam
from engramlab.core.forward.generation import generate
from engramlab.core.models import mask_token
from engramlab.core.text.tokens import GAP, Sequences
from engramlab.corpora.layout import Population, holes_of
from engramlab.measuring.scoring import Scores, score


@dataclass(frozen=True)
class Asked:
    """Questions to ask, as token rows.

    Attributes:
        sequences: start tokens, question, answer, end token; answer and end token (for a masked LM the answer alone) are
            marked.
        attribute: int64 ``[n]``: which attribute each asks for.
        group: str ``[n]``: the group of whom it is about: "train" (P_train), "test" (P_test), ...
        names: names of the attributes.
    """

    __repr__ = brief

    sequences: Sequences
    attribute: np.ndarray
    group: np.ndarray
    names: tuple[str, ...]

    def groups(self) -> Iterable[tuple[str, str, np.ndarray]]:
        """(group, attribute name or "mean", which rows) for each group that has questions."""
        for group in dict.fromkeys(self.group.tolist()):
            for a, name in enumerate(self.names):
                yield group, name, (self.group == group) & (self.attribute == a)

    def rows(self, correct: dict[str, np.ndarray]) -> list[Row]:
        """One row per group and attribute, and a "mean" over attributes, of each named bool ``[n]``."""
        found: list[Row] = []
        for group, name, chosen in self.groups():
            if not chosen.any():  # nobody of the group has it
                continue
            shares = {key: float(values[chosen].mean()) for key, values in correct.items()}
            found.append({"group": group, "attribute": name, **shares, "questions": int(chosen.sum())})
        for group in dict.fromkeys(row["group"] for row in found):
            of = [row for row in found if row["group"] == group]
            means = {key: float(np.mean([row[key] for row in of])) for key in correct}
            total = sum(row["questions"] for row in of)
            found.append({"group": group, "attribute": "mean", **means, "questions": total})
        return found


def ask(model: nn.Module, asked: Asked) -> tuple[list[Row], Scores]:
    """Exact match and first-token accuracy by group and attribute, from one pass.

    Exact means that greedy decoding writes the gold answer and then the end token (see ``Scores.exact``); of a masked LM, asked
    with as many mask tokens as the answer has tokens, that it names all of them.
    """
    scores = score(model, asked.sequences)
    return asked.rows({"exact_match": scores.exact(), "first_token": scores.first()}), scores


def commonest(
    population: Population, names: Sequence[str], train: np.ndarray, groups: Mapping[str, np.ndarray]
) -> dict[tuple[str, str], float]:
    """What always naming an attribute's commonest value of P_train would have right: the chance level of exact match.

    Args:
        train: the subjects whose questions are trained on, as indices into the population.
        groups: those who are asked about, by group.

    Returns:
        The share by group and attribute, and by group and "mean" the mean over attributes.
    """
    found: dict[tuple[str, str], float] = {}
    holes = holes_of(population)
    for a, name in enumerate(names):
        asked = {
            group: subjects if holes is None else subjects[~holes[subjects, a]]
            for group, subjects in {**groups, "": train}.items()
        }
        values, counts = np.unique(population.value_pieces(a, asked.pop("")), axis=0, return_counts=True)
        for group, members in asked.items():
            right = (
                [(population.value_pieces(a, members) == values[counts.argmax()]).all(axis=1)] if len(values) else []
            )
            found[group, name] = float(np.mean(right)) if len(members) and right else 0.0
    for group in groups:
        found[group, "mean"] = float(np.mean([found[group, name] for name in names]))
    return found


def first_token_of_values(
    model: nn.Module, sequences: Sequences, group: np.ndarray, names: Sequence[str], corpus: str = "bio"
) -> list[Row]:
    """First-token accuracy of every attribute stated in entries, by group.

    A causal LM has read what stands before the value. A masked LM has one attribute's whole value hidden at a time.

    Args:
        sequences: entries with start tokens, marks ``attribute + 1`` where a value stands.
        group: str ``[rows]``.
        names: names of the attributes.

    Returns:
        Rows ``{"corpus", "group", "attribute", "first_token"}`` with "mean" over attributes.
    """
    marks = sequences.marks
    if mask_token(model) is None:
        begins = (marks > 0) & (marks != GAP) & (np.concatenate([[0], marks[:-1]]) != marks)
        scores = score(model, replace(sequences, marks=np.where(begins, marks, 0).astype(np.int8)))
        row = np.repeat(np.arange(len(sequences)), np.diff(scores.offsets))
        attribute, right = scores.marks.astype(np.int64) - 1, scores.greedy
    else:
        of = np.repeat(np.arange(len(sequences)), sequences.lengths)
        hidden = [(marks == a + 1).astype(np.int8) for a in range(len(names))]
        right = np.concatenate([score(model, replace(sequences, marks=one)).first() for one in hidden])
        there = np.concatenate([np.isin(np.arange(len(sequences)), of[one > 0]) for one in hidden])
        row = np.tile(np.arange(len(sequences)), len(names))[there]
        attribute, right = np.repeat(np.arange(len(names)), len(sequences))[there], right[there]
    found = Asked(sequences, attribute, group[row], tuple(names)).rows({"first_token": right})
    return [{"corpus": corpus, **{k: r[k] for k in ("group", "attribute", "first_token")}} for r in found]


def named(tokenizer: Any, scores: Scores) -> list[str]:
    """What a masked LM puts in the place of the scored tokens of each row, as text."""
    rows = [scores.predicted[a:b].tolist() for a, b in pairwise(scores.offsets)]
    return [text.strip() for text in tokenizer.batch_decode(rows, skip_special_tokens=True)]


def answers(model: nn.Module, tokenizer: Any, prompts: Sequence[str], *, longest: int, beams: int = 1) -> list[str]:
    """What the model itself answers to each prompt in at most ``longest`` tokens, greedy or by beam search."""
    return generate(model, tokenizer, prompts, decoding=beam.Config(beams), max_new_tokens=longest)
