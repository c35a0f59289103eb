"""Ready-made settings of knowledge acquisition."""

from __future__ import annotations

from dataclasses import replace

from engramlab.acquisition.curves import CurveOptions
from engramlab.core.training.loop import Recipe
from engramlab.experiments.knowledge_acquisition.config import Config, Fiction, Optimizer

# A maximum is looked for in 20 steps, half an interval: in the paper's 50 the next injection would already be found. Of a
# gradient AdamW then still holds an eighth (0.9 ** 20), where the paper waits until it holds nothing.
#
# Few entities with many texts: a model this small knows its stream after a minute or two, and what moves a new fact then is
# the passage that states it, not the rest of the batch. Passages of 100 tokens, 3 of them in the 8 rows of a step: so small a
# batch, in which one passage weighs much, cannot hold 120 at once.
TINY = Config(
    fiction=Fiction(control=10, background=150, sentences=8, kinds=("company",), limit=64, texts=5),
    batch=(8,),
    interval=(40,),
    times=5,
    after=140,
    stagger=40,
    reading=CurveOptions(window=20),
    window=128,
    vocabulary=4096,
    pretrain=Recipe(
        steps=1200, batch=16, learning_rate=4e-3, weight_decay=0.03, beta2=0.98, warmup=50, schedule="linear", final=0.5
    ),
)
SMALL = Config(
    model=("small",),
    batch=(128,),
    measure="window",
    window=512,
    pretrain=Recipe(steps=10_000, batch=128, learning_rate=1e-3, beta2=0.95, warmup=500, schedule="constant"),
    micro_batch=32,
)
PAPER = Config(
    model=("allenai/OLMo-1B-hf",),
    stream="hub:allenai/dolma",
    inject="passages.json",
    batch=(2048,),
    window=2048,
    optimizer=Optimizer(beta2=0.95, eps=1e-5, learning_rate=4e-4),
    straddling="keep",
    precision="bf16",
    micro_batch=4,
    checkpoint_minutes=20,
)
# The claims that 40 passages a group cannot show (duplicates, and small batches, are forgotten faster). In the tiny preset a
# decay constant of 40 passages has a standard error of 0.03 (bootstrap over passages), so that 0.12 is the least difference
# seen in four runs of five; 80 passages a group and three seeds (`engramlab sweep ... --seeds 3`) see 0.05. As dense as tiny
# (three passages in eight rows), with a tail twice as long; what the stream alone teaches (half a nat to one) is taken off.
CLAIMS = replace(
    TINY,
    fiction=replace(TINY.fiction, passages=240, control=20),
    batch=(8, 32),
    interval=(80,),
    after=280,
    stagger=80,
    measure="own",
    reading=CurveOptions(window=20, drift="control", aim=0.05),
)
# Sizes at equal rates (footnote 5), and checkpoints at the mean of their rates beside their own (app. F).
SIZES = replace(TINY, model=("2x64", "tiny", "4x192"), rate=("mean",), measure="own")
STAGES = replace(TINY, stage=(0.25, 0.5, 1.0), rate=("continue", "mean"), measure="own")
PRESETS = {"tiny": TINY, "claims": CLAIMS, "sizes": SIZES, "stages": STAGES, "small": SMALL, "paper": PAPER}
