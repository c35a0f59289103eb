"""LoRA on any projections, in windows and minibatches, and virtual tokens (arXiv 2406.04496, 2103.10385)."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from tests.support import zoo
from tests.support.small import EDITS, made, quick
from torch import nn
from transformers.pytorch_utils import Conv1D

from engramlab.base.errors import UserError
from engramlab.base.facts import Query
from engramlab.core import deltas
from engramlab.core.models import module_paths
from engramlab.core.models.geometry import matrix_shape
from engramlab.core.models.paths import projection
from engramlab.core.text.tokens import encode_queries
from engramlab.core.training import losses
from engramlab.editing import method
from engramlab.editing.methods import lora, p_tuning
from engramlab.editing.requests import encode_edits
from engramlab.editing.solve.descent import Minibatches
from engramlab.measuring.scoring import score

CE = losses.get("cross-entropy")
EVERY: Any = ("query", "key", "value", "output", "gate", "up", "mlp_down")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return zoo.ZOO["llama3"](zoo.SENTENCES)


def small(family: str, tokenizer: Any) -> Any:
    return zoo.model(family, vocabulary=len(tokenizer), num_hidden_layers=3).eval()


def matrices(delta: Any) -> dict[str, torch.Tensor]:
    return {path: change.matrix() for path, change in delta.changes.items()}


def test_a_window_of_all_layers_is_all_layers_bit_for_bit(tokenizer: Any) -> None:
    model = small("llama", tokenizer)
    whole = matrices(made(lora, model, tokenizer, EDITS[:2], lora.Config(steps=3), CE))
    full = matrices(made(lora, model, tokenizer, EDITS[:2], lora.Config(steps=3, window=(0, 2)), CE))
    assert all(torch.equal(whole[path], full[path]) for path in whole)
    middle = matrices(made(lora, model, tokenizer, EDITS[:2], lora.Config(steps=3, window=(1, 1)), CE))
    assert {path.split(".")[2] for path in middle} == {"1"}


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "opt", "phi3", "falcon", "gemma3_text", "mixtral"])
def test_parameters_are_the_sum_of_rank_times_in_and_out(family: str, tokenizer: Any) -> None:
    model = small(family, tokenizer)
    config = lora.Config(projections=("all",), rank=3, steps=1)
    found = matrices(made(lora, model, tokenizer, EDITS[:1], config, CE))
    inside = [
        name
        for name, module in model.named_modules()
        if name.startswith(f"{module_paths(model).layers}.") and isinstance(module, torch.nn.Linear | Conv1D)
    ]
    assert set(found) == set(inside)
    assert lora.parameters(model, config) == sum(3 * (sum(matrix.shape)) for matrix in found.values())
    updates = lora._updates(model, [0, 1, 2], config, 1, torch.device("cpu"))
    assert lora.parameters(model, config) == sum(p.numel() for u in updates.values() for p in u.parameters())


def test_each_projection_is_the_one_of_that_name(tokenizer: Any) -> None:
    model = small("llama", tokenizer)
    names = [projection(model, name) for name in EVERY]
    attention = [f"self_attn.{one}_proj" for one in "qkvo"]
    assert names == [*attention, "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
    every = matrices(made(lora, model, tokenizer, EDITS[:1], lora.Config(projections=EVERY, steps=2), CE))
    both = matrices(made(lora, model, tokenizer, EDITS[:1], lora.Config(projections=("all",), steps=2), CE))
    assert set(every) == set(both)
    gpt2 = small("gpt2", tokenizer)
    assert [projection(gpt2, name) for name in ("key", "output", "up")] == ["attn.c_attn", "attn.c_proj", "mlp.c_fc"]
    assert matrix_shape(gpt2, "transformer.h.0.mlp.c_fc")[1] == 32
    with pytest.raises(UserError, match="architecture 'gpt2' has no gate projection"):
        made(lora, gpt2, tokenizer, EDITS[:1], lora.Config(projections=("gate",)), CE)


def test_keys_of_a_fused_projection_move_only_when_asked_for(tokenizer: Any) -> None:
    model = small("gpt2", tokenizer)
    path = "transformer.h.0.attn.c_attn"
    still = matrices(made(lora, model, tokenizer, EDITS[:1], lora.Config(steps=3), CE))[path]
    moved = matrices(made(lora, model, tokenizer, EDITS[:1], lora.Config(steps=3, projections=("key", "query")), CE))[
        path
    ]
    assert not still[32:64].any()
    assert moved[32:64].any()


def test_a_minibatch_of_everything_is_no_minibatch_and_an_epoch_meets_every_row(tokenizer: Any) -> None:
    model = small("llama", tokenizer)
    whole = matrices(made(lora, model, tokenizer, EDITS, lora.Config(steps=3), CE))
    same = matrices(made(lora, model, tokenizer, EDITS, lora.Config(steps=3, batch=4), CE))
    assert all(torch.equal(whole[path], same[path]) for path in whole)
    requests = encode_edits(tokenizer, [list(EDITS), list(EDITS[:1]), list(EDITS[:3])])
    batches = Minibatches(2, seed=1)
    seen: list[int] = []
    for step in range(2):
        rows = batches.rows(requests, step)
        assert rows is not None
        part = requests.only(rows)
        owners = part.owner.tolist()
        assert owners.count(1) == 1
        assert max(owners.count(0), owners.count(2)) <= 2
        assert len(part.targets) == int(part.keep.sum())
        assert torch.equal(part.target_rows.unique(), torch.arange(len(rows)))
        seen += [int(row) for row in rows]
    assert {row for row in seen if row != 4} == {*range(8)} - {4}
    assert seen.count(0) == 1
    alone = batches.rows(encode_edits(tokenizer, [list(EDITS)]), 1)
    together = batches.rows(requests, 1)
    assert alone is not None
    assert together is not None
    assert alone.tolist() == [row for row in together.tolist() if row < 4]


def test_minibatches_learn_all_edits_and_end_when_all_are_learnt(tokenizer: Any) -> None:
    model = small("llama", tokenizer)
    config = lora.Config(batch=2, steps=200, stop_below=0.95)  # what this network says at best is 0.8
    steps: list[int] = []
    case = [list(EDITS)]
    (delta,) = lora.edit_each(model, tokenizer, case, config, CE, lambda step, *_: steps.append(step))
    with deltas.active(model, delta):  # type: ignore[arg-type]
        rows = encode_queries(tokenizer, [Query(e.query.prompt, e.target) for e in EDITS]).sequences
        assert float(score(model, rows).logprobs.mean()) > -1.1
    assert len(steps) < 200


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"window": (1, 0)}, "window must be first and last"),
        ({"window": (0, 1), "layers": (1,)}, "window must be left out where layers are named"),
        ({"batch": 0}, "batch must be at least 1, or none"),
        ({"projections": ()}, "projections must be one at least"),
    ],
)
def test_what_lora_cannot_be(more: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        lora.Config(**more)


def test_a_window_past_the_end(tokenizer: Any) -> None:
    with pytest.raises(UserError, match="window: it ends at layer 3, and this model has layers 0 to 2"):
        made(lora, small("llama", tokenizer), tokenizer, EDITS[:1], lora.Config(window=(1, 3)), CE)


# virtual tokens ------------------------------------------------------------------------------------------------------


def prefix(model: nn.Module, tokenizer: Any, edits: Any = EDITS[:1], **more: Any) -> Any:
    return made(p_tuning, model, tokenizer, edits, p_tuning.Config(**{"tokens": 4, "steps": 5, **more}), CE)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "bloom"])
def test_a_prefix_is_what_the_model_makes_of_those_embeddings(family: str, tokenizer: Any) -> None:
    model = small(family, tokenizer)
    plain = tokenizer(EDITS[0].query.prompt, return_tensors="pt")["input_ids"]
    before = model(input_ids=plain).logits
    delta = prefix(model, tokenizer)
    text = delta.context(EDITS[0].query.prompt)
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    table = model.get_input_embeddings()
    vectors = table(ids).detach().clone()
    first = int((ids[0] == delta.token).nonzero()[0])
    assert (ids[0, first : first + 4] == delta.token).all()
    assert ids[0, first + 4] != delta.token
    vectors[0, first : first + 4] += delta.vectors

    class Given(nn.Module):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return vectors

    model.set_input_embeddings(Given())
    naive = model(input_ids=ids).logits
    model.set_input_embeddings(table)
    with deltas.active(model, delta):
        torch.testing.assert_close(model(input_ids=ids).logits, naive, rtol=1e-4, atol=1e-4)
    assert torch.equal(model(input_ids=plain).logits, before)  # off: bit for bit


def test_scores_under_a_prefix_are_those_of_whole_passes(tokenizer: Any) -> None:
    model = small("llama", tokenizer)
    delta = prefix(model, tokenizer)
    asked = [Query(delta.context(edit.query.prompt), edit.target) for edit in EDITS]
    encoded = encode_queries(tokenizer, asked)
    with deltas.active(model, delta):
        found = score(model, encoded.sequences, ends=encoded.prompt_ends)
        for i in range(len(asked)):
            ids = torch.tensor(encoded.sequences.row(i).tolist())
            logprobs = model(input_ids=ids[None]).logits[0].log_softmax(-1)
            marked = encoded.sequences.marks[encoded.sequences.offsets[i] : encoded.sequences.offsets[i + 1]] > 0
            naive = [float(logprobs[k - 1, ids[k]]) for k in range(len(ids)) if marked[k]]
            mine = found.logprobs[found.offsets[i] : found.offsets[i + 1]]
            torch.testing.assert_close(torch.tensor(mine), torch.tensor(naive), rtol=1e-3, atol=1e-3, check_dtype=False)


def test_a_later_prefix_goes_on_from_the_earlier_one(tokenizer: Any) -> None:
    model = small("llama", tokenizer)
    first = prefix(model, tokenizer)
    with deltas.active(model, first):
        none = p_tuning.Config(tokens=4, steps=1, learning_rate=1e-12)
        again = made(p_tuning, model, tokenizer, EDITS[1:2], none, CE)
        torch.testing.assert_close(again.vectors, first.vectors, rtol=0, atol=1e-5)
        assert again.continues is first
        with pytest.raises(UserError, match="tokens must be 4, as in the prefix on the model, not 6"):
            prefix(model, tokenizer, tokens=6)


def test_runs_are_found_where_they_stand_and_nowhere_else() -> None:
    ids = torch.tensor([[7, 7, 7, 1, 7, 7, 7], [7, 7, 1, 7, 7, 7, 7], [1, 7, 1, 7, 1, 7, 7]])
    row, places = p_tuning.runs(ids, 7, 3)
    assert row[:, 0].tolist() == [0, 0, 1]
    assert places.tolist() == [[0, 1, 2], [4, 5, 6], [3, 4, 5]]
    assert len(p_tuning.runs(ids[:, :2], 7, 3)[0]) == 0


@pytest.mark.parametrize("name", sorted(zoo.ZOO))
def test_every_tokenizer_has_a_stand_in(name: str) -> None:
    tokenizer = zoo.ZOO[name](zoo.SENTENCES)
    text, token = p_tuning.stand_in(tokenizer, 5)
    for prompt in ("The capital of France is", "She was born", "2023 was"):
        ids = tokenizer(f"{text}\n{prompt}", add_special_tokens=False)["input_ids"]
        assert ids[:5] == [token] * 5
        assert ids[5] != token


def test_a_prefix_is_quick_to_make_for_the_contract() -> None:
    assert dataclasses.is_dataclass(quick("p-tuning"))
    assert method.load("p-tuning").WATCHED
    with pytest.raises(UserError, match="tokens must be at least 2, not 1"):
        p_tuning.Config(tokens=1)
