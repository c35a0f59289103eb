"""The contract of corpora, held by every file in corpora/sources."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.documented import undocumented

from engramlab.base.errors import UserError
from engramlab.corpora import datasets
from engramlab.corpora.export import export
from engramlab.corpora.people import ATTRIBUTES, People
from engramlab.corpora.rewriting import RewrittenCorpus, people_table, rewritten_questions

NAMES = list(datasets.sources())
VARIANTS = ("single", "multi3+permute", "couple2")


def written_by_a_model(folder: Path) -> Path:
    """A folder as `engramlab corpus bior` writes it: two texts about each of four people."""
    people = People(4, seed=7)
    names = [people.name(i) for i in range(4)]
    values = [[people.value(i, a) for a in range(6)] for i in range(4)]
    columns = dict(zip(ATTRIBUTES, zip(*values, strict=True), strict=True))
    table = people_table({"name": names, "pronoun": ["they"] * 4, **{k: list(v) for k, v in columns.items()}})
    texts, spans = [], []
    for number, i in ((number, i) for number in range(2) for i in range(4)):
        text, found = names[i], [(0, len(names[i]), -1)]
        for a in range(6) if number else reversed(range(6)):
            text += "; "
            found.append((len(text), len(text) + len(values[i][a]), a + 1))
            text += values[i][a]
        texts.append(f"{text}.")
        spans.append(found)
    corpus = RewrittenCorpus(table, texts, np.tile(np.arange(4), 2), spans)
    export(corpus, rewritten_questions(corpus), folder, about={}, entry_columns={"tries": corpus.tries})
    return folder


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """For each source options with which it is chosen, and small."""
    folder = tmp_path_factory.mktemp("sources")
    (folder / "facts.csv").write_text(
        "country,capital,currency,code\n" + "".join(f"Land {i},City {i * i},Coin {i % 3},+{i}\n" for i in range(9))
    )
    return {
        "bios": {"people": 11},
        "bior": {"corpus": written_by_a_model(folder / "bior")},
        "tables": {"facts": folder / "facts.csv"},
    }


def test_every_source_is_tested(options: dict[str, dict[str, Any]]) -> None:
    assert sorted(options) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_options_are_frozen_explained_and_have_defaults(name: str) -> None:
    module = datasets.sources()[name]
    config = module.Config()
    assert config.seed == 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1
    assert undocumented(module.Config) == []
    assert not module.GIVEN or getattr(config, module.GIVEN) is None
    assert (module.__doc__ or "").strip()


def test_one_source_is_taken_where_none_is_given() -> None:
    assert [name for name, module in datasets.sources().items() if not module.GIVEN] == ["bios"]
    assert datasets.chosen(datasets.options()()) is datasets.sources()["bios"]


def all_variants(name: str) -> tuple[str, ...]:
    return getattr(datasets.sources()[name], "VARIANTS", VARIANTS)


@pytest.mark.parametrize("name", NAMES)
def test_the_option_chooses_the_source_and_makes_its_dataset(name: str, options: dict[str, dict[str, Any]]) -> None:
    config = datasets.options()(**options[name])
    assert datasets.chosen(config) is datasets.sources()[name]
    named = datasets.variants(config, VARIANTS)
    assert named == all_variants(name)
    for variant, written in zip(named, datasets.parse_variants(config, named) or [None], strict=False):
        data = datasets.dataset(config, variant)
        assert data.name == variant
        if written is not None:
            assert data.written == written
            assert data.written.pairs == (variant == "couple2")


@pytest.mark.parametrize("name", NAMES)
def test_a_corpus(name: str, options: dict[str, dict[str, Any]]) -> None:
    """Deterministic in the seed; every span quotes its object; entries stand alone; each subject is in one group."""
    module = datasets.sources()[name]
    config = module.Config(**options[name])
    for variant in all_variants(name):
        data, again = module.dataset(config, variant), module.dataset(config, variant)
        corpus, questions = data.corpus, data.questions
        texts = [corpus.passage(i).text for i in range(len(corpus))]
        assert texts == [again.corpus.passage(i).text for i in range(len(corpus))]
        asked = questions.queries(np.arange(len(questions)))
        assert asked == again.questions.queries(np.arange(len(questions)))
        others = [module.dataset(dataclasses.replace(config, seed=seed), variant) for seed in (1, 2, 3)]
        groups = [[query.group for query in made.questions.queries(np.arange(len(questions)))] for made in others]
        assert any(other != [query.group for query in asked] for other in groups)

        backwards = corpus.layout(np.arange(len(corpus))[::-1])
        for i, pieces in enumerate(backwards.pieces[::-1].tolist()):
            assert "".join(corpus.pieces[p] for p in pieces) == texts[i]
            subject = int(corpus.subject([i])[0])
            passage = corpus.passage(i)
            stated = {span.relation: passage.quote(span) for span in passage.spans if span.kind != "subject"}
            assert stated == {
                relation: corpus.population.value(subject, a) for a, relation in enumerate(corpus.attributes)
            }
            names = {passage.quote(span) for span in passage.spans if span.kind == "subject"}
            assert names == {corpus.population.name(subject)}
        for subject in corpus.subjects:
            assert int(corpus.subject(corpus.first_entry([subject]))[0]) == subject

        assert {(q.subject, q.relation) for q in asked} == {
            (corpus.population.name(s), relation) for s in corpus.subjects for relation in corpus.attributes
        }
        members = np.concatenate(list(data.split.groups.values()))
        assert sorted(members.tolist()) == list(range(len(corpus.subjects)))
        halved, split = datasets.halved(data, config.seed)
        assert halved is data
        assert len(split.train) - len(split.test) in (0, 1)


def test_a_run_s_options_come_back_from_its_record(options: dict[str, dict[str, Any]]) -> None:
    import json

    from engramlab.experiments.knowledge_extraction import Config
    from engramlab.files.runs import plain

    for given in options.values():
        config = Config(**given)
        back = datasets.recorded(json.loads(json.dumps(plain(config))))
        for field in dataclasses.fields(back):
            assert getattr(back, field.name) == getattr(config, field.name)
    attributes = datasets.recorded({"facts": "x.csv", "attributes": ["a", "b"], "of another experiment": 1}).attributes
    assert attributes == ("a", "b")


def test_two_sources_at_once_are_refused() -> None:
    config = datasets.options()(facts=Path("a.csv"), corpus=Path("b"))
    with pytest.raises(UserError, match="corpus and facts: give one of them"):
        datasets.chosen(config)


@pytest.mark.parametrize(("given", "option"), [({"facts": Path("a.csv")}, "facts"), ({"corpus": Path("b")}, "corpus")])
@pytest.mark.parametrize("variant", ["single+CEL", "multi5+TEXT"])
def test_celebrities_and_text_go_with_bios_only(given: dict[str, Path], option: str, variant: str) -> None:
    words = {"facts": "go with bioS only, .* with --facts leave them out", "corpus": r"--corpus .* as in bior1\+CEL"}
    with pytest.raises(UserError, match=words[option]):
        datasets.parse_variants(datasets.options()(**given), [variant])
