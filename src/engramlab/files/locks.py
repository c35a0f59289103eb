"""A folder that one process at a time may change."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from engramlab.base.errors import UserError
from engramlab.files.writing import room


def take(folder: Path, instead: str = "") -> IO[Any] | None:
    """Holds a folder until the file that comes back is closed; None on systems and file systems without locks.

    Args:
        instead: what else than to wait the user could do, for the message.

    Raises:
        UserError: another process holds it, or it cannot be written to.
    """
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        return None
    with room(folder):
        file = (folder / ".lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        if isinstance(error, BlockingIOError):
            raise UserError(f"{folder} is in use by another process; wait for it{instead}") from None
        return None
    return file


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Inside the block no other process may change the folder. Raises UserError while another one does."""
    with take(folder) or contextlib.nullcontext():
        yield
