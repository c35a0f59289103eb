"""Documents with identifiers of other people's files: one file a format here, and the file name is the registration.

A format is a module with ``recognises(record) -> bool`` and ``document(record, where) -> Document``, which raises UserError
with ``where`` (file and line or record) in front.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from engramlab.base import registry
from engramlab.base.errors import UserError, listed, quoted
from engramlab.corpora.documents import Document, DocumentQuestion
from engramlab.files import tables
from engramlab.reading.attributed import biocite


def read_documents(path: str | Path) -> list[Document]:
    """Documents in any of the formats, from whatever ``files.tables`` reads; each record tells its own.

    Raises:
        UserError: the file is missing or without records; a record is of no known format, lacks a key or has a wrong value
            there, or has another's identifier. Names file, record and key.
    """
    package = sys.modules[__name__]
    known = {name: registry.load(package, name, "format") for name in registry.names(package)}
    found: dict[str, Document] = {}
    for place, record in tables.objects(path):
        where = f"{path}, {place}"
        form = next((form for form in known.values() if form.recognises(record)), None)
        if form is None:
            raise UserError(f"{where}: is of no known format ({', '.join(known)}); its keys are {listed(record)}")
        made = form.document(record, where)
        if made.id in found:
            raise UserError(f"{where}, key 'url': {quoted(made.id)} is another document's too; give each its own")
        found[made.id] = made
    if not found:
        raise UserError(f"{path}: there are no documents; write a record each, with text and url")
    return list(found.values())


def with_questions(documents: Sequence[Document], path: str | Path) -> list[Document]:
    """The documents with the questions of a file of theirs put to each (``text``, question and answer in two lines; ``url``).

    Raises:
        UserError: as above, or a question whose identifier no document has.
    """
    more: dict[str, list[DocumentQuestion]] = {document.id: [] for document in documents}
    for place, record in tables.objects(path):
        where = f"{path}, {place}"
        question, urls = biocite.asked(record, where)
        for url in urls:
            if url not in more:
                raise UserError(f"{where}, key 'url': no document has the identifier {quoted(url)}")
            more[url].append(question)
    return [replace(one, questions=(*one.questions, *more[one.id])) for one in documents]
