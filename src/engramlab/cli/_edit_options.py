"""The options of ``engramlab edit``, and everything that can be found wrong with them before a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, is_dataclass, make_dataclass
from typing import Any, Literal

from engramlab.base.errors import UserError, quoted
from engramlab.base.facts import Case
from engramlab.cli._words import help_of, parse

METHOD, LOSS = "ft-m", "cross-entropy"


@dataclass(frozen=True)
class EditOptions:
    """Options of ``engramlab edit``, whatever the method."""

    model: str = ""
    """A model folder, a .gguf file, a hub id, or a folder that engramlab edit wrote, to go on from there."""
    prompt: str = ""
    """What the new answer is to follow, for example "The capital of France is"; {} stands for the subject."""
    target: str = ""
    """The new answer, for example Rome."""
    subject: str = ""
    """Who or what it is about, as the prompt quotes it; methods that change what is stored of a subject need it."""
    aliases: tuple[str, ...] = ()
    """Other right spellings of the target."""
    rephrase: tuple[str, ...] = ()
    """The prompt in other words, to see whether the edit holds there too; may be given several times. Without any, two simple
    ones are made up."""
    file: str = ""
    """Instead of a prompt and a target: many edits at once, from a .jsonl, .json, .csv or .tsv file of your own or of a
    benchmark (engramlab list names the formats), or hub:owner/name."""
    format: str = ""
    """Format of the file; by default the one that its records look like."""
    bad: Literal["refuse", "skip"] = "refuse"
    """What to do about records of the file that cannot be used."""
    limit: int | None = None
    """Take only so many records of the file."""
    delta_only: bool = False
    """Save what the edit changed, not the model."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Number type of the weights; by default float32, or that of an edited folder."""
    device: str | None = None
    """cpu, cuda, cuda:1 ...; by default a GPU where there is one."""


def options(given: Sequence[str], name: str, module: Any, loss_name: str, doc: str | None) -> Any:
    """The options under the help ``doc``, with the method's and the loss's own under ``--config`` and the loss's name."""
    import tyro

    from engramlab.core.training import losses
    from engramlab.editing import method

    loss = losses.get(loss_name)
    more: list[Any] = [("config", module.Config, field(default_factory=module.Config))]
    if module.TAKES_LOSS and is_dataclass(loss):
        more.append((loss_name.replace("-", "_"), type(loss), field(default=loss)))
    more.append(("rephrase", tyro.conf.UseAppendAction[tuple[str, ...]], field(default=())))
    kind = make_dataclass("EditOptions", more, bases=(EditOptions,), frozen=True)
    there = ", ".join(method.names())
    about = (
        f"{help_of(doc)}\n\n--out DIR says where (needed; the model's own folder to add to it), --method one of "
        f"{there}, --loss one of {', '.join(losses.LOSSES)}. Shown are the options of --method {name}"
        + (f" --loss {loss_name}" if module.TAKES_LOSS else "")
        + f".\n\n{name}{' (needs --subject)' if module.NEEDS_SUBJECT else ''}: {first_paragraph(module)}"
    )
    return parse(kind, "edit --out DIR", given, description=about)


def first_paragraph(module: Any) -> str:
    """The first paragraph of a method's docstring."""
    return " ".join((module.__doc__ or "").strip().split("\n\n")[0].split())


def cases_of(given: EditOptions, name: str, module: Any) -> tuple[list[Case], list[str]]:
    """What is to be edited, and notes on what was left out. Raises UserError."""
    from engramlab.editing import benchmarks, method
    from engramlab.editing.benchmarks import plain
    from engramlab.editing.judge import preview
    from engramlab.editing.requests import subject_span

    if not given.model:
        raise UserError("engramlab edit needs --model: a model folder, a .gguf file, a hub id, or an edited folder")
    if not given.file:
        for option in ("prompt", "target"):
            if not getattr(given, option).strip():
                raise UserError(
                    f"engramlab edit needs --{option} (or --file with many edits); see engramlab edit --help"
                )
        filled = given.prompt.replace("{}", given.subject) if given.subject else given.prompt
        record: dict[str, Any] = {"prompt": given.prompt, "target": given.target, "subject": given.subject or None}
        record |= {"aliases": list(given.aliases), "rephrase": list(given.rephrase or preview.rephrasings(filled))}
        try:
            case = plain.case(record, 0)
        except benchmarks.BadRecord as error:
            raise UserError(f"--{error.key.split('[')[0]}: {error.reason}") from None
        if module.NEEDS_SUBJECT and not given.subject.strip():
            without = ", ".join(other for other in method.names() if not method.load(other).NEEDS_SUBJECT)
            raise UserError(
                f"--method {name} needs --subject: who or what the edit is about, as the prompt quotes it ({without} "
                "do without)"
            )
        if given.subject:
            subject_span(case.edits[0])
        return [case], []
    for option in ("prompt", "target", "subject", "aliases", "rephrase"):
        if getattr(given, option):
            raise UserError(f"--{option} cannot be given with --file: it belongs into the file, a record an edit")
    loaded = benchmarks.load(given.file, format=given.format or None, bad=given.bad, limit=given.limit)
    notes = [
        f"left out record {i}{f', key {quoted(key)}' if key else ''}: {reason}" for i, key, reason in loaded.skipped
    ]
    cases, places = [], []
    records = loaded.records or range(len(loaded.cases))
    for case, number in zip(loaded.cases, records, strict=True):
        try:
            for one in case.edits if module.NEEDS_SUBJECT else ():
                subject_span(one)
        except UserError as error:
            if given.bad == "refuse":
                raise UserError(f"{given.file}: {error}; or leave such records out with --bad skip") from None
            notes.append(f"left out: {error}")
        else:
            cases.append(case)
            places.append(f"record {number}")
    cases, left = benchmarks.agreeing(cases, places, given.file, given.bad)
    notes += left
    if not cases:
        raise UserError(f"{given.file}: no record can be used with {name}: {notes[-1] if notes else 'it is empty'}")
    return cases, notes
