// The rules of the local issuer, over plain values: who may be sent where, and what a code, a token and a secret are good for.
import { createHash } from "node:crypto";
import { describe, expect, test } from "vitest";
import { auth0Provider } from "../../dev/issuer/auth0.ts";
import { type Answer, type Visit, answerVisit } from "../../dev/issuer/authorization.ts";
import {
  type Client,
  authenticateClient,
  matchesRedirect,
  readParameters,
  redirectProblem,
} from "../../dev/issuer/clients.ts";
import { cognitoProvider } from "../../dev/issuer/cognito.ts";
import { GRAPH_ID, entraProvider } from "../../dev/issuer/entra.ts";
import { BoundedMap, type Grant, Grants, verifiesChallenge } from "../../dev/issuer/grants.ts";
import { Person, demonstrationPeople } from "../../dev/issuer/people.ts";
import { type Provider, guidOf, metadataOf, plainProvider } from "../../dev/issuer/provider.ts";

const API = "http://127.0.0.1:8787/mcp";
const setting = { baseUrl: "http://127.0.0.1:9000", audience: API, scopes: ["tools:read", "tools:write"] };
const plain = plainProvider(setting);
const auth0 = auth0Provider(setting);
const cognito = cognitoProvider(setting);
const entra = entraProvider(setting);
const providers = [plain, auth0, cognito, entra];

const ann = Person.parse({
  sub: "ann",
  name: "Ann",
  email: "ann@acme.example",
  organisations: [
    { id: "acme", name: "Acme" },
    { id: "bolt", name: "Bolt" },
  ],
  roles: ["owner"],
  permissions: ["tools:read"],
});
const bob = Person.parse({ sub: "bob", name: "Bob", email: "bob@bolt.example", emailVerified: false });
const client: Client = {
  id: "web",
  name: "Web",
  secret: undefined,
  redirectUris: ["https://app.example/callback", "http://127.0.0.1/callback"],
  refreshes: true,
};
const challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"; // RFC 7636, appendix B
const verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

const valid = {
  client_id: "web",
  redirect_uri: "https://app.example/callback",
  response_type: "code",
  code_challenge: challenge,
  code_challenge_method: "S256",
  scope: "openid",
  state: "s1",
};

function visit(provider: Provider, changed: Record<string, string | undefined>, more: Partial<Visit> = {}): Answer {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries({ ...valid, ...changed })) {
    if (value !== undefined) parameters.append(name, value);
  }
  return answerVisit({
    provider,
    directory: provider.name === "entra" ? "acme" : undefined,
    parameters,
    findClient: (id) => (id === client.id ? client : undefined),
    people: [ann, bob],
    session: undefined,
    pick: undefined,
    nowS: 1_000,
    ...more,
  });
}

/** `kind`, and the error that the client would receive. */
function outcome(answer: Answer): string {
  if (answer.kind === "error") return new URL(answer.location).searchParams.get("error") ?? "no error";
  if (answer.kind === "signed-in") return `${answer.identity.person.sub} of ${answer.identity.organisation}`;
  return answer.kind;
}

test.each<[registered: string, given: string, matches: boolean]>([
  ["https://app.example/cb", "https://app.example/cb", true],
  ["https://app.example/cb", "https://app.example/cb/", false],
  ["https://app.example/cb", "https://app.example/cb?x=1", false],
  ["https://app.example/cb", "https://app.example:8443/cb", false],
  ["https://app.example/cb", "https://APP.example/cb", false],
  ["https://app.example/cb", "https://app.example.evil.example/cb", false],
  ["https://app.example/cb", "http://app.example/cb", false],
  ["http://127.0.0.1/cb", "http://127.0.0.1:51234/cb", true],
  ["http://127.0.0.1:3000/cb", "http://127.0.0.1:51234/cb", true],
  ["http://localhost:3000/cb?a=1", "http://localhost:4000/cb?a=1", true],
  ["http://[::1]/cb", "http://[::1]:9/cb", true],
  ["http://127.0.0.1:3000/cb", "http://localhost:3000/cb", false],
  ["http://127.0.0.1:3000/cb", "https://127.0.0.1:4000/cb", false],
  ["http://127.0.0.1:3000/cb", "http://127.0.0.1:4000/cb/../x", false],
  ["http://127.0.0.1:3000/cb", "http://127.0.0.1:4000@evil.example/cb", false],
  ["http://127.0.0.1:3000/cb", "http://127.0.0.1.evil.example/cb", false],
  ["http://127.0.0.1:3000/cb", "http://127.0.0.1:123456/cb", false],
  ["cursor://mcp/callback", "cursor://mcp/callback", true],
  ["cursor://mcp/callback", "cursor://mcp/other", false],
])("a client with the redirect URI %s may use %s: %s", (registered, given, matches) => {
  expect(matchesRedirect(registered, given)).toBe(matches);
});

test.each<[uri: string, accepted: boolean]>([
  ["https://app.example/cb", true],
  ["http://localhost:7777/oauth/callback", true],
  ["cursor://anysphere.cursor-mcp/oauth/callback", true],
  ["http://app.example/cb", false],
  ["http://127.0.0.1.evil.example/cb", false],
  ["https://app.example/cb#part", false],
  ["https://user:word@app.example/cb", false],
  ["javascript:alert(1)", false],
  ["data:text/html,x", false],
  ["/callback", false],
])("the redirect URI %s can be registered: %s", (uri, accepted) => {
  expect(redirectProblem(uri) === undefined).toBe(accepted);
});

test.each<[what: string, changed: Record<string, string | undefined>, expected: string]>([
  ["a valid request", {}, "sign-in"],
  ["a loopback redirect with another port", { redirect_uri: "http://127.0.0.1:5555/callback" }, "sign-in"],
  ["a missing client", { client_id: undefined }, "page"],
  ["an unknown client", { client_id: "other" }, "page"],
  ["a missing redirect URI", { redirect_uri: undefined }, "page"],
  ["a redirect URI of another site", { redirect_uri: "https://evil.example/callback" }, "page"],
  ["a missing response type", { response_type: undefined }, "invalid_request"],
  ["the implicit flow", { response_type: "token" }, "unsupported_response_type"],
  ["a fragment answer", { response_mode: "fragment" }, "invalid_request"],
  ["no PKCE", { code_challenge: undefined, code_challenge_method: undefined }, "invalid_request"],
  ["a challenge without a method", { code_challenge_method: undefined }, "invalid_request"],
  ["PKCE by plain text", { code_challenge_method: "plain" }, "invalid_request"],
  ["a short challenge", { code_challenge: "abc" }, "invalid_request"],
  ["an unknown prompt", { prompt: "guess" }, "invalid_request"],
  ["prompt=none with another value", { prompt: "none login" }, "invalid_request"],
  ["a max_age that is no number", { max_age: "soon" }, "invalid_request"],
  ["a request object", { request: "e30.e30." }, "request_not_supported"],
  ["a foreign resource", { resource: "https://other.example/mcp" }, "invalid_target"],
  ["the API as the resource", { resource: API }, "sign-in"],
  ["prompt=none without a session", { prompt: "none" }, "login_required"],
])("%s is answered with: %3$s", (_what, changed, expected) => {
  expect(outcome(visit(plain, changed))).toBe(expected);
});

test("a parameter that comes twice is refused, as a page while it makes the redirect unsafe", () => {
  const twice = (name: string): string => {
    const parameters = new URLSearchParams(valid);
    parameters.append(name, parameters.get(name) ?? "");
    return outcome(visit(plain, {}, { parameters }));
  };
  expect(["client_id", "redirect_uri", "state", "scope", "code_challenge"].map(twice)).toEqual([
    ...["page", "page"],
    ...["invalid_request", "invalid_request", "invalid_request"],
  ]);
});

test("each answer to the client has its state and the issuer", () => {
  const refused = visit(plain, { response_type: "token" });
  if (refused.kind !== "error") throw new Error("expected a redirect");
  const url = new URL(refused.location);
  expect(url.origin + url.pathname).toBe(valid.redirect_uri);
  expect(Object.fromEntries(url.searchParams)).toMatchObject({ state: "s1", iss: setting.baseUrl });
});

test.each<[what: string, changed: Record<string, string>, expected: string]>([
  ["no prompt", {}, "ann of acme"],
  ["prompt=none", { prompt: "none" }, "ann of acme"],
  ["prompt=login", { prompt: "login" }, "sign-in"],
  ["prompt=select_account", { prompt: "select_account" }, "sign-in"],
  ["a hint at the same person", { login_hint: "ANN@acme.example" }, "ann of acme"],
  ["a hint at another person", { login_hint: "bob@bolt.example" }, "sign-in"],
  ["prompt=none with a hint at another person", { prompt: "none", login_hint: "bob" }, "login_required"],
  ["a session that is young enough", { max_age: "101" }, "ann of acme"],
  ["a session that is too old", { max_age: "100" }, "sign-in"],
  ["prompt=none and a session that is too old", { prompt: "none", max_age: "100" }, "login_required"],
])("with a session, %s leads to: %3$s", (_what, changed, expected) => {
  const session = { sub: "ann", organisation: "acme", authTimeS: 900 };
  expect(outcome(visit(plain, changed, { session }))).toBe(expected);
});

test("a session of a person or an organisation that is no choice any more shows the page", () => {
  for (const session of [
    { sub: "carl", organisation: "acme", authTimeS: 900 },
    { sub: "ann", organisation: "core", authTimeS: 900 },
  ])
    expect(outcome(visit(plain, {}, { session }))).toBe("sign-in");
});

test.each<[provider: string, changed: Record<string, string>, directory: string | undefined, expected: string[]]>([
  ["plain", {}, undefined, ["ann acme", "ann bolt", "bob undefined"]],
  ["auth0", {}, undefined, ["ann undefined", "bob undefined"]],
  ["auth0", { organization: "acme" }, undefined, ["ann acme", "bob acme"]],
  ["cognito", {}, undefined, ["ann acme", "bob undefined"]],
  ["entra", {}, "acme", ["ann acme"]],
  ["entra", {}, "bolt", ["ann bolt"]],
  ["entra", {}, "common", ["ann acme", "ann bolt"]],
])("%s with %j in the directory %s offers %j", (name, changed, directory, expected) => {
  const provider = providers.find((each) => each.name === name) ?? plain;
  const answer = visit(provider, changed, { directory });
  if (answer.kind !== "sign-in") throw new Error(answer.kind);
  expect(answer.choices.map(({ person, organisation }) => `${person.sub} ${organisation}`)).toEqual(expected);
});

test("only a person whom the page offers can be picked", () => {
  const pick = (provider: Provider, sub: string, organisation?: string): string =>
    outcome(visit(provider, {}, { pick: { sub, organisation } }));
  expect(pick(plain, "ann", "bolt")).toBe("ann of bolt");
  expect(pick(plain, "ann", "core")).toBe("page");
  expect(pick(plain, "ann")).toBe("page");
  expect(pick(plain, "carl", "acme")).toBe("page");
  expect(pick(entra, "ann", "acme")).toBe("ann of acme");
  expect(pick(entra, "ann", "bolt"), "another directory").toBe("page");
});

test("a hinted person comes first", () => {
  const answer = visit(plain, { login_hint: "bob@bolt.example" });
  if (answer.kind !== "sign-in") throw new Error(answer.kind);
  expect(answer.choices.map(({ person }) => person.sub)).toEqual(["bob", "ann", "ann"]);
});

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

const grant: Grant = {
  clientId: "web",
  sub: "ann",
  organisation: "acme",
  scopes: ["openid", "profile", "email", "tools:read"],
  audience: API,
  nonce: "n1",
  authTimeS: 900,
  hasMaxAge: false,
};
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
  expect(providers.map(({ issuer }) => issuer("acme"))).toEqual([
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

test("a person grants no scope that they may not use, where the provider has permissions", () => {
  const asked = {
    scopes: ["openid", "tools:read", "tools:write", "unknown"],
    audience: API,
    resources: [],
    organization: undefined,
  };
  expect(plain.grantScopes(asked, ann)).toEqual(["openid", "tools:read"]);
  expect(plain.grantScopes({ ...asked, scopes: undefined }, ann), "the default").toEqual(["tools:read"]);
  expect(auth0.grantScopes(asked, ann)).toEqual(["openid", "tools:read"]);
  expect(auth0.grantScopes({ ...asked, audience: undefined }, ann), "no API").toEqual(["openid"]);
});

test("a verifier must be the text behind the challenge", () => {
  expect(verifiesChallenge(verifier, challenge)).toBe(true);
  expect(verifiesChallenge(`${verifier}a`, challenge)).toBe(false);
  expect(verifiesChallenge(challenge, challenge), "the plain method").toBe(false);
  const short = "too-short";
  expect(verifiesChallenge(short, createHash("sha256").update(short).digest("base64url"))).toBe(false);
});

describe("a code", () => {
  const redirectUri = valid.redirect_uri;
  const redeem = (grants: Grants, code: string, changed: object = {}, nowMs = 0) =>
    grants.redeemCode({ code, clientId: "web", redirectUri, verifier, ...changed }, nowMs);

  test.each<[what: string, changed: object, nowMs: number, accepted: boolean]>([
    ["in time", {}, 59_999, true],
    ["after a minute", {}, 60_000, false],
    ["from another client", { clientId: "other" }, 0, false],
    ["with another redirect URI", { redirectUri: "http://127.0.0.1/callback" }, 0, false],
    ["without a redirect URI", { redirectUri: undefined }, 0, false],
    ["with another verifier", { verifier: "x".repeat(43) }, 0, false],
    ["without a verifier", { verifier: undefined }, 0, false],
  ])("that comes %s is accepted: %4$s", (_what, changed, nowMs, accepted) => {
    const grants = new Grants();
    const code = grants.issueCode(grant, { redirectUri, challenge }, 0);
    expect("grant" in redeem(grants, code, changed, nowMs)).toBe(accepted);
  });

  test("works once, and a second time revokes all tokens of its grant", () => {
    const grants = new Grants();
    const code = grants.issueCode(grant, { redirectUri, challenge }, 0);
    const first = redeem(grants, code);
    if ("refused" in first) throw new Error(first.refused.description);
    const refreshToken = grants.issueRefreshToken(first.grant, 0);
    grants.addAccessToken("a1", first.grant, 0);
    expect(grants.findByAccessToken("a1", 0)).toBeDefined();
    expect(redeem(grants, code)).toMatchObject({ refused: { error: "invalid_grant" } });
    expect(grants.findByAccessToken("a1", 0)).toBeUndefined();
    const later = grants.redeemRefreshToken({ token: refreshToken, clientId: "web", scopes: undefined }, 0);
    expect(later).toMatchObject({ refused: { error: "invalid_grant" } });
  });

  test("is used up by an attempt with a wrong verifier", () => {
    const grants = new Grants();
    const code = grants.issueCode(grant, { redirectUri, challenge }, 0);
    redeem(grants, code, { verifier: "x".repeat(43) });
    expect("refused" in redeem(grants, code)).toBe(true);
  });
});

describe("a refresh token", () => {
  const refresh = (grants: Grants, token: string, changed: object = {}, nowMs = 0) =>
    grants.redeemRefreshToken({ token, clientId: "web", scopes: undefined, ...changed }, nowMs);
  const live = () => ({ ...grant, revoked: false });

  test("works once, and a second time revokes its successors", () => {
    const grants = new Grants();
    const held = live();
    const first = grants.issueRefreshToken(held, 0);
    expect("grant" in refresh(grants, first)).toBe(true);
    const second = grants.issueRefreshToken(held, 0);
    expect(refresh(grants, first)).toMatchObject({ refused: { error: "invalid_grant" } });
    expect(refresh(grants, second)).toMatchObject({ refused: { error: "invalid_grant" } });
  });

  test("belongs to one client, for thirty days, with at most the granted scopes", () => {
    const grants = new Grants();
    const token = grants.issueRefreshToken(live(), 0);
    expect("refused" in refresh(grants, token, { clientId: "other" })).toBe(true);
    expect("refused" in refresh(grants, token, {}, 30 * 86_400_000)).toBe(true);
    expect(refresh(grants, token, { scopes: ["tools:write"] })).toMatchObject({ refused: { error: "invalid_scope" } });
    expect(refresh(grants, token, { scopes: ["openid"] }), "fewer scopes").toMatchObject({ scopes: ["openid"] });
  });
});

const secretClient: Client = { ...client, id: "a b", secret: "s:é/" };
const basic = (id: string, secret: string): string =>
  `Basic ${Buffer.from(`${encodeURIComponent(id)}:${encodeURIComponent(secret)}`).toString("base64")}`;

test.each<[what: string, header: string | undefined, form: Record<string, string>, expected: string]>([
  ["a public client", undefined, { client_id: "web" }, "web"],
  ["a secret in the form", undefined, { client_id: "a b", client_secret: "s:é/" }, "a b"],
  ["a secret in the header", basic("a b", "s:é/"), {}, "a b"],
  ["a header and the same id in the form", basic("a b", "s:é/"), { client_id: "a b" }, "a b"],
  ["a header and another id in the form", basic("a b", "s:é/"), { client_id: "web" }, "invalid_request"],
  ["two ways at once", basic("a b", "s:é/"), { client_secret: "s:é/" }, "invalid_request"],
  ["a wrong secret", basic("a b", "s"), {}, "invalid_client"],
  ["no secret", undefined, { client_id: "a b" }, "invalid_client"],
  ["a secret of a public client", undefined, { client_id: "web", client_secret: "x" }, "invalid_client"],
  ["an unknown client", undefined, { client_id: "none" }, "invalid_client"],
  ["no client", undefined, {}, "invalid_client"],
  ["another scheme", "Bearer x", { client_id: "web" }, "invalid_client"],
  ["a broken header", "Basic %%%", { client_id: "web" }, "invalid_client"],
])("a token request with %s is of: %4$s", (_what, header, form, expected) => {
  const found = authenticateClient(header, new Map(Object.entries(form)), (id) =>
    [client, secretClient].find((each) => each.id === id),
  );
  expect("client" in found ? found.client.id : found.refused.error).toBe(expected);
});

test("an empty parameter counts as absent, and only resource may come twice", () => {
  expect(readParameters(new URLSearchParams("a=&b=1")).values).toEqual(new Map([["b", "1"]]));
  expect(readParameters(new URLSearchParams("resource=1&resource=2")).twice).toBeUndefined();
  expect(readParameters(new URLSearchParams("a=&a=1")).twice).toBe("a");
});

test("a bounded map forgets its oldest entries", () => {
  const map = new BoundedMap<number>(2);
  for (const [index, key] of ["a", "b", "c"].entries()) map.set(key, index);
  expect(["a", "b", "c"].map((key) => map.get(key))).toEqual([undefined, 1, 2]);
});

test("each demonstration tenant has an owner and a member, and one person belongs to two of them", () => {
  const tenants = ["Willow Books", "Harbour Tools", "A third one"].map((name, index) => ({ id: `t${index}`, name }));
  const people = demonstrationPeople(tenants, ["tools:read", "tools:write"]);
  const rolesIn = (id: string): string[] =>
    people.filter(({ organisations }) => organisations.some((each) => each.id === id)).flatMap(({ roles }) => roles);
  expect(rolesIn("t0")).toEqual(["owner", "member", "developer"]);
  expect(rolesIn("t2")).toEqual(["owner", "member"]);
  expect(people.find(({ roles }) => roles.includes("member"))?.permissions).toEqual(["tools:read"]);
  expect(people.filter(({ organisations }) => organisations.length === 2)).toHaveLength(1);
  expect(
    people.filter(({ organisations, emailVerified }) => organisations.length === 0 && !emailVerified),
  ).toHaveLength(1);
  expect(new Set(people.map(({ sub }) => sub)).size).toBe(people.length);
});
