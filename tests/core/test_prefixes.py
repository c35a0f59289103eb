"""Groups really begin alike, owners stay apart, and every row is in exactly one batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.support import zoo

from engramlab.core.forward import prefixes
from engramlab.core.forward.generation import generate
from engramlab.core.text.tokens import Sequences


def alike(sequences: Sequences, rows: np.ndarray, shared: int) -> bool:
    return len({tuple(sequences.row(int(i))[:shared].tolist()) for i in rows}) == 1


def families(seed: int, width: int) -> tuple[Sequences, np.ndarray]:
    """Rows of six families, each with a beginning of its own of up to ``width`` tokens; some rows are equal."""
    rng = np.random.default_rng(seed)
    begins = [rng.integers(9, size=rng.integers(1, width)).tolist() for _ in range(6)]
    begins[1] = begins[0] + begins[1]  # one family inside another
    rows = [begins[k % 6] + rng.integers(9, size=rng.integers(1, 5)).tolist() for k in range(90)]
    rows[5], rows[11] = rows[17], rows[17]
    sequences = Sequences.of(rows)
    return sequences, sequences.lengths - rng.integers(0, 2, size=90)


@pytest.mark.parametrize("width", [20, 64, 65, 300])
@pytest.mark.parametrize("owned", [False, True])
def test_groups_begin_alike(width: int, owned: bool) -> None:
    for seed in range(5):
        sequences, first = families(seed, width)
        owner = np.random.default_rng(seed).integers(3, size=90) if owned else None
        found = prefixes.groups(sequences, first, owner)
        assert sorted(np.concatenate([rows for rows, _ in found]).tolist()) == list(range(90))
        for rows, shared in found:
            assert alike(sequences, rows, shared)
            assert (first[rows] - 1 >= shared).all() or not shared
            assert owner is None or not shared or len(set(owner[rows])) == 1
        saved = sum((len(rows) - 1) * shared - prefixes.A_PASS for rows, shared in found if shared)
        assert saved > 0 or width == 20


def test_long_beginnings_are_seen_to_their_end() -> None:
    """Demonstrations of 500 tokens before the dozen prompts of a case; two cases differ in the last token only."""
    demo = np.random.default_rng(0).integers(50, size=500).tolist()
    rows = [[*demo, case, 60 + k, 80 + k] for case in range(2) for k in range(12)]
    sequences = Sequences.of(rows)
    found = prefixes.groups(sequences, sequences.lengths)
    assert sum(shared * (len(rows) - 1) for rows, shared in found) >= 22 * 496
    owner = np.repeat([0, 1], 12)
    assert all(len(set(owner[rows])) == 1 for rows, _ in prefixes.groups(sequences, sequences.lengths, owner))


def test_nested_beginnings_do_not_nest_without_end() -> None:
    rows = [[1] * k for k in range(1, 3000, 1)]
    sequences = Sequences.of(rows)
    found = prefixes.groups(sequences, sequences.lengths)
    assert sorted(np.concatenate([r for r, _ in found]).tolist()) == list(range(len(rows)))


def test_batches_keep_their_limits() -> None:
    sequences, first = families(0, 300)
    for share in (True, False):
        for budget, most in ((1, None), (2000, None), (10**6, 7)):
            found = list(prefixes.batches(sequences, first, budget, share=share, most=most))
            assert sorted(np.concatenate([rows for rows, _ in found]).tolist()) == list(range(90))
            for rows, shared in found:
                assert len(rows) <= (most or 90)
                assert len(rows) == 1 or len(rows) * sequences.lengths[rows].max() <= budget
                assert not shared or (share and len(rows) > 1)
    places = np.arange(90) % 7
    found = [rows for rows, _ in prefixes.batches(sequences, first, 10**6, places=places, room=12)]
    assert sorted(np.concatenate(found).tolist()) == list(range(90))
    assert all(len(rows) == 1 or places[rows].sum() <= 12 for rows in found)
    assert len(found) < 60
    assert list(prefixes.batches(Sequences.of([]), np.array([], dtype=np.int64), 10)) == []


def test_where_a_pass_is_dear_prompts_are_written_in_few_of_them(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: short and long prompts, some of which begin alike, in one batch; on a processor in several."""
    model = zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=512)
    prompts = [("The river of " * 20 if k % 2 else "Edo, ") + f"the capital number {k} is" for k in range(40)]
    passes: list[int] = []
    model.register_forward_pre_hook(lambda *_: passes.append(1))
    found = {}
    for kind in ("cpu", "cuda"):
        cost = prefixes.a_pass(torch.device(kind))
        monkeypatch.setattr(prefixes, "a_pass", lambda device, cost=cost: cost)
        passes.clear()
        found[kind] = generate(model, tokenizer, prompts, max_new_tokens=6), len(passes)
        monkeypatch.undo()
    assert found["cpu"][0] == found["cuda"][0]
    assert found["cuda"][1] < found["cpu"][1]
    assert found["cuda"][1] <= 8  # one for what they share, six tokens
