"""Which texts share words: the index against the definition, spelt out."""

import math
import sys

import pytest

from engramlab.base.errors import UserError
from engramlab.base.likeness import Bm25Index, WordIndex

TEXTS = ["The capital of Benin is Porto-Novo", "the currency of Benin", "a river, a river", "", "Benin's capital"]


def _by_hand(a: str, b: str) -> float:
    bags = [list("".join(c if c.isalnum() else " " for c in t.lower()).split()) for t in (a, b)]
    having = [set("".join(c if c.isalnum() else " " for c in t.lower()).split()) for t in TEXTS]

    def weight(word: str, bag: list[str]) -> float:
        return bag.count(word) * math.log((len(TEXTS) + 1) / (sum(word in h for h in having) + 0.5))

    one, other = ({w: weight(w, bag) for w in bag} for bag in bags)
    lengths = math.sqrt(sum(x * x for x in one.values()) * sum(x * x for x in other.values()))
    return sum(one[w] * other.get(w, 0) for w in one) / lengths if lengths else 0.0


@pytest.mark.parametrize("query", ["capital of Benin", "a river", "nothing shared here", "", "BENIN benin"])
def test_scores_are_the_cosine_of_weighted_counts(query):
    index = WordIndex(TEXTS)
    wanted = [_by_hand(query, text) for text in TEXTS]
    assert index.scores(query) == pytest.approx(wanted, abs=1e-12)
    assert [index.likeness(query, text) for text in TEXTS] == pytest.approx(wanted, abs=1e-12)


def test_the_nearest_come_first_and_of_equals_the_later():
    index = WordIndex([*TEXTS, "a river, a river"])
    assert index.nearest("a river", 2) == [5, 2]
    assert index.nearest("the currency of Benin", 1) == [1]
    assert len(index.nearest("a river", 99)) == 6
    assert WordIndex([]).nearest("anything", 3) == []


@pytest.mark.parametrize("query", ["capital of Benin", "river currency", "Porto Novo's capital"])
def test_bm25_is_lucenes(query):
    pytest.importorskip("bm25s")
    bags = [list("".join(c if c.isalnum() else " " for c in t.lower()).split()) for t in TEXTS]
    mean, k, b = sum(map(len, bags)) / len(bags), 1.5, 0.75

    def score(bag: list[str]) -> float:
        total = 0.0
        for word in "".join(c if c.isalnum() else " " for c in query.lower()).split():
            having = sum(word in other for other in bags)
            rare = math.log(1 + (len(bags) - having + 0.5) / (having + 0.5))
            total += rare * bag.count(word) / (bag.count(word) + k * (1 - b + b * len(bag) / mean)) if having else 0.0
        return total

    scores = [score(bag) for bag in bags]
    found = Bm25Index(TEXTS).nearest(query, 3)
    assert [scores[i] for i in found] == pytest.approx(sorted(scores, reverse=True)[:3])
    assert Bm25Index(TEXTS).nearest("nothing", 99) == [0, 1, 2, 3, 4]


def test_without_bm25s_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(UserError, match=r"engramlab\[retrieval\]"):
        Bm25Index(TEXTS)
    monkeypatch.undo()
    pytest.importorskip("bm25s")
    with pytest.raises(UserError, match="words in them"):
        Bm25Index(["", "!"])
