"""Problems in one batch end as they would alone, whenever the batch is narrowed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engramlab.core.training.loop import Recipe, TrainState
from engramlab.core.training.problems import solve

GOALS = torch.tensor([[0.0, 0.0], [0.1, 0.2], [3.0, -1.0], [0.3, 0.1], [2.0, 2.0]])


class Batch:
    """Each row walks to its goal; near enough is over."""

    def __init__(self, goals: torch.Tensor, share: float, steps: int = 40, poison: int | None = None) -> None:
        self.goals, self.share, self.poison = goals, share, poison
        self.alive = torch.arange(len(goals))
        self.parameter = nn.Parameter(torch.ones_like(goals))
        recipe = Recipe(steps=steps, learning_rate=0.1, weight_decay=0.0, clip=None, schedule="constant", eps=1e-8)
        self.state = TrainState(nn.ParameterList([self.parameter]), recipe, local=True)
        self.sizes: list[int] = []

    def losses(self) -> torch.Tensor:
        self.sizes.append(len(self.alive))
        losses = (self.parameter - self.goals[self.alive]).square().sum(1)
        if self.poison is not None and self.state.step == 3:
            losses = torch.where(self.alive == self.poison, torch.nan, losses)
        return losses

    def leave(self, left: torch.Tensor) -> None:
        self.alive = self.alive[left]

    def run(self) -> tuple[torch.Tensor, dict[int, int], set[int]]:
        found, steps, failed = torch.full_like(self.goals, torch.nan), {}, set()
        over = lambda losses, idle: (losses < 0.05) | idle  # noqa: E731
        for end in solve(self.state, self.losses, over, self.leave, share=self.share):
            assert end.problem not in steps
            assert int(self.alive[end.row]) == end.problem
            found[end.problem], steps[end.problem] = self.parameter.detach()[end.row], self.state.step
            if end.failed:
                failed.add(end.problem)
        return found, steps, failed


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_a_batch_ends_as_its_problems_would_alone(share: float) -> None:
    batch = Batch(GOALS, share)
    found, steps, failed = batch.run()
    assert not failed
    assert len(set(steps.values())) > 2  # they do not end together
    for i in range(len(GOALS)):
        alone, taken, _ = Batch(GOALS[i : i + 1], 0.0).run()
        torch.testing.assert_close(found[i], alone[0], rtol=1e-5, atol=1e-6)
        assert steps[i] == taken[0]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_one_that_is_solved_as_it_stands_takes_no_step(share: float) -> None:
    batch = Batch(GOALS, share)
    found, steps = {}, {}
    for end in solve(batch.state, batch.losses, None, batch.leave, share=share, enough=0.05):
        found[end.problem], steps[end.problem] = batch.parameter.detach()[end.row].clone(), batch.state.step
    for i, goal in enumerate(GOALS):  # by hand: Adam on one row, looked at before each step
        alone, taken = nn.Parameter(torch.ones(2)), 0
        adam = torch.optim.Adam([alone], lr=0.1)
        while (loss := (alone - goal).square().sum()) >= 0.05:
            adam.zero_grad()
            loss.backward()
            adam.step()
            taken += 1
        torch.testing.assert_close(found[i], alone.detach(), rtol=1e-5, atol=1e-6)
        assert steps[i] in (taken, taken + 1)  # others may step on while it is seen to be done
    assert batch.state.step == max(steps.values())
    assert len(batch.sizes) == batch.state.step + 1  # the last look is no step


def test_how_much_must_have_ended_before_the_batch_is_narrowed() -> None:
    sizes = {}
    for share in (0.0, 0.5, 1.0):
        batch = Batch(GOALS, share)
        batch.run()
        sizes[share] = batch.sizes
    assert set(sizes[1.0]) == {5}
    assert sorted(set(sizes[0.0]), reverse=True) == list(dict.fromkeys(sizes[0.0]))
    assert sum(sizes[0.0]) < sum(sizes[0.5]) < sum(sizes[1.0])


def test_one_that_is_not_finite_fails_alone() -> None:
    found, steps, failed = Batch(GOALS, 0.5, poison=2).run()
    assert failed == {2}
    assert steps[2] == 4
    clean, taken, _ = Batch(GOALS, 0.5).run()
    others = [0, 1, 3, 4]
    torch.testing.assert_close(found[others], clean[others], rtol=1e-5, atol=1e-6)
    assert {i: steps[i] for i in others} == {i: taken[i] for i in others}


def test_those_that_are_not_done_at_the_last_step_end_there() -> None:
    _, steps, failed = Batch(GOALS, 0.5, steps=4).run()
    assert set(steps) == set(range(5))
    assert steps[2] == 4
    assert not failed


def test_a_sum_that_is_not_finite_fails_all_that_are_left() -> None:
    batch = Batch(GOALS, 0.5)
    plain = batch.losses
    batch.losses = lambda: plain() + 1e38 * (batch.state.step == 2)  # type: ignore[method-assign]
    _, steps, failed = batch.run()
    left = {i for i, step in steps.items() if step == 2}
    assert failed == left
    assert len(left) >= 4
