"""Answers that name their source: how documents with identifiers are put to a model, and which document it names.

A document's identifier stands between two tokens of its own; a question is answered "answer ## <url>identifier</url>". What is
named is found exactly: the log-probability of every identifier there is, in one pass (``core/forward/tries.py``).

Source: arXiv 2404.01019 and its released code, which finds it by a beam of ten. Instructions and identifiers are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from engramlab.base.errors import UserError, quoted
from engramlab.base.progress import Progress
from engramlab.base.rows import Rows
from engramlab.core.forward import tries
from engramlab.core.forward.decoding import greedy
from engramlab.core.forward.generation import CachedReader, decode, left_padded
from engramlab.core.forward.hooks import mode
from engramlab.core.models import context_limit
from engramlab.core.text.tokens import end_token, join, place, start_tokens
from engramlab.corpora.documents import LETTERS
from engramlab.files import records

#: Around an identifier, and between answer and source.
OPEN, CLOSE, SEPARATOR = "<url>", "</url>", "##"
FILE = "sources.json"
INSTRUCTION = "Answer and name the source."


@dataclass(frozen=True)
class Form:
    """How questions are put and identifiers are spelt.

    Attributes:
        instruction: stands before every question.
        thought: is the rest of the document told before its identifier (the paper's chain of thought)?
        letters: is an identifier a row of letters, each a token of its own? Otherwise it is text.
    """

    instruction: str = INSTRUCTION
    thought: bool = False
    letters: bool = True

    def prompt(self, question: str) -> str:
        """The question as a model reads it."""
        text = " ".join([self.instruction, question.strip()]).strip()
        return text if text.endswith("Answer:") else f"{text} Answer:"


def add_tokens(tokenizer: Any, letters: bool) -> None:
    """Puts the tokens around identifiers, and those of their letters, behind a tokenizer's vocabulary."""
    named = [OPEN, CLOSE, *([f"<@{letter}>" for letter in LETTERS] if letters else [])]
    tokenizer.add_tokens([one for one in named if one not in tokenizer.get_vocab()], special_tokens=True)


def grow(model: nn.Module, tokenizer: Any) -> nn.Module:
    """The model with a row for every token; new ones start at the mean of the old, as in the paper's code."""
    bare: Any = model
    old, new = bare.get_input_embeddings().weight.shape[0], len(tokenizer)
    if new > old:
        bare.resize_token_embeddings(new, mean_resizing=False)
    added = _ids(tokenizer, [OPEN, CLOSE, *(f"<@{letter}>" for letter in LETTERS)])
    known = np.setdiff1d(np.arange(min(old, new)), added)
    with torch.no_grad():
        for part in {id(p): p for p in (bare.get_input_embeddings(), bare.get_output_embeddings())}.values():
            part.weight[added] = part.weight[torch.from_numpy(known)].mean(0)
    return model


def _ids(tokenizer: Any, tokens: Sequence[str]) -> list[int]:
    """The ids of those tokens that there are."""
    found = tokenizer.convert_tokens_to_ids(list(tokens))
    there = tokenizer.convert_ids_to_tokens([0 if i is None else i for i in found])
    return [int(i) for i, token, named in zip(found, there, tokens, strict=True) if i is not None and token == named]


def spelt(tokenizer: Any, name: str, letters: bool) -> list[int]:
    """The tokens of an identifier, without those around it. Raises UserError for one that has none."""
    if letters:
        found = _ids(tokenizer, [f"<@{letter}>" for letter in name])
    else:
        found = list(tokenizer(name, add_special_tokens=False)["input_ids"])
    if not found or (letters and len(found) < len(name)):
        raise UserError(f"identifier {quoted(name)}: cannot be spelt in the model's tokens")
    return found


def tag(tokenizer: Any, name: str, letters: bool) -> list[int]:
    """An identifier with the tokens around it."""
    before, behind = _ids(tokenizer, [OPEN, CLOSE])
    return [before, *spelt(tokenizer, name, letters), behind]


def tree(tokenizer: Any, names: Sequence[str], letters: bool) -> tries.Trie:
    """All identifiers as they follow the opening token, each closed. Raises UserError: two are spelt alike."""
    return tries.Trie.of(
        [tag(tokenizer, one, letters)[1:-1] for one in names], names, tag(tokenizer, names[0], letters)[-1]
    )


@dataclass(frozen=True)
class Answered:
    """What a model has written before it names a source.

    Attributes:
        answers: as text, one a question.
        before: token ids of each question and of all that stands before the identifier, the opening token included.
    """

    answers: list[str]
    before: list[list[int]]


@torch.inference_mode()
def answered(
    model: nn.Module, tokenizer: Any, form: Form, questions: Sequence[str], *, new: int, batch: int = 64
) -> Answered:
    """The model's own answers, written greedily up to where it would name its source.

    Args:
        new: most tokens of an answer (and of what is told behind it).

    Raises:
        UserError: a question that leaves no room for an answer.
    """
    start, (opening, _) = start_tokens(tokenizer), _ids(tokenizer, [OPEN, CLOSE])
    prompts = [
        start + ids for ids in tokenizer(list(map(form.prompt, questions)), add_special_tokens=False)["input_ids"]
    ]
    limit = context_limit(model)
    for question, prompt in zip(questions, prompts, strict=True):
        if limit and len(prompt) + new > limit:
            raise UserError(
                f"question {quoted(question)}: has {len(prompt)} tokens; with an answer of {new} it does not fit the model's "
                f"context of {limit}"
            )
    device, end = next(model.parameters()).device, end_token(tokenizer)
    separator = tokenizer(" " + SEPARATOR, add_special_tokens=False)["input_ids"]
    ends = [opening] if form.thought else [opening, end]
    answers, before = [""] * len(prompts), [[0]] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    with mode(model, False):
        for at in range(0, len(order), batch):
            now = order[at : at + batch]
            ids, mask = left_padded([prompts[i] for i in now], end, device)
            found = decode(model, greedy.Config(), CachedReader(model, ids, mask), new=new, ends=ends)
            for i, written in zip(now, found.tolist(), strict=True):
                kept = written[: next((k for k, token in enumerate(written) if token in ends), len(written))]
                text = tokenizer.decode(kept, skip_special_tokens=True)
                answers[i] = text.partition(SEPARATOR)[0].strip()
                before[i] = [*prompts[i], *kept, *([] if SEPARATOR in text else separator), opening]
    return Answered(answers, before)


def told(
    tokenizer: Any, form: Form, questions: Sequence[str], answers: Sequence[str], rests: Sequence[str]
) -> Answered:
    """As if the model had given these answers (and told these rests of documents, where its form asks for them)."""
    rows = answer_rows(tokenizer, form, questions, answers, rests)
    opening = _ids(tokenizer, [OPEN])[0]
    return Answered(list(answers), [[*start_tokens(tokenizer), *ids, opening] for ids, _ in rows])


def answer_rows(
    tokenizer: Any, form: Form, questions: Sequence[str], answers: Sequence[str], rests: Sequence[str]
) -> list[tuple[list[int], int]]:
    """Token ids of question, answer, separator and what is told behind it; and where the answer begins in them."""
    texts = []
    for question, answer, rest in zip(questions, answers, rests, strict=True):
        said = f"{answer} {SEPARATOR}" + (f" {rest}" if form.thought and rest else "")
        texts.append((*join(form.prompt(question), said), len(form.prompt(question))))
    end, found = end_token(tokenizer), []
    for question, at in zip(questions, place(tokenizer, texts), strict=True):
        if at is None:
            raise UserError(f"question {quoted(question)}: its answer has no token of its own")
        found.append((at.ids + ([end] if form.thought else []), at.begin))
    return found


def hits(scores: np.ndarray, gold: np.ndarray, k: int) -> np.ndarray:
    """float64 ``[n]``: is the right source among the first k? Where it ties with others, the chance that it is.

    Args:
        scores: ``[n, sources]``, higher is better.
        gold: int64 ``[n]``: the right one.
    """
    own = np.take_along_axis(scores, gold[:, None], 1)
    better, alike = (scores > own).sum(1), (scores == own).sum(1)
    found: np.ndarray = np.clip((k - better) / alike, 0.0, 1.0)
    return found


# a model that cites ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sources:
    """What a model folder says of the documents its model can name (``sources.json``).

    Attributes:
        texts: of the documents, by identifier.
        new: most tokens of an answer.
    """

    form: Form
    texts: dict[str, str]
    new: int = 32

    def save(self, folder: Path) -> None:
        """Writes it."""
        records.write_record(folder / FILE, {"form": asdict(self.form), "texts": self.texts, "new": self.new})

    @classmethod
    def load(cls, folder: Path) -> Sources:
        """Reads it; raises UserError where it is not there or not what was written."""
        if not (folder / FILE).is_file():
            raise UserError(
                f"{folder} names no sources ({FILE} is missing); give the folder of a finished run of source-attribution, or "
                "the folder model in it"
            )
        found = records.read_record(folder / FILE, ("form", "texts", "new"))
        return cls(Form(**found["form"]), found["texts"], found["new"])


@dataclass
class Citer:
    """A model, and the sources that it can name."""

    model: nn.Module
    tokenizer: Any
    sources: Sources
    trie: tries.Trie = field(init=False)

    def __post_init__(self) -> None:
        self.trie = tree(self.tokenizer, [*self.sources.texts], self.sources.form.letters)

    def scores(self, before: Sequence[Sequence[int]], progress: Progress | None = None) -> np.ndarray:
        """float64 ``[questions, sources]``: log-probability of each source behind what was written."""
        return tries.log_scores(self.model, before, self.trie, progress=progress)

    def cite(self, questions: Sequence[str], best: int = 5) -> Rows:
        """See ``cite``."""
        said = answered(self.model, self.tokenizer, self.sources.form, questions, new=self.sources.new)
        scores = self.scores(said.before)
        shares = np.exp(scores - np.logaddexp.reduce(scores, axis=1, keepdims=True))
        rows = Rows()
        for question, answer, of, total in zip(questions, said.answers, shares, np.exp(scores).sum(1), strict=True):
            order = np.argsort(-of, kind="stable")[:best]
            named = {self.trie.names[i]: float(of[i]) for i in order}
            source = self.trie.names[order[0]]
            rows.append(
                {
                    "question": question,
                    "answer": answer,
                    "source": source,
                    "text": self.sources.texts[source],
                    "probabilities": named,
                    "mass": float(total),
                }
            )
        return rows


def folder_of(name: str | Path) -> Path:
    """The model folder of a run of source-attribution, or the folder itself."""
    path = Path(name).expanduser()
    return path / "model" if (path / "model" / FILE).is_file() else path


def cite(
    model: str | Path,
    questions: str | Sequence[str],
    *,
    best: int = 5,
    dtype: Literal["float32", "bfloat16"] = "float32",
    device: str | None = None,
) -> Rows:
    """What a model trained with sources answers, and which document it names.

    Args:
        model: the folder of a finished run of source-attribution, or the folder ``model`` in it.
        questions: one or several.
        best: how many sources to give.

    Returns:
        A row each: ``question``, ``answer``, ``source`` (the likeliest identifier) with its ``text``; ``probabilities`` of the
        best few, which over all sources add up to one; ``mass``, the probability that the model itself gives to all of them
        together.

    Raises:
        UserError: a folder that names no sources, or a question that does not fit.
    """
    from engramlab.core import models

    if best < 1:
        raise UserError(f"best must be at least 1, not {best}")
    folder = folder_of(model)
    sources = Sources.load(folder)
    records.check_sealed(folder, f"run the experiment again to make {folder} anew")
    loaded, tokenizer = models.load(str(folder), dtype=getattr(torch, dtype), device=device)
    return Citer(loaded, tokenizer, sources).cite([questions] if isinstance(questions, str) else list(questions), best)
