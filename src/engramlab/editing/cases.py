"""From two options, a benchmark and a model, to the cases that are edited: loaded, split, known to the model, and few enough.

Joins the benchmarks and `core/models` for every experiment that edits. The order is always the same: all cases, then the
part that was asked for, then those of the kind asked for, then those the model knows, then the first ``limit`` of them; so a
split never depends on the model, nor on how many cases are used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from engramlab.base.arrays import brief
from engramlab.base.errors import UserError
from engramlab.base.facts import NO_SPACE, Case, Edit, Query
from engramlab.base.progress import Progress
from engramlab.base.random_access import draw, key
from engramlab.base.rows import BEHIND, ROLES
from engramlab.core.text.chat import Chat
from engramlab.editing import benchmarks
from engramlab.measuring.answers import is_answer
from engramlab.measuring.asking import MOST_NEW_TOKENS, Room, lengths_of, rooms, write

CaseSplit = Literal["all", "tune", "test"]
#: Share of the subjects whose cases are for choosing settings.
TUNE_SHARE = 0.25


@dataclass(frozen=True)
class Chosen(benchmarks.Loaded):
    """The cases of a run.

    Attributes:
        asked: of how many cases the model was asked the old answers (0 unless only known ones are taken).
        unknown: how many of those it did not know.
    """

    __repr__ = brief

    asked: int = 0
    unknown: int = 0


def model(
    name: str, *, dtype: str = "float32", device: str | None = None, methods: Sequence[str] = ()
) -> tuple[nn.Module, Any]:
    """The model and the tokenizer of a required option ``--model``, on the GPU if there is one.

    Args:
        name: a model folder, a .gguf file or a hub id; "" where the option is missing.
        dtype: of the weights, "float32" or "bfloat16".
        methods: those that will edit it; a model of a kind that one of them cannot edit is refused before it is loaded.

    Raises:
        UserError: no name, or whatever ``core/models.load`` says.
    """
    require_model(name)
    import torch

    from engramlab.core import models
    from engramlab.editing.folders.opening import in_weights, load_model
    from engramlab.editing.method import check_model

    if not in_weights(name):
        return load_model(name, device=device)
    check_model(name, methods)
    on = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return models.load(name, dtype=getattr(torch, dtype), device=on)


def require_model(name: str) -> None:
    """Raises UserError where no model was named: there is none that would do for everybody."""
    if not name.strip():
        raise UserError("model: say which model is edited, with --model and a model folder, a .gguf file or a hub id")


def cases(
    benchmark: str | Path | Sequence[Case] = "world",
    *,
    limit: int | None = None,
    seed: int = 0,
    part: CaseSplit = "all",
    known_to: tuple[nn.Module, Any] | None = None,
    chat: Chat | None = None,
    format: str | None = None,
    bad: Literal["refuse", "skip"] = "refuse",
    ordered: bool = False,
    subjects: str = "",
    words: int = 0,
    judged_by: Sequence[str] = (),
    progress: Progress | None = None,
) -> Chosen:
    """The cases that an experiment edits.

    Args:
        benchmark: what ``benchmarks.load`` takes: "world", a file, or ``hub:owner/name[:file or split]``; or the cases
            themselves, such as those of a ``FactTable``.
        limit: most cases; None for all. Those of a file come in its order, others in one drawn by ``seed``.
        seed: of a benchmark that is made, and of the split.
        part: see ``split``.
        known_to: model and tokenizer: only cases whose old answers it writes, see ``known``.
        chat: put every prompt in this template.
        format: of a file; by default the one that recognises most records.
        bad: what becomes of a file's bad records.
        words: only cases whose new answers have at least so many words.
        judged_by: only cases that have queries of each of these roles.
        ordered: also cases whose edits are made one after another, for those who do that.
        subjects: who needs every prompt to quote its subject (``method.needing_subjects``): a record that does not is bad.
        progress: called with (cases asked about, how many at most) while known ones are looked for.

    Raises:
        UserError: a file that cannot be used, options that fit nothing, or no case left.
    """
    if limit is not None and limit < 1:
        raise UserError(f"limit: must be at least 1, or left out for all cases, not {limit}")
    # All of a benchmark is read where not all of it is taken: which cases come first must not depend on the limit.
    whole = part != "all" or known_to is not None or words > 0 or bool(judged_by)
    if isinstance(benchmark, str | Path):
        most = None if whole else limit
        loaded = benchmarks.load(benchmark, format=format, bad=bad, limit=most, seed=seed, subjects=subjects)
    elif format is not None:
        raise UserError("format: is of a benchmark's file; leave it out for facts")
    else:
        loaded, benchmark = benchmarks.Loaded(list(benchmark), [], "facts"), "facts"
    if not ordered:
        benchmarks.check_joint(loaded.cases, benchmark)
    chosen = split(loaded.cases, part, seed)
    if not chosen:
        raise UserError(f"{benchmark}: its {len(loaded.cases)} cases leave none for part {part!r}; use part 'all'")
    if not (chosen := [case for case in chosen if _of_kind(case, words, judged_by)]):
        kinds = [f"new answers of {words} words or more"] * (words > 0) + [f"{role} queries" for role in judged_by]
        raise UserError(f"{benchmark}: none of its cases has {' and '.join(kinds)}; ask for less")
    chosen = chosen if chat is None else list(map(chat.case, chosen))
    asked = unknown = 0
    if known_to is not None:
        kept: list[Case] = []
        for group, good in known_groups(*known_to, chosen, limit):
            kept += good
            asked += len(group)
            unknown += len(group) - len(good)
            if progress:
                progress(asked, len(chosen))
        if not kept:
            raise UserError(
                f"{benchmark}: the model writes the old answer of none of {asked} cases; take them as they are "
                "(without known-only), or a model that knows more"
            )
        chosen = kept
    found = chosen[:limit]
    return Chosen(found, loaded.skipped, loaded.format, oddities=loaded.oddities, asked=asked, unknown=unknown)


def check_roles(judged_by: Sequence[str]) -> None:
    """Raises UserError for what is no role of judges."""
    for role in judged_by:
        if role not in ROLES[1:]:
            raise UserError(f"judged_by: {role!r} is none of {', '.join(ROLES[1:])}")


def _of_kind(case: Case, words: int, judged_by: Sequence[str]) -> bool:
    roles = {query.role for edit in case.edits for query in edit.judges}
    return roles.issuperset(judged_by) and all(len(edit.target.split()) >= words for edit in case.edits)


def judged_together(cases: Iterable[Case]) -> list[Case]:
    """These cases without the judges that no longer hold once all of their edits stand side by side.

    The capital of Japan must not change when France's does, unless Japan's is edited too. For sequences and batches of cases.
    A query says what it rests on by its ``needs`` (``benchmarks/world.py``) or its ``hops`` (``benchmarks/mquake.py``); any
    other rests on its own answer. It holds if nothing that it rests on is asked for in the words of an edit, or of a
    rephrasing of one, to which the last such edit gives another answer.
    """
    cases = list(cases)
    edited = {edit.query.id for case in cases for edit in case.edits}
    given = Counter(f"{edit.query.relation}={edit.target}" for case in cases for edit in case.edits)
    now = _answers_now(cases)

    def holds(query: Query, own: str) -> bool:
        needs = getattr(query, "needs", None)
        if needs is not None:
            return not any(need in edited or given[need] > (need == own) for need in needs)
        if query.role == "locality" and query.subject and f"{query.relation}/{query.subject}" in edited:
            return False
        facts = getattr(query, "hops", ()) or [((query.question,), (query.target, *query.aliases))]
        return all(_agrees(now, wordings, answers) for wordings, answers in facts)

    def kept(edit: Edit) -> Edit:
        own = f"{edit.query.relation}={edit.target}"
        return replace(edit, judges=tuple(query for query in edit.judges if holds(query, own)))

    return [replace(case, edits=tuple(kept(edit) for edit in case.edits)) for case in cases]


def _plain(texts: Iterable[str]) -> set[str]:
    return {benchmarks.spelt(text.removeprefix(NO_SPACE)) for text in texts}


def _answers_now(cases: Iterable[Case]) -> dict[str, set[str]]:
    """By question, in any of an edit's wordings: the right answers once all edits were made in their order."""
    found: dict[str, set[str]] = {}
    for case in cases:
        for edit in case.edits:
            for text in (edit.query.question, *edit.wordings):
                found[benchmarks.spelt(text)] = _plain((edit.target, *edit.aliases))
            for judge in edit.judges:
                if judge.role == "generality":
                    found[benchmarks.spelt(judge.question)] = _plain((judge.target, *judge.aliases))
    return found


def _agrees(now: Mapping[str, set[str]], wordings: Iterable[str], answers: Iterable[str]) -> bool:
    """Do all edits that ask for a fact give it one of its right answers?"""
    right = _plain(answers)
    return all(right & now[text] for text in map(benchmarks.spelt, wordings) if text in now)


def superseded(cases: Sequence[Case]) -> dict[int, tuple[str, ...]]:
    """Of cases edited one after another: the number of each that no longer holds, for a later one gave its prompt another
    answer (``benchmarks.overwritten``), and the answers that hold in its place."""
    flat = [(c, edit) for c, case in enumerate(cases) for edit in case.edits]
    later = benchmarks.overwritten([edit for _, edit in flat])
    return {flat[i][0]: (flat[j][1].target, *flat[j][1].aliases) for i, j in later.items()}


def unjudged(case: Case) -> Case:
    """The case with its own prompts alone."""
    return replace(case, edits=tuple(replace(edit, judges=()) for edit in case.edits))


def behind(cases: Sequence[Case], texts: Sequence[str], chat: Chat | None = None) -> list[Case]:
    """The cases whose edits that are to hold are also asked behind each of some texts (role ``behind``: in no share).

    Args:
        chat: the template that the cases are in, if they are.
    """

    def asked(edit: Edit, i: int, text: str) -> Query:
        said, about = f"{text} {edit.query.question}", edit.query
        return Query(
            chat.prompt(said) if chat else said,
            edit.target,
            edit.aliases,
            subject=about.subject,
            relation=about.relation,
            role=BEHIND,
            group=f"text {i}",
            said=said if chat else "",
        )

    found = []
    for case in cases:
        hold = case.edits[-1:] if case.ordered else case.edits
        more = [replace(e, judges=(*e.judges, *(asked(e, i, text) for i, text in enumerate(texts)))) for e in hold]
        found.append(replace(case, edits=(*case.edits[: -len(hold)], *more)))
    return found


def fewer_judges(cases: Sequence[Case], most: int | None) -> list[Case]:
    """The cases with at most so many judges of each role and kind, the first ones; None keeps them all."""
    if most is None:
        return list(cases)
    found = []
    for case in cases:
        seen: Counter[tuple[str, str]] = Counter()
        edits = []
        for edit in case.edits:
            kept = []
            for judge in edit.judges:
                seen[judge.role, judge.group] += 1
                if seen[judge.role, judge.group] <= most:
                    kept.append(judge)
            edits.append(replace(edit, judges=tuple(kept)))
        found.append(replace(case, edits=tuple(edits)))
    return found


def split(cases: Sequence[Case], part: CaseSplit, seed: int = 0) -> list[Case]:
    """The cases of one part, in their order: "tune" to choose settings by, "test" to report, "all" for both.

    All cases about one subject are in one part (a case without a subject goes by its prompt), whatever other cases there are
    and in whatever order: a quarter of the subjects is for tuning.
    """
    if part not in ("all", "tune", "test"):
        raise UserError(f"part: {part!r} is unknown; use all, tune or test")
    return [case for case in cases if part == "all" or (part == "tune") == _for_tuning(case, seed)]


def _for_tuning(case: Case, seed: int) -> bool:
    first = case.edits[0].query
    about = " ".join((first.subject or first.prompt).casefold().split())
    return int(draw(key(seed, "editing split", about), 0, 1 << 20)) < TUNE_SHARE * (1 << 20)


def known(model: nn.Module, tokenizer: Any, cases: Sequence[Case]) -> list[Case]:
    """The cases whose old answers (``edit.query.target`` or an alias) the unedited model writes, greedily, for every edit.

    A case of which the old answer is not given cannot be known.
    """
    edits = [edit.query for case in cases for edit in case.edits]
    solid = [query for query in edits if query.target.strip()]
    longest = max(lengths_of(tokenizer, solid).values(), default=0) + 2
    prompts = list(dict.fromkeys(query.prompt for query in solid))
    most = min(MOST_NEW_TOKENS, longest)
    needed = rooms(tokenizer, solid, most, grows=True)
    texts = write(model, tokenizer, prompts, [needed.get(prompt, Room(most)) for prompt in prompts])
    written = dict(zip(prompts, texts, strict=True))

    def knows(case: Case) -> bool:
        queries = [edit.query for edit in case.edits]
        return all(q.target.strip() and is_answer(written[q.prompt], (q.target, *q.aliases), q.said) for q in queries)

    return [case for case in cases if knows(case)]


def known_groups(
    model: nn.Module, tokenizer: Any, cases: Sequence[Case], limit: int | None
) -> Iterator[tuple[Sequence[Case], list[Case]]]:
    """Groups of cases and which of each are known (see ``known``), until ``limit`` known ones were found."""
    size = len(cases) if limit is None else max(64, 2 * limit)
    found = 0
    for start in range(0, len(cases), size):
        group = cases[start : start + size]
        good = known(model, tokenizer, group)
        yield group, good
        found += len(good)
        if limit is not None and found >= limit:
            return
