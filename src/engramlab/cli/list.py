"""list                       experiments and presets, corpus variants, editing methods, losses, benchmarks, corpora, families

usage: engramlab list

Every experiment with its presets, the corpus variants of the storage paper, editing methods, losses, benchmarks, corpora and
model families: the names that other commands take.
"""

from __future__ import annotations

from engramlab.cli._words import help_of, wants_help


def main(given: list[str]) -> None:
    """Prints the names."""
    if wants_help(given):
        print(help_of(__doc__))
        return
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
    from engramlab.cli._edit_options import first_paragraph
    from engramlab.core.models import buildable
    from engramlab.core.training.losses import LOSSES
    from engramlab.corpora.datasets import sources
    from engramlab.editing import benchmarks, method

    print("editing methods (engramlab edit --method NAME --help shows the options)")
    for name in method.names():
        print(f"  {name}\n    {first_paragraph(method.load(name))}")
    print("\nlosses (--loss)", *LOSSES, sep="\n  ")
    print("\nbenchmark formats (engramlab edit --file; recognised by their keys)", *benchmarks.names(), sep="\n  ")
    print("\nbenchmarks that are made (--benchmark)", *benchmarks.made(), sep="\n  ")
    print("\ncorpora (engramlab corpus)", *sources(), sep="\n  ")
    print("\nmodel families of a size (--model.family)", *buildable(), sep="\n  ")
