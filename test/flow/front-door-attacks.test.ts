// Attacks on the front door, one line each: what an attacker sends, which wall it meets, how it is refused, and the legitimate
// request beside it that succeeds, so that no line passes because everything is refused.
// Two tenants: acme, whom the attacker is in or comes for, and bolt, whose data the attacker wants.
import { createServer } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { mintCredential } from "../../src/core/keys/credentials.ts";
import { aJwt, callTool, controlRows, modernMeta, operator, postMcp, system } from "../support/flow.ts";
import {
  type Asked,
  ISSUER,
  Provider,
  type Side,
  aCallback,
  aCode,
  aGrant,
  aSide,
  asks,
  bearer,
  challengeOf,
  changed,
  cookies,
  emailOf,
  mallorysJwk,
  send,
  sendRaw,
  tokensIn,
  urlWith,
} from "../support/front-door.ts";
import { type Came, outcomeOf } from "../support/outcomes.ts";
import { mailedToken } from "../support/people.ts";
import { formsOf } from "../support/plain-browser.ts";
import { Browser, REDIRECT, aPerson, anAuthorization, isSignedIn, token } from "../support/sign-in.ts";

let acme: Side;
let bolt: Side;
let idp: Provider;
/** A support operator who acts for acme. */
let impersonation: string;
beforeAll(async () => {
  [acme, bolt] = await Promise.all([aSide(), aSide()]);
  idp = await Provider.start(acme.id);
  const support = await aJwt({ sub: "sam", scope: "admin:global", roles: ["support"] });
  const path = `/admin/api/tenants/${acme.id}/impersonations`;
  const started = await send("POST", path, bearer(support), { reason: "The table of attacks" });
  impersonation = ((await started.json()) as { token: string }).token;
});
afterAll(() => idp.stop());

const HTTPS = "https://client.example/callback";
const MCP = {
  jsonrpc: "2.0",
  id: 1,
  method: "tools/call",
  params: { name: "get_usage", arguments: {}, _meta: modernMeta },
};
const mcp = (credential: string | undefined, headers = {}): Promise<Response> => postMcp(credential, MCP, headers);
const own = (path = ""): string => `/api/tenants/${acme.id}${path}`;
const json = async <Body>(response: Promise<Response>): Promise<Body> => (await (await response).json()) as Body;
const OWN_ORIGIN = { origin: system.publicUrl };
const EVIL = { origin: "https://evil.example" };

/** The tenant for which a call acts. */
async function actsFor(credential: string, headers: Record<string, string>): Promise<string> {
  const call = { ...MCP, params: { ...MCP.params, name: "health_check" } };
  const { result } = await json<{ result: { structuredContent: { tenant: string } } }>(
    postMcp(credential, call, headers),
  );
  return result.structuredContent.tenant === acme.id ? "acts for its own tenant" : "acts for another tenant";
}

/** A consent page of acme's owner, and what its form would send. */
async function aConsent(): Promise<{
  asked: Asked;
  page: Awaited<ReturnType<Browser["page"]>>;
  fields: Record<string, string>;
}> {
  const asked = await anAuthorization();
  const page = await acme.owner.page(asked.url);
  const form = formsOf(page.html).find(({ choices }) => choices.some(([, value]) => value === "allow"));
  return { asked, page, fields: { tenant: acme.id, ...Object.fromEntries(form?.fields ?? []), decision: "allow" } };
}

/** Sends a consent's form as any program can, and follows nothing. A page that leads on to the client counts as that. */
async function consents(fields: Record<string, string>, headers: Record<string, string>): Promise<string> {
  const response = await send(
    "POST",
    "/oauth/consent",
    { ...cookies(acme.owner), ...headers },
    new URLSearchParams(fields),
  );
  const html = await response.text();
  return html.includes("Access granted") ? "granted" : `${response.status} page`;
}

const grantsOf = async (side: Side): Promise<number> =>
  (await json<{ grants: unknown[] }>(operator("GET", `/tenants/${side.id}/grants`))).grants.length;

/** Where a browser that signs in with this `return` ends. */
async function returnsTo(path: string): Promise<string> {
  const browser = new Browser();
  const url = `${system.publicUrl}/sign-in?return=${encodeURIComponent(path)}`;
  const sub = await aPerson([]);
  const end = await browser.submit(await browser.page(url), { sub });
  return end instanceof URL ? `away to ${end.origin}` : end.url.pathname;
}

/** A client that describes itself in this document. */
async function describes(url: string, document: Record<string, unknown>): Promise<void> {
  const body = {
    client_id: url,
    client_name: "Agent",
    redirect_uris: [HTTPS],
    token_endpoint_auth_method: "none",
    ...document,
  };
  await fetch(`${system.publicUrl}/test/document?url=${url}`, { method: "POST", body: JSON.stringify(body) });
}

/** What becomes of a client id at an address of this machine or network, and whether anyone connected to a port of this machine. */
async function fetches(urlOf: (port: number) => string): Promise<string> {
  let connections = 0;
  const server = createServer((socket) => {
    connections += 1;
    socket.destroy();
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const address = server.address();
  const clientId = urlOf(typeof address === "object" && address !== null ? address.port : 0);
  const page = await asks({ client_id: clientId, redirect_uri: HTTPS });
  const redeemed = await token({
    grant_type: "authorization_code",
    client_id: clientId,
    code: "x",
    code_verifier: "y",
  });
  const basic = { authorization: `Basic ${btoa(`${encodeURIComponent(clientId)}:x`)}` };
  const byHeader = await send("POST", "/oauth/token", basic, new URLSearchParams({ grant_type: "refresh_token" }));
  server.close();
  return `${await outcome([page, redeemed, byHeader])}, ${connections} connections`;
}

/** An invitation to acme, its token, and the person it is for. */
async function anInvitation(role = "member") {
  const sub = await aPerson([]);
  const invited = await send("POST", own("/invitations"), bearer(acme.ownerToken), { email: emailOf(sub), role });
  const { id } = (await invited.json()) as { id: string };
  return { id, sub, token: await mailedToken(emailOf(sub)) };
}
const accepts = async (invitation: string, sub: string): Promise<Response> =>
  send("POST", "/api/invitations/accept", bearer(await aJwt({ sub, email: emailOf(sub) })), { token: invitation });

async function acceptsAfter(change: (invitation: { id: string }) => Promise<unknown>): Promise<Response> {
  const invitation = await anInvitation();
  await change(invitation);
  return accepts(invitation.token, invitation.sub);
}

/** Whether a sign-in with the address that was invited, or with another verified one, makes its person a member. */
async function joins(invitedTo: (sub: string) => string): Promise<string> {
  const sub = await aPerson([]);
  const email = invitedTo(sub);
  await send("POST", own("/invitations"), bearer(acme.ownerToken), { email, role: "member" });
  const browser = new Browser();
  await browser.signIn(`${system.publicUrl}/sign-in`, { sub });
  return outcome(await send("GET", own(), cookies(browser)));
}

/** Many registrations from one address. */
async function flood(address: string): Promise<Came> {
  for (let sent = 0; sent < 300; sent += 20) {
    const register = () =>
      send("POST", "/oauth/register", { "cf-connecting-ip": address, "content-type": "application/json" }, "{}");
    const answers = await Promise.all(Array.from({ length: 20 }, register));
    const refused = answers.find(({ status }) => status === 429);
    if (refused !== undefined) return refused;
  }
  return "never refused";
}

/** A former refresh token is sent again, after its successor was used. The newest tokens of the grant show whether it ended. */
async function replaysRefresh(): Promise<Came> {
  const { refresh, refreshToken } = await aGrant(acme.owner, acme.id);
  const second = await tokensIn(await refresh());
  const third = await tokensIn(await refresh(second.refresh_token));
  return [await refresh(refreshToken), await mcp(third.access_token), await refresh(third.refresh_token)];
}

/** A person sees the form; before it is submitted, another person signs in with the same browser. */
async function consentsAsAnother(): Promise<Came> {
  const browser = new Browser();
  const [sub, other] = [await aPerson([acme.id]), await aPerson([acme.id])];
  const consent = await browser.signIn((await anAuthorization()).url, { sub });
  await browser.submit(await browser.page(`${system.publicUrl}/sign-in?prompt=select_account`), { sub: other });
  return browser.submit(consent, { decision: "allow" });
}

/** A session that was put into the browser before its owner signed in. */
async function fixates(): Promise<string> {
  const [mallory, victim] = [new Browser(), new Browser()];
  await mallory.signIn(`${system.publicUrl}/sign-in`, { sub: await aPerson([]) });
  const planted = mallory.session;
  victim.cookies(system.publicUrl).set("__Host-tollgate-session", planted);
  const sub = await aPerson([acme.id]);
  const page = await victim.page(`${system.publicUrl}/sign-in?prompt=select_account`);
  await victim.submit(page, { sub });
  return `${victim.session === planted ? "kept" : "replaced"}, ${(await isSignedIn(planted)) ? "works" : "ended"}`;
}

const outcome = (came: Came): Promise<string> => outcomeOf(came, [new URL(REDIRECT).origin, new URL(HTTPS).origin]);
const after = async (work: Promise<unknown>, came: () => Promise<Came>): Promise<Came> => (await work, came());
const lookAlike = (id: string): string =>
  encodeURIComponent(
    id.replace(/[a-z]/, (letter) => ({ a: "а", e: "е", o: "о", c: "с", p: "р", x: "х" })[letter] ?? `${letter}\u0301`),
  );

type Attack = [
  attack: string,
  wall: string,
  refused: string,
  attacks: () => Came | Promise<Came>,
  twin?: () => Came | Promise<Came>,
];

// oxfmt-ignore
const tokens: Attack[] = [
  ["a JWT with alg none", "the fixed list of algorithms", "401 invalid_token", () => mcp(idp.token({ header: { alg: "none" }, by: "none" })), () => mcp(idp.token())],
  ["a JWT with HS256 and the public key as its secret", "the fixed list of algorithms", "401 invalid_token", () => mcp(idp.token({ header: { alg: "HS256" }, by: "publicKey" }))],
  ["a JWT whose kid no key has", "the provider's key set", "401 invalid_token", () => mcp(idp.token({ header: { kid: "k2" } })), () => mcp(idp.token({ header: { kid: undefined } }))],
  ["a JWT whose kid is a path", "the provider's key set", "401 invalid_token", () => mcp(idp.token({ header: { kid: "../../dev/null" }, by: "mallorys" }))],
  ["a JWT of another key under the right kid", "the signature", "401 invalid_token", () => mcp(idp.token({ by: "mallorys" }))],
  ["a JWT that brings its key (jwk)", "the provider's key set", "401 invalid_token", () => mcp(idp.token({ header: { kid: "mallory", jwk: mallorysJwk }, by: "mallorys" }))],
  ["a JWT that names its key set (jku)", "the provider's key set, the only one that is asked", "401 invalid_token, then no one was asked", async () => [await mcp(idp.token({ header: { kid: "mallory", jku: `${idp.url}/mallory` }, by: "mallorys" })), idp.asked.length === 0 ? "no one was asked" : idp.asked.join()]],
  ["a JWT that names its certificate (x5u)", "the provider's key set, the only one that is asked", "401 invalid_token, then no one was asked", async () => [await mcp(idp.token({ header: { kid: "mallory", x5u: `${idp.url}/mallory` }, by: "mallorys" })), idp.asked.length === 0 ? "no one was asked" : idp.asked.join()]],
  ["a JWT with an extension that must be understood (crit)", "the verifier, which knows no extension", "401 invalid_token", () => mcp(idp.token({ header: { crit: ["exp-policy"], "exp-policy": "none" } }))],
  ["a JWT whose payload is not encoded (b64 false)", "the verifier of JWTs", "401 invalid_token", () => mcp(idp.token({ header: { b64: false, crit: ["b64"] }, isUnencoded: true }))],
  ["a JWT within a JWT", "the verifier, which reads claims only", "401 invalid_token", () => mcp(idp.token({ header: { cty: "JWT" }, payload: idp.token() }))],
  ["an encrypted JWT (JWE)", "the verifier of signatures", "401 invalid_token", () => mcp(`${Buffer.from('{"alg":"dir","enc":"A256GCM"}').toString("base64url")}..aaaa.bbbb.cccc`)],
  ["a JWT for a foreign audience", "the audience, which is exact", "401 invalid_token", () => mcp(idp.token({ claims: { aud: "https://other.example/mcp" } })), () => mcp(idp.token({ claims: { aud: ["https://other.example", `${system.publicUrl}/mcp`] } }))],
  ["a JWT for an audience that begins alike", "the audience, which is exact", "401 invalid_token", () => mcp(idp.token({ claims: { aud: `${system.publicUrl}/mcp/more` } }))],
  ["a JWT for the operator API, at the MCP endpoint", "the audience, which is exact", "401 invalid_token", () => mcp(idp.token({ claims: { aud: `${system.publicUrl}/admin/api` } }))],
  ["a JWT of an issuer that is not trusted", "the list of issuers", "401 invalid_token", () => mcp(idp.token({ claims: { iss: "https://idp.evil.example" } }))],
  ["a JWT whose issuer differs by a slash", "the list of issuers", "401 invalid_token", () => mcp(idp.token({ claims: { iss: `${ISSUER}/` } }))],
  ["a JWT of one trusted issuer in the name of another", "the key set of the named issuer", "401 invalid_token", () => mcp(idp.token({ claims: { iss: system.issuerUrl, tenant_id: bolt.id } }))],
  ["a JWT of an issuer for a tenant that is linked to another issuer", "the link of issuer and organisation", "403 tenant_unknown", () => mcp(idp.token({ claims: { tenant_id: bolt.id } }))],
  ["a JWT without an organisation", "the claims that must be there", "401 invalid_token", () => mcp(idp.token({ claims: { tenant_id: undefined } }))],
  ["a JWT whose signature has another character", "the signature", "401 invalid_token", () => mcp(idp.token().replace(/(?<=\.)[^.]{20}(?=[^.]*$)/, "A".repeat(20)))],
  ["a JWT whose claims were replaced", "the signature", "401 invalid_token", () => mcp(idp.token().replace(/(?<=\.)[^.]+(?=\.)/, idp.token({ claims: { sub: "root" } }).split(".")[1] ?? ""))],
  ["a set-up token at the MCP endpoint", "the kinds of credentials of the MCP endpoint", "401 invalid_token", async () => mcp(await mintCredential(system.credentialKey, { kind: "setup", tenantId: acme.id as never, fields: [String(Date.now() + 60_000)] }))],
  ["a monitor token at the MCP endpoint", "the kinds of credentials of the MCP endpoint", "401 invalid_token", async () => mcp(await mintCredential(system.credentialKey, { kind: "monitor", tenantId: acme.id as never, fields: ["1"] }))],
  ["an expired JWT", "the expiry", "401 invalid_token", () => mcp(idp.token({ claims: { exp: Math.floor(Date.now() / 1_000) - 60 } }))],
  ["a JWT without an expiry", "the claims that must be there", "401 invalid_token", () => mcp(idp.token({ claims: { exp: undefined } }))],
  ["a JWT that is not valid yet", "the start of validity", "401 invalid_token", () => mcp(idp.token({ claims: { nbf: Math.floor(Date.now() / 1_000) + 600 } })), () => mcp(idp.token({ claims: { nbf: Math.floor(Date.now() / 1_000) - 1 } }))],
  ["a JWT of more than 32 KB", "the size limit, before any signature is checked", "401 invalid_token", () => mcp(idp.token({ claims: { more: "x".repeat(30_000) } })), () => mcp(idp.token({ claims: { more: "x".repeat(20_000) } }))],
  ["a JWT with the organisation twice", "the check for repeated names", "401 invalid_token", () => mcp(idp.token({ payload: idp.payloadWith(`"tenant_id":"org-of-${acme.id}"`) })), () => mcp(idp.token({ payload: idp.payloadWith(`"more":{"tenant_id":"x"}`) }))],
  ["a JWT with a claim twice, once in another spelling", "the check for repeated names", "401 invalid_token", () => mcp(idp.token({ payload: idp.payloadWith(String.raw`"\u0073ub":"root"`) }))],
  ["a key of one tenant with a header that names another", "the tenant in the credential, the only one that counts", "acts for its own tenant", () => actsFor(acme.apiKey, { "x-tenant-id": bolt.id, "x-tollgate-tenant": bolt.id, "x-forwarded-user": bolt.id })],
  ["a key in which the tenant was replaced", "the MAC of the key", "401 invalid_token", () => mcp(acme.apiKey.replace(acme.id, bolt.id)), () => mcp(acme.apiKey)],
  ["an OAuth token in which the tenant was replaced", "the MAC of the token's subject", "401 invalid_token", async () => mcp((await aGrant(acme.owner, acme.id)).access.replace(acme.id, bolt.id)), async () => mcp((await aGrant(acme.owner, acme.id)).access)],
  ["a key and another key in two Authorization headers", "the form of one bearer token", "401", () => sendRaw("/api/tenants/x", ["Authorization", `Bearer ${acme.adminKey.apiKey}`, "Authorization", `Bearer ${bolt.adminKey.apiKey}`]), () => sendRaw(own(), ["Authorization", `Bearer ${acme.adminKey.apiKey}`])],
  ["an API key in the query of the MCP endpoint", "the bearer header, the only place of a token", "401 token_missing", () => postMcp(undefined, MCP, {}, `/mcp?access_token=${acme.apiKey}&token=${acme.apiKey}`)],
  ["the operator token in a query", "the bearer header, the only place of a token", "401 token_missing", () => send("GET", `/admin/api/tenants?limit=1&token=${system.operatorToken}`), () => operator("GET", "/tenants?limit=1")],
  ["a customer's token with an operator's roles, at the operator API", "the audience of the operator API", "401 token_invalid", async () => send("GET", "/admin/api/tenants", bearer(await aJwt({ tenant_id: acme.id, scope: "tools:read", roles: ["admin"] })))],
  ["an operator's token with alg none", "the fixed list of algorithms", "401 token_invalid", async () => send("GET", "/admin/api/tenants", bearer((await aJwt({ sub: "eve", scope: "admin:global", roles: ["admin"] })).replace(/^[^.]+/, Buffer.from('{"alg":"none"}').toString("base64url")).replace(/[^.]+$/, "")))],
  ["a header of Cloudflare Access where Access is not set up", "the operator's settings", "401 token_missing", async () => send("GET", "/admin/api/tenants", { "cf-access-jwt-assertion": await aJwt({ sub: "eve", aud: "x", type: "app" }) })],
];

// oxfmt-ignore
const paths: Attack[] = [
  ["a tenant id in look-alike letters", "the form of tenant ids", "404 not_found", () => send("GET", `/api/tenants/${lookAlike(acme.id)}`, bearer(acme.adminKey.apiKey)), () => send("GET", own(), bearer(acme.adminKey.apiKey))],
  ["a new tenant whose id is in look-alike letters", "the form of tenant ids", "400 bad_request", () => operator("POST", "/tenants", { plan: "free", name: "x", id: decodeURIComponent(lookAlike(acme.id)) })],
  ["an organisation in look-alike letters", "the link of issuer and organisation", "403 tenant_unknown", () => mcp(idp.token({ claims: { tenant_id: `оrg-of-${acme.id}` } }))],
  ["a tenant id in capitals", "the comparison of ids, which is exact", "404 not_found", () => send("GET", `/api/tenants/${bolt.id.toUpperCase()}`, bearer(bolt.adminKey.apiKey))],
  ["another tenant's id", "the tenant in the credential", "404 not_found", () => send("GET", `/api/tenants/${bolt.id}`, bearer(acme.adminKey.apiKey)), () => send("GET", `/api/tenants/${bolt.id}`, bearer(bolt.adminKey.apiKey))],
  ["a path that climbs to another tenant (%2f..%2f)", "the tenant in the credential", "404 not_found", () => send("GET", `/api/tenants/${acme.id}%2f..%2f${bolt.id}`, bearer(acme.adminKey.apiKey))],
  ["a path that climbs to the operator API (%2e%2e)", "the operator's guard", "401 token_invalid", () => send("GET", `/api/tenants/%2e%2e/%2e%2e/admin/api/tenants`, bearer(acme.adminKey.apiKey))],
  ["the operator API in other letters", "the table of routes", "404 not_found", () => send("GET", "/Admin/API/tenants", bearer(acme.adminKey.apiKey))],
  ["headers that name another method", "the method of the request, the only one that counts", "404, then 200", async () => [(await send("POST", own(`/keys/${acme.adminKey.id}`), { ...bearer(acme.ownerToken), "x-http-method-override": "DELETE", "x-http-method": "DELETE", "x-method-override": "DELETE" }, {})).status === 405 ? "404" : "not refused", await send("GET", own("/usage"), bearer(acme.adminKey.apiKey))]],
  ["headers that name another path", "the path of the request, the only one that counts", "404 not_found", () => send("GET", "/no-such-page", { ...bearer(acme.adminKey.apiKey), "x-original-url": own(), "x-rewrite-url": own() })],
];

// oxfmt-ignore
const clients: Attack[] = [
  ["a code that is used twice", "the single use of a code, whose replay ends the grant", "400 invalid_grant, then 401 invalid_token", async () => { const { exchange } = await aCode(acme.owner, acme.id); const issued = await tokensIn(await exchange()); return [await exchange(), await mcp(issued.access_token)]; }, async () => (await aCode(acme.owner, acme.id)).exchange()],
  ["a code with a wrong verifier", "PKCE", "400 invalid_grant", async () => (await aCode(acme.owner, acme.id)).exchange({ code_verifier: "v".repeat(64) })],
  ["a code without a verifier", "PKCE", "400 invalid_request", async () => (await aCode(acme.owner, acme.id)).exchange({ code_verifier: "" })],
  ["a code with the challenge as its verifier", "PKCE", "400 invalid_grant", async () => { const { exchange, verifier } = await aCode(acme.owner, acme.id); return exchange({ code_verifier: challengeOf(verifier) }); }],
  ["a request with a plain challenge", "PKCE, S256 only", "client: invalid_request", () => asks({ code_challenge_method: "plain" })],
  ["a request without the method of its challenge", "PKCE, S256 only", "client: invalid_request", () => asks({ code_challenge_method: undefined })],
  ["a request without a challenge", "PKCE", "client: invalid_request", () => asks({ code_challenge: undefined, code_challenge_method: undefined }), () => asks({})],
  ["a request for a token in the redirect (implicit)", "the response types", "client: unsupported_response_type", () => asks({ response_type: "token" })],
  ["a code in the hands of another client", "the client of the code", "400 invalid_grant", async () => { const [{ exchange }, other] = [await aCode(acme.owner, acme.id), await anAuthorization()]; return exchange({ client_id: other.clientId }); }],
  ["a code with another redirect URI", "the redirect URI of the code", "400 invalid_grant", async () => (await aCode(acme.owner, acme.id)).exchange({ redirect_uri: `${REDIRECT}/other` })],
  ["a code twice in one form", "the form, in which a name is there once", "400 invalid_request", async () => { const { clientId, code, verifier } = await aCode(acme.owner, acme.id); return send("POST", "/oauth/token", {}, new URLSearchParams([["grant_type", "authorization_code"], ["client_id", clientId], ["code", "x"], ["code", code], ["code_verifier", verifier]])); }],
  ["a code in the query of the token endpoint", "the form, the only place of a code", "400 bad_request", async () => { const { clientId, code, verifier } = await aCode(acme.owner, acme.id); return send("POST", `/oauth/token?${new URLSearchParams({ grant_type: "authorization_code", client_id: clientId, code, code_verifier: verifier }).toString()}`, {}, new URLSearchParams()); }],
  ["a code for another resource", "the resource of the grant", "400 invalid_target", async () => (await aCode(acme.owner, acme.id)).exchange({ resource: "https://other.example/mcp" }), async () => (await aCode(acme.owner, acme.id)).exchange({ resource: `${system.publicUrl}/mcp` })],
  ["a request for another resource", "the list of resources", "client: invalid_target", () => asks({ resource: "https://other.example/mcp" })],
  ["a code as an access token", "the digest of the token", "401 invalid_token", async () => mcp((await aCode(acme.owner, acme.id)).code)],
  ["a refresh token as an access token", "the digest of the token", "401 invalid_token", async () => mcp((await aGrant(acme.owner, acme.id)).refreshToken)],
  ["an access token as a refresh token", "the digest of the token", "400 invalid_grant", async () => { const { access, refresh } = await aGrant(acme.owner, acme.id); return refresh(access); }, async () => (await aGrant(acme.owner, acme.id)).refresh()],
  ["a refresh token that comes back after its successor was used", "the memory of spent tokens, which ends the grant", "400 invalid_grant, then 401 invalid_token, then 400 invalid_grant", replaysRefresh],
  ["a refresh token in the hands of another client", "the client of the grant", "400 invalid_grant", async () => { const [{ refreshToken }, other] = [await aGrant(acme.owner, acme.id), await aGrant(bolt.owner, bolt.id)]; return other.refresh(refreshToken); }],
  ["a refresh that asks for the admin scope", "the scopes of the consent", "400 invalid_scope", async () => (await aGrant(acme.owner, acme.id)).refresh(undefined, { scope: "tenant:admin" }), async () => (await aGrant(acme.owner, acme.id)).refresh(undefined, { scope: "tools:read" })],
  ["a refresh for another resource", "the resource of the grant", "400 invalid_target", async () => (await aGrant(acme.owner, acme.id)).refresh(undefined, { resource: "https://other.example/mcp" })],
  ["the grant type password", "the grant types", "400 unsupported_grant_type", async () => token({ grant_type: "password", client_id: (await anAuthorization()).clientId, username: "a", password: "b" })],
  ["the grant type client_credentials", "the grant types", "400 unsupported_grant_type", async () => token({ grant_type: "client_credentials", client_id: (await anAuthorization()).clientId })],
  ["an agent's OAuth token for tools at the account's routes", "the account scopes that the person ticks", "403 scope_missing", async () => send("GET", own(), bearer((await aGrant(acme.owner, acme.id)).access))],
  ["an agent's OAuth token at the operator API", "the operator's guard", "401 token_invalid", async () => send("GET", "/admin/api/tenants", bearer((await aGrant(acme.owner, acme.id)).access))],
  ["a client id that no one has registered", "the registrations", "400 page", () => asks({ client_id: "unknown" })],
  ["a redirect URI that begins with the registered one", "the comparison of redirect URIs, which is exact", "400 page", () => asks({ redirect_uri: `${HTTPS}/evil` }, HTTPS), () => asks({ redirect_uri: HTTPS }, HTTPS)],
  ["a redirect URI whose host begins with the registered one", "the comparison of redirect URIs, which is exact", "400 page", () => asks({ redirect_uri: "https://client.example.evil.example/callback" }, HTTPS)],
  ["a redirect URI with a user before the host", "the comparison of redirect URIs, which is exact", "400 page", () => asks({ redirect_uri: "https://client.example@evil.example/callback" }, HTTPS)],
  ["a redirect URI with a fragment", "the comparison of redirect URIs, which is exact", "400 page", () => asks({ redirect_uri: `${HTTPS}#evil` }, HTTPS)],
  ["a redirect URI with a query", "the comparison of redirect URIs, which is exact", "400 page", () => asks({ redirect_uri: `${HTTPS}?next=https://evil.example` }, HTTPS)],
  ["a redirect URI that climbs (..)", "the comparison of redirect URIs, which is exact", "400 page", () => asks({ redirect_uri: "https://client.example/callback/../evil" }, HTTPS)],
  ["a redirect URI in other letters", "the comparison of redirect URIs, which is exact", "400 page", () => asks({ redirect_uri: "https://client.example/Callback" }, HTTPS)],
  ["a redirect URI of another port on https", "the comparison of redirect URIs, which is exact", "400 page", () => asks({ redirect_uri: "https://client.example:8443/callback" }, HTTPS)],
  ["a redirect URI of another path on this machine", "the comparison of redirect URIs, exact but for the port", "400 page", () => asks({ redirect_uri: "http://127.0.0.1:45678/other" }), () => asks({ redirect_uri: "http://127.0.0.1:5/callback" })],
  ["a redirect URI of another name of this machine", "the comparison of redirect URIs, exact but for the port", "400 page", () => asks({ redirect_uri: "http://localhost:45678/callback" })],
  ["two redirect URIs in one request", "the request, in which a name is there once", "400 page", async () => new Browser().open(`${(await anAuthorization(HTTPS)).url}&redirect_uri=https://evil.example`)],
  ["a redirect URI with javascript:", "the schemes of redirect URIs", "400 page", async () => { const registered = await json<{ client_id?: string }>(send("POST", "/oauth/register", {}, { redirect_uris: ["javascript:alert(1)", HTTPS], token_endpoint_auth_method: "none" })); return asks({ client_id: registered.client_id ?? "none", redirect_uri: "javascript:alert(1)" }); }],
  ["a registration with only javascript:", "the schemes of redirect URIs", "400 invalid_client_metadata", () => send("POST", "/oauth/register", {}, { redirect_uris: ["javascript:alert(1)"] }), () => send("POST", "/oauth/register", {}, { redirect_uris: [HTTPS] })],
  ["a flood of registrations", "the rate of an address", "429 rate_limited", () => flood("2001:db8:f100:d::1"), () => send("POST", "/oauth/register", { "cf-connecting-ip": "2001:db8:f100:e::1" }, { redirect_uris: [HTTPS] })],
  ["a client document that names another client", "the client id in the document", "400 page", () => after(describes("https://thief.example/client.json", { client_id: "https://agent.example/client.json" }), () => asks({ client_id: "https://thief.example/client.json", redirect_uri: HTTPS }))],
  ["a client document whose redirect URI changes between the consent and the code", "the redirect URI of the code", "400 invalid_grant", async () => changesDocument("https://evil.example/callback"), async () => changesDocument(HTTPS)],
  ["a client document with a redirect URI of another client", "the redirect URIs of the document", "400 page", () => after(describes("https://agent2.example/client.json", {}), () => asks({ client_id: "https://agent2.example/client.json", redirect_uri: "https://evil.example/callback" })), () => asks({ client_id: "https://agent2.example/client.json", redirect_uri: HTTPS })],
  ["a client id at this machine's address", "the addresses that Tollgate fetches", "400 page, then 401 invalid_client, then 401 invalid_client, 0 connections", () => fetches((port) => `https://127.0.0.1:${port}/client.json`)],
  ["a client id at this machine's name", "the addresses that Tollgate fetches", "400 page, then 401 invalid_client, then 401 invalid_client, 0 connections", () => fetches((port) => `https://localhost:${port}/client.json`)],
  ["a client id at this machine's address in hexadecimal", "the addresses that Tollgate fetches", "400 page, then 401 invalid_client, then 401 invalid_client, 0 connections", () => fetches((port) => `https://0x7f000001:${port}/client.json`)],
  ["a client id at the cloud's metadata service", "the addresses that Tollgate fetches", "400 page, then 401 invalid_client, then 401 invalid_client, 0 connections", () => fetches(() => "https://169.254.169.254/latest/meta-data")],
  ["a client id at a private IPv6 address", "the addresses that Tollgate fetches", "400 page, then 401 invalid_client, then 401 invalid_client, 0 connections", () => fetches(() => "https://[fd00::1]/client.json")],
  ["a client id without TLS", "the addresses that Tollgate fetches", "400 page, then 401 invalid_client, then 401 invalid_client, 0 connections", () => fetches((port) => `http://127.0.0.1:${port}/client.json`)],
];

/** A client's document names another redirect URI when the client exchanges the code, which was sent to the first one. */
async function changesDocument(redirectUri: string): Promise<Response> {
  const id = `https://agent-${crypto.randomUUID()}.example/client.json`;
  await describes(id, {});
  const asked = await anAuthorization(HTTPS);
  const page = await acme.owner.page(urlWith(asked, { client_id: id }));
  const back = await acme.owner.submit(page, { decision: "allow", tenant: acme.id });
  await describes(id, { redirect_uris: [redirectUri] });
  const code = back instanceof URL ? (back.searchParams.get("code") ?? "") : "";
  return token({
    grant_type: "authorization_code",
    client_id: id,
    code,
    redirect_uri: redirectUri,
    code_verifier: asked.verifier,
  });
}

// oxfmt-ignore
const people: Attack[] = [
  ["a callback with another provider's iss", "the issuer in the answer (RFC 9207)", "403 page", async () => { const { browser, url } = await aCallback({ sub: await aPerson([acme.id]) }); return browser.open(changed(url, { iss: "https://idp.evil.example" })); }, async () => { const { browser, url } = await aCallback({ sub: await aPerson([acme.id]) }); return browser.open(url.href); }],
  ["a callback without the iss that the provider sends", "the issuer in the answer (RFC 9207)", "403 page", async () => { const { browser, url } = await aCallback({ sub: await aPerson([acme.id]) }); url.searchParams.delete("iss"); return browser.open(url.href); }],
  ["a callback with a made-up code", "the provider's token endpoint", "403 page", async () => { const { browser, url } = await aCallback({ sub: await aPerson([acme.id]) }); return browser.open(changed(url, { code: "made-up" })); }],
  ["a callback with the code of another sign-in", "the verifier and the nonce of the sign-in", "403 page", async () => { const [mine, theirs] = [await aCallback({ sub: await aPerson([acme.id]) }), await aCallback({ sub: await aPerson([bolt.id]) })]; return mine.browser.open(changed(mine.url, { code: theirs.url.searchParams.get("code") ?? "" })); }],
  ["a callback in another browser", "the browser that began", "400 page", async () => new Browser().open((await aCallback({ sub: await aPerson([acme.id]) })).url.href)],
  ["a callback that is opened twice", "the single use of a sign-in", "400 page", async () => { const { browser, url } = await aCallback({ sub: await aPerson([acme.id]) }); await browser.open(url.href); return browser.open(url.href); }],
  ["a callback with a made-up state", "the browser that began", "400 page", async () => { const { browser, url } = await aCallback({ sub: await aPerson([acme.id]) }); return browser.open(changed(url, { state: "made-up" })); }],
  ["a session that was planted before the sign-in", "the new session of each sign-in", "replaced, ended", fixates],
  ["a consent from another site", "the Origin of the form", "403 page", async () => consents((await aConsent()).fields, EVIL), async () => (await consents((await aConsent()).fields, OWN_ORIGIN)) === "granted" ? "200" : "refused"],
  ["a consent without any origin", "the Origin of the form", "403 page", async () => consents((await aConsent()).fields, {})],
  ["a consent from a page without an origin", "the Origin of the form", "403 page", async () => consents((await aConsent()).fields, { origin: "null", "sec-fetch-site": "cross-site" })],
  ["a consent without its token", "the binding of the form to the session", "400 page", async () => { const { binding: _, ...fields } = (await aConsent()).fields; return consents(fields, OWN_ORIGIN); }],
  ["a consent without its handle", "the single use of a form", "400 page", async () => { const { handle: _, ...fields } = (await aConsent()).fields; return consents(fields, OWN_ORIGIN); }],
  ["a consent with another session's handle", "the binding of the form to the session", "400 page", async () => { const { page } = await aConsent(); const mallory = new Browser(); await mallory.signIn(`${system.publicUrl}/sign-in`, { sub: await aPerson([acme.id]) }); return mallory.submit(page, { decision: "allow" }); }],
  ["a consent in another browser", "the session that saw the form", "400 page", async () => new Browser().submit((await aConsent()).page, { decision: "allow" })],
  ["a consent after another person has signed in, in another tab", "the session that saw the form", "400 page", consentsAsAnother],
  ["a consent for a tenant of others", "the memberships at that moment", "400 page, then no grant", async () => { const before = await grantsOf(bolt); const came = await consents({ ...(await aConsent()).fields, tenant: bolt.id }, OWN_ORIGIN); return [came, (await grantsOf(bolt)) === before ? "no grant" : "a grant"]; }],
  ["a consent page in a frame", "the frame-ancestors of the page", "no frame", async () => (await aConsent()).page.headers.get("content-security-policy")?.includes("frame-ancestors 'none'") === true ? "no frame" : "a frame"],
  ["a change that another site's page sends with the session's cookie", "the Origin of a change", "403 origin_refused", () => send("PATCH", own(), { ...cookies(acme.owner), ...EVIL }, { name: "Pwned" }), () => send("PATCH", own(), { ...cookies(acme.owner), ...OWN_ORIGIN }, { name: "A tenant" })],
  ["a change with the session's cookie and no origin", "the Origin of a change", "403 origin_refused", () => send("PATCH", own(), cookies(acme.owner), { name: "Pwned" })],
  ["a change from a subdomain of another port", "the Origin of a change", "403 origin_refused", () => send("PATCH", own(), { ...cookies(acme.owner), origin: system.publicUrl.replace(/\d+$/, "1") }, { name: "Pwned" })],
  ["a read that another site's page sends with the session's cookie", "no permission for other origins to read", "200, hidden from the page", async () => { const read = await send("GET", own(), { ...cookies(acme.owner), ...EVIL }); return `${read.status}, ${read.headers.has("access-control-allow-origin") ? "shown to" : "hidden from"} the page`; }],
  ["a cookie of the session without its prefix, as a neighbour host can set it", "the name with __Host-", "401 token_missing", () => send("GET", own(), { cookie: `tollgate-session=${acme.owner.session}` }), () => send("GET", own(), cookies(acme.owner))],
  ["a session's cookie at another tenant", "the memberships of the person", "404 not_found", () => send("GET", `/api/tenants/${bolt.id}`, cookies(acme.owner))],
  ["a session's cookie at the MCP endpoint", "the bearer header, the only credential there", "401 token_missing", () => mcp(undefined, cookies(acme.owner))],
  ["a session's cookie at the operator API", "the operator's guard", "401 token_missing", () => send("GET", "/admin/api/tenants", cookies(acme.owner))],
  ["a return after the sign-in to another host", "the paths that a sign-in returns to", "/sign-in", () => returnsTo("https://evil.example/"), async () => (await returnsTo("/docs/errors")) === "/docs/errors" ? "200" : "elsewhere"],
  ["a return to another host by two slashes", "the paths that a sign-in returns to", "/sign-in", () => returnsTo("//evil.example")],
  ["a return to another host by a backslash", "the paths that a sign-in returns to", "/sign-in", () => returnsTo(String.raw`/\evil.example`)],
  ["a return to another host by a tab", "the paths that a sign-in returns to", "/sign-in", () => returnsTo("/\t/evil.example")],
  ["a return to javascript:", "the paths that a sign-in returns to", "/sign-in", () => returnsTo("javascript:alert(1)")],
  ["an invitation that another person has accepted", "the single use of an invitation", "410 invitation_ended", async () => { const { token: link, sub } = await anInvitation(); await accepts(link, sub); return accepts(link, await aPerson([])); }, async () => { const { token: link, sub } = await anInvitation(); return accepts(link, sub); }],
  ["an invitation that was withdrawn", "the state of an invitation", "410 invitation_ended", () => acceptsAfter(({ id }) => send("DELETE", own(`/invitations/${id}`), bearer(acme.ownerToken)))],
  ["an invitation that has expired", "the expiry of an invitation", "410 invitation_ended", () => acceptsAfter(({ id }) => controlRows("UPDATE invitations SET expires_at = now() WHERE id = $1", [id]))],
  ["an invitation with one character changed", "the MAC of the invitation", "404 not_found", async () => { const { token: link, sub } = await anInvitation(); return accepts(link.replace(acme.id, bolt.id), sub); }],
  ["a sign-in with another verified address than the invited one", "the address of the invitation", "404 not_found", () => joins((sub) => `not-${emailOf(sub)}`), () => joins(emailOf)],
];

const keysPath = (): string => own("/keys");
const acts = (method: string, path: string, body?: unknown): Promise<Response> =>
  send(method, path, bearer(impersonation), body);
const byKey = (method: string, path: string, body?: unknown): Promise<Response> =>
  send(method, path, bearer(acme.adminKey.apiKey), body);
const byOwner = (method: string, path: string, body?: unknown): Promise<Response> =>
  send(method, path, bearer(acme.ownerToken), body);

// oxfmt-ignore
const rights: Attack[] = [
  ["a key that makes a key", "the rule that a key never makes a key", "403 scope_missing", () => byKey("POST", keysPath(), { name: "more" }), () => byOwner("POST", keysPath(), { name: "more" })],
  ["a key that removes its own restriction", "the rule that a key manages no keys", "403 scope_missing", () => byKey("PATCH", `${keysPath()}/${acme.adminKey.id}`, { tools: null, unitsPerMonth: null }), () => byOwner("PATCH", `${keysPath()}/${acme.adminKey.id}`, { name: "admin" })],
  ["a key that rotates itself", "the rule that a key manages no keys", "403 scope_missing", () => byKey("POST", `${keysPath()}/${acme.adminKey.id}/rotate`, { overlapHours: 1 })],
  ["a key that invites an owner", "the permissions of keys", "403 scope_missing", () => byKey("POST", own("/invitations"), { email: "eve@evil.example", role: "owner" })],
  ["a key that calls a tool outside of its restriction", "the tools of the key", "200 tool_not_in_key", async () => { const { apiKey } = await json<{ apiKey: string }>(byOwner("POST", keysPath(), { tools: ["health_check"] })); return mcp(apiKey); }, () => mcp(acme.apiKey)],
  ["a key without the admin scope at the account's routes", "the scopes in the key", "403 scope_missing", () => send("GET", own(), bearer(acme.apiKey))],
  ["a key that repeats a member's request with its Idempotency-Key", "the answer, which is kept for its sender only", "403 scope_missing", async () => { const headers = { "idempotency-key": `attack-${crypto.randomUUID()}` }; await send("POST", keysPath(), { ...bearer(acme.ownerToken), ...headers }, { name: "x" }); return send("POST", keysPath(), { ...bearer(acme.adminKey.apiKey), ...headers }, { name: "x" }); }],
  ["the order of another buyer by a guessed Idempotency-Key", "the comparison of bodies", "422 idempotency_key_mismatch", async () => { const headers = { "idempotency-key": `order-${crypto.randomUUID()}` }; await send("POST", "/api/checkout", headers, { plan: "free", name: "A buyer" }); return send("POST", "/api/checkout", headers, { plan: "free", name: "A thief" }); }],
  ["an impersonation that makes a key", "the rule that an impersonation mints nothing", "403 scope_missing", () => acts("POST", keysPath(), { name: "backdoor" }), () => acts("GET", own("/usage"))],
  ["an impersonation that widens a key", "the rule that an impersonation mints nothing", "403 scope_missing", () => acts("PATCH", `${keysPath()}/${acme.adminKey.id}`, { tools: null })],
  ["an impersonation that rotates a key", "the rule that an impersonation mints nothing", "403 scope_missing", () => acts("POST", `${keysPath()}/${acme.adminKey.id}/rotate`, {})],
  ["an impersonation that invites", "the rule that an impersonation mints nothing", "403 scope_missing", () => acts("POST", own("/invitations"), { email: "sam@evil.example", role: "owner" })],
  ["an impersonation that changes a member's role", "the rule that an impersonation mints nothing", "403 scope_missing", () => acts("PATCH", own("/members/m1"), { role: "owner" })],
  ["an impersonation that links a provider", "the operator's guard", "401 token_invalid", () => acts("POST", `/admin/api/tenants/${acme.id}/links`, { issuer: ISSUER, organisation: "evil" })],
  ["an impersonation that starts another", "the operator's guard", "401 token_invalid", () => acts("POST", `/admin/api/tenants/${bolt.id}/impersonations`, { reason: "more" })],
  ["an impersonation that accepts an invitation", "the tokens of people", "401 token_invalid", async () => acts("POST", "/api/invitations/accept", { token: (await anInvitation("owner")).token })],
  ["an impersonation of one tenant at another", "the tenant in the credential", "404 not_found", () => acts("GET", `/api/tenants/${bolt.id}`)],
  ["an impersonation that calls tools", "the kinds of credentials of the MCP endpoint", "401 invalid_token", () => mcp(impersonation)],
  ["an impersonation that ends the account", "the permissions of an impersonation", "403 scope_missing", () => acts("POST", own("/remove"), { name: "A tenant" })],
];

test.each([...tokens, ...paths, ...clients, ...people, ...rights])(
  "%s meets %s: %s",
  async (_attack, _wall, refused, attacks, twin) => {
    expect(await outcome(await attacks())).toBe(refused);
    if (twin !== undefined)
      expect(await outcome(await twin()), "the legitimate request").toMatch(/^(2\d\d\b|client: code)/);
  },
);

test("after all attacks both tenants work, and no name has changed", async () => {
  for (const side of [acme, bolt]) {
    expect((await callTool(side.apiKey, "get_usage")).isError).toBeFalsy();
    expect(await json(operator("GET", `/tenants/${side.id}`))).toMatchObject({ name: "A tenant", state: "active" });
  }
});
