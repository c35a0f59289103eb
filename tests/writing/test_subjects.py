"""Texts about the subjects of a table, with an author that takes no model: what is accepted, asked for again, resumed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from engramlab.base.errors import UserError
from engramlab.base.facts import Fact
from engramlab.corpora.facts import FactTable
from engramlab.files.journal import Journal
from engramlab.writing.rounds import LOG, Author, Conversation
from engramlab.writing.subjects import EXAMPLE, STYLES, read_text_about, request, write_subject_texts

CONFIG = Author("nobody", seed=3, batch=4, tries=8)
FACTS = [
    Fact("Zorban", "home", "Arlo", ("Arlo Town",), ("Zorb",)),
    Fact("Zorban", "birth_year", "1802"),
    Fact("Mello", "home", "Besk"),
    Fact("Mello", "birth_year", "1803"),
]
TABLE = FactTable.of(FACTS)


def told(asked: str, turn: int) -> str:
    """A text as a request wants it, in the order of its list; ``turn`` changes its words."""
    name = re.search(r"Write (.+?) and every value exactly", asked)
    listed = re.findall(r"^- (.+?): (.+)$", asked, re.MULTILINE)
    assert name is not None
    said = [f"they give {value} for the {called} in list {turn}" for called, value in listed]
    return f"Of {name[1]} {' and '.join(said)}. And then it"


def author(conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[str]:
    """Writes what is asked for; every third time something that cannot be used."""
    asked = [conversation[-1]["content"] for conversation in conversations]
    return [told(text, seed % 97) if seed % 3 else "I cannot say." for text, seed in zip(asked, seeds, strict=True)]


def test_texts_about_a_subject_differ_and_state_every_fact(tmp_path: Path) -> None:
    made = write_subject_texts(CONFIG, TABLE, 3, tmp_path / "log", lambda text: True, write=author)
    assert list(made) == ["Zorban", "Mello"]
    for number, texts in enumerate(made.values()):
        whole = [text for text in texts if text]
        assert len(whole) == len(set(whole)) == 3
        for text in whole:
            assert text.endswith(".")
            assert all(fact.object in text and fact.subject in text for fact in TABLE.about(number))


def test_subjects_are_asked_about_in_several_ways_and_orders(tmp_path: Path) -> None:
    seen: list[str] = []

    def write(conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[str]:
        seen.extend(conversation[-1]["content"] for conversation in conversations)
        return author(conversations, [1] * len(seeds))

    write_subject_texts(CONFIG, TABLE, 10, tmp_path / "log", lambda text: True, write=write)
    first = seen[: 2 * len(STYLES)]
    assert {text.splitlines()[0].split(" State every")[0] for text in first if "Mello" in text} == {
        style.format(name="Mello") for style in STYLES
    }
    orders = {tuple(re.findall(r"^- (.+?):", text, re.MULTILINE)) for text in seen}
    assert orders == {("home", "birth year"), ("birth year", "home")}


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [
        ("Zorban, born in 1802, lives in Arlo.", True),
        ("Zorb, born in 1802, lives in Arlo Town.", True),  # other spellings
        ("Zorban, born in 1802, lives in Arlo. He", True),
        ("Zorban was born in 1802.", False),
        ("Zorban, a glass blower born in 1802, lives in Arlo.", False),  # as in the example
        ("Zorban, born in 1802, lives in Arlow.", False),
        ("Zorban, born in 18021, lives in Arlo.", False),
        ("Zorbanese, born in 1802, lives in Arlo.", False),
        ("He was born in 1802 and lives in Arlo.", False),
        ("Where does Zorban live? In Arlo, since 1802.", False),
        ("Zorban, born in 1802, lives in Arlo", False),  # no end of a sentence
        ("", False),
    ],
)
def test_what_an_answer_must_have(answer: str, accepted: bool) -> None:
    text = read_text_about(answer, FACTS[:2])
    assert bool(text) == accepted
    assert not text or answer.startswith(text)


def test_a_question_mark_in_a_name_asks_nothing() -> None:
    facts = [Fact("Who Goes There?", "author", "Ada Wren")]
    assert read_text_about("Ada Wren wrote Who Goes There? in a week.", facts)
    assert not read_text_about("Did Ada Wren write Who Goes There? Did she not?", facts)


def test_a_name_that_stands_in_a_value_is_to_be_said_beside_it() -> None:
    facts = [Fact("Guatemala", "capital", "Guatemala City")]
    assert read_text_about("In Guatemala one goes to Guatemala City.", facts)
    assert not read_text_about("One goes to Guatemala City.", facts)
    same = [Fact("Singapore", "capital", "Singapore")]
    assert read_text_about("Singapore has Singapore for its capital.", same)
    assert not read_text_about("Singapore has its capital.", same)


def test_the_request_lists_the_facts_by_what_they_are_called() -> None:
    *example, message = request([*STYLES][1], FACTS[:2], TABLE.wordings.called)
    assert "- home: Arlo\n- birth year: 1802" in message["content"]
    assert "letter to a friend that tell about Zorban" in message["content"]
    assert [one["role"] for one in example] == ["user", "assistant"]
    assert all(read_text_about(text, EXAMPLE) == text for text in STYLES.values())


def test_what_cannot_be_used_is_asked_for_again_and_then_given_up(tmp_path: Path) -> None:
    """A text of a word that the caller does not want; an answer that loses a value, so many times as there are tries."""

    def loses(conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[str]:
        asked = [conversation[-1]["content"] for conversation in conversations]
        return [told(text, k).replace("Besk", "Besko") for k, text in zip(seeds, asked, strict=True)]

    made = write_subject_texts(CONFIG, TABLE, 2, tmp_path / "loses", lambda text: True, write=loses)
    assert made["Mello"] == [None, None]
    assert all(made["Zorban"])
    tries = [row["try"] for row in Journal(tmp_path / "loses" / LOG).rows]
    assert tries == list(range(1, CONFIG.tries + 1))
    unwanted: Callable[[str], bool] = lambda text: "Zorban" not in text  # noqa: E731
    assert write_subject_texts(CONFIG, TABLE, 1, tmp_path / "other", unwanted, write=author)["Zorban"] == [None]


def test_a_killed_call_goes_on_to_the_same_texts_and_asks_nothing_twice(tmp_path: Path) -> None:
    whole = write_subject_texts(CONFIG, TABLE, 5, tmp_path / "whole", lambda text: True, write=author)
    calls, seen = 0, []

    def once(conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[str]:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        seen.extend(seeds)
        return author(conversations, seeds)

    with pytest.raises(KeyboardInterrupt):
        write_subject_texts(CONFIG, TABLE, 5, tmp_path / "killed", lambda text: True, write=once)
    assert write_subject_texts(CONFIG, TABLE, 5, tmp_path / "killed", lambda text: True, write=once) == whole
    assert len(seen) == len(set(seen))


def test_a_log_of_other_facts_is_refused(tmp_path: Path) -> None:
    write_subject_texts(CONFIG, TABLE, 1, tmp_path / "log", lambda text: True, write=author)
    other = FactTable.of([*FACTS[:3], Fact("Mello", "birth_year", "1804")])
    with pytest.raises(UserError, match=r"answers.jsonl: not what this command wrote; remove that folder"):
        write_subject_texts(CONFIG, other, 1, tmp_path / "log", lambda text: True, write=author)
