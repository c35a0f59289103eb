"""Biography entries in every variant."""

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from tests.support.effort import calls

from engramlab.base.errors import UserError
from engramlab.corpora.layout import as_passages
from engramlab.corpora.people import ATTRIBUTES, Pools
from engramlab.corpora.sources.bios import Config as BiosConfig
from engramlab.corpora.sources.bios import bios
from engramlab.corpora.variants import SIXTEEN, parse_variant

ALL = (*SIXTEEN, "couple1", "couple2+fullname", "multi3+permute+CEL", "single+fullname+CEL", "couple5+CEL")
PEOPLE = 40


def corpus(variant, **options):
    return bios(BiosConfig(**{"people": PEOPLE, **options}), variant)


def everything(made):
    ids = map(str, range(len(made)))
    return as_passages(made.layout(np.arange(len(made))), made.pieces, made.attributes, ids)


def objects(passage):
    return [span for span in passage.spans if span.kind == "object"]


def order(passage):
    return [ATTRIBUTES.index(span.relation) for span in objects(passage)]


@pytest.mark.parametrize("variant", ALL)
def test_every_span_quotes_its_object(variant):
    made = corpus(variant)
    subjects = made.subject(np.arange(len(made)))
    for passage, subject in zip(everything(made), subjects.tolist(), strict=True):
        name = made.population.name(subject)
        assert sorted(order(passage)) == list(range(6))
        for span in passage.spans:
            if span.kind == "subject":
                assert passage.quote(span) == name
                assert span.relation == ""
            else:
                assert passage.quote(span) == made.population.value(subject, ATTRIBUTES.index(span.relation))
        assert passage.text.startswith(name)
        assert list(passage.spans) == sorted(passage.spans, key=lambda span: span.start)


@pytest.mark.parametrize("variant", ALL)
def test_entries_read_like_text(variant):
    made = corpus(variant)
    fullname = parse_variant(variant).fullname
    for passage, subject in zip(everything(made), made.subject(np.arange(len(made))).tolist(), strict=True):
        text = passage.text
        assert text == " ".join(text.split())
        assert text.endswith(".")
        assert text[0] != " "
        assert "{" not in text
        mentions = sum(span.kind == "subject" for span in passage.spans)
        named_throughout = fullname and subject < PEOPLE
        assert mentions == (6 if named_throughout else 1)
        if not named_throughout:
            pronoun = made.population.pronouns[made.population.pronoun(np.array([subject]))[0]]
            starts = {"he": ("He ", "His "), "she": ("She ", "Her "), "they": ("They ", "Their ")}[pronoun]
            ends = [span.end for span in objects(passage)]
            for end in ends[:-1]:
                following = text[text.index(". ", end) + 2 :]
                assert following.startswith(starts), text


@pytest.mark.parametrize("variant", ALL)
def test_any_entry_without_the_others(variant):
    made = corpus(variant)
    whole = [p.text for p in everything(made)]
    shuffled = np.random.default_rng(0).permutation(len(made))
    layout = made.layout(shuffled)
    again = as_passages(layout, made.pieces, made.attributes, map(str, shuffled))
    assert [p.text for p in again] == [whole[i] for i in shuffled]
    assert layout.pieces.dtype == np.int32
    assert layout.marks.dtype == np.int8
    for i in (0, len(made) // 2, len(made) - 1):
        assert made.passage(i).text == whole[i]
        assert made.passage(i).id == str(i)
    twin = corpus(variant)
    np.testing.assert_array_equal(twin.layout([3, 1]).pieces, made.layout([3, 1]).pieces)


@pytest.mark.parametrize("variant", ALL)
def test_number_of_entries_and_their_subjects(variant):
    made = corpus(variant, celebrities=7 if "CEL" in variant else 0)
    per_person = parse_variant(variant).entries
    assert len(made) == PEOPLE * per_person + (35 if "CEL" in variant else 0)
    counts = np.bincount(made.subject(np.arange(len(made))))
    assert counts.tolist() == [per_person] * PEOPLE + ([5] * 7 if "CEL" in variant else [])
    with pytest.raises(IndexError):
        made.layout([len(made)])
    with pytest.raises(IndexError):
        made.layout([-1])
    assert len(made.layout([])) == 0


def test_marks_are_zero_where_nothing_stands_and_otherwise_as_promised():
    made = corpus("multi2+permute+fullname")
    layout = made.layout(np.arange(len(made)))
    assert not layout.marks[layout.pieces == 0].any()
    names = made.population.name_pieces(made.subject(np.arange(len(made))))
    assert (np.sum(layout.marks == -1, axis=1) == 18).all()
    for a in range(6):
        assert (np.sum(layout.marks == a + 1, axis=1) == (3 if a == 0 else 1)).all()
    assert set(names[:, 1]) <= set(layout.pieces[layout.marks == -1])


def test_seeds_differ():
    assert corpus("single").passage(0).text != corpus("single", seed=1).passage(0).text


@pytest.mark.parametrize("variant", ["single", "multi5", "multi2+fullname"])
def test_without_permute_the_order_is_fixed(variant):
    assert all(order(p) == [0, 1, 2, 3, 4, 5] for p in everything(corpus(variant)))


@pytest.mark.parametrize("variant", ["multi5+permute", "single+permute5", "single+permute1"])
def test_permute_draws_an_order_for_each_entry(variant):
    made = corpus(variant, people=2000)
    orders = np.array([order(p) for p in everything(made)])
    expected = len(orders) / 6
    for slot in range(6):  # every attribute equally often in every place
        counts = np.bincount(orders[:, slot], minlength=6)
        assert ((counts - expected) ** 2 / expected).sum() < 26  # 5 degrees of freedom, 1 in 10,000
    assert len({tuple(o) for o in orders.tolist()}) > 600


def sentences(made, entry):
    """What each sentence says apart from the subject's mention: the literal and the value, by attribute."""
    layout = made.layout([entry])
    texts = {}
    attribute = None
    for piece, mark in zip(layout.pieces[0].tolist(), layout.marks[0].tolist(), strict=True):
        if mark > 0:
            attribute = mark
        elif mark == 0 and piece and attribute is not None:
            texts[attribute], attribute = made.pieces[piece], None
    return texts


def test_single_permute_shuffles_the_same_sentences():
    made = corpus("single+permute5+fullname")
    for person in range(PEOPLE):
        entries = [made.passage(number * PEOPLE + person).text for number in range(5)]
        assert len({tuple(sorted(text.removesuffix(".").split(". "))) for text in entries}) == 1
        assert len(set(entries)) > 1


def test_multi_draws_templates_anew():
    made = corpus("multi5+fullname", people=200)
    texts = [{made.passage(number * 200 + person).text for number in range(5)} for person in range(200)]
    assert all(len(different) == 5 for different in texts)
    firsts = [[sentences(made, n * 200 + person)[1] for n in range(5)] for person in range(200)]
    assert len({tuple(f) for f in firsts}) > 20


def test_couples_stay_together_in_their_order():
    made = corpus("couple5")
    orders = [order(p) for p in everything(made)]
    assert all(o[i : i + 2] in ([0, 1], [2, 3], [4, 5]) for o in orders for i in (0, 2, 4))
    assert len({tuple(o) for o in orders}) == 6


def test_variants_nest():
    single, multi, seven = corpus("single"), corpus("multi5"), corpus("multi7")
    for person in range(PEOPLE):
        assert single.passage(person).text == multi.passage(person).text
    for entry in range(5 * PEOPLE):
        assert multi.passage(entry).text == seven.passage(entry).text


def test_entries_of_a_person_lie_apart():
    made = corpus("multi5")
    subjects = made.subject(np.arange(len(made)))
    assert all(a != b for a, b in pairwise(subjects))


def test_celebrities_are_others_with_their_own_kind_of_entries():
    made = corpus("single+CEL", celebrities=30)
    assert made.subjects == range(PEOPLE)
    names = {made.population.name(i) for i in range(PEOPLE + 30)}
    assert len(names) == PEOPLE + 30
    passages_ = everything(made)
    assert all(order(p) == [0, 1, 2, 3, 4, 5] for p in passages_[:PEOPLE])
    assert len({tuple(order(p)) for p in passages_[PEOPLE:]}) > 100
    plain = corpus("single")
    assert [p.text for p in everything(plain)] == [p.text for p in passages_[:PEOPLE]]
    assert len(corpus("single+CEL")) == 6 * PEOPLE
    everybody = np.arange(PEOPLE + 30)
    assert made.subject(made.first_entry(everybody)).tolist() == everybody.tolist()


def wordings(made, entries) -> set[str]:
    """Sentences of `+fullname` entries with the values and names taken out."""
    found = set()
    for i in entries:
        passage = made.passage(int(i))
        text = passage.text
        for span in reversed(passage.spans):
            text = text[: span.start] + ("|" if span.kind == "subject" else "VALUE") + text[span.end :]
        found |= {sentence.strip() for sentence in text.split("|")[1:]}
    return found


@pytest.mark.parametrize("first", [None, 3])
def test_celebrities_in_other_words_and_another_format(first):
    made = corpus(
        "multi5+permute+fullname+CEL",
        celebrities=40,
        celebrity_entries="multi5+permute+fullname",
        celebrity_templates="other",
        first_templates=first,
    )
    assert str(made.groups[1].variant) == "multi5+permute+fullname"
    for a, (mine, theirs) in enumerate(zip(made.groups[0].templates, made.groups[1].templates, strict=True)):
        assert not set(mine) & set(theirs)
        assert set(mine) | set(theirs) == set(range(len(made.sentences.templates[a])))
        assert first is None or len(mine) == len(theirs) == first
    # The same from the texts: no sentence of one group has the words of one of the other's.
    ours, theirs = wordings(made, range(5 * PEOPLE)), wordings(made, range(5 * PEOPLE, len(made)))
    assert len(ours) > 15
    assert len(theirs) > 15
    assert not ours & theirs
    # Ordinary people's entries are those they have without celebrities, where all read the same templates.
    plain = corpus("single+CEL", celebrities=9, celebrity_entries="couple2")
    alone = corpus("single")
    assert [plain.passage(i).text for i in range(PEOPLE)] == [alone.passage(i).text for i in range(PEOPLE)]


def test_all_templates_are_used_and_fewer_on_request():
    made = corpus("multi5", people=2000)
    used = set(np.unique(made.layout(np.arange(len(made))).pieces).tolist())
    literals = {p for a in range(1, 6) for p in made.sentences.before[a][3:].ravel().tolist()}
    assert literals <= used
    few = corpus("multi5", people=100, first_templates=2)
    assert len({sentences(few, i)[1] for i in range(500)}) <= 2


def test_small_pools():
    pools = Pools(5, 4, 8, 10, 6, 5, 4, 7)
    made = corpus("multi2", pools=pools)
    assert len({made.population.value(i, 1) for i in range(PEOPLE)}) <= 6
    assert len(made.pieces) < 1900


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "multi+permuet"}, "nearest is 'multi5+permute'"),
        ({"people": 200, "pools": Pools(5, 5, 5)}, "200 people"),
        ({"people": 100, "pools": Pools(5, 5, 5), "variant": "single+CEL"}, "200 people"),
        ({"people": 0}, "people: cannot be 0"),
        ({"celebrities": 5}, "celebrities: is for +CEL variants, such as single+CEL"),
        ({"celebrity_entries": "multi2"}, "celebrity_entries: is for +CEL variants"),
        ({"celebrity_entries": "multi2+CEL", "variant": "single+CEL"}, "leave"),
        ({"celebrity_entries": "mutli2", "variant": "single+CEL"}, "celebrity_entries: variant"),
        ({"celebrity_templates": "other", "first_templates": 30, "variant": "single+CEL"}, "at most"),
        ({"celebrities": -5, "variant": "single+CEL"}, "celebrities: cannot be -5"),
        ({"first_templates": 0}, "templates: must be at least 1"),
    ],
)
def test_bad_configs_are_refused(options, message):
    with pytest.raises(UserError) as error:
        corpus(**{"variant": "single", **options})
    assert message in str(error.value)


def test_twenty_million_people_stream_from_nothing():
    """Random access anywhere is no more work than in a small world, and memory does not grow with the people."""

    def peak(people):
        tracemalloc.start()
        made = bios(BiosConfig(people=people, seed=5), "multi5+permute")
        for start in np.linspace(0, len(made) - 4096, 12, dtype=np.int64):
            made.layout(np.arange(start, start + 4096))
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(1000)
    assert peak(20_000_000) < 1.1 * peak(20_000) + 100_000
    made = bios(BiosConfig(people=20_000_000, seed=5), "multi5+permute")
    text = made.passage(5 * 20_000_000 - 1).text
    assert text.startswith(made.population.name(19_999_999))
    small = bios(BiosConfig(people=20, seed=5), "multi5+permute")
    assert small.passage(4 * 20 + 19).text == made.passage(4 * 20_000_000 + 19).text
    assert calls(lambda: made.passage(5 * 20_000_000 - 7)) < 2 * calls(lambda: small.passage(5 * 20 - 7))


def test_layouts_are_made_fast():
    """All entries at once: no function runs once an entry."""
    made = bios(BiosConfig(people=1_000_000), "multi5+permute")
    entries = np.random.default_rng(0).integers(0, len(made), 4096)
    made.layout(entries)
    assert calls(lambda: made.layout(entries)) < 2 * calls(lambda: made.layout(entries[:256]))
