"""Rows side by side are the rows, and read as if each stood alone."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from tests.support import zoo

from engramlab.core.forward.passes import takes_beside, target_seen
from engramlab.core.text.batches import IGNORE, Batch
from engramlab.core.text.packing import WORTH, side_by_side
from engramlab.core.training.loop import Recipe, TrainState, train

LENGTHS = (24, 5, 6, 7, 20, 9, 8, 3)


def batch(lengths=LENGTHS, seed: int = 0) -> Batch:
    """Rows of these lengths; the last two thirds of each are targets."""
    random = torch.Generator().manual_seed(seed)
    width = max(lengths)
    ids = torch.randint(2, 60, (len(lengths), width), generator=random)
    inside = torch.arange(width) < torch.tensor(lengths)[:, None]
    counts = inside & (torch.arange(width) >= torch.tensor(lengths)[:, None] // 3)
    targets = torch.where(counts, torch.randint(2, 60, ids.shape, generator=random), IGNORE)
    return Batch(torch.where(inside, ids, 1), targets, int(inside.sum()), np.zeros(len(lengths), np.uint8), inside)


class Same:
    """The same batch again and again, as a stream."""

    def __init__(self, of: Batch) -> None:
        self.of = of

    def take(self, rows: int, own: slice) -> Batch:
        assert rows == len(self.of.input_ids)
        return self.of

    def state(self) -> dict:
        return {}

    def restore(self, state: dict) -> None: ...


@pytest.mark.parametrize("seed", range(20))
def test_every_row_stands_there_once_and_whole(seed):
    random = np.random.default_rng(seed)
    lengths = [int(n) for n in random.integers(1, 40, random.integers(1, 30))]
    given = batch(lengths, seed)
    found = side_by_side(given)
    if found is None:
        best = -(-sum(lengths) // max(lengths))  # rows that they take at least
        assert sum(lengths) > WORTH * given.input_ids.numel() or best > WORTH * len(lengths) - 1
        return
    assert found.input_ids.shape[1] == given.input_ids.shape[1]
    assert len(found.input_ids) <= WORTH * len(lengths)
    rows = []
    for ids, targets, positions, places in zip(
        found.input_ids, found.targets, found.positions, found.places, strict=True
    ):
        starts = [*np.flatnonzero(positions.numpy() == 0), len(ids)]
        for start, stop in pairwise(starts):
            row = int(places[start]) // given.input_ids.shape[1]
            size = lengths[row]
            assert torch.equal(ids[start : start + size], given.input_ids[row, :size])
            assert torch.equal(targets[start : start + size], given.targets[row, :size])
            assert positions[start:stop].tolist() == list(range(stop - start))
            assert (targets[start + size : stop] == IGNORE).all()
            rows.append(row)
    assert sorted(rows) == list(range(len(lengths)))


@pytest.mark.parametrize("lengths", [(9, 9, 9, 9), (9, 8, 9, 9)])
def test_rows_without_padding_stay_as_they_are(lengths):
    assert side_by_side(batch(lengths)) is None


def test_padding_between_or_before_tokens_stays():
    given = batch()
    given.inside[1, 0] = False
    assert side_by_side(given) is None


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "qwen2", "gemma3_text"])
def test_each_is_read_as_if_it_stood_alone(family):
    """To the last layer's logits, and so to the weights after training."""
    model, given = zoo.model(family), batch()
    assert takes_beside(model, given)
    found = side_by_side(given)
    keep, kept = given.targets != IGNORE, found.targets != IGNORE
    with torch.no_grad():
        alone = target_seen(model, given.input_ids, keep).logits
        together = target_seen(model, found.input_ids, kept, positions=found.positions).logits
    order = torch.full((keep.numel(),), -1)
    order[keep.flatten()] = torch.arange(int(keep.sum()))
    torch.testing.assert_close(together, alone[order[found.places[kept]]], rtol=1e-4, atol=1e-4)
    other = copy.deepcopy(model)
    recipe = Recipe(steps=3, batch=len(LENGTHS), learning_rate=1e-2, eps=1e-3)
    states = [TrainState(one, recipe) for one in (model, other)]
    states[1].takes_beside = False
    losses = [[step.loss for step in train(state, Same(given))] for state in states]
    assert states[0].takes_beside
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for (name, one), two in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5, msg=name)


def test_fewer_cells_are_read():
    model, given, read = zoo.model("llama"), batch(), []
    state = TrainState(model, Recipe(steps=1, batch=len(LENGTHS)))
    state.takes_beside = takes_beside(model, given)
    with model.get_input_embeddings().register_forward_pre_hook(lambda _, args: read.append(args[0].numel())):
        next(train(state, Same(given)))
    assert read == [4 * 24]  # of 8 * 24; the rows have 82 tokens


@pytest.mark.parametrize("family", ["bloom", "mamba"])
def test_networks_that_would_mix_them_read_them_as_they_are(family):
    """ALiBi knows no positions, and a state goes on from row to row."""
    from transformers import AutoModelForCausalLM, BloomConfig, MambaConfig

    config = {"bloom": BloomConfig(hidden_size=32, n_layer=2, n_head=4, vocab_size=64)}
    config["mamba"] = MambaConfig(hidden_size=32, num_hidden_layers=2, vocab_size=64)
    torch.manual_seed(0)
    model, given = AutoModelForCausalLM.from_config(config[family]), batch()
    assert not takes_beside(model, given)
    state = TrainState(model, Recipe(steps=1, batch=len(LENGTHS)))
    next(train(state, Same(given)))
    assert state.takes_beside is False
