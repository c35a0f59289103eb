"""Edited folders for others: loaded where their base is, in its precision; as adapters, GGUF files, on the hub."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tests.support import zoo
from tests.support.small import EDITS, quick
from transformers import AutoModelForCausalLM

from engramlab import cli
from engramlab.base.errors import UserError
from engramlab.base.facts import Edit, Query
from engramlab.core import deltas, models
from engramlab.core.deltas import Dense, WeightDelta
from engramlab.editing import method
from engramlab.editing.folders import card, companions, exporting, gguf_files, loading, saving
from engramlab.editing.folders.opening import load_model

IDS = torch.arange(3, 15)[None]
TOKENIZER = zoo.ZOO["gpt2"](zoo.SENTENCES)


def base(folder: Path, family: str = "llama", dtype: torch.dtype = torch.float32, **more: Any) -> Path:
    shape = {"max_position_embeddings": 256, **more}
    model = zoo.model(family, vocabulary=len(TOKENIZER), **shape).to(dtype)
    model.save_pretrained(str(folder))
    TOKENIZER.save_pretrained(str(folder))
    return folder


def edited(source: Path, out: Path, *names: str, **more: Any) -> Path:
    model, tokenizer = load_model(str(source), device="cpu")
    for i, name in enumerate(names):
        deltas.install(model, method.make(model, tokenizer, [EDITS[i]], method=name, config=quick(name)))
        record = saving.EditRecord(method=name, edits=(EDITS[i],))
        saving.save(model, tokenizer, out, records=[record], base=str(source), **more)
    return out


def test_files_beside_the_weights_are_those_of_the_base(tmp_path: Path) -> None:
    """As a folder of the hub has them: transformers 4's spellings, a tokenizer class of its own, a licence."""
    source = base(tmp_path / "base", dtype=torch.bfloat16)
    config = json.loads((source / "config.json").read_text())
    config |= {"rope_theta": config.pop("rope_parameters")["rope_theta"], "torch_dtype": config.pop("dtype")}
    (source / "config.json").write_text(json.dumps(config))
    tokens = json.loads((source / "tokenizer_config.json").read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    (source / "tokenizer_config.json").write_text(json.dumps(tokens))
    (source / "LICENSE.txt").write_text("mine")
    (source / "optimizer.pt").write_text("not this one")
    (source / "generation_config.json").unlink()
    out = edited(source, tmp_path / "out", "ft-m")
    copied = {path.name for path in source.iterdir()} - {"model.safetensors", "optimizer.pt"}
    for name in copied:
        assert (out / name).read_bytes() == (source / name).read_bytes(), name
    there = {path.name for path in out.iterdir()} - {"model.safetensors", ".lock"}
    assert there == copied | {"README.md", "edits", "engramlab.json"}
    again = shutil.copytree(out, tmp_path / "again")
    saving.undo(again)
    assert (again / "config.json").read_bytes() == (source / "config.json").read_bytes()


def test_only_the_number_type_of_a_config_changes(tmp_path: Path) -> None:
    source = base(tmp_path / "base")
    before = json.loads((source / "config.json").read_text())
    model, tokenizer = load_model(str(source), dtype="bfloat16", device="cpu")
    deltas.install(model, method.make(model, tokenizer, EDITS[:1], method="ft-m", config=quick("ft-m")))
    out = saving.save(model, tokenizer, tmp_path / "out", base=str(source))
    assert json.loads((out / "config.json").read_text()) == before | {"dtype": "bfloat16"}


def test_a_model_that_is_not_its_base_has_a_config_of_its_own(tmp_path: Path) -> None:
    source = base(tmp_path / "base")
    other = base(tmp_path / "other", num_hidden_layers=3)
    model, tokenizer = load_model(str(other), device="cpu")
    deltas.install(model, method.make(model, tokenizer, EDITS[:1], method="ft-m", config=quick("ft-m")))
    out = saving.save(model, tokenizer, tmp_path / "out", base=str(source))
    assert json.loads((out / "config.json").read_text())["num_hidden_layers"] == 3


def test_both_spellings() -> None:
    rope = {"rope_theta": 5.0, "rope_type": "linear", "factor": 2.0}
    said = companions.both_spellings({"rope_parameters": rope})
    assert said == {"rope_parameters": rope, "rope_theta": 5.0, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}
    two = {"full_attention": {"rope_theta": 1e6, "rope_type": "default"}, "sliding_attention": {"rope_theta": 1e4}}
    said = companions.both_spellings({"rope_parameters": two})
    assert (said["rope_theta"], said["rope_local_base_freq"]) == (1e6, 1e4)
    assert "rope_scaling" not in said
    assert companions.both_spellings({"vocab_size": 3}) == {"vocab_size": 3}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_weights_are_kept_in_the_precision_of_the_base(tmp_path: Path, dtype: torch.dtype) -> None:
    source = base(tmp_path / "base", dtype=dtype)
    out = edited(source, tmp_path / "out", "ft-m", "lora")
    for name, tensor in load_file(str(out / "model.safetensors")).items():
        assert tensor.dtype == dtype, name
    model, _ = loading.load(out)
    assert next(model.parameters()).dtype == torch.float32
    bare = AutoModelForCausalLM.from_pretrained(str(out), dtype=torch.float32)
    for name, parameter in bare.named_parameters():
        assert torch.equal(parameter, model.get_parameter(name))
    saving.undo(out, edit=1)
    saving.undo(out)
    before, after = (load_file(str(folder / "model.safetensors")) for folder in (source, out))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_modes_are_as_the_umask_says(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        out = edited(base(tmp_path / "base"), tmp_path / "out", "lora")
        exporting.to_peft(out, tmp_path / "adapter")
    finally:
        os.umask(old)
    for path in [*out.rglob("*"), *(tmp_path / "adapter").rglob("*")]:
        if path.is_file() and path.name != ".lock":
            assert stat.S_IMODE(path.stat().st_mode) == 0o640, path


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_lora_edits_as_an_adapter(tmp_path: Path, family: str) -> None:
    source = base(tmp_path / "base", family)
    out = edited(source, tmp_path / "out", "lora", "lora")
    exporting.to_peft(out, tmp_path / "adapter")
    wrapped = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(str(source)), str(tmp_path / "adapter"))
    with torch.no_grad():
        expected = loading.load(out)[0](IDS).logits
        torch.testing.assert_close(wrapped(IDS).logits, expected, atol=1e-4, rtol=1e-4)
    said = (tmp_path / "adapter" / "README.md").read_text()
    assert "library_name: peft" in said
    assert EDITS[1].query.prompt in said


def test_a_dense_change_of_low_rank_is_an_adapter_and_another_is_refused(tmp_path: Path) -> None:
    source = base(tmp_path / "base")
    model, tokenizer = models.load(str(source))
    path, draw = "model.layers.1.mlp.down_proj", torch.Generator().manual_seed(0)
    low = torch.randn(32, 2, generator=draw) @ torch.randn(2, 64, generator=draw)
    deltas.install(model, WeightDelta(deltas.fingerprint(model), {path: Dense(low)}))
    saving.save(model, tokenizer, tmp_path / "low", base=str(source))
    exporting.to_peft(tmp_path / "low", tmp_path / "adapter")
    tensors = load_file(str(tmp_path / "adapter" / "adapter_model.safetensors"))
    left, right = (tensors[f"base_model.model.{path}.lora_{part}.weight"] for part in "BA")
    assert right.shape == (2, 64)
    torch.testing.assert_close(left @ right, low, atol=1e-5, rtol=1e-5)
    deltas.install(model, WeightDelta(deltas.fingerprint(model), {path: Dense(torch.randn(32, 64, generator=draw))}))
    saving.save(model, tokenizer, tmp_path / "full", records=[saving.EditRecord("ft-m")], base=str(source))
    words = r"edit 2 \(ft-m\) changes all of model.layers.1.mlp.down_proj \(32 x 64, rank 32\)"
    with pytest.raises(UserError, match=words):
        exporting.to_peft(tmp_path / "full", tmp_path / "no")
    with pytest.raises(UserError, match=r"edit 2 \(grace\) changes no weights"):
        exporting.to_peft(edited(source, tmp_path / "runs", "lora", "grace"), tmp_path / "no")
    with pytest.raises(UserError, match="adapter exists"):
        exporting.to_peft(tmp_path / "low", tmp_path / "adapter")
    assert not (tmp_path / "no").exists()


def written(source: Path, out: Path, architecture: str) -> Path:
    """A GGUF file of a folder, as a converter would write it: what transformers needs to read it again."""
    model, tokenizer = models.load(str(source))
    config, writer = model.config, gguf.GGUFWriter(str(out), architecture)
    writer.add_context_length(1024)
    writer.add_vocab_size(config.vocab_size)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    if architecture == "gpt2":
        writer.add_feed_forward_length(4 * config.hidden_size)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
    else:
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_freq_base(10_000.0)
    writer.add_tokenizer_model("gpt2")
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if token in tokenizer.all_special_tokens else 1 for token in vocabulary])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    for name, value in gguf_files._tensors(model, architecture, str(source)).items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


#: What transformers takes for granted of a GGUF file.
SHAPES: dict[str, dict[str, Any]] = {"qwen3": {"head_dim": 128}}


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gemma3", "gpt2"])
def test_a_gguf_file_is_edited_exported_and_read_again(tmp_path: Path, architecture: str) -> None:
    family = {"gemma3": "gemma3_text"}.get(architecture, architecture)
    source = written(
        base(tmp_path / "base", family, max_position_embeddings=1024, **SHAPES.get(family, {})),
        tmp_path / "base.gguf",
        architecture,
    )
    plain, _ = models.load(str(source))
    for name, parameter in models.load(str(tmp_path / "base"))[0].named_parameters():
        torch.testing.assert_close(plain.get_parameter(name), parameter)
    model, tokenizer = load_model(str(source), device="cpu")
    path = "transformer.h.1.mlp.c_proj" if architecture == "gpt2" else "model.layers.1.mlp.down_proj"
    change = torch.randn(32, 128 if architecture == "gpt2" else 64, generator=torch.Generator().manual_seed(0))
    deltas.install(model, WeightDelta(deltas.fingerprint(model), {path: Dense(change)}))
    out = saving.save(model, tokenizer, tmp_path / "out", base=str(source))
    assert {t.dtype for t in load_file(str(out / "model.safetensors")).values()} == {torch.bfloat16}
    config = json.loads((out / "config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"
    assert architecture == "gpt2" or config["rope_theta"] == 10_000.0
    tokens = json.loads((out / "tokenizer_config.json").read_text())
    assert tokens["tokenizer_class"] not in ("TokenizersBackend", None)
    assert not {"is_local", "local_files_only", "extra_special_tokens"} & tokens.keys()
    gguf_files.to_gguf(out, tmp_path / "out.gguf")
    again, _ = models.load(str(tmp_path / "out.gguf"))
    for name, parameter in loading.load(out)[0].named_parameters():
        torch.testing.assert_close(again.get_parameter(name), parameter, atol=1e-6, rtol=1e-6)
    kinds = {str(t.tensor_type.name) for t in gguf.GGUFReader(str(tmp_path / "out.gguf")).tensors}
    assert kinds == {"BF16", "F32"}
    assert (tmp_path / "out.gguf.md").is_file()


def test_what_cannot_be_a_gguf_file(tmp_path: Path) -> None:
    source = base(tmp_path / "base")
    out = edited(source, tmp_path / "out", "ft-m")
    like = written(source, tmp_path / "like.gguf", "llama")
    other = written(base(tmp_path / "other", num_hidden_layers=3), tmp_path / "other.gguf", "llama")
    wider = written(base(tmp_path / "wide", intermediate_size=96), tmp_path / "wide.gguf", "llama")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")
    for words, more in {
        "is no .gguf file, and one needs a tokenizer.*give a .gguf file of the same model with --like": {},
        "nothing.gguf is no .gguf file": {"like": str(tmp_path / "nothing.gguf")},
        "bad.gguf is damaged or no GGUF file": {"like": str(tmp_path / "bad.gguf")},
        "only one of them has blk.2": {"like": str(other)},
        "has another shape": {"like": str(wider)},
    }.items():
        with pytest.raises(UserError, match=words):
            gguf_files.to_gguf(out, tmp_path / "x.gguf", **more)
    with pytest.raises(UserError, match="a file name that ends in .gguf"):
        gguf_files.to_gguf(out, tmp_path / "x", like=str(like))
    gguf_files.to_gguf(out, tmp_path / "x.gguf", like=str(like), kind="float16")
    with pytest.raises(UserError, match="x.gguf exists"):
        gguf_files.to_gguf(out, tmp_path / "x.gguf", like=str(like))
    assert not list(tmp_path.glob("*.partial"))


class Api:
    """The hub, as far as it is asked."""

    def __init__(self, token: bool = True) -> None:
        self.token, self.calls = token, []

    def whoami(self) -> None:
        if not self.token:
            raise OSError("Token is required, but no token found.\nmore")

    def create_repo(self, name: str, **more: Any) -> None:
        self.calls.append((name, more))

    def upload_folder(self, **more: Any) -> None:
        self.calls.append(more)


def test_uploading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    source = base(tmp_path / "base")
    out = edited(source, tmp_path / "out", "ft-m")
    api = Api()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: api)
    monkeypatch.setattr("engramlab.files.hub.hub_answers", lambda: False)
    with pytest.raises(UserError, match="--hub me/mine: the hub cannot be reached"):
        exporting.to_hub(out, "me/mine")
    monkeypatch.setattr("engramlab.files.hub.hub_answers", lambda: True)
    for bad in ("mine", "a/b/c", "../x", "me/"):
        with pytest.raises(UserError, match="write owner/name"):
            exporting.to_hub(out, bad)
    api.token = False
    with pytest.raises(UserError, match=r"no token found.*; log in with `hf auth login`"):
        exporting.to_hub(out, "me/mine")
    api.token = True
    assert not api.calls
    cli.main(["export", str(out), "--hub", "me/mine"])
    assert "https://huggingface.co/me/mine" in capsys.readouterr().out
    (name, made), sent = api.calls
    assert (name, made["private"], sent["repo_id"], sent["folder_path"]) == ("me/mine", True, "me/mine", str(out))
    from huggingface_hub.utils import filter_repo_objects

    files = [path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()]
    kept = set(filter_repo_objects(files, ignore_patterns=sent["ignore_patterns"]))
    assert {"model.safetensors", "config.json", "README.md", "tokenizer.json"} <= kept
    assert not any(str(tmp_path) in (out / name).read_text(errors="replace") for name in kept - {"model.safetensors"})
    alone = edited(source, tmp_path / "alone", "ft-m", delta_only=True)
    with pytest.raises(UserError, match="holds edits alone"):
        exporting.to_hub(alone, "me/mine")


def test_the_command_says_what_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["x"], ["x", "--peft", "a", "--hub", "b/c"]):
        with pytest.raises(SystemExit):
            cli.main(["export", *words])
        assert "export needs" in capsys.readouterr().err


def test_a_card_shows_what_was_said_and_nothing_else() -> None:
    hostile = "a | b\n# <script>x</script> [y](http://z) `c` **d** ![e](f) \x1b[2J @me www.q.org"
    said = card.escaped(hostile)
    assert "\n" not in said
    assert not any(sign in said for sign in ("|", "<", "[", "`", "*", "!", "://", "www.", "@", "\x1b"))
    state = saving.State(Path("x"), "owner/name", "f", "float32", "float32", False)
    edit = Edit(Query("The | capital is", "", subject="s"), "*Rome*")
    row = {"role": "reliability", "prompt": "The | capital is", "generated": 1.0, "teacher_forced": 1.0}
    record = saving.EditRecord("rome", edits=(edit,), rows=(row,), created="2026-01-02T00:00:00Z")
    text = card.text(state, [saving.Saved(1, record, "weights", "", None, {})], "how")
    assert "base_model: owner/name" in text
    assert "| 1 | rome | 2026-01-02 | The &#124; capital is | &#42;Rome&#42; |  |  | yes |" in text
    assert "1 of 1 edits hold" in text


def test_a_card_is_written_anew_and_leaves_what_others_wrote(tmp_path: Path) -> None:
    out = edited(base(tmp_path / "base"), tmp_path / "out", "ft-m", "ft-m")
    path = out / "README.md"
    assert EDITS[1].query.prompt in path.read_text()
    path.write_text(path.read_text() + "\n## My own words\n")
    saving.undo(out)
    assert EDITS[1].query.prompt not in path.read_text()
    assert EDITS[0].query.prompt in path.read_text()
    assert path.read_text().endswith("\n## My own words\n")
    path.write_text("mine alone")
    saving.undo(out)
    assert path.read_text() == "mine alone"


def test_what_was_done_stays_done_without_room_for_a_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = edited(base(tmp_path / "base"), tmp_path / "out", "ft-m", "ft-m")

    def full(*_: Any) -> None:
        raise UserError("the disk is full")

    monkeypatch.setattr(card.writing, "write_text", full)
    monkeypatch.setattr("engramlab.files.writing.write_json", lambda path, value: path.write_text(json.dumps(value)))
    assert [one.number for one in saving.undo(out)] == [2]
    assert len(saving.listing(out)) == 1
