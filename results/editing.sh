#!/usr/bin/env bash
# Runs behind two tables of docs/editing.md (token overfitting by target length; thousands of edits), on one core; hours in all, any
# line can be left out, killed and run again.
# Run from the checkout, in its environment: results/editing.sh MODELS DATA [FOLDER FOR THE RUNS]; then python results/tables.py --write
# MODELS holds the .gguf files of SmolLM2-135M and Gemma-3-270M, DATA the files of KnowEdit and MEND's ZsRE.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd) models=$1 data=$2 runs=${3:-runs}
. "$here/made.sh"

for pair in smollm2=SmolLM2-135M-Instruct.Q4_1 gemma=gemma-3-270m.Q4_K_M; do
  for file in ZsRE-test-all wiki_recent_train wikibio-test-all; do
    made "overfitting-${pair%%=*}-$file" run token-overfitting --model "$models/${pair#*=}.gguf" --benchmark "$data/$file.json" \
      --part all --no-known-only --bad skip --limit 60 --settings cross-entropy full                     # 5 minutes ZsRE, WikiBio 30
  done
done
# OVERTONE where targets are long enough to overfit unevenly and something follows from the edit. Lambda, n and epsilon are chosen
# by eye on the tuning subjects (the first command) and put in the place of `overtone` in the others.
for pair in smollm2=SmolLM2-135M-Instruct.Q4_1 gemma=gemma-3-270m.Q4_K_M; do
  name=${pair%%=*} long=(run knowledge-editing --model "$models/${pair#*=}.gguf" --bad skip --words 3 --judges 1)
  made "tuning-overtone-$name" "${long[@]}" --benchmark "$data/wiki_counterfact_train.json" --judged-by portability --part tune \
    --limit 24 --methods ft-m,lora \
    --losses cross-entropy,overtone,overtone:mixing=0.3,overtone:clip=0.05,overtone:n_sigma=1                # 40, 80 minutes
  for file in ZsRE-test-all wiki_counterfact_train wikibio-test-all; do
    made "overtone-$name-$file" "${long[@]}" --benchmark "$data/$file.json" --part test --limit 100 --methods ft-m,lora \
      --losses cross-entropy,overtone                                                                       # 40, 80 minutes
    made "overtone-routed-$name-$file" "${long[@]}" --benchmark "$data/$file.json" --part test --limit 100 --methods melo,wise \
      --losses cross-entropy,overtone                                                                       # 60, 120 minutes
  done
  made "overtone-turns-$name" "${long[@]}" --benchmark "$data/ZsRE-test-all.json" --setting continual --counts 1 10 100 --limit 100 \
    --methods ft-m,lora --losses cross-entropy,overtone                                                     # 60, 120 minutes
done
# What the unedited model answers right on the cases of the single edits' tables, and a method that changes nothing else.
made editing-control-world run knowledge-editing --preset world --model "$models/SmolLM2-135M-Instruct.Q4_1.gguf" --limit 104 \
  --at-once 26 --methods melo                                                           # 8
common=(run knowledge-editing --preset lifelong --model "$models/SmolLM2-135M-Instruct.Q4_1.gguf" --sample 200 --counts 100 1000
  --dtype bfloat16)
made lifelong-plain "${common[@]}" --methods ultraedit,locft                            # 20
for pair in ultraedit=reach=0.1 ultraedit=reach=0.3 locft=learning-rate=2e-3 locft=learning-rate=5e-3 \
  lora=learning-rate=1e-3; do  # 4 each, LoRA 25; 0.3 is the default
  method=${pair%%=*} setting=${pair#*=}
  made "lifelong-tried-$method-${setting#*=}" "${common[@]}" --sample 60 --counts 300 --twins 30 --natives 40 --text-rows 24 --seed 1 \
    --methods "$method" "--hyper.$method.${setting%%=*}" "${setting#*=}"
done
made lifelong-locft-rate "${common[@]}" --methods locft --hyper.locft.learning-rate 5e-3  # 15
made lifelong-finetuning "${common[@]}" --methods ft-m,lora                             # 60
# A thousand edits under noise, and a hundred as by default, behind texts: what noise costs an edit.
made lifelong-memit-noise "${common[@]}" --methods memit --hyper.memit.noise deep        # 75
made lifelong-memit-hundred run knowledge-editing --preset lifelong --model "$models/SmolLM2-135M-Instruct.Q4_1.gguf" --sample 200 \
  --counts 100 --dtype bfloat16 --methods memit                                         # 12
made lifelong-alphaedit-noise "${common[@]}" --methods alphaedit --hyper.alphaedit.noise deep                       # 75
made lifelong-memit-anchor-noise "${common[@]}" --methods memit --hyper.memit.noise deep --hyper.memit.norm-anchor 2  # 75
made lifelong-ike run knowledge-editing --preset lifelong --model "$models/SmolLM2-135M-Instruct.Q4_1.gguf" --sample 100 \
  --counts 100 --dtype bfloat16 --methods ike                                           # 10
made lifelong-zsre "${common[@]}" --benchmark "$data/zsre_mend_edit.json" --methods ultraedit,locft  # 60
made lifelong-zsre-finetuning "${common[@]}" --benchmark "$data/zsre_mend_edit.json" --methods ft-m,lora  # 60
made learning-smollm2 run learning-to-edit --preset ablations --model "$models/SmolLM2-135M-Instruct.Q4_1.gguf"           # 90
made pitfalls-world run editing-pitfalls --model "$models/SmolLM2-135M-Instruct.Q4_1.gguf" --limit 20                      # 60
made propagation-fictional run entity-propagation --model "$models/SmolLM2-135M-Instruct.Q4_1.gguf" --limit 10             # 20
made timed-smollm2 run time-sensitive-editing --model "$models/SmolLM2-135M-Instruct.Q4_1.gguf" --benchmarks world dated \
  --groups 10                                                                                                              # 150
