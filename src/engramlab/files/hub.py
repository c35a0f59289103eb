"""Data sets of the hub: ``hub:owner/name``, and behind another colon a configuration, a split or a file of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engramlab.base.errors import UserError

PREFIX = "hub:"
_NAME = re.compile(r"hub:(?P<name>[^/:]+/[^/:]+)(?::(?P<part>.+))?")


def hub_answers() -> bool:
    """Can the hub be reached? Where it cannot, its own client would try again for most of a minute before it says so."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:  # whatever the hub's HTTP library raises
        return False
    return True


def streamed(source: str) -> Iterator[dict[str, Any]]:
    """The rows of the training part of ``hub:owner/name[:configuration]``, fetched as they are read.

    Raises:
        UserError: the package ``datasets`` is missing, or whatever the hub's client says.
    """
    name, configuration = _parts(source)
    try:
        from datasets import load_dataset

        yield from load_dataset(name, *([configuration] if configuration else []), split="train", streaming=True)
    except Exception as error:
        raise _refused(source, error, "could not be fetched") from error


def fetched(source: str, kinds: tuple[str, ...]) -> Path | list[Any]:
    """What ``hub:owner/name[:file or split]`` is: the path of a file whose ending is one of ``kinds``, or a split's rows.

    Raises:
        UserError: a package is missing, the hub cannot be reached, or the data set has several splits and none was named.
    """
    name, part = _parts(source)
    # Without a network only what an earlier call has left on this machine counts; asking anyway would take a minute.
    offline = not hub_answers()
    try:
        if part and Path(part.removesuffix(".gz")).suffix.lower() in kinds:
            from huggingface_hub import hf_hub_download

            return Path(hf_hub_download(name, part, repo_type="dataset", local_files_only=offline))
        import datasets

        config = datasets.DownloadConfig(local_files_only=offline)
        found = datasets.load_dataset(name, split=part, download_config=config)
    except Exception as error:
        raise _refused(source, error, "the hub cannot be reached" if offline else "could not be fetched") from None
    if isinstance(found, dict):
        if len(found) > 1:
            raise UserError(
                f"{source}: has the splits {', '.join(found)}; add one, as in hub:{name}:{next(iter(found))}"
            )
        (found,) = found.values()
    return list(found)


def _parts(source: str) -> tuple[str, str | None]:
    match = _NAME.fullmatch(source)
    if match is None:
        raise UserError(f"{source!r}: write hub:owner/name, hub:owner/name:split or hub:owner/name:folder/file.json")
    return match["name"], match["part"]


def _refused(source: str, error: Exception, why: str) -> UserError:
    """The hub's libraries raise whatever they like; one sentence of it is for the user."""
    if isinstance(error, ImportError):
        return UserError(f"{source}: needs the package {error.name}: pip install 'engramlab[hub]'")
    first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return UserError(f"{source}: {why} ({first}); download the file and give its path instead")
