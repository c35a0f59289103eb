"""Runs an experiment and writes its page, as ``engramlab run`` does: what ``engramlab.run`` is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engramlab import experiments
from engramlab.base.rows import Summary
from engramlab.report import write_report


def run(
    name: str, out: str | Path, config: Any = None, *, preset: str | None = None, page: bool = True, **options: Any
) -> Summary:
    """Runs an experiment into a folder, or goes on with the run there; returns its summary, whose ``rows`` are the result.

    Args:
        name: one of ``experiments.names()``.
        config: the experiment's ``Config``; that of the preset by default.
        preset: one of the experiment's ``PRESETS``; its first by default.
        page: also write report.html into the folder.
        options: changes of the config, by the names of its fields.

    Raises:
        UserError: an unknown experiment, preset or option, or what the experiment refuses.
    """
    from engramlab.experiments._run import launched

    found = Summary(experiments.run(name, out, config, preset=preset, **options))
    if page and launched().is_main_process:
        write_report([Path(out)], Path(out) / "report.html")
    return found
