"""Every file of an edited folder damaged in every way: one clear sentence or the right model, never silence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.support import zoo
from tests.support.small import EDITS, quick

from engramlab.base.errors import UserError
from engramlab.core import deltas, models
from engramlab.core.deltas import files as deltafiles
from engramlab.core.deltas.files import digest_of
from engramlab.editing import method
from engramlab.editing.folders import saving

PROMPTS = [edit.query.prompt for edit in EDITS[:3]]


def made(base: Path, out: Path, *names: str, first: int = 0, **more: Any) -> Path:
    model, tokenizer = models.load(str(base))
    for i, name in enumerate(names, first):
        deltas.install(model, method.make(model, tokenizer, [EDITS[i]], method=name, config=quick(name)))
        record = saving.EditRecord(method=name, edits=(EDITS[i],))
        saving.save(model, tokenizer, out, records=[record], base=str(base), **more)
    return out


def behaviour(folder: Path) -> str:
    """Of a loaded folder: its parameters, its edits, what it computes and what its tokenizer makes of a text."""
    model, tokenizer = saving.load(folder)
    found: list[Any] = [digest_of(p) for p in model.parameters()]
    with torch.no_grad():
        found += [digest_of(model(torch.tensor([tokenizer(p)["input_ids"]])).logits) for p in PROMPTS]
    found += [deltafiles.digest(delta) for delta in deltas.installed(model)]
    return json.dumps([found, [tokenizer(text)["input_ids"] for text in zoo.SENTENCES]])


class Folders(NamedTuple):
    good: Path
    alike: Path  # other edits of the same model
    foreign: Path  # of another model
    alone: Path  # deltas alone
    undone: list[str]  # behaviour after undoing none, one, two of its edits


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    root, tokenizer = tmp_path_factory.mktemp("folders"), zoo.ZOO["llama3"](zoo.SENTENCES)
    for seed in (0, 1):
        base = root / f"base{seed}"
        zoo.model("llama", vocabulary=len(tokenizer), seed=seed, max_position_embeddings=512).save_pretrained(str(base))
        tokenizer.save_pretrained(str(base))
    good = made(root / "base0", root / "good", "ft-m", "grace")
    alike = made(root / "base0", root / "alike", "ft-m", "grace", first=1)
    foreign = made(root / "base1", root / "foreign", "ft-m", "grace", first=1)
    alone = made(root / "base0", root / "alone", "ft-m", "grace", delta_only=True)
    undone = [behaviour(good)]
    for left in (1, 0):
        saving.undo(shutil.copytree(good, root / f"undone{left}"), to=left)
        undone.append(behaviour(root / f"undone{left}"))
    return Folders(good, alike, foreign, alone, undone)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(place: float) -> Callable[[Path], None]:
    def act(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[min(int(place * len(data)), len(data) - 1)] ^= 1
        path.write_bytes(data)

    return act


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "cut": cut,
    "emptied": lambda path: path.write_bytes(b""),
    "deleted": Path.unlink,
    "a list": lambda path: path.write_text("[]"),
    "an object": lambda path: path.write_text("{}"),
    "null": lambda path: path.write_text("null"),
    "deep": lambda path: path.write_text('{"a":' * 20_000),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\x00\x80"),
    "flipped": flip(0.5),
    "flipped early": flip(0.02),
    "flipped late": flip(1),
}
FILES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors",
    "engramlab.json", "README.md",
    *(f"edits/{n}/{name}" for n in ("0001", "0002") for name in ("edit.json", "delta/delta.json", "delta/delta.safetensors")),
    "edits/0001/originals.safetensors",
)  # fmt: skip


def said(out: Path, act: Callable[[Path], Any]) -> Any:
    """What ``act`` gives, or None where it names the folder in a UserError."""
    try:
        return act(out)
    except UserError as error:
        return None if str(out) in str(error) else str(error)


def methods(out: Path) -> list[str]:
    return [one.record.method for one in saving.listing(out)]


def checked(out: Path, folders: Folders, what: str) -> None:
    """Nothing but a UserError, or what an undamaged folder gives."""
    assert said(out, methods) in (None, ["ft-m", "grace"]), what
    assert said(out, behaviour) in (None, folders.undone[0]), what
    for left in (1, 0):
        gone = said(out, lambda folder, left=left: saving.undo(folder, to=left))  # type: ignore[misc]
        assert gone is None or isinstance(gone, list), what
        if gone is None:
            return
        assert said(out, behaviour) in (None, folders.undone[2 - left]), what


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_or_does_no_harm(folders: Folders, tmp_path: Path, name: str) -> None:
    for what, damage in DAMAGES.items():
        out = shutil.copytree(folders.good, tmp_path / what)
        damage(out / name)
        checked(out, folders, f"{name} {what}")
    for other in (folders.alike, folders.foreign, folders.alone):
        if (other / name).is_file():
            out = shutil.copytree(folders.good, tmp_path / f"of {other.name}")
            shutil.copyfile(other / name, out / name)
            checked(out, folders, f"{name} of {other.name}")


HOSTILE: dict[str, Any] = {
    "edits": [
        -1,
        1,
        3,
        10**12,
        1e300,
        True,
        None,
        "2",
        [["../../x", ""]],
        [["0001"]],
        [[1, 2]],
        [["0002", ""]],
        {"a": 1},
    ],
    "base": [None, [], "x", {}, {"name": 1, "fingerprint": 2, "dtype": "float32", "precision": "float32"}],
    "format": [0, 3, None, "1", [], True],
    "delta_only": [None, True, 1, "no"],
    "weights": [None, 1, "other"],
    "unedited": [None, [], {"x": "y"}, {"x": 1}, 3],
    "files": [None, [], {"../x": "y"}, {"config.json": 1}, {"config.json": "y"}],
    "versions": [None, [], {"engramlab": []}],
}


@pytest.mark.parametrize("key", HOSTILE)
def test_hostile_json_is_named_or_does_no_harm(folders: Folders, tmp_path: Path, key: str) -> None:
    for number, value in enumerate(HOSTILE[key]):
        out = shutil.copytree(folders.good, tmp_path / str(number))
        about = json.loads((out / "engramlab.json").read_text())
        (out / "engramlab.json").write_text(json.dumps({**about, key: value}))
        checked(out, folders, f"{key} = {value!r}")


def test_any_matrix_that_was_changed_is_named(folders: Folders, tmp_path: Path) -> None:
    with safe_open(str(folders.good / "model.safetensors"), "pt") as file:
        metadata, names = file.metadata(), sorted(file.keys())
    out = shutil.copytree(folders.good, tmp_path / "out")
    for name in names:
        tensors = load_file(str(folders.good / "model.safetensors"))
        tensors[name].flatten()[-1] += 1
        save_file(tensors, str(out / "model.safetensors"), metadata=metadata)
        for act in (saving.load, saving.undo, lambda folder: saving.undo(folder, to=0)):
            with pytest.raises(UserError, match=f"{name} is not what (edit 1 left there|it was in the unedited model)"):
                act(out)


def test_a_base_that_differs_in_one_value_is_not_taken(folders: Folders, tmp_path: Path) -> None:
    base = shutil.copytree(folders.good.parent / "base0", tmp_path / "base")
    tensors = load_file(str(base / "model.safetensors"))
    tensors["model.embed_tokens.weight"][1, 1] += 1  # none of the 64 values of the fingerprint
    save_file(tensors, str(base / "model.safetensors"), metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"made for \(model.embed_tokens.weight differs\); say with --base"):
        saving.load(folders.alone, base=str(base))


def test_a_file_changed_on_purpose_can_be_kept(folders: Folders, tmp_path: Path) -> None:
    out = shutil.copytree(folders.good, tmp_path / "out")
    (out / "generation_config.json").write_text("{}")
    with pytest.raises(
        UserError, match="generation_config.json is damaged.*on purpose, delete its line in engramlab.json"
    ):
        saving.load(out)
    about = json.loads((out / "engramlab.json").read_text())
    del about["files"]["generation_config.json"]
    (out / "engramlab.json").write_text(json.dumps(about))
    assert behaviour(out) == folders.undone[0]


def test_folders_without_digests_still_load_and_undo(folders: Folders, tmp_path: Path) -> None:
    """As engramlab 0.2 wrote them: format 1, a number of edits, digests of the edited matrices alone."""
    out = shutil.copytree(folders.good, tmp_path / "out")
    about = json.loads((out / "engramlab.json").read_text())
    about = {k: v for k, v in about.items() if k not in ("files", "unedited")} | {"format": 1, "edits": 2}
    del about["base"]["precision"]
    with safe_open(str(out / "model.safetensors"), "pt") as file:
        metadata = {**file.metadata(), "engramlab.edits": "2"}
    save_file(load_file(str(out / "model.safetensors")), str(out / "model.safetensors"), metadata=metadata)
    (out / "engramlab.json").write_text(json.dumps(about))
    assert behaviour(out) == folders.undone[0]
    for left in (1, 0):
        saving.undo(out, to=left)
        assert behaviour(out) == folders.undone[2 - left]
