"""RippleEdits (arXiv 2307.12976): an edit as a whole sentence, and six lists of tests around it.

    edit {prompt, relation, original_fact {prompt}}   "The name of the mother of Ann Lee is Eve Lee."
    Logical_Generalization, Compositionality_I, Compositionality_II, Subject_Aliasing    portability
    Relation_Specificity, Forgetfulness                                                  locality
      each [{test_queries: [{prompt, answers: [{value, aliases}, ...], subject_id}, ...]}, ...]

The file holds neither the prompt without its answer nor the subject's name, so both are recovered. The sentence is cut
behind the one verb its template ends in ("is", "are", "follows", "is followed by"); where two places fit, where an
answer of Subject_Aliasing (which asks the edited relation) ends the sentence, else where the original fact begins to
differ. A sentence that none of these can cut is a bad record. The subject is what follows the relation's name in the
prompt, or what the prompt shares with a test about the same ``subject_id``; where neither tells, it stays empty.
``edit`` may also say ``subject`` and ``target`` outright.

A list of such sentences alone, which the authors' ``original_fact`` and ``edit`` prompts make, is read as edits without tests.

Every test query is judged by itself: the file's ``test_condition`` (one or all queries of a test) is not kept, nor its
``condition_queries``, which say what the model must know beforehand. Where a query has several answers, the first is
the target and the others count as right.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping

from engramlab.base.errors import quoted
from engramlab.base.facts import Case, Query
from engramlab.editing.benchmarks._fields import BadRecord, Fields, case_id, edit, judging, put_together

KEYS = "edit (an object with a prompt)"
ROLES = {
    "Logical_Generalization": "portability",
    "Compositionality_I": "portability",
    "Compositionality_II": "portability",
    "Subject_Aliasing": "portability",
    "Relation_Specificity": "locality",
    "Relation_Specifity": "locality",  # as the benchmark's README spells it
    "Forgetfulness": "locality",
}
# The verb before the answer; "which Ann Lee is a member of is" and its like have an earlier one that is none.
_VERB = re.compile(
    r" (?:is followed by|follows|(?:is|are)(?! (?:followed by|associated with|part of|a member of|the capital of) )) "
)
_WORDS, _LETTERS = 400, 4000  # of a prompt that names are looked for in: what is longer is no template's sentence
_FRINGE = frozenset(
    ("a", "an", "are", "as", "by", "for", "has", "in", "is", "of", "on", "the", "to", "was", "which", "with")
)


def recognises(record: Mapping[str, object]) -> bool:
    change = record.get("edit")  # RoundEdit has one, too, with a relation that is an object
    return isinstance(change, dict) and not isinstance(change.get("relation"), dict)


def is_text(text: str) -> bool:
    """Is it a sentence that an edit can be cut out of?"""
    return _VERB.search(text) is not None


def of_text(text: str, index: int) -> Case:
    """The case of a sentence alone; raises BadRecord."""
    try:
        return case({"edit": {"prompt": text}}, index)
    except BadRecord as error:
        raise BadRecord(index, "", error.reason) from None


def case(record: Mapping[str, object], index: int) -> Case:
    """Raises BadRecord."""
    fields = Fields(record, index)
    judges: list[Query] = []
    asking: list[tuple[str, tuple[str, ...]]] = []  # the edited relation asked: prompt and spellings of the answer
    same_subject: list[str] = []
    change = fields.inner("edit")
    subject_id = change.name("subject_id")
    for group, role in ROLES.items():
        for query in _queries(fields, group):
            prompts = query.prompts("prompt") or query.prompts("phrase")
            if not prompts:
                raise query.bad("prompt", "is missing; it must be the prompt, as text")
            answers = _answers(query, needed=role != "locality")
            judges += [judging(role, group.replace("Specifity", "Specificity"), one, answers) for one in prompts]
            if group == "Subject_Aliasing":
                asking += [(prompts[0], answers)]
            regular = query.values.get("query_type") != "two_hop"  # those share the relation's words as well
            if regular and subject_id and query.name("subject_id") == subject_id:
                same_subject += prompts

    sentence = change.prompt("prompt")
    original = change.inner("original_fact" if change.has("original_fact") else "previous_fact")
    before = (original.prompts("prompt") or ("",))[0]
    prompt, target = _cut(change, sentence, before, [answer for _, answers in asking for answer in answers])
    # of several answers only the one that is the target lends its aliases
    spellings = dict.fromkeys([target])
    for query in _queries(fields, "Subject_Aliasing"):
        for entry in query.entries("answers"):
            one = _spellings(entry)
            if target in one:
                spellings |= dict.fromkeys(one)
    relation = change.name("relation")
    subject = change.name("subject") or _subject(prompt, relation, same_subject)
    old = (_without_stop(before.removeprefix(prompt)),) if before.startswith(f"{prompt} ") else ()
    made = edit(prompt, subject, tuple(spellings), tuple(filter(None, old)), relation)
    return put_together(case_id(fields, "case_id", "id"), [made], judges)


def _queries(fields: Fields, group: str) -> Iterator[Fields]:
    for test in fields.entries(group):
        if not test.has("test_queries"):
            raise test.bad("test_queries", "is missing; it must be a list of queries")
        yield from test.entries("test_queries")


def _answers(query: Fields, *, needed: bool) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(text for entry in query.entries("answers") for text in _spellings(entry)))
    if needed and not found:
        raise query.bad("answers", "is empty or missing; it must be a list of {value, aliases}")
    return found


def _spellings(entry: Fields) -> tuple[str, ...]:
    """An answer's value and aliases; single letters, which are right by accident, are no alias (as in the authors' code)."""
    aliases = entry.answers("aliases", needed=False)
    return entry.answers("value", needed=False) + tuple(one for one in aliases if len(one) > 1 or one.isdigit())


def _cut(change: Fields, sentence: str, before: str, answers: list[str]) -> tuple[str, str]:
    """The sentence's prompt and its answer."""
    if change.has("target"):
        target = change.answers("target")[0]
        if not _end(sentence, target):
            raise change.bad(
                "target", f"{quoted(target)} does not end the sentence in 'prompt'; it must be its last words"
            )
        return sentence.removesuffix(_end(sentence, target)).strip(), target
    verbs = list(_VERB.finditer(sentence))
    if len(verbs) == 1 and (target := _without_stop(sentence[verbs[0].end() :])):
        return sentence[: verbs[0].end()].strip(), target
    if ending := max((answer for answer in answers if _end(sentence, answer)), key=len, default=""):
        return sentence.removesuffix(_end(sentence, ending)).strip(), ending
    words, others = sentence.split(" "), before.split(" ")
    shared = next((n for n, (a, b) in enumerate(zip(words, others, strict=False)) if a != b), 0)
    target = _without_stop(" ".join(words[shared:]))
    if not (shared and target):
        raise change.bad(
            "prompt",
            "cannot be cut into a prompt and its answer; write a sentence that ends in 'is ANSWER.', or add 'target' "
            "(the answer as the sentence ends in it)",
        )
    return " ".join(words[:shared]), target


def _without_stop(text: str) -> str:
    return text.strip().removesuffix(".").strip()


def _end(sentence: str, answer: str) -> str:
    """How the sentence ends if it ends in the answer, else ""."""
    return next((end for end in (f" {answer}.", f" {answer}") if sentence.endswith(end)), "")


def _subject(prompt: str, relation: str, same_subject: list[str]) -> str:
    prompt, asked = prompt[-_LETTERS:], re.escape(relation.replace("_", " "))
    if relation and (found := re.search(rf"{asked} (?:of|by|in) (.+) (?:is|are)$", prompt, re.IGNORECASE)):
        return found.group(1)
    shared = [_shared(prompt.split(" "), other.split(" ")) for other in same_subject]
    return min((name for name in shared if name), key=len, default="")


def _shared(words: list[str], others: list[str]) -> str:
    """The longest run of words both have behind their common beginning, without articles and the like at its ends."""
    common = next(
        (n for n, (a, b) in enumerate(zip(words, others, strict=False)) if a != b), min(len(words), len(others))
    )
    words, others = words[common:][:_WORDS], others[common:][:_WORDS]
    longest = difflib.SequenceMatcher(None, words, others, autojunk=False).find_longest_match()
    run = words[longest.a : longest.a + longest.size]
    while run and run[0] in _FRINGE:
        run = run[1:]
    while run and run[-1] in _FRINGE:
        run = run[:-1]
    return " ".join(run)
