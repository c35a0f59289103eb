"""Write synthetic run folders as plain files, in the layout that an experiment writes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engramlab.base.rows import ATTRIBUTES

CONTRAST = {"single": 0.06, "multi5+permute": 0.87}


def write_run(
    path: Path,
    scores: Mapping[str, float] = CONTRAST,
    *,
    attributes: Sequence[str] = ATTRIBUTES,
    modes: Sequence[str] = ("finetune",),
    finished: bool = True,
    experiment: str = "knowledge-extraction",
    family: str | None = None,
    seed: int = 0,
    chance: float | None = 0.05,
    learnt: float = 0.99,
    options: Mapping[str, Any] | None = None,
    text: str = "Anya Briar Forger was born on October 2, 1996.",
) -> Path:
    """A run whose P_test exact match is `scores` by dataset, with a small spread over attributes."""
    path.mkdir(parents=True)
    config = {
        "experiment": experiment,
        "preset": "tiny",
        "config": {"seed": seed, "people": 300, "model": {"layers": 4, "width": 128}, "note": text, **(options or {})},
        "versions": {"engramlab": "0.1.0", "torch": "2.11.0", "python": "3.11.7"},
        "commit": "0123abcd",
        "command": f"engramlab run {experiment} --preset tiny --out {path.name}",
        "created": "2026-01-02T03:04:05",
    }
    write_json(path / "config.json", config)
    rows = []
    for dataset, score in scores.items():
        for mode in modes:
            for group, level in (("train", learnt), ("test", score)):
                for i, attribute in enumerate([*attributes, "mean"]):
                    share = level if attribute == "mean" else min(1.0, max(0.0, level + 0.02 * (i - 2)))
                    row = {"dataset": dataset, "mode": mode, "group": group, "attribute": attribute}
                    rows.append({**row, "exact_match": share, "first_token": share, "questions": 150})
                    if chance is not None:
                        rows[-1]["commonest"] = chance
                    if family:
                        rows[-1]["family"] = family
        write_stage(path / dataset / "pretrain", 2000, floor=0.05)
        write_stage(path / dataset / "finetune", 400, floor=0.01, first_tokens={"train": 0.99, "test": score})
        answers = [answer(text, right=True), answer(text, right=False)]
        write_json(path / dataset / "examples.json", {"entries": [text, "Zoë 北京"], "answers": answers})
    if finished:
        training = [
            {
                "dataset": dataset,
                "stage": stage,
                "steps": 2000,
                "tokens": 2_700_000,
                "loss": 0.05,
                "seconds": 251.0,
            }
            for dataset in scores
            for stage in ("pretrain", "finetune")
        ]
        best = {dataset: {"lr": 1e-3, "weight_decay": 0.01} for dataset in scores}
        summary = {"experiment": experiment, "seed": 0, "seconds": 512.3, "rows": rows, "training": training}
        write_json(path / "summary.json", {**summary, "best": best})
    return path


def answer(text: str, right: bool) -> dict[str, Any]:
    said = text if right else f"not {text}"
    prompt = f"What is the birth date of {text}? Answer:"
    row = {"group": "test", "attribute": "birth_date", "prompt": prompt, "gold": text}
    return {**row, "answer": said, "correct": right}


def write_stage(path: Path, steps: int, floor: float, first_tokens: Mapping[str, float] | None = None) -> None:
    path.mkdir(parents=True)
    lines = []
    for step in range(10, steps + 1, 10):
        loss = floor + 5 * math.exp(-4 * step / steps)
        lines.append({"step": step, "loss": loss, "lr": 1e-3, "tokens": step * 1368, "seconds": step * 0.12})
        if step % 100 == 0:
            for corpus in ("bio", "qa"):
                for group, level in (first_tokens or {}).items():
                    share = level * step / steps if corpus == "qa" else 0.98
                    row = {"step": step, "corpus": corpus, "group": group, "attribute": "mean"}
                    lines.append({**row, "first_token": share})
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_json(path: Path, document: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
