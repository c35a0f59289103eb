"""Tasks, places, sets already seen, and how often a probe is right: against naive loops."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from tests.support import zoo

from engramlab.base.errors import UserError
from engramlab.core.text.tokenizers import train_compact_tokenizer, with_mask
from engramlab.core.text.tokens import GAP, Sequences
from engramlab.probing import accuracy, p_probing, q_probing
from engramlab.probing.examples import NOWHERE, UNKNOWN, Task, Tasks, tasks_of


def test_tasks_are_two_an_attribute_and_hopeless_ones_are_named() -> None:
    n = 12
    train = np.arange(n) < 6
    rng = np.random.default_rng(0)
    columns = [np.repeat([7, 9, 11], 4), np.full(n, 3), np.arange(n) + 50, rng.integers(0, 4, n)]
    first = np.stack([columns[0] % 2, columns[1], columns[2] // 4, columns[3]], axis=1)
    made = tasks_of(
        ["city", "planet", "name", "date"],
        {"first": first, "whole": np.stack(columns, axis=1)},
        train,
        first_only=["date"],
        controls=True,
    )
    assert [task.name for task in made.tasks if not task.control] == ["first name", "first date", "whole city"]
    assert {(s["attribute"], s["target"]): s["classes"] for s in made.skipped} == {
        ("city", "first"): 1,
        ("planet", "first"): 1,
        ("planet", "whole"): 1,
        ("name", "whole"): 12,
    }
    assert "12 values are more than the 6 subjects" in made.skipped[-1]["reason"]
    by_name = {task.name: labels for task, labels in zip(made.tasks, made.labels, strict=True)}
    for name in ("first name", "first date", "whole city"):
        assert Counter(by_name[name].tolist()) == Counter(by_name[f"{name} shuffled"].tolist())
        assert (by_name[name] != by_name[f"{name} shuffled"]).any()
    assert (by_name["whole city"] == np.repeat([0, 1, 2], 4)).all()


def entries() -> Sequences:
    """Entries of (name, attribute marks): the second states its third attribute twice, the third has a lone space before."""
    marks = [
        [0, -1, 0, 1, 1, 0, 2, 0, 3, 0],
        [0, -1, 0, 3, 0, 2, 0, 1, 1, 3],
        [0, -1, GAP, 2, 0, GAP, 1, 0, 3],
    ]
    return Sequences.of([list(range(10 * i, 10 * i + len(row))) for i, row in enumerate(marks)], marks)


def test_places_are_just_before_each_attribute_in_order_of_appearance() -> None:
    examples, order = p_probing.examples(entries(), np.array([4, 5, 6]), ["a", "b", "c"], "here")
    assert examples.places.tolist() == [[2, 5, 7], [2, 4, 6], [2, 5, 7]]
    assert order.tolist() == [[0, 1, 2], [2, 1, 0], [1, 0, 2]]
    for i, place in enumerate(examples.places[:, -1]):  # cut behind the last place, otherwise as they were
        assert examples.texts.row(i).tolist() == entries().row(i)[: place + 1].tolist()


def test_an_entry_without_a_place_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="here: entry 0 states no attribute"):
        p_probing.places(Sequences.of([[1, 2]], [[0, -1]]), ["a"], "here")
    at, order = p_probing.places(entries(), ["a", "b", "c", "d"], "here")  # nothing states 'd'
    assert at[:, 3].tolist() == [NOWHERE] * 3
    assert order[:, 3].tolist() == [3] * 3
    begins = Sequences.of([[1, 2, 3]], [[1, 0, 2]])
    with pytest.raises(UserError, match="entry 0 begins with its 'a'"):
        p_probing.places(begins, ["a", "b"], "here")


def test_closer_probing_counts_what_has_been_seen() -> None:
    rng = np.random.default_rng(3)
    names = ["a", "b", "c", "d"]
    found = [Task("b", "first", 3), Task("d", "whole", 3), Task("d", "whole", 3, control=True)]
    tasks = Tasks(found, rng.integers(0, 3, (3, 30)))
    subjects = rng.integers(0, 30, 200)
    order = np.stack([rng.permutation(4) for _ in range(200)])
    predicted = rng.integers(0, 3, (3, 200, 4))
    counted: dict = {}
    for k, task in enumerate(found[:2]):
        for i in range(200):
            for place in range(4):
                before = {names[a] for a in order[i, :place]}
                if task.attribute not in before:
                    right = predicted[k, i, place] == tasks.labels[k, subjects[i]]
                    counted.setdefault((task.attribute, frozenset(before)), []).append(right)
    rows = p_probing.closer(tasks, predicted, subjects, order, names)
    assert {(r["attribute"], frozenset(r["seen"])): (r["examples"], r["accuracy"]) for r in rows} == {
        key: (len(values), pytest.approx(np.mean(values))) for key, values in counted.items()
    }
    assert len(rows) == 2 * 8
    assert {(r["attribute"], r["partner"], r["second"]) for r in rows} == {("b", "a", True), ("d", "c", True)}


def test_accuracy_majority_reachable_and_interval() -> None:
    rng = np.random.default_rng(0)
    labels = np.concatenate([rng.integers(0, 3, 40), np.full(10, 3), rng.integers(0, 4, 50)])[None]
    train = np.concatenate([np.arange(40)])  # class 3 is never trained on
    subjects = np.repeat(np.arange(50, 100), 4)
    predicted = np.where(rng.random(200) < 0.6, labels[0, subjects], 1)[None, :, None]
    (row,) = accuracy.accuracies(Tasks([Task("a", "whole", 4)], labels), predicted, subjects, train)
    right = predicted[0, :, 0] == labels[0, subjects]
    common = Counter(labels[0, train].tolist()).most_common(1)[0][0]
    assert row["accuracy"] == pytest.approx(right.mean())
    assert row["majority"] == pytest.approx(np.mean(labels[0, subjects] == common))
    known = labels[0, subjects] < 3
    assert row["reachable"] == pytest.approx(known.mean())
    assert row["accuracy_reachable"] == pytest.approx(right[known].mean())
    shares = []
    for _ in range(1500):  # whole subjects are drawn again, with their four texts
        drawn = rng.integers(50, 100, 50)
        shares.append(np.mean([right[subjects == s].mean() for s in drawn]))
    assert row["low"] == pytest.approx(np.quantile(shares, 0.025), abs=0.025)
    assert row["high"] == pytest.approx(np.quantile(shares, 0.975), abs=0.025)
    assert row["low"] < row["accuracy"] < row["high"]


def test_subjects_without_an_attribute_do_not_count() -> None:
    """Not as classes, not in the shuffled control, not in an accuracy; and a place that is nowhere is read by nobody."""
    values = np.array([[7, 1], [UNKNOWN, 2], [7, 2], [9, UNKNOWN], [9, 1], [9, 1]])
    tasks = tasks_of(["a", "b"], {"first": values, "whole": values}, np.arange(6) < 4, controls=True, seed=1)
    by_name = {task.name: labels for task, labels in zip(tasks.tasks, tasks.labels.tolist(), strict=True)}
    assert by_name["whole a"] == [0, UNKNOWN, 0, 1, 1, 1]
    assert by_name["whole b"] == [0, 1, 1, UNKNOWN, 0, 0]
    assert [label == UNKNOWN for label in by_name["whole a shuffled"]] == [False, True, False, False, False, False]
    assert sorted(by_name["whole a shuffled"]) == [UNKNOWN, 0, 0, 1, 1, 1]
    labels = np.array([[0, UNKNOWN, 0, 1]])
    predicted = np.array([[[0, 0], [0, 0], [1, 0], [1, 1]]])
    there = np.array([[True, True], [True, True], [True, False], [True, True]])
    rows = accuracy.accuracies(
        Tasks([Task("a", "whole", 2)], labels), predicted, np.arange(4), np.arange(2), there=there
    )
    assert [(row["examples"], row["accuracy"]) for row in rows] == [(3, pytest.approx(2 / 3)), (2, 1.0)]


def test_q_examples_are_start_name_end_or_the_last_token_of_a_prompt() -> None:
    names = ["Washington, D.C.", "Zoë O'Neil"]
    tokenizer = zoo.llama3([*zoo.SENTENCES, *names])
    end, start = tokenizer.eos_token_id, tokenizer.bos_token_id
    made = q_probing.examples(tokenizer, names)
    for i, name in enumerate(names):
        assert made.texts.row(i).tolist() == [start, *tokenizer(name, add_special_tokens=False)["input_ids"], end]
        assert made.texts.row(i)[made.places[i, 0]] == end
    made = q_probing.examples(tokenizer, names, "I saw {subject} there", at="last")
    for i, name in enumerate(names):
        assert made.texts.row(i).tolist() == tokenizer(f"I saw {name} there")["input_ids"]
        assert made.places[i, 0] == len(made.texts.row(i)) - 1
    with pytest.raises(UserError, match="exactly once"):
        q_probing.examples(tokenizer, names, "the city")
    unknown = zoo.ZOO["words"](zoo.SENTENCES)
    with pytest.raises(UserError, match="'Ürgüp'.*another tokenizer"):
        q_probing.examples(unknown, ["Paris", "Ürgüp"])


def test_which_token_is_read() -> None:
    """At the end token, the name's last one, the one before the name, or a mask token; the rest of the text stays the name."""
    tokenizer = train_compact_tokenizer(["Ada May Lee"] * 3, 300)
    with_mask(tokenizer)
    end, mask = tokenizer.eos_token_id, tokenizer.mask_token_id
    name = tokenizer("Ada May Lee", add_special_tokens=False)["input_ids"]
    for at, want in {"end": end, "last": name[-1], "first": end, "mask": mask}.items():
        made = q_probing.examples(tokenizer, ["Ada May Lee", "Lee"], at=at)
        row = made.texts.row(0).tolist()
        assert row[made.places[0, 0]] == want
        assert (made.places[:, 0] == 0).all() == (at == "first")
        assert [token for token in row if token not in (end, mask)] == name
    tokenizer.mask_token = None
    with pytest.raises(UserError, match="at: `mask` is for masked models"):
        q_probing.examples(tokenizer, ["Lee"], at="mask")
