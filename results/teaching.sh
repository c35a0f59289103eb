#!/usr/bin/env bash
# The runs behind the tables of docs/teaching.md, on one core; many hours in all, any line can be left out, killed and run again.
# Run from the checkout, in its environment: results/teaching.sh MODELS FACTS [FOLDER FOR THE RUNS]; then python results/tables.py --write
# MODELS holds the .gguf files of SmolLM2-135M and Gemma-3-270M, FACTS is a table of invented people.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd) models=$1 facts=$2 runs=${3:-runs}
. "$here/made.sh"

smollm2=$models/SmolLM2-135M-Instruct.Q4_1.gguf
for seed in 0 1; do
  made "lifecycle-half-life-$seed" run fact-lifecycle --parts half-life --model "$smollm2" --preset small --seed "$seed"  # 120 minutes
  made "lifecycle-wordings-$seed" run fact-lifecycle --parts wordings --model "$smollm2" --seed "$seed"                   # 75
  for pair in smollm2=SmolLM2-135M-Instruct.Q4_1 gemma=gemma-3-270m.Q4_K_M; do
    made "teaching-${pair%%=*}-$seed" teach --preset small --model "$models/${pair#*=}.gguf" --facts "$facts" --seed "$seed" \
      --arms augmented+questions single augmented rote edit context retrieved untouched                                 # 150, 300
  done
done
made lifecycle-name-scratch run fact-lifecycle --parts name --preset small                                              # 25
made lifecycle-name-smollm2 run fact-lifecycle --parts name --of-model --model "$smollm2" --attributes continent        # 20
