"""Whole words hidden: which, how often, and how; the model that names them sees both ways."""

import json
import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import zoo

from engramlab.base import random_access
from engramlab.base.errors import UserError
from engramlab.core import models
from engramlab.core.forward import generation
from engramlab.core.text.batches import IGNORE, Mixed, OneEntryARow, Order, Packed, TokenRows
from engramlab.core.text.masking import Masked
from engramlab.core.text.tokenizers import WordStarts, train_compact_tokenizer, with_mask
from engramlab.core.text.tokens import GAP, Sequences, encode
from engramlab.core.training.loop import Recipe, TrainState, train
from engramlab.measuring import scoring

TEXTS = [*zoo.SENTENCES, "Zoë's 2,102 neighbours: don't ask_them about X9 (東京都)!", "A1b2 c-d e"]


@pytest.fixture(scope="module")
def tokenizer():
    """Most words are several tokens, some are one."""
    return with_mask(train_compact_tokenizer(TEXTS, 300))


def rows_of(tokenizer, texts) -> TokenRows:
    return TokenRows(Sequences.of(encode(tokenizer, texts)[0]))


def masked(tokenizer, texts, *, seed=0, answers=False, packed=False, share=0.15, marks=None) -> Masked:
    sequences = Sequences.of(encode(tokenizer, texts)[0], marks)
    end, order = tokenizer.eos_token_id, Order(len(texts), 5)
    stream = (
        Packed(TokenRows(sequences), order, end=end, length=40, answers_only=answers)
        if packed
        else OneEntryARow(TokenRows(sequences), order, start=[end], end=end, length=300, answers_only=answers)
    )
    return Masked(stream, WordStarts(tokenizer), mask=tokenizer.mask_token_id, share=share, answers=answers, seed=seed)


# words --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gpt2", "digits", "llama3"])
def test_words_are_runs_of_letters_and_digits_or_one_mark_each(kind):
    """Against the characters: a token goes on with a word if the run of letters and digits it begins in began before it."""
    tokenizer = getattr(zoo, kind)(TEXTS[:2])  # the others are cut into bytes
    words = WordStarts(tokenizer)
    for text in TEXTS:
        [ids], [spans] = encode(tokenizer, [text])
        runs = [match.span() for match in re.finditer(r"[^\W_]+", text)]
        expected = []
        for i, (start, end) in enumerate(spans):
            lone = i > 0 and not text[slice(*spans[i - 1])].strip() and spans[i - 1][1] <= start
            if lone and not text[start:end][:1].isspace() and (text[start].isalnum()):
                expected.append(False)  # the space before it has begun the word
                continue
            run = next(((a, b) for a, b in runs if a <= start < b), None)
            inside = run is not None and (run[0] < start or (i > 0 and spans[i - 1][1] > start))
            expected.append(i == 0 or not inside)
        assert words.begins(np.array(ids)).tolist() == expected, text


def test_special_tokens_are_no_words(tokenizer):
    words = WordStarts(tokenizer)
    assert sorted(np.flatnonzero(words.special)) == sorted({tokenizer.eos_token_id, tokenizer.mask_token_id})
    assert len(words.regular) == len(tokenizer) - 2
    [[a, *_]], _ = encode(tokenizer, ["abc"])
    end = tokenizer.eos_token_id
    assert words.begins(np.array([[a, end, a], [end, end, a]])).all()


# what is hidden -----------------------------------------------------------------------------------------------------


def test_shares_of_words_over_many(tokenizer):
    texts = [" ".join(TEXTS) for _ in range(50)]
    stream, words, mask = masked(tokenizer, texts), WordStarts(tokenizer), tokenizer.mask_token_id
    counts = dict.fromkeys(("words", "chosen", "masked", "kept", "random"), 0)
    plain = OneEntryARow(
        rows_of(tokenizer, texts), Order(50, 5), start=[tokenizer.eos_token_id], end=tokenizer.eos_token_id, length=300
    )
    for _ in range(20):
        batch, before = stream.take(50), plain.take(50)
        for hidden, targets, ids in zip(
            batch.input_ids.numpy(), batch.targets.numpy(), before.input_ids.numpy(), strict=True
        ):
            starts = np.append(np.flatnonzero(words.begins(ids)), len(ids))
            for a, b in pairwise(starts):
                word, now, goal = ids[a:b], hidden[a:b], targets[a:b]
                if words.special[word[0]]:
                    assert (goal == IGNORE).all()
                    assert (now == word).all()
                    continue
                counts["words"] += 1
                assert (goal == IGNORE).all() or (goal == word).all()  # whole words only
                if goal[0] == IGNORE:
                    assert (now == word).all()
                    continue
                counts["chosen"] += 1
                assert not words.special[now].any() or (now == mask).all()
                fate = "masked" if (now == mask).all() else "kept" if (now == word).all() else "random"
                counts[fate] += 1
    assert counts["words"] > 40_000
    assert counts["chosen"] / counts["words"] == pytest.approx(0.15, abs=0.006)
    for fate, share in (("masked", 0.8), ("kept", 0.1), ("random", 0.1)):
        assert counts[fate] / counts["chosen"] == pytest.approx(share, abs=0.015)


@pytest.mark.parametrize("packed", [False, True])
def test_the_same_as_word_by_word(tokenizer, packed):
    """A naive loop over rows and words with the same draws."""
    stream = masked(tokenizer, TEXTS * 3, packed=packed, share=0.4, seed=3)
    words, end = WordStarts(tokenizer), tokenizer.eos_token_id
    chosen_key, fate_key, token_key = (random_access.key(3, "masking", n, 0) for n in ("chosen", "fate", "token"))
    plain = masked(tokenizer, TEXTS * 3, packed=packed).stream
    number = 0
    for _ in range(3):
        batch, before = stream.take(6), plain.take(6)
        for r in range(6):
            ids = before.input_ids[r].tolist()
            inside = [True] * len(ids) if before.inside is None else before.inside[r].tolist()
            word, expected, targets = 0, [], []
            for t, token in enumerate(ids):
                word += bool(words.begins(np.array(ids))[t])
                draws = [
                    int(random_access.draw(k, np.array([number * 2**20 + word]), 2**32)[0]) / 2**32
                    for k in (chosen_key, fate_key)
                ]
                if not inside[t] or token in (end, tokenizer.mask_token_id) or draws[0] >= 0.4:
                    expected.append(token)
                    targets.append(IGNORE)
                    continue
                pick = int(random_access.draw(token_key, np.array([number * 2**20 + t]), len(words.regular))[0])
                other = int(words.regular[pick])
                fate = draws[1]
                expected.append(tokenizer.mask_token_id if fate < 0.8 else token if fate < 0.9 else other)
                targets.append(token)
            assert batch.input_ids[r].tolist() == expected
            assert batch.targets[r].tolist() == targets
            number += 1
        assert batch.tokens == before.tokens


def test_answers_are_hidden_whole_and_nothing_else(tokenizer):
    ids = encode(tokenizer, TEXTS[:3])[0]
    marks = [[GAP if k == len(row) - 4 else int(k >= len(row) - 3) for k in range(len(row))] for row in ids]
    stream = masked(tokenizer, TEXTS[:3], answers=True, marks=marks)
    batch = stream.take(6)
    for hidden, targets, inside in zip(batch.input_ids, batch.targets, batch.inside, strict=True):
        length = int(inside.sum())
        row = next(row for row in ids if targets[targets != IGNORE].tolist() == row[-4:])
        # Start token, question, answer; of the end token the longest row has none left.
        assert hidden.tolist()[: len(row) + 1] == [
            tokenizer.eos_token_id,
            *row[:-4],
            *[tokenizer.mask_token_id] * 4,
        ]
        assert np.flatnonzero(targets != IGNORE).tolist() == list(range(len(row) - 3, len(row) + 1))
        assert length in (len(row) + 1, len(row) + 2)


@settings(max_examples=10)
@given(before=st.lists(st.integers(1, 9), max_size=4), kind=st.sampled_from(["entries", "packed", "mixed"]))
def test_a_restored_stream_goes_on_the_same(tokenizer, before, kind):
    def make():
        one = masked(tokenizer, TEXTS, packed=kind != "entries")
        if kind == "mixed":
            other = masked(tokenizer, TEXTS, packed=True, seed=9)
            return Mixed(one, other, ratio=0.5, end=tokenizer.eos_token_id, seed=1)
        return one

    stream, fresh = make(), make()
    for rows in before:
        stream.take(rows)
    fresh.restore(json.loads(json.dumps(stream.state())))
    for _ in range(3):
        a, b = stream.take(5), fresh.take(5)
        assert torch.equal(a.input_ids, b.input_ids)
        assert torch.equal(a.targets, b.targets)


# the model ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=models.buildable())
def both_ways(request, tokenizer):
    return models.build("tiny", tokenizer, family=request.param, context=64, masked=True, seed=1).eval()


def logits(model, rows, inside=None):
    with torch.no_grad():
        return model(input_ids=rows, attention_mask=inside).logits


def test_every_position_sees_every_other(both_ways, tokenizer):
    rows = torch.randint(3, len(tokenizer) - 1, (2, 9), generator=torch.Generator().manual_seed(0))
    whole = logits(both_ways, rows)
    for t in range(9):
        changed = rows.clone()
        changed[:, t] = 2
        assert ((logits(both_ways, changed) - whole).abs().amax(-1) > 1e-5).all(), t
    causal = models.build("tiny", tokenizer, context=64, seed=1).eval()
    changed = rows.clone()
    changed[:, 8] = 2
    assert torch.equal(logits(causal, rows)[:, :8], logits(causal, changed)[:, :8])
    assert models.mask_token(causal) is None
    assert models.mask_token(both_ways) == tokenizer.mask_token_id


def test_saved_it_is_the_same_model(both_ways, tokenizer, tmp_path):
    both_ways.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded, again = models.load(str(tmp_path))
    rows = torch.randint(3, len(tokenizer) - 1, (2, 9))
    torch.testing.assert_close(logits(loaded, rows), logits(both_ways, rows))
    assert models.mask_token(loaded) == again.mask_token_id
    assert models.about(str(tmp_path)).objective == "masked"


def test_the_loss_is_that_of_each_row_alone_at_its_hidden_tokens(both_ways, tokenizer):
    """Training on padded rows, against one row at a time without padding."""
    stream = masked(tokenizer, TEXTS, share=0.5)
    batch = masked(tokenizer, TEXTS, share=0.5).take(5)
    losses = []
    for row, targets, inside in zip(batch.input_ids, batch.targets, batch.inside, strict=True):
        found = logits(both_ways, row[inside][None])[0].log_softmax(-1)
        losses += [-float(found[t, goal]) for t, goal in enumerate(targets[inside].tolist()) if goal != IGNORE]
    assert len({int(inside.sum()) for inside in batch.inside}) > 1
    state = TrainState(both_ways, Recipe(steps=1, batch=5, learning_rate=1e-9))
    assert next(iter(train(state, stream))).loss == pytest.approx(np.mean(losses), rel=1e-4)


def test_answers_are_scored_all_hidden_at_once(both_ways, tokenizer):
    """Each row by itself, by hand; right only if every token is."""
    rng = np.random.default_rng(0)
    rows = [rng.integers(3, len(tokenizer) - 1, 6 + k).tolist() for k in range(5)]
    marks = [[0] * (len(row) - 4) + [GAP, 1, 1, 0] for row in rows]
    expected = []
    for row, mark in zip(rows, marks, strict=True):
        hidden = torch.tensor([[tokenizer.mask_token_id if m else t for t, m in zip(row, mark, strict=True)]])
        expected.append(logits(both_ways, hidden)[0].log_softmax(-1))
    # Two of the answers become what the model says, one of them but for its last token.
    for i, length in ((1, 3), (2, 2)):
        for t in range(len(rows[i]) - 4, len(rows[i]) - 4 + length):
            rows[i][t] = int(expected[i][t].argmax())
    scores = scoring.score(both_ways, Sequences.of(rows, marks))
    by_hand = [float(expected[i][t, rows[i][t]]) for i in range(5) for t in range(len(rows[i]) - 4, len(rows[i]) - 1)]
    np.testing.assert_allclose(scores.logprobs, by_hand, rtol=1e-4)
    assert scores.exact().tolist() == [False, True, False, False, False]
    with pytest.raises(UserError, match="cannot write"):
        generation.generate(both_ways, tokenizer, ["The"])
