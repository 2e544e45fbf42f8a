#!/usr/bin/env python3
"""An independent verifier: reads {"token": "..."} lines, verifies each with PyJWT and its own caching JWKS client, answers one line each.

In scope: what a service that uses PyJWT sees, its JWKS cache included. Out of scope: any code of Claviger's, and retries.
Answers: {"ok": true, "kid": ..., "claims": ...} (with --jws "payload", base64url, instead of "claims"), or
{"ok": false, "kid": ..., "unknown_kid": ..., "error": ...}. At the end of the input the counters go to standard error;
the exit code is 0 if every token was accepted, else 1.
"""

import argparse
import base64
import json
import sys

import jwt
from jwt.exceptions import PyJWKClientError, PyJWTError

NEVER = 10.0**9  # seconds: PyJWT wants a finite cooldown


class CountingClient(jwt.PyJWKClient):
    """PyJWT's client, unchanged but for a count of its requests."""

    fetches = 0

    def fetch_data(self):
        self.fetches += 1
        return super().fetch_data()


def main() -> int:
    args = arguments()
    cooldown = NEVER if args.no_refetch else args.cooldown_seconds
    client = CountingClient(args.jwks, cache_jwk_set=True, lifespan=args.cache_seconds, cooldown_duration=cooldown, timeout=10)
    counts = {"tokens": 0, "ok": 0, "failed": 0, "unknown_kid": 0}
    for line in sys.stdin:
        if not line.strip():
            continue
        answer = judge(client, args, line)
        counts["tokens"] += 1
        counts["ok" if answer["ok"] else "failed"] += 1
        counts["unknown_kid"] += bool(answer.get("unknown_kid"))
        print(json.dumps(answer), flush=True)
    print(json.dumps({"verifier": "PyJWT", "version": jwt.__version__, **counts, "fetches": client.fetches}), file=sys.stderr, flush=True)
    return 1 if counts["failed"] else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jwks", required=True, metavar="URL")
    parser.add_argument("--algorithms", required=True, type=lambda text: text.split(","), metavar="ES256,...")
    parser.add_argument("--issuer", help="required unless --jws")
    parser.add_argument("--audience", help="required unless --jws")
    parser.add_argument("--cache-seconds", type=float, default=300.0, help="life of the cached set; PyJWT's default")
    parser.add_argument("--cooldown-seconds", type=float, default=30.0, help="rest between fetches for an unknown kid; PyJWT's default")
    parser.add_argument("--leeway-seconds", type=float, default=0.0)
    parser.add_argument("--no-refetch", action="store_true", help="an unknown kid fetches nothing: only an expired cache does")
    parser.add_argument("--jws", action="store_true", help="the payload is bytes, not claims")
    args = parser.parse_args()
    if not args.jws and (args.issuer is None or args.audience is None):
        parser.error("--issuer and --audience are required without --jws")
    return args


def judge(client: CountingClient, args: argparse.Namespace, line: str) -> dict:
    kid = None
    try:
        token = json.loads(line)["token"]
        kid = jwt.get_unverified_header(token).get("kid")
        key = client.get_signing_key(kid)
    except PyJWKClientError as error:
        unknown = str(error).startswith("Unable to find a signing key")
        return {"ok": False, "kid": kid, "unknown_kid": unknown, "error": describe(error)}
    except (PyJWTError, ValueError, KeyError, TypeError) as error:
        return {"ok": False, "kid": kid, "unknown_kid": False, "error": describe(error)}
    try:
        if args.jws:
            payload = jwt.PyJWS().decode(token, key, algorithms=args.algorithms)
            return {"ok": True, "kid": kid, "payload": base64.urlsafe_b64encode(payload).rstrip(b"=").decode()}
        claims = jwt.decode(
            token, key, algorithms=args.algorithms, issuer=args.issuer, audience=args.audience, leeway=args.leeway_seconds,
            options={"require": ["exp", "iat", "iss", "aud"]},
        )
        return {"ok": True, "kid": kid, "claims": claims}
    except PyJWTError as error:
        return {"ok": False, "kid": kid, "unknown_kid": False, "error": describe(error)}


def describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    sys.exit(main())
