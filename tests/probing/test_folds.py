"""Probes of subjects they have never seen: which relations have enough, folds, what counts as better than chance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from tests.support import zoo

from engramlab.probing import folds
from engramlab.probing.examples import UNKNOWN


@pytest.mark.parametrize(
    ("counts", "enough"),
    [
        ((50, 50), True),
        ((50, 49), False),
        ((40, 40, *[1] * 20), True),
        ((40, 39, *[1] * 21), False),
        ((4,) * 30, False),
    ],
)
def test_which_relations_can_be_probed(counts: tuple[int, ...], enough: bool) -> None:
    assert folds.can_be_probed(np.repeat(np.arange(len(counts)), counts)) == enough


def test_every_subject_is_held_out_once() -> None:
    labels = np.arange(103) % 4
    fold = folds.folds(103, 5)
    assert sorted(np.bincount(fold)) == [20, 20, 21, 21, 21]
    tasks = folds.tasks_of(labels, fold, 5)
    held = tasks.labels == UNKNOWN
    assert (held[: folds.FOLDS] == held[folds.FOLDS :]).all()
    assert (held[: folds.FOLDS].sum(0) == 1).all()
    seen = ~held[0]
    assert (tasks.labels[0, seen] == labels[seen]).all()
    assert (tasks.labels[folds.FOLDS, seen] != labels[seen]).any()
    assert len({task.name for task in tasks.tasks}) == 2 * folds.FOLDS


def test_what_passes() -> None:
    labels, fold = np.arange(200) % 4, folds.folds(200, 0)
    noise = np.random.default_rng(0).integers(0, 4, (10, 200))
    assert not folds.judged(noise, labels, fold, 0).passes
    oracle = noise.copy()
    oracle[fold, np.arange(200)] = labels  # only its own fold's probe counts
    found = folds.judged(oracle, labels, fold, 0)
    assert (found.accuracy, found.low, found.passes) == (1, pytest.approx(1), True)
    assert found.majority <= 0.26
    assert found.shuffled < 0.5
    both = np.tile(labels, (10, 1))
    both[5:] = labels[folds.permute(folds.key(0, "shuffled"), np.arange(200), 200)]
    assert not folds.judged(both, labels, fold, 0).passes  # shuffled labels are read as well


def test_a_probe_reads_what_the_embedding_says(tmp_path) -> None:
    """Names that begin with the class's own token: held-out subjects are read; shuffled labels are not; resumed the same."""
    words = [f"{colour} {number}" for number in range(30) for colour in ("red", "blue", "green", "white")]
    tokenizer = zoo.ZOO["llama3"]([*zoo.SENTENCES, *words])
    names = [" ".join(reversed(word.split())) for word in words]
    model = zoo.model("llama", vocabulary=len(tokenizer))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    made = [
        folds.folded(
            tmp_path, model, tokenizer, names, np.arange(120) % 4, accelerator=Accelerator(cpu=True), label="t"
        )
        for _ in range(2)
    ]
    assert made[0].accuracy > 0.8
    assert made[0].passes
    assert made[0].shuffled < 0.5
    assert (made[1].predicted == made[0].predicted).all()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
