"""The words everything else is written in."""

import dataclasses
import subprocess
import sys

import pytest

from engramlab.base.errors import UserError, nearest
from engramlab.base.facts import Edit, Fact, Passage, Query, Span


def test_defaults_and_equality():
    assert Fact("France", "capital", "Paris") == Fact("France", "capital", "Paris", ())
    query = Query("The capital of France is", "Paris")
    assert (query.aliases, query.role, query.group) == ((), "", "")
    assert Edit(query, "Lyon").judges == ()
    assert len({Span(0, 1, "a"), Span(0, 1, "a", "object"), Span(0, 1, "a", "subject")}) == 2


def test_they_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Span(0, 1, "capital").start = 2  # type: ignore[misc]


def test_a_passage_quotes_its_spans():
    passage = Passage("France's capital is Paris.", (Span(0, 6, "", "subject"), Span(20, 25, "capital")))
    assert [passage.quote(span) for span in passage.spans] == ["France", "Paris"]


def test_facts_need_no_third_party_module():
    code = (
        "import sys, engramlab.base.facts, engramlab.base.errors;"
        "print(sorted({'numpy', 'torch', 'pyarrow', 'transformers'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_nearest():
    assert nearest("captial", ["country", "capital"]) == "capital"
    assert nearest("x", []) == ""
    assert isinstance(UserError("no"), Exception)
