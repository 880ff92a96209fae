// The quirks of the providers that the local issuer imitates: as rules, and over HTTP with oauth4webapi.
import { decodeJwt } from "jose";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as oauth from "oauth4webapi";
import { afterAll, beforeAll, expect, test } from "vitest";
import { auth0Provider } from "../../dev/issuer/auth0.ts";
import { cognitoProvider } from "../../dev/issuer/cognito.ts";
import { GRAPH_ID } from "../../dev/issuer/entra.ts";
import { type Issuer, startIssuer } from "../../dev/issuer/issuer.ts";
import { type Provider, guidOf, metadataOf } from "../../dev/issuer/provider.ts";
import { Browser, begin, discover, exchange, http, idClaims, signIn, web } from "../support/oidc-client.ts";
import {
  API,
  ann,
  auth0,
  bob,
  cognito,
  entra,
  grant,
  outcome,
  providers,
  setting,
  visit,
} from "../support/issuer-visit.ts";

test("Auth0 asks for the organisation when the application requires one", () => {
  const answer = visit(auth0Provider(setting, { requiresOrganization: true }), {});
  if (answer.kind !== "sign-in") throw new Error(answer.kind);
  expect(answer.choices.map(({ organisation }) => organisation)).toEqual(["acme", "bolt"]);
});

test("Auth0 refuses a person who is no member of the organisation, after the sign-in", () => {
  const signedIn = (sub: string): string =>
    outcome(visit(auth0, { organization: "acme" }, { pick: { sub, organisation: "acme" } }));
  expect([signedIn("ann"), signedIn("bob")]).toEqual(["ann of acme", "access_denied"]);
});

const refusesAs = (provider: Provider, changed: Record<string, string | undefined>): string => {
  const answer = visit(provider, changed);
  if (answer.kind === "sign-in") return `for ${answer.request.grantedAudience}`;
  const { searchParams } = new URL(answer.kind === "error" ? answer.location : "x:");
  return `${searchParams.get("error")} ${/^AADSTS\d+/.exec(searchParams.get("error_description") ?? "")?.[0] ?? ""}`.trim();
};

test.each<[changed: Record<string, string | undefined>, expected: string]>([
  [{ scope: "openid" }, `for ${GRAPH_ID}`],
  [{ scope: `openid ${API}/tools:read` }, `for ${guidOf(API)}`],
  [{ scope: `${API}/.default` }, `for ${guidOf(API)}`],
  [{ scope: `${API}/tools:read`, resource: API }, `for ${guidOf(API)}`],
  [{ scope: undefined }, "invalid_request AADSTS900144"],
  [{ scope: "tools:read" }, "invalid_client AADSTS650053"],
  [{ scope: `${API}/tools:none` }, "invalid_client AADSTS650053"],
  [{ scope: "tools:read", resource: API }, "invalid_target AADSTS9010010"],
  [{ scope: "openid profile", resource: API }, "invalid_target AADSTS9010010"],
  [{ scope: `${API}/tools:read`, resource: `${API}/` }, "invalid_target AADSTS9010010"],
  [{ scope: `${API}/tools:read`, resource: "https://other.example" }, "invalid_target AADSTS9010010"],
])("Entra answers %j: %s", (changed, expected) => {
  expect(refusesAs(entra, changed)).toBe(expected);
});

test.each<[quirks: { readsResource?: boolean }, changed: Record<string, string>, expected: string]>([
  [{}, {}, "for undefined"],
  [{}, { audience: API }, `for ${API}`],
  [{}, { audience: `${API}/` }, "access_denied"],
  [{}, { resource: API }, "for undefined"],
  [{ readsResource: true }, { resource: API }, `for ${API}`],
  [{ readsResource: true }, { resource: "https://other.example", audience: API }, `for ${API}`],
])("Auth0 with %j answers %j: %s", (quirks, changed, expected) => {
  expect(refusesAs(auth0Provider(setting, quirks), changed)).toBe(expected);
});

test.each<[quirks: { bindsResource?: boolean }, changed: Record<string, string>, expected: string]>([
  [{}, { scope: `openid ${API}/tools:read` }, "for undefined"],
  [{}, { scope: "openid tools:read" }, "invalid_scope"],
  [{}, { scope: "openid offline_access" }, "invalid_scope"],
  [{}, { resource: API }, "for undefined"],
  [{ bindsResource: true }, { resource: API }, `for ${API}`],
  [{ bindsResource: true }, { resource: "https://other.example" }, "invalid_target"],
])("Cognito with %j answers %j: %s", (quirks, changed, expected) => {
  expect(refusesAs(cognitoProvider(setting, quirks), changed)).toBe(expected);
});

const stamp = { nowS: 1_000, lifetimeS: 3_600, id: "j1", nonce: "n1" };
const identity = { person: ann, organisation: "acme" };

test("each provider names the organisation, the person and the scopes in its own claims", () => {
  const claims = providers.map((provider) => {
    const access = provider.accessToken(grant, identity, stamp);
    return access === "opaque" ? access : access.claims;
  });
  expect(claims).toMatchObject([
    { sub: "ann", tenant_id: "acme", aud: API, client_id: "web", scope: "openid profile email tools:read" },
    { sub: "auth0|ann", org_id: "acme", aud: [API, `${setting.baseUrl}/userinfo`], permissions: ["tools:read"] },
    { "custom:tenant_id": "acme", "cognito:groups": ["owner"], client_id: "web", token_use: "access" },
    { tid: "acme", oid: expect.any(String), roles: ["owner"], scp: "tools:read", ver: "2.0" },
  ]);
  expect(providers.map((provider) => provider.issuer("acme"))).toEqual([
    setting.baseUrl,
    `${setting.baseUrl}/`,
    setting.baseUrl,
    `${setting.baseUrl}/acme/v2.0`,
  ]);
});

test("Auth0 gives an opaque token without an audience, and no org_id without an organisation", () => {
  expect(auth0.accessToken({ ...grant, audience: undefined }, identity, stamp)).toBe("opaque");
  expect(auth0.idToken(grant, { person: ann, organisation: undefined }, stamp)).not.toHaveProperty("org_id");
});

test("Cognito sends only the attributes of the scopes, or all of them for openid alone", () => {
  const namesFor = (scopes: string[]): string[] =>
    ["name", "email", "custom:tenant_id"].filter(
      (name) => name in cognito.idToken({ ...grant, scopes }, identity, stamp),
    );
  expect(namesFor(["openid"])).toEqual(["name", "email", "custom:tenant_id"]);
  expect(namesFor(["openid", "email"])).toEqual(["email"]);
  expect(namesFor(["openid", "profile"])).toEqual(["name", "custom:tenant_id"]);
  expect(cognito.userInfo(grant, identity)["email_verified"]).toBe("true");
});

test("Entra has another oid in each directory, another sub for each client, and never email_verified", () => {
  const id = (clientId: string, organisation: string) =>
    entra.idToken({ ...grant, clientId }, { person: ann, organisation }, stamp);
  expect(id("web", "acme")["oid"]).toBe(id("other", "acme")["oid"]);
  expect(id("web", "acme")["sub"]).not.toBe(id("other", "acme")["sub"]);
  expect(id("web", "acme")["oid"]).not.toBe(id("web", "bolt")["oid"]);
  expect(id("web", "acme")).not.toHaveProperty("email_verified");
  expect(id("web", "acme")).not.toHaveProperty("auth_time");
  expect(entra.idToken({ ...grant, hasMaxAge: true }, identity, stamp)).toHaveProperty("auth_time", 900);
});

test.each(["common", "organizations"])("the metadata of Entra's /%s has an issuer that no token has", (directory) => {
  expect(metadataOf(entra, directory)["issuer"]).toBe(`${setting.baseUrl}/{tenantid}/v2.0`);
});

// ---- over HTTP

let folder: string;
let issuer: Issuer;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tollgate-providers-test-"));
  const scopes = ["tools:read", "tools:write"];
  const keyFile = join(folder, "key.json");
  issuer = await startIssuer({ port: 0, keyFile, audience: API, scopes, clients: [web], people: [ann, bob] });
});

afterAll(async () => {
  await issuer.close();
  await rm(folder, { recursive: true, force: true });
});

test("Auth0: a JWT needs an audience, and organization decides org_id", async () => {
  const server = await discover(issuer.issuers.auth0);
  expect(server.issuer).toMatch(/\/auth0\/$/);
  expect((await discover(issuer.issuers.auth0, "oauth2")).issuer).toBe(server.issuer);
  const opaque = await signIn(server, { sub: "ann" });
  expect(() => decodeJwt(opaque.tokens.access_token)).toThrow();
  const info = await oauth.userInfoRequest(server, opaque.flow.client, opaque.tokens.access_token, http);
  expect(await oauth.processUserInfoResponse(server, opaque.flow.client, "auth0|ann", info)).toMatchObject({
    email: "ann@acme.example",
  });
  expect(opaque.tokens.refresh_token, "without offline_access").toBeUndefined();
  expect(idClaims(opaque.tokens)).not.toHaveProperty("org_id");

  const asked = { audience: API, organization: "bolt", scope: "openid offline_access tools:read", max_age: "60" };
  const { tokens } = await signIn(server, { sub: "ann" }, asked);
  expect(decodeJwt(tokens.access_token)).toMatchObject({
    iss: issuer.issuers.auth0,
    sub: "auth0|ann",
    aud: [API, `${issuer.url}/auth0/userinfo`],
    azp: "web",
    org_id: "bolt",
    permissions: ["tools:read"],
    scope: "openid offline_access tools:read",
  });
  expect(idClaims(tokens)).toMatchObject({ org_id: "bolt", auth_time: expect.any(Number) });
  expect(tokens.refresh_token).toBeDefined();

  const flow = await begin(server, { organization: "bolt" });
  const refused = await new Browser().signIn(flow.url.href, { sub: "bob" });
  expect(refused.searchParams.get("error")).toBe("access_denied");
  expect(refused.searchParams.has("iss")).toBe(false);
});

test("Cognito: only OIDC discovery, no PKCE in it, no registration, and access tokens without aud", async () => {
  const server = await discover(issuer.issuers.cognito);
  expect(server).not.toHaveProperty("code_challenge_methods_supported");
  expect(server).not.toHaveProperty("registration_endpoint");
  for (const path of [
    "/cognito/.well-known/oauth-authorization-server",
    "/.well-known/oauth-authorization-server/cognito",
  ])
    expect((await fetch(`${issuer.url}${path}`)).status).toBe(404);
  const { flow, tokens } = await signIn(server, { sub: "ann" }, { scope: `openid profile ${API}/tools:read` });
  const access = decodeJwt(tokens.access_token);
  expect(access).toMatchObject({
    iss: issuer.issuers.cognito,
    client_id: "web",
    token_use: "access",
    scope: `openid profile ${API}/tools:read`,
    "custom:tenant_id": "acme",
    "cognito:groups": ["owner"],
  });
  expect(access).not.toHaveProperty("aud");
  expect(idClaims(tokens)).toMatchObject({ token_use: "id", "custom:tenant_id": "acme", "cognito:username": "ann" });
  expect(idClaims(tokens), "email was not asked for").not.toHaveProperty("email");
  const all = await signIn(server, { sub: "ann" }, { scope: "openid" });
  const info = await oauth.userInfoRequest(server, flow.client, all.tokens.access_token, http);
  expect(await info.json()).toMatchObject({ email: "ann@acme.example", email_verified: "true", username: "ann" });
});

test("Entra ID: an issuer for each directory, tid and oid, and AADSTS9010010 for a foreign resource", async () => {
  const server = await discover(issuer.issuers.entra("acme"));
  expect(server).not.toHaveProperty("code_challenge_methods_supported");
  expect(server).not.toHaveProperty("registration_endpoint");
  await expect(discover(issuer.issuers.entra("none"))).rejects.toThrow();
  const { tokens } = await signIn(
    server,
    { sub: "ann" },
    { scope: `openid profile email ${API}/tools:read`, resource: API },
  );
  expect(decodeJwt(tokens.access_token)).toMatchObject({
    iss: issuer.issuers.entra("acme"),
    aud: guidOf(API),
    tid: "acme",
    oid: expect.any(String),
    scp: "tools:read",
    roles: ["owner"],
    ver: "2.0",
  });
  expect(idClaims(tokens)).toMatchObject({ tid: "acme", oid: decodeJwt(tokens.access_token)["oid"] });
  expect(idClaims(tokens)).not.toHaveProperty("email_verified");
  const mixed = await begin(server);
  const callback = await new Browser().signIn(mixed.url.href, { sub: "ann" });
  const elsewhere = await discover(issuer.issuers.entra("bolt"));
  await expect(exchange({ ...mixed, server: elsewhere }, callback)).rejects.toMatchObject({ error: "invalid_grant" });
  const graph = await signIn(server, { sub: "ann" });
  expect(decodeJwt(graph.tokens.access_token).aud).toBe(GRAPH_ID);

  const flow = await begin(server, { resource: `${API}/`, scope: `openid ${API}/tools:read` });
  const refused = await new Browser().signIn(flow.url.href, { sub: "ann" });
  expect(Object.fromEntries(refused.searchParams)).toMatchObject({
    error: "invalid_target",
    error_description: expect.stringContaining("AADSTS9010010"),
  });
});

test("Entra ID: the issuer of /common fits no token, so a careful client refuses it", async () => {
  const common = issuer.issuers.entra("common");
  expect(common).toContain("{tenantid}");
  const url = `${issuer.url}/entra/common/v2.0`;
  await expect(discover(url)).rejects.toThrow();
  const server = (await (await fetch(`${url}/.well-known/openid-configuration`)).json()) as oauth.AuthorizationServer;
  expect(server.issuer).toBe(common);
  const flow = await begin(server);
  const callback = await new Browser().signIn(flow.url.href, { sub: "ann", organisation: "bolt" });
  await expect(exchange(flow, callback)).rejects.toMatchObject({ code: oauth.JWT_CLAIM_COMPARISON });
});
