#!/usr/bin/env bash
# The runs behind the tables of docs/estimation.md, on one core; hours in all, any line can be left out, killed and run again.
# Run from the checkout, in its environment: results/estimation.sh MODELS DATA [FOLDER FOR THE RUNS]; then python results/tables.py --write
# MODELS holds the .gguf files of SmolLM2-135M, Gemma-3-270M and Qwen2.5-Coder-0.5B, DATA the files of PopQA, TruthfulQA and FACTOR.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd) models=$1 data=$2 runs=${3:-runs}
. "$here/made.sh"

while read -r name file facts subjects; do
  model=$models/$file.gguf
  made "audit-countries-$name" audit --quick --model "$model" --facts countries --limit "$facts"           # 16, 7, 15 minutes
  made "estimation-countries-$name" run knowledge-estimation --preset tiny --model "$model" --facts countries \
    --counts 0 1 2 5 10 20 50 --subjects "$subjects"                                                     # 30, 25, 30
  made "audit-popqa-$name" audit --quick --model "$model" --facts "$data/popqa_first_1000.tsv" --limit 1000  # 20, 40, 75
done <<END
smollm2 SmolLM2-135M-Instruct.Q4_1 1000 60
gemma gemma-3-270m.Q4_K_M 300 24
qwen Qwen2.5-Coder-0.5B-Instruct.Q4 200 16
END
model=$models/SmolLM2-135M-Instruct.Q4_1.gguf
made decoding-truthfulqa run factual-decoding --parts choices --truthfulqa "$data/TruthfulQA.csv" --bad skip --limit 80 --model "$model"  # 12
made decoding-factor run factual-decoding --parts choices --factor "$data/news_factor.csv.gz" --limit 60 --model "$model"              # 13
made decoding-passages run factual-decoding --parts spans passages speed --subjects 80 --model "$model"                                # 8
made cloze-countries run cloze-questions --limit 200 --model "$model"                                                                  # 25
# Of the networks that make demo trains (runs/demo): what is known of them is known.
python "$here/bios_facts.py" "$runs/bios"
for pair in single-before=single/pretrain multi5-after=multi5+permute/finetune; do
  made "audit-bios-${pair%%=*}" audit --quick --model "runs/demo/${pair#*=}/model" --facts "$runs/bios/test.csv" \
    --templates src/engramlab/corpora/templates/bios --questions "$runs/bios/questions.tsv" --statement-wordings 3 --no-read --draws 0  # 1
done
