#!/bin/sh
# Verifies the key log of a Claviger in CI, with claviger-audit alone: copies the log, checks it against the trust file and against what
# the last run remembered, remembers the new head, and exits with the verdict. It starts no daemon and asks none for its opinion.
#
#   CLAVIGER_LOG         where the log is: a folder, or the address that a `log` listener serves (https://host/log/keys)
#   CLAVIGER_TRUST       the trust file: the `log` lines that `claviger init` printed, witnesses, a quorum
#   CLAVIGER_HEADS       where heads are remembered between runs                         (default: .claviger-heads)
#   CLAVIGER_FIRST_RUN   true on the very first run alone: there is nothing to compare with yet        (default: false)
#   CLAVIGER_MAX_AGE     how old the last covered record may be; the key log writes one at least hourly  (default: 2h)
#   CLAVIGER_JWKS        a file or address of a live key set, which must be the one that the log makes    (default: none)
#   CLAVIGER_JWKS_SET    which set that is: issuer/NAME or keyring/NAME                                   (default: any)
#   CLAVIGER_USES        true if CLAVIGER_LOG is a folder that holds the use logs too                    (default: false)
#   CLAVIGER_FORMAT      text, json or github                        (default: github where GITHUB_ACTIONS is set, else text)
#   CLAVIGER_COPY        where a served log is copied to                                        (default: .claviger-copy)
#
# Exit codes are those of `claviger-audit verify`: 0 verified, 10 tampered, 11 truncated, 12 forked, 13 unsigned, 14 stale, 15 a rule is
# broken, 16 nothing verified, 74 input or output. A missing head is 16, never a silent first run.
set -eu

log=${CLAVIGER_LOG:?set CLAVIGER_LOG to a folder or to the address of a served key log}
trust=${CLAVIGER_TRUST:?set CLAVIGER_TRUST to the trust file}
heads=${CLAVIGER_HEADS:-.claviger-heads}
copy=${CLAVIGER_COPY:-.claviger-copy}
if [ -n "${GITHUB_ACTIONS:-}" ]; then format=${CLAVIGER_FORMAT:-github}; else format=${CLAVIGER_FORMAT:-text}; fi

case $log in
  http://* | https://*)
    claviger-audit pull "$log" "$copy"
    log=$copy ;;
esac

set -- verify "$log" --trust "$trust" --head "$heads/" --save-head "$heads/" --max-age "${CLAVIGER_MAX_AGE:-2h}" --rotation --format "$format"
if [ "${CLAVIGER_FIRST_RUN:-false}" = true ]; then set -- "$@" --first-run; fi
if [ "${CLAVIGER_USES:-false}" != true ]; then set -- "$@" --keys-only; fi
if [ -n "${CLAVIGER_JWKS:-}" ]; then set -- "$@" --jwks "$CLAVIGER_JWKS"; fi
if [ -n "${CLAVIGER_JWKS_SET:-}" ]; then set -- "$@" --jwks-set "$CLAVIGER_JWKS_SET"; fi
if [ -n "${GITHUB_STEP_SUMMARY:-}" ]; then set -- "$@" --summary "$GITHUB_STEP_SUMMARY"; fi
exec claviger-audit "$@"
