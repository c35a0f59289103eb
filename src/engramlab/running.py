"""Runs an experiment and writes its page, as ``engramlab run`` does: what ``engramlab.run`` and ``engramlab.teach`` are."""

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


def teach(
    model: str | Path, facts: str | Path | None, out: str | Path, *, preset: str | None = None, **options: Any
) -> Summary:
    """Puts the facts of a table, or what documents say, into a model so that it can be asked for, as ``engramlab teach`` does.

    Args:
        model: a model folder, a .gguf file or a hub id; its files stay as they are.
        facts: a table, as ``FactTable.read`` takes it from a file; None where ``documents`` is among the options.
        out: the folder of the run; the taught model is its ``model``, which ``load_model`` and plain transformers load. A run
            that is there goes on.
        preset, options: as of ``run("teaching", ...)``: ``arms``, ``encounters``, ``weights``, ``writer`` (a
            chat model that writes the texts), ...

    Returns:
        The summary: ``rows`` are shares of answers by arm, group of subjects, wordings and kind; ``kept`` what was lost of what
        was right before, ``drift`` by how many nats unseen text has become less likely.

    Raises:
        UserError: whatever is wrong with the options, the model, the facts or the folder, before anything is trained.
    """
    if facts is not None:
        options["facts"] = Path(facts)
    return run("teaching", out, preset=preset, model=str(model), **options)
