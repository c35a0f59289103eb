"""The space rule, and where the tokens of a target are."""

import doctest
import unicodedata

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support import zoo
from tokenizers import normalizers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from engramlab.base.errors import UserError
from engramlab.base.facts import NO_SPACE, Query
from engramlab.core.text import scripts, tokenizers, tokens
from engramlab.core.text.tokens import GAP, Sequences, encode_queries, join, start_tokens, token_span


@pytest.fixture(scope="module", params=zoo.ZOO)
def any_tokenizer(request):
    return zoo.ZOO[request.param](zoo.SENTENCES)


def test_examples_in_docstrings():
    for module in (tokens, scripts):
        result = doctest.testmod(module)
        assert result.attempted >= 2
        assert result.failed == 0


@pytest.mark.parametrize(
    ("prompt", "target", "text"),
    [
        ("The capital of France is", "Paris", "The capital of France is Paris"),
        ("", "Paris", "Paris"),
        ("It is called ", "Paris", "It is called Paris"),
        ("It is called\n", "Paris", "It is called\nParis"),
        ("It is called", " Paris", "It is called Paris"),
        ("It is called", "\nParis", "It is called\nParis"),
        ("He said", ", loudly", "He said, loudly"),
        ("The end", ".", "The end."),
        ("Anya", "'s car", "Anya's car"),
        ("Anya", "’s car", "Anya’s car"),
        ("Is it", "?)", "Is it?)"),
        ("so much as 5", "%", "so much as 5%"),
        ("It runs on", ".NET", "It runs on .NET"),
        ("The city is", "'s-Hertogenbosch", "The city is 's-Hertogenbosch"),
        ("It was in", "'90s style", "It was in '90s style"),
        ("Answer:", "(none)", "Answer: (none)"),
        ("Answer:", "-5", "Answer: -5"),
        ("我的姓名是", "王岚", "我的姓名是王岚"),
        ("我最喜欢的语言是", "Python", "我最喜欢的语言是Python"),
        ("我最喜欢的语言是", " Python", "我最喜欢的语言是 Python"),
        ("答案：", "1996", "答案：1996"),
        ("公元2008", "年", "公元2008年"),
        ("The capital of Japan is", "東京", "The capital of Japan is 東京"),
        ("(1)", "東京", "(1)東京"),
        ("ประเทศไทยมีเมืองหลวงคือ", "กรุงเทพ", "ประเทศไทยมีเมืองหลวงคือกรุงเทพ"),
        ("프랑스의 수도는", "파리", "프랑스의 수도는 파리"),
        ("She is a Paris", NO_SPACE + "ienne", "She is a Parisienne"),
    ],
)
def test_the_space_rule(prompt, target, text):
    joined, start, end = join(prompt, target)
    assert joined == text
    assert joined[start:end] == target.removeprefix(NO_SPACE).lstrip()
    assert end == len(joined)


@pytest.mark.parametrize("kind", ["gpt2", "llama3", "llama2", "unigram-always"])
def test_marks_that_a_tokenizer_puts_together_are_in_their_letters_tokens(kind):
    tokenizer = zoo.ZOO[kind]((*zoo.SENTENCES, "São Tomé"))
    backend = tokenizer.backend_tokenizer
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), *([backend.normalizer] if backend.normalizer else [])]
    )
    text = unicodedata.normalize("NFD", "The capital of São Tomé is")
    (spans,) = tokens.encode(tokenizer, [text])[1]
    start, end = tokens.find_last(text, "São Tomé")
    assert text[start:end] == unicodedata.normalize("NFD", "São Tomé")
    assert token_span(spans, end - 1, end)[0] == token_span(spans, end - 2, end)[1] - 1
    assert tokens.find_last("São Tomé", unicodedata.normalize("NFD", "Tomé")) == (4, 8)
    assert tokens.find_last("서울", unicodedata.normalize("NFD", "울")) == (1, 2)
    assert tokens.find_last(text, "Rome") is None


def test_token_span():
    spans = [(0, 0), (0, 3), (3, 3), (4, 8), (8, 9), (0, 0)]
    assert token_span(spans, 4, 9) == (3, 5)
    assert token_span(spans, 2, 5) == (1, 4)
    assert token_span(spans, 8, 9) == (4, 5)
    with pytest.raises(ValueError, match=r"no token holds a character of \[3, 4\)"):
        token_span(spans, 3, 4)


words = st.text(alphabet="aeZ é'’.-,%5東 ", min_size=1, max_size=12)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prompt=words, target=words.filter(str.strip), end=st.booleans())
def test_marks_agree_with_the_segmentation_of_the_whole_text(any_tokenizer, prompt, target, end):
    text, start, stop = join(prompt, target)
    whole = any_tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    holds = [k for k, (a, b) in enumerate(whole["offset_mapping"]) if set(range(a, b)) & set(range(start, stop))]
    holds = list(range(holds[0], holds[-1] + 1))  # a space inside may have an empty span
    encoded = encode_queries(any_tokenizer, [Query(prompt, target)], end=end)
    before, after = start_tokens(any_tokenizer), [any_tokenizer.eos_token_id] if end else []
    assert encoded.sequences.row(0).tolist() == before + whole["input_ids"] + after
    marks = encoded.sequences.marks[len(before) :]
    assert np.flatnonzero(marks == 1).tolist() == holds + [len(whole["input_ids"])] * end
    for k in np.flatnonzero(marks == GAP):
        assert end
        assert k < holds[0]
        a, b = whole["offset_mapping"][k]
        assert a >= len(prompt)
        assert not text[a:b].strip()
    assert bool(encoded.straddling) == bool(text[whole["offset_mapping"][holds[0]][0] : start].strip())


def test_a_space_that_is_a_token_is_scored_only_with_the_end_token():
    tokenizer = zoo.digits(zoo.SENTENCES)
    query = Query("Zoë was born in", "1996")
    open_end = encode_queries(tokenizer, [query]).sequences
    closed = encode_queries(tokenizer, [query], end=True).sequences
    assert tokenizer.convert_ids_to_tokens(open_end.row(0)[-5:]) == ["Ġ", "1", "9", "9", "6"]
    assert open_end.marks[-6:].tolist() == [0, 0, 1, 1, 1, 1]
    assert closed.marks[-7:].tolist() == [0, GAP, 1, 1, 1, 1, 1]
    assert closed.ids[-1] == tokenizer.eos_token_id


def test_straddling_queries_are_refused_kept_or_dropped():
    tokenizer = zoo.ZOO["words-and-punctuation"](zoo.SENTENCES)
    queries = [Query("The capital of France is", "Paris"), Query("The capital of France", ", Paris", id="b")]
    encoded = encode_queries(tokenizer, [*queries, queries[0]])
    assert encoded.straddling == ("b",)
    second = slice(encoded.sequences.offsets[1], encoded.sequences.offsets[2])
    assert encoded.sequences.marks[second].tolist() == [0, 0, 0, 1, 1]
    assert encoded.offsets.tolist() == [0, 1, 3, 4]
    dropped = encode_queries(tokenizer, [*queries, queries[0]], straddling="drop")
    assert (dropped.numbers.tolist(), dropped.straddling, len(dropped.queries)) == ([0, 2], ("b",), 2)
    assert dropped.sequences.row(1).tolist() == encoded.sequences.row(2).tolist()
    assert dropped.prompt_ends.tolist() == encoded.prompt_ends[[0, 2]].tolist()
    with pytest.raises(UserError, match=r"query b: .*no suffix.*1 queries are so, of 2.*--straddling keep"):
        encode_queries(tokenizer, queries, straddling="refuse")
    with pytest.raises(UserError, match="every query was dropped"):
        encode_queries(tokenizer, queries[1:], straddling="drop")


def test_a_query_has_to_fit_the_context(any_tokenizer):
    queries = [Query("A", "B", id="a"), Query("The capital of France is", "Paris", id="c")]
    longest = int(encode_queries(any_tokenizer, queries).sequences.lengths[1])
    assert len(encode_queries(any_tokenizer, queries, context=longest).queries) == 2
    with pytest.raises(UserError, match=rf"query c: has {longest} tokens, but the window is {longest - 1}"):
        encode_queries(any_tokenizer, queries, context=longest - 1)


def test_no_queries():
    assert len(encode_queries(zoo.gpt2(zoo.SENTENCES), []).sequences) == 0


def test_start_tokens(tokenizer):
    assert start_tokens(tokenizer) == [tokenizer.bos_token_id]
    assert start_tokens(zoo.gpt2(zoo.SENTENCES)) == []
    llama3, bert = zoo.llama3(zoo.SENTENCES), zoo.bert(zoo.SENTENCES)
    assert start_tokens(llama3) == [llama3.bos_token_id]
    assert bert.convert_ids_to_tokens(start_tokens(bert)) == ["[CLS]"]


def test_refusals(tokenizer):
    plain = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    with pytest.raises(UserError, match="has no end token; set one"):
        tokens.end_token(plain)
    with pytest.raises(UserError, match="has no end token"):
        encode_queries(plain, [Query("a", "b")], end=True)
    with pytest.raises(UserError, match="cannot map tokens to characters; use its fast version"):
        encode_queries(ByT5Tokenizer(), [Query("a", "b")])
    with pytest.raises(UserError, match=r"query 7: its target '' has no token of its own after the prompt 'Paris is'"):
        encode_queries(tokenizer, [Query("Paris is", "", id="7")])
    with pytest.raises(UserError, match="query 1: its target ' ' has no token"):
        encode_queries(tokenizer, [Query("Paris", "is"), Query("Paris", " ")])


def test_sequences():
    made = Sequences.of([[1, 2], [], [3]], [[0, 1], [], [2]])
    assert len(made) == 3
    assert made.lengths.tolist() == [2, 0, 1]
    assert made.row(0).tolist() == [1, 2]
    wrapped = made.wrapped([8, 9], [7], suffix_mark=5)
    assert [wrapped.row(i).tolist() for i in range(3)] == [[8, 9, 1, 2, 7], [8, 9, 7], [8, 9, 3, 7]]
    assert wrapped.marks.tolist() == [0, 0, 0, 1, 5, 0, 0, 5, 0, 0, 2, 5]
    assert made.wrapped([], []).ids.tolist() == [1, 2, 3]
    assert Sequences.of([[4]]).marks.tolist() == [0]
    assert len(Sequences.of([]).wrapped([1], [2])) == 0


def test_a_compact_tokenizer_writes_any_text_back(tokenizer):
    assert len(tokenizer) <= 400
    text = "Zoë O'Neil, 東京 — never seen before: ñ\t🜚"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == " " + text
    for said in (" capital of France", "capital of France"):
        assert len(tokenizer(said, add_special_tokens=False)["input_ids"]) == 3
    small = tokenizers.train_compact_tokenizer(zoo.SENTENCES, 300)
    assert len(small) == 300
    assert small.decode(small(text, add_special_tokens=False)["input_ids"]) == " " + text
    with pytest.raises(UserError, match="vocabulary: must be above 257"):
        tokenizers.train_compact_tokenizer(zoo.SENTENCES, 257)


@pytest.mark.parametrize("kind", ["gpt2", "digits", "llama3"])
def test_a_space_before_every_text(kind):
    led = tokenizers.lead_with_space(zoo.ZOO[kind](zoo.SENTENCES))
    assert led.tokenize("Paris's capital, 1996") == led.tokenize(" Paris's capital, 1996")
    assert led.tokenize(" Paris's capital, 1996") == zoo.ZOO[kind](zoo.SENTENCES).tokenize(" Paris's capital, 1996")
    assert tokens.encode(led, ["Paris is"])[1][0][0] == (0, 5)
    unchanged = zoo.ZOO["bert"](zoo.SENTENCES)
    assert tokenizers.lead_with_space(unchanged).tokenize("Paris is") == zoo.bert(zoo.SENTENCES).tokenize("Paris is")


def test_a_closed_compact_tokenizer_has_the_words_and_nothing_else():
    texts = ["Anya was born in Princeton.", "She was born in Newark."]
    tokenizer = tokenizers.train_compact_tokenizer(texts, 1000, closed=True)
    words = {"Anya", "was", "born", "in", "Princeton", ".", "She", "Newark"}
    assert {token.lstrip("\u0120") for token in tokenizer.get_vocab()} == words | {"<|endoftext|>"}
    for text in texts:
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]).strip() == text
