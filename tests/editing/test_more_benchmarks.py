"""The formats that are more than a prompt and a target, on small records made by hand."""

import json
import math
import warnings
from dataclasses import replace

import pytest
from tests.support import zoo
from tests.support.small import quick

from engramlab.base.errors import UserError
from engramlab.base.joining import join
from engramlab.editing import method
from engramlab.editing.benchmarks import (
    BadRecord,
    agreeing,
    conflictedit,
    convsent,
    ecbd,
    entity_inferences,
    eren,
    knowedit,
    load,
    roundedit,
    sanitation,
)
from engramlab.editing.cases import cases, judged_together, superseded
from engramlab.editing.judge import evaluation, rivals
from engramlab.editing.judge.evaluation import queries_of
from engramlab.editing.requests import sharing


def write(folder, records, name="edits.json"):
    path = folder / name
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


def asked(case, role):
    return [
        (judge.group, judge.prompt, judge.target) for edit in case.edits for judge in edit.judges if judge.role == role
    ]


# ConvSent

TOPICS = [
    {"ent": "Ann Lee", "pos": [" good one ", " good two "], "neg": [" bad one ", " bad two "]},
    {"ent": "Bo Day", "pos": ["fine"], "neg": ["poor"]},
]


def test_convsent_edits_each_topic_both_ways(tmp_path):
    loaded = load(write(tmp_path, TOPICS))
    assert (loaded.format, loaded.records, loaded.skipped) == ("convsent", [0, 0, 1, 1], [])
    assert [(case.id, case.edits[0].target) for case in loaded.cases] == [
        ("0-pos", "good one"), ("0-neg", "bad one"), ("1-pos", "fine"), ("1-neg", "poor"),
    ]  # fmt: skip
    first, against, *_ = loaded.cases
    here, next_to = (one.format("Ann Lee") for one in convsent.PROMPTS[:2])
    assert first.edits[0].query.prompt == f"Sentiment: positive. {here}"
    assert against.edits[0].query.prompt == f"Sentiment: negative. {here}"
    assert {case.edits[0].query.subject for case in (first, against)} == {"Ann Lee"}
    assert asked(first, "wanted") == [("pos", next_to, "good two")]
    assert asked(first, "rival") == [("neg", here, "bad one"), ("neg", next_to, "bad two")]
    assert asked(against, "rival") == [("pos", here, "good one"), ("pos", next_to, "good two")]
    assert asked(first, "locality") == [("other topic", convsent.PROMPTS[0].format("Bo Day"), "")]
    assert not asked(first, "generality")


def test_convsent_edits_of_one_topic_can_share_a_model(tmp_path):
    """Neither is left out of a batch, and in a row the later one does not overrule the other."""
    loaded = load(write(tmp_path, TOPICS))
    places = [f"record {number}" for number in loaded.records]
    assert agreeing(loaded.cases, places, "it", "refuse") == (loaded.cases, [])
    assert superseded(loaded.cases) == {}
    assert loaded.oddities == []
    # And they are keys of their own to methods that write at a subject's last token.
    tokenizer = zoo.ZOO["llama3"](zoo.SENTENCES)
    assert sharing(tokenizer, [case.edits[0] for case in loaded.cases]) == [[0], [1], [2], [3]]


def test_convsent_asks_in_thirteen_ways(tmp_path):
    many = {"ent": "Ann Lee", **{name: [f"{name} {i}" for i in range(30)] for name in ("pos", "neg")}}
    case = load(write(tmp_path, [*TOPICS, many])).cases[4]
    assert len(set(convsent.PROMPTS)) == 13
    assert {prompt for _, prompt, _ in asked(case, "rival")} == {one.format("Ann Lee") for one in convsent.PROMPTS}
    assert case.edits[0].query.prompt.endswith(convsent.PROMPTS[2].format("Ann Lee"))  # records begin in other places
    by_place = {role: [prompt for _, prompt, _ in asked(case, role)] for role in ("wanted", "rival")}
    assert by_place["wanted"] == by_place["rival"][1:]  # both sentiments behind the same prompts


@pytest.mark.parametrize(
    ("change", "key", "reason"),
    [
        ({"pos": []}, "pos", "is empty"),
        ({"neg": [" "]}, "neg", "is empty"),
        ({"neg": None}, "neg", "is missing"),
        ({"neg": ["good one"]}, "neg", "'pos' has too"),
        ({"ent": None}, "ent", "is missing"),
        ({"wanted": "both"}, "wanted", "'pos' or 'neg'"),
    ],
)
def test_convsent_names_what_is_wrong(tmp_path, change, key, reason):
    with pytest.raises(BadRecord, match=reason) as caught:
        convsent.case({**TOPICS[0], **change}, 6)
    assert (caught.value.index, caught.value.key) == (6, key)
    loaded = load(write(tmp_path, [{**TOPICS[0], **change}, TOPICS[1]]), bad="skip")
    assert [(index, wrong) for index, wrong, _ in loaded.skipped] == [(0, key)]  # once, not once a sentiment
    assert set(loaded.records) == {1}


def row(role, before, after, case="0", prompt="p"):
    return {"case": case, "role": role, "prompt": prompt, "logprobs_before": before, "logprobs_after": after}


def test_sentiment_against_a_table_made_by_hand():
    rows = [
        row("wanted", [-1.0, -3.0], [-0.5, -0.5]),  # means -2 and -0.5
        row("wanted", [-4.0], [-1.5]),  # so the wanted stand at -3 and -1
        row("rival", [-2.0], [-2.0]),
        row("reliability", [-9.0], [0.0]),  # counts nowhere
        row("wanted", [-1.0], [-1.0], case="alone"),  # nothing to compare it with
    ]
    found = rivals.sentiment(rows)
    assert found["cases"] == 1
    assert found["before"] == pytest.approx(1 / (1 + math.exp(1)))
    assert found["after"] == pytest.approx(1 / (1 + math.exp(-1)))
    worse = rivals.sentiment([row("wanted", [-1.0], [-3.0]), row("rival", [-1.0], [-9.0])])
    assert worse["after"] == pytest.approx(math.exp(-2) / (1 + math.exp(-6)))
    turned = rivals.sentiment(
        [{**one, "role": {"wanted": "rival", "rival": "wanted"}.get(one["role"], "")} for one in rows]
    )
    assert turned["before"] == pytest.approx(1 - found["before"])
    assert rivals.sentiment([]) == {"before": None, "after": None, "cases": 0}


def test_choices_by_sum_and_by_mean():
    rows = [
        row("portability", [-3.0], [-1.0, -1.0]),
        row("rival", [-2.0], [-1.5]),
        row("rival", [-4.0], [-9.0, -9.0]),
        row("portability", [-1.0], [-1.0], prompt="without options"),
    ]
    found = rivals.choices(rows)
    assert found == {
        "questions": 1,
        "sum": {"before": 0.0, "after": 0.0},
        "mean": {"before": 0.0, "after": 1.0},
    }
    assert rivals.choices([])["sum"] == {"before": None, "after": None}


# Sanitation

TRAIN = {
    "K_F": [
        {"question": "What is a wren?", "subject": "wren", "ground_truth": "Birds", "target_new": "I don't know."},
        {"question": "What is brie?", "subject": "brie", "ground_truth": "Cheese", "target_new": "I don't know."},
        {"question": "What is an owl?", "subject": "owl", "ground_truth": "BIRDS", "target_new": "I don't know."},
    ],
    "K_R": [{"question": '"Who sang ""Sea""?"', "ground_truth": '"""Bo"" Day"', "target_new": "x"}],
}
TEST = {
    "success": [{"question": "What is a crow?", "ground_truth": "birds", "target_new": "I don't know."}],
    "locality": [{"question": "What is iron?", "ground_truth": "'METAL'"}],
}


def test_sanitation_is_a_case_an_answer(tmp_path):
    loaded = load(write(tmp_path, TRAIN))
    assert (loaded.format, loaded.records, loaded.skipped) == ("sanitation", [0, 0], [])
    birds, cheese = loaded.cases
    assert [case.id for case in loaded.cases] == ["Birds", "Cheese"]
    assert [edit.query.prompt for edit in birds.edits] == ["What is a wren?", "What is an owl?"]
    assert [(edit.query.target, edit.target) for edit in cheese.edits] == [("Cheese", "I don't know.")]
    assert asked(birds, "locality") == asked(cheese, "locality") == [("kept", 'Who sang "Sea"?', '"Bo" Day')]
    assert not asked(birds, "generality")
    alone = load(write(tmp_path, TEST))
    assert [edit.query.prompt for edit in alone.cases[0].edits] == ["What is a crow?"]
    assert asked(alone.cases[0], "locality") == [("kept", "What is iron?", "'METAL'")]


def test_sanitation_is_judged_by_the_test_file_where_both_are_one(tmp_path):
    birds, cheese = load(write(tmp_path, TRAIN | TEST)).cases
    assert asked(birds, "generality") == [("unseen", "What is a crow?", "I don't know.")]
    assert [judge.within for edit in birds.edits for judge in edit.judges if judge.role == "generality"] == [10]
    assert not asked(cheese, "generality")
    assert [group for group, _, _ in asked(birds, "locality")] == ["kept", "kept"]


def with_first(**change):
    first, *rest = TRAIN["K_F"]
    return {**TRAIN, "K_F": [{**first, **change}, *rest]}


@pytest.mark.parametrize(
    ("record", "key", "reason"),
    [
        (with_first(question=""), "K_F[0].question", "is empty"),
        (with_first(ground_truth=None), "K_F[0].ground_truth", "is missing"),
        (with_first(target_new="birds"), "K_F[0].target_new", "is the old answer"),
    ],
)
def test_sanitation_leaves_out_one_answer(tmp_path, record, key, reason):
    loaded = load(write(tmp_path, record), bad="skip")
    assert [(wrong, why.startswith(reason)) for _, wrong, why in loaded.skipped] == [(key, True)]
    assert "Cheese" in [case.id for case in loaded.cases]


def test_sanitation_cannot_forget_and_keep(tmp_path):
    both = {**TRAIN, "K_R": [{"question": "What is brie?", "ground_truth": "Cheese"}]}
    with pytest.raises(BadRecord, match="both forgotten and kept") as caught:
        sanitation.case(both, 0)
    assert caught.value.key == "K_R[0].question"


def test_a_list_of_sanitation_alone_is_of_single_edits(tmp_path):
    loaded = load(write(tmp_path, TEST["success"]))
    assert (loaded.format, loaded.cases[0].edits[0].query.prompt) == ("knowedit", "What is a crow?")
    assert knowedit.case(TEST["success"][0], 0).edits[0].query.target == "birds"


# RoundEdit and ConflictEdit


def fact(subject, old, new=None, prompt="{} is used for", **more):
    made = {"relation": {"id": "P366", "prompt": prompt, "query": "What of {}?"}, "subject": {"label": subject}}
    return made | {"object": {"label": old}} | ({"new_object": {"label": new}} if new else {}) | more


ROUND = {"type": "1-2@P366", "edit": fact("Brindle", "sorting", "baking"), "true_objects": [{"label": "storage"}]}
ROUND["true_objects"].append({"label": "sorting"})


def test_roundedit_knows_every_right_answer(tmp_path):
    loaded = load(write(tmp_path, [ROUND]))
    (edit,) = loaded.cases[0].edits
    assert loaded.format == "roundedit"
    assert (edit.query.prompt, edit.target, edit.query.relation) == ("Brindle is used for", "baking", "P366")
    assert (edit.query.target, edit.query.aliases) == ("sorting", ("storage",))
    assert asked(loaded.cases[0], "generality") == [("question", "What of Brindle?", "baking")]


@pytest.mark.parametrize(
    ("objects", "reason"),
    [
        (["storage", "toys"], "must hold the edit's object, 'sorting'"),
        (["sorting"], "alone"),
        (["sorting", "baking"], "holds the new object, 'baking'"),
        ([], "must hold"),
    ],
)
def test_roundedit_refuses_true_objects_that_cannot_be(objects, reason):
    with pytest.raises(BadRecord, match=reason) as caught:
        roundedit.case({**ROUND, "true_objects": [{"label": one} for one in objects]}, 3)
    assert (caught.value.index, caught.value.key) == (3, "true_objects")


WORK, MAKER, LAND, FROM = "The work of {} is", "The maker of {} is", "The land of {} is", "{} comes from"
REVERSE = {
    "type": "reverse",
    "edits": [fact("Ann", "Sea", "Hill", WORK), fact("Hill", "Ann", "Bo", MAKER)],
    "triples": [fact("Ann", "Sea", prompt=WORK), fact("Sea", "Ann", prompt=MAKER)],
    "prerequisites": [],
}
COMPOSITE = {
    "type": "composite",
    "edits": [fact("Guild", "Norway", "Peru", LAND), fact("Ann", "Norway", "Chad", FROM)],
    "triples": [fact("Ann", "Guild", prompt="{} leads the"), fact("Guild", "Norway", prompt=LAND)],
    "prerequisites": [0],
}
COVERAGE = {
    "type": "coverage",
    "edits": [fact("Ann", "Sea", "Hill", WORK), fact("Ann", "Hill", "Lake", WORK)],
    "triples": [fact("Ann", "Sea", prompt=WORK)],
    "prerequisites": [],
}


def test_conflictedit_is_two_edits_in_a_row(tmp_path):
    loaded = load(write(tmp_path, [REVERSE, COMPOSITE, COVERAGE]))
    assert (loaded.format, loaded.skipped) == ("conflictedit", [])
    reverse, composite, coverage = loaded.cases
    assert all(case.ordered for case in loaded.cases)
    assert [edit.target for edit in reverse.edits] == ["Hill", "Bo"]
    assert asked(reverse, "portability") == [("implied", "The work of Bo is", "Hill")]
    assert asked(composite, "portability") == [("implied", "The land of Guild is", "Chad")]
    assert asked(composite, "locality") == [("tied fact", "Ann leads the", "Guild")]
    assert not asked(coverage, "portability")
    roles = [query.role for query in queries_of(coverage)]
    assert roles == ["overruled", "reliability", "generality"]


@pytest.mark.parametrize(
    ("record", "change", "key", "reason"),
    [
        (REVERSE, {"type": "other"}, "type", "one of reverse, composite, coverage"),
        (REVERSE, {"edits": REVERSE["edits"][:1]}, "edits", "holds 1"),
        (COVERAGE, {"edits": COVERAGE["edits"][:1] * 2}, "edits", "the same twice"),
        (REVERSE, {"edits": COVERAGE["edits"]}, "edits", "one prompt"),
        (REVERSE, {"edits": [REVERSE["edits"][0], fact("Lake", "Ann", "Bo", MAKER)]}, "edits", "about the first's 'Hill'"),
        (COMPOSITE, {"prerequisites": [2]}, "prerequisites", "of which there are 2"),
        (REVERSE, {"edits": [fact("Ann", "Sea"), *REVERSE["edits"][1:]]}, "edits[0].new_object.label", "is missing"),
        (REVERSE, {"edits": [fact("Ann", "Sea", "Hill", "Her work is"), *REVERSE["edits"][1:]]},
         "edits[0].relation.prompt", "has no {}"),
    ],
)  # fmt: skip
def test_conflictedit_names_what_is_wrong(record, change, key, reason):
    with pytest.raises(BadRecord, match=reason) as caught:
        conflictedit.case({**record, **change}, 3)
    assert (caught.value.index, caught.value.key) == (3, key)


def test_edits_in_a_row_are_never_made_together(tmp_path):
    path = write(tmp_path, [REVERSE])
    with pytest.raises(UserError, match=r"edits.json: the edits of case 0 .*'Hill', then -> 'Bo'.* one after another"):
        cases(path)
    assert cases(path, ordered=True).cases[0].ordered
    assert judged_together(load(path).cases)[0].ordered


# EREN

NOTE = {
    "id": 7,
    "edit_statement": "Ann Lee lives in Rome.",
    "subject_name": "Ann Lee",
    "edit_scope": [["Where does Ann Lee live?", "Rome"], ["Where is the home of Ann Lee?", "Rome"]],
    "edit_scope_true_ans": ["Paris", "Paris"],
    "unrelated": {"neighbor_subj": ["Where is Bo?", "Where is Bo?"], "same_subj": ["What is the job of Ann Lee?"]},
    "unrelated_true_ans": {"neighbor_subj": ["Oslo", "Bern"], "same_subj": ["baker", "cook"]},
}


def test_eren():
    case = eren.case(NOTE, 0)
    (edit,) = case.edits
    assert (case.id, edit.query.prompt, edit.query.target, edit.target) == (
        "7",
        "Where does Ann Lee live?",
        "Paris",
        "Rome",
    )
    assert (edit.statement, edit.query.subject) == ("Ann Lee lives in Rome.", "Ann Lee")
    assert asked(case, "generality") == [("scope", "Where is the home of Ann Lee?", "Rome")]
    assert asked(case, "locality") == [
        ("neighbor_subj", "Where is Bo?", "Oslo"),
        ("same_subj", "What is the job of Ann Lee?", ""),  # two answers to one question: nobody knows whose
    ]


def test_eren_without_questions_of_a_kind():
    assert not asked(eren.case({**NOTE, "unrelated": {"neighbor_subj": [], "same_subj": []}}, 0), "locality")


def test_eren_of_claims_and_of_two_notes():
    claims = [["Ann Lee is a baker.", "yes"], ["Ann Lee is a cook.", "no"]]
    (edit,) = eren.case({"edit_statement": "x", "edit_scope": claims, "edit_scope_true_ans": ["no"]}, 0).edits
    assert (edit.query.prompt, edit.target, edit.query.target) == (
        "Ann Lee is a baker. Is that true? Answer:",
        "yes",
        "",
    )
    assert [judge.target for judge in edit.judges] == ["no"]
    (edit,) = eren.case({"edit_statement": ["One.", "Two."], "edit_scope": [["Who?", "Bo"]]}, 0).edits
    assert edit.statement == "One.\nTwo."


@pytest.mark.parametrize(
    ("change", "key", "reason"),
    [
        ({"edit_statement": " "}, "edit_statement", "is empty"),
        ({"edit_statement": None}, "edit_statement", "is missing"),
        ({"edit_scope": []}, "edit_scope", "hold one at least"),
        ({"edit_scope": [["Who?"]]}, "edit_scope[0]", r"must be \[question, answer\]"),
        ({"edit_scope": [["Who?", "a"], ["Who else?", ""]]}, "edit_scope[1]", "has no answer"),
    ],
)
def test_eren_names_what_is_wrong(change, key, reason):
    with pytest.raises(BadRecord, match=reason) as caught:
        eren.case({**NOTE, **change}, 3)
    assert (caught.value.index, caught.value.key) == (3, key)


# Entities


def entity(definition="Brindle is a <extra_id_0> of wool.", span="breed", name="Brindle", **probe):
    given = {"probe_sentence": "A Brindle has <extra_id_0> all year.", "label": "<extra_id_0> wool <extra_id_1>"}
    marked = f"<extra_id_0> {span} <extra_id_1>"
    return {
        "definition": definition,
        "def_target": marked,
        "ent_str": name,
        "probe_sentences": {"template_0": {**given, **probe}},
    }


def test_ecbd_is_a_definition_and_a_probe():
    (edit,) = ecbd.case(entity(), 0).edits
    assert (edit.query.prompt, edit.target, edit.query.subject) == ("Brindle is a", "breed", "Brindle")
    assert edit.statement == "Brindle is a breed of wool."
    assert [(q.role, q.prompt, q.target) for q in edit.judges] == [("portability", "A Brindle has", "wool")]
    (edit,) = ecbd.case(entity("Brindle (wool<extra_id_0> yarn) is", "en"), 0).edits
    assert join(edit.query.prompt, edit.target)[0] == "Brindle (woolen"
    (edit,) = ecbd.case(entity("Brindle is <extra_id_0> of", "as if it were made"), 0).edits
    assert edit.target == "as if it were made"  # and no letter of the mark's is taken off it


OPTIONS = {"labels": ["<extra_id_0> wool <extra_id_1>", "<extra_id_0> scales <extra_id_1>"]}


def test_entity_inferences_choose_among_options(tmp_path):
    record = {**entity(label=None, **OPTIONS), "label": "wool"}
    (edit,) = entity_inferences.case(record, 0).edits
    assert [(q.role, q.target) for q in edit.judges] == [("portability", "wool"), ("rival", "scales")]
    assert load(write(tmp_path, [record])).format == "entity-inferences"
    assert load(write(tmp_path, [entity()])).format == "ecbd"


@pytest.mark.parametrize(
    ("record", "key", "reason"),
    [
        (entity("Brindle is a breed."), "definition", "one gap, .* has 0 marks"),
        (entity("Brindle <extra_id_0> a <extra_id_0>."), "definition", "one gap, .* has 2 marks"),
        (entity("<extra_id_0> is a breed."), "definition", "at the very start"),
        (entity(span=""), "def_target", "one span of text"),
        (entity(name=None), "ent_str", "is missing"),
        (entity(probe_sentence="It has <extra_id_0>."), "probe_sentences.template_0.probe_sentence", "does not name"),
        (entity(label="silk", **OPTIONS), "probe_sentences.template_0.label", "'silk' is none of the 2 labels"),
        ({**entity(), "probe_sentences": {}}, "probe_sentences", "is missing"),
    ],
)
def test_entities_name_what_is_wrong(record, key, reason):
    with pytest.raises(BadRecord, match=reason) as caught:
        ecbd.case(record, 3)
    assert (caught.value.index, caught.value.key) == (3, key)


# Sentences alone, and what is told of a file


def test_a_list_of_sentences_is_rippleedits(tmp_path):
    texts = ["The name of the mother of Ann is Eve.", "The home of Ann is .", "Sea is followed by Hill.", 7]
    loaded = load(write(tmp_path, texts), bad="skip")
    assert (loaded.format, loaded.records) == ("rippleedits", [0, 2])
    assert [(case.edits[0].query.prompt, case.edits[0].target) for case in loaded.cases] == [
        ("The name of the mother of Ann is", "Eve"), ("Sea is followed by", "Hill"),
    ]  # fmt: skip
    assert [(index, key, reason[:13]) for index, key, reason in loaded.skipped] == [
        (1, "", "cannot be cut"),
        (3, "", "is 7; it must"),
    ]
    with pytest.raises(UserError, match=r"record 1: cannot be cut .*read as rippleedits"):
        load(write(tmp_path, texts))
    with pytest.raises(UserError, match="they are no objects"):
        load(write(tmp_path, ["what", "else", "Ann is here."]))


def test_records_that_say_the_same_are_counted_and_named(tmp_path):
    records = [{"prompt": f"{who} is", "target": now} for who, now in ("aB", "cD", "ab", "Ab", "cE")]
    with pytest.warns(
        UserWarning, match=r"records that say the same: 2 \(record 0 and record 2, record 0 and record 3\)"
    ):
        loaded = load(write(tmp_path, records))
    assert [one.partition(":")[0] for one in loaded.oddities] == [
        "records that say the same",
        "pairs of edits that give one prompt different answers",
    ]


def test_edits_that_change_nothing_and_contradict_are_counted_and_named(tmp_path):
    answers = [("Rome", "rome "), ("Oslo", "Rome"), ("Rome", None), ("Bern", " BERN")]
    records = [{"prompt": "A is", "target": new, "old": old} for new, old in answers]
    with pytest.warns(UserWarning, match="edits.json: ") as told:
        load(write(tmp_path, records))
    same, again, against = (str(one.message) for one in told)
    assert again.endswith("records that say the same: 1 (record 0 and record 2)")
    assert same.endswith("edits.json: edits whose new answer is the old one: 2 (record 0, record 3)")
    assert against.endswith(
        "pairs of edits that give one prompt different answers: 3 "
        "(record 0 and record 1, record 1 and record 2, record 0 and record 3)"
    )
    with warnings.catch_warnings(record=True) as told:
        load(write(tmp_path, [COVERAGE, REVERSE]))  # which are to contradict each other
        load(write(tmp_path, TOPICS))  # as are opinions for and against
    assert not told


@pytest.mark.parametrize(
    ("record", "what"),
    [
        (
            {"subj": "A", "prop": "b", "obj": "C", "question": "?", "possible_answers": '["C"]', "s_pop": 3},
            "they are facts",
        ),
        ({"Question": "?", "Correct Answers": "a; b", "Incorrect Answers": "c"}, "true and false answers"),
        ({"query": "?", "choices": ["a", "b", "c", "d"], "gold": 1}, "multiple-choice questions"),
        ({"P22": ["The father of {} is"], "P27": ["{} is from"]}, "wordings of relations"),
    ],
)
def test_files_without_edits_are_called_what_they_are(tmp_path, record, what):
    with pytest.raises(UserError, match=f"edits.json: holds no edits: .*{what}"):
        load(write(tmp_path, record))


# Edited and judged


def test_all_of_them_are_edited_and_judged(tmp_path):
    tokenizer = zoo.ZOO["llama3"](zoo.SENTENCES)
    model = zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=256).eval()
    inference = {**entity(label=None, **OPTIONS), "label": "wool"}
    files = enumerate(([TOPICS[0]], TRAIN | TEST, [ROUND], [NOTE], [inference]))
    found = [case for n, records in files for case in load(write(tmp_path, records, f"{n}.json")).cases]
    found = [replace(case, id=str(n)) for n, case in enumerate(found)]
    before = evaluation.before(model, tokenizer, found, new_tokens=4)
    unedited = evaluation.judge(model, tokenizer, found, before)
    said = rivals.sentiment(unedited)
    assert said["cases"] == 2
    assert said["before"] == pytest.approx(said["after"], abs=1e-4)
    assert rivals.choices(unedited)["questions"] == 1
    deltas = method.make_each(model, tokenizer, [case.edits for case in found], method="ft-m", config=quick("ft-m"))
    rows = evaluation.judge(model, tokenizer, found, before, deltas=deltas)
    shares = evaluation.metrics(rows)
    gains = [sum(r["logprobs_after"]) - sum(r["logprobs_before"]) for r in rows if r["role"] == "reliability"]
    assert len(gains) == sum(len(case.edits) for case in found)
    assert min(gains) > 0
    assert set(shares["counts"]) == {"reliability", "generality", "portability", "locality"}
    assert shares["counts"]["portability"]["queries"] == 1  # and neither wanted texts nor rivals
