#!/usr/bin/env node
// An independent verifier of detached signatures: reads {"token": "header..signature", "payload": base64url} lines, verifies each with
// panva/jose and its own remote JWKS, answers one line each.
//
// In scope: RFC 7515 appendix F and, where the header says so, RFC 7797 (`b64` false). Out of scope: tokens that carry their payload
// (jose_follow.mjs), any code of Claviger's, and retries. Answers: {"ok":true,"kid":...,"b64":...} or {"ok":false,"error":...}.

import { webcrypto } from 'node:crypto';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';

process.removeAllListeners('warning');
globalThis.crypto ??= webcrypto;
const { base64url, createRemoteJWKSet, flattenedVerify } = await import('jose');

const { values: args } = parseArgs({ options: { jwks: { type: 'string' }, algorithms: { type: 'string' } } });
const keys = createRemoteJWKSet(new URL(args.jwks));

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  process.stdout.write(JSON.stringify(await judge(JSON.parse(line))) + '\n');
}

async function judge({ token, payload }) {
  const [header, nothing, signature] = token.split('.');
  if (nothing !== '') return { ok: false, error: 'the payload is not detached' };
  const { kid, b64 = true } = JSON.parse(new TextDecoder().decode(base64url.decode(header)));
  try {
    // With `b64` false the payload is the bytes themselves, else their base64url text.
    const jws = { protected: header, payload: b64 ? payload : base64url.decode(payload), signature };
    await flattenedVerify(jws, keys, { algorithms: args.algorithms.split(',') });
    return { ok: true, kid, b64 };
  } catch (error) {
    return { ok: false, kid, error: `${error.name}: ${error.message}` };
  }
}
