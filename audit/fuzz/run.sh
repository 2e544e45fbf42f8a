#!/usr/bin/env bash
# run.sh [SECONDS_PER_TARGET] [TARGET]: fuzzes each parser of the auditor for a bounded time (5 s), on a stable toolchain.
#
# Needs cargo and a C++ compiler (Debian: g++). Starts from the seeds that are checked in, and from what earlier runs found under the target
# folder. Exits non-zero on a crash, a hang of 10 s or 1 GiB of memory, and names the input that did it.
set -euo pipefail

readonly seconds=${1:-5} only=${2:-}
here=$(cd -P "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here
readonly target=${CARGO_TARGET_DIR:-$here/../../target}/fuzz
readonly most_bytes=70000 # a little more than the longest line

main() {
  build
  local source name run=0
  for source in "$here"/fuzz_targets/*.rs; do
    name=$(basename "$source" .rs)
    if [ -z "$only" ] || [ "$only" = "$name" ]; then
      fuzz "$name"
      run=$((run + 1))
    fi
  done
  if [ "$run" -eq 0 ]; then echo "run.sh: there is no target $only" >&2; exit 64; fi
}

# What cargo-fuzz asks of a nightly compiler, less the address sanitizer: there is no unsafe code here for it to watch. With --target, the
# flags stay away from build scripts and procedural macros.
build() {
  host=$(rustc -vV | sed -n 's/^host: //p')
  local flags=(
    -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table -Ccodegen-units=1
  )
  RUSTFLAGS="${flags[*]}" cargo build --manifest-path "$here/Cargo.toml" --target-dir "$target" --target "$host" --release --locked
}

fuzz() {
  local name=$1 corpus=$target/corpus/$1 crashes=$target/crashes log=$target/$1.log code=0
  mkdir -p "$corpus" "$crashes"
  "$target/$host/release/$name" -max_total_time="$seconds" -max_len="$most_bytes" -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \
    -artifact_prefix="$crashes/$name-" "$corpus" "$here/seeds/$name" >"$log" 2>&1 || code=$?
  printf '%-10s %s executions\n' "$name" "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
  if [ "$code" -ne 0 ]; then
    tail -n 60 "$log" >&2
    printf 'run.sh: %s failed; repeat with: %s FILE, where FILE is named above\n' "$name" "$target/$host/release/$name" >&2
    exit "$code"
  fi
}

main
