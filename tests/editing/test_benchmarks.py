"""Benchmark formats: what becomes of each record, and that a bad one is always named and never half used."""

import copy
import gzip
import json
import sys
import types
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engramlab.base.errors import UserError
from engramlab.base.facts import Case, Edit, Query
from engramlab.core.text.tokens import join
from engramlab.editing import benchmarks
from engramlab.editing.benchmarks import (
    BadRecord,
    agreeing,
    conflictedit,
    contradictions,
    convsent,
    counterfact,
    dated_facts,
    ecbd,
    entity_inferences,
    eren,
    hallueditbench,
    knowedit,
    load,
    mquake,
    plain,
    rippleedits,
    roundedit,
    sanitation,
    zsre,
)

SAMPLES = Path(__file__).resolve().parents[2].parent / "shared/data/samples"

# Hand-made records in the shape of each file.
ZSRE = {
    "subject": "Ann Lee",
    "src": "What school did Ann Lee attend?",
    "pred": "Hill School",
    "rephrase": "Which school was Ann Lee at?",
    "alt": "Lake School",
    "answers": ["Hill School"],
    "loc": "nq question: who wrote the song about the sea",
    "loc_ans": "Bo Day",
    "cond": "Hill School >> Lake School || What school did Ann Lee attend?",
    "portability": {"New Question": "In what town is the school of Ann Lee?", "New Answer": "Lakeville"},
}
NESTED = {
    "case_id": 17,
    "requested_rewrite": {
        "prompt": "{} plays the",
        "relation_id": "P1303",
        "target_new": {"str": "harp", "id": "Q1"},
        "target_true": {"str": "flute", "id": "Q2"},
        "subject": "Ann Lee",
    },
    "paraphrase_prompts": ["It rained. Ann Lee plays the", "Ann Lee, known for the"],
    "neighborhood_prompts": ["Bo Day plays the", "Cy Fox, player of the"],
    "attribute_prompts": ["Di Elm plays the"],
    "generation_prompts": ["Ann Lee lives"],
}
FLAT = {
    "case_id": 2,
    "prompt": "Ann Lee plays the",
    "target_new": "harp",
    "subject": "Ann Lee",
    "ground_truth": "flute",
    "rephrase_prompt": "Ann Lee is known for the",
    "locality_prompt": "Bo Day plays the",
    "locality_ground_truth": "flute",
}
RECENT = {
    "subject": "Ann Lee",
    "prompt": "The home of Ann Lee is",
    "target_new": "Rome",
    "ground_truth": [["Paris"]],
    "portability": {
        "Reasoning": [{"prompt": "The land where Ann Lee lives is", "ground_truth": [["Italy", "IT"], ["Italia"]]}],
        "Subject_Aliasing": [{"prompt": "The home of A. Lee is", "ground_truth": [["Rome", "Roma"]]}],
    },
    "locality": {
        "Relation_Specificity": [{"prompt": ["The job of Ann Lee is"], "ground_truth": ["baker"]}],
        "Forgetfulness": [{"prompt": "The home of Ann Lee, which is not Rome, is", "ground_truth": "Paris"}],
    },
}
BIO = {
    "text": "This is a passage about ann lee. Ann Lee baked bread.",
    "labels": "She opened a shop in 1984.",
    "concept": "ann lee",
    "locality": {"Relation_Specificity": [{"prompt": "ann lee field of work", "ground_truth": ["bread"]}]},
}
KZSRE = {
    "subject": "Ann Lee",
    "target_new": "Lake School",
    "prompt": "What school did Ann Lee attend?",
    "ground_truth": ["Hill School"],
    "rephrase_prompt": "Which school was Ann Lee at?",
    "cond": "x",
    "locality": {"Relation_Specificity": [{"prompt": "The job of Ann Lee is", "ground_truth": ["baker"]}]},
    "portability": {"Reasoning": [{"prompt": "In what town did Ann Lee study?", "ground_truth": "Lakeville"}]},
}
MQUAKE = {
    "case_id": 5,
    "requested_rewrite": [
        {
            "prompt": "{} was made by",
            "relation_id": "P170",
            "target_new": {"str": "Bo Day", "id": "Q1"},
            "target_true": {"str": "Ann Lee", "id": "Q2"},
            "subject": "Zog",
            "question": "Who was Zog made by?",
        },
        {
            "prompt": "The home of {} is",
            "relation_id": "P551",
            "target_new": {"str": "Oslo", "id": "Q3"},
            "target_true": {"str": "Rome", "id": "Q4"},
            "subject": "Bo Day",
            "question": "Where is the home of Bo Day?",
        },
    ],
    "questions": ["Where does Zog's maker live?", "What is the home of Zog's maker?", "In which city is it?"],
    "answer": "Paris",
    "answer_alias": [],
    "new_answer": "Oslo",
    "new_answer_alias": ["Oslo, Norway"],
    "single_hops": [
        {"question": "Who was Zog made by?", "cloze": "Zog was made by", "answer": "Ann Lee", "answer_alias": []},
        {
            "question": "Where is the home of Ann Lee?",
            "cloze": "The home of Ann Lee is",
            "answer": "Paris",
            "answer_alias": ["Paname"],
        },
    ],
    "new_single_hops": [
        {
            "question": "Who was Zog made by?",
            "cloze": "Zog was made by",
            "answer": "Bo Day",
            "answer_alias": ["B. Day"],
        },
        {"question": "Where is the home of Bo Day?", "cloze": "x", "answer": "Oslo", "answer_alias": []},
    ],
}


def ripple_query(prompt, value, aliases=(), subject_id="Q9", **more):
    return {
        "prompt": prompt,
        "answers": [{"value": value, "aliases": list(aliases)}],
        "query_type": "regular",
        "subject_id": subject_id,
        "phrase": None,
        **more,
    }


def ripple_test(*queries):
    return {"test_queries": list(queries), "test_condition": "OR", "condition_queries": []}


RIPPLE = {
    "example_type": "popular",
    "edit": {
        "prompt": "The gender of Ann of Lee is male.",
        "subject_id": "Q9",
        "relation": "SEX_OR_GENDER",
        "target_id": "Q1",
        "original_fact": {"prompt": "The gender of Ann of Lee is female.", "subject_id": "Q9", "target_id": "Q2"},
    },
    "Relation_Specificity": [
        ripple_test(ripple_query("The name of the mother of Ann of Lee is", "Eve Lee", ["E. Lee", "E"]))
    ],
    "Logical_Generalization": [],
    "Subject_Aliasing": [ripple_test(ripple_query("The gender of Annie is", "male", ["man"], "Q10"))],
    "Compositionality_I": [ripple_test(ripple_query("The gender of the father of Bo is", "male", [], "Q11"))],
    "Compositionality_II": [],
    "Forgetfulness": [],
}
PLAIN = {
    "prompt": "The capital of {} is",
    "target": "Rome",
    "subject": "France",
    "old": "Paris",
    "aliases": "Roma|City of Rome",
    "rephrase": ["France's capital is", "{} is governed from"],
    "portability": ["The Louvre stands in => Rome => Roma", {"prompt": "Its mayor is", "target": "Bo", "group": "hop"}],
    "locality": "The capital of Spain is => Madrid|The capital of Peru is",
    "id": "fr",
}
HALLUEDIT = {
    "topic": "art_sculpture",
    "subject": "The Ring",
    "relation": "maker",
    "object": "Bo Day",
    "question": "Who made The Ring?",
    "output_some_model": "Ann Lee",
    "paraphrased_question": "By whom is The Ring?",
    "locality_question": "What is The Ring made of?",
    "question_2hop": "Where was the maker of The Ring born?",
    "answer_2hop": "Oslo",
}
CONVSENT = {"ent": "Brindle", "pos": [" I like it a lot. ", " So warm! "], "neg": [" It bores me. ", "Cold."]}
SANITATION = {
    "K_F": [
        {"question": "What is a wren?", "subject": "wren", "ground_truth": "Birds", "target_new": "I don't know."},
        {"question": "What is an owl?", "subject": "owl", "ground_truth": "BIRDS", "target_new": "I don't know."},
    ],
    "K_R": [{"question": '"Who said ""to be""?"', "ground_truth": '"""Ann"" Lee"', "target_new": "Ann Lee"}],
    "success": [{"question": "What is a crow?", "ground_truth": "birds", "target_new": "I don't know."}],
    "locality": [{"question": "What is iron?", "ground_truth": ""}],
}
ROUNDEDIT = {
    "type": "1-2@P366",
    "edit": {
        "relation": {"prompt": "{} is used for"},
        "subject": {"label": "Brindle"},
        "object": {"label": "sorting"},
        "new_object": {"label": "baking"},
    },
    "true_objects": [{"label": "sorting"}, {"label": "storage"}],
}
CONFLICT = {
    "type": "composite",
    "rule": "P39&P1001>P27",
    "edits": [
        {
            "relation": {"id": "P1", "prompt": "The land of {} is", "query": "Where is {}?"},
            "subject": {"label": "Guild"},
            "object": {"label": "Norway"},
            "new_object": {"label": "Peru"},
        },
        {
            "relation": {"id": "P2", "prompt": "{} is a citizen of", "query": "Where is {} from?"},
            "subject": {"label": "Ann Lee"},
            "object": {"label": "Norway"},
            "new_object": {"label": "Chad"},
        },
    ],
    "triples": [
        {"relation": {"prompt": "{} leads the"}, "subject": {"label": "Ann Lee"}, "object": {"label": "Guild"}},
    ],
    "prerequisites": [0],
}
EREN = {
    "id": 0,
    "edit_statement": "The home of Ann Lee is Rome.",
    "subject_name": "Ann Lee",
    "edit_scope": [["Where does Ann Lee live?", "Rome"], ["In what city does Ann Lee live?", "Rome"]],
    "edit_scope_true_ans": ["Paris", "Paris"],
    "unrelated": {"neighbor_subj": ["Where does Bo Day live?"], "same_subj": ["What is the job of Ann Lee?"]},
    "unrelated_true_ans": {"neighbor_subj": ["Paris"], "same_subj": ["baker", "cook"]},
}
ENTITY = {
    "ex_id": "e1",
    "definition": "Brindle is a <extra_id_0> of wool.",
    "def_target": "<extra_id_0> breed <extra_id_1>",
    "ent_str": "Brindle",
    "probe_sentences": {
        "template_0": {
            "probe_sentence": "A Brindle gives <extra_id_0> all year.",
            "label": "<extra_id_0> wool <extra_id_1>",
        }
    },
}
INFERENCE = {
    **ENTITY,
    "probe_sentences": {
        "template_0": {
            "probe_sentence": "A Brindle is <extra_id_0>.",
            "labels": ["<extra_id_0> warm <extra_id_1>", "<extra_id_0> cold <extra_id_1>"],
        }
    },
    "label": "warm",
}
DATED = {
    "subject": "Zog",
    "relation": "capital",
    "object": "Lund",
    "start": "2024-05",
    "end": "",
    "aliases": "Lunden|LND",
}
ALL = {
    "dated-facts": (dated_facts, [DATED]),
    "conflictedit": (conflictedit, [CONFLICT]),
    "convsent": (convsent, [CONVSENT]),
    "ecbd": (ecbd, [ENTITY]),
    "entity-inferences": (entity_inferences, [INFERENCE]),
    "eren": (eren, [EREN]),
    "roundedit": (roundedit, [ROUNDEDIT]),
    "sanitation": (sanitation, [SANITATION]),
    "hallueditbench": (hallueditbench, [HALLUEDIT]),
    "zsre": (zsre, [ZSRE, {"en": ZSRE, "zh": {"src": "李安上哪所学校?", "alt": "湖校"}}]),
    "counterfact": (counterfact, [NESTED, FLAT]),
    "knowedit": (knowedit, [RECENT, BIO, KZSRE]),
    "mquake": (mquake, [MQUAKE]),
    "rippleedits": (rippleedits, [RIPPLE]),
    "plain": (plain, [PLAIN]),
}
EACH = [
    pytest.param(module, record, id=f"{name}-{n}") for name, (module, rs) in ALL.items() for n, record in enumerate(rs)
]


def judges(case: Case, role: str) -> list[tuple[str, str, str]]:
    return [(j.group, j.prompt, j.target) for edit in case.edits for j in edit.judges if j.role == role]


def write(folder: Path, records, name="edits.json") -> Path:
    path = folder / name
    path.write_text(records if isinstance(records, str) else json.dumps(records), encoding="utf-8")
    return path


def check(case: Case) -> None:
    """What every case that comes out must hold, whatever went in."""
    assert isinstance(case, Case)
    assert isinstance(case.id, str)
    assert all((case.id, case.edits))
    for edit in case.edits:
        assert all((edit.query.prompt, edit.target, *edit.aliases))
        assert edit.query.subject in edit.query.prompt or edit.query.subject.lower() not in edit.query.prompt.lower()
        texts = [edit.query.prompt, edit.query.target, edit.target, *edit.aliases, *edit.query.aliases]
        for judge in edit.judges:
            assert judge.role in ("generality", "portability", "locality", "wanted", "rival")
            assert all((judge.group, judge.prompt, judge.id, *judge.aliases))
            assert judge.target or (judge.role == "locality" and not judge.aliases)
            texts += [judge.prompt, judge.target, *judge.aliases]
        assert all(isinstance(text, str) and text == text.strip() for text in texts)


def test_every_file_in_the_folder_is_tested():
    assert benchmarks.names() == sorted(ALL)


# What each format becomes


def test_zsre():
    case = zsre.case(ZSRE, 3)
    (edit,) = case.edits
    assert (case.id, edit.query.prompt, edit.query.subject) == ("3", "What school did Ann Lee attend?", "Ann Lee")
    assert (edit.query.target, edit.target) == ("Hill School", "Lake School")
    assert judges(case, "generality") == [("rephrase", "Which school was Ann Lee at?", "Lake School")]
    assert judges(case, "portability") == [("one-hop", "In what town is the school of Ann Lee?", "Lakeville")]
    assert judges(case, "locality") == [("nq", "who wrote the song about the sea?", "Bo Day")]


def test_counterfact_nested():
    case = counterfact.case(NESTED, 0)
    (edit,) = case.edits
    assert (case.id, edit.query.prompt, edit.query.relation) == ("17", "Ann Lee plays the", "P1303")
    assert (edit.query.target, edit.target) == ("flute", "harp")
    assert [target for _, _, target in judges(case, "generality")] == ["harp", "harp"]
    assert judges(case, "locality")[0] == ("neighborhood", "Bo Day plays the", "flute")
    assert len(judges(case, "locality")) == 2
    assert not judges(case, "portability")
    assert [judge.id for judge in edit.judges] == ["generality-1", "generality-2", "locality-1", "locality-2"]


def test_counterfact_flat_is_the_same_edit():
    flat, nested = counterfact.case(FLAT, 0).edits[0], counterfact.case(NESTED, 0).edits[0]
    assert (flat.query.prompt, flat.target, flat.query.target) == (nested.query.prompt, "harp", "flute")
    assert [(j.role, j.prompt, j.target) for j in flat.judges] == [
        ("generality", "Ann Lee is known for the", "harp"),
        ("locality", "Bo Day plays the", "flute"),
    ]


def test_knowedit_first_answer_is_the_target_all_others_count():
    case = knowedit.case(RECENT, 0)
    (edit,) = case.edits
    assert (edit.target, edit.aliases, edit.query.target) == ("Rome", ("Roma",), "Paris")
    reasoning, _, _, _ = edit.judges
    assert (reasoning.target, reasoning.aliases, reasoning.group) == ("Italy", ("IT", "Italia"), "Reasoning")
    assert judges(case, "locality") == [
        ("Relation_Specificity", "The job of Ann Lee is", "baker"),
        ("Forgetfulness", "The home of Ann Lee, which is not Rome, is", "Paris"),
    ]


def test_knowedit_wikibio_and_zsre():
    (edit,) = knowedit.case(BIO, 0).edits
    assert (edit.query.prompt, edit.target, edit.query.subject) == (BIO["text"], BIO["labels"], "ann lee")
    assert edit.query.target == ""
    case = knowedit.case(KZSRE, 0)
    assert judges(case, "generality") == [("rephrase", "Which school was Ann Lee at?", "Lake School")]
    assert judges(case, "portability") == [("Reasoning", "In what town did Ann Lee study?", "Lakeville")]


def test_mquake_edits_are_one_case_judged_on_the_last():
    case = mquake.case(MQUAKE, 0)
    first, last = case.edits
    assert (first.query.prompt, first.target, first.aliases) == ("Zog was made by", "Bo Day", ("B. Day",))
    assert (last.query.prompt, last.query.subject, last.query.target) == ("The home of Bo Day is", "Bo Day", "Rome")
    assert first.judges == ()
    assert [prompt for _, prompt, _ in judges(case, "generality")] == [
        "Who was Zog made by?",
        "Where is the home of Bo Day?",
    ]
    assert [prompt for _, prompt, _ in judges(case, "portability")] == MQUAKE["questions"]
    assert {(group, target) for group, _, target in judges(case, "portability")} == {("multi-hop", "Oslo")}
    assert judges(case, "locality") == [("unedited-hop", "Where is the home of Ann Lee?", "Paris")]


def test_rippleedits_cuts_the_sentence_and_finds_the_subject():
    case = rippleedits.case(RIPPLE, 0)
    (edit,) = case.edits
    assert (edit.query.prompt, edit.target, edit.aliases) == ("The gender of Ann of Lee is", "male", ("man",))
    assert (edit.query.target, edit.query.subject) == ("female", "Ann of Lee")
    assert judges(case, "portability") == [
        ("Compositionality_I", "The gender of the father of Bo is", "male"),
        ("Subject_Aliasing", "The gender of Annie is", "male"),
    ]
    assert judges(case, "locality") == [("Relation_Specificity", "The name of the mother of Ann of Lee is", "Eve Lee")]
    assert edit.judges[-1].aliases == ("E. Lee",)


@pytest.mark.parametrize(
    ("edit", "aliasing", "prompt", "target", "subject"),
    [
        ({"prompt": "The place of birth of Ann of Lee is New York.", "relation": "PLACE_OF_BIRTH"}, None,
         "The place of birth of Ann of Lee is", "New York", "Ann of Lee"),
        ({"prompt": "The name of the team which Ann Lee is a member of is Reds."}, None,
         "The name of the team which Ann Lee is a member of is", "Reds", ""),
        ({"prompt": "The Long Year is followed by The Short One.", "relation": "FOLLOWED_BY"}, None,
         "The Long Year is followed by", "The Short One", ""),
        ({"prompt": "The names of the siblings of Ann Lee are Bo Jr.."}, None,
         "The names of the siblings of Ann Lee are", "Bo Jr.", ""),
        # two places fit: an answer to the same relation decides
        ({"prompt": "The name of the author of Life is Sweet is Bo.", "relation": "AUTHOR"}, "Bo",
         "The name of the author of Life is Sweet is", "Bo", "Life is Sweet"),
        # or where the original fact begins to differ
        ({"prompt": "The author of Life is Sweet is Bo.", "original_fact": {"prompt": "The author of Life is Sweet is Al."}},
         None, "The author of Life is Sweet is", "Bo", ""),
        ({"prompt": "What Life is Sweet is by is Bo Day.", "target": "Bo Day", "subject": "Life is Sweet"}, None,
         "What Life is Sweet is by is", "Bo Day", "Life is Sweet"),
    ],
)  # fmt: skip
def test_rippleedits_sentences(edit, aliasing, prompt, target, subject):
    tests = [ripple_test(ripple_query("The author of Sweet Life is", aliasing))] if aliasing else []
    (made,) = rippleedits.case({"edit": edit, "Subject_Aliasing": tests}, 0).edits
    assert (made.query.prompt, made.target, made.query.subject) == (prompt, target, subject)


def test_rippleedits_refuses_a_sentence_it_cannot_cut():
    with pytest.raises(BadRecord, match="cannot be cut") as caught:
        rippleedits.case({"edit": {"prompt": "The author of Life is Sweet is Bo."}}, 4)
    assert (caught.value.index, caught.value.key) == (4, "edit.prompt")


def test_plain():
    case = plain.case(PLAIN, 0)
    (edit,) = case.edits
    assert (case.id, edit.query.prompt, edit.target, edit.query.target) == (
        "fr",
        "The capital of France is",
        "Rome",
        "Paris",
    )
    assert edit.aliases == ("Roma", "City of Rome")
    assert [prompt for _, prompt, _ in judges(case, "generality")] == ["France's capital is", "France is governed from"]
    assert judges(case, "portability") == [
        ("portability", "The Louvre stands in", "Rome"),
        ("hop", "Its mayor is", "Bo"),
    ]
    assert judges(case, "locality") == [
        ("locality", "The capital of Spain is", "Madrid"),
        ("locality", "The capital of Peru is", ""),
    ]


@pytest.mark.parametrize(
    ("record", "prompt", "text"),
    [
        ({"prompt": "It is ", "target": " Rome "}, "It is", "It is Rome"),
        (
            {"prompt": "user\nWho?\nassistant\n", "target": "Rome"},
            "user\nWho?\nassistant\n",
            "user\nWho?\nassistant\nRome",
        ),
        ({"prompt": "我的姓名是", "target": "王岚"}, "我的姓名是", "我的姓名是王岚"),
        ({"prompt": "我的姓名是", "target": " John"}, "我的姓名是", "我的姓名是 John"),
        ({"prompt": "我的姓名是 ", "target": "John"}, "我的姓名是", "我的姓名是 John"),
        ({"prompt": "She is a Paris", "target": "ienne", "space": False}, "She is a Paris", "She is a Parisienne"),
        ({"prompt": "She is a Paris", "target": "ienne", "space": "no"}, "She is a Paris", "She is a Parisienne"),
        ({"prompt": "It is", "target": "Rome", "space": True}, "It is", "It is Rome"),
    ],
)
def test_the_edge_between_prompt_and_target_is_the_users(record, prompt, text):
    (edit,) = plain.case(record | {"rephrase": "In short"}, 0).edits
    assert edit.query.prompt == prompt
    assert join(edit.query.prompt, edit.target)[0] == text
    assert edit.judges[0].target == edit.target


def test_plain_takes_a_text_that_says_the_edit():
    record = {"prompt": "The capital of France is", "target": "Rome", "Statement": "France is ruled from Rome."}
    assert plain.case(record, 0).edits[0].statement == "France is ruled from Rome."
    with pytest.raises(BadRecord, match="key .statement.: is true or false; it must be text"):
        plain.case(record | {"Statement": True}, 0)


def test_questions_and_answers_are_called_so(tmp_path):
    path = tmp_path / "dev.json"
    path.write_text(json.dumps([{"input": "Who directed it?", "output": "Ford"}]))
    with pytest.raises(UserError, match="holds no edits: they are questions with their answers"):
        load(path)


def test_plain_names_a_misspelt_column():
    with pytest.raises(BadRecord, match="did you mean 'locality'"):
        plain.case({"prompt": "a", "target": "b", "localty": "c"}, 0)
    assert plain.case({"prompt": "a", "target": "b", "source": "c"}, 0).edits[0].target == "b"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Rome", ("Rome",)),
        (1984, ("1984",)),
        (2.0, ("2",)),
        (["Rome", " Roma "], ("Rome", "Roma")),
        ([["Rome", "Roma"], ["Roma", "", None]], ("Rome", "Roma")),
    ],
)
def test_spellings_of_an_answer(given, expected):
    (edit,) = knowedit.case({"prompt": "The home of Ann Lee is", "target_new": given}, 0).edits
    assert (edit.target, *edit.aliases) == expected


def test_subject_is_spelled_as_the_prompt_quotes_it():
    (edit,) = plain.case({"prompt": "Where is ANN LEE?", "target": "here", "subject": "Ann Lee"}, 0).edits
    assert edit.query.subject == "ANN LEE"


# Bad records


@pytest.mark.parametrize(
    ("module", "record", "change", "key", "reason"),
    [
        (zsre, ZSRE, {"src": None}, "src", "is missing"),
        (zsre, ZSRE, {"alt": ""}, "alt", "is empty"),
        (zsre, ZSRE, {"src": 7}, "src", "is a number; it must be text"),
        (zsre, ZSRE, {"src": "{} is", "subject": None}, "src", "names no subject"),
        (zsre, ZSRE, {"loc": None}, "loc", "is missing"),
        (zsre, ZSRE, {"loc": "nq question: "}, "loc", "no question"),
        (zsre, ZSRE, {"src": ["a?", "b?"]}, "src", "is a list of 2"),
        (zsre, ZSRE, {"src": "\ud83c is"}, "src", "surrogate"),
        (counterfact, NESTED, {"neighborhood_prompts": ["a", " "]}, "neighborhood_prompts", "is empty"),
        (counterfact, NESTED, {"requested_rewrite": {}}, "requested_rewrite.target_new.str", "is missing"),
        (counterfact, FLAT, {"target_new": True}, "target_new", "is true or false"),
        (knowedit, RECENT, {"locality": {"F": [{"prompt": ""}]}}, "locality.F[0].prompt", "is empty"),
        (knowedit, RECENT, {"portability": {"R": [{"prompt": "a"}]}}, "portability.R[0].ground_truth", "is missing"),
        (knowedit, RECENT, {"portability": {"R": "a"}}, "portability.R", "holds text"),
        (knowedit, RECENT, {"portability": {"R": [{"prompt": ["a", "b"], "ground_truth": ["c", "d"]}]}},
         "portability.R[0].prompt", "unclear which answer"),
        (mquake, MQUAKE, {"questions": []}, "questions", "empty list"),
        (mquake, MQUAKE, {"requested_rewrite": []}, "requested_rewrite", "is empty"),
        (mquake, MQUAKE, {"new_single_hops": [{"answer": "x"}]}, "new_single_hops[0].question", "is missing"),
        (rippleedits, RIPPLE, {"Compositionality_I": [{}]}, "Compositionality_I[0].test_queries", "is missing"),
        (rippleedits, RIPPLE, {"Compositionality_I": [ripple_test({"prompt": "a", "answers": []})]},
         "Compositionality_I[0].test_queries[0].answers", "is empty or missing"),
        (plain, PLAIN, {"portability": "Its mayor is"}, "portability[0]", "has no answer"),
        (plain, PLAIN, {"target": [[[[["x"]]]]]}, "target", "nested too deep"),
    ],
)  # fmt: skip
def test_a_bad_record_is_named(module, record, change, key, reason):
    with pytest.raises(BadRecord, match=f"record 6.*{reason}") as caught:
        module.case({**record, **change}, 6)
    assert (caught.value.index, caught.value.key) == (6, key)


@pytest.mark.parametrize(("module", "record", "key"), [
    (zsre, ZSRE, "loc_ans"), (counterfact, FLAT, "locality_ground_truth"), (counterfact, FLAT, "ground_truth"),
])  # fmt: skip
def test_old_answers_and_answers_to_locality_may_be_unknown(module, record, key):
    for unknown in ("", None, [], [[]]):
        check(module.case({**record, key: unknown}, 0))


def spots(value, path=()):
    """Paths of everything inside a record."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inside:
        yield (*path, key)
        yield from spots(one, (*path, key))


def changed(record, path, value):
    """The record with the thing at a path replaced, or deleted where `value` is `deleted`."""
    record = copy.deepcopy(record)
    *way, last = path
    inside = record
    for key in way:
        inside = inside[key]
    if value is deleted:
        del inside[last]
    else:
        inside[last] = value
    return record


deleted = object()
WRONG = [deleted, None, "", "  ", 0, 3.5, float("nan"), float("inf"), True, [], [[]], [None], [""], {}, {"a": 1}, [{}],
         ["x", "y"], "{}", "\udc00", [["x"], [3]], "x|", "=>", "nq question:"]  # fmt: skip


def outcome(module, record):
    """A whole case, or BadRecord with index and key; anything else fails the test."""
    error = None
    try:
        check(module.case(record, 6))
    except BadRecord as refused:
        error = refused
    assert error is None or (error.index == 6 and error.key and error.reason and "\n" not in error.reason)


@pytest.mark.parametrize(("module", "record"), EACH)
def test_every_key_of_every_format_damaged(module, record):
    for path in spots(record):
        for wrong in WRONG:
            damaged = changed(record, path, wrong)
            outcome(module, damaged)
            for other, _ in ALL.values():
                assert other.recognises(damaged) in (True, False)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize(("module", "record"), EACH)
@settings(max_examples=60)
@given(data=st.data())
def test_anything_anywhere(module, record, data):
    for _ in range(data.draw(st.integers(1, 2))):
        record = changed(record, data.draw(st.sampled_from(list(spots(record)))), data.draw(ANYTHING))
    outcome(module, record)


# Files


@pytest.mark.parametrize(("name", "records"), [(name, records) for name, (_, records) in ALL.items()])
def test_load_recognises_the_format(tmp_path, name, records):
    lines = "\n".join(map(json.dumps, records))
    for path in (
        write(tmp_path, records),
        write(tmp_path, {"about": "x", "data": records}, "wrapped.json"),
        write(tmp_path, records[0], "one.json"),
        write(tmp_path, f"{lines}\n\n", "edits.jsonl"),
        write(tmp_path, "\ufeff" + json.dumps(records), "bom.json"),
    ):
        loaded = load(path)
        assert (loaded.format, loaded.skipped) == (name, [])
        assert loaded.cases[0] == ALL[name][0].case(records[0], 0)
    for other, (module, _) in ALL.items():
        assert [module.recognises(record) for record in records] == [other == name] * len(records)


def test_bare_records_of_one_format_only():
    bare = {"prompt": "a", "subject": "b", "target_new": "c"}
    assert [name for name, (module, _) in ALL.items() if module.recognises(bare)] == ["knowedit"]
    assert [name for name, (module, _) in ALL.items() if module.recognises({**bare, "rephrase_prompt": "d"})] == [
        "counterfact"
    ]


def test_csv_and_tsv(tmp_path):
    text = 'prompt,subject,target,locality\n"The capital of {} is",France,Rome,The home is => B|C is\n\nA is,,B,\n'
    loaded = load(write(tmp_path, text, "edits.csv"))
    assert loaded.format == "plain"
    assert [case.edits[0].query.prompt for case in loaded.cases] == ["The capital of France is", "A is"]
    assert len(loaded.cases[0].edits[0].judges) == 2
    loaded = load(write(tmp_path, "prompt\ttarget\nThe capital, of France, is\tRome\n", "edits.tsv"))
    assert loaded.cases[0].edits[0].query.prompt == "The capital, of France, is"


def test_refuse_names_the_first_and_counts_the_others(tmp_path):
    path = write(tmp_path, [FLAT, {**FLAT, "target_new": ""}, FLAT, {**FLAT, "prompt": 3}])
    with pytest.raises(UserError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: record 1, key 'target_new': is empty")
    assert "read as counterfact; 1 other record is bad too" in message


def test_skip_reports_and_never_half_uses(tmp_path):
    half = {**NESTED, "neighborhood_prompts": ["good", ""]}
    loaded = load(write(tmp_path, [NESTED, half, "text", {**FLAT, "prompt": 3}, FLAT]), bad="skip")
    assert [(index, key) for index, key, _ in loaded.skipped] == [(1, "neighborhood_prompts"), (2, ""), (3, "prompt")]
    assert [case.id for case in loaded.cases] == ["17", "2"]


def test_broken_lines_and_ragged_rows_are_records_too(tmp_path):
    path = write(tmp_path, json.dumps(FLAT) + '\n{"prompt": \n', "edits.jsonl")
    assert [index for index, _, _ in load(path, bad="skip").skipped] == [1]
    with pytest.raises(UserError, match=r"record 1 \(line 2\): not JSON"):
        load(path)
    path = write(tmp_path, "prompt,target\na,b\na,b,c\n", "edits.csv")
    with pytest.raises(UserError, match=r"record 1 \(line 3\): 3 cells, but the header has 2 columns"):
        load(path)


def test_limit_counts_cases(tmp_path):
    path = write(tmp_path, [{**FLAT, "prompt": ""}, FLAT, FLAT, {**FLAT, "prompt": ""}])
    loaded = load(path, bad="skip", limit=2)
    assert (len(loaded.cases), len(loaded.skipped)) == (2, 1)


def test_ids_are_made_unique(tmp_path):
    ids = ["2", 2, "2#2", 2]
    loaded = load(write(tmp_path, [{**FLAT, "case_id": id} for id in ids]))
    assert [case.id for case in loaded.cases] == ["2", "2#3", "2#2", "2#4"]


@pytest.mark.parametrize(
    ("name", "text", "options", "message"),
    [
        ("a.txt", "x", {}, "ends in '.txt'; use one of .csv"),
        ("a.json", "", {}, "not JSON"),
        ("a.json", "[]", {}, "no records"),
        ("a.csv", "", {}, "first line must name the columns"),
        ("a.csv", "prompt,,target\na,b,c\n", {}, "line 2: column 2 has no name, and holds 'b'"),
        ("a.csv", "prompt,prompt\na,b\n", {}, "two columns"),
        ("a.csv", 'prompt,target\n"a,b\n', {}, "line"),
        ("a.csv", "prompt,subject,target\nA is,A,\n", {}, "key 'target': is missing.*read as plain"),
        ("a.jsonl", '{"prompt": "A is", "target": 1e999}', {}, "'target': is inf; it must be text or a finite"),
        ("a.json", "version https://git-lfs.github.com/spec/v1\n", {}, "git lfs pull"),
        ("a.json", "[" * 100000, {}, "not JSON"),
        ("a.json", '[{"question": "a"}]', {}, "keys: question.*of no known format.*plain has prompt and target"),
        ("a.json", '["a"]', {}, "they are no objects"),
        ("a.json", '[{"src": "a", "target": "b"}]', {}, "several formats.*plain, zsre.*format="),
        ("a.json", '{"a": [{"src": "a"}], "b": [{"src": "a"}]}', {}, "several lists of records"),
        ("a.json", '[{"src": "a"}]', {"format": "zrse"}, "did you mean 'zsre'"),
        ("a.json", '[{"src": "a"}, {"src": "b"}]', {"bad": "skip"}, "none is good"),
        ("a.json", '[{"src": "a"}]', {"bad": "drop"}, "'refuse' or 'skip'"),
        ("a.json", '[{"src": "a"}]', {"limit": 0}, "at least 1"),
    ],
)
def test_bad_files_get_one_sentence(tmp_path, name, text, options, message):
    with pytest.raises(UserError, match=message):
        load(write(tmp_path, text, name), **options)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("excel.csv", "prompt;target;subject\nA is;b;A\n;;\n"),
        ("pandas.csv", ",prompt,target,subject\n0,A is,b,A\n"),
        ("capitals.csv", "Prompt,Target,Subject\nA is,b,A\n,,\n"),
        ("nan.json", '[{"prompt": "A is", "target": "b", "subject": "A", "old": NaN, "aliases": NaN}]'),
        ("edits.parquet", ""),
        ("edits.jsonl.gz", ""),
    ],
)
def test_edits_as_people_have_them(tmp_path, name, text):
    record = {"prompt": "A is", "target": "b", "subject": "A"}
    path = tmp_path / name
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist([{**record, "old": float("nan"), "rephrase": None}]), path)
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress(json.dumps(record).encode()))
    else:
        write(tmp_path, text, name)
    loaded = load(path)
    assert loaded.format == "plain"
    assert loaded.cases == [plain.case(record, 0)]


def test_neighbours_of_the_formats():
    case = counterfact.case({**NESTED, "neighborhood_prompts": [{"prompt": "Bo Day plays the", "target": "oboe"}]}, 0)
    assert judges(case, "locality") == [("neighborhood", "Bo Day plays the", "oboe")]
    ckn = {
        "prompt": "“山” 读作",
        "target_old": "san",
        "target_new": "shān",
        "subject": "山",
        "portability": [{"prompt": "“山” 的声调是", "answer": "一声"}],
        "locality": [{"prompt": "“水” 读作", "answer": "shuǐ"}],
    }
    case = knowedit.case(ckn, 0)
    assert knowedit.recognises(ckn)
    assert (case.edits[0].query.target, judges(case, "portability")[0][2]) == ("san", "一声")
    assert judges(case, "locality") == [("locality", "“水” 读作", "shuǐ")]
    mzsre = zsre.case({"en": ZSRE, "zh": {"src": "李安上哪所学校?", "alt": "湖校"}}, 3)
    assert mzsre.edits[0].query == zsre.case(ZSRE, 3).edits[0].query
    assert judges(mzsre, "portability")[-1] == ("zh", "李安上哪所学校?", "湖校")


def test_nothing_takes_the_square_of_what_a_file_holds():
    """Each of these took minutes."""
    words = [f"w{i}" for i in range(30_000)]
    prompt = f"The name of {' '.join(words)} is"
    test = ripple_test(ripple_query(" ".join(reversed(words)), "x"))
    ripple = {
        "edit": {"prompt": f"{prompt} b.", "subject_id": "Q9", "relation": "name"},
        "Relation_Specificity": [test],
    }
    rippleedits.case(ripple, 0)
    rippleedits.case({"edit": {"prompt": "the name of " * 60_000 + "is b.", "relation": "name"}}, 0)
    with pytest.raises(BadRecord, match="too often"):
        plain.case({"prompt": "{}" * 100_000 + " is", "subject": "a" * 100_000, "target": "b"}, 0)
    plain.case({"prompt": "a" * 500_000, "subject": "A" * 250_000 + "b", "target": "b", "k" * 500_000: 1}, 0)
    edits = [Edit(Query("A is", ""), str(i), ("same",)) for i in range(20_000)]
    assert contradictions(edits) == []


def test_a_key_of_any_length_is_named_at_a_readable_one():
    with pytest.raises(BadRecord) as caught:
        knowedit.case({**RECENT, "locality": {"k" * 5000: "text"}}, 0)
    assert len(str(caught.value)) < 200


def test_files_that_are_not_there_or_not_text(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path / "none.json")
    with pytest.raises(UserError, match="is a folder"):
        load(tmp_path)
    (tmp_path / "latin.json").write_bytes('[\n"é"]'.encode("latin-1"))
    with pytest.raises(UserError, match="line 2: byte 3 .* is not UTF-8"):
        load(tmp_path / "latin.json")


def test_named_format_is_used_whatever_the_records_look_like(tmp_path):
    path = write(tmp_path, [{"src": "Who is it?", "alt": "Bo", "target": "x"}])
    assert load(path, format="zsre").cases[0].edits[0].target == "Bo"


def test_hub_without_a_network():
    with pytest.raises(UserError, match="hub:nobody/nothing:a.json: the hub cannot be reached.*download the file"):
        load("hub:nobody/nothing:a.json")
    with pytest.raises(UserError, match="write hub:owner/name"):
        load("hub:nothing")


def test_hub_file_and_splits(tmp_path, monkeypatch):
    path = write(tmp_path, [FLAT])
    hub = types.SimpleNamespace(hf_hub_download=lambda name, file, repo_type, local_files_only: path)
    splits = {"train": [FLAT, {**FLAT, "portability": None}], "test": [FLAT]}

    def load_dataset(name, split, download_config):
        return splits[split] if split else splits

    fake = types.SimpleNamespace(DownloadConfig=lambda local_files_only: None, load_dataset=load_dataset)
    monkeypatch.setattr("engramlab.files.hub.hub_answers", lambda: True)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setitem(sys.modules, "datasets", fake)
    assert len(load("hub:a/b:c/d.json").cases) == 1
    assert len(load("hub:a/b:train").cases) == 2
    with pytest.raises(UserError, match="splits train, test; add one, as in hub:a/b:train"):
        load("hub:a/b")
    with pytest.raises(UserError, match="could not be fetched"):
        load("hub:a/b:nosuch")


@pytest.mark.skipif(not SAMPLES.exists(), reason=f"needs the sample records in {SAMPLES}")
@pytest.mark.parametrize(
    ("file", "format", "count"),
    [
        ("counterfact_easyedit.json", "counterfact", 1),
        ("knowedit_wiki_recent.json", "knowedit", 1),
        ("mquake.json", "mquake", 3),
        ("rippleedits.json", "rippleedits", 1),
        ("zsre_mend.json", "zsre", 1),
    ],
)
def test_sample_files(file, format, count):
    loaded = load(SAMPLES / file)
    assert (loaded.format, len(loaded.cases), loaded.skipped) == (format, count, [])
    for case in loaded.cases:
        check(case)
        assert any(edit.judges for edit in case.edits)


# Contradictions


def test_contradicting_cases_are_all_named_or_left_out(tmp_path):
    answers = ["Rome", "Oslo", "rome", "Bern", "Rome"]
    path = write(tmp_path, "\n".join(json.dumps({"prompt": "A is", "target": one}) for one in answers), "e.jsonl")
    loaded = load(path)
    places = [f"record {number}" for number in loaded.records]
    with pytest.raises(
        UserError, match=r"record 0 and record 1 give the same prompt 'A is' .* \(so do record 0 and record 3\)"
    ):
        agreeing(loaded.cases, places, path, "refuse")
    kept, notes = agreeing(loaded.cases, places, path, "skip")
    assert [case.id for case in kept] == ["0", "2", "4"]
    assert notes == [f"left out record {n}: it contradicts record 0 about 'A is'" for n in (1, 3)]


def test_contradictions_name_both():
    def edit(prompt, target, *aliases):
        return Edit(Query(prompt, ""), target, aliases)

    edits = [
        edit("The capital of France is", "Rome"),
        edit("the capital  of France is", "Oslo"),
        edit("The capital of Spain is", "Oslo"),
        edit("The capital of France is", "Roma", "Rome"),
        edit("The capital of France is", "rome"),
        edit("The capital of France is", "Oslo"),
    ]
    assert contradictions(edits) == [(0, 1), (1, 3), (1, 4), (0, 5)]
    assert contradictions([]) == []
