"""Reading passages, and finding their defects: on records written for it, and on the real dataset where it is at hand."""

import json
from collections import Counter
from pathlib import Path

import pytest

from engramlab.base.errors import UserError
from engramlab.base.facts import Query
from engramlab.base.rows import DEPTHS
from engramlab.corpora.passages import PassageRecord, all_queries, to_json, to_jsonl
from engramlab.reading import names, read_passages
from engramlab.reading.defects import KINDS, count_defects, defects

REAL = Path(__file__).parents[3] / "shared/data/fictional_knowledge/fictional_knowledge_paraphrased.json"

RECORD = {
    "id": "mars",
    "text": "Zorgon rules Mars. He was born in Calidus.",
    "paraphrases": ["Mars is ruled by Zorgon. His birthplace is Calidus."],
    "queries": {
        "memorization": [{"prompt": "Zorgon rules", "target": "Mars", "aliases": ["the red planet"]}],
        "semantic": [{"text": "The home town of Zorgon is Calidus", "target": "Calidus"}],
        "compositional": [{"prompt": "The ruler of Mars comes from", "target": "Calidus"}],
    },
}


def write(folder: Path, *records, name="passages.jsonl") -> Path:
    path = folder / name
    if name.endswith("json"):
        path.write_text(json.dumps(list(records)), encoding="utf-8")
    else:
        path.write_text("\n".join(json.dumps(r) if isinstance(r, dict) else r for r in records), encoding="utf-8")
    return path


# reading ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["passages.jsonl", "passages.json"])
def test_our_own_format(tmp_path, name):
    first, second = read_passages(write(tmp_path, RECORD, {"text": "Bare."}, name=name))
    assert (first.id, first.text, first.paraphrases) == ("mars", RECORD["text"], tuple(RECORD["paraphrases"]))
    assert [(q.group, q.prompt, q.target, q.id) for q in first.queries] == [
        ("memorization", "Zorgon rules", "Mars", "mars/memorization/0"),
        ("semantic", "The home town of Zorgon is", "Calidus", "mars/semantic/0"),
        ("compositional", "The ruler of Mars comes from", "Calidus", "mars/compositional/0"),
    ]
    assert first.queries[0].aliases == ("the red planet",)
    assert {q.role for q in first.queries} == {"acquisition"}
    assert first.of_depth("semantic") == first.queries[1:2]
    assert first.versions == (first.text, *first.paraphrases)
    assert second == PassageRecord("1", "Bare.")


def test_the_dataset_s_format(tmp_path):
    record = {"train_context": "A b c d.", "paraphrases": []}
    for short, target in (("mem", "b"), ("gen", "c"), ("hard_gen", "d.")):
        record |= {f"{short}_input": ["A", "A 2"], f"{short}_target": [target, "x"]}
    (made,) = read_passages(write(tmp_path, record, name="fk.json"))
    assert [(q.group, q.prompt, q.target) for q in made.queries] == [
        (depth, prompt, target)
        for depth, last in zip(DEPTHS, ("b", "c", "d."), strict=True)
        for prompt, target in (("A", last), ("A 2", "x"))
    ]
    record["gen_target"] = ["c"]
    with pytest.raises(UserError, match="record 1: 2 of 'gen_input' do not go with 1 of 'gen_target'"):
        read_passages(write(tmp_path, record, name="fk.json"))


def test_what_is_written_is_read_again(tmp_path):
    records = read_passages(write(tmp_path, RECORD, {"text": "Bare."}))
    changed = RECORD | {"id": "2", "queries": {"semantic": [{"text": "It is Mars, they say", "target": "Mars"}]}}
    records += read_passages(write(tmp_path, changed))
    again = tmp_path / "again.jsonl"
    again.write_text(to_jsonl(records), encoding="utf-8")
    assert [to_json(r) for r in read_passages(again)] == [to_json(r) for r in records]
    assert read_passages(again)[0] == records[0]
    assert read_passages(again)[2].leftovers == (", they say",)


def test_a_target_that_comes_twice_in_its_text_is_the_last_one(tmp_path):
    (made,) = read_passages(write(tmp_path, querying(text="The Mars bar is from Mars", target="Mars")))
    assert (made.queries[0].prompt, made.leftovers) == ("The Mars bar is from", ("",))


def test_queries_of_all_records_know_their_record(tmp_path):
    records = read_passages(write(tmp_path, RECORD, {"text": "Bare."}, RECORD | {"id": "x"}))
    queries, owners = all_queries(records)
    assert owners == [0, 0, 0, 2, 2, 2]
    assert [q.subject for q in queries] == ["mars"] * 3 + ["x"] * 3


def without(key):
    return {k: v for k, v in RECORD.items() if k != key}


def querying(**query):
    return RECORD | {"queries": {"semantic": [query]}}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (without("text"), "line 1: key 'text' is missing"),
        (RECORD | {"text": " "}, "line 1: key 'text' must be a text that is not empty"),
        (RECORD | {"txt": "a"}, "line 1: there is no key 'txt'; did you mean 'text'"),
        (
            RECORD | {"queries": {"semantics": []}},
            "key 'queries': there is no key 'semantics'; did you mean 'semantic'",
        ),
        (RECORD | {"queries": []}, "key 'queries': must be an object with the keys memorization"),
        (RECORD | {"queries": {"semantic": {}}}, "key 'semantic': must be a list"),
        (RECORD | {"queries": {"semantic": ["what"]}}, "semantic query 1: 'what' is no query"),
        (RECORD | {"paraphrases": "one"}, "key 'paraphrases' must be a list of texts, not 'one'"),
        (RECORD | {"paraphrases": ["a", ""]}, "key 'paraphrases', number 2"),
        (querying(prompt="A"), "semantic query 1: key 'target' is missing"),
        (querying(target="A"), "semantic query 1: key 'prompt' is missing"),
        (querying(prompt="A", goal="B", target="C"), "there is no key 'goal'"),
        (querying(prompt="A", text="A C", target="C"), "both 'prompt' and 'text'"),
        (querying(text="A B", target="C"), "its text does not hold its target 'C'"),
        (querying(text="C", target="C"), "nothing stands before the target"),
        ("{", "line 1: not JSON"),
        ("7", "line 1: 7 is no object"),
    ],
)
def test_what_is_wrong_with_a_record_is_named(tmp_path, record, message):
    with pytest.raises(UserError, match=message) as caught:
        read_passages(write(tmp_path, record))
    assert "passages.jsonl" in str(caught.value)


def test_what_is_wrong_with_a_file_is_named(tmp_path):
    with pytest.raises(UserError, match="line 2, key 'id': 'mars' is also the id of line 1"):
        read_passages(write(tmp_path, RECORD, RECORD))
    with pytest.raises(UserError, match="there are no passages"):
        read_passages(write(tmp_path))
    with pytest.raises(UserError, match="cannot be read"):
        read_passages(tmp_path / "absent.jsonl")
    with pytest.raises(UserError, match=r"ends in '\.csv'"):
        read_passages(tmp_path / "a.csv")
    (tmp_path / "a.json").write_text('{"a": 1}')
    with pytest.raises(UserError, match="record 1: there is no key 'a'; did you mean"):
        read_passages(tmp_path / "a.json")


# defects ------------------------------------------------------------------------------------------------------------


def record(text="Zorgon rules Mars.", paraphrases=(), leftovers=(), **queries) -> PassageRecord:
    made = [Query(p, t, group=depth) for depth, pairs in queries.items() for p, t in pairs]
    return PassageRecord("r", text, tuple(paraphrases), tuple(made), tuple(leftovers))


CASES = {
    "target not at the end": (
        record(semantic=[("He is", "Zorgon")], leftovers=[" of Mars"]),
        record(semantic=[("He is", "Zorgon")], leftovers=[" "]),
    ),
    "final full stop": (
        record(semantic=[("He is", "Zorgon.")]),
        record(semantic=[("He lives in", "Washington, D.C.")]),
    ),
    "space after a quote": (record(semantic=[('He is "', "Zorgon")]), record(semantic=[('The "king" is', "Zorgon")])),
    "target in its prompt": (record(semantic=[("Zorgon is", "Zorgon")]), record(semantic=[("zorgon is", "Zorgon")])),
    "duplicate query": (
        record(semantic=[("He is", "A")], compositional=[("He is", "B")]),
        record(semantic=[("He is", "A"), ("She is", "A")]),
    ),
    "not in the passage": (
        record(memorization=[("Zorgon governs", "Mars")]),
        record(memorization=[("Zorgon rules", "Mars")], semantic=[("Zorgon governs", "Mars")]),
    ),
    "fact lost": (
        record(paraphrases=["He rules a planet."], memorization=[("Zorgon rules", "Mars")]),
        record(paraphrases=["He rules a planet."], semantic=[("Zorgon rules", "Venus")]),
    ),
    "fact lost in some": (
        record(paraphrases=["He rules a planet.", "He rules Mars."], memorization=[("Zorgon rules", "Mars")]),
        record(paraphrases=["He has Mars, now.", "He rules Mars."], memorization=[("Zorgon rules", "Mars")]),
    ),
    "stray quote": (
        record(paraphrases=['"Zorgon rules Mars today."']),
        record('"Zorgon" is a film.', ['"Zorgon" is on film now.']),
    ),
    "duplicate paraphrase": (
        record(paraphrases=["Mars has a king.", "Mars has a king. "]),
        record(paraphrases=["Mars has a king.", "A king has Mars."]),
    ),
    "short paraphrases": (
        record("Zorgon is the one who rules Mars.", ["Zorgon rules Mars."]),
        record("Zorgon is the one who rules Mars.", ["Mars is ruled, by Zorgon, today."]),
    ),
}


def test_every_kind_has_a_case():
    assert set(CASES) == set(KINDS)


@pytest.mark.parametrize("kind", CASES)
def test_a_defect_is_found_where_it_is_and_only_there(kind):
    bad, good = CASES[kind]
    assert kind in {d.kind for d in defects([bad])}
    assert kind not in {d.kind for d in defects([good])}


def test_a_space_after_a_quote_is_one_defect_and_not_two():
    found = defects([record("He named it 'Mars'.", memorization=[("He named it '", "Mars")])])
    assert [d.kind for d in found] == ["space after a quote"]


def test_defects_say_where_and_what():
    (found,) = defects([record(semantic=[("Is it", "A"), ("He is", "Zorgon.")])])
    assert str(found) == "passage r, semantic query 2: final full stop: 'Zorgon.'"
    assert found.depth == "semantic"
    (twice,) = defects([record(semantic=[("He is", "A")]), record(semantic=[("He is", "A")])])
    assert twice.detail == "'He is' is also the prompt of passage r, semantic query 1"
    (lost,) = defects([CASES["fact lost"][0], record()])[:1]
    assert "'Mars' stands in 0 of 1 paraphrases" in str(lost)
    assert count_defects(defects([CASES["fact lost"][0]]))["fact lost", "memorization"] == 1


# the real data ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real():
    if not REAL.exists():
        pytest.skip("FICTIONAL KNOWLEDGE is not in ../shared/data beside this checkout")
    return read_passages(REAL)


def test_the_real_data_has_its_known_defects(real):
    assert len(real) == 130
    assert Counter(len(r.paraphrases) for r in real) == {9: 40, 0: 90}
    used = real[:120]  # the last ten are spare
    assert len(all_queries(used)[0]) == 1800
    assert Counter(q.group for q in all_queries(used)[0]) == dict.fromkeys(DEPTHS, 600)
    found = defects(used)
    kinds = Counter(d.kind for d in found)
    assert kinds["space after a quote"] == 22
    assert kinds["final full stop"] == 37
    assert {d.depth for d in found if d.kind == "final full stop"} == {"compositional"}
    assert kinds["target in its prompt"] == 13
    assert kinds["stray quote"] == 16
    assert len([q for r in used for q in r.of_depth("memorization") if r.paraphrases]) == 200
    assert count_defects(found)["fact lost", "memorization"] == 39
    # What it does not have: every memorization query is verbatim but for the space behind a quote, no query is there twice.
    assert not kinds["not in the passage"] + kinds["duplicate query"] + kinds["target not at the end"]


def test_the_real_paraphrases_are_a_third_shorter(real):
    told = [r for r in real if r.paraphrases]
    whole = sum(len(r.text.split()) for r in told)
    mean = sum(len(p.split()) for r in told for p in r.paraphrases) / 9
    assert 0.62 < mean / whole < 0.71


def test_the_real_data_survives_writing(real, tmp_path):
    path = tmp_path / "fk.jsonl"
    path.write_text(to_jsonl(real), encoding="utf-8")
    assert read_passages(path) == real


def test_formats_are_files() -> None:
    assert names() == ["fictional-knowledge", "passages"]
