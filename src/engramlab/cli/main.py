"""The command line: ``engramlab run | report | corpus | edit | ...``. Heavy libraries load only where used."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from engramlab.base.errors import UserError, nearest
from engramlab.cli import acquisition as cli_acquisition
from engramlab.cli import editing as cli_editing
from engramlab.cli import sweep as cli_sweep
from engramlab.cli.options import parse, preset_of, take

HELP = """engramlab: how language models store, acquire and edit facts

usage: engramlab COMMAND ...

commands
  run EXPERIMENT --out DIR   run an experiment; run the same command again to go on after an interruption
  sweep EXPERIMENT --out DIR run it over corpus variants and seeds, and report on all of them
  report RUN [RUN ...]       one HTML page about a run, or about several side by side
  corpus bios|bior|tables    write a corpus as Parquet: profiles, entries with spans, questions
  corpus passages            fictional passages with paraphrases and queries, written by a chat model
  corpus check FILE          defects of passages and queries, before they are injected into a training stream
  probe --model M --facts F  what a model's hidden states say about a table of your own: Q- and P-probing
  plan --run RUN ...         which facts of a corpus will be learnt, by a knowledge-acquisition run's measurements
  edit --model M --out DIR   change what a model says to a prompt; shows it before and after, and saves the model
  undo DIR                   take the last edit off again, bit for bit
  merge DIR DIR --out DIR    the edits of several folders in one model
  edits list DIR             the edits that a folder holds
  models                     named model sizes, and what else can be loaded
  list                       experiments and presets, corpus variants, editing methods, losses, benchmark formats
  version                    versions of engramlab and of what its numbers depend on

first steps
  engramlab run knowledge-extraction --preset tiny --out runs/demo
  engramlab report runs/demo
  engramlab corpus bios --variant multi5+permute --people 1000 --seed 0 --out corpora/bios
  engramlab edit --model MODEL --prompt "The capital of France is" --subject France --target Rome --out edited/
  engramlab COMMAND --help   what a command does and every option it has
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. Exit codes: 0 done, 1 a cell of a sweep failed, 2 something the user can put right (one line says what),
    130 interrupted, 141 nobody reads the output any more."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _dispatch(given)
    except UserError as error:
        print(f"engramlab: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        more = (
            "the same command goes on from the last checkpoint"
            if given[:1] in (["run"], ["sweep"])
            else "nothing is half written"
        )
        print(f"\nengramlab: interrupted; {more}", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # whoever read our output has had enough of it, as in `engramlab list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that Python's last flush is quiet too
        sys.exit(141)


def _dispatch(given: list[str]) -> None:
    commands: dict[str, Callable[[list[str]], None]] = {
        "run": _run,
        "probe": _probe,
        "report": _report,
        "corpus": _corpus,
        "models": _models,
        "list": _list,
        "version": _version,
        **cli_editing.COMMANDS,
        **cli_acquisition.COMMANDS,
        **cli_sweep.COMMANDS,
    }
    if not given or given[0] in ("-h", "--help", "help"):
        print(HELP)
        return
    name = "version" if given[0] == "--version" else given[0]
    if name not in commands:
        raise UserError(f"there is no command {name!r}; did you mean {nearest(name, commands)!r}? See engramlab --help")
    commands[name](given[1:])


# run ------------------------------------------------------------------------------------------------------------------


def _run(given: list[str]) -> None:
    from engramlab import experiments

    wants_help = not given or given[0] in ("-h", "--help")
    if wants_help:
        print("usage: engramlab run EXPERIMENT [--preset NAME] --out DIR [options]\n")
        print("experiments: " + ", ".join(experiments.names()))
        print("\nengramlab run EXPERIMENT --help shows the options, with the preset's values as defaults.")
        return
    name, rest = given[0], given[1:]
    module = experiments.load(name)
    rest, chosen = take(rest, "--preset", None)
    preset = preset_of(module, name, chosen)
    about = (
        module.__doc__ or ""
    ).strip() + f"\n\nPresets: --preset {'|'.join(module.PRESETS)}; shown are the defaults of {preset!r}."
    help_asked = any(word in ("-h", "--help") for word in rest)
    rest, out = take(rest, "--out", None)
    config = parse(module.Config, f"run {name} --out DIR", rest, default=module.PRESETS[preset], description=about)
    if out is None and not help_asked:
        raise UserError(f"engramlab run {name} needs --out DIR: where the run is kept, for example --out runs/{preset}")
    folder = Path(str(out))
    summary = module.run(config, folder, preset=preset)
    _show(summary, folder)


def _probe(given: list[str]) -> None:
    """``run hidden-state-probing --preset pretrained`` on a user's table, into a folder named after it."""
    if given and not any(word in ("-h", "--help") for word in given):
        _, facts = take(given, "--facts", None)
        if facts is None:
            raise UserError("engramlab probe needs --facts TABLE: one row an entity, one column an attribute")
        if take(given, "--out", None)[1] is None:
            given = [*given, "--out", f"runs/probe-{Path(facts).stem}"]
    given = given or ["--help"]
    chosen = [] if take(given, "--preset", None)[1] else ["--preset", "pretrained"]
    _run(["hidden-state-probing", *chosen, *given])


def _show(summary: dict[str, Any], folder: Path) -> None:
    from accelerate import PartialState

    if not PartialState().is_main_process:
        return
    from rich.console import Console

    from engramlab.report.page import write_report
    from engramlab.report.terminal import print_summary

    console = Console()
    print_summary(summary, console)
    page = write_report([folder], folder / "report.html")
    console.print(f"\nsummary  {folder / 'summary.json'}", highlight=False, markup=False)
    console.print(f"report   {page.resolve()}", highlight=False, markup=False)


# report ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReportOptions:
    """One self-contained HTML page about one run or several side by side. It opens from a file, without a network."""

    runs: Annotated[tuple[Path, ...], "positional"]
    """Run folders."""
    out: Path | None = None
    """Where to write the page; by default report.html in the first run's folder, or report.html here for several."""


def _report(given: list[str]) -> None:
    import tyro

    from engramlab.report.page import write_report

    options = tyro.cli(ReportOptions, prog="engramlab report", args=given, config=(tyro.conf.PositionalRequiredArgs,))
    if not options.runs:
        raise UserError("engramlab report needs at least one run folder, for example engramlab report runs/demo")
    first = options.runs[0] / "report.html" if len(options.runs) == 1 else Path("report.html")
    print(write_report(options.runs, options.out or first).resolve())


# corpus ---------------------------------------------------------------------------------------------------------------


def _corpus(given: list[str]) -> None:
    if given[:1] == ["check"]:
        cli_acquisition.check(given[1:])
        return
    from engramlab.base.progress import Bar
    from engramlab.corpora import datasets
    from engramlab.corpora.export import export
    from engramlab.writing.bior import BiorConfig
    from engramlab.writing.passages import PassagesConfig

    kinds: dict[str, Any] = {**datasets.commands(), "bior": BiorConfig, "passages": PassagesConfig}
    if not given or given[0] in ("-h", "--help"):
        print(f"usage: engramlab corpus {'|'.join(kinds)} --out DIR [options]\n       engramlab corpus check FILE\n")
        for kind, config in kinds.items():
            print(f"{kind:8} {(config.__doc__ or '').strip().splitlines()[0]}")
        print(
            "\nWrites profiles.parquet, entries.parquet (with spans) and questions.parquet; passages: passages.jsonl. See "
            "engramlab corpus bios --help"
        )
        return
    kind, rest = given[0], given[1:]
    if kind not in kinds:
        raise UserError(
            f"there is no corpus {kind!r}; did you mean {nearest(kind, kinds)!r}? There are: {', '.join(kinds)}"
        )
    help_asked = any(word in ("-h", "--help") for word in rest)
    rest, out = take(rest, "--out", None)
    source = datasets.sources().get(kind)
    for old, new in getattr(source, "RENAMED", {}).items():
        rest = [new + word.removeprefix(old) if word.split("=")[0] == old else word for word in rest]
    config = parse(kinds[kind], f"corpus {kind} --out DIR", rest)
    if out is None and not help_asked:
        raise UserError(f"engramlab corpus {kind} needs --out DIR: the folder to write")
    if kind == "bior":
        _bior(config, Path(str(out)))
        return
    if kind == "passages":
        cli_acquisition.write(config, Path(str(out)))
        return
    datasets.written(config, [config.variant])
    made, _ = datasets.halved(datasets.dataset(config, datasets.variants(config, [config.variant])[0]), config.seed)
    with Bar(f"corpus {kind}", 1) as bar:
        export(made.corpus, made.questions, Path(str(out)), progress=bar.report)
    print(Path(str(out)).resolve())


def _bior(config: Any, out: Path) -> None:
    from engramlab.writing.bior import write_bior

    about = write_bior(config, out)
    lacking = ", ".join(f"{name} {count}" for name, count in about["lacking"].items())
    print(
        f"accepted {about['accepted']} of {about['answers']} answers ({about['acceptance_rate']:.1%})"
        + (f"; the others lacked: {lacking}" if lacking else "")
    )
    if about["left_out"]:
        shown = ", ".join(f"{row['entry']} of person {row['person']}" for row in about["left_out"][:10])
        more = ", …" if len(about["left_out"]) > 10 else ""
        print(
            f"left out {len(about['left_out'])} entries after {about['tries']} tries: {shown}{more} (all in dataset.json)"
        )
    print(out.resolve())


# models, list, version ------------------------------------------------------------------------------------------------


def _models(given: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    from engramlab.core.models import SIZES, buildable

    console = Console()
    rows = Table("name", "layers", "heads", "width", "parameters", "for", title="Named sizes, trained from scratch")
    for name, size in SIZES.items():
        body = 12 * size.layers * size.width**2
        rows.add_row(
            name,
            str(size.layers),
            str(size.heads),
            str(size.width),
            f"{body / 1e6:,.1f}M + {size.width} a token",
            size.note,
        )
    console.print(rows)
    console.print(
        f"Families of a named size (--model.family): {', '.join(buildable())}.\n"
        "Instead of a name (--model.name): a model folder, a .gguf file, or a hub id such as owner/name.",
        highlight=False,
    )


def _list(given: list[str]) -> None:
    from engramlab import experiments
    from engramlab.corpora.variants import SIXTEEN

    print("experiments")
    for name in experiments.names():
        module = experiments.load(name)
        first = (module.__doc__ or "").strip().splitlines()[0]
        print(f"  {name}  (presets: {', '.join(module.PRESETS)})\n    {first}")
    print("\ncorpus variants (the paper's sixteen; any other numbers work too)")
    for name in SIXTEEN:
        print(f"  {name}")
    print("  coupleC, for example couple5: sentences stay in three pairs, in C orders")
    print("  with +CEL behind any of them: celebrities beside the people, their share by --minority-share")
    print("  with +TEXT behind any of them: unrelated text (--text) in the celebrities' place")
    print()
    cli_editing.print_names()


def _version(given: list[str]) -> None:
    from engramlab.files.runs import commit, versions

    found = versions()
    print(f"engramlab {found.pop('engramlab', '(not installed)')}" + (f" ({c})" if (c := commit()) else ""))
    for name, value in found.items():
        print(f"  {name} {value}")
