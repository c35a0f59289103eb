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


def values_in_entries(
    model: nn.Module, sequences: Sequences, group: np.ndarray, names: Sequence[str], corpus: str = "bio"
) -> list[Row]:
    """First-token and whole-value accuracy of every attribute stated in entries, by group.

    A causal LM has read what stands before each token (a whole value is right where each of its tokens is the first choice). A
    masked LM has one attribute's whole value hidden at a time.

    Args:
        sequences: entries with start tokens, marks ``attribute + 1`` where a value stands.
        group: str ``[rows]``.
        names: names of the attributes.

    Returns:
        Rows ``{"corpus", "group", "attribute", "first_token", "whole"}`` with "mean" over attributes.
    """
    marks = sequences.marks
    if mask_token(model) is None:
        scores = score(model, replace(sequences, marks=_solid(marks)))
        begins = ((marks != np.concatenate([[0], marks[:-1]])) | _starts(sequences))[_solid(marks) > 0]
        at = np.flatnonzero(begins)
        row = np.repeat(np.arange(len(sequences)), np.diff(scores.offsets))[at]
        attribute, first = scores.marks.astype(np.int64)[at] - 1, scores.greedy[at]
        whole = np.logical_and.reduceat(scores.greedy, at) if len(at) else first
    else:
        of = np.repeat(np.arange(len(sequences)), sequences.lengths)
        hidden = [(marks == a + 1).astype(np.int8) for a in range(len(names))]
        found_scores = [score(model, replace(sequences, marks=one)) for one in hidden]
        first, whole = (
            np.concatenate(each)
            for each in ([one.first() for one in found_scores], [one.exact() for one in found_scores])
        )
        there = np.concatenate([np.isin(np.arange(len(sequences)), of[one > 0]) for one in hidden])
        row, first, whole = np.tile(np.arange(len(sequences)), len(names))[there], first[there], whole[there]
        attribute = np.repeat(np.arange(len(names)), len(sequences))[there]
    found = Asked(sequences, attribute, group[row], tuple(names)).rows({"first_token": first, "whole": whole})
    return [{"corpus": corpus, **{k: r[k] for k in ("group", "attribute", "first_token", "whole")}} for r in found]


def tokens_right(model: nn.Module, sequences: Sequences) -> dict[str, float]:
    """Which share of the tokens of entries is the model's first choice, given those before it.

    Args:
        sequences: entries with start tokens, marks above 0 where a value stands.

    Returns:
        ``next_token`` of all tokens but the first, and ``value_token`` of those of values alone: which wording comes next, no
        model can know. Of a masked LM, which has one attribute's values hidden at a time, ``value_token`` alone.
    """
    if mask_token(model) is not None:
        attributes = [a for a in np.unique(sequences.marks).tolist() if 0 < a != GAP]
        hidden = [score(model, replace(sequences, marks=(sequences.marks == a).astype(np.int8))) for a in attributes]
        right = np.concatenate([one.greedy for one in hidden])
        return {"value_token": float(right.mean())} if len(right) else {}
    marks = np.where(_starts(sequences), 0, np.where(_solid(sequences.marks) > 0, 2, 1)).astype(np.int8)
    scores = score(model, replace(sequences, marks=marks))
    of_values = scores.greedy[scores.marks == 2]
    shares = {"next_token": scores.greedy, "value_token": of_values}
    return {name: float(right.mean()) for name, right in shares.items() if len(right)}


def _solid(marks: np.ndarray) -> np.ndarray:
    """Marks of values alone: names and lone spaces are 0."""
    return np.where((marks > 0) & (marks != GAP), marks, 0).astype(np.int8)


def _starts(sequences: Sequences) -> np.ndarray:
    """bool ``[tokens]``: the first token of a row."""
    first = np.zeros(len(sequences.marks), bool)
    first[sequences.offsets[:-1][sequences.lengths > 0]] = True
    return first


def named(tokenizer: Any, scores: Scores) -> list[str]:
    """What a masked LM puts in the place of the scored tokens of each row, as text."""
    rows = [scores.predicted[a:b].tolist() for a, b in pairwise(scores.offsets)]
    return [text.strip() for text in tokenizer.batch_decode(rows, skip_special_tokens=True)]


def answers(model: nn.Module, tokenizer: Any, prompts: Sequence[str], *, longest: int, beams: int = 1) -> list[str]:
    """What the model itself answers to each prompt in at most ``longest`` tokens, greedy or by beam search."""
    return generate(model, tokenizer, prompts, decoding=beam.Config(beams), max_new_tokens=longest)
