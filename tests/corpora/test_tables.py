"""A user's own table: what works, and how everything else is refused."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.questions import questions_of

from engramlab.base.errors import UserError
from engramlab.corpora.layout import as_passages
from engramlab.corpora.questions import Split
from engramlab.corpora.sources.tables import Config as TableConfig
from engramlab.corpora.sources.tables import dataset, table
from engramlab.files.tables import read_table

COUNTRIES = """country,capital,currency_code,calling code
France,Paris,EUR,33
United States, "Washington, D.C.",USD,1
 São  Tomé ,São Tomé,STN,239
"""


@pytest.fixture
def countries(tmp_path):
    path = tmp_path / "countries.csv"
    path.write_text(COUNTRIES, encoding="utf-8")
    return path


def everything(made):
    ids = map(str, range(len(made)))
    return as_passages(made.layout(np.arange(len(made))), made.pieces, made.attributes, ids)


def test_a_table_goes_down_the_road_of_bios(countries):
    made = table(TableConfig(countries), "multi3+permute")
    assert made.attributes == ("capital", "currency_code", "calling code")
    assert len(made) == 9
    for passage, subject in zip(everything(made), made.subject(np.arange(9)).tolist(), strict=True):
        name = made.population.name(subject)
        assert passage.text.startswith(name)
        stated = [span for span in passage.spans if span.kind == "object"]
        assert len(stated) == 3
        for span in passage.spans:
            quote = passage.quote(span)
            if span.kind == "subject":
                assert quote == name
            else:
                assert quote == made.population.value(subject, made.attributes.index(span.relation))
        assert "_" not in passage.text
        assert ".." not in passage.text
    questions = questions_of(made, split=Split(3))
    assert questions.query(5).prompt == "What is the calling code of United States? Answer:"
    assert questions.query(7).prompt == "What is the currency code of São Tomé? Answer:"
    assert {questions.query(i).group for i in range(9)} == {"train", "test"}
    assert made.population.value(1, 0) == "Washington, D.C."
    assert made.population.name(2) == "São Tomé"


def test_couples_of_an_odd_number_of_attributes(countries):
    orders = set()
    for passage in everything(table(TableConfig(countries), "couple5")):
        said = [span.relation for span in passage.spans if span.kind == "object"]
        assert said.index("currency_code") == said.index("capital") + 1
        orders.add(tuple(said))
    assert len(orders) == 2


def test_key_and_attributes_can_be_chosen(countries):
    made = table(TableConfig(countries, key="capital", attributes=("country",)))
    assert made.population.name(0) == "Paris"
    assert made.attributes == ("country",)


def test_pronouns_from_a_column(tmp_path):
    path = tmp_path / "people.csv"
    path.write_text("name,field,born,pronoun\nMarie Curie,physics,1867,She\nAlan Turing,logic,1912,he\n")
    made = table(TableConfig(path, pronoun_column="pronoun"), "multi2")
    assert made.attributes == ("field", "born")
    for passage in everything(made):
        assert sum(span.kind == "subject" for span in passage.spans) == 1
        assert (". She" in passage.text or ". Her" in passage.text) == passage.text.startswith("Marie")
    path.write_text("name,field,pronoun\nMarie Curie,physics,her\n")
    with pytest.raises(UserError, match=r"people.csv, line 2, column 'pronoun': 'her' is no pronoun"):
        table(TableConfig(path, pronoun_column="pronoun"))


MOVED = (
    ("home", "In {value} lives {subject}.\n"),
    ("work", "Since 1980, {subject} [works|work] for {his} {value}.\n"),
    ("born", "{subject} [was|were] born in {value}.\n"),
)


def test_spans_of_sentences_that_do_not_start_with_their_subject(tmp_path):
    facts, lines = tmp_path / "people.csv", tmp_path / "lines"
    facts.write_text(
        'name,home,work,born,pronoun\nAda,Rome,Acme Inc.,1960,she\nBo Ek Jr.,"Washington, D.C.",bank,,they\n'
    )
    lines.mkdir()
    for relation, line in MOVED:
        (lines / f"{relation}.txt").write_text(line)
    with pytest.warns(
        UserWarning, match=r"comes before \{subject\} in 1 of them \(.*home.txt, line 1\): .* nothing is asked"
    ):
        made = table(TableConfig(facts, templates=lines, pronoun_column="pronoun"), "single")
    ada, bo = everything(made)
    assert ada.text == "In Rome lives Ada. Since 1980, Ada works for her Acme Inc. She was born in 1960."
    assert bo.text == "In Washington, D.C. lives Bo Ek Jr. Since 1980, Bo Ek Jr. works for their bank."
    assert [(span.start, span.end, span.relation) for span in ada.spans] == [
        (3, 7, "home"),
        (14, 17, ""),
        (31, 34, ""),
        (49, 58, "work"),
        (75, 79, "born"),
    ]
    assert [(span.start, span.end, span.kind) for span in bo.spans] == [
        (3, 19, "object"),
        (26, 35, "subject"),
        (48, 57, "subject"),
        (74, 78, "object"),
    ]


def test_two_names_that_touch_are_two_spans(tmp_path):
    facts, lines = tmp_path / "people.csv", tmp_path / "lines.txt"
    facts.write_text("name,home,born\nAda,Rome,1960\n")
    lines.write_text("{value} is where to find {subject}\n{subject} [has|have] {value}.\n")
    with pytest.warns(UserWarning, match="comes before"):
        made = table(TableConfig(facts, templates=lines), "multi9+permute")
    (both, *_) = [p for p in everything(made) if "Ada Ada" in p.text]
    assert [both.quote(span) for span in both.spans].count("Ada") == 2


@pytest.mark.parametrize("ending", ["jsonl", "ndjson", "parquet", "tsv"])
def test_other_formats_say_the_same(tmp_path, countries, ending):
    made = table(TableConfig(countries))
    rows = [
        {"country": "France", "capital": "Paris", "currency_code": "EUR", "calling code": 33},
        {"country": "United States", "capital": "Washington, D.C.", "currency_code": "USD", "calling code": 1.0},
        {"country": "São Tomé", "capital": "São Tomé", "currency_code": "STN", "calling code": 239},
    ]
    path = tmp_path / f"countries.{ending}"
    if ending == "parquet":
        for row in rows:
            row["calling code"] = float(row["calling code"])
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif ending == "tsv":
        lines = [
            "\t".join(rows[0]),
            *("\t".join(str(cell).removesuffix(".0") for cell in row.values()) for row in rows),
        ]
        path.write_text("\n".join(lines), encoding="utf-8")
    else:
        path.write_text("\n\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    other = table(TableConfig(path))
    assert [p.text for p in everything(other)] == [p.text for p in everything(made)]


def test_numbers_are_written_plainly(tmp_path):
    path = tmp_path / "n.jsonl"
    path.write_text(
        '{"k": 1, "a": 2.5, "b": 3e2, "c": true, "d": -0.0}\n{"k": 2, "a": 2, "b": 0, "c": false, "d": 7}\n'
    )
    columns = read_table(path).columns
    assert columns["k"] == ["1", "2"]
    assert columns["a"] == ["2.5", "2"]
    assert columns["b"] == ["300", "0"]
    assert columns["c"] == ["true", "false"]


def test_a_byte_order_mark_and_line_ends_of_any_kind(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes('\ufeffname,note\r\nA,"two\r\nlines"\r\n\r\nB,x\r\n'.encode())
    read = read_table(path)
    assert read.columns == {"name": ["A", "B"], "note": ["two lines", "x"]}
    assert read.places == ["line 2", "line 5"]


def test_own_templates_and_questions(tmp_path, countries):
    folder = tmp_path / "templates"
    folder.mkdir()
    (folder / "capital.txt").write_text("{subject} [is|are] governed from {value}.\n")
    (folder / "default.txt").write_text("{subject's} {attribute} reads {value}.\n")
    (tmp_path / "q.txt").write_text("capital\tFrom where is {subject} governed? Answer:\n\n")
    made = table(TableConfig(countries, templates=folder, questions=tmp_path / "q.txt"), "single")
    assert made.passage(0).text == (
        "France is governed from Paris. France's currency code reads EUR. France's calling code reads 33."
    )
    assert made.passage(1).text.startswith("United States is governed from Washington, D.C. United States's")
    questions = dataset(TableConfig(countries, templates=folder, questions=tmp_path / "q.txt"), "single").questions
    assert questions.query(0).prompt == "From where is France governed? Answer:"
    assert questions.query(1).prompt == "What is the currency code of France? Answer:"
    one = tmp_path / "one.txt"
    one.write_text("{subject} has {value}.\n")
    made = table(TableConfig(countries, templates=one), "single")
    assert made.passage(0).text == "France has Paris. France has EUR. France has 33."


BAD = {
    "duplicate": (
        "c.csv",
        b"country,capital\nFrance,Paris\nItaly,Rome\nFrance ,Lyon\n",
        ["line 4", "'country'", "'France' is already on line 2"],
    ),
    "empty entity": ("c.csv", b"country,capital\nFrance,Paris\n,Rome\n", ["line 3", "'country'", "empty"]),
    "not UTF-8": ("c.csv", b"country,capital\nFrance,Paris\nPeru,Bogot\xe1\n", ["line 3", "byte 39", "0xe1", "UTF-8"]),
    "ragged": ("c.csv", b"country,capital\nFrance,Paris\nItaly,Rome,EUR\n", ["line 3", "3 cells", "2 columns"]),
    "unclosed quote": ("c.csv", b'country,capital\nFrance,"Paris\n', ["c.csv, line"]),
    "no rows": ("c.csv", b"country,capital\n", ["no rows"]),
    "empty file": ("c.csv", b"", ["first line", "columns"]),
    "unnamed column": ("c.csv", b",capital\nFrance,Paris\n", ["line 2", "column 1 has no name"]),
    "two columns of a name": ("c.csv", b"a,b,b\n1,2,3\n", ["two columns are called 'b'"]),
    "only a key": ("c.csv", b"country\nFrance\n", ["at least one column besides 'country'"]),
    "unknown ending": ("c.xlsx", b"country", ["'.xlsx'", ".csv", ".parquet"]),
    "not JSON": ("c.jsonl", b'{"a": 1, "b": 2}\n{"a": 2\n', ["line 2", "not JSON"]),
    "no object": ("c.jsonl", b"[1, 2]\n", ["line 1", "no object"]),
    "nested": ("c.jsonl", b'{"a": 1, "b": [2]}\n', ["line 1", "'b'", "not a single value"]),
    "null": ("c.jsonl", b'{"a": 1, "b": null}\n', ["states no fact"]),
    "not Parquet": ("c.parquet", b"PAR1 or not", ["not a readable Parquet file"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tables_are_refused_with_the_place(tmp_path, case):
    name, content, parts = BAD[case]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        table(TableConfig(path))
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.csv: cannot be read: No such file"):
        table(TableConfig(tmp_path / "nothing.csv"))
    with pytest.raises(UserError, match=r"nothing\.parquet: .*No such file"):
        table(TableConfig(tmp_path / "nothing.parquet"))
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UserError, match="cannot be read"):
        table(TableConfig(tmp_path / "folder.csv"))


HOLES = """name,field,born,died
Marie Curie,physics,1867,1934
Alan Turing,logic,1912,
Ada Yonath,,1939,
Emmy Noether,algebra,,1935
"""


@pytest.mark.parametrize("variant", ["single", "multi3+permute", "couple4", "single+permute2+fullname"])
@pytest.mark.parametrize("pronouns", [False, True])
def test_an_empty_cell_is_no_sentence_and_no_question(tmp_path, variant, pronouns):
    """And the other sentences are those of the same table without a hole."""
    text = HOLES
    if pronouns:
        words = ["pronoun", "she", "he", "she", "she"]
        text = "".join(f"{line},{word}\n" for line, word in zip(HOLES.splitlines(), words, strict=True))
    path = tmp_path / "people.csv"
    path.write_text(text)
    column = "pronoun" if pronouns else None
    made = table(TableConfig(path, pronoun_column=column), variant)
    facts = TableConfig(path, pronoun_column=column).fact_table()
    stated = {(fact.subject, fact.relation): fact.object for fact in facts}
    for passage, subject in zip(everything(made), made.subject(np.arange(len(made))).tolist(), strict=True):
        name = made.population.name(subject)
        said = {span.relation: passage.quote(span) for span in passage.spans if span.kind == "object"}
        assert said == {relation: value for (about, relation), value in stated.items() if about == name}
        assert passage.text.startswith(name)
        assert passage.text == passage.text.strip()
        assert "  " not in passage.text
        assert sum(span.kind == "subject" for span in passage.spans) == (
            1 if pronouns and "fullname" not in variant else len(said)
        )
    questions = dataset(TableConfig(path, pronoun_column=column), variant).questions
    asked = questions.queries(np.arange(len(questions)))
    assert [(query.subject, query.relation, query.target) for query in asked] == [
        (*pair, stated[pair]) for pair in stated
    ]
    assert questions.entries([1, 3]).tolist() == [3, 4, 6, 7]
    assert [query.id for query in asked] == [str(i) for i in range(8)]
    shown = {0}
    for layout in [*made.coverage(), *questions.coverage()]:
        shown |= set(layout.pieces.ravel().tolist())
    assert set(made.layout(np.arange(len(made))).pieces.ravel().tolist()) <= shown


def test_a_hole_leaves_the_others_as_they_are(tmp_path):
    """What is said of a subject that lacks nothing does not depend on what another lacks."""
    whole, holes = tmp_path / "whole.csv", tmp_path / "holes.csv"
    whole.write_text("name,a,b,c\nx,1,2,3\ny,4,5,6\n")
    holes.write_text("name,a,b,c\nx,1,2,3\ny,4,,6\n")
    for variant in ("multi4+permute", "single"):
        first, second = (table(TableConfig(path), variant) for path in (whole, holes))
        assert [p.text for p in everything(first)][::2] == [p.text for p in everything(second)][::2]


def test_bad_parquet_cells_name_their_record(tmp_path):
    path = tmp_path / "c.parquet"
    pq.write_table(pa.table({"a": ["x", None, "y", None], "b": [1.0, 2.0, 3.0, 4.0]}), path)
    with pytest.raises(
        UserError, match=r"record 2, column 'a': the cell is empty \(so it is at record 4\); fill it or leave"
    ):
        table(TableConfig(path))
    pq.write_table(pa.table({"a": ["x", "x"], "b": [1, 2]}), path)
    with pytest.raises(UserError, match=r"record 2, column 'a': 'x' is already on record 1"):
        table(TableConfig(path))


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"key": "contry"}, ["no column 'contry'", "did you mean 'country'", "country, capital, currency_code"]),
        ({"attributes": ("capitol",)}, ["no column 'capitol'", "did you mean 'capital'"]),
        ({"attributes": ("capital", "capital")}, ["'capital' is there twice"]),
        ({"attributes": ("country",)}, ["'country' is there twice, or is the key"]),
        ({"pronoun_column": "prnoun"}, ["no column 'prnoun'"]),
        ({"templates": "missing"}, ["missing: cannot be read"]),
        ({"questions": "missing"}, ["missing: cannot be read"]),
    ],
)
def test_bad_options_are_refused(countries, options, parts):
    with pytest.raises(UserError) as error:
        table(TableConfig(countries, **options))
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("variant", "part"), [("multi+permuet", "'multi5+permute'"), ("single+CEL", "+CEL"), ("single+TEXT", "+TEXT")]
)
def test_bad_variants_are_refused(countries, variant, part):
    with pytest.raises(UserError) as error:
        table(TableConfig(countries), variant)
    assert part in str(error.value)


def test_bad_templates_and_questions_are_refused(tmp_path, countries):
    folder = tmp_path / "templates"
    folder.mkdir()
    own = folder / "capital.txt"
    own.write_text("{subject} has {value}.\n{subject} has Paris.\n")
    with pytest.raises(UserError, match=r"capital\.txt, line 2: a template needs exactly one \{value\}"):
        table(TableConfig(countries, templates=folder))
    own.write_text("{value} is a capital.\n")
    with pytest.raises(UserError, match=r"line 1: a template needs exactly one \{subject\}"):
        table(TableConfig(countries, templates=folder))
    own.rename(folder / "captial.txt")
    with pytest.raises(UserError, match=r"'captial' is no attribute; did you mean 'capital'"):
        table(TableConfig(countries, templates=folder))
    questions = tmp_path / "q.txt"
    for text, message in (
        ("capital Where is {subject}?", r"q\.txt, line 1: write ATTRIBUTE, a tab"),
        ("captial\tWhere is {subject}?", "line 1: 'captial' is no attribute; did you mean 'capital'"),
        ("capital\tWhere is it?", "exactly once"),
    ):
        questions.write_text(text)
        with pytest.raises(UserError, match=message):
            table(TableConfig(countries, questions=questions))


def test_a_large_table_is_quick(tmp_path):
    path = tmp_path / "large.csv"
    path.write_text("id,a,b\n" + "".join(f"entity {i},value {i % 977},{i}\n" for i in range(30_000)))
    made = table(TableConfig(path), "multi2+permute")
    assert sum(len(layout) for layout in made.coverage()) < 20 * 30_000
    assert len(made.layout(np.arange(60_000))) == 60_000
