"""PopQA (arXiv 2212.10511): questions about things of every popularity, each with all its right answers.

A row is ``subj``, ``prop``, ``obj``, ``question``, ``possible_answers`` (a JSON list in a cell) and ``s_pop``, the monthly
views of the subject's page. Other columns are not looked at. Several things of one name are one subject, of which
the first row stands.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from engramlab.base.errors import UserError, quoted
from engramlab.corpora.facts.building import Builder, check_relations
from engramlab.corpora.facts.formats import as_number, filled
from engramlab.corpora.facts.wordings import Said
from engramlab.files.tables import ColumnTable, clean
from engramlab.files.text import json_of

KEYS = ("subj", "prop", "obj", "question", "possible_answers", "s_pop")


def read(table: ColumnTable, relations: Sequence[str] | None) -> Builder:
    """The facts, with their popularity, and each relation's question."""
    subjects, of, objects, questions = (filled(table, name) for name in KEYS[:4])
    answers, told = table.cells("possible_answers"), filled(table, "s_pop")
    check_relations(relations, list(dict.fromkeys(of)), table.name)
    built = Builder(table.name, relations or (), "first", shared=True)
    asked: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row, (subject, relation, right) in enumerate(zip(subjects, of, objects, strict=True)):
        if relations is not None and relation not in relations:
            continue
        number, place = built.subject(subject, table.places[row]), table.places[row]
        built.add(number, relation, right, place, _answers(answers[row], table.where(row, "possible_answers")))
        built.popularity.setdefault((subject, relation), as_number(told[row], table.where(row, "s_pop")))
        if questions[row].count(subject) == 1:
            asked[relation][questions[row].replace(subject, "{subject}")] += 1
    built.said = Said(questions={r: f"{found.most_common(1)[0][0]} Answer:" for r, found in asked.items()})
    return built.finish()


def _answers(cell: object, where: str) -> Sequence[str]:
    try:
        listed = json_of(cell) if isinstance(cell, str) else cell
    except ValueError:
        listed = None
    if not isinstance(listed, list | tuple) or not all(isinstance(one, str) for one in listed):
        raise UserError(f'{where}: {quoted(cell)} is no JSON list of texts, such as ["politician", "political leader"]')
    return [clean(one) for one in listed]
