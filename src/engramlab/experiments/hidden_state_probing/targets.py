"""What is probed: every model with the texts it has read, or is to be asked about."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engramlab.base.errors import UserError
from engramlab.core import models
from engramlab.corpora.datasets import Dataset, dataset, recorded, variants
from engramlab.editing.folders.opening import in_weights, load_model
from engramlab.experiments.hidden_state_probing.config import Config
from engramlab.files import records, writing

EXTRACTION = "knowledge-extraction"
STAGES = ("pretrain", "mixed")  # of a run, the first that is there holds the model that has read the texts


@dataclass(frozen=True)
class ProbedModel:
    """One model and its texts.

    Attributes:
        name: unique in the run, and the name of its folder there.
        model: as the user named it.
        weights: where the model itself is.
        data: entries, questions and the split.
        mode: how the model was trained on them, where a run tells.
        tokenizer: folder of the tokenizer its texts were written for, where a run tells.
        extraction: P_test accuracy by attribute, of the questions asked in its run: exact match and first token.
    """

    name: str
    model: str
    weights: str
    data: Dataset
    mode: str = ""
    tokenizer: Path | None = None
    extraction: dict[str, dict[str, float]] | None = None

    def load(self) -> tuple[Any, Any]:
        """The model and its tokenizer. Raises UserError where the texts were made with another tokenizer than the model's."""
        if Path(self.weights).expanduser().is_dir():
            records.check_sealed(Path(self.weights).expanduser(), "train it again, or take it from a copy")
        model, tokenizer = (models.load if in_weights(self.weights) else load_model)(self.weights)
        if self.tokenizer is not None:
            theirs = models.load_tokenizer(str(self.tokenizer))
            if theirs.get_vocab() != tokenizer.get_vocab():
                raise UserError(
                    f"{self.weights}: its tokenizer is not the one that the corpus of {self.model} was made with "
                    f"({self.tokenizer}); probe the model that this run trained, or give --facts or --corpus with the other"
                )
        return model, tokenizer


def targets(config: Config) -> list[ProbedModel]:
    """Everything to probe, in order. Raises UserError for runs and models that are not there, unfinished or of another kind."""
    found: list[ProbedModel] = []
    for name in config.model:
        found += _of_run(config, Path(name)) if _is_run(Path(name)) else _of_model(config, name)
    clashes = Counter(target.name for target in found)
    return [replace(t, name=f"{Path(t.model).resolve().name}-{t.name}") if clashes[t.name] > 1 else t for t in found]


def _is_run(folder: Path) -> bool:
    """Is this a run's folder? A model's has a config.json too, without an experiment."""
    path = folder / "config.json"
    if not path.is_file():
        return False
    record = writing.read_json(path)
    return isinstance(record, dict) and "experiment" in record


def _of_run(config: Config, folder: Path) -> list[ProbedModel]:
    record = writing.read_json(folder / "config.json")
    if record["experiment"] != EXTRACTION:
        raise UserError(
            f"model: {folder} is a run of {record['experiment']!r}; give a run of {EXTRACTION!r}, or a model"
        )
    source = recorded(record["config"])
    there = variants(source, tuple(record["config"]["variants"]))
    for variant in config.variants:
        if variant not in there:
            raise UserError(f"variants: run {folder} has no {variant!r}; it has {', '.join(there)}")
    asked = _asked(folder)
    found = []
    for variant in config.variants or there:
        data = dataset(source, variant)
        stage = next((s for s in STAGES if (folder / data.name / s / "model").is_dir()), None)
        if stage is None:
            raise UserError(
                f"model: run {folder} has no pretrained model of {variant} (it would be "
                f"{folder / data.name / STAGES[0]}/model); run it to its end first"
            )
        found.append(
            ProbedModel(
                data.name,
                str(folder),
                str(folder / data.name / stage / "model"),
                data,
                str(record["config"].get("mode", "")),
                folder / "tokenizer" if (folder / "tokenizer").is_dir() else None,
                asked.get(data.name),
            )
        )
    return found


def _asked(folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    """By variant and attribute, what the run's summary says of questions about P_test; nothing for an unfinished run."""
    path = folder / "summary.json"
    found: dict[str, dict[str, dict[str, float]]] = {}
    again = f"remove it, and run the command of {folder} again"
    for row in records.read_record(path, ("rows",), again)["rows"] if path.exists() else ():
        if row["group"] == "test":
            found.setdefault(row["dataset"], {})[row["attribute"]] = {
                "whole": row["exact_match"],
                "first": row["first_token"],
            }
    return found


def _of_model(config: Config, name: str) -> list[ProbedModel]:
    named = variants(config, config.variants or ("multi5+permute",))
    return [ProbedModel(variant, name, name, dataset(config, variant)) for variant in named]
