"""The options of what every experiment that edits can measure beside its answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from engramlab.base.errors import UserError
from engramlab.base.options import at_least


@dataclass(frozen=True)
class BesideOptions:
    """What is measured of edited models beside their answers."""

    READS: ClassVar[tuple[str, ...]] = ("drift_text",)

    fluency: int = 50
    """Tokens written behind each edit's prompt, whose n-grams say how fluent the model is; 0 for none."""
    drift_text: str | None = None
    """Also measure, under every edit, the perplexity of a text: `ordinary` (a page of ours, embedded), `sampled` (the unedited
    model's own), a file, or hub:owner/name."""
    text_rows: int = 64
    """So many passages of that text, of at most 128 tokens."""
    lm_eval: str = ""
    """Tasks of lm-evaluation-harness (pip install 'engramlab[oracle]') that are scored before and after the edits, with commas
    between them, for example arc_easy,piqa,mine.yaml (a task's file of your own); not of single edits, of which each is a
    model of its own."""
    lm_eval_limit: int | None = 100
    """Questions of each of these tasks; None for all."""

    def check_beside(self, many: bool, instead: str = "") -> None:
        """Checks these options.

        Args:
            many: are several edits made on one model?
            instead: what to choose so that they are; nothing where they never are.

        Raises:
            UserError: a number out of range, a text or a task's file that is not there, tasks without their tool, or of single
                edits.
        """
        from engramlab.editing.judge.abilities import check  # loads torch, which --help needs not

        at_least(self, 0, "fluency")
        at_least(self, 1, "text_rows", "lm_eval_limit")
        if self.lm_eval and not many:
            raise UserError(
                f"lm_eval: is of many edits on one model; leave it out{f', or take {instead}' * bool(instead)}"
            )
        check(self.drift_text or "", self.lm_eval)
