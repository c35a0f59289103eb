"""The contract of estimators, held by every file in the folder."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from tests.support import zoo

from engramlab.base.errors import UserError
from engramlab.base.facts import Query
from engramlab.core.text.batches import OneEntryARow, Order, TokenRows
from engramlab.core.text.tokens import Sequences, encode_queries
from engramlab.core.training.loop import Recipe, TrainState, train
from engramlab.measuring import estimators
from engramlab.measuring.estimators import many_shot

KNOWN = [
    Query(f"Number {i} stands in", place, id=str(i)) for i, place in enumerate(("Paris", "Oslo", "Bern", "São Tomé"))
]
WRONG = [dataclasses.replace(q, target=KNOWN[i - 1].target) for i, q in enumerate(KNOWN)]


@pytest.fixture(scope="module")
def taught():
    """A model that knows four facts by heart, as sentences and as lists, and its tokenizer."""
    tokenizer = zoo.ZOO["gpt2"]([*zoo.SENTENCES, *(f"{q.prompt} {q.target}" for q in KNOWN)])
    tokenizer.add_special_tokens({"pad_token": tokenizer.eos_token})
    model = zoo.model("llama", vocabulary=len(tokenizer), hidden_size=48)
    pairs = [(q.prompt, q.target) for q in KNOWN]
    lists = [
        Query(many_shot.context(shown, one[0]), one[1])
        for one in pairs
        for shown in itertools.permutations([pair for pair in pairs if pair != one])
    ]
    rows = encode_queries(tokenizer, [*KNOWN * 6, *lists], end=True).sequences
    rows = Sequences.of([row[:-1] for row in map(rows.row, range(len(rows)))])  # the stream puts the end token there
    stream = OneEntryARow(TokenRows(rows), Order(len(rows), 0), start=[], end=tokenizer.eos_token_id, length=64)
    for _ in train(TrainState(model, Recipe(steps=200, batch=12, learning_rate=5e-3)), stream):
        pass
    return model, tokenizer


@pytest.mark.parametrize("name", estimators.names())
def test_the_contract(name, taught):
    model, tokenizer = taught
    estimator = estimators.load(name)
    assert estimator.UNIT in ("share", "nats")
    assert dataclasses.is_dataclass(estimator.Config)
    config = estimator.Config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.something = 1
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    known = estimator.estimate(model, tokenizer, KNOWN, config)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert known.dtype == np.float64
    assert known.shape == (4,)
    assert np.array_equal(known, estimator.estimate(model, tokenizer, KNOWN, config))
    assert (known > estimator.estimate(model, tokenizer, WRONG, config)).all()
    if estimator.UNIT == "share":
        assert ((known >= 0) & (known <= 1)).all()


def test_log_probability_of_tokens_and_of_the_whole(taught):
    model, tokenizer = taught
    estimator = estimators.load("log-probability")
    tokens = estimator.estimate(model, tokenizer, KNOWN, estimator.Config())
    whole = estimator.estimate(model, tokenizer, KNOWN, estimator.Config(whole=True))
    count = [len(tokenizer(f" {query.target}")["input_ids"]) for query in KNOWN]
    assert whole == pytest.approx(tokens * count)
    assert max(count) > 1


def test_a_list_as_the_paper_writes_it():
    """A query is in its own list never, and no word says what is asked."""
    pairs = [("France", "Paris"), ("Japan", "Tokyo")]
    assert many_shot.context(pairs, "Italy") == "France : Paris , Japan : Tokyo , Italy :"
    assert many_shot.context(pairs, "Italy", "lines") == "France: Paris\nJapan: Tokyo\nItaly:"
    assert many_shot.context([], "Italy") == "Italy :"


def test_options_are_the_truth_and_the_same_others():
    pool = [f"city {i}" for i in range(30)]
    offered = many_shot.options(["city 3", "city 7"], [*pool, *pool], 10, 5)
    assert all(len(set(listed)) == 10 for listed in offered)
    assert "city 3" in offered[0]
    assert "city 7" in offered[1]
    assert len(set(offered[0]) & set(offered[1])) >= 8
    assert many_shot.options(["city 3"], pool, 100, 5) == [pool]
    with pytest.raises(UserError, match="one object only"):
        many_shot.options(["a"], ["a", "a"], 10, 5)


@pytest.mark.parametrize(
    ("options", "words"), [({"shown": -1}, "shown"), ({"draws": 0}, "draws"), ({"options": 1}, "options")]
)
def test_lists_that_cannot_be(options, words):
    with pytest.raises(UserError, match=words):
        many_shot.Config(**options)
