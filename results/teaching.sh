#!/usr/bin/env bash
# The runs behind the tables of docs/teaching.md, on one core; hours in all, any line can be left out, killed and run again.
# Run from the checkout, in its environment: results/teaching.sh MODELS [FOLDER FOR THE RUNS]; then python results/tables.py --write
# MODELS holds the .gguf files of SmolLM2-135M and Gemma-3-270M.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd) models=$1 runs=${2:-runs}
. "$here/made.sh"

python "$here/people.py" "$runs/people"
smollm2=$models/SmolLM2-135M-Instruct.Q4_1.gguf gemma=$models/gemma-3-270m.Q4_K_M.gguf

# A network that knows 300 people is taught 100 others.
made scratch-network run knowledge-extraction --preset tiny-mixed --variants multi5+permute --model.context 256 --pretrain.batch 12 \
  --pretrain.steps 1250 --qa-ratio 0.5                                                                                     # 8
for seed in 0 1; do
  made "scratch-teaching-$seed" teach --model "$runs/scratch-network/multi5+permute/mixed/model" --facts "$runs/people/new.csv" \
    --known "$runs/people/old.csv" --native-facts 900 --templates "$runs/people/templates" \
    --questions "$runs/people/questions.tsv" --replay "$runs/people/replay.jsonl" --replay-texts 1920 --replay-share 0.3 \
    --weights full --learning-rate 1e-3 --encounters 100 --no-audit --no-stop --seed "$seed"                               # 6
done

# Invented people, by every way.
teach=(teach --preset small --facts "$runs/people/invented.csv" --attributes birth_city --replay-tokens 48 --native-facts 30
  --points 4 --watched-facts 12 --precision bf16)
made teaching-smollm2-0 "${teach[@]}" --model "$smollm2" --seed 0 \
  --arms augmented+questions single augmented single+questions rote edit context retrieved untouched                       # 35
made teaching-smollm2-1 "${teach[@]}" --model "$smollm2" --seed 1 --arms augmented+questions single edit context untouched # 40
made teaching-smollm2-bare-0 "${teach[@]}" --model "$smollm2" --seed 0 --no-stop --replay-share 0                          # 8
# How much is replayed, and whether the same texts again and again: at the share of 0.3 each of 256 is read five times.
made teaching-smollm2-replayed-0 "${teach[@]}" --model "$smollm2" --seed 0 --no-stop --replay-share 0.3                    # 20
made teaching-smollm2-replayed-256-0 "${teach[@]}" --model "$smollm2" --seed 0 --no-stop --replay-share 0.3 --replay-texts 256  # 18
for seed in 0 1; do
  made "teaching-gemma-texts-$seed" "${teach[@]}" --model "$gemma" --seed "$seed" --no-stop --replay-share 0.3                # 60
done
made teaching-gemma-tried-5e-4-0.3 "${teach[@]}" --model "$gemma" --seed 0 --learning-rate 5e-4 --no-stop --replay-share 0.3 \
  --replay-texts 256                                                                                                       # 40
for seed in 0 1; do
  made "teaching-gemma-$seed" "${teach[@]}" --model "$gemma" --seed "$seed" \
    --arms augmented+questions single context untouched                                                                    # 50
done

# Controls: the edited layers alone, or all others, go on being trained; another text is trained on.
made lifecycle-half-life-controls-0 run fact-lifecycle --parts half-life --model "$smollm2" --preset small --arms memit injected \
  --trained all edited others --other-stream sampled --encounters 16 --seed 0                                              # 50
for seed in 0 1; do
  made "lifecycle-half-life-$seed" run fact-lifecycle --parts half-life --model "$smollm2" --preset small --trained all \
    --other-stream "" --encounters 4 16 --seed "$seed"                                                                     # 65
  words=(run fact-lifecycle --parts wordings --model "$smollm2" --count 12 --wordings 1 4 --seed "$seed")
  made "lifecycle-wordings-ft-m-$seed" "${words[@]}" --methods ft-m                                                        # 12
  made "lifecycle-wordings-lora-$seed" "${words[@]}" --methods lora --unedited 0                                           # 7
  made "lifecycle-wordings-memit-$seed" "${words[@]}" --methods memit --unedited 0                                         # 15
done
made lifecycle-wordings-rome-0 run fact-lifecycle --parts wordings --model "$smollm2" --count 12 --wordings 1 4 --seed 0 \
  --methods rome --unedited 0                                                                                              # 60
for count in 8 16; do
  made "lifecycle-wordings-ft-m-$count-0" run fact-lifecycle --parts wordings --model "$smollm2" --count 12 --wordings "$count" --seed 0 \
    --methods ft-m --unedited 0                                                                                            # 6, 9
done
made lifecycle-wordings-memit-8-0 run fact-lifecycle --parts wordings --model "$smollm2" --count 12 --wordings 8 --seed 0 \
  --methods memit --unedited 0                                                                                             # 30
made lifecycle-wordings-lora-many-0 run fact-lifecycle --parts wordings --model "$smollm2" --count 12 --wordings 2 8 16 --seed 0 \
  --methods lora --unedited 0                                                                                              # 14
made teaching-smollm2-piloted-0 "${teach[@]}" --model "$smollm2" --seed 0 --no-stop --pilot                                # 25
made teaching-smollm2-rote-0 "${teach[@]}" --model "$smollm2" --seed 0 --no-stop --arms rote untouched                     # 10
made lifecycle-name-scratch run fact-lifecycle --parts name --preset small --name-edits 160                               # 6
for seed in 0 1; do
  made "name-network-$seed" run knowledge-extraction --preset tiny-mixed --variants multi5+permute --people 600 --pools.majors 10 \
    --pools.universities 10 --pools.companies 10 --pools.birth-cities 10 --pools.birth-years 10 --model.context 256 \
    --pretrain.batch 12 --pretrain.steps 2000 --qa-ratio 0.5 --seed "$seed"                                                # 8
  made "lifecycle-name-readable-$seed" run fact-lifecycle --parts name --run "$runs/name-network-$seed" --name-edits 80 \
    --seed "$seed"                                                                                                         # 1
done
made lifecycle-name-smollm2 run fact-lifecycle --parts name --of-model --model "$smollm2" --attributes continent          # 20
