"""The command line: one file a command."""

from engramlab.cli.main import main

__all__ = ["main"]
