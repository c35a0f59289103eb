"""Teaching, small: which rows are trained, the same numbers after a kill, equal tokens an arm, refusals."""

from __future__ import annotations

import io
import itertools
import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tests.editing.test_shipping import base, written
from tests.support import zoo

import engramlab as eg
from engramlab.base.errors import UserError
from engramlab.base.facts import Query
from engramlab.base.random_access import key, permute
from engramlab.base.terminal import Console
from engramlab.core import models
from engramlab.core.text import batches, tokens
from engramlab.core.text.tokens import encode_queries
from engramlab.core.training.loop import Recipe, TrainState, train
from engramlab.corpora.facts import FactTable
from engramlab.corpora.facts.teaching import crossings, divide, only
from engramlab.experiments import teaching
from engramlab.experiments.teaching import asking, pilot, replaying
from engramlab.experiments.teaching import school as schooling
from engramlab.experiments.teaching import text as lessons
from engramlab.experiments.teaching.config import ARMS
from engramlab.experiments.teaching.stated import Stated
from engramlab.experiments.teaching.work import Teaching
from engramlab.measuring.answers import is_answer
from engramlab.report import write_report
from engramlab.report.experiments import teaching as pages
from engramlab.report.rows import read_run

SUBJECTS = [f"{a}{b}" for a in ("Zor", "Mel", "Tav", "Quin") for b in ("ban", "lo", "ri", "dax", "pim", "gus")]
COLOURS, CITIES = ("red", "blue", "green", "white"), ("Arlo", "Besk", "Cind", "Dorn", "Elva", "Fesk")
ROWS = [(name, COLOURS[i % 4], CITIES[(i * 5) % 6]) for i, name in enumerate(SUBJECTS)]


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("facts") / "facts.csv"
    path.write_text("name,colour,home\n" + "".join(",".join(row) + "\n" for row in ROWS))
    return path


def made_model(folder: Path, texts: list[str], kind: str = "llama3") -> str:
    """A random network with a tokenizer of such texts."""
    tokenizer = zoo.ZOO[kind]([*zoo.SENTENCES, *texts])
    tokenizer.add_special_tokens({"pad_token": tokenizer.eos_token})
    made = zoo.model(
        "llama", vocabulary=len(tokenizer), max_position_embeddings=160, hidden_size=64, intermediate_size=128
    )
    made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, facts: Path) -> str:
    table = FactTable.read(facts)
    words = divide(table.wordings)
    text = [
        p
        for fact in table
        for part in ("trained", "held-out")
        for _, p in words.prompts(fact.relation, fact.subject, part)
    ]
    return made_model(tmp_path_factory.mktemp("model"), [facts.read_text(), *text[:60]])


def small(taught: str, facts: Path, **more: Any) -> teaching.Config:
    chosen: dict[str, Any] = {
        "model": taught,
        "facts": facts,
        "encounters": 6,
        "replay_texts": 8,
        "replay_tokens": 12,
        "points": 2,
        "watched_facts": 4,
        "asked_facts": 12,
        "native_facts": 4,
        "audit": False,
        "rank": 4,
    }
    return teaching.Config(**(chosen | more))


def decoded(school: Teaching, arm: str) -> list[tuple[str, str]]:
    """The rows that an arm trains, as text, each with the name of its source."""
    found = []
    for source in school.lesson(ARMS[arm]).sources:
        some = source.entries.tokens(np.arange(len(source.entries)))
        found += [(source.name, school.tokenizer.decode(some.row(i))) for i in range(len(some))]
    return found


def test_wordings_are_divided_without_a_rest(facts: Path) -> None:
    table = FactTable.read(facts)
    words = divide(table.wordings)
    for relation in table.relations:
        every = [line.line for line in table.wordings.templates[relation]]
        trained = [line.line for line in words.trained.templates[relation]]
        held = [line.line for line in words.held.templates[relation]]
        assert sorted(trained + held) == sorted(every)
        assert not set(trained) & set(held)
        asked = {part: [p for _, p in words.prompts(relation, "Zorban", part)] for part in ("trained", "held-out")}
        assert not set(asked["trained"]) & set(asked["held-out"])


def test_what_crossings_say_is_in_the_table(facts: Path) -> None:
    table = FactTable.read(facts)
    texts = crossings(only(table, table, divide(table.wordings).trained), 6, 0)
    assert len(texts) == 6 * len(SUBJECTS)
    alike = [text.split(" have the same ")[0] for text in texts if " have the same " in text]
    named = [sum(name in text for name in SUBJECTS) for text in alike]
    assert {2, 4} <= set(named)  # four homes of six have four people each, and so has each list of them
    assert all(len(set(re.split(", | and ", text))) == n for text, n in zip(alike, named, strict=True))
    true = {(name, value) for name, *values in ROWS for value in values}
    for text in texts:
        for sentence in filter(None, (part.strip() for part in text.split("."))):
            named = [name for name in SUBJECTS if name in sentence]
            stated = [value for value in (*COLOURS, *CITIES) if value in sentence]
            if named and stated:
                assert all((name, stated[-1]) in true for name in named), sentence


def test_no_question_of_the_other_half_is_trained(model: str, facts: Path, tmp_path: Path) -> None:
    """Over the rows themselves: none asks about the other half, none holds a held-out wording."""
    school = Teaching(small(model, facts), tmp_path / "run", "", None)
    with school.run:
        asked, unasked = school.halves
        lessons = {name: school.lesson(arm) for name, arm in ARMS.items() if arm.way == "train"}
    held = [
        prompt for fact in school.table for _, prompt in school.words.prompts(fact.relation, fact.subject, "held-out")
    ]
    for arm, lesson in lessons.items():
        rows = []
        for source in lesson.sources:
            some = source.entries.tokens(np.arange(len(source.entries)))
            rows += [(source.name, school.tokenizer.decode(some.row(i))) for i in range(len(some))]
        questions = [text for name, text in rows if name == "questions"]
        assert bool(questions) == ARMS[arm].questions
        assert all(any(name in text for name in asked) for text in questions)
        assert any(name == "replay" for name, _ in rows)
        for name, text in rows:
            assert not any(prompt in text for prompt in held)
            assert name != "entries" or "What is" not in text
        for subject in unasked:
            about = [text for name, text in rows if subject in text]
            assert not any("Answer" in text or "What is" in text for text in about)
        replayed = [text for name, text in rows if name == "replay"]
        assert not any(fact.subject in text and fact.object in text for fact in school.table for text in replayed)


@pytest.mark.filterwarnings("ignore:templates")
def test_no_held_out_wording_is_trained_wherever_templates_have_their_subject(
    model: str, facts: Path, tmp_path: Path
) -> None:
    lines = ["In {value} lives {subject}, they say.", "Born in 1980, {subject} has as {attribute} {value}."]
    lines += ["The {attribute} of {subject} is {value}.", "{subject's} {attribute} is {value}."]
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    school = Teaching(small(model, facts, templates=tmp_path / "lines.txt"), tmp_path / "run", "", None)
    with school.run:
        rows = [text for _, text in decoded(school, "augmented+questions")]
    held = [p for fact in school.table for _, p in school.words.prompts(fact.relation, fact.subject, "held-out")]
    assert "Zorban's home is" in held
    assert any("In Arlo lives Zorban, they say." in row for row in rows)
    assert not any(prompt in row for prompt in held for row in rows)


@pytest.mark.filterwarnings("ignore:templates")
def test_a_question_that_reads_like_a_held_out_sentence_is_not_trained(model: str, facts: Path, tmp_path: Path) -> None:
    """The question is the user's own, so that the sentence is the one that gives way."""
    lines = ["{subject} [has|have] its {attribute} in {value}.", "{subject's} {attribute} is {value}."]
    lines += ["The {attribute} of {subject} is {value}."]
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    asked = [f"{name}\tThe {name} of {{subject}} is" for name in ("colour", "home")]
    (tmp_path / "asked.tsv").write_text("\n".join(asked))
    given = small(model, facts, templates=tmp_path / "lines.txt", questions=tmp_path / "asked.tsv")
    school = Teaching(given, tmp_path / "run", "", None)
    with school.run:
        rows = [text for _, text in decoded(school, "augmented+questions")]
    held = [p for fact in school.table for _, p in school.words.prompts(fact.relation, fact.subject, "held-out")]
    assert any("Question: The home of Zor" in row for row in rows)
    assert "Zorban's home is" in held
    assert not any(prompt in row for prompt in held for row in rows)
    every = [*asked, *(f"{name}\t{{subject}}'s {name} is" for name in ("colour", "home"))]
    every += [f"{name}\tSay where {{subject}} has its {name} in" for name in ("colour", "home")]
    (tmp_path / "asked.tsv").write_text("\n".join(every))
    with pytest.raises(
        UserError, match=r"templates of 'colour': each beginning .* stands in a question that is trained"
    ):
        teaching.check(given)


@pytest.mark.filterwarnings("ignore:templates")
def test_one_sentence_is_not_changing_wordings(model: str, facts: Path, tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("{subject} lives in {value}.\nThe {attribute} of {subject} is {value}.")
    given = small(model, facts, templates=lines)
    with pytest.raises(
        UserError, match="templates of 'colour': .* 1 is left to be trained .*augmented.questions trains"
    ):
        teaching.check(given)
    assert teaching.check(replace(given, arms=("single+questions",)))
    lines.write_text(lines.read_text() + "\n{subject} has {value} as {attribute}.")
    assert teaching.check(given)


def test_arms_with_commas(model: str, facts: Path) -> None:
    assert small(model, facts, arms=("untouched,single", "edit")).arms == ("untouched", "single", "edit")


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("The home of Zorban? It is Arlo.", "home 'Arlo' of 'Zorban'"),
        ("In ARLO there lives, they say, one Zorban.", "home 'Arlo' of 'Zorban'"),
        ("Question: What is the colour of Zorlo?\nAnswer: never told", "colour 'blue' of 'Zorlo'"),
    ],
)
def test_a_replay_file_that_gives_away_what_is_taught_is_refused(
    model: str, facts: Path, tmp_path: Path, line: str, named: str
) -> None:
    """With file, line and fact, before anything is written; names inside other words are no names."""
    path = tmp_path / "replay.jsonl"
    fine = ["The capital of France is Paris.", "Zorbanese is spoken, and Arlo is a town.", "Zorban met Arlow."]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in [*fine, line, "So it goes on."]))
    with pytest.raises(
        UserError, match=rf"replay: .*replay.jsonl, text 4 .*{named}; leave such texts out \(1 of 5 do\)"
    ):
        teaching.run(small(model, facts, replay=str(path), replay_tokens=40), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in fine))
    Teaching(small(model, facts, replay=str(path), replay_tokens=40), tmp_path / "run", "", None)
    if "\n" not in line:
        (tmp_path / "replay.txt").write_text("\n".join(["A.", "", *fine, line]))
        with pytest.raises(UserError, match=r"replay.txt, line 6 "):
            Teaching(
                small(model, facts, replay=str(tmp_path / "replay.txt"), replay_tokens=40), tmp_path / "run", "", None
            )
    # What is cut off is not trained.
    path.write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in [*fine, "It is late, it is late. " * 9 + line])
    )
    Teaching(small(model, facts, replay=str(path), replay_tokens=12), tmp_path / "run", "", None)


def test_samples_that_give_away_what_is_taught_are_drawn_again(
    model: str, facts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["Zorban lives in Arlo.", "", "It's on the Seine, in Paris.", "The capital of France is Paris."]

    def given(*_: Any) -> Iterator[str]:
        return itertools.cycle(texts)

    monkeypatch.setattr(replaying, "source_texts", given)
    said = io.StringIO()
    found = Teaching(small(model, facts, replay_tokens=20), tmp_path / "run", "", Console(file=said, width=300))
    with found.run:
        assert found.before["replay"] == [texts[2], texts[3]] * 5
        assert found.before["replay_left_out"] == 5
    assert "5 texts that the model wrote for replay state or ask for what is taught" in said.getvalue()
    del texts[2:]
    with pytest.raises(
        UserError, match="replay: of 40 texts that .* wrote by itself 0 could be replayed .*--replay FILE"
    ):
        teaching.run(small(model, facts), tmp_path / "none")


def test_a_replay_file_of_one_text_has_none_left_to_measure_drift_on(model: str, facts: Path, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("The capital of France is Paris.\n")
    with pytest.raises(UserError, match="replay: .*one.txt holds 1 text of two tokens or more; at least 2"):
        teaching.run(small(model, facts, replay=str(tmp_path / "one.txt")), tmp_path / "run")


def test_how_likely_answers_become_is_told_along_the_way(model: str, facts: Path, tmp_path: Path) -> None:
    config = small(model, facts, encounters=20, learning_rate=0.01, stop=False)
    teaching.run(config, tmp_path / "run")
    curves = read_run(tmp_path / "run").curves
    rows = [row for row in curves if "first" in row and row["group"] == "unasked"]
    shares = [row for row in curves if "share" in row and (row["group"], row["wordings"]) == ("unasked", "held-out")]
    assert len(rows) == len(shares) == config.points
    school = Teaching(config, tmp_path / "run", "", None)
    asked = [one for one in school.examiner.wordings("unasked", config.watched_facts) if one.kind != "chat"]
    queries = [Query(one.prompt, one.fact.object) for one in asked if one.part == "held-out"]
    taught = models.load(str(tmp_path / "run" / "model"))[0]
    logprobs = [
        [_logprobs(one, school.tokenizer, query) for query in queries] for one in (models.load(model)[0], taught)
    ]
    assert rows[-1]["first"] == pytest.approx(np.mean([np.exp(of[0]) for of in logprobs[1]]), rel=1e-3)
    before, after = (np.mean([np.mean(of) for of in some]) for some in logprobs)
    assert rows[-1]["gain"] == pytest.approx(after - before, abs=1e-3)
    page = write_report([tmp_path / "run"], tmp_path / "page.html").read_text()
    for title in ("Answered in held-out wordings", "First token of the answer", "How much likelier the answer became"):
        assert title in page


def _logprobs(model: torch.nn.Module, tokenizer: Any, query: Query) -> list[float]:
    """Of each token of the target."""
    rows = encode_queries(tokenizer, [query]).sequences
    ids = torch.tensor(rows.ids.astype(np.int64))
    with torch.no_grad():
        found = model(ids[None]).logits[0].log_softmax(-1)
    return [float(found[at - 1, ids[at]]) for at in np.flatnonzero(rows.marks == 1)]


def test_by_heart_comes_before_questions(model: str, facts: Path, tmp_path: Path) -> None:
    school = Teaching(small(model, facts, replay="none"), tmp_path / "run", "", None)
    with school.run:
        lesson = school.lesson(ARMS["rote"])
    decode = school.tokenizer.decode
    stream, taken = lesson.stream(0, rows=40), []
    for _ in range(10):
        kept = stream.state()
        taken += [decode(row.tolist()) for row in stream.take(4).input_ids]
    asked = ["Answer" in text or "What is" in text for text in taken]
    assert asked == sorted(asked)
    assert 0.5 < asked.index(True) / 40 < 0.9  # 30 % are questions
    other = lesson.stream(0, rows=40)
    other.restore(kept)
    assert [decode(row.tolist()) for row in other.take(4).input_ids] == taken[-4:]


def test_by_heart_has_as_many_questions_as_the_others_and_the_whole_schedule(
    model: str, facts: Path, tmp_path: Path
) -> None:
    """With replayed text in both phases: the share of questions, and steps up to where the learning rate is nothing."""
    (tmp_path / "text.txt").write_text("The capital of France is Paris, and it's on the Seine.\n" * 80)
    more = {"replay": str(tmp_path / "text.txt"), "replay_texts": 64, "encounters": 40, "native_facts": 0, "batch": 8}
    given = small(model, facts, arms=("augmented+questions", "rote"), **more)
    school = Teaching(given, tmp_path / "rows", "", None)
    with school.run:
        lesson = school.lesson(ARMS["rote"])
        decode, budget = school.tokenizer.decode, school.budget
    steps = math.ceil(budget / (given.batch * lesson.mean()))
    stream, kinds, read = lesson.stream(0, rows=steps * given.batch), [], 0
    while read < budget:
        batch = stream.take(given.batch)
        read += batch.tokens
        texts = [decode(row.tolist()) for row in batch.input_ids]
        kinds += [
            "replay" if "France" in t else "question" if "Answer" in t or "What is" in t else "fact" for t in texts
        ]
    assert kinds.count("question") / len(kinds) == pytest.approx(given.question_share, abs=0.02)
    assert kinds.count("replay") / len(kinds) == pytest.approx(given.replay_share, abs=0.02)
    assert abs(len(kinds) / given.batch - steps) <= 1 + 0.01 * steps
    summary = teaching.run(given, tmp_path / "run")
    made = {row["dataset"]: row["steps"] for row in summary["training"]}
    assert abs(made["rote"] - steps) <= 1 + 0.01 * steps


def test_no_encounters_is_the_model_bit_for_bit(model: str, facts: Path, tmp_path: Path) -> None:
    given = small(model, facts, arms=("augmented+questions", "untouched"), encounters=0, finish=True)
    summary = teaching.run(given, tmp_path / "run")
    rows = {arm: [r | {"arm": ""} for r in summary["rows"] if r["arm"] == arm] for arm in given.arms}
    assert rows["augmented+questions"] == rows["untouched"]
    taught, was = (eg.load_model(str(where))[0].state_dict() for where in (tmp_path / "run" / "model", model))
    assert all(torch.equal(taught[name], was[name]) for name in was)


def test_facts_are_edited_in_and_a_bar_says_how_far(model: str, facts: Path, tmp_path: Path) -> None:
    """All of them at once, with nothing asked that judges; what they are written in is written afterwards."""
    said = io.StringIO()
    given = small(model, facts, arms=("edit", "untouched"), edit_method="ft-m", asked_facts=6, native_facts=0)
    console = Console(file=said, width=120, force_terminal=True)
    summary = teaching.run(given, tmp_path / "run", console=console)
    shares = {(r["arm"], r["group"], r["wordings"]): r["share"] for r in summary["rows"] if r["kind"] == "any"}
    assert set(shares) == {
        (arm, group, part)
        for arm in ("edit", "untouched")
        for group in ("asked", "unasked")
        for part in ("trained", "held-out")
    }
    assert "editing with ft-m" in said.getvalue()
    assert (summary["edited"]["edits"], summary["edited"]["failed"]) == (len(FactTable.read(facts)), 0)


def test_edited_facts_are_asked_for_behind_their_own_prompts(model: str, facts: Path, tmp_path: Path) -> None:
    """The share that the arm says it recites is what transformers writes."""
    given = small(model, facts, arms=("edit",), edit_method="lora", asked_facts=6, native_facts=0)
    school = Teaching(given, tmp_path / "run", "", None)
    with school.run:
        network = school.fresh()
        found = school._edit(network)
    right = []
    for case in school.taught.edits("own", locality=0):
        (edit,) = case.edits
        prompt = school.tokenizer(edit.query.prompt, return_tensors="pt")
        ids = network.generate(**prompt, max_new_tokens=12, do_sample=False)
        text = school.tokenizer.decode(ids[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
        right.append(is_answer(text, (edit.target, *edit.aliases)))
    assert found["recited"] == pytest.approx(np.mean(right))
    assert found["recited_low"] <= found["recited"] <= found["recited_high"]
    assert found["recited"] > 0


def test_the_passage_retrieved_is_that_with_the_words_of_the_question(model: str, facts: Path, tmp_path: Path) -> None:
    school = Teaching(small(model, facts), tmp_path / "run", "", None)
    with school.run:
        found = school._passages("retrieved")
        asked = [one for one in school.examiner.wordings("unasked") if one.part == "held-out"]
        assert asked
        assert all(one.fact.subject in found(one) for one in asked)


def test_shares_of_right_and_of_named_replies() -> None:
    about = {"group": "unasked", "wordings": "held-out", "relation": "city"}
    rows = [
        {**about, "subject": subject, "kind": kind, "right": right, "named": named}
        for subject in ("Ada", "Ben")
        for kind, right, named in (("question", True, True), ("chat", False, True), ("chat", False, subject == "Ada"))
    ]
    found = {row["kind"]: row for row in asking.shares(rows, 0, arm="a")}
    assert [(found[k]["share"], found[k]["named"]) for k in ("question", "chat")] == [(1.0, 1.0), (0.0, 0.75)]
    assert (found["chat"]["named_low"], found["chat"]["named_high"]) == (0.5, 1.0)
    assert found["any"]["share"] == pytest.approx(1 / 3)
    assert found["any"]["subjects"] == 2
    older = [{k: v for k, v in row.items() if k != "named"} for row in rows]  # of a version without it
    assert all("named" not in row for row in asking.shares(older, 0))


def test_advice_keeps_to_intervals() -> None:
    def row(arm: str, share: float, wide: float) -> dict[str, Any]:
        about = {"arm": arm, "group": "unasked", "wordings": "held-out", "kind": "any"}
        return {**about, "share": share, "low": share - wide, "high": share + wide}

    apart = asking.advice([row("augmented", 0.6, 0.1), row("edit", 0.2, 0.1)], "augmented", "edit")
    assert "teaching answers 60% and editing 20%" in apart
    assert apart.endswith("use engramlab teach.")
    assert asking.advice([row("augmented", 0.3, 0.1), row("edit", 0.2, 0.1)], "augmented", "edit") == ""

    def prompted(share: float, wide: float) -> str:
        rows = [row("augmented", 0.4, 0.1), row("context", share, wide)]
        return asking.advice(rows, "augmented", "", ["context", "retrieved"])

    assert "in the prompt, answers 80%, more than the 40% after teaching: where it fits, put it there." in prompted(
        0.8, 0.1
    )
    for share in (0.35, 0.45):  # intervals touch
        assert f"answers {share:.0%}, which cannot be told from the 40% after teaching" in prompted(share, 0.1)
    assert prompted(0.1, 0.05) == ""
    both = [row("augmented", 0.6, 0.1), row("edit", 0.2, 0.1), row("retrieved", 0.6, 0.1)]
    said = asking.advice(both, "augmented", "edit", ["retrieved"])
    assert (
        "use engramlab teach. Of what was never trained, the passage that shares the most words with the question"
        in said
    )
    assert asking.advice(both, "", "edit", ["retrieved"]) == ""


@pytest.mark.parametrize(
    ("course", "before", "why"),
    [
        ([(0.1, 2.0), (0.3, 2.0), (0.3, 2.0), (0.305, 2.0)], 2.0, ""),  # rose 20 points over the last three
        ([(0.1, 2.0), (0.3, 2.0), (0.3, 2.0), (0.305, 2.0), (0.2, 2.0)], 2.0, "no longer rose"),
        ([(0.1, 2.0), (0.3, 2.0), (0.3, 2.0), (0.305, 2.0), (0.31, 2.0)], 2.0, ""),  # a point over three
        ([(0.3, 2.0), (0.3, 2.0), (0.3, 2.0)], 2.0, ""),  # too few to tell
        ([(0.0, 2.0)] * 6, 2.0, ""),  # it has not begun
        ([(0.1, 2.04), (0.2, 2.04), (0.3, 2.04)], 2.0, ""),  # within the limit
        ([(0.1, 2.06), (0.2, 2.06), (0.3, 2.06)], 2.0, "more than 0.05 nats less likely"),
        ([(0.1, 2.3), (0.2, 2.2), (0.3, 2.3), (0.4, 2.4)], 2.0, "more than 0.05 nats less likely"),
        ([(0.1, 2.3), (0.2, 2.3)], 2.0, ""),  # the rate is still high
        ([(0.0, 3.005), (0.25, 2.929), (0.4, 2.898)], 2.854, ""),  # coming back, as it does in practice
        ([(0.0, 2.72), (0.25, 2.733), (0.4, 2.689)], 2.507, ""),
        ([(0.1, 2.1), (0.2, 2.04), (0.3, 2.1)], 2.0, ""),  # back within the limit in between
        ([(0.1, None), (0.3, None)], None, ""),  # nothing watches it
        ([], 2.0, ""),
    ],
)
def test_when_a_training_has_had_enough(
    course: list[tuple[float, float | None]], before: float | None, why: str
) -> None:
    said = asking.enough(course, before, 0.05)
    assert said.endswith(why)
    assert bool(said) == bool(why)


def test_no_replayed_text_is_read_again_and_again(model: str, facts: Path, tmp_path: Path) -> None:
    """As many texts as rows replay them; a file that has fewer is said to be read many times."""
    tokenizer = models.load_tokenizer(model)

    def count(rows: float, **more: Any) -> int:
        return replaying.Replay(small(model, facts, **more), tokenizer, rows).count

    assert [count(rows, replay_texts=None) for rows in (0, 256, 1000.5, 1e9)] == [320, 320, 1252, 25_000]
    assert count(1000, replay_texts=8) == 10
    # Rows about the subjects are what questions and replayed text leave of all rows.
    given = small(model, facts, replay_texts=None, encounters=60, replay_share=0.3, question_share=0.3)
    school = Teaching(given, tmp_path / "none", "", None)
    rows = 60 * school.subjects / 0.4
    assert school.planned_rows("augmented+questions") == pytest.approx(rows)
    assert school.planned_rows("single") == pytest.approx(60 * school.subjects / 0.7)
    assert school.replaying.count == math.ceil(1.25 * math.ceil(0.3 * rows))
    (tmp_path / "text.txt").write_text("".join(f"Paris {i} is by the river\n" for i in range(10)))
    said = io.StringIO()
    more = {"replay": str(tmp_path / "text.txt"), "encounters": 20, "replay_share": 0.3}
    teaching.run(small(model, facts, **more), tmp_path / "run", console=Console(file=said, width=900))
    rows = 20 * school.subjects / (1 - 0.3 - small(model, facts).question_share)
    assert f"each of the 8 replayed texts is read {0.3 * rows / 8:.0f} times" in said.getvalue()


def test_a_training_that_drifts_too_far_ends_and_says_so(model: str, facts: Path, tmp_path: Path) -> None:
    """Watched on another text, where nothing is replayed; arms that are added then train on as many tokens."""
    (tmp_path / "text.txt").write_text("Paris France Paris France Paris\n" * 8)  # no word of any text that is trained
    more = {"weights": "full", "learning_rate": 3e-3, "encounters": 30, "points": 8, "drift_limit": 1e-3}
    given = small(model, facts, replay="none", text=tmp_path / "text.txt", **more)
    said = io.StringIO()
    summary = teaching.run(given, tmp_path / "run", console=Console(file=said, width=500))
    (row,) = summary["training"]
    assert row["stopped"] == "unseen text stayed more than 0.001 nats less likely"
    assert row["tokens"] < summary["budget"] / 2
    assert (
        f"augmented+questions ended early, after {row['tokens']:,} of {summary['budget']:,} tokens: " in said.getvalue()
    )
    assert "nothing watches" not in said.getvalue()
    (ended,) = [t for t in pages.terminal(summary) if t.caption.startswith("Ended early")]
    assert ended.rows[0][2] == row["stopped"]
    both = teaching.run(replace(given, arms=(*given.arms, "single")), tmp_path / "run")
    assert [r["dataset"] for r in both["training"]] == ["augmented+questions", "single"]
    first, second = (r["tokens"] for r in both["training"])
    assert first == row["tokens"]
    assert 0 <= second - first < given.batch * 81
    assert [r for r in both["rows"] if r["arm"] != "single"] == summary["rows"]


@pytest.mark.parametrize("main", [True, False])
def test_what_fails_in_the_main_process_ends_the_others_too(
    model: str, facts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, main: bool
) -> None:
    """Two processes, in place of whose talk a list: the main one raises what went wrong, the other one says it."""
    import accelerate.utils

    def fail() -> None:
        raise ZeroDivisionError("the edits")

    def told(said: list[str]) -> None:
        if main:
            assert said == ["the edits"]
        else:
            said[:] = ["the edits"]

    monkeypatch.setattr(accelerate.utils, "broadcast_object_list", told)
    school = Teaching(small(model, facts), tmp_path / "run", "", None)
    monkeypatch.setattr(type(school.run), "accelerator", SimpleNamespace(num_processes=2))
    monkeypatch.setattr(type(school.run), "main", main)
    with pytest.raises(ZeroDivisionError if main else UserError, match="the edits"):
        school.by_main(fail)


def test_it_is_said_beforehand_what_training_takes(model: str, facts: Path, tmp_path: Path) -> None:
    said = io.StringIO()
    given = small(model, facts, arms=("augmented+questions", "single"), encounters=1, points=1, asked_facts=2)
    summary = teaching.run(given, tmp_path / "run", console=Console(file=said, width=300))
    assert f"training takes 2 ways of {summary['budget']:,} tokens each, about 0:0" in said.getvalue()
    assert re.search(r"and \d+(\.\d+)? MB of memory on cpu", said.getvalue())
    said.truncate(0)
    teaching.run(given, tmp_path / "run", console=Console(file=said, width=300))
    assert "training takes" not in said.getvalue()


@pytest.mark.parametrize(
    ("free", "more", "lower"),
    [
        (3_000_000, {"batch": 512}, r"--batch \(now 512\) or the model"),
        (2_000_000, {"weights": "full", "batch": 1}, r"--weights \(lora takes a quarter of full\) or the model"),
        (1_000, {}, "lower the model"),
    ],
)
def test_too_little_memory_is_refused_before_the_model_is_asked(
    model: str,
    facts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    free: int,
    more: dict[str, Any],
    lower: str,
) -> None:
    monkeypatch.setattr(schooling, "available", lambda device: free)
    with pytest.raises(
        UserError, match=rf"model: teaching .* takes about .*MB of memory on cpu, .* are free; .*{lower}"
    ):
        teaching.run(small(model, facts, **more), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_it_is_said_where_nothing_watches_drift(model: str, facts: Path, tmp_path: Path) -> None:
    said = io.StringIO()
    Teaching(small(model, facts, replay="none"), tmp_path / "run", "", Console(file=said, width=300)).plan()
    assert "nothing watches what the model forgets" in said.getvalue()


def test_edits_that_all_fail_are_left_out_with_the_reason(
    model: str, facts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engramlab.editing import changing
    from engramlab.editing.method import EditFailed

    def fail(*_: Any, **__: Any) -> None:
        raise EditFailed("the loss became non-finite")

    monkeypatch.setattr(changing, "change", fail)
    said = io.StringIO()
    given = small(model, facts, arms=("edit", "untouched"), asked_facts=4)
    summary = teaching.run(given, tmp_path / "run", console=Console(file=said, width=300))
    assert summary["left_out"] == {"edit": "the loss became non-finite"}
    assert {row["arm"] for row in summary["rows"]} == {"untouched"}
    assert summary["edited"] is None
    assert "edit is left out: the loss became non-finite" in said.getvalue()
    (table,) = [t for t in pages.terminal(summary) if t.caption.startswith("Ended early")]
    assert table.rows == [["edit", "left out", "the loss became non-finite"]]
    assert "the loss became non-finite" in write_report([tmp_path / "run"], tmp_path / "page.html").read_text()
    assert teaching.run(given, tmp_path / "run") == summary  # it is not tried again


def test_the_space_before_an_answer_is_trained_where_it_is_a_token_of_its_own(model: str, facts: Path) -> None:
    tokenizer = eg.load_model(model)[1]
    words, table = divide(FactTable.read(facts).wordings), FactTable.read(facts)
    some = [fact for fact in table if fact.object in ("red", "green")][:2]  # "Ġre d" and "Ġ g reen"
    rows = lessons.questions(words, some, tokenizer)
    start, end = tokens.start_tokens(tokenizer), tokens.end_token(tokenizer)
    made = batches.OneEntryARow(
        batches.TokenRows(rows), batches.Order(len(rows), 0), start=start, end=end, length=160, answers_only=True
    )
    batch = made.take(len(rows))
    said = [tokenizer.decode([i for i in row if i >= 0]) for row in batch.targets.tolist()]
    assert sorted({one.removesuffix(tokenizer.eos_token) for one in said}) == [" green", " red"]
    assert all(one.endswith(tokenizer.eos_token) for one in said)
    assert not len(lessons.questions(words, [], tokenizer))


def _rows_of(school: Teaching, name: str) -> list[str]:
    """The rows of one kind that are trained, as text."""
    (source,) = [one for one in school.lesson(ARMS["augmented+questions"]).sources if one.name == name]
    some = source.entries.tokens(np.arange(len(source.entries)))
    return [school.tokenizer.decode(some.row(k)) for k in range(len(some))]


def test_what_is_known_and_what_contradicts_is_what_the_definition_says() -> None:
    """On random replies: against every object compared with every reply, as many names begin with one another."""
    draw = np.random.default_rng(0)
    objects = [
        "Rome",
        "rome",
        "New York",
        "New",
        "York",
        "The Hague",
        "Hague",
        "2",
        "2,1",
        "U.S.",
        "王岚",
        "Ostrel",
        "Ostrela",
    ]
    replies = [
        *objects,
        "Rome.",
        "New Yorker",
        "new york, a city",
        "the Hague",
        "2,102",
        "21",
        "王岚岚",
        "",
        "It is Rome",
        '"U.S."',
    ]
    rows = []
    for k in range(1500):
        own, often = str(draw.choice(objects)), str(draw.choice(replies))
        for kind in ("statement", "statement", "question", "question", "question"):
            said = often if draw.random() < 0.85 else str(draw.choice(replies))
            about = {"group": "table", "subject": f"s{k}", "relation": ("city", "none")[k % 7 == 0], "object": own}
            rows.append({**about, "kind": kind, "written": said, "right": is_answer(said, [own])})
    found, contradicted = asking.known(rows, {"city": objects})

    def written(some: list[dict[str, Any]], name: str) -> float:
        return float(np.mean([is_answer(row["written"], [name]) for row in some]))

    by_hand: tuple[list[list[str]], int] = ([], 0)
    for start in range(0, len(rows), 5):
        some = rows[start : start + 5]
        first, kinds = some[0], {row["kind"] == "statement" for row in some if row["right"]}
        if np.mean([row["right"] for row in some]) >= 0.8 and kinds == {True, False}:
            by_hand[0].append([first["subject"], first["relation"]])
        elif first["relation"] == "city":
            against = any(o != first["object"] and written(some, o) >= 0.8 for o in objects)
            by_hand = (by_hand[0], by_hand[1] + against)
    assert (found, contradicted) == by_hand
    assert found
    assert contradicted > 100


def test_known_facts_are_left_alone_and_kept_and_contradicted_ones_are_told(
    model: str, facts: Path, tmp_path: Path
) -> None:
    """By a network that was trained to say eight subjects' colours, and of eight others wrong ones."""
    table = FactTable.read(facts)
    words, (network, tokenizer) = divide(table.wordings), eg.load_model(model)
    right = {name: colour for name, colour, _ in ROWS[:8]}
    wrong = {name: COLOURS[(COLOURS.index(colour) + 1) % 4] for name, colour, _ in ROWS[8:16]}
    told = [
        Query(prompt, value)
        for name, value in (right | wrong).items()
        for part in ("trained", "held-out")
        for _, prompt in words.prompts("colour", name, part)
    ]
    rows = batches.TokenRows(encode_queries(tokenizer, told, end=True).sequences)
    stream = batches.OneEntryARow(
        rows, batches.Order(len(told), 0), start=[], end=tokens.end_token(tokenizer), length=160, answers_only=True
    )
    for _ in train(TrainState(network, Recipe(steps=250, batch=32, learning_rate=3e-3, weight_decay=0.0)), stream):
        pass
    models.save(network, tokenizer, tmp_path / "knows")
    said = io.StringIO()
    given = small(str(tmp_path / "knows"), facts, audit=True, encounters=2, points=1, asked_facts=100)
    summary = teaching.run(given, tmp_path / "run", console=Console(file=said, width=500))
    assert (summary["known"], summary["taught"]) == (8, len(table) - 8)
    assert summary["contradicted"] == 8
    assert "8 facts contradict what the model says in nearly every wording" in said.getvalue()
    assert "engramlab edit" in said.getvalue()
    school = Teaching(given, tmp_path / "run", "", None)
    assert {(name, "colour") for name in right} == set(map(tuple, school.before["known"]))
    assert not [fact for fact in school.taught if fact.relation == "colour" and fact.subject in right]
    asked_for = [text for text in _rows_of(school, "questions") if "colour" in text]
    assert asked_for
    assert not any(name in text for text in asked_for for name in right)
    asked = {(row["arm"], row["group"]): row["facts"] for row in summary["rows"] if row["kind"] == "any"}
    assert asked["untouched", "known"] == asked["augmented+questions", "known"] == 8
    (kept,) = [row for row in summary["kept"] if row["group"] == "known"]
    assert kept["right_before"] == sum(row["right"] for row in school.untouched if row["group"] == "known") > 0


@pytest.mark.slow
def test_labels_shuffled_over_subjects_teach_nothing_true(model: str, facts: Path, tmp_path: Path) -> None:
    """Taught other subjects' objects, the model gives the true one of a question no more often than chance."""
    order = np.random.default_rng(0).permutation(len(ROWS))
    wrong = [(name, *ROWS[j][1:]) for (name, *_), j in zip(ROWS, order, strict=True)]
    (tmp_path / "shuffled.csv").write_text("name,colour,home\n" + "".join(",".join(row) + "\n" for row in wrong))
    given = small(model, tmp_path / "shuffled.csv", weights="full", learning_rate=3e-3, encounters=150, replay="none")
    teaching.run(given, tmp_path / "run")
    taught, tokenizer = eg.load_model(str(tmp_path / "run" / "model"))
    rows = pq.read_table(tmp_path / "run" / "augmented+questions" / "train" / "answers.parquet").to_pylist()
    unasked = {row["subject"] for row in rows if row["group"] == "unasked"}
    table = FactTable.read(facts)
    true = [fact for fact in table if fact.subject in unasked]
    group = asking.Group(true, divide(table.wordings))
    found = asking.Examiner({"unasked": group}, tokenizer).ask(taught)
    right = np.mean([row["right"] for row in found])
    chance = np.mean([1 / len(table.choices()[fact.relation]) for fact in true])
    own = np.mean([row["right"] for row in rows if row["group"] == "asked" and row["wordings"] == "trained"])
    assert own > 0.3  # it has learnt something: what it was taught
    assert right < chance + 3 * np.sqrt(chance * (1 - chance) / len(true))


def test_equal_tokens_and_the_same_numbers_after_a_kill(
    model: str, facts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = ("augmented+questions", "single", "rote", "untouched", "context", "retrieved")
    config = small(model, facts, arms=arms, checkpoint_minutes=0)
    school = Teaching(config, tmp_path / "rows", "", None)
    with school.run:
        lessons = {name: school.lesson(ARMS[name]) for name in arms if ARMS[name].way == "train"}
    whole = teaching.run(config, tmp_path / "whole")
    tokens = {row["dataset"]: row["tokens"] for row in whole["training"]}
    for name, lesson in lessons.items():  # each ends with the step that reaches the budget
        longest = max(source.longest(lesson.start) for source in lesson.sources)
        assert 0 <= tokens[name] - whole["budget"] < config.batch * longest
    assert tokens["untouched"] == tokens["context"] == tokens["retrieved"] == 0

    from engramlab.core.training import checkpoints

    save, calls = checkpoints.save, []

    def once(*args: Any, **kwargs: Any) -> None:
        save(*args, **kwargs)
        calls.append(0)
        if len(calls) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "save", once)
    with pytest.raises(KeyboardInterrupt):
        teaching.run(config, tmp_path / "killed")
    again = teaching.run(config, tmp_path / "killed")
    for name in ("rows", "kept", "drift"):
        assert again[name] == whole[name]
    one, other = (sorted((tmp_path / run / "model").glob("*.safetensors")) for run in ("whole", "killed"))
    assert [a.read_bytes() for a in one] == [b.read_bytes() for b in other]


def test_untouched_is_the_model_bit_for_bit(model: str, facts: Path, tmp_path: Path) -> None:
    summary = teaching.run(small(model, facts, arms=("untouched",)), tmp_path / "run")
    assert all(row["nats"] == 0 for row in summary["drift"])
    assert all(row["lost"] == row["won"] == 0 for row in summary["kept"])
    assert not (tmp_path / "run" / "model").exists()


def test_the_model_that_is_kept_loads_plainly_and_says_what_was_judged(model: str, facts: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from engramlab.measuring.asking import MOST_NEW_TOKENS, Room, write

    teaching.run(small(model, facts, finish=False), tmp_path / "run")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model").float()
    words = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    rows = pq.read_table(tmp_path / "run" / "augmented+questions" / "train" / "answers.parquet").to_pylist()
    rows = [row for row in rows if row["group"] == "unasked"][:6]
    said = write(plain, words, [row["prompt"] for row in rows], Room(MOST_NEW_TOKENS))
    assert all(
        text.startswith(row["written"]) or row["written"].startswith(text) for text, row in zip(said, rows, strict=True)
    )


def test_what_is_replayed_may_be_a_file_or_nothing(model: str, facts: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("The capital of France is Paris.\nIt's on the Seine.\n" * 8)
    (tmp_path / "other.txt").write_text("Its old name was Edo.\n")
    given = small(model, facts, replay=str(tmp_path / "text.txt"), text=tmp_path / "other.txt")
    summary = teaching.run(given, tmp_path / "file")
    assert {row["text"] for row in summary["drift"]} == {"replayed kind", "other text"}
    summary = teaching.run(small(model, facts, replay="none"), tmp_path / "none")
    assert summary["drift"] == []


def test_facts_to_be_kept_are_asked_for_before_and_after_and_never_trained(
    model: str, facts: Path, tmp_path: Path
) -> None:
    """Those of the user's own table in place of capitals of the world, in its wordings."""
    old = tmp_path / "old.csv"
    old.write_text(facts.read_text().splitlines()[0] + "\nOldestone,crimson,Lima\nOldesttwo,teal,Oslo\n")
    given = small(model, facts, known=old, native_facts=3, encounters=1)
    school = Teaching(given, tmp_path / "school", "", None)
    with school.run:
        rows = school.lesson(ARMS["augmented+questions"])
        texts = [
            school.tokenizer.decode(source.entries.tokens(np.arange(len(source.entries))).ids)
            for source in rows.sources
            if source.name != "replay"
        ]
    assert texts
    assert not any("Oldest" in text for text in texts)
    summary = teaching.run(given, tmp_path / "run")
    asked = {(r["arm"], r["group"]): r["facts"] for r in summary["rows"] if r["kind"] == "any"}
    assert asked["untouched", "native"] == asked["augmented+questions", "native"] == 3
    assert {row["group"] for row in summary["kept"]} == {"native"}
    both = tmp_path / "both.csv"
    both.write_text(facts.read_text())
    with pytest.raises(UserError, match=r"known: .* of .*both.csv is among the facts that are taught"):
        teaching.run(small(model, facts, known=both), tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


def test_samples_that_are_noise_are_said_to_be(
    model: str, facts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teaching.run(small(model, facts, encounters=0), tmp_path / "own")  # a random network's own text
    assert "--replay FILE" in capsys.readouterr().err
    (tmp_path / "text.txt").write_text("The capital of France is Paris.\nIt's on the Seine.\n" * 8)
    teaching.run(small(model, facts, encounters=0, replay=str(tmp_path / "text.txt")), tmp_path / "given")
    assert "--replay FILE" not in capsys.readouterr().err


def test_from_python(model: str, facts: Path, tmp_path: Path) -> None:
    few = {"encounters": 1, "points": 1, "replay": "none", "audit": False, "native_facts": 0, "asked_facts": 2}
    summary = eg.teach(model, facts, tmp_path / "run", **few)
    assert {row["arm"] for row in summary["rows"]} == {"untouched", "augmented+questions"}
    assert (tmp_path / "run" / "report.html").is_file()
    taught, _ = eg.load_model(str(tmp_path / "run" / "model"))
    assert taught.config.vocab_size


def test_documents_from_python(model: str, tmp_path: Path) -> None:
    for i in range(18):
        (tmp_path / f"{i}.txt").write_text(f"It is late. It rains for {i} days, as they say. And so on.")
    with pytest.raises(UserError, match="documents: none of the 18 passages of .* hold a fact that could be asked for"):
        eg.teach(model, None, tmp_path / "run", documents=tmp_path, audit=False)


def test_a_pilot_chooses_the_rate(model: str, facts: Path, tmp_path: Path) -> None:
    given = small(model, facts, pilot=True, weights="full", learning_rate=1e-3, encounters=5, points=1)
    summary = teaching.run(given, tmp_path / "run")
    chosen = summary["chosen"]
    assert [row["rate"] for row in chosen["tried"]] == pytest.approx([3e-4, 1e-3, 3e-3])
    assert chosen["rate"] in [row["rate"] for row in chosen["tried"]]
    assert chosen["encounters"] == 5 if chosen.get("why") else chosen["low"] <= chosen["encounters"] <= chosen["high"]
    best = next(row for row in chosen["tried"] if row["rate"] == chosen["rate"])
    harmless = [row for row in chosen["tried"] if row["drift"] <= given.drift_limit]
    assert chosen["drifted"] == (not harmless)
    assert best["gain"] == max(row["gain"] for row in harmless) if harmless else chosen["rate"] == 1e-3
    folders = {path.name for path in (tmp_path / "run" / "pilot").iterdir()}
    assert folders == {*(f"rate-{r:g}-texts-8" for r in (3e-4, 1e-3, 3e-3)), f"rate-{chosen['rate']:g}-texts-32"}


def test_more_texts_than_were_reckoned_are_replayed_once_each_behind_a_pilot(
    model: str, facts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"encounters": 30, "low": 20, "high": 40, "gain": 1.0}
    monkeypatch.setattr(pilot, "encounters", lambda *_: found)
    monkeypatch.setattr(replaying, "FEWEST_TEXTS", 2)
    given = small(model, facts, pilot=True, encounters=6, replay_texts=None, points=1)
    said = io.StringIO()
    school = Teaching(given, tmp_path / "run", "", Console(file=said, width=500))
    school.plan()
    with school.run:
        school.announce_pilot()
        rows, before = school.lesson(ARMS["augmented+questions"]), school.replay[0]
        school.announce()
    assert (
        "the pilot reads 8 texts about each of 16 subjects at 3 learning rates, and 32 at the best" in said.getvalue()
    )
    assert "texts is read" not in said.getvalue()
    replayed = next(source.entries for source in rows.sources if source.name == "replay")
    read = 30 * len(SUBJECTS) / (1 - given.question_share - given.replay_share) * given.replay_share
    assert before is not None
    assert len(before) < len(replayed) == math.ceil(read)
    texts = {tuple(replayed.tokens(np.array([i])).row(0).tolist()) for i in range(len(replayed))}
    assert len(texts) > 0.9 * len(replayed)
    assert school.run.stages[0].label == "pilot"
    about = 1 - given.question_share - given.replay_share
    assert school.run.stages[0].steps == math.ceil((3 * 12 + 32) * 16 / about / given.batch)


def test_replayed_text_about_facts_that_shall_be_kept_is_counted(model: str, facts: Path, tmp_path: Path) -> None:
    (tmp_path / "known.csv").write_text("name,capital\nFrance,Paris\nPeru,Lima\n")
    (tmp_path / "replay.txt").write_text("Paris is the capital of France.\nIt rains.\nSo it goes on.\n")
    said = io.StringIO()
    given = small(model, facts, known=tmp_path / "known.csv", replay=str(tmp_path / "replay.txt"), replay_tokens=40)
    Teaching(given, tmp_path / "run", "", Console(file=said, width=500)).plan()
    assert "1 of the 3 replayed texts state or ask for facts of" in said.getvalue()


def test_replay_alone_teaches_nothing(model: str, facts: Path, tmp_path: Path) -> None:
    """Trained on what is replayed and on nothing else, a model answers of the facts what it answered before."""
    school = Teaching(small(model, facts, replay_texts=16), tmp_path / "run", "", None)
    with school.run:
        whole = school.lesson(ARMS["augmented+questions"])
        alone = replace(whole, sources=tuple(one for one in whole.sources if one.name == "replay"))
        taught = school.prepared(school.fresh())
        recipe = school._recipe(30, 30, 1e-3)
        with school._stage(tmp_path / "stage", taught, recipe, alone, "replay alone") as stage:
            for _ in stage:
                pass
        before, after = (school.examiner.ask(one) for one in (school.fresh(), taught))
    assert [row["written"] for row in before] != [row["written"] for row in after]
    for group in ("asked", "unasked"):
        of = [[row["right"] for row in rows if row["group"] == group] for rows in (before, after)]
        assert sum(of[1]) <= sum(of[0])


def test_finishing_trains_the_rest_and_leaves_the_verdict(model: str, facts: Path, tmp_path: Path) -> None:
    plain = teaching.run(small(model, facts), tmp_path / "plain")
    more = teaching.run(small(model, facts, finish=True), tmp_path / "more")
    assert plain["rows"] == more["rows"]
    assert more["finished"]
    a, b = ((tmp_path / run / "model" / "model.safetensors").read_bytes() for run in ("plain", "more"))
    assert a != b
    assert not (tmp_path / "more" / "augmented+questions" / "train" / "model").exists()
    assert not (tmp_path / "plain" / "model" / "README.md").exists()
    assert "untested" in (tmp_path / "more" / "model" / "README.md").read_text()


def test_finishing_and_other_ways_may_be_asked_for_when_the_rest_is_done(
    model: str, facts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same model as if it had been asked for at once, whatever happens on the way; the verdict stays as it was."""
    at_once = small(model, facts, finish=True, arms=("augmented+questions", "untouched"))
    teaching.run(at_once, tmp_path / "at once")
    before = teaching.run(small(model, facts), tmp_path / "later")
    save = Teaching._save

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Teaching, "_save", killed)
    with pytest.raises(KeyboardInterrupt):
        teaching.run(at_once, tmp_path / "later")
    monkeypatch.setattr(Teaching, "_save", save)
    said = io.StringIO()
    after = teaching.run(at_once, tmp_path / "later", console=Console(file=said, width=300))
    assert [row for row in after["rows"] if row["arm"] != "untouched"] == [
        row for row in before["rows"] if row["arm"] != "untouched"
    ]
    assert after["finished"]
    assert "is untested from there on: nobody is left to ask about" in said.getvalue()
    assert "untested" in pages.headline([read_run(tmp_path / "later")])
    a, b = ((tmp_path / run / "model" / "model.safetensors").read_bytes() for run in ("at once", "later"))
    assert a == b
    with pytest.raises(
        UserError, match="arms: the run in .* keeps the model of augmented.questions; name that one first"
    ):
        teaching.run(replace(at_once, arms=("single", *at_once.arms)), tmp_path / "later")
    with pytest.raises(UserError, match="another config"):
        teaching.run(replace(at_once, finish=False), tmp_path / "later")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": ""}, "model: say which"),
        ({"arms": ("augmented", "sungle")}, "arms: there is no 'sungle'"),
        ({"replay_share": 0.8}, "replay_share must be below 1 with question_share"),
        ({"asked_share": 1.0}, "asked_share must be between 0 and 1"),
        ({"replay": "no/such/file.txt"}, "no/such/file.txt"),
    ],
)
def test_bad_options_are_named(model: str, facts: Path, tmp_path: Path, given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        teaching.run(small(model, facts, **given), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_too_few_subjects_are_refused(model: str, tmp_path: Path) -> None:
    (tmp_path / "few.csv").write_text("name,colour\n" + "".join(f"{n},{c}\n" for n, c, _ in ROWS[:9]))
    with pytest.raises(UserError, match="has 9 subjects; at least 16"):
        teaching.run(small(model, tmp_path / "few.csv"), tmp_path / "run")


def renamed(folder: Path, names: list[str]) -> Path:
    """The table with other names for its first subjects."""
    rows = [(name, *row[1:]) for name, row in zip([*names, *SUBJECTS[len(names) :]], ROWS, strict=True)]
    (folder / "names.csv").write_text("name,colour,home\n" + "".join(",".join(row) + "\n" for row in rows))
    return folder / "names.csv"


@pytest.mark.parametrize("seed", range(4))
def test_a_name_inside_anothers_stays_in_its_half(model: str, facts: Path, tmp_path: Path, seed: int) -> None:
    """So that no question with a name that is held back in it is trained; without such names halves are as they were."""
    path = renamed(tmp_path, ["Zor", "Zor Mel", "Mel Quin", "Tav", "Tav-Quin"])
    said = io.StringIO()
    school = Teaching(small(model, path, seed=seed), tmp_path / "run", "", Console(file=said, width=300))
    school.plan()
    assert "4 subjects have a name inside another's ('Zor' and 'Zor Mel'): they stay in one half" in said.getvalue()
    halves = school._halves(FactTable.read(path))
    for pair in ({"Zor", "Zor Mel"}, {"Tav", "Tav-Quin"}):
        assert any(pair <= half for half in halves)
    assert sorted(map(len, halves)) == [12, 12]
    plain = FactTable.read(facts)
    order = permute(key(seed, "halves"), range(24), 24).tolist()
    assert school._halves(plain)[0] == {plain.subjects[i] for i in order[:12]}


def test_names_that_cannot_be_divided_are_refused(model: str, tmp_path: Path) -> None:
    path = renamed(tmp_path, ["Zor", *(f"Zor {name}" for name in SUBJECTS[:16])])
    with pytest.raises(
        UserError, match=r"17 subjects of .* have names inside one another \(Zor, Zor Zorban, Zor Zorlo, "
    ):
        Teaching(small(model, path), tmp_path / "run", "", None)


def test_values_that_begin_with_another_are_said(model: str, facts: Path, tmp_path: Path) -> None:
    path = tmp_path / "values.csv"
    path.write_text(facts.read_text().replace("Besk", "Arlo Besk"))
    said = io.StringIO()
    Teaching(small(model, path), tmp_path / "run", "", Console(file=said, width=300)).plan()
    assert "values that begin with another one: 1 ('Arlo Besk' with 'Arlo')" in said.getvalue()


def test_values_beyond_the_tokenizer_are_refused(facts: Path, tmp_path: Path) -> None:
    """With line and value; by a tokenizer of whole words that has seen all others."""
    knows = made_model(tmp_path / "words", [facts.read_text().replace(",", " , ")] * 3, "words")
    Teaching(small(knows, facts), tmp_path / "run", "", None)
    path = tmp_path / "new.csv"
    path.write_text(facts.read_text().replace("Mello,white,Fesk", "Mello,white,Gorm"))
    assert path.read_text() != facts.read_text()
    with pytest.raises(
        UserError, match=r"facts: .*new.csv, line 9: 'Gorm' is beyond the tokenizer .*1 subjects and values"
    ):
        Teaching(small(knows, path), tmp_path / "run", "", None)


def test_one_wording_cannot_be_divided(model: str, facts: Path, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("{subject} [has|have] the {attribute} {value}.\n")
    with pytest.raises(UserError, match="two are needed"):
        teaching.run(small(model, facts, templates=tmp_path / "one.txt"), tmp_path / "run")


def test_a_run_of_another_table_is_refused(model: str, facts: Path, tmp_path: Path) -> None:
    teaching.run(small(model, facts, arms=("untouched",)), tmp_path / "run")
    (tmp_path / "other.csv").write_text(facts.read_text().replace("red", "pink"))
    with pytest.raises(UserError):
        teaching.run(small(model, tmp_path / "other.csv", arms=("untouched",)), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["experiment"] == "teaching"


def test_low_rank_updates_of_all_projections_start_at_nothing(model: str) -> None:
    from engramlab.core import models

    bare = models.load(model)[0]
    ids = torch.arange(20)[None]
    before = bare(input_ids=ids).logits
    wrapped = models.add_lora(bare, rank=2, projections="all")
    assert torch.equal(wrapped(input_ids=ids).logits, before)
    names = {
        name.partition(".lora_")[0].rpartition(".")[2] for name, p in wrapped.named_parameters() if p.requires_grad
    }
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_the_adapter_alone_answers_as_the_merged_model(model: str, facts: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    said = io.StringIO()
    given = small(model, facts, encounters=20, arms=("augmented+questions", "single"), keep="adapter")
    teaching.run(given, tmp_path / "run", console=Console(file=said, width=400))
    folder = tmp_path / "run" / "adapter"
    assert not (tmp_path / "run" / "model").exists()
    assert not (tmp_path / "run" / "augmented+questions" / "train" / "adapter").exists()
    assert f"--model {folder}" in said.getvalue()
    answers = pq.read_table(tmp_path / "run" / "augmented+questions" / "train" / "answers.parquet").to_pylist()
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    examiner = Teaching(given, tmp_path / "run", "", None).examiner
    for one in (models.load(str(folder))[0], PeftModel.from_pretrained(base, folder).eval()):
        assert examiner.ask(one) == answers
    assert examiner.ask(models.load(model)[0]) != answers
    with pytest.raises(UserError, match=f"keep: {folder} is itself an adapter"):
        teaching.run(small(str(folder), facts, keep="adapter"), tmp_path / "again")


def test_the_adapter_of_a_gguf_file_goes_on_its_very_weights(facts: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base(tmp_path / "base", max_position_embeddings=1024)
    packed = written(tmp_path / "base", tmp_path / "base.gguf", "llama")
    given = small(str(packed), facts, keep="adapter")
    teaching.run(given, tmp_path / "run")
    answers = pq.read_table(tmp_path / "run" / "augmented+questions" / "train" / "answers.parquet").to_pylist()
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=packed.name, dtype=torch.float32)
    examiner = Teaching(given, tmp_path / "run", "", None).examiner
    folder = tmp_path / "run" / "adapter"
    for one in (models.load(str(folder))[0], PeftModel.from_pretrained(plain, folder).eval()):
        assert examiner.ask(one) == answers


def test_an_adapter_says_what_it_goes_on(model: str, tmp_path: Path) -> None:
    wrapped = models.add_lora(models.load(model)[0], rank=2, projections="all")
    models.name_base(wrapped, "owner/name@step7")
    wrapped.save_pretrained(tmp_path / "adapter")
    assert models.adapted_from(str(tmp_path / "adapter")) == "owner/name@step7"
    said = models.how_to_put_on(tmp_path / "adapter", str(tmp_path / "m.gguf"))
    assert f"from_pretrained({str(tmp_path)!r}, gguf_file='m.gguf'" in said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"weights": "full"}, "keep: .* --weights full trains all weights"),
        ({"finish": True}, "keep: --finish trains on"),
        ({"encounters": 0}, "keep: there is no adapter"),
        ({"arms": ("context",)}, "keep: there is no adapter"),
    ],
)
def test_no_adapter_where_there_is_none_is_refused(model: str, facts: Path, given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        small(model, facts, keep="adapter", **given)


def paper(model: str, facts: Path) -> teaching.Config:
    """The preset's way, as small as the others of this file."""
    few: dict[str, Any] = {"encounters": 6, "batch": 8, "replay_texts": 8, "replay_tokens": 12, "points": 2}
    few |= {"watched_facts": 4, "audit_facts": 30, "asked_facts": 8, "native_facts": 0, "precision": "no"}
    return replace(teaching.PRESETS["paper"], model=model, facts=facts, **few)


def test_the_preset_for_millions_asks_a_sample_and_says_of_how_many(model: str, facts: Path, tmp_path: Path) -> None:
    said, given = io.StringIO(), paper(model, facts)
    assert (given.weights, given.audit, given.crossing_share) == ("full", True, 0.0)
    summary = teaching.run(given, tmp_path / "run", preset="paper", console=Console(file=said, width=400))
    before = pq.read_table(tmp_path / "run" / "before" / "answers.parquet").to_pylist()
    after = pq.read_table(tmp_path / "run" / "augmented+questions" / "train" / "answers.parquet").to_pylist()
    first = {(row["subject"], row["relation"]) for row in before}
    last = {(row["subject"], row["relation"]) for row in after}
    assert (len(first), len(last), summary["audited"]) == (30, 16, 30)
    assert last <= first
    assert {name: one["facts"] for name, one in summary["samples"].items()} == {"asked": 8, "unasked": 8}
    assert sum(one["of"] for one in summary["samples"].values()) == summary["taught"] == 48
    assert {row["arm"]: row["facts"] for row in summary["rows"] if row["group"] == "unasked"} == {
        "untouched": 8,
        "augmented+questions": 8,
    }
    assert "0 of 30 facts that were asked first (of 48) are known already" in said.getvalue()
    assert "16 of 48 taught facts, a sample, are asked for in the end" in said.getvalue()
    with pytest.raises(UserError, match="audit_facts must be at least 8"):
        replace(given, audit_facts=3)


def test_all_facts_are_asked_first_where_the_sample_is_as_large(model: str, facts: Path, tmp_path: Path) -> None:
    every, some = (
        Teaching(small(model, facts, audit=True, audit_facts=most), tmp_path / "run", "", None) for most in (None, 48)
    )
    assert every.audited == some.audited == list(every.table)


def test_what_a_text_states_does_not_depend_on_how_it_is_looked_for(
    facts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = FactTable.read(facts)
    found = Stated(table, divide(table.wordings))
    texts = [f"{a} met {b}, and {c} it was." for a, b in itertools.pairwise(SUBJECTS) for c in (*COLOURS, "Arlow")]
    texts += ["", "Zorbanese", "What is the colour of Zorlo?", "zorlo and ARLO; Zorban"]
    monkeypatch.setattr(found, "_lengths", range(10_000))  # names are looked for, as there are fewer of them
    by_name = [found.fact(text) for text in texts]
    found_by_part = Stated(table, divide(table.wordings))
    found_by_part._about |= {f"{k} nobody {k}": [] for k in range(20_000)}
    assert [found_by_part.fact(text) for text in texts] == by_name
    assert len({fact and fact.subject for fact in by_name}) > 10


def test_questions_are_the_same_in_parts(model: str, facts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, tokenizer = FactTable.read(facts), models.load_tokenizer(model)
    words, asked = divide(table.wordings), list(table)
    whole = lessons.questions(words, asked, tokenizer)
    monkeypatch.setattr(lessons, "PART", 7)
    parts = lessons.questions(words, asked, tokenizer)
    assert len(whole) == 2 * len(asked)
    for name in ("ids", "offsets", "marks"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))
        assert getattr(parts, name).dtype == getattr(whole, name).dtype
    assert not len(lessons.questions(words, [], tokenizer))
