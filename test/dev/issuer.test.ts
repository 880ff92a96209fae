import { createRemoteJWKSet, decodeJwt, decodeProtectedHeader, jwtVerify } from "jose";
import { mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import * as z from "zod";
import { type Issuer, startIssuer } from "../../dev/issuer/issuer.ts";

const TokenAnswer = z.object({ access_token: z.string(), token_type: z.literal("Bearer"), expires_in: z.number() });
const audience = "http://127.0.0.1:8787/mcp";

let folder: string;
let issuer: Issuer;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "tollgate-issuer-test-"));
  issuer = await startIssuer({ port: 0, keyFile: join(folder, "key.json"), audience });
});

afterEach(async () => {
  await issuer.close();
  await rm(folder, { recursive: true, force: true });
});

async function request(body: string): Promise<Response> {
  return await fetch(issuer.tokenUrl, { method: "POST", body });
}

test("a token requested without claims verifies against the published key and has every default", async () => {
  const nowS = Math.floor(Date.now() / 1_000);
  const answer = TokenAnswer.parse(await (await request("{}")).json());
  const { payload, protectedHeader } = await jwtVerify(
    answer.access_token,
    createRemoteJWKSet(new URL(issuer.jwksUrl)),
    { issuer: issuer.url, audience, algorithms: ["RS256"] },
  );
  expect(payload).toEqual({
    iss: issuer.url,
    aud: audience,
    sub: "user",
    iat: expect.closeTo(nowS, -1),
    exp: Number(payload.iat) + 3_600,
  });
  expect(answer.expires_in).toBe(3_600);
  const { keys } = z
    .object({ keys: z.array(z.record(z.string(), z.string())) })
    .parse(await (await fetch(issuer.jwksUrl)).json());
  expect(keys.map(({ kid }) => kid)).toEqual([protectedHeader.kid]);
  expect(Object.keys(keys[0] ?? {}).toSorted(), "nothing private").toEqual(["alg", "e", "kid", "kty", "n", "use"]);
});

test("discovery leads from the issuer's url to its key and its token endpoint", async () => {
  const discovery = await (await fetch(`${issuer.url}/.well-known/openid-configuration`)).json();
  expect(discovery).toMatchObject({ issuer: issuer.url, jwks_uri: issuer.jwksUrl, token_endpoint: issuer.tokenUrl });
});

test.each([
  [{ tenant: "t1" }, { tenant_id: "t1" }],
  [{ tenant_id: "t1" }, { tenant_id: "t1" }],
  [{ org_id: "o1" }, { tenant_id: "o1", org_id: "o1" }],
  [
    { tenant_id: "t1", org_id: "o1" },
    { tenant_id: "t1", org_id: "o1" },
  ],
  [{ user: "ann" }, { sub: "ann" }],
  [{ sub: "ann" }, { sub: "ann" }],
  [{ scopes: ["tools:read", "tools:write"] }, { scope: "tools:read tools:write" }],
  [{ scope: "tools:read" }, { scope: "tools:read" }],
  [{ expiry: 2_000_000_000 }, { exp: 2_000_000_000 }],
  [{ exp: 2_000_000_000 }, { exp: 2_000_000_000 }],
  [
    { aud: "other", iss: "http://other", role: { any: ["thing"] } },
    { aud: "other", iss: "http://other", role: { any: ["thing"] } },
  ],
])("%j is signed as %j", async (asked, signed) => {
  expect(decodeJwt(await issuer.sign(asked))).toMatchObject(signed);
});

test("the issuer signs an already expired token on request", async () => {
  const { iat, exp } = decodeJwt(await issuer.sign({ expiresIn: -60 }));
  expect(Number(exp) - Number(iat)).toBe(-60);
});

test("the issuer answers a malformed request with the reason", async () => {
  for (const body of ["{", "", "[]", '"text"', '{"scopes":"no list"}', '{"expiresIn":"soon"}', '{"tenant":1}']) {
    const response = await request(body);
    expect([body, response.status]).toEqual([body, 400]);
    expect(await response.json()).toEqual({ error: "invalid_request", error_description: expect.any(String) });
  }
  expect((await request(JSON.stringify({ pad: "x".repeat(100_000) }))).status).toBe(413);
  expect((await fetch(`${issuer.url}/no-such-page`)).status).toBe(404);
});

test("tokens stay valid across a restart, and only the owner can read the key file", async () => {
  const token = await issuer.sign({ tenant: "t1" });
  const { kid } = decodeProtectedHeader(token);
  const port = Number(new URL(issuer.url).port);
  await issuer.close();
  issuer = await startIssuer({ port, keyFile: join(folder, "key.json"), audience });
  const keys = createRemoteJWKSet(new URL(issuer.jwksUrl));
  expect((await jwtVerify(token, keys, { issuer: issuer.url })).protectedHeader.kid).toBe(kid);
  expect((await stat(join(folder, "key.json"))).mode & 0o777).toBe(0o600);
});

test("the issuer fails to start with an invalid key file or a taken port", async () => {
  await writeFile(join(folder, "broken.json"), "{}");
  await expect(startIssuer({ port: 0, keyFile: join(folder, "broken.json"), audience })).rejects.toBeDefined();
  const port = Number(new URL(issuer.url).port);
  await expect(startIssuer({ port, keyFile: join(folder, "key.json"), audience })).rejects.toMatchObject({
    code: "EADDRINUSE",
  });
});
