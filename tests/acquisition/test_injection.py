"""Groups, plans and the injected stream: what is in which row of which step, and what is refused before any."""

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engramlab.acquisition.injection import Injected, encode_passages, plan_injections
from engramlab.acquisition.schedule import Group, fill_rows, make_groups
from engramlab.base.errors import UserError
from engramlab.core.text.batches import IGNORE, OneEntryARow, Order, Packed, TokenRows, batches
from engramlab.core.text.tokenizers import train_compact_tokenizer
from engramlab.core.text.tokens import Sequences

END, WINDOW, ROWS = 0, 16, 4


def text(passage: int, version: int, length: int = 5) -> list[int]:
    """Tokens that say what they are: 1000 + 100 passage + 10 version + place."""
    return [1000 + 100 * passage + 10 * version + k for k in range(length)]


def versions(passages: int = 4, texts: int = 3, length: int = 5) -> list[list[list[int]]]:
    return [[text(p, v, length) for v in range(texts)] for p in range(passages)]


def packed(seed: int = 0, answers_only: bool = False) -> Packed:
    rows = [[1 + i] * (2 + i % 5) for i in range(30)]
    marks = [[0, *[1] * (len(row) - 1)] for row in rows]
    return Packed(
        TokenRows(Sequences.of(rows, marks)), Order(30, seed), end=END, length=WINDOW, answers_only=answers_only
    )


def small_plan(schedule="duplicate", *, passages=(0, 1), start=1, interval=2, times=3, **more):
    groups = [Group("g", schedule, passages, start, interval, times)]
    given = {"versions": versions(), "rows": ROWS, "window": WINDOW, "steps": 8, "end": END} | more
    return plan_injections(groups, given.pop("versions"), **given)


# schedules ----------------------------------------------------------------------------------------------------------


def test_steps_and_versions_of_each_schedule():
    def met(schedule):
        group = Group("g", schedule, (0,), start=3, interval=10, times=4)
        return [(step, group.version(k)) for k, step in enumerate(group.steps)]

    assert met("duplicate") == [(3, 0), (13, 0), (23, 0), (33, 0)]
    assert met("paraphrase") == [(3, 0), (13, 1), (23, 2), (33, 3)]
    assert met("once") == [(3, 0)]
    assert met("never") == []


def test_the_default_is_the_papers_schedule():
    assert Group("g", "duplicate", (0,)).steps == tuple(range(0, 1000, 100))


def test_all_is_a_third_each_as_in_the_paper():
    groups = make_groups("all", [9] * 40 + [0] * 90, control=10)
    assert [(g.schedule, g.passages) for g in groups] == [
        ("paraphrase", tuple(range(40))),
        ("duplicate", tuple(range(40, 80))),
        ("once", tuple(range(80, 120))),
        ("never", tuple(range(120, 130))),
    ]


def test_with_all_those_that_have_paraphrases_are_paraphrased():
    groups = {g.name: g for g in make_groups("all", [0, 9, 0, 9, 8, 9, 0], start=2, interval=7)}
    assert groups["paraphrase"].passages == (1, 3, 5)
    assert groups["duplicate"].passages == (0, 2)
    assert groups["once"].passages == (4, 6)
    assert groups["duplicate"].steps[:2] == (2, 9)


def test_one_schedule_takes_all_passages():
    (group,) = make_groups("once", [0, 0, 0])
    assert (group.schedule, group.passages) == ("once", (0, 1, 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_groups("all", [9, 0, 0, 0, 0, 0]), "2 passages need 9 paraphrases each, 1 have them"),
        (lambda: make_groups("all", [9, 9]), "at least 3 passages"),
        (lambda: make_groups("once", [0, 0], control=2), "control: 2 of 2"),
        (lambda: Group("x", "twice", (0,)), "group 'x': there is no schedule 'twice'"),
        (lambda: Group("x", "once", (0,), interval=0), "interval must be at least 1, not 0"),
        (lambda: Group("x", "once", (0,), start=-1), "start must be at least 0"),
        (lambda: Group("x", "once", (0,), times=0), "times must be at least 1"),
    ],
)
def test_groups_that_cannot_be(call, message):
    with pytest.raises(UserError, match=message):
        call()


# what is in the batches ---------------------------------------------------------------------------------------------


def expected(ids: list[int], front: list[int]) -> list[int]:
    return (front + ids)[:WINDOW]


def test_passages_stand_at_the_front_with_the_end_token_and_the_rows_own_text_behind():
    plan, plain = small_plan(), packed()
    stream = Injected(packed(), plan)
    for step in range(8):
        own, got = plain.take(ROWS), stream.take(ROWS)
        fronts = {e.row: [*text(e.passage, e.version), END] for e in plan.encounters if e.step == step}
        assert sorted(e.passage for e in plan.at(step)) == ([0, 1] if step in (1, 3, 5) else [])
        assert len(fronts) == len(plan.at(step))
        for row in range(ROWS):
            assert got.input_ids[row].tolist() == expected(own.input_ids[row].tolist(), fronts.get(row, []))
        assert got.input_ids.shape == own.input_ids.shape
        assert got.targets.shape == own.targets.shape
        assert got.tokens == own.tokens
        assert got.input_ids.dtype == got.targets.dtype == torch.int64


def test_everything_is_a_target_the_passage_too():
    stream = Injected(packed(), small_plan("once", start=0))
    got = stream.take(ROWS)
    assert torch.equal(got.targets[:, :-1], got.input_ids[:, 1:])
    assert (got.targets[:, -1] == IGNORE).all()


def test_what_the_stream_leaves_out_of_its_targets_stays_left_out():
    plan = small_plan("once", passages=(0,), start=0)
    (encounter,) = plan.encounters
    own, got = packed(answers_only=True).take(ROWS), Injected(packed(answers_only=True), plan).take(ROWS)
    row, n = encounter.row, encounter.tokens + 1
    assert (own.targets[row, : WINDOW - n] == IGNORE).any()
    assert torch.equal(got.targets[row, n:-1], own.targets[row, : WINDOW - n - 1])
    assert torch.equal(got.targets[row, :n], got.input_ids[row, 1 : n + 1])


def test_the_streams_own_batch_is_not_written_into():
    class Fixed(Packed):
        def take(self, rows, own):
            if not hasattr(self, "kept"):
                self.kept = super().take(rows, own)
            return self.kept

    fixed = Fixed(packed().entries, Order(30, 0), end=END, length=WINDOW)
    stream = Injected(fixed, small_plan("once", start=0))
    first = stream.take(ROWS)
    assert not torch.equal(first.input_ids, stream.take(ROWS).input_ids)


def test_paraphrases_come_in_order_after_the_original():
    plan = small_plan("paraphrase")
    assert [(e.step, e.version) for e in plan.encounters if e.passage == 1] == [(1, 0), (3, 1), (5, 2)]
    stream, seen = Injected(packed(), plan), []
    for _ in range(8):
        ids = stream.take(ROWS).input_ids[:, 0].tolist()
        seen.append([i for i in ids if 1100 <= i < 1200])
    assert seen == [[], [1100], [], [1110], [], [1120], [], []]


def test_a_passage_that_fills_the_window_but_for_the_end_token():
    plan = small_plan("once", start=0, passages=(0,), versions=versions(length=WINDOW - 1))
    got = Injected(packed(), plan).take(ROWS)
    row = plan.encounters[0].row
    assert got.input_ids[row].tolist() == [*text(0, 0, WINDOW - 1), END]
    assert got.targets[row].tolist() == [*text(0, 0, WINDOW - 1)[1:], END, IGNORE]


def test_more_passages_than_rows_are_laid_end_to_end():
    plan = small_plan("once", passages=tuple(range(7)), versions=versions(7), start=2)
    rows = [e.row for e in plan.encounters]
    assert sorted(np.bincount(rows).tolist()) == [1, 2, 2, 2]
    stream = Injected(packed(), plan)
    got = [stream.take(ROWS) for _ in range(3)][2]
    for e in plan.encounters:
        assert got.input_ids[e.row, e.place : e.place + 6].tolist() == [*text(e.passage, 0), END]
    assert {e.passage for e in plan.encounters} == set(range(7))


def test_groups_of_one_run_have_their_own_schedules():
    groups = [
        Group("p", "paraphrase", (0,), start=0, interval=3, times=3),
        Group("d", "duplicate", (1,), start=1, interval=2, times=3),
        Group("o", "once", (2,), start=3),
        Group("n", "never", (3,)),
    ]
    plan = plan_injections(groups, versions(), rows=ROWS, window=WINDOW, steps=8, end=END)
    table = sorted((e.step, e.group, e.passage, e.version) for e in plan.encounters)
    assert table == [
        (0, "p", 0, 0),
        (1, "d", 1, 0),
        (3, "d", 1, 0),
        (3, "o", 2, 0),
        (3, "p", 0, 1),
        (5, "d", 1, 0),
        (6, "p", 0, 2),
    ]
    assert plan.steps == (0, 1, 3, 5, 6)
    ids = torch.cat([b.input_ids for b in itertools.islice(batches(Injected(packed(), plan), ROWS), 8)])
    assert not ((ids >= 1300) & (ids < 1400)).any()  # the control is never there
    assert ((ids >= 1200) & (ids < 1300)).sum() == 5


@given(st.integers(0, 50), st.integers(0, 50))
def test_rows_are_drawn_by_the_seed_and_differ_between_steps(one, other):
    def rows(seed):
        return [e.row for e in small_plan(passages=(0, 1), rows=64, seed=seed).encounters]

    assert rows(one) == rows(one)
    if one != other:
        assert rows(one) != rows(other)
    assert len(set(rows(one))) > 2


def test_a_group_does_not_move_when_another_joins_at_other_steps():
    alone = small_plan(start=1)
    both = plan_injections(
        [*alone.groups, Group("h", "once", (3,), start=4)], versions(), rows=ROWS, window=WINDOW, steps=8, end=END
    )
    assert [e for e in both.encounters if e.group == "g"] == list(alone.encounters)


# workers and resuming -----------------------------------------------------------------------------------------------


def test_workers_share_the_rows_of_a_step():
    plan = small_plan("duplicate", passages=(0, 1, 2, 3), start=0)
    halves = [(Injected(packed(), plan), own) for own in (slice(0, ROWS // 2), slice(ROWS // 2, ROWS))]
    for step in range(6):
        fronts = [half.take(ROWS, own).input_ids[:, 0].tolist() for half, own in halves]
        got = {row: first for row, first in enumerate(fronts[0] + fronts[1]) if first >= 1000}
        assert got == {e.row: text(e.passage, e.version)[0] for e in plan.at(step)}


@pytest.mark.parametrize("stop", range(8))
def test_it_goes_on_from_any_step_to_the_same_batches(stop):
    def fresh():
        return Injected(packed(), small_plan("paraphrase"))

    whole, broken = fresh(), fresh()
    taken = [whole.take(ROWS) for _ in range(8)]
    for _ in range(stop):
        broken.take(ROWS)
    resumed = fresh()
    resumed.restore(json.loads(json.dumps(broken.state())))
    for batch in taken[stop:]:
        got = resumed.take(ROWS)
        assert torch.equal(got.input_ids, batch.input_ids)
        assert torch.equal(got.targets, batch.targets)


def test_a_checkpoint_of_other_injections_is_refused():
    state = Injected(packed(), small_plan()).state()
    others = [
        {"seed": 1},
        {"versions": [[t[1:] for t in v] for v in versions()]},
        {"interval": 1},
        {"schedule": "paraphrase"},
        {"passages": (0, 2)},
    ]
    for other in others:
        with pytest.raises(UserError, match="other injections"):
            Injected(packed(), small_plan(**other)).restore(state)
    Injected(packed(), small_plan(steps=20)).restore(state)  # a longer run of the same injections goes on


# refused before any step --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"versions": versions(length=WINDOW)}, r"passage 0: has 16 tokens .* the window is 16; use .* at least 17"),
        ({"schedule": "paraphrase", "times": 4}, r"passage 0: has 2 paraphrases.*injects it 4 times.*give it 3"),
        ({"steps": 5}, r"group 'g': its last injection is at step 5 \(start 1 \+ 2 x interval 2\).*after 5 steps.*6"),
        ({"passages": (0, 4)}, "there is no passage number 4; there are 4"),
        ({"passages": (2, 2)}, "passage 2: is in group 'g' and in 'g'"),
        ({"versions": [[[]], [[7]]]}, "passage 0: has no token"),
        (
            {"passages": tuple(range(9)), "versions": versions(9)},
            r"step 1: 9 passages \(54 tokens with their end tokens\) do not fit into 4 rows of 16 tokens",
        ),
    ],
)
def test_plans_that_cannot_be(change, message):
    with pytest.raises(UserError, match=message):
        small_plan(**change)


def test_messages_name_passages_and_paraphrases():
    texts = versions()
    texts[1][2] = text(1, 2, 40)
    with pytest.raises(UserError, match="passage Mars, paraphrase 2: has 40 tokens"):
        small_plan("paraphrase", versions=texts, names=["Moon", "Mars", "Sun", "Io"])
    small_plan("duplicate", versions=texts)  # the long paraphrase is never met


def test_the_last_step_can_have_an_injection():
    assert small_plan(steps=6).steps[-1] == 5


@given(st.lists(st.integers(1, 10), min_size=1, max_size=14), st.integers(1, 5))
def test_rows_are_filled_once_each_and_none_too_full(lengths, rows):
    filled = fill_rows(lengths, rows, 12)
    if filled is None:
        assert sum(lengths) > rows * 2  # nobody needs more room than that
        return
    assert sorted(i for row in filled for i in row) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= 12 for row in filled)
    if len(lengths) <= rows:
        assert max(map(len, filled)) == 1


def test_a_tight_fit_is_found():
    assert fill_rows([6, 5, 4, 3, 2], 2, 10) is not None
    assert fill_rows([8, 7, 3, 2], 2, 10) is not None
    assert fill_rows([5, 5, 5, 5, 1], 2, 10) is None
    # Shared evenly the last 3 finds 8 and 7 tokens used; 5 + 4 and 3 + 3 + 3 fit.
    assert fill_rows([5, 3, 3, 3, 4], 2, 9) is not None


def test_batches_that_were_not_planned_for_are_refused():
    with pytest.raises(UserError, match="3 rows a step, but .* planned for 4"):
        Injected(packed(), small_plan()).take(3)
    with pytest.raises(UserError, match="4 full rows of 20 tokens; pack the stream"):
        Injected(packed(), small_plan(window=20)).take(ROWS)
    ragged = OneEntryARow(
        TokenRows(Sequences.of([[1] * n for n in (3, 9, 5, 7)])), Order(4, 0), start=[], end=END, length=10
    )
    with pytest.raises(UserError, match="full rows"):
        Injected(ragged, small_plan(window=9)).take(ROWS)


def test_texts_are_encoded_without_special_tokens():
    tokenizer = train_compact_tokenizer(["the sun shines", "a moon shines"], 300)
    encoded = encode_passages(tokenizer, [["the sun shines", "the moon"], ["a sun"], []])
    assert [len(texts) for texts in encoded] == [2, 1, 0]
    assert tokenizer.decode(encoded[0][1]).strip() == "the moon"
    assert tokenizer.eos_token_id not in encoded[0][0]
