"""Which wordings are held out: none that reads like a trained one up to the object, and no form that a user's question has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engramlab.base.errors import UserError
from engramlab.base.facts import Fact
from engramlab.corpora.facts import FactTable
from engramlab.corpora.facts.teaching import Divided, divide

FACTS = [Fact("Ada", "home", "Rome"), Fact("Ben", "home", "Oslo")]


def worded(folder: Path, templates: str = "", questions: str = "") -> FactTable:
    given: dict[str, Any] = {}
    for name, text in (("templates", templates), ("questions", questions)):
        if text:
            given[name] = folder / f"{name}.txt"
            given[name].write_text(text)
    return FactTable.of(FACTS, **given)


def said(words: Divided, part: str, kind: str = "statement") -> list[str]:
    return [text for one, text in words.prompts("home", "Ada", part) if one == kind]


@pytest.mark.parametrize(
    ("more", "held"),
    [
        ("{subject} [lives|live] in {value}!\n", ["Ada lives in"]),  # another sign at the end
        ("{subject} [lives|live] in {value}.\n", ["Ada lives in"]),  # given twice
        ("{subject} Lives  in {value}.\n", ["Ada lives in"]),  # capitals and spaces
        ("{subject} [lives|live] in {value}, by the sea.\n", ["Ada lives in"]),  # the object does not end it
        ("{subject} [lives|live] in the town of {value}.\n", ["Ada is at home in", "Ada lives in the town of"]),
    ],
)
def test_no_sentence_that_is_held_out_reads_like_a_trained_one(tmp_path: Path, more: str, held: list[str]) -> None:
    lines = "{subject's} home is {value}.\n{subject} [is|are] at home in {value}.\n{subject} [lives|live] in {value}.\n"
    words = divide(worded(tmp_path, lines + more).wordings)
    assert sorted({" ".join(text.replace("Lives", "lives").split()) for text in said(words, "held-out")}) == held
    texts = [words.trained.sentence(fact, k)[0] for fact in FACTS for k in range(8)]
    assert len(set(texts)) >= 4
    assert not any(prompt.casefold() in " ".join(text.casefold().split()) for prompt in held for text in texts)


def test_sentences_that_all_read_the_same_cannot_be_divided(tmp_path: Path) -> None:
    table = worded(tmp_path, "{subject's} home is {value}.\n{subject's} home is {value}!\n")
    with pytest.raises(UserError, match=r"templates of 'home': 1 of them ends in \{value\} .*two are needed"):
        divide(table.wordings)


@pytest.mark.parametrize(
    ("question", "gone"),
    [
        ("Q: Name the home of {subject}.\\nA:", "Q: Name the home of Ada.\nA:"),
        ("Name the home of {subject}. Answer:", "Q: Name the home of Ada.\nA:"),
        ("Please name the home of {subject}, in a word. Answer:", "Q: Name the home of Ada.\nA:"),
        ("The home of {subject}? It is", "The home of Ada? It is"),
    ],
)
def test_a_question_of_the_users_is_not_asked_with_as_if_it_were_held_out(
    tmp_path: Path, question: str, gone: str
) -> None:
    assert gone in said(divide(worded(tmp_path).wordings), "held-out", "question")
    words = divide(worded(tmp_path, questions=f"home\t{question}\n").wordings)
    held = said(words, "held-out", "question")
    assert len(held) == 2
    assert gone not in held
    assert not set(held) & set(said(words, "trained", "question"))


def test_questions_that_use_up_every_form_are_refused(tmp_path: Path) -> None:
    forms = ["Name the home of {subject}.", "The home of {subject}?", "Which home does {subject} have?"]
    forms += ["Whoever looks up {subject} finds as the home"]
    table = worded(tmp_path, questions="".join(f"home\t{form}\n" for form in forms))
    with pytest.raises(UserError, match="questions of 'home': they use up every form"):
        divide(table.wordings)


def test_several_questions_of_a_relation_are_all_trained_and_the_first_is_asked_elsewhere(tmp_path: Path) -> None:
    asked = "home\tWhere is {subject} at home? Answer:\nhome\tWhich town does {subject} live in? Answer:\n"
    table = worded(tmp_path, questions=asked)
    assert said(divide(table.wordings), "trained", "question") == [
        "Where is Ada at home? Answer:",
        "Question: Where is Ada at home?\nAnswer:",
        "Which town does Ada live in? Answer:",
        "Question: Which town does Ada live in?\nAnswer:",
    ]
    assert [query.prompt for query in table.queries()] == [f"Where is {n} at home? Answer:" for n in ("Ada", "Ben")]
    with pytest.warns(UserWarning, match="line 3: the question .* is there already and counts once"):
        again = worded(tmp_path, questions=asked + "home\tWhere is {subject} at home? Answer:\n")
    assert said(divide(again.wordings), "trained") == said(divide(table.wordings), "trained")


ELSEWHERE = """{subject} [lives|live] in {value}.
Since 1980 {subject} [lives|live] in {value}.
In {value} lives {subject}.
In 1980 {subject} moved to {value}.
"""


def test_subjects_elsewhere_are_divided_by_what_stands_before_them_too(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"in 1 of them \(.*templates.txt, line 3\)"):
        table = worded(tmp_path, ELSEWHERE)
    words = divide(table.wordings)
    # "Ada lives in" stands in "Since 1980 Ada lives in Rome." and can therefore not be held out.
    assert said(words, "held-out") == ["In 1980 Ada moved to"]
    assert said(words, "trained") == ["Ada lives in", "Since 1980 Ada lives in"]
    texts = {words.trained.sentence(FACTS[0], k)[0] for k in range(8)}
    assert texts == {"Ada lives in Rome.", "Since 1980 Ada lives in Rome.", "In Rome lives Ada."}


@pytest.mark.filterwarnings("ignore:templates")
def test_too_few_sentences_that_can_be_asked_with_name_the_others(tmp_path: Path) -> None:
    table = worded(
        tmp_path, "{subject} lives in {value}.\nIn {value} lives {subject}.\n{value} is where {subject} lives.\n"
    )
    with pytest.raises(
        UserError, match=r"1 of them ends in \{value\}.*templates.txt, line 2, .*templates.txt, line 3\)"
    ):
        divide(table.wordings)
    none = worded(tmp_path, "In {value} lives {subject}.\n")
    with pytest.raises(UserError, match=r"comes before \{subject\} in each of them \(.*line 1\)"):
        none.passages()
    assert [query.prompt for query in none.queries()] == [f"What is the home of {n}? Answer:" for n in ("Ada", "Ben")]
    assert none.edits()[0].edits[0].query.prompt.startswith("What is the home of")


@pytest.mark.parametrize("within", ["Here lives {subject} in {value}.", "{value}: Here lives {subject} in town."])
@pytest.mark.filterwarnings("ignore:templates")
def test_a_beginning_that_stands_in_another_sentence_is_not_held_out(tmp_path: Path, within: str) -> None:
    lines = ["{subject} has {value}.", "Here lives {subject} in {value}!", "{subject} in {value}.", within]
    held = said(divide(worded(tmp_path, "\n".join(lines)).wordings), "held-out")
    assert "Ada in" not in held
    assert held == (["Here lives Ada in"] if within.endswith("{value}.") else ["Ada has"])


@pytest.mark.parametrize("line", ["The home of {subject}? It is {value}.", "Name the home of {subject}: {value}!"])
def test_a_sentence_that_reads_like_a_question_takes_its_form_from_those_held_out(tmp_path: Path, line: str) -> None:
    lines = "{subject's} home is {value}.\n{subject} lives in {value}.\n" + line + "\n"
    words = divide(worded(tmp_path, lines).wordings)
    held = said(words, "held-out", "question")
    assert len(held) == 2
    texts = " ".join(words.trained.sentence(FACTS[0], k)[0] for k in range(9)).replace(":", ".")
    assert not any(one.removeprefix("Q: ").removesuffix("\nA:") in texts for one in held)
