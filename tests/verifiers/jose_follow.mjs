#!/usr/bin/env node
// An independent verifier: reads {"token": "..."} lines, verifies each with panva/jose and its own remote JWKS, answers one line each.
//
// In scope: what a service that uses jose sees, its JWKS cache included. Out of scope: any code of Claviger's, and retries.
// Answers: {"ok":true,"kid":...,"claims":...} (with --jws "payload", base64url, instead of "claims"), or
// {"ok":false,"kid":...,"unknown_kid":...,"error":...}. At the end of the input the counters go to standard error;
// the exit code is 0 if every token was accepted, else 1.

import { webcrypto } from 'node:crypto';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';

// Standard error is for the counters: Node 18 would say there that its Ed25519 is experimental.
process.removeAllListeners('warning');

// Node 18 hides the Web Cryptography API, which jose uses, behind a flag. It must be there before jose is loaded.
globalThis.crypto ??= webcrypto;
const { base64url, compactVerify, createRemoteJWKSet, customFetch, decodeProtectedHeader, errors, jwtVerify } = await import('jose');

const args = readArguments();
let fetches = 0;
const keys = createRemoteJWKSet(new URL(args.jwks), {
  cacheMaxAge: 1000 * args.cacheSeconds,
  cooldownDuration: args.noRefetch ? Infinity : 1000 * args.cooldownSeconds,
  [customFetch]: (...request) => {
    fetches += 1;
    return fetch(...request);
  },
});

const counts = { tokens: 0, ok: 0, failed: 0, unknown_kid: 0 };
for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  if (line.trim() === '') continue;
  const answer = await judge(line);
  counts.tokens += 1;
  counts[answer.ok ? 'ok' : 'failed'] += 1;
  if (answer.unknown_kid) counts.unknown_kid += 1;
  process.stdout.write(JSON.stringify(answer) + '\n');
}
process.stderr.write(JSON.stringify({ verifier: 'jose', ...counts, fetches }) + '\n');
process.exitCode = counts.failed ? 1 : 0;

function readArguments() {
  const { values } = parseArgs({
    options: {
      jwks: { type: 'string' },
      algorithms: { type: 'string' },
      issuer: { type: 'string' },
      audience: { type: 'string' },
      'cache-seconds': { type: 'string', default: '600' }, // jose's default
      'cooldown-seconds': { type: 'string', default: '30' }, // jose's default
      'leeway-seconds': { type: 'string', default: '0' },
      'no-refetch': { type: 'boolean', default: false },
      jws: { type: 'boolean', default: false },
    },
  });
  const missing = ['jwks', 'algorithms', ...(values.jws ? [] : ['issuer', 'audience'])].filter((name) => values[name] === undefined);
  if (missing.length > 0) {
    process.stderr.write(`missing: ${missing.map((name) => `--${name}`).join(' ')}\n`);
    process.exit(2);
  }
  return {
    ...values,
    algorithms: values.algorithms.split(','),
    cacheSeconds: Number(values['cache-seconds']),
    cooldownSeconds: Number(values['cooldown-seconds']),
    leewaySeconds: Number(values['leeway-seconds']),
    noRefetch: values['no-refetch'],
  };
}

async function judge(line) {
  let kid = null;
  try {
    const { token } = JSON.parse(line);
    kid = decodeProtectedHeader(token).kid ?? null;
    if (args.jws) {
      const { payload } = await compactVerify(token, keys, { algorithms: args.algorithms });
      return { ok: true, kid, payload: base64url.encode(payload) };
    }
    const { payload } = await jwtVerify(token, keys, {
      algorithms: args.algorithms,
      issuer: args.issuer,
      audience: args.audience,
      clockTolerance: args.leewaySeconds,
      requiredClaims: ['exp', 'iat'],
    });
    return { ok: true, kid, claims: payload };
  } catch (error) {
    return { ok: false, kid, unknown_kid: error instanceof errors.JWKSNoMatchingKey, error: `${error.name}: ${error.message}` };
  }
}
