"""The command line as a new user meets it."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from engramlab import cli
from engramlab.base import registry

ROOT = Path(__file__).parents[2]


def engramlab(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    cli.main(arguments)
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("engramlab: ")
    assert "Traceback" not in said
    return said


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    said = engramlab(capsys, "--help")
    for command in ("run", "report", "corpus", "models", "list", "version"):
        assert re.search(rf"^  {command}\b", said, re.MULTILINE)
    assert engramlab(capsys) == said


def test_every_command_is_a_file_with_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    said = engramlab(capsys, "--help")
    for name in registry.names(cli):
        module = registry.load(cli, name, "command")
        first, _, rest = (module.__doc__ or "").partition("\n\n")
        assert first.startswith(name)
        assert rest.strip()
        for line in first.splitlines():
            usage, about = re.split(r" {2,}", line)
            assert re.search(rf"^  {re.escape(usage)} +\S", said, re.MULTILINE)
            assert about in " ".join(said.split())


def test_each_command_s_help_is_its_docstring(capsys: pytest.CaptureFixture[str]) -> None:
    for name in registry.names(cli):
        with contextlib.suppress(SystemExit):
            cli.main([name, "--help"])
        said = " ".join(capsys.readouterr().out.replace("\\\n", " ").split())
        for paragraph in (registry.load(cli, name, "command").__doc__ or "").split("\n\n")[1:]:
            assert paragraph.startswith("usage:") or " ".join(paragraph.split()) in said


def test_a_command_is_one_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    doc = '"""greet NAME    says good day\n\nusage: engramlab greet NAME\n"""\n'
    (tmp_path / "greet.py").write_text(doc + 'def main(given):\n    print("good day", *given)\n')
    with registry.added(cli, tmp_path):
        assert re.search("^  greet NAME +says good day$", engramlab(capsys, "--help"), re.MULTILINE)
        assert engramlab(capsys, "greet", "Ada") == "good day Ada\n"
    assert "did you mean" in refused(capsys, "greet", "Ada")


def test_an_interruption_says_what_to_do(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(given: list[str]) -> None:
        raise KeyboardInterrupt

    for name, said in (("run", "goes on from the last checkpoint"), ("report", "nothing is half written")):
        monkeypatch.setattr(registry.load(cli, name, "command"), "main", interrupted)
        with pytest.raises(SystemExit) as stop:
            cli.main([name])
        assert stop.value.code == 130
        assert said in capsys.readouterr().err


def test_run_help_shows_the_preset_s_values_and_explains_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["run", "knowledge-extraction", "--preset", "paper", "--help"])
    assert stop.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "80000" in said
    assert "bioS people" in said


def test_list_models_version(capsys: pytest.CaptureFixture[str]) -> None:
    said = engramlab(capsys, "list")
    assert all(name in said for name in ("multi5+permute+fullname", "coupleC", "+CEL", "+TEXT"))
    assert "gpt2-small" in engramlab(capsys, "models")
    assert "torch" in engramlab(capsys, "version")


def test_output_that_nobody_reads_to_its_end_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)  # what `engramlab list | head` comes to
    done = subprocess.run(
        [sys.executable, "-m", "engramlab", "list"], stdout=writer, stderr=subprocess.PIPE, timeout=300
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_corpus_tables_shows_what_it_wrote_and_names_that_read_badly(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    table = tmp_path / "p.csv"
    table.write_text("product;made_in;price\nAero Lamp;Japan;3\nZig;;4\n;;\nMop;Chile;\n")
    cli.main(["corpus", "tables", "--facts", str(table), "--out", str(tmp_path / "c"), "--variant", "single"])
    said = capsys.readouterr().out
    assert said.startswith("3 subjects (made_in, price), 3 entries, 4 questions\n")
    assert said.count(" Answer: | ") == 3
    assert f"{table}: 'made_in' reads badly: 'What is the made in of" in said
    assert said.endswith(f"{tmp_path / 'c'}\n")
    command = ["corpus", "tables", "--facts", str(table), "--out", str(tmp_path / "d"), "--phrases", "made_in=origin"]
    cli.main(command)
    assert "reads badly" not in capsys.readouterr().out


def test_notes_are_lines_and_no_python_warnings(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    table = tmp_path / "p.csv"
    table.write_text("product,price\nA,3\nB,\nC,4\n")
    cli.main(["corpus", "tables", "--facts", str(table), "--out", str(tmp_path / "c")])
    assert f"engramlab: note: {table}: rows that state nothing are left out: 1 (line 3)\n" in capsys.readouterr().err


def test_corpus_bios(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = f"corpus bios --variant multi5+permute --people 20 --seed 0 --out {tmp_path / 'c'}"
    said = engramlab(capsys, *command.split())
    assert str(tmp_path / "c") in said
    assert pq.read_table(tmp_path / "c" / "entries.parquet").num_rows == 100
    assert pq.read_table(tmp_path / "c" / "questions.parquet").num_rows == 120
    assert "already exists" in refused(capsys, "corpus", "bios", "--people", "20", "--out", str(tmp_path / "c"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("rnu", "did you mean 'run'"),
        ("run knowlege-extraction --out x", "did you mean 'knowledge-extraction'"),
        ("run knowledge-extraction --preset tiyn --out x", "did you mean 'tiny'"),
        ("run knowledge-extraction --preset tiny", "--out"),
        ("corpus bios --variant multi+permuet --out x", "multi5+permute"),
        ("corpus bois --out x", "did you mean 'bios'"),
        ("report", "run folder"),
        ("report nowhere-at-all", "nowhere-at-all"),
        ("corpus tables --facts nowhere.csv --out x", "nowhere.csv"),
        ("corpus tables --out x", "needs --facts"),
        ("corpus bios --celebrities 3 --out x", "celebrities: is for +CEL variants"),
        ("corpus bios --templates 0 --people 3 --out x", "templates: must be at least 1"),
    ],
)
def test_mistakes_get_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    said = refused(capsys, *arguments.split())
    assert words in said
    assert said.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_the_python_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support import zoo

    from engramlab.core import deltas

    monkeypatch.chdir(tmp_path)
    subprocess.run([sys.executable, str(ROOT / "examples" / "countries.py"), "countries.csv"], check=True)
    texts = [*zoo.SENTENCES, "The capital of France is the city of Rome", Path("countries.csv").read_text()]
    tokenizer = zoo.ZOO["llama3"](texts)
    model = zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=256)
    model.save_pretrained("path/to/model")
    tokenizer.save_pretrained("path/to/model")
    before = [p.clone() for p in model.parameters()]
    for page in ("README.md", "docs/editing.md"):
        (code,) = re.findall(r"<!-- example: \w+ -->\n```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
        names = {"__name__": "example", "model": model, "tokenizer": tokenizer}
        exec(compile(code, page, "exec"), names)
        deltas.remove_all(names["model"])  # what the README changes for good
        assert all(torch.equal(a, b) for a, b in zip(before, names["model"].cpu().parameters(), strict=True))
    assert (tmp_path / "edited" / "engramlab.json").exists()


def test_importing_loads_nothing_heavy() -> None:
    import subprocess
    import sys

    code = "import sys, engramlab.cli; print([m for m in ('torch', 'transformers', 'plotly', 'datasets') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize("out", ["~nobody-of-that-name/x", "x" * 300, "a file/x"], ids=["nobody", "too long", "a file"])
@pytest.mark.parametrize(
    "command",
    [
        ["run", "knowledge-extraction"],
        ["sweep", "knowledge-extraction"],
        ["corpus", "bios"],
        ["report", "."],
        ["plan"],
        ["merge", "a", "b"],
        ["edit", "--model", "nowhere", "--prompt", "The capital of France is", "--target", "Rome"],
    ],
    ids=lambda words: words[0],
)
def test_where_output_cannot_go_is_said_in_one_line_before_anything_is_done(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], out: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a file").touch()
    said = refused(capsys, *command, "--out", out)
    assert re.fullmatch(r"engramlab: cannot write .*; choose another place with --out\n", said)
    assert [path.name for path in tmp_path.iterdir()] == ["a file"]
