"""Every experiment on a GPU: it runs there from end to end, and finds what it finds on the processor."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.tiny_runs import RUNS, made_inputs, numbers

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
ROOT = Path(__file__).parents[2]
HERE = """
import sys
from pathlib import Path
from tests.support.tiny_runs import RUNS
RUNS[sys.argv[1]](*map(Path, sys.argv[2:]))
"""


def flat(value: Any, at: str = "") -> dict[str, Any]:
    """Every number and word of a document by its path."""
    if isinstance(value, dict):
        value = value.items()
    elif isinstance(value, list):
        value = enumerate(value)
    else:
        return {at: value}
    return {path: leaf for key, inner in value for path, leaf in flat(inner, f"{at}.{key}").items()}


def close(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        if min(one, other) > 1e9:  # where a law was drawn on far beyond what was measured: its exponent
            one, other = math.log(one), math.log(other)
        return math.isclose(one, other, rel_tol=0.02, abs_tol=2e-3) or (one != one and other != other)
    return bool(one == other)


@pytest.mark.parametrize("name", RUNS)
def test_it_finds_what_it_finds_on_the_processor(name: str, tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    made_inputs(inputs)
    RUNS[name](inputs, tmp_path / "gpu")
    there = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(
        [sys.executable, "-c", HERE, name, str(inputs), str(tmp_path / "cpu")], env=there, cwd=ROOT, check=True
    )
    gpu, cpu = (
        flat(json.loads(numbers(json.loads((tmp_path / where / "summary.json").read_text()))))
        for where in ("gpu", "cpu")
    )
    assert gpu.keys() == cpu.keys()
    apart = {
        path: (value, cpu[path])
        for path, value in gpu.items()
        if not path.endswith(".device") and not close(value, cpu[path])
    }
    assert not apart, f"{len(apart)} of {len(gpu)} apart: {dict(list(apart.items())[:12])}"
