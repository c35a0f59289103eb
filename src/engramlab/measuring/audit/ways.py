"""The ways of getting a relation's facts out of a model: written, ranked, many-shot, read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from engramlab.base.facts import Fact, Query
from engramlab.base.options import at_least
from engramlab.base.random_access import key, permute
from engramlab.core.forward.decoding import Decoding, dola
from engramlab.core.models import context_limit, mask_token
from engramlab.core.text.chat import Chat, has_template
from engramlab.corpora.facts import FactTable
from engramlab.corpora.people import People
from engramlab.measuring.answers import is_answer, normalise
from engramlab.measuring.asking import MOST_NEW_TOKENS, Room, as_read, lengths_of, write
from engramlab.measuring.candidates import choose
from engramlab.measuring.estimators import many_shot
from engramlab.measuring.questions import behind

SHOWN = 50  # facts of a list, as in ZP-LKE
INVENTED = 20  # made-up subjects that show what a model says of anybody
NEIGHBOURS = 5  # subjects behind which an object beside the shared draw is scored too


@dataclass(frozen=True)
class Asking:
    """How a table's facts are asked for.

    Attributes:
        statements: beginnings of sentences, at most.
        questions: forms of the question, at most three.
        options: objects of the relation that are ranked.
        draws: lists of other facts; 0 shows none.
        read: ask behind a passage that states the fact too.
        decoded: write under DoLa too; it moves no class.
        chat: put the question as a message of a user too, where the model has a chat template.
        seed: of options, lists and made-up subjects.
    """

    statements: int = 3
    questions: int = 3
    options: int = 50
    draws: int = 3
    read: bool = True
    chat: bool = True
    seed: int = 0
    decoded: bool = False

    def __post_init__(self) -> None:
        at_least(self, 0, "statements", "draws")
        at_least(self, 1, "questions")
        at_least(self, 2, "options")


QUICK = Asking(statements=1, questions=1, options=10, draws=1)


@dataclass(frozen=True)
class Evidence:
    """What a model said when asked for the facts of a relation.

    Attributes:
        facts: that were asked for.
        kinds: of each wording, "statement", "question" or "chat".
        prompts: ``[facts][wordings]``.
        texts: ``[facts][wordings]``, what was written.
        written: bool ``[facts, wordings]``: it is the object; no wordings for a masked model, which writes nothing.
        options: the relation's objects.
        truth: int64 ``[facts]``: the number of each fact's object among them.
        scores: float64 ``[facts, wordings, options]``: log-probability of each behind each wording, in nats; NaN where it was
            not scored.
        lists: float64 ``[facts, draws, options]``: the same behind lists of other facts; None without.
        shown: facts in a list.
        read: bool ``[facts, wordings]``: is the object written behind a passage that states it? None where not asked.
        invented: by option, how often it was written of made-up subjects.
        popularity: of each fact's subject, where the table says so; None where it says nothing.
        decoded: bool ``[facts, wordings]``: ``written`` under DoLa; None where not asked.
        probed: bool ``[facts]``: does a probe that counts read the object? None where none does.
        probe: accuracy, majority and the like of the relation's probe, where it was probed.
    """

    facts: list[Fact]
    kinds: list[str]
    prompts: list[list[str]]
    texts: list[list[str]]
    written: np.ndarray
    options: list[str]
    truth: np.ndarray
    scores: np.ndarray
    lists: np.ndarray | None
    shown: int
    read: np.ndarray | None
    invented: Counter[int]
    popularity: list[float | None] | None = None
    decoded: np.ndarray | None = None
    probed: np.ndarray | None = None
    probe: dict[str, Any] = field(default_factory=dict)


class Asker:
    """Asks one model for the facts of a table, relation by relation.

    Args:
        said: called with what is being done, now and then.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        table: FactTable,
        how: Asking,
        *,
        decoding: Decoding | None = None,
        said: Callable[[str, int, int], None] | None = None,
    ) -> None:
        self.model, self.tokenizer, self.table, self.how, self.decoding = model, tokenizer, table, how, decoding
        self.said = said or (lambda what, done, total: None)
        self.writes = mask_token(model) is None
        self.chat = Chat(tokenizer) if how.chat and self.writes and has_template(tokenizer) else None

    def evidence(self, relation: str, facts: Sequence[Fact]) -> Evidence:
        """Everything about these facts, all of one relation with two objects at least."""
        words, how = self.table.wordings, self.how
        forms = [words.forms(relation, fact.subject, how.statements, how.questions) for fact in facts]
        kinds = [kind for kind, _ in forms[0]]
        prompts = [[prompt for _, prompt in of] for of in forms]
        options = list(dict.fromkeys(fact.object for fact in facts))
        number = {option: k for k, option in enumerate(options)}
        truth = np.array([number[fact.object] for fact in facts])
        texts = self._write("written", prompts, facts) if self.writes else [[] for _ in facts]
        written = self._right(texts, facts)
        decoded = None
        if how.decoded and self.writes:
            decoded = self._right(self._write("decoded", prompts, facts, decoding=dola.Config()), facts)
        offered = self._offered(relation, truth, len(options), also_right(facts, options))
        scores = self._scores("ranked", prompts, options, offered)
        if self.chat is not None:
            said = [Query(words.plain(relation, fact.subject), "") for fact in facts]
            asked = [[self.chat.query(query).prompt] for query in said]
            answers = self._write("in a conversation", asked, facts, more=MOST_NEW_TOKENS)
            right = self._right(answers, facts, [query.prompt for query in said])
            put = [self.chat.query(Query("", option)).target for option in options]
            ranked = self._scores("ranked in a conversation", asked, put, offered)
            kinds, written = [*kinds, "chat"], np.concatenate([written, right], axis=1)
            prompts, texts = ([a + b for a, b in zip(*of, strict=True)] for of in ((prompts, asked), (texts, answers)))
            scores = np.concatenate([scores, ranked], axis=1)
        lists, shown = self._lists(relation, facts, options, offered)
        return Evidence(
            list(facts),
            kinds,
            prompts,
            texts,
            written,
            options,
            truth,
            scores,
            lists,
            shown,
            self._read(relation, facts, forms) if how.read and self.writes else None,
            self._invented(relation, facts, options),
            [told.get((fact.subject, relation)) for fact in facts] if (told := self.table.popularity) else None,
            decoded,
        )

    def _write(
        self,
        what: str,
        prompts: Sequence[Sequence[str]],
        facts: Sequence[Fact],
        more: int = 0,
        decoding: Decoding | None = None,
    ) -> list[list[str]]:
        flat = as_read(self.model, self.tokenizer, [prompt for of in prompts for prompt in of])
        room = Room(min(MOST_NEW_TOKENS, self._longest(facts) + 4) + more)
        found = write(
            self.model,
            self.tokenizer,
            flat,
            room,
            progress=lambda done, total: self.said(what, done, total),
            decoding=decoding or self.decoding,
        )
        texts = iter(found)
        return [[next(texts) for _ in of] for of in prompts]

    def _longest(self, facts: Sequence[Fact]) -> int:
        return max(lengths_of(self.tokenizer, [Query("", fact.object) for fact in facts]).values())

    @staticmethod
    def _right(texts: Sequence[Sequence[str]], facts: Sequence[Fact], said: Sequence[str] | None = None) -> np.ndarray:
        """bool ``[facts, prompts]``; ``said``: the questions, which an answer may say again first."""
        asked = said or [""] * len(facts)
        found = [
            [is_answer(text, (fact.object, *fact.aliases), question) for text in of]
            for of, fact, question in zip(texts, facts, asked, strict=True)
        ]
        return np.array(found, dtype=bool)

    def _offered(
        self, relation: str, truth: np.ndarray, count: int, right: Sequence[frozenset[int]]
    ) -> list[list[int]]:
        """Options of each fact: those drawn for all, its own, and those of its neighbours, whose medians need them; none that
        is right too."""
        stream = key(self.how.seed, "options", relation)
        shared = set(permute(stream, np.arange(min(self.how.options, count)), count).tolist())
        near = [{int(truth[(i + k) % len(truth)]) for k in range(NEIGHBOURS + 1)} for i in range(len(truth))]
        return [sorted((shared | own) - also) for own, also in zip(near, right, strict=True)]

    def _scores(
        self, what: str, prompts: Sequence[Sequence[str]], options: Sequence[str], offered: Sequence[Sequence[int]]
    ) -> np.ndarray:
        """float64 ``[facts, prompts, options]``."""
        each = len(prompts[0])
        flat = as_read(self.model, self.tokenizer, [prompt for of in prompts for prompt in of])
        numbers = [of for of in offered for _ in range(each)]
        found = choose(
            self.model,
            self.tokenizer,
            flat,
            [[options[i] for i in of] for of in numbers],
            decoding=self.decoding,
            progress=lambda done, total: self.said(what, done, total),
        )
        scores = np.full((len(flat), len(options)), np.nan)
        for row, of in enumerate(numbers):
            scores[row, of] = found.of(row)
        return scores.reshape(len(prompts), each, len(options))

    def _lists(
        self, relation: str, facts: Sequence[Fact], options: Sequence[str], offered: Sequence[Sequence[int]]
    ) -> tuple[np.ndarray | None, int]:
        """Scores behind lists of other facts, ``[facts, draws, options]``, and how many facts a list has.

        Two lists a draw: a fact in the first is asked for behind the second, all others behind the first, so that nearly
        everybody's context begins alike and is read once.
        """
        shown = self._fitting(facts)
        if not self.how.draws or not shown or not self.writes:
            return None, 0
        prompts: list[list[str]] = [[] for _ in facts]
        for drawn in range(self.how.draws):
            order = permute(key(self.how.seed, "list", relation, drawn), np.arange(len(facts)), len(facts)).tolist()
            one, other = order[:shown], order[shown : 2 * shown]
            inside = set(one)
            for i, fact in enumerate(facts):
                list_of = [(facts[k].subject, facts[k].object) for k in (other if i in inside else one)]
                prompts[i].append(many_shot.context(list_of, fact.subject))
        return self._scores("many-shot", prompts, options, offered), shown

    def _fitting(self, facts: Sequence[Fact]) -> int:
        """The most facts of a list, up to 50, that there are (twice over) and that fit the model."""
        most = min(SHOWN, len(facts) // 2)
        limit = context_limit(self.model)
        if not limit or not most:
            return most
        rows = self.tokenizer([f"{fact.subject} : {fact.object} , " for fact in facts])["input_ids"]
        lengths = np.sort([len(ids) for ids in rows])[::-1]
        room = limit - 2 * int(lengths[0])
        return min(most, int(np.searchsorted(np.cumsum(lengths), room, side="right")))

    def tokens(self, relation: str, facts: Sequence[Fact]) -> int:
        """About how many tokens ``evidence`` has the model read and write."""
        how, words = self.how, self.table.wordings
        forms = [[p for _, p in words.forms(relation, f.subject, how.statements, how.questions)] for f in facts]
        prompts = sum(map(len, self.tokenizer([p for of in forms for p in of])["input_ids"]))
        asked, wordings = len(facts), len(forms[0])
        offered = min(how.options, len({fact.object for fact in facts})) + NEIGHBOURS
        values = sum(map(len, self.tokenizer([fact.object for fact in facts])["input_ids"])) / asked
        subjects = sum(map(len, self.tokenizer([fact.subject for fact in facts])["input_ids"])) / asked
        shown = self._fitting(facts)
        pair, ends = subjects + values + 2, offered * values
        total = 2 * prompts + asked * wordings * (values + 4 + ends)
        total += how.draws * (2 * shown * pair + asked * (subjects + ends)) if shown else 0
        total += (2 * prompts / wordings + 2 * asked * (pair + values + 8)) if how.read else 0
        return int(total)

    def _read(self, relation: str, facts: Sequence[Fact], forms: Sequence[Sequence[tuple[str, str]]]) -> np.ndarray:
        """Behind a sentence that states the fact, in a template that is not asked with: one statement, one question."""
        words = self.table.wordings
        said = [words.sentence(fact, words.asking[relation])[0] for fact in facts]
        chosen = [[next((p for k, p in of if k == kind), None) for kind in ("statement", "question")] for of in forms]
        prompts = [[behind(text, p) for p in of if p is not None] for text, of in zip(said, chosen, strict=True)]
        return self._right(self._write("read", prompts, facts), facts)

    def _invented(self, relation: str, facts: Sequence[Fact], options: Sequence[str]) -> Counter[int]:
        """What is written of made-up subjects, by option."""
        if not self.writes:
            return Counter()
        people = People(INVENTED, seed=key(self.how.seed, "invented", relation) >> 1)
        forms = [
            self.table.wordings.forms(relation, people.name(i), min(self.how.statements, 1), 1) for i in range(INVENTED)
        ]
        texts = self._write("made-up subjects", [[p for _, p in of] for of in forms], facts)
        named = Named(facts, options)
        return Counter(k for of in texts for text in of for k in named(text))


def also_right(facts: Sequence[Fact], options: Sequence[str]) -> list[frozenset[int]]:
    """For each fact the options (by number) that are aliases of its object: right too, where subjects have several objects."""
    number = {option.casefold(): k for k, option in enumerate(options)}
    spelled = [(fact.object, [number.get(alias.casefold()) for alias in fact.aliases]) for fact in facts]
    return [frozenset(k for k in found if k is not None and options[k] != own) for own, found in spelled]


class Named:
    """Which of a relation's objects a text begins with; a text is looked at once, however many objects there are."""

    def __init__(self, facts: Sequence[Fact], options: Sequence[str]) -> None:
        self._spellings: dict[str, tuple[str, ...]] = {}
        for (
            fact
        ) in facts:  # what every fact with that object calls it: another's aliases may be its other right answers
            known = self._spellings.get(fact.object, (fact.object, *fact.aliases))
            self._spellings[fact.object] = (fact.object, *(a for a in known[1:] if a in fact.aliases))
        self._options = list(options)
        self._begin: dict[str, list[int]] = {}
        for k, option in enumerate(options):
            for spelling in dict.fromkeys(map(normalise, self._spellings[option])):
                self._begin.setdefault(spelling, []).append(k)

    def __call__(self, text: str) -> list[int]:
        """The numbers of the objects, ascending."""
        plain = normalise(text)
        near = {k for end in range(1, len(plain) + 1) for k in self._begin.get(plain[:end], ())}
        return sorted(k for k in near if is_answer(text, self._spellings[self._options[k]]))
