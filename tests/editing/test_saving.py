"""Edited folders: they load in plain transformers, undo is bit for bit, and no kill leaves them in between."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.support import zoo
from tests.support.small import EDITS, quick
from torch import nn
from transformers import AutoModelForCausalLM

from engramlab import editing
from engramlab.base.errors import UserError
from engramlab.base.facts import Edit, Query
from engramlab.core import deltas, models
from engramlab.core.deltas import files as deltafiles
from engramlab.core.deltas.files import digest_of
from engramlab.editing import method
from engramlab.editing.folders import saving
from engramlab.files.locks import held

Weights = dict[str, str]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return zoo.ZOO["llama3"](zoo.SENTENCES)


@pytest.fixture(scope="module")
def plain(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A folder with an unedited model of that family and type."""
    root = tmp_path_factory.mktemp("models")

    def make(family: str = "llama", dtype: torch.dtype = torch.float32, seed: int = 0) -> Path:
        folder = root / f"{family}-{dtype}-{seed}"
        if not folder.exists():
            zoo.model(family, vocabulary=len(tokenizer), seed=seed, max_position_embeddings=512).to(
                dtype
            ).save_pretrained(str(folder))
            tokenizer.save_pretrained(str(folder))
        return folder

    return make


def weights(folder: Path) -> Weights:
    """What plain transformers would load: a digest of every tensor."""
    return {name: digest_of(tensor) for name, tensor in load_file(str(folder / "model.safetensors")).items()}


def add(model: nn.Module, tokenizer: Any, edit: Edit, name: str = "ft-m") -> saving.EditRecord:
    """Makes an edit and leaves it on the model."""
    deltas.install(model, method.make(model, tokenizer, [edit], method=name, config=quick(name)))
    return saving.EditRecord(method=name, loss="cross-entropy", edits=(edit,))


def edited(source: Path, out: Path, *names: str, **more: Any) -> list[Weights]:
    """Several edits in ``out``, saved one by one in place; the weights after each, the unedited ones first."""
    dtype = more.pop("dtype", torch.float32)
    model, tokenizer = models.load(str(source), dtype=dtype)
    states = [weights(source)]
    for i, name in enumerate(names):
        record = add(model, tokenizer, EDITS[i], name)
        saving.save(model, tokenizer, out, records=[record], base=str(source), **more)
        states.append(weights(out) if not more.get("delta_only") else {})
    return states


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_saved_loaded_and_undone_bit_for_bit(plain: Any, tmp_path: Path, family: str, dtype: torch.dtype) -> None:
    out = tmp_path / "edited"
    states = edited(plain(family, dtype), out, "ft-m", "lora", "ft-m", dtype=dtype)
    assert len({json.dumps(state) for state in states}) == 4

    again, _ = saving.load(out)
    bare = AutoModelForCausalLM.from_pretrained(str(out))
    assert next(bare.parameters()).dtype == dtype
    for name, parameter in bare.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name))
    assert len(deltas.installed(again)) == 3
    unedited, _ = models.load(str(plain(family, dtype)), dtype=dtype)
    assert deltas.fingerprint(again) == deltas.fingerprint(unedited)
    deltas.remove_all(again)
    for name, parameter in unedited.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name))

    (gone,) = saving.undo(out)
    assert (gone.number, gone.record.edits, gone.record.method) == (3, (EDITS[2],), "ft-m")
    assert weights(out) == states[2]
    assert sorted(path.name for path in (out / "edits").iterdir()) == ["0001", "0002"]
    assert [one.number for one in saving.undo(out, to=0)] == [2, 1]
    assert weights(out) == states[0]
    saving.load(out)
    with pytest.raises(UserError, match="has no edit to undo: it is the unedited model"):
        saving.undo(out)


def test_undo_several_at_once(plain: Any, tmp_path: Path) -> None:
    states = edited(plain(), tmp_path / "e", "ft-m", "ft-m", "ft-m")
    assert len(saving.undo(tmp_path / "e", last=2)) == 2
    assert weights(tmp_path / "e") == states[1]


@pytest.mark.parametrize("name", ["grace", "ike", "eren", "lte", "p-tuning", "wise", "melo"])
def test_what_changes_no_weights_is_on_the_model_after_loading(plain: Any, tmp_path: Path, name: str) -> None:
    out = tmp_path / "edited"
    model, tokenizer = models.load(str(plain()))
    records = [add(model, tokenizer, EDITS[0], "ft-m")]
    saving.save(model, tokenizer, out, records=records)
    for edit in EDITS[1:3]:
        saving.save(model, tokenizer, out, records=[add(model, tokenizer, edit, name)])
    listed = saving.listing(out)
    assert [one.record.method for one in listed] == ["ft-m", name, name]
    assert listed[1].weights == {}
    again, _ = saving.load(out)
    there = deltas.installed(again)
    assert (there[2].continues is there[1]) == (deltas.installed(model)[2].continues is not None)
    ids = torch.tensor([tokenizer(EDITS[1].query.prompt)["input_ids"]])
    with torch.no_grad():
        assert torch.equal(again(ids).logits, model(ids).logits)
    saving.undo(out, to=1)
    assert [d.kind for d in deltas.installed(saving.load(out)[0])] == ["weights"]


def test_deltas_alone_need_their_model(plain: Any, tmp_path: Path) -> None:
    source, out = tmp_path / "base", tmp_path / "deltas"
    shutil.copytree(plain(), source)
    edited(source, out, "ft-m", "lora", delta_only=True)
    assert not list(out.rglob("model.safetensors"))
    assert not list(out.rglob("originals.safetensors"))
    model, _ = saving.load(out)
    assert len(deltas.installed(model)) == 2
    saving.undo(out)
    assert len(deltas.installed(saving.load(out)[0])) == 1
    with pytest.raises(UserError, match="is not the model that the edits in .*deltas were made for"):
        saving.load(out, base=str(plain(seed=5)))
    source.rename(tmp_path / "moved")
    with pytest.raises(UserError, match="holds edits alone, and their model could not be loaded: .*no such folder"):
        saving.load(out)
    assert saving.load(out, base=str(tmp_path / "moved"))


def test_another_folder_takes_over_what_is_known(plain: Any, tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    states = edited(plain(), a, "ft-m")
    model, tokenizer = saving.load(a)
    record = add(model, tokenizer, EDITS[1], "lora")
    saving.save(model, tokenizer, b, records=[record], source=a)
    assert [one.record.edits for one in saving.listing(b)] == [(EDITS[0],), (EDITS[1],)]
    assert weights(a) == states[1]
    saving.undo(b, to=0)
    assert weights(b) == states[0]


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("change", ["add", "undo", "take out"])
def test_a_kill_anywhere_leaves_the_old_or_the_new_state(
    plain: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Every rename and every removal is the last thing that happens, once; nothing is cleaned up after it."""
    start = tmp_path / "start"
    states = edited(plain(), start, "ft-m", "ft-m")
    old = states[2]
    if change == "undo":
        new = states[1]
    elif change == "take out":
        saving.undo(shutil.copytree(start, tmp_path / "whole"), edit=1)
        new = weights(tmp_path / "whole")
    else:
        model, tokenizer = saving.load(start)
        record = add(model, tokenizer, EDITS[2])
        saving.save(model, tokenizer, tmp_path / "whole", records=[record], source=start)
        new = weights(tmp_path / "whole")
    seen, reached = [], 0
    for last in range(100):
        out = tmp_path / f"{last}"
        shutil.copytree(start, out)
        calls = 0

        def counted(real: Callable[..., Any], last: int = last) -> Callable[..., Any]:
            def call(*args: Any, **more: Any) -> Any:
                nonlocal calls
                if calls > last:
                    raise Killed  # nothing can be cleaned up by a process that is gone
                calls += 1
                done = real(*args, **more)
                if calls > last:
                    raise Killed
                return done

            return call

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", counted(os.replace))
            patch.setattr(
                shutil, "rmtree", counted(lambda path, **more: None if not Path(path).exists() else _rm(path))
            )
            patch.setattr(Path, "unlink", counted(Path.unlink))
            try:
                if change != "add":
                    saving.undo(out, edit=1 if change == "take out" else None)
                else:
                    saving.save(model, tokenizer, out, records=[record])
                reached = last
            except Killed:
                pass
        now = weights(out)
        assert now in (old, new)
        listed = saving.listing(out)
        assert len(listed) == (2 if now == old else 3 if change == "add" else 1)
        again, _ = saving.load(out)
        assert len(deltas.installed(again)) == len(listed)
        seen.append(now == new)
        saving.undo(out)  # the next command puts everything in order
        assert len(saving.listing(out)) == len(listed) - 1
        left = {path.name for path in [*out.iterdir(), *(out / "edits").iterdir()]}
        assert not any("partial" in name or name.startswith(".weights") for name in left)
        assert len(list((out / "edits").iterdir())) == len(listed) - 1
        shutil.rmtree(out)
        if reached:
            break
    assert reached > 3
    assert seen[0] is False
    assert seen[-1] is True
    assert seen == sorted(seen)


def _rm(path: Any, _real: Any = shutil.rmtree) -> None:
    _real(path)


def test_weights_that_something_else_changed_are_not_undone(plain: Any, tmp_path: Path) -> None:
    out = tmp_path / "e"
    edited(plain(), out, "ft-m", "lora")
    before = weights(out)
    path = out / "model.safetensors"
    tensors = load_file(str(path))
    name = next(iter(saving.listing(out)[1].weights))
    tensors[name] = tensors[name] + 1
    with safe_open(str(path), "pt") as file:
        metadata = file.metadata()
    save_file(tensors, str(path), metadata=metadata)
    for act in (saving.undo, saving.load):
        with pytest.raises(UserError, match="is not what edit 2 left there; the weights were changed since"):
            act(out)
    tensors = {n: t for n, t in tensors.items() if n != name}
    save_file(tensors, str(path), metadata=metadata)
    with pytest.raises(UserError, match="is missing or damaged"):
        saving.undo(out)
    assert before != weights(out)


def test_every_damaged_folder_is_named(plain: Any, tmp_path: Path) -> None:
    good = tmp_path / "good"
    edited(plain(), good, "ft-m")

    def refused(words: str, act: Callable[[Path], Any], break_it: Callable[[Path], Any]) -> None:
        out = tmp_path / "bad"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(good, out)
        break_it(out)
        with pytest.raises(UserError, match=words) as caught:
            act(out)
        assert str(out) in str(caught.value)

    def cut(name: str) -> Callable[[Path], None]:
        def act(out: Path) -> None:
            data = (out / name).read_bytes()
            (out / name).write_bytes(data[: len(data) // 2])

        return act

    def flip(name: str) -> Callable[[Path], None]:
        def act(out: Path) -> None:
            data = bytearray((out / name).read_bytes())
            data[-1] ^= 1
            (out / name).write_bytes(data)

        return act

    refused("there is no such folder", saving.undo, shutil.rmtree)
    refused("is no edited folder", saving.undo, lambda out: (out / "engramlab.json").unlink())
    refused("engramlab.json is missing or damaged", saving.listing, cut("engramlab.json"))
    refused("edit 1 of 1 is missing", saving.listing, lambda out: shutil.rmtree(out / "edits"))
    refused("edit.json is missing or damaged", saving.listing, cut("edits/0001/edit.json"))
    refused("originals.safetensors is missing or damaged", saving.undo, cut("edits/0001/originals.safetensors"))
    refused("is not the matrix that was kept there", saving.undo, flip("edits/0001/originals.safetensors"))
    refused("is damaged: its tensors", saving.load, flip("edits/0001/delta/delta.safetensors"))
    refused("model.safetensors is missing or damaged", saving.undo, cut("model.safetensors"))


def test_what_cannot_be_saved(plain: Any, tmp_path: Path) -> None:
    model, tokenizer = models.load(str(plain()))
    with pytest.raises(UserError, match="there is nothing to save: no edit is on the model"):
        saving.save(model, tokenizer, tmp_path / "x")
    record = add(model, tokenizer, EDITS[0])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="full exists and is no edited folder"):
        saving.save(model, tokenizer, tmp_path / "full", records=[record])
    saving.save(model, tokenizer, tmp_path / "e", records=[record])
    other, _ = models.load(str(plain()))
    add(other, tokenizer, EDITS[1])
    with pytest.raises(UserError, match="holds edits that are not on this model"):
        saving.save(other, tokenizer, tmp_path / "e")
    with pytest.raises(UserError, match="holds the whole model, deltas alone cannot be added"):
        saving.save(model, tokenizer, tmp_path / "e", delta_only=True)
    with pytest.raises(UserError, match="give either"):
        saving.undo(tmp_path / "e", last=1, to=0)
    with pytest.raises(UserError, match="--last 2: .* has 1 edit; give 1 to 1"):
        saving.undo(tmp_path / "e", last=2)
    with pytest.raises(UserError, match="--to 1: .* has 1 edit; give 0 to 0"):
        saving.undo(tmp_path / "e", to=1)
    deltas.remove_all(model)
    deltas.install(model, method.make(model, tokenizer, EDITS[:1], method="ft-m"), undo=False)
    with pytest.raises(UserError, match="only edits that can be taken off again can be saved"):
        saving.save(model, tokenizer, tmp_path / "y")
    assert not (tmp_path / "x").exists()


def test_two_processes_do_not_change_one_folder(plain: Any, tmp_path: Path) -> None:
    edited(plain(), tmp_path / "e", "ft-m")
    with ThreadPoolExecutor() as another, held(tmp_path / "e"):
        undone = another.submit(saving.undo, tmp_path / "e")
        assert "is in use by another process" in str(undone.exception())


def _one(source: Path, out: Path, edit: Edit, name: str) -> Path:
    model, tokenizer = models.load(str(source))
    return saving.save(model, tokenizer, out, records=[add(model, tokenizer, edit, name)], base=str(source))


def test_merging_adds_what_each_changes(plain: Any, tmp_path: Path) -> None:
    a = _one(plain(), tmp_path / "a", EDITS[0], "ft-m")
    b = _one(plain(), tmp_path / "b", EDITS[1], "ft-m")
    c = _one(plain(), tmp_path / "c", EDITS[2], "grace")
    rows = editing.merge([a, b, c], tmp_path / "all")
    first = tuple(row for row in rows if row["folder"] == str(a))
    assert saving.listing(tmp_path / "all")[0].record.rows == first
    assert {row["group"] for row in first if row["role"] == "locality"} == {"unrelated"}
    rows = [row for row in rows if row["role"] == "reliability"]
    assert [(row["folder"], row["number"], row["target"]) for row in rows] == [
        (str(a), 1, "Washington"),
        (str(b), 1, EDITS[1].target),
        (str(c), 1, "the Seine"),
    ]
    assert all(isinstance(row["holds"], bool) for row in rows)
    base, one, other, both = (load_file(str(f / "model.safetensors")) for f in (plain(), a, b, tmp_path / "all"))
    for name, value in both.items():
        torch.testing.assert_close(value, one[name] + other[name] - base[name], atol=1e-5, rtol=1e-4)
    assert [one.record.method for one in saving.listing(tmp_path / "all")] == ["ft-m", "ft-m", "grace"]
    saving.undo(tmp_path / "all", to=0)
    assert weights(tmp_path / "all") == weights(plain())


def test_what_cannot_be_merged(plain: Any, tmp_path: Path) -> None:
    a = _one(plain(), tmp_path / "a", EDITS[0], "ft-m")
    out = tmp_path / "out"

    def refused(words: str, *parts: Path) -> None:
        with pytest.raises(UserError, match=words):
            editing.merge(parts, out)
        assert not out.exists()

    refused("takes two or more edited folders", a)
    refused("a is given twice", a, a)
    refused("is no edited folder", a, plain())
    refused("different models", a, _one(plain(seed=3), tmp_path / "other", EDITS[1], "ft-m"))
    query = Query("the capital of  France is", "Paris", subject="France", id="mine")
    against = _one(plain(), tmp_path / "against", Edit(query, "Edo"), "lora")
    refused(
        "a, edit 1 and .*against, edit 1 contradict each other: edit France -> 'Washington' and edit mine -> 'Edo' give",
        a,
        against,
    )
    g, m = (_one(plain(), tmp_path / n, EDITS[i], n) for i, n in ((1, "grace"), (2, "melo")))
    refused(r"grace, edit 1 \(grace\) and .*melo, edit 1 \(melo\) both act while the model runs", a, g, m)
    shutil.copytree(a, tmp_path / "empty")
    saving.undo(tmp_path / "empty")
    refused("empty has no edits", a, tmp_path / "empty")


def test_an_answer_changed_twice_in_one_folder_does_not_contradict(plain: Any, tmp_path: Path) -> None:
    a = _one(plain(), tmp_path / "a", EDITS[0], "ft-m")
    model, tokenizer = saving.load(a)
    again = Edit(EDITS[0].query, "Edo")
    saving.save(model, tokenizer, a, records=[add(model, tokenizer, again)])
    b = _one(plain(), tmp_path / "b", Edit(EDITS[0].query, "edo"), "lora")
    rows = editing.merge([a, b], tmp_path / "out", delta_only=True)
    assert len([row for row in rows if row["role"] == "reliability"]) == 3


def test_merging_into_one_place_at_once(plain: Any, tmp_path: Path) -> None:
    a = _one(plain(), tmp_path / "a", EDITS[0], "ft-m")
    b = _one(plain(), tmp_path / "b", EDITS[1], "ft-m")
    with held(tmp_path / "out"), ThreadPoolExecutor() as another:
        second = another.submit(editing.merge, [a, b], tmp_path / "out")
        with pytest.raises(UserError, match="out is in use by another process; wait for it or choose another --out"):
            second.result()
    editing.merge([a, b], tmp_path / "out")
    with pytest.raises(UserError, match="out holds edits already"):
        editing.merge([a, b], tmp_path / "out")


def test_edits_alone_are_merged_where_their_model_is_now(plain: Any, tmp_path: Path) -> None:
    base = shutil.copytree(plain(), tmp_path / "base")
    parts = []
    for i in range(2):
        edited(base, tmp_path / str(i), "ft-m", delta_only=True)
        parts.append(tmp_path / str(i))
    base.rename(tmp_path / "moved")
    with pytest.raises(UserError, match="if it has moved, say where it is with --base"):
        editing.merge(parts, tmp_path / "out")
    editing.merge(parts, tmp_path / "out", base=str(tmp_path / "moved"), delta_only=True)
    assert len(deltas.installed(saving.load(tmp_path / "out")[0])) == 2


def test_the_package_is_light_and_offers_what_is_needed() -> None:
    code = (
        "import sys\nfrom engramlab import editing\nimport engramlab.editing.benchmarks\n"
        "editing.Edit(editing.Query('a', 'b'), 'c')\nassert 'torch' not in sys.modules\n"
        "editing.applied, editing.make, editing.names, editing.load, editing.save, editing.undo, editing.merge\n"
        "assert {'load', 'applied'} <= set(dir(editing))\n"
        "try:\n    editing.nothing\nexcept AttributeError as e:\n    print(e)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert said.stdout.strip() == "module 'engramlab.editing' has no attribute 'nothing'", said.stderr


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("delta_only", [False, True])
def test_one_edit_is_taken_out_from_under_later_ones(plain: Any, tmp_path: Path, family: str, delta_only: bool) -> None:
    out = tmp_path / "all"
    edited(plain(family), out, "ft-m", "lora", "ft-m", delta_only=delta_only)
    (gone,) = saving.undo(out, edit=1)
    assert (gone.number, gone.record.edits) == (1, (EDITS[0],))
    assert [one.record.edits for one in saving.listing(out)] == [(EDITS[1],), (EDITS[2],)]
    again, _ = saving.load(out)
    bare, _ = models.load(str(plain(family)))
    kept = [deltafiles.digest(delta) for delta in deltas.installed(again)]
    assert len(kept) == 2
    for delta in deltas.installed(again):
        deltas.install(bare, delta)
    for name, parameter in bare.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name))
    saving.undo(out, edit=2)
    saving.undo(out)
    assert not saving.listing(out)
    if not delta_only:
        assert weights(out) == weights(plain(family))


def test_what_a_later_edit_goes_on_from_is_not_taken_out(plain: Any, tmp_path: Path) -> None:
    out = tmp_path / "e"
    edited(plain(), out, "ft-m", "grace", "grace")
    with pytest.raises(UserError, match=r"--edit 2: edit 3 \(grace\) goes on from it .* newest first \(--to 1\)"):
        saving.undo(out, edit=2)
    with pytest.raises(UserError, match="--edit 4: .* has 3 edits; give 1 to 3"):
        saving.undo(out, edit=4)
    with pytest.raises(UserError, match="not both"):
        saving.undo(out, edit=1, last=1)
    saving.undo(out, edit=1)
    assert [one.record.method for one in saving.listing(out)] == ["grace", "grace"]
    assert len(deltas.installed(saving.load(out)[0])) == 2
