// How often a verified token of an organisation without a link costs a look into the database, and that a token of the OAuth
// server costs none.
import { SignJWT, exportJWK, generateKeyPair } from "jose";
import { expect, onTestFinished, test, vi } from "vitest";
import { createContext } from "../../src/control/context.ts";
import { mintCredential, sha256Hex } from "../../src/core/keys/credentials.ts";
import { TenantId } from "../../src/core/tenant/tenant.ts";
import { authenticate, forgetUnlinked } from "../../src/identity/tokens/authenticate.ts";

test("an organisation without a link costs one look into the database in 5 s, and none is in the way of its link", async () => {
  const issuer = "https://issuer.example";
  const { privateKey, publicKey } = await generateKeyPair("ES256");
  const keys = [{ ...(await exportJWK(publicKey)), kid: "k1", alg: "ES256", use: "sig" }];
  const nowMs = Date.now();
  const tokenOf = (organisation: string): Promise<string> =>
    new SignJWT({ sub: "u1", org: organisation, scope: "tools:read" })
      .setProtectedHeader({ alg: "ES256", kid: "k1" })
      .setIssuer(issuer)
      .setAudience("https://tollgate.example/mcp")
      .setExpirationTime(new Date(nowMs + 60_000))
      .sign(privateKey);
  let looks = 0;
  let rows: string[][] = [];
  const answer = async (input: unknown): Promise<Response> => {
    if (String(input instanceof Request ? input.url : input).startsWith(issuer)) return Response.json({ keys });
    looks += 1;
    const fields = [{ name: "tenant_id", dataTypeID: 25 }];
    return Response.json({ results: [{ fields, rows, command: "SELECT", rowCount: rows.length, rowAsArray: true }] });
  };
  const asked = vi.spyOn(globalThis, "fetch").mockImplementation(answer);
  onTestFinished(() => asked.mockRestore());
  const context = createContext({
    PUBLIC_URL: "https://tollgate.example",
    OIDC_ISSUERS: JSON.stringify([{ issuer, jwksUrl: `${issuer}/keys`, tenantClaim: "org" }]),
    CONTROL_DATABASE_URL: "postgres://service:secret@control.example/control",
    NEON_FETCH_ENDPOINT: "https://control.example/sql",
  } as unknown as Env);
  const send = async (organisation: string, afterMs: number) =>
    authenticate(`Bearer ${await tokenOf(organisation)}`, context, nowMs + afterMs);

  const unknown = { refused: "tenant_unknown" };
  for (const afterMs of [0, 1, 4_999]) expect(await send("a", afterMs)).toEqual(unknown);
  expect(looks).toBe(1);
  expect(await send("b", 4_999)).toEqual(unknown); // another organisation
  expect(looks).toBe(2);
  expect(await send("a", 5_000)).toEqual(unknown);
  expect(looks).toBe(3);

  // The operator links it and tries it at once.
  rows = [["acme"]];
  expect(await send("a", 5_001)).toEqual(unknown); // as in another isolate
  forgetUnlinked(issuer, "a");
  expect(await send("a", 5_002)).toMatchObject({ caller: { kind: "user", tenantId: "acme", organisation: "a" } });
  expect(looks).toBe(4);
});

test("a token of the OAuth server is accepted or refused by computation, and its secret is not passed on", async () => {
  const tenantId = TenantId.parse("acme");
  const asked = vi.spyOn(globalThis, "fetch");
  onTestFinished(() => asked.mockRestore());
  const context = createContext({
    ...{ PUBLIC_URL: "https://tollgate.example", CREDENTIAL_KEY: "root", OIDC_ISSUERS: "[]" },
  } as unknown as Env);
  const send = (token: string) => authenticate(`Bearer ${token}`, context, Date.now());
  const subject = await mintCredential("root", { kind: "grant", tenantId, fields: ["m1"] });
  const grantId = "g".repeat(16);
  const secret = "s".repeat(32);
  const token = `${subject}:${grantId}:${secret}`;
  const accepted = await send(token);
  expect(accepted).toMatchObject({
    caller: { kind: "grant", tenantId, memberId: "m1", subject, grantId, tokenHash: await sha256Hex(token) },
  });
  expect(JSON.stringify(accepted)).not.toContain(secret);
  const forger = await mintCredential("another root", { kind: "grant", tenantId, fields: ["m1"] });
  const key = await mintCredential("root", { kind: "key", tenantId, fields: ["m1", "c", "s"] });
  for (const text of [
    subject,
    `${subject}:`,
    `${subject}:${grantId}`,
    `${subject}:${grantId}:short`,
    `${forger}:${grantId}:${secret}`,
    `${key}:${grantId}:${secret}`,
    `${subject.replace("acme", "other")}:${grantId}:${secret}`,
    `${token}:x`,
  ])
    expect(await send(text), text).toEqual({ refused: "token_invalid" });
  expect(asked).not.toHaveBeenCalled();
});
