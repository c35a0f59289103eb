"""The paper's recipes, which follow from the number of people and the exposures.

Source: Physics of Language Models, Part 3.3 (arXiv 2404.05405), appendix. For 100 exposures only the batches of the
smallest and the largest N stand here; between them ours grows by the same factor with every factor of N, to the nearest
of 12, 24, 48, ... (so that several processes can share it, as they can the paper's), and learning rates and decays are those
for 1000 exposures at the same N.
"""

from __future__ import annotations

import math
from dataclasses import replace

from engramlab.core.training.loop import Recipe

#: Most people, weight decay, learning rate, batch; after 1000 exposures.
AFTER_1000 = (
    (10_000, 0.02, 1e-3, 24),
    (20_000, 0.02, 1e-3, 48),
    (50_000, 0.02, 1e-3, 96),
    (200_000, 0.02, 1e-3, 192),
    (1_000_000, 0.01, 5e-4, 192),
    (2_000_000, 0.005, 3e-4, 1536),
    (5_000_000, 0.002, 3e-4, 1536),
    (math.inf, 0.001, 3e-4, 1536),
)
AFTER_100 = ((50_000, 12), (20_000_000, 1536))  # people and batch, doubled seven times between them


def of_people(recipe: Recipe, people: int, exposures: int) -> Recipe:
    """A recipe with the paper's weight decay, learning rate and batch for so many people, read so often.

    Below 300 exposures it is that for 100, with a batch that is the paper's for its smallest and largest N and ours between
    them; else the paper's for 1000.
    """
    _, decay, rate, batch = next(row for row in AFTER_1000 if people <= row[0])
    if exposures < 300:
        (low, first), (high, last) = AFTER_100
        place = math.log(min(max(people, low), high) / low) / math.log(high / low)
        batch = first * 2 ** round(math.log2(last / first) * place)
    return replace(recipe, weight_decay=decay, learning_rate=rate, batch=batch)
