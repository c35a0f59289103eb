"""What probes are asked: texts with places to read, tasks with a label for every subject, and tasks that cannot be asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from engramlab.base.arrays import brief
from engramlab.base.random_access import key, permute
from engramlab.core.text.batches import TokenRows
from engramlab.core.text.tokens import Sequences

ProbeTarget = Literal["first", "whole"]
UNKNOWN = -1  # the label of a subject that a task says nothing about
NOWHERE = -1  # the place of an attribute that a text never states


@dataclass(frozen=True)
class Examples:
    """Texts to read, each about one subject.

    Attributes:
        texts: token rows, start tokens included.
        places: int64 ``[n, P]``: the tokens whose hidden states are read; ``NOWHERE`` for a place that a text does not have.
        subjects: int64 ``[n]``: whom each text is about.
    """

    __repr__ = brief

    texts: Sequences
    places: np.ndarray
    subjects: np.ndarray

    def __len__(self) -> int:
        return len(self.subjects)

    def batch(self, numbers: np.ndarray, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Texts by number: ids ``[B, T]`` padded at the right, lengths ``[B]``, places ``[B, P]``."""
        rows = TokenRows(self.texts).tokens(numbers)
        lengths = rows.lengths
        inside = np.arange(int(lengths.max())) < lengths[:, None]
        ids = np.zeros(inside.shape, dtype=np.int64)
        ids[inside] = rows.ids
        at = self.places[numbers]
        at = np.where(at == NOWHERE, at.max(axis=1, keepdims=True), at)  # something must be read; nobody looks at it
        made = (torch.from_numpy(each).to(device) for each in (ids, lengths.astype(np.int64), at))
        ids_made, lengths_made, places = made
        return ids_made, lengths_made, places


@dataclass(frozen=True)
class Task:
    """One thing to read from a hidden state: the first token of an attribute's value, or the whole value.

    Attributes:
        classes: how many there are among all subjects.
        control: labels are shuffled over subjects, so that there is nothing to read.
    """

    attribute: str
    target: ProbeTarget
    classes: int
    control: bool = False

    @property
    def name(self) -> str:
        """``first birth_city``, ``whole birth_city``, ``whole birth_city shuffled``."""
        return f"{self.target} {self.attribute}" + (" shuffled" if self.control else "")


@dataclass(frozen=True)
class Tasks:
    """Tasks and their labels.

    Attributes:
        labels: int64 ``[tasks, subjects]``, counted from 0; ``UNKNOWN`` where a subject has no such attribute.
        skipped: what cannot be asked: attribute, target and the reason.
    """

    __repr__ = brief

    tasks: list[Task]
    labels: np.ndarray
    skipped: list[dict[str, Any]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.tasks)


def tasks_of(
    attributes: Sequence[str],
    values: Mapping[ProbeTarget, np.ndarray],
    train: np.ndarray,
    *,
    first_only: Sequence[str] = (),
    controls: bool = False,
    seed: int = 0,
) -> Tasks:
    """First token and whole value of every attribute; the paper's eleven for bioS (birth dates by their first token only).

    Args:
        values: for each target, int64 ``[subjects, attributes]``: equal numbers are equal values, ``UNKNOWN`` is none.
        train: bool ``[subjects]``: who is in P_train.
        first_only: attributes whose whole value is not asked for.
        controls: a second task beside each, with the same labels shuffled over all subjects.
        seed: of the shuffles.

    Tasks with one class, or with more classes than subjects to train on, are skipped.
    """
    found: list[Task] = []
    labels: list[np.ndarray] = []
    skipped = []
    for target in ("first", "whole"):
        for a, attribute in enumerate(attributes):
            if target == "whole" and attribute in first_only:
                continue
            column = values[target][:, a]
            has = column != UNKNOWN
            named, inverse = np.unique(column[has], return_inverse=True)
            label = np.full(len(column), UNKNOWN)
            label[has] = inverse
            classes, examples = len(named), int((train & has).sum())
            if classes < 2 or classes > examples:
                what = "first tokens" if target == "first" else "values"
                reason = (
                    f"all subjects have the same {what[:-1]}"
                    if classes < 2
                    else f"{classes} {what} are more than the {examples} subjects to train on"
                )
                skipped.append({"attribute": attribute, "target": target, "classes": classes, "reason": reason})
                continue
            for control in (False, True)[: 1 + controls]:
                task = Task(attribute, target, classes, control)
                own = label.copy()
                if control:  # among those who have one
                    own[has] = inverse[permute(key(seed, "control", task.name), np.arange(len(inverse)), len(inverse))]
                found.append(task)
                labels.append(own)
    stacked = np.stack(labels) if labels else np.zeros((0, len(train)), dtype=np.int64)
    return Tasks(found, stacked.astype(np.int64), skipped)
