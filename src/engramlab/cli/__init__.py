"""The command line: one file a command, whose name is the command's.

A command's docstring is its help: the first paragraph is its line (or lines) in ``engramlab --help``, the rest what
``engramlab COMMAND --help`` says. Its ``main(given)`` takes the words behind its name; ``GOES_ON`` says that the same
command goes on with what was interrupted. Files that begin with an underscore are no commands. Heavy libraries load only
where used.
"""

from engramlab.cli._main import main

__all__ = ["main"]
