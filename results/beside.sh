#!/usr/bin/env bash
# The runs behind the tables of knowledge beside the weights and with its source, on one core; about two hours in all, any line can be
# left out, killed and run again.
# Run from the checkout, in its environment: results/beside.sh MODELS [FOLDER FOR THE RUNS]; then python results/tables.py --write
# MODELS holds the .gguf file of SmolLM2-135M.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd) models=$1 runs=${2:-runs}
. "$here/made.sh"

for seed in 0 1; do
  made "plug-tiny-$seed" run plug-in-memory --preset tiny --seed "$seed"                       # 20 minutes, a third of it the bare network
  made "plug-causal-$seed" run plug-in-memory --preset tiny --model.objective causal --no-bare --recipe.steps 1500 --seed "$seed"  # 5
  made "sources-tiny-$seed" run source-attribution --preset tiny --seed "$seed"                # 10
done
made sources-names run source-attribution --preset tiny --ids names --no-thought --strategies no-id repeat  # 5: ids that tell
for seed in 0 1 2; do
  made "folding-worlds-$seed" run knowledge-folding --seed "$seed"                             # 4
done
made retrieval-tokens-tiny run retrieval-tokens                                                # 12
for seed in 0 1; do
  made "retrieval-tokens-smollm2-$seed" run retrieval-tokens --preset small --model "$models/SmolLM2-135M-Instruct.Q4_1.gguf" \
    --attributes capital currency --trained 64 --limit 48 --most 3 --seed "$seed"                # 6
done
made where-tiny run where-knowledge-lives --preset tiny                                      # 15
