"""What a model is trained on and asked about: entries, questions and the split, from any source (``corpora/sources``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from engramlab.base import registry
from engramlab.base.errors import UserError
from engramlab.corpora.layout import PeopledCorpus
from engramlab.corpora.questions import CelebritySplit, QuestionCorpus, Split
from engramlab.corpora.variants import Variant, parse_variant


@dataclass(frozen=True)
class Dataset:
    """One variant's entries and questions.

    Attributes:
        written: how the entries are written: in pairs? with celebrities or text beside them?
        celebrities: entries from this number on are celebrities'; None where there are none.
    """

    name: str
    corpus: PeopledCorpus
    questions: QuestionCorpus
    split: Split | CelebritySplit
    written: Variant = field(default_factory=Variant)
    celebrities: int | None = None

    @property
    def people(self) -> dict[str, str]:
        """Who the members of each group are, where they are not all of one kind."""
        if self.celebrities is None:
            return {}
        return {"train": "celebrities", "test": "minority", "celebrities": "celebrities"}


def halves(
    corpus: PeopledCorpus, wordings: Mapping[str, str] | None, seed: int, name: str, written: Variant
) -> Dataset:
    """The dataset whose P_train and P_test are halves of the subjects asked about; ``wordings`` as in ``QuestionCorpus``."""
    split = Split(len(corpus.subjects), seed)
    return Dataset(name, corpus, QuestionCorpus(corpus.population, wordings, corpus.subjects, split), split, written)


def halved(data: Dataset, seed: int) -> tuple[Dataset, Split]:
    """The same texts with their ordinary people in two halves: as it was, but for datasets whose P_train are celebrities."""
    if isinstance(data.split, Split):
        return data, data.split
    made = halves(data.corpus, data.questions.wordings, seed, data.name, data.written)
    assert isinstance(made.split, Split)
    return made, made.split


# the sources ----------------------------------------------------------------------------------------------------------


def sources() -> dict[str, Any]:
    """The modules of ``corpora/sources`` by name."""
    from engramlab.corpora import sources as package

    return {name: registry.load(package, name, "corpus") for name in registry.names(package)}


def options() -> type:
    """The options of all sources in one frozen dataclass, for the configs of experiments that train on any of them.

    Raises:
        UserError: two sources have an option of the same name and mean different things.
    """
    seen: dict[str, tuple[str, Any]] = {}
    for name, module in sources().items():
        for option in fields(module.Config):
            about = (str(option.type), option.default, option.default_factory)
            other, known = seen.setdefault(option.name, (name, about))
            if known != about:
                raise UserError(f"corpus {name}: its option {option.name} is not that of corpus {other}; rename it")
    configs = tuple(
        m.Config for m in sorted(sources().values(), key=lambda m: bool(m.GIVEN))
    )  # the first explains an option
    return dataclass(frozen=True)(type("Source", configs, {"__doc__": "Where facts and texts come from."}))


@dataclass(frozen=True)
class VariantOption:
    """What `engramlab corpus` asks for beside a source's options."""

    variant: str = "multi5+permute"
    """How entries are written: single, multiM, coupleC, then +permute (after single: +permuteP), +fullname,
    +translate, +CEL."""


def commands() -> dict[str, type]:
    """By source, its options and the variant in one frozen dataclass: what `engramlab corpus` reads."""
    kinds = {name: module.Config for name, module in sources().items()}
    return {
        name: dataclass(frozen=True)(type(name, (VariantOption, kind), {"__doc__": kind.__doc__}))
        for name, kind in kinds.items()
    }


def chosen(config: Any) -> Any:
    """The source whose ``GIVEN`` option is given; raises UserError where there are several."""
    given = [
        module for module in sources().values() if module.GIVEN and getattr(config, module.GIVEN, None) is not None
    ]
    if len(given) > 1:
        names = " and ".join(module.GIVEN for module in given)
        raise UserError(f"{names}: give one of them, each brings its own texts")
    return given[0] if given else next(module for module in sources().values() if not module.GIVEN)


def variants(config: Any, named: Sequence[str]) -> tuple[str, ...]:
    """The variants of the config's source: those named; of a source with names of its own, those of them, or all it has.

    Raises:
        UserError: names of the source's own among others.
    """
    module = chosen(config)
    own = getattr(module, "VARIANTS", None)
    if own is None:
        return tuple(named)
    mine = tuple(name for name in named if _own(module, name) is not None)
    if mine and len(mine) < len(named):
        others = ", ".join(name for name in named if name not in mine)
        raise UserError(f"variants: --{module.GIVEN} has no {others}; it has {own[0]} and what is named after it")
    return mine or tuple(own)


def _own(module: Any, name: str) -> Variant | None:
    """How the entries of a variant of the source's own are written; None for other names."""
    parse = getattr(module, "parse", None)
    found: Variant | None = parse(name) if parse else Variant() if name in getattr(module, "VARIANTS", ()) else None
    return found


def parse_variants(config: Any, named: Sequence[str]) -> list[Variant]:
    """How the entries of variants are written. Raises UserError for variants that the config's source does not have."""
    module = chosen(config)
    own = [variant for name in named if (variant := _own(module, name)) is not None]
    found = [parse_variant(name) for name in named if _own(module, name) is None]
    if not getattr(module, "BESIDE", False) and any(variant.celebrities or variant.text for variant in found):
        raise UserError(
            f"variants: with --{module.GIVEN} +CEL and +TEXT stand behind a name of its own, as in bior1+CEL"
            if hasattr(module, "parse")
            else "variants: +CEL and +TEXT go with bioS only, whose celebrities are made up; with "
            f"--{module.GIVEN.replace('_', '-')} leave them out"
        )
    if hasattr(module, "check"):
        module.check(config, [*own, *found])
    return [*own, *found]


def dataset(config: Any, variant: str) -> Dataset:
    """The entries and questions of one variant. Raises UserError for whatever is wrong with the options or the facts."""
    found: Dataset = chosen(config).dataset(config, variant)
    return found


def recorded(config: Mapping[str, Any]) -> Any:
    """The ``options`` that a run's config, as its config.json has it, names among its other options."""
    kind = options()
    hints = get_type_hints(kind)
    return kind(**{name: _restored(hints[name], value) for name, value in config.items() if name in hints})


def _restored(hint: Any, value: Any) -> Any:
    """A value read from JSON, as its type is."""
    for kind in get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,):
        if value is not None and kind is Path:
            return Path(value)
        if value is not None and get_origin(kind) is tuple:
            return tuple(value)
        if value is not None and isinstance(kind, type) and is_dataclass(kind):
            return kind(**value)
    return value
