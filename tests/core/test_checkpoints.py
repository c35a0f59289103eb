"""Training that goes on from a checkpoint is training that never stopped, bit for bit."""

import json

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from tests.support import zoo
from tests.support.kills import every_kill

from engramlab.base.errors import UserError
from engramlab.core.models import add_lora
from engramlab.core.text.batches import Mixed, OneEntryARow, Order, Packed, TokenRows
from engramlab.core.text.tokens import Sequences
from engramlab.core.training import checkpoints
from engramlab.core.training.loop import Recipe, TrainState, train
from engramlab.files import records, writing

RECIPE = Recipe(steps=8, batch=4, learning_rate=1e-2, warmup=2, micro_batch=3)


def rows(count: int, shift: int = 0) -> TokenRows:
    texts = [[(7 * i + 3 * k + shift) % 60 + 2 for k in range(3 + i % 6)] for i in range(count)]
    return TokenRows(Sequences.of(texts, [[0] * (len(text) - 1) + [1] for text in texts]))


def packed(count: int, seed: int) -> Packed:
    return Packed(rows(count, seed), Order(count, seed), end=1, length=12)


STREAMS = {
    "one entry a row": lambda: OneEntryARow(rows(7), Order(7, 0), start=[0], end=1, length=16, answers_only=True),
    "packed": lambda: packed(11, 3),
    "mixed": lambda: Mixed(packed(11, 3), packed(5, 4), ratio=0.5, end=0, seed=2),
}
MODELS = {
    "dropout": lambda: zoo.model("gpt_neox", hidden_dropout=0.3, attention_dropout=0.3),
    "lora": lambda: add_lora(zoo.model("gpt_neox", hidden_dropout=0.3), rank=4, embedding_rank=3),
    "lora, full embedding": lambda: add_lora(zoo.model("gpt_neox"), rank=4, embedding_rank="full"),
    "llama": lambda: zoo.model("llama", attention_dropout=0.3),
}


def train_some(state: TrainState, stream, steps: int) -> list[tuple[float, float]]:
    found = []
    for step in train(state, stream):
        found.append((step.loss, step.gradient_norm))
        if len(found) == steps:
            break
    return found


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("at", [1, 5])
def test_going_on_is_bit_identical(tmp_path, model, stream, at):
    torch.manual_seed(1)
    state, source = TrainState(MODELS[model](), RECIPE), STREAMS[stream]()
    losses = train_some(state, source, at)
    checkpoints.save(tmp_path, state, source, {"tokens": 12})
    losses += train_some(state, source, 99)
    torch.manual_seed(2)
    torch.rand(17)
    fresh, later = TrainState(MODELS[model](), RECIPE), STREAMS[stream]()
    train_some(fresh, later, 2)  # a process that has already done something else
    extra = checkpoints.load(checkpoints.latest(tmp_path), fresh, later)
    assert extra == {"tokens": 12}
    assert fresh.step == at
    assert losses[:at] + train_some(fresh, later, 99) == losses
    for (name, p), (_, q) in zip(fresh.bare.named_parameters(), state.bare.named_parameters(), strict=True):
        assert torch.equal(p, q), name


def test_only_the_newest_are_kept_and_half_written_ones_do_not_count(tmp_path):
    state, source = TrainState(MODELS["llama"](), RECIPE), STREAMS["packed"]()
    assert checkpoints.latest(tmp_path) is None
    for _ in train(state, source):
        checkpoints.save(tmp_path, state, source, keep=2)
    (tmp_path / "step-00000009.partial").mkdir()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000007", "step-00000008", "step-00000009.partial"]
    assert checkpoints.latest(tmp_path).name == "step-00000008"
    checkpoints.save(tmp_path, state, source)  # the same step again
    assert checkpoints.latest(tmp_path).name == "step-00000008"


def test_nothing_is_pickled(tmp_path):
    state, source = TrainState(MODELS["lora"](), RECIPE), STREAMS["mixed"]()
    train_some(state, source, 2)
    checkpoints.save(tmp_path, state, source)
    files = sorted(p for p in tmp_path.rglob("*") if p.is_file())
    assert [p.name for p in files] == [
        "digests.json",
        "optimizer.safetensors",
        "parameters.safetensors",
        "state.json",
    ]
    for path in files[1:3]:  # a safetensors file is the length of a JSON header, the header, and numbers
        data = path.read_bytes()
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        assert all("lora" in name for name in header if name != "__metadata__")
    for path in (files[0], files[3]):
        json.loads(path.read_text())


def test_what_cannot_go_on_is_refused(tmp_path):
    state, source = TrainState(MODELS["llama"](), RECIPE), STREAMS["packed"]()
    train_some(state, source, 1)
    checkpoints.save(tmp_path, state, source)
    folder = checkpoints.latest(tmp_path)
    with pytest.raises(UserError, match="is of another model: its parameters have other names or shapes"):
        checkpoints.load(folder, TrainState(MODELS["dropout"](), RECIPE), source)
    with pytest.raises(UserError, match="is of another model"):
        checkpoints.load(folder, TrainState(zoo.model("llama", vocabulary=70), RECIPE), source)
    with pytest.raises(UserError, match="count=11 cannot go on with count=12"):
        checkpoints.load(folder, TrainState(MODELS["llama"](), RECIPE), packed(12, 3))
    record = json.loads((folder / "state.json").read_text())
    record["processes"] *= 2
    (folder / "state.json").write_text(json.dumps(record))
    records.seal(folder)
    with pytest.raises(UserError, match="was saved by 2 processes and cannot go on with 1"):
        checkpoints.load(folder, state, source)


def test_the_numbers_of_a_stream_survive_json(tmp_path):
    """State comes from numpy here and there; JSON must not turn it into text."""
    source = STREAMS["mixed"]()
    source.take(int(np.int64(3)))
    state = TrainState(MODELS["llama"](), RECIPE)
    checkpoints.save(tmp_path, state, source)
    record = json.loads((checkpoints.latest(tmp_path) / "state.json").read_text())
    assert record["processes"][0]["stream"] == source.state()


def test_saving_is_killed_in_any_call_and_a_whole_checkpoint_is_there(tmp_path):
    state, source = TrainState(MODELS["llama"](), RECIPE, accelerator=Accelerator(cpu=True)), STREAMS["packed"]()
    train_some(state, source, 1)
    checkpoints.save(tmp_path, state, source)
    train_some(state, source, 1)
    for _ in every_kill(lambda: checkpoints.save(tmp_path, state, source), tmp_path):
        folder = checkpoints.newest_whole(tmp_path, pytest.fail)
        fresh = TrainState(MODELS["llama"](), RECIPE, accelerator=Accelerator(cpu=True))
        checkpoints.load(folder, fresh, STREAMS["packed"]())
        assert fresh.step in (1, 2)
        writing.tidy(*tmp_path.iterdir())
        assert {path.name for path in tmp_path.iterdir()} <= {"step-00000001", "step-00000002"}


@pytest.mark.parametrize("sealed", [True, False], ids=["with digests", "of an older engramlab"])
@pytest.mark.parametrize("file", ["state.json", "parameters.safetensors", "optimizer.safetensors"])
def test_a_damaged_file_is_named_with_what_to_remove(tmp_path, file, sealed):
    state, source = TrainState(MODELS["llama"](), RECIPE), STREAMS["packed"]()
    train_some(state, source, 1)
    checkpoints.save(tmp_path, state, source)
    folder = checkpoints.latest(tmp_path)
    if not sealed:
        (folder / "digests.json").unlink()
    content = (folder / file).read_bytes()
    damages = [content[: len(content) // 2], b"", b"[]", b"{}", b"\xff\xfe" + content, None]
    flipped = content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
    for damaged in [*damages, *([flipped] if sealed else [])]:
        (folder / file).unlink(missing_ok=True)
        if damaged is not None:
            (folder / file).write_bytes(damaged)
        with pytest.raises(
            UserError, match=f"{folder}.* is (damaged|missing|not JSON).*; remove {folder} to do that part again$"
        ):
            checkpoints.load(folder, TrainState(MODELS["llama"](), RECIPE), STREAMS["packed"]())
    if sealed:
        with pytest.raises(UserError, match=f"remove {folder} to do that part again$"):
            checkpoints.newest_whole(tmp_path, pytest.fail)
