"""What is said of a fact: classes by hand, nulls against drawing, an oracle, and a model that knows nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engramlab.base.facts import Fact
from engramlab.measuring import audit
from engramlab.measuring.audit import classes
from engramlab.measuring.audit.classes import CLASSES
from engramlab.measuring.audit.ways import Evidence, Named, also_right

CHANCE = classes.Thresholds(rank=0.9, shown=0.4, rank_null=0.05, shown_null=0.01)


@pytest.mark.parametrize(
    ("statements", "questions", "rank", "shown", "expected"),
    [
        ([1, 1, 1], [1, 1, 0], 0, 0.0, "extractable"),  # 0.83
        ([1, 1, 1], [1, 0, 0], 0, 0.0, "prompt-dependent"),  # 0.67
        ([1, 1, 1, 1], [0], 1, 1.0, "prompt-dependent"),  # 0.8, and no question
        ([0], [1, 1, 1, 1], 1, 1.0, "prompt-dependent"),  # 0.8, and no statement
        ([], [1], 0, None, "extractable"),  # only asked
        ([0, 0], [0, 0], 0, 0.5, "latent"),
        ([0, 0], [0, 0], 1, 1 / 3, "recognised"),
        ([0, 0], [0, 0], 0.91, None, "recognised"),
        ([0, 0], [0, 0], 0.9, 0.0, "unknown"),  # at the threshold is chance
    ],
)
def test_classes(statements: Any, questions: Any, rank: float, shown: float | None, expected: str) -> None:
    assert classes.classify(statements, questions, rank, shown, CHANCE) == expected


def test_what_a_probe_reads_is_latent() -> None:
    assert classes.classify([0], [0], 0.0, 0.0, CHANCE, True) == "latent"
    assert classes.classify([], [], 0.0, None, CHANCE, True) == "latent"  # a masked model, which writes nothing
    assert classes.classify([1], [0], 0.0, 0.0, CHANCE, True) == "prompt-dependent"


def test_a_masked_model_s_evidence_has_no_wordings() -> None:
    truth = np.arange(40) % 8
    scores = np.random.default_rng(0).normal(size=(40, 4, 8))
    scores[np.arange(40), :, truth] += 9
    given = evidence(scores, np.zeros((40, 0), bool), truth, [[]] * 40, probed=truth == 3, probe={"accuracy": 0.5})
    rows, about = audit.of_relation(given)
    assert {row["class"] for row in rows} == {"recognised", "latent"}
    assert {row["written"] for row in rows} == {None}
    assert sum(row["class"] == "latent" for row in rows) == 5
    assert about["probe_accuracy"] == 0.5


def test_first_behind_lists_must_exceed_chance() -> None:
    """Where one object comes first behind every list, coming first says nothing."""
    assert classes.classify([0], [0], 0.0, 1.0, replace(CHANCE, shown=1.0)) == "unknown"


def test_ranks_of_options_and_ties() -> None:
    scores = np.array([[3.0, 1.0, 1.0, np.nan, 0.0]])
    np.testing.assert_allclose(classes.below(scores), [[1.0, 0.5, 0.5, np.nan, 0.0]])
    np.testing.assert_allclose(classes.first(scores), [[1, 0, 0, np.nan, 0]])
    np.testing.assert_allclose(classes.first(np.array([2.0, 2.0, 1.0])), [0.5, 0.5, 0])
    assert np.nanmean(classes.below(np.zeros((3, 7)))) == 0.5  # equal everywhere: K is a half


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=2, max_size=9))
def test_the_median_of_the_others(values: list[float]) -> None:
    found = classes._median_of_others(np.array(values))
    np.testing.assert_allclose(found, [np.median(np.delete(values, i)) for i in range(len(values))])


def test_what_an_option_has_with_everybody_is_taken_off() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(30, 2, 4))
    common = scores + np.array([0.0, 50.0, -50.0, 3.0])
    np.testing.assert_allclose(classes.corrected(common), classes.corrected(scores), atol=1e-9)
    ragged = scores.copy()
    ragged[0, :, 1] = np.nan
    assert np.isnan(classes.corrected(ragged)[0, :, 1]).all()
    assert not np.isnan(classes.corrected(ragged)[1:]).any()


def test_chance_is_what_pairing_anew_gives() -> None:
    """Against drawing derangements: 5 % of them lie above the threshold, two standard errors."""
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 12, 200)
    scores = rng.normal(size=(200, 3, 12))
    ranks = np.nanmean(classes.below(classes.corrected(scores)), axis=1)
    firsts = np.nanmean(classes.first(rng.normal(size=(200, 3, 12))), axis=1)
    chance = classes.chance(truth.tolist(), ranks, firsts)
    drawn = []
    for _ in range(200):
        other = truth[rng.permutation(200)]
        wrong = other != truth
        drawn.append(np.mean(ranks[np.flatnonzero(wrong), other[wrong]] > chance.rank))
    assert abs(np.mean(drawn) - 0.05) < 2 * np.sqrt(0.05 * 0.95 / 200)
    assert 0 <= chance.rank_null <= 0.05
    assert 0 <= chance.shown_null <= 0.05


def test_correcting_for_chance() -> None:
    assert classes.beyond_chance(0.05, 0.05) == 0
    assert classes.beyond_chance(1.0, 0.05) == 1
    assert classes.beyond_chance(0.5, 0.0) == 0.5


def test_mcnemar_is_the_exact_binomial() -> None:
    assert classes.mcnemar(0, 0) == 1
    assert classes.mcnemar(5, 0) == pytest.approx(2 / 32)
    assert classes.mcnemar(3, 3) == 1


def evidence(scores: np.ndarray, written: np.ndarray, truth: np.ndarray, texts: Any = None, **more: Any) -> Evidence:
    options = [f"city {k}" for k in range(scores.shape[2])]
    facts = [Fact(f"s{i}", "home", options[t]) for i, t in enumerate(truth)]
    kinds = ["statement"] * (scores.shape[1] // 2) + ["question"] * (scores.shape[1] - scores.shape[1] // 2)
    named = [[options[t] if w else "nothing" for w in of] for t, of in zip(truth, written, strict=True)]
    common: dict[str, Any] = {"lists": None, "shown": 0, "read": None, "invented": Counter()}
    return Evidence(
        facts,
        kinds,
        [[""] * len(kinds)] * len(facts),
        texts or named,
        written,
        options,
        truth,
        scores,
        **(common | more),
    )


def test_an_oracle_is_extractable_and_noise_unknown() -> None:
    rng = np.random.default_rng(2)
    truth = np.arange(200) % 10
    scores = rng.normal(size=(200, 4, 10))
    knows = scores.copy()
    knows[np.arange(200), :, truth] += 40
    rows, about = audit.of_relation(evidence(knows, np.ones((200, 4), bool), truth))
    assert about["extractable"] == 200 - about["guessable"]
    assert about["at_least_extractable"] == 1
    # ranked first, never written
    rows, about = audit.of_relation(evidence(knows, np.zeros((200, 4), bool), truth))
    assert {row["class"] for row in rows} == {"recognised"}
    assert about["at_least_recognised_corrected"] == pytest.approx(1)
    # noise: chance recognises five in a hundred, and that is taken off
    rows, about = audit.of_relation(evidence(scores, np.zeros((200, 4), bool), truth))
    assert abs(about["at_least_recognised"] - 0.05) < 2 * np.sqrt(0.05 * 0.95 / 180)
    assert abs(about["at_least_recognised_corrected"]) < 0.05
    assert about["at_least_recognised_low"] <= about["at_least_recognised"] <= about["at_least_recognised_high"]


def test_a_right_guess_is_no_knowledge() -> None:
    """The commonest object, and what is said of made-up subjects, are left out of the shares."""
    truth = np.array([0, 0, 0, 1, 2])
    written = np.ones((5, 2), bool)
    rows, about = audit.of_relation(evidence(np.zeros((5, 2, 3)), written, truth, invented=Counter({2: 7})))
    assert [row["guessable"] for row in rows] == [True, True, True, False, True]
    assert (about["guessable"], about["extractable"], about["favourite"]) == (4, 1, "city 2")
    assert about["majority"] == 0.6


def test_what_is_right_too_is_no_wrong_option() -> None:
    """Where a subject has several objects, all are right: none of them is ranked against another."""
    facts = [
        Fact("a", "job", "poet", ("critic", "bard")),
        Fact("b", "job", "critic"),
        Fact("c", "job", "poet", ("bard",)),
    ]
    assert also_right(facts, ["poet", "critic"]) == [{1}, set(), set()]
    assert Named(facts, ["poet", "critic"])("critic") == [1]  # an alias of one poet only
    assert Named(facts, ["poet", "critic"])("bard") == [0]


def test_agreement_of_the_ways() -> None:
    about = {"home": {"relation": "home", "rank_threshold": 0.9, "first_threshold": 0.4}}
    common = {"relation": "home", "guessable": False}
    rows = [
        {**common, "written": 0.5, "rank": 1.0, "first": 1.0},
        {**common, "written": 0.0, "rank": 1.0, "first": 0.5},
        {**common, "written": 0.2, "rank": 0.9, "first": 0.4, "probed": True},
        {**common, "written": 0.2, "rank": 0.9, "first": 0.4, "guessable": True},
    ]
    found = {row["ways"]: row for row in audit.agreement(rows, about)}
    assert found["written, ranked"] == {
        "ways": "written, ranked",
        "facts": 3,
        "one": 2,
        "other": 2,
        "both": 1,
        "agree": 1 / 3,
    }
    assert found["ranked, many-shot"]["agree"] == 1
    assert found["written, probed"]["facts"] == 1
    assert len(found) == 6
    masked = [{**row, "written": None, "first": None} for row in rows[:2]]
    assert audit.agreement(masked, about) == []


def test_known_by_popularity() -> None:
    rows = [{"class": CLASSES[0 if i >= 50 else 4], "guessable": i == 3, "popularity": 100 - i} for i in range(101)]
    rows.append({"class": "unknown", "guessable": False, "popularity": None})
    found = audit.by_popularity(rows)
    assert [row["facts"] for row in found] == [10] * 10
    assert (found[0]["least"], found[-1]["most"]) == (0, 100)
    assert [row["at_least_extractable"] for row in found] == [1, 1, 1, 1, 1, pytest.approx(0.1), 0, 0, 0, 0]
    assert found[5]["at_least_latent_low"] <= 0.1 <= found[5]["at_least_latent_high"]
    assert [row["facts"] for row in audit.by_popularity(rows[:12])] == [6, 5]
    assert audit.by_popularity([]) == []


def test_contradicted_and_unaskable() -> None:
    truth = np.array([0, 1, 2, 3])
    texts = [["city 1, of course", "city 1."], ["city 3", "city 2"], ["nothing", "nothing"], ["city 3", "city 3"]]
    written = np.array([[False, False], [False, False], [False, False], [True, True]])
    read = np.array([[True, True], [False, True], [False, False], [True, True]])
    rows, about = audit.of_relation(evidence(np.zeros((4, 2, 4)), written, truth, texts, read=read))
    assert [row["contradicted"] for row in rows] == ["city 1", None, None, None]
    assert [row["unaskable"] for row in rows] == [False, False, True, False]
    assert (about["contradicted"], about["unaskable"]) == (1, 1)


def test_wordings_of_a_fact_are_not_tested_as_if_each_were_a_fact() -> None:
    """Two facts lost in all four wordings are two pairs, not eight; by hand, p = 2 / 2 ** 2."""

    def rows(right: dict[str, int]) -> list[dict[str, Any]]:
        return [
            {"group": "known", "subject": s, "relation": "r", "prompt": f"{s} {k}", "right": k < n}
            for s, n in right.items()
            for k in range(4)
        ]

    before, after = rows({"a": 4, "b": 4, "c": 2, "d": 1}), rows({"a": 0, "b": 1, "c": 3, "d": 1})
    assert classes.kept(before, after) == {"right_before": 11, "lost": 7, "won": 1}
    found = {"facts_right_before": 3, "facts_lost": 2, "facts_won": 0, "p": 0.5}
    assert classes.kept_facts(before, [*after, {**after[0], "prompt": "not asked before"}]) == found
