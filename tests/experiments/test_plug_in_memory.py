"""The plug-in memory through the whole experiment, as small as it runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from tests.support.tiny_runs import RUNS

from engramlab.base.errors import UserError
from engramlab.core import models
from engramlab.core.training.loop import Recipe
from engramlab.corpora.people import Pools
from engramlab.experiments import plug_in_memory as plug
from engramlab.experiments.plug_in_memory import asking
from engramlab.experiments.plug_in_memory.exchanging import Exchange, exchange
from engramlab.experiments.plug_in_memory.shared import Run
from engramlab.experiments.plug_in_memory.work import Part, Texts

SMALLEST = replace(
    plug.PRESETS["tiny"],
    people=20,
    pools=Pools(birth_years=2, birth_cities=3, universities=3, majors=3, companies=3),
    first_templates=2,
    exchanged=3,
    model=plug.Model("2x16", context=160),
    memory=plug.Memory(top=2, refresh=2),
    recipe=Recipe(steps=2, batch=8),
    bare=False,
)


@pytest.fixture
def started(tmp_path: Path) -> tuple[Run, Texts]:
    run = Run(SMALLEST, tmp_path / "run", console=Console(quiet=True))
    return run, Texts(run, run.data)


def test_what_is_reported(tmp_path: Path) -> None:
    summary = RUNS["plug-in memory"](tmp_path, tmp_path / "run")
    means = [row for row in summary["rows"] if row["attribute"] == "mean"]
    seen = {(row["network"], row["when"], row["group"]) for row in means}
    assert {(n, w) for n, w, _ in seen} == {("memory", w) for w in ("as trained", "added", "emptied")} | {
        ("bare", "as trained")
    }
    assert {group for *_, group in seen} == {"train", "test", "unseen"}
    found = {(row["network"], row["when"], row["group"]) for row in means if "hit" in row}
    assert ("memory", "as trained", "test") in found
    assert ("memory", "as trained", "unseen") not in found, "their documents are not there"
    assert ("memory", "added", "unseen") in found
    assert not any(when == "emptied" for _, when, _ in found)
    assert [row["change"] for row in summary["changes"]] == ["documents exchanged", "documents added"]
    model, _ = models.load(str(tmp_path / "run" / "memory" / "model"))
    assert len(model.memory) == summary["documents"], "kept as it was trained, before anything was changed"


def test_everybody_is_in_one_group_and_nothing_is_read_of_the_unseen(started: tuple[Run, Texts]) -> None:
    _, texts = started
    members = np.concatenate([*texts.groups.values()])
    assert sorted(members.tolist()) == list(range(20))
    assert len(texts.groups["unseen"]) == 4
    assert not np.isin(texts.data.corpus.subject(texts.read), texts.groups["unseen"]).any()
    names = [texts.data.corpus.population.name(int(s)) for s in texts.known]
    documents = texts.run.tokenizer.batch_decode(texts.documents(texts.known))
    assert all(name in text for name, text in zip(names, documents, strict=True))


def test_an_entry_that_is_a_document_is_left_out_and_no_other(started: tuple[Run, Texts]) -> None:
    run, texts = started
    part = Part(run, texts, "memory")
    numbers = part._number_of_entry
    for entry in range(len(texts.data.corpus)):
        if numbers[entry] >= 0:
            assert texts.document[texts.known[numbers[entry]]] == entry
    assert (numbers >= 0).sum() == len(texts.known)
    stream, noted = texts.stream()
    batch = stream.take(16)
    assert len(noted.numbers) == (batch.source == 0).sum()
    rows = texts.entries.tokens(noted.numbers)
    for row, i in zip(np.flatnonzero(batch.source == 0), range(len(rows)), strict=True):
        same = batch.input_ids[row].numpy()[len(run.start) :][: len(rows.row(i))] == rows.row(i)
        assert same.mean() > 0.5, "the words hidden apart it is the entry of that number"


def test_documents_are_exchanged_and_put_back(started: tuple[Run, Texts]) -> None:
    run, texts = started
    model = run.first_model().eval()
    model.memory.fill(texts.documents(texts.known), model.get_input_embeddings())
    before = model.memory.tokens.clone(), model.memory.offsets.clone()
    everybody = texts.asked()
    made = Exchange.drawn(texts.data, texts.groups["test"], 3, 0)
    assert len(set(made.subjects.tolist())) == 3
    for subject, a, value in zip(made.subjects.tolist(), made.attributes.tolist(), made.values, strict=True):
        assert value != texts.data.corpus.population.value(subject, a)
    row = exchange(model, run, texts, made, everybody, asking.ask(model, everybody))
    assert all(torch.equal(a, b) for a, b in zip(before, (model.memory.tokens, model.memory.offsets), strict=True))
    assert row["documents"] == 3
    assert all(example["before"] != example["after"] for example in row["examples"])


def test_found_documents_are_those_of_a_row_alone(started: tuple[Run, Texts]) -> None:
    run, texts = started
    model = run.first_model().eval()
    model.memory.fill(texts.documents(texts.known), model.get_input_embeddings())
    everybody = texts.asked()
    together = asking.retrieved(model, everybody.encoded)
    for i in (0, 17, 40):
        one = everybody.take(np.arange(len(together)) == i)
        assert np.array_equal(asking.retrieved(model, one.encoded)[0], together[i])


def test_the_causal_variant_runs(tmp_path: Path) -> None:
    config = replace(SMALLEST, model=replace(SMALLEST.model, objective="causal"))
    summary = plug.run(config, tmp_path / "run", console=Console(quiet=True))
    assert summary["objective"] == "causal"
    assert any("hit" in row for row in summary["rows"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"memory": plug.Memory(top=16)},
            "memory.top: 16 documents a row are to be read, and the memory would hold 16",
        ),
        ({"memory": plug.Memory(top=0)}, "memory.top must be at least 1, not 0"),
        ({"memory": plug.Memory(layers=(2,))}, r"memory.layers must be between 0 and 1, not \(2,\)"),
        ({"recipe": Recipe(batch=1)}, "recipe.batch must be at least 2, for the queries"),
        ({"unseen": 1.0}, "unseen must be between 0 and 1"),
        ({"people": 3, "unseen": 0.01}, "unseen: nobody is left for the group unseen"),
        ({"model": plug.Model("2x16", context=20)}, "model.context: 20 tokens are fewer than a row has"),
        ({"variant": "single+CEL"}, r"variant: single\+CEL has others beside the people"),
        ({"model": plug.Model("owner/name")}, "owner/name is no size"),
    ],
)
def test_what_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        plug.run(replace(SMALLEST, **change), tmp_path / "run", console=Console(quiet=True))
    assert not (tmp_path / "run").exists()
