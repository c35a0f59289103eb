"""What an installed wheel must do without its checkout: run by ``make smoke`` with the environment's own Python."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import engramlab


def engramlab_says(*words: str) -> str:
    """What the command prints; raises CalledProcessError where it fails."""
    command = [str(Path(sys.executable).with_name("engramlab")), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> None:
    installed = Path(engramlab.__file__)
    assert "site-packages" in installed.parts, f"{installed} is not the wheel's"
    assert (installed.parent / "py.typed").exists()
    assert engramlab.__version__ in engramlab_says("version")
    assert "knowledge-extraction" in engramlab_says("list")
    # Package data: pools, templates; then a run from end to end, with its page.
    engramlab_says("corpus", "bios", "--people", "5", "--out", "corpora")
    few = ("--people", "8", "--variants", "multi2", "--pretrain.steps", "4", "--finetune.recipe.steps", "4")
    engramlab_says("run", "knowledge-extraction", "--preset", "tiny", *few, "--evaluations", "1", "--out", "run")
    assert json.loads(Path("run/summary.json").read_text())["rows"]
    assert "<html" in Path("run/report.html").read_text()[:2000]
    print("the wheel works without its checkout")


if __name__ == "__main__":
    main()
