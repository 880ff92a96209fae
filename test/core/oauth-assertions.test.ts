// Tokens by ID-JAG assertions: the real library over the entries of tenants and registries, with issuers whose keys the test has. One
// line for each attack.
import { SignJWT, exportJWK, generateKeyPair } from "jose";
import { afterEach, beforeAll, beforeEach, expect, onTestFinished, test, vi } from "vitest";
import { TenantId } from "../../src/core/tenant/tenant.ts";
import { HOUR_MS } from "../../src/core/time.ts";
import { ASSERTION_GRANT, assertionPorts } from "../../src/identity/providers/id-jag.ts";
import { type AssertionPorts, answerRegistration, serverMetadata } from "../../src/identity/oauth/server.ts";
import type { Membership } from "../../src/identity/members/members-store.ts";
import { identityIssuer } from "../../src/identity/providers/providers.ts";
import type { StoredProvider } from "../../src/identity/providers/providers-store.ts";
import { PUBLIC_URL, errorOf, oauthObjects, presented, site } from "../support/oauth-objects.ts";

const acme = TenantId.parse("acme");
const other = TenantId.parse("other");
const ISSUER = "https://idp.acme.example";
const RESOURCE = `${PUBLIC_URL}/mcp`;
type Keys = Awaited<ReturnType<typeof generateKeyPair>>;

let signing: Keys;
let foreign: Keys;
let keySet: unknown;
/** How the issuer's keys answer. */
let keysAnswer: () => Promise<Response>;
beforeAll(async () => {
  [signing, foreign] = await Promise.all([generateKeyPair("ES256"), generateKeyPair("ES256")]);
  keySet = { keys: [{ ...(await exportJWK(signing.publicKey)), kid: "k1", alg: "ES256", use: "sig" }] };
});
beforeEach(() => {
  // Each test has a time of its own, so that the library reads the keys again.
  vi.useFakeTimers({ toFake: ["Date"], now: (startMs += 24 * HOUR_MS) });
  keysAnswer = () => Promise.resolve(Response.json(keySet));
  vi.spyOn(globalThis, "fetch").mockImplementation(() => keysAnswer());
});
let startMs = Date.UTC(2026, 10, 28);
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

function aProvider(tenantId: TenantId, overrides: Partial<StoredProvider> = {}): StoredProvider {
  return {
    ...{ id: `p-${tenantId}`, tenantId, kind: "oidc", issuer: ISSUER, jwksUrl: `${ISSUER}/keys`, clientId: "tollgate" },
    ...{
      clientSecret: null,
      subjectClaim: "sub",
      idJag: true,
      slug: tenantId,
      createdAt: "",
      updatedAt: "",
      domains: [],
    },
    ...overrides,
  };
}

interface World {
  providers?: StoredProvider[];
  /** Members by `provider id` and subject. */
  members?: { tenantId: TenantId; issuer: string; subject: string; role?: Membership["role"] }[];
  fails?: "providers" | "memberships";
}

const bound = (tenantId: TenantId, subject = "ada", role?: Membership["role"]) => ({
  ...{ tenantId, issuer: identityIssuer(tenantId, `p-${tenantId}`), subject },
  ...(role !== undefined && { role }),
});

function portsOf({ providers = [aProvider(acme)], members = [bound(acme)], fails }: World): AssertionPorts {
  return assertionPorts({
    providers: (issuer) =>
      fails === "providers"
        ? Promise.reject(new Error("the control database is away"))
        : Promise.resolve(providers.filter((each) => each.idJag && each.issuer === issuer)),
    memberships: ({ issuer, subject }) =>
      fails === "memberships"
        ? Promise.reject(new Error("the control database is away"))
        : Promise.resolve(
            members
              .filter((each) => each.issuer === issuer && each.subject === subject)
              .map(({ tenantId, role = "member" }) => ({
                ...{ tenantId, tenantName: tenantId, memberId: `m-${tenantId}`, role, email: null, name: null },
                ...{ tenantState: "active" as const, tenantColour: null },
              })),
          ),
  });
}

/** A client with a secret, in a deployment with these providers and members. */
async function aClient(world: World = {}) {
  const objects = oauthObjects({ assertions: portsOf(world) });
  const answer = await answerRegistration(
    site,
    JSON.stringify({ client_name: "An agent", redirect_uris: ["https://agent.example/cb"] }),
    objects.env(),
  );
  const { client_id: clientId, client_secret: secret } = JSON.parse(answer.body) as Record<string, string>;
  if (clientId === undefined || secret === undefined) throw new Error(answer.body);
  const exchange = (assertion: string, more: Record<string, string> = {}) =>
    objects.token({ grant_type: ASSERTION_GRANT, assertion, client_id: clientId, client_secret: secret, ...more });
  return { objects, clientId, exchange };
}

const nowS = (): number => Math.floor(Date.now() / 1_000);

/** An assertion for the client, with other claims, another header or another key. */
function anAssertion(
  clientId: string,
  claims: Record<string, unknown> = {},
  { header = {}, key = signing }: { header?: Record<string, unknown>; key?: Keys } = {},
): Promise<string> {
  const all = {
    ...{ iss: ISSUER, sub: "ada", aud: PUBLIC_URL, client_id: clientId, resource: RESOURCE, jti: crypto.randomUUID() },
    ...{ iat: nowS(), exp: nowS() + 300, scope: "tools:read", ...claims },
  };
  const present = Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
  return new SignJWT(present)
    .setProtectedHeader({ alg: "ES256", kid: "k1", typ: "oauth-id-jag+jwt", ...header })
    .sign(key.privateKey);
}

const base64 = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString("base64url");

test("a client gets a token for the member whom the organisation's provider names, in the tenant's own object", async () => {
  const { objects, clientId, exchange } = await aClient();
  const answer = await exchange(await anAssertion(clientId));
  expect(answer.status, answer.body).toBe(200);
  const { access_token: access, ...tokens } = JSON.parse(answer.body) as Record<string, string>;
  expect(tokens).toMatchObject({ scope: "tools:read", resource: RESOURCE, expires_in: 3_600 });
  expect(tokens).not.toHaveProperty("refresh_token");
  const { tenantId, ...token } = await presented(access ?? "");
  expect(tenantId).toBe(acme);
  expect(objects.tenant(acme).find(token)).toMatchObject({ clientId, scopes: ["tools:read"] });
  expect(await objects.tenant(acme).grants({ limit: 10 })).toMatchObject({
    grants: [{ memberId: "m-acme", clientId, clientName: "An agent", scopes: ["tools:read"] }],
  });
  // The tenant's admins end it as any other grant.
  await objects.tenant(acme).revoke({ memberIds: ["m-acme"] });
  expect(objects.tenant(acme).find(token)).toBeUndefined();
});

test("without scopes a client gets what the role may do, and never more than that", async () => {
  const { clientId, exchange } = await aClient();
  const scopes = async (claims: Record<string, unknown>, more: Record<string, string> = {}): Promise<unknown> =>
    (JSON.parse((await exchange(await anAssertion(clientId, claims), more)).body) as { scope?: string }).scope;
  const all = String(await scopes({ scope: undefined })).split(" ");
  expect(all).toContain("tools:read");
  expect(all.length).toBeGreaterThan(1);
  expect(await scopes({ scope: "tools:read admin:global" })).toBe("tools:read");
  expect(await scopes({ scope: undefined }, { scope: "tools:read admin:global" })).toBe("tools:read");
  expect(await scopes({ scope: "tools:read" }, { scope: all.join(" ") })).toBe("tools:read");
});

test("the subject is the claim that names the provider's people", async () => {
  const entra = aProvider(acme, { kind: "entra", subjectClaim: "oid" });
  const { clientId, exchange } = await aClient({ providers: [entra], members: [bound(acme, "o1")] });
  expect((await exchange(await anAssertion(clientId, { sub: "pairwise", oid: "o1" }))).status).toBe(200);
  expect((await exchange(await anAssertion(clientId, { sub: "o1" }))).status).toBe(400);
});

const attacks: [
  name: string,
  world: World,
  claims: Record<string, unknown>,
  code: string,
  header?: Record<string, unknown>,
][] = [
  ["an issuer that no tenant has", {}, { iss: "https://evil.example" }, "invalid_grant"],
  ["the issuer with a slash", {}, { iss: `${ISSUER}/` }, "invalid_grant"],
  [
    "an issuer without TLS",
    { providers: [aProvider(acme, { issuer: "http://idp.acme.example" })] },
    { iss: "http://idp.acme.example" },
    "invalid_grant",
  ],
  [
    "an issuer whose assertions the tenant has not switched on",
    { providers: [aProvider(acme, { idJag: false })] },
    {},
    "invalid_grant",
  ],
  ["a provider that was removed", { providers: [] }, {}, "invalid_grant"],
  ["an assertion that has expired", {}, { iat: -400, exp: -100 }, "invalid_grant"],
  ["an assertion that has just expired", {}, { iat: -100, exp: -1 }, "invalid_grant"],
  ["an assertion of the future", {}, { iat: 120, exp: 300 }, "invalid_grant"],
  ["an assertion that is not valid yet", {}, { nbf: 120 }, "invalid_grant"],
  ["an assertion for a day", {}, { exp: 86_400 }, "invalid_grant"],
  ["no expiry", {}, { exp: undefined }, "invalid_grant"],
  ["no id", {}, { jti: undefined }, "invalid_grant"],
  ["an ID token", {}, {}, "invalid_grant", { typ: "JWT" }],
  ["an access token", {}, {}, "invalid_grant", { typ: "at+jwt" }],
  ["no type", {}, {}, "invalid_grant", { typ: undefined }],
  ["another audience", {}, { aud: "https://other.example" }, "invalid_grant"],
  ["the resource as the audience", {}, { aud: RESOURCE }, "invalid_grant"],
  ["this server among several audiences", {}, { aud: [PUBLIC_URL, "https://other.example"] }, "invalid_grant"],
  ["another resource", {}, { resource: "https://other.example/mcp" }, "invalid_target"],
  ["the resource with a slash", {}, { resource: `${RESOURCE}/` }, "invalid_target"],
  ["the resource in capitals", {}, { resource: RESOURCE.replace("tollgate", "TOLLGATE") }, "invalid_grant"],
  ["another client", {}, { client_id: "another" }, "invalid_grant"],
  ["a key that the issuer does not have", {}, {}, "invalid_grant", { kid: "k2" }],
  ["rights that Tollgate does not know", {}, { authorization_details: [] }, "invalid_grant"],
  ["a key that the client would have to prove", {}, { cnf: { jkt: "x" } }, "invalid_grant"],
  ["a person who has never signed in", {}, { sub: "eve" }, "invalid_grant"],
  ["a person without a subject", {}, { sub: undefined }, "invalid_grant"],
  ["a member of another tenant only", { members: [bound(other)], providers: [aProvider(acme)] }, {}, "invalid_grant"],
  ["a removed member", { members: [] }, {}, "invalid_grant"],
  [
    "a member whom the issuer names for another provider",
    { members: [{ tenantId: acme, issuer: ISSUER, subject: "ada" }] },
    {},
    "invalid_grant",
  ],
  [
    "a member of two tenants that share the issuer",
    { providers: [aProvider(acme), aProvider(other)], members: [bound(acme), bound(other)] },
    {},
    "invalid_grant",
  ],
  ["a member who may use no tools", { members: [bound(acme, "ada", "billing")] }, {}, "invalid_grant"],
];
test.each(attacks)("%s gets no token", async (_name, world, given, code, header = {}) => {
  const { objects, clientId, exchange } = await aClient(world);
  const claims = { ...given };
  // Times are seconds from now.
  for (const name of ["iat", "exp", "nbf"]) if (typeof claims[name] === "number") claims[name] = nowS() + claims[name];
  const answer = await exchange(await anAssertion(clientId, claims, { header }));
  expect([answer.status, errorOf(answer)]).toEqual([400, code]);
  expect(answer.body).not.toMatch(/ada|idp\.acme/);
  expect(objects.asked).toEqual([]);
  expect((await objects.tenant(acme).grants({ limit: 10 }))?.grants).toEqual([]);
});

test("an assertion that the issuer has not signed gets no token", async () => {
  const { clientId, exchange } = await aClient();
  const good = await anAssertion(clientId);
  const [header = "", claims = "", signature = ""] = good.split(".");
  const secret = new TextEncoder().encode(JSON.stringify(keySet));
  const byKeySet = await new SignJWT(JSON.parse(Buffer.from(claims, "base64url").toString()) as Record<string, unknown>)
    .setProtectedHeader({ alg: "HS256", kid: "k1", typ: "oauth-id-jag+jwt" })
    .sign(secret);
  for (const forged of [
    await anAssertion(clientId, {}, { key: foreign }),
    byKeySet,
    `${base64({ alg: "none", typ: "oauth-id-jag+jwt" })}.${claims}.${signature}`,
    `${base64({ alg: "none", typ: "oauth-id-jag+jwt" })}.${claims}.`,
    `${header}.${base64({ ...JSON.parse(Buffer.from(claims, "base64url").toString()), sub: "owner" })}.${signature}`,
    `${header}.${claims}`,
    "x".repeat(20_000),
    "",
  ]) {
    const answer = await exchange(forged);
    expect([answer.status, errorOf(answer)]).toEqual([400, forged === "" ? "invalid_request" : "invalid_grant"]);
  }
  expect((await exchange(good)).status).toBe(200);
});

test("an assertion works once, also for twenty requests at once", async () => {
  const { clientId, exchange } = await aClient();
  const assertion = await anAssertion(clientId);
  const answers = await Promise.all(Array.from({ length: 20 }, () => exchange(assertion)));
  expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
  for (const waitMs of [0, 200_000, 99_000, 1_000, 59_000, 1_000]) {
    vi.setSystemTime(Date.now() + waitMs);
    expect((await exchange(assertion)).status).toBe(400);
  }
});

test("a public client, a wrong secret and an assertion of another client's get no token", async () => {
  const { objects, clientId, exchange } = await aClient();
  const publicClient = await objects.register();
  const asPublic = await objects.token({
    ...{ grant_type: ASSERTION_GRANT, assertion: await anAssertion(publicClient), client_id: publicClient },
  });
  expect([asPublic.status, errorOf(asPublic)]).toEqual([401, "invalid_client"]);
  const wrong = await exchange(await anAssertion(clientId), { client_secret: "wrong" });
  expect([wrong.status, errorOf(wrong)]).toEqual([401, "invalid_client"]);
  const stolen = await exchange(await anAssertion(publicClient));
  expect([stolen.status, errorOf(stolen)]).toEqual([400, "invalid_grant"]);
});

test("a second tenant that names the same issuer takes no person from the first one", async () => {
  // The other tenant has no member whom this provider has signed in: it only claims the issuer.
  const world = { providers: [aProvider(other), aProvider(acme)], members: [bound(acme)] };
  const { clientId, exchange } = await aClient(world);
  const answer = await exchange(await anAssertion(clientId));
  const { access_token: access = "" } = JSON.parse(answer.body) as { access_token?: string };
  expect((await presented(access)).tenantId).toBe(acme);
});

test.each([["providers"], ["memberships"]] as const)(
  "an outage of the %s is never the client's fault",
  async (fails) => {
    const { clientId, exchange } = await aClient({ fails });
    const answer = await exchange(await anAssertion(clientId));
    expect([answer.status, errorOf(answer), answer.headers["retry-after"]]).toEqual([
      503,
      "temporarily_unavailable",
      "5",
    ]);
  },
);

test("an issuer whose keys cannot be read is not the client's fault either", async () => {
  for (const answer of [
    () => Promise.resolve(new Response("", { status: 500 })),
    () => Promise.reject(new Error("no route")),
    () => Promise.resolve(new Response("<html>")),
  ]) {
    keysAnswer = answer;
    const { clientId, exchange } = await aClient();
    expect((await exchange(await anAssertion(clientId))).status).toBe(503);
  }
});

test("the metadata offers assertions to clients", async () => {
  onTestFinished(() => void vi.restoreAllMocks());
  expect(await serverMetadata(site, "oauth")).toMatchObject({
    grant_types_supported: expect.arrayContaining([ASSERTION_GRANT]),
    authorization_grant_profiles_supported: ["urn:ietf:params:oauth:grant-profile:id-jag"],
  });
});
