"""Facts as *Pitfalls of knowledge editing* (arXiv 2310.02129) writes them: a relation's wordings, a subject and an
object."""

from __future__ import annotations

from dataclasses import dataclass

from engramlab.base.facts import Edit
from engramlab.editing.benchmarks._fields import Fields, edit


@dataclass(frozen=True)
class Triple:
    """``relation`` {id, prompt with {}, query with {}}, ``subject`` {label}, ``object`` {label}, and maybe
    ``new_object`` {label}."""

    wording: str
    relation: str
    prompt: str
    questions: tuple[str, ...]
    subject: str
    object: str
    new: str = ""

    def edit(self, *others: str) -> Edit:
        """From the object to the new one; others are right so far, too."""
        return edit(self.prompt, self.subject, (self.new,), (self.object, *others), self.relation)


def triple(fields: Fields, *, new: bool = True) -> Triple:
    """Raises BadRecord, also where the new object is needed and missing."""
    subject = fields.inner("subject").name("label")
    if not subject:
        raise fields.bad("subject.label", "is missing; it must be the subject, as text")
    relation = fields.inner("relation")
    wording = relation.prompt("prompt", "{}")
    if "{}" not in wording:
        raise relation.bad("prompt", "has no {}, where the subject is to stand")
    return Triple(
        wording,
        relation.name("id"),
        relation.prompt("prompt", subject),
        relation.prompts("query", subject),
        subject,
        fields.inner("object").answers("label")[0],
        fields.inner("new_object").answers("label")[0] if new else "",
    )
