"""Distillation: the model without a definition learns to go on as the model that has just read it (arXiv 2306.09306)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from engramlab.base.errors import UserError
from engramlab.base.facts import Edit
from engramlab.base.options import check_rules
from engramlab.base.random_access import key
from engramlab.core.deltas import routing
from engramlab.core.forward.hooks import mode
from engramlab.core.forward.passes import select_positions
from engramlab.core.models import context_limit
from engramlab.core.text.tokens import join, start_tokens
from engramlab.core.training.losses import Loss, Teacher, cross_entropy
from engramlab.editing.keys.running_text import continuations
from engramlab.editing.method import Cases, Made, Watch
from engramlab.editing.requests import Requests, encode_edits, name_of, of_passage
from engramlab.editing.solve.descent import Projections, edit_down_projections

TAKES_LOSS, NEEDS_SUBJECT, TOGETHER, WATCHED = False, False, True, False


@dataclass(frozen=True)
class Config(Projections):
    """The definition is an edit's ``statement``; its prompt and target where it has none. Several edits about one subject have
    one definition together; of several subjects each is told by its own (the paper: up to 150 at once).

    Texts on which the two are compared are the edit's own, and some that the model writes behind the definition, beginning
    with the subject. The paper's are written by a model too: 5 of them with 5 steps each, at temperature 2 (their code).
    """

    texts: int = 5
    """Texts written behind the definition; 0 for the edit's own alone."""
    length: int = 24
    """Most tokens of each."""
    temperature: float = 2.0
    """Softens both distributions."""
    hard: float = 0.5
    """Weight (ours) of the edit's target itself, in its own text: it is known to be right. 0 for the paper's."""
    at_once: int = 8
    """Cases in one batch: the distributions to be matched are kept for all of their positions."""
    seed: int = 0
    """Of the texts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rules(
            self,
            (
                ("length", self.length >= 2, "at least 2"),
                ("temperature", self.temperature > 0, "above 0"),
                ("hard", 0 <= self.hard <= 1, "between 0 and 1"),
                ("at_once", self.at_once >= 1, "at least 1"),
            ),
        )


def definition(edits: Sequence[Edit]) -> str:
    """What the teacher has read: the statements of a case's edits, a line each; those that say the same once."""
    return "\n".join(dict.fromkeys(one.statement or join(one.query.prompt, one.target)[0] for one in edits))


def by_subject(edits: Sequence[Edit]) -> list[list[Edit]]:
    """The edits of a case, those about one subject together; those without a subject as one."""
    found: dict[str, list[Edit]] = {}
    for edit in edits:
        found.setdefault(edit.query.subject, []).append(edit)
    return list(found.values())


def edit_each(model: nn.Module, tokenizer: Any, cases: Cases, config: Config, loss: Loss, watch: Watch = None) -> Made:
    """A change of its own for each case, ``at_once`` of them in one batch; a definition is read once a text."""
    made: Made = []
    for start in range(0, len(cases), config.at_once):
        made += _some(model, tokenizer, cases[start : start + config.at_once], config)
    return made


def _some(model: nn.Module, tokenizer: Any, cases: Cases, config: Config) -> Made:
    told = [(number, mine) for number, edits in enumerate(cases) for mine in by_subject(edits)]
    definitions = [definition(mine) for _, mine in told]
    written = transfer_texts(model, tokenizer, [mine for _, mine in told], definitions, config)
    texts = [(mine, more) for (_, mine), more in zip(told, written, strict=True)]
    groups: list[list[Edit]] = [[] for _ in cases]
    for (number, _), (mine, more) in zip(told, texts, strict=True):
        groups[number] += [*mine, *more]
    device = next(model.parameters()).device
    requests = encode_edits(tokenizer, groups, device=device)
    rows = [part for part, (mine, more) in enumerate(texts) for _ in (*mine, *more)]
    names = [name_of(mine[0]) for _, mine in told]
    read = read_behind(model, tokenizer, requests, [definitions[i] for i in rows], [names[i] for i in rows])
    teacher = Teacher(read, config.temperature)
    own = torch.tensor([i < len(mine) for mine, more in texts for i in range(len(mine) + len(more))], device=device)[
        requests.target_rows
    ]
    tokens = requests.targets

    def towards(logits: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        """Of positions by number: a method's loss sees no more of a position than its logits and its target."""
        soft = teacher(logits, which)
        if config.hard == 0:
            return soft
        share = config.hard * own[which]
        return (1 - share) * soft + share * cross_entropy(logits, tokens[which])

    numbered = replace(requests, targets=torch.arange(len(tokens), device=device))
    return edit_down_projections(model, tokenizer, cases, config, towards, None, requests=numbered)


def transfer_texts(
    model: nn.Module, tokenizer: Any, cases: Cases, definitions: Sequence[str], config: Config
) -> list[list[Edit]]:
    """For each case, whose edits are about one subject, the texts that the model writes behind its definition; such as are
    too short to learn from are left out."""
    openings = [f"{text}\n{edits[0].query.subject}".rstrip() for text, edits in zip(definitions, cases, strict=True)]
    prompts = [opening for opening in openings for _ in range(config.texts)]
    seeds = [key(config.seed, "distillation", opening, i) for opening in openings for i in range(config.texts)]
    written = continuations(model, tokenizer, prompts, seeds, config.length) if prompts else []
    found = []
    for c, edits in enumerate(cases):
        mine = written[c * config.texts : (c + 1) * config.texts]
        texts = [" ".join(f"{edits[0].query.subject} {text.removeprefix(openings[c])}".split()) for text in mine]
        found.append([of_passage(text) for text in dict.fromkeys(texts) if " " in text])
    return found


@torch.no_grad()
def read_behind(
    model: nn.Module, tokenizer: Any, requests: Requests, definitions: Sequence[str], names: Sequence[str] = ()
) -> torch.Tensor:
    """``[n, V]`` float32: the model's logits where the target tokens are predicted, with the row's definition in front.

    The row's tokens are the same behind the definition, token for token: it is put in front as tokens, not as text. An empty
    definition puts nothing there.

    Args:
        definitions: one a row.
        names: what each row's text is about, for the message.

    Raises:
        UserError: definition and text together are longer than the model's context.
    """
    first, limit = start_tokens(tokenizer), context_limit(model)
    fronts = {
        text: tokenizer(text + "\n", add_special_tokens=False)["input_ids"] if text.strip() else []
        for text in dict.fromkeys(definitions)
    }
    found: list[torch.Tensor] = []
    with mode(model, False):
        for row, (text, length) in enumerate(zip(definitions, requests.lengths.tolist(), strict=True)):
            front, own = fronts[text], requests.ids[row, :length]
            if limit and len(front) + length > limit:
                name = f"{names[row]}: " if names else ""
                raise UserError(
                    f"{name}definition and text are {len(front) + length} tokens; the model reads {limit}: shorten it"
                )
            put = torch.tensor(front, dtype=own.dtype, device=own.device)
            ids = torch.cat([own[: len(first)], put, own[len(first) :]])[None]
            keep = torch.cat([requests.keep[row, :length].new_zeros(len(front)), requests.keep[row, :length]])[None]
            ends = requests.prompt_ends[row : row + 1] + len(front)
            with select_positions(model, keep), routing(model, ends):
                found.append(model(input_ids=ids, use_cache=False).logits[0].float())
    return torch.cat(found)
