"""Every bench, one after another, each within its time, and one table of what they say.

    python bench/run_all.py [--minutes 15] [--only bench_probing.py,...] [--out results/bench.json]

A bench that is not here by name runs with its defaults. One that does not come to its end in its share of the time is
stopped and listed as such; the others go on. With --only, what --out holds of the others stays as it is. ``python
results/tables.py --write`` then draws the table in docs/figures.md.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _options import options

HERE = Path(__file__).parent
#: What each bench is run with here, and its share of the time.
PLANS: dict[str, tuple[list[str], float]] = {
    "bench_assembly.py": (["--people", "2000000", "--seconds", "5", "--rounds", "1"], 0.7),
    "bench_candidates.py": (["--subjects", "2", "--rounds", "1"], 1.8),
    "bench_choices.py": (["--rows", "100", "--rounds", "1"], 0.9),
    "bench_context_noise.py": (["--edits", "2", "--steps", "5"], 0.8),
    "bench_editing.py": (["--cases", "4", "--seconds", "170"], 3.7),
    "bench_extraction.py": (["--rounds", "1", "--steps", "100"], 0.6),
    "bench_folding.py": (["--rounds", "2", "--questions", "100"], 1.35),
    "bench_identifiers.py": ([], 0.25),
    "bench_measuring.py": (["--queries", "450", "--rounds", "1"], 0.25),
    "bench_neighbours.py": (["--entities", "1", "--cases", "2", "--joint", "0", "--rounds", "1"], 1.9),
    "bench_notes.py": (["--edits", "2"], 0.9),
    "bench_plug_memory.py": (["--rounds", "5"], 0.3),
    "bench_probing.py": (["--rounds", "1", "--linear-steps", "100"], 1.2),
    "bench_training.py": (["--sizes", "tiny", "--steps", "12", "--rounds", "2"], 0.8),
    "bench_virtual_tokens.py": (["--size", "4x768", "--rounds", "2", "--steps", "2"], 1.0),
}


#: Run by hand where a GPU is: a network of seven billion parameters.
APART = ("bench_large.py",)


def version() -> str:
    """The commit that is measured, "+" behind it where files differ; "" outside of a checkout."""
    found = subprocess.run(["git", "describe", "--always", "--dirty=+"], cwd=HERE, capture_output=True, text=True)
    return found.stdout.strip()


def run(bench: Path, given: list[str], seconds: float) -> dict[str, object]:
    """What a bench printed and the rows it gave; ``seconds`` is all the time it has."""
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows"
        began = time.perf_counter()
        try:
            done = subprocess.run(
                [sys.executable, str(bench), *given],
                env={**os.environ, "ENGRAMLAB_BENCH": str(rows), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=seconds,
            )
            said, end = done.stdout, ""
            if done.returncode != 0:  # its last line says why
                end = (said.splitlines() or [f"ended with {done.returncode}"])[-1]
        except subprocess.TimeoutExpired as stopped:
            raw = stopped.stdout or b""
            said = raw if isinstance(raw, str) else raw.decode(errors="replace")
            end = f"not at its end after {seconds:.0f} s"
        lines = rows.read_text(encoding="utf-8").splitlines() if rows.exists() else []
    return {
        "script": bench.name,
        "commit": version(),
        "command": " ".join(["python", f"bench/{bench.name}", *given]),
        "seconds": round(time.perf_counter() - began, 1),
        "problem": end,
        "said": said.splitlines()[-40:] if end else [],
        "rows": [json.loads(line) for line in lines],
    }


def main() -> None:
    args = options(__doc__, minutes=15.0, only="", folder=str(HERE), out=str(HERE.parent / "results" / "bench.json"))
    benches = [bench for bench in sorted(Path(args.folder).glob("bench_*.py")) if bench.name not in APART]
    plans = {b.name: PLANS.get(b.name, ([], 1.0)) for b in benches}
    share = args.minutes / sum(minutes for _, minutes in plans.values())
    found: list[dict[str, object]] = []
    chosen = [b for b in benches if not args.only or b.name in args.only.split(",")]
    for bench in chosen:
        given, minutes = plans[bench.name]
        one = run(bench, given, 60 * minutes * share)
        found.append(one)
        print(f"{bench.name}: {one['seconds']} s{', ' if one['problem'] else ''}{one['problem']}", flush=True)
    if args.only and Path(args.out).exists():
        others = json.loads(Path(args.out).read_text(encoding="utf-8"))["benches"]
        found += [one for one in others if one["script"] not in [bench.name for bench in chosen]]
        found.sort(key=lambda one: str(one["script"]))
    about = {"machine": platform.machine(), "cores": os.cpu_count(), "threads": 1}
    if importlib.util.find_spec("torch"):
        from importlib.metadata import version as installed

        about["torch"] = installed("torch")
    Path(args.out).write_text(json.dumps({**about, "benches": found}, indent=1) + "\n", encoding="utf-8")
    print(f"{args.out}; python results/tables.py --write draws the table")


if __name__ == "__main__":
    main()
