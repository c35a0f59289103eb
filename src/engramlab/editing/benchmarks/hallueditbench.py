"""HalluEditBench (arXiv 2410.16251): facts that a model gets wrong, to be set right; CSV files, one a model and topic.

    question, object                      the edit's prompt and its (true) answer
    subject, relation                     of the fact
    paraphrased_question                  generality
    question_2hop, answer_2hop, ...       portability, to 6hop
    locality_question                     locality, of which the file has no answer

What the file's own model has said (``output_...``), the choices and the questions to be answered by yes or no are not used.
"""

from __future__ import annotations

from collections.abc import Mapping

from engramlab.base.facts import Case
from engramlab.editing.benchmarks._fields import Fields, case_id, edit, judging, put_together

KEYS = "question, subject and object"
HOPS = range(2, 7)


def recognises(record: Mapping[str, object]) -> bool:
    return {"question", "subject", "object"} <= record.keys() and "target" not in record


def case(record: Mapping[str, object], index: int) -> Case:
    """Raises BadRecord."""
    fields = Fields(record, index)
    subject, target = fields.name("subject"), fields.answers("object")
    change = edit(fields.prompt("question", subject), subject, target, (), fields.name("relation"))
    judges = [judging("generality", "rephrase", one, target) for one in fields.prompts("paraphrased_question", subject)]
    for hops in HOPS:
        for one in fields.prompts(f"question_{hops}hop", subject):
            judges.append(judging("portability", f"{hops}-hop", one, fields.answers(f"answer_{hops}hop")))
    judges += [judging("locality", "same subject", one, ()) for one in fields.prompts("locality_question", subject)]
    return put_together(case_id(fields, "id"), [change], judges)
