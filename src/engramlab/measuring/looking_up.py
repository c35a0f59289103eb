"""A network with a plug-in memory: its loss where prompts end, and which documents it reads for a question."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from engramlab.core import deltas
from engramlab.core.forward.hooks import mode
from engramlab.core.forward.passes import target_seen
from engramlab.core.models import mask_token
from engramlab.core.text.batches import IGNORE, Batch
from engramlab.core.text.tokens import EncodedQueries
from engramlab.core.training import losses
from engramlab.core.training.loop import TrainState

_ROWS = 256  # a pass


def loss(state: TrainState, batch: Batch, own: torch.Tensor, *, masked: bool) -> torch.Tensor:
    """Mean loss of the targets of a batch, whose rows of stream 0 state something and whose others ask.

    The causal variant reads a quarter of what is stated (ours), then looks it up and goes on: from questions alone it would
    hardly learn to find anything.

    Args:
        own: int64 ``[B]``: the document that a row must not find; -1 for none.
        masked: is it a masked network?
    """
    model: Any = state.bare
    batch = batch.to(state.accelerator.device)
    keep = batch.targets != IGNORE
    ends = keep.long().argmax(1)
    if not masked:
        stated = torch.from_numpy(batch.source == 0).to(keep.device)
        ends = torch.where(stated, keep.sum(1) // 4, ends)
    with (
        mode(model, True),
        model.memory.leaving_out(own.to(keep.device)),
        deltas.routing(model, ends),
        state.accelerator.autocast(),
    ):
        logits = target_seen(model, batch.input_ids, keep, batch.inside if masked else None).logits
    return losses.parse(state.recipe.loss)(logits, batch.targets[keep]).mean()


@torch.inference_mode()
def retrieved(model: Any, asked: EncodedQueries) -> np.ndarray:
    """int64 ``[n, k]``: the documents that the lowest layer that looks up reads for each question, the nearest first."""
    rows, hidden = asked.sequences, mask_token(model)
    device = next(model.parameters()).device
    parts = []
    with mode(model, False):
        for start in range(0, len(rows), _ROWS):
            numbers = range(start, min(start + _ROWS, len(rows)))
            spans = [slice(rows.offsets[i], rows.offsets[i + 1]) for i in numbers]
            ids = pad_sequence([torch.from_numpy(rows.ids[s].astype(np.int64)) for s in spans], batch_first=True)
            inside = torch.arange(ids.shape[1]) < torch.from_numpy(rows.lengths[numbers.start : numbers.stop])[:, None]
            if hidden is not None:
                goals = pad_sequence([torch.from_numpy(rows.marks[s] > 0) for s in spans], batch_first=True)
                ids = ids.masked_fill(goals, hidden)
            ends = torch.from_numpy(asked.prompt_ends[numbers.start : numbers.stop])
            with deltas.routing(model, ends.to(device)):
                model(input_ids=ids.to(device), attention_mask=inside.to(device), use_cache=False)
            parts.append(model.looking()[0].found.numbers.cpu().numpy())
    return np.concatenate(parts)
