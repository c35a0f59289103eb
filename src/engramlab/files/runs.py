"""Run folders: the resolved config, versions and seed; flat metric rows; files that are whole or absent.

Layout::

    runs/NAME/config.json            what was asked, resolved, and with which versions
    runs/NAME/summary.json           the result
    runs/NAME/<part>/<stage>/metrics.jsonl, checkpoints/, model/, done.json
    runs/NAME/report.html
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

from engramlab.base.errors import UserError
from engramlab.files import locks
from engramlab.files.writing import clear, read_json, tidy, write_json


def versions() -> dict[str, str]:
    """Versions of what a run's numbers depend on, and the GPU where there is one."""
    names = ("engramlab", "torch", "transformers", "tokenizers", "accelerate", "peft", "numpy")
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    torch = sys.modules.get("torch")  # a program that has not needed it so far is not kept waiting
    if torch is not None and torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def written_by(record: Any) -> str:
    """ "; it was written by engramlab 0.1.0, this is 0.2.0" of a record with versions of another engramlab, else nothing."""
    versions_then = record.get("versions") if isinstance(record, dict) else None
    then = versions_then.get("engramlab") if isinstance(versions_then, dict) else None
    now = versions().get("engramlab")
    return f"; it was written by engramlab {then}, this is {now}" if then and now and then != now else ""


def git_commit() -> str | None:
    """Commit of the checkout engramlab is imported from (with ``+`` when it has changes), or None."""
    here = Path(__file__).resolve().parents[1]  # the package: other changes in the checkout do not matter

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, timeout=10)

    try:
        if git("ls-files", "--error-unmatch", "__init__.py").returncode:  # perhaps installed inside another checkout
            return None
        name = git("rev-parse", "--short=12", "HEAD").stdout.strip()
        changed = git("status", "--porcelain", "--", ".").stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return None
    return name + ("+" if changed else "") if name else None


def plain(value: Any) -> Any:
    """Dataclasses, tuples and paths as what JSON gives back."""

    def simpler(one: Any) -> Any:
        return dataclasses.asdict(one) if dataclasses.is_dataclass(one) and not isinstance(one, type) else str(one)

    return json.loads(json.dumps(value, default=simpler))


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Dotted names of the options that differ between two plain configs, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        found: list[str] = []
        for name in sorted(set(old) | set(new)):
            found += differences(old.get(name), new.get(name), f"{prefix}.{name}" if prefix else name)
        return found
    return [] if old == new else [f"{prefix}: {json.dumps(old)} there, {json.dumps(new)} now"]


def completed(old: Any, config: Any) -> Any:
    """A recorded plain config with the options it lacks, at the defaults of the classes of ``config``.

    A run made before an option existed was made as the option's default says, so it goes on; an option that the record has
    and ``config`` does not know stays, and is a difference.
    """
    if dataclasses.is_dataclass(config) and isinstance(old, dict):
        whole = dict(old)
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            if field.name in old:
                whole[field.name] = completed(old[field.name], value)
            elif field.default is not dataclasses.MISSING:
                whole[field.name] = plain(field.default)
            elif field.default_factory is not dataclasses.MISSING:
                whole[field.name] = plain(field.default_factory())
        return whole
    if isinstance(config, list | tuple) and isinstance(old, list) and len(old) == len(config):
        return [completed(one, value) for one, value in zip(old, config, strict=True)]
    return old


def _grown(old: Any, new: Any) -> bool:
    """Has a list all it had, or has a no become yes?"""
    if isinstance(new, bool):
        return new and not old
    return set(old or ()) <= set(new)


def _is_content(path: Path) -> bool:
    """Is this more than what a killed process leaves behind?"""
    return not path.name.startswith(".") and path.suffix not in (".partial", ".whole")


class RunFolder:
    """One run folder, held by one process at a time.

    Making the object only checks: a folder made with the same config goes on (options that did not exist then count as their
    defaults), one of another config is refused, and nothing is written before ``open``.

    Args:
        folder: made by ``open`` if absent.
        experiment: name of the experiment.
        config: the resolved config (a dataclass).
        preset: name of the preset the config started from.
        grows: options that are lists and may have gained members since, or a yes or no that may have become yes; the folder's
            record then is the new one.
        recorded: what is kept of the plain config, where that is not all of it.
        inputs: digests of what the config names and others may change, such as the user's facts, by option.

    Attributes:
        previous: the plain config of the run that is there, before anything was added to it; empty for a new one.

    Raises:
        UserError: the folder belongs to another config or to something else, or an input is not what it was.
    """

    def __init__(
        self,
        folder: Path,
        experiment: str,
        config: Any,
        *,
        preset: str = "",
        grows: Sequence[str] = (),
        recorded: Callable[[dict[str, Any]], dict[str, Any]] = dict,
        inputs: Mapping[str, str] = {},
    ) -> None:
        self.folder = locks.place(folder)
        self._config, self._recorded, self._grows, self._inputs = config, recorded, grows, inputs
        self._record: dict[str, Any] = {"experiment": experiment, "preset": preset, "config": recorded(plain(config))}
        self._record |= {"inputs": dict(inputs)} if inputs else {}
        self._hold = contextlib.ExitStack()
        self.resumed = False
        self.previous: dict[str, Any] = {}
        self._check()

    def _check(self) -> None:
        """Compares with what is there."""
        path = self.folder / "config.json"
        experiment, resolved = self._record["experiment"], self._record["config"]
        self._created: str | None = None
        self.resumed = path.exists()
        if not self.resumed:
            if self.folder.exists() and any(map(_is_content, self.folder.iterdir())):
                raise UserError(
                    f"{self.folder} exists and is no run folder (it has no config.json); choose another --out"
                )
            return
        old = read_json(path, f"take it from a copy, or remove {self.folder} to start the run over")
        if not isinstance(old, dict) or not {"experiment", "config"} <= old.keys():
            raise UserError(f"{self.folder} is no run folder (its config.json is another's); choose another --out")
        if old["experiment"] != experiment:
            raise UserError(
                f"{self.folder} holds a run of {old['experiment']!r}, not of {experiment!r}; choose another --out"
            )
        before = completed(old["config"], self._config)
        before = self._recorded(before) if isinstance(before, dict) else {}
        self.previous = dict(before)
        for name in self._grows:
            if before.get(name) != resolved[name] and _grown(before.get(name), resolved[name]):
                before[name], self._created = resolved[name], old.get("created")
        changed = differences(before, resolved)
        if changed:
            raise UserError(
                f"{self.folder} holds a run with another config ({'; '.join(changed[:5])}"
                f"{', …' if len(changed) > 5 else ''}){written_by(old)}; choose another --out, or remove that folder to "
                "start over"
            )
        for name, digest in old.get("inputs", {}).items():
            if self._inputs.get(name, digest) != digest:
                value = attrgetter(name)(self._config)
                named = ", ".join(map(str, value)) if isinstance(value, tuple) else value
                raise UserError(
                    f"{name}: {named} has changed since the run in {self.folder} began; bring back what it was, choose "
                    "another --out, or remove that folder to start over"
                )

    def open(self) -> None:
        """Makes the folder and holds it; only the main process of a launch should.

        Raises:
            UserError: it is in use, or another run has been made there meanwhile.
        """
        with contextlib.ExitStack() as hold:
            hold.enter_context(locks.held(self.folder, " or choose another --out", make=True))
            self._check()
            tidy(*self.folder.rglob("*.partial"), *self.folder.rglob("*.whole"))
            self._write()
            self._hold = hold.pop_all()

    def _write(self) -> None:
        if not self.resumed or self._created:
            made = {
                "versions": versions(),
                "commit": git_commit(),
                "command": shlex.join(["engramlab", *sys.argv[1:]]),
                "created": self._created or time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            }
            write_json(self.folder / "config.json", self._record | made)

    def forget(self, *ours: str) -> None:
        """Removes a new run's folder if only its record and ``ours`` have come into it: what was refused claims no name."""
        if not self.resumed and {path.name for path in self.folder.iterdir()} <= {".lock", "config.json", *ours}:
            clear(self.folder)

    def close(self) -> None:
        """Gives the folder free for another process."""
        self._hold.close()
