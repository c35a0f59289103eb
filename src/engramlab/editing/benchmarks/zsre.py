"""ZsRE as MEND distributes it (arXiv 2110.11309): questions about zero-shot relations, a rephrasing, a far-off question.

    src       the edit's prompt, a question              alt       the new answer
    subject   (optional)                                 answers   the old answer(s) (optional)
    rephrase  generality                                 loc       locality, from Natural Questions; loc_ans its answer
    portability {"New Question", "New Answer"}           portability, in the files of arXiv 2305.13172 (optional)

``loc`` is stored as "nq question: who played ...". The model is shown the question alone, with the question mark that
those questions lack: "nq question:" is a label for readers of the file. That the model may not know ``loc_ans`` does not
matter, as locality compares with the unedited model. ``pred`` and ``cond`` are not used.

MzsRE has such a record for each of several languages, {"en": {...}, "zh": {...}}: the first is the edit, and the question and
answer of each other one are portability, under the language's name.
"""

from __future__ import annotations

from collections.abc import Mapping

from engramlab.base.facts import Case
from engramlab.editing.benchmarks._fields import Fields, case_id, edit, entry_judges, judging, one_hop, put_together
from engramlab.files.text import wrong_with

KEYS = "src and alt"


def recognises(record: Mapping[str, object]) -> bool:
    return "src" in record or "alt" in record or bool(_languages(record))


def case(record: Mapping[str, object], index: int) -> Case:
    """Raises BadRecord."""
    if languages := _languages(record):
        return _multilingual(Fields(record, index), languages)
    return _case(Fields(record, index))


def _languages(record: Mapping[str, object]) -> list[str]:
    return [key for key, one in record.items() if isinstance(one, dict) and "src" in one and "alt" in one]


def _multilingual(fields: Fields, languages: list[str]) -> Case:
    first, *others = languages
    case = _case(fields.inner(first))
    asked = []
    for language in others:
        if wrong := wrong_with(language, 100):
            raise fields.bad(language, wrong)
        one = fields.inner(language)
        asked.append(judging("portability", language, one.prompt("src", one.name("subject")), one.answers("alt")))
    (made,) = case.edits
    return put_together(case.id, [made], [*made.judges, *asked])


def _case(fields: Fields) -> Case:
    subject = fields.name("subject")
    target = fields.answers("alt")
    change = edit(fields.prompt("src", subject), subject, target, fields.answers("answers", needed=False))
    judges = [judging("generality", "rephrase", prompt, target) for prompt in fields.prompts("rephrase", subject)]
    judges += one_hop(fields)
    if fields.has("loc") or fields.has("loc_ans"):
        for query in entry_judges(fields, "locality", "nq", prompt="loc", answer="loc_ans"):
            judges.append(judging("locality", "nq", _question(fields, query.prompt), (query.target, *query.aliases)))
    return put_together(case_id(fields, "case_id", "id"), [change], judges)


def _question(fields: Fields, loc: str) -> str:
    question = loc.removeprefix("nq question:").strip()
    if not question:
        raise fields.bad("loc", "has no question after 'nq question:'")
    return question if question.endswith(("?", ".", "!", ":")) else f"{question}?"
