"""Coverage: every piece, beside every character it can touch."""

from collections import defaultdict

import numpy as np
import pytest
from tests.support.questions import questions_of

from engramlab.corpora.layout import CHUNK
from engramlab.corpora.people import Pools
from engramlab.corpora.sources.bios import Config as BiosConfig
from engramlab.corpora.sources.bios import bios, bios_questions
from engramlab.corpora.sources.tables import Config as TableConfig
from engramlab.corpora.sources.tables import table

SMALL = Pools(6, 5, 8, 10, 6, 5, 4, 7)


def contexts(layouts, pieces):
    """Of each piece, the characters right before and right after it ("" at the ends of the text)."""
    before, after = defaultdict(set), defaultdict(set)
    for layout in layouts:
        assert len(layout) <= CHUNK
        for row in layout.pieces.tolist():
            shown = [p for p in row if p]
            for left, right in zip([0, *shown], [*shown, 0], strict=True):
                after[left].add(pieces[right][:1])
                before[right].add(pieces[left][-1:])
    return before, after


def corpora():
    for variant in ("single", "single+fullname", "multi5+permute", "multi3+permute+fullname", "single+fullname+CEL"):
        yield variant, bios(BiosConfig(people=100, pools=SMALL), variant)
    yield "questions", bios_questions(bios(BiosConfig(people=100, pools=SMALL)))
    yield "paper", bios(BiosConfig(people=10), "single")


@pytest.mark.parametrize(("name", "made"), corpora())
def test_every_piece_is_shown_where_entries_have_it(name, made):
    before, after = contexts(made.coverage(), made.pieces)
    assert set(before) >= set(range(1, len(made.pieces)))
    seen_before, seen_after = contexts([made.layout(np.arange(min(len(made), 3000)))], made.pieces)
    population = made.population
    values = {p for a in range(6) for p in population.value_examples(a)[:, -1].tolist()}
    names = set(population.name_examples()[:, -1].tolist())
    for piece in values | names:
        assert seen_after[piece] <= after[piece], made.pieces[piece]
    for piece in values - set(population.value_examples(0)[:, -1].tolist()):
        assert seen_before[piece] <= before[piece], made.pieces[piece]


TABLE = """name,capital,motto,code
Sweden,Stockholm,För Sverige i tiden,46
United States,"Washington, D.C.",Yahoo!,1
Fiji,Suva,Fear God,679
"""


@pytest.mark.parametrize(
    "templates",
    [
        None,
        '{subject} says "{value}" on {attribute}!\n{subject\'s} {attribute}: {value}\n',
        "{subject} has ({value}) as {attribute}\n{subject} {value}.\n",
        '{subject} has "{value}" as its {attribute}.\n',
        "{value} is {attribute} of {subject}\nOf {subject} one says {value}.\n“{value}”, says ({subject}).\n",
    ],
)
@pytest.mark.parametrize("variant", ["single", "multi5+permute"])
def test_tables_with_odd_templates(tmp_path, templates, variant):
    facts = tmp_path / "facts.csv"
    facts.write_text(TABLE, encoding="utf-8")
    if templates:
        (tmp_path / "t.txt").write_text(templates, encoding="utf-8")
    made = table(TableConfig(facts, templates=tmp_path / "t.txt" if templates else None), variant)
    for some in (made, questions_of(made), questions_of(made, {"code": "{subject}: code? Answer:"})):
        before, after = contexts(some.coverage(), some.pieces)
        assert set(before) >= set(range(1, len(some.pieces)))
        _, seen_after = contexts([some.layout(np.arange(len(some)))], some.pieces)
        for piece in seen_after:
            if piece and made.pieces[piece].strip() in ("Stockholm", "Suva", "Yahoo!", "Sweden", "Fiji"):
                assert seen_after[piece] <= after[piece]


def test_coverage_grows_with_the_pieces_and_not_with_the_people():
    def rows(people):
        return sum(len(layout) for layout in bios(BiosConfig(people=people, pools=SMALL)).coverage())

    assert rows(10) == rows(240)
