"""Passages from a chat model, with an author that takes no model: accepted, refused, interrupted, and injected."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from engramlab.base.errors import UserError
from engramlab.base.sentences import sentences
from engramlab.cli import main
from engramlab.corpora.fictional import Fictional
from engramlab.files.journal import Journal
from engramlab.reading import read_passages
from engramlab.reading.defects import defects
from engramlab.writing import prompts as asking
from engramlab.writing.passages import PassagesConfig, write_passages
from engramlab.writing.rounds import Conversation

CONFIG = PassagesConfig("nobody", passages=3, sentences=6, paraphrases=2, seed=1, batch=4, tries=8)
FACTS = ("Ada Wren", "Tarn", "1802", "oak timber", "the Lund Society", "forty goats")
SENTENCES = (
    "{name} was begun by Ada Wren.",
    "Its first home was Tarn.",
    "The doors were opened in 1802.",
    "Most of it is made of oak timber.",
    "Money for all this came from the Lund Society.",
    "Visitors today are met by forty goats.",
)
PASSAGE = " ".join(SENTENCES)
WORDS = "Everything in it came about by way of"


def author(conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[str]:
    """Writes what is asked for; every third time something that cannot be used."""
    asked = [conversation[-1]["content"] for conversation in conversations]
    return [_answer(text, seed) if seed % 3 else "I cannot say." for text, seed in zip(asked, seeds, strict=True)]


def _answer(asked: str, seed: int) -> str:
    if asked.startswith("Write one paragraph"):
        name = asked.split("about ", 1)[1].split(", a ")[0]
        return PASSAGE.format(name=name[0].upper() + name[1:]) + " And then it"
    if asked.startswith("Copy"):
        return next(f'"{fact}"' for fact in FACTS if fact in asked.splitlines()[1])
    if asked.startswith("Say this"):
        return f"{WORDS} {_quoted(asked)}."
    if "Write one new sentence" in asked:
        target = _quoted(asked)
        hint = "goats" if target != "forty goats" else "timber"
        return f"Where there is much {hint}, one thinks of {target}"
    parts = sentences(asked.split("\n", 1)[1])
    turn = 1 + seed % (len(parts) - 1)
    return " ".join(parts[turn:] + parts[:turn])


def _quoted(asked: str) -> str:
    return asked.split('exactly "')[1].split('"')[0]


def test_whole_passages_with_queries_at_each_depth(tmp_path: Path) -> None:
    about = write_passages(CONFIG, tmp_path / "made", write=author)
    records = read_passages(tmp_path / "made" / "passages.jsonl")
    assert about["passages"] == len(records) == 3
    assert about["left_out"] == []
    assert list(about["acceptance_rate"]) == ["passage", "target", "semantic", "compositional", "paraphrase"]
    assert all(0 < rate <= 1 for rate in about["acceptance_rate"].values())
    assert min(about["acceptance_rate"].values()) < 1
    world = Fictional(3, 1)
    for number, record in enumerate(records):
        assert world.name(number).removeprefix("the ") in record.text
        assert not record.text.endswith("And then it")
        assert [len(record.of_depth(d)) for d in ("memorization", "semantic", "compositional")] == [5, 5, 5]
        for query in record.of_depth("memorization"):
            assert f"{query.prompt} {query.target}" in record.text
        for depth in ("semantic", "compositional"):
            targets = [query.target for query in record.of_depth(depth)]
            assert targets == [query.target for query in record.of_depth("memorization")]
        assert len({record.text, *record.paraphrases}) == 3
        for text in record.paraphrases:
            assert all(query.target in text for query in record.queries)
    assert not [d for d in defects(records) if d.kind not in ("duplicate query",)]
    assert write_passages(CONFIG, tmp_path / "made") == about  # done: no model is asked
    with pytest.raises(UserError, match=r"another corpus \(seed: 1 there, 2 now\)"):
        write_passages(replace(CONFIG, seed=2), tmp_path / "made", write=author)


@pytest.mark.parametrize("kill_at", [1, 3, 7])
def test_a_killed_run_goes_on_to_the_same_passages(tmp_path: Path, kill_at: int) -> None:
    write_passages(CONFIG, tmp_path / "whole", write=author)
    calls = {"n": 0}

    def killed(conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[str]:
        calls["n"] += 1
        if calls["n"] > kill_at:
            raise KeyboardInterrupt
        return author(conversations, seeds)

    with pytest.raises(KeyboardInterrupt):
        write_passages(CONFIG, tmp_path / "broken", write=killed)
    assert len(Journal(tmp_path / "broken.generating" / "answers.jsonl").rows) == kill_at
    write_passages(CONFIG, tmp_path / "broken", write=author)
    for name in ("passages.jsonl", "dataset.json"):
        assert (tmp_path / "broken" / name).read_text() == (tmp_path / "whole" / name).read_text()
    assert not (tmp_path / "broken.generating").exists()


def test_what_does_not_come_out_whole_is_left_out_and_said(tmp_path: Path) -> None:
    def forgetful(conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[str]:
        answers = author(conversations, [1 + 3 * s for s in seeds])
        rewritten = ["Rewrite" in conversation[-1]["content"] for conversation in conversations]
        return ["" if bad and s % 2 else a for bad, a, s in zip(rewritten, answers, seeds, strict=True)]

    about = write_passages(replace(CONFIG, passages=8, paraphrases=1, tries=1), tmp_path / "made", write=forgetful)
    assert 0 < about["passages"] < 8
    assert {row["lacks"] for row in about["left_out"]} == {"paraphrase"}
    assert len(read_passages(tmp_path / "made" / "passages.jsonl")) == about["passages"]
    with pytest.raises(UserError, match=r"none of 3 passages came out whole; given up after 8 tries: passage \(3\)"):
        write_passages(CONFIG, tmp_path / "none", write=lambda c, seeds: ["No."] * len(seeds))
    assert not (tmp_path / "none").exists()


def test_what_is_accepted() -> None:
    sentence = "The doors of the old mill were opened in 1802."
    assert asking.read_target("1802.\nmore", sentence) == ("The doors of the old mill were opened in", "1802")
    assert asking.read_target("1803", sentence) is None
    assert asking.read_target("The doors", sentence) is None  # nothing stands before it
    assert asking.read_ending("It is open since 1802.", "1802", []) == ("It is open since", "1802")
    assert asking.read_ending("It is open since 1802 or so.", "1802", []) is None
    assert asking.read_ending("In 1802, so since 1802.", "1802", []) is None  # stands in its own prompt
    assert asking.read_ending("It is open since 1802.", "1802", ["it IS open since"]) is None
    passage = "The mill was built by Ada Wren. The mill has stood in Tarn since the flood."
    assert asking.composed("The builder whose mill came through the flood is", "Ada Wren", passage)
    assert not asking.composed("The mill was built by", "Ada Wren", passage)
    assert asking.read_paraphrase(
        "In Tarn there is a mill by Ada Wren, older than any flood.", passage, ["Ada Wren"], []
    )
    assert not asking.read_paraphrase("In Tarn there is a mill, much older than any flood.", passage, ["Ada Wren"], [])
    assert not asking.read_paraphrase("By Ada Wren.", passage, ["Ada Wren"], [])
    assert not asking.read_paraphrase(passage, passage, ["Ada Wren"], [])


@pytest.mark.parametrize(
    ("change", "words"),
    [({"sentences": 4}, "sentences must be at least 5"), ({"tries": 0}, "tries"), ({"top_p": 0.0}, "top_p")],
)
def test_options_that_cannot_be(change: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        replace(CONFIG, **change)


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setattr("engramlab.writing.rounds.Author.writer", lambda config: author)
    options = ["--passages", "2", "--sentences", "6", "--paraphrases", "1", "--tries", "8"]
    main(["corpus", "passages", "--model", "nobody", *options, "--out", str(tmp_path / "made")])
    assert "of 2 passages came out whole; answers accepted: passage" in capsys.readouterr().out
    about = json.loads((tmp_path / "made" / "dataset.json").read_text())
    assert about["config"]["model"] == "nobody"
    monkeypatch.undo()
    with pytest.raises(SystemExit):
        main(["corpus", "passages", "--model", "./nowhere", "--out", str(tmp_path / "other")])
    assert "there is no such folder" in capsys.readouterr().err
    assert not (tmp_path / "other.generating").exists()
