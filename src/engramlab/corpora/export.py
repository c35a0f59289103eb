"""Write a corpus and its questions as Parquet files that any other program can read.

    profiles.parquet   subject, name, pronoun, one column an attribute, group
    entries.parquet    entry, subject, text, spans: list of (start, end, relation, kind)
    questions.parquet  entry, subject, attribute, prompt, answer, group

Rows are made and written a row group at a time, so memory does not grow with the number of people.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engramlab.base.arrays import Integers
from engramlab.base.errors import UserError
from engramlab.base.progress import Progress
from engramlab.corpora.layout import NAME, PeopledCorpus, Pieces, Population, read_out
from engramlab.corpora.questions import QuestionCorpus
from engramlab.files.locks import held, place, vacant
from engramlab.files.writing import write_folder

ROW_GROUP = 16384

_SPANS = pa.list_(
    pa.struct([("start", pa.int32()), ("end", pa.int32()), ("relation", pa.string()), ("kind", pa.string())])
)
_ENTRIES = pa.schema([("entry", pa.int64()), ("subject", pa.int64()), ("text", pa.string()), ("spans", _SPANS)])
_QUESTIONS = pa.schema(
    [
        ("entry", pa.int64()),
        ("subject", pa.int64()),
        ("attribute", pa.string()),
        ("prompt", pa.string()),
        ("answer", pa.string()),
        ("group", pa.string()),
    ]
)
_OWN_COLUMNS = ("subject", "name", "pronoun", "group")


def export(
    corpus: PeopledCorpus,
    questions: QuestionCorpus,
    out_dir: str | Path,
    progress: Progress | None = None,
    about: Mapping[str, object] | None = None,
    entry_columns: Mapping[str, Integers] | None = None,
) -> Path:
    """Write profiles, entries and questions into `out_dir`, which appears only when all of them are complete.

    The group of a profile or question is "train" or "test" by the split of `questions`, and empty for
    subjects who are not asked about (celebrities). A profile's attribute that is called like one of the other
    columns is written as "attribute:NAME".

    progress: called after each row group with the rows written so far and the rows there will be.
    about: written as dataset.json beside the tables, such as the config that made the corpus.
    entry_columns: more columns of whole numbers for the entries, one number an entry.

    Returns the folder.

    Raises:
        UserError: the folder exists and is not empty, or cannot be written (no permission, disk full).
    """
    out = place(out_dir)
    _check_vacant(out)
    profiles = _profile_schema(corpus.population)
    more = dict(entry_columns or {})
    entries = pa.schema([*_ENTRIES, *((name, pa.int64()) for name in more)])
    total = len(corpus.population) + len(corpus) + len(questions)
    written = 0

    def write(partial: Path) -> None:
        nonlocal written
        for name, schema, batches in (
            ("profiles", profiles, _profiles(corpus.population, questions, profiles)),
            ("entries", entries, _entries(corpus, more, entries)),
            ("questions", _QUESTIONS, _questions(questions)),
        ):
            with pq.ParquetWriter(partial / f"{name}.parquet", schema, compression="zstd") as writer:
                for batch in batches:
                    writer.write_batch(batch)
                    written += len(batch)
                    if progress is not None:
                        progress(written, total)
        if about is not None:
            (partial / "dataset.json").write_text(json.dumps(about, indent=2, default=str) + "\n", encoding="utf-8")

    with held(out):
        _check_vacant(out)
        write_folder(out, write)
    return out


def _check_vacant(out: Path) -> None:
    if not vacant(out):
        raise UserError(f"{out}: already exists and is not an empty folder; choose another, or remove it first")


def _parts(size: int) -> Iterator[Integers]:
    for start in range(0, size, ROW_GROUP):
        yield np.arange(start, min(start + ROW_GROUP, size))


def _strings(words: Pieces, pieces: object) -> list[str]:
    return ["".join([pieces[p] for p in row])[1:] for row in words.tolist()]  # type: ignore[index]


def _profile_schema(population: Population) -> pa.Schema:
    names = [f"attribute:{a}" if a in _OWN_COLUMNS else a for a in population.attributes]
    columns = [("subject", pa.int64()), ("name", pa.string()), ("pronoun", pa.string())]
    return pa.schema([*columns, *((name, pa.string()) for name in names), ("group", pa.string())])


def _profiles(population: Population, questions: QuestionCorpus, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    pronouns = np.array(population.pronouns or ("",))
    for subjects in _parts(len(population)):
        columns = [
            subjects,
            _strings(population.name_pieces(subjects), population.pieces),
            pronouns[population.pronoun(subjects)].tolist(),
            *(
                _strings(population.value_pieces(a, subjects), population.pieces)
                for a in range(len(population.attributes))
            ),
            questions.groups(subjects),
        ]
        yield pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)


def _entries(corpus: PeopledCorpus, more: Mapping[str, Integers], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    relations = pa.array([*corpus.attributes, ""])  # the last for the mark of a name, -1, less 1
    kinds = np.array(["object", "subject"])
    for entries in _parts(len(corpus)):
        said = read_out(corpus.layout(entries), corpus.pieces)
        mark = np.where(said.marks == NAME, len(corpus.attributes), said.marks - 1)
        spans = pa.StructArray.from_arrays(
            [
                pa.array(said.starts, pa.int32()),
                pa.array(said.ends, pa.int32()),
                relations.take(pa.array(mark)),
                pa.array(kinds[(said.marks == NAME).astype(int)].tolist(), pa.string()),
            ],
            fields=list(_SPANS.value_type),
        )
        offsets = np.searchsorted(said.rows, np.arange(len(entries) + 1)).astype(np.int32)
        lists = pa.ListArray.from_arrays(pa.array(offsets), spans, type=_SPANS)
        columns = [
            pa.array(entries),
            pa.array(corpus.subject(entries)),
            pa.array(said.texts, pa.string()),
            lists,
            *(pa.array(np.asarray(numbers, np.int64)[entries]) for numbers in more.values()),
        ]
        yield pa.record_batch(columns, schema=schema)


def _questions(questions: QuestionCorpus) -> Iterator[pa.RecordBatch]:
    for entries in _parts(len(questions)):
        queries = questions.queries(entries)
        columns = [
            pa.array(entries),
            pa.array(questions.subject(entries)),
            pa.array([query.relation for query in queries], pa.string()),
            pa.array([query.prompt for query in queries], pa.string()),
            pa.array([query.target for query in queries], pa.string()),
            pa.array([query.group for query in queries], pa.string()),
        ]
        yield pa.record_batch(columns, schema=_QUESTIONS)
