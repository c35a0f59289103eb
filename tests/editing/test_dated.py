"""Facts with dates: histories, what is current, what is composed, and tables of a user's that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from engramlab.base.errors import UserError
from engramlab.editing import benchmarks
from engramlab.editing.benchmarks import dated
from engramlab.editing.benchmarks._dated import Dated, case_of, clash, invariant

HEAD = "subject,relation,object,start,end\n"
FRANCE = (
    HEAD + "France,head,Ann,2019,2024-05\nFrance,head,Bo,2024-05,\nBo,home town,Lund,,\nFrance,continent,Europe,,\n"
)


def table(folder: Path, text: str) -> Path:
    path = folder / "dates.csv"
    path.write_text(text)
    return path


def test_a_table_becomes_the_edit_to_what_holds_now(tmp_path: Path) -> None:
    loaded = benchmarks.load(table(tmp_path, FRANCE + "Japan,ally,Zog,2025,\nZog,head,Cy,2001,2002\n"))
    assert (loaded.format, loaded.skipped) == ("dated-facts", [])
    change, new = loaded.cases
    (edit,) = change.edits
    assert (edit.query.prompt, edit.query.target, edit.target) == (
        "Since 2024, the head of France has been",
        "Ann",
        "Bo",
    )
    asked = {(j.role, j.group): (j.prompt, j.target) for j in edit.judges}
    assert asked["portability", "multi-hop"] == ("Today, the home town of the head of France is", "Lund")
    assert asked["locality", "past"] == ("In 2019, the head of France was", "Ann")
    stays = {(j.prompt, j.target) for j in edit.judges if j.group == "time-invariant"}
    assert stays == {("The continent of France is", "Europe"), ("The home town of Bo is", "Lund")}
    (injected,) = new.edits  # nothing was there before, and what is over is no case
    assert (injected.query.target, injected.target) == ("", "Zog")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("France,head,Ann,2024,2019\n", "record 0 .*key 'end': is 2019, before the start, 2024"),
        ("France,head,Ann,2024-05-02,2024-05-01\n", "before the start"),
        (
            "France,head,Ann,2019,\nFrance,head,Bo,2024,\n",
            "record 1 .*key 'start': .*'Bo' while record 0 has it as 'Ann'",
        ),
        ("France,head,Bo,2024,\nFrance,head,Ann,2019,2025\n", "record 0 .*'Bo' while record 1 has it as 'Ann'"),
        ("France,head,Ann,2019,\nFrance,head,Bo,,\n", "end the one before the other starts"),
        ("France,head,Ann,last year,\n", "record 0 .*key 'start': is 'last year'; write a date as"),
        ("France,head,Ann,2024-13,\n", "write a date as"),
        ("France,,Ann,2024,\n", "record 0 .*key 'relation': is missing"),
    ],
)
def test_tables_that_cannot_be(tmp_path: Path, rows: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        benchmarks.load(table(tmp_path, HEAD + rows))
    assert "\n" not in str(caught.value)


def test_bad_rows_are_skipped_on_demand(tmp_path: Path) -> None:
    loaded = benchmarks.load(table(tmp_path, FRANCE + "Japan,head,Cy,2024,2019\n"), bad="skip")
    assert len(loaded.cases) == 1
    assert [(index, key) for index, key, _ in loaded.skipped] == [(4, "end")]


def test_a_clash_against_every_day() -> None:
    """By brute force over the years in which facts hold."""
    years = ["", *map(str, range(2000, 2004))]
    spans = [(a, b) for a in years for b in years if not a or not b or a < b]

    def held(start: str, end: str) -> set[int]:
        return set(range(int(start or 1990), int(end or 2020)))

    for one in spans:
        for other in spans:
            found = clash([Dated("s", "r", "x", *one), Dated("s", "r", "y", *other)])
            assert (found is not None) == bool(held(*one) & held(*other)), (one, other)
            assert clash([Dated("s", "r", "x", *one), Dated("s", "r", "X", *other)]) is None


def test_of_several_objects_without_dates_none_is_asked() -> None:
    facts = invariant([Dated("Bo", "child", "Cy"), Dated("Bo", "child", "Di"), Dated("Bo", "town", "Lund")])
    assert [fact.object for fact in facts["bo"]] == ["Lund"]
    assert case_of([Dated("Bo", "post", "x", "2001", "2002")], facts) is None


def test_the_made_facts() -> None:
    histories, facts = dated.table(3)
    found = dated.cases(3, 1000)
    assert len(found) == len(histories) > 100
    assert [len(history) for history in histories[:4]] == [2, 1, 2, 1]
    assert not any(clash(history) for history in histories)
    changed = {(h[0].subject.casefold(), h[0].relation) for h in histories}
    assert not changed & {(subject, fact.relation) for subject, of in facts.items() for fact in of}
    edits = [edit for case in found for edit in case.edits]
    assert benchmarks.contradictions(edits) == benchmarks.no_ops(edits) == []
    assert [case.id for case in dated.cases(3, 7)] == [case.id for case in found[:7]]
    for history, case in zip(histories, found, strict=True):
        (edit,) = case.edits
        assert edit.query.subject in edit.query.prompt
        assert bool(edit.query.target) == (len(history) == 2)
        hops = [judge for judge in edit.judges if judge.role == "portability"]
        known = {(fact.relation, fact.object) for fact in facts[edit.target.casefold()]}
        assert {(judge.relation, judge.target) for judge in hops} <= known
        assert hops
