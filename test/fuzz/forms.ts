// Forms and queries of the OAuth server and of the pages, which the published description leaves to the protocols' own documents:
// the names that each one knows, with right and nearly right values.
import { hostileValue, pick } from "./values.ts";
import type { Random } from "./cases.ts";
import { REDIRECT } from "./sign-in.ts";

/** What the attacker holds of the OAuth protocol, its own and what it has seen. */
export interface Known {
  clientId: string;
  access: string;
  refresh: string;
  usedCode: string;
  /** Of a grant that its member has revoked. */
  revoked: { access: string; refresh: string };
  /** The victim's, with one character changed: the attacker has seen a part of them. */
  nearlyVictims: { access: string; refresh: string; code: string };
  resource: string;
  issuer: string;
  tenants: readonly string[];
  invitation: string;
}

type Fields = Readonly<Record<string, (known: Known) => readonly string[]>>;

const verifiers = ["v".repeat(43), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM", "short"];
const scopes = ["tools:read", "tools:read tools:write", "tenant:admin", "admin:global", "openid offline_access"];
const paths = ["/docs/errors", "//evil.example", "/\\evil.example", "https://evil.example/", "javascript:alert(1)"];
const redirects = [
  ...[REDIRECT, `${REDIRECT}/x`, `${REDIRECT}#x`, `${REDIRECT}?x=1`, "https://client.example@evil.example/callback"],
  ...["https://evil.example/callback", "http://127.0.0.1:1/callback", "javascript:alert(1)", "cursor://x"],
];
const clientIds = ({ clientId, issuer }: Known): string[] => [
  ...[clientId, clientId, clientId, clientId.toUpperCase(), `${clientId}x`, "unknown", "https://127.0.0.1/c.json"],
  ...["https://localhost/c.json", "https://[::1]/c.json", "https://169.254.169.254/latest/c.json", `${issuer}/c.json`],
];

const ofClient: Fields = {
  client_id: clientIds,
  client_secret: () => ["x"],
  client_assertion: ({ access }) => [access, "eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovLzEwLjAuMC4xL2MifQ."],
  client_assertion_type: () => ["urn:ietf:params:oauth:client-assertion-type:jwt-bearer"],
};

const token: Fields = {
  grant_type: () => [
    ...["authorization_code", "authorization_code", "refresh_token", "refresh_token", "refresh_token", "password"],
    ...["client_credentials", "urn:ietf:params:oauth:grant-type:jwt-bearer", "constructor"],
    "urn:ietf:params:oauth:grant-type:token-exchange",
  ],
  code: ({ usedCode, nearlyVictims, refresh }) => [usedCode, nearlyVictims.code, refresh, "x:y:z"],
  refresh_token: ({ refresh, access, revoked, nearlyVictims }) => [
    ...[refresh, refresh, access, revoked.refresh, nearlyVictims.refresh],
  ],
  redirect_uri: () => redirects,
  code_verifier: () => verifiers,
  scope: () => scopes,
  resource: ({ resource }) => [resource, `${resource}/`, "https://other.example/mcp"],
  subject_token: ({ access }) => [access],
  assertion: ({ access }) => [access],
  ...ofClient,
};

/** The fields of each form, by path. */
const forms: Readonly<Record<string, Fields>> = {
  "/oauth/token": token,
  // Only tokens that are worth nothing: a grant that was revoked would open nothing in the rest of the run.
  "/oauth/revoke": {
    token: ({ revoked, nearlyVictims }) => [revoked.access, revoked.refresh, nearlyVictims.access, "x:y:z"],
    token_type_hint: () => ["access_token", "refresh_token", "id_token"],
    ...ofClient,
  },
  "/oauth/consent": {
    handle: () => ["h".repeat(43), "x"],
    binding: () => ["0".repeat(64), "x"],
    decision: () => ["allow", "deny"],
    tenant: ({ tenants }) => tenants,
  },
  "/invitation": { token: ({ invitation, access }) => [invitation, access] },
  "/sign-out": { decision: () => ["x"] },
};

/** The parameters of each page's query, by path. */
const queries: Readonly<Record<string, Fields>> = {
  "/oauth/authorize": {
    response_type: () => ["code", "code", "code", "token", "id_token"],
    client_id: clientIds,
    redirect_uri: () => [REDIRECT, REDIRECT, ...redirects],
    state: () => ["s1", '"><script>alert(1)</script>'],
    code_challenge: () => verifiers,
    code_challenge_method: () => ["S256", "S256", "plain"],
    scope: () => scopes,
    resource: ({ resource }) => [resource, `${resource}/`, "https://other.example/mcp"],
    prompt: () => ["login", "select_account", "none"],
    provider: ({ issuer }) => [issuer, "https://evil.example"],
    request_uri: () => ["https://evil.example/request"],
    response_mode: () => ["fragment", "form_post"],
  },
  "/oauth/callback": {
    code: ({ usedCode }) => [usedCode, "x"],
    state: () => ["s1", "h".repeat(43)],
    iss: ({ issuer }) => [issuer, "https://evil.example"],
    error: () => ["access_denied", "server_error"],
  },
  "/sign-in": {
    return: () => paths,
    prompt: () => ["select_account"],
    provider: ({ issuer }) => [issuer, "https://evil.example"],
  },
  "/invitation": { token: ({ invitation, access }) => [invitation, access] },
};

/** The parameters of a page's query; none for other paths. */
export function pageQuery(path: string, known: Known, random: Random): [string, string][] {
  const fields = queries[path];
  return fields === undefined ? [] : filled(fields, known, random);
}

/** The body of a form; `undefined` for a path without one. */
export function formBody(path: string, known: Known, random: Random): string | undefined {
  const fields = forms[path];
  return fields === undefined ? undefined : new URLSearchParams(filled(fields, known, random)).toString();
}

/** Most fields, with right values or hostile ones, and now and then one of them twice. */
function filled(fields: Fields, known: Known, random: Random): [string, string][] {
  const pairs: [string, string][] = [];
  for (const [name, valuesOf] of Object.entries(fields)) {
    if (random() < 0.25) continue;
    pairs.push([name, random() < 0.06 ? textOf(hostileValue(random)) : pick(random, valuesOf(known))]);
    if (random() < 0.02) pairs.push([name, pick(random, valuesOf(known))]);
  }
  return pairs;
}

function textOf(value: unknown): string {
  return (typeof value === "string" ? value : (JSON.stringify(value) ?? "")).toWellFormed().slice(0, 2_000);
}
