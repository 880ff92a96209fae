// The rules of the local issuer, over plain values: who may be sent where, and what a code, a token and a secret are good for.
import { createHash } from "node:crypto";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  type Client,
  authenticateClient,
  matchesRedirect,
  readParameters,
  redirectProblem,
} from "../../dev/issuer/clients.ts";
import { BoundedMap, Grants, verifiesChallenge } from "../../dev/issuer/grants.ts";
import { demonstrationPeople } from "../../dev/issuer/people.ts";
import type { Provider } from "../../dev/issuer/provider.ts";
import {
  API,
  ann,
  auth0,
  challenge,
  client,
  entra,
  grant,
  outcome,
  plain,
  providers,
  setting,
  valid,
  verifier,
  visit,
} from "../support/issuer-visit.ts";

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

test("a redirect that is accepted differs from a registered one in its port at most", () => {
  const part = fc.constantFrom(
    "http:",
    "https:",
    "//",
    "/",
    "127.0.0.1",
    "localhost",
    "[::1]",
    ":80",
    ":9",
    "@",
    ".",
    "..",
    "cb",
    "?a=1",
    "#",
    "%2f",
    "evil.example",
    "\\",
    "\t",
    " ",
  );
  const uri = fc.array(part, { maxLength: 8 }).map((parts) => parts.join(""));
  const near = fc
    .tuple(fc.constantFrom("127.0.0.1", "localhost", "[::1]"), uri)
    .map(([host, rest]) => `http://${host}${rest}`);
  const withoutPort = (text: string): string => {
    const url = new URL(text);
    url.port = "";
    return url.href;
  };
  let accepted = 0;
  fc.assert(
    fc.property(near, near, (registered, given) => {
      fc.pre(redirectProblem(registered) === undefined);
      if (!matchesRedirect(registered, given)) return;
      accepted += 1;
      expect(withoutPort(given)).toBe(withoutPort(registered));
    }),
    { numRuns: 5_000 },
  );
  expect(accepted).toBeGreaterThan(20);
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
  ["nothing unusual", {}, "sign-in"],
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
])("an authorization request with %s gets its answer", (_what, changed, expected) => {
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
])("a browser with a session and %s gets its answer", (_what, changed, expected) => {
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
  ])("that comes %s is accepted or refused", (_what, changed, nowMs, accepted) => {
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
    grants.addAccessToken("a1", first.grant, ["openid"], 0);
    expect(grants.findByAccessToken("a1", 0)).toMatchObject({ sub: "ann", scopes: ["openid"] });
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
])("a token request with %s is of its client, or refused", (_what, header, form, expected) => {
  const found = authenticateClient(header, new Map(Object.entries(form)), (id) =>
    [client, secretClient].find((each) => each.id === id),
  );
  expect("client" in found ? found.client.id : found.refused.error).toBe(expected);
});

test("an empty parameter counts as absent, and only resource may come twice", () => {
  expect(readParameters(new URLSearchParams("a=&b=1")).values).toEqual(new Map([["b", "1"]]));
  expect(readParameters(new URLSearchParams("resource=1&resource=2")).twice).toEqual([]);
  expect(readParameters(new URLSearchParams("a=&a=1&b=1&b=2")).twice).toEqual(["a", "b"]);
});

test("a bounded map forgets its oldest entries", () => {
  const map = new BoundedMap<number>(2);
  for (const [index, key] of ["a", "b", "c"].entries()) map.set(key, index);
  expect(["a", "b", "c"].map((key) => map.get(key))).toEqual([undefined, 1, 2]);
});

test("each demonstration tenant has an owner and a member, and one person belongs to two of them", () => {
  const tenants = ["Willow Books", "Harbour Tools", "柳書店"].map((name, index) => ({ id: `t${index}`, name }));
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
