"""Fictional passages that a chat model writes: what to ask it, and whether its answer can be used; no model here.

The recipe of FICTIONAL KNOWLEDGE: a passage about something that does not exist; five of its sentences, each cut before a
phrase that it states (memorization); the same cut sentences in other words, with the same phrase at the end (semantic); new
sentences whose end follows from more than one sentence of the passage (compositional); and nine paraphrases. There GPT-4 wrote
and people read the result; here any chat model writes, and what can be checked word for word is checked: phrases stand where
they have to, no target in its own prompt, every paraphrase states every target. That a compositional query needs two sentences
is asked for, and checked only as far as its prompt and its target are taken from different sentences.

Source: How Do Large Language Models Acquire Factual Knowledge During Pretraining? (arXiv 2406.11813), section 3 and its
appendix on the data. The wording of the requests is our own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from engramlab.base.sentences import sentences, whole_sentences

Messages = list[dict[str, str]]
LONGEST_TARGET = 6  # words
FEWEST_PROMPT = 3  # words before a target
SHORTEST = 0.5  # of the passage's words: a shorter paraphrase left something out

_WORD = re.compile(r"\w+")
_EDGES = " \t\n\"'“”‘’.,;:!?*"


@cache
def _requests() -> dict[str, str]:
    return json.loads(Path(__file__).with_name("requests.json").read_text(encoding="utf-8"))


def ask(what: str, /, **values: object) -> Messages:
    """The request for a "passage" (name, kind, count of its sentences), the "target" that is to be remembered of a sentence, a
    "semantic" query (prompt, target), a "compositional" one (passage, target), a "question" (passage, target) or a "paraphrase"
    (passage, kept words)."""
    return [{"role": "user", "content": _requests()[what].format(**values)}]


def read_passage(answer: str, name: str, count: int) -> str:
    """The passage in an answer; empty unless it has the entity's name and at least `count` different sentences."""
    text = whole_sentences(answer)
    said = sentences(text)
    bare = name.removeprefix("the ")
    return text if bare in text and len(set(said)) == len(said) >= count else ""


def read_target(answer: str, sentence: str) -> tuple[str, str] | None:
    """(prompt, target) of a memorization query: the sentence up to the phrase, and the phrase; None if it cannot be one."""
    target = answer.strip().splitlines()[0].strip(_EDGES) if answer.strip() else ""
    at = sentence.find(f" {target}")
    return _query(sentence[: max(at, 0)], target) if at >= 0 else None


def read_ending(answer: str, target: str, known: Sequence[str]) -> tuple[str, str] | None:
    """(prompt, target) of a sentence that ends with the target; None unless it does and its prompt is none of those known."""
    text = whole_sentences(answer) or answer.strip()
    text = text.strip(_EDGES)
    if not text.endswith(f" {target}"):
        return None
    found = _query(text[: -len(target) - 1], target)
    return None if found is None or found[0].lower() in {one.lower() for one in known} else found


def read_question(answer: str, target: str, known: Sequence[str]) -> str:
    """The question in an answer; empty unless it is one, does not hold its answer and is none of those known."""
    text = answer.strip().splitlines()[0].strip(' \t"“”*') if answer.strip() else ""
    whole = text.endswith("?") and len(text.split()) >= FEWEST_PROMPT and target not in text
    return text if whole and text.lower() not in {one.lower() for one in known} else ""


def composed(prompt: str, target: str, passage: str) -> bool:
    """Does the prompt take a word that tells something from a sentence other than those with the target?"""
    with_target = {word for one in sentences(passage) if target in one for word in _telling(one)}
    others = {word for one in sentences(passage) if target not in one for word in _telling(one)}
    return bool(_telling(prompt) & (others - with_target))


def read_paraphrase(answer: str, passage: str, targets: Sequence[str], known: Sequence[str]) -> str:
    """The paraphrase in an answer; empty unless it keeps every target, is long enough and none of the texts known."""
    text = whole_sentences(answer)
    enough = len(text.split()) >= SHORTEST * len(passage.split())
    whole = enough and all(target in text for target in targets)
    return text if whole and text not in {passage, *known} else ""


def _query(prompt: str, target: str) -> tuple[str, str] | None:
    prompt = prompt.rstrip()
    fits = 1 <= len(target.split()) <= LONGEST_TARGET and len(prompt.split()) >= FEWEST_PROMPT
    return (prompt, target) if fits and target not in prompt else None


def _telling(text: str) -> set[str]:
    """Its longer words, its numbers and its names, in small letters."""
    return {word.lower() for word in _WORD.findall(text) if len(word) > 4 or word[0].isupper() or word.isdigit()}
