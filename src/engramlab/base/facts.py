"""Facts, passages, queries and edits: the words every experiment speaks. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

NO_SPACE = "\u2060"
"""Before a target: no space joins it to its prompt, whatever the script. (Unicode's WORD JOINER; no part of the text.)"""


@dataclass(frozen=True, slots=True)
class Fact:
    """`subject` stands in `relation` to `object`; `aliases` are other right spellings of the object."""

    subject: str
    relation: str
    object: str
    aliases: tuple[str, ...] = ()
    subject_aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Span:
    """Where a passage states something: characters `start` to `end` (end exclusive) of the passage's text.

    An "object" span quotes the object of `relation`; a "subject" span quotes the subject's name, and its
    `relation` is empty because the name serves every relation of the sentence.
    """

    start: int
    end: int
    relation: str
    kind: Literal["object", "subject"] = "object"


@dataclass(frozen=True, slots=True)
class Passage:
    """A text and what it states where."""

    text: str
    spans: tuple[Span, ...] = ()
    id: str = ""

    def quote(self, span: Span) -> str:
        """The words a span covers.

        >>> Passage("Paris is in France.", (Span(12, 18, "country"),)).quote(Span(12, 18, "country"))
        'France'
        """
        return self.text[span.start : span.end]


@dataclass(frozen=True, slots=True)
class Query:
    """A prompt and the target that should follow it: everything that is measured is a query.

    How `target` joins the prompt is decided in one place, `base/joining.py`: mostly by a space; white space of its
    own, or `NO_SPACE`, in front says otherwise. `aliases` count as right too. `subject` and `relation` name the fact
    asked for, `role` what the query is for (question, generality, locality, ...), `group` the slice it is reported
    under ("train" or "test", an attribute, a depth). `said` is the question itself where `prompt` is more than
    that, such as the question in a chat template: an answer may then say it again before it answers. A written text
    is right where it begins with an answer; with `within`, where one stands anywhere in its first so many tokens.
    """

    prompt: str
    target: str
    aliases: tuple[str, ...] = ()
    id: str = ""
    subject: str = ""
    relation: str = ""
    role: str = ""
    group: str = ""
    said: str = ""
    within: int = 0

    @property
    def question(self) -> str:
        """What is asked, without a chat template around it."""
        return self.said or self.prompt


@dataclass(frozen=True, slots=True)
class Edit:
    """After `query.prompt` the model shall say `target` (or one of its `aliases`); `query.target` is the old answer.

    `query.subject` is the subject as the prompt quotes it. `judges` are queries that tell what became of the model: role
    "generality" (the prompt in other words), "portability" (what follows from the edit) and "locality" (what must stay as it
    was), each with the kind a benchmark gives it as its `group`. `stop` is taught behind the target, of which it is no part:
    a full stop, say, so that the model knows where a name that it has never seen ends. `statement` says the edit in a text of
    its own, for methods that read or fold texts; where it is empty, prompt and target together do. `wordings` are other prompts
    after which the target is taught in the same edit; no judge asks with one of them.
    """

    query: Query
    target: str
    aliases: tuple[str, ...] = ()
    judges: tuple[Query, ...] = ()
    stop: str = ""
    statement: str = ""
    wordings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """A record of an editing benchmark: the edits that are made together (mostly one) and judged together.

    Those of a case that is ``ordered`` are made one after another instead, and only the last one is to hold in the end.
    """

    id: str
    edits: tuple[Edit, ...]
    ordered: bool = False
