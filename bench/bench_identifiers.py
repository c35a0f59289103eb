"""Four hundred identifiers behind a question of twenty-five tokens: their tree read once, beside one row an identifier.

    python bench/bench_identifiers.py [--identifiers 400] [--question 25] [--rounds 3]

Identifiers are two of twenty-four tokens and a closing one, as in the tiny preset of source-attribution, on the ``tiny``
network.
Counted are tokens, and timed both sides, in turns. The second row of counts is for identifiers of BioCite's kind (three letters
of each of two to four last names), in the tokens of a compact tokenizer that never saw them.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from _options import compared, options
from engramlab.core.forward import tries
from engramlab.core.models import build
from engramlab.core.text.tokenizers import train_compact_tokenizer
from engramlab.corpora.documents import of_people
from engramlab.measuring import citing


def main() -> None:
    args = options(__doc__, identifiers=400, question=25, rounds=3)
    documents = {kind: of_people(args.identifiers, 0, ids=kind) for kind in ("random", "names")}
    tokenizer = train_compact_tokenizer([one.text for one in documents["random"]], 4096)
    citing.add_tokens(tokenizer, True)
    model = build("tiny", tokenizer, family="llama").eval()
    question = np.random.default_rng(0).integers(300, 2000, args.question).tolist()

    names = [one.id for one in documents["random"]]
    trie = citing.tree(tokenizer, names, True)
    rows = [[*question, *citing.tag(tokenizer, name, True)[1:]] for name in names]
    ratio = sum(map(len, rows)) / tries.tokens_read(trie, args.question)

    @torch.inference_mode()
    def apart() -> np.ndarray:
        found = []
        for start in range(0, len(rows), 64):
            ids = torch.tensor(rows[start : start + 64])
            said = model(input_ids=ids).logits.float().log_softmax(-1)
            at = torch.arange(args.question - 1, ids.shape[1] - 1)
            found.append(said[:, at].gather(-1, ids[:, at + 1][..., None]).sum((1, 2)))
        return torch.cat(found).double().numpy()

    sides: dict[str, Callable[[], np.ndarray]] = {
        "tree": lambda: tries.log_scores(model, [question], trie)[0],
        "apart": apart,
    }
    least = dict.fromkeys(sides, float("inf"))
    for _ in range(args.rounds):
        scores = {}
        for name, side in sides.items():
            began = time.process_time()
            scores[name] = side()
            least[name] = min(least[name], time.process_time() - began)
    assert np.allclose(scores["tree"], scores["apart"], atol=1e-3)
    count = len(names)
    print(f"{count} identifiers, {args.question} tokens before them: {ratio:.1f} times fewer tokens than a row each")
    print(
        f"constrained: {sum(map(len, rows)) / tries.tokens_read(trie, args.question, constrained=True):.1f} times fewer"
    )
    for name, seconds in least.items():
        print(f"{name:6s} {1000 * seconds:8.1f} CPU-ms")
    own = [one.id for one in documents["names"]]
    tree = citing.tree(tokenizer, own, False)
    many = sum(args.question + len(citing.tag(tokenizer, name, False)) - 1 for name in own)
    print(f"identifiers of letters of names: {many / tries.tokens_read(tree, args.question):.1f} times fewer tokens")
    compared(
        f"tokens to score {count} identifiers behind {args.question} tokens",
        f"{tries.tokens_read(trie, args.question):,}",
        f"a row an identifier: {sum(map(len, rows)):,}",
        ratio,
        aim=8,
    )
    compared(
        f"time to score {count} identifiers",
        f"{1000 * least['tree']:.0f} ms",
        f"a row an identifier: {1000 * least['apart']:.0f} ms",
        least["apart"] / least["tree"],
    )


if __name__ == "__main__":
    main()
