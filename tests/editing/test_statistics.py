"""Second moments of keys: against a naive sum, from every source, and out of the cache."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tests.support import zoo
from torch import nn

from engramlab.base.errors import UserError
from engramlab.core import deltas
from engramlab.core.deltas import LowRank, WeightDelta
from engramlab.core.models import module_paths
from engramlab.core.models.geometry import down_projection, matrix_shape
from engramlab.editing.keys import moments
from engramlab.editing.keys.moments import SecondMoment, second_moments
from engramlab.editing.keys.running_text import TextSource

LINES = [f"{sentence} Number {i}." for i in range(12) for sentence in zoo.SENTENCES]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return zoo.ZOO["llama3"](zoo.SENTENCES)


def small(family: str, tokenizer: Any, **more: Any) -> nn.Module:
    return zoo.model(family, vocabulary=len(tokenizer), **more).eval()


def text_file(folder: Path, lines: list[str] = LINES) -> str:
    path = folder / "text.txt"
    path.write_text("\n\n".join(lines) + "\n")
    return str(path)


def keys_of(model: nn.Module, tokenizer: Any, layer: int, texts: list[str], count: int) -> torch.Tensor:
    """The first ``count`` keys, one text at a time through the whole model: float64 ``[count, d]``."""
    found: list[torch.Tensor] = []
    module = model.get_submodule(down_projection(model, layer))
    handle = module.register_forward_pre_hook(lambda m, args: found.append(args[0][0].detach().double()))
    with torch.no_grad():
        for text in texts:
            ids = tokenizer(text)["input_ids"]
            for start in range(0, len(ids), 64):  # the context of these models
                model(input_ids=torch.tensor([ids[start : start + 64]]))
    handle.remove()
    return torch.cat(found)[:count]


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama"])
def test_the_mean_of_outer_products(family: str, tokenizer: Any, tmp_path: Path) -> None:
    model = small(family, tokenizer)
    source = TextSource(text_file(tmp_path), 700, cache=str(tmp_path / "cache"))
    found = second_moments(model, tokenizer, [0, 1], source, progress=False)
    for layer, moment in found.items():
        keys = keys_of(model, tokenizer, layer, LINES, 700)
        torch.testing.assert_close(moment.matrix(), keys.T @ keys / 700, rtol=1e-4, atol=1e-6)
        assert moment.tokens == 700


def test_files_of_every_kind_say_the_same(tokenizer: Any, tmp_path: Path) -> None:
    model = small("llama", tokenizer)
    lines, table = tmp_path / "text.jsonl", tmp_path / "text.parquet"
    lines.write_text("".join(json.dumps({"body": line, "id": i}) + "\n" for i, line in enumerate(LINES)))
    pq.write_table(pa.table({"body": LINES}), table)
    sources = [TextSource(text_file(tmp_path), 600, cache=str(tmp_path))]
    sources += [TextSource(str(path), 600, column="body", cache=str(tmp_path)) for path in (lines, table)]
    first, *others = (second_moments(model, tokenizer, [1], source, progress=False)[1] for source in sources)
    for other in others:
        assert torch.equal(first.values, other.values)


def test_sampled_text_is_a_function_of_the_seed(tokenizer: Any, tmp_path: Path) -> None:
    model = small("gpt_neox", tokenizer)
    before = torch.get_rng_state()
    found = [
        second_moments(
            model, tokenizer, [0], TextSource(tokens=300, seed=seed, cache=str(tmp_path / name)), progress=False
        )[0]
        for seed, name in ((0, "a"), (0, "b"), (1, "a"))
    ]
    assert torch.equal(found[0].values, found[1].values)
    assert not torch.equal(found[0].values, found[2].values)
    assert torch.equal(before, torch.get_rng_state())


def test_the_cache_is_read_and_keyed_by_everything_that_matters(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, cache = small("llama", tokenizer), str(tmp_path / "cache")
    path = text_file(tmp_path)
    first = second_moments(model, tokenizer, [0], TextSource(path, 300, cache=cache), progress=False)[0]
    asked: list[list[int]] = []
    collect = moments._collect

    def counted(*args: Any) -> Any:
        asked.append(list(args[2]))
        return collect(*args)

    monkeypatch.setattr(moments, "_collect", counted)
    again = second_moments(model, tokenizer, [0], TextSource(path, 300, cache=cache), progress=False)[0]
    assert not asked
    assert torch.equal(first.vectors, again.vectors)
    second_moments(model, tokenizer, [0, 1], TextSource(path, 300, cache=cache), progress=False)
    second_moments(model, tokenizer, [0], TextSource(path, 310, cache=cache), progress=False)
    second_moments(
        small("llama", tokenizer, seed=1), tokenizer, [0], TextSource(path, 300, cache=cache), progress=False
    )
    text_file(tmp_path, LINES[::-1])
    second_moments(model, tokenizer, [0], TextSource(path, 300, cache=cache), progress=False)
    assert asked == [[1], [0], [0], [0]]


@pytest.mark.parametrize("damage", [b"", b"garbage" * 100, None])
def test_a_damaged_file_is_computed_again(damage: bytes | None, tokenizer: Any, tmp_path: Path) -> None:
    model = small("llama", tokenizer)
    source = TextSource(text_file(tmp_path), 300, cache=str(tmp_path / "cache"))
    first = second_moments(model, tokenizer, [0], source, progress=False)[0]
    (path,) = (tmp_path / "cache").iterdir()
    path.write_bytes(path.read_bytes()[:-100] if damage is None else damage)
    with pytest.warns(UserWarning, match="is damaged"):
        again = second_moments(model, tokenizer, [0], source, progress=False)[0]
    assert torch.equal(first.values, again.values)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second_moments(model, tokenizer, [0], source, progress=False)


def test_a_cache_that_cannot_be_written_is_no_end(tokenizer: Any, tmp_path: Path) -> None:
    model = small("llama", tokenizer)
    (tmp_path / "cache").write_text("a file")
    with pytest.warns(UserWarning, match="could not be kept"):
        second_moments(
            model, tokenizer, [0], TextSource(text_file(tmp_path), 300, cache=str(tmp_path / "cache")), progress=False
        )


def test_of_an_edited_model_only_while_there_is_nothing_better(tokenizer: Any, tmp_path: Path) -> None:
    model = small("llama", tokenizer)
    source = TextSource(text_file(tmp_path), 300, cache=str(tmp_path / "cache"))
    path = down_projection(model, 0)
    width, inner = matrix_shape(model, path)
    delta = WeightDelta(deltas.fingerprint(model), {path: LowRank(torch.ones(width, 1), torch.ones(1, inner))})
    with deltas.active(model, delta), pytest.warns(UserWarning, match="edited model serve"):
        edited = second_moments(model, tokenizer, [1], source, progress=False)[1]
    clean = second_moments(model, tokenizer, [1], source, progress=False)[1]
    assert not torch.allclose(edited.values, clean.values)
    with deltas.active(model, delta):
        assert torch.equal(second_moments(model, tokenizer, [1], source, progress=False)[1].values, clean.values)


def test_bf16_is_summed_in_float32(tokenizer: Any, tmp_path: Path) -> None:
    model = small("llama", tokenizer).to(torch.bfloat16)
    found = second_moments(
        model, tokenizer, [0], TextSource(text_file(tmp_path), 700, cache=str(tmp_path)), progress=False
    )[0]
    keys = keys_of(model, tokenizer, 0, LINES, 700)
    torch.testing.assert_close(found.matrix(), keys.T @ keys / 700, rtol=0.05, atol=0.02)
    assert found.values.dtype == torch.float64


def test_the_model_comes_back(tokenizer: Any, tmp_path: Path) -> None:
    model = small("gpt2", tokenizer).train()
    second_moments(model, tokenizer, [0], TextSource(text_file(tmp_path), 300, cache=str(tmp_path)), progress=False)
    assert all(m.training and not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    assert module_paths(model).layers == "transformer.h"


def test_inverse_and_null_space_of_a_known_matrix() -> None:
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(200, 8, generator=generator, dtype=torch.float64) * torch.logspace(-2, 1, 8, dtype=torch.float64)
    matrix = keys.T @ keys / 200
    moment = SecondMoment.of(matrix, 200)
    wanted = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(moment.solve(wanted), torch.linalg.solve(matrix, wanted), rtol=1e-4, atol=1e-6)
    basis = moment.null_space(0.02)
    assert 0 < basis.shape[1] < 8
    torch.testing.assert_close(basis.T @ basis, torch.eye(basis.shape[1], dtype=torch.float64))
    assert torch.linalg.eigvalsh(basis.T @ matrix @ basis).max() < 0.02


def test_neurons_that_never_fire_do_not_break_the_inverse() -> None:
    moment = SecondMoment.of(torch.diag(torch.tensor([1.0, 0.5, 0.0])), 10)
    assert moment.solve(torch.ones(3, 1)).isfinite().all()


def test_what_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    model, cache = small("llama", tokenizer), str(tmp_path / "cache")

    def refuse(message: str, *args: Any, **more: Any) -> None:
        with pytest.raises(UserError, match=message):
            second_moments(model, tokenizer, [0], TextSource(*args, cache=cache, **more), progress=False)

    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "fine"}\n{"body": 1}\n')
    table = tmp_path / "t.parquet"
    pq.write_table(pa.table({"body": LINES}), table)
    refuse("tokens of the statistics: must be at least 1", "sampled", 0)
    refuse("63 are too few for the second moment of 64 inputs", "sampled", 63)
    refuse("has only .* tokens; 100000 were asked for", text_file(tmp_path), 100_000)
    refuse("cannot be read", str(tmp_path / "none.txt"), 300)
    refuse("line 2: has no key 'text'; it has body", str(bad), 300)
    refuse("no column 'text'; it has body", str(table), 300)
    refuse("could not be fetched|needs the package datasets", "hub:nobody/nothing", 300)
