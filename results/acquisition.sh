#!/usr/bin/env bash
# The runs behind the tables of docs/acquisition.md from networks of scratch, each on one core; a GPU is taken where there is one.
# Run from the checkout, in its environment: results/acquisition.sh [FOLDER FOR THE RUNS]; then python results/tables.py --write
# From acquisition-popularity on, minutes are estimates.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd) runs=${1:-runs}
. "$here/made.sh"
acquisition=(run knowledge-acquisition --preset)

made acquisition-tiny "${acquisition[@]}" tiny                                                  # 33 minutes
made acquisition-tiny-1 "${acquisition[@]}" tiny --seed 1                                       # 33
made acquisition-batches "${acquisition[@]}" tiny --model "$runs/acquisition-tiny/tiny/pretrain/state-1200" \
  --batch 8 32 --interval 80 --after 160                                                        # 20
made acquisition-interval60 "${acquisition[@]}" tiny --model "$runs/acquisition-tiny/tiny/pretrain/state-1200" --interval 60    # 10
made acquisition-popularity plan --popularity --run "$runs/acquisition-tiny"                    # 1
for seed in 0 1 2; do
  made "acquisition-claims-$seed" "${acquisition[@]}" claims --seed "$seed"                     # 50
done
made acquisition-sizes "${acquisition[@]}" sizes                                                # 95
made acquisition-stages "${acquisition[@]}" stages                                              # 60
made acquisition-moments "${acquisition[@]}" tiny --moments restored fresh warmed               # 40
