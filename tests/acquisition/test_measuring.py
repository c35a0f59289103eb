"""Measuring while training: the numbers against a token-by-token loop, files that survive a kill, refusals."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tests.support.kills import every_kill

from engramlab.acquisition.dynamics import span_logprobs
from engramlab.acquisition.measuring import Measurements, measure, observe, read_measurements
from engramlab.base.errors import UserError
from engramlab.base.facts import Query
from engramlab.core import models
from engramlab.core.text.tokenizers import train_compact_tokenizer
from engramlab.core.text.tokens import encode_queries, start_tokens
from engramlab.files.writing import is_unfinished

QUERIES = [
    Query("the sun shines on the", "moon", id="a"),
    Query("a star", "shines", id="b"),
    Query("the sun shines on the", "old star", id="c"),
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_compact_tokenizer(["the sun shines on the moon", "a star shines", "old"], 300)


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.set_num_threads(1)
    return models.build("tiny", tokenizer, context=32).eval()


def naive(model, tokenizer, query: Query) -> list[float]:
    """One pass a token, all logits."""
    prefix = start_tokens(tokenizer) + tokenizer(query.prompt, add_special_tokens=False)["input_ids"]
    target = tokenizer(" " + query.target, add_special_tokens=False)["input_ids"]
    found = []
    for k, token in enumerate(target):
        with torch.no_grad():
            logits = model(torch.tensor([prefix + target[:k]])).logits[0, -1]
        found.append(float(logits.log_softmax(-1)[token]))
    return found


def test_every_target_token_s_log_probability_as_in_a_loop(model, tokenizer) -> None:
    asked = encode_queries(tokenizer, QUERIES)
    got = measure(model, asked)
    assert got.dtype == np.float32
    for q, query in enumerate(QUERIES):
        assert got[asked.offsets[q] : asked.offsets[q + 1]] == pytest.approx(naive(model, tokenizer, query), abs=1e-5)
    assert np.diff(asked.offsets).tolist() == [1, 1, 2]
    means = span_logprobs(got, asked.offsets)
    assert means[2] == pytest.approx(np.mean(naive(model, tokenizer, QUERIES[2])), abs=1e-5)


def test_which_targets_greedy_decoding_writes(model, tokenizer) -> None:
    asked = encode_queries(tokenizer, QUERIES)
    assert observe(model, asked)[1].tolist() == [0, 0, 0]
    ids = asked.sequences.ids.copy()
    end = int(
        asked.sequences.offsets[2]
    )  # the second query's target is its last token: what the model itself would write
    with torch.no_grad():
        ids[end - 1] = int(model(torch.tensor([asked.sequences.row(1)[:-1].tolist()])).logits[0, -1].argmax())
    told = replace(asked, sequences=replace(asked.sequences, ids=ids))
    logprobs, written = observe(model, told)
    assert written.tolist() == [0, 1, 0]
    some, only = observe(model, told, rows=np.array([1, 2]))
    np.testing.assert_array_equal(np.isnan(some), [True, False, False, False])
    np.testing.assert_allclose(some[1:], logprobs[1:], atol=1e-6)
    np.testing.assert_array_equal(only, [np.nan, 1, 0])


def test_the_model_keeps_its_mode_and_gradients(model, tokenizer) -> None:
    model.train()
    measure(model, encode_queries(tokenizer, QUERIES))
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    model.eval()


# files ----------------------------------------------------------------------------------------------------------------


def filled(folder, steps, flush_at=()):
    kept = Measurements(folder)
    kept.rewind(-1)
    for step in steps:
        kept.add(step, np.full(3, -step, np.float32))
        if step in flush_at:
            kept.flush()
    return kept


def test_what_was_added_comes_back_one_row_group_a_step(tmp_path) -> None:
    filled(tmp_path, range(5), flush_at=(1, 3)).finish()
    steps, values = read_measurements(tmp_path)
    assert steps.tolist() == [0, 1, 2, 3, 4]
    assert values.dtype == np.float32
    assert values[:, 1].tolist() == [0, -1, -2, -3, -4]
    assert [p.name for p in tmp_path.iterdir()] == ["measured.parquet"]
    assert pq.ParquetFile(tmp_path / "measured.parquet").num_row_groups == 5


@pytest.mark.parametrize("one_file", [False, True], ids=["on the way", "after all became one file"])
@pytest.mark.parametrize("gone_on_from", [-1, 0, 1, 2, 3])
def test_a_killed_run_loses_nothing_before_its_checkpoint(tmp_path, gone_on_from: int, one_file: bool) -> None:
    before = filled(tmp_path, range(5), flush_at=(1, 3))  # killed: step 4 was never written
    if one_file:
        before.finish()
        filled(tmp_path / "again", range(2)).flush()  # a part that the kill left beside the file that has it too
        (part,) = (tmp_path / "again").iterdir()
        part.rename(tmp_path / part.name)
    (tmp_path / "part-000000004-000000004.parquet.partial").write_bytes(b"half")
    kept = Measurements(tmp_path)
    kept.rewind(gone_on_from)
    for step in range(gone_on_from + 1, 7):
        kept.add(step, np.full(3, -step, np.float32))
    kept.finish()
    steps, values = read_measurements(tmp_path)
    assert steps.tolist() == list(range(7))
    assert values[:, 0].tolist() == [-float(s) for s in range(7)]


def test_an_unfinished_run_can_be_read(tmp_path) -> None:
    filled(tmp_path, range(4), flush_at=(2,))
    assert read_measurements(tmp_path)[0].tolist() == [0, 1, 2]
    with pytest.raises(UserError, match="no measurements"):
        read_measurements(tmp_path / "nowhere")


def test_a_damaged_file_is_named(tmp_path) -> None:
    (tmp_path / "measured.parquet").write_bytes(b"PAR1 no PAR1")
    with pytest.raises(UserError, match=r"measured.parquet is damaged .*; remove .* to do that part again"):
        read_measurements(tmp_path)


def test_measurements_that_cannot_be_written_are_one_sentence(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    kept = Measurements(tmp_path / "file" / "measured")
    kept.add(0, np.zeros(2, np.float32))
    with pytest.raises(UserError, match="cannot write"):
        kept.flush()


@pytest.mark.parametrize("reached", [1, 3, 4])
def test_killed_in_any_call_nothing_before_the_checkpoint_is_lost(tmp_path, reached: int) -> None:
    """The whole life of a run's measurements behind its checkpoint: rewound, added to, made one file."""
    folder = tmp_path / "measured"

    def ends() -> None:
        kept = Measurements(folder)
        kept.rewind(reached, range(reached + 1))
        for step in range(reached + 1, 6):
            kept.add(step, np.full(3, -step, np.float32))
            kept.flush()
        kept.finish()

    filled(folder, range(5), flush_at=(1, 3, 4))
    for _ in every_kill(ends, tmp_path):
        ends()
        steps, values = read_measurements(folder, range(6))
        assert steps.tolist() == list(range(6))
        assert values[:, 0].tolist() == [-float(s) for s in range(6)]
        assert [path.name for path in folder.iterdir() if not is_unfinished(path)] == ["measured.parquet"]
        shutil.rmtree(folder)
        filled(folder, range(5), flush_at=(1, 3, 4))


def test_interrupted_while_it_tidies_up_it_keeps_every_step(tmp_path, monkeypatch) -> None:
    kept = Measurements(tmp_path)
    for step in range(4):
        kept.add(step, np.full(3, -step, np.float32))
        kept.flush()
    gone = []

    def dies(path, missing_ok=False):
        gone.append(path)
        if sum(one.name.startswith("part") for one in gone) == 3:
            raise KeyboardInterrupt
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "unlink", dies)
        kept.finish()
    kept = Measurements(tmp_path)
    kept.rewind(3, range(4))
    kept.add(4, np.full(3, -4.0, np.float32))
    kept.finish()
    assert read_measurements(tmp_path)[0].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("whole", [False, True], ids=["parts", "one file"])
def test_every_flipped_bit_and_every_missing_file_is_named(tmp_path, whole: bool) -> None:
    kept = filled(tmp_path / "measured", range(4), flush_at=(1, 3))
    if whole:
        kept.finish()
    before = read_measurements(tmp_path / "measured")[1]
    for path in sorted((tmp_path / "measured").iterdir()):
        content = path.read_bytes()
        for place in range(0, len(content), 7):
            path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            found = before
            with contextlib.suppress(UserError):  # else a bit that says nothing
                found = read_measurements(tmp_path / "measured", range(4))[1]
            assert np.array_equal(found, before)
        path.unlink()
        with pytest.raises(UserError, match=f"measured lacks what was measured at step .*; remove {tmp_path} to do"):
            Measurements(tmp_path / "measured").rewind(3, range(4))
        path.write_bytes(content)


def test_files_without_digests_are_read_as_they_are(tmp_path) -> None:
    old = {
        "step": pa.array([0, 1]),
        "logprobs": pa.FixedSizeListArray.from_arrays(pa.array([0.0] * 4, pa.float32()), 2),
    }
    pq.write_table(pa.table(old), tmp_path / "part-000000000-000000001.parquet")
    kept = Measurements(tmp_path)
    kept.rewind(1)
    kept.add(2, np.ones(2, np.float32))
    kept.finish()
    assert read_measurements(tmp_path, range(3))[1].tolist() == [[0, 0], [0, 0], [1, 1]]
