"""One model asked for every relation, and two models side by side."""

from __future__ import annotations

import csv
import gc
import io
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from engramlab.base.errors import UserError
from engramlab.base.facts import Fact
from engramlab.base.progress import ProgressBar
from engramlab.base.rows import Row
from engramlab.core.forward import decoding
from engramlab.core.models import mask_token
from engramlab.corpora.facts import FactTable
from engramlab.editing.folders.opening import check_there, load_model
from engramlab.experiments._run import Run
from engramlab.experiments.fact_audit.config import Config
from engramlab.files import records, writing
from engramlab.measuring import audit
from engramlab.measuring.audit import CLASSES, Asker, Evidence, classes
from engramlab.probing import folds


class Audited:
    """A model that is asked for a table's facts.

    Args:
        part: its folder in the run; "" for the run's own.
        name: of the model, which is loaded when something is left to ask.
    """

    def __init__(
        self, run: Run, part: str, name: str, table: FactTable, relations: Mapping[str, Sequence[Fact]]
    ) -> None:
        self.run, self.part, self.name, self.table, self.relations = run, part, name, table, relations
        self.config: Config = run.config
        self.folder = run.folder / part if part else run.folder
        self.missing = [relation for relation in relations if not self._done(relation).exists()]
        if self.missing:  # before anything is written
            check_there(name)

    def _done(self, relation: str) -> Path:
        return self.folder / "relations" / writing.name_of(relation) / "done.json"

    @cached_property
    def asker(self) -> Asker:
        """The loaded model. Raises UserError for one that cannot be asked."""
        model, tokenizer = load_model(self.name, dtype=self.config.dtype)
        if mask_token(model) is not None:
            self.run.say(
                f"{self.name}: a masked language model, which writes no answers: its facts are ranked and probed only"
            )
        how = None if self.config.decoding == "greedy" else decoding.load(self.config.decoding)
        return Asker(model, tokenizer, self.table, self.config.asking(), decoding=how)

    def results(self) -> dict[str, Any]:
        """Asks for what is not done yet: relations' rows, facts' rows and seconds."""
        if self.missing:
            self._say_cost(self.missing)
        rows, facts, seconds = [], [], 0.0
        for relation in self.relations:
            if relation in self.missing:
                self._ask(relation)
            record = records.read_record(self._done(relation), ("about", "facts", "seconds"))
            rows.append({"dataset": relation, "part": self.part, "model": self.name, **record["about"]})
            facts += record["facts"]
            seconds += record["seconds"]
        self.missing = []
        return {"rows": rows, "facts": facts, "seconds": seconds}

    def release(self) -> None:
        """Lets go of the model: two are never held at once."""
        if "asker" in self.__dict__:
            del self.asker
            gc.collect()

    def _say_cost(self, relations: Sequence[str]) -> None:
        tokens = sum(self.asker.tokens(relation, self.relations[relation]) for relation in relations)
        count = sum(len(self.relations[relation]) for relation in relations)
        self.run.say(
            f"{self.name}: {count:,} facts in {len(relations)} relations, about {tokens:,} tokens, "
            f"about {max(1, round(tokens / self._speed() / 60))} min here"
        )

    def _speed(self) -> float:
        """Tokens a second that the model reads, by reading some."""
        import torch

        model = self.asker.model
        ids = torch.ones((4, 64), dtype=torch.int64, device=next(model.parameters()).device)
        with torch.inference_mode():
            model(input_ids=ids)
            began = time.monotonic()
            model(input_ids=ids)
        return float(ids.numel() / max(time.monotonic() - began, 1e-6))

    def _ask(self, relation: str) -> None:
        began = time.monotonic()
        ways: list[str] = []
        facts_of = self.relations[relation]
        total = 3 + bool(self.config.draws) + self.config.read + self.config.decoded + 2 * (self.asker.chat is not None)
        with ProgressBar(stage(relation, self.part), 100 * total, console=self.run.console) as bar:

            def said(what: str, done: int, of: int) -> None:
                if what not in ways:
                    ways.append(what)
                bar.update(100 * (len(ways) - 1) + 100 * done // max(of, 1), what)

            self.asker.said = said
            evidence = self.asker.evidence(relation, facts_of)
        if self.config.probe:
            evidence = self._probed(relation, facts_of, evidence)
        facts, about = audit.of_relation(evidence, self.config.seed)
        record = {"about": about, "facts": facts, "seconds": round(time.monotonic() - began, 2)}

        def write(path: Path) -> None:
            records.write_rows(path / "answers.parquet", answers(evidence))
            records.write_rows(path / "facts.parquet", facts)
            records.write_record(path / "done.json", record)

        writing.write_folder(self._done(relation).parent, write)

    def _probed(self, relation: str, facts: Sequence[Fact], evidence: Evidence) -> Evidence:
        """The evidence with what a probe reads, where the relation can be probed."""
        if not folds.can_be_probed(evidence.truth):
            return evidence
        try:
            found = folds.folded(
                self.folder / "probes" / writing.name_of(relation),
                self.asker.model,
                self.asker.tokenizer,
                [fact.subject for fact in facts],
                evidence.truth,
                accelerator=self.run.accelerator,
                label=f"{stage(relation, self.part)} probed",
                seed=self.config.seed,
                console=self.run.console,
            )
        except UserError as error:  # a name that the tokenizer cannot write
            self.run.say(f"{relation}: not probed: {error}")
            return evidence
        about = {name: getattr(found, name) for name in ("accuracy", "low", "high", "majority", "shuffled", "passes")}
        right = found.predicted == evidence.truth
        return replace(evidence, probed=right if found.passes else None, probe=about)


def stage(relation: str, part: str) -> str:
    """The label of a relation's progress bar."""
    return f"{relation} ({part})" if part else relation


def answers(evidence: Evidence) -> list[Row]:
    """A row a fact and wording: what was written, and how the object fared among the options."""
    ranks = classes.below(classes.corrected(evidence.scores))
    found = []
    for i, (fact, truth) in enumerate(zip(evidence.facts, evidence.truth.tolist(), strict=True)):
        for w, kind in enumerate(evidence.kinds):
            scores = evidence.scores[i, w]
            found.append(
                {
                    "subject": fact.subject,
                    "relation": fact.relation,
                    "object": fact.object,
                    "kind": kind,
                    "prompt": evidence.prompts[i][w],
                    "written": evidence.texts[i][w] if evidence.texts[i] else None,
                    "right": bool(evidence.written[i, w]) if evidence.texts[i] else None,
                    "logprob": float(scores[truth]),
                    "likeliest": evidence.options[int(np.nanargmax(scores))],
                    "rank": float(ranks[i, w, truth]),
                }
            )
    return found


COLUMNS = (
    "class",
    "written",
    "rank",
    "first",
    "read",
    "probed",
    "decoded",
    "guessable",
    "contradicted",
    "unaskable",
    "said",
    "popularity",
)


def facts_csv(path: Path, facts: Mapping[str, Sequence[Row]], told: Iterable[Fact] = ()) -> None:
    """The facts as a table with their classes, which `FactTable.read` takes; of two models side by side.

    Args:
        told: the facts as they were given, for their aliases.
    """
    names = {
        (fact.subject, fact.relation): tuple(
            "|".join(name for name in several if "|" not in name) for several in (fact.subject_aliases, fact.aliases)
        )
        for fact in told
        if fact.subject_aliases or fact.aliases
    }
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    of = {part: f"{part}_" if part else "" for part in facts}
    named = [[name for name in COLUMNS if any(name in row for row in rows)] for rows in facts.values()]
    lines.writerow(
        ["subject", "relation", "object"]
        + ["subject_aliases", "object_aliases"] * bool(names)
        + [of[p] + name for p, n in zip(facts, named, strict=True) for name in n]
    )
    for together in zip(*facts.values(), strict=True):
        cells = [
            "" if (v := row.get(name)) is None else v for row, n in zip(together, named, strict=True) for name in n
        ]
        one = together[0]
        aliases = names.get((one["subject"], one["relation"]), ("", "")) if names else ()
        lines.writerow([one["subject"], one["relation"], one["object"], *aliases, *cells])
    writing.write_text(path, text.getvalue())


def comparison(one: Sequence[Row], other: Sequence[Row]) -> dict[str, Any]:
    """What a second model has won and lost, fact by fact: a table of classes, and an exact test for each depth.

    Facts that either of them may have guessed are left out. Raises UserError where the facts are not the same.
    """
    named = [[(row["subject"], row["relation"], row["object"]) for row in of] for of in (one, other)]
    if sorted(named[0]) != sorted(named[1]):
        raise UserError("the two models were asked for different facts; ask both for the same table")
    theirs = dict(zip(named[1], other, strict=True))
    pairs = [(a, theirs[name]) for name, a in zip(named[0], one, strict=True)]
    pairs = [(a, b) for a, b in pairs if not (a["guessable"] or b["guessable"])]
    table = [[sum(a["class"] == x and b["class"] == y for a, b in pairs) for y in CLASSES] for x in CLASSES]
    tests = []
    for depth, name in enumerate(CLASSES[:-1]):
        has = [[CLASSES.index(row["class"]) <= depth for row in pair] for pair in pairs]
        lost, won = sum(a and not b for a, b in has), sum(b and not a for a, b in has)
        tests.append({"at_least": name, "won": won, "lost": lost, "p": classes.mcnemar(lost, won)})

    def moved(better: bool) -> list[Row]:
        return [
            {**{k: a[k] for k in ("subject", "relation", "object")}, "from": a["class"], "to": b["class"]}
            for a, b in pairs
            if (CLASSES.index(b["class"]) < CLASSES.index(a["class"])) == better and a["class"] != b["class"]
        ]

    return {"facts": len(pairs), "classes": table, "tests": tests, "won": moved(True), "lost": moved(False)}
