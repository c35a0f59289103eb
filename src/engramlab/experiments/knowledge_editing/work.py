"""The work of a knowledge-editing run: cases, answers before, then every method under every loss, resumable in between."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from engramlab.base.facts import Case, Query
from engramlab.base.interrupts import kept
from engramlab.base.progress import ProgressBar
from engramlab.base.terminal import Console
from engramlab.core.text.chat import Chat
from engramlab.core.training import losses
from engramlab.editing import benchmarks, method, wording
from engramlab.editing import cases as editing_cases
from engramlab.editing.judge import abilities, beside, beyond, evaluation
from engramlab.editing.judge.evaluation import Before, Row
from engramlab.editing.requests import encode_edits
from engramlab.experiments import _run
from engramlab.experiments.knowledge_editing import sequence, turns
from engramlab.experiments.knowledge_editing.config import Config, folder_of
from engramlab.experiments.knowledge_editing.stopping import Stopping, some_of
from engramlab.experiments.knowledge_editing.summary import summarise
from engramlab.files import records, writing


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
        self.loaded = self._read(limit=config.read)
        cases = min(len(self.loaded.cases), config.most or len(self.loaded.cases))
        self.stages = [
            _run.Planned(f"{name} ({loss})", cases, weight=getattr(self._hyper(name), "steps", 1))
            for name, loss in self.parts
        ]

    def _read(self, **more: Any) -> editing_cases.Chosen:
        config = self.config
        return editing_cases.cases(
            self.benchmark,
            seed=config.seed,
            part=config.part,
            format=config.format,
            bad=config.bad,
            words=config.words,
            judged_by=config.judged_by,
            subjects=method.needing_subjects([name for name, _ in self.parts]),
            **more,
        )

    def results(self) -> dict[str, Any]:
        """Does every part that is not done, and returns the summary."""
        config = self.config
        started = time.monotonic()
        self.load()
        todo = self._todo()
        if todo or not (self.folder / "before.parquet").exists():
            self._prepare()
            self.say(
                f"{self.folder}: {'going on' if self.resumed else 'new run'}; {config.setting} edits of {len(self.cases)} "
                "cases; " + ", ".join(f"{name} ({loss})" for name, loss in self.parts)
            )
        for part in self.parts:
            if part in todo:
                self._part(part)
            _tidy(folder_of(self.folder, part))
        told = self.folder / "summary.json"
        again = not todo and told.exists()  # only the tables are made once more
        seconds = records.read_record(told, ("seconds",))["seconds"] if again else time.monotonic() - started
        return self.finish(seconds=seconds, **summarise(self.folder, config, self.parts, self.loaded))

    def _todo(self) -> list[tuple[str, str]]:
        folders = [(part, folder_of(self.folder, part)) for part in self.parts]
        return [part for part, at in folders if not all((at / name).exists() for name in ("done.json", "rows.parquet"))]

    def load(self) -> None:
        """The model, if anything is to be done with it: before the run's folder is made, for the caller who wants that."""
        config = self.config
        if not hasattr(self, "model") and (self._todo() or not (self.folder / "before.parquet").exists()):
            self.say(f"loading {config.model}")
            names, at = [name for name, _ in self.parts], config.device
            self.model, self.tokenizer = editing_cases.model(config.model, dtype=config.dtype, device=at, methods=names)
            self.chat = Chat(self.tokenizer) if config.chat else None

    def _prepare(self) -> None:
        """The cases and what the model says before any edit; everything is checked here."""
        config = self.config
        self.cases = self._cases()
        edits = [edit for case in self.cases for edit in case.edits]
        needed = method.needing_subjects([name for name, _ in self.parts])
        encode_edits(self.tokenizer, [[edit] for edit in edits], subjects=bool(needed))
        if config.setting == "batch":
            places = [f"case {case.id}" for case in self.cases]
            self.cases, left = benchmarks.agreeing(self.cases, places, config.benchmark, config.bad)
            for line in left:
                self.say(line)
        if config.setting == "turns":
            order: list[int] = []
            if config.order_seed is not None:
                order = turns.shuffled(self.cases, config.counts, config.order_seed)
                self.cases = [self.cases[i] for i in order]
            self.plan = self._plan(order)
        self.before, self.beyond, self.tasks = self._before(), self._beyond(), self._tasks()
        if config.setting == "turns":
            self.stopping = self._stopping()
        self.prepared = dict[str, float]()  # seconds
        for name, _ in self.parts:  # statistics and the like, so that they are on nobody's clock
            module, started = method.load(name), time.monotonic()
            if hasattr(module, "prepare"):
                module.prepare(self.model, self.tokenizer, self._hyper(name))
            self.prepared[name] = time.monotonic() - started

    def _cases(self) -> list[Case]:
        """The cases of this run; which ones the model knows is found out once."""
        texts = beyond.SENTENCES[: self.config.contexts]
        return self._worded(editing_cases.behind(self._chosen_cases(), texts, self.chat))

    def _worded(self, found: list[Case]) -> list[Case]:
        """The cases with edits in all their wordings, which are written once."""
        config, path = self.config, self.folder / "wordings.json"
        write = wording.author(config.writer, config.seed) if config.writer and config.wordings > 1 else None
        if config.wordings == 1:
            return [replace(c, edits=tuple(replace(edit, wordings=()) for edit in c.edits)) for c in found]
        if not path.exists():
            made, notes = wording.worded(found, config.wordings, write=write, seed=config.seed)
            for line in notes[:5]:
                self.say(line)
            records.write_record(path, {"wordings": [[edit.wordings for edit in case.edits] for case in made]})
        kept = records.read_record(path, ("wordings",))["wordings"]
        return [
            replace(c, edits=tuple(replace(e, wordings=tuple(w)) for e, w in zip(c.edits, said, strict=True)))
            for c, said in zip(found, kept, strict=True)
        ]

    def _chosen_cases(self) -> list[Case]:
        config, path = self.config, self.folder / "cases.json"
        found = self._in_chat(self.loaded.cases)
        if path.exists():
            ids = writing.read_json(path)
            if not isinstance(ids, list):  # as it was once
                ids = records.read_record(path, ("cases",))["cases"]
            mine = [case for case in found if case.id in ids]
            if not mine or {case.id for case in mine} != set(ids):
                raise records.damaged(path, "it names other cases than there are")
            return editing_cases.fewer_judges(mine, config.judges)
        if config.known_only:
            with ProgressBar("which cases it knows", len(found), console=self.console) as bar:
                known_to = (self.model, self.tokenizer)
                chosen = self._read(limit=config.most, known_to=known_to, chat=self.chat, progress=bar.to)
            found = chosen.cases
            self.say(f"it knows {chosen.asked - chosen.unknown} of the {chosen.asked} cases it was asked about")
        records.write_record(path, {"cases": [case.id for case in found[: config.most]]})
        return editing_cases.fewer_judges(found[: config.most], config.judges)

    def _plan(self, order: list[int]) -> turns.Plan:
        """What turns are asked about beside themselves, and how likely running text is before; found out once."""
        config, path = self.config, self.folder / "asked.json"
        spare = turns.twins(self.cases, self._in_chat(self.loaded.cases), config.twins)
        if not path.exists():
            about = self.model, self.tokenizer
            with ProgressBar("what it knows that no edit is about", None, console=self.console, after=2.0):
                texts = beyond.passages(*about, config.text, config.text_rows, config.seed)
                known, unknown = turns.natives(*about, config.natives, config.unknown, config.seed, self.chat)
                asked = {"natives": list(map(asdict, known)), "unknown": list(map(asdict, unknown))}
                records.write_record(path, {"texts": texts, **asked, "nats": beyond.nats(*about, texts)})
            if len(spare) < config.twins or len(known) < config.natives:
                self.say(
                    f"beside the edits, {len(spare)} cases that are never edited and {len(known)} known facts are asked"
                )
        kept = records.read_record(path, ("texts", "natives", "nats"))
        # A run begun before there were unknown ones has none.
        known, unknown = (
            [Query(**{**query, "aliases": tuple(query["aliases"])}) for query in kept.get(name, ())]
            for name in ("natives", "unknown")
        )
        return turns.Plan(
            self.cases,
            config.sample,
            config.seed,
            spare,
            known,
            unknown,
            kept["texts"],
            config.asides,
            order,
        )

    def _stopping(self) -> Stopping:
        """What the unedited model writes where there is room, asked once a run."""
        path = self.folder / "stops.json"
        if not path.exists():
            counts = sorted({min(count, len(self.cases)) for count in self.config.counts})
            with ProgressBar("where its answers end", None, console=self.console, after=2.0):
                found = Stopping.of(self.model, self.tokenizer, [self.plan.standing(count) for count in counts])
            records.write_record(path, {"room": found.room, "before": [[p, *of] for p, of in found.before.items()]})
        kept = records.read_record(path, ("room", "before"))
        return Stopping(kept["room"], {prompt: (text, ended) for prompt, text, ended in kept["before"]})

    def _judge_turns(self, count: int) -> tuple[list[Row], Row]:
        """The rows after so many edits, and what became of the model."""
        rows, found = self.plan.judge(self.model, self.tokenizer, self.before, count)
        standing = self.plan.standing(count)
        stops = self.stopping.after(self.model, self.tokenizer, standing)
        return rows, found | {"stops": stops, "fluent": self._fluent(some_of(standing))}

    def _fluent(self, cases: Sequence[Case]) -> Row:
        """Mean ``fluency`` behind the prompts of cases now, and ``fluency_before``; nothing where it was not asked for."""
        if not self.beyond.tokens:
            return {}
        now = beyond.fluencies(self.model, self.tokenizer, cases, self.beyond.tokens)
        was = [self.beyond.fluent[case.id] for case in cases]
        pairs = [(a, b) for a, b in zip(was, now, strict=True) if a is not None and b is not None]
        means = np.mean(pairs, axis=0).tolist() if pairs else (None, None)
        return dict(zip(("fluency_before", "fluency"), means, strict=True))

    def _in_chat(self, found: list[Case]) -> list[Case]:
        return found if self.chat is None else list(map(self.chat.case, found))

    def _asked(self) -> list[Case]:
        """All cases that are judged at some time."""
        if self.config.setting != "turns":
            return self.cases
        return self.plan.everything(sorted({min(count, len(self.cases)) for count in self.config.counts}))

    def _before(self) -> Before:
        """What the unedited model says to every query, asked once a run."""
        path = self.folder / "before.parquet"
        if path.exists():
            rows = records.read_rows(path, ("prompt", "asked", "written", "new_tokens"))
            if not rows:
                raise records.damaged(path, "it holds no answers")
            return Before.of(rows)
        with ProgressBar("answers before", 1, console=self.console) as bar:
            found = evaluation.before(
                self.model, self.tokenizer, self._asked(), new_tokens=self.config.new_tokens, progress=bar.to
            )
        records.write_rows(path, found.rows())
        return found

    def _beyond(self) -> beyond.Beyond:
        """What is measured beside answers, of the unedited model, once a run."""
        config = self.config
        options = replace(config, drift_text=None) if config.setting == "turns" else config  # its text is of the plan
        load, cases = lambda: (self.model, self.tokenizer), self._going_on()
        return beside.unedited(self.folder / "beyond.json", options, load, cases, config.seed)

    def _tasks(self) -> abilities.Tasks:
        """Tasks of lm-evaluation-harness, scored of the unedited model once a run."""
        beside.scored_before(self.folder / "tasks.json", self.config, lambda: (self.model, self.tokenizer))
        return beside.tasks_of(self.config)

    def _going_on(self) -> list[Case]:
        """The cases whose prompts the model goes on behind, for its fluency: all; of turns some of those that are judged."""
        if self.config.setting != "turns":
            return self.cases
        counts = sorted({min(count, len(self.cases)) for count in self.config.counts})
        return list({case.id: case for count in counts for case in some_of(self.plan.standing(count))}.values())

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
            self.model,
            self.tokenizer,
            self.cases,
            self.before,
            self.beyond,
            self.tasks,
            name,
            chosen,
            self._hyper(name),
            folder,
            self.console,
        )
        label = f"{name} ({loss})"
        if self.config.setting == "single":
            done = self._single(work, label)
        elif self.config.setting == "batch":
            done = work.batch(label)
        elif self.config.setting == "turns":
            done = work.continual(
                label,
                self.config.counts,
                self.config.checkpoint_minutes,
                self.config.turn,
                self._judge_turns,
            )
            done["statistics_seconds"] = self.prepared[name]
        else:
            done = work.continual(label, self.config.counts, self.config.checkpoint_minutes)
        records.write_rows(folder / "rows.parquet", [about | row for row in done.pop("rows")])
        records.write_record(folder / "done.json", done)

    def _single(self, work: sequence.Part, label: str) -> dict[str, Any]:
        """Chunks of cases, each case under its own delta; a finished chunk is a file."""
        seconds, failed, rows, count = 0.0, [], list[Row](), 0
        says = kept(lambda: f"{count} of {len(self.cases)} cases of {label} are done and kept")
        with says, ProgressBar(label, len(self.cases), console=self.console) as bar:
            for start in range(0, len(self.cases), self.config.at_once):
                chunk = self.cases[start : start + self.config.at_once]
                chunk_rows, note = work.folder / f"part-{start:06d}.parquet", work.folder / f"part-{start:06d}.json"
                if note.exists():
                    about = records.read_record(note, ("seconds", "failed"))
                    made = records.read_rows(chunk_rows, (), f"remove {note} to do that part again")
                else:
                    made, about = work.each(chunk)
                    records.write_rows(chunk_rows, made)
                    records.write_record(note, about)
                seconds += about["seconds"]
                failed += about["failed"]
                rows += made
                count = start + len(chunk)
                bar.update(count)
        return {"seconds": seconds, "edits": len(self.cases), "failed": failed, "rows": rows}


def _tidy(folder: Path) -> None:
    """Removes what a finished part no longer needs."""
    writing.clear(*folder.glob("part-*"), folder / "checkpoint")
