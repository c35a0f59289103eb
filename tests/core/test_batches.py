"""Streams of batches: what is in them, and that they go on from any point."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engramlab.base.errors import UserError
from engramlab.core.text.batches import IGNORE, Mixed, OneEntryARow, Order, Packed, TokenRows, batches
from engramlab.core.text.masking import Masked
from engramlab.core.text.tokens import GAP, Sequences
from engramlab.experiments.teaching.text import Then

END = 99


def entries(count: int = 10, first: int = 0) -> TokenRows:
    """Entry i is 2 to 6 tokens of value first + i; its first token is marked -1, its last 1."""
    lengths = [2 + (3 * i) % 5 for i in range(count)]
    rows = [[first + i] * n for i, n in enumerate(lengths)]
    return TokenRows(Sequences.of(rows, [[-1, *[0] * (n - 2), 1] for n in lengths]))


def packed(count: int = 10, seed: int = 0, first: int = 0, length: int = 16, **more) -> Packed:
    return Packed(entries(count, first), Order(count, seed), end=END, length=length, **more)


def one_a_row(count: int = 10, seed: int = 0, first: int = 0) -> OneEntryARow:
    return OneEntryARow(entries(count, first), Order(count, seed), start=[98], end=END, length=20)


STREAMS = {
    "one entry a row": lambda: OneEntryARow(entries(), Order(10, 0), start=[98], end=END, length=20),
    "one answer a row": lambda: OneEntryARow(entries(), Order(10, 0), start=[], end=END, length=20, answers_only=True),
    "packed": packed,
    "packed answers": lambda: packed(answers_only=True, length=5),
    "mixed": lambda: Mixed(packed(), packed(7, 5, 50), ratio=0.4, end=END, seed=3),
    "mixed entries": lambda: Mixed(one_a_row(), one_a_row(7, 5, 50), ratio=0.4, end=END, seed=3),
    "mixed twice": lambda: Mixed(
        Mixed(packed(), packed(7, 5, 50), ratio=0.5, end=END, seed=1), packed(4, 2, 70), ratio=0.3, end=END, seed=2
    ),
}


class Wordy:
    """Words of a made-up vocabulary: every even token begins one, 60 and above are special."""

    special, regular = np.arange(100) >= 60, np.arange(60)

    def begins(self, ids):
        return ids % 2 == 0


STREAMS |= {
    "masked": lambda: Masked(STREAMS["mixed entries"](), Wordy(), mask=97, share=0.4, seed=4),
    "masked answers": lambda: Masked(STREAMS["one answer a row"](), Wordy(), mask=97, answers=True, seed=4),
    "then": lambda: Then(one_a_row(), STREAMS["mixed"](), 12),
}


def same(a, b) -> bool:
    return (
        torch.equal(a.input_ids, b.input_ids)
        and torch.equal(a.targets, b.targets)
        and a.tokens == b.tokens
        and a.source.tolist() == b.source.tolist()
    )


# order --------------------------------------------------------------------------------------------------------------


@given(count=st.integers(1, 60), seed=st.integers(0, 99), subset=st.booleans())
def test_each_entry_once_an_epoch_in_a_new_order(count, seed, subset):
    chosen = np.arange(count) * 3 + 1 if subset else None
    order = Order(count * 3 + 1 if subset else count, seed, subset=chosen)
    epochs = [order.next(count).tolist() for _ in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == (np.arange(count) if chosen is None else chosen).tolist()
    if count > 20:
        assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert Order(count, seed + 1).next(count).tolist() != Order(count, seed).next(count).tolist() or count < 20


def test_entries_of_a_subject_are_not_neighbours():
    """Five entries of one person in a row would be copied within the window instead of stored."""
    people, each = 200, 5
    order = Order(people * each, 0)
    subjects = [order.next(people * each) % people for _ in range(20)]  # as corpora number entries
    together = np.mean([(epoch[1:] == epoch[:-1]).mean() for epoch in subjects])
    chance = (each - 1) / (people * each - 1)
    assert together < 1.5 * chance


def test_an_order_refuses_what_it_cannot_do():
    with pytest.raises(UserError, match="there are no entries"):
        Order(0, 0)
    with pytest.raises(UserError, match="checkpoint of a stream with count=10 cannot go on with count=11"):
        Order(11, 0).restore(Order(10, 0).state())


def test_an_order_goes_on_from_what_one_process_saved_before_orders_were_shared_and_refuses_a_share():
    order = Order(10, 0)
    order.restore({"epoch": 1, "position": 4, "world": 1, "count": 10})
    assert order.next(6).tolist() == Order(10, 0).next(20)[14:].tolist()
    with pytest.raises(UserError, match="checkpoint of 2 processes by an older version"):
        order.restore({"epoch": 1, "position": 4, "world": 2, "count": 10})


# rows ---------------------------------------------------------------------------------------------------------------


def test_rows_are_picked_in_the_order_asked_for():
    rows = entries().tokens(np.array([3, 0, 3]))
    assert [rows.row(i).tolist() for i in range(3)] == [[3] * 6, [0] * 2, [3] * 6]
    assert rows.marks.tolist() == [-1, 0, 0, 0, 0, 1, -1, 1, -1, 0, 0, 0, 0, 1]


def test_one_entry_a_row():
    stream = OneEntryARow(entries(), Order(10, 0), start=[98], end=END, length=20)
    batch = stream.take(4)
    order = Order(10, 0).next(4)
    texts = [[98, *entries().tokens(order[i : i + 1]).ids, END] for i in range(4)]
    width = max(map(len, texts)) - 1
    assert batch.input_ids.shape == batch.targets.shape == (4, width)
    for row, targets, text in zip(batch.input_ids.tolist(), batch.targets.tolist(), texts, strict=True):
        assert row == (text + [END] * 20)[:width]
        assert targets == text[1:] + [IGNORE] * (width - len(text) + 1)
    assert batch.tokens == sum(len(text) - 1 for text in texts)
    assert batch.source.tolist() == [0, 0, 0, 0]


def test_answers_only_counts_marked_tokens_and_the_end():
    question = Sequences.of([[1, 2, 3, 4, 5], [6, 7]], [[-1, 0, GAP, 2, 2], [0, 1]])
    stream = OneEntryARow(TokenRows(question), Order(2, 0), start=[98], end=END, length=9, answers_only=True)
    batch = stream.batch(question.wrapped([98], [END], suffix_mark=1))
    x = IGNORE
    assert batch.targets.tolist() == [[x, x, 3, 4, 5, END], [x, 7, END, x, x, x]]


@pytest.mark.parametrize("name", STREAMS)
@given(takes=st.lists(st.integers(1, 4), min_size=1, max_size=6), world=st.integers(1, 3))
def test_what_several_processes_make_is_what_one_would(name, takes, world):
    """Whatever the kind of stream: the own rows together are the whole batch, and all stand where the whole one does."""
    whole, shared = STREAMS[name](), [STREAMS[name]() for _ in range(world)]
    for share in takes:
        batch = whole.take(share * world)
        parts = [one.take(share * world, slice(k * share, (k + 1) * share)) for k, one in enumerate(shared)]
        width = batch.input_ids.shape[1]
        for what, pad in (("input_ids", END), ("targets", IGNORE)):
            got = [
                torch.nn.functional.pad(getattr(part, what), (0, width - getattr(part, what).shape[1]), value=pad)
                for part in parts
            ]
            assert torch.equal(torch.cat(got), getattr(batch, what))
        assert sum(part.tokens for part in parts) == batch.tokens
        assert np.concatenate([part.source for part in parts]).tolist() == batch.source.tolist()
    assert all(one.state() == whole.state() for one in shared)


def test_an_entry_longer_than_the_context_is_refused():
    stream = OneEntryARow(entries(), Order(10, 0), start=[98], end=END, length=7)
    with pytest.raises(UserError, match="an entry of 8 tokens does not fit the context of 7 tokens; raise it"):
        stream.take(10)


@given(takes=st.lists(st.integers(1, 9), min_size=1, max_size=6), length=st.integers(2, 30), answers=st.booleans())
def test_packed_rows_are_the_entries_end_to_end(takes, length, answers):
    stream = packed(length=length, answers_only=answers)
    order = Order(10, 0)
    whole = entries().tokens(order.next(sum(takes) * length)).wrapped([], [END], suffix_mark=1)
    at = 0
    for rows in takes:
        batch = stream.take(rows)
        for row, targets in zip(batch.input_ids.tolist(), batch.targets.tolist(), strict=True):
            assert row == whole.ids[at : at + length].tolist()
            counts = (whole.marks[at + 1 : at + length] > 0) | (not answers)
            assert targets == [*np.where(counts, row[1:], IGNORE).tolist(), IGNORE]
            at += length
        assert batch.tokens == rows * length


def test_mixed_rows_come_whole_from_one_stream_at_the_ratio():
    stream = Mixed(packed(), packed(7, 5, 50), ratio=0.8, end=END, seed=1)
    taken = [stream.take(50) for _ in range(40)]
    source = np.concatenate([batch.source for batch in taken])
    assert source.mean() == pytest.approx(0.8, abs=0.03)
    alone = (packed(), packed(7, 5, 50))
    for batch in taken:
        for number, one in enumerate(alone):
            if (batch.source == number).any():
                part = one.take(int((batch.source == number).sum()))
                where = torch.from_numpy(batch.source == number)
                assert torch.equal(batch.input_ids[where], part.input_ids)
                assert torch.equal(batch.targets[where], part.targets)
        assert batch.tokens == 50 * 16
    other = Mixed(packed(), packed(7, 5, 50), ratio=0.8, end=END, seed=2)
    assert other.take(50).source.tolist() != taken[0].source.tolist()


def test_mixed_rows_of_different_widths_are_padded():
    long = TokenRows(Sequences.of([[5] * 9]))
    stream = Mixed(
        one_a_row(), OneEntryARow(long, Order(1, 0), start=[98], end=END, length=20), ratio=0.5, end=END, seed=0
    )
    alone = one_a_row()
    batch = stream.take(12)
    assert batch.input_ids.shape == batch.targets.shape == (12, 10)
    short = alone.take(int((batch.source == 0).sum()))
    kept, width = torch.from_numpy(batch.source == 0), short.input_ids.shape[1]
    assert width < 10
    assert torch.equal(batch.input_ids[kept][:, :width], short.input_ids)
    assert torch.equal(batch.targets[kept][:, :width], short.targets)
    assert (batch.input_ids[kept][:, width:] == END).all()
    assert (batch.targets[kept][:, width:] == IGNORE).all()
    assert batch.input_ids[~kept].tolist() == [[98, *[5] * 9]] * int((batch.source == 1).sum())
    assert batch.tokens == short.tokens + 10 * int((batch.source == 1).sum())


# going on -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", STREAMS.values(), ids=STREAMS)
@settings(max_examples=40)
@given(before=st.lists(st.integers(1, 9), max_size=8), after=st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_a_restored_stream_goes_on_the_same(make, before, after):
    stream = make()
    for rows in before:
        stream.take(rows)
    state = json.loads(json.dumps(stream.state()))
    fresh = make()
    fresh.restore(state)
    for rows in after:
        assert same(stream.take(rows), fresh.take(rows))
    again = make()
    again.take(3)
    again.restore(json.loads(json.dumps(fresh.state())))
    assert same(stream.take(5), again.take(5))


def test_endless_batches():
    stream = batches(packed(), 3)
    assert [next(stream).input_ids.shape for _ in range(40)] == [(3, 16)] * 40
