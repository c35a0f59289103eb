"""Knowledge capacity: the bits against independent counts, the losses against a naive loop, and a small run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn
from transformers import GPTNeoXConfig

from engramlab.base.errors import UserError
from engramlab.core import models
from engramlab.core.text import tokens
from engramlab.core.text.tokenizers import train_compact_tokenizer
from engramlab.core.training.loop import Recipe
from engramlab.corpora.biod import FIRST, NAME, REST, Biod, Shape
from engramlab.corpora.export import export
from engramlab.corpora.people import Pools
from engramlab.corpora.rewriting import RewrittenCorpus, people_table, rewritten, rewritten_questions, stated_in
from engramlab.corpora.sources.bios import Config as BiosConfig
from engramlab.corpora.sources.bios import bios
from engramlab.experiments import knowledge_capacity as capacity
from engramlab.experiments.knowledge_capacity import bits, networks, recipes
from engramlab.experiments.knowledge_capacity.reading import Biographies, Unread
from engramlab.experiments.knowledge_capacity.work import Cell, Run
from engramlab.experiments.knowledge_capacity.written import Written
from engramlab.files import records
from engramlab.report.experiments import knowledge_capacity as page
from engramlab.report.page import write_report

TINY = capacity.PRESETS["tiny"]
ATTRIBUTES = ("name", "gender", "birth_date", "birth_city", "university", "major", "employer")
SMALLEST = replace(
    TINY,
    sizes=("1x8",),
    people=(6, 12),
    exposures=3,
    permute=True,
    pools=Pools(3, 4, 5, 7, 6, 9, 5, 8),
    recipe=Recipe(batch=6, learning_rate=1e-2, warmup=2),
    evaluations=1,
)
BIOD = replace(SMALLEST, corpus="biod", permute=False, first_templates=None, pools=Pools())
CELL = Cell("gpt-neox", "1x8", 6)


class Knowing(nn.Module):
    """A language model to which exactly these texts (token rows, one may stand there twice) are possible, each as likely."""

    def __init__(self, work: Run, texts: list[list[int]]) -> None:
        super().__init__()
        self.texts, self.vocabulary = texts, len(work.reading.tokenizer)
        self.config = GPTNeoXConfig(max_position_embeddings=512, vocab_size=self.vocabulary)
        self.embedding, self.body = nn.Embedding(2, 2), nn.Linear(3, 3)
        self.head = nn.Identity()

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, input_ids: torch.Tensor, **_: object) -> SimpleNamespace:
        logits = torch.full((*input_ids.shape, self.vocabulary), -60.0)
        for row, ids in enumerate(input_ids.tolist()):
            fitting = self.texts
            for place, token in enumerate(ids):
                fitting = [text for text in fitting if len(text) > place and text[place] == token]
                follow = [text[place + 1] for text in fitting if len(text) > place + 1]
                for after in set(follow):
                    logits[row, place, after] = math.log(follow.count(after))
        return SimpleNamespace(logits=self.head(logits), past_key_values=None)


# the bits -----------------------------------------------------------------------------------------------------------


def _biographies(names: int, **sizes: int) -> bits.Biographies:
    return bits.Biographies(names, sizes, {"name": math.log(names), **{k: math.log(v) for k, v in sizes.items()}})


def test_the_paper_s_47_6_bits_a_person() -> None:
    """A gender, 200 x 12 x 28 dates, 200 cities, 300 universities, 100 majors, 263 employers."""
    pools = Pools()
    facts = _biographies(
        400 * 400 * 1000, gender=2, date=200 * 12 * 28, a=pools.birth_cities, b=pools.universities, c=100, d=263
    )
    nothing = dict.fromkeys(facts.sizes, 0.0)
    found = facts.bits(100_000, {"name": math.log(100_000), **nothing})
    assert found["possible_paper"] == pytest.approx(1e5 * (math.log2(1.6e8 / 1e5) + 47.6), rel=1e-3)
    assert found["bits_paper"] == pytest.approx(found["possible_paper"])


def test_all_that_can_be_known_is_the_number_of_possible_worlds() -> None:
    """All lists of names times all combinations of values, counted one by one, less what the order of a list says."""
    for names, people in ((5, 2), (6, 3), (7, 7)):
        facts = _biographies(names, city=3)
        worlds = sum(1 for _ in permutations(range(names), people)) * 3**people
        known = facts.bits(people, {"name": math.log(people), "city": 0.0})
        assert known["bits_unclamped"] == pytest.approx(math.log2(worlds) - people * math.log2(people))
        # A network that names people in their order would have paid nothing for it.
        assert sum(facts.parts(people, {"name": 0.0, "city": 0.0}).values()) == pytest.approx(math.log2(worlds))


def test_what_is_printed_of_names_is_ordered_as_the_theorem_says() -> None:
    """The definition's N0 counts too much, the theorem's N0 - N too little, and the exact number lies between them."""
    facts = _biographies(8000, city=30)
    for loss in (math.log(1600), 8.0, 30.0):
        found = facts.bits(1600, {"name": loss, "city": 1.0})
        assert found["bits_theorem"] < found["bits_unclamped"] < found["bits_paper"]
    # The figures of N = 1,600, N0 = 8,000: 515 bits are too many, of which the exact number takes back some 250.
    assert found["bits_paper"] - found["bits_theorem"] == pytest.approx(515, abs=0.5)
    assert found["bits_paper"] - found["bits_unclamped"] == pytest.approx(250, abs=5)
    full = facts.bits(8000, {"name": math.log(8000), "city": 0.0})
    assert full["possible_bits"] == pytest.approx(
        8000 * math.log2(30), rel=1e-3
    )  # all names are there: nothing to know
    assert all(math.isfinite(value) for value in full.values())


def test_guessing_is_worth_nothing_even_where_a_value_begins_another() -> None:
    values = [(1, 2), (1, 2, 3), (1, 2, 4), (5,), (6, 7)]
    # By hand: after (1, 2) three of five values are still possible, and one has nothing left to say.
    want = -(math.log(3 / 5) + 4 * math.log(1 / 5)) / 5
    assert bits.guess(values) == pytest.approx(want)
    assert bits.guess([(k,) for k in range(9)]) == pytest.approx(math.log(9))
    with pytest.raises(ValueError, match="differ"):
        bits.guess([(1,), (1,)])
    facts = bits.Biographies(100, {"a": 5}, {"name": math.log(100), "a": want})
    guessing = facts.bits(10, {"name": math.log(100), "a": want})
    assert guessing["bits"] == guessing["bits_a"] == 0.0
    assert guessing["bits_paper"] == pytest.approx(
        10 * (math.log2(5) - want / math.log(2))
    )  # the paper knows no prefixes
    worse = facts.bits(10, {"name": 20.0, "a": 20.0})
    assert worse["bits"] == 0.0
    assert worse["bits_unclamped"] < worse["bits_paper"] < -100


@pytest.mark.parametrize("total", [7, 1 << 41])
def test_numbers_of_lists(total: int) -> None:
    want = sum(math.log2(total - k) for k in range(5))
    assert bits.log2_lists(total, 5) == pytest.approx(want, rel=1e-9)
    assert bits.log2_lists(3, 4) == -math.inf


# bioD ---------------------------------------------------------------------------------------------------------------


def test_the_worlds_of_biod_by_enumeration() -> None:
    """Every way of drawing D of T^L chunks and then values; what is rarer has more bits, and their mean is the entropy."""
    people, c, d, t, length = 2, 1, 2, 2, 2
    ways: dict[tuple[int, ...], float] = {}
    lists = list(permutations(range(t**length), d))
    for chunks in lists:
        for value in product(range(d), repeat=people * c):
            said = tuple(chunks[k] for k in value)
            ways[said] = ways.get(said, 0.0) + 1 / len(lists) / d ** (people * c)
    assert sum(ways.values()) == pytest.approx(1)
    for said, chance in ways.items():
        facts = bits.Chunks(10, 1, c, d, length, t, (len(set(said)),))
        assert facts.worlds(people) == pytest.approx(-math.log2(chance))


def test_the_three_terms_of_biod() -> None:
    facts = bits.Chunks(8000, 3, 2, 40, 2, 50, (40, 40, 40))
    known = facts.bits(1000, {"name": math.log(1000), "value": 0.0, "first_chunk": 0.0})
    assert known["bits_paper"] == pytest.approx(known["possible_paper"])
    assert known["paper_name"] == pytest.approx(1000 * math.log2(7000 / 1000))
    assert known["paper_value"] == pytest.approx(1000 * 3 * 2 * math.log2(40))
    assert known["paper_diversity"] == pytest.approx(3 * 40 * math.log2((2500 - 40) / 40))
    assert known["bits_theorem"] == pytest.approx(sum(known[f"paper_{k}"] for k in ("name", "value", "diversity")))
    # Ours may say no less than the theorem, whose chunks are told with a loss of their own.
    assert known["bits_unclamped"] > known["bits_theorem"]
    assert known["bits"] == pytest.approx(known["possible_bits"])
    guess = {"name": math.log(8000), "value": 4 * math.log(50), "first_chunk": 2 * math.log(50)}
    assert facts.bits(1000, guess)["bits"] == 0.0
    assert facts.bits(1000, guess)["bits_theorem"] < 0


def test_the_entries_of_biod() -> None:
    shape = Shape(attributes=3, chunks=2, diversity=5, length=2, alphabet=7, name_tokens=4)
    corpus = Biod(20, shape, seed=3, exposures=4)
    ids, marks = corpus.entries(np.arange(len(corpus)))
    assert ids.shape == (80, 3 + 3 * 5)
    assert len({tuple(row) for row in ids[:20, :3].tolist()}) == 20  # every name once
    assert (ids[:20, :3] == ids[20:40, :3]).all()  # the same people in every exposure
    read: dict[tuple[int, int], tuple[int, ...]] = {}
    chunks: dict[int, set[tuple[int, ...]]] = {}
    for entry, (row, mark) in enumerate(zip(ids.tolist(), marks.tolist(), strict=True)):
        assert mark == [NAME] * 3 + 3 * ([0] + [FIRST] * 2 + [REST] * 2)
        assert sorted(row[3::5]) == [5, 6, 7]  # every attribute once
        for k in range(3, 18, 5):
            value = tuple(row[k + 1 : k + 5])
            assert read.setdefault((entry % 20, row[k]), value) == value  # and the same value every time
            chunks.setdefault(row[k], set()).update((value[:2], value[2:]))
    assert [len(chunks[5 + a]) for a in range(3)] == list(corpus.used())
    assert all(len(found) <= 5 for found in chunks.values())
    assert len({tuple(row[3::5]) for row in ids.tolist()}) > 1  # in an order of its own
    fresh, _ = corpus.entries(np.array([80]))  # drawn anew, about the first person
    assert (fresh[0, :3] == ids[0, :3]).all()


# the losses ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, list[list[int]]]:
    """A world so small that all its texts can be written down: 24 names, no more than two values of anything."""
    config = replace(
        SMALLEST,
        people=(6,),
        texts="once",
        permute=False,
        first_templates=1,
        pools=Pools(2, 3, 4, 1, 2, 2, 2, 2),
        exposures=1,
    )
    work = Run(config, tmp_path_factory.mktemp("world"), console=Console(quiet=True))
    assert isinstance(work.reading, Biographies)
    assert work.reading.dataset == "bioS^simple"
    corpus, read = work.reading.corpus(6), work.reading
    return work, [
        [read.end, *read.tokenizer(corpus.passage(i).text, add_special_tokens=False)["input_ids"]] for i in range(6)
    ]


def _alternatives(work: Run, texts: list[list[int]], attribute: str, right: Callable[[int], bool]) -> list[list[int]]:
    """Texts in which this attribute of the people it is wrong about is any of the pool's, each as often."""
    corpus = work.reading.corpus(6)  # type: ignore[attr-defined]
    a = corpus.attributes.index(attribute)
    pool = sorted({corpus.population.pieces[p] for p in corpus.population.value_examples(a).ravel()})
    found = []
    for i, text in enumerate(texts):
        said = corpus.passage(i).text
        value = corpus.population.value(i, a)
        for other in [value] * len(pool) if right(i) else [p.strip() for p in pool]:
            changed = said.replace(f" {value}", f" {other}")
            found.append([text[0], *work.reading.tokenizer(changed, add_special_tokens=False)["input_ids"]])
    return found


def test_a_model_that_knows_everything_has_all_the_bits(world: tuple[Run, list[list[int]]]) -> None:
    work, texts = world
    found = work.measure(Knowing(work, texts), CELL, 6)
    assert found["loss_name"] == pytest.approx(math.log(6), abs=1e-5)
    values = 6 * (math.log2(12 * 28) + 4 + math.log2(3))  # one year; two of everything else; three pronouns
    assert found["bits_paper"] == pytest.approx(6 * math.log2(24 / 6) + values, rel=1e-5)
    assert found["ratio"] == pytest.approx(found["ratio_most"], rel=1e-5)
    assert found["bits"] == pytest.approx(math.log2(math.perm(24, 6)) - 6 * math.log2(6) + values, rel=1e-5)
    assert found["share"] == pytest.approx(1.0)
    assert found["loss_work_city"] == pytest.approx(0, abs=1e-5)


def test_a_model_that_knows_half_of_the_people_s_majors_has_half_of_those_bits(
    world: tuple[Run, list[list[int]]],
) -> None:
    work, texts = world
    for known in (0, 3):
        mixed = _alternatives(work, texts, "major", lambda i, known=known: i < known)
        found = work.measure(Knowing(work, mixed), CELL, 6)
        assert found["bits_major"] == pytest.approx(known * 1.0, abs=1e-4)  # one bit each: two majors
        assert found["bits_university"] == pytest.approx(6.0, rel=1e-5)
        assert found["bits_name"] == pytest.approx(math.log2(math.perm(24, 6)) - 6 * math.log2(6), rel=1e-5)


def test_an_untrained_model_has_no_bits(tmp_path: Path) -> None:
    for config in (SMALLEST, BIOD):
        work = Run(replace(config, people=(60,)), tmp_path, console=Console(quiet=True))
        cell = replace(CELL, people=60)
        found = work.measure(work.model(cell).eval(), cell, 60)
        assert found["share"] < 0.01
        assert found["ratio"] < 0
        assert found["bits_unclamped"] < 0


@pytest.mark.parametrize("vocabulary", [16_384, 300])
def test_losses_are_those_of_a_loop_over_characters(tmp_path: Path, vocabulary: int) -> None:
    """A random model, every value found in the text by its span, one token after the other; entries that it never read."""
    work = Run(replace(SMALLEST, vocabulary=vocabulary, context=400), tmp_path, console=Console(quiet=True))
    read = work.reading
    assert isinstance(read, Biographies)
    model = models.build("1x8", read.tokenizer, context=400, seed=3).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(8)  # far from uniform
    trained, corpus = read.corpus(12), read.corpus(12, exposures=4)
    seen = {trained.passage(i).text for i in range(len(trained))}
    want: dict[str, float] = {}
    cities = 0
    for person in range(12):
        passage = corpus.passage(3 * 12 + person)
        assert passage.text not in seen
        (ids,), (offsets,) = tokens.encode(read.tokenizer, [passage.text])
        with torch.no_grad():
            logprobs = model(torch.tensor([[read.end, *ids]])).logits[0].log_softmax(-1)
        losses = {}
        for span in passage.spans:
            name = "name" if span.kind == "subject" else span.relation
            first, last = tokens.token_span(offsets, span.start, span.end)
            losses[name] = -sum(float(logprobs[k, ids[k]]) for k in range(first, last))
        starts = {span.relation: span.start for span in passage.spans}
        if starts["work_city"] < starts["employer"]:
            losses["employer"] += losses["work_city"]
            cities += 1
        if vocabulary < 1000:  # where words are cut up, pronouns are, and are judged by the next test
            want = {name: want.get(name, 0.0) + loss / 12 for name, loss in losses.items()}
            continue
        words = {"He", "he", "She", "she", "They", "they", "His", "his", "Her", "her", "Their", "their", "him", "them"}
        spoken = [read.tokenizer.decode([t]).strip(" .,") for t in ids]
        at = next(k for k, word in enumerate(spoken) if word in words | {"himself", "herself", "themselves"})
        others = next(
            kind
            for kind in (("He", "She", "They"), ("he", "she", "they"), ("his", "her", "their"), ("His", "Her", "Their"))
            if spoken[at] in kind
        )
        rivals = [read.tokenizer.convert_tokens_to_ids(f"\u0120{word}") for word in others]
        losses["gender"] = float(logprobs[at, rivals].logsumexp(0) - logprobs[at, ids[at]])
        want = {name: want.get(name, 0.0) + loss / 12 for name, loss in losses.items()}
    assert 0 < cities < 12
    found = read.losses(model, 12, 12)
    if vocabulary < 1000:
        assert found.pop("gender") > 0
    assert found == pytest.approx(want, rel=1e-4)
    assert len(set(map(round, found.values()))) > 2


def test_whoever_knows_no_pronoun_pays_for_one_of_three_however_they_are_cut_up(tmp_path: Path) -> None:
    class Flat(nn.Module):
        """To which every token is as likely as any other."""

        def __init__(self, size: int) -> None:
            super().__init__()
            self.size, self.weight, self.head = size, nn.Parameter(torch.zeros(1)), nn.Identity()
            self.config = GPTNeoXConfig(max_position_embeddings=512, vocab_size=size)

        def get_output_embeddings(self) -> nn.Module:
            return self.head

        def forward(self, input_ids: torch.Tensor, **_: object) -> SimpleNamespace:
            return SimpleNamespace(logits=self.head(torch.zeros(*input_ids.shape, self.size)), past_key_values=None)

    for vocabulary in (16_384, 300):
        config = replace(SMALLEST, vocabulary=vocabulary, context=400)
        read = Run(config, tmp_path / str(vocabulary), console=Console(quiet=True)).reading
        assert isinstance(read, Biographies)
        found = read.losses(Flat(len(read.tokenizer)), 12, 12)["gender"]
        # At the first token that differs: one of three, or one of two where two begin alike and are told apart later.
        assert math.log(2) - 1e-6 <= found <= math.log(4) + 1e-6
        assert vocabulary < 1000 or found == pytest.approx(math.log(3))


@pytest.mark.parametrize("preset", capacity.PRESETS)
def test_no_measured_text_was_read_in_training(tmp_path: Path, preset: str) -> None:
    """Of any preset, with few people; of bioS^simple there is but one text a person, and the summary says so."""
    few = replace(capacity.PRESETS[preset], people=(7,), pools=SMALLEST.pools, junk_people=5)
    work = Run(few, tmp_path, console=Console(quiet=True))
    (trained, *_) = work.reading.tables(7, "alone")
    rows = trained.tokens(np.arange(len(trained)))
    read = Counter(rows.row(i).tobytes() for i in range(len(rows)))
    measured = work.reading.measured(7, np.arange(7))
    times = [read[measured.row(i).tobytes()] for i in range(7)]
    simple = preset == "tiny-simple"
    assert times == [1] * 7 if simple else [0] * 7
    assert work.reading.read_share(7, 7) == float(simple)
    if simple:
        return
    # Everybody is read about as often as asked, and a text that was taken out is one of many others.
    assert len(trained) == 7 * few.exposures
    assert isinstance(trained, Unread)
    numbers = trained.numbers(np.arange(len(trained)))
    assert (numbers % 7 == np.arange(len(trained)) % 7).all()
    changed = numbers[numbers != np.arange(len(trained))]
    if preset in ("tiny", "tiny-1000", "tiny-biod"):  # 64 texts a person, or 120
        assert len(changed) > 7
        assert (changed // 7 > few.exposures).all()


def test_people_of_whom_there_is_but_one_text_are_measured_on_it_and_the_row_says_so(tmp_path: Path) -> None:
    single = replace(BIOD, people=(6,), biod=Shape(attributes=1, diversity=5))
    for config in (single, replace(SMALLEST, people=(6,), permute=False, first_templates=1)):
        work = Run(config, tmp_path, console=Console(quiet=True))
        assert work.reading.read_share(6, 6) == 1.0


# the whole ----------------------------------------------------------------------------------------------------------


def test_a_small_run_its_report_and_going_on(tmp_path: Path) -> None:
    summary = capacity.run(SMALLEST, tmp_path / "run", console=Console(quiet=True))
    assert [(row["size"], row["people"]) for row in summary["rows"]] == [("1x8", 6), ("1x8", 12)]
    for row, stage in zip(summary["rows"], summary["training"], strict=True):
        assert stage["steps"] == row["steps"] == row["people"] * 3 / 6  # three exposures in batches of six
        model = models.build("1x8", models.load_tokenizer(str(tmp_path / "run" / "tokenizer")), context=96)
        assert row["parameters"] == row["parameters_all"] == sum(p.numel() for p in model.parameters())
        assert row["body"] == row["parameters"] - model.get_input_embeddings().weight.numel()  # type: ignore[operator]
        assert row["bits"] == pytest.approx(sum(row[f"bits_{name}"] for name in ATTRIBUTES))
        assert row["bits_per_parameter"] == row["bits"] / row["parameters"]
        assert row["read_in_training"] == 0.0
    written = write_report([tmp_path / "run"], tmp_path / "page.html").read_text()
    assert "2404.05405" in written
    assert "1x8, all there is" in written
    # A cell that is lost is made again to the same numbers; the other is not touched.
    kept = tmp_path / "run" / "1x8-6people" / "train" / "done.json"
    before = kept.stat().st_mtime_ns
    (tmp_path / "run" / "1x8-12people" / "train" / "done.json").unlink()
    (tmp_path / "run" / "summary.json").unlink()
    again = capacity.run(SMALLEST, tmp_path / "run", console=Console(quiet=True))
    assert again["rows"] == summary["rows"]
    assert kept.stat().st_mtime_ns == before
    assert records.read_record(tmp_path / "run" / "summary.json") == again


def test_a_run_of_before_goes_on_with_what_it_has(tmp_path: Path) -> None:
    """Its models were measured once, and had no kinds; the page has them beside those that are made now."""
    config = replace(SMALLEST, exposures=1)
    summary = capacity.run(config, tmp_path / "run", console=Console(quiet=True))
    done = tmp_path / "run" / "1x8-6people" / "train" / "done.json"
    record = records.read_record(done)
    new = {"arm", "numbers", "corpus", "network", "mixture", "batch", "learning_rate", "weight_decay", "steps"}
    (row,) = record.pop("rows")
    record["row"] = {k: v for k, v in row.items() if k not in new and not k.startswith("ratio")}
    records.write_record(done, record)
    (tmp_path / "run" / "summary.json").unlink()
    again = capacity.run(config, tmp_path / "run", console=Console(quiet=True))
    assert again["rows"][1:] == summary["rows"][1:]
    assert {"bits", "people", "size"} <= again["rows"][0].keys()
    assert "1x8" in write_report([tmp_path / "run"], tmp_path / "page.html").read_text()


def test_exposures_in_packed_rows(tmp_path: Path) -> None:
    """The number of steps covers so many entries, whatever the layout: mean length and an end token each."""
    work = Run(replace(SMALLEST, layout="packed", exposures=100), tmp_path, console=Console(quiet=True))
    read = work.reading
    assert isinstance(read, Biographies)
    corpus = read.corpus(12)
    total = sum(len(read.tokenizer(corpus.passage(i).text)["input_ids"]) for i in range(1200))
    assert work.steps(replace(CELL, people=12)) == pytest.approx(total / (6 * 96), abs=2)


def _bior(folder: Path, people: int, texts: int) -> Path:
    """A folder of bioR: bioS's sentences, opened by something and with the name said twice."""
    corpus = bios(BiosConfig(0, people, pools=SMALLEST.pools), f"multi{texts}+permute+fullname")
    population = corpus.population
    said = ["It is known: " + corpus.passage(i).text for i in range(len(corpus))]
    whom = [i % people for i in range(len(corpus))]
    spans = []
    for text, person in zip(said, whom, strict=True):
        values = [population.value(person, a) for a in range(6)]
        spans.append(stated_in(text, population.name(person), values).spans)
    names = {name: [population.value(i, a) for i in range(people)] for a, name in enumerate(corpus.attributes)}
    names |= {"name": [population.name(i) for i in range(people)], "pronoun": ["she"] * people}
    made = RewrittenCorpus(people_table(names), said, whom, spans)
    return export(made, rewritten_questions(made), folder, about={}, entry_columns={"tries": made.tries})


def test_bior_is_measured_on_each_one_s_last_text(tmp_path: Path) -> None:
    folder = _bior(tmp_path / "bior", 12, 3)
    config = replace(
        SMALLEST,
        corpus="bior",
        written=folder,
        people=(12,),
        exposures=4,
        permute=False,
        first_templates=None,
        context=200,
    )
    work = Run(config, tmp_path / "run", console=Console(quiet=True))
    read = work.reading
    assert isinstance(read, Written)
    assert sorted(read.trained.tolist()) == list(range(24))
    assert read.last.tolist() == list(range(24, 36))
    assert work.steps(replace(CELL, people=12)) == 12 * 4 / 6
    model = models.build("1x8", read.tokenizer, context=200, seed=3).eval()
    corpus = rewritten(folder)
    want: dict[str, float] = {}
    for entry in range(24, 36):
        passage = corpus.passage(entry)
        (ids,), (offsets,) = tokens.encode(read.tokenizer, [passage.text])
        with torch.no_grad():
            logprobs = model(torch.tensor([[read.end, *ids]])).logits[0].log_softmax(-1)
        losses: dict[str, float] = {}
        starts = {span.relation: span.start for span in passage.spans}
        for span in passage.spans:
            first, last = tokens.token_span(offsets, span.start, span.end)
            loss = -sum(float(logprobs[k, ids[k]]) for k in range(first, last))
            losses.setdefault("name" if span.kind == "subject" else span.relation, loss)  # the first mention
        if starts["work_city"] < starts["employer"]:
            losses["employer"] += losses["work_city"]
        want = {name: want.get(name, 0.0) + loss / 12 for name, loss in losses.items()}
    found = work.measure(model, replace(CELL, people=12), 12)
    assert {name: found[f"loss_{name}"] for name in want} == pytest.approx(want, rel=1e-4)
    assert "bits_gender" not in found
    summary = capacity.run(config, tmp_path / "run", console=Console(quiet=True))
    assert summary["rows"][0]["corpus"] == "bioR"
    with pytest.raises(UserError, match="--people 12"):
        Run(replace(config, people=(11,)), tmp_path / "other", console=Console(quiet=True))


# junk ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["entries", "packed"])
@pytest.mark.parametrize("mixture", ["junk", "junk+domain", "repeated", "repeated+domain"])
def test_seven_of_eight_rows_are_junk(tmp_path: Path, mixture: str, layout: str) -> None:
    """In the actual batches: whose rows they are, how often each of the people is read about, and where the domain stands."""
    config = replace(
        SMALLEST,
        people=(6,),
        exposures=40,
        mixtures=(mixture,),
        pools=Pools(20, 20, 20, 7, 6, 9, 5, 8),
        repeated_people=2,
        layout=layout,
    )
    work = Run(config, tmp_path, console=Console(quiet=True))
    read, cell = work.reading, replace(CELL, mixture=mixture)
    assert isinstance(read, Biographies)
    ours = [tuple(row) for row in _names(work, range(6), mixture)]
    junk = {tuple(row) for row in _names(work, range(6, 2006), mixture)[:2000]}
    stream, domain = read.stream(6, mixture), read.tokenizer.convert_tokens_to_ids("<|domain|>")
    rows: list[list[int]] = []
    sources: list[int] = []
    for _ in range(work.steps(cell)):
        batch = stream.take(6)
        rows += batch.input_ids.tolist()
        sources += batch.source.tolist()
    assert np.mean(sources) == pytest.approx(7 / 8, abs=0.03)
    counts = Counter[tuple[int, ...]]()
    for row, source in zip(rows, sources, strict=True):
        led = "+domain" in mixture and not source
        assert (domain in row) == led
        for start in [k for k, token in enumerate(row[:-5]) if token == read.end]:
            name = tuple(row[start + 1 + led : start + 4 + led])
            if len(set(name)) == 3:
                assert (name in ours) != (source == 1)
            counts[name] += 1
    told = [counts[name] for name in ours]
    if layout == "entries":
        assert sum(told) / 6 == pytest.approx(40, rel=0.25)
        others = [n for name, n in counts.items() if name in junk]
        assert max(others) == 1 if mixture.startswith("junk") else len(others) == 2


def _names(work: Run, people: range, mixture: str) -> list[list[int]]:
    population = work.reading.corpus(6, mixture).population  # type: ignore[attr-defined]
    texts = [population.name(i) for i in people if i < len(population)]
    return [work.reading.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]


# networks and numbers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "matrices"),
    [
        ("gpt-neox", 8),
        ("gpt-neox+gated", 8),
        ("gpt-neox+mlp1/4", 2),
        ("gpt-neox+nomlp", 0),
        ("gpt-neox+untied", 8),
        ("llama+untied", 8),
        ("llama+plain", 8),
        ("llama+mlp1/4", 2),
    ],
)
def test_what_is_changed_of_a_network(tmp_path: Path, name: str, matrices: int) -> None:
    """An MLP of so many squares of the width, whatever its kind, with gradients, and all that is not changed as it was."""
    work = Run(SMALLEST, tmp_path, console=Console(quiet=True))
    cell = replace(CELL, network=name, size="2x24")
    model = work.model(cell)
    mlp = models.module_paths(model).layers + ".0.mlp"
    found = sum(p.numel() for p in model.get_submodule(mlp).parameters() if p.ndim == 2)
    assert found == matrices * 24 * 24
    ids = torch.randint(1, len(work.reading.tokenizer), (2, 9))
    model(ids, labels=ids).loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for n, p in model.named_parameters() if "mlp" in n)
    assert torch.equal(model(ids).logits, work.model(cell)(ids).logits)
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight  # type: ignore[operator]
    assert tied == ("untied" not in name)
    names = work.measure(model.eval(), cell, 6)
    embeddings = len(work.reading.tokenizer) * 24 * (1 if tied else 2)
    assert names["body"] == names["parameters"] - embeddings


def test_embeddings_of_tokens_that_never_occur_are_no_parameters(tmp_path: Path) -> None:
    plain = Run(replace(SMALLEST, vocabulary=300, context=400), tmp_path / "plain", console=Console(quiet=True))
    shown = [plain.reading.corpus(12).passage(i).text for i in range(36)]  # type: ignore[attr-defined]
    other = [f"Quite unlike number {i}, the {i * 7919} tortoises dreamt on." for i in range(300)]
    train_compact_tokenizer([*shown, *other], 900).save_pretrained(tmp_path / "large")
    config = replace(SMALLEST, tokenizer=str(tmp_path / "large"), context=400)
    work = Run(config, tmp_path / "run", console=Console(quiet=True))
    size, read = len(work.reading.tokenizer), work.reading
    # Whoever reads all that the corpus could say, in any order, meets so many tokens.
    every = {read.end}
    for seed in range(40):
        made = bios(BiosConfig(seed, 12, pools=SMALLEST.pools, first_templates=2), "multi2+permute")
        every |= {
            int(i)
            for k in range(24)
            for i in read.tokenizer(made.passage(k).text, add_special_tokens=False)["input_ids"]
        }
    assert len(every) <= read.occurring < size - 100
    for name, matrices in (("gpt-neox", 1), ("gpt-neox+untied", 2)):
        cell = replace(CELL, network=name)
        model = work.model(cell).eval()
        found = work.measure(model, cell, 6)
        assert found["parameters_all"] == sum(p.numel() for p in model.parameters())
        assert found["parameters_all"] - found["parameters"] == (size - read.occurring) * 8 * matrices
        assert found["bits_per_parameter"] == found["bits"] / found["parameters"]


def test_rounding_keeps_within_half_a_step_of_each_row() -> None:
    torch.manual_seed(0)
    for size in (8, 4):
        model = nn.Sequential(nn.Linear(50, 30), nn.LayerNorm(30))
        weight, bias = model[0].weight.detach().clone(), model[0].bias.detach().clone()
        networks.quantise(model, size)
        scale = weight.abs().amax(1, keepdim=True) / (2 ** (size - 1) - 1)
        assert ((model[0].weight - weight).abs() <= scale / 2 * 1.0001).all()
        steps = (model[0].weight / scale).detach()
        assert torch.allclose(steps, steps.round(), atol=1e-4)
        assert steps.round().unique().numel() <= 2**size - 1
        assert torch.equal(model[0].bias, bias)
        assert (networks.quantise(nn.Linear(2, 2, bias=False).requires_grad_(False), size).weight.isfinite()).all()


def test_a_run_of_several_arms(tmp_path: Path) -> None:
    config = replace(
        SMALLEST,
        people=(6,),
        exposures=1,
        networks=("gpt-neox", "llama+untied"),
        mixtures=("alone", "repeated+domain"),
        repeated_people=2,
        quantised=(8,),
        learning_rates=(1e-2, 3e-3),
    )
    summary = capacity.run(config, tmp_path / "run", console=Console(quiet=True))
    arms = [row["arm"] for row in summary["rows"]]
    assert len(arms) == len(set(arms)) == 16
    assert "llama+untied, repeated+domain, rate 0.003, int8" in arms
    assert {row["learning_rate"] for row in summary["rows"]} == {1e-2, 3e-3}
    written = write_report([tmp_path / "run"], tmp_path / "page.html").read_text()
    for arm in arms:
        assert f"1x8, {arm}" in written
    assert "Kinds of models and texts" in written
    assert "R is at most 2.3" in written
    assert "The paper advises at least 50,000 steps" in written


def test_what_the_paper_says_stands_beside_a_kind_that_differs_in_one_thing() -> None:
    plain = {"network": "gpt-neox", "mixture": "alone", "numbers": "float32", "exposures": 100}
    for change, want in (
        ({}, None),
        ({"mixture": "junk"}, 20),
        ({"mixture": "junk+domain"}, 2),
        ({"mixture": "junk", "exposures": 1000}, 1.3),
        ({"mixture": "junk", "exposures": 50}, None),
        ({"mixture": "repeated"}, None),
        ({"network": "gpt-neox+gated"}, 1.3),
        ({"network": "llama+untied"}, 1.3),
        ({"network": "llama+untied+plain"}, None),
        ({"network": "gpt-neox+gated", "exposures": 1000}, None),
        ({"numbers": "int8", "exposures": 1000}, 1),
        ({"numbers": "int4", "exposures": 1000}, 2 / 0.7),  # 0.35 times: 0.7 bits a parameter of 2
        ({"numbers": "int8"}, None),
        ({"numbers": "int4"}, None),
        ({"numbers": "int4", "mixture": "junk"}, None),
    ):
        row = {**plain, **change}
        assert page._published(row, {**plain, "exposures": row["exposures"]}) == want, change


def test_the_page_of_biod_has_the_three_terms(tmp_path: Path) -> None:
    config = replace(BIOD, people=(20,))
    (row,) = capacity.run(config, tmp_path / "run", console=Console(quiet=True))["rows"]
    assert row["bits_theorem"] == pytest.approx(sum(row[f"paper_{k}"] for k in ("name", "value", "diversity")))
    assert row["corpus"] == "bioD"
    written = write_report([tmp_path / "run"], tmp_path / "page.html").read_text()
    assert "What of bioD is stored" in written


def test_the_paper_s_recipes() -> None:
    for people, exposures, want in (
        (10_000, 1000, (0.02, 1e-3, 24)),
        (1_600, 1000, (0.02, 1e-3, 24)),
        (200_000, 1000, (0.02, 1e-3, 192)),
        (500_000, 1000, (0.01, 5e-4, 192)),
        (2_000_000, 1000, (0.005, 3e-4, 1536)),
        (10_000_000, 1000, (0.001, 3e-4, 1536)),
        (50_000, 100, (0.02, 1e-3, 12)),
        (20_000_000, 100, (0.001, 3e-4, 1536)),
        (1_600, 100, (0.02, 1e-3, 12)),
        (100_000, 100, (0.02, 1e-3, 24)),  # 21 on the straight line
        (1_000_000, 100, (0.01, 5e-4, 192)),  # 137
    ):
        made = recipes.of_people(Recipe(eps=1e-8), people, exposures)
        assert (made.weight_decay, made.learning_rate, made.batch) == want
    paper = capacity.PRESETS["paper"]
    assert paper.recipe_of(10_000, None).batch == 24
    assert paper.recipe.eps == 1e-8


def test_recipes_and_rates_beside_a_preset_s_own_recipe() -> None:
    for preset in capacity.PRESETS.values():
        capacity.check(preset)
        capacity.check(replace(preset, recipes="paper"))
        capacity.check(replace(preset, learning_rates=(1e-3, 3e-3)))
        capacity.check(
            replace(preset, recipes="paper", recipe=replace(preset.recipe, warmup=7), learning_rates=(1e-3,))
        )
        batch = replace(preset.recipe, batch=40)
        capacity.check(replace(preset, recipes="given", recipe=batch, learning_rates=(1e-3,)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sizes": ()}, "sizes: name at least one"),
        ({"sizes": ("1y8",)}, "LAYERSxWIDTH"),
        ({"sizes": ("1x12",)}, "multiple of 8"),
        ({"people": (5, 5)}, "twice"),
        ({"people": (0,)}, "at least 1"),
        ({"people": (61,)}, "unique names"),
        ({"exposures": 0}, "exposures"),
        ({"permute": True, "texts": "once"}, "permute"),
        ({"networks": ("gpt-neox+wide",)}, "behind the family"),
        ({"networks": ("gpt-neox+gated+nomlp",)}, "both"),
        ({"networks": ("nothing",)}, "nothing"),
        ({"mixtures": ("junk",), "people": (60,)}, "no name is left"),
        ({"mixtures": ("junk",), "corpus": "biod"}, "mixtures"),
        ({"corpus": "biod", "permute": False}, "first_templates: plays no part with --corpus biod; leave it at None"),
        (
            {"corpus": "biod", "permute": False, "texts": "once"},
            "texts: plays no part with --corpus biod; leave it at anew",
        ),
        ({"biod": Shape(attributes=2)}, "biod: plays no part with --corpus bios; leave it out, with all its options"),
        ({"junk_share": 0.5}, "junk_share: plays no part without --mixtures; leave it at 0.875"),
        ({"mixtures": ("repeated",), "junk_people": 9}, "junk_people: plays no part without --mixtures junk"),
        ({"repeated_people": 9}, "repeated_people: plays no part without --mixtures repeated"),
        ({"networks": ("llama",), "family": "llama"}, "family: plays no part with --networks"),
        (
            {"recipes": "paper", "recipe": replace(TINY.recipe, weight_decay=0.5)},
            "recipe.weight_decay: plays no part with --recipes paper, .* leave it out .at 0.01.",
        ),
        (
            {"recipes": "paper", "recipe": replace(TINY.recipe, batch=48)},
            "recipe.batch: plays no part with --recipes paper",
        ),
        (
            {"recipes": "paper", "recipe": replace(capacity.PRESETS["paper"].recipe, learning_rate=1e-2)},
            "recipe.learning_rate: plays no part with --recipes paper, .* leave it out .at 0.001.",
        ),
        (
            {"learning_rates": (1e-2, 3e-3), "recipe": replace(TINY.recipe, learning_rate=1e-3)},
            "recipe.learning_rate: plays no part with --learning-rates, .* leave it out .at 0.01.",
        ),
        ({"junk_share": 1.0}, "junk_share"),
        ({"corpus": "bior"}, "--written"),
        ({"learning_rates": (0.0,)}, "learning_rates"),
        ({"learning_rates": (1e-3, 1.0000001e-3)}, "learning_rates: '0.001' is there twice"),
        ({"context": 20}, "context"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(tmp_path: Path, change: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        capacity.run(replace(SMALLEST, **change), tmp_path / "run", console=Console(quiet=True))
    assert not (tmp_path / "run").exists()
