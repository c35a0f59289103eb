"""``python -m engramlab.cli._tethered run ...``: the command line, for as long as whoever started it lives.

Standard input is a pipe from the process that started this one. When it ends, however that happened, the pipe closes and this
process ends too: nothing goes on training in a folder that a new sweep wants to go on with. Files are whole or absent and
checkpoints are kept, so an end at any moment does no harm.
"""

from __future__ import annotations

import os
import threading

ENDED = 130  # exit code, as of an interrupted command


def _hold() -> None:
    while os.read(0, 4096):
        pass
    os._exit(ENDED)


def main() -> None:
    """Runs the words behind the program's name as the command line would."""
    from engramlab import cli

    threading.Thread(target=_hold, daemon=True).start()
    cli.main()


if __name__ == "__main__":
    main()
