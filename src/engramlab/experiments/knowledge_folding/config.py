"""Options and presets of knowledge folding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engramlab.base.errors import UserError
from engramlab.base.options import at_least, check_rules, once
from engramlab.core import models


@dataclass(frozen=True)
class Arm:
    """A way to be taught.

    Attributes:
        folds: the facts are folded into the weights.
        reads: they stand before the question.
        reasons: the answer is preceded by the facts that it needs (the paper's multi-task objective).
        learnt: the rates of the steps are learnt.
        first_order: steps are not differentiated through.
    """

    folds: bool = False
    reads: bool = False
    reasons: bool = False
    learnt: bool = True
    first_order: bool = False


ARMS = {
    "multi-task": Arm(folds=True, reasons=True),
    "single-task": Arm(folds=True),
    "in-context": Arm(reads=True),
    "no-facts": Arm(),
    "fixed-rates": Arm(folds=True, reasons=True, learnt=False),
    "first-order": Arm(folds=True, reasons=True, first_order=True),
}
ArmName = Literal["multi-task", "single-task", "in-context", "no-facts", "fixed-rates", "first-order"]


@dataclass(frozen=True)
class Config:
    """Everything that decides the numbers of a run."""

    READS = ("model", "data", "test_data", "tokenizer")
    BASIC = (
        ("what is asked", ("model", "data", "hops", "distractors", "tests")),
        ("how", ("arms", "inner_steps", "inner_rate", "inner", "steps", "batch", "learning_rate", "seed")),
    )

    model: str = "2x32"
    """What is taught: a size from scratch (2x32), a model folder, a .gguf file or a hub id."""
    tokenizer: str = "compact"
    """Of a model from scratch: `compact` trains one on the texts; or a folder or hub id."""
    context: int = 256
    """Of a model from scratch: most tokens of a text."""
    data: str = "worlds"
    """`worlds`, made by the seed; or a file of questions about given facts: of ProofWriter or ProntoQA as Logic-LLM has them,
    or records with facts, questions and answers."""
    test_data: str = ""
    """A file with the questions that are asked in the end; by default a part of `data` that is never trained on."""
    hops: int = 2
    """Worlds: most facts that an answer needs."""
    people: int = 4
    """Worlds: people in one."""
    colours: int = 4
    """Worlds: answers there can be."""
    worlds: int = 20_000
    """Worlds that are trained on; or the most questions of a file."""
    tests: int = 200
    """Questions that are asked in the end."""
    distractors: tuple[int, ...] = (0, 2)
    """Facts that the answer does not need, beside those it does: asked with each number, trained with all of them in turn."""
    arms: tuple[ArmName, ...] = ("multi-task", "single-task", "in-context", "no-facts", "fixed-rates", "first-order")
    """`multi-task`: facts folded in, the answer preceded by those it needs; `single-task`: the answer alone; `in-context`:
    facts before the question (FT-ICR); `no-facts`: none; `fixed-rates` and `first-order`: as multi-task, but rates not learnt,
    or steps not differentiated through."""

    inner_steps: int = 1
    """Steps by which facts are folded in (N)."""
    inner_rate: float = 1.0
    """Rate that every step begins with; 0 for plain fine-tuning."""
    inner: Literal["adam", "sgd"] = "sgd"
    """Direction of a step: Adam's (betas 0.9 and 0.95, no decay), or the gradient."""
    rates: Literal["layer", "matrix"] = "layer"
    """A rate of its own for each step and layer, or each step and matrix (the released code)."""
    rates_pace: float = 10.0
    """How many times faster than the weights the logarithms of rates are learnt."""
    numbered: bool = False
    """Facts stand behind "Fact 3:", which is read without a loss."""

    steps: int = 600
    """Optimizer steps of the outer loop."""
    batch: int = 32
    """Questions of one."""
    at_once: int = 32
    """Of them, how many are folded at once; fewer take less memory."""
    learning_rate: float = 5e-3
    """Of the outer AdamW, highest; cosine, 3 % warm-up."""
    weight_decay: float = 0.1
    """Of the outer AdamW."""
    clip: float = 1.0
    """Largest norm of the outer gradient."""
    seed: int = 0
    """Of worlds, weights, order and the bootstrap."""
    checkpoint_minutes: float = 2.0
    """Wall-clock minutes between checkpoints."""


PRESETS = {
    "tiny": Config(),
    "small": Config(
        model="4x128", hops=3, people=5, distractors=(0, 2, 7), inner_steps=2, steps=10_000, learning_rate=2e-3
    ),
    "paper": Config(
        model="openai-community/gpt2",
        hops=4,
        people=8,
        distractors=(0, 7),
        inner_steps=4,
        inner_rate=5e-5,
        inner="adam",
        rates="matrix",
        numbered=True,
        batch=16,
        at_once=2,
        steps=7500,
        learning_rate=3e-5,
        clip=0.1,
    ),
}


def check(config: Config) -> None:
    """Raises UserError for options that cannot work."""
    at_least(config, 1, "tests", "worlds", "inner_steps", "steps", "batch", "at_once", "context")
    check_rules(
        config,
        [
            ("inner_rate", config.inner_rate >= 0, "at least 0"),
            ("rates_pace", config.rates_pace > 0, "above 0"),
            ("distractors", all(n >= 0 for n in config.distractors), "numbers from 0 on"),
            ("distractors", bool(config.distractors), "at least one number, such as 0"),
            ("checkpoint_minutes", config.checkpoint_minutes >= 0, "at least 0"),
        ],
    )
    once("distractors", config.distractors)
    once("arms", config.arms)
    if not config.arms:
        raise UserError(f"arms: name at least one of {', '.join(ARMS)}")
    if not config.model.strip():
        raise UserError("model: say what is taught: a size such as 2x32, a model folder, a .gguf file or a hub id")
    models.check(config.model, "gpt-neox")
    if config.data == "worlds" and config.test_data:
        raise UserError("test_data: worlds that are asked are made by the seed; give a file as data too")
    spare = 2 * config.people - config.hops
    if config.data == "worlds" and config.hops <= config.people and max(config.distractors) > spare:
        raise UserError(
            f"distractors: {max(config.distractors)} are more than a world of {config.people} people has beside "
            f"{config.hops} facts ({spare}); take fewer, or more people"
        )
