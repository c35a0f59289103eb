"""What training will cost on this machine: time from a step that is tried, memory from what has to be held."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from engramlab.core import models

TRIED = 2_048  # tokens of the step that is tried, at most
LARGEST = 300_000_000  # parameters up to which one is tried
_MATRIX = 1_024  # side of the product that larger models are reckoned from
_WEIGHT = 4  # bytes a parameter, in float32
_TRAINED = 12  # bytes more of one that is trained: gradient, AdamW's two moments
_KEPT = 64  # bytes kept for the backward pass, a token, layer and dimension


@dataclass(frozen=True)
class Cost:
    """Of one optimizer step.

    Attributes:
        parameters: of the model.
        trained: of them, those that are trained: all, unless low-rank updates are.
        seconds: a step.
        bytes: of memory at its height, about.
        tried: was a step tried, or reckoned from the speed of a matrix product?
    """

    parameters: int
    trained: int
    seconds: float
    bytes: int
    tried: bool


def like(name: str) -> nn.Module:
    """A model of the shape of one that exists (see ``models.load``), with random weights; reads its config alone."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_config(models.load_config(name))


def cost(make: Callable[[], nn.Module], rows: int, length: int, device: Any = "cpu", micro: int | None = None) -> Cost:
    """What a step of AdamW in float32 costs.

    Args:
        make: makes the model, whose parameters that require gradients are trained; it is made without weights first.
        rows, length: of a step: rows, and tokens of a row.
        micro: rows of a forward pass, where a step has several.
    """
    with torch.device("meta"):
        outline: Any = make()
    parameters, trained = _counts(outline)
    held = memory(outline, min(rows, micro or rows), length)
    if parameters > LARGEST:
        # Forward and backward take four operations a parameter and token, the gradient of one that is trained two more.
        seconds = (4 * parameters + 2 * trained) * rows * length / _speed(device)
    else:
        some = max(1, min(rows, TRIED // length))
        seconds = _tried(make().to(device), some, length, device) * rows / some
    return Cost(parameters, trained, seconds, held, parameters <= LARGEST)


def memory(outline: Any, rows: int, length: int) -> int:
    """Bytes that training holds at its height, about: weights, what AdamW keeps of those that are trained, and what the
    backward pass needs.

    Args:
        outline: the model, with or without weights.
        rows, length: of a forward pass: rows, and tokens of a row.
    """
    (parameters, trained), config = _counts(outline), outline.config.get_text_config()
    kept = config.num_hidden_layers * config.hidden_size * _KEPT + 3 * 4 * config.vocab_size
    return parameters * _WEIGHT + trained * _TRAINED + rows * length * kept


def available(device: Any = "cpu") -> int:
    """Bytes of memory that are free on a device, those that torch keeps for this process among them."""
    if torch.device(device).type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(torch.device(device))[0]) + kept
    import psutil

    return int(psutil.virtual_memory().available)


def _counts(outline: Any) -> tuple[int, int]:
    """Parameters of a model, and those that are trained."""
    return models.parameters(outline), sum(p.numel() for p in outline.parameters() if p.requires_grad)


def _tried(model: Any, rows: int, length: int, device: Any) -> float:
    """Seconds of a step: the faster of two, behind one that warms up."""
    ids = torch.arange(rows * length, device=device).reshape(rows, length) % model.config.vocab_size
    optimizer, seconds = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.0), []
    model.train()
    for _ in range(3):
        began = time.perf_counter()
        logits = model(input_ids=ids, use_cache=False).logits
        nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
        _wait(device)
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])


def _speed(device: Any) -> float:
    """Floating point operations a second of a matrix product."""
    one, seconds = torch.ones(_MATRIX, _MATRIX, device=device), []
    for _ in range(3):
        began = time.perf_counter()
        one @ one
        _wait(device)
        seconds.append(time.perf_counter() - began)
    return 2 * _MATRIX**3 / min(seconds[1:])


def _wait(device: Any) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
