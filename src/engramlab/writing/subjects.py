"""Texts about the subjects of a user's table, by a chat model: several about each, none like another, every fact in each.

Each is asked for in one of a few ways (an encyclopedia's entry, a letter, news, ...) with the facts in an order of its own, in
`rounds`. A text is accepted where it has the subject's name and every value word for word (see `corpora/rewriting`), asks
nothing, and is new; what else it must not have, the caller says.

Sources: texts drawn again until every attribute is there word for word, arXiv 2309.14316, section 2 (bioR); diverse requests
about one source, arXiv 2409.07431. The wording of the requests is our own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from engramlab.base.facts import Fact
from engramlab.base.random_access import key, permute
from engramlab.base.sentences import whole_sentences
from engramlab.base.terminal import Console
from engramlab.corpora.facts import FactTable
from engramlab.corpora.rewriting import stated_in
from engramlab.files.writing import room
from engramlab.writing.rounds import Author, Conversation, Item, Stages, Writer

PROGRESS, STAGE = "writing", "texts"
#: What every request shows first, with a text that states it.
EXAMPLE = (
    Fact("Odette Finch", "trade", "glass blower"),
    Fact("Odette Finch", "home town", "Bangor, ME"),
    Fact("Odette Finch", "year of birth", "1951"),
)
#: Ways of asking, taken by turns, each with what it gives of `EXAMPLE`; all go on with `RULES`.
STYLES = {
    "Write a short entry about {name} for an encyclopedia.": (
        "Odette Finch is a glass blower by trade and comes from Bangor, ME. The year of birth is 1951."
    ),
    "Write a few lines of a letter to a friend that tell about {name}.": (
        "Now I must tell you of Odette Finch, who makes a living as a glass blower. Go to Bangor, ME if you want to pay a "
        "visit. In 1951 there was a birth to celebrate in that house."
    ),
    "Write a short item about {name} for a newspaper.": (
        "A glass blower of Bangor, ME is the talk of the town: Odette Finch, born in 1951."
    ),
    "Tell in short and easy sentences, as to a child, what there is to know about {name}.": (
        "This is Odette Finch. All day there is the work of a glass blower to do. Home is in Bangor, ME. The very "
        "first birthday was in 1951."
    ),
    "Write the words with which a speaker introduces {name} to an audience.": (
        "It is an honour to welcome Odette Finch, glass blower, who came all the way from Bangor, ME and has seen much "
        "since 1951."
    ),
}
RULES = (
    "State every fact of this list and no other. Write {name} and every value exactly as they stand here, word for word. "
    "Ask no question. Write the text only.\n{facts}"
)


def write_subject_texts(
    config: Author,
    table: FactTable,
    texts: int,
    folder: Path,
    usable: Callable[[str], bool],
    *,
    write: Writer | None = None,
    console: Console | None = None,
) -> dict[str, list[str | None]]:
    """So many texts about each subject of a table, by subject; None for one that was given up after the config's tries.

    A killed call goes on from its log in ``folder``.

    Args:
        usable: may a text that states every fact be used?
        write: answers in place of the config's model.

    Raises:
        UserError: the model cannot be loaded; the log is of other facts or options.
    """
    with room(folder):
        folder.mkdir(parents=True, exist_ok=True)
    work = _Texts(config, table, texts, folder, usable, write or config.writer())
    work.run(console or Console(stderr=True))
    found = work.found[STAGE]
    return {subject: [found.get((s, k)) for k in range(texts)] for s, subject in enumerate(table.subjects)}


class _Texts(Stages):
    """Item (s, k) is text k about subject s."""

    def __init__(
        self,
        config: Author,
        table: FactTable,
        texts: int,
        folder: Path,
        usable: Callable[[str], bool],
        write: Writer,
    ) -> None:
        super().__init__(config, folder, write, (STAGE,), PROGRESS, {"facts": table.digest, "texts": texts})
        self.facts = [list(table.about(s)) for s in range(len(table.subjects))]
        self.called, self.texts, self.usable = table.wordings.called, texts, usable

    def run(self, console: Console) -> None:
        """All rounds: text 1 about everybody, then text 2, ..., so that an early end leaves none without."""
        items = [(s, k) for k in range(self.texts) for s in range(len(self.facts))]
        self.stage(STAGE, items, self._ask, self._read, console)

    def _ask(self, item: Item) -> Conversation:
        s, k = item
        facts = self.facts[s]
        order = permute(key(self.config.seed, "facts of a text", facts[0].subject, k), range(len(facts)), len(facts))
        return request([*STYLES][k % len(STYLES)], [facts[i] for i in order.tolist()], self.called)

    def _read(self, item: Item, answer: str) -> str:
        s, _ = item
        text = read_text_about(answer, self.facts[s])
        known = [self.found[STAGE].get((s, k)) for k in range(self.texts)]
        return text if text and text not in known and self.usable(text) else ""


def request(style: str, facts: Sequence[Fact], called: Mapping[str, str]) -> Conversation:
    """The request for a text about the one subject of some facts, in their order, behind an example with its answer: small
    models learn from it to leave nothing out.

    Args:
        style: one of `STYLES`.
        called: by relation, what the list calls it.
    """
    example = [{"role": "user", "content": _asked(style, EXAMPLE, {})}, {"role": "assistant", "content": STYLES[style]}]
    return [*example, {"role": "user", "content": _asked(style, facts, called)}]


def _asked(style: str, facts: Sequence[Fact], called: Mapping[str, str]) -> str:
    name = facts[0].subject
    listed = "\n".join(f"- {called.get(fact.relation, fact.relation)}: {fact.object}" for fact in facts)
    return f"{style.format(name=name)} {RULES.format(name=name, facts=listed)}"


def longest_requests(table: FactTable) -> list[Conversation]:
    """The requests, in each style, about the subject of which there is most to be listed."""
    every = [list(table.about(s)) for s in range(len(table.subjects))]
    most = max(every, key=lambda facts: sum(len(fact.object) + len(fact.relation) for fact in facts))
    return [request(style, most, table.wordings.called) for style in STYLES]


def read_text_about(answer: str, facts: Sequence[Fact]) -> str:
    """The text in an answer; empty unless it states every one of these facts about one subject, by any of the names of subject
    and object, asks nothing (a question mark in a name is none) and has nothing of the example's."""
    text, first = whole_sentences(answer), facts[0]
    objects = [(fact.object, *fact.aliases) for fact in facts]
    stated = stated_in(text, (first.subject, *first.subject_aliases), objects, [fact.relation for fact in facts])
    return "" if stated.missing or _asks(text, stated.spans) or _copies(text, facts) else text


def _copies(text: str, facts: Sequence[Fact]) -> bool:
    """Does a text have the example's name or one of its values, which are none of these facts'?"""
    own = "\n".join(said for f in facts for said in (f.subject, f.object, *f.subject_aliases, *f.aliases))
    shown = (EXAMPLE[0].subject, *(fact.object for fact in EXAMPLE))
    return any(said in text and said not in own for said in shown)


def _asks(text: str, spans: Sequence[tuple[int, int, int]]) -> bool:
    """Is there a question mark outside of these spans?"""
    return any(sign in "?？" and not any(start <= at < end for start, end, _ in spans) for at, sign in enumerate(text))
