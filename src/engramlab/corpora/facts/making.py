"""What instruments take of a table of facts: passages, queries and edits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from engramlab.base.errors import UserError, at_places, quoted
from engramlab.base.facts import Case, Edit, Fact, Query
from engramlab.base.joining import cut
from engramlab.base.random_access import draw, key, permute, random_words
from engramlab.corpora.facts.building import check_relations
from engramlab.corpora.passages import ROLE, PassageRecord

if TYPE_CHECKING:
    from engramlab.corpora.facts.table import FactTable


def question(facts: FactTable, fact: Fact) -> Query:
    """The question for a fact."""
    prompt = facts.wordings.question(fact.relation, fact.subject)
    return Query(
        prompt, fact.object, fact.aliases, f"{fact.subject}/{fact.relation}", fact.subject, fact.relation, "question"
    )


def passages(facts: FactTable, paraphrases: int, seed: int) -> list[PassageRecord]:
    """See `FactTable.passages`."""
    if paraphrases < 0:
        raise UserError(f"paraphrases: must be at least 0, not {paraphrases}")
    found = []
    for number, subject in enumerate(facts.subjects):
        stated = list(facts.about(number))
        if not stated:
            continue
        first = [_first(facts, fact, seed) for fact in stated]
        texts: list[str] = []
        for version in range(paraphrases + 1):
            said = [facts.wordings.sentence(fact, k + version)[0] for fact, k in zip(stated, first, strict=True)]
            order = random_words(key(seed, "passage", subject, version), np.arange(len(stated))).argsort()
            texts.append(" ".join(said[i] for i in order))
        queries = []
        for depth in ("memorization", "semantic"):
            for k, (fact, template) in enumerate(zip(stated, first, strict=True)):
                sentence, start = facts.wordings.sentence(fact, template)
                prompt, target = cut(sentence, start, start + len(fact.object))
                if depth == "semantic":
                    prompt, target = facts.wordings.question(fact.relation, subject), fact.object
                name = f"{subject}/{depth}/{k}"
                queries.append(Query(prompt, target, fact.aliases, name, subject, fact.relation, ROLE, depth))
        versions = tuple(dict.fromkeys(texts))
        found.append(PassageRecord(subject, versions[0], versions[1:], tuple(queries), ("",) * len(queries)))
    return found


def _first(facts: FactTable, fact: Fact, seed: int) -> int:
    """The template of a fact's own passage: one that ends in the object, where there is one, so that its beginning asks.

    Raises:
        UserError: the object comes before the subject in every template.
    """
    words = facts.wordings
    asking = words.asking[fact.relation] or words.leading(fact.relation)
    if not asking:
        places = [line.where for line in words.spoken[fact.relation]]
        raise UserError(
            f"templates of {quoted(fact.relation)}: {{value}} comes before {{subject}} in each of them ({at_places(places)}), "
            "so that no beginning of a sentence asks for it; add one in which {subject} comes first"
        )
    return int(draw(key(seed, "passage", fact.subject, fact.relation), 0, asking))


def edits(
    facts: FactTable, target: str, relations: Sequence[str] | None, limit: int | None, locality: int, seed: int
) -> list[Case]:
    """See `FactTable.edits`."""
    if target not in ("other", "own"):
        raise UserError(f"target: {target!r} is unknown; use 'other' or 'own'")
    check_relations(relations, facts.relations, facts.name)
    chosen = [fact for fact in facts if relations is None or fact.relation in relations]
    if not chosen:
        raise UserError(f"{facts.name}: states no fact of {', '.join(relations or ())}; choose other relations")
    order = permute(key(seed, "fact edits"), np.arange(len(chosen)), len(chosen)).tolist()
    chosen = [chosen[i] for i in order[:limit]]
    by_relation: dict[str, list[Fact]] = {relation: [] for relation in facts.relations}
    for fact in facts:
        by_relation[fact.relation].append(fact)
    return [_case(facts, fact, by_relation[fact.relation], target, locality, seed) for fact in chosen]


def _case(facts: FactTable, fact: Fact, alike: Sequence[Fact], target: str, locality: int, seed: int) -> Case:
    """The edit of one fact; ``alike`` are all facts of its relation."""
    name = f"{fact.relation}/{fact.subject}"
    drawn = permute(key(seed, "fact edit", fact.relation, fact.subject), np.arange(len(alike)), len(alike))
    others = [alike[i] for i in drawn.tolist() if alike[i].subject != fact.subject]
    new = fact
    if target == "other":
        unlike = [one for one in others if not _spellings(one) & _spellings(fact)]
        if not unlike:
            raise UserError(
                f"{facts.name}: {fact.relation!r} has no other object than {fact.object!r} to edit {fact.subject!r} to; add "
                "facts, choose other relations, or let the model learn the table's own objects"
            )
        new = unlike[0]
    prompt, *rephrased = facts.wordings.prompts(fact.relation, fact.subject)
    old = fact if target == "other" else replace(fact, object="", aliases=())
    judges = [_judge(new, text, "generality", "Q&A" if text == rephrased[-1] else "statement") for text in rephrased]
    for alias in fact.subject_aliases:
        judges.append(_judge(new, facts.wordings.prompts(fact.relation, alias)[0], "portability", "Subject_Aliasing"))
    for one in others[:locality]:
        judges.append(_judge(one, facts.wordings.prompts(one.relation, one.subject)[0], "locality", "other subjects"))
    query = Query(prompt, old.object, old.aliases, name, fact.subject, fact.relation, "edit")
    numbered = tuple(replace(judge, id=f"{name}/{number}") for number, judge in enumerate(judges, 1))
    return Case(name, (Edit(query, new.object, new.aliases, numbered),))


def _spellings(fact: Fact) -> set[str]:
    return {name.casefold() for name in (fact.object, *fact.aliases)}


def _judge(fact: Fact, prompt: str, role: str, group: str) -> Query:
    return Query(prompt, fact.object, fact.aliases, "", fact.subject, fact.relation, role, group)
