"""The work of a knowledge-editing run: cases, answers before, then every method under every loss, resumable in between."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from engramlab.base.errors import UserError
from engramlab.base.facts import Case
from engramlab.base.progress import ProgressBar
from engramlab.base.terminal import Console
from engramlab.core.training import losses
from engramlab.editing import benchmarks, method
from engramlab.editing import cases as editing_cases
from engramlab.editing.judge import evaluation
from engramlab.editing.judge.evaluation import Before, Row
from engramlab.editing.requests import encode_edits
from engramlab.experiments import _run
from engramlab.experiments.knowledge_editing import sequence
from engramlab.experiments.knowledge_editing.config import Config, folder_of
from engramlab.experiments.knowledge_editing.summary import summarise
from engramlab.files import writing


class Run(_run.Run):
    """One run: loads what it needs, checks it, and does what is not done yet. A part is a method under a loss."""

    config: Config

    def __init__(self, config: Config, out: Path, *, preset: str = "", console: Console | None = None) -> None:
        self.parts = config.chosen()
        names = {name.replace("-", "_") for name, _ in self.parts}

        def kept(plain: dict[str, Any]) -> dict[str, Any]:
            """What other methods would do is no part of this run."""
            hyper = plain["hyper"] if isinstance(plain.get("hyper"), dict) else {}
            return plain | {"hyper": {name: values for name, values in hyper.items() if name in names}}

        super().__init__("knowledge-editing", config, out, preset=preset, console=console, recorded=kept)
        facts = config.fact_table()
        self.benchmark: str | list[Case] = (
            config.benchmark if facts is None else facts.edits("own" if config.learn else "other", seed=config.seed)
        )
        # Everything there is, read before the model is loaded: a bad file is refused in a second.
        self.loaded = self._read(limit=None)
        cases = min(len(self.loaded.cases), config.most or len(self.loaded.cases))
        self.stages = [
            _run.Planned(f"{name} ({loss})", cases, weight=getattr(self._hyper(name), "steps", 1))
            for name, loss in self.parts
        ]

    def _read(self, **more: Any) -> editing_cases.Chosen:
        config = self.config
        return editing_cases.cases(
            self.benchmark, seed=config.seed, part=config.part, format=config.format, bad=config.bad, **more
        )

    def results(self) -> dict[str, Any]:
        """Does every part that is not done, and returns the summary."""
        config = self.config
        started = time.monotonic()
        todo = [part for part in self.parts if not (folder_of(self.folder, part) / "done.json").exists()]
        if todo:
            self._load()
            self.say(
                f"{self.folder}: {'going on' if self.resumed else 'new run'}; {config.setting} edits of {len(self.cases)} "
                "cases; " + ", ".join(f"{name} ({loss})" for name, loss in self.parts)
            )
        for part in todo:
            self._part(part)
        seconds = time.monotonic() - started
        return self.finish(seconds=seconds, **summarise(self.folder, config, self.parts, self.loaded))

    def _load(self) -> None:
        """The model, the cases and what it says before any edit; everything is checked here."""
        config = self.config
        self.say(f"loading {config.model}")
        self.model, self.tokenizer = editing_cases.model(config.model, dtype=config.dtype, device=config.device)
        self.cases = self._cases()
        edits = [edit for case in self.cases for edit in case.edits]
        needs = any(method.load(name).NEEDS_SUBJECT for name, _ in self.parts)
        encode_edits(self.tokenizer, [[edit] for edit in edits], subjects=needs)
        if config.setting == "batch":
            of = [case.id for case in self.cases for _ in case.edits]
            for i, j in benchmarks.contradictions(edits):
                raise UserError(
                    f"{config.benchmark}: cases {of[i]} and {of[j]} contradict each other ({edits[i].query.prompt!r} -> "
                    f"{edits[i].target!r} and {edits[j].target!r}); a batch cannot hold both, leave one out"
                )
        self.before = self._before()
        for name, _ in self.parts:  # statistics and the like, so that they are on nobody's clock
            module = method.load(name)
            if hasattr(module, "prepare"):
                module.prepare(self.model, self.tokenizer, self._hyper(name))

    def _cases(self) -> list[Case]:
        """The cases of this run; which ones the model knows is found out once."""
        config, kept = self.config, self.folder / "cases.json"
        if kept.exists():
            ids = set(writing.read_json(kept))
            return editing_cases.fewer_judges([c for c in self.loaded.cases if c.id in ids], config.judges)
        found = self.loaded.cases
        if config.known_only:
            with ProgressBar("which cases it knows", len(found), console=self.console) as bar:
                known_to = (self.model, self.tokenizer)
                chosen = self._read(limit=config.most, known_to=known_to, progress=bar.to)
            found = chosen.cases
            self.say(f"it knows {chosen.asked - chosen.unknown} of the {chosen.asked} cases it was asked about")
        writing.write_json(kept, [case.id for case in found[: config.most]])
        return editing_cases.fewer_judges(found[: config.most], config.judges)

    def _before(self) -> Before:
        """What the unedited model says to every query, asked once a run."""
        path = self.folder / "before.parquet"
        if path.exists():
            return Before.of(pq.read_table(path).to_pylist())
        with ProgressBar("answers before", 1, console=self.console) as bar:
            found = evaluation.before(
                self.model, self.tokenizer, self.cases, new_tokens=self.config.new_tokens, progress=bar.to
            )
        writing.write_rows(path, found.rows())
        return found

    def _hyper(self, name: str) -> Any:
        return getattr(self.config.hyper, name.replace("-", "_"))

    def _part(self, part: tuple[str, str]) -> None:
        """One method under one loss, from where an earlier run left it."""
        name, loss = part
        folder = folder_of(self.folder, part)
        folder.mkdir(parents=True, exist_ok=True)
        chosen = losses.parse("cross-entropy" if loss == "none" else loss)
        about = {"method": name, "loss": loss, "setting": self.config.setting}
        work = sequence.Part(
            self.model, self.tokenizer, self.cases, self.before, name, chosen, self._hyper(name), folder, self.console
        )
        label = f"{name} ({loss})"
        if self.config.setting == "single":
            done = self._single(work, label)
        elif self.config.setting == "batch":
            done = work.batch(label)
        else:
            done = work.continual(label, self.config.counts, self.config.checkpoint_minutes)
        rows: list[Row] = []
        for path in done["parts"]:
            rows += [about | row for row in pq.read_table(path).to_pylist()]
        writing.write_rows(folder / "rows.parquet", rows)
        writing.write_json(folder / "done.json", {key: value for key, value in done.items() if key != "parts"})
        for path in folder.glob("part-*"):
            path.unlink()
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)

    def _single(self, work: sequence.Part, label: str) -> dict[str, Any]:
        """Chunks of cases, each case under its own delta; a finished chunk is a file."""
        seconds, failed, parts = 0.0, [], []
        with ProgressBar(label, len(self.cases), console=self.console) as bar:
            for start in range(0, len(self.cases), self.config.at_once):
                chunk = self.cases[start : start + self.config.at_once]
                chunk_rows, note = work.folder / f"part-{start:06d}.parquet", work.folder / f"part-{start:06d}.json"
                if not note.exists():
                    rows, about = work.each(chunk)
                    writing.write_rows(chunk_rows, rows)
                    writing.write_json(note, about)
                about = writing.read_json(note)
                seconds += about["seconds"]
                failed += about["failed"]
                parts.append(chunk_rows)
                bar.update(start + len(chunk))
        return {"seconds": seconds, "edits": len(self.cases), "failed": failed, "parts": parts}
