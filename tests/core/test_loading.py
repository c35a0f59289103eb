"""What is seen of a model before it is loaded, and what loading refuses: code, sizes, numbers, tokenizers, adapters, GGUF."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support import zoo
from tests.support.said import lines_but_waiting
from torch import nn
from transformers import AutoModelForCausalLM

from engramlab.base.errors import UserError
from engramlab.core import models
from engramlab.core.models import gguf
from engramlab.editing import method


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return zoo.gpt2(zoo.SENTENCES)


@pytest.fixture(scope="module")
def saved(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder as transformers writes it."""
    return written(
        tmp_path_factory.mktemp("models") / "whole", zoo.model("llama", vocabulary=len(tokenizer)), tokenizer
    )


def written(folder: Path, model: nn.Module, tokenizer: Any) -> Path:
    with models.quiet():
        model.save_pretrained(folder)  # type: ignore[operator]
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def told(file: Path, **more: Any) -> None:
    """Writes more into a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | more))


# code -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["config", "tokenizer"])
def test_code_in_a_folder_is_not_run_and_nobody_is_asked(
    what: str, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = copy / "executed"
    (copy / "mine.py").write_text(
        f"open({str(ran)!r}, 'w')\nclass Config: pass\nclass Model: pass\nclass Words: pass\n"
    )
    if what == "config":
        auto = {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}
        told(copy / "config.json", model_type="mine", auto_map=auto)
    else:
        told(copy / "tokenizer_config.json", tokenizer_class="Words", auto_map={"AutoTokenizer": [None, "mine.Words"]})

    def asked(*_: Any) -> str:
        pytest.fail("a question was asked")

    monkeypatch.setattr("builtins.input", asked)
    with pytest.raises(UserError, match="needs code of its own, which engramlab does not run"):
        models.load(str(copy))
    if what == "config":
        with pytest.raises(UserError, match="needs code of its own"):
            models.about(str(copy)).context(512)
    assert not ran.exists()


def test_code_beside_a_model_that_transformers_knows_is_left_alone(copy: Path) -> None:
    ran = copy / "executed"
    (copy / "mine.py").write_text(f"open({str(ran)!r}, 'w')\nclass Config: pass\nclass Model: pass\n")
    told(copy / "config.json", auto_map={"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"})
    model, _ = models.load(str(copy))
    assert type(model).__module__.startswith("transformers.models.llama")
    assert not ran.exists()


# sizes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"num_hidden_layers": 10_000_000},
            "speaks of 10,000,000 layers .num_hidden_layers., its files hold 20 tensors",
        ),
        ({"hidden_size": 9_000_000}, "speaks of .* parameters, its files hold"),
        ({"intermediate_size": 10**9}, "speaks of .* parameters, its files hold"),
        ({"vocab_size": 10**15, "hidden_size": 10**9}, "damaged|speaks of"),
    ],
)
def test_sizes_are_looked_at_before_they_are_tried(more: dict[str, Any], message: str, copy: Path) -> None:
    told(copy / "config.json", **more)
    with pytest.raises(UserError, match=message):
        models.load(str(copy))


def test_more_than_memory_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(p.numel() for p in models.skeleton("m", models.load_config(str(saved))).parameters())
    memory = type("Memory", (), {"total": 3 * size})
    monkeypatch.setattr("psutil.virtual_memory", memory)
    with pytest.raises(UserError, match=r"parameters need .* GB as float32, this machine has .*--dtype bfloat16"):
        models.load(str(saved))
    models.load(str(saved), dtype=torch.bfloat16)


# folders that are not whole -------------------------------------------------------------------------------------------


def test_a_folder_with_a_gguf_file_alone(tmp_path: Path) -> None:
    (tmp_path / "small.Q4.gguf").write_bytes(b"GGUF")
    for look in (models.load, models.load_config, models.load_tokenizer):
        with pytest.raises(UserError, match=r"the folder holds small\.Q4\.gguf; give that file, .*small\.Q4\.gguf"):
            look(str(tmp_path))


def test_a_missing_shard_is_named(tokenizer: Any, tmp_path: Path) -> None:
    model = zoo.model("llama", vocabulary=len(tokenizer))
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    tokenizer.save_pretrained(tmp_path)
    models.load(str(tmp_path))
    gone = sorted(tmp_path.glob("model-*.safetensors"))[1]
    gone.unlink()
    with pytest.raises(UserError, match=f"{gone.name} is missing, which model.safetensors.index.json names"):
        models.load(str(tmp_path))


# numbers and tokens ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_that_are_no_numbers(value: float, dtype: torch.dtype, tokenizer: Any, tmp_path: Path) -> None:
    model = zoo.model("llama", vocabulary=len(tokenizer))
    with torch.no_grad():
        model.get_submodule("model.layers.1.mlp.up_proj").weight[3, 5] = value  # type: ignore[index,operator]
    written(tmp_path, model, tokenizer)
    with pytest.raises(UserError, match=r"model\.layers\.1\.mlp\.up_proj\.weight holds values that are no numbers"):
        models.load(str(tmp_path), dtype=dtype)


def test_large_weights_are_numbers() -> None:
    model = nn.Linear(64, 64, dtype=torch.float16)
    nn.init.constant_(model.weight, 60000.0)  # their sum is none in this type
    models.check_finite("m", model)


def test_weights_are_read_again_once_they_were_written_to() -> None:
    model = nn.Linear(4, 4)
    models.check_finite("m", model)
    models.check_finite("m", model)
    with torch.no_grad():
        model.weight[1, 2] = torch.nan
    with pytest.raises(UserError, match="weight holds values that are no numbers"):
        models.check_finite("m", model)
    with torch.inference_mode():
        made = nn.Linear(4, 4)  # writes to such weights are not counted
        models.check_finite("m", made)
        made.bias[0] = torch.inf
        with pytest.raises(UserError, match="bias holds values that are no numbers"):
            models.check_finite("m", made)


def test_a_tokenizer_with_more_tokens_than_the_model_has(tokenizer: Any, tmp_path: Path) -> None:
    rows = len(tokenizer)
    written(tmp_path / "fewer", zoo.model("llama", vocabulary=rows - 5), tokenizer)
    written(tmp_path / "more", zoo.model("llama", vocabulary=rows + 30), tokenizer)
    models.load(str(tmp_path / "more"))  # padding up is fine
    with pytest.raises(UserError, match=rf"makes token .*, but the model's vocabulary has only {rows - 5:,}"):
        models.load(str(tmp_path / "fewer"))


def test_a_special_token_beyond_the_model_that_no_text_becomes(tokenizer: Any, tmp_path: Path) -> None:
    """Gemma 3's tokenizer has one for images, beyond the embedding of its models of text alone."""
    images = zoo.gpt2(zoo.SENTENCES)
    images.add_special_tokens({"additional_special_tokens": ["<image>"]})
    folder = written(tmp_path / "m", zoo.model("llama", vocabulary=len(tokenizer)), images)
    models.load(str(folder))
    images.add_tokens(["Seinequai"])
    images.save_pretrained(folder)
    with pytest.raises(UserError, match="'Seinequai'"):
        models.load(str(folder))


# what cannot be edited ------------------------------------------------------------------------------------------------

REFUSED = {
    "t5": (("ike", "ft-m"), r"\(t5\) has an encoder besides its decoder"),
    "bart": (("ft-m",), r"\(bart\) has an encoder besides"),
    "mamba": (("ft-m", "lora"), "'mamba' has no attention"),
    "rwkv": (("rome",), "'rwkv' has no attention"),
    "mixtral": (
        ("ft-m", "rome", "grace"),
        r"'mixtral' has no single MLP in a layer but several experts, .*: .*ike, lora",
    ),
    "mine": (("ike",), "damaged|code of its own"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_model_that_cannot_be_edited_is_refused_by_its_config_alone(kind: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, "num_hidden_layers": 2, "hidden_size": 32}))
    names, message = REFUSED[kind]
    for name in names:
        with pytest.raises(UserError, match=message) as refusal:
            method.check_model(str(tmp_path), [name])
        assert "\n" not in str(refusal.value)


def test_a_model_that_can_be_edited_passes(saved: Path, tmp_path: Path) -> None:
    method.check_model(str(saved), method.names())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mixtral", "num_hidden_layers": 2}))
    method.check_model(str(tmp_path), ["lora", "ike"])


# adapters -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def adapter(saved: Path, tmp_path: Path) -> tuple[Path, Any]:
    """A LoRA adapter's folder, without a tokenizer as usual, and the model it makes."""
    from peft import LoraConfig, get_peft_model

    base = AutoModelForCausalLM.from_pretrained(saved)
    wrapped = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False))
    wrapped.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", wrapped.eval()


def test_an_adapter_is_merged_into_its_base(adapter: tuple[Path, Any], saved: Path, tmp_path: Path) -> None:
    folder, wrapped = adapter
    model, tokenizer = models.load(str(folder))
    ids = torch.tensor([[5, 9, 33, 2]])
    torch.testing.assert_close(model(ids).logits, wrapped(ids).logits, rtol=1e-4, atol=1e-5)
    plain = models.load(str(saved))[0]
    assert not torch.allclose(model(ids).logits, plain(ids).logits, atol=1e-3)
    assert type(model) is type(plain)
    assert [name for name, _ in model.named_modules()] == [name for name, _ in plain.named_modules()]
    assert all(p.requires_grad for p in model.parameters())
    assert models.about(str(folder)).vocabulary == len(tokenizer)
    written(tmp_path / "whole", model, tokenizer)  # and is a whole model from then on
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "whole").eval()
    assert torch.equal(again(ids).logits, model(ids).logits)


def test_an_adapter_whose_base_is_elsewhere(adapter: tuple[Path, Any], saved: Path) -> None:
    folder, wrapped = adapter
    told(folder / "adapter_config.json", base_model_name_or_path="/gone/base")
    with pytest.raises(UserError, match="'/gone/base': there is no such folder"):
        models.load(str(folder))
    told(folder / "adapter_config.json", base_model_name_or_path=".")
    with pytest.raises(UserError, match="is an adapter of an adapter"):
        models.load(str(folder))
    model, _ = models.load(str(folder), base=str(saved))
    ids = torch.tensor([[5, 9, 33, 2]])
    torch.testing.assert_close(model(ids).logits, wrapped(ids).logits, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="and no adapter; leave the option out"):
        models.load(str(saved), base=str(saved))


def test_an_adapter_that_is_pickled_or_of_another_model(
    adapter: tuple[Path, Any], tokenizer: Any, tmp_path: Path
) -> None:
    folder, _ = adapter
    other = written(tmp_path / "other", zoo.model("llama", vocabulary=len(tokenizer), hidden_size=64), tokenizer)
    with pytest.raises(UserError, match="does not fit its base"):
        models.load(str(folder), base=str(other))
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(UserError, match="pickled weights are not read"):
        models.load(str(folder))


# GGUF -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def packed(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file of two layers."""
    if importlib.util.find_spec("gguf") is None:
        pytest.skip("needs the package gguf")
    from gguf import GGUFWriter

    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    model = zoo.model("qwen2", vocabulary=len(tokenizer), tie_word_embeddings=False)
    file = GGUFWriter(path, "qwen2")
    for add, value in {
        "block_count": 2,
        "context_length": 64,
        "embedding_length": 32,
        "feed_forward_length": 64,
        "head_count": 4,
        "head_count_kv": 2,
        "layer_norm_rms_eps": 1e-6,
        "vocab_size": len(tokenizer),
        "tokenizer_model": "gpt2",
        "token_list": [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])],
        "token_types": [1] * len(tokenizer),
        "token_merges": [
            " ".join(pair) for pair in json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
        ],
        "eos_token_id": 0,
    }.items():
        getattr(file, f"add_{add}")(value)
    names = {"embed_tokens": "token_embd", "self_attn.": "attn_", "_proj": "", "o.": "output.", "mlp.": "ffn_"}
    names |= {
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "layers": "blk",
        "lm_head": "output",
    }
    for name, parameter in model.named_parameters():
        short = name.removeprefix("model.").replace(
            "norm.weight", "output_norm.weight" if name == "model.norm.weight" else "norm.weight"
        )
        for long, brief in names.items():
            short = short.replace(long, brief) if long != "o." else short.replace("attn_o.", "attn_output.")
        file.add_tensor(short, parameter.detach().numpy())
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()
    return path


def test_a_gguf_file_is_unpacked_once(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ENGRAMLAB_CACHE", str(tmp_path))
    monkeypatch.setenv(gguf.SWITCH, "off")
    plain, words = models.load(str(packed))
    assert not list(tmp_path.iterdir())
    monkeypatch.delenv(gguf.SWITCH)
    models.load(str(packed))
    assert "small.gguf: its weights are unpacked" in capfd.readouterr().err
    folder = gguf.kept(packed)
    assert folder is not None
    assert [one.name for one in folder.parent.iterdir()] == [folder.name]  # whole, and nothing beside it
    monkeypatch.setattr("gguf.GGUFReader.__init__", None)  # not read again
    for dtype in (torch.float32, torch.bfloat16):
        model, tokenizer = models.load(str(packed), dtype=dtype)
        assert not lines_but_waiting(capfd.readouterr().err)
        for (name, a), (other, b) in zip(plain.named_parameters(), model.named_parameters(), strict=True):
            assert name == other
            assert torch.equal(a.to(dtype), b)
        assert tokenizer(list(zoo.SENTENCES))["input_ids"] == words(list(zoo.SENTENCES))["input_ids"]
        assert model.config._name_or_path == str(packed.parent)
    assert models.about(str(packed)).vocabulary == plain.get_input_embeddings().weight.shape[0]  # type: ignore[operator]


def test_an_unpacked_copy_that_is_damaged_or_old_is_made_anew(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGRAMLAB_CACHE", str(tmp_path / "cache"))
    path = Path(shutil.copy(packed, tmp_path / "mine.gguf"))
    models.load(str(path))
    folder = gguf.kept(path)
    assert folder is not None
    (folder / "model.safetensors").write_bytes(b"cut")
    models.load(str(path))
    assert (folder / "model.safetensors").stat().st_size > 10_000
    path.touch()
    models.load(str(path))
    assert not folder.exists()
    assert [one.is_dir() for one in folder.parent.iterdir()] == [True]


def test_a_cache_without_room_is_a_warning(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGRAMLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.warns(UserWarning, match="no room .* to keep the weights unpacked"):
        models.load(str(packed))
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_a_tokenizer_from_elsewhere(packed: Path, saved: Path, tokenizer: Any, tmp_path: Path) -> None:
    """Beside a GGUF file, whose own may lack what the original has."""
    _, words = models.load(str(packed), tokenizer=str(saved))
    assert words.get_vocab() == tokenizer.get_vocab()
    with pytest.raises(UserError, match="tokenizer"):
        models.load(str(packed), tokenizer=str(tmp_path / "nowhere"))


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from engramlab.files.writing import cache_folder

    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.setenv("ENGRAMLAB_CACHE", "/own")
    assert cache_folder() == Path("/own")
    monkeypatch.delenv("ENGRAMLAB_CACHE")
    assert cache_folder() == Path("/x/engramlab")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "engramlab"
