// People sign in at their provider through Tollgate's own client: the real code against each imitated provider, and what it refuses
// when a provider, a browser or an attacker answers something else.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { type Issuer as LocalIssuer, startIssuer } from "../../dev/issuer/issuer.ts";
import { type Issuer, clientSecret, parseIssuers } from "../../src/identity/tokens/issuers.ts";
import {
  CALLBACK_PATH,
  type Outcome,
  type UpstreamClient,
  newPending,
  readAnswer,
  signInUrl,
} from "../../src/identity/oauth/upstream.ts";
import { serveOnLoopback } from "../../dev/loopback.ts";
import { Browser } from "../support/oidc-client.ts";

const PUBLIC_URL = "http://127.0.0.1:8787";
const SECRET = "a secret: with +/ é";
const ann = {
  sub: "ann",
  name: "Ann <Acme>",
  email: "Ann@acme.example",
  organisations: [
    { id: "acme", name: "Acme" },
    { id: "bolt", name: "Bolt" },
  ],
};
const ivy = { sub: "ivy", name: "Ivy", email: "ivy@elsewhere.example", emailVerified: false };

let folder: string;
let local: LocalIssuer;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tollgate-upstream-test-"));
  local = await startIssuer({
    ...{ port: 0, keyFile: join(folder, "key.json"), audience: `${PUBLIC_URL}/mcp`, people: [ann, ivy] },
    clients: [{ id: "tollgate", name: "Tollgate", secret: SECRET, redirectUris: [PUBLIC_URL + CALLBACK_PATH] }],
  });
});
beforeEach(() => local.people.replace([ann, ivy]));
afterAll(async () => {
  await local.close();
  await rm(folder, { recursive: true, force: true });
});

type Name = "plain" | "auth0" | "cognito" | "entra";

/** Tollgate's client at the imitated provider, configured as `OIDC_ISSUERS` would. */
function clientAt(name: Name, more: Record<string, unknown> = {}): UpstreamClient {
  const { issuers, url, jwksUrl } = local;
  const settings = {
    plain: { issuer: issuers.plain, jwksUrl, tenantClaim: "tenant_id" },
    auth0: { issuer: issuers.auth0, jwksUrl: `${url}/auth0/.well-known/jwks.json`, tenantClaim: "org_id" },
    cognito: {
      ...{ issuer: issuers.cognito, jwksUrl: `${url}/cognito/.well-known/jwks.json` },
      tenantClaim: "custom:tenant_id",
    },
    entra: { issuer: issuers.entra("acme"), jwksUrl: `${url}/entra/acme/discovery/v2.0/keys`, tenantClaim: "tid" },
  }[name];
  const [issuer] = parseIssuers(JSON.stringify([{ ...settings, clientId: "tollgate", ...more }]));
  if (issuer === undefined) throw new Error("no issuer");
  const secret = clientSecret(JSON.stringify({ [settings.issuer]: SECRET }), settings.issuer);
  return { issuer, secret, publicUrl: PUBLIC_URL };
}

async function begin(client: UpstreamClient, browser = new Browser(), pick = { sub: "ann", organisation: "acme" }) {
  const pending = newPending(client);
  const nowMs = Date.now();
  const url = await signInUrl(client, { pending, state: "the-state", choosesAccount: true, nowMs });
  if (url === undefined) throw new Error("the provider is away");
  return { pending, url, back: await browser.signIn(url, pick) };
}

const read = (
  client: UpstreamClient,
  pending: ReturnType<typeof newPending>,
  query: URLSearchParams,
): Promise<Outcome> => readAnswer(client, { query, pending, nowMs: Date.now() });

test.each<[Name, Record<string, unknown>, Record<string, unknown>]>([
  ["plain", {}, { subject: "ann", organisation: "acme", emailVerified: true }],
  ["auth0", { signInParameters: { organization: "acme" } }, { subject: "auth0|ann", organisation: "acme" }],
  ["cognito", {}, { subject: expect.stringMatching(/^[0-9a-f-]{36}$/), organisation: "acme" }],
  // Entra ID does not say whether an address is verified.
  ["entra", {}, { subject: expect.stringMatching(/^[0-9a-f-]{36}$/), organisation: "acme", emailVerified: false }],
])("a person signs in at %s, and Tollgate knows them by the claims of that provider", async (name, more, person) => {
  const client = clientAt(name, more);
  const { pending, back } = await begin(client, new Browser(), {
    sub: "ann",
    ...((name === "plain" || name === "entra") && { organisation: "acme" }),
  } as { sub: string; organisation: string });
  expect(back.origin + back.pathname).toBe(PUBLIC_URL + CALLBACK_PATH);
  expect(await read(client, pending, back.searchParams)).toEqual({
    kind: "person",
    person: {
      ...{ issuer: client.issuer.issuer, email: "ann@acme.example", name: "Ann <Acme>", emailVerified: true },
      ...person,
    },
  });
});

test("Auth0 without an organisation signs a person in who has none there", async () => {
  const client = clientAt("auth0");
  const { pending, back } = await begin(client, new Browser(), { sub: "ann" } as { sub: string; organisation: string });
  expect(await read(client, pending, back.searchParams)).toMatchObject({
    person: { subject: "auth0|ann", organisation: null },
  });
});

test("nothing of the waiting client is sent to the provider, and PKCE, nonce and state are", async () => {
  const client = clientAt("plain");
  const { url } = await begin(client);
  const query = new URL(url).searchParams;
  expect([...query.keys()].toSorted()).toEqual([
    ...["client_id", "code_challenge", "code_challenge_method", "nonce", "prompt"],
    ...["redirect_uri", "response_type", "scope", "state"],
  ]);
  expect(query.get("scope")).toBe("openid profile email");
  expect(query.get("code_challenge_method")).toBe("S256");
});

test("an unverified address stays unverified", async () => {
  const client = clientAt("plain");
  const { pending, back } = await begin(client, new Browser(), { sub: "ivy" } as { sub: string; organisation: string });
  expect(await read(client, pending, back.searchParams)).toMatchObject({
    person: { email: "ivy@elsewhere.example", emailVerified: false, organisation: null },
  });
});

// One line for each attack on the way back.
test.each<[string, (query: URLSearchParams) => void]>([
  ["an answer that names another issuer (mix-up)", (query) => query.set("iss", "https://attacker.example")],
  ["an answer that names no issuer, where the provider always does", (query) => query.delete("iss")],
  ["two codes", (query) => query.append("code", "another")],
  ["a code that the provider did not give", (query) => query.set("code", "made-up")],
  ["no code", (query) => query.delete("code")],
])("refused: %s", async (_, change) => {
  const client = clientAt("plain");
  const { pending, back } = await begin(client);
  change(back.searchParams);
  expect(await read(client, pending, back.searchParams)).toEqual({ kind: "failed", isOutage: false });
});

test("refused: a code that comes a second time", async () => {
  const client = clientAt("plain");
  const { pending, back } = await begin(client);
  expect(await read(client, pending, back.searchParams)).toMatchObject({ kind: "person" });
  expect(await read(client, pending, back.searchParams)).toEqual({ kind: "failed", isOutage: false });
});

test("refused: the code of another sign-in, whose verifier and nonce are others (code injection)", async () => {
  const client = clientAt("plain");
  const [victim, attacker] = [await begin(client), await begin(client)];
  expect(await read(client, attacker.pending, victim.back.searchParams)).toEqual({ kind: "failed", isOutage: false });
  const fresh = await begin(client);
  const mixed = { ...fresh.pending, nonce: attacker.pending.nonce };
  expect(await read(client, mixed, fresh.back.searchParams)).toEqual({ kind: "failed", isOutage: false });
});

test("refused: an ID token for another client, and one of a provider with another key", async () => {
  const client = clientAt("plain");
  const otherKeys = await serveOnLoopback(() => Promise.resolve(Response.json({ keys: [] })), 0);
  try {
    const { pending, back } = await begin(client);
    const distrusting: UpstreamClient = { ...client, issuer: { ...client.issuer, jwksUrl: otherKeys.url } };
    expect((await read(distrusting, pending, back.searchParams)).kind).toBe("failed");
  } finally {
    await otherKeys.close();
  }
  const { pending, back } = await begin(client);
  const other: Issuer = { ...client.issuer, clientId: "someone-else" };
  expect(await read({ ...client, issuer: other }, pending, back.searchParams)).toEqual({
    kind: "failed",
    isOutage: false,
  });
});

test("a person who is refused at the provider is refused here, and a provider that is away is an outage", async () => {
  const client = clientAt("auth0", { signInParameters: { organization: "bolt" } });
  const { pending, back } = await begin(client, new Browser(), { sub: "ivy", organisation: "bolt" });
  expect(back.searchParams.get("error")).toBe("access_denied");
  expect(await read(client, pending, back.searchParams)).toEqual({ kind: "denied" });
  const away = clientAt("plain", { issuer: "http://127.0.0.1:1" });
  const nowMs = Date.now();
  expect(await signInUrl(away, { pending, state: "s", choosesAccount: false, nowMs })).toBeUndefined();
  expect(await read(away, pending, new URLSearchParams({ code: "c", state: "s" }))).toEqual({
    kind: "failed",
    isOutage: true,
  });
});

test("Entra's address of all directories is refused in the configuration, and by its own metadata", async () => {
  const { issuers, jwksUrl } = local;
  for (const directory of ["common", "organizations", "consumers", "{tenantid}"])
    expect(() =>
      parseIssuers(JSON.stringify([{ issuer: `https://login.example/${directory}/v2.0`, jwksUrl }])),
    ).toThrow("many directories");
  expect(() => parseIssuers(JSON.stringify([{ issuer: issuers.entra("common"), jwksUrl }]))).toThrow();
  const client = clientAt("entra");
  const common: UpstreamClient = { ...client, issuer: { ...client.issuer, issuer: `${local.url}/entra/common/v2.0` } };
  const pending = newPending(common);
  expect(await signInUrl(common, { pending, state: "s", choosesAccount: false, nowMs: Date.now() })).toBeUndefined();
});
