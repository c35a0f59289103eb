"""Knowledge capacity: the bits against independent counts, the losses against a naive loop, and a small run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from torch import nn

from engramlab.base.errors import UserError
from engramlab.core import models
from engramlab.core.text import tokens
from engramlab.core.training.loop import Recipe
from engramlab.corpora.people import Pools
from engramlab.experiments import knowledge_capacity as capacity
from engramlab.experiments.knowledge_capacity import bits
from engramlab.experiments.knowledge_capacity.work import Run
from engramlab.files import records
from engramlab.report.page import write_report

TINY = capacity.PRESETS["tiny"]
ATTRIBUTES = ("name", "birth_date", "birth_city", "university", "major", "employer")
SMALLEST = replace(
    TINY,
    sizes=("1x8",),
    people=(6, 12),
    exposures=3,
    pools=Pools(3, 4, 5, 7, 6, 9, 5, 8),
    recipe=Recipe(batch=6, learning_rate=1e-2, warmup=2),
    evaluations=1,
)


class Knowing(nn.Module):
    """A language model to which exactly these texts (token rows, one may stand there twice) are possible, each as likely."""

    def __init__(self, work: Run, texts: list[list[int]]) -> None:
        super().__init__()
        self.texts, self.vocabulary = texts, len(work.tokenizer)
        self.config = SimpleNamespace(max_position_embeddings=512, model_type="gpt_neox")
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


def test_the_paper_s_46_6_bits_a_person() -> None:
    """200 x 12 x 28 dates, 200 cities, 300 universities, 100 majors, 263 employers; the paper adds one bit of gender."""
    pools = Pools()
    sizes = [200 * 12 * 28, pools.birth_cities, pools.universities, pools.majors, pools.companies]
    guesses = {"name": math.log(400 * 400 * 1000), **{str(i): math.log(size) for i, size in enumerate(sizes)}}
    found = bits.possible(100_000, guesses)
    assert sum(v for k, v in found.items() if k != "name") == pytest.approx(1e5 * (math.log2(math.prod(sizes))))
    assert math.log2(math.prod(sizes)) == pytest.approx(47.6 - 1, abs=0.05)
    assert found["name"] == pytest.approx(1e5 * math.log2(1.6e8 / 1e5))


def test_all_that_can_be_known_is_nearly_the_number_of_possible_worlds() -> None:
    """log2 of the number of sets of N names, times all combinations of values: short of it by at most N log2(e)."""
    for names, people in ((50, 5), (1000, 40), (10**6, 3000)):
        guesses = {"name": math.log(names), "city": math.log(7)}
        worlds = math.log2(math.comb(names, people)) + people * math.log2(7)
        counted = sum(bits.possible(people, guesses).values())
        assert worlds - people * math.log2(math.e) < counted <= worlds


def test_guessing_is_worth_nothing_even_where_a_value_begins_another() -> None:
    values = [(1, 2), (1, 2, 3), (1, 2, 4), (5,), (6, 7)]
    # By hand: after (1, 2) three of five values are still possible, and one has nothing left to say.
    want = -(math.log(3 / 5) + 4 * math.log(1 / 5)) / 5
    assert bits.guess(values) == pytest.approx(want)
    assert bits.guess([(k,) for k in range(9)]) == pytest.approx(math.log(9))
    assert bits.stored(10, {"a": want}, {"a": want}) == {"a": 0.0}
    assert bits.stored(10, {"a": want}, {"a": want + 3}) == {"a": 0.0}
    with pytest.raises(ValueError, match="differ"):
        bits.guess([(1,), (1,)])


# the losses ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, list[list[int]]]:
    """A world so small that all its texts can be written down: 24 names, no more than two values of anything."""
    config = replace(
        SMALLEST, people=(6,), texts="once", pools=Pools(2, 3, 4, 1, 2, 2, 2, 2), sizes=("1x8",), exposures=1
    )
    work = Run(config, tmp_path_factory.mktemp("world"), console=Console(quiet=True))
    corpus = work.corpus(6, "single")
    return work, [
        [work.end, *work.tokenizer(corpus.passage(i).text, add_special_tokens=False)["input_ids"]] for i in range(6)
    ]


def _alternatives(work: Run, texts: list[list[int]], attribute: str, right: Callable[[int], bool]) -> list[list[int]]:
    """Texts in which this attribute of the people it is wrong about is any of the pool's, each as often."""
    corpus = work.corpus(6, "single")
    a = corpus.attributes.index(attribute)
    pool = sorted({corpus.population.pieces[p] for p in corpus.population.value_examples(a).ravel()})
    found = []
    for i, text in enumerate(texts):
        said = corpus.passage(i).text
        value = corpus.population.value(i, a)
        for other in [value] * len(pool) if right(i) else [p.strip() for p in pool]:
            changed = said.replace(f" {value}", f" {other}")
            found.append([text[0], *work.tokenizer(changed, add_special_tokens=False)["input_ids"]])
    return found


def test_a_model_that_knows_everything_has_all_the_bits(world: tuple[Run, list[list[int]]]) -> None:
    work, texts = world
    found = work.measure(Knowing(work, texts), 6, 6)
    assert found["loss_name"] == pytest.approx(math.log(6), abs=1e-5)
    values = 6 * (math.log2(12 * 28) + 4)  # one year; two of everything else
    assert found["bits"] == pytest.approx(6 * math.log2(24 / 6) + values, rel=1e-5)
    assert found["share"] == pytest.approx(1.0)
    assert found["loss_work_city"] == pytest.approx(0, abs=1e-5)


def test_a_model_that_knows_half_of_the_people_s_majors_has_half_of_those_bits(
    world: tuple[Run, list[list[int]]],
) -> None:
    work, texts = world
    for known in (0, 3):
        mixed = _alternatives(work, texts, "major", lambda i, known=known: i < known)
        found = work.measure(Knowing(work, mixed), 6, 6)
        assert found["bits_major"] == pytest.approx(known * 1.0, abs=1e-4)  # one bit each: two majors
        assert found["bits_university"] == pytest.approx(6.0, rel=1e-5)
        assert found["bits_name"] == pytest.approx(6 * math.log2(24 / 6), rel=1e-5)


def test_losses_are_those_of_a_loop_over_characters(tmp_path: Path) -> None:
    """A random model, every value found in the text by its span, one token after the other."""
    config = replace(SMALLEST, permute=True)
    work = Run(config, tmp_path, console=Console(quiet=True))
    model = models.build("1x8", work.tokenizer, context=96, seed=3).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(8)  # far from uniform
    corpus = work.corpus(12, "multi3")  # not permuted: the employer stands before its city
    want: dict[str, float] = {}
    for person in range(12):
        passage = corpus.passage(int(corpus.first_entry([person])[0]))
        (ids,), (offsets,) = tokens.encode(work.tokenizer, [passage.text])
        with torch.no_grad():
            logprobs = model(torch.tensor([[work.end, *ids]])).logits[0].log_softmax(-1)
        for span in passage.spans:
            name = "name" if span.kind == "subject" else span.relation
            first, last = tokens.token_span(offsets, span.start, span.end)
            want[name] = want.get(name, 0.0) - sum(float(logprobs[k, ids[k]]) for k in range(first, last)) / 12
    found = work.losses(model, 12, 12)
    assert found == pytest.approx(want, rel=1e-4)
    assert len(set(map(round, found.values()))) > 2


# the whole ----------------------------------------------------------------------------------------------------------


def test_a_small_run_its_report_and_going_on(tmp_path: Path) -> None:
    summary = capacity.run(SMALLEST, tmp_path / "run", console=Console(quiet=True))
    assert [(row["size"], row["people"]) for row in summary["rows"]] == [("1x8", 6), ("1x8", 12)]
    for row, stage in zip(summary["rows"], summary["training"], strict=True):
        assert stage["steps"] == row["people"] * 3 / 6  # three exposures in batches of six
        model = models.build("1x8", models.load_tokenizer(str(tmp_path / "run" / "tokenizer")), context=96)
        assert row["parameters"] == sum(p.numel() for p in model.parameters())
        assert row["body"] == row["parameters"] - model.get_input_embeddings().weight.numel()  # type: ignore[operator]
        assert row["bits"] == pytest.approx(sum(row[f"bits_{name}"] for name in ATTRIBUTES))
        assert row["bits_per_parameter"] == row["bits"] / row["parameters"]
    page = write_report([tmp_path / "run"], tmp_path / "page.html").read_text()
    assert "2404.05405" in page
    assert "1x8, all there is" in page
    # A cell that is lost is made again to the same numbers; the other is not touched.
    kept = tmp_path / "run" / "1x8-6people" / "train" / "done.json"
    before = kept.stat().st_mtime_ns
    (tmp_path / "run" / "1x8-12people" / "train" / "done.json").unlink()
    (tmp_path / "run" / "summary.json").unlink()
    again = capacity.run(SMALLEST, tmp_path / "run", console=Console(quiet=True))
    assert again["rows"] == summary["rows"]
    assert kept.stat().st_mtime_ns == before
    assert records.read_record(tmp_path / "run" / "summary.json") == again


def test_exposures_in_packed_rows(tmp_path: Path) -> None:
    """The number of steps covers so many entries, whatever the layout: mean length and an end token each."""
    work = Run(replace(SMALLEST, layout="packed", exposures=100), tmp_path, console=Console(quiet=True))
    corpus = work.corpus(12, "multi100")
    total = sum(len(work.tokenizer(corpus.passage(i).text)["input_ids"]) for i in range(1200))
    assert work.steps(12) == pytest.approx(total / (6 * 96), abs=1)


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
        ({"context": 20}, "context"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(tmp_path: Path, change: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        capacity.run(replace(SMALLEST, **change), tmp_path / "run", console=Console(quiet=True))
    assert not (tmp_path / "run").exists()
