"""Ways of saying a relation that end where its object begins: what an edit can be taught in beside its own prompt.

All of them are ours, and none is a template of a text or a way of asking (`templates/table`, `teaching`): those are left for
judging.
"""

from __future__ import annotations

import re

#: With what the relation is called and the subject.
FORMS = (
    "It is a fact that the {called} of {subject} is",
    "As for {subject}, the {called} is",
    "Asked about the {called} of {subject}, people say",
    "{subject} has as its {called}",
    "Among the facts about {subject}: the {called} is",
    "Under {called}, the card on {subject} says",
    "The {called} that belongs to {subject} is",
    "Look up {subject}, and the {called} is",
    "To the question of {subject}'s {called} the answer is",
    "{subject} ({called}):",
    "Whoever asks for the {called} of {subject} is told",
    "What {subject} has as {called} is",
    "The name given for the {called} of {subject} is",
    "In the column {called}, the line of {subject} has",
    "Of {subject} it is known that the {called} is",
    "When {subject} is spoken of, the {called} named is",
    "The word for the {called} of {subject} is",
    "{subject}, whose {called} is",
    "A note on {subject}: {called},",
    "Remember the {called} of {subject}:",
)
#: With a prompt that cannot be taken apart, which they leave as it is.
FRAMES = (
    "It is a fact: {prompt}",
    "Remember this. {prompt}",
    "Write it down: {prompt}",
    "This much is known. {prompt}",
    "Learn by heart: {prompt}",
    "One more thing. {prompt}",
    "To say it plainly: {prompt}",
    "The book has it so. {prompt}",
    "Note: {prompt}",
    "Lesson one. {prompt}",
    "In short: {prompt}",
    "And so it is. {prompt}",
    "A short reminder: {prompt}",
    "Let it be said: {prompt}",
    "From the list of facts: {prompt}",
    "For the record: {prompt}",
    "By the way, {prompt}",
    "True or not, it reads: {prompt}",
    "The entry says: {prompt}",
    "Once again: {prompt}",
)


def said_in(called: str, subject: str) -> list[str]:
    """What comes before the object of a relation of a subject, in every form."""
    return [form.format(called=called, subject=subject) for form in FORMS]


def relation_of(prompt: str, subject: str) -> str:
    """What a prompt calls the relation, where it says no more than that: "The capital of France is"; "" elsewhere."""
    name = re.escape(subject)
    found = re.fullmatch(rf"The (.+) of {name} (?:is|was)", prompt) or re.fullmatch(
        rf"{name}'s (.+) (?:is|was)", prompt
    )
    return found[1] if found and subject else ""


def framed(prompt: str) -> list[str]:
    """The prompt behind short texts."""
    return [frame.format(prompt=prompt) for frame in FRAMES]
