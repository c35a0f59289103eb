"""Did an edit reach the name, or only the phrase? Probes of the unedited model read the edited one, layer by layer.

Probes of every layer are trained on other, unedited subjects: at the last token of the bare name (Q-probing, arXiv 2309.14316,
section 5), at the end of the edit's prompt, and at the end of a wording that is never edited with. Each reading of an edited
model is the new object, the old one, or neither. Only subjects whose old object was read there before count. All of it but
Q-probing is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from engramlab.base import bootstrap
from engramlab.base.errors import UserError
from engramlab.base.facts import Edit, Fact, Query
from engramlab.base.random_access import draw, permute
from engramlab.base.random_access import key as random_key
from engramlab.base.rows import Row
from engramlab.core import deltas
from engramlab.core.deltas import WeightDelta
from engramlab.core.forward.hooks import mode
from engramlab.core.models import module_paths
from engramlab.core.text import batches
from engramlab.core.training.loop import TrainState
from engramlab.core.training.stage import Stage, finished
from engramlab.corpora.facts.teaching import divide
from engramlab.editing.requests import encode_edits
from engramlab.experiments._run import Planned
from engramlab.experiments.fact_lifecycle import numbers
from engramlab.experiments.fact_lifecycle.network import Network
from engramlab.experiments.fact_lifecycle.work import Lifecycle, edited
from engramlab.measuring.answers import is_answer
from engramlab.measuring.asking import MOST_NEW_TOKENS, Room, write
from engramlab.probing.classifier import Probes
from engramlab.probing.folds import PROBE

#: Where states are read, and whose probes read them.
PLACES = {
    "name": "name",
    "name behind a text": "name",
    "subject in the prompt": "name",
    "end of the prompt": "end of the prompt",
    "end of another wording": "end of another wording",
}
_BEFORE = "Here is a fact. "
_AT_ONCE = 64


@dataclass(frozen=True)
class Read:
    """A subject as its edit and as probes see it."""

    edit: Edit
    held: str
    old: int
    new: int
    other: int

    def texts(self) -> list[Edit]:
        """The texts of the places, each as an edit without a wording of its own."""
        name = self.edit.query.subject
        texts = {
            "name": name,
            "name behind a text": _BEFORE + name,
            "subject in the prompt": self.edit.query.prompt,
            "end of the prompt": self.edit.query.prompt,
            "end of another wording": self.held,
        }
        return [replace(self.edit, query=replace(self.edit.query, prompt=texts[place])) for place in PLACES]


class Reach:
    """The part."""

    def __init__(self, work: Lifecycle) -> None:
        self.work, self.config, self.run = work, work.config, work.run
        self.network = Network(work)
        table, config = self.network.table, self.config
        self.words = divide(table.wordings)
        self.relation = self._relation()
        facts = [fact for fact in table if fact.relation == self.relation]
        order = permute(random_key(config.seed, "read"), range(len(facts)), len(facts)).tolist()
        self.facts = [facts[i] for i in order]
        self.classes = sorted({fact.object for fact in facts})
        left = len(facts) - 2 * config.name_edits
        if left < 2 * len(self.classes) or len(self.classes) < 3:
            raise UserError(
                f"name_edits: {len(facts)} subjects have a {self.relation}, of {len(self.classes)} kinds; without those edited "
                f"and as many beside them {left} are left for the probes; needed are three kinds and two subjects a kind: give "
                "more subjects, fewer edits, or another relation first in --attributes"
            )
        self.reads = [self._read(fact) for fact in self.facts]
        self.edited, self.beside = (
            self.reads[: config.name_edits],
            self.reads[config.name_edits : 2 * config.name_edits],
        )

    def _relation(self) -> str:
        table, named = self.network.table, self.config.attributes
        if named and named[0] in table.relations:
            return named[0]
        if named and self.config.parts == ("name",):  # else they are the model's facts'
            raise UserError(f"attributes: the network knows no {named[0]!r}, but {', '.join(table.relations)}")
        if self.network.trained:
            return "birth_city"
        kinds = {relation: len(objects) for relation, objects in table.choices().items() if len(objects) > 1}
        return min(kinds, key=lambda one: kinds[one]) if kinds else table.relations[0]

    def _read(self, fact: Fact) -> Read:
        """The edit of a fact to another object of its relation, drawn by the seed, and a third one as a control."""
        old, count = self.classes.index(fact.object), len(self.classes)
        stream = random_key(self.config.seed, "target", fact.subject)
        new = (old + 1 + int(draw(stream, 0, count - 1))) % count
        others = [k for k in range(count) if k not in (old, new)]
        prompt = self.words.trained.prompts(self.relation, fact.subject)[0]
        held = self.words.prompts(self.relation, fact.subject, "held-out")[0][1]
        query = Query(prompt, fact.object, id=fact.subject, subject=fact.subject, relation=self.relation)
        return Read(Edit(query, self.classes[new]), held, old, new, others[int(draw(stream, 1, len(others)))])

    def planned(self) -> list[Planned]:
        """The stages, about."""
        return [*self.network.planned(), Planned("probes", self.config.probe_steps, PROBE.recipe.batch)]

    # reading ----------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def states(self, model: nn.Module, reads: Sequence[Read]) -> torch.Tensor:
        """Hidden states ``[places, layers, subjects, D]``, float32, of the model as it is now."""
        tokenizer = self.network.tokenizer
        base = getattr(model, str(model.base_model_prefix))
        found = []
        with mode(model, False):
            for start in range(0, len(reads), _AT_ONCE):
                some = [[text] for read in reads[start : start + _AT_ONCE] for text in read.texts()]
                rows = encode_edits(tokenizer, some, subjects=True, device=next(model.parameters()).device)
                ends = torch.tensor([place.startswith("end") for place in PLACES], device=rows.ids.device)
                at = torch.where(ends.repeat(len(rows.ids) // len(PLACES)), rows.prompt_ends, rows.subject_ends)
                out = base(input_ids=rows.ids, use_cache=False, output_hidden_states=True).hidden_states[1:]
                each = torch.stack([layer[torch.arange(len(at)), at].float() for layer in out])
                found.append(each.view(len(out), -1, len(PLACES), each.shape[-1]).permute(2, 0, 1, 3).cpu())
        return torch.cat(found, 2)

    @cached_property
    def trained_places(self) -> list[str]:
        """The places with probes of their own."""
        return [place for place, by in PLACES.items() if place == by]

    def results(self) -> dict[str, Any]:
        """Everything of the part: ``name`` (a row a method, place and layer; ``readable``: is its probe surely better than the
        commonest object?), ``name_edits`` (``same_below``: None where nothing lies below what was changed) and ``probes``."""
        folder = self.run.folder / "name" / "probes"
        if (record := finished(folder)) is None:
            record = self._trained(folder)
        return {
            **{name: record[name] for name in ("name", "name_edits", "probes")},
            "relation": self.relation,
            "kinds": len(self.classes),
        }

    def _trained(self, folder: Any) -> Row:
        config, reads = self.config, self.reads[2 * self.config.name_edits :]
        states = self.states(self.network.model, reads)
        places = [list(PLACES).index(place) for place in self.trained_places]
        hidden = states[places].flatten(0, 1)  # [tasks, subjects, D]
        labels = torch.tensor([read.old for read in reads]).expand(len(hidden), -1)
        seeds = [random_key(config.seed, "probe", k) >> 1 for k in range(len(hidden))]
        probes = Probes([len(self.classes)] * len(hidden), hidden.shape[-1], "layer", seeds)
        recipe = replace(PROBE.recipe, steps=config.probe_steps, batch=min(PROBE.recipe.batch, len(reads)))
        order = batches.Order(len(reads), random_key(config.seed, "probes"))

        def losses() -> torch.Tensor:
            some = torch.from_numpy(order.next(recipe.batch))
            device = probes.weight.device
            return probes.losses(hidden[:, some].to(device), labels[:, some].to(device))

        state = TrainState(probes, recipe, accelerator=self.run.accelerator, problems=True)
        with Stage(
            folder,
            state,
            order,
            label="probes",
            objective=losses,
            minutes=config.checkpoint_minutes,
            console=self.run.console,
        ) as stage:
            for _ in stage:
                pass
            probes.cpu()
            stage.record |= self._judged(probes)
        return stage.record

    @torch.no_grad()
    def read_by(self, probes: Probes, states: torch.Tensor) -> np.ndarray:
        """The class read at each place: int64 ``[places, layers, subjects]``."""
        layers = states.shape[1]
        own = [self.trained_places.index(PLACES[place]) for place in PLACES]
        tasks = [k * layers + layer for k in range(len(self.trained_places)) for layer in range(layers)]
        found = []
        for number, by in enumerate(own):
            every = torch.zeros(len(tasks), *states.shape[2:])
            every[by * layers : (by + 1) * layers] = states[number]
            found.append(probes.logits(every).argmax(-1)[by * layers : (by + 1) * layers])
        return torch.stack(found).numpy()

    def _judged(self, probes: Probes) -> Row:
        config, model = self.config, self.network.model
        pairs = list(zip(self.edited, self.beside, strict=True))
        before = [self.states(model, pair) for pair in pairs]
        was = np.stack([self.read_by(probes, one) for one in before], axis=-2)  # [places, layers, edits, 2]
        names = [read.edit.query.subject for read in self.edited]
        rows, whole = [], []
        for name in config.methods:
            edits, console = [[read.edit] for read in self.edited], self.network.run.console
            made = edited(model, self.network.tokenizer, edits, name, f"edits by {name}", console)
            good = [i for i, delta in enumerate(made) if isinstance(delta, WeightDelta)]
            now, said = np.full_like(was, -1), []
            same: bool | None = None  # there may be nothing below what is changed
            for i in good:
                delta = made[i]
                assert isinstance(delta, WeightDelta)
                with deltas.active(model, delta):
                    states = self.states(model, pairs[i])
                    said.append(self._written(self.edited[i]))
                now[:, :, i] = self.read_by(probes, states)
                if lowest := min(_layers(model, delta)):
                    same = same is not False and torch.equal(states[:, :lowest], before[i][:, :lowest])
            whole.append(
                {
                    "method": name,
                    "edits": len(good),
                    "failed": len(made) - len(good),
                    "written": float(np.mean([a for a, _ in said])) if said else None,
                    "written_held": float(np.mean([b for _, b in said])) if said else None,
                    "same_below": same,
                }
            )
            rows += readings(name, was, now, self.edited, self.beside, good, names, config.seed)
        probes_read = self._accuracy(was)
        readable = {(one["place"], one["layer"]): one["accuracy_low"] > one["majority"] for one in probes_read}
        rows = [{**row, "readable": readable[row["place"], row["layer"]]} for row in rows]
        return {"name": rows, "name_edits": whole, "probes": probes_read}

    def _accuracy(self, was: np.ndarray) -> list[Row]:
        """How often probes read the object of subjects that they were not trained on, by place and layer, with an interval over
        subjects; ``majority`` is the share of the commonest object among those they were trained on."""
        own = np.array([[e.old, b.old] for e, b in zip(self.edited, self.beside, strict=True)])
        common = max(np.bincount([read.old for read in self.reads[2 * self.config.name_edits :]]))
        most = common / (len(self.reads) - 2 * self.config.name_edits)
        return [
            {"place": place, "layer": layer, "majority": float(most)}
            | bootstrap.mean("accuracy", (was[p, layer] == own).ravel().astype(np.float64), self.config.seed)
            for p, place in enumerate(PLACES)
            for layer in range(was.shape[1])
        ]

    def _written(self, read: Read) -> tuple[bool, bool]:
        prompts = [read.edit.query.prompt, read.held]
        texts = write(self.network.model, self.network.tokenizer, prompts, Room(MOST_NEW_TOKENS))
        first, second = (is_answer(text, (read.edit.target,)) for text in texts)
        return first, second


def readings(
    name: str,
    was: np.ndarray,
    now: np.ndarray,
    edited: Sequence[Read],
    beside: Sequence[Read],
    good: Sequence[int],
    names: Sequence[str],
    seed: int,
) -> list[Row]:
    """A row a place and layer: of the edited subjects whose old object was read there before, the shares of readings that are
    the new object, the old one, or neither; ``random``, those that are a third object drawn beforehand; and, of the unedited
    subjects, ``beside``, the share still read as what they are.

    Args:
        was, now: classes read before and under each edit, ``[places, layers, edits, 2]``: the edited subject and another one.
        good: edits that were made.
    """
    rows = []
    for p, place in enumerate(PLACES):
        for layer in range(was.shape[1]):
            some = [i for i in good if was[p, layer, i, 0] == edited[i].old]
            row: Row = {"method": name, "place": place, "layer": layer, "subjects": len(some)}
            flags = {
                what: np.array([now[p, layer, i, 0] == getattr(edited[i], at) for i in some], dtype=np.float64)
                for what, at in (("new", "new"), ("old", "old"), ("random", "other"))
            }
            drawn = numbers.draws_of([names[i] for i in some], seed) if some else []
            for what, right in flags.items():
                row[what] = float(right.mean()) if some else None
                ends = numbers.spread([right[facts].mean() for facts in drawn])
                row |= {f"{what}_{end}": value for end, value in ends.items()}
            row["neither"] = None if not some else 1 - row["new"] - row["old"]
            still = [i for i in good if was[p, layer, i, 1] == beside[i].old]
            row["beside"] = float(np.mean([now[p, layer, i, 1] == beside[i].old for i in still])) if still else None
            rows.append(row)
    return rows


def _layers(model: nn.Module, delta: WeightDelta) -> list[int]:
    prefix = f"{module_paths(model).layers}."
    return [int(path.removeprefix(prefix).split(".")[0]) for path in delta.changes]
