"""Corpora that a chat model writes: the model, asked with a seed for each answer, and the folder the corpus grows in."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engramlab.base.errors import UserError
from engramlab.files import runs, writing

Conversation = Sequence[Mapping[str, str]]
#: Answers conversations, each with its own seed.
Writer = Callable[[Sequence[Conversation], Sequence[int]], list[str]]

LOG = "answers.jsonl"


def writer(model: str, *, dtype: str, max_new_tokens: int, temperature: float, top_p: float) -> Writer:
    """Answers by the model of that name, which is loaded when it is first asked something, on a GPU where there is one."""
    loaded: list[Any] = []

    def write(conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[str]:
        import torch

        from engramlab.core import models
        from engramlab.core.forward.decoding.sampling import Config
        from engramlab.core.forward.generation import answer

        if not loaded:
            device = "cuda" if torch.cuda.is_available() else "cpu"
            loaded.extend(models.load(model, dtype=getattr(torch, dtype), device=device))
        return answer(
            loaded[0], loaded[1], conversations, seeds, Config(temperature, top_p), max_new_tokens=max_new_tokens
        )

    return write


def finished(out: Path, config: dict[str, Any]) -> dict[str, Any] | None:
    """What the dataset.json of a corpus says that was made with this config; None where there is nothing yet.

    Raises:
        UserError: the folder holds another corpus, or something else.
    """
    if (out / "dataset.json").is_file():
        about: dict[str, Any] = writing.read_json(out / "dataset.json")
        changed = runs.differences(about.get("config"), config)
        if changed:
            raise UserError(f"{out} holds another corpus ({'; '.join(changed[:5])}); choose another --out")
        return about
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: already exists and is no corpus; choose another --out")
    return None


@contextmanager
def generating(out: Path, command: str, config: dict[str, Any]) -> Iterator[Path]:
    """The folder beside ``out`` in which ``command`` writes a corpus, with its journal ``LOG``; it goes when all is done.

    The same call goes on there after an interruption. Without a single answer the folder goes too: a mistyped model must not
    claim the name.
    """
    place = runs.Run(out.with_name(out.name + ".generating"), command, config)
    place.open()
    try:
        yield place.folder
    finally:
        place.close()
        if not (place.folder / LOG).exists():
            shutil.rmtree(place.folder, ignore_errors=True)
    shutil.rmtree(place.folder)
