#!/usr/bin/env bash
# Prepares Vault or OpenBao for one installation of Claviger: a transit engine, AppRole, the policy beside this file, a role, a secret id.
#
#   VAULT_ADDR=https://vault.example.org:8200 deploy/vault/setup.sh --token-file FILE --secret-id-file FILE [option...]
#
#   --token-file FILE       holds a token that may do this (an administrator's); or the token stands in VAULT_TOKEN
#   --secret-id-file FILE   where the secret id is written, readable by you alone; a file that is there is left alone
#   --installation NAME     as in Claviger's settings (prod); keys of other installations stay out of reach
#   --mount PATH            of the transit engine (transit)
#   --auth PATH             of the AppRole method (approle)
#   --role NAME             of the role, and of the policy (claviger-INSTALLATION)
#   --ca-file FILE          authorities to believe, in place of the system's; --namespace NAME
#
# May be repeated: what is there is left alone or set to the same values again; no key is touched. Needs bash and curl, no `vault`
# or `bao`. Tokens and secrets pass through no command line. Exit codes are those of sysexits.h: 64 a wrong call, 66 a file is missing,
# 69 the server does not answer, 77 it refuses, 78 what is there is not what is needed.
set -euo pipefail

here=$(cd -P "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here
address=${VAULT_ADDR:-}
token=${VAULT_TOKEN:-}
namespace='' ca_file='' token_file='' secret_id_file='' role=''
installation=prod mount=transit auth=approle
status='' answer=''

main() {
  arguments "$@"
  request GET sys/health
  case $status in
    200 | 429 | 473) ;;
    501) fail 78 "the server is not initialised; initialise and unseal it, then run this again" ;;
    503) fail 69 "the server is sealed; unseal it, then run this again" ;;
    *) fail 69 "sys/health answered $status; is this the address of a Vault or OpenBao?" ;;
  esac
  enable "sys/mounts/$mount" transit "the transit engine at $mount/"
  enable "sys/auth/$auth" approle "the AppRole method at auth/$auth/"
  write_policy
  write_role
  secret_id
  told
}

arguments() {
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) sed -n '2,/^set -e/{/^set -e/!s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}"; exit 0 ;;
      --token-file | --secret-id-file | --installation | --mount | --auth | --role | --ca-file | --namespace)
        [ $# -ge 2 ] || fail 64 "$1 needs a value; see --help"
        local name=${1#--}
        printf -v "${name//-/_}" '%s' "$2"
        shift
        ;;
      *) fail 64 "unknown argument $1; see --help" ;;
    esac
    shift
  done
  role=${role:-claviger-$installation}
  [ -n "$address" ] || fail 64 "set VAULT_ADDR to the server's address, such as https://vault.example.org:8200"
  # Anybody on the way could read an administrator's token.
  [[ $address =~ ^https:// || $address =~ ^http://(127\.|localhost[:/]|localhost$|\[::1\]) ]] ||
    fail 64 "VAULT_ADDR is plain HTTP and leaves this machine; write https://"
  [ -n "$secret_id_file" ] || fail 64 "say with --secret-id-file where the secret id is to be written"
  [[ $installation =~ ^[a-z][a-z0-9-]{0,23}$ ]] || fail 64 "--installation: write 1 to 24 of a-z, 0-9 and -, beginning with a letter"
  local path
  for path in "$mount" "$auth" "$role"; do
    [[ $path =~ ^[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*$ ]] || fail 64 "'$path' is not a path of letters, digits, _, . and -"
  done
  if [ -n "$token_file" ]; then
    [ -r "$token_file" ] || fail 66 "$token_file cannot be read"
    token=$(<"$token_file")
  fi
  [ -n "$token" ] || fail 64 "name an administrator's token with --token-file, or put it into VAULT_TOKEN"
}

# request METHOD PATH [JSON]: sets `status` and `answer`. The token goes to curl through its standard input.
request() {
  local options=(--silent --show-error --max-time 30 --request "$1" --write-out '\n%{http_code}' --config -)
  [ -z "$ca_file" ] || options+=(--cacert "$ca_file")
  # The root namespace alone has this path; any other answers it with an error.
  [ -z "$namespace" ] || [ "$2" = sys/health ] || options+=(--header "X-Vault-Namespace: $namespace")
  [ $# -lt 3 ] || options+=(--header 'Content-Type: application/json' --data-binary "$3")
  local output
  output=$(printf 'header = "X-Vault-Token: %s"\n' "$token" | curl "${options[@]}" "${address%/}/v1/$2") ||
    fail 69 "no answer from $address; check VAULT_ADDR, and --ca-file if its authority is not the system's"
  status=${output##*$'\n'}
  answer=${output%$'\n'*}
}

# must METHOD PATH [JSON]: as `request`, and ends with what to do unless it succeeded.
must() {
  request "$@"
  case $status in
    2*) ;;
    403) fail 77 "$1 $2 is not permitted to this token; use one that may administer mounts, auth methods and policies" ;;
    *) fail 78 "$1 $2 answered $status: $answer" ;;
  esac
}

# enable PATH TYPE WHAT: mounts it, unless it is there.
enable() {
  request POST "$1" "{\"type\":\"$2\"}"
  case $status in
    2*) say "enabled $3" ;;
    400)
      [[ $answer == *'already in use'* ]] || fail 78 "POST $1 answered 400: $answer"
      must GET "$1"
      [[ $answer == *"\"type\":\"$2\""* ]] || fail 78 "something else than $2 is mounted there; name another path than $1"
      say "found $3"
      ;;
    403) fail 77 "POST $1 is not permitted to this token; use one that may administer mounts, auth methods and policies" ;;
    *) fail 78 "POST $1 answered $status: $answer" ;;
  esac
}

# The policy beside this script, for this engine and this installation.
write_policy() {
  [ -r "$here/claviger.hcl" ] || fail 66 "claviger.hcl is not beside this script"
  local policy
  policy=$(sed -e "s|^path \"transit/|path \"$mount/|" -e "s|/prod\\.\\*\"|/$installation.*\"|" "$here/claviger.hcl")
  policy=${policy//\\/\\\\}
  policy=${policy//\"/\\\"}
  policy=${policy//$'\n'/\\n}
  must PUT "sys/policies/acl/$role" "{\"policy\":\"$policy\"}"
  say "wrote policy $role"
}

# A token lives an hour and is renewed for a day; then Claviger logs in again. It has this policy alone.
write_role() {
  must POST "auth/$auth/role/$role" "{\"token_policies\":[\"$role\"],\"token_no_default_policy\":true,\"token_ttl\":\"1h\",\"token_max_ttl\":\"24h\",\"token_type\":\"service\",\"bind_secret_id\":true}"
  say "wrote role $role"
}

secret_id() {
  if [ -e "$secret_id_file" ]; then
    say "left $secret_id_file alone; remove it, and the next run writes a new secret id (Claviger takes it up at its next login)"
    return
  fi
  must POST "auth/$auth/role/$role/secret-id"
  local value
  value=$(field secret_id)
  [ -n "$value" ] || fail 78 "the server gave no secret id"
  (umask 077 && printf '%s\n' "$value" >"$secret_id_file") || fail 66 "$secret_id_file cannot be written"
  chmod 0400 "$secret_id_file"
  say "wrote a secret id to $secret_id_file"
}

# field NAME: a string out of the last answer. Neither names nor ids hold quotes.
field() { sed -n "s/.*\"$1\":\"\\([^\"]*\\)\".*/\\1/p" <<<"$answer"; }

told() {
  must GET "auth/$auth/role/$role/role-id"
  local role_id
  role_id=$(field role_id)
  say "write this into claviger.toml, let Claviger's user alone read the secret id, and run \`claviger doctor\`:"
  printf '\n[keystore.vault]\ntype = "vault"\naddress = "%s"\nmount = "%s"\n' "${address%/}" "$mount"
  [ -z "$namespace" ] || printf 'namespace = "%s"\n' "$namespace"
  [ -z "$ca_file" ] || printf 'ca_file = "%s"\n' "$ca_file"
  local mounted=''
  [ "$auth" = approle ] || mounted=", mount = \"$auth\""
  printf 'login = { type = "approle", role_id = "%s", secret_id_file = "%s"%s }\n' "$role_id" "$secret_id_file" "$mounted"
}

say() { printf '==> %s\n' "$*" >&2; }
fail() {
  local code=$1
  shift
  printf 'setup.sh: %s\n' "$*" >&2
  exit "$code"
}

main "$@"
