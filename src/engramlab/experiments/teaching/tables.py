"""What is looked at of a user's table and texts before a model is taught: letters, names inside names, places."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

from engramlab.base.errors import UserError, quoted
from engramlab.corpora.facts import FactTable
from engramlab.corpora.facts.teaching import nested
from engramlab.files.documents import PLAIN
from engramlab.files.text import kind_of, lines
from engramlab.measuring.answers import AnswerIndex


def check_tokens(table: FactTable, tokenizer: Any, model: str) -> None:
    """Raises UserError for a subject or an object that the tokenizer of a model cannot give back: nothing teaches it that."""
    every = list(dict.fromkeys(text for fact in table for text in (fact.subject, fact.object)))
    rows = tokenizer(every, add_special_tokens=False)["input_ids"]
    unknown, wrong = tokenizer.unk_token_id, {}
    for text, row in zip(every, rows, strict=True):
        back = tokenizer.decode(row, clean_up_tokenization_spaces=False)
        if _letters(back) != _letters(text) or (unknown is not None and unknown in row):
            wrong[text] = back
    for number in range(len(table.subjects)) if wrong else ():
        for text in (text for fact in table.about(number) for text in (fact.subject, fact.object) if text in wrong):
            place = f", {table.places[number]}" if table.places else ""
            raise UserError(
                f"facts: {table.name}{place}: {quoted(text)} is beyond the tokenizer of {model}, which gives back "
                f"{quoted(wrong[text])}; write it in letters that the model has, or leave it out ({len(wrong)} subjects and "
                "values are so)"
            )


def _letters(text: str) -> str:
    """A text without its spaces and the marks that nobody sees, as tokenizers may leave them out; in one form, without case."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c for c in plain if not c.isspace() and unicodedata.category(c) not in ("Cf", "Cc"))


def doubtful_names(table: FactTable) -> list[str]:
    """What becomes of names and values of which one stands inside another, a sentence each.

    They are not refused: ordinary tables have them (of countries, Guinea and Guinea-Bissau).
    """
    said = []
    if groups := nested(table.subjects):
        some = " and ".join(map(quoted, groups[0][:2]))
        said.append(
            f"{sum(map(len, groups))} subjects have a name inside another's ({some}): they stay in one half, so that no "
            "question about a subject that is held back is trained under another's name"
        )
    pairs = []
    for values in table.choices().values():
        index = AnswerIndex(values)
        pairs += [(one, longer) for longer in values for one in index.begun(longer) if one != longer]
    if pairs:
        shorter, longer = map(quoted, pairs[0])
        said.append(
            f"values that begin with another one: {len(pairs)} ({longer} with {shorter}); a reply with the longer counts as "
            "right for the shorter, too"
        )
    return said


def place_of(source: str, number: int, text: str) -> str:
    """Where a text of a source is: the line of a plain file, else which of its texts it is."""
    path = Path(source).expanduser()
    if path.is_file() and kind_of(path) in PLAIN:
        at = next((n for n, line in lines(path) if line.rstrip("\r\n") == text), number)
        return f"{source}, line {at}"
    return f"{source}, text {number}"
