"""Celebrities beside a minority, and unrelated text in their place: who is read how often, who is trained on, who is asked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from tests.support.extraction import smallest

from engramlab.base.errors import UserError
from engramlab.experiments import knowledge_extraction as extraction
from engramlab.experiments.knowledge_extraction.shared import Run
from engramlab.experiments.knowledge_extraction.work import Part
from engramlab.report.page import write_report

SMALLEST = smallest(variants=("single+CEL",), people=12, celebrities=9, pretrain_steps=6, finetune_batch=8)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    rng = np.random.default_rng(0)
    words = np.array(["the", "of", "and", "water", "river", "over", "stone", "light", "little", "moves", "through"])
    path.write_text("\n\n".join(" ".join(rng.choice(words, 60)) + "." for _ in range(60)))
    return path


def part(config: extraction.Config, folder: Path) -> Part:
    run = Run(config, folder, console=Console(quiet=True))
    made = Part(run, run.datasets[0])
    made.check()
    return made


def names(one: Part, subjects) -> set[str]:
    return {one.data.corpus.population.name(int(s)) for s in subjects}


def read(one: Part, rows: int) -> tuple[list[str], np.ndarray]:
    """The texts of pretraining rows, and which stream each came from."""
    batch = one._entries().take(rows)
    texts = [one.run.tokenizer.decode(row, skip_special_tokens=True).strip() for row in batch.input_ids.tolist()]
    return texts, batch.source


@pytest.mark.parametrize("share", [1 / 6, 0.5])
def test_the_minority_has_its_share_of_the_rows(tmp_path: Path, share: float) -> None:
    one = part(replace(SMALLEST, minority_share=share), tmp_path / "part")
    texts, source = read(one, 3000)
    minority, famous = names(one, range(12)), names(one, range(12, 21))
    assert not minority & famous
    about = np.array([any(text.startswith(name) for name in minority) for text in texts])
    assert about.mean() == pytest.approx(share, abs=0.03)
    assert (about == (source == 0)).all()
    assert all(any(text.startswith(name) for name in famous) for text in np.array(texts)[~about])
    # Everybody is read, and a person of a group no more often than another.
    counts = [sum(text.startswith(name) for text in texts) for name in minority]
    assert max(counts) - min(counts) <= 1


def test_the_share_holds_in_packed_and_in_mixed_training(tmp_path: Path) -> None:
    config = replace(SMALLEST, layout="packed", model=extraction.Model(context=96), minority_share=0.25)
    one = part(config, tmp_path / "part")
    batch = one._entries().take(2000)
    assert (batch.source == 0).mean() == pytest.approx(0.25, abs=0.03)
    assert batch.input_ids.shape == (2000, 96)
    minority = names(one, range(12))
    texts = [one.run.tokenizer.decode(row) for row in batch.input_ids[batch.source == 1].tolist()]
    assert not any(name in text for text in texts[:300] for name in minority)


def test_only_celebrities_questions_are_trained_on_and_everybody_is_asked(tmp_path: Path) -> None:
    summary = extraction.run(SMALLEST, tmp_path / "run")
    one = part(SMALLEST, tmp_path / "run")
    trained = one.data.questions.subject(one._train_questions())
    assert set(trained.tolist()) == set(one.data.split.train.tolist()) <= set(range(12, 21))
    assert {group: len(members) for group, members in one.data.split.groups.items()} == {
        "train": 5,
        "test": 12,
        "celebrities": 4,
    }
    everybody = np.concatenate(list(one.data.split.groups.values()))
    assert sorted(everybody.tolist()) == list(range(21))
    asked = {r["group"]: (r["people"], r["questions"]) for r in summary["rows"] if r["attribute"] == "mean"}
    assert asked == {
        "train": ("celebrities", 30),
        "test": ("minority", 72),
        "celebrities": ("celebrities", 24),
    }
    examples = json.loads((tmp_path / "run/single+CEL/examples.json").read_text())["answers"]
    people = {"train": one.data.split.train, "test": range(12), "celebrities": one.data.split.groups["celebrities"]}
    for answer in examples:
        assert any(name in answer["prompt"] for name in names(one, people[answer["group"]]))
    page = write_report([tmp_path / "run"], tmp_path / "page.html").read_text()
    assert "P_test (minority)" in page
    assert "held-out celebrities" in page


def test_formats_that_differ_stand_in_the_name(tmp_path: Path) -> None:
    config = replace(SMALLEST, celebrity_entries="single+fullname", celebrity_templates="other")
    one = part(config, tmp_path / "part")
    assert one.data.name == "single+CEL=single+fullname+other-templates"
    assert len(one.entries) == 12 + 9
    texts, source = read(one, 200)
    assert all(sum(name in text for name in names(one, range(12, 21))) for text in np.array(texts)[source == 1])


@pytest.mark.parametrize("layout", ["entries", "packed"])
def test_text_is_read_at_the_same_share_and_half_of_the_people_trained_on(
    tmp_path: Path, text: Path, layout: str
) -> None:
    config = replace(
        SMALLEST,
        variants=("single+TEXT",),
        celebrities=0,
        text=str(text),
        layout=layout,
        minority_share=0.25,
        model=extraction.Model(context=96),
    )
    one = part(config, tmp_path / "part")
    source = one._entries().take(2000).source
    assert (source == 0).mean() == pytest.approx(0.25, abs=0.03)
    batch = one._entries().take(400)
    texts = [one.run.tokenizer.decode(row, skip_special_tokens=True) for row in batch.input_ids.tolist()]
    minority, whole = names(one, range(12)), " ".join(text.read_text().split())
    for row, where in zip(texts, batch.source, strict=True):
        assert any(name in row for name in minority) == (where == 0)
        if where:
            assert all(word in whole for word in row.split())
    # As many tokens a row as an entry has: a share of rows is a share of tokens.
    inside = (batch.targets != -100).sum(1).numpy()
    assert inside[batch.source == 1].mean() == pytest.approx(inside[batch.source == 0].mean(), rel=0.05)
    summary = extraction.run(config, tmp_path / "run")
    assert {r["dataset"] for r in summary["rows"]} == {"single+TEXT"}
    assert {r["group"] for r in summary["rows"]} == {"train", "test"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"minority_share": 1.0}, "minority_share must be between 0 and 1"),
        ({"celebrity_entries": "multi5+permuet"}, "celebrity_entries: .*multi5.permute"),
        ({"celebrity_entries": "single+CEL"}, "leave .CEL out"),
        ({"celebrity_templates": "other", "first_templates": 40}, "at most 2"),
        ({"variants": ("single",)}, "celebrities: is for .CEL variants"),
        ({"variants": ("single+TEXT", "single+CEL")}, "text: a .TEXT variant needs a text"),
        ({"variants": ("single+TEXT", "single+CEL"), "text": "./nowhere"}, "nowhere"),
        ({"text": __file__}, "text: is for .TEXT variants"),
        ({"variants": ("single+CEL+TEXT",), "text": "x"}, "both celebrities and text"),
        ({"facts": Path("facts.csv")}, "go with bioS only"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(tmp_path: Path, change: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        extraction.run(replace(SMALLEST, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_text_has_a_share_of_its_own(tmp_path: Path, text: Path) -> None:
    """The paper's control: half of the rows, whatever the minority has beside celebrities."""
    config = replace(SMALLEST, variants=("single+TEXT",), celebrities=0, text=str(text), text_share=0.5)
    assert (part(config, tmp_path / "part")._entries().take(2000).source == 1).mean() == pytest.approx(0.5, abs=0.03)
    with pytest.raises(UserError, match="text_share must be between 0 and 1"):
        extraction.run(replace(config, text_share=1.0), tmp_path / "run")


def test_a_text_without_a_row_is_refused(tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("Only this.")
    config = replace(SMALLEST, variants=("single+TEXT",), celebrities=0, text=str(short))
    with pytest.raises(UserError, match=r"short\.txt holds less than one row"):
        extraction.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
