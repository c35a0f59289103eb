"""Does a probe that has never seen a subject read its attribute? Every subject is held out once, in one of five folds.

Source: Q-probing, arXiv 2309.14316, section 5; the folds, and when such a probe counts, are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from engramlab.base import bootstrap
from engramlab.base.random_access import key, permute
from engramlab.core.training.loop import Recipe
from engramlab.probing import q_probing
from engramlab.probing.classifier import Probe
from engramlab.probing.examples import UNKNOWN, Task, Tasks
from engramlab.probing.fitting import fit

FOLDS = 5
SUBJECTS, COMMON, SHARE = 100, 5, 0.8  # least subjects; of a class; least share of subjects in such classes
SAMPLES = 1000
#: Of a pretrained model: linear, as hidden-state-probing's, but with a norm that never looks at who else is in the batch.
PROBE = Probe(
    rank=0,
    norm="layer",
    recipe=Recipe(
        steps=500, batch=64, learning_rate=1e-3, weight_decay=0.3, eps=1e-6, schedule="linear", final=0.0, clip=None
    ),
)


@dataclass(frozen=True)
class Folded:
    """What probes read of held-out subjects.

    Attributes:
        predicted: int64 ``[subjects]``: the class read.
        accuracy: share that is right, with its 95 % interval over subjects ``low`` to ``high``.
        majority: what always saying the commonest class of the other folds gets.
        shuffled: what probes of shuffled labels get.
    """

    predicted: np.ndarray
    accuracy: float
    low: float
    high: float
    majority: float
    shuffled: float

    @property
    def passes(self) -> bool:
        """Does its interval lie above the majority class and above shuffled labels? Only then does it say anything."""
        return self.low > max(self.majority, self.shuffled) + 1e-9  # of summing in floats


def can_be_probed(labels: np.ndarray) -> bool:
    """Are there subjects enough (100), and most of them (80 %) in classes of five and more?"""
    counts = np.bincount(labels)
    return len(labels) >= SUBJECTS and int(counts[counts >= COMMON].sum()) >= SHARE * len(labels)


def folds(subjects: int, seed: int) -> np.ndarray:
    """int64 ``[subjects]``: the fold that each is held out in."""
    return permute(key(seed, "folds"), np.arange(subjects), subjects) % FOLDS


def tasks_of(labels: np.ndarray, fold: np.ndarray, seed: int) -> Tasks:
    """Two tasks a fold, one with shuffled labels; the labels of who is held out are unknown."""
    shuffled = labels[permute(key(seed, "shuffled"), np.arange(len(labels)), len(labels))]
    classes = int(labels.max()) + 1
    tasks = [Task(f"fold {k}", "whole", classes, control) for control in (False, True) for k in range(FOLDS)]
    rows = [np.where(fold == k, UNKNOWN, of) for of in (labels, shuffled) for k in range(FOLDS)]
    return Tasks(tasks, np.stack(rows).astype(np.int64))


def folded(
    folder: Path,
    model: nn.Module,
    tokenizer: Any,
    names: Sequence[str],
    labels: np.ndarray,
    *,
    accelerator: Any,
    label: str,
    seed: int = 0,
    console: Any = None,
) -> Folded:
    """Trains the probes of all folds as one stage of a run; see ``fitting.fit``.

    Args:
        names: of the subjects; the hidden state at a name's last token is read.
        labels: int64 ``[subjects]``, from 0.
    """
    fold = folds(len(labels), seed)
    tasks = tasks_of(labels, fold, seed)
    every = np.arange(len(labels))
    record = fit(
        folder,
        model,
        q_probing.examples(tokenizer, names, at="last"),
        tasks,
        PROBE,
        train=every,
        test=every,
        accelerator=accelerator,
        finish=lambda read: {"read": read[:, :, 0].tolist()},
        label=label,
        seed=seed,
        console=console,
    )
    return judged(np.array(record["read"]), labels, fold, seed)


def judged(read: np.ndarray, labels: np.ndarray, fold: np.ndarray, seed: int) -> Folded:
    """What the classes ``read``, int64 ``[tasks, subjects]``, say: of each subject only its own fold's count."""
    every = np.arange(len(labels))
    predicted, shuffled = read[fold, every], read[FOLDS + fold, every]
    right = (predicted == labels).astype(np.float64)
    weights = bootstrap.times(bootstrap.draws(len(labels), SAMPLES, seed)) / len(labels)
    low, high = bootstrap.interval(weights @ right)
    commonest = np.array([np.bincount(labels[fold != k]).argmax() for k in range(FOLDS)])
    control = labels[permute(key(seed, "shuffled"), every, len(labels))]
    return Folded(
        predicted,
        float(right.mean()),
        low,
        high,
        float((commonest[fold] == labels).mean()),
        float((shuffled == control).mean()),
    )
