#!/usr/bin/env bash
# The one command that checks everything: installs what is missing, then format, lints, dependencies, documentation, alert rules, every
# test, and a few seconds of fuzzing for each parser of the auditor.
#
# Prints cargo's own lines. Fails at the first step that fails; an ignored or filtered test is a failure too. Exits 0 only if all of it passed.
set -euo pipefail

root=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root
cd "$root"
export PATH="$root/target/test-tools/bin:$PATH"

main() {
  step "tools" tests/install.sh
  step "format" formatted
  step "go format" go_is_formatted
  step "go vet" env -C tests/judges go vet ./...
  step "lints" cargo clippy --workspace --all-targets --locked -- -D warnings
  step "dependencies" cargo deny --locked check bans licenses sources
  step "the auditor's dependencies" auditor_stands_alone
  step "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
  step "alert rules" alert_rules
  step "tests" every_test
  step "fuzz smoke" audit/fuzz/run.sh
  printf '==> everything passed in %s s\n' "$SECONDS"
}

# step NAME COMMAND...: says what runs and how long it took. The command runs in a shell of its own, where `set -e` holds.
step() {
  local name=$1 begun=$SECONDS
  shift
  printf '==> %s\n' "$name"
  (set -euo pipefail; "$@")
  printf '==> %s: passed in %s s\n' "$name" $((SECONDS - begun))
}

# The fuzz targets are a package outside of the workspace.
formatted() { cargo fmt --all --check && cargo fmt --manifest-path audit/fuzz/Cargo.toml --check; }

go_is_formatted() {
  local unformatted
  unformatted=$("$(go env GOROOT)/bin/gofmt" -l tests/judges tests/vault-server)
  [ -z "$unformatted" ] || { printf 'run gofmt -w on:\n%s\n' "$unformatted" >&2; return 1; }
}

# claviger-audit is for strangers: no runtime, no socket, no keystore, no TLS in what it is built from.
auditor_stands_alone() {
  local foreign='^(tokio|mio|socket2|hyper|reqwest|rustls|aws-.*|ring|cryptoki.*|vaultrs|axum|openssl.*) v'
  packages_of claviger >"$root/target/packages.txt"
  grep -Eq "$foreign" "$root/target/packages.txt" || { echo "this check finds nothing in the daemon either: it is broken" >&2; return 1; }
  packages_of claviger-audit >"$root/target/packages.txt"
  if grep -E "$foreign" "$root/target/packages.txt"; then
    echo "claviger-audit must not depend on the packages above" >&2
    return 1
  fi
}

packages_of() { cargo tree --locked --package "$1" --edges normal --target all --prefix none; }

# Each rule is well-formed and has a case in which it fires; what the cases say is so. That their metrics exist, tests/lateness.rs checks.
alert_rules() {
  local rules=deploy/prometheus/alerts.yml cases=deploy/prometheus/alerts_test.yml untested
  promtool check rules "$rules"
  promtool test rules "$cases"
  untested=$(comm -23 <(sed -n 's/^ *- alert: //p' "$rules" | sort -u) <(sed -n 's/^  - name: \(Claviger[A-Za-z]*\).*/\1/p' "$cases" | sort -u))
  [ -z "$untested" ] || { printf 'no case of alerts_test.yml is named after these rules:\n%s\n' "$untested" >&2; return 1; }
}

every_test() {
  local log=$root/target/tests.log
  # What tests print is shown: how many schedules, mistakes and states the rotation went through.
  cargo test --workspace --locked --no-fail-fast -- --show-output 2>&1 | tee "$log"
  awk '
    /^test result:/ {
      for (i = 2; i <= NF; i++) {
        if ($i ~ /^passed/) passed += $(i - 1)
        if ($i ~ /^ignored/) ignored += $(i - 1)
        if ($i ~ /^filtered/) filtered += $(i - 1)
      }
    }
    END {
      printf "==> %d tests passed, %d ignored, %d filtered out\n", passed, ignored, filtered
      exit (passed == 0 || ignored + filtered > 0)
    }' "$log" || { echo "a test that does not run proves nothing" >&2; return 1; }
}

main "$@"
