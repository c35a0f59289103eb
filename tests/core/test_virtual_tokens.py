"""Virtual tokens: words' embeddings in their place are those words; only they are trained; whose they are is checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support import zoo

from engramlab.base.errors import UserError
from engramlab.core.deltas import fingerprint
from engramlab.core.deltas.virtual_tokens import FILE, NAME, VirtualTokens, placed
from engramlab.core.forward.generation import generate
from engramlab.core.forward.passes import target_seen
from engramlab.core.text.batches import IGNORE
from engramlab.core.text.passages import Asked, PassageRows, answered, fitting, head, prompts, tail
from engramlab.core.training.loop import Recipe, TrainState, train
from engramlab.core.training.stage import Stage

PASSAGES = (
    "The capital of France is Paris.",
    "It's on the Seine, and 2,102,650 people live there.",
    "東京 was called Edo.",
)
ASKED = [
    Asked("What is the capital of France?", PASSAGES[:2], ("Paris", "the city on the Seine"), "France"),
    Asked("When was Zoë O'Neil born?", ("Zoë O'Neil was born on October 2, 1996.",), ("1996",), "Zoë"),
    Asked("What was 東京 called?", PASSAGES[::-1], ("Edo",), "Japan"),
]
TEXTS = [*zoo.SENTENCES, *(head(one.passages) + tail(one.question) for one in ASKED)]


def made(words: str = "digits", family: str = "llama", **more: Any) -> tuple[Any, Any]:
    tokenizer = zoo.ZOO[words](TEXTS)
    return zoo.model(family, vocabulary=len(tokenizer), max_position_embeddings=512, **more).eval(), tokenizer


@pytest.mark.parametrize("words", sorted(set(zoo.ZOO) - {"bert"}))
def test_place_and_labels_are_those_of_the_whole_text(words: str) -> None:
    tokenizer = zoo.ZOO[words](TEXTS)
    first, virtual = len(tokenizer), [len(tokenizer) + k for k in range(4)]
    plain, spliced = answered(tokenizer, ASKED), answered(tokenizer, ASKED, virtual)
    begins = len(tokenizer("a")["input_ids"]) - len(tokenizer("a", add_special_tokens=False)["input_ids"])
    for i, one in enumerate(ASKED):
        text = head(one.passages) + tail(one.question)
        whole = tokenizer(f"{text} {one.answers[0]}", add_special_tokens=False, return_offsets_mapping=True)
        row, marks = spliced.row(i).tolist(), spliced.marks[spliced.offsets[i] : spliced.offsets[i + 1]].tolist()
        at = row.index(first)
        assert row[at : at + 4] == virtual
        without = row[:at] + row[at + 4 :]
        assert without == plain.row(i).tolist() == [*row[:begins], *whole["input_ids"], tokenizer.eos_token_id]
        spans = whole["offset_mapping"]
        cut = at - begins  # of the tokens behind it the first holds the question's first character, none before it does
        assert spans[cut][1] > len(head(one.passages)) >= max(b for _, b in spans[:cut])
        labels = [begins + k for k, (a, b) in enumerate(spans) if b > len(text) and a < b]
        assert [k - 4 for k, m in enumerate(marks) if m] == [*labels, len(without) - 1]
        assert prompts(tokenizer, [one], virtual)[0][: at + 4] == row[: at + 4]
    bare = Asked("What?", (), ("Paris",))
    assert answered(tokenizer, [bare], virtual).ids.tolist() == answered(tokenizer, [bare]).ids.tolist()
    assert prompts(tokenizer, [bare], virtual) == prompts(tokenizer, [bare])


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2", "gemma3_text", "opt", "bloom"])
def test_the_embeddings_of_words_are_those_words(family: str, tied: bool) -> None:
    model, tokenizer = made(family=family, tie_word_embeddings=tied)
    said = "Its old name was Edo"
    ids = tokenizer(said)["input_ids"]
    tokens = VirtualTokens.of_text(model, tokenizer, len(ids), said)
    rows = prompts(tokenizer, ASKED, tokens.ids())
    words = [[ids[t - tokens.first] if t >= tokens.first else t for t in row] for row in rows]
    with placed(model, tokens), torch.no_grad():
        for row, other in zip(rows, words, strict=True):
            one, two = (model(input_ids=torch.tensor([r])).logits for r in (row, other))
            torch.testing.assert_close(one, two)
            assert one.shape[-1] == len(tokenizer)  # none can be written
        assert generate(model, tokenizer, rows, max_new_tokens=4) == generate(model, tokenizer, words, max_new_tokens=4)


def test_what_is_spliced_is_what_transformers_takes_as_embeddings() -> None:
    model, tokenizer = made()
    tokens = VirtualTokens(torch.randn(6, 32, generator=torch.Generator().manual_seed(0)), len(tokenizer), "")
    (row,) = prompts(tokenizer, ASKED[:1], tokens.ids(3))
    at = row.index(tokens.first)
    with torch.no_grad():
        own = [model.get_input_embeddings()(torch.tensor(part)) for part in (row[:at], row[at + 3 :])]
        wanted = model(inputs_embeds=torch.cat([own[0], tokens.vectors[:3], own[1]])[None]).logits
        with placed(model, tokens):
            torch.testing.assert_close(model(input_ids=torch.tensor([row])).logits, wanted)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_gradient_reaches_the_first_k_alone(k: int) -> None:
    model, tokenizer = made()
    tokens = VirtualTokens.of_text(model, tokenizer, 5)
    batch = PassageRows(tokenizer, ASKED)._pad.batch(answered(tokenizer, ASKED, tokens.ids(k)))
    with placed(model, tokens):
        keep = batch.targets != IGNORE
        logits = target_seen(model, batch.input_ids, keep).logits
        torch.nn.functional.cross_entropy(logits, batch.targets[keep]).backward()
    assert tokens.vectors.grad is not None
    assert (tokens.vectors.grad.abs().sum(1) > 0).tolist() == [True] * k + [False] * (5 - k)


def trained(model: Any, tokenizer: Any, folder: Path, stop: int = 0) -> VirtualTokens:
    tokens = VirtualTokens.of_text(model, tokenizer, 4)
    rows = PassageRows(tokenizer, ASKED, virtual=tokens.ids(), seed=3)
    recipe = Recipe(steps=6, batch=2, learning_rate=1e-2, weight_decay=0.0)
    with placed(model, tokens):
        state = TrainState(model, recipe, parameters=[tokens.vectors])
        with Stage(folder, state, rows, label="tokens", minutes=0.0) as stage:
            for step in stage:
                if step.number == stop:
                    raise KeyboardInterrupt
    return tokens


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
def test_training_moves_the_tokens_alone_and_goes_on_to_the_same(family: str, tmp_path: Path) -> None:
    model, tokenizer = made(family=family)
    model.get_input_embeddings().weight.requires_grad_(False)
    before = {name: p.clone() for name, p in model.state_dict().items()}
    required, modes = [p.requires_grad for p in model.parameters()], [m.training for m in model.modules()]
    ids = torch.tensor([tokenizer(TEXTS[0])["input_ids"]])
    with torch.no_grad():
        logits = model(input_ids=ids).logits
    start = VirtualTokens.of_text(model, tokenizer, 4).vectors
    tokens = trained(model, tokenizer, tmp_path / "a")
    assert not torch.equal(tokens.vectors, start)
    with torch.no_grad(), placed(model, tokens):
        assert torch.equal(model(input_ids=ids).logits, logits)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == required
    assert [m.training for m in model.modules()] == modes
    assert not hasattr(model, NAME)
    with pytest.raises(KeyboardInterrupt):
        trained(model, tokenizer, tmp_path / "b", stop=3)
    assert torch.equal(trained(model, tokenizer, tmp_path / "b").vectors, tokens.vectors)


def test_rows_are_drawn_by_the_seed_and_go_on_where_they_were() -> None:
    _, tokenizer = made()
    virtual = [len(tokenizer) + k for k in range(3)]
    rows = PassageRows(tokenizer, ASKED, virtual=virtual, seed=1)
    seen = [rows.take(2) for _ in range(30)]
    counts = [{int((row >= virtual[0]).sum()) for row in batch.input_ids} for batch in seen]
    assert all(len(of) == 1 for of in counts)  # one k a batch
    assert set.union(*counts) == {1, 2, 3}
    again = PassageRows(tokenizer, ASKED, virtual=virtual, seed=1)
    for _ in range(10):
        again.take(2)
    other = PassageRows(tokenizer, ASKED, virtual=virtual, seed=1)
    other.restore(again.state())
    assert all(torch.equal(other.take(2).input_ids, batch.input_ids) for batch in seen[10:])
    drawn = [rows.drawn(2, epoch) for epoch in range(60)]
    assert {len(one.passages) for one in drawn} == {1, 2, 3}
    assert all(ASKED[2].passages[0] in one.passages for one in drawn)
    assert len({one.passages for one in drawn}) > 4
    assert {rows.drawn(0, epoch).answers[0] for epoch in range(20)} == set(ASKED[0].answers)


def test_saved_tokens_are_read_by_plain_transformers(tmp_path: Path) -> None:
    model, tokenizer = made()
    tokens = VirtualTokens(
        torch.randn(6, 32, generator=torch.Generator().manual_seed(0)), len(tokenizer), fingerprint(model)
    )
    tokens.save(tmp_path / "vectors")
    found = VirtualTokens.load(tmp_path / "vectors", model)
    assert torch.equal(found.vectors, tokens.vectors)
    passages, question, k = [PASSAGES[0]], "What is the capital of France?", 4
    with placed(model, found):
        (ours,) = generate(
            model, tokenizer, prompts(tokenizer, [Asked(question, tuple(passages))], found.ids(k)), max_new_tokens=5
        )
    # The lines of docs/retrieval.md:
    vectors = load_file(tmp_path / "vectors" / FILE)["vectors"]
    before = "".join(f"[{i}] {text}\n" for i, text in enumerate(passages, 1)) + "\n"
    read = tokenizer(before + f"Question: {question}\nAnswer:", return_offsets_mapping=True)
    cut = next(i for i, (_, end) in enumerate(read["offset_mapping"]) if end > len(before))
    words = model.get_input_embeddings()(torch.tensor(read["input_ids"]))
    given = torch.cat([words[:cut], vectors[:k], words[cut:]])[None]
    out = model.generate(
        inputs_embeds=given, attention_mask=torch.ones(given.shape[:2]), do_sample=False, max_new_tokens=5
    )
    assert tokenizer.decode(out[0], skip_special_tokens=True).strip() == ours


def test_tokens_of_another_are_refused(tmp_path: Path) -> None:
    model, tokenizer = made()
    tokens = VirtualTokens.of_text(model, tokenizer, 3)
    tokens.save(tmp_path)
    file = tmp_path / FILE
    for other, words in ((made(seed=1)[0], "belong to another model"), (made(hidden_size=16)[0], "width 16")):
        with pytest.raises(UserError, match=f"{FILE}: .*{words}"):
            VirtualTokens.load(tmp_path, other)
    with pytest.raises(UserError, match="no virtual tokens"):
        VirtualTokens.load(tmp_path / "nowhere", model)
    save_file({"vectors": torch.zeros(3, 32)}, file, metadata={"model": tokens.model, "digest": "x"})
    with pytest.raises(UserError, match="damaged"):
        VirtualTokens.load(tmp_path, model)
    file.write_bytes(b"no")
    with pytest.raises(UserError, match="damaged"):
        VirtualTokens.load(file, model)
    for k in (0, -1, 4):
        with pytest.raises(UserError, match=f"k must be from 1 to 3, .* not {k}"):
            tokens.ids(k)
    with pytest.raises(UserError, match="at least 1, not 0"):
        VirtualTokens.of_text(model, tokenizer, 0)
    with pytest.raises(UserError, match="finite"):
        VirtualTokens(torch.full((2, 3), torch.nan), 5, "")
    with placed(model, tokens), pytest.raises(UserError, match="already"), placed(model, tokens):
        pass
    with (
        pytest.raises(UserError, match="do not fit"),
        placed(model, VirtualTokens(torch.ones(2, 8), len(tokenizer), "")),
    ):
        pass


def test_no_passage_is_cut_or_lost_unsaid() -> None:
    _, tokenizer = made()
    lengths = [len(row) for row in prompts(tokenizer, ASKED)]
    whole, left = fitting(tokenizer, ASKED, 4, 3, max(lengths) + 20)
    assert (whole, left) == (ASKED, 0)
    fewer, left = fitting(tokenizer, ASKED[2:], 4, 3, lengths[2] + 4)
    assert left == 1
    assert fewer[0].passages == ASKED[2].passages[:2]
    with pytest.raises(UserError, match="When was Zoë.* 4 virtual tokens and 3 tokens .* the model's 20"):
        fitting(tokenizer, ASKED[1:2], 4, 3, 20)
    assert fitting(tokenizer, ASKED, 4, 3, None) == (ASKED, 0)


@pytest.mark.parametrize("lacking", ["passages", "answers"])
def test_nothing_to_train_on_is_refused(lacking: str) -> None:
    _, tokenizer = made()
    bad = Asked("What?", () if lacking == "passages" else ("a",), () if lacking == "answers" else ("a",))
    with pytest.raises(UserError, match=f"'What\\?': has no {lacking}"):
        PassageRows(tokenizer, [*ASKED, bad])


def test_one_step_is_that_of_the_plain_loop() -> None:
    """The stage's stream and the loop see one loss: that of the answers and their ends."""
    model, tokenizer = made()
    tokens = VirtualTokens.of_text(model, tokenizer, 4)
    rows = PassageRows(tokenizer, ASKED, virtual=tokens.ids(), seed=3)
    again = PassageRows(tokenizer, ASKED, virtual=tokens.ids(), seed=3)
    with placed(model, tokens):
        batch = again.take(2)
        keep = batch.targets != IGNORE
        with torch.no_grad():
            logits = model(input_ids=batch.input_ids).logits[keep]
        wanted = torch.nn.functional.cross_entropy(logits, batch.targets[keep]).item()
        state = TrainState(model, Recipe(steps=1, batch=2), parameters=[tokens.vectors])
        (step,) = train(state, rows)
    assert step.loss == pytest.approx(wanted, rel=1e-4)
