"""Your own edits: JSON lines, JSON, CSV or TSV. Two columns are enough.

    prompt                     target
    The capital of France is   Rome

Columns (JSON keys), with capitals or without, that may be there too:

    subject       France                      who or what the edit is about, as the prompt quotes it; ROME, MEMIT and
                                              AlphaEdit need it. The prompt may have {} in its place.
    old           Paris                       the answer so far
    aliases       Roma|City of Rome           other right spellings of the target
    rephrase      France's capital is|...     the prompt in other words (generality)
    wordings      Of France the capital is|... other words to teach it in too (--wordings); none of those above
    portability   The Louvre stands in => Rome|...         what follows from the edit: prompt => answer (=> alias ...)
    locality      The capital of Spain is => Madrid|...    what must stay as it is; the answer may be left out
    space         false                       no space joins the target to its prompt. (By itself none does in scripts without
                                              spaces, nor where the prompt ends in a line end or the target begins in white
                                              space: what you write at that edge is kept.)
    statement     Paris has handed over...    what the edit says as a text of its own, for methods that read or train on texts
    id, relation  for your own orientation

In the last six value columns "|" stands between several values and "=>" between a prompt and its answers. In JSON each
may be a list instead, and a portability or locality entry an object {"prompt", "target", "aliases", "group"}. Other
columns are ignored, except such as look like a misspelt one of these.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace

from engramlab.base.facts import NO_SPACE, Case, Query
from engramlab.core.text.tokens import join
from engramlab.editing.benchmarks._fields import Fields, case_id, edit, judging, put_together

KEYS = "prompt and target"
COLUMNS = (
    "prompt",
    "target",
    "subject",
    "old",
    "aliases",
    "rephrase",
    "wordings",
    "portability",
    "locality",
    "space",
    "id",
    "relation",
    "statement",
)


def recognises(record: Mapping[str, object]) -> bool:
    return "target" in _by_column(record) and "target_new" not in record


def case(record: Mapping[str, object], index: int) -> Case:
    """Raises BadRecord."""
    record = _by_column(record)
    fields = Fields({key: _split(value) if key in _LISTS else value for key, value in record.items()}, index)
    for key in record:
        if key not in COLUMNS and (close := _misspelt(key)):
            raise fields.bad(key, f"is no column of this format; did you mean {close!r}?")
    subject = fields.name("subject")
    target = tuple(dict.fromkeys(fields.answers("target") + fields.answers("aliases", needed=False)))
    prompt, lead = _edge(fields, fields.prompt("prompt", subject), target[0])
    target = (lead + target[0], *target[1:])
    change = edit(prompt, subject, target, fields.answers("old", needed=False), fields.name("relation"))
    change = replace(change, wordings=fields.prompts("wordings", subject), statement=fields.name("statement"))
    judges = [judging("generality", "rephrase", one, target) for one in fields.prompts("rephrase", subject)]
    for role in ("portability", "locality"):
        given = fields.values.get(role)
        for number, one in enumerate(given if isinstance(given, list) else [] if given is None else [given]):
            judges.append(_judge(fields, f"{role}[{number}]", one, role, subject))
    return put_together(case_id(fields, "id", "case_id"), [change], judges)


def _edge(fields: Fields, prompt: str, target: str) -> tuple[str, str]:
    """The prompt with the line ends that close it, and what stands before the target, as the user wrote both.

    Other white space at the prompt's end is the target's: tokenizers have it at the beginning of a word.
    """
    given = [fields.values.get(key) for key in ("prompt", "target")]
    given = [one[0] if isinstance(one, list) and len(one) == 1 else one for one in given]
    before, after = (one if isinstance(one, str) else "" for one in given)
    end, lead = before[len(before.rstrip()) :], after[: len(after) - len(after.lstrip())]
    if str(fields.values.get("space", "")).strip().casefold() in ("false", "no", "0"):
        return prompt, NO_SPACE
    if "\n" in end or "\r" in end:
        return prompt + end, lead
    lead = lead or end
    return prompt, "" if join(prompt, target)[0] == prompt + lead + target else lead


_LISTS = ("aliases", "rephrase", "wordings", "portability", "locality")


def _by_column(record: Mapping[str, object]) -> dict[str, object]:
    """The record under the names of the columns, whatever capitals it writes them with."""
    found = dict(record)
    for key in record:
        name = key.strip().lower() if len(key) < 40 else key
        if name in COLUMNS and name not in record:
            found[name] = found.pop(key)
    return found


def _misspelt(key: str) -> str:
    """The column this key looks like; short words ("gold" for "old") look like too much."""
    close = difflib.get_close_matches(key.lower(), COLUMNS, n=1, cutoff=0.8) if 4 < len(key) < 40 else []
    return close[0] if close else ""


def _split(value: object) -> object:
    return value.split("|") if isinstance(value, str) else value


def _judge(fields: Fields, key: str, entry: object, role: str, subject: str) -> Query:
    if isinstance(entry, dict):
        inner = Fields(entry, fields.index, f"{key}.")
        prompt, group = inner.prompt("prompt", subject), inner.name("group") or role
        answers = inner.answers("target", needed=role != "locality") + inner.answers("aliases", needed=False)
        return judging(role, group, prompt, tuple(dict.fromkeys(answers)))
    if not isinstance(entry, str):
        raise fields.bad(key, "must be 'prompt => answer', or an object with prompt and target")
    first, *rest = entry.split("=>")
    inner = Fields({key: first, "answer": rest}, fields.index)
    prompt, answers = inner.prompt(key, subject), inner.answers("answer", needed=False)
    if not answers and role != "locality":
        raise fields.bad(key, f"{entry.strip()[:60]!r} has no answer; write 'prompt => answer'")
    return judging(role, role, prompt, answers)
