"""Which runs may be averaged, what they differ in, and the strip at the top."""

from __future__ import annotations

from pathlib import Path

import pytest

from engramlab.report.alike import differences, nouns, series, strip
from engramlab.report.rows import RunData


def run(name: str, **config: object) -> RunData:
    return RunData(Path(name), name, config={"config": config} if config else {})


@pytest.mark.parametrize(
    ("runs", "found"),
    [
        ([run("a", seed=0), run("b", seed=1)], ["", ""]),
        ([run("a", seed=0), run("b", seed=0)], ["a", "b"]),
        ([run("a", seed=0, people=1), run("b", seed=1, people=2)], ["a", "b"]),
        ([run("a", seed=0, model={"name": "x"}), run("b", seed=1, model={"name": "y"})], ["a", "b"]),
        ([run("a", seed=0, people=1), run("b", seed=1, people=1), run("c", seed=2, people=2)], ["a, b", "a, b", "c"]),
        ([run("a"), run("b")], ["a", "b"]),
        ([run("a", seed=0, checkpoint_minutes=1), run("b", seed=1, checkpoint_minutes=2)], ["", ""]),
    ],
)
def test_runs_that_differ_in_seed_alone_are_averaged(runs: list[RunData], found: list[str]) -> None:
    assert list(series(runs).values()) == found


def test_what_differs_is_a_table() -> None:
    [table] = differences([run("a", seed=0, steps={"n": 5}), run("b", seed=0, steps={"n": 7}, facts="x.csv")])
    assert list(table.columns) == ["option", "a", "b"]
    assert table.rows == [["steps.n", "5", "7"], ["facts", "–", "x.csv"]]
    assert differences([run("a", seed=0)]) == []


def test_changed_facts_make_runs_unlike() -> None:
    runs = [RunData(Path(n), n, config={"config": {"seed": k}, "inputs": {"facts": n}}) for k, n in enumerate("ab")]
    assert list(series(runs).values()) == ["a", "b"]


def test_the_strip_names_model_data_and_size() -> None:
    one = RunData(
        Path("a"),
        "a",
        config={"config": {"model": {"name": "tiny", "family": "llama"}, "facts": "in/products.csv", "seed": 3},
                "created": "2026-11-25T17:08:44Z", "commit": "68a9af243722ffff"},
        rows=[{"questions": 600}],
    )  # fmt: skip
    assert strip(one) == [
        ("model", "tiny llama"),
        ("data", "products.csv"),
        ("n", "600 questions"),
        ("seed", "3"),
        ("date", "2026-11-25"),
        ("commit", "68a9af243722"),
    ]
    assert strip(run("b")) == []
    probed = {"config": {"model": ["runs/mine"], "people": 300, "seed": 0}}
    row = {"dataset": "multi5", "examples": 90}
    found = strip(RunData(Path("p"), "p", "hidden-state-probing", config=probed, rows=[row]))
    assert found == [("model", "mine"), ("data", "multi5"), ("n", "90 held out"), ("seed", "0")]


def test_a_table_of_one_s_own_has_no_people() -> None:
    assert nouns([run("a", people=300, facts=None)]) == ("people", "biographies")
    assert nouns([run("a", people=300, facts="x.csv")]) == ("subjects", "texts")
    assert nouns([run("a", people=300), run("b", people=300, facts="x.csv")]) == ("subjects", "texts")
