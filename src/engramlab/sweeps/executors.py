"""Where a sweep's tasks run: in processes of this machine, or as tasks of a Ray cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from engramlab.base.errors import UserError
from engramlab.files.writing import open_own, room
from engramlab.sweeps.cells import SweepTask


class Executor(Protocol):
    """Starts tasks and says how they ended. ``stop`` ends those that run; their folders can be gone on with."""

    def room(self) -> bool:
        """Can one more task be started now?"""

    def start(self, task: SweepTask, log: Path) -> Any:
        """Starts a task, its output appended to ``log``; returns a handle."""

    def ended(self, handle: Any) -> int | None:
        """The exit code of a task, None while it runs."""

    def stop(self) -> None: ...


def fair_threads(processes: int) -> int:
    """Threads of each of so many processes: an even share of OMP_NUM_THREADS, or of the cores this process may use."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        cores = os.cpu_count() or 1
    given = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, (int(given) if given.isdigit() else cores) // processes)


def launch(
    words: tuple[str, ...], log: Path, env: Mapping[str, str], cwd: str | None = None
) -> subprocess.Popen[bytes]:
    """The command line in a process of its own, which ends with this one (see ``engramlab.cli._tethered``)."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with room(log), open_own(log, "ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "engramlab.cli._tethered", *words],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=file,
            env=dict(env),
            cwd=cwd,
        )


def _environment(threads: int) -> dict[str, str]:
    return {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


class Processes:
    """At most so many processes at once on this machine; CUDA devices, where there are several, are dealt out in turn.

    Args:
        threads: of each process; None for a fair share.
    """

    def __init__(self, processes: int, threads: int | None = None) -> None:
        self._free = list(range(processes))[::-1]
        self._slots: dict[int, int] = {}
        self._running: list[subprocess.Popen[bytes]] = []
        self._threads = threads or fair_threads(processes)
        self._devices = _devices() if processes > 1 else []

    def room(self) -> bool:
        return bool(self._free)

    def start(self, task: SweepTask, log: Path) -> subprocess.Popen[bytes]:
        slot = self._free.pop()
        env = os.environ | _environment(self._threads)
        if len(self._devices) > 1:
            env["CUDA_VISIBLE_DEVICES"] = self._devices[slot % len(self._devices)]
        process = launch(task.words, log, env)
        self._slots[process.pid] = slot
        self._running.append(process)
        return process

    def ended(self, handle: subprocess.Popen[bytes]) -> int | None:
        code = handle.poll()
        if code is not None:
            self._drop(handle)
        return code

    def _drop(self, process: subprocess.Popen[bytes]) -> None:
        if process in self._running:
            self._running.remove(process)
            self._free.append(self._slots.pop(process.pid))
            assert process.stdin is not None
            process.stdin.close()

    def stop(self) -> None:
        for process in self._running:
            process.terminate()
        for process in list(self._running):
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            self._drop(process)


def _devices() -> list[str]:
    """Names of the CUDA devices that this process may use."""
    if (given := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in given.split(",") if name]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


class RayTasks:
    """Tasks of a Ray cluster; its nodes need engramlab installed and the sweep's folder at the same path.

    Args:
        address: ``local`` starts Ray on this machine; ``auto`` or ``host:port`` (6379 by default) joins the cluster that this
            machine is part of; ``ray://host:port`` (10001 by default) reaches one from outside and needs ``ray[client]``.
        threads: CPUs of each task.
        gpus: GPUs of each task, parts of one allowed.

    Raises:
        UserError: Ray is not installed, or the cluster does not answer.
    """

    def __init__(self, address: str, threads: int | None = None, gpus: float = 0.0) -> None:
        try:
            import ray
        except ImportError:
            raise UserError("--ray needs Ray, which is not installed: pip install 'engramlab[ray]'") from None
        self._ray = ray
        try:
            ray.init(address=address, log_to_driver=False, ignore_reinit_error=True)
        except Exception as error:  # whatever Ray raises where nobody answers
            raise UserError(f"ray: no cluster at {address!r} ({error}); try `--ray local`") from error
        threads = threads or 1
        self._env = _environment(threads) | {k: v for k, v in os.environ.items() if k == "PYTHONPATH"}
        self._task = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=0)(_on_a_node)
        self._running: list[Any] = []

    def room(self) -> bool:
        return True  # Ray queues what does not fit yet

    def start(self, task: SweepTask, log: Path) -> Any:
        handle = self._task.remote(task.words, str(log.resolve()), self._env, str(Path.cwd()))
        self._running.append(handle)
        return handle

    def ended(self, handle: Any) -> int | None:
        done, _ = self._ray.wait([handle], timeout=0)
        if not done:
            return None
        self._running.remove(handle)
        try:
            return int(self._ray.get(handle))
        except self._ray.exceptions.RayError:  # the node went away
            return 1

    def stop(self) -> None:
        for handle in self._running:
            self._ray.cancel(handle, force=True)  # ends the worker, and with it the tethered process
        self._ray.shutdown()


def _on_a_node(words: tuple[str, ...], log: str, env: dict[str, str], cwd: str) -> int:
    return launch(words, Path(log), os.environ | env, cwd).wait()
