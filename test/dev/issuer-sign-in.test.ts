// The local issuer over HTTP, with clients that other people wrote: oauth4webapi, jose and the MCP SDK.
import { type OAuthClientProvider, auth } from "@modelcontextprotocol/sdk/client/auth.js";
import {
  type OAuthClientInformationMixed,
  OAuthMetadataSchema,
  type OAuthTokens,
  OpenIdProviderDiscoveryMetadataSchema,
} from "@modelcontextprotocol/sdk/shared/auth.js";
import { Hono } from "hono";
import { createRemoteJWKSet, decodeJwt, jwtVerify } from "jose";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as oauth from "oauth4webapi";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { type Issuer, startIssuer } from "../../dev/issuer/issuer.ts";
import type { PersonInput } from "../../dev/issuer/people.ts";
import { identifyOperator } from "../../src/identity/operators/operators.ts";
import { serveOnLoopback } from "../../dev/loopback.ts";
import {
  Browser,
  REDIRECT,
  begin,
  discover,
  exchange,
  http,
  idClaims,
  locationOf,
  refresh,
  signIn,
  web,
} from "../support/oidc-client.ts";

const API = "http://127.0.0.1:8787/mcp";
const native = { id: "native", name: "Native", redirectUris: ["http://127.0.0.1/callback"] };
const ann: PersonInput = {
  sub: "ann",
  name: "Ann <Acme>",
  email: "ann@acme.example",
  organisations: [
    { id: "acme", name: "Acme" },
    { id: "bolt", name: "Bolt" },
  ],
  roles: ["owner"],
  permissions: ["tools:read", "tools:write"],
};
const bob: PersonInput = { sub: "bob", name: "Bob", email: "bob@bolt.example", emailVerified: false };

let folder: string;
let issuer: Issuer;
let offsetMs = 0;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tollgate-sign-in-test-"));
  issuer = await startIssuer({
    port: 0,
    keyFile: join(folder, "key.json"),
    audience: API,
    scopes: ["tools:read", "tools:write"],
    operator: { audience: "http://127.0.0.1:8787/admin/api", scope: "admin:global" },
    clients: [web, native],
    clock: () => Date.now() + offsetMs,
  });
});

beforeEach(() => {
  offsetMs = 0;
  issuer.people.replace([ann, bob]);
});

afterAll(async () => {
  await issuer.close();
  await rm(folder, { recursive: true, force: true });
});

test("both discovery documents are the same, and valid for MCP clients", async () => {
  const read = async (name: string): Promise<unknown> => (await fetch(`${issuer.url}/.well-known/${name}`)).json();
  const [oidc, server] = [await read("openid-configuration"), await read("oauth-authorization-server")];
  expect(server).toEqual(oidc);
  for (const schema of [OAuthMetadataSchema, OpenIdProviderDiscoveryMetadataSchema]) schema.parse(oidc);
  expect(oidc).toMatchObject({
    code_challenge_methods_supported: ["S256"],
    grant_types_supported: ["authorization_code", "refresh_token"],
    token_endpoint_auth_methods_supported: ["client_secret_basic", "client_secret_post", "none"],
    authorization_response_iss_parameter_supported: true,
    registration_endpoint: `${issuer.url}/register`,
  });
});

test("an operator signs in for the operator's API, and the product finds their role in the token", async () => {
  const olga = { sub: "olga", name: "Olga", email: "olga@operator.example" };
  issuer.people.put({ ...olga, roles: ["support"], permissions: ["admin:global"] });
  const env = {
    PUBLIC_URL: "http://127.0.0.1:8787",
    OPERATOR_ISSUER: JSON.stringify({ issuer: issuer.url, jwksUrl: issuer.jwksUrl }),
  };
  const identified = async (sub: string, organisation?: string): ReturnType<typeof identifyOperator> => {
    const person = organisation === undefined ? { sub } : { sub, organisation };
    const wanted = { scope: "openid admin:global", resource: `${env.PUBLIC_URL}/admin/api` };
    const { tokens } = await signIn(await discover(issuer.issuers.plain, "oidc"), person, wanted);
    const authorization = `Bearer ${tokens.access_token}`;
    return identifyOperator({ authorization, assertion: undefined }, env, Date.now());
  };
  expect(await identified("olga")).toMatchObject({ operator: { id: "olga", name: "Olga", role: "support" } });
  expect(await identified("ann", "acme")).toMatchObject({ refused: "scope_missing" });
});

test.each<[algorithm: "oidc" | "oauth2"]>([["oidc"], ["oauth2"]])(
  "a person signs in and the client gets tokens, found by %s discovery",
  async (algorithm) => {
    const { flow, tokens } = await signIn(
      await discover(issuer.issuers.plain, algorithm),
      { sub: "ann", organisation: "bolt" },
      { scope: "openid profile email tools:read", resource: API },
    );
    expect(idClaims(tokens)).toMatchObject({
      sub: "ann",
      name: "Ann <Acme>",
      email: "ann@acme.example",
      email_verified: true,
      auth_time: expect.any(Number),
      tenant_id: "bolt",
      roles: ["owner"],
    });
    const keys = createRemoteJWKSet(new URL(issuer.jwksUrl));
    const { payload } = await jwtVerify(tokens.access_token, keys, {
      issuer: issuer.url,
      audience: API,
      typ: "at+jwt",
    });
    expect(payload).toMatchObject({
      sub: "ann",
      client_id: "web",
      tenant_id: "bolt",
      scope: "openid profile email tools:read",
    });
    const info = await oauth.userInfoRequest(flow.server, flow.client, tokens.access_token, http);
    expect(await oauth.processUserInfoResponse(flow.server, flow.client, "ann", info)).toMatchObject({
      name: "Ann <Acme>",
    });
  },
);

test("a public client and a client with its secret in the form get tokens, too", async () => {
  const server = await discover(issuer.url);
  for (const [id, authentication] of [
    ["native", oauth.None()],
    ["web", oauth.ClientSecretPost(web.secret)],
  ] as const) {
    const flow = await begin(server, {}, { client: { client_id: id }, authentication });
    const tokens = await exchange(flow, await new Browser().signIn(flow.url.href, { sub: "bob" }));
    expect(idClaims(tokens)).toMatchObject({ sub: "bob", email_verified: false, aud: id });
  }
});

test("a wrong secret is 401 with a challenge, and no code is used up", async () => {
  const flow = await begin(await discover(issuer.url));
  const callback = await new Browser().signIn(flow.url.href, { sub: "bob" });
  const wrong = { ...flow, authentication: oauth.ClientSecretBasic("wrong") };
  await expect(exchange(wrong, callback)).rejects.toMatchObject({ status: 401 });
  expect((await exchange(flow, callback)).token_type).toBe("bearer");
});

test("a code works once: the second use is refused and ends the tokens of the first", async () => {
  const flow = await begin(await discover(issuer.url));
  const callback = await new Browser().signIn(flow.url.href, { sub: "bob" });
  const tokens = await exchange(flow, callback);
  await expect(exchange(flow, callback)).rejects.toMatchObject({ error: "invalid_grant", status: 400 });
  await expect(refresh(flow, tokens.refresh_token)).rejects.toMatchObject({ error: "invalid_grant" });
  const headers = { authorization: `Bearer ${tokens.access_token}` };
  expect((await fetch(`${issuer.url}/userinfo`, { headers })).status).toBe(401);
});

test("a code expires after a minute", async () => {
  const flow = await begin(await discover(issuer.url));
  const callback = await new Browser().signIn(flow.url.href, { sub: "bob" });
  offsetMs = 61_000;
  await expect(exchange(flow, callback)).rejects.toMatchObject({ error: "invalid_grant" });
});

test("a refresh token is replaced at each use, keeps the person, and its replay ends its successors", async () => {
  const { flow, tokens } = await signIn(await discover(issuer.url), { sub: "ann", organisation: "acme" });
  const next = await refresh(flow, tokens.refresh_token, { resource: API });
  expect(idClaims(next)).toMatchObject({ sub: "ann", auth_time: idClaims(tokens)?.auth_time });
  expect(idClaims(next)).not.toHaveProperty("nonce");
  expect(decodeJwt(next.access_token)).toMatchObject({ sub: "ann", tenant_id: "acme" });
  await expect(refresh(flow, tokens.refresh_token)).rejects.toMatchObject({ error: "invalid_grant" });
  await expect(refresh(flow, next.refresh_token)).rejects.toMatchObject({ error: "invalid_grant" });
});

test("the refresh tokens of a removed person end", async () => {
  const { flow, tokens } = await signIn(await discover(issuer.url), { sub: "bob" });
  issuer.people.remove("bob");
  await expect(refresh(flow, tokens.refresh_token)).rejects.toMatchObject({ error: "invalid_grant" });
});

test("a browser that is signed in continues without the page, until it signs out", async () => {
  const server = await discover(issuer.url);
  const browser = new Browser();
  const first = await begin(server);
  const silent = await begin(server, { prompt: "none" });
  const before = await browser.fetch(silent.url.href);
  expect(locationOf(before).searchParams.get("error")).toBe("login_required");
  const signedIn = await exchange(first, await browser.signIn(first.url.href, { sub: "ann", organisation: "acme" }));
  offsetMs = 5_000;
  const after = await exchange(silent, locationOf(await browser.fetch(silent.url.href)));
  expect(idClaims(after)).toMatchObject({ sub: "ann", auth_time: idClaims(signedIn)?.auth_time });
  const again = await begin(server, { prompt: "select_account" });
  expect((await browser.fetch(again.url.href)).status).toBe(200);
  expect(await (await browser.fetch(String(server.end_session_endpoint))).text()).toContain("Signed out");
  expect(locationOf(await browser.fetch(silent.url.href)).searchParams.get("error")).toBe("login_required");
});

test("the page needs no script, escapes names, and loads nothing", async () => {
  const { url } = await begin(await discover(issuer.url), {
    login_hint: "bob@bolt.example",
    state: `"><script>x</script>`,
  });
  const response = await fetch(url);
  const page = await response.text();
  expect(response.headers.get("content-security-policy")).toContain("default-src 'none'");
  expect(page).not.toMatch(/<script|<Acme>|<Co>|src=|url\(/);
  expect(page).toMatch(/<html lang="en">.*<title>.*<main>\s*<h1>/s);
  expect(page.indexOf("bob@bolt.example"), "the hinted person comes first").toBeLessThan(page.indexOf("ann@acme"));
});

test("a page of another site cannot sign a person in", async () => {
  const { url } = await begin(await discover(issuer.url));
  const post = (site: string): Promise<Response> =>
    fetch(url, {
      method: "POST",
      redirect: "manual",
      headers: { "sec-fetch-site": site },
      body: new URLSearchParams({ sub: "bob" }),
    });
  const [own, foreign] = [await post("same-origin"), await post("cross-site")];
  expect([own.status, foreign.status, foreign.headers.get("set-cookie")]).toEqual([303, 403, null]);
});

test("an error is a page while the redirect is unproven", async () => {
  const { url } = await begin(await discover(issuer.url));
  for (const [name, value] of [
    ["client_id", "<b>none</b>"],
    ["redirect_uri", "https://evil.example/<b>"],
  ] as const) {
    const changed = new URL(url);
    changed.searchParams.set(name, value);
    const response = await fetch(changed, { redirect: "manual" });
    expect([response.status, response.headers.get("location")]).toEqual([400, null]);
    expect(await response.text()).not.toContain("<b>");
  }
});

test.each<[what: string, body: string, status: number, error: string]>([
  ["no grant type", "client_id=native", 400, "invalid_request"],
  ["an unknown grant type", "client_id=native&grant_type=password", 400, "unsupported_grant_type"],
  ["no code", "client_id=native&grant_type=authorization_code", 400, "invalid_request"],
  ["an unknown code", "client_id=native&grant_type=authorization_code&code=x", 400, "invalid_grant"],
  ["no refresh token", "client_id=native&grant_type=refresh_token", 400, "invalid_request"],
  ["a parameter twice", "client_id=native&client_id=native", 400, "invalid_request"],
  ["a foreign resource", "client_id=native&grant_type=refresh_token&resource=x", 400, "invalid_target"],
  ["an unknown client", "client_id=none&grant_type=refresh_token", 401, "invalid_client"],
  ["no client", "grant_type=refresh_token", 401, "invalid_client"],
])("a token request with %s is refused as RFC 6749 says", async (_what, body, status, error) => {
  const response = await fetch(issuer.tokenUrl, { method: "POST", body: new URLSearchParams(body) });
  expect(response.status).toBe(status);
  expect(response.headers.get("cache-control")).toBe("no-store");
  expect(await response.json()).toEqual({ error, error_description: expect.any(String) });
});

test("claims are signed as before, also when curl calls them a form", async () => {
  const response = await fetch(issuer.tokenUrl, {
    method: "POST",
    headers: { "content-type": "application/x-www-form-urlencoded" },
    body: ` {"tenant":"t1"}`,
  });
  const { access_token: token } = (await response.json()) as { access_token: string };
  expect(decodeJwt(token)).toMatchObject({ iss: issuer.url, aud: API, tenant_id: "t1" });
});

test("tests can change the people over HTTP", async () => {
  const put = (sub: string, person: object) =>
    fetch(`${issuer.url}/people/${sub}`, { method: "PUT", body: JSON.stringify(person) });
  expect((await put("cleo", { name: "Cleo", email: "cleo@acme.example" })).status).toBe(200);
  expect((await put("cleo", { name: "Cleo" })).status).toBe(400);
  expect(await (await fetch(`${issuer.url}/people`)).json()).toMatchObject({ people: [{}, {}, { sub: "cleo" }] });
  expect((await fetch(`${issuer.url}/people/cleo`, { method: "DELETE" })).status).toBe(204);
  expect(issuer.people.find("cleo")).toBeUndefined();
});

test("web pages of this machine may read the endpoints without cookies, and other sites may not", async () => {
  const allowed = async (origin: string): Promise<string | null> =>
    (await fetch(`${issuer.url}/.well-known/openid-configuration`, { headers: { origin } })).headers.get(
      "access-control-allow-origin",
    );
  expect(await allowed("http://localhost:6274")).toBe("http://localhost:6274");
  expect(await allowed("https://evil.example")).toBeNull();
});

test.each<[metadata: Parameters<typeof oauth.dynamicClientRegistrationRequest>[1], error: string]>([
  [{ redirect_uris: ["http://app.example/cb"] }, "invalid_redirect_uri"],
  [{ redirect_uris: ["https://app.example/cb"], response_types: ["token"] }, "invalid_client_metadata"],
  [{ redirect_uris: [] }, "invalid_client_metadata"],
  [
    { redirect_uris: ["https://app.example/cb"], token_endpoint_auth_method: "private_key_jwt" },
    "invalid_client_metadata",
  ],
])("the registration %j is refused: %s", async (metadata, error) => {
  const response = await oauth.dynamicClientRegistrationRequest(await discover(issuer.url), metadata, http);
  await expect(oauth.processDynamicClientRegistrationResponse(response)).rejects.toMatchObject({ error });
});

test("the MCP SDK's client registers itself, signs in, and gets a token for the MCP server", async () => {
  const app = new Hono();
  await using mcp = await listen(app);
  const own = await startIssuer({
    port: 0,
    keyFile: join(folder, "own.json"),
    audience: `${mcp.url}/mcp`,
    scopes: ["tools:read"],
    people: [ann],
  });
  await using _issuer = { [Symbol.asyncDispose]: () => own.close() };
  app.get("/.well-known/oauth-protected-resource/mcp", (c) =>
    c.json({ resource: `${mcp.url}/mcp`, authorization_servers: [own.url], scopes_supported: ["tools:read"] }),
  );
  const client = new SdkProvider();
  const serverUrl = `${mcp.url}/mcp`;
  expect(await auth(client, { serverUrl })).toBe("REDIRECT");
  const callback = await new Browser().signIn(String(client.redirectedTo), { sub: "ann", organisation: "acme" });
  const authorizationCode = callback.searchParams.get("code") ?? "";
  expect(await auth(client, { serverUrl, authorizationCode })).toBe("AUTHORIZED");
  expect(decodeJwt(client.saved?.access_token ?? "")).toMatchObject({
    aud: serverUrl,
    tenant_id: "acme",
    scope: "tools:read",
  });
  const before = client.saved?.access_token;
  expect(await auth(client, { serverUrl }), "by its refresh token").toBe("AUTHORIZED");
  expect(client.saved?.access_token).not.toBe(before);
});

/** A server on a free port. */
async function listen(app: Hono): Promise<AsyncDisposable & { url: string }> {
  const listening = await serveOnLoopback(app.fetch, 0);
  return { url: listening.url, [Symbol.asyncDispose]: () => listening.close() };
}

/** A client of the MCP SDK that keeps everything in memory. */
class SdkProvider implements OAuthClientProvider {
  redirectedTo: URL | undefined;
  saved: OAuthTokens | undefined;
  #client: OAuthClientInformationMixed | undefined;
  #verifier = "";
  readonly redirectUrl = REDIRECT;
  readonly clientMetadata = {
    client_name: "SDK",
    redirect_uris: [REDIRECT],
    grant_types: ["authorization_code", "refresh_token"],
    token_endpoint_auth_method: "none",
  };

  clientInformation() {
    return this.#client;
  }
  saveClientInformation(client: OAuthClientInformationMixed) {
    this.#client = client;
  }
  tokens() {
    return this.saved;
  }
  saveTokens(tokens: OAuthTokens) {
    this.saved = tokens;
  }
  redirectToAuthorization(url: URL) {
    this.redirectedTo = url;
  }
  saveCodeVerifier(verifier: string) {
    this.#verifier = verifier;
  }
  codeVerifier() {
    return this.#verifier;
  }
}
