"""UltraEdit by its definition, LocFT-BF by a plain loop, and the anchor of the value search."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from tests.support import zoo
from tests.support.small import EDITS, made, quick
from torch import nn

from engramlab.base.facts import Edit
from engramlab.core import deltas
from engramlab.core.deltas import WeightDelta
from engramlab.core.models.geometry import down_projection, weight_of
from engramlab.core.training import losses
from engramlab.editing import method
from engramlab.editing.keys.keyvalue import anchored, mean_length
from engramlab.editing.methods import locft, memit, ultraedit
from engramlab.editing.methods.ultraedit import Moments, turn
from engramlab.editing.requests import encode_edits

CE = losses.get("cross-entropy")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return zoo.ZOO["llama3"](zoo.SENTENCES)


@pytest.fixture
def model(tokenizer: Any) -> nn.Module:
    return zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=256).eval()


def by_definition(
    model: nn.Module, tokenizer: Any, turns: list[list[Edit]], path: str, config: ultraedit.Config
) -> list[torch.Tensor]:
    """The change of each turn, on the model as the turns before it left it; edit by edit through the whole model."""
    module = model.get_submodule(path)
    changes: list[torch.Tensor] = []
    seen: list[torch.Tensor] = []
    for edits in turns:
        read, said = [], []
        for edit in edits:
            rows = encode_edits(tokenizer, [[edit]])
            kept: dict[str, torch.Tensor] = {}

            def keep(_: Any, args: Any, out: torch.Tensor, kept: dict[str, torch.Tensor] = kept) -> None:
                kept["x"], kept["y"] = args[0], out
                out.retain_grad()

            handle = module.register_forward_hook(keep)
            nn.functional.cross_entropy(model(input_ids=rows.ids).logits[rows.keep], rows.targets).backward()
            handle.remove()
            model.zero_grad()
            assert kept["y"].grad is not None
            read.append(kept["x"].detach()[rows.keep])
            said.append(kept["y"].grad[rows.keep])
        h, g = torch.cat(read).double(), torch.cat(said).double()
        seen.append(torch.cat([h, g], 1))
        everything = torch.cat(seen)
        z = (seen[-1] - everything.mean(0)) / everything.std(0)
        v = (
            -config.size((g.shape[1], h.shape[1]), float("nan"))
            * z[:, : h.shape[1]].square().sum(1, keepdim=True)
            * z[:, h.shape[1] :]
        )
        change = torch.linalg.solve(h.T @ h + config.ridge * torch.eye(h.shape[1]).double(), h.T @ v).T
        changes.append(change.float())
        with torch.no_grad():
            weight_of(module).add_(change.float())
    return changes


def test_ultraedit_is_its_definition_turn_after_turn(model: nn.Module, tokenizer: Any) -> None:
    config = ultraedit.Config(layers=(1,), eta=1e-2, at_once=2)
    path, turns = down_projection(model, 1), [list(EDITS[:3]), list(EDITS[3:]), list(EDITS[1:3])]
    found = []
    for edits in turns:
        delta = method.make(model, tokenizer, edits, method="ultraedit", config=config)
        assert isinstance(delta, WeightDelta)
        found.append(delta.changes[path].matrix())
        deltas.install(model, delta, undo=False)
    deltas.remove_all(model)
    for mine, theirs in zip(found, by_definition(model, tokenizer, turns, path, config), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-6)


def test_ultraedits_moments_are_those_of_all_positions_however_they_came() -> None:
    z = torch.randn(7, 5)
    parts = Moments.of(z[:1]) + Moments.of(z[1:4]) + Moments.of(z[4:])
    again = Moments.from_row(parts.row()[0])
    torch.testing.assert_close(again.mean, z.double().mean(0))
    torch.testing.assert_close((again.squares / 6).sqrt(), z.double().std(0))


def test_one_position_in_the_first_turn_gives_no_nan() -> None:
    h, g = torch.randn(1, 6), torch.randn(1, 4)
    change, _ = turn(h, g, None, ultraedit.Config(), 1.0)
    assert change is not None
    assert change.matrix().isfinite().all()
    assert float(((change.matrix() @ h[0]) * g[0]).sum()) < 0  # downhill


@pytest.mark.parametrize("earlier", [0, 1])
def test_ultraedit_leaves_weights_alone_where_nothing_is_asked(model: nn.Module, tokenizer: Any, earlier: int) -> None:
    def flat(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return losses.cross_entropy(logits, targets) * 0

    for edit in EDITS[:earlier]:
        deltas.install(model, made(ultraedit, model, tokenizer, [edit], quick("ultraedit"), CE))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    deltas.install(model, made(ultraedit, model, tokenizer, [EDITS[2]], quick("ultraedit"), flat))
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_locft_is_a_plain_loop_over_minibatches(model: nn.Module, tokenizer: Any) -> None:
    config = locft.Config(layers=(0,), epochs=3, batch=4, stop_below=0)
    path = down_projection(model, 0)
    delta = made(locft, model, tokenizer, EDITS, config, CE)
    ended = [dataclasses.replace(edit, stop=tokenizer.eos_token) for edit in EDITS]
    weight = model.get_parameter(f"{path}.weight")
    before = weight.detach().clone()
    adam = torch.optim.Adam([weight], lr=config.learning_rate)
    rows = [encode_edits(tokenizer, [[edit]]) for edit in ended]
    assert all(int(row.targets[-1]) == tokenizer.eos_token_id for row in rows)
    for _ in range(3):  # a batch of all four: the order plays no part
        adam.zero_grad()
        total = sum(nn.functional.cross_entropy(model(input_ids=r.ids).logits[r.keep], r.targets) for r in rows) / 4
        assert isinstance(total, torch.Tensor)
        total.backward()
        adam.step()
    torch.testing.assert_close(delta.changes[path].matrix(), weight.detach() - before, rtol=1e-3, atol=1e-6)


def test_locft_takes_every_edit_once_an_epoch_and_stops_behind_one(model: nn.Module, tokenizer: Any) -> None:
    seen: list[int] = []

    def counting(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.append(len(targets))
        return losses.cross_entropy(logits, targets)

    config = locft.Config(epochs=5, batch=3, stop_below=1e9)
    made(locft, model, tokenizer, EDITS, config, counting)
    ended = [dataclasses.replace(edit, stop=tokenizer.eos_token) for edit in EDITS]
    assert len(seen) == 2
    assert sum(seen) == len(encode_edits(tokenizer, [ended]).targets)
    made(locft, model, tokenizer, EDITS, dataclasses.replace(config, end_token=False), counting)
    assert sum(seen[2:]) == sum(seen[:2]) - len(EDITS)


def test_no_anchor_is_the_plain_method_bit_for_bit(model: nn.Module, tokenizer: Any) -> None:
    plain = dataclasses.replace(quick("memit"), steps=5)
    far, near = (dataclasses.replace(plain, norm_anchor=anchor) for anchor in (1e6, 1.0))
    one, same, short = (made(memit, model, tokenizer, EDITS[:2], config, CE) for config in (plain, far, near))
    for path, change in one.changes.items():
        assert torch.equal(change.matrix(), same.changes[path].matrix())
    assert any(not torch.equal(change.matrix(), short.changes[path].matrix()) for path, change in one.changes.items())


def test_values_beyond_the_anchor_are_as_long_as_the_mean(model: nn.Module, tokenizer: Any) -> None:
    values = torch.randn(5, 8) * torch.tensor([0.1, 1.0, 2.0, 5.0, 9.0])[:, None]
    found = anchored(values, 2.0, 2.0)
    far = values.norm(dim=-1) > 4
    assert far.any()
    assert torch.equal(found[~far], values[~far])
    torch.testing.assert_close(found[far].norm(dim=-1), torch.full((int(far.sum()),), 2.0))
    length = mean_length(model, tokenizer, 1, "output", quick("memit"))
    with deltas.active(model, made(memit, model, tokenizer, EDITS[:1], quick("memit"), CE)):
        assert mean_length(model, tokenizer, 1, "output", quick("memit")) == length > 0  # the unedited model's
