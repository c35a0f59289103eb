"""The file name is the registration: a folder's modules, by name.

    registry.names(decoding)                  # ["beam", "greedy", "sampling"]
    registry.load(decoding, "greedy", "decoder")

A name is a file's (or sub-package's) with dashes for underscores; files that begin with an underscore are helpers.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from engramlab.base.errors import UserError, nearest, quoted


def names(package: ModuleType) -> list[str]:
    """Names of what a package holds, sorted; nothing is imported."""
    found = {module.name for module in pkgutil.iter_modules(package.__path__)}
    return sorted(name.replace("_", "-") for name in found if not name.startswith("_"))


def load(package: ModuleType, name: str, what: str) -> ModuleType:
    """The module of that name, written with dashes or underscores.

    Args:
        what: how messages call it: "method", "experiment", ...

    Raises:
        UserError: there is none; names the nearest and all there are.
    """
    known = names(package)
    if name.replace("_", "-") not in known:
        raise UserError(
            f"{what} {quoted(name)} is unknown; did you mean {nearest(name, known)!r}? There are: {', '.join(known)}"
        )
    return importlib.import_module(f"{package.__name__}.{name.replace('-', '_')}")


def about(package: ModuleType, name: str) -> str:
    """The docstring of the module of that name, without importing it."""
    spec = importlib.util.find_spec(f"{package.__name__}.{name.replace('-', '_')}")
    source = Path(spec.origin).read_text("utf-8") if spec is not None and spec.origin else ""
    return ast.get_docstring(ast.parse(source)) or ""


@contextmanager
def added(package: ModuleType, folder: str | Path) -> Iterator[None]:
    """Inside the block the files of a folder from anywhere are the package's too (its own win where names are equal)."""
    folder = Path(folder).absolute()
    before = list(package.__path__)
    package.__path__[:] = [*before, str(folder)]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        package.__path__[:] = before
        for name, module in list(sys.modules.items()):
            of_package = name.startswith(f"{package.__name__}.")
            if of_package and Path(getattr(module, "__file__", None) or "").is_relative_to(folder):
                del sys.modules[name]
                vars(package).pop(name.rpartition(".")[2], None)
