"""Broken files of every kind that is read: each is taken, or refused by a UserError in one line, within 5 CPU-seconds.

    python bench/fuzz_readers.py --each 10000 [--only facts] [--seed 1]

Prints how many mutants of each format were tried, taken, refused, ended otherwise or took too long, and the first of those that
did; exit code 1 if there are any. What is taken must be text that a tokenizer takes. Single files of extreme size or depth are
tried by ``tests/files/test_fuzz.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import random
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, is_dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

import _broken as broken
from engramlab.base.errors import UserError
from engramlab.core.training import losses
from engramlab.corpora.facts import FactTable
from engramlab.corpora.facts.wordings import read_wordings
from engramlab.corpora.questions import QuestionCorpus
from engramlab.corpora.variants import parse_variant
from engramlab.editing import benchmarks
from engramlab.files.documents import documents
from engramlab.reading import read_passages
from engramlab.reading.defects import defects

SECONDS = 5  # of CPU time, for one file
READABLE = 1_500  # characters of a message


class TooLong(BaseException):
    """Not an Exception, so that nobody catches it on the way."""


# what reads it --------------------------------------------------------------------------------------------------------


def texts_in(value: Any) -> Iterator[str]:
    """All texts in anything made of dataclasses, lists and mappings."""
    if isinstance(value, str):
        yield value
    elif is_dataclass(value) and not isinstance(value, type):
        yield from texts_in(astuple(value))
    elif isinstance(value, dict):
        yield from texts_in([*value.keys(), *value.values()])
    elif isinstance(value, list | tuple):
        for one in value:
            yield from texts_in(one)


def edits(path: Path) -> Any:
    loaded = benchmarks.load(path, bad="skip")
    benchmarks.contradictions([edit for case in loaded.cases for edit in case.edits])
    return loaded.cases


def passages(path: Path) -> Any:
    records = read_passages(path)
    return records, [str(defect) for defect in defects(records)]


def facts(path: Path, **more: Any) -> Any:
    table = FactTable.read(path, **more)
    corpus = table.entries("multi2+permute")
    questions = QuestionCorpus(corpus.population, table.wordings.questions)
    said = [corpus.passage(number) for number in range(min(3, len(corpus)))]
    asked = questions.queries(range(min(3, len(questions))))
    return table.digest, list(table), said, asked, table.queries(), table.passages(2)


def wordings(templates: Path | None = None, questions: Path | None = None) -> Any:
    made = read_wordings(["capital", "size"], templates, questions)
    table = FactTable.read(
        pa.table({"name": ["x", "y"], "capital": ["a", "b"], "size": ["1", "2"]}),
        templates=templates,
        questions=questions,
    )
    return made.questions, facts_of(table)


def facts_of(table: FactTable) -> Any:
    corpus = table.entries("multi2+permute")
    return [corpus.passage(0), *table.queries(), *table.passages(1)]


Reader = Callable[..., Any]

#: By format, the endings it may have and what reads such a file.
FORMATS: dict[str, tuple[tuple[str, ...], Any, Reader]] = {
    "plain": ((".jsonl", ".csv", ".tsv"), [broken.PLAIN, broken.PLAIN], edits),
    "counterfact": ((".json", ".jsonl"), broken.COUNTERFACT, edits),
    "zsre": ((".json", ".jsonl"), [broken.ZSRE, {"en": broken.ZSRE, "zh": broken.ZSRE}], edits),
    "knowedit": ((".json", ".jsonl"), [broken.KNOWEDIT, broken.KNOWEDIT], edits),
    "mquake": ((".json", ".jsonl"), [broken.MQUAKE, broken.MQUAKE], edits),
    "rippleedits": ((".json", ".jsonl"), [broken.RIPPLE, broken.RIPPLE], edits),
    "passages": ((".jsonl", ".json"), broken.PASSAGES, passages),
    "facts lines": ((".jsonl", ".json"), [broken.WIDE, broken.LONG], facts),
    "facts tables": ((".csv", ".tsv"), [broken.WIDE, broken.LONG], facts),
    "facts parquet": ((".parquet",), None, facts),
    "templates": ((".txt",), broken.TEMPLATES, lambda path: wordings(templates=path)),
    "questions": ((".txt",), broken.QUESTIONS, lambda path: wordings(questions=path)),
    "stream": ((".jsonl", ".jsonl.gz", ".txt", ".json.gz"), broken.TEXTS, lambda path: list(documents(str(path)))),
    "losses": (("",), ["overtone", "overtone:mixing=0.3:clip=0", "cross-entropy", "overtone:check=true"], list),
    "variants": (("",), ["single", "multi5+permute", "couple4+fullname", "single+permute2+CEL"], list),
}
#: Formats that are words of a command line and no files.
TEXTS_ALONE: dict[str, Callable[[str], Any]] = {"losses": losses.parse, "variants": parse_variant}


def mutant(rng: random.Random, name: str) -> tuple[str, bytes]:
    """An ending and a broken file of a format."""
    endings, seeds, _ = FORMATS[name]
    ending = rng.choice(endings)
    if name == "facts parquet":
        data = broken.as_parquet(rng)
        return ending, broken.garbled(rng, data) if rng.random() < 0.5 else data
    if name in TEXTS_ALONE:
        return ending, broken.garbled(rng, rng.choice(seeds).encode())
    if isinstance(seeds, str):
        return ending, broken.garbled(rng, seeds.encode())
    records = broken.changed(rng, rng.choice(seeds) if isinstance(seeds[0], list) else seeds)
    if ending in (".csv", ".tsv"):
        data = broken.as_table(rng, records, "\t" if ending == ".tsv" else rng.choice(",;"))
    elif ending == ".txt":
        data = "\n\n".join(map(str, records)).encode("utf-8", "surrogatepass")
    else:
        data = (
            broken.as_lines(rng, records)
            if ending.startswith(".jsonl") or rng.random() < 0.2
            else broken.as_json(rng, records)
        )
    data = broken.garbled(rng, data) if rng.random() < 0.4 else data
    if ending.endswith(".gz"):
        data = gzip.compress(data, 1)
        data = broken.garbled(rng, data) if rng.random() < 0.3 else data
    return ending, data


def tried(name: str, path: Path, data: bytes) -> str:
    """How reading a file ends: "taken", "refused", "too long", or the words of another exception."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        read = (
            TEXTS_ALONE[name](data.decode("utf-8", "surrogateescape"))
            if name in TEXTS_ALONE
            else FORMATS[name][2](path)
        )
        for text in texts_in(read):
            text.encode()  # as a tokenizer does
        return "taken"
    except UserError as error:
        said = str(error)
        return (
            "refused" if "\n" not in said and len(said) < READABLE + len(str(path)) else f"unreadable: {said[:300]!r}"
        )
    except TooLong:
        return "too long"
    except BaseException as error:
        return (
            "".join(traceback.format_exception(error)[-3:]) if not isinstance(error, KeyboardInterrupt) else "stopped"
        )
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Inside the block what takes too long is interrupted, and notes are not shown."""

    def stop(*_: Any) -> None:
        raise TooLong

    before = signal.signal(signal.SIGPROF, stop)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        signal.signal(signal.SIGPROF, before)


def fuzz(names: Iterable[str], each: int, seed: int) -> tuple[dict[str, Counter[str]], list[str]]:
    """Outcomes by format, and what the first other ones were."""
    counts: dict[str, Counter[str]] = {}
    bad: list[str] = []
    with tempfile.TemporaryDirectory() as folder, watched():
        for name in names:
            rng, counts[name] = random.Random(f"{seed} {name}"), Counter()
            for number in range(each):
                ending, data = mutant(rng, name)
                path = Path(folder, f"f{ending}")
                if name not in TEXTS_ALONE:
                    path.write_bytes(data)
                outcome = tried(name, path, data)
                counts[name][outcome if outcome in ("taken", "refused", "too long") else "other"] += 1
                if outcome not in ("taken", "refused") and len(bad) < 20:
                    bad.append(f"{name}, number {number}{ending}: {data[:300]!r}\n{outcome}")
    return counts, bad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--each", type=int, default=2000, help="mutants of each format")
    parser.add_argument("--only", nargs="*", default=list(FORMATS), choices=list(FORMATS))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    counts, bad = fuzz(given.only, given.each, given.seed)
    print("| format | tried | taken | UserError | other | > 5 s |\n|---|---|---|---|---|---|")
    for name, found in counts.items():
        row = (sum(found.values()), *(found[kind] for kind in ("taken", "refused", "other", "too long")))
        print(f"| {name} | {' | '.join(f'{number:,}' for number in row)} |")
    print(*bad, sep="\n\n")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
