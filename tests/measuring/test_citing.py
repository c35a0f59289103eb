"""Answers that name their source: what is put to the model, what is counted, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support import zoo

from engramlab import cli
from engramlab.base.errors import UserError
from engramlab.core import models
from engramlab.core.forward import tries
from engramlab.core.text.tokenizers import train_compact_tokenizer
from engramlab.measuring import citing
from engramlab.measuring.answers import exact_match, f1
from engramlab.measuring.citing import Citer, Form, Sources

NAMES = ("ab", "ac", "ba", "bbc", "bbd")
TEXTS = {name: f"Document {name} says this." for name in NAMES}


@pytest.fixture(scope="module", params=["compact", "llama3", "gpt2"])
def tokenizer(request: pytest.FixtureRequest):
    texts = [*zoo.SENTENCES, *TEXTS.values(), citing.INSTRUCTION, "Answer: Edo ##"]
    made = train_compact_tokenizer(texts, 700) if request.param == "compact" else zoo.ZOO[request.param](texts)
    citing.add_tokens(made, True)
    return made


def test_identifiers_are_rows_of_tokens_of_their_own(tokenizer) -> None:
    size = len(tokenizer)
    citing.add_tokens(tokenizer, True)  # they are there
    assert len(tokenizer) == size
    tag = citing.tag(tokenizer, "bbd", True)
    assert tokenizer.convert_ids_to_tokens(tag) == ["<url>", "<@b>", "<@b>", "<@d>", "</url>"]
    with pytest.raises(UserError, match="identifier 'b1': cannot be spelt"):
        citing.spelt(tokenizer, "b1", True)
    words = citing.spelt(tokenizer, "wil-joh", False)
    assert tokenizer.decode(words).strip() == "wil-joh"


def test_an_identifier_that_begins_another_is_closed(tokenizer) -> None:
    names = ["ab", "abc", "a"]
    trie = citing.tree(tokenizer, names, True)
    model = zoo.model("llama", vocabulary=len(tokenizer)).eval()
    found = tries.log_scores(model, [[1, 2, 3]], trie, constrained=True)
    assert np.exp(found).sum() == pytest.approx(1)


def test_new_tokens_start_at_the_mean(tokenizer) -> None:
    old = len(tokenizer) - 26
    model = zoo.model("llama", vocabulary=old)
    before = model.get_input_embeddings().weight.detach().clone()
    head = model.get_output_embeddings().weight.detach().clone()
    citing.grow(model, tokenizer)
    for part, was in ((model.get_input_embeddings(), before), (model.get_output_embeddings(), head)):
        assert torch.equal(part.weight[:old], was)
        torch.testing.assert_close(part.weight[old:], was.mean(0).expand(26, -1))
    assert model.config.vocab_size == len(tokenizer)


def test_rows_of_answers_are_what_a_told_model_reads(tokenizer) -> None:
    for thought in (False, True):
        form = Form(thought=thought)
        questions, answers, rests = ["What is old?", "Who?"], ["Edo", "Zoë O'Neil"], ["It says more.", ""]
        rows = citing.answer_rows(tokenizer, form, questions, answers, rests)
        for (ids, begin), question, answer, rest in zip(rows, questions, answers, rests, strict=True):
            assert tokenizer.decode(ids[:begin]).strip() == f"{citing.INSTRUCTION} {question} Answer:"
            said = tokenizer.decode(ids[begin:], skip_special_tokens=True).strip()
            assert said == f"{answer} ##" + (f" {rest}" if thought and rest else "")
            assert (ids[-1] == tokenizer.eos_token_id) == thought
        told = citing.told(tokenizer, form, questions, answers, rests)
        assert [row[-1] for row in told.before] == [tokenizer.convert_tokens_to_ids("<url>")] * 2
        assert [row[-1 - len(ids) : -1] for row, (ids, _) in zip(told.before, rows, strict=True)] == [
            ids for ids, _ in rows
        ]


def test_what_it_writes_ends_before_the_identifier(tokenizer) -> None:
    """Whatever a random model writes, a separator and the opening token stand before the identifier; batches change nothing."""
    model = zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=128).eval()
    questions = ["What is the capital of France?", "Who?", "What is the old name of Japan, which is said to be old?"]
    for form in (Form(), Form(thought=True)):
        found = citing.answered(model, tokenizer, form, questions, new=6)
        alone = citing.answered(model, tokenizer, form, questions, new=6, batch=1)
        assert found == alone
        for row in found.before:
            text = tokenizer.decode(row)
            assert row[-1] == tokenizer.convert_tokens_to_ids("<url>")
            assert "##" in text


def test_hits_by_hand() -> None:
    scores = np.array([[3.0, 2.0, 2.0, 2.0, 1.0], [0.0, 0.0, 0.0, 0.0, 0.0], [-np.inf, 5.0, -np.inf, 4.0, -np.inf]])
    gold = np.array([1, 2, 4])
    np.testing.assert_allclose(citing.hits(scores, gold, 1), [0, 0.2, 0])
    np.testing.assert_allclose(citing.hits(scores, gold, 2), [1 / 3, 0.4, 0])
    np.testing.assert_allclose(citing.hits(scores, gold, 4), [1, 0.8, 2 / 3])
    rng = np.random.default_rng(0)
    ranked = rng.normal(size=(200, 30))
    right = rng.integers(30, size=200)
    naive = [float(g in np.argsort(-row)[:10]) for row, g in zip(ranked, right, strict=True)]
    np.testing.assert_array_equal(citing.hits(ranked, right, 10), naive)
    assert citing.hits(np.zeros((50, 40)), np.arange(50) % 40, 10).mean() == pytest.approx(10 / 40)


def test_answers_are_compared_as_squad_does() -> None:
    assert exact_match("The  Hague.", ["hague"])
    assert not exact_match("The Hague, Holland", ["The Hague"])
    assert f1("The Hague Holland", ["Hague"]) == pytest.approx(2 / 3)
    assert f1("", ["Hague"]) == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "model"
    tokenizer = zoo.ZOO["llama3"](zoo.SENTENCES)
    citing.add_tokens(tokenizer, True)
    zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=128).save_pretrained(out)
    tokenizer.save_pretrained(out)
    Sources(Form(), TEXTS, 5).save(out)
    return out.parent


def test_a_model_cites_with_exact_probabilities(folder: Path) -> None:
    questions = ["What is the capital of Japan?", "Who was born?"]
    rows = citing.cite(folder, questions, best=5)
    model, tokenizer = models.load(str(folder / "model"))
    for row, question in zip(rows, questions, strict=True):
        shares = row["probabilities"]
        assert sum(shares.values()) == pytest.approx(1)
        assert [*shares.values()] == sorted(shares.values(), reverse=True)
        assert row["source"] == next(iter(shares))
        assert row["text"] == TEXTS[row["source"]]
        before = citing.answered(model, tokenizer, Form(), [question], new=5).before[0]
        tags = {name: citing.tag(tokenizer, name, True)[1:] for name in NAMES}
        naive = {}
        for name, ids in tags.items():
            with torch.no_grad():
                logits = model(torch.tensor([[*before, *ids]])).logits[0].double().log_softmax(-1)
            naive[name] = sum(float(logits[len(before) - 1 + k, t]) for k, t in enumerate(ids))
        total = np.logaddexp.reduce(list(naive.values()))
        for name, share in shares.items():
            assert share == pytest.approx(np.exp(naive[name] - total), rel=1e-3)
        assert row["mass"] == pytest.approx(np.exp(total), rel=1e-3)
    (one,) = citing.cite(str(folder / "model"), questions[0], best=2)
    assert len(one["probabilities"]) == 2
    assert one["source"] == rows[0]["source"]


def test_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["cite", "--json", "--model", str(folder), "Who was born?", "What?"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["question"] for row in rows] == ["Who was born?", "What?"]
    cli.main(["cite", "--model", str(folder), "--best", "2", "Who was born?"])
    said = capsys.readouterr().out
    assert said.count("%") == 2
    assert rows[0]["source"] in said


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["Who?"], "needs --model"),
        (["--model", "{run}"], "needs a question"),
        (["--model", "{run}", "Who?", "--best", "0"], "best must be at least 1"),
        (["--model", "{run}", "Who? " * 100], "does not fit the model's context of 128"),
        (["--model", "{nowhere}", "Who?"], "names no sources"),
    ],
)
def test_what_is_refused(words: list[str], told: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        cli.main(["cite", *(word.format(run=folder, nowhere=folder.parent) for word in words)])
    assert error.value.code == 2
    assert told in " ".join(capsys.readouterr().err.split())


def test_two_that_are_spelt_alike() -> None:
    tokenizer = zoo.ZOO["llama3"](zoo.SENTENCES)
    citing.add_tokens(tokenizer, False)
    model = zoo.model("llama", vocabulary=len(tokenizer))
    with pytest.raises(UserError, match="identifier 'x': has the tokens of 'x'"):
        citing.tree(tokenizer, ["x", "y", "x"], False)
    assert Citer(model, tokenizer, Sources(Form(letters=False), {"x": "", "xy": ""})).trie.names == ("x", "xy")
