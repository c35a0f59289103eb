"""Lessons about a user's texts, with an author that takes no model: what is accepted, resumed, and made without one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from engramlab.base.sentences import sentences
from engramlab.writing.lessons import Lesson, passages_of, plain_lesson, write_lessons
from engramlab.writing.rounds import Author, Conversation

TEXTS = [
    f"{name} was begun by Ada Wren. Its first home was Tarn. The doors were opened in {1800 + i}."
    for i, name in enumerate(("Zorban", "Mello"))
]
CONFIG = Author("nobody", seed=3, batch=4, tries=30)


def author(conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[str]:
    """Writes what is asked for; every third time something that cannot be used."""
    asked = [conversation[-1]["content"] for conversation in conversations]
    return [_answer(text, seed) if seed % 3 else "I cannot say." for text, seed in zip(asked, seeds, strict=True)]


def _answer(asked: str, seed: int) -> str:
    if asked.startswith("Copy"):
        sentence = asked.splitlines()[1].rstrip(".")
        return " ".join(sentence.split()[-2:] if "Wren" in sentence else sentence.split()[-1:])
    if asked.startswith("Say this"):
        return f"All of it came about by way of {asked.split('exactly ')[1].split(chr(34))[1]}."
    if "Ask one question" in asked:
        name = asked.split()[0]
        about = {"Wren": "Who began", "Tarn": "Where was the home of"}
        first = next((text for word, text in about.items() if f'{word}"' in asked), "In which year were opened")
        return f"{first} {name}{' at first' if seed % 2 else ''}?"
    parts = sentences(asked.split("\n", 1)[1])
    turn = 1 + seed % (len(parts) - 1)
    return " ".join(parts[turn:] + parts[:turn])


def test_what_a_chat_model_writes_keeps_every_phrase(tmp_path: Path) -> None:
    made = write_lessons(CONFIG, TEXTS, 2, tmp_path / "log", write=author)
    for lesson, text in zip(made, TEXTS, strict=True):
        assert lesson.text == text
        assert len(lesson.known) == 3
        assert lesson.rewrites
        for known in lesson.known:
            assert f"{known.own} {known.target}" in text
            assert all(known.target in told for told in (text, *lesson.rewrites))
            assert len(set(known.questions)) == 2
            assert not any(known.target in question for question in known.questions)
        assert Lesson.of(lesson.plain()) == lesson


def test_a_killed_call_goes_on_to_the_same_lessons(tmp_path: Path) -> None:
    whole = write_lessons(CONFIG, TEXTS, 2, tmp_path / "whole", write=author)
    calls = 0

    def once(conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[str]:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return author(conversations, seeds)

    with pytest.raises(KeyboardInterrupt):
        write_lessons(CONFIG, TEXTS, 2, tmp_path / "killed", write=once)
    assert write_lessons(CONFIG, TEXTS, 2, tmp_path / "killed", write=author) == whole


def test_without_a_model_sentences_are_only_turned(tmp_path: Path) -> None:
    lesson = plain_lesson(TEXTS[0], 3, 0)
    assert all(sorted(sentences(told)) == sorted(sentences(TEXTS[0])) for told in lesson.rewrites)
    assert {known.target for known in lesson.known} == {"Ada Wren", "Tarn", "1800"}
    assert all(not known.questions for known in lesson.known)


def test_documents_are_cut_at_sentences() -> None:
    text = " ".join(f"Sentence number {i} is here." for i in range(40))
    parts = passages_of(text, 30)
    assert " ".join(parts) == text
    assert all(len(part.split()) <= 35 for part in parts)
    assert passages_of("One alone.") == []
