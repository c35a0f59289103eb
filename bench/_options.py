"""The options of a bench: names and defaults, which also say their types; the docstring is the help."""

from __future__ import annotations

import argparse


def options(doc: str | None, **defaults: object) -> argparse.Namespace:
    """What the command line says, or else the defaults."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    return parser.parse_args()
