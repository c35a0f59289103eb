"""Accuracies by group and attribute."""

from types import SimpleNamespace

import numpy as np
import pytest
from tests.support import zoo

from engramlab.base.facts import Fact
from engramlab.core.text.tokens import GAP, Sequences
from engramlab.corpora.facts import FactTable
from engramlab.measuring import extraction
from engramlab.measuring.extraction import Asked, answers, ask, commonest, values_in_entries
from engramlab.measuring.scoring import Scores, score

NAMES = ("city", "year")


def entries(count: int = 8) -> Sequences:
    """Rows `0 . city city . gap year . 1` with random tokens."""
    rng = np.random.default_rng(0)
    rows = [[0, *rng.integers(2, 64, size=7).tolist(), 1] for _ in range(count)]
    return Sequences.of(rows, [[0, 0, 1, 1, 0, GAP, 2, 0, 0]] * count)


def test_rows_by_group_and_attribute():
    asked = Asked(entries(6), np.array([0, 1, 0, 1, 0, 1]), np.array(["train"] * 4 + ["test"] * 2), NAMES)
    rows = asked.rows({"exact_match": np.array([1, 0, 1, 1, 0, 1], dtype=bool)})
    assert [(r["group"], r["attribute"], r["exact_match"], r["questions"]) for r in rows] == [
        ("train", "city", 1.0, 2),
        ("train", "year", 0.5, 2),
        ("test", "city", 0.0, 1),
        ("test", "year", 1.0, 1),
        ("train", "mean", 0.75, 4),
        ("test", "mean", 0.5, 2),
    ]


def test_asking_is_scoring():
    model, rows = zoo.model("llama"), entries()
    asked = Asked(rows, np.arange(8) % 2, np.repeat(["train", "test"], 4), NAMES)
    found, scores = ask(model, asked)
    assert np.array_equal(scores.logprobs, score(model, rows).logprobs)
    test = next(row for row in found if (row["group"], row["attribute"]) == ("test", "mean"))
    assert test["first_token"] == pytest.approx(scores.first()[4:].mean())
    assert test["exact_match"] == pytest.approx(scores.exact()[4:].mean())


def test_the_first_token_of_each_value():
    """Naively: the third and the seventh token of each row; the space before the year is not the year's first token."""
    model, rows, train = zoo.model("gpt_neox"), entries(), np.repeat(["train", "test"], (5, 3))
    found = {
        (row["group"], row["attribute"]): row["first_token"] for row in values_in_entries(model, rows, train, NAMES)
    }
    for attribute, name in enumerate(NAMES):
        marks = np.zeros((8, 9), dtype=np.int8)
        marks[:, (2, 6)[attribute]] = 1
        right = score(model, Sequences(rows.ids, rows.offsets, marks.ravel())).greedy
        assert found["train", name] == pytest.approx(right[:5].mean())
        assert found["test", name] == pytest.approx(right[5:].mean())


def test_whole_values_and_tokens_right_against_a_hand_count(monkeypatch):
    """City right in both tokens, in one, in none; the year in the second row alone; 11 of 18 next tokens."""
    rows = Sequences.of([[0, 5, 6, 7, 8, 9, 1]] * 3, [[0, 0, 1, 1, GAP, 2, 0]] * 3)
    right = np.array([[0, 1, 1, 1, 1, 0, 1], [0, 1, 1, 0, 1, 1, 0], [0, 1, 0, 0, 1, 0, 0]], dtype=bool)

    def said(model, sequences):
        wanted, zeros = sequences.marks > 0, np.zeros(int((sequences.marks > 0).sum()))
        counts = np.concatenate([[0], np.cumsum(wanted)])[sequences.offsets]
        return Scores(zeros, zeros, right.ravel()[wanted], counts, sequences.marks[wanted], zeros)

    monkeypatch.setattr(extraction, "score", said)
    model, groups = zoo.model("gpt_neox"), np.array(["train", "train", "test"])
    found = {
        (r["group"], r["attribute"]): (r["first_token"], r["whole"])
        for r in values_in_entries(model, rows, groups, NAMES)
    }
    assert found["train", "city"] == (1.0, 0.5)
    assert found["train", "year"] == (0.5, 0.5)
    assert found["train", "mean"] == (0.75, 0.5)
    assert found["test", "mean"] == (0.0, 0.0)
    assert extraction.tokens_right(model, rows) == {"next_token": 11 / 18, "value_token": 4 / 9}


def test_answers_are_texts(tokenizer):
    model = zoo.model("llama", vocabulary=len(tokenizer))
    written = answers(model, tokenizer, ["The capital of France is", "Zoë"], longest=3)
    assert len(written) == 2
    assert all(answer == answer.strip() for answer in written)


def test_chance_is_what_the_commonest_value_of_p_train_would_have_right():
    values = np.array([[[1, 0], [1, 0], [2, 0], [1, 0], [2, 3], [2, 0]], [[5, 5]] * 6])  # [attribute, subject, piece]
    population = SimpleNamespace(value_pieces=lambda a, subjects: values[a][subjects])
    groups = {"train": np.array([0, 1, 2]), "test": np.array([3, 4, 5, 2])}
    found = commonest(population, NAMES, groups["train"], groups)
    assert found["train", "city"] == pytest.approx(2 / 3)
    assert found["test", "city"] == 0.25
    assert found["test", "year"] == 1.0
    assert found["test", "mean"] == 0.625


def test_chance_of_a_table_with_holes():
    """Who has no value of an attribute is not asked for it, and counts neither for its commonest value nor against it."""
    table = FactTable.of([*(Fact(f"s{i}", "home", "A" if i < 3 else "B") for i in range(5)), Fact("s9", "job", "x")])
    population = table.entities()
    found = commonest(population, table.relations, np.arange(6), {"all": np.arange(6), "last": np.array([5])})
    assert found["all", "home"] == pytest.approx(3 / 5)
    assert found["all", "job"] == 1
    assert found["last", "home"] == 0  # nobody to ask
