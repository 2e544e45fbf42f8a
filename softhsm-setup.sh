#!/usr/bin/env bash
# A SoftHSM2 token for Claviger, and a demonstration that runs on it.
#
#   ./softhsm-setup.sh DIR          the same as: token DIR
#   ./softhsm-setup.sh token DIR    installs SoftHSM2 if it is missing, makes a token in DIR, writes the settings that Claviger needs
#   ./softhsm-setup.sh run          does that in ./.claviger/token, builds Claviger, starts it with a demo keyring, prints a curl line
#   ./softhsm-setup.sh status       says whether the demo daemon runs (exit 0) or not (exit 3)
#   ./softhsm-setup.sh stop         stops the demo daemon that `run` started
#
#   --dry-run     changes nothing: says what would be done; exits 69 if something would have to be installed
#   --port PORT   the loopback port of the demo, used when `run` first writes its configuration (8085)
#
# Every verb may be repeated. A folder that this script did not make is refused, a token that it did not make is never touched, and no
# process is ended but the one that `run` started. Exit codes are those of sysexits.h.
#
# What this is not: a production set-up. SoftHSM2 keeps its keys in files; whoever reads the token folder and the PIN has the keys.
# The PINs reach softhsm2-util through its prompts where `script` of util-linux is installed (every Debian, Ubuntu and Fedora). Elsewhere
# they stand in its arguments for the moment of the initialisation, where other users of the machine could see them; a warning says so.
set -euo pipefail

readonly label=claviger
readonly marker=made-by-softhsm-setup
readonly ready_within=60 # seconds to wait for the daemon: a first key takes well under one, a slow disk may take some
readonly stop_within=30  # seconds: drain, flush, checkpoint
readonly socket_path_max=100 # bytes; the kernel's limit for a socket path is 107 (sun_path), names included

root=$(cd -P "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly root
readonly home=$root/.claviger
readonly config=$home/claviger.toml
readonly key_log=$home/state/log/keys # there as soon as `claviger init` has run
readonly pid_file=$home/run/claviger.pid
readonly daemon=$root/target/release/claviger
dry_run=false
port=8085

main() {
  local words=()
  while [ $# -gt 0 ]; do
    case $1 in
      --dry-run) dry_run=true ;;
      --port) [ $# -ge 2 ] || usage_error "--port needs a number"; port=$2; shift ;;
      -h | --help) usage; exit 0 ;;
      -*) usage_error "unknown option $1" ;;
      *) words+=("$1") ;;
    esac
    shift
  done
  case $port in '' | *[!0-9]*) usage_error "--port needs a number, not '$port'" ;; esac
  set -- ${words[@]+"${words[@]}"}
  case ${1:-} in
    token) [ $# -eq 2 ] || usage_error "token needs one folder"; make_token "$2" ;;
    run) [ $# -eq 1 ] || usage_error "run takes no argument"; run ;;
    status) [ $# -eq 1 ] || usage_error "status takes no argument"; status ;;
    stop) [ $# -eq 1 ] || usage_error "stop takes no argument"; stop ;;
    '') usage >&2; exit 64 ;;
    *) [ $# -eq 1 ] || usage_error "unknown verb $1"; make_token "$1" ;;
  esac
}

usage() { sed -n '2,11p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//'; }
usage_error() { printf 'softhsm-setup: %s\n\n' "$1" >&2; usage >&2; exit 64; }
say() { printf '==> %s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die() { printf 'softhsm-setup: %s\n' "$2" >&2; exit "$1"; }
have() { command -v "$1" >/dev/null 2>&1; }

# ---- installing -----------------------------------------------------------------------------------------------------------------------

# ensure WHAT TEST_FUNCTION APT DNF APK BREW: installs the packages of this machine's manager unless TEST_FUNCTION already succeeds.
# With --dry-run, without a known manager or without the right to install it says what is needed and exits 69 (EX_UNAVAILABLE).
ensure() {
  local what=$1 present=$2 command sudo=
  if "$present"; then return; fi
  if [ "$(id -u)" -ne 0 ]; then sudo="sudo "; fi
  if have apt-get; then
    command="${sudo}apt-get update -qq && ${sudo}env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $3"
  elif have dnf; then command="${sudo}dnf install -y -q $4"
  elif have apk; then command="${sudo}apk add --no-cache -q $5"
  elif have brew; then command="brew install -q $6"
  else die 69 "$what is missing, and this machine has none of apt-get, dnf, apk and brew: install it, then run this again"; fi
  if $dry_run; then die 69 "$what is missing; this would be run: $command"; fi
  if [ -n "$sudo" ] && ! have brew && ! have sudo; then die 69 "$what is missing; run this as root, then repeat: ${command//sudo /}"; fi
  say "installing $what: $command"
  # The commands are the fixed lines above, so a shell may read them. Their output is shown only if they fail.
  local log; log=$(mktemp)
  if ! bash -c "set -e; $command" </dev/null >"$log" 2>&1; then
    tail -n 20 "$log" >&2; rm -f "$log"
    die 69 "$what could not be installed; run this by hand, then repeat: $command"
  fi
  rm -f "$log"
  if ! "$present"; then die 69 "$what is still missing after: $command"; fi
}

softhsm_is_here() { have softhsm2-util && module_path >/dev/null; }
compiler_is_here() { have cc && printf '#include <stdlib.h>\nint main(void) { return 0; }\n' | cc -x c -o /dev/null - 2>/dev/null; }
curl_is_here() { have curl; }

# Where libsofthsm2.so lies: SOFTHSM2_MODULE if it is set, else the places of the known packages.
module_path() {
  local candidate
  for candidate in "${SOFTHSM2_MODULE:-}" /usr/lib/softhsm/libsofthsm2.so /usr/lib/*/softhsm/libsofthsm2.so /usr/lib64/softhsm/libsofthsm2.so \
    /usr/lib64/pkcs11/libsofthsm2.so /usr/lib64/libsofthsm2.so /usr/lib/pkcs11/libsofthsm2.so /usr/local/lib/softhsm/libsofthsm2.so \
    /opt/homebrew/lib/softhsm/libsofthsm2.so /usr/local/opt/softhsm/lib/softhsm/libsofthsm2.so; do
    if [ -n "$candidate" ] && [ -f "$candidate" ]; then printf '%s\n' "$candidate"; return; fi
  done
  return 1
}

# ---- the token ------------------------------------------------------------------------------------------------------------------------

make_token() {
  local dir
  dir=$(absolute "$1")
  refuse_foreign_folder "$dir"
  ensure SoftHSM2 softhsm_is_here softhsm2 softhsm softhsm softhsm
  if $dry_run; then say "would make the token '$label' in $dir, or keep the one that is there"; return; fi

  # The PINs are durable before the token exists: an interrupted run is completed by the next, with the same PINs.
  (umask 077 && mkdir -p "$dir/tokens")
  chmod 0700 "$dir" "$dir/tokens"
  if [ ! -e "$dir/$marker" ]; then printf 'softhsm-setup.sh made this folder and its token\n' >"$dir/$marker"; fi
  write_secret "$dir/so-pin"
  write_secret "$dir/pin"
  printf 'directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n' "$dir/tokens" >"$dir/softhsm2.conf"
  export SOFTHSM2_CONF=$dir/softhsm2.conf

  case $(token_state) in
    ready) say "the token '$label' in $dir stands as it was" ;;
    half-made) initialise "$dir" --token "$label" ;;
    absent)
      if grep -q '^token made$' "$dir/$marker"; then
        die 66 "the token that was made in $dir is gone: bring back $dir/tokens, or remove $dir to start anew with new keys"
      fi
      initialise "$dir" --free ;;
  esac
  grep -q '^token made$' "$dir/$marker" || printf 'token made\n' >>"$dir/$marker"
  write_settings "$dir"
}

# The absolute path of a folder that need not exist yet. Characters that TOML, a shell or systemd would read as syntax are refused.
absolute() {
  local dir=$1 parent
  case $dir in
    *[\"\\\$\`\']* | *$'\n'*) die 64 "the folder's path must not hold quotes, backslashes, dollar signs or line feeds: $dir" ;;
  esac
  parent=$(dirname -- "$dir")
  if [ -d "$dir" ]; then dir=$(cd -P -- "$dir" && pwd) || die 77 "$1 cannot be entered"
  elif [ -d "$parent" ]; then
    parent=$(cd -P -- "$parent" && pwd) || die 77 "$parent cannot be entered"
    dir=${parent%/}/$(basename -- "$dir")
  else case $dir in /*) ;; *) dir=$PWD/$dir ;; esac; fi
  printf '%s\n' "$dir"
}

refuse_foreign_folder() {
  local dir=$1
  if [ ! -e "$dir" ]; then return; fi
  if [ ! -d "$dir" ]; then die 73 "$dir is not a folder"; fi
  if [ ! -O "$dir" ]; then die 77 "$dir belongs to another user"; fi
  if [ -f "$dir/$marker" ]; then return; fi
  if [ -n "$(ls -A "$dir")" ]; then die 73 "$dir is not empty and this script did not make it (no file $marker in it): name another folder"; fi
}

# 128 random bits in hex, mode 0400, no line feed; kept if it is there.
write_secret() {
  if [ -s "$1" ]; then return; fi
  rm -f "$1.new"
  (umask 277 && random_hex 16 >"$1.new")
  mv "$1.new" "$1"
}

random_hex() { od -An -v -N "$1" -tx1 /dev/urandom | tr -d ' \n'; }

# ready | half-made (its user PIN was never set, so it holds no key) | absent. Only the tokens under SOFTHSM2_CONF are seen.
token_state() {
  softhsm2-util --show-slots 2>/dev/null | awk -v label="$label" '
    /User PIN init/ { pin = $NF }
    /^ *Label:/ { sub(/^ *Label: */, ""); sub(/ *$/, ""); if ($0 == label) state = (pin == "yes" ? "ready" : "half-made") }
    END { print (state == "" ? "absent" : state) }'
}

# initialise DIR SELECTOR...: makes the token with the PINs of DIR.
initialise() {
  local dir=$1; shift
  say "making the token '$label' in $dir"
  local command=(softhsm2-util --init-token "$@" --label "$label") transcript=$dir/transcript answers=$dir/answers made=true
  if script --version 2>/dev/null | grep -q util-linux; then
    rm -f "$answers" && mkfifo -m 600 "$answers"
    # softhsm2-util insists on a terminal; `script` gives it one. The command holds nothing but fixed words and the label.
    # shellcheck disable=SC2094 # a pipe with a name: what is written here is read there
    SHELL=/bin/sh script -qec "${command[*]}" /dev/null <"$answers" | answer_prompts "$dir" "$transcript" >"$answers" || made=false
    rm -f "$answers"
  else
    warn "no 'script' of util-linux here: the PINs stand in the arguments of softhsm2-util for a moment"
    "${command[@]}" --so-pin "$(cat "$dir/so-pin")" --pin "$(cat "$dir/pin")" >"$transcript" 2>&1 || made=false
  fi
  if ! $made || [ "$(token_state)" != ready ]; then
    local shown; shown=$(cat "$transcript"); rm -f "$transcript"
    shown=${shown//"$(cat "$dir/so-pin")"/(SO PIN)}
    printf '%s\n' "${shown//"$(cat "$dir/pin")"/(user PIN)}" >&2
    die 70 "softhsm2-util could not make the token in $dir"
  fi
  rm -f "$transcript"
}

# Reads the dialogue of softhsm2-util and writes the PIN that each prompt asks for. The transcript shows stars for PINs, never the PIN.
answer_prompts() {
  local dir=$1 transcript=$2 char prompt=
  : >"$transcript"
  while IFS= read -r -n 1 -d '' char; do
    printf '%s' "$char" >>"$transcript"
    prompt+=$char
    case $prompt in
      *"enter SO PIN: ") cat "$dir/so-pin"; printf '\n'; prompt= ;;
      *"enter user PIN: ") cat "$dir/pin"; printf '\n'; prompt= ;;
    esac
  done
}

write_settings() {
  local dir=$1 module
  module=$(module_path)
  printf 'SOFTHSM2_CONF="%s"\n' "$dir/softhsm2.conf" >"$dir/settings.env"
  cat >"$dir/keystore.toml" <<TOML
[keystore.hsm]
type = "pkcs11"
module = "$module"
token = "$label"
pin_file = "$dir/pin"
workers = 2
TOML
  say "environment of the daemon ($dir/settings.env):"
  sed 's/^/    /' "$dir/settings.env"
  say "part of its configuration ($dir/keystore.toml):"
  sed 's/^/    /' "$dir/keystore.toml"
}

# ---- the demonstration ----------------------------------------------------------------------------------------------------------------

run() {
  check_place
  if running_pid >/dev/null; then
    say "the demo daemon runs already (pid $(running_pid))"
    print_lines
    return
  fi
  have cargo || die 69 "no cargo here: install a Rust toolchain (1.95 or later), then run this again"
  ensure "a C compiler" compiler_is_here "gcc libc6-dev" gcc "gcc musl-dev" gcc
  ensure curl curl_is_here curl curl curl curl
  make_token "$home/token"
  if $dry_run; then say "would build Claviger, write $config, and start the daemon on 127.0.0.1:$port"; return; fi

  say "building Claviger (a few minutes the first time)"
  (cd "$root" && cargo build --release --locked --workspace --bins)
  write_demo
  # shellcheck source=/dev/null
  set -a && . "$home/token/settings.env" && set +a
  if [ ! -e "$key_log" ]; then
    say "claviger init: the logs, made on purpose, once"
    "$daemon" init --config "$config" | tee "$home/init.txt"
    # Whose signatures verifiers trust: kept from the moment when the log keys were made.
    sed -n '/^log /p; /^quorum /p' "$home/init.txt" >"$home/trust" && rm -f "$home/init.txt"
  fi
  start
  print_lines
}

check_place() {
  case $root in
    *[\"\\\$\`\']*) die 64 "the path of this clone must not hold quotes, backslashes or dollar signs: $root" ;;
  esac
  local longest=$home/run/admin.sock
  if [ "$(printf %s "$longest" | wc -c)" -gt "$socket_path_max" ]; then
    die 64 "$longest is too long for a Unix socket (at most $socket_path_max bytes): clone into a shorter path"
  fi
}

# The demo's own files. What is there stays, so that it may be edited; the configuration and the bearer token belong together.
write_demo() {
  (umask 077 && mkdir -p "$home/run")
  chmod 0700 "$home" "$home/run"
  if [ -e "$config" ]; then
    [ -s "$home/demo-token" ] || die 66 "$home/demo-token is missing: remove $config too, and both are written anew"
    return
  fi
  say "writing $config"
  rm -f "$home/demo-token"
  write_bearer "$home/demo-token"
  if [ ! -d "$home/policies" ]; then cp -R "$root/policies" "$home/policies"; fi
  demo_config >"$config.new"
  mv "$config.new" "$config"
}

# 32 random bytes in base64url without padding, mode 0400, no line feed.
write_bearer() { (umask 277 && head -c 32 /dev/urandom | base64 | tr -d '=\n' | tr '+/' '-_' >"$1"); }

sha256_of() { if have sha256sum; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d ' ' -f 1; }

# Seconds and minutes where an operator would write minutes and days, so that a whole life of keys can be watched.
demo_config() {
  cat <<TOML
# Written by softhsm-setup.sh run. Edit it as you like: it is not written again while it is there.
installation = "demo"
origin = "localhost/claviger"
node = "a"
state = "$home/state"
policies = "$home/policies"

[log]
keystore = "hsm"

$(cat "$home/token/keystore.toml")

[issuer.main]
url = "http://127.0.0.1:$port"
path = "/demo"
default = true
discovery = true

[keyring.access-tokens]
purpose = "jwt"
issuer = "main"
algorithm = "ES256"
keystore = "hsm"
token_ttl = "2m"
jwks_max_age = "10s"
jwks_stale = "0s"
verifier_poll = "10s"
propagation = "1s"
clock_skew = "2s"
rotate_every = "3m"
provisioning_budget = "30s"
max_exposure = "2m"
policy_claims = { tenant = "String" }

[keyring.access-tokens.profile]
typ = "at+jwt"
audiences = ["https://api.example.org"]

# The token itself is in demo-token; only its hash is known here.
[caller."token:demo"]
token_sha256 = "$(sha256_of "$home/demo-token")"
groups = ["issuers"]
tenant = "demo"

# Whoever ran the script, on the Unix sockets.
[caller."unix:uid=$(id -u)"]
groups = ["issuers", "operators", "auditors"]
tenant = "demo"

[[listener]]
bind = "unix:$home/run/sign.sock"
serves = ["sign"]
callers = ["unix"]

[[listener]]
bind = "unix:$home/run/admin.sock"
serves = ["admin"]
callers = ["unix"]

[[listener]]
bind = "127.0.0.1:$port"
serves = ["public", "sign", "ops"]
callers = ["bearer"]
TOML
}

demo_address() { sed -n 's/^bind = "\(127\.0\.0\.1:[0-9]*\)"$/\1/p' "$config" | head -n 1; }

# The pid of the daemon that `run` started: recorded, alive, and running our binary. Otherwise nothing and 1.
running_pid() {
  local pid program
  [ -s "$pid_file" ] || return 1
  pid=$(cat "$pid_file")
  case $pid in '' | *[!0-9]*) return 1 ;; esac
  kill -0 "$pid" 2>/dev/null || return 1
  if [ -e "/proc/$pid/exe" ] || [ -L "/proc/$pid/exe" ]; then
    program=$(readlink "/proc/$pid/exe" 2>/dev/null || true)
    program=${program% (deleted)} # the binary was built anew since
  else
    program=$(ps -p "$pid" -o comm= 2>/dev/null || true)
  fi
  [ "$program" = "$daemon" ] || return 1
  printf '%s\n' "$pid"
}

start() {
  local address pid log=$home/run/claviger.log waited=0 detach=nohup
  address=$(demo_address)
  [ -n "$address" ] || die 78 "$config has no listener on 127.0.0.1: remove it, and it is written anew"
  if curl -s -o /dev/null --max-time 2 "http://$address/livez"; then
    die 75 "something else answers on $address: stop it, or remove $config and use --port"
  fi
  # A session of its own, so that closing this terminal does not reach the daemon (SIGHUP would make it reload).
  if have setsid; then detach=setsid; fi
  "$detach" "$daemon" serve --config "$config" </dev/null >>"$log" 2>&1 &
  pid=$!
  printf '%s\n' "$pid" >"$pid_file"
  say "started the daemon (pid $pid, output in $log); waiting for its first key"
  while ! curl -sf -o /dev/null --max-time 2 "http://$address/readyz/sign"; do
    if ! kill -0 "$pid" 2>/dev/null; then
      tail -n 20 "$log" >&2; rm -f "$pid_file"
      die 70 "the daemon ended; its last lines are above"
    fi
    waited=$((waited + 1))
    if [ "$waited" -gt $((ready_within * 5)) ]; then
      curl -s --max-time 2 "http://$address/readyz/sign" >&2 || true
      die 75 "the daemon runs but cannot sign after $ready_within s (its answer is above, its output in $log)"
    fi
    sleep 0.2
  done
}

print_lines() {
  local address
  address=$(demo_address)
  cat <<LINES

A signed token:
  curl -sS -H "Authorization: Bearer \$(cat $home/demo-token)" -H 'Content-Type: application/json' \\
    -d '{"keyring":"access-tokens","claims":{"sub":"user-1","aud":"https://api.example.org","tenant":"demo"}}' http://$address/sign

The keys that verify it:
  curl -sS http://$address/.well-known/jwks.json

Watch the keys (a new one every three minutes):
  $daemon --socket $home/run/admin.sock keyring plan access-tokens

Verify the log (exit 0 means whole, legal and pinned; the next run remembers where this one stood):
  $root/target/release/claviger-audit verify $(dirname "$key_log") --trust $home/trust --head $home/heads/ --first-run --save-head $home/heads/ --rotation

Stop it:
  $root/softhsm-setup.sh stop
LINES
}

status() {
  local pid
  if ! pid=$(running_pid); then say "the demo daemon does not run"; exit 3; fi
  say "the demo daemon runs (pid $pid)"
  curl -s --max-time 2 "http://$(demo_address)/readyz/sign" || true
  print_lines
}

stop() {
  local pid waited=0
  if ! pid=$(running_pid); then say "the demo daemon does not run"; rm -f "$pid_file"; return; fi
  if $dry_run; then say "would stop pid $pid"; return; fi
  kill -TERM "$pid"
  while kill -0 "$pid" 2>/dev/null; do
    waited=$((waited + 1))
    if [ "$waited" -gt $((stop_within * 5)) ]; then die 75 "pid $pid still drains after $stop_within s; look at $home/run/claviger.log"; fi
    sleep 0.2
  done
  rm -f "$pid_file"
  say "stopped pid $pid"
}

main "$@"
