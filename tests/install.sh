#!/usr/bin/env bash
# Installs what the tests need and this machine lacks: system packages, pinned verifiers (PyJWT, panva/jose), cargo-deny.
#
# Needs a Rust toolchain and, where a system package is missing, apt-get and the right to use it (root or sudo). Everything else goes under
# target/test-tools and tests/verifiers/node_modules. May be repeated: what is there is left alone. Exits 69 if something cannot be had.
set -euo pipefail

readonly cargo_deny=0.20.2
readonly node_at_least=18

root=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root
readonly tools=$root/target/test-tools
readonly verifiers=$root/tests/verifiers

main() {
  system_packages
  rust_components
  python_verifier
  node_verifier
  dependency_checker
}

say() { printf '==> %s\n' "$*"; }
die() { printf 'tests/install.sh: %s\n' "$*" >&2; exit 69; }
have() { command -v "$1" >/dev/null 2>&1; }

# quietly COMMAND...: shows the output only if the command fails.
quietly() {
  local log code=0
  log=$(mktemp)
  "$@" </dev/null >"$log" 2>&1 || code=$?
  if [ "$code" -ne 0 ]; then cat "$log" >&2; fi
  rm -f "$log"
  return "$code"
}

system_packages() {
  local missing=() sudo=()
  compiles || missing+=(gcc libc6-dev)
  have g++ || missing+=(g++)
  have softhsm2-util || missing+=(softhsm2)
  have curl || missing+=(curl)
  { have python3 && python3 -c 'import ensurepip, venv' 2>/dev/null; } || missing+=(python3 python3-venv)
  have node || missing+=(nodejs)
  have npm || missing+=(npm)
  if [ ${#missing[@]} -eq 0 ]; then return; fi

  have apt-get || die "missing here: ${missing[*]} (Debian's names); install them, then run this again"
  if [ "$(id -u)" -ne 0 ]; then
    have sudo || die "run this as root, then repeat: apt-get update && apt-get install --no-install-recommends ${missing[*]}"
    sudo=(sudo)
  fi
  say "installing system packages: ${missing[*]}"
  quietly "${sudo[@]}" apt-get update -qq || die "apt-get update failed"
  quietly "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" ||
    die "apt-get install failed: ${missing[*]}"
}

# aws-lc is the one part of the daemon that is not Rust: it needs a C compiler and the C library's headers, and neither make nor cmake. The
# runtime of the fuzz targets needs a C++ compiler.
compiles() { have cc && printf '#include <stdlib.h>\nint main(void) { return 0; }\n' | cc -x c -o /dev/null - 2>/dev/null; }

rust_components() {
  have cargo || die "no cargo here: install a Rust toolchain (1.95 or later)"
  local component missing=()
  for component in fmt clippy; do cargo "$component" --version >/dev/null 2>&1 || missing+=("${component/fmt/rustfmt}"); done
  if [ ${#missing[@]} -eq 0 ]; then return; fi
  have rustup || die "cargo lacks: ${missing[*]}"
  say "adding to the Rust toolchain: ${missing[*]}"
  quietly rustup component add "${missing[@]}" || die "rustup could not add: ${missing[*]}"
}

python_verifier() {
  local venv=$tools/venv wanted=$verifiers/requirements.txt
  if cmp -s "$wanted" "$venv/installed.txt" && "$venv/bin/python" -c 'import jwt, cryptography' 2>/dev/null; then return; fi
  say "installing PyJWT into target/test-tools/venv"
  rm -rf "$venv"
  quietly python3 -m venv "$venv" || die "python3 -m venv failed"
  quietly "$venv/bin/python" -m pip install --disable-pip-version-check -r "$wanted" || die "pip install failed"
  cp "$wanted" "$venv/installed.txt"
}

node_verifier() {
  local lock=$verifiers/package-lock.json installed=$verifiers/node_modules/.installed-lock.json major
  major=$(node --version | sed 's/^v\([0-9]*\).*/\1/')
  if [ "$major" -lt "$node_at_least" ]; then die "node $major is too old: at least $node_at_least is needed"; fi
  if cmp -s "$lock" "$installed"; then return; fi
  say "installing jose into tests/verifiers/node_modules"
  quietly npm --prefix "$verifiers" ci --no-audit --no-fund || die "npm ci failed"
  cp "$lock" "$installed"
}

dependency_checker() {
  if [ "$("$tools/bin/cargo-deny" --version 2>/dev/null)" = "cargo-deny $cargo_deny" ]; then return; fi
  say "building cargo-deny $cargo_deny (a few minutes, once)"
  quietly env -u CARGO_TARGET_DIR -u RUSTFLAGS cargo install --locked --force --version "$cargo_deny" --root "$tools" cargo-deny || die "cargo install cargo-deny failed"
}

main "$@"
