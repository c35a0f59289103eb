# Sourced by the scripts of runs: expects $runs, a folder for the runs, and $here, this one.
export OMP_NUM_THREADS=1

made() { # made NAME COMMAND...: a run, of which the small files are kept
  engramlab "${@:2}" --out "$runs/$1" </dev/null
  mkdir -p "$here/$1"
  cp "$runs/$1/config.json" "$runs/$1/summary.json" "$here/$1/"
}
