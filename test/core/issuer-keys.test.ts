// Signatures of tokens, against the key sets that issuers really publish: rotated keys, several keys of one id, and every
// accepted algorithm.
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { type JWK, SignJWT, exportJWK, generateKeyPair } from "jose";
import { expect, test } from "vitest";
import { verifyToken } from "../../src/identity/tokens/issuer-keys.ts";
import { acceptedAlgorithms } from "../../src/identity/tokens/issuers.ts";

interface SigningKey {
  jwk: JWK;
  sign(kid?: string): Promise<string>;
}

async function aKey(alg: string, kid: string): Promise<SigningKey> {
  const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true });
  return {
    jwk: { ...(await exportJWK(publicKey)), kid, alg, use: "sig" },
    sign: (named = kid) =>
      new SignJWT({ sub: "u1" })
        .setProtectedHeader({ alg, ...(named !== "" && { kid: named }) })
        .setExpirationTime("1h")
        .sign(privateKey),
  };
}

/** An issuer's key set at a URL of its own. */
async function publish(keys: JWK[]) {
  let fetches = 0;
  const server = createServer((_request, response) => {
    fetches += 1;
    response.setHeader("content-type", "application/json").end(JSON.stringify({ keys }));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/keys`;
  return {
    keys,
    fetches: () => fetches,
    verify: (token: string) => verifyToken(token, url, { algorithms: acceptedAlgorithms }),
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

test.each(acceptedAlgorithms)("a token signed with %s is accepted", async (alg) => {
  const key = await aKey(alg, "k1");
  await using issuer = await publish([key.jwk]);
  expect(await issuer.verify(await key.sign())).toMatchObject({ sub: "u1" });
});

test("each of several keys with one id is tried, and so is each key for a token that names none", async () => {
  const [first, second, other] = [await aKey("RS256", "k"), await aKey("RS256", "k"), await aKey("RS256", "k")];
  await using issuer = await publish([first.jwk, second.jwk]);
  for (const key of [first, second]) {
    expect(await issuer.verify(await key.sign())).toMatchObject({ sub: "u1" });
    expect(await issuer.verify(await key.sign(""))).toMatchObject({ sub: "u1" });
  }
  await expect(issuer.verify(await other.sign())).rejects.toThrow("signature verification failed");
});

test("a new key is accepted at once, also right after the set was fetched", async () => {
  const [old, renewed] = [await aKey("ES256", "k1"), await aKey("ES256", "k2")];
  await using issuer = await publish([old.jwk]);
  await issuer.verify(await old.sign());
  issuer.keys.splice(0, 1, renewed.jwk);
  const startedMs = performance.now();
  expect(await issuer.verify(await renewed.sign())).toMatchObject({ sub: "u1" });
  expect(performance.now() - startedMs).toBeLessThan(3_000);
});

test("made-up key ids fetch the set at most once a second", async () => {
  const key = await aKey("ES256", "k1");
  await using issuer = await publish([key.jwk]);
  await issuer.verify(await key.sign());
  const startedMs = performance.now();
  const forged = await Promise.all(Array.from({ length: 20 }, (_, index) => key.sign(`made-up-${index}`)));
  const outcomes = await Promise.allSettled(forged.map((token) => issuer.verify(token)));
  expect(outcomes.every(({ status }) => status === "rejected")).toBe(true);
  expect(issuer.fetches()).toBeLessThanOrEqual(2 + Math.ceil((performance.now() - startedMs) / 1_000));
});
