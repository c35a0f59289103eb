"""One table of a user's facts through all four instruments, from the command line, with a tiny model on the CPU."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.support import zoo

from engramlab import cli, experiments
from engramlab.base.errors import UserError
from engramlab.corpora.facts import FactTable
from engramlab.experiments._run import Run

ROWS = [(f"Zor{i}", ("red", "blue", "green")[i % 3], f"city {i % 4}") for i in range(12)]
EXTRACTION = (
    "--variants multi2+permute --pretrain.steps 6 --pretrain.batch 8 --pretrain.warmup 1 --finetune.recipe.steps 4"
)
PROBING = "--preset pretrained --variants single --q.recipe.steps 8 --p.recipe.steps 4"
EDITING = "--methods ft-m --losses cross-entropy --setting batch --hyper.ft-m.steps 3 --limit 4"
ACQUISITION = (
    "--preset tiny --stream stream.txt --repeat --schedule paraphrase --control 2 --interval 3 --times 2 --after 5 --stagger 1 "
    "--batch 8 --window 64 --vocabulary 600 --pretrain.steps 4 --pretrain.batch 2 --reading.window 2 --reading.bootstrap 20"
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a table, a text and a model."""
    (tmp_path / "my_facts.csv").write_text(
        "name,colour,home,home_aliases\n" + "".join(f"{n},{c},{h},{h.upper()}\n" for n, c, h in ROWS)
    )
    (tmp_path / "stream.txt").write_text("The sun is yellow and the moon is white.\n\n" * 40)
    tokenizer = zoo.ZOO["llama3"]([*zoo.SENTENCES, (tmp_path / "my_facts.csv").read_text()])
    zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=256).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(command: str, out: str) -> list[str]:
    return ["run", *command.split(), "--facts", "my_facts.csv", "--out", out]


def run(command: str, out: str) -> dict[str, Any]:
    cli.main(words(command, out))
    found: dict[str, Any] = json.loads(Path(out, "summary.json").read_text())
    return found


def refused(command: str, out: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as error:
        cli.main(words(command, out))
    assert error.value.code == 2
    return capsys.readouterr().err


def test_one_table_goes_through_all_four_instruments(here: Path) -> None:
    digest = FactTable.read("my_facts.csv").digest
    asked = run(f"knowledge-extraction {EXTRACTION}", "extraction")
    assert {row["attribute"] for row in asked["rows"]} == {"colour", "home", "mean"}

    probed = run(f"hidden-state-probing --model model {PROBING}", "probing")
    assert {row["attribute"] for row in probed["rows"]} >= {"colour"}

    edited = run(f"knowledge-editing --model model {EDITING}", "editing")
    assert edited["benchmark"] == "my_facts.csv"
    (rows,) = Path("editing").rglob("rows.parquet")
    judged = pq.read_table(rows).to_pylist()
    assert {row["role"] for row in judged} == {"reliability", "generality", "locality"}
    reliable = [row for row in judged if row["role"] == "reliability"]
    assert len(reliable) == 4
    own = {(name, value) for name, *values in ROWS for value in values}
    assert not own & {(row["prompt"].split()[0].removesuffix("'s"), row["target"]) for row in reliable}

    injected = run(f"knowledge-acquisition {ACQUISITION}", "acquisition")
    queries = json.loads(next(Path("acquisition").rglob("queries.json")).read_text())["queries"]
    assert {query["depth"] for query in queries} == {"memorization", "semantic"}
    assert {query["passage"] for query in queries} == {name for name, *_ in ROWS}
    assert sum(query["group"] == "never" for query in queries) == 8
    assert injected["experiment"] == "knowledge-acquisition"

    for name in ("extraction", "probing", "editing", "acquisition"):
        assert json.loads(Path(name, "config.json").read_text())["inputs"]["facts"] == digest


def test_a_table_with_holes_is_stored_and_probed(here: Path) -> None:
    """What an entity lacks is no question and no label, and everything else is as it is."""
    lines = [f"{n},{c if i % 4 else ''},{h if i % 3 else ''}\n" for i, (n, c, h) in enumerate(ROWS) if i]
    (here / "my_facts.csv").write_text("name,colour,home\n" + "".join(lines))
    facts = FactTable.read("my_facts.csv")
    asked = run(f"knowledge-extraction {EXTRACTION}", "extraction")
    questions = {(row["group"], row["attribute"]): row["questions"] for row in asked["rows"]}
    assert sum(number for (_, attribute), number in questions.items() if attribute != "mean") == len(facts)
    probed = run(f"hidden-state-probing --model model {PROBING}", "probing")
    whole = [
        row for row in probed["rows"] if (row["target"], row["attribute"], row["control"]) == ("whole", "colour", False)
    ]
    (by_name,) = [row["examples"] for row in whole if row["probe"] == "Q"]
    assert by_name == questions["test", "colour"]
    before_each = [row["examples"] for row in whole if row["probe"] == "P"]  # some entries have one place, some two
    assert before_each[0] == by_name
    assert all(number < by_name for number in before_each[1:])


def test_a_run_does_not_go_on_with_facts_that_were_changed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(f"knowledge-editing --model model {EDITING} --learn", "editing")
    again = run(f"knowledge-editing --model model {EDITING} --learn", "editing")
    assert again["benchmark"] == "my_facts.csv"
    changed = Path("my_facts.csv").read_text().replace("Zor0,red", "Zor0,blue")
    Path("my_facts.csv").write_text(changed)
    said = refused(f"knowledge-editing --model model {EDITING} --learn", "editing", capsys)
    assert "facts: my_facts.csv has changed since the run in editing began" in said


@pytest.mark.parametrize(
    ("experiment", "options", "option", "file"),
    [
        ("knowledge-extraction", {"templates": "t.txt", "facts": "my_facts.csv"}, "templates", "t.txt"),
        ("knowledge-extraction", {"questions": "q.tsv", "facts": "my_facts.csv"}, "questions", "q.tsv"),
        ("knowledge-extraction", {"text": "stream.txt"}, "text", "stream.txt"),
        ("knowledge-acquisition", {"stream": "stream.txt"}, "stream", "stream.txt"),
        ("knowledge-acquisition", {"inject": "p.jsonl"}, "inject", "p.jsonl"),
        ("knowledge-acquisition", {"model": ("tiny", "model")}, "model", "model/config.json"),
        ("knowledge-editing", {"model": "model"}, "model", "model/config.json"),
        ("knowledge-editing", {"benchmark": "e.csv"}, "benchmark", "e.csv"),
        ("hidden-state-probing", {"model": ("model",)}, "model", "model/config.json"),
        ("token-overfitting", {"benchmark": "e.csv"}, "benchmark", "e.csv"),
    ],
)
def test_nor_with_any_other_file_that_was_changed(
    here: Path, experiment: str, options: dict[str, Any], option: str, file: str
) -> None:
    (here / "t.txt").write_text("{subject} has the {attribute} {value}.\n")
    (here / "q.tsv").write_text("colour\tWhat colour is {subject}?\n")
    for name in ("p.jsonl", "e.csv"):
        (here / name).write_text("whatever it says\n")
    options = {
        name: Path(value) if name in ("facts", "templates", "questions") else value for name, value in options.items()
    }
    config = replace(experiments.load(experiment).Config(), **options)
    with Run(experiment, config, here / "run"):
        pass
    assert Run(experiment, config, here / "run").resumed
    record = json.loads((here / "run" / "config.json").read_text())
    (here / file).write_text((here / file).read_text() + "\n ")
    with pytest.raises(UserError, match=f"^{option}: .* has changed since the run in"):
        Run(experiment, config, here / "run")
    del record["inputs"][option]  # a run made before that was kept
    if option in ("templates", "questions"):
        del record["inputs"]["facts"]
    (here / "run" / "config.json").write_text(json.dumps(record))
    assert Run(experiment, config, here / "run").resumed


def test_what_an_experiment_says_it_reads_is_an_option_of_it() -> None:
    def check(config: Any) -> None:
        for base in type(config).__mro__:
            assert set(vars(base).get("READS", ())) <= {field.name for field in fields(config)}
        for field in fields(config):
            if is_dataclass(value := getattr(config, field.name)):
                check(value)

    for name in experiments.names():
        check(experiments.load(name).Config())


def test_what_goes_wrong_is_said_before_any_work(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command, message in (
        ("knowledge-editing --model model --benchmark stream.txt", "benchmark and facts: give one of them"),
        ("knowledge-acquisition --inject stream.txt", "inject and facts: give one of them"),
        ("knowledge-acquisition --preset tiny --passages 40", "passages: 40 cannot be injected, my_facts.csv has 12"),
        ("knowledge-editing --model model --attributes colours", "no column 'colours'; did you mean 'colour'"),
    ):
        assert message in refused(command, "out", capsys)
    Path("my_facts.csv").write_text("name,colour\nx,red\nx,blue\n")
    for name in ("knowledge-editing --model model", "knowledge-acquisition --preset tiny", "knowledge-extraction"):
        assert "my_facts.csv, line 3, column 'name': 'x' is already on line 2" in refused(name, "out", capsys)
    assert not Path("out").exists()
