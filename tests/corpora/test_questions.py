"""Questions, and who is asked in training."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engramlab.base.errors import UserError
from engramlab.base.joining import join
from engramlab.corpora.facts.entities import Entities
from engramlab.corpora.people import ATTRIBUTES
from engramlab.corpora.questions import QuestionCorpus, Split
from engramlab.corpora.sources.bios import Config as BiosConfig
from engramlab.corpora.sources.bios import bios, bios_questions


@pytest.fixture
def people():
    return bios(BiosConfig(people=30, celebrities=5), "single+CEL")


def test_the_wording_of_the_paper(people):
    questions = bios_questions(people)
    name = people.population.name(4)
    prompts = [questions.query(4 * 6 + a).prompt for a in range(6)]
    assert prompts == [
        f"What is the birth date of {name}? Answer:",
        f"What is the birth city of {name}? Answer:",
        f"Which university did {name} study? Answer:",
        f"What major did {name} study? Answer:",
        f"Which company did {name} work for? Answer:",
        f"Where did {name} work? Answer:",
    ]


def test_each_question_has_its_answer_marked(people):
    questions = bios_questions(people, Split(30))
    assert len(questions) == 180  # celebrities are not asked about
    for entry in range(180):
        query, passage = questions.query(entry), questions.passage(entry)
        subject, a = divmod(entry, 6)
        name, answer = passage.spans
        assert (name.kind, passage.quote(name)) == (
            "subject",
            people.population.name(subject) == query.subject and query.subject,
        )
        assert passage.quote(answer) == query.target == people.population.value(subject, a)
        assert query.relation == answer.relation == ATTRIBUTES[a]
        assert passage.text == f"{query.prompt} {query.target}"
        assert (query.id, query.role) == (str(entry), "question")
        assert query.group in ("train", "test")
    assert questions.queries([7, 3]) == [questions.query(7), questions.query(3)]
    assert questions.queries([]) == []


def test_questions_by_index(people):
    questions = bios_questions(people)
    entries = np.random.default_rng(0).permutation(180)
    some = questions.layout(entries)
    np.testing.assert_array_equal(some.pieces, questions.layout(np.arange(180)).pieces[entries])
    np.testing.assert_array_equal(questions.subject(entries), entries // 6)
    np.testing.assert_array_equal(questions.attribute(entries), entries % 6)
    assert questions.entries([2, 0]).tolist() == [*range(12, 18), *range(6)]
    with pytest.raises(IndexError):
        questions.layout([180])


def test_questions_about_some_subjects_only(people):
    assert len(bios_questions(people, celebrities=True)) == 6 * 35
    celebrities = QuestionCorpus(people.population, subjects=range(30, 35))
    assert len(celebrities) == 30
    assert celebrities.query(0).subject == people.population.name(30)
    assert celebrities.entries([31]).tolist() == list(range(6, 12))
    assert celebrities.query(0).group == ""


def test_other_wordings(people):
    questions = QuestionCorpus(people.population, {"major": "{subject} studied what? Answer:"})
    query = questions.query(3)
    assert query.prompt == f"{query.subject} studied what? Answer:"
    assert questions.passage(3).text.startswith(query.subject)
    assert questions.query(5).prompt == f"What is the work city of {query.subject}? Answer:"
    with pytest.raises(UserError, match="no such attribute; there are birth_date"):
        QuestionCorpus(people.population, {"majro": "What did {subject} study?"})
    with pytest.raises(UserError, match="exactly once"):
        QuestionCorpus(people.population, {"major": "What did she study?"})


@given(n=st.integers(1, 500), seed=st.integers(0, 2**31))
def test_a_split_is_two_halves(n, seed):
    split = Split(n, seed)
    assert sorted([*split.train.tolist(), *split.test.tolist()]) == list(range(n))
    assert len(split.train) - len(split.test) in (0, 1)
    np.testing.assert_array_equal(split.is_train(split.train), True)


def test_a_split_is_drawn_by_its_seed_and_scales():
    assert Split(100, 0).train.tolist() != Split(100, 1).train.tolist()
    assert Split(100, 0).train.tolist() == Split(100, 0).train.tolist()
    assert Split(20_000_000).is_train([19_999_999, 0, 7]).dtype == bool
    # People do not fall into a half by anything else that the same seed decides.
    questions = bios_questions(bios(BiosConfig(people=20_000)), Split(20_000))
    groups = np.array(questions.groups(np.arange(20_000)))
    pronouns = questions.population.pronoun(np.arange(20_000))
    shares = [np.mean(groups[pronouns == p] == "train") for p in range(3)]
    assert max(abs(share - 0.5) for share in shares) < 0.02


def test_questions_in_scripts_without_spaces_are_trained_as_they_are_asked():
    people = Entities(["法国", "日本"], {"首都": ["巴黎", "东京"]})
    asked = QuestionCorpus(people, {"首都": "{subject}的首都是什么？答案："})
    assert asked.passage(0).text == "法国的首都是什么？答案：巴黎"
    query = asked.query(1)
    assert (query.prompt, query.target) == ("日本的首都是什么？答案：", "东京")
    assert join(query.prompt, query.target)[0] == asked.passage(1).text
    spaced = QuestionCorpus(people, {"首都": "The capital of {subject}:"})
    query = spaced.query(0)
    assert join(query.prompt, query.target)[0] == spaced.passage(0).text == "The capital of 法国: 巴黎"
