"""Names of datasets parse, print and are corrected."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engramlab.base.errors import UserError
from engramlab.corpora.variants import CELEBRITY, MAX_ENTRIES, SIXTEEN, Variant, parse_variant

numbers = st.integers(1, MAX_ENTRIES)
flags = {"fullname": st.booleans(), "celebrities": st.booleans()}
other_flags = {"fullname": st.booleans(), "text": st.booleans()}
variants = st.one_of(
    st.builds(Variant, st.just("single"), st.just(1), permute=st.booleans(), **flags),
    st.builds(Variant, st.just("single"), numbers, permute=st.just(True), **flags),
    st.builds(Variant, st.just("multi"), numbers, permute=st.booleans(), **flags),
    st.builds(Variant, st.just("couple"), numbers, **flags),
    st.builds(Variant, st.just("couple"), numbers, **other_flags),
)


@given(variants)
def test_parse_reads_what_str_prints(variant):
    assert parse_variant(str(variant)) == variant


def test_the_sixteen_of_the_main_figure():
    assert len(set(SIXTEEN)) == 16
    assert set(SIXTEEN) == {
        *("single", "single+permute1", "single+permute2", "single+permute5"),
        *("multi2", "multi5", "multi2+permute", "multi5+permute"),
        *("single+fullname", "single+permute1+fullname", "single+permute2+fullname"),
        *("single+permute5+fullname", "multi2+fullname", "multi5+fullname"),
        *("multi2+permute+fullname", "multi5+permute+fullname"),
    }
    assert all(str(parse_variant(name)) == name for name in SIXTEEN)


def test_what_names_mean():
    assert parse_variant("multi7+permute+fullname") == Variant("multi", 7, permute=True, fullname=True)
    assert parse_variant("single+permute5+CEL") == Variant("single", 5, permute=True, celebrities=True)
    assert parse_variant("couple2") == Variant("couple", 2)
    assert str(CELEBRITY) == "multi5+permute"


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("multi+permuet", "multi5+permute"),
        ("multi7+permuet", "multi7+permute"),
        ("sinlge", "single"),
        ("single+permute", "single+permute5"),
        ("Multi5+Permute", "multi5+permute"),
        ("couples2", "couple2"),
        ("multi5+fullnam", "multi5+fullname"),
        ("single+cel", "single+CEL"),
        ("single+txt", "single+TEXT"),
    ],
)
def test_a_wrong_name_is_refused_with_the_nearest(wrong, right):
    with pytest.raises(UserError) as error:
        parse_variant(wrong)
    assert repr(wrong) in str(error.value)
    assert f"the nearest is {right!r}" in str(error.value)


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "multi0",
        "multi05",
        "single2",
        "multi99999",
        "couple2+permute",
        "multi5+permute2",
        "multi٣",
        "multi5\n",
    ],
)
def test_names_outside_the_grammar_are_refused(wrong):
    with pytest.raises(UserError, match="the nearest is"):
        parse_variant(wrong)


def test_variants_that_make_no_sense_cannot_be_built():
    for wrong in ({"entries": 2}, {"kind": "couple", "permute": True}, {"kind": "multi", "entries": 0}):
        with pytest.raises(UserError):
            Variant(**wrong)
