"""The files of BioCite and a user's own in its form: ``text``, ``url`` (the identifier), ``qa``.

Source: arXiv 2404.01019 and the card of its data. ``qa`` is a list, each question and its answer in two lines of one text, or
an object with ``question`` and ``answer``; ``metadata`` may say ``in_domain``; ``facts`` are not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engramlab.base.errors import UserError, quoted
from engramlab.base.sentences import sentences
from engramlab.corpora.documents import Document, DocumentQuestion
from engramlab.reading import fields

KEYS = ("text", "url", "qa", "facts", "metadata")


def recognises(record: Mapping[str, Any]) -> bool:
    return "url" in record or "text" in record


def document(record: Mapping[str, Any], where: str) -> Document:
    """Raises UserError."""
    fields.check_keys(record, KEYS, where)
    listed = record.get("qa") or []
    if not isinstance(listed, list):
        raise UserError(f"{where}: key 'qa' must be a list, not {quoted(listed)}")
    about = record.get("metadata") or {}
    inside = about.get("in_domain") if isinstance(about, Mapping) else None
    if inside is not None and not isinstance(inside, bool):
        raise UserError(f"{where}, key 'metadata': in_domain must be true or false, not {quoted(inside)}")
    questions = tuple(_question(one, f"{where}, key 'qa', number {n}") for n, one in enumerate(listed, 1))
    name = fields.text(record, "url", where).strip()
    return Document(name, tuple(sentences(fields.text(record, "text", where))), questions, inside)


def asked(record: Mapping[str, Any], where: str) -> tuple[DocumentQuestion, tuple[str, ...]]:
    """A question of a file of questions, and the identifiers of its documents. Raises UserError."""
    fields.check_keys(record, ("text", "url", "metadata"), where)
    urls = (record["url"],) if isinstance(record.get("url"), str) else fields.text_list(record, "url", where)
    if not urls:
        raise UserError(f"{where}: key 'url' must name a document, or several in a list")
    return _question(fields.text(record, "text", where), f"{where}, key 'text'"), tuple(url.strip() for url in urls)


def _question(value: Any, where: str) -> DocumentQuestion:
    if isinstance(value, Mapping):
        fields.check_keys(value, ("question", "answer"), where)
        return DocumentQuestion(
            fields.text(value, "question", where).strip(), fields.text(value, "answer", where).strip()
        )
    question, line, answer = fields.usable(value, f"{where}:").strip().rpartition("\n")
    if not line or not question.strip() or not answer.strip():
        raise UserError(f"{where}: must be a question and its answer in two lines, not {quoted(value)}")
    return DocumentQuestion(" ".join(question.split()), answer.strip())
