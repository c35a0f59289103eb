#!/usr/bin/env bash
# The runs behind the tables of capacity in docs/storage.md, one after the other on one core; about 35 minutes in all.
# Run from the checkout, in its environment: results/capacity.sh [FOLDER FOR THE RUNS]; then python results/tables.py --write
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd) runs=${1:-runs}
. "$here/made.sh"

made capacity run knowledge-capacity --preset tiny                      # 4 minutes: 100 exposures, over width and people
made capacity-permuted run knowledge-capacity --preset tiny-permuted    # 4: the paper's bioS, sentences shuffled
made capacity-simple run knowledge-capacity --preset tiny-simple        # 2: bioS^simple
made capacity-1000 run knowledge-capacity --preset tiny-1000            # 4: 1000 exposures, and rounded to int8 and int4
made capacity-quantised run knowledge-capacity --preset tiny-quantised  # 1: rounded after 100 exposures
made capacity-networks run knowledge-capacity --preset tiny-networks    # 5: gated and plain MLPs, a quarter or none, tied and untied, Llama
made capacity-depth run knowledge-capacity --preset tiny-depth          # 2: one, two and four layers of alike parameters
made capacity-junk run knowledge-capacity --preset tiny-junk            # 10: 7/8 of junk, with and without a domain token
made capacity-biod run knowledge-capacity --preset tiny-biod            # 3: bioD
