"""What somebody brings from outside the tree, one file each, is found and used: the file name is the registration.

A kind is a package; ``registry.added`` puts a folder on it, as a checkout of one's own would lie beside this one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support import zoo

import engramlab
import engramlab as eg
from engramlab import cli, experiments
from engramlab.base import registry
from engramlab.base.errors import UserError
from engramlab.base.facts import Edit, Query
from engramlab.core import models
from engramlab.core.forward import decoding
from engramlab.core.forward.generation import generate
from engramlab.core.models import families
from engramlab.core.text.assembly import TokenTable
from engramlab.core.training import losses
from engramlab.corpora import datasets, sources
from engramlab.editing import benchmarks, method, methods
from engramlab.editing import cases as editing_cases
from engramlab.measuring import estimators
from engramlab.report import experiments as pages

CORPUS = """
'''Planets and their moons, as a newcomer writes them.'''

from __future__ import annotations
from dataclasses import dataclass
from engramlab.base.facts import Fact
from engramlab.corpora.datasets import Dataset, halves
from engramlab.corpora.facts import FactTable
from engramlab.corpora.variants import parse_variant

GIVEN = "planets"

@dataclass(frozen=True)
class Config:
    '''Planets.'''

    planets: int | None = None
    '''How many.'''
    seed: int = 0
    '''Of orders and the split.'''

def dataset(config: Config, variant: str) -> Dataset:
    facts = FactTable.of(Fact(f"Planet {i}", "moon", f"Moon {i * i}") for i in range(config.planets))
    corpus = facts.entries(variant, config.seed)
    return halves(corpus, None, config.seed, variant, parse_variant(variant))
"""


def added(package: object, folder: Path, name: str, text: str):
    """The package with one more file."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(textwrap.dedent(text))
    return registry.added(package, folder)  # type: ignore[arg-type]


def test_a_corpus(tmp_path: Path, tokenizer: object) -> None:
    with added(sources, tmp_path, "planets", CORPUS):
        config = datasets.options()(planets=6)
        data = datasets.dataset(config, "single")
        assert all(words in data.corpus.passage(2).text for words in ("Planet 2", "Moon 4"))
        assert data.questions.query(2).target == "Moon 4"
        assert len(TokenTable(data.corpus, tokenizer)) == 6
        cli.main(["corpus", "planets", "--planets", "5", "--variant", "multi2", "--out", str(tmp_path / "out")])
        assert (tmp_path / "out" / "entries.parquet").exists()
    assert not hasattr(datasets.options()(), "planets")


def test_an_option_that_means_something_else_elsewhere_is_refused(tmp_path: Path) -> None:
    text = CORPUS.replace("planets: int | None", "people: int | None")
    with added(sources, tmp_path, "planets", text), pytest.raises(UserError, match="its option people is not that of"):
        datasets.options()


@pytest.mark.slow
def test_a_corpus_in_an_experiment(tmp_path: Path) -> None:
    """An option of one's own chooses one's own texts; a process that has the folder from its beginning, as the user's has."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "planets.py").write_text(CORPUS)
    words = ["run", "knowledge-extraction", "--planets", "8", "--variants", "multi2", "--out", str(tmp_path / "run")]
    words += ["--pretrain.steps", "6", "--pretrain.batch", "4", "--pretrain.warmup", "1", "--evaluations", "1"]
    words += ["--finetune.recipe.steps", "4", "--finetune.recipe.batch", "4", "--model.name", "1x16"]
    code = f"""
        from engramlab.base import registry
        from engramlab.cli import main
        from engramlab.corpora import sources

        with registry.added(sources, {str(tmp_path / "mine")!r}):
            main({words!r})
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert {row["attribute"] for row in summary["rows"]} == {"moon", "mean"}


def test_a_format_of_benchmarks(tmp_path: Path) -> None:
    text = """
        from engramlab.base.facts import Case, Edit, Query

        KEYS = "ask and say"

        def recognises(record):
            return {"ask", "say"} <= record.keys()

        def case(record, index):
            return Case(str(index), (Edit(Query(record["ask"], ""), record["say"]),))
    """
    (tmp_path / "edits.jsonl").write_text('{"ask": "The sky is", "say": "green"}\n{"ask": "Two is", "say": "odd"}\n')
    with added(benchmarks, tmp_path, "ask_and_say", text):
        assert "ask-and-say" in benchmarks.names()
        loaded = benchmarks.load(tmp_path / "edits.jsonl")
        assert (loaded.format, [case.edits[0].target for case in loaded.cases]) == ("ask-and-say", ["green", "odd"])


def test_a_benchmark_that_is_made(tmp_path: Path) -> None:
    text = """
        from engramlab.base.facts import Case, Edit, Query

        LIMIT = 2

        def cases(seed=0, limit=None):
            return [Case(f"{seed}/{i}", (Edit(Query(f"{i} and one is", str(i + 1)), str(i)),)) for i in range(9)][:limit]
    """
    with added(benchmarks, tmp_path, "sums", text):
        from engramlab.experiments import knowledge_editing

        config = knowledge_editing.Config(model="m", benchmark="sums", seed=4)
        assert config.most == 2
        benchmarks.check("sums")
        chosen = editing_cases.cases("sums", seed=4, limit=3)
        assert [case.id for case in chosen.cases] == ["4/0", "4/1", "4/2"]
        assert chosen.format == "sums"


def test_a_model_family(tmp_path: Path, tokenizer: object) -> None:
    text = """
        from engramlab.core.models.paths import ModulePaths

        MODEL_TYPES = ("gemma",)
        PATHS = ModulePaths("model.layers", "model.embed_tokens", "self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj",
                            "model.norm")

        def config(size, common, dropout):
            from transformers import GemmaConfig

            return GemmaConfig(**common, intermediate_size=2 * size.width, head_dim=size.width // size.heads,
                               num_key_value_heads=1, attention_dropout=dropout)
    """
    assert "gemma" not in models.known_paths()
    with added(families, tmp_path, "small_gemma", text):
        assert "small-gemma" in models.buildable()
        model = models.build("1x16", tokenizer, family="small-gemma", context=32)
        paths = models.module_paths(model)
        assert model.get_submodule(paths.layers)[0].get_submodule(paths.mlp_down).weight.shape == (16, 32)
        wrapped = models.add_lora(model, rank=2)
        assert torch.isfinite(wrapped(torch.tensor([[1, 2, 3]])).logits).all()
        models.check("2x32", "small-gemma")


def test_a_decoder(tmp_path: Path, tokenizer: object) -> None:
    text = """
        from dataclasses import dataclass
        from engramlab.core.forward.decoding import Decoding

        @dataclass(frozen=True)
        class Config(Decoding):
            '''The least likely token.'''

            def scores(self, seen):
                return -seen.logits
    """
    model = zoo.model("llama", vocabulary=len(tokenizer)).eval()
    with added(decoding, tmp_path, "worst", text):
        assert "worst" in decoding.names()
        usual = generate(model, tokenizer, ["The capital of France is"], max_new_tokens=3)
        worst = generate(
            model, tokenizer, ["The capital of France is"], max_new_tokens=3, decoding=decoding.load("worst")
        )
        assert worst != usual


def test_an_estimator(tmp_path: Path, tokenizer: object) -> None:
    text = """
        from dataclasses import dataclass
        import numpy as np

        UNIT = "share"

        @dataclass(frozen=True)
        class Config:
            '''No option.'''

        def estimate(model, tokenizer, queries, config, *, decoding=None):
            return np.array([float(len(query.target) > 3) for query in queries])
    """
    with added(estimators, tmp_path, "long_targets", text):
        module = estimators.load("long-targets")
        found = module.estimate(None, tokenizer, [Query("a", "Paris"), Query("b", "Rom")], module.Config())
        assert np.array_equal(found, [1.0, 0.0])


def test_an_editing_method(tmp_path: Path, tokenizer: object) -> None:
    text = """
        'Nudging: adds a little to one bias-free matrix, whatever is asked.'

        from dataclasses import dataclass
        from engramlab.core.deltas import Dense, WeightDelta, fingerprint
        from engramlab.core.models.geometry import down_projection
        import torch

        TAKES_LOSS, NEEDS_SUBJECT, TOGETHER, WATCHED = False, False, True, False

        @dataclass(frozen=True)
        class Config:
            'How much.'

            amount: float = 0.5
            'Added to every weight.'

        def edit_each(model, tokenizer, cases, config, loss):
            path = down_projection(model, 0)
            shape = model.get_submodule(path).weight.shape
            change = Dense(torch.full(shape, config.amount))
            return [WeightDelta(fingerprint(model), {path: change}) for _ in cases]
    """
    model = zoo.model("llama", vocabulary=len(tokenizer))
    before = [p.clone() for p in model.parameters()]
    wish = Edit(Query("The capital of France is", "Paris", subject="France"), "Rome")
    with added(methods, tmp_path, "nudging", text):
        assert "nudging" in method.names()
        with method.applied(model, tokenizer, wish, method="nudging"):
            assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
        with pytest.raises(UserError, match="did you mean 'nudging'"):
            method.load("nudgin")


def test_a_loss(tokenizer: object) -> None:
    def squared(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return losses.cross_entropy(logits, targets) ** 2

    wish = Edit(Query("The capital of France is", "Paris", subject="France"), "Rome")
    model = zoo.model("llama", vocabulary=len(tokenizer))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(losses.LOSSES, "squared", squared)
        with method.applied(model, tokenizer, wish, method="ft-m", loss="squared"):
            pass
        assert losses.parse("squared") is squared
    with pytest.raises(UserError, match="loss 'squared' is unknown"):
        losses.parse("squared")


def test_a_report_section(tmp_path: Path) -> None:
    text = """
        'Counting, on a page.'

        from engramlab.report.parts.blocks import Section, Table, Text

        def headline(runs):
            return f"counted to {len(runs[0].rows)}"

        def sections(runs):
            return [Section("How far", [Text("As far as it went.")])]

        def terminal(summary):
            return [Table(["to"], [[str(len(summary["rows"]))]])]
    """
    with added(experiments, tmp_path / "e", "counting", EXPERIMENT), added(pages, tmp_path / "p", "counting", text):
        cli.main(["run", "counting", "--to", "5", "--out", str(tmp_path / "run")])
        page = (tmp_path / "run" / "report.html").read_text()
        assert "counted to 5" in page
        assert "As far as it went." in page


EXPERIMENT = """
    '''Counting: an experiment that counts to a number.

        engramlab run counting --out runs/counting
    '''

    from __future__ import annotations
    from dataclasses import dataclass
    from engramlab.experiments._run import Run

    @dataclass(frozen=True)
    class Config:
        '''Options.'''

        to: int = 3
        '''Where to stop.'''
        seed: int = 0
        '''Of nothing.'''

    PRESETS = {"tiny": Config(), "far": Config(to=100)}

    def run(config, out, *, preset="", console=None):
        with Run("counting", config, out, preset=preset, console=console) as run:
            return run.finish(seconds=0.0, rows=[{"dataset": "numbers", "counted": i} for i in range(config.to)])
"""


def test_an_experiment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with added(experiments, tmp_path, "counting", EXPERIMENT):
        assert "counting" in experiments.names()
        cli.main(["run", "counting", "--to", "5", "--out", str(tmp_path / "run")])
        summary = json.loads((tmp_path / "run" / "summary.json").read_text())
        assert [row["counted"] for row in summary["rows"]] == [0, 1, 2, 3, 4]
        assert "counted" in (tmp_path / "run" / "report.html").read_text()
        found = eg.run("counting", tmp_path / "again", to=3)
        assert repr(found).startswith("Summary(counting: 3 rows")
        assert "counted" in (tmp_path / "again" / "report.html").read_text()
        cli.main(["list"])
        assert "Presets: tiny, far." in " ".join(capsys.readouterr().out.split())


def test_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = """
        '''greet NAME                 says hello

        usage: engramlab greet NAME
        '''

        def main(given):
            print("hello", *given)
    """
    with added(cli, tmp_path, "greet", text):
        cli.main(["greet", "world"])
        cli.main(["--help"])
        said = capsys.readouterr().out
    assert said.startswith("hello world\n")
    assert "greet NAME" in said


def test_nothing_of_this_stays() -> None:
    assert "counting" not in experiments.names()
    assert Path(engramlab.__file__).parent in Path(experiments.__file__).parents
