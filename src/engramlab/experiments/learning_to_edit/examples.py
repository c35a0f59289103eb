"""Parallel data: every example with a block of new facts before its question, and without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engramlab.base.facts import Case, Query
from engramlab.base.likeness import WordIndex
from engramlab.base.random_access import draw, permute
from engramlab.base.random_access import key as random_key
from engramlab.core.text import batches, tokens
from engramlab.core.text.tokens import Sequences, encode_queries
from engramlab.editing.methods.lte import block, check_lines
from engramlab.editing.requests import statement_of

NEAR = 5  # others that may stand in a block are among so many
#: Other instructions; their answers are what the untouched model writes. Ours.
INSTRUCTIONS = (
    *(
        "Write a short sentence about the sea.",
        "Name three colours:",
        "A good breakfast begins with",
        "Two plus three is",
    ),
    *(
        "To boil an egg, first",
        "The days of the week are",
        "A word that means the same as happy is",
        "The sun rises in the",
    ),
    *("Once upon a time there was", "A short poem about rain:", "The months of the year are", "Dogs are animals that"),
    *(
        "My favourite book is about",
        "A recipe for soup needs",
        "The opposite of cold is",
        "If it rains tomorrow, we will",
    ),
    *("Water freezes at", "A triangle has", "To learn an instrument one must", "The first letter of the alphabet is"),
    *("People wear coats because", "A letter to a friend begins with", "Bread is made of", "In the morning birds"),
)


@dataclass(frozen=True)
class Example:
    """A question, and what is said to it behind a block and without one.

    Attributes:
        kind: "in-scope" (the new answer and the old one), "out-of-scope" or "instruction" (the same answer twice).
        facts: of the block, in its order.
    """

    kind: str
    facts: tuple[str, ...]
    prompt: str
    behind: str
    bare: str

    def queries(self, *, twins: bool) -> list[Query]:
        """With the block, and (with ``twins``) without."""
        with_block = Query(block(self.facts, self.prompt), self.behind, id=f"{self.kind}, with the block")
        return [with_block, Query(self.prompt, self.bare, id=f"{self.kind}, without")] if twins else [with_block]


def examples(cases: Sequence[Case], answers: dict[str, str], seed: int) -> list[Example]:
    """Three examples a case, one of each kind.

    A question in scope is the edit's own prompt in three of ten examples, else one in other words or one whose answer is the
    new object too. A block holds the edit alone in half of the examples, and one or two more facts, about other subjects whose
    prompts are most like it, in a quarter each.

    Args:
        answers: by instruction, what the untouched model writes; those it writes nothing to are left out.
    """
    prompts = [case.edits[0].query.prompt for case in cases]
    index = WordIndex(prompts)
    said = [(prompt, answers[prompt]) for prompt in INSTRUCTIONS if answers.get(prompt, "").strip()]
    found: list[Example] = []
    for case in cases:
        (edit,) = case.edits
        stream = random_key(seed, "examples", case.id)
        scope = [q for q in edit.judges if q.role in ("generality", "portability") and q.target == edit.target]
        own = int(draw(stream, 0, 10)) < 3 or not scope
        asked = edit.query.prompt if own else scope[int(draw(stream, 1, len(scope)))].prompt
        kinds = [("in-scope", asked, edit.target, edit.query.target)]
        if still := [q for q in edit.judges if q.role == "locality" and q.target.strip()]:
            one = still[int(draw(stream, 2, len(still)))]
            kinds.append(("out-of-scope", one.prompt, one.target, one.target))
        if said:
            prompt, text = said[int(draw(stream, 3, len(said)))]
            kinds.append(("instruction", prompt, text, text))
        for number, (kind, prompt, behind, bare) in enumerate(kinds):
            facts = _block_of(case, cases, index, random_key(seed, "block", case.id, number))
            check_lines([*facts, prompt])
            found.append(Example(kind, facts, prompt, behind, bare))
    return found


def _block_of(case: Case, cases: Sequence[Case], index: WordIndex, stream: int) -> tuple[str, ...]:
    """The edit, and none, one or two more, in any order."""
    (edit,) = case.edits
    more = max(0, int(draw(stream, 0, 4)) - 1)  # 0 in half of the examples, 1 and 2 in a quarter each
    near = [cases[i] for i in index.nearest(edit.query.prompt, 4 * NEAR)]
    others = [one for one in near if one.edits[0].query.subject != edit.query.subject][:NEAR]
    order = permute(random_key(stream, "others"), np.arange(len(others)), len(others)).tolist() if others else []
    chosen = [statement_of(edit), *(statement_of(others[i].edits[0]) for i in order[:more])]
    turns = permute(random_key(stream, "order"), np.arange(len(chosen)), len(chosen)).tolist()
    return tuple(chosen[i] for i in turns)


@dataclass(frozen=True)
class Rows:
    """The rows that an arm trains on, answers marked.

    Attributes:
        longest: tokens of the longest row.
    """

    examples: list[Example]
    entries: batches.TokenRows
    start: list[int]
    end: int
    longest: int

    @classmethod
    def of(cls, found: Sequence[Example], tokenizer: Any, *, twins: bool = True) -> Rows:
        """Every example behind its block and, with ``twins``, without."""
        queries = [query for example in found for query in example.queries(twins=twins)]
        rows, first = encode_queries(tokenizer, queries).sequences, tokens.start_tokens(tokenizer)
        kept = np.ones(len(rows.ids), dtype=bool)  # rows get their start tokens where they are batched
        if first:
            kept[(rows.offsets[:-1, None] + np.arange(len(first))).ravel()] = False
        offsets = rows.offsets - len(first) * np.arange(len(rows.offsets))
        assert rows.marks is not None
        bare = Sequences(rows.ids[kept], offsets, rows.marks[kept])
        longest = int(np.diff(rows.offsets).max()) + 1
        return cls(list(found), batches.TokenRows(bare), first, tokens.end_token(tokenizer), longest)

    def stream(self, seed: int, length: int) -> batches.Stream:
        """Endless batches, every row once an epoch."""
        order = batches.Order(len(self.entries), seed)
        return batches.OneEntryARow(
            self.entries, order, start=self.start, end=self.end, length=length, answers_only=True
        )
