"""Facts as users bring them: every form and file says the same, what is wrong is named, and every instrument gets its texts."""

from __future__ import annotations

import json
import string
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engramlab.base.errors import UserError
from engramlab.base.facts import Fact
from engramlab.corpora.facts import FactOptions, FactTable
from engramlab.corpora.facts.wordings import doubtful
from engramlab.corpora.layout import as_passages as texts_of
from engramlab.corpora.people import People
from engramlab.files.tables import clean

WIDE = """country,capital,capital_aliases,currency,subject_aliases
France,Paris,City of Light,euro,Gaul
Japan,Tokyo,Edo|Tōkyō,yen,
Italy,Rome,,euro,
"""
LONG = [
    {
        "subject": "France",
        "relation": "capital",
        "object": "Paris",
        "subject_aliases": ["Gaul"],
        "object_aliases": ["City of Light"],
    },
    {"subject": "France", "relation": "currency", "object": "euro"},
    {"subject": "Japan", "relation": "capital", "object": "Tokyo", "object_aliases": "Edo | Tōkyō"},
    {"subject": "Japan", "relation": "currency", "object": "yen"},
    {"subject": "Italy", "relation": "capital", "object": "Rome"},
    {"subject": "Italy", "relation": "currency", "object": "euro"},
]
FACTS = [
    Fact("France", "capital", "Paris", ("City of Light",), ("Gaul",)),
    Fact("France", "currency", "euro", (), ("Gaul",)),
    Fact("Japan", "capital", "Tokyo", ("Edo", "Tōkyō")),
    Fact("Japan", "currency", "yen"),
    Fact("Italy", "capital", "Rome"),
    Fact("Italy", "currency", "euro"),
]


def write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def test_both_forms_in_every_file_and_in_memory_say_the_same(tmp_path: Path) -> None:
    columns = ("subject", "relation", "object", "subject_aliases", "object_aliases")
    rows = [{name: row.get(name, []) for name in columns} for row in LONG]
    rows[2]["object_aliases"] = ["Edo", "Tōkyō"]
    arrow = pa.Table.from_pylist(rows)
    pq.write_table(arrow, tmp_path / "long.parquet")
    separated = [[("|".join(c) if isinstance(c, list) else c) for c in row.values()] for row in rows]
    sources = [
        write(tmp_path / "wide.csv", WIDE),
        write(tmp_path / "semicolons.csv", WIDE.replace(",", ";")),
        write(tmp_path / "wide.tsv", WIDE.replace(",", "\t")),
        write(tmp_path / "long.jsonl", "\n".join(map(json.dumps, LONG))),
        write(tmp_path / "long.json", json.dumps(LONG)),
        write(tmp_path / "wrapped.json", json.dumps({"about": "countries", "facts": LONG})),
        write(tmp_path / "long.csv", "\n".join([",".join(columns), *map(",".join, separated)])),
        tmp_path / "long.parquet",
        arrow,
        FACTS,
        FactTable.of(FACTS),
    ]
    for source in sources:
        made = FactTable.read(source)
        assert list(made) == FACTS, source
        assert made.digest == FactTable.of(FACTS).digest
    assert len(made) == 6
    assert made.relations == ("capital", "currency")
    assert made.choices() == {"capital": ("Paris", "Tokyo", "Rome"), "currency": ("euro", "yen")}
    assert "6 facts, 3 subjects, capital, currency" in repr(made)


def test_holes_are_facts_that_are_not_there(tmp_path: Path) -> None:
    wide = FactTable.read(write(tmp_path / "w.csv", "name,a,b\nx,1,\ny,,2\n"))
    long = FactTable.read(write(tmp_path / "l.csv", "subject,relation,object\nx,a,1\nx,b,\ny,b,2\n"))
    assert list(wide) == list(long) == [Fact("x", "a", "1"), Fact("y", "b", "2")]
    assert [len(record.queries) for record in wide.passages()] == [2, 2]
    assert [query.id for query in wide.queries()] == ["x/a", "y/b"]
    made = wide.entries("single")
    assert [[p.quote(span) for span in p.spans] for p in map(made.passage, (0, 1))] == [["x", "1"], ["y", "2"]]


WORDS = st.text(string.ascii_letters + "äß漢,;|\"' ", min_size=1, max_size=8).map(clean).filter(bool)
NAMES = WORDS.filter(lambda word: "|" not in word)


@st.composite
def facts(draw) -> list[Fact]:
    relations = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    subjects = draw(st.lists(NAMES, min_size=1, max_size=4, unique_by=str.casefold))
    found, number = [], 0
    for subject in subjects:
        # Aliases of other characters than any name, so that none is another's.
        other_names = tuple(f"{number}-{k}" for k in range(draw(st.integers(0, 2))))
        for relation in draw(st.lists(st.sampled_from(relations), unique=True, min_size=1)):
            number += 1
            aliases = tuple(f"{number}+{k}" for k in range(draw(st.integers(0, 2))))
            found.append(Fact(subject, relation, draw(WORDS), aliases, other_names))
    return found


@given(facts())
@settings(max_examples=60, deadline=None)
def test_a_table_written_out_is_the_same_table_read_back(
    tmp_path_factory: pytest.TempPathFactory, given: list[Fact]
) -> None:
    made, folder = FactTable.of(given), tmp_path_factory.mktemp("facts")
    assert set(made) == set(given)
    rows = made.to_arrow().to_pylist()
    pq.write_table(made.to_arrow(), folder / "f.parquet")
    for source in (made.to_arrow(), list(made), folder / "f.parquet", write(folder / "f.json", json.dumps(rows))):
        again = FactTable.read(source)
        assert list(again) == list(made)
        assert again.digest == made.digest
    for record in made.passages():
        assert all(query.prompt and query.target for query in record.queries)


def test_populations_and_countries_are_tables_too() -> None:
    people = FactTable.of_population(People(5), range(1, 4))
    assert len(people) == 18
    assert people.subjects[0] == People(5).name(1)
    world = FactTable.read("countries", relations=("capital", "currency"))
    assert world.relations == ("capital", "currency")
    assert Fact("Germany", "capital", "Berlin") in {Fact(f.subject, f.relation, f.object) for f in world}
    assert len(world.edits(limit=7, relations=("capital",))) == 7


def test_countries_are_asked_for_in_sentences_of_their_own(tmp_path: Path) -> None:
    """Those of the benchmark `world`; names have their articles, and what a user gives goes first."""
    for source in ("countries", Path("countries")):
        words = FactTable.read(source).wordings
        assert words.prompts("currency", "Netherlands")[0] == "The official currency of the Netherlands is the"
        assert words.prompts("capital", "United States")[2] == "The United States has its capital in"
        assert words.question("language", "Japan") == "Which language is the official one in Japan? Answer:"
        assert len(words.forms("calling_code", "Peru")) == 6
        assert words.prompts("continent", "{subject}")[0] == "{subject} is located on the continent of"
    assert (
        words.sentence(Fact("Netherlands", "capital", "Amsterdam"), 0)[0] == "The Netherlands's capital is Amsterdam."
    )
    own = FactTable.read("countries", phrases={"capital": "chief city"}).wordings
    assert own.prompts("capital", "Peru")[0] == "Peru's chief city is"
    assert own.prompts("language", "Peru")[0] == "In Peru, the official language is"
    templates = write(tmp_path / "t.txt", "{subject} {attribute}: {value}")
    own = FactTable.read("countries", templates=templates).wordings
    assert own.prompts("capital", "Peru")[0] == "Peru capital:"
    given = FactOptions(facts=Path("countries")).fact_table()
    assert given is not None
    assert given.digest == FactTable.read("countries").digest != FactTable.of(FactTable.read("countries")).digest


def test_pandas_comes_and_goes() -> None:
    pandas = pytest.importorskip("pandas")
    made = FactTable.read(pandas.DataFrame({"name": ["x", "y"], "size": [1.0, None], "colour": ["red", "blue"]}))
    assert list(made) == [Fact("x", "size", "1"), Fact("x", "colour", "red"), Fact("y", "colour", "blue")]
    assert list(FactTable.read(made.to_pandas())) == list(made)


BAD = {
    "two objects": ("subject,relation,object\nx,a,1\nx,a,2\n", "f.csv, line 3: 'a' of 'x' is '2', but '1' at line 2"),
    "an entity twice": ("name,a\nx,1\nx,2\n", "f.csv, line 3, column 'name': 'x' is already on line 2"),
    "an alias that is another's object": (
        "subject,relation,object,object_aliases\nx,a,Rome,Roma|paris\ny,a,Paris,\n",
        "f.csv, line 2, key 'object_aliases': 'paris', an alias of 'Rome', is also the a of line 3",
    ),
    "an alias that is another subject": (
        "name,a,subject_aliases\nx,1,Y\ny,2,\n",
        "f.csv, line 2, key 'subject_aliases': 'Y' is also the subject of line 3",
    ),
    "a column of no form": (
        "subject,relation,object,objekt_aliases\nx,a,1,2\n",
        "no column 'objekt_aliases'; did you mean 'object_aliases'",
    ),
    "aliases of nothing": ("name,capital,captial_aliases\nx,1,2\n", "of no column 'captial'; did you mean 'capital_aliases'"),
    "no subject": ("subject,relation,object\n,a,1\n", "f.csv, line 2, column 'subject': the cell is empty"),
    "no relation": ("subject,relation,object\nx,,1\n", "f.csv, line 2, column 'relation': the cell is empty"),
    "nothing stated": ("subject,relation,object\nx,a,\n", "f.csv: states no fact"),
    "only a key": ("name\nx\n", "f.csv: needs at least one column besides 'name'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_named(tmp_path: Path, case: str) -> None:
    content, message = BAD[case]
    with pytest.raises(UserError) as error:
        FactTable.read(write(tmp_path / "f.csv", content))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_wrong_with_options_and_wordings_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", WIDE)
    templates, questions = tmp_path / "t.txt", tmp_path / "q.txt"
    with pytest.raises(UserError, match="no column 'capitol'; did you mean 'capital'"):
        FactTable.read(path, relations=("capitol",))
    with pytest.raises(UserError, match="no relation 'capitol'; did you mean 'capital'"):
        FactTable.of(FACTS, relations=("capitol",))
    with pytest.raises(UserError, match="fact 2: has an empty subject, relation or object"):
        FactTable.of([FACTS[0], Fact("x", "a", " ")])
    with pytest.raises(UserError, match="pronouns are for tables with a row a subject"):
        FactTable.read(write(tmp_path / "l.csv", "subject,relation,object\nx,a,1\n"), pronoun_column="p")
    with pytest.raises(UserError, match="is no table"):
        FactTable.read(7)
    for text, message in (("{subject} is big.", "exactly one {value}"), ("It is {value}.", "exactly one {subject}")):
        with pytest.raises(UserError, match=f"t.txt, line 1: a template needs {message}"):
            FactTable.read(path, templates=write(templates, text))
    for text, message in (
        ("capitol\tWhere is {subject}?", "'capitol' is no attribute; did you mean 'capital'"),
        ("capital\tWhere?", "exactly once"),
        ("capital", "a tab"),
    ):
        with pytest.raises(UserError, match=f"q.txt, line 1: .*{message}"):
            FactTable.read(path, questions=write(questions, text))
    made = FactTable.read(path)
    with pytest.raises(UserError, match="no relation 'capitol'"):
        made.edits(relations=("capitol",))
    with pytest.raises(UserError, match="'other' or 'own'"):
        made.edits("new")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="paraphrases: must be at least 0"):
        made.passages(-1)
    with pytest.raises(UserError, match=r"'a' has no other object than '1' to edit '[xy]' to"):
        FactTable.of([Fact("x", "a", "1"), Fact("y", "a", "1")]).edits()


# what instruments get -------------------------------------------------------------------------------------------------


def test_entries_state_every_fact_in_any_variant() -> None:
    made = FactTable.of(FACTS)
    corpus = made.entries("multi2+permute", seed=3)
    for passage in texts_of(corpus.layout(range(len(corpus))), corpus.pieces, corpus.attributes, map(str, range(6))):
        name = next(passage.quote(span) for span in passage.spans if span.kind == "subject")
        said = {(span.relation, passage.quote(span)) for span in passage.spans if span.kind == "object"}
        assert said == {(fact.relation, fact.object) for fact in FACTS if fact.subject == name}
    with pytest.raises(UserError, match="bioS only"):
        made.entries("single+CEL")


def test_passages_say_the_facts_in_other_words_and_are_asked_at_two_depths() -> None:
    made = FactTable.of(FACTS)
    records = made.passages(seed=1)
    assert records == made.passages(seed=1) != made.passages(seed=2)
    for record in records:
        mine = [fact for fact in FACTS if fact.subject == record.id]
        assert len(set(record.versions)) == 10
        for text in record.versions:
            assert all(fact.object in text for fact in mine)
            assert ".." not in text
        for query, fact in zip(record.of_depth("memorization"), mine, strict=True):
            assert f"{query.prompt} {query.target}" in record.text
            assert (query.target, query.aliases) == (fact.object, fact.aliases)
        for query in record.of_depth("semantic"):
            assert not any(query.prompt in text for text in record.versions)
            assert query.prompt.startswith("What is the")
    assert {query.role for record in records for query in record.queries} == {"acquisition"}
    assert [len(record.paraphrases) for record in made.passages(2)] == [2, 2, 2]


def test_one_template_is_enough(tmp_path: Path) -> None:
    path = write(tmp_path / "t.txt", "{subject} has {value} as its {attribute}.\n")
    made = FactTable.of(FACTS[::2], templates=path)
    (first, *_) = made.passages()
    assert first.text == "France has Paris as its capital."
    assert first.paraphrases == ()
    (case, *_) = made.edits()
    assert case.edits[0].query.prompt == f"What is the capital of {case.edits[0].query.subject}? Answer:"


def test_queries_ask_the_questions_of_the_user(tmp_path: Path) -> None:
    made = FactTable.of(FACTS, questions=write(tmp_path / "q.txt", "capital\tFrom where is {subject} governed?\n"))
    first, second, *_ = made.queries()
    assert (first.prompt, first.target, first.aliases) == (
        "From where is France governed?",
        "Paris",
        ("City of Light",),
    )
    assert (first.role, first.subject, first.relation) == ("question", "France", "capital")
    assert second.prompt == "What is the currency of France? Answer:"


def test_an_edit_gives_another_object_of_the_relation_and_judges_what_must_stay() -> None:
    made = FactTable.of(FACTS)
    cases = made.edits(seed=5)
    assert {case.id for case in cases} == {f"{fact.relation}/{fact.subject}" for fact in FACTS}
    assert [case.id for case in made.edits(seed=5, limit=2)] == [case.id for case in cases[:2]]
    by_name = {(fact.subject, fact.relation): fact for fact in FACTS}
    for case in cases:
        (edit,) = case.edits
        old = by_name[edit.query.subject, edit.query.relation]
        assert (edit.query.target, edit.query.aliases) == (old.object, old.aliases)
        assert edit.query.subject in edit.query.prompt
        assert edit.target in made.choices()[old.relation]
        assert edit.target != old.object
        said = {
            role: [judge for judge in edit.judges if judge.role == role]
            for role in ("generality", "portability", "locality")
        }
        assert {judge.target for judge in said["generality"]} == {edit.target}
        assert said["generality"][-1].group == "Q&A"
        assert edit.query.prompt not in [judge.prompt for judge in said["generality"]]
        assert [judge.subject in judge.prompt for judge in said["locality"]] == [True, True]
        assert all(by_name[judge.subject, judge.relation].object == judge.target for judge in said["locality"])
        assert all(judge.subject != old.subject for judge in said["locality"])
        assert ["Gaul" in judge.prompt for judge in said["portability"]] == [True] * (old.subject == "France")
        assert len({judge.id for judge in edit.judges}) == len(edit.judges)
    own = made.edits("own", limit=3)
    for case in own:
        (edit,) = case.edits
        assert (edit.query.target, edit.target) == ("", by_name[edit.query.subject, edit.query.relation].object)


def test_names_that_read_badly_are_named_and_a_phrase_mends_them(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", "product,made_in,price,currencyCode\nAero Lamp,Japan,3,EUR\nZig,Chile,4,USD\n")
    bad = doubtful(FactTable.read(path).wordings)
    assert [name for name, _ in bad] == ["made_in", "currencyCode"]
    phrases = {"made_in": "country of manufacture", "currencyCode": "currency"}
    made = FactTable.read(path, phrases=phrases)
    assert not doubtful(made.wordings)
    assert made.queries()[0].prompt == "What is the country of manufacture of Aero Lamp? Answer:"
    assert "made in" not in "".join(record.text for record in made.passages())
    assert "country of manufacture" in "".join(record.text for record in made.passages())
    assert made.digest != FactTable.read(path).digest
    with pytest.raises(UserError, match="phrases: 'made in' is no attribute; did you mean 'made_in'"):
        FactTable.read(path, phrases={"made in": "x"})
    with pytest.raises(UserError, match="write ATTRIBUTE=PHRASE, not 'made_in'"):
        FactOptions(path, phrases=("made_in",)).fact_table()


def test_several_values_are_refused_with_the_way_out_or_the_first_is_taken(tmp_path: Path) -> None:
    wide = write(tmp_path / "w.csv", "name,a,b\nx,1,2\ny,3;4,5\nx,1,6\nx,7,2\n")
    with pytest.raises(
        UserError, match=r"line 4, column 'name': 'x' is already on line 2 \(so are line 5\);.*--several first"
    ):
        FactTable.read(wide)
    words = r"second objects are left out, the first of each stands \(line 4, line 5\)"
    with pytest.warns(UserWarning, match=words), pytest.warns(UserWarning, match=r"of 1 cells .* taken \(line 3\)"):
        made = FactTable.read(wide, several="first", separator=";")
    assert list(made) == [Fact("x", "a", "1"), Fact("x", "b", "2"), Fact("y", "a", "3"), Fact("y", "b", "5")]
    long = write(tmp_path / "l.csv", "subject,relation,object,source\nx,a,1,web\nx,a,2,book\nx,a,3,\ny,a,2,\n")
    with pytest.raises(
        UserError, match=r"line 3: 'a' of 'x' is '2', but '1' at line 2 \(so it is at line 4\);.*--several first"
    ):
        FactTable.read(long)
    with pytest.warns(UserWarning, match="2 second objects are left out"):
        assert list(FactTable.read(long, several="first")) == [Fact("x", "a", "1"), Fact("y", "a", "2")]
    lists = pa.table({"name": ["x", "y"], "a": [["1", "2"], []], "b": [["3"], ["4"]]})
    with pytest.raises(UserError, match=r"record 1, column 'a': \['1', '2'\] is not a single value"):
        FactTable.read(lists)
    with pytest.warns(UserWarning, match="of 1 cells with several objects the first is taken"):
        assert [fact.object for fact in FactTable.read(lists, several="first")] == ["1", "3", "4"]


def test_only_columns_that_are_asked_for_are_looked_at(tmp_path: Path) -> None:
    """As in the T-REx part of LAMA."""
    row = {"sub_label": "Town 0", "obj_label": "Belm", "evidences": [{"masked": "Town 0 has its seat in [MASK]."}]}
    path = write(tmp_path / "lama.jsonl", json.dumps(row) + "\n")
    assert list(FactTable.read(path, key="sub_label", relations=["obj_label"])) == [Fact("Town 0", "obj_label", "Belm")]
    with pytest.raises(UserError, match=r"line 1, column 'evidences': .* or leave the column out"):
        FactTable.read(path)


def test_many_aliases_of_one_subject_take_no_square(tmp_path: Path) -> None:
    rows = "".join(f"x,a,1,n{i},o{i}\n" for i in range(20_000))
    made = FactTable.read(write(tmp_path / "f.csv", f"subject,relation,object,subject_aliases,object_aliases\n{rows}"))
    assert len(made.subject_aliases[0]) == len(made.aliases[0, "a"]) == 20_000
