"""Questions as statements: the table of wh-words, verbs that bend, gaps counted, and questions made of facts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engramlab.base.errors import UserError
from engramlab.corpora.choices import ChoiceQuestion, chosen, of_table, read_translations
from engramlab.corpora.cloze import Cloze, bare, rules
from engramlab.corpora.facts import FactTable
from engramlab.reading.choices import read_questions

REAL = Path(__file__).parents[3] / "shared/data/benchmarks/commonsense"


@pytest.mark.parametrize(
    ("question", "statement"),
    [
        # subject asked: where the wh-word stood
        ("What could suddenly stop someone?", "[MASK] could suddenly stop someone."),
        ("What is used for sensing visual things?", "[MASK] is used for sensing visual things."),
        ("Who invented the telephone?", "[MASK] invented the telephone."),
        ("Which of these is a hypothesis?", "[MASK] is a hypothesis."),
        ("Which of the following would stop a car?", "[MASK] would stop a car."),
        ("What continent has the most castles?", "The continent [MASK] has the most castles."),
        # else before the first phrase, or at the end; a stranded preposition stays
        ("What is the capital of France?", "The capital of France is [MASK]."),
        ("What did X found in 1976?", "X founded [MASK] in 1976."),
        ("What does a cat that sleeps like to chase?", "A cat that sleeps likes to chase [MASK]."),
        ("What is she known for?", "She is known for [MASK]."),
        ("What do people aim to do at work?", "People aim to [MASK] at work."),
        ("What might he not like?", "He might not like [MASK]."),
        ("If you have cake, what would you eat?", "If you have cake, you would eat [MASK]."),
        # places, times, reasons, ways
        ("Where does a heifer's master live?", "A heifer's master lives at [MASK]."),
        ("When did she found it?", "She founded it when [MASK]."),
        ("Why do birds sing in spring?", "Birds sing in spring because [MASK]."),
        ("How do fish breathe?", "Fish breathe by [MASK]."),
        ("How often does he eat?", "He eats [MASK]."),
        ("How long did she sleep?", "She slept for [MASK]."),
        ("On which continent is Japan?", "Japan is on the continent [MASK]."),
        ("He was tired. Where did he go?", "He was tired. He went at [MASK]."),
        # no inverted clause: the last wh-word
        ("Crabs live in what sort of environment?", "Crabs live in [MASK]."),
        ("Committing perjury is a serious what?", "Committing perjury is a serious [MASK]."),
        # nothing is asked
        ("Predators eat", "Predators eat [MASK]."),
        ("Fog is most likely around:", "Fog is most likely around [MASK]."),
    ],
)
def test_the_table_of_wh_words(question: str, statement: str) -> None:
    found = rules(question)
    assert str(found.cloze) == statement
    assert found.how != "fallback"


@pytest.mark.parametrize("question", ["Is Rome in Italy?", "How many eggs does it lay?", "Do fish sleep?"])
def test_what_cannot_be_translated_is_counted(question: str) -> None:
    found = rules(question)
    assert found.how == "fallback"
    assert found.cloze == bare(question)


def test_every_question_of_the_world_names_subject_and_object_once() -> None:
    """Filled with the truth, a rule's statement holds both once, and ends in a full stop."""
    from engramlab.editing.benchmarks.world import world

    asked = 0
    for case in world(0, 150):
        (edit,) = case.edits
        prompt = next(judge.prompt for judge in edit.judges if judge.group == "Q&A")
        found = rules(prompt.removeprefix("Q: ").partition("\nA:")[0])
        assert found.how == "rule"
        text, start, end = found.cloze.filled(edit.query.target)
        assert text[start:end].casefold() == edit.query.target.casefold()
        rest = text[:start] + text[end:]
        assert rest.casefold().count(edit.query.subject.casefold()) == 1
        assert text.endswith(".")
        assert "?" not in text
        asked += 1
    assert asked > 400


def test_a_gap_is_filled_as_a_sentence_would_have_it() -> None:
    assert Cloze.of("It is ____ here.").filled("D.C.") == ("It is D.C. here.", 6, 10)
    assert Cloze.of("It is [MASK].").filled("D.C.")[0] == "It is D.C."
    assert Cloze.of("He left. [MASK] is late.").filled("the bus")[0] == "He left. The bus is late."
    for text in ("no gap", "[MASK] and ____"):
        with pytest.raises(UserError, match=r"has [02] gaps; write \[MASK\] once"):
            Cloze.of(text)


def test_questions_of_a_table_have_other_objects_of_the_relation() -> None:
    table = FactTable.read("countries", relations=["capital", "continent"])
    found = of_table(table, 4, 0)
    assert found == of_table(table, 4, 0)
    assert found != of_table(table, 4, 1)
    true = {f"{fact.subject}/{fact.relation}": fact for fact in table}
    for one in found:
        fact = true[one.id]
        assert one.options[one.truth] == fact.object
        assert len(set(one.options)) == len(one.options) == 5
        assert not {*one.options[1:]} & {fact.object, *fact.aliases}
        assert all(Cloze.of(text).filled("x") for text in one.translations)
    moved = [one.shuffled(0) for one in found]
    assert [one.options[one.truth] for one in moved] == [one.options[one.truth] for one in found]
    assert len({one.truth for one in moved}) == 5
    assert {one.id for one in chosen(found, 7, 3)} < set(true)


def written(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


CSQA: dict[str, Any] = {
    "id": "a",
    "answerKey": "B",
    "question": {
        "stem": "Who?",
        "question_concept": "x",
        "choices": [{"label": "A", "text": "p"}, {"label": "B", "text": "q"}],
    },
}
OBQA: dict[str, Any] = {
    "id": "b",
    "question_stem": "It is",
    "choices": {"text": ["p", "q"], "label": ["A", "B"]},
    "answerKey": "A",
}
EVAL: dict[str, Any] = {"query": "It is", "choices": ["p", "q"], "gold": 1}
SOCIAL: dict[str, Any] = {
    "context": "C.",
    "question": "Why?",
    "answerA": "p",
    "answerB": "q",
    "answerC": "r",
    "label": "3\n",
}


def test_the_formats(tmp_path: Path) -> None:
    found = read_questions(written(tmp_path / "all.jsonl", CSQA, OBQA, EVAL, SOCIAL))
    assert [(q.id, q.text, q.truth) for q in found] == [
        ("a", "Who?", 1),
        ("b", "It is", 0),
        ("3", "It is", 1),
        ("4", "C. Why?", 2),
    ]
    masked = CSQA | {"question": CSQA["question"] | {"mask": ["[MASK] is."]}}
    assert read_questions(written(tmp_path / "m.jsonl", masked))[0].translations == ("[MASK] is.",)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (CSQA | {"answerKey": "F"}, "key 'answerKey' must be one of A, B, not 'F'"),
        (CSQA | {"question": CSQA["question"] | {"choices": CSQA["question"]["choices"][:1]}}, "two options or more"),
        (CSQA | {"question": CSQA["question"] | {"choices": "p"}}, "key 'choices' must be a list of objects"),
        (EVAL | {"gold": 2}, "key 'gold' must be a number from 0 to 1, not 2"),
        (EVAL | {"choices": ["p", " "]}, "key 'choices', number 2: must be a text that is not empty"),
        (OBQA | {"choices": {"text": ["p", "q"], "label": ["A"]}}, "2 options have the labels"),
        (SOCIAL | {"label": "4"}, "key 'label' must be 1, 2 or 3, not '4'"),
        ({"text": "x"}, "is of no known format"),
    ],
)
def test_bad_records_are_named(record: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="line 2") as caught:
        read_questions(written(tmp_path / "bad.jsonl", EVAL, record))
    assert words in str(caught.value)


def test_translations_of_a_user(tmp_path: Path) -> None:
    questions = [ChoiceQuestion(name, "Who?", ("p", "q"), 0) for name in ("a", "b")]
    good = [
        {"id": "a", "translations": ["[MASK] is.", "It is ____."]},
        {"id": "b", "translations": ["[MASK] was.", "x [MASK]"]},
    ]
    found = read_translations(
        written(tmp_path / "t.jsonl", *good, {"id": "c", "translations": ["[MASK]", "[MASK]"]}), questions
    )
    assert [[str(c) for c in one] for one in found] == [["[MASK] is.", "It is [MASK]."], ["[MASK] was.", "x [MASK]"]]
    for bad, words in (
        ({"id": "b", "translations": ["none"]}, "'none' has 0 gaps"),
        ({"id": "b", "translations": ["[MASK] or [MASK]"]}, "has 2 gaps"),
        ({"id": "b", "translations": ["[MASK]"]}, "has 1 translations, but line 1 has 2"),
        ({"id": "a", "translations": ["[MASK]"]}, "is also the id of line 1"),
        ({"translations": ["[MASK]"]}, "key 'id' is missing"),
        ({"id": "z", "translations": ["[MASK]", "[MASK]"]}, "1 of 2 questions have no translations: b"),
    ):
        with pytest.raises(UserError) as caught:
            read_translations(written(tmp_path / "bad.jsonl", good[0], bad), questions)
        assert words in str(caught.value)


@pytest.mark.skipif(
    not REAL.is_dir(), reason="CommonsenseQA and OpenBookQA are not in ../shared/data beside this checkout"
)
def test_real_files() -> None:
    """Every record is read, nearly every question translated, most as the released statements have it but for a preposition."""
    found = read_questions(REAL / "commonsenseqa_dev_rand_split.jsonl")
    assert (len(found), {len(q.options) for q in found}) == (1221, {5})
    made = [rules(q.text) for q in found]
    assert sum(one.how == "fallback" for one in made) < 60
    theirs = (REAL / "commonsenseqa_dev.tgt").read_text().splitlines()

    def plain(text: str) -> str:
        return "".join(c for c in text.casefold() if c.isalnum() or c == "[")

    assert sum(plain(str(a.cloze)) == plain(b) for a, b in zip(made, theirs, strict=True)) > 600
    book = read_questions(REAL / "openbook_qa.jsonl")
    assert (len(book), {len(q.options) for q in book}) == (500, {4})
    assert sum(rules(q.text).how == "fallback" for q in book) < 20
