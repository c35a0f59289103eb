"""--dry-run: everything is checked, what would be done is said, nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.cli.test_cli import refused
from tests.support import zoo

from engramlab import cli
from engramlab.core import models
from engramlab.core.training import cost
from engramlab.experiments import _run

EXTRACTION = "run knowledge-extraction --people 20 --model.name 1x16 --pretrain.steps 30 --finetune.recipe.steps 7"
ACQUISITION = (
    "run knowledge-acquisition --stream stream.txt --repeat --inject p.jsonl --model model 1x16 --window 32 --batch 2 "
    "--interval 3 --times 2 --after 30 --stagger 1 --vocabulary 300"
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a model, a stream and a table."""
    (tmp_path / "facts.csv").write_text(
        "name,colour\n" + "".join(f"Zor{i},{c}\n" for i, c in enumerate(("red", "blue") * 4))
    )
    tokenizer = zoo.ZOO["llama3"]([*zoo.SENTENCES, (tmp_path / "facts.csv").read_text()])
    zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=256).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tried(capsys: pytest.CaptureFixture[str], command: str) -> str:
    before = sorted(Path().rglob("*"))
    cli.main([*command.split(), "--out", "out", "--dry-run"])
    assert sorted(Path().rglob("*")) == before
    return " ".join(capsys.readouterr().out.split())


def test_what_would_be_trained_and_what_it_costs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = tried(capsys, EXTRACTION)
    assert "single pretrain 30 24" in said
    assert "multi5+permute finetune 7 48" in said
    assert "out: would be a new run" in said
    for word in ("Time: about", "Memory: about", "Disk: up to", "Nothing was written"):
        assert word in said
    assert "1x8-200people" in tried(capsys, "run knowledge-capacity --sizes 1x8 --people 200")


def test_runs_on_a_model_say_what_they_would_do(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = tried(capsys, "run knowledge-editing --model model --facts facts.csv --methods ft-m rome --losses overtone")
    assert "ft-m (overtone) 8" in said
    assert "rome (overtone) 8" in said
    said = tried(capsys, "probe --model model --facts facts.csv")
    assert "Q-probing 500" in said
    assert "token-overfitting" not in tried(capsys, "run token-overfitting --model model --limit 4")


def test_it_refuses_what_the_run_would(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere.csv: cannot be read" in refused(
        capsys, "run", "knowledge-extraction", "--facts", "nowhere.csv", "--out", "x", "--dry-run"
    )
    assert not Path("x").exists()


def test_a_sweep_says_its_cells(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = tried(capsys, EXTRACTION.replace("run", "sweep", 1) + " --variants single multi2 --seeds 3")
    assert "6 cells" in said
    assert "single-seed0" in said
    assert "single pretrain 30" in said


def test_only_a_run_that_says_what_it_does_can_be_tried() -> None:
    with pytest.raises(_run.UserError, match="does not say"):
        _run.tried(lambda: None)


def test_the_cost_of_a_step_grows_with_the_model_and_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(layers: int = 2) -> torch.nn.Module:
        return zoo.model("llama", vocabulary=500, num_hidden_layers=layers)

    small, more, deeper = cost.cost(make, 2, 16), cost.cost(make, 20, 16), cost.cost(lambda: make(4), 2, 16)
    assert small.parameters == more.parameters < deeper.parameters
    assert small.bytes < more.bytes
    assert small.tried
    assert small.seconds > 0
    monkeypatch.setattr(cost, "LARGEST", 10)
    assert not cost.cost(make, 2, 16).tried


def test_low_rank_updates_count_their_own_optimizer_state_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> torch.nn.Module:
        return zoo.model("llama", vocabulary=500)

    def updated() -> torch.nn.Module:
        return models.add_lora(make(), rank=2, projections="all")

    full, low = cost.cost(make, 2, 16), cost.cost(updated, 2, 16)
    wrapped = updated()
    own = sum(p.numel() for p in wrapped.parameters() if p.requires_grad)
    assert (full.trained, low.trained) == (full.parameters, own)
    assert low.parameters == full.parameters + own
    # Weights at 4 bytes; gradient and two moments, 12 more, of what is trained.
    assert full.bytes - low.bytes == 12 * full.parameters - 16 * own
    assert cost.memory(wrapped, 2, 16) == low.bytes
    monkeypatch.setattr(cost, "LARGEST", 10)
    monkeypatch.setattr(cost, "_speed", lambda device: 1.0)
    assert cost.cost(make, 2, 16).seconds == 6 * full.parameters * 32
    assert cost.cost(updated, 2, 16).seconds == (4 * low.parameters + 2 * own) * 32
