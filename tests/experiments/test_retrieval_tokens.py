"""The whole experiment, small: from scratch, on a model that exists, from records and from searched documents; refusals."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file
from tests.support import zoo
from tests.support.tiny_runs import numbers

from engramlab.base.errors import UserError
from engramlab.core import models
from engramlab.core.deltas.virtual_tokens import VirtualTokens
from engramlab.core.text.tokenizers import with_mask
from engramlab.core.training.loop import Recipe
from engramlab.experiments import retrieval_tokens as experiment
from engramlab.experiments.retrieval_tokens.data import made

ROWS = [(f"Zor{i}", ("red", "blue", "green", "grey")[i % 4], f"city {i}") for i in range(12)]
SMALL: dict[str, Any] = {"tokens": 4, "ks": (1, 4), "epochs": 1, "batch": 4, "new_tokens": 3, "lora_rank": 1}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "facts.csv").write_text("name,colour,home\n" + "".join(",".join(row) + "\n" for row in ROWS))
    (folder / "notes").mkdir()
    lines = [f"{name} lives in {home} and likes {colour}." for name, colour, home in ROWS]
    (folder / "notes" / "all.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    records = [
        {"question": f"Where is {name}?", "target": [home, home.upper()], "ret_passages": [line, lines[0]], "id": 3}
        for (name, _, home), line in zip(ROWS, lines, strict=True)
    ]
    (folder / "records.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    rng = np.random.default_rng(0)
    of = rng.normal(size=(12, 5)).astype(np.float32)
    np.save(folder / "texts.npy", of)
    save_file({"questions": np.repeat(of, 2, axis=0)}, folder / "questions.safetensors")
    tokenizer = zoo.ZOO["llama3"]([*zoo.SENTENCES, *lines])
    zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=512).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder


def config(inputs: Path, **more: Any) -> experiment.Config:
    return experiment.Config(
        **{"model": str(inputs / "model"), "facts": inputs / "facts.csv", "most": 3} | SMALL | more
    )


def test_every_way_and_the_model_is_itself(inputs: Path, tmp_path: Path) -> None:
    summary = experiment.run(config(inputs), tmp_path / "run")
    ways = [(row["way"], row["k"]) for row in summary["rows"]]
    assert ways == [
        ("no passage", 0),
        ("plain", 0),
        ("untrained tokens", 4),
        *(("virtual tokens", 1), ("virtual tokens", 4), ("LoRA", 0), ("LoRA, no passage", 0)),
    ]
    for row in summary["rows"]:
        assert (row["questions"], row["subjects"]) == (12, 6)
        for name in ("em", "f1", "begins"):
            assert 0 <= row[f"{name}_low"] <= row[name] <= row[f"{name}_high"] <= 1
        assert row["way"] != "plain" or row["em_more"] == row["em_more_low"] == 0
    changes = {row["way"]: row["change"] for row in summary["without"]}
    assert changes["virtual tokens"] == changes["plain"] == 0.0
    assert changes["LoRA"] != 0.0
    assert summary["answer_in_passages"] == 1.0
    answers = pq.read_table(tmp_path / "run" / "reading" / "tokens" / "answers.parquet").to_pylist()
    assert {row["passages"] for row in answers} <= {1, 2, 3}
    assert len({row["subject"] for row in answers}) == 6
    model, _ = models.load(str(inputs / "model"))
    tokens = VirtualTokens.load(tmp_path / "run" / "reading" / "tokens" / "vectors", model)
    assert len(tokens) == 4
    data = made(config(inputs))
    assert not data.subjects[0] & data.subjects[1]
    assert {row["subject"] for row in answers} == data.subjects[1]
    again = experiment.run(config(inputs), tmp_path / "run")
    assert numbers(again) == numbers(summary)


def test_from_scratch_reads_pairs_of_one_person(tmp_path: Path) -> None:
    tiny = experiment.PRESETS["tiny"]
    small = replace(tiny, model="1x16", people=20, subjects=8, pretrain=Recipe(steps=2, batch=4), limit=6, **SMALL)
    data = made(small)
    assert len(data.entries) == 20
    names = {one.subject for one in data.asked}
    assert len(names) == 8
    assert not any(name in text for name in names for pair in data.entries for text in pair)
    for one in data.asked:
        assert one.answers[0] in one.passages[0]
        assert one.subject in one.question
    summary = experiment.run(small, tmp_path / "run")
    assert [row["stage"] for row in summary["training"]] == ["pretrain", "tokens", "lora"]
    assert summary["data"] == "people"


def test_records_of_a_file(inputs: Path, tmp_path: Path) -> None:
    given = config(inputs, facts=None, records=inputs / "records.jsonl", lora=False, most=1)
    summary = experiment.run(given, tmp_path / "run")
    assert [row["questions"] for row in summary["rows"]] == [6] * 5
    assert summary["answer_in_passages"] == 1.0


@pytest.mark.parametrize("retrieval", ["words", "states", "vectors"])
def test_documents_are_searched(retrieval: str, inputs: Path, tmp_path: Path) -> None:
    vectors = {"vectors": inputs / "texts.npy", "question_vectors": inputs / "questions.safetensors"}
    more = vectors if retrieval == "vectors" else {}
    given = config(inputs, documents=str(inputs / "notes"), retrieval=retrieval, lora=False, most=2, **more)
    summary = experiment.run(given, tmp_path / "run")
    if retrieval != "states":
        assert summary["answer_in_passages"] == 1.0


def bad(inputs: Path, tmp_path: Path, **more: Any) -> str:
    with pytest.raises(UserError) as caught:
        experiment.run(config(inputs, **more), tmp_path / "bad")
    assert not (tmp_path / "bad" / "reading").exists()
    return str(caught.value)


def test_what_cannot_work_is_refused_beforehand(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**more: Any) -> str:
        return bad(inputs, tmp_path, **more)

    notes = str(inputs / "notes")
    assert "--model" in refused(model="")
    assert "ks: must be from 1 to 4" in refused(ks=(0,))
    assert "not 5" in refused(ks=(5,))
    assert "tokens" in refused(tokens=0)
    assert "needs --documents" in refused(retrieval="words")
    assert "say how they are searched" in refused(documents=notes)
    assert "come with their own" in refused(records=inputs / "records.jsonl")
    assert "give --facts" in refused(facts=None, documents=notes, retrieval="words")
    assert "give both" in refused(documents=notes, retrieval="vectors")
    both = {"vectors": inputs / "texts.npy", "question_vectors": inputs / "texts.npy"}
    assert "holds vectors of shape [12, 5], but there are 24" in refused(documents=notes, retrieval="vectors", **both)
    assert "play no part" in refused(documents=notes, retrieval="words", **both)
    np.save(tmp_path / "wide.npy", np.zeros((24, 6), np.float32))
    both["question_vectors"] = tmp_path / "wide.npy"
    assert "have width 6, those they are compared with 5" in refused(documents=notes, retrieval="vectors", **both)
    assert "trained on entries of people" in refused(model="2x16")
    assert "between 0 and 1" in refused(train_share=0.0)
    assert "would be trained" in refused(train_share=0.01)
    assert "Zor" in refused(tokens=470)
    assert "virtual tokens" in refused(tokens=470)
    words = with_mask(zoo.ZOO["llama3"](zoo.SENTENCES))
    models.build("1x16", words, masked=True).save_pretrained(tmp_path / "masked")
    words.save_pretrained(tmp_path / "masked")
    assert "masked language model" in refused(model=str(tmp_path / "masked"))
    for package, retrieval in (("bm25s", "bm25"), ("faiss", "faiss")):
        monkeypatch.setitem(sys.modules, package, None)
        assert "engramlab[retrieval]" in refused(documents=notes, retrieval=retrieval)
