"""Entries gathered from piece tokens equal their text tokenised, for every kind of tokenizer."""

import csv
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import zoo
from tests.support.questions import questions_of

from engramlab.core.text import tokens
from engramlab.core.text.assembly import TokenTable, gather
from engramlab.core.text.tokenizers import train_compact_tokenizer
from engramlab.core.text.tokens import GAP, token_span
from engramlab.corpora.layout import Layout
from engramlab.corpora.people import Pools
from engramlab.corpora.sources.bios import Config as BiosConfig
from engramlab.corpora.sources.bios import bios, bios_questions
from engramlab.corpora.sources.tables import Config as TableConfig
from engramlab.corpora.sources.tables import table
from engramlab.corpora.variants import SIXTEEN

SMALL = Pools(6, 6, 8, 6, 8, 8, 6, 8)
VARIANTS = (*SIXTEEN, "couple2", "multi5+permute+CEL", "multi2+permute+translate")
SOME = ("single", "multi5+permute+fullname", "couple2", "multi5+permute+CEL")
TOKENIZERS = {**zoo.ZOO, "compact": lambda texts: train_compact_tokenizer(texts, 2000)}


def small(variant: str, seed: int = 0):
    return bios(BiosConfig(people=20, seed=seed, pools=SMALL, first_templates=3), variant)


def texts(corpus, entries) -> list[str]:
    return [corpus.passage(int(entry)).text for entry in entries]


@pytest.fixture(scope="module", params=TOKENIZERS)
def kind(request):
    """The name of a tokenizer."""
    return request.param


@pytest.fixture(scope="module")
def any_tokenizer(kind):
    corpora = [small("multi2+permute"), bios_questions(small("single"))]
    return TOKENIZERS[kind]([text for corpus in corpora for text in texts(corpus, range(len(corpus)))])


def check(corpus, tokenizer, entries) -> TokenTable:
    """The property: ids are those of the text, and marks are where the passage's spans are."""
    made = TokenTable(corpus, tokenizer)
    rows = made.tokens(entries)
    passages = [corpus.passage(int(entry)) for entry in entries]
    ids, offsets = tokens.encode(tokenizer, [passage.text for passage in passages])
    assert [rows.row(i).tolist() for i in range(len(rows))] == ids, made.fallback
    for i, passage in enumerate(passages):
        marks = rows.marks[rows.offsets[i] : rows.offsets[i + 1]]
        true = np.zeros(len(marks), dtype=int)
        for span in passage.spans:
            if span.kind == "object":
                first, last = token_span(offsets[i], span.start, span.end)
                true[first:last] = corpus.attributes.index(span.relation) + 1
        assert np.where((marks > 0) & (marks < GAP), marks, 0).tolist() == true.tolist()
        for k in np.flatnonzero(marks == GAP):  # a lone space, with the value behind it
            assert true[k] == 0 < true[k + 1]
            assert not passage.text[slice(*offsets[i][k])].strip()
    return made


def test_every_variant(kind, any_tokenizer):
    rng = np.random.default_rng(0)
    for variant in VARIANTS if kind in ("gpt2", "unigram-first", "words") else SOME:
        corpus = small(variant)
        made = check(corpus, any_tokenizer, rng.integers(len(corpus), size=8))
        if kind == "words-and-punctuation":  # "1996." is one word
            assert made.fallback.startswith("a token crosses from one piece into the next in '")
        else:
            assert made.fallback is None


def test_questions(kind, any_tokenizer):
    corpus = bios_questions(small("single"))
    made = check(corpus, any_tokenizer, np.arange(len(corpus)))
    assert (made.fallback is None) == (kind != "words-and-punctuation")


@pytest.mark.parametrize("kind", ["gpt2", "compact"], indirect=True)
def test_all_names_values_and_templates(kind, any_tokenizer):
    corpus = bios(BiosConfig(people=100_000, seed=3), "multi5+permute")
    assert check(corpus, any_tokenizer, np.random.default_rng(1).integers(len(corpus), size=50)).fallback is None


NASTY = (
    *("Washington, D.C.", "Saint-Étienne", "Zoë", "O'Neil", "'s-Hertogenbosch", "Ha'il", "l'Aquila", "Acme Inc."),
    *("東京", "Αθήνα", "Москва", "नई दिल्ली", "São Tomé", "12", "3,000", "+49", "1996", "007", "$5", "x%", ".NET"),
    *("C#", "(none)", "a-b", "!", "…", "U.S.", "CFA franc (BCEAO)"),
)
TEMPLATES = (
    *("{subject} is {value}.", "{subject's} thing is {value}", "{subject} (in {value}) was.", "{subject}: “{value}”!"),
    *(
        "{subject}-based {value}-born ones.",
        "{subject}, {value}-based.",
        "{subject} costs ${value}0.",
        "{subject}{value}.",
    ),
    *(
        "{value} [is|are] ({subject})",
        "In {value}{subject}.",
        "Of {subject}, {value}.",
        "“{subject}”: {value}",
        "{value} {subject}",
    ),
)


@dataclass(frozen=True)
class Facts:
    """A user's table with its templates, not yet on disk."""

    rows: list[tuple[str, str, str]]
    templates: list[str]
    variant: str
    seed: int

    def corpora(self):
        with tempfile.TemporaryDirectory() as folder:
            facts, templates = Path(folder, "facts.csv"), Path(folder, "templates.txt")
            with facts.open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([("name", "one", "two"), *self.rows])
            templates.write_text("\n".join(self.templates), encoding="utf-8")
            corpus = table(
                TableConfig(facts, seed=self.seed, templates=templates if self.templates else None), self.variant
            )
        return corpus, questions_of(corpus)


value = st.sampled_from(NASTY)
hole = st.just("")  # what an entity lacks is in no entry
row = st.tuples(value, value, value) | st.tuples(value, hole, value) | st.tuples(value, value, hole)
facts = st.builds(
    Facts,
    st.lists(row, min_size=2, max_size=6, unique_by=lambda row: row[0]),
    st.lists(st.sampled_from(TEMPLATES), max_size=4, unique=True),
    st.sampled_from(["single", "multi2+permute", "couple2", "single+permute1+fullname"]),
    st.integers(0, 1000),
)


@settings(max_examples=12)
@given(facts=facts)
def test_a_users_own_facts(any_tokenizer, facts):
    for corpus in facts.corpora():
        check(corpus, any_tokenizer, np.arange(len(corpus)))


@settings(max_examples=10)
@given(facts=facts, kind=st.sampled_from(sorted(zoo.ZOO)))
def test_tokenizers_made_for_the_table(facts, kind):
    """With tokens as long as they get: those that cross borders are found, and then the text is tokenised."""
    corpora = facts.corpora()
    tokenizer = zoo.ZOO[kind]([text for corpus in corpora for text in texts(corpus, range(len(corpus)))])
    for corpus in corpora:
        check(corpus, tokenizer, np.arange(len(corpus)))


class Pairs:
    """Entries of two pieces; coverage shows each piece but not each pair, as a careless corpus might."""

    pieces = ("", "ab", "cd", " ef", " gh")
    attributes = ("second",)

    def __len__(self) -> int:
        return 4

    def layout(self, entries) -> Layout:
        first, second = np.divmod(np.asarray(entries), 2)
        pieces = np.stack([1 + first, np.where(first == 1, 2, 3 + second)], axis=1).astype(np.int32)
        return Layout(pieces, np.broadcast_to(np.int8([0, 1]), pieces.shape))

    def coverage(self):
        yield Layout(np.int32([[1], [2], [3], [4]]), np.zeros((4, 1), np.int8))


def test_what_coverage_missed_is_found_by_a_look_at_entries():
    made = TokenTable(Pairs(), zoo.gpt2(["cdcd ab cd"] * 3))
    assert made.fallback == "pieces together become other tokens than alone in 'cdcd'"
    made = TokenTable(Pairs(), zoo.words(zoo.pre_tokenizers.Whitespace())(["ab cd ef gh"]))
    assert made.fallback == "pieces together become other tokens than alone in 'cdcd'"


def test_a_piece_that_coverage_never_shows_is_a_bug_of_the_corpus():
    class Forgetful(Pairs):
        def coverage(self):
            yield Layout(np.int32([[1], [2], [3]]), np.zeros((3, 1), np.int8))

    with pytest.raises(AssertionError, match="never shows piece ' gh'"):
        TokenTable(Forgetful(), zoo.gpt2(["ab ef"]))


def test_the_lone_space_before_a_number_is_marked_as_such():
    corpus, _ = Facts(
        [("Paris", "33", "12 34"), ("Rome", "39", "5")], ["{subject} has {value}."], "single", 0
    ).corpora()
    made = TokenTable(corpus, zoo.digits(zoo.SENTENCES))
    assert made.fallback is None
    marks = made.tokens(np.array([0])).marks
    # The space inside "12 34" is part of the value.
    assert marks[marks > 0].tolist() == [GAP, 1, 1, GAP, 2, 2, 2, 2, 2]


def test_no_entries_and_gather():
    made = TokenTable(small("single"), zoo.gpt2(zoo.SENTENCES))
    assert len(made) == 20
    assert len(made.tokens(np.array([], dtype=np.int64))) == 0
    assert gather(np.array([5, 2, 9]), np.array([2, 0, 3])).tolist() == [5, 6, 9, 10, 11]
