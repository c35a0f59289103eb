"""Options and presets of hidden-state probing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from engramlab.base.errors import UserError
from engramlab.base.options import at_least, once
from engramlab.core.training.loop import Recipe
from engramlab.corpora import datasets
from engramlab.probing.classifier import Probe
from engramlab.probing.q_probing import At, check_prompt

Source: Any = datasets.options()  # what the corpora ask for
_RECIPE = Recipe(
    steps=30_000, batch=200, learning_rate=1e-3, weight_decay=0.3, eps=1e-6, schedule="linear", final=0.0, clip=None
)
Q = Probe(rank=16, norm="batch", recipe=_RECIPE)
P = Probe(rank=2, norm="layer", recipe=replace(_RECIPE, batch=50))


@dataclass(frozen=True)
class Config(Source):
    """Everything that decides the numbers of a run. A knowledge-extraction run brings its own texts; options about texts are
    for other models."""

    READS = ("model",)
    BASIC = (
        ("what is probed", ("model", "facts", "key", "templates", "variants")),
        ("how", ("probes", "at", "controls", "q.recipe.steps", "p.recipe.steps")),
        ("numbers", ("seed",)),
    )

    model: tuple[str, ...] = ()
    """What to probe: folders of knowledge-extraction runs (every variant's pretrained model), model folders, .gguf files, hub
    ids."""
    variants: tuple[str, ...] = ()
    """Of runs, only these variants; None named means all of them. Of other models, how the texts are written (default
    multi5+permute)."""
    probes: tuple[Literal["Q", "P"], ...] = ("Q", "P")
    """Q reads the name alone, P the text before each attribute."""
    q: Probe = Q
    """Q-probing."""
    p: Probe = P
    """P-probing."""
    prompt: str = "{subject}"
    """What Q-probing reads, with {subject} in it."""
    at: At = "end"
    """Where Q-probing reads a causal model: at an end token behind the prompt, or at the prompt's last token."""
    masked_at: At = "first"
    """Where it reads a masked model (GBERT): at the token before the prompt (`first`, as BERT's own token for a text), at the
    prompt's last token, at a mask token behind it, or at the end token. Which of them is ours to choose; compare them with
    `engramlab sweep hidden-state-probing --over masked-at=first,last,mask,end`."""
    first_only: tuple[str, ...] = ("birth_date",)
    """Attributes whose whole value is no task."""
    controls: bool = False
    """Beside every task the same one with labels shuffled over subjects."""
    test_entries: int = 10_000
    """Entries of held-out subjects that P-probing is judged on, at most."""
    checkpoint_minutes: float = 2.0
    """Wall-clock minutes between checkpoints."""


#: With a few hundred names, hardly any two of which share a token, an update of the embedding learns the training subjects by
#: heart and Q-probing gets worse with it: here it has none. Entries are many more than names, so P-probing keeps its own.
TINY = Config(
    people=300,
    q=replace(Q, rank=0, recipe=replace(_RECIPE, steps=300, batch=64, learning_rate=5e-3)),
    p=replace(P, recipe=replace(_RECIPE, steps=200, batch=16, learning_rate=5e-3)),
    test_entries=300,
)
PAPER = Config(people=100_000)
#: A pretrained model as it is: hidden states are computed once, and classifiers alone are trained.
PRETRAINED = Config(
    people=300,
    q=replace(Q, rank=0, recipe=replace(_RECIPE, steps=500, batch=64)),
    p=replace(P, rank=0, recipe=replace(_RECIPE, steps=500, batch=64)),
    variants=("multi2+permute",),
    at="last",
    controls=True,
)
#: The paper's Q-probing of bioR has rank 32. It also tries 64 (bioS) and 128 (bioR), and P-probing with rank 4:
#: `engramlab sweep hidden-state-probing --over q.rank=16,64 ...`.
PAPER_BIOR = replace(PAPER, q=replace(Q, rank=32))
PRESETS = {"tiny": TINY, "paper": PAPER, "paper-bior": PAPER_BIOR, "pretrained": PRETRAINED}


def check(config: Config) -> None:
    if not config.model:
        raise UserError(
            "model: name what to probe, for example --model runs/demo (a knowledge-extraction run), a model folder, a .gguf "
            "file or a hub id"
        )
    if not config.probes:
        raise UserError("probes: name at least one of Q and P")
    for name in ("model", "variants", "probes"):
        once(name, getattr(config, name))
    datasets.chosen(config)
    at_least(config, 1, "test_entries")
    if config.at in ("first", "mask"):
        raise UserError(
            f"at: a causal model has read nothing at {config.at!r}; give `end` or `last` (masked models: masked_at)"
        )
    check_prompt(config.prompt)
