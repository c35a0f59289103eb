"""list [WHAT]                names that other commands take: experiments, methods, losses, benchmarks, ...

usage: engramlab list [WHAT]

The names that other commands take, all of them or of one kind (methods, say): experiments, their presets, the corpus variants
of the storage paper, editing methods, losses, formats of benchmark files, benchmarks that are made, corpora and model families.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from engramlab.base import registry
from engramlab.base.errors import UserError, nearest
from engramlab.cli._help import Option, columns
from engramlab.cli._words import show_help, wants_help

_OTHER = 6  # options of a preset that are shown
_Names = Iterable[tuple[str, str]]  # each with what it is


def main(given: list[str]) -> None:
    """Prints the names."""
    if wants_help(given):
        show_help(__doc__)
        return
    for what in given:
        if what not in _KINDS:
            raise UserError(
                f"engramlab list knows no {what!r}; did you mean {nearest(what, _KINDS)!r}? There are: {', '.join(_KINDS)}"
            )
    for number, what in enumerate(given or _KINDS):
        heading, names = _KINDS[what]
        print("\n" * bool(number) + heading)
        for name, about in names():
            print("\n".join(Option(name, "", about).lines(columns())))


def _experiments() -> _Names:
    from engramlab import experiments
    from engramlab.cli.run import experiments_there

    for one in experiments_there():
        yield one.name, f"{one.text} Presets: {', '.join(experiments.load(one.name).PRESETS)}."


def _presets() -> _Names:
    from engramlab import experiments
    from engramlab.files.runs import plain

    for name in experiments.names():
        module = experiments.load(name)
        usual = _flat(plain(module.Config()))
        for preset, config in module.PRESETS.items():
            other = [
                f"{option} {value}" for option, value in _flat(plain(config)).items() if usual.get(option) != value
            ]
            yield f"{name} --preset {preset}", ", ".join(other[:_OTHER]) + ", ..." * (len(other) > _OTHER) or "as it is"


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Options by dotted name."""
    if not isinstance(config, dict):
        return {prefix: config}
    inner = (_flat(value, f"{prefix}.{name}".lstrip(".")) for name, value in config.items())
    return {name: value for one in inner for name, value in one.items()}


def _variants() -> _Names:
    from engramlab.corpora.variants import SIXTEEN

    yield from ((name, "") for name in SIXTEEN)
    yield "coupleC", "For example couple5: sentences stay in three pairs, in C orders."
    yield "...+CEL", "Behind any of them: celebrities beside the people, their share by --minority-share."
    yield "...+TEXT", "Behind any of them: unrelated text (--text) in the celebrities' place."


def _methods() -> _Names:
    from engramlab.editing import methods

    return [(name, _first(registry.about(methods, name))) for name in registry.names(methods)]


def _losses() -> _Names:
    from engramlab.core.training.losses import LOSSES

    return [(name, _first(loss.__doc__ or "")) for name, loss in LOSSES.items()]


def _formats() -> _Names:
    from engramlab.editing import benchmarks

    return [(name, _first(registry.about(benchmarks, name))) for name in benchmarks.names()]


def _benchmarks() -> _Names:
    from engramlab.editing import benchmarks

    return [(name, _first(registry.about(benchmarks, name))) for name in benchmarks.made()]


def _corpora() -> _Names:
    from engramlab.corpora import sources

    return [(name, _first(registry.about(sources, name))) for name in registry.names(sources)]


def _families() -> _Names:
    from engramlab.core.models import buildable

    return [(name, "") for name in buildable()]


def _first(doc: str) -> str:
    return " ".join(doc.strip().split("\n\n")[0].split())


_KINDS: dict[str, tuple[str, Callable[[], _Names]]] = {
    "experiments": ("experiments (engramlab run NAME)", _experiments),
    "presets": ("presets, and what they set (time and memory here: engramlab run ... --dry-run)", _presets),
    "variants": ("corpus variants (the paper's sixteen; any other numbers work too)", _variants),
    "methods": ("editing methods (engramlab edit --method NAME --help shows the options)", _methods),
    "losses": ("losses (--loss)", _losses),
    "formats": ("benchmark formats (engramlab edit --file; recognised by their keys)", _formats),
    "benchmarks": ("benchmarks that are made (--benchmark)", _benchmarks),
    "corpora": ("corpora (engramlab corpus NAME)", _corpora),
    "families": ("model families of a size (--model.family)", _families),
}
