"""The options of ``engramlab edit``, and everything that can be found wrong with them before a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, is_dataclass, make_dataclass, replace
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
    """The prompt in other words, to see whether the edit holds there too; may be given several times. Without any, a few are
    made up."""
    wordings: int = 1
    """In how many wordings to make the edit: its own, its record's, then plain ones or a chat model's; never one that it is
    judged by."""
    writer: str = ""
    """A chat model that writes the wordings: a folder, a .gguf file or a hub id; by default they are made by templates."""
    space: bool = True
    """Whether a space joins the target to the prompt; scripts without spaces, a prompt that ends in a line end and a target
    that begins with white space of its own need no --no-space."""
    chat: bool = False
    """Put the prompt as a message of a user, in the model's chat template: to edit, and to ask. (A model with a template is
    always asked in a conversation too.)"""
    closing: bool = True
    """Also teach where the target ends, by a full stop or the end of the turn behind it, unless it ends in punctuation: else a
    made-up name may go on."""
    file: str = ""
    """Instead of a prompt and a target: many edits at once, from a .jsonl, .json, .csv or .tsv file of your own or of a
    benchmark (engramlab list names the formats), or hub:owner/name."""
    format: str = ""
    """Format of the file; by default the one that its records look like."""
    bad: Literal["refuse", "skip"] = "refuse"
    """What to do about records of the file that cannot be used."""
    limit: int | None = None
    """Take only so many records of the file."""
    drift_text: str = "ordinary"
    """Text whose perplexity is shown before and after: `ordinary` (a page of ours, embedded), a file, or hub:owner/name; "" for
    none."""
    lm_eval: str = ""
    """Tasks of lm-evaluation-harness (pip install 'engramlab[oracle]') whose scores are shown before and after, with commas
    between them, for example arc_easy,piqa,mine.yaml (a task's file of your own)."""
    lm_eval_limit: int | None = 100
    """Questions of each of these tasks; None for all."""
    delta_only: bool = False
    """Save what the edit changed, not the model."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Number type to edit and to keep the weights in. By default they are edited in float32 and kept in the model's own (in
    bfloat16 those of a .gguf file); an edited folder stays as it is."""
    device: str | None = None
    """cpu, cuda, cuda:1 ...; by default a GPU where there is one."""
    base: str | None = None
    """Where the unedited model is now, if the model is a folder of edits alone (or a PEFT adapter) and it has moved."""
    tokenizer: str | None = None
    """A folder or hub id to take the tokenizer from, beside a .gguf file say; by default the model's own."""


def options(given: Sequence[str], names: Sequence[str], modules: Sequence[Any], loss_name: str, doc: str | None) -> Any:
    """The options under the help ``doc``, with the method's and the loss's own under ``--config`` and the loss's name.

    Args:
        modules: the method; or several that are tried, each with its own under its name.
    """
    import tyro

    from engramlab.core.training import losses
    from engramlab.editing import method

    loss = losses.get(loss_name)
    own = ["config"] if len(modules) == 1 else [field_of(name) for name in names]
    more: list[Any] = [
        (at, module.Config, field(default_factory=module.Config)) for at, module in zip(own, modules, strict=True)
    ]
    takes_loss = any(module.TAKES_LOSS for module in modules)
    if takes_loss and is_dataclass(loss):
        more.append((loss_name.replace("-", "_"), type(loss), field(default=loss)))
    more.append(("rephrase", tyro.conf.UseAppendAction[tuple[str, ...]], field(default=())))
    kind = make_dataclass("EditOptions", more, bases=(EditOptions,), frozen=True)
    there = ", ".join(method.names())
    about = (
        f"{help_of(doc)}\n\n--out DIR says where (needed; the model's own folder to add to it), --method one of "
        f"{there}, --loss one of {', '.join(losses.LOSSES)}. --try ft-m,lora,rome,wise makes the edit by each of these "
        "methods, shows one table and keeps the best."
    )
    which = f"--method {names[0]}" if len(modules) == 1 else f"--try {','.join(names)}"
    about += f" Shown are the options of {which}" + (f" --loss {loss_name}." if takes_loss else ".")
    for name, module in zip(names, modules, strict=True):
        about += f"\n\n{name}{' (needs --subject)' if module.NEEDS_SUBJECT else ''}: {first_paragraph(module)}"
    return parse(kind, "edit --out DIR", given, description=about)


def field_of(name: str) -> str:
    """Where the options of a method that is tried are."""
    return name.replace("-", "_")


def first_paragraph(module: Any) -> str:
    """The first paragraph of a method's docstring."""
    return " ".join((module.__doc__ or "").strip().split("\n\n")[0].split())


MANY = 100  # edits that give no old answer, from which on teaching is the way


def cases_of(given: EditOptions, name: str, needs_subject: bool) -> tuple[list[Case], list[str]]:
    """What is to be edited, in all its wordings, and notes on what was left out. Raises UserError."""
    from engramlab.editing import wording

    wording.check(given.wordings, given.writer)
    if given.writer and given.wordings == 1:
        raise UserError(f"--writer {given.writer} writes further wordings; say how many in all with --wordings")
    cases, notes = _cases_of(given, name, needs_subject)
    write = wording.author(given.writer) if given.writer else None
    cases, fewer = wording.worded(cases, given.wordings, write=write)
    new = sum(not edit.query.target for case in cases for edit in case.edits)
    if new >= MANY:
        notes.append(
            f"{new:,} of these edits are new facts without an old answer; so many are better taught (engramlab teach), in many "
            "wordings and with questions, than edited"
        )
    return cases, [*notes, *fewer]


def _cases_of(given: EditOptions, name: str, needs_subject: bool) -> tuple[list[Case], list[str]]:
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
        record: dict[str, Any] = {"prompt": given.prompt, "target": given.target, "subject": given.subject or None}
        record |= {"aliases": list(given.aliases), "space": given.space}
        record |= {"rephrase": list(given.rephrase)} if given.rephrase else {}
        try:
            case = plain.case(record, 0)
        except benchmarks.BadRecord as error:
            raise UserError(f"--{error.key.split('[')[0]}: {error.reason}") from None
        if needs_subject and not given.subject.strip():
            without = ", ".join(other for other in method.names() if not method.load(other).NEEDS_SUBJECT)
            raise UserError(
                f"--method {name} needs --subject: who or what the edit is about, as the prompt quotes it ({without} "
                "do without)"
            )
        (edit,) = case.edits
        if given.subject:
            subject_span(edit)
        return [
            case
            if given.rephrase
            else Case(case.id, (replace(edit, judges=preview.rewordings(edit, chat=given.chat)),))
        ], []
    for option in ("prompt", "target", "subject", "aliases", "rephrase", "no-space"):
        if not given.space if option == "no-space" else getattr(given, option):
            raise UserError(f"--{option} cannot be given with --file: it belongs into the file, a record an edit")
    loaded = benchmarks.load(
        given.file,
        format=given.format or None,
        bad=given.bad,
        limit=given.limit,
        apart=False,
        subjects=name if needs_subject else "",
    )
    benchmarks.check_joint(loaded.cases, given.file)
    notes = [
        f"left out record {i}{f', key {quoted(key)}' if key else ''}: {reason}" for i, key, reason in loaded.skipped
    ]
    places = [f"record {number}" for number in loaded.records or range(len(loaded.cases))]
    cases, left = benchmarks.agreeing(loaded.cases, places, given.file, given.bad)
    return cases, [*notes, *left]
