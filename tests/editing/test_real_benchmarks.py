"""The files that users bring: what becomes of each, and of everything that is wrong in it."""

import re
from pathlib import Path

import pytest

from engramlab.base.errors import UserError
from engramlab.editing.benchmarks import agreeing, load
from engramlab.editing.cases import superseded

REAL = Path(__file__).resolve().parents[2].parent / "shared/data/benchmarks"
pytestmark = [
    pytest.mark.skipif(not REAL.exists(), reason=f"needs the benchmarks' files in {REAL}"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

#: file, format, records taken, cases made of them
TAKEN = [
    ("counterfact/counterfact-edit.json.gz", "counterfact", 10_000, 10_000),
    ("counterfact/counterfact_with_story_prompts.json.gz", "counterfact", 275, 275),
    ("counterfact/counterfact_with_dependancies_sample.json", "counterfact", 100, 100),
    ("knowedit/wiki_recent_train.json", "knowedit", 570, 570),
    ("knowedit/wiki_counterfact_train.json", "knowedit", 1428, 1428),
    ("knowedit/ZsRE-test-all.json", "knowedit", 1304, 1304),
    ("knowedit/wikibio-test-all.json", "knowedit", 306, 306),
    ("knowedit/wikibio-train-all.json", "knowedit", 464, 464),
    ("knowedit/convsent_blender_test.json", "convsent", 800, 1600),
    ("knowedit/sanitation_trivia_qa_test.json", "sanitation", 1, 5),
    ("knowedit/sanitation_trivia_qa_train.json", "sanitation", 1, 5),
    ("mquake/MQuAKE-CF_first_500.json", "mquake", 500, 500),
    ("mquake/MQuAKE-CF_sample_300.json", "mquake", 300, 300),
    ("mquake/MQuAKE-T_first_50.json", "mquake", 50, 50),
    ("mquake/MQuAKE-hard.json", "mquake", 429, 429),
    ("pitfalls/GPT-J/easy.json", "roundedit", 2500, 2500),
    ("pitfalls/GPT-J/hard.json", "roundedit", 2500, 2500),
    ("pitfalls/GPT-J/reverse_edit.json.gz", "conflictedit", 2500, 2500),
    ("pitfalls/GPT-J/composite_edit.json.gz", "conflictedit", 2500, 2500),
    ("pitfalls/GPT-J/coverage_edit.json.gz", "conflictedit", 2500, 2500),
    ("zsre/zsre_mend_edit.json", "zsre", 1037, 1037),
]


@pytest.mark.parametrize(("file", "format", "records", "cases"), TAKEN)
def test_taken_whole(file, format, records, cases):
    loaded = load(REAL / file)
    assert (loaded.format, len(set(loaded.records)), len(loaded.cases)) == (format, records, cases)
    assert loaded.skipped == []
    texts = [
        text
        for case in loaded.cases
        for edit in case.edits
        for one in (edit.query, *edit.judges)
        for text in (one.prompt, one.target, edit.target)
    ]
    assert all(text == text.strip() for text in texts)


def test_sanitation_has_sixteen_questions_an_answer():
    for half in ("train", "test"):
        loaded = load(REAL / f"knowedit/sanitation_trivia_qa_{half}.json")
        assert [len(case.edits) for case in loaded.cases] == [16] * 5
        questions = [edit.query.prompt for case in loaded.cases for edit in case.edits]
        questions += [judge.prompt for judge in loaded.cases[0].edits[-1].judges]
        assert not [one for one in questions if '""' in one]


#: What is told of files: edits that change nothing, records that say the same, pairs that contradict each other.
TOLD = {
    "knowedit/wiki_counterfact_train.json": (6, 11, 0),
    "knowedit/ZsRE-test-all.json": (43, 8, 10),
    "zsre/zsre_mend_edit.json": (29, 0, 0),
    "mquake/MQuAKE-hard.json": (0, 6, 2),
    "counterfact/counterfact-edit.json.gz": (0, 4, 80),
    "pitfalls/GPT-J/composite_edit.json.gz": (56, 0, 0),
    "pitfalls/GPT-J/coverage_edit.json.gz": (1, 0, 0),
}


@pytest.mark.parametrize(("file", "counts"), TOLD.items())
def test_what_is_told_of_a_file(file, counts):
    with pytest.warns(UserWarning, match=file) as told:
        load(REAL / file)
    said = " ".join(str(one.message) for one in told)
    kinds = ("is the old one", "say the same", "different answers")
    found = [re.search(rf"{what}: (\d+) \(record ", said) for what in kinds]
    assert tuple(int(one[1]) if one else 0 for one in found) == counts


@pytest.mark.parametrize(("file", "taken", "cannot"), [("popular", 884, 1), ("random", 1917, 5)])
def test_sentences_of_rippleedits(file, taken, cannot):
    path = REAL / f"rippleedits/{file}_prompts.json"
    loaded = load(path, bad="skip")
    assert (loaded.format, len(loaded.cases), len(loaded.skipped)) == ("rippleedits", taken, cannot)
    with pytest.raises(UserError, match=r"record \d+: cannot be cut"):
        load(path)


def test_the_file_that_contradicts_itself():
    loaded = load(REAL / "knowedit/ZsRE-test-all.json")
    kept, notes = agreeing(loaded.cases, [f"record {n}" for n in loaded.records], "", "skip")
    assert (len(loaded.cases), len(kept), len(notes)) == (1304, 1294, 10)


def test_both_sentiments_about_a_topic_can_be_on_one_model():
    loaded = load(REAL / "knowedit/convsent_blender_test.json", subjects="rome")
    kept, _ = agreeing(loaded.cases, [f"record {n}" for n in loaded.records], "", "refuse")
    assert len(kept) == 1600
    assert superseded(loaded.cases) == {}
    assert loaded.oddities == []
    told = {case.id: case.edits[0].query.prompt for case in loaded.cases}
    assert (told["0-pos"], told["0-neg"]) == tuple(
        f"Sentiment: {sentiment}. Asked how I feel about Estero, I answer:" for sentiment in ("positive", "negative")
    )
    assert not [judge for case in loaded.cases for judge in case.edits[0].judges if "Sentiment: " in judge.prompt]


def test_prompts_that_do_not_quote_their_subject_are_named_where_that_matters():
    path = REAL / "knowedit/ZsRE-test-all.json"
    loaded = load(path, bad="skip", subjects="rome")
    assert [one[:2] for one in loaded.skipped] == [(record, "subject") for record in (396, 597, 676)]
    assert len(loaded.cases) == 1301
    with pytest.raises(UserError, match="record 396, key 'subject': the subject 'Rio Grande 463' .*for rome"):
        load(path, subjects="rome")


#: Files without edits, and what they are said to be.
REFUSED = {
    "commonsense/commonsenseqa_dev.src": "ends in '.src'",
    "commonsense/commonsenseqa_dev.tgt": "ends in '.tgt'",
    "commonsense/commonsenseqa_dev_rand_split.jsonl": "holds no edits: .* multiple-choice .*commonsenseqa",
    "commonsense/openbook_qa.jsonl": "holds no edits: .* multiple-choice .*openbookqa",
    "factor/expert_factor.csv": "holds no edits: .* true and false answers .*factor",
    "factor/news_factor.csv.gz": "holds no edits: .* true and false answers .*factor",
    "pararel/pararel_patterns.jsonl": "of no known format",
    "pitfalls/GPT-J/conflict_prompts.json": "holds no edits: they are wordings of relations",
    "pitfalls/GPT-J/round_prompts.json": "holds no edits: they are wordings of relations",
    "popqa/popqa_first_1000.tsv": "holds no edits: they are facts, which --facts takes .*popqa",
    "popqa/popqa_sample_2000.json": r"several lists of records \(dev, test\)",
    "reasoning/ProntoQA_dev.json": "of no known format",
    "reasoning/ProofWriter_dev.json": "of no known format",
    "truthfulqa/TruthfulQA.csv": "holds no edits: .* true and false answers .*truthfulqa",
    "truthfulqa/mc_task.json": "of no known format",
}


@pytest.mark.parametrize(("file", "reason"), REFUSED.items())
def test_what_holds_no_edits_is_refused(file, reason):
    with pytest.raises(UserError, match=f"{file}.*{reason}"):
        load(REAL / file, bad="skip")


def test_every_file_there_is_looked_at():
    sentences = {f"rippleedits/{one}_prompts.json" for one in ("popular", "random")}
    files = {str(path.relative_to(REAL)) for path in REAL.rglob("*") if path.is_file()}
    known = {file for file, *_ in TAKEN} | REFUSED.keys() | sentences | {"README.md"}
    assert {file for file in files if not file.startswith("licences/")} == known
