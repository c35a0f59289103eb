"""engramlab ask: answers, what would have been said otherwise, options, and what is refused before a model is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.support import zoo

from engramlab import cli
from engramlab.base.errors import UserError
from engramlab.core.deltas.virtual_tokens import VirtualTokens
from engramlab.core.forward import decoding
from engramlab.core.models import load
from engramlab.measuring.questions import ask, behind, shuffled
from engramlab.measuring.reading import answer_from

PASSAGE = "Zoë lives in the city of Edo, which is the capital of Japan.\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = zoo.ZOO["llama3"](zoo.SENTENCES)
    zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=256).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def passage(tmp_path: Path) -> str:
    path = tmp_path / "passage.txt"
    path.write_text(PASSAGE)
    return str(path)


def asked(words: list[str], capsys: pytest.CaptureFixture[str]) -> list[dict]:
    cli.main(["ask", "--json", *words])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as error:
        cli.main(["ask", *words])
    assert error.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def test_an_answer_and_options(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", model, "What is", "The capital of Japan", "--options", "Edo", "Rome", "the city"]
    rows = asked(words, capsys)
    assert [row["prompt"] for row in rows] == ["What is", "The capital of Japan"]
    for row in rows:
        assert sum(row["probabilities"].values()) == pytest.approx(1)
        assert row["chosen"] == max(row["probabilities"], key=row["probabilities"].get)
        assert "otherwise" not in row
    cli.main(["ask", "--model", model, "What is"])
    assert "greedy" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["cad", "micd", "dola", "sampling"])
def test_what_would_have_been_said_otherwise(
    name: str, model: str, passage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    context = [] if name in ("dola", "sampling") else ["--context", passage]
    (row,) = asked(["--model", model, "Zoë lives in", "--decoding", name, *context, "--new-tokens", "4"], capsys)
    net, tokenizer = load(model)
    how = decoding.load(name)
    text = PASSAGE if context else ""
    (alone,) = ask(net, tokenizer, "Zoë lives in", decoding=how, passage=text, new_tokens=4)
    assert row["written"] == alone["written"]
    expected = {"greedy", "greedy, without the passage"} if context else {"greedy"}
    assert set(row["otherwise"]) == expected
    (plain,) = ask(net, tokenizer, behind(text, "Zoë lives in"), new_tokens=4)
    assert row["otherwise"]["greedy"] == plain["written"]


def test_a_shuffled_passage_has_the_same_words() -> None:
    assert sorted(shuffled(PASSAGE).split()) == sorted(PASSAGE.split())
    assert shuffled(PASSAGE) != PASSAGE.strip()
    assert shuffled(PASSAGE) == shuffled(PASSAGE)
    assert shuffled("") == ""


def test_what_is_refused_before_a_model_is_loaded(
    passage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text(" \n")
    question = ["--model", "/nowhere", "Who?"]
    assert "needs --model" in refused(["Who?"], capsys)
    assert "needs a question" in refused(["--model", "/nowhere"], capsys)
    assert "did you mean 'dola'" in refused([*question, "--decoding", "dolla"], capsys)
    assert "give --context FILE" in refused([*question, "--decoding", "cad"], capsys)
    assert "is empty" in refused([*question, "--context", str(empty)], capsys)
    assert "goes with --decoding micd" in refused([*question, "--context", passage, "--irrelevant", passage], capsys)
    assert "new_tokens must be at least 1" in refused([*question, "--new-tokens", "0"], capsys)


def test_a_decoder_that_compares_needs_a_passage(model: str) -> None:
    with pytest.raises(UserError, match="decoder 'cad' compares a passage"):
        ask(*load(model), "Who?", decoding=decoding.load("cad"))


def test_virtual_tokens(model: str, passage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net, tokenizer = load(model)
    tokens = VirtualTokens.of_text(net, tokenizer, 3)
    tokens.vectors.data.mul_(3)
    tokens.save(tmp_path / "vectors")
    common = ["--model", model, "Where is Zoë?", "--virtual-tokens", str(tmp_path / "vectors"), "--new-tokens", "4"]
    (row,) = asked([*common, "--context", passage, "--k", "2"], capsys)
    how = {"new_tokens": 4}
    (wanted,) = answer_from(net, tokenizer, "Where is Zoë?", [PASSAGE], virtual_tokens=tokens, k=2, **how)
    (plain,) = answer_from(net, tokenizer, "Where is Zoë?", [PASSAGE], **how)
    (bare,) = answer_from(net, tokenizer, "Where is Zoë?", [], virtual_tokens=tokens, **how)
    (same,) = ask(net, tokenizer, "Question: Where is Zoë?\nAnswer:", **how)
    assert row["written"] == wanted["written"]
    assert row["otherwise"] == {"without virtual tokens": plain["written"], "without the passage": bare["written"]}
    assert bare["written"] == same["written"]  # without a passage the model is itself
    assert "give --context FILE" in refused(common, capsys)
    assert "give --context FILE" in refused([*common, "--context", passage, "--chat"], capsys)
    assert "k must be from 1 to 3" in refused([*common, "--context", passage, "--k", "4"], capsys)
    assert "--virtual-tokens FOLDER" in refused(["--model", model, "a", "--k", "4"], capsys)
