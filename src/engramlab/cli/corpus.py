"""corpus bios|bior|tables    write a corpus as Parquet: profiles, entries with spans, questions
corpus passages            fictional passages with paraphrases and queries, written by a chat model
corpus check FILE          defects of passages and queries, before they are injected into a training stream

usage: engramlab corpus NAME --out DIR [options]
       engramlab corpus check FILE [--all]

Writes profiles.parquet, entries.parquet (with spans) and questions.parquet, and shows how many there are and what the first
say; passages: passages.jsonl. See engramlab corpus bios --help

check lists the defects of passages and their queries (passages.jsonl, or the format of FICTIONAL KNOWLEDGE): text behind a
target, targets that stand in their own prompt, paraphrases that lost the fact, and more. Shows the first 20 of each kind, or
--all. Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from engramlab.base.errors import UserError, nearest
from engramlab.cli._help import Option
from engramlab.cli._words import no_name_yet, parse, show_help, take
from engramlab.files.locks import place

_SHOWN = 20  # defects of each kind
_SAMPLES = 3  # entries, and questions about them


def main(given: list[str]) -> None:
    """Writes a corpus, or checks one."""
    if given[:1] == ["check"] and not no_name_yet(given[1:]):
        _check(given[1:])
        return
    from engramlab.corpora import datasets
    from engramlab.writing.bior import BiorConfig
    from engramlab.writing.passages import PassagesConfig

    by_model: dict[str, tuple[Any, Any]] = {"bior": (BiorConfig, _bior), "passages": (PassagesConfig, _passages)}
    kinds: dict[str, tuple[Any, Any]] = {
        name: (config, partial(_export, name)) for name, config in datasets.commands().items()
    } | by_model
    if no_name_yet(given) or given[0] == "check":
        firsts = {name: (config.__doc__ or "").strip().splitlines()[0] for name, (config, _) in kinds.items()}
        show_help(f"{__doc__}\n\nCorpora:", [Option(name, "", first) for name, first in firsts.items()])
        return
    kind, rest = given[0], given[1:]
    if kind not in kinds:
        raise UserError(
            f"there is no corpus {kind!r}; did you mean {nearest(kind, kinds)!r}? There are: {', '.join(kinds)}"
        )
    rest, out = take(rest, "--out")
    for old, new in getattr(datasets.sources().get(kind), "RENAMED", {}).items():
        rest = [new + word.removeprefix(old) if word.split("=")[0] == old else word for word in rest]
    options, write = kinds[kind]
    also = [Option("--out", "DIR", "The folder to write. (needed)")]
    config = parse(options, f"corpus {kind} --out DIR", rest, also=also)
    if out is None:
        raise UserError(f"engramlab corpus {kind} needs --out DIR: the folder to write")
    print(write(config, place(str(out))).resolve())


def _export(kind: str, config: Any, out: Path) -> Path:
    from engramlab.base.progress import ProgressBar
    from engramlab.corpora import datasets
    from engramlab.corpora.export import export

    needed = datasets.sources()[kind].GIVEN
    if needed and getattr(config, needed) is None:
        raise UserError(
            f"engramlab corpus {kind} needs --{needed.replace('_', '-')}; see engramlab corpus {kind} --help"
        )
    datasets.parse_variants(config, [config.variant])
    (variant,) = datasets.variants(config, [config.variant])
    made, _ = datasets.halved(datasets.dataset(config, variant), config.seed)
    with ProgressBar(f"corpus {kind}, rows", 1) as bar:
        export(made.corpus, made.questions, out, progress=bar.to)
    for line in [*_said(made), *getattr(datasets.sources()[kind], "hints", lambda config: [])(config)]:
        print(line)
    return out


def _said(made: Any) -> Iterator[str]:
    """How much there is, and the first of it."""
    corpus, questions = made.corpus, made.questions
    about = ", ".join(corpus.attributes[:8]) + (", …" if len(corpus.attributes) > 8 else "")
    yield f"{len(corpus.subjects)} subjects ({about}), {len(corpus)} entries, {len(questions)} questions"
    for number in range(min(_SAMPLES, len(corpus.subjects))):
        (subject,) = corpus.subject([number]).tolist()
        asked = questions.entries([subject])
        query = questions.query(int(asked[number % len(asked)]))
        yield f"\n  {corpus.passage(number).text}\n  {query.prompt} | {query.target}"
    yield ""


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
        if people := made.get("people_left_out"):
            print(f"and with them {len(people)} people, all their texts: no language may take another's place")
    return out


def _passages(config: Any, out: Path) -> Path:
    from engramlab.writing.passages import FILE, write_passages

    made = write_passages(config, out)
    rates = ", ".join(f"{stage} {rate:.0%}" for stage, rate in made["acceptance_rate"].items())
    print(f"{made['passages']} of {config.passages} passages came out whole; answers accepted: {rates}")
    return out / FILE


def _check(given: list[str]) -> None:
    from engramlab.reading import read_passages
    from engramlab.reading.defects import KINDS, count_defects, defects

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
        by_depth = {depth: n for (name, depth), n in count_defects(of_kind).items() if depth and name == kind}
        shares = f" ({', '.join(f'{depth} {n}' for depth, n in by_depth.items())})" if by_depth else ""
        print(f"\n{kind}: {len(of_kind)}{shares}: {what}")
        for defect in of_kind if everything else of_kind[:_SHOWN]:
            print(f"  {defect}")
        if len(of_kind) > _SHOWN and not everything:
            print(f"  … and {len(of_kind) - _SHOWN} more (--all)")
