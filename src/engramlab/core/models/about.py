"""What is known of a model by its name, before it is built or loaded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from engramlab.core.models import building
from engramlab.core.models.loading import load_config
from engramlab.core.models.sizes import is_size


@dataclass(frozen=True)
class About:
    """A model by its name. The config of one that exists is read when first asked for, which raises UserError as ``load`` does.

    Attributes:
        name: a named size, LAYERSxWIDTH, a folder, a .gguf file or a hub id, ``@revision`` or not.
    """

    name: str

    @property
    def from_scratch(self) -> bool:
        """Is it a size, to be trained from nothing?"""
        return is_size(self.name)

    @cached_property
    def config(self) -> Any:
        """The transformers config; None for a size."""
        return None if self.from_scratch else load_config(self.name)

    def context(self, chosen: int) -> int:
        """Most tokens it reads at once: its own limit, or ``chosen`` for a size and where its config names none."""
        limit = None if self.from_scratch else building.context_limit(self)
        return chosen if limit is None else limit

    @property
    def objective(self) -> Literal["causal", "masked"]:
        """What it was trained for, by its config."""
        return "causal" if building.mask_token(self) is None else "masked"

    @property
    def vocabulary(self) -> int | None:
        """Rows of its token embedding; None for a size and where its config does not tell."""
        size = getattr(self.config, "vocab_size", None)
        return None if size is None else int(size)


def about(name: str) -> About:
    """See ``About``; nothing is read yet."""
    return About(name)
