"""Which fields of a dataclass have no docstring: those are the --help."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap


def undocumented(kind: type) -> list[str]:
    """Names of the fields without a string behind them in the class that states them, or in one it inherits them from."""
    explained: set[str] = set()
    for base in kind.__mro__:
        if not dataclasses.is_dataclass(base):
            continue
        try:
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        except OSError:  # made from others, which explain their own
            continue
        assert isinstance(tree, ast.ClassDef)
        for line, below in zip(tree.body, tree.body[1:], strict=False):
            if (
                isinstance(line, ast.AnnAssign)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
            ):
                assert isinstance(line.target, ast.Name)
                explained.add(line.target.id)
    return [field.name for field in dataclasses.fields(kind) if field.name not in explained]
