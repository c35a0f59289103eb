#!/usr/bin/env bash
# The runs behind the tables of docs/storage.md but those of capacity (capacity.sh), of celebrities beside text and of the first masked
# networks (their commands stand under the tables), each on one core; a GPU is taken where there is one. A day in all, of which the last
# three lines take most: any line can be left out, killed and run again. Minutes of lines that no table has yet are estimates.
# Run from the checkout, in its environment: results/storage.sh [FOLDER FOR THE RUNS]; then python results/tables.py --write
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd) runs=${1:-runs}
. "$here/made.sh"
extraction=(run knowledge-extraction --preset tiny)
probing=(run hidden-state-probing --preset tiny)
sweep=(sweep knowledge-extraction --processes 1 --threads 1 --seeds 1 --preset)
few=(--pools.birth-cities 10 --pools.universities 10 --pools.majors 10 --pools.companies 10)
more=(--pools.birth-cities 20 --pools.universities 20 --pools.majors 20 --pools.companies 20)

made sweep "${sweep[@]}" tiny --variants all "${few[@]}" --probe --probe-options '--preset tiny --probes Q'          # 85 minutes
made sweep-1 "${sweep[@]}" tiny --variants single multi5+permute single+permute1 single+permute5 --seed 1 "${few[@]}" \
  --probe --probe-options '--preset tiny --probes Q'                                                                 # 35
made probing-rank16 "${probing[@]}" --probes Q --q.rank 16 --model "$runs/sweep/multi5+permute-seed0"                # 1
made probing-text "${probing[@]}" --probes P \
  --model "$runs/sweep/"{single,single+permute5,multi5,multi5+permute}-seed0                                         # 11
made sweep-qa "${sweep[@]}" tiny-mixed --variants multi5+permute --over qa-ratio=0.2,0.4,0.6,0.8                     # 52
made sweep-translate "${sweep[@]}" tiny --variants single single+translate multi2                                    # 30
made ranks run knowledge-extraction --preset tiny-ranks                                                              # 38
made pairs "${extraction[@]}" --variants multi5+permute single couple5 "${more[@]}"                                  # 13
made probing-couple "${probing[@]}" --probes P --model "$runs/pairs" --variants couple5                              # 3
made couples "${extraction[@]}" --variants couple1 couple2 "${more[@]}"                                              # 20
made probing-couples "${probing[@]}" --probes P --model "$runs/couples"                                              # 5
made celebrities-none "${extraction[@]}" --variants single --people 100 --pretrain.steps 583                         # 2
made celebrities-half "${extraction[@]}" --variants single+CEL --celebrities 300 --minority-share 0.5 --pretrain.steps 2500     # 11
made celebrities-quarter "${extraction[@]}" --variants single+CEL --people 150 --celebrities 450 --minority-share 0.25 \
  --pretrain.steps 3000                                                                                              # 16
made celebrities-sixth "${extraction[@]}" --variants single+CEL --people 100 --celebrities 500 --pretrain.steps 3500 # 14
made probing-minority "${probing[@]}" --probes Q P --model "$runs/celebrities-sixth"                                 # 20
# A masked network: long runs.
made gbert run knowledge-extraction --preset tiny-gbert                                                              # 265
made probing-gbert "${probing[@]}" --probes Q --model "$runs/gbert"                                                  # 5
made sweep-gbert-mixed "${sweep[@]}" tiny-gbert-mixed --over qa-ratio=0.2,0.8                                        # 620
