"""What ``import engramlab as eg`` offers."""

from __future__ import annotations

import importlib.metadata
import pydoc
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support import zoo

import engramlab as eg
from engramlab.editing.methods import ft_m

HEAVY = ("torch", "transformers", "numpy", "pyarrow", "plotly")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    tokenizer = zoo.ZOO["llama3"]([*zoo.SENTENCES, "The capital of France is the city of Rome"])
    model = zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=256)
    folder = tmp_path_factory.mktemp("face") / "model"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return eg.load_model(str(folder), device="cpu")


def test_importing_loads_nothing_heavy() -> None:
    code = "import sys, engramlab as eg; eg.UserError, eg.Edit, eg.Rows;"
    code += f"print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_the_names_are_there_and_shown() -> None:
    shown = pydoc.render_doc(eg, renderer=pydoc.plaintext)
    for name in eg.__all__:
        assert getattr(eg, name) is not None
        assert name in dir(eg)
        assert name.strip("_") in shown or name == "__version__"
    assert "importlib" not in dir(eg)
    assert eg.__version__ == importlib.metadata.version("engramlab")
    with pytest.raises(AttributeError, match="'ak'"):
        eg.ak  # noqa: B018


def test_every_name_is_typed() -> None:
    """A name that only ``__getattr__`` knows would be Any to a type checker."""
    source = Path(eg.__file__).read_text()
    for name in eg.__all__:
        assert f" as {name}\n" in source or name == "__version__"


def test_ask_and_score_give_rows(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    query = eg.Query("The capital of France is", "Rome", aliases=("Roma",), subject="France", id="f")
    (plain,) = eg.ask(model, tokenizer, query.prompt, new_tokens=3)
    assert set(plain) == {"prompt", "written"}
    asked, again = eg.ask(model, tokenizer, [query, query.prompt], new_tokens=3)
    assert asked["written"] == again["written"] == plain["written"]
    assert (asked["id"], asked["subject"], asked["target"], asked["right"]) == ("f", "France", "Rome", False)
    rows = eg.score(model, tokenizer, query)
    assert isinstance(rows, eg.Rows)
    (row,) = rows
    assert "".join(row["tokens"]).strip() == "Rome"
    assert row["logprob"] == pytest.approx(sum(row["logprobs"]))
    assert row["greedy"] == (row["tokens"] == row["predicted"]) == all(rank == 0 for rank in row["ranks"])
    assert rows.to_arrow().num_rows == 1
    with pytest.raises(eg.UserError, match="no target"):
        eg.score(model, tokenizer, eg.Query("The capital of France is", ""))


def test_an_edit_by_the_face_and_back(loaded: tuple[Any, Any], tmp_path: Path) -> None:
    model, tokenizer = loaded
    wish = eg.Edit(eg.Query("The capital of France is", "Paris", subject="France"), "Rome")
    new = eg.Query(wish.query.prompt, wish.target)
    (before,) = eg.score(model, tokenizer, new)
    how = {"method": "ft-m", "config": ft_m.Config(steps=60, learning_rate=1e-2)}  # for so small a model
    with eg.applied(model, tokenizer, wish, **how):
        assert eg.score(model, tokenizer, new)[0]["logprob"] > before["logprob"]
        assert eg.ask(model, tokenizer, new)[0]["right"]
    assert eg.score(model, tokenizer, new) == [before]
    changed = eg.change(model, tokenizer, wish, out=tmp_path / "edited", **how)
    changed.entry.remove()
    opened = eg.load_model(str(tmp_path / "edited"), device="cpu")
    assert eg.ask(*opened, new)[0]["right"]
    eg.undo(tmp_path / "edited")
    assert eg.score(*eg.load_model(str(tmp_path / "edited"), device="cpu"), new) == [before]


def test_a_text_before_the_prompt_is_read_by_both(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    wish = eg.Edit(eg.Query("The capital of France is", "Paris", subject="France"), "Rome")
    query = eg.Query(wish.query.prompt, "Rome")
    before = eg.score(model, tokenizer, query)[0]["logprob"]
    with eg.applied(model, tokenizer, wish, method="ike"):
        (row,) = eg.score(model, tokenizer, query)
    assert row["prompt"] == query.prompt
    assert row["logprob"] != before


def test_mistakes_of_run_are_named(tmp_path: Path) -> None:
    for arguments, options, words in (
        (("knowledge-capacty",), {}, "knowledge-capacity"),
        (("knowledge-capacity",), {"preset": "tny"}, "did you mean 'tiny'"),
        (("knowledge-capacity",), {"exposure": 3}, "did you mean 'exposures'"),
        (("knowledge-capacity",), {"exposures": 0}, "exposures"),
    ):
        with pytest.raises(eg.UserError, match=words):
            eg.run(*arguments, tmp_path / "run", **options)
    assert not any(tmp_path.iterdir())
