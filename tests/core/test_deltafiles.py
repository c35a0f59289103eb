"""Saved deltas: the same after loading, and every way a folder can be wrong is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.support import zoo

from engramlab.base.errors import UserError
from engramlab.core.deltas import Dense, LowRank, WeightDelta, fingerprint
from engramlab.core.deltas import files as deltafiles

KINDS = {"weights": WeightDelta}


@pytest.fixture
def delta() -> WeightDelta:
    generator = torch.Generator().manual_seed(1)
    model = zoo.model("llama")
    both = torch.randn(2, 32, 3, generator=generator)  # two factors in one storage
    return WeightDelta(
        fingerprint(model),
        {
            "model.layers.0.mlp.down_proj": Dense(torch.randn(32, 64, generator=generator)),
            "model.layers.1.self_attn.o_proj": LowRank(both[0], both[1].T),
        },
        {"keys": torch.randn(2, 5, generator=generator).bfloat16(), "count": torch.tensor(3)},
    )


def test_what_is_saved_comes_back_bit_for_bit(delta: WeightDelta, tmp_path: Path) -> None:
    deltafiles.save(delta, tmp_path / "d")
    again = deltafiles.load(tmp_path / "d", KINDS)
    assert isinstance(again, WeightDelta)
    assert again.model == delta.model
    assert again.tensors().keys() == delta.tensors().keys()
    for name, tensor in delta.tensors().items():
        assert torch.equal(again.tensors()[name], tensor)
        assert again.tensors()[name].dtype == tensor.dtype
    assert deltafiles.digest(again) == deltafiles.digest(delta)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["d", "delta.json", "delta.safetensors"]


def test_a_digest_tells_one_changed_bit(delta: WeightDelta) -> None:
    before = deltafiles.digest(delta)
    delta.extras["count"] += 1
    assert deltafiles.digest(delta) != before


def test_saving_over_an_older_one_replaces_it_or_leaves_it(
    delta: WeightDelta, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deltafiles.save(delta, tmp_path / "d")
    first = deltafiles.digest(delta)
    delta.extras["count"] += 1
    monkeypatch.setattr(deltafiles.runs, "versions", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        deltafiles.save(delta, tmp_path / "d")
    assert deltafiles.digest(deltafiles.load(tmp_path / "d", KINDS)) == first
    monkeypatch.undo()
    deltafiles.save(delta, tmp_path / "d")
    assert deltafiles.digest(deltafiles.load(tmp_path / "d", KINDS)) == deltafiles.digest(delta)


def test_every_wrong_folder_is_named(delta: WeightDelta, tmp_path: Path) -> None:
    def refused(words: str, kinds: dict[str, type[WeightDelta]] = KINDS) -> None:
        with pytest.raises(UserError, match=words) as caught:
            deltafiles.load(folder, kinds)
        assert str(folder) in str(caught.value)

    folder = tmp_path / "d"
    refused("there is no such folder")
    folder.mkdir()
    refused("holds no saved edit: it has no delta.json")
    deltafiles.save(delta, folder)
    refused("of kind 'weights', which this engramlab does not know; it knows grace", {"grace": WeightDelta})
    about = json.loads((folder / "delta.json").read_text())
    for change, words in (
        ({"format": 9}, "its format is 9, this engramlab reads 1"),
        ({"model": "another"}, "not those that delta.json was written for"),
    ):
        (folder / "delta.json").write_text(json.dumps(about | change))
        refused(words)
    (folder / "delta.json").write_text(json.dumps(about)[:-30])
    refused("damaged: delta.json is not what was written")
    (folder / "delta.json").write_text(json.dumps(["a list"]))
    refused("damaged: delta.json")
    (folder / "delta.json").write_text(json.dumps(about))
    tensors = bytearray((folder / "delta.safetensors").read_bytes())
    tensors[-1] ^= 1
    (folder / "delta.safetensors").write_bytes(tensors)
    refused("its tensors or settings are not those")
    (folder / "delta.safetensors").write_bytes(tensors[:40])
    refused("damaged: delta.safetensors cannot be read")
    (folder / "delta.safetensors").unlink()
    refused("it has no delta.safetensors")


def test_a_class_that_cannot_read_it_any_more(
    delta: WeightDelta, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deltafiles.save(delta, tmp_path / "d")
    monkeypatch.setattr(WeightDelta, "restore", classmethod(lambda cls, *a: {}["scale"]))
    with pytest.raises(UserError, match="cannot read a 'weights' edit as it was written"):
        deltafiles.load(tmp_path / "d", KINDS)
