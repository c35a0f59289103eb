"""engramlab memory: documents of a trained folder, added, exchanged and taken back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.support import zoo

from engramlab.cli import main
from engramlab.core import models
from engramlab.core.text.tokenizers import with_mask

TEXTS = ("The capital of France is Paris.", "She was born in Washington.", "Its old name was Edo.")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "model"
    tokenizer = with_mask(zoo.ZOO["llama3"](zoo.SENTENCES))
    model = models.build("2x16", tokenizer, family="pluglm", masked=True)
    rows = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    model.memory.fill(rows, model.get_input_embeddings())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != ".lock"}


def test_what_is_added_is_taken_back_to_the_same_bytes(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(trained)
    notes = tmp_path / "notes.jsonl"
    notes.write_text('{"text": "2,102,650 people live there."}\n{"text": "It is on the Seine."}\n')
    main(["memory", "add", str(trained), "--text", str(notes)])
    assert "5 documents (before: 3)" in capsys.readouterr().out
    assert {name for name, content in files(trained).items() if before.get(name) != content} == {"memory.safetensors"}
    main(["memory", "list", str(trained)])
    said = capsys.readouterr().out
    assert "It is on the Seine." in said
    assert TEXTS[0] in said
    main(["memory", "remove", str(trained), "--text", str(notes)])
    assert files(trained) == before
    main(["memory", "swap", str(trained), "--number", "1", "--document", "She was born in Paris."])
    assert len(models.load(str(trained))[0].memory) == 3
    main(["memory", "swap", str(trained), "--number", "1", "--document", TEXTS[1]])
    (trained / "memory.safetensors").write_bytes(before["memory.safetensors"])


def test_a_table_of_facts(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(trained)
    (tmp_path / "facts.csv").write_text("name,home\nAda,Paris\nZoë,Edo\n")
    main(["memory", "add", str(trained), "--facts", str(tmp_path / "facts.csv")])
    main(["memory", "remove", str(trained), "--number", "3", "4"])
    assert "3 documents (before: 5); " not in capsys.readouterr().out
    assert files(trained) == before


def test_keys_of_other_weights(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, tokenizer = models.load(str(trained))
    model.memory.key.weight.data += 1
    model.save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    assert refused(["memory", "list", str(tmp_path / "other")], capsys).count("made by other encoder weights") == 1
    main(["memory", "encode", str(tmp_path / "other")])
    again, _ = models.load(str(tmp_path / "other"))
    assert torch.equal(again.memory.tokens, model.memory.tokens)


def refused(given: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as left:
        main(given)
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["add"], "needs documents: --document TEXT, --text FILE or --facts TABLE"),
        (["add", "--document", TEXTS[1]], "document 0 is in the memory already"),
        (["add", "--document", ""], "document 0 has no token"),
        (["add", "--document", "x", "--text", "y"], "--document and --text: give one of them"),
        (["remove", "--document", "Nobody knows."], "document 'Nobody knows.' is not in the memory"),
        (["remove", "--number", "3"], "document 3 is not in the memory: it holds 3, numbered from 0"),
        (["remove"], "needs --number N, or the documents themselves"),
        (["swap", "--number", "1"], "needs one --number N and one --document TEXT"),
        (["list", "--number", "1"], "memory list takes no --number"),
        (["add", "--text", "nowhere.txt"], "there is no such file"),
    ],
)
def test_mistakes(trained: Path, given: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(trained)
    assert message in refused(["memory", given[0], str(trained), *given[1:]], capsys)
    assert files(trained) == before


def test_other_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is no folder of a model" in refused(["memory", "list", str(tmp_path)], capsys)
    zoo.model("llama").save_pretrained(tmp_path / "llama")
    assert "a llama has no plug-in memory" in refused(["memory", "list", str(tmp_path / "llama")], capsys)
