"""What all arms of a run of teaching share: the facts in their groups, replayed text, and what the model said before."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engramlab.base.errors import UserError, listed
from engramlab.base.facts import Fact
from engramlab.base.progress import ProgressBar, size
from engramlab.base.random_access import key as random_key
from engramlab.base.random_access import permute
from engramlab.base.rows import Row
from engramlab.core import models
from engramlab.core.text.tokens import Sequences, encode, start_tokens
from engramlab.core.training.cost import available, like, memory
from engramlab.corpora.facts import FactTable
from engramlab.corpora.facts.teaching import divide, nested
from engramlab.editing.folders import precision
from engramlab.editing.folders.opening import load_model, require_in_weights
from engramlab.experiments._run import Planned, Run
from engramlab.experiments.teaching import asking, pilot, tables, told
from engramlab.experiments.teaching import documents as documented
from engramlab.experiments.teaching.config import ARMS, FEWEST, FINISH, Config, check
from engramlab.experiments.teaching.replaying import Replay
from engramlab.experiments.teaching.stated import HeldOut, Stated
from engramlab.files import records, writing
from engramlab.writing.lessons import Lesson, plain_lesson, write_lessons
from engramlab.writing.rounds import Author
from engramlab.writing.subjects import PROGRESS, STAGE

NOISE = 5.0  # nats a token from which a model's own samples are no text; SmolLM2-135M's are at 2.6


class School:
    """What all arms of a run share: the facts in their groups, the replayed text, what the model said before.

    Raises:
        UserError: whatever can be found wrong before the model is loaded.
    """

    def __init__(self, config: Config, out: Path, preset: str, console: Any) -> None:
        self.config, self.given = config, check(config)
        self.passages, self.repeated = dict[str, str](), 0
        if config.documents is not None:
            self.passages, self.repeated = documented.read(config.documents, config.text_column)
        if config.documents is not None and len(self.passages) < 2 * FEWEST:
            raise UserError(
                f"documents: {config.documents} has {len(self.passages)} passages of two sentences or more; at least "
                f"{2 * FEWEST} are needed, half of which are asked about although their questions are never trained"
            )
        require_in_weights("model", config.model)
        if config.keep == "adapter" and models.adapted_from(config.model) is not None:
            raise UserError(
                f"keep: {config.model} is itself an adapter, and one upon another is read by nothing; use --keep model"
            )
        self.run = Run("teaching", config, out, preset=preset, console=console, grows=("arms", "finish"))
        was = [name for name in self.run.previous.get("arms") or () if name in ARMS and ARMS[name].way == "train"]
        if was and was[0] != config.trained[0]:
            raise UserError(
                f"arms: the run in {out} keeps the model of {was[0]}; name that one first of those that train, and what is "
                "added behind it, or choose another --out"
            )
        self.about = models.about(config.model)
        if self.about.from_scratch:
            raise UserError(
                f"model: {config.model!r} is a size; name a model that exists: facts are taught to what reads already"
            )
        if self.about.objective != "causal":
            raise UserError(f"model: {config.model} is a masked language model; name a causal one")
        self.tokenizer = models.load_tokenizer(config.model)
        self.length = self.about.context(4096)
        replayed = self.planned_rows(config.trained[0]) * config.replay_share if config.trained else 0
        self.replaying = Replay(config, self.tokenizer, replayed)
        if self.given is not None:
            if config.writer:
                told.check_writer(config.writer, self.given)
            self._halves(self.given)
            tables.check_tokens(self.given, self.tokenizer, config.model)
            self.check_replay()

    @cached_property
    def table(self) -> Any:
        """What is taught: the facts, or what passages say."""
        return self._written() if self.given is None else self.given

    @cached_property
    def stated(self) -> Stated:
        """Finds in a text what is taught."""
        return Stated(self.table, self.words)

    @cached_property
    def words(self) -> Any:
        """How it is asked for, in two parts."""
        return self.table.words() if self.given is None else divide(self.given.wordings)

    def _written(self) -> documented.DocumentTable:
        """The lessons about the passages, written once."""
        config, folder = self.config, self.run.folder / "written"
        path = folder / "lessons.json"

        def write() -> None:
            texts = list(self.passages.values())
            if config.writer:
                made = write_lessons(self._author(), texts, config.rewrites, folder, console=self.run.console)
            else:
                made = [plain_lesson(text, config.rewrites, config.seed) for text in texts]
            records.write_record(path, {"lessons": [lesson.plain() for lesson in made]})

        self.by_main(write, unless=path)
        kept = records.read_record(path, ("lessons",))["lessons"]
        if len(kept) != len(self.passages):
            raise UserError(
                f"{path} is of {len(kept)} passages, and {config.documents} has {len(self.passages)}; remove {folder} to have "
                "the lessons made again"
            )
        return documented.table_of(str(config.documents), self.passages, [Lesson.of(one) for one in kept])

    def _author(self, longest: int = told.ROOM) -> Author:
        """The chat model with the options of all that it writes; ``longest``: tokens of an answer."""
        return Author(self.config.writer, seed=self.config.seed, max_new_tokens=longest, batch=16, tries=told.TRIES)

    @property
    def writes(self) -> bool:
        """Does the chat model write texts about the subjects of a table?"""
        config = self.config
        return bool(config.writer and self.given is not None and config.written and (config.encounters or config.pilot))

    @cached_property
    def _told(self) -> dict[str, Any]:
        """The record of what the chat model wrote about the subjects of a table, made once, then read.

        All processes of a launch ask for it, or none.
        """
        path = self.run.folder / "written" / "texts.json"
        self.by_main(lambda: self._write_texts(path), unless=path)
        return told.read(path, self.taught)

    def _write_texts(self, path: Path) -> None:
        """Has the texts about the taught subjects written."""
        taught, held = self.taught, HeldOut(self.table, self.words)

        def usable(text: str) -> bool:
            (row,) = encode(self.tokenizer, [text])[0]
            return len(row) + len(start_tokens(self.tokenizer)) < self.length and held.prompt(text) is None

        author = self._author(told.room(taught))
        told.write(path, author, taught, self.config.rewrites, usable, self.run.console)

    @property
    def texts(self) -> dict[str, list[str]] | None:
        """By subject, the texts about it where a chat model wrote some; None where templates write all."""
        if not self.writes:
            return None
        return told.texts_of(self._told)

    def tell(self) -> dict[str, Any] | None:
        """Who wrote how many texts, and how many fell back to templates, which is said; None where templates write all."""
        if not self.writes:
            return None
        found = told.counts(self._told)
        self.run.say(told.sentence(found, len(self.taught.subjects)))
        return found

    def check_documents(self) -> None:
        """Raises UserError where documents hold too few facts that could be asked for, before the model is asked any."""
        found, passages = len(self.table.subjects), len(self.passages)
        if found < 2 * FEWEST:
            what = f"{found} of the {passages} passages" if found else f"none of the {passages} passages"
            more = (
                "" if self.config.writer else "; a chat model (--writer) finds more than sentences that end in a name"
            )
            raise UserError(
                f"documents: {what} of {self.config.documents} hold a fact that could be asked for; at least {2 * FEWEST} must"
                f"{more}"
            )

    def check_replay(self) -> None:
        """Raises UserError where a file of replayed text gives away what is taught; of documents, once there are lessons."""
        if self.replaying.file is not None:
            self.replaying.check(self.stated)

    def by_main(self, make: Callable[[], object], unless: Path | None = None) -> None:
        """Has the main process of a launch make something while the others wait; what goes wrong there ends all of them.

        All processes of the launch call it, or none: whether a file is there already (``unless``) is for the main one to see.
        """
        failed: Exception | None = None
        if self.run.main and (unless is None or not unless.exists()):
            try:
                make()
            except Exception as error:  # told to the others, then raised
                failed = error
        said = self.run.agreed("" if failed is None else str(failed) or type(failed).__name__)
        if failed is not None:
            raise failed
        if said:
            raise UserError(said)

    # before anything is trained ---------------------------------------------------------------------------------------

    @property
    def width(self) -> float:
        """Tokens of a row, as far as that can be guessed before there are rows."""
        return 30.0 * len(self.given.relations) if self.given is not None else 120.0

    @property
    def subjects(self) -> int:
        """How many there are to be taught about, before any is known to be known."""
        return len(self.passages if self.given is None else self.given.subjects)

    def planned_rows(self, name: str, texts: int | None = None, subjects: int | None = None) -> float:
        """Rows that an arm trains on, as far as they can be reckoned before the model is asked; of so many texts about each of
        so many subjects, if not of those given."""
        replayed = self.config.replay_share if self.config.replay != "none" else 0
        about = 1 - (self.config.question_share if ARMS[name].questions else 0) - replayed
        texts = self.config.encounters if texts is None else texts
        return texts * (self.subjects if subjects is None else subjects) / about

    def plan(self) -> None:
        """Says what will be done, as far as it is known before the model is asked."""
        config = self.config
        if config.trained and config.encounters and config.replay == "none" and config.text is None:
            self.run.say(
                "nothing watches what the model forgets while it is taught: nothing is replayed, and no other text is given "
                "(--text FILE)"
            )
        if config.trained and config.encounters and config.replay == "self" and config.replay_share:
            self.run.say(
                f"the model first writes {self.replaying.count:,} texts, to be replayed and to measure drift on (--replay FILE "
                "takes yours, --replay-texts so many)"
            )
        if self.given is not None:
            for line in tables.doubtful_names(self.given):
                self.run.say(line)
        if self.repeated:
            self.run.say(
                f"{self.repeated:,} passages say word for word what another one says, and are read once: in both halves they "
                "would give away what is held out"
            )
        known = config.known_table()
        if known is not None and self.replaying.file is not None:
            stating, texts = self.replaying.stating(Stated(known, divide(known.wordings)))
            if stating:
                self.run.say(
                    f"{stating:,} of the {texts:,} replayed texts state or ask for facts of {config.known}: those are trained, "
                    "not only kept"
                )
        subjects, width = self.subjects, self.width
        if self.writes:
            texts = subjects * config.rewrites
            self.run.say(
                f"{config.writer} writes {texts:,} texts, {config.rewrites} about each of {subjects:,} subjects (fewer where "
                f"the model knows some); one that lacks a value is asked for again, {told.TRIES} times in all, before a "
                "template stands in"
            )
            self.run.stages.append(Planned(f"{PROGRESS}: {STAGE}", texts, 1, width))
        if self.given is None and not config.writer:
            self.run.say(
                f"{subjects} passages without a chat model to rewrite them and to ask about them (--writer): their sentences "
                "are only put in other orders, and hardly anything will be learnt that can be asked for"
            )
        if config.pilot:
            rows = (
                self.planned_rows(config.trained[0], pilot.texts(), pilot.size(self.subjects)) if config.trained else 0
            )
            self.run.stages.append(Planned("pilot", math.ceil(rows / config.batch), config.batch, width, self._outline))
        for name in config.trained:
            steps = math.ceil(self.planned_rows(name) / config.batch)
            self.run.stages.append(Planned(name, steps, config.batch, width, self._outline))
        if config.finish and config.trained:
            steps = math.ceil(FINISH * self.planned_rows(config.trained[0]) / config.batch)
            self.run.stages.append(Planned("finish", steps, config.batch, width, self._outline))

    def _outline(self) -> nn.Module:
        return self.prepared(like(self.config.model))

    def prepared(self, model: nn.Module) -> nn.Module:
        """The model with what is trained of it."""
        if self.config.weights == "full":
            return model
        seed, rank = random_key(self.config.seed, "lora") >> 1, self.config.rank
        return models.add_lora(model, rank=rank, alpha=2 * rank, projections="all", seed=seed)

    def require_memory(self, length: float) -> int:
        """Bytes that training on rows of so many tokens takes, about.

        Raises:
            UserError: the device has fewer; with what to lower.
        """
        config, accelerator = self.config, self.run.accelerator
        with torch.device("meta"):
            outline = self._outline()
        weights = memory(outline, 0, 0)
        needed = memory(outline, -(-config.batch // accelerator.num_processes), math.ceil(length))
        if needed > (there := available(accelerator.device)):
            less = [f"--batch (now {config.batch})"] * (config.batch > 1 and weights < there)
            less += ["--weights (lora takes a quarter of full)"] * (config.weights == "full")
            raise UserError(
                f"model: teaching {config.model} takes about {size(needed)} of memory on {accelerator.device}, {size(weights)} "
                f"of them for its weights and their updates, and {size(there)} are free; lower "
                f"{' or '.join([*less, 'the model'])}"
            )
        return needed

    @cached_property
    def before(self) -> dict[str, Any]:
        """What the model said of everything before, the facts that it knew, and the replayed text; made once, then read."""
        folder = self.run.folder / "before"
        self.by_main(lambda: writing.write_folder(folder, self._look), unless=folder / "done.json")
        again = f"remove {folder} to ask again"
        needs = ("known", "contradicted", "replay", "precision", "drift", "seconds")
        answers = records.read_rows(
            folder / "answers.parquet", ("group", "subject", "relation", "prompt", "right"), again
        )
        return {**records.read_record(folder / "done.json", needs, again), "answers": answers}

    @cached_property
    def audited(self) -> list[Fact]:
        """The facts that are asked first: all, or as many as there shall be, in the order of the table."""
        every, most = list(self.table), self.config.audit_facts
        if not self.config.audit or most is None or most >= len(every):
            return every
        order = permute(random_key(self.config.seed, "audited"), range(len(every)), len(every))[:most]
        return [every[i] for i in sorted(order.tolist())]

    def _look(self, path: Path) -> None:
        began, model = time.monotonic(), self.fresh()
        if self.config.audit:
            groups = {"table": asking.Group(self.audited, self.words)} | self._native
        else:
            groups = self._groups([])
        answers = self._asked(model, asking.Examiner(groups, self.tokenizer), "as it is")
        known, contradicted = asking.known(answers, self.table.choices())
        replay, left_out = (
            self.replaying.sampled(model, self.stated, self.run) if self.config.replay == "self" else ([], 0)
        )
        drift = self.replaying.drift(model, self.replaying.rows(replay)[1])
        if replay and drift["replayed kind"] > NOISE:
            self.run.say(
                f"what the model writes by itself is noise ({drift['replayed kind']:.1f} nats a token): replaying that keeps "
                "nothing; give it text of the kind that it was trained on, with --replay FILE"
            )
        found = {
            "known": known if self.config.audit else [],
            "contradicted": contradicted,
            "replay": replay,
            "replay_left_out": left_out,
            "precision": precision.chosen(model, self.config.model),
            "drift": drift,
            "seconds": round(time.monotonic() - began, 2),
        }
        records.write_rows(path / "answers.parquet", answers)
        records.write_record(path / "done.json", found)

    # what is known then -----------------------------------------------------------------------------------------------

    @cached_property
    def taught(self) -> Any:
        """The facts to be taught, in the wordings that are trained. Raises UserError where too few are left."""
        return self._left(self.before["known"])

    def _left(self, known: Sequence[Sequence[str]]) -> Any:
        there = set(map(tuple, known))
        left = [fact for fact in self.table if (fact.subject, fact.relation) not in there]
        table = documented.some_of(self.table, left, self.words.trained) if left else None
        if table is None or len(table.subjects) < 2 * FEWEST:
            count = 0 if table is None else len(table.subjects)
            what, other = (
                ("facts", "subjects with a fact") if self.given is not None else ("documents", "passages with a fact")
            )
            raise UserError(
                f"{what}: of {len(self.table.subjects)} {other} {count} have one that {self.config.model} does not know "
                f"already; at least {2 * FEWEST} are needed: use engramlab edit for so few, or --no-audit to teach all of them"
            )
        return table

    @cached_property
    def halves(self) -> tuple[set[str], set[str]]:
        """Subjects whose questions are trained, and the others."""
        return self._halves(self.taught)

    def _halves(self, taught: Any) -> tuple[set[str], set[str]]:
        """In the order of the seed; names that stand inside one another come into one half.

        Raises:
            UserError: there are so many of those that a half is left with too few.
        """
        subjects, config = list(taught.subjects), self.config
        order = permute(random_key(config.seed, "halves"), range(len(subjects)), len(subjects)).tolist()
        asked = min(max(round(config.asked_share * len(subjects)), FEWEST), len(subjects) - FEWEST)
        groups = [] if isinstance(taught, documented.DocumentTable) else nested(subjects)
        together = {name: group for group in groups for name in group}
        first: set[str] = set()
        seen: set[str] = set()
        for name in (subjects[i] for i in order):
            group = together.get(name, [name])
            if name not in seen and len(first) + len(group) <= asked:
                first.update(group)
            seen.update(group)
        if len(first) < FEWEST:
            largest = max(groups, key=len)
            raise UserError(
                f"facts: {len(largest)} subjects of {taught.name} have names inside one another ({listed(largest[:3])}, ...) "
                f"and must stay in one half, which leaves {len(first)} for the other; at least {FEWEST} are needed: give some "
                "of them other names"
            )
        return first, set(subjects) - first

    def facts_of(self, half: set[str], taught: Any = None) -> list[Fact]:
        """The taught facts about these subjects, in an order of the seed."""
        found = [fact for fact in taught or self.taught if fact.subject in half]
        order = permute(random_key(self.config.seed, "asked", len(found)), range(len(found)), len(found)).tolist()
        return [found[i] for i in order]

    @cached_property
    def examiner(self) -> asking.Examiner:
        """Who asks."""
        return asking.Examiner(self._groups(self.before["known"]), self.tokenizer)

    def _groups(self, known: Sequence[Sequence[str]]) -> dict[str, asking.Group]:
        """The facts that are asked for in the end, where these are known."""
        groups, most = self._grouped(known), self.config.asked_facts
        if len(self.audited) < len(self.table):  # what the model said before is known of these alone
            seen = {(fact.subject, fact.relation) for fact in self.audited}
            groups = {n: [f for f in facts if (f.subject, f.relation) in seen] for n, facts in groups.items()}
            if not groups["asked"] or not groups["unasked"]:
                raise UserError(
                    f"audit_facts: of the {len(seen)} facts that are asked first none is about one of the halves; ask for more"
                )
        return {n: asking.Group(facts[:most], self.words) for n, facts in groups.items() if facts} | self._native

    def _grouped(self, known: Sequence[Sequence[str]]) -> dict[str, list[Fact]]:
        """All facts of the table in their groups, where these are known."""
        there, taught = set(map(tuple, known)), self._left(known)
        a, b = self._halves(taught)
        groups = {name: self.facts_of(half, taught) for name, half in (("asked", a), ("unasked", b))}
        return groups | {"known": [fact for fact in self.table if (fact.subject, fact.relation) in there]}

    @cached_property
    def samples(self) -> dict[str, dict[str, int]]:
        """By group of the table's facts, how many are asked for in the end, and ``of`` how many."""
        groups = self._grouped(self.before["known"])
        asked = {name: len(group.facts) for name, group in self.examiner.groups.items()}
        return {name: {"facts": asked.get(name, 0), "of": len(facts)} for name, facts in groups.items() if facts}

    def introduced(self) -> list[str]:
        """What is known already and what is taught, and of how many facts that is told: a sentence each."""
        taught, every, looked = len(self.taught), len(self.table), len(self.audited)
        of = f"{every:,} facts" if looked == every else f"{looked:,} facts that were asked first (of {every:,})"
        said = [
            f"{every - taught:,} of {of} are known already and left alone; {taught:,} about {len(self.taught.subjects):,} "
            f"subjects are taught, with questions about {len(self.halves[0]):,} of them"
        ]
        if parts := [one for name, one in self.samples.items() if name != "known" and one["facts"] < one["of"]]:
            asked, whole = sum(one["facts"] for one in parts), sum(one["of"] for one in parts)
            said.append(f"{asked:,} of {whole:,} taught facts, a sample, are asked for in the end")
        return said

    @cached_property
    def _native(self) -> dict[str, asking.Group]:
        """What the model shall keep: the user's facts of that kind, or capitals of the world."""
        kept = self.config.known_table()
        if not self.config.native_facts or (kept is None and self.table.name == "countries"):
            return {}
        kept = kept or FactTable.read("countries", relations=("capital",))
        own = set(self.table.subjects)
        facts = [fact for fact in kept if fact.subject not in own]
        order = permute(random_key(self.config.seed, "native"), range(len(facts)), len(facts)).tolist()
        return {"native": asking.Group([facts[i] for i in order[: self.config.native_facts]], divide(kept.wordings))}

    @cached_property
    def untouched(self) -> list[Row]:
        """What the model said before of what is asked in the end."""
        groups = self.examiner.groups
        of = {(f.subject, f.relation): name for name, group in groups.items() if name != "native" for f in group.facts}
        found = []
        for row in self.before["answers"]:
            name = "native" if row["group"] == "native" else of.get((row["subject"], row["relation"]))
            found += [{**row, "group": name}] if name else []
        return found

    @cached_property
    def replay(self) -> tuple[Sequences | None, Sequences | None]:
        """Rows that are replayed, and rows of the same kind that are not."""
        return self.replaying.rows(self.before["replay"])

    def fresh(self) -> nn.Module:
        """The model as it was; where an adapter alone is kept, with the very weights that it will be put on again (those of a
        .gguf file would be rounded else)."""
        exact = "float32" if self.config.keep == "adapter" and self.config.model.endswith(".gguf") else None
        return load_model(self.config.model, dtype=exact)[0].to(self.run.accelerator.device)

    def _asked(
        self, model: nn.Module, examiner: asking.Examiner, label: str, passages: asking.Passages | None = None
    ) -> list[Row]:
        with ProgressBar(f"asking, {label}", 100, console=self.run.console) as bar:
            return examiner.ask(
                model, passages=passages, progress=lambda done, total: bar.update(100 * done // max(total, 1))
            )
