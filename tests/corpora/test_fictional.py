"""The generator of fictional passages: facts, wordings, queries that need what they say they need, and the background."""

import re
from collections import Counter

import pytest
from tests.support.effort import calls

from engramlab.base.errors import UserError
from engramlab.base.rows import DEPTHS
from engramlab.corpora.fictional import Background, Fictional
from engramlab.corpora.fictional_world import KINDS, WORDINGS, schemas, wordings
from engramlab.corpora.passages import all_queries, to_jsonl
from engramlab.corpora.templates import pool, read_data
from engramlab.reading import read_passages
from engramlab.reading.defects import defects

SOME = range(60)


@pytest.fixture(scope="module")
def corpus():
    return Fictional(5000, seed=3)


@pytest.fixture(scope="module")
def records(corpus):
    return corpus.records(SOME)


def sentences(text: str) -> list[str]:
    return [s if s.endswith(".") else s + "." for s in text.split(". ")]


# templates and pools ------------------------------------------------------------------------------------------------


def test_each_relation_has_its_wordings_and_none_serves_two_uses():
    words, relations = wordings(), {relation for facts in schemas().values() for _, relation, _ in facts}
    texts = [frame for relation in relations for frame in words.texts[relation]]
    queries = [frame for relation in relations for frame in words.queries[relation]]
    assert {len(words.texts[r]) for r in relations} == {WORDINGS}
    assert {len(words.queries[r]) for r in relations} == {2}
    assert set(words.queries) == relations
    assert len(set(texts)) == len(texts)
    assert not set(texts) & set(queries)
    for frames in words.texts.values():  # nor does a paraphrase contain the beginning of another one's sentence
        starts = [f"{frame.before}X{frame.between}" for frame in frames]
        assert not [(a, b) for a in starts for b in starts if a is not b and b.endswith(a)]
    leading = {
        r for facts in schemas().values() for whose, r, what in facts if whose == "X" and what in ("A", "B", "O")
    }
    assert set(words.phrases) == leading


def test_templates_are_whole_sentences():
    for relation in wordings().texts:
        for line in read_data("templates", "fictional", f"{relation}.txt").splitlines():
            assert line.count("{subject}") == line.count("{object}") == 1, line
            assert line.index("{subject}") < line.index("{object}"), line
            assert " {object}" in line, line
            assert line.endswith("."), line
            assert line == " ".join(line.split()), line
    for frames in wordings().queries.values():
        assert all(frame.after == "." for frame in frames)  # the target ends the query


def test_pools_have_no_line_twice_and_articles_fit():
    for name in ("names", "towns", "rivers", "occupations", "instruments", "animals", "materials", "goods", "titles"):
        lines = pool(f"fictional_{name}")
        assert len({line.casefold() for line in lines}) == len(lines) >= 50, name
    for name in ("occupations", "animals"):  # templates say "a {object}"
        assert not [line for line in pool(f"fictional_{name}") if line[0] in "aeiou"], name
    people = {*pool("first_names"), *pool("last_names")}
    assert not people & {*pool("fictional_names"), *pool("fictional_towns")}


# entities -----------------------------------------------------------------------------------------------------------


def test_an_entity_is_a_function_of_seed_and_index_alone(corpus):
    backwards = Fictional(5000, seed=3)
    assert [backwards.record(i) for i in reversed(SOME)][::-1] == corpus.records(SOME)
    assert Fictional(300, seed=3).record(7) == corpus.record(7)
    assert Fictional(5000, seed=4).record(7) != corpus.record(7)


def test_names_belong_to_one_entity_each(corpus):
    mains = [corpus.name(i) for i in range(5000)]
    assert len(set(mains)) == 5000
    people = Counter()
    for i in range(5000):
        kinds = {
            whose: subject
            for (whose, _, _), (subject, _, _) in zip(schemas()[corpus.kind(i)], facts(corpus, i), strict=True)
        }
        people.update({kinds[w] for w in ("A", "B", "O") if w in kinds})
    assert max(people.values()) == 1


def facts(corpus, i):
    return [(f.subject, f.relation, f.object) for f in corpus.facts(i)]


def test_values_of_an_entity_differ_and_are_spread(corpus):
    towns, trades = Counter(), Counter()
    for i in range(2000):
        objects = [f.object for f in corpus.facts(i)]
        assert len(set(objects)) == len(objects)
        towns.update(f.object for f in corpus.facts(i) if f.relation == "birthplace")
        trades.update(f.object for f in corpus.facts(i) if f.relation == "occupation")
    assert len(towns) > 390  # of 400
    assert max(towns.values()) < 5 * sum(towns.values()) / 400
    assert len(trades) == len(pool("fictional_occupations"))
    assert max(trades.values()) < 3 * 2000 / len(trades)


def test_every_kind_is_there_in_turn(corpus):
    assert [corpus.kind(i) for i in range(5)] == list(KINDS)
    assert {len(facts) for facts in schemas().values()} == {10}
    few = Fictional(3000, kinds=("novel", "company"))
    assert [few.kind(i) for i in range(3)] == ["novel", "company", "novel"]
    assert len({few.name(i) for i in range(3000)}) == 3000
    assert {f.relation for i in range(10) for f in few.facts(i)} == {
        r for kind in ("novel", "company") for _, r, _ in schemas()[kind]
    }
    assert defects(few.records(range(10))) == []


# texts --------------------------------------------------------------------------------------------------------------


def test_every_version_states_every_fact_where_its_spans_say(corpus):
    for i in SOME:
        for version in range(10):
            passage = corpus.passage(i, version)
            assert passage.text == corpus.text(i, version)
            stated = Counter()
            for subject, object in zip(passage.spans[::2], passage.spans[1::2], strict=True):
                assert (subject.kind, object.kind) == ("subject", "object")
                stated[passage.quote(subject).casefold(), object.relation, passage.quote(object)] += 1
            assert stated == Counter((f.subject.casefold(), f.relation, f.object) for f in corpus.facts(i))


def test_texts_have_the_sentences_asked_for(records):
    for record in records:
        for text in record.versions:
            assert len(sentences(text)) == 12
            tokens = len(re.findall(r"\w+|[^\w\s]", text))
            assert 110 <= tokens <= 250, tokens
            assert text == " ".join(text.split())
            assert all(s[0].isupper() for s in sentences(text))


@pytest.mark.parametrize(("count", "stated"), [(8, 8), (9, 9), (10, 10), (14, 10), (22, 10)])
def test_the_length_is_a_choice(count, stated):
    corpus = Fictional(50, sentences=count)
    for i in range(10):
        assert len(sentences(corpus.text(i))) == count
        assert len(set(sentences(corpus.text(i)))) == count  # no aside twice
        assert len(corpus.facts(i)) == stated
        assert [len(corpus.record(i).of_depth(d)) for d in DEPTHS] == [5, 5, 5]


def test_no_sentence_about_a_fact_comes_again_in_another_version(corpus):
    for i in SOME:
        said = [s for v in range(10) for s in stating(corpus, i, v)]
        assert len(set(said)) == len(said) == 100


def test_what_is_said_of_two_people_is_said_in_different_words(corpus):
    for i in SOME:
        relations = [f.relation for f in corpus.facts(i)]
        for twice in {r for r in relations if relations.count(r) > 1}:
            for version in range(10):
                passage, frames = corpus.passage(i, version), []
                for subject, object in zip(passage.spans[::2], passage.spans[1::2], strict=True):
                    if object.relation == twice:
                        sentence = next(s for s in sentences(passage.text) if passage.quote(object) in s)
                        frames.append(sentence.replace(passage.quote(subject), "").replace(passage.quote(object), ""))
                assert len(set(frames)) == 2
    assert any(len({f.relation for f in corpus.facts(i)}) < 10 for i in SOME)


def stating(corpus, i, version):
    """The sentences of a text that state a fact."""
    passage = corpus.passage(i, version)
    ends = [s.end for s in passage.spans if s.kind == "object"]
    found, at = [], 0
    for sentence in sentences(passage.text):
        if any(at <= end <= at + len(sentence) for end in ends):
            found.append(sentence)
        at += len(sentence) + 1
    return found


def test_the_order_of_facts_varies_and_a_text_opens_with_its_entity(corpus):
    for i in SOME:
        orders = {tuple(s.relation for s in corpus.passage(i, v).spans[1::2]) for v in range(10)}
        assert len(orders) >= 9
        for v in range(10):
            assert corpus.name(i).casefold() in sentences(corpus.text(i, v))[0].casefold()


# queries ------------------------------------------------------------------------------------------------------------


def test_five_queries_a_depth_with_the_same_targets(records):
    for record in records:
        targets = [tuple(q.target for q in record.of_depth(depth)) for depth in DEPTHS]
        assert [len(t) for t in targets] == [5, 5, 5]
        assert targets[0] == targets[1] == targets[2]
        assert len(set(targets[0])) == 5


def test_memorization_is_verbatim(records):
    for record in records:
        for query in record.of_depth("memorization"):
            assert f"{query.prompt} {query.target}" in record.text
            assert query.subject in query.prompt  # a whole beginning of a sentence: it says whom it is about
            assert query.prompt in {s[: len(query.prompt)] for s in sentences(record.text)}
            assert not any(f"{query.prompt} {query.target}" in p for p in record.paraphrases)


def test_semantic_and_compositional_wordings_are_in_no_passage(records):
    everything = " ".join(text for record in records for text in record.versions)
    for record in records:
        for query in (*record.of_depth("semantic"), *record.of_depth("compositional")):
            assert query.prompt not in everything
            start = " ".join(query.prompt.split()[:3])
            assert start not in everything, start


def test_a_semantic_query_has_its_fact_in_one_sentence_and_a_compositional_one_needs_two(records):
    for record in records:
        for semantic, composed in zip(record.of_depth("semantic"), record.of_depth("compositional"), strict=True):
            entity, link, relation = composed.subject, *composed.relation.split("/")
            assert semantic.subject in semantic.prompt
            assert semantic.relation == relation
            assert semantic.prompt.split()[:3] != composed.prompt.split()[:3]  # another wording, too
            assert entity.casefold() in composed.prompt.casefold()
            assert semantic.subject not in composed.prompt  # only described
            for text in record.versions:
                # No sentence has both the entity and the target: one names who it leads to, another says the rest of them.
                assert not [s for s in sentences(text) if entity[4:] in s and composed.target in s]
                assert [s for s in sentences(text) if entity[4:] in s and semantic.subject in s], link
                assert [s for s in sentences(text) if semantic.subject in s and composed.target in s]


def test_the_description_in_a_compositional_query_fits_one_fact_of_the_entity(corpus):
    for i in SOME:
        links = [f.relation for f in corpus.facts(i) if f.subject == corpus.name(i)]
        assert len(set(links)) == len(links)
        for query in corpus.record(i).of_depth("compositional"):
            link, relation = query.relation.split("/")
            who = [f.object for f in corpus.facts(i) if f.subject == corpus.name(i) and f.relation == link]
            (whom,) = who
            assert [f.object for f in corpus.facts(i) if (f.subject, f.relation) == (whom, relation)] == [query.target]


def test_the_records_have_no_defect_and_survive_a_file(records, tmp_path):
    assert defects(records) == []
    path = tmp_path / "passages.jsonl"
    path.write_text(to_jsonl(records), encoding="utf-8")
    again = read_passages(path)
    assert [(r.id, r.versions) for r in again] == [(r.id, r.versions) for r in records]
    queries, owners = all_queries(records)
    assert [(q.prompt, q.target, q.group, q.id) for q in all_queries(again)[0]] == [
        (q.prompt, q.target, q.group, q.id) for q in queries
    ]
    assert len(queries) == 15 * len(records) == len(owners)
    assert len({q.id for q in queries}) == len(queries)


# background ---------------------------------------------------------------------------------------------------------


def test_the_background_knows_nothing_of_other_entities(corpus, records):
    background = Background(corpus, range(100, 400))
    everything = " ".join(background)
    for i in SOME:
        assert corpus.name(i) not in everything
    for query in all_queries(records)[0]:
        assert query.prompt not in everything


def test_the_background_teaches_every_wording_of_queries_on_its_own_entities(corpus):
    background = Background(corpus, range(100, 400), statements=None)
    everything = " ".join(background)
    for frames in wordings().queries.values():
        for frame in frames:
            if frame.before:
                assert frame.before.strip() in everything
    missing = 0
    for entity in range(100, 400):
        for query in corpus.record(entity).queries:
            if query.group != "memorization":
                missing += f"{query.prompt} {query.target}." not in everything
    assert missing == 0


def test_texts_of_the_background_are_passages_and_statements(corpus):
    background = Background(corpus, range(100, 300), passages=3, together=0.5)
    assert len(background) == 200 * 4
    joined = 0
    for k in range(200):
        versions = {corpus.text(100 + k, v) for v in range(10)}
        texts = [background[4 * k + turn] for turn in range(4)]
        assert len({*texts[:3]} & versions) == 3  # three different wordings
        said = corpus.statements(100 + k, 12)
        assert texts[3].endswith(" ".join(said))
        joined += texts[3] != " ".join(said)
        assert not [text for text in texts[:3] if texts[3].startswith(text)]  # a fourth wording
    assert 75 <= joined <= 125
    alone, always = (Background(corpus, range(100, 110), together=share) for share in (0, 1))
    assert {sentences(alone[3 * k + 2])[0] in corpus.statements(100 + k) for k in range(10)} == {True}
    assert {len(sentences(always[3 * k + 2])) for k in range(10)} == {24}


def test_the_background_is_deterministic_at_every_place(corpus):
    one, other = (Background(Fictional(5000, seed=3), range(100, 200)) for _ in range(2))
    assert [other[d] for d in reversed(range(len(one)))][::-1] == list(one)
    part = Background(corpus, range(150, 160))
    assert list(part) == list(one)[150:180]
    with pytest.raises(IndexError):
        one[len(one)]


def test_tens_of_thousands_of_texts_take_seconds(corpus):
    background = Background(corpus, range(1000))
    assert sum(len(text) for text in background) > 1_000_000
    assert calls(lambda: list(background)) < 400 * len(background)  # measured: 177 a text


# misuse -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Fictional(0), "entities: the pools have names for 1 to 133333 entities, not for 0"),
        (lambda: Fictional(133_334), "not for 133334"),
        (lambda: Fictional(500, limit=20), "entities: the pools have names for 1 to 133 entities"),
        (lambda: Fictional(5, limit=1), "limit: must be at least 2"),
        (lambda: Fictional(5, kinds=("ship",)), "kinds: there is no 'ship'; the kinds are company, "),
        (lambda: Fictional(5, kinds=("town", "town")), "each once"),
        (lambda: Fictional(5, kinds=()), "at least one"),
        (lambda: Fictional(5, sentences=7), "sentences: must be between 8 and 22, not 7"),
        (lambda: Fictional(5, paraphrases=10), "paraphrases: must be between 0 and 9, not 10"),
        (lambda: Background(Fictional(5), range(3, 6)), "are not all among the corpus's 5"),
        (lambda: Background(Fictional(5), range(3), passages=11), "passages: must be between 1 and 10"),
        (lambda: Background(Fictional(5), range(3), together=2), "together: must be between 0 and 1"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_numbers_out_of_range_are_no_entities(corpus):
    for index in (-1, 5000):
        with pytest.raises(IndexError):
            corpus.record(index)
    with pytest.raises(IndexError):
        corpus.text(0, 10)


def test_a_limit_makes_the_vocabulary_smaller():
    def vocabulary(**options):
        corpus = Fictional(100, **options)
        return {word for i in range(100) for word in corpus.text(i).split()}

    assert len(vocabulary(limit=30)) < 0.7 * len(vocabulary())
    assert Fictional(133_333).record(133_332).queries  # the pools suffice to the last
