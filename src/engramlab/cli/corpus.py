"""corpus bios|bior|tables    write a corpus as Parquet: profiles, entries with spans, questions
corpus passages            fictional passages with paraphrases and queries, written by a chat model
corpus check FILE          defects of passages and queries, before they are injected into a training stream

usage: engramlab corpus bios|bior|passages|tables --out DIR [options]
       engramlab corpus check FILE [--all]

bios     biographies of made-up people (arXiv 2309.14316)
bior     the same people, their biographies rewritten by a chat model (--model)
passages fictional passages with paraphrases and queries, written by a chat model (arXiv 2406.11813)
tables   texts and questions from your own table of facts

Writes profiles.parquet, entries.parquet (with spans) and questions.parquet; passages: passages.jsonl. See engramlab corpus bios
--help

check lists the defects of passages and their queries (passages.jsonl, or the format of FICTIONAL KNOWLEDGE): text behind a
target, targets that stand in their own prompt, paraphrases that lost the fact, and more. Shows the first 20 of each kind, or
--all. Nothing is changed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engramlab.base.errors import UserError, nearest
from engramlab.cli._words import about, no_name_yet, parse, take, wants_help

_SHOWN = 20  # defects of each kind


def main(given: list[str]) -> None:
    """Writes a corpus, or checks one."""
    if no_name_yet(given) or (given[0] == "check" and no_name_yet(given[1:])):
        print(about(__doc__))
        return
    if given[0] == "check":
        _check(given[1:])
        return
    from engramlab.corpora.bios import BiosConfig
    from engramlab.corpora.tables import TableConfig
    from engramlab.writing.bior import BiorConfig
    from engramlab.writing.passages import PassagesConfig

    kinds: dict[str, tuple[Any, Any]] = {
        "bios": (BiosConfig, _bios),
        "bior": (BiorConfig, _bior),
        "passages": (PassagesConfig, _passages),
        "tables": (TableConfig, _tables),
    }
    kind, rest = given[0], given[1:]
    if kind not in kinds:
        raise UserError(
            f"there is no corpus {kind!r}; did you mean {nearest(kind, kinds)!r}? There are: {', '.join(kinds)}"
        )
    rest, out = take(rest, "--out")
    options, write = kinds[kind]
    config = parse(options, f"corpus {kind} --out DIR", rest)
    if out is None and not wants_help(rest):
        raise UserError(f"engramlab corpus {kind} needs --out DIR: the folder to write")
    print(write(config, Path(str(out))).resolve())


def _bios(config: Any, out: Path) -> Path:
    from engramlab.corpora.bios import bios, bios_questions
    from engramlab.corpora.questions import Split

    corpus = bios(config)
    return _export("bios", corpus, bios_questions(corpus, Split(len(corpus.subjects), config.seed)), out)


def _tables(config: Any, out: Path) -> Path:
    from engramlab.corpora.questions import Split
    from engramlab.corpora.tables import table, table_questions

    corpus = table(config)
    split = Split(len(corpus.subjects), config.seed)
    return _export("tables", corpus, table_questions(corpus, config.questions, split), out)


def _export(kind: str, corpus: Any, questions: Any, out: Path) -> Path:
    from engramlab.base.progress import Bar
    from engramlab.corpora.export import export

    with Bar(f"corpus {kind}, rows", 1) as bar:
        export(corpus, questions, out, progress=bar.to)
    return out


def _bior(config: Any, out: Path) -> Path:
    from engramlab.writing.bior import write_bior

    made = write_bior(config, out)
    lacking = ", ".join(f"{name} {count}" for name, count in made["lacking"].items())
    print(
        f"accepted {made['accepted']} of {made['answers']} answers ({made['acceptance_rate']:.1%})"
        + (f"; the others lacked: {lacking}" if lacking else "")
    )
    if left := made["left_out"]:
        shown = ", ".join(f"{row['entry']} of person {row['person']}" for row in left[:10])
        more = ", …" if len(left) > 10 else ""
        print(f"left out {len(left)} entries after {made['tries']} tries: {shown}{more} (all in dataset.json)")
    return out


def _passages(config: Any, out: Path) -> Path:
    from engramlab.writing.passages import FILE, write_passages

    made = write_passages(config, out)
    rates = ", ".join(f"{stage} {rate:.0%}" for stage, rate in made["acceptance_rate"].items())
    print(f"{made['passages']} of {config.passages} passages came out whole; answers accepted: {rates}")
    return out / FILE


def _check(given: list[str]) -> None:
    from engramlab.corpora.defects import KINDS, count, defects
    from engramlab.corpora.passages import read_passages

    everything = "--all" in given
    files = [word for word in given if word != "--all"]
    if len(files) != 1 or files[0].startswith("-"):
        raise UserError(f"engramlab corpus check takes one file and --all, not {' '.join(given)}")
    records = read_passages(files[0])
    found = defects(records)
    queries = sum(len(record.queries) for record in records)
    print(f"{files[0]}: {len(records)} passages, {queries} queries, {len(found)} defects")
    for kind, what in KINDS.items():
        of_kind = [defect for defect in found if defect.kind == kind]
        if not of_kind:
            continue
        by_depth = {depth: n for (name, depth), n in count(of_kind).items() if depth and name == kind}
        shares = f" ({', '.join(f'{depth} {n}' for depth, n in by_depth.items())})" if by_depth else ""
        print(f"\n{kind}: {len(of_kind)}{shares}: {what}")
        for defect in of_kind if everything else of_kind[:_SHOWN]:
            print(f"  {defect}")
        if len(of_kind) > _SHOWN and not everything:
            print(f"  … and {len(of_kind) - _SHOWN} more (--all)")
