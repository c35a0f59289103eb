import re

import pytest

from engramlab.base import registry
from engramlab.base.errors import UserError
from engramlab.editing import benchmarks, methods


def test_names_are_the_files_without_helpers():
    assert "ft-m" in registry.names(methods)
    assert not [name for name in registry.names(benchmarks) if name.startswith(("-", "_"))]


def test_dashes_are_underscores():
    assert registry.load(methods, "ft-m", "method") is registry.load(methods, "ft_m", "method")


def test_an_unknown_name_is_told_the_nearest():
    with pytest.raises(UserError, match=re.escape("method 'rom' is unknown; did you mean 'rome'? There are: ")):
        registry.load(methods, "rom", "method")


def test_a_folder_from_outside_belongs_inside_the_block(tmp_path):
    (tmp_path / "my_own.py").write_text("NUMBER = 7\n")
    (tmp_path / "_helper.py").write_text("")
    (tmp_path / "rome.py").write_text("raise RuntimeError")
    before = registry.names(methods)
    with registry.added(methods, tmp_path):
        assert registry.names(methods) == sorted([*before, "my-own"])
        assert registry.load(methods, "my-own", "method").NUMBER == 7
        assert hasattr(registry.load(methods, "rome", "method"), "Config")
    assert registry.names(methods) == before
    with pytest.raises(UserError, match="my-own"):
        registry.load(methods, "my-own", "method")
    (tmp_path / "my_own.py").write_text("NUMBER = 42\n")
    with registry.added(methods, tmp_path):
        assert registry.load(methods, "my-own", "method").NUMBER == 42
