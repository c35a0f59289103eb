"""Each arm taught and asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from engramlab.base import bootstrap
from engramlab.base.errors import UserError
from engramlab.base.progress import ProgressBar
from engramlab.base.random_access import draw, key
from engramlab.core import deltas, models
from engramlab.core.forward.generation import generate
from engramlab.core.forward.hooks import mode
from engramlab.core.text.batches import Order
from engramlab.core.training import unrolled
from engramlab.core.training.loop import Objective, Recipe, TrainState
from engramlab.core.training.stage import Stage, finished
from engramlab.corpora.episodes import Episode
from engramlab.experiments._run import Run
from engramlab.experiments.knowledge_folding.config import ARMS, Arm, Config
from engramlab.experiments.knowledge_folding.text import Writer, given, of_others, prompt, said
from engramlab.files import records

SAMPLES = 1000
PLAIN = (0.1, 1.0, 10.0)
"""Of the first rate: what plain steps, without an outer loop, are tried with on episodes of the training part."""
TRIED = 64
"""Episodes that they are tried on."""


class Learner(nn.Module):
    """A model and the rates of its steps: what the outer loop trains."""

    def __init__(self, model: nn.Module, config: Config) -> None:
        super().__init__()
        self.model = model
        self.rates = unrolled.Rates(
            unrolled.matrices(model),
            config.inner_steps,
            config.inner_rate,
            pace=config.rates_pace,
            each=config.rates,
        )

    def parameters_of(self, arm: Arm) -> list[nn.Parameter]:
        """What is trained under an arm."""
        return [*self.model.parameters(), *(self.rates.parameters() if arm.folds and arm.learnt else [])]


def outer_losses(
    learner: Learner, writer: Writer, arm: Arm, episodes: Sequence[Episode], facts: Sequence[Sequence[str]]
) -> torch.Tensor:
    """``[episodes]``: the loss of what is to be said, where facts are folded under the weights that they lead to."""
    device = next(learner.parameters()).device
    asked = writer.questions(arm, episodes, facts).to(device)
    if arm.folds:
        read, owner = writer.facts(episodes, facts)
        weights = unrolled.folded(
            learner.model,
            learner.rates,
            read.to(device),
            owner.to(device),
            rule=writer.config.inner,
            first_order=arm.first_order,
        )
        return unrolled.losses_under(learner.model, weights, asked, torch.arange(len(episodes), device=device))
    start = unrolled.beginning(learner.model, list(learner.rates.of), 1)
    owner = torch.zeros(len(episodes), dtype=torch.int64, device=device)
    return unrolled.losses_under(learner.model, start, asked, owner).expand(len(episodes))


def objective(learner: Learner, writer: Writer, arm: Arm, episodes: Sequence[Episode], order: Order) -> Objective:
    """The mean outer loss of the next batch; parts of it, but the last, leave their gradients at once and free their memory."""
    config = writer.config

    def loss() -> torch.Tensor:
        at = key(config.seed, "distractors", order.epoch, order.position)
        numbers = order.next(config.batch)
        counts = [config.distractors[i] for i in draw(at, np.arange(len(numbers)), len(config.distractors))]
        chosen = [episodes[n] for n in numbers]
        facts = [given(e, n, config.seed) for e, n in zip(chosen, counts, strict=True)]
        before = torch.zeros(())
        with mode(learner.model, False):
            for start in range(0, len(chosen), config.at_once):
                part = slice(start, start + config.at_once)
                value = outer_losses(learner, writer, arm, chosen[part], facts[part]).sum() / len(chosen)
                if start + config.at_once < len(chosen):
                    value.backward()
                    before = before.to(value.device) + value.detach()
        return value + before.to(value.device)

    return loss


def answers(
    learner: Learner,
    writer: Writer,
    arm: Arm,
    episodes: Sequence[Episode],
    facts: Sequence[Sequence[str]],
    *,
    fold: bool,
    new_tokens: int,
) -> list[str]:
    """What is written behind each question: where ``fold``, under deltas of the episode's facts, many together."""
    model, config = learner.model, writer.config
    device = next(model.parameters()).device
    found: list[str] = []
    with mode(model, False):
        for start in range(0, len(episodes), config.at_once):
            part, read = episodes[start : start + config.at_once], facts[start : start + config.at_once]
            prompts = [prompt(arm, episode, listed) for episode, listed in zip(part, read, strict=True)]
            how: dict[str, Any] = {"max_new_tokens": new_tokens, "batch": config.at_once}
            if fold:
                batch, owner = writer.facts(part, read)
                made = unrolled.fold(model, learner.rates, batch.to(device), owner.to(device), rule=config.inner)
                with deltas.together(model, made):
                    found += generate(model, writer.tokenizer, prompts, owner=np.arange(len(part)), **how)
            else:
                found += generate(model, writer.tokenizer, prompts, **how)
    return found


class School:
    """What all arms of a run share.

    Args:
        make: a model as it is before any arm.
        new_tokens: most tokens of an answer.
    """

    def __init__(
        self,
        run: Run,
        make: Callable[[], nn.Module],
        writer: Writer,
        train: Sequence[Episode],
        test: Sequence[Episode],
        new_tokens: int,
    ) -> None:
        self.run, self.make, self.writer, self.train, self.test = run, make, writer, train, test
        self.new_tokens = new_tokens

    @property
    def recipe(self) -> Recipe:
        """Of the outer loop."""
        config: Config = self.run.config
        return Recipe(
            steps=config.steps,
            batch=config.batch,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            eps=1e-8,
            warmup=max(1, round(0.03 * config.steps)),
            clip=config.clip,
            final=0.0,
        )

    def results(self, name: str) -> dict[str, Any]:
        """An arm's record, made or read."""
        run, arm, config = self.run, ARMS[name], self.run.config
        folder = run.folder / name
        if (record := finished(folder)) is not None:
            return record
        learner = Learner(self.make(), config)
        order = Order(len(self.train), key(config.seed, "order"))
        state = TrainState(learner, self.recipe, parameters=learner.parameters_of(arm), accelerator=run.accelerator)
        with Stage(
            folder,
            state,
            order,
            label=name,
            objective=objective(learner, self.writer, arm, self.train, order),
            minutes=config.checkpoint_minutes,
            seed=key(config.seed, name) >> 1,
            console=run.console,
        ) as stage:
            for _ in stage:
                pass
            rows, written = self.asked(learner, name)
            records.write_rows(folder / "answers.parquet", written)
            self._save(learner, folder)
            stage.record |= {
                "rows": rows,
                "rates": learner.rates.table().tolist() if arm.folds else [],
                "groups": learner.rates.groups,
            }
        return stage.record

    def _save(self, learner: Learner, folder: Path) -> None:
        """The model, and the rates of its steps, for whoever wants to fold facts of their own."""
        config: Config = self.run.config

        def write(path: Path) -> None:
            models.save(learner.model, self.writer.tokenizer, path)
            about = {"rates": learner.rates.table().tolist(), "each": config.rates, "inner": config.inner}
            records.write_record(path / "rates.json", about)

        records.write_sealed(folder / "model", write)

    def asked(self, learner: Learner, name: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Rows, one a way of asking, number of distractors and of hops (0 for all); and what was written, one a question."""
        arm, config = ARMS[name], self.run.config
        ways: dict[str, bool] = {"none": False}
        if arm.folds or arm.reads:
            ways = {"facts": arm.folds, "random": arm.folds, "none": False}
        elif name == "no-facts" and config.inner_rate > 0:
            learner.rates.first = self._plain(learner, arm)
            ways["plain steps"] = True
        rows: list[dict[str, Any]] = []
        written: list[dict[str, Any]] = []
        with ProgressBar(f"{name}, asked", len(ways) * len(config.distractors), console=self.run.console) as bar:
            for done, (way, fold) in enumerate(ways.items()):
                for k, count in enumerate(config.distractors if way != "none" else config.distractors[:1]):
                    facts = [given(episode, count, config.seed) for episode in self.test]
                    shown = of_others(facts) if way == "random" else [()] * len(facts) if way == "none" else facts
                    texts = answers(learner, self.writer, arm, self.test, shown, fold=fold, new_tokens=self.new_tokens)
                    about = {"arm": name, "asked": way, "distractors": count}
                    judged = [self._judged(arm, e, text) for e, text in zip(self.test, texts, strict=True)]
                    rows += [{**about, **row} for row in _rows(judged, config.seed)]
                    written += [{**about, **one} for one in judged]
                    bar.update(done * len(config.distractors) + k + 1)
        return rows, written

    def _plain(self, learner: Learner, arm: Arm) -> float:
        """The rate at which plain steps do best, on episodes of the training part."""
        config, some = self.run.config, self.train[:TRIED]
        facts = [given(episode, config.distractors[0], config.seed) for episode in some]
        best, most = config.inner_rate, -1
        for factor in PLAIN:
            learner.rates.first = config.inner_rate * factor
            try:
                texts = answers(learner, self.writer, arm, some, facts, fold=True, new_tokens=self.new_tokens)
            except UserError:  # the rate is too high
                continue
            right = sum(self._judged(arm, e, text)["right"] for e, text in zip(some, texts, strict=True))
            if right > most:
                best, most = learner.rates.first, right
        return best

    def _judged(self, arm: Arm, episode: Episode, text: str) -> dict[str, Any]:
        recited = all(fact in text for fact in episode.facts) if arm.reasons else False
        answer = said(arm, text)
        return {
            "id": episode.id,
            "hops": episode.hops,
            "written": text,
            "right": answer == episode.answer.casefold(),
            "labelled": answer in [label.casefold() for label in episode.labels],
            "recited": recited,
        }


def _rows(judged: Sequence[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    found = []
    for hops in (0, *sorted({one["hops"] for one in judged} - {0})):
        some = [one for one in judged if not hops or one["hops"] == hops]
        right = np.array([one["right"] for one in some], dtype=float)
        weights = bootstrap.times(bootstrap.draws(len(right), SAMPLES, seed)) / len(right)
        low, high = bootstrap.interval(weights @ right)
        shares = {name: float(np.mean([one[name] for one in some])) for name in ("labelled", "recited")}
        found.append({
            "hops": hops, "questions": len(some), "accuracy": float(right.mean()), "low": low, "high": high, **shares
        })  # fmt: skip
    return found
