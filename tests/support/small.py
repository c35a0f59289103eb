"""Edits and hyperparameters for models of two layers."""

from __future__ import annotations

import dataclasses
from typing import Any

from engramlab.base.facts import Edit, Query
from engramlab.editing import method

EDITS = (
    Edit(Query("The capital of France is", "Paris", subject="France", id="France"), "Washington"),
    Edit(Query("The old name of Japan was", "Edo", subject="Japan", id="Japan"), "Paris"),
    Edit(Query("She was born in Washington, on", "October 2", subject="Washington", id="born"), "the Seine"),
    Edit(Query("Its calling code is", "+81", subject="calling code", id="code"), "2023"),
)

#: Fewer steps and texts than a real model needs; names that a Config does not have are left out.
_FEWER: dict[str, Any] = {
    "statistics_tokens": 1000,
    "context_lengths": (),  # in a random network a key has little to do with the same key behind another text
    "null_space": 1.0,  # random keys fill the whole space,
    "covariance_weight": 10.0,  # and are short, so that little would outweigh them
    "ridge": 0.1,
}


def quick(name: str) -> Any:
    """The method's Config for a tiny random model, whose texts are short."""
    config = method.load(name).Config()
    fields = {field.name for field in dataclasses.fields(config)}
    return dataclasses.replace(config, **{key: value for key, value in _FEWER.items() if key in fields})


def made(module: Any, model: Any, tokenizer: Any, edits: Any, config: Any, loss: Any) -> Any:
    """The delta of one case by a method's module; raises EditFailed."""
    (delta,) = module.edit_each(model, tokenizer, [edits], config, loss)
    if isinstance(delta, method.EditFailed):
        raise delta
    return delta
