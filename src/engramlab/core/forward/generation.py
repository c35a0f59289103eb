"""What a model writes after prompts, by the likeliest token or the likeliest beam, in as few passes as it takes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from engramlab.base.errors import UserError
from engramlab.core import deltas
from engramlab.core.forward import prefixes
from engramlab.core.forward.hooks import mode
from engramlab.core.forward.passes import shared_cache
from engramlab.core.forward.sampling import left_padded
from engramlab.core.models import mask_token
from engramlab.core.text.tokens import Sequences, end_token, start_tokens


@torch.inference_mode()
def generate(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 32,
    beams: int = 1,
    batch: int = 64,
    budget: int = 16_384,
    stop_at_line_end: bool = False,
    owner: np.ndarray | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """What the model writes after each prompt, until its end token: greedy, or beam search with ``beams`` > 1.

    Prompts are tokenised as the tokenizer does by itself (start token included) and batched by length; a beginning that many of
    them share is read once. The model's own generation settings play no part. Deltas on the model that decide something at the
    end of a prompt decide it once, for everything that is written after it.

    Args:
        batch: most prompts in a batch.
        budget: most padded prompt tokens in a batch.
        stop_at_line_end: only the first line that is not empty; a batch is done when all its rows are.
        owner: int64 ``[prompts]``: index of the delta (of ``deltas.together``) each prompt is continued under.
        progress: called with (prompts done, prompts in all).

    Returns:
        The continuation of each prompt, without special tokens, stripped.

    Raises:
        UserError: a prompt without any token, or one that with ``max_new_tokens`` does not fit the model's context.
    """
    from transformers import GenerationConfig, StoppingCriteriaList

    if mask_token(model) is not None:
        raise UserError("a masked language model cannot write text; ask it with mask tokens in the place of the answer")
    end = end_token(tokenizer)
    first = start_tokens(tokenizer)
    rows = [first + ids for ids in tokenizer(list(prompts), add_special_tokens=False)["input_ids"]] if prompts else []
    limit = getattr(model.config, "max_position_embeddings", None)
    for i, row in enumerate(rows):
        if not row:
            raise UserError(f"prompt {i} has no tokens, and this tokenizer puts none before a text")
        if limit and len(row) + max_new_tokens > limit:
            raise UserError(
                f"prompt {i} ({prompts[i][:40]!r} ...) has {len(row)} tokens; with {max_new_tokens} new ones it does not fit "
                f"the model's context of {limit}"
            )
    answers = [""] * len(rows)
    device = next(model.parameters()).device
    bare: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    # A model's own settings (a repetition penalty, say) would answer another question than the one asked here.
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens, num_beams=beams, do_sample=False, eos_token_id=end, pad_token_id=end
    )
    own, bare.generation_config = bare.generation_config, settings
    sequences = Sequences.of(rows)
    share = beams == 1 and not deltas.routed(model) and not getattr(model.config, "sliding_window", None)
    done = 0
    try:
        with mode(model, False):
            for chosen, shared in prefixes.batches(
                sequences, sequences.lengths, budget, owner=owner, share=share, most=batch
            ):
                under = None if owner is None else torch.from_numpy(owner[chosen]).to(device)
                # Padding stands between what is shared and the rest: positions are counted from the mask.
                ids, mask = left_padded([rows[i][shared:] for i in chosen], end, device)
                cache = None
                if shared:
                    begin = torch.tensor([rows[chosen[0]][:shared]], device=device)
                    cache = shared_cache(model, begin, len(ids), None if under is None else under[:1])
                    ids = torch.cat([begin.expand(len(ids), -1), ids], dim=1)
                    mask = torch.cat([torch.ones_like(mask[:, :1]).expand(-1, shared), mask], dim=1)
                width = ids.shape[1]
                stops = torch.full((len(ids) * beams,), width - 1 - (shared if cache is not None else 0), device=device)
                criteria = StoppingCriteriaList([_LineEnd(tokenizer, width)] if stop_at_line_end and beams == 1 else [])
                with deltas.routing(model, stops, None if under is None else under.repeat_interleave(beams)):
                    out = bare.generate(
                        input_ids=ids, attention_mask=mask, past_key_values=cache, stopping_criteria=criteria
                    )
                for i, new in zip(chosen, out[:, width:], strict=True):
                    text = tokenizer.decode(new, skip_special_tokens=True)
                    answers[i] = first_line(text) if stop_at_line_end else text.strip()
                done += len(chosen)
                if progress:
                    progress(done, len(rows))
    finally:
        bare.generation_config = own
    return answers


def first_line(text: str) -> str:
    """The first line that is not blank, stripped.

    >>> first_line("\\n\\n Paris. \\nThe capital of")
    'Paris.'
    """
    return _LINE_END.split(text.lstrip(), maxsplit=1)[0].rstrip()


_LINE_END = re.compile(r"[\r\n]")


class _LineEnd:
    """A stopping criterion: which rows have come to the end of a line that is not blank."""

    def __init__(self, tokenizer: Any, width: int) -> None:
        self.tokenizer, self.width = tokenizer, width
        self.ends: dict[int, bool] = {}

    def __call__(self, input_ids: torch.Tensor, scores: Any = None, **_: Any) -> torch.Tensor:
        done = torch.zeros(len(input_ids), dtype=torch.bool)
        for row, token in enumerate(input_ids[:, -1].tolist()):
            if token not in self.ends:
                self.ends[token] = bool(_LINE_END.search(self.tokenizer.decode([token])))
            if self.ends[token]:  # rarely: only then is it worth reading the whole row
                text = self.tokenizer.decode(input_ids[row, self.width :], skip_special_tokens=True)
                done[row] = bool(_LINE_END.search(text.lstrip()))
        return done.to(input_ids.device)
