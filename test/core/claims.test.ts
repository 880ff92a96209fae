// Claims of verified tokens, as Auth0, Cognito, Entra, Okta and other issuers write them.
import { expect, test } from "vitest";
import { claimAt, personOf, readClaims, readPerson } from "../../src/identity/tokens/claims.ts";
import { parseIssuers } from "../../src/identity/tokens/issuers.ts";

const AUDIENCE = "https://tollgate.example/mcp";
const exp = 2_000_000_000;

function anIssuer(settings: Readonly<Record<string, unknown>> = {}) {
  const whole = {
    issuer: "https://login.example",
    jwksUrl: "https://login.example/keys",
    tenantClaim: "org",
    ...settings,
  };
  const [issuer] = parseIssuers(JSON.stringify([whole]));
  if (issuer === undefined) throw new Error("no issuer");
  return issuer;
}
const read = (claims: Record<string, unknown>, settings: Record<string, unknown> = {}) =>
  readClaims({ aud: AUDIENCE, exp, sub: "u1", org: "acme", ...claims }, anIssuer(settings), AUDIENCE);

test("an Entra token gives its tenant, its object id as the user, and its scp and roles as scopes", () => {
  const claims = { tid: "t-1", oid: "o-1", sub: "pairwise", scp: "tools:read other", roles: ["tools:write"] };
  expect(read(claims, { tenantClaim: "tid" })).toMatchObject({
    organisation: "t-1",
    user: "o-1",
    scopes: ["tools:read", "other", "tools:write"],
  });
});

test("an Auth0 token gives its organisation and its scope and permissions as scopes", () => {
  const claims = { org_id: "org_1", scope: "openid tools:read", permissions: ["tools:read", "tools:write"] };
  expect(read(claims, { tenantClaim: "org_id" })).toMatchObject({
    organisation: "org_1",
    user: "u1",
    scopes: ["openid", "tools:read", "tools:write"],
  });
});

test("a Cognito access token without an audience is accepted from a listed client only", () => {
  const claims = { aud: undefined, token_use: "access", client_id: "c1", scope: `${AUDIENCE}/tools:read email` };
  expect(read(claims, { clientIds: ["c1"] })?.scopes).toEqual(["tools:read", "email"]);
  for (const [other, settings] of [
    [{}, {}],
    [{ client_id: "c2" }, { clientIds: ["c1"] }],
    [{ client_id: undefined }, { clientIds: ["c1"] }],
    [{ token_use: "id" }, { clientIds: ["c1"] }],
    [{ token_use: undefined }, { clientIds: ["c1"] }],
    // An audience that is there decides.
    [{ aud: "c1" }, { clientIds: ["c1"] }],
  ] as const)
    expect(read({ ...claims, ...other }, settings)).toBeUndefined();
});

test("Okta's list of scopes counts, and the prefix of another resource server does not", () => {
  expect(read({ scp: ["tools:read"] })?.scopes).toEqual(["tools:read"]);
  expect(read({ scope: "https://other.example/mcp/tools:write" })?.scopes).toEqual([
    "https://other.example/mcp/tools:write",
  ]);
});

test("only texts are scopes", () => {
  const claims = {
    permissions: ["tools:read", ["tools:write"], { toString: "tools:write" }, 7, null],
    roles: { a: 1 },
  };
  expect(read(claims)?.scopes).toEqual(["tools:read"]);
});

test("an audience of several is accepted when it names this server exactly", () => {
  expect(read({ aud: ["https://other.example", AUDIENCE] })).toBeDefined();
  for (const aud of [[], [[AUDIENCE]], `${AUDIENCE}/`, "", null, 7, { [AUDIENCE]: true }])
    expect(read({ aud }), JSON.stringify(aud)).toBeUndefined();
});

test("a missing or odd organisation, user or expiry is refused", () => {
  for (const claims of [
    { org: undefined },
    { org: "" },
    { org: 7 },
    { org: ["acme"] },
    { sub: undefined },
    { sub: "" },
    { org: "acme\0" },
    { org: "acme\ud800" },
    { sub: "u1\0" },
  ])
    expect(read(claims)).toBeUndefined();
  expect(read({ exp: "soon" })).toBeUndefined();
  // A setting that names another user claim makes that one needed.
  expect(read({}, { userClaim: "uid" })).toBeUndefined();
});

test("the tolerance for the issuer's clock is part of the expiry that every later check reads", () => {
  expect(read({})?.expiresAtMs).toBe((exp + 5) * 1_000);
});

test("a claim can stand within a claim, and a claim whose name has dots is found first", () => {
  expect(read({ organization: { id: "org_1" } }, { tenantClaim: "organization.id" })?.organisation).toBe("org_1");
  const name = "https://acme.example/org";
  expect(read({ [name]: "org_2" }, { tenantClaim: name })?.organisation).toBe("org_2");
  expect(claimAt({ "a.b": 1, a: { b: 2 } }, "a.b")).toBe(1);
  for (const [claims, path] of [
    [{}, "a.b"],
    [{ a: null }, "a.b"],
    [{ a: "text" }, "a.length"],
    [{}, "constructor.name"],
    [{ a: {} }, "a.constructor.name"],
  ] as const)
    expect(claimAt(claims, path), path).toBeUndefined();
});

test("a person has an identity without an organisation, and an address counts as verified only when the issuer says so", () => {
  const person = (claims: Record<string, unknown>, settings: Record<string, unknown> = {}) =>
    readPerson({ aud: AUDIENCE, exp, sub: "u1", ...claims }, anIssuer(settings), AUDIENCE);
  expect(person({ email: "Ada@Acme.example", email_verified: true, name: "Ada" })).toEqual({
    ...{ issuer: "https://login.example", subject: "u1", organisation: null },
    ...{ email: "ada@acme.example", emailVerified: true, name: "Ada" },
  });
  for (const verified of [undefined, false, "false", 0, null, {}, "yes"])
    expect(person({ email: "a@b.example", email_verified: verified })?.emailVerified, typeof verified).toBe(false);
  for (const verified of [true, "true", 1, "1"])
    expect(
      person({ tid: "t", oid: "o", email: "a@b.example", xms_edov: verified }, { tenantClaim: "tid" }),
    ).toMatchObject({
      ...{ subject: "o", organisation: "t", emailVerified: true },
    });
  for (const email of [undefined, "", "no address", 7, "a@b\u0000.example"])
    expect(person({ email, email_verified: true }), String(email)).toMatchObject({ email: null, emailVerified: false });
  for (const foreign of [{ aud: "https://other.example/mcp" }, { sub: undefined }, { sub: 7 }, { sub: "" }])
    expect(person(foreign)).toBeUndefined();
});

test.each<[string, Record<string, unknown>, Record<string, unknown>]>([
  [
    "a verified address in lower case",
    { email: "Ann@Acme.Example", email_verified: true },
    { email: "ann@acme.example", emailVerified: true },
  ],
  ["an address that a provider does not vouch for", { email: "a@b.c" }, { email: "a@b.c", emailVerified: false }],
  ["a vouching text, as Cognito writes it", { email: "a@b.c", email_verified: "true" }, { emailVerified: true }],
  ["any other vouching text", { email: "a@b.c", email_verified: "yes" }, { emailVerified: false }],
  ["a vouching without an address", { email_verified: true }, { email: null, emailVerified: false }],
  ["a text that is no address", { email: "a b@c", email_verified: true }, { email: null, emailVerified: false }],
  ["a list in place of a text", { email: ["a@b.c"], name: ["A"] }, { email: null, name: null }],
  ["a name without text", { name: "  " }, { name: null }],
  ["a long name", { name: "x".repeat(500) }, { name: "x".repeat(200) }],
  ["an organisation that is no text", { org: 7 }, { organisation: null }],
])("a person after a sign-in: %s", (_, claims, expected) => {
  expect(personOf({ sub: "u1", org: "acme", ...claims }, anIssuer())).toMatchObject({
    ...{ issuer: "https://login.example", subject: "u1", organisation: "acme" },
    ...expected,
  });
});

test("a person without the claim that names them is none, and Entra's are named by their object id", () => {
  expect(personOf({ org: "acme" }, anIssuer())).toBeUndefined();
  expect(personOf({ sub: "pairwise", oid: "o-1", tid: "t-1" }, anIssuer({ tenantClaim: "tid" }))).toMatchObject({
    ...{ subject: "o-1", organisation: "t-1" },
  });
});
