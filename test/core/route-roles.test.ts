// Who may use each route of a tenant's people, for every row of the table of routes: every role, a key with and without the admin
// scope, clients of members of each role, a linked user without a membership, a removed member, and the same callers of another tenant. The control database is
// a stand-in that knows one tenant; a request that a guard lets through ends with what the handler finds there.
import { SignJWT, exportJWK, generateKeyPair } from "jose";
import { afterAll, beforeAll, expect, onTestFinished, test, vi } from "vitest";
import {
  type AccountScope,
  type Permission,
  type TenantRole,
  accountScopes,
  permissionsOfAdminKey,
  permissionsOfClients,
  permissionsOfRole,
  permissionsOfScope,
  tenantRoles,
} from "../../src/core/actor.ts";
import { encodeScopes, mintCredential, sha256Hex } from "../../src/core/keys/credentials.ts";
import type { TenantId } from "../../src/core/tenant/tenant.ts";
import type { Route } from "../../src/http.ts";
import { endpoints } from "../../src/pages/endpoints.ts";
import { openApi } from "../../src/pages/openapi.ts";
import type { app as App } from "../../src/routes.ts";
import { appFetch } from "../support/app-requests.ts";

// Classes of the platform, which exist only in workerd.
vi.mock("cloudflare:workers", () => ({ DurableObject: Object, WorkflowEntrypoint: Object, RpcTarget: Object }));
vi.mock("cloudflare:workflows", () => ({ NonRetryableError: Error }));

const CREDENTIAL_KEY = "the root key of this test";
const ISSUER = "https://roles.issuer.example";
const own = "roles-own" as TenantId;
const other = "roles-other" as TenantId;
const env = {
  ...{ CREDENTIAL_KEY, OPERATOR_TOKEN: "operator-token-of-this-test", PUBLIC_URL: "http://127.0.0.1:8787" },
  ...{ ALLOWED_ORIGINS: "", MAIL_FROM: "", MAIL_URL: "" },
  OIDC_ISSUERS: JSON.stringify([{ issuer: ISSUER, jwksUrl: `${ISSUER}/keys`, tenantClaim: "org" }]),
  CONTROL_DATABASE_URL: "postgres://service:secret@roles.example/control",
  NEON_FETCH_ENDPOINT: "https://roles.example/sql",
  TENANT: {
    getByName: () => ({
      admitAdmin: () => Promise.resolve(0),
      findGrant: ({ grantId }: { grantId: string }) => Promise.resolve(grants.get(grantId)),
    }),
  },
};
/** What the tenant's object knows of clients' tokens, by the id of the grant. */
const grants = new Map<string, { clientId: string; scopes: string[]; expiresAtMs: number }>();
const scopesOfClients: readonly (readonly AccountScope[])[] = [["account:read"], ["account:manage"], accountScopes];
const clientNameOf = (role: TenantRole, scopes: readonly AccountScope[]): string =>
  `a client of ${role} with ${scopes.join(" and ")}`;

let app: typeof App;
let routes: readonly Route[];
const tokens: Record<string, string> = {};
let restore: () => void;
/** Subjects by the digest of their session's token. */
const sessionSubjects = new Map<string, string>();

function sessionRow(subject: string) {
  const row = { issuer: ISSUER, subject, name: null, email: null, signedInAtMs: 1 };
  return {
    fields: Object.keys(row).map((name) => ({ name, dataTypeID: name === "signedInAtMs" ? 701 : 25 })),
    rows: [Object.values(row).map((value) => (value === null ? null : String(value)))],
    ...{ command: "UPDATE", rowCount: 1, rowAsArray: true },
  };
}

beforeAll(async () => {
  ({ app, routes } = await import("../../src/routes.ts"));
  const { privateKey, publicKey } = await generateKeyPair("ES256");
  const keys = [{ ...(await exportJWK(publicKey)), kid: "k1", alg: "ES256", use: "sig" }];
  const jwt = (subject: string, organisation: string, scope = "tools:read tenant:admin"): Promise<string> =>
    new SignJWT({ sub: subject, org: organisation, scope })
      .setProtectedHeader({ alg: "ES256", kid: "k1" })
      .setIssuer(ISSUER)
      .setAudience(`${env.PUBLIC_URL}/mcp`)
      .setExpirationTime("1h")
      .sign(privateKey);
  const key = (tenantId: TenantId, scopes: string[]): Promise<string> =>
    mintCredential(CREDENTIAL_KEY, { kind: "key", tenantId, fields: ["k1", encodeScopes(scopes), "secret"] });
  const adminKey = await key(own, ["tools:read", "tenant:admin"]);
  Object.assign(tokens, {
    ...{ "a key": adminKey, "a key without the scope": await key(own, ["tools:read"]) },
    "a key of another tenant": await key(other, ["tenant:admin"]),
    "a revoked key": await mintCredential(CREDENTIAL_KEY, {
      ...{ kind: "key", tenantId: own, fields: ["k2", encodeScopes(["tenant:admin"]), "secret"] },
    }),
    "a linked user": await jwt("stranger", own),
    "a removed member": await jwt("removed", own),
    "an owner without the scope": await jwt("owner", own, "tools:read"),
    "an owner of another tenant": await jwt("owner", other),
    "a user of no tenant": await jwt("owner", "unlinked"),
  });
  for (const role of tenantRoles) {
    tokens[role] = await jwt(role, own);
    tokens[`a session of ${role}`] = `session:${role}`;
  }
  for (const subject of [...tenantRoles, "stranger", "removed"])
    sessionSubjects.set(await sha256Hex(sessionTokenFor(subject)), subject);
  /** An access token of a client. `scopes`: `undefined` for one that has ended. */
  const clientToken = async (memberId: string, scopes?: readonly string[], tenantId = own): Promise<string> => {
    const grantId = String(grants.size).padStart(16, "g");
    const subject = await mintCredential(CREDENTIAL_KEY, { kind: "grant", tenantId, fields: [memberId] });
    if (scopes !== undefined) grants.set(grantId, { clientId: "a-client", scopes: [...scopes], expiresAtMs: Infinity });
    return `${subject}:${grantId}:${"s".repeat(32)}`;
  };
  for (const role of tenantRoles)
    for (const scopes of scopesOfClients)
      tokens[clientNameOf(role, scopes)] = await clientToken(`m-${role}`, ["tools:read", ...scopes]);
  Object.assign(tokens, {
    "a client with the scopes of tools": await clientToken("m-owner", ["tools:read", "tools:write"]),
    "a client of a removed member": await clientToken("m-removed", accountScopes),
    "a client of another tenant": await clientToken("m-owner", accountScopes, other),
    "a client whose token has ended": await clientToken("m-owner"),
    "a session of a stranger": "session:stranger",
    "a session of a removed member": "session:removed",
    "a session that has ended": "session:ended",
  });
  const config = {
    ...{ id: own, version: 1, name: "Own", plan: "free", strategy: "shared", placement: null, state: "active" },
    ...{ trialUntilMs: null, allowedTools: null },
    limits: { unitsPerHour: 1, unitsPerMonth: null, callsPerMinute: null, callsInFlight: 10 },
    keys: [{ id: "k1", hash: await sha256Hex(adminKey), expiresAtMs: null, lineId: "k1" }],
    links: [{ issuer: ISSUER, organisation: own }],
    members: tenantRoles.map((role) => ({ id: `m-${role}`, role, issuer: ISSUER, subject: role })),
    removedMembers: [{ issuer: ISSUER, subject: "removed" }],
  };
  const answerOf = ({ query, params }: { query: string; params: unknown[] }): [string, number, unknown] | undefined => {
    if (query.includes("'removedMembers'") && params[0] === own) return ["config", 3802, JSON.stringify(config)];
    if (query.startsWith("UPDATE sessions")) {
      const subject = sessionSubjects.get(String(params[0]));
      return subject === undefined ? undefined : ["*", 25, subject];
    }
    const organisation = String(params[1]);
    const isLink =
      query.startsWith("SELECT tenant_id FROM tenant_links") && [own, other].includes(organisation as TenantId);
    return isLink ? ["tenant_id", 25, organisation] : undefined;
  };
  const answer = async (input: unknown, init?: RequestInit): Promise<Response> => {
    if (String(input instanceof Request ? input.url : input).startsWith(ISSUER)) return Response.json({ keys });
    const body = JSON.parse(typeof init?.body === "string" ? init.body : "{}") as {
      queries: { query: string; params: unknown[] }[];
    };
    const results = body.queries.map((each) => {
      const cell = answerOf(each);
      if (cell === undefined) return { fields: [], rows: [], command: "SELECT", rowCount: 0, rowAsArray: true };
      const [name, dataTypeID, value] = cell;
      if (name === "*") return sessionRow(String(value));
      return { fields: [{ name, dataTypeID }], rows: [[value]], command: "SELECT", rowCount: 1, rowAsArray: true };
    });
    return Response.json({ results });
  };
  const asked = vi.spyOn(globalThis, "fetch").mockImplementation(answer);
  restore = () => asked.mockRestore();
});
afterAll(() => restore());

/** The stand-in for the sessions' table finds the subject in the token's digest. */
const sessionTokenFor = (subject: string): string => subject.padEnd(43, "0");

/** A request with a token, or, with `session:` and a subject, of a browser in which that person has signed in. */
async function send(
  { method, path }: Route,
  token: string,
  more: Record<string, string> = { origin: env.PUBLIC_URL },
): Promise<{ status: number; code: unknown; detail: unknown }> {
  const request = new Request(`${env.PUBLIC_URL}${path.replace(":tenantId", own).replace(/:\w+/g, "m1")}`, {
    method,
    headers: {
      "content-type": "application/json",
      ...(token.startsWith("session:")
        ? { cookie: `__Host-tollgate-session=${sessionTokenFor(token.slice(8))}`, ...more }
        : { authorization: `Bearer ${token}` }),
    },
    ...(method !== "GET" && { body: "{}" }),
  });
  const answer = await appFetch(app, request, env);
  const text = await answer.text();
  if (answer.headers.get("content-type")?.startsWith("text/html"))
    return { status: answer.status, code: /<meta name="error-code" content="(\w+)"/.exec(text)?.[1], detail: text };
  if (answer.headers.get("location")?.startsWith("/sign-in?return=")) return { status: 401, ...SIGN_IN };
  const { code, detail } = (text.startsWith("{") ? JSON.parse(text) : {}) as { code?: unknown; detail?: unknown };
  return { status: answer.status, code, detail };
}

/** A page that a person opens without a session leads to the sign-in. */
const SIGN_IN = { code: "sign_in", detail: "" };

const tenantRoutes = (): Route[] => routes.filter(({ access }) => access === "tenant_admin");
const nameOf = ({ method, path }: Route): string => `${method} ${path}`;
const needed = (route: Route): Permission => {
  if (route.permission === undefined) throw new Error(`${nameOf(route)} has no permission`);
  return route.permission;
};

test("each route of a tenant's people has a permission, and no other route has one", () => {
  for (const route of routes)
    expect({ route: nameOf(route), has: route.permission !== undefined }).toEqual({
      route: nameOf(route),
      has: route.access === "tenant_admin",
    });
  expect(tenantRoutes().length).toBeGreaterThan(15);
});

test.each(tenantRoles.flatMap((role) => [role, `a session of ${role}`]))(
  "%s may use the routes of the role's permissions, and learns which role the others need",
  async (who) => {
    const role = tenantRoles.find((each) => who.endsWith(each)) ?? "member";
    for (const route of tenantRoutes()) {
      const { status, code, detail } = await send(route, tokens[who] ?? "");
      const what = `${nameOf(route)}: ${status} ${String(code)} ${String(detail)}`;
      if (permissionsOfRole[role].includes(needed(route))) {
        expect(status, what).not.toBe(401);
        // A handler refuses by the state of what it finds, and an invitation without an address as malformed.
        expect(["role_missing", "scope_missing", "member_removed"], what).not.toContain(code);
      } else {
        expect({ status, code }, what).toEqual({ status: 403, code: "role_missing" });
        expect(detail, what).toMatch(new RegExp(`owner.*Yours is ${role}\\.`));
      }
    }
  },
);

test("a key with the admin scope may use what keys may, and no key makes a key or a member", async () => {
  for (const route of tenantRoutes()) {
    const { status, code } = await send(route, tokens["a key"] ?? "");
    const what = `${nameOf(route)}: ${status} ${String(code)}`;
    if (permissionsOfAdminKey.includes(needed(route))) {
      expect(status, what).not.toBe(401);
      expect(code, what).not.toBe("scope_missing");
    } else expect({ status, code }, what).toEqual({ status: 403, code: "scope_missing" });
    if (route.path.includes("/invitations") && route.method !== "GET") expect(code, what).toBe("scope_missing");
  }
});

/** Of these a client gets what its scopes and the member's role have. All others need the person, or a key. */
const ofClients = permissionsOfClients;

test("the scopes of the account cover no credential, no member, no export and not the end of the account", () => {
  for (const permission of ["keys:manage", "members:manage", "data:export", "account:remove", "tools:use"] as const)
    expect(ofClients).not.toContain(permission);
  expect(new Set(ofClients).size).toBe(ofClients.length);
});

test.each(
  tenantRoles.flatMap((role) => scopesOfClients.map((scopes) => [clientNameOf(role, scopes), role, scopes] as const)),
)(
  "%s may use the routes that both the role and the scopes permit, and learns what the others need",
  async (who, role, scopes) => {
    const ofScopes: readonly Permission[] = scopes.flatMap((scope) => permissionsOfScope[scope]);
    for (const route of routes.filter(({ access }) => access === "tenant_admin" || access === "key_maker")) {
      const { status, code, detail } = await send(route, tokens[who] ?? "");
      const what = `${nameOf(route)}: ${status} ${String(code)} ${String(detail)}`;
      const { permission } = route;
      const isOfRole = permission !== undefined && permissionsOfRole[role].includes(permission);
      if (permission !== undefined && isOfRole && ofScopes.includes(permission)) {
        expect(status, what).not.toBe(401);
        expect(["role_missing", "scope_missing", "member_removed"], what).not.toContain(code);
      } else if (permission === undefined || isOfRole) {
        expect({ status, code }, what).toEqual({ status: 403, code: "scope_missing" });
        expect(detail, what).toMatch(
          permission !== undefined && ofClients.includes(permission)
            ? /the scope account:/
            : /Sign in with a browser\./,
        );
      } else expect({ status, code }, what).toEqual({ status: 403, code: "role_missing" });
    }
  },
);

test("while the tenant's object is away, a client is refused, and a key and a session are not", async () => {
  const away = { getByName: () => ({ findGrant: () => Promise.reject(new Error("away")), admitAdmin: () => 0 }) };
  const former = env.TENANT;
  env.TENANT = away as unknown as typeof former;
  onTestFinished(() => void (env.TENANT = former));
  const route = tenantRoutes().find(({ path, method }) => method === "GET" && path.endsWith("/configuration"));
  if (route === undefined) throw new Error("no such route");
  const client = await send(route, tokens[clientNameOf("owner", accountScopes)] ?? "");
  expect(client).toMatchObject({ status: 503, code: "tenant_unavailable" });
  for (const who of ["a key", "a session of owner"])
    expect((await send(route, tokens[who] ?? "")).code, who).not.toBe("tenant_unavailable");
});

test("the routes that make keys are for members who manage keys, and for no key", async () => {
  const makers = routes.filter(({ access }) => access === "key_maker");
  expect(makers.length).toBeGreaterThan(0);
  for (const route of makers) {
    for (const role of tenantRoles) {
      const { status, code } = await send(route, tokens[role] ?? "");
      const what = `${nameOf(route)} as ${role}: ${status} ${String(code)}`;
      if (permissionsOfRole[role].includes("keys:manage")) expect([401, 403], what).not.toContain(status);
      else expect({ status, code }, what).toEqual({ status: 403, code: "role_missing" });
    }
    expect(await send(route, tokens["a key"] ?? ""), nameOf(route)).toMatchObject({
      status: 403,
      code: "scope_missing",
    });
  }
});

test.each([
  ["a key without the scope", 403, "scope_missing"],
  ["an owner without the scope", 403, "scope_missing"],
  ["a revoked key", 401, "key_revoked"],
  ["a linked user", 403, "role_missing"],
  ["a removed member", 401, "member_removed"],
  ["a user of no tenant", 403, "tenant_unknown"],
  ["a key of another tenant", 404, "not_found"],
  ["an owner of another tenant", 404, "not_found"],
  ["a client with the scopes of tools", 403, "scope_missing"],
  ["a client of a removed member", 401, "member_removed"],
  ["a client whose token has ended", 401, "token_invalid"],
  ["a client of another tenant", 404, "not_found"],
  ["a session of a stranger", 404, "not_found"],
  ["a session of a removed member", 404, "not_found"],
  ["a session that has ended", 401, "token_expired"],
])("%s is refused on every route of a tenant's people: %i %s", async (who, status, code) => {
  for (const route of tenantRoutes()) {
    const isVisit = route.isPage === true && route.method === "GET" && status === 401 && who.startsWith("a session");
    const expected = { status, code: isVisit ? SIGN_IN.code : code };
    expect(await send(route, tokens[who] ?? ""), nameOf(route)).toMatchObject(expected);
  }
});

test("a session changes nothing for a request of another site, and reads only what it may", async () => {
  for (const route of tenantRoutes().filter(({ method }) => method !== "GET"))
    for (const foreign of [
      {},
      { origin: "https://evil.example" },
      { origin: "null" },
      { "sec-fetch-site": "cross-site" },
    ])
      expect(await send(route, "session:owner", foreign as Record<string, string>), nameOf(route)).toMatchObject({
        ...{ status: 403, code: "origin_refused" },
      });
});

test("no member and no key of a tenant passes for the operator, the buyer or the monitor", async () => {
  const others = routes.filter(({ access }) => access === "operator" || access === "buyer");
  for (const route of others)
    for (const who of ["owner", "a key"])
      expect((await send(route, tokens[who] ?? "")).status, nameOf(route)).toBe(401);
});

test("the reference names each route's permission and roles, and offers keys only what keys may", () => {
  const { paths } = openApi(routes, env.PUBLIC_URL);
  for (const route of routes) {
    if (route.isPage === true && route.action !== undefined) continue;
    const operation =
      paths[route.path.replaceAll(/:(\w+)/g, "{$1}")]?.[route.method === "ALL" ? "post" : route.method.toLowerCase()];
    expect(operation?.operationId).toBe(endpoints[nameOf(route)]?.id);
    expect(operation?.["x-permission"], nameOf(route)).toBe(route.permission);
    if (route.permission === undefined) continue;
    const roles = tenantRoles.filter((role) => permissionsOfRole[role].includes(needed(route)));
    expect(operation?.["x-roles"], nameOf(route)).toEqual(roles);
    const schemes = operation?.security.flatMap((each) => Object.keys(each)) ?? [];
    expect(schemes.includes("adminKey"), nameOf(route)).toBe(permissionsOfAdminKey.includes(route.permission));
    expect(schemes).toContain("memberToken");
    expect(schemes.includes("clientToken"), nameOf(route)).toBe(ofClients.includes(needed(route)));
  }
});
