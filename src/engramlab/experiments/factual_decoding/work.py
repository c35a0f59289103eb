"""The parts of a run, each from its folder or done now and written there, whole or not at all; and how long decoders take."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engramlab.base.progress import Progress, ProgressBar
from engramlab.base.random_access import key, permute
from engramlab.core.forward.decoding import Decoding, cad, greedy, micd
from engramlab.core.forward.generation import CachedReader, decode, left_padded
from engramlab.core.forward.hooks import mode
from engramlab.corpora.facts import FactTable
from engramlab.experiments._run import Run
from engramlab.experiments.factual_decoding import asking, choices, passages, spans
from engramlab.experiments.factual_decoding.config import Config
from engramlab.files import records, writing

_BATCHES = (1, 8)
_ROUNDS = 3


@torch.inference_mode()
def _write(model: Any, tokenizer: Any, prompts: list[str], how: Decoding, new: int) -> None:
    """Writes exactly so many tokens: no decoder shall be fast for ending early."""
    rows = [ids for _ in range(1 + len(how.beside)) for ids in tokenizer(prompts)["input_ids"]]
    ids, mask = left_padded(rows, 0, next(model.parameters()).device)
    with mode(model, False):
        decode(model, how, CachedReader(model, ids, mask), new=new, ends=[-1])


class Work:
    """What a run is about to do.

    Args:
        sets: questions with answers to choose from.
        asked: facts behind passages.
        files: questions with passages of the user's files.
        load: gives the model and its tokenizer, when something is left to do.
    """

    def __init__(self, run: Run, table: FactTable, load: Callable[[], tuple[Any, Any]]) -> None:
        config: Config = run.config
        self.run, self.config, self.table, self.load = run, config, table, load
        self.sets = choices.sets(config, table) if "choices" in config.parts else []
        facts = list(table)
        order = permute(key(config.seed, "facts"), np.arange(len(facts)), len(facts))
        shown = {fact for relation in table.relations for fact in asking.shots(config, table, relation)}
        self.facts = [facts[i] for i in order if facts[i] not in shown][: config.subjects]
        self.asked = passages.made(config, table, self.facts) if "passages" in config.parts else []
        self.files = passages.files(config)

    def stages(self) -> dict[str, Callable[[Any, Any, Progress], dict[str, Any]]]:
        """By name, what does each stage of the run."""
        found: dict[str, Callable[[Any, Any, Progress], dict[str, Any]]] = {}
        for of in self.sets:
            found[f"choices-{of.name}"] = partial(self._choices, of)
        if "spans" in self.config.parts:
            found["spans"] = self._spans
        if self.asked:
            found["passages"] = self._passages
        for name in self.files:
            found[f"file-{name}"] = partial(self._file, name)
        if "speed" in self.config.parts:
            found["speed"] = self._speed
        return found

    def results(self, name: str) -> dict[str, Any]:
        """The record of a stage."""
        folder = self.run.folder / name
        if not (folder / "done.json").exists():
            model, tokenizer = self.load()
            began = time.monotonic()
            with ProgressBar(name, 1000, console=self.run.console) as bar:
                found = self.stages()[name](model, tokenizer, lambda done, of: bar.update(1000 * done // max(of, 1)))
            answers = found.pop("answers", [])
            record = {**found, "seconds": round(time.monotonic() - began, 2)}

            def write(path: Path) -> None:
                if answers:
                    records.write_rows(path / "answers.parquet", answers)
                records.write_record(path / "done.json", record)

            writing.write_folder(folder, write)
        return records.read_record(folder / "done.json", ("rows", "seconds"))

    def _choices(self, of: choices.Set, model: Any, tokenizer: Any, progress: Progress) -> dict[str, Any]:
        return choices.asked(self.config, model, tokenizer, of, progress)

    def _spans(self, model: Any, tokenizer: Any, progress: Progress) -> dict[str, Any]:
        return {"rows": spans.looked(self.config, model, tokenizer, self.table, self.facts)}

    def _passages(self, model: Any, tokenizer: Any, progress: Progress) -> dict[str, Any]:
        rows, answers = passages.followed(self.config, model, tokenizer, self.asked, progress)
        return {"rows": rows, "answers": answers}

    def _file(self, name: str, model: Any, tokenizer: Any, progress: Progress) -> dict[str, Any]:
        return {"rows": passages.read(self.config, model, tokenizer, name, self.files[name])}

    def _speed(self, model: Any, tokenizer: Any, progress: Progress) -> dict[str, Any]:
        prompts = [self.table.wordings.question(fact.relation, fact.subject) for fact in self.facts[: max(_BATCHES)]]
        hows: dict[str, Decoding] = {
            "greedy": greedy.Config(),
            "greedy, penalty": greedy.Config(self.config.penalty),
            "dola, low": self.config.dola(bucket="low"),
            "dola, high": self.config.dola(bucket="high"),
            "cad": cad.Config(),
            "micd": micd.Config(),
        }
        early, total = model.get_output_embeddings().weight.numel(), sum(p.numel() for p in model.parameters())
        rows = []
        for batch in [b for b in _BATCHES if b <= len(prompts)]:
            some = prompts[:batch]
            least = dict.fromkeys(hows, float("inf"))
            for _ in range(_ROUNDS):
                for name, how in hows.items():
                    began = time.process_time()
                    _write(model, tokenizer, some, how, self.config.new_tokens)
                    least[name] = min(least[name], time.process_time() - began)
            for name, how in hows.items():
                bound = 1 + len(how.layers(model)) * early / total + len(how.beside)
                times = {"seconds": least[name], "seconds_times_greedy": least[name] / max(least["greedy"], 1e-9)}
                rows.append({"way": name, "batch": batch, "bound": bound, **times})
        return {"rows": rows}
