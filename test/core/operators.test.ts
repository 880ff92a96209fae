// Who is an operator, and with which role. Tokens are real JWTs of an issuer whose keys this test serves.
import fc from "fast-check";
import { SignJWT, exportJWK, generateKeyPair } from "jose";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { hasRole, operatorRoles, permissionsOfImpersonator, permissionsOfRole } from "../../src/core/actor.ts";
import {
  type OperatorEnv,
  identifyOperator,
  parseOperatorSettings,
  roleOf,
} from "../../src/identity/operators/operators.ts";

const ISSUER = "https://people.operator.example";
const TEAM = "https://acme.cloudflareaccess.com";
const AUD = "4714c1358e65fe4b408ad6d432a5f878f08194bdb4752441fd56faefa9b2b6f2";
const PUBLIC_URL = "https://tollgate.example";
const AUDIENCE = `${PUBLIC_URL}/admin/api`;
const nowMs = Date.now();

const env: OperatorEnv = {
  PUBLIC_URL,
  OPERATOR_TOKEN: "the-token, the-older-token",
  OPERATOR_ISSUER: JSON.stringify({ issuer: ISSUER, jwksUrl: `${ISSUER}/keys` }),
  OPERATOR_ACCESS: JSON.stringify({ team: `${TEAM}/`, audience: AUD, roles: { "Ada@Example.com": "admin" } }),
  OPERATOR_TOKEN_USE: "break-glass",
};

type Keys = Awaited<ReturnType<typeof generateKeyPair>>;
const keys = new Map<string, Keys>();
const keysOf = (name: string): Keys => {
  const found = keys.get(name);
  if (found === undefined) throw new Error(`no keys of ${name}`);
  return found;
};
let served = 0;
beforeAll(async () => {
  for (const name of [ISSUER, TEAM, "another"]) keys.set(name, await generateKeyPair("RS256"));
  vi.spyOn(globalThis, "fetch").mockImplementation(async (input) => {
    served += 1;
    const url = String(input instanceof Request ? input.url : input);
    const known = { [`${ISSUER}/keys`]: ISSUER, [`${TEAM}/cdn-cgi/access/certs`]: TEAM }[url];
    if (known === undefined) return new Response("", { status: 500 });
    return Response.json({ keys: [{ ...(await exportJWK(keysOf(known).publicKey)), kid: known, alg: "RS256" }] });
  });
});
afterAll(() => vi.restoreAllMocks());

function sign(claims: Record<string, unknown>, by = ISSUER, kid = by): Promise<string> {
  const all = { iss: by, exp: Math.floor(nowMs / 1_000) + 60, ...claims };
  return new SignJWT(all).setProtectedHeader({ alg: "RS256", kid }).sign(keysOf(by).privateKey);
}
const aPerson = (claims: Record<string, unknown> = {}): Record<string, unknown> => ({
  ...{ sub: "ada", name: "Ada", aud: AUDIENCE, scope: "openid admin:global", roles: ["support"] },
  ...claims,
});
const anAssertion = (claims: Record<string, unknown> = {}): Record<string, unknown> => ({
  ...{ sub: "7335d417", aud: [AUD], type: "app", email: "ada@example.com" },
  ...claims,
});
const withBearer = async (token: string | Promise<string>, over: Partial<OperatorEnv> = {}, atMs = nowMs) =>
  identifyOperator({ authorization: `Bearer ${await token}`, assertion: undefined }, { ...env, ...over }, atMs);
const withAccess = async (token: string | Promise<string>, over: Partial<OperatorEnv> = {}) =>
  identifyOperator({ authorization: undefined, assertion: await token }, { ...env, ...over }, nowMs);

test("a person of the operator issuer is an operator with the highest role that a claim names", async () => {
  expect(await withBearer(sign(aPerson()))).toEqual({
    operator: { kind: "operator", id: "ada", name: "Ada", role: "support", through: "oidc" },
  });
  for (const [roles, role] of [
    ["viewer", "viewer"],
    ["viewer admin", "admin"],
    [["Viewer", "SUPPORT"], "support"],
  ])
    expect(await withBearer(sign(aPerson({ roles })))).toMatchObject({ operator: { role } });
  const permissions = ["admin:global"];
  expect(await withBearer(sign(aPerson({ scope: undefined, permissions, name: undefined })))).toMatchObject({
    operator: { id: "ada", name: "ada" },
  });
});

const second = 1_000;
const refusals: [what: string, claims: Record<string, unknown>, code: string][] = [
  ["without the scope", { scope: "openid tools:read" }, "scope_missing"],
  ["whose scope only begins in the same way", { scope: "admin:globals" }, "scope_missing"],
  ["without a role", { roles: undefined }, "role_missing"],
  ["with roles that mean nothing here", { roles: ["owner", "administrator"] }, "role_missing"],
  ["with a role that is no text", { roles: { admin: true } }, "role_missing"],
  ["for the MCP endpoint", { aud: `${PUBLIC_URL}/mcp` }, "token_invalid"],
  ["for nothing", { aud: undefined }, "token_invalid"],
  ["of an audience with a slash", { aud: `${AUDIENCE}/` }, "token_invalid"],
  ["without a subject", { sub: undefined }, "token_invalid"],
  ["with a subject that cannot be stored", { sub: "a\0b" }, "token_invalid"],
  ["that has expired", { exp: Math.floor(nowMs / second) - 10 }, "token_expired"],
  ["that is not valid yet", { nbf: Math.floor(nowMs / second) + 60 }, "token_invalid"],
  ["without an expiry", { exp: undefined }, "token_invalid"],
];
test.each(refusals)("a token %s is refused", async (_, claims, code) => {
  expect(await withBearer(sign(aPerson(claims)))).toMatchObject({ refused: code });
});

test("a token of another issuer, of another key, or without a signature is refused", async () => {
  const forged = await sign(aPerson({ iss: ISSUER }), "another", ISSUER);
  const unsigned = `${btoa('{"alg":"none"}')}.${btoa(JSON.stringify(aPerson({ iss: ISSUER, exp: 9e9 })))}.`;
  // The issuer's public key is no secret: it must not serve as one.
  const secret = new TextEncoder().encode(JSON.stringify(await exportJWK(keysOf(ISSUER).publicKey)));
  const confused = await new SignJWT(aPerson({ iss: ISSUER, exp: 9e9 }))
    .setProtectedHeader({ alg: "HS256", kid: ISSUER })
    .sign(secret);
  const foreign = await sign(aPerson(), "another");
  const ofAccess = await sign(anAssertion({ scope: "admin:global", roles: ["admin"] }), TEAM);
  for (const token of [forged, unsigned, confused, foreign, ofAccess, "x".repeat(40_000), "made.up.token", "made-up"])
    expect(await withBearer(token), token.slice(0, 40)).toMatchObject({ refused: "token_invalid" });
  // A deployment without the setting has no such people.
  expect(await withBearer(sign(aPerson()), { OPERATOR_ISSUER: "" })).toMatchObject({ refused: "token_invalid" });
});

test("a person whom Cloudflare Access let through is an operator with the role of their address or group", async () => {
  expect(await withAccess(sign(anAssertion(), TEAM))).toEqual({
    operator: { kind: "operator", id: "7335d417", name: "ada@example.com", role: "admin", through: "access" },
  });
  const groups = { team: TEAM, audience: AUD, rolesClaim: "custom.groups", roles: { "ops-readers": "viewer" } };
  const OPERATOR_ACCESS = JSON.stringify(groups);
  const ofGroup = sign(anAssertion({ email: "bo@example.com", custom: { groups: ["all", "ops-readers"] } }), TEAM);
  expect(await withAccess(ofGroup, { OPERATOR_ACCESS })).toMatchObject({ operator: { role: "viewer" } });
  for (const [claims, code] of [
    [{ email: "eve@example.com" }, "role_missing"],
    [{ email: undefined, common_name: "a-service", sub: "" }, "token_invalid"], // a service token
    [{ type: "org" }, "token_invalid"],
    [{ aud: ["another-application"] }, "token_invalid"],
    [{ iss: "https://evil.cloudflareaccess.com" }, "token_invalid"],
  ] as const)
    expect(await withAccess(sign(anAssertion(claims), TEAM)), JSON.stringify(claims)).toMatchObject({ refused: code });
  expect(await withAccess(sign(anAssertion(), TEAM), { OPERATOR_ACCESS: "" })).toEqual({ refused: "token_missing" });
  // A bearer token decides before Access, so that a refused one is not passed by unseen.
  const both = { authorization: "Bearer made-up", assertion: await sign(anAssertion(), TEAM) };
  expect(await identifyOperator(both, env, nowMs)).toEqual({ refused: "token_invalid" });
});

test("the operator token works unless it is switched off or absent, also while another setting is malformed", async () => {
  for (const token of ["the-token", "the-older-token"])
    expect(await withBearer(token, { OPERATOR_ISSUER: "{" })).toMatchObject({ operator: { through: "token" } });
  expect(await withBearer("the-token", { OPERATOR_TOKEN_USE: "off" })).toEqual({ refused: "token_invalid" });
  for (const OPERATOR_TOKEN of ["", undefined])
    for (const token of ["the-token", "undefined", "null"])
      expect(await withBearer(token, { OPERATOR_TOKEN })).toEqual({ refused: "token_invalid" });
  await expect(withBearer("a.b.c", { OPERATOR_ISSUER: "{" })).rejects.toThrow("malformed");
});

test("a verified token is asked about once a minute, and never works after its end", async () => {
  const token = await sign(aPerson({ sub: "cached", exp: Math.floor(nowMs / 1_000) + 30 }));
  expect(await withBearer(token)).toMatchObject({ operator: { id: "cached" } });
  const before = served;
  expect(await withBearer(token, {}, nowMs + 20_000)).toMatchObject({ operator: { id: "cached" } });
  expect(served).toBe(before);
  expect(await withBearer(token, {}, nowMs + 36_000)).toMatchObject({ refused: "token_expired" });
});

test("settings that are malformed are refused, and nothing is granted by default", () => {
  const issuer = { issuer: ISSUER, jwksUrl: `${ISSUER}/keys` };
  for (const text of [
    "[]",
    "x",
    JSON.stringify({ ...issuer, roles: { a: "owner" } }),
    JSON.stringify({ ...issuer, role: 1 }),
  ])
    expect(() => parseOperatorSettings({ OPERATOR_ISSUER: text }), text).toThrow();
  for (const text of ["{}", JSON.stringify({ team: TEAM, audience: AUD })])
    expect(() => parseOperatorSettings({ OPERATOR_ACCESS: text }), text).toThrow();
  expect(() => parseOperatorSettings({ OPERATOR_TOKEN_USE: "sometimes" })).toThrow();
  expect(parseOperatorSettings({})).toEqual({ issuer: undefined, access: undefined, tokenUse: "break-glass" });
});

test("no claims give a role that the settings do not map them to", () => {
  const value = fc.oneof(
    fc.string(),
    fc.constantFrom("viewer", "Support", "ADMIN", "admin support"),
    fc.integer(),
    fc.constant(null),
  );
  const claims = fc.record({ roles: fc.oneof(value, fc.array(value)) }, { requiredKeys: [] });
  const source = fc.record({
    rolesClaim: fc.constant("roles"),
    roles: fc.dictionary(fc.constantFrom("viewer", "support", "admin", "x"), fc.constantFrom(...operatorRoles)),
    defaultRole: fc.option(fc.constantFrom(...operatorRoles), { nil: undefined }),
  });
  fc.assert(
    fc.property(claims, source, (held, from) => {
      const role = roleOf(held, from);
      if (held.roles === undefined) expect(role).toBe(from.defaultRole);
      const words = JSON.stringify(held.roles ?? "").toLowerCase();
      const possible = Object.entries(from.roles).flatMap(([name, each]) => (words.includes(name) ? [each] : []));
      if (role !== undefined && held.roles !== undefined) expect(possible).toContain(role);
    }),
  );
});

test("each role has the rights of those before it, and an impersonator fewer than an admin", () => {
  const rights = operatorRoles.map((role) => operatorRoles.filter((needed) => hasRole(role, needed)));
  expect(rights).toEqual([["viewer"], ["viewer", "support"], ["viewer", "support", "admin"]]);
  for (const permission of ["keys:manage", "members:manage", "account:remove", "tools:use"] as const)
    expect(permissionsOfImpersonator).not.toContain(permission);
  for (const permission of permissionsOfImpersonator) expect(permissionsOfRole.admin).toContain(permission);
});
