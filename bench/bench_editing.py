"""What an edit costs: many at once on cached activations, beside one at a time over whole passes; and what judging costs.

    python bench/bench_editing.py --model MODEL [--methods ft-m,lora,rome,...] [--cases 16] [--naive 2]

Both sides run the same method with the same hyperparameters (those of the field's usual llama settings) in one process, the
naive side first and last, so that a machine that slows down shows. CPU-seconds are those of the process, over all threads; a
*pass* is the CPU time of one forward pass of 16 tokens on this machine, so that figures of different machines can be compared.
Statistics of text (ROME, MEMIT, AlphaEdit) are computed before the clock starts; of their searches the arithmetic is shown,
and at what share of the machine's peak it runs, which says how much is left to gain. Also measured: the evaluation, what the
loss OVERTONE adds to an edit, and the import of the library.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
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

from _arithmetic import counted, peak
from engramlab.base.facts import Case
from engramlab.core import deltas, models
from engramlab.core.forward import tails
from engramlab.core.forward.hooks import reading
from engramlab.core.models import module_paths
from engramlab.core.text import tokens
from engramlab.core.training import losses
from engramlab.editing import method
from engramlab.editing.benchmarks.world import world
from engramlab.editing.judge import evaluation
from engramlab.editing.keys.keyvalue import Search

#: CPU-seconds an edit of EasyEdit on two such cores (its llama hyperparameters, SmolLM2-135M), where a pass took 0.18. Taken
#: as given to us, not measured by this script.
PEER = {"ft-m": 4.8, "lora": 26, "rome": 65, "memit": 35, "alphaedit": 44, "melo": 12, "grace": 11, "wise": 148}
PEER_PASS, PEER_EVALUATION, PEER_IMPORT = 0.18, 0.8, 14.0


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

    def __init__(self, model: nn.Module, start: int, ids: torch.Tensor, mask: Any = None, begin: int = 0) -> None:
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


def one_prompt_at_a_time(model: nn.Module, tokenizer: Any, case: Case, new_tokens: int) -> int:
    """The evaluation as a script would write it: per query a whole forward pass over prompt and target with all logits, and a
    generation of its own. Returns how many target tokens are right, so that nothing can be skipped."""
    right = 0
    end = tokens.end_token(tokenizer)
    for query in evaluation.queries_of(case):
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
    parser.add_argument("--model", required=True, help="a folder, a .gguf file or a hub id")
    parser.add_argument("--methods", default="ft-m,lora,rome,memit,alphaedit,melo,grace,wise")
    parser.add_argument("--cases", type=int, default=16, help="edits at once")
    parser.add_argument(
        "--naive", type=int, default=2, help="edits measured one at a time, before and again after; 0 for none"
    )
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()

    model, tokenizer = models.load(args.model)
    cases = world(seed=1)[:: max(1, 600 // args.cases)][: args.cases]
    edits = [case.edits for case in cases]
    words = torch.randint(0, 1000, (1, 16), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        a_pass = statistics.median(timed(lambda: model(input_ids=words))[0] for _ in range(12))
    print(f"one pass of 16 tokens: {a_pass:.3f} CPU-seconds ({torch.get_num_threads()} threads)")
    found: dict[str, Any] = {"pass": a_pass, "cases": len(cases), "methods": {}}

    before = evaluation.before(model, tokenizer, cases)
    queries = sum(len(evaluation.queries_of(case)) for case in cases)
    for name in args.methods.split(","):
        module = method.load(name)
        config = module.Config()
        if hasattr(module, "prepare"):
            module.prepare(model, tokenizer, config)
        method.make_each(model, tokenizer, edits[:1], method=name, loss=losses.get("cross-entropy"), config=config)

        def fast(loss: str, name: str = name, config: Any = config) -> tuple[float, float, Any]:
            chosen = losses.get(loss)
            return timed(lambda: method.make_each(model, tokenizer, edits, method=name, loss=chosen, config=config))

        def naive(part: Sequence[Any], name: str = name, config: Any = config) -> float:
            chosen = losses.get("cross-entropy")
            with whole_passes():
                return timed(
                    lambda: [
                        method.make_each(model, tokenizer, [e], method=name, loss=chosen, config=config) for e in part
                    ]
                )[0] / len(part)

        slow = [naive(edits[: args.naive])] if args.naive else []
        rounds = {loss: [] for loss in ("cross-entropy", "overtone")}
        for _ in range(2):
            for loss, times in rounds.items() if module.TAKES_LOSS else [("cross-entropy", rounds["cross-entropy"])]:
                used, _, made = fast(loss)
                times.append(used / len(cases))
        slow += [naive(edits[-args.naive :])] if args.naive else []
        ours = min(rounds["cross-entropy"])
        if isinstance(config, Search):
            with counted(model) as work:
                seconds = fast("cross-entropy")[0] / len(cases)
            print(work.text(seconds, len(cases), peak()), flush=True)
        good = [d for d in made if isinstance(d, deltas.Delta)]
        kept = [c for c, d in zip(cases, made, strict=True) if isinstance(d, deltas.Delta)]
        judge = functools.partial(evaluation.judge, model, tokenizer, kept, before, deltas=good)
        judging = timed(judge)[0] / len(kept)
        row: dict[str, Any] = {"cpu_seconds": ours, "passes": ours / a_pass, "judging": judging}
        text = f"{name:10s} {ours:7.2f} CPU-s an edit ({ours / a_pass:6.1f} passes)"
        if slow:
            row["naive"] = statistics.mean(slow)
            text += f"; one at a time, whole passes: {row['naive']:7.2f} = {row['naive'] / ours:5.1f}x"
        if name in PEER:
            row["peer_passes"] = PEER[name] / PEER_PASS
            text += f"; EasyEdit {row['peer_passes']:.0f} passes = {row['peer_passes'] / row['passes']:.1f}x"
        if rounds["overtone"]:
            row["overtone"] = min(rounds["overtone"]) / ours
            text += f"; overtone {row['overtone']:.2f}x"
        print(f"{text}; judging {judging:.2f} a case of {queries / len(cases):.1f} queries", flush=True)
        found["methods"][name] = row

    plain = (
        timed(lambda: [one_prompt_at_a_time(model, tokenizer, case, before.new_tokens) for case in cases[:4]])[0] / 4
    )
    batched = timed(lambda: evaluation.judge(model, tokenizer, cases, before))[0] / len(cases)
    found["evaluation"] = {"cpu_seconds": batched, "naive": plain, "queries": queries / len(cases)}
    print(
        f"evaluation, both protocols, {queries / len(cases):.1f} queries a case: {batched:.2f} CPU-s a case; one prompt at a "
        f"time {plain:.2f} = {plain / batched:.1f}x"
    )
    per_four = 4 * batched / (queries / len(cases))
    print(
        f"  four queries: {per_four:.2f} CPU-s (EasyEdit's evaluation of four passes, teacher-forced: {PEER_EVALUATION})"
    )
    found["import"] = imports()
    print(f"import: {found['import']:.2f} CPU-s (EasyEdit {PEER_IMPORT:.0f}) = {PEER_IMPORT / found['import']:.1f}x")
    if args.out:
        args.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
