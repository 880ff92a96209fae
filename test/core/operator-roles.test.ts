// Which role each route of the operator's needs, walked from the table of routes: with real tokens of a person of each role, and
// with the credential of an operator who acts as a tenant's admin. The database is out of reach or answers from here.
import { SignJWT, exportJWK, generateKeyPair } from "jose";
import { afterEach, beforeAll, expect, test, vi } from "vitest";
import { type OperatorRole, hasRole, operatorRoles, permissionsOfImpersonator } from "../../src/core/actor.ts";
import { mintCredential } from "../../src/core/keys/credentials.ts";
import type { TenantId } from "../../src/core/tenant/tenant.ts";
import type { Route } from "../../src/http.ts";
import type { app as App } from "../../src/routes.ts";
import { appFetch } from "../support/app-requests.ts";

// Classes of the platform, which exist only in workerd.
vi.mock("cloudflare:workers", () => ({ DurableObject: Object, WorkflowEntrypoint: Object, RpcTarget: Object }));
vi.mock("cloudflare:workflows", () => ({ NonRetryableError: Error }));

const CREDENTIAL_KEY = "the root key of this test";
const PUBLIC_URL = "http://127.0.0.1:8787";
const ISSUER = "https://people.operator.example";
const CUSTOMERS = "https://customers.example";
const own = "tenant-own" as TenantId;

const issuerSettings = (issuer: string) => ({ issuer, jwksUrl: `${issuer}/keys` });
const env = {
  ...{ CREDENTIAL_KEY, PUBLIC_URL, OPERATOR_TOKEN: "the-operator-token", ALLOWED_ORIGINS: "" },
  OPERATOR_ISSUER: JSON.stringify(issuerSettings(ISSUER)),
  OIDC_ISSUERS: JSON.stringify([{ ...issuerSettings(CUSTOMERS), audience: `${PUBLIC_URL}/admin/api` }]),
  CONTROL_DATABASE_URL: "postgres://service:secret@control.example/control",
  NEON_FETCH_ENDPOINT: "https://control.example/sql",
  ...{ STRIPE_API_BASE: "https://stripe.example", STRIPE_SECRET_KEY: "sk_test_x" },
  ...{ STRIPE_WEBHOOK_SECRET: "whsec_x", STRIPE_THIN_WEBHOOK_SECRET: "whsec_y" },
};

let app: typeof App;
let routes: readonly Route[];
let keys: Awaited<ReturnType<typeof generateKeyPair>>;
beforeAll(async () => {
  ({ app, routes } = await import("../../src/routes.ts"));
  keys = await generateKeyPair("ES256");
});
afterEach(() => vi.restoreAllMocks());

type Row = Record<string, unknown>;
interface Query {
  query: string;
  params: unknown[];
}

/** Serves the issuers' keys, and rows for each query; without `rowsOf` the database does not answer. */
async function serve(rowsOf?: (query: Query) => Row[]): Promise<void> {
  const jwk = { ...(await exportJWK(keys.publicKey)), kid: "k", alg: "ES256" };
  vi.spyOn(globalThis, "fetch").mockImplementation(async (input, init) => {
    const url = String(input instanceof Request ? input.url : input);
    if (url.endsWith("/keys")) return Response.json({ keys: [jwk] });
    if (rowsOf === undefined || !url.startsWith("https://control.example")) return new Response("", { status: 503 });
    const { queries } = JSON.parse(typeof init?.body === "string" ? init.body : "{}") as { queries: Query[] };
    const results = queries.map((query) => {
      const rows = rowsOf(query);
      const names = Object.keys(rows[0] ?? {});
      // text, or jsonb
      const fields = names.map((name) => ({ name, dataTypeID: String(rows[0]?.[name]).startsWith("{") ? 3802 : 25 }));
      const values = rows.map((row) => names.map((name) => row[name]));
      return { fields, rows: values, command: "SELECT", rowCount: rows.length, rowAsArray: true };
    });
    return Response.json({ results });
  });
}

function tokenOf(role: OperatorRole | undefined, issuer = ISSUER): Promise<string> {
  return new SignJWT({ sub: `a-${role}`, scope: "admin:global", roles: role === undefined ? [] : [role] })
    .setProtectedHeader({ alg: "ES256", kid: "k" })
    .setIssuer(issuer)
    .setAudience(`${PUBLIC_URL}/admin/api`)
    .setExpirationTime("5m")
    .sign(keys.privateKey);
}

const nameOf = ({ method, path }: Route): string => `${method} ${path}`;

async function send({ method, path }: Pick<Route, "method" | "path">, token: string, headers: Row = {}) {
  const filled = path.replace(":tenantId", own).replace(/:\w+/g, "1");
  const hasBody = !["GET", "DELETE"].includes(method);
  const request = new Request(`${PUBLIC_URL}${filled}`, {
    method,
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json", ...headers },
    ...(hasBody && { body: "{}" }),
  });
  const answer = await appFetch(app, request, env);
  const text = await answer.text();
  const [, code, detail] = /<meta name="error-code" content="(\w+)".*<div class="narrow"><p>([^<]*)/s.exec(text) ?? [];
  if (code !== undefined) return { status: answer.status, code, detail };
  const body = (text.startsWith("{") ? JSON.parse(text) : {}) as { code?: string; detail?: string };
  return { status: answer.status, code: body.code, detail: body.detail };
}

test("every route of the operator's is open to its role and those above, and refuses those below in words", async () => {
  await serve();
  const operators = routes.filter(({ access }) => access === "operator");
  expect(operators.length).toBeGreaterThan(50);
  for (const route of operators) {
    const needed = route.role;
    expect(needed, nameOf(route)).toBeDefined();
    if (needed === undefined) continue;
    for (const role of operatorRoles) {
      const answer = await send(route, await tokenOf(role));
      if (hasRole(role, needed)) expect([401, 403], `${nameOf(route)} as ${role}`).not.toContain(answer.status);
      else
        expect(answer, `${nameOf(route)} as ${role}`).toEqual({
          ...{ status: 403, code: "role_missing" },
          detail: `This needs the role ${needed}. You have the role ${role}.`,
        });
    }
    expect(await send(route, await tokenOf(undefined)), nameOf(route)).toMatchObject({
      status: 403,
      code: "role_missing",
    });
    // A customers' issuer never makes an operator, also with such claims and this audience.
    expect(await send(route, await tokenOf("admin", CUSTOMERS)), nameOf(route)).toMatchObject({ status: 401 });
  }
});

test("a viewer changes nothing, and only an admin makes credentials or takes customers' rows out", () => {
  const roleOf = new Map(routes.flatMap((route) => (route.role === undefined ? [] : [[nameOf(route), route.role]])));
  for (const [name, role] of roleOf) if (role === "viewer") expect(name).toMatch(/^GET /);
  for (const name of [
    "POST /admin/api/tenants/:tenantId/keys",
    "POST /admin/api/tenants/:tenantId/links",
    "POST /admin/api/checkouts", // its set-up token makes the first key
    "GET /admin/api/tenants/:tenantId/export",
    "GET /admin/api/tenants/:tenantId/backups/:name",
    "POST /admin/api/analytics",
    "POST /admin/api/tenants/:tenantId/remove",
    "POST /admin/api/tenants/:tenantId/restore",
  ])
    expect(roleOf.get(name), name).toBe("admin");
  expect(routes.filter(({ access, role }) => access !== "operator" && role !== undefined)).toEqual([]);
});

test("an unknown path and a wrong method of the operator's API are shown to its people only", async () => {
  await serve();
  const viewer = await tokenOf("viewer");
  expect(await send({ method: "GET", path: "/admin/api/nothing" }, viewer)).toMatchObject({ status: 404 });
  expect(await send({ method: "PUT", path: "/admin/api/tenants" }, viewer)).toMatchObject({ status: 405 });
  const none = await tokenOf(undefined);
  expect(await send({ method: "GET", path: "/admin/api/nothing" }, none)).toMatchObject({ status: 403 });
});

test("a browser with a session of Cloudflare Access changes nothing for another site", async () => {
  await serve();
  const team = "https://acme.cloudflareaccess.com";
  const OPERATOR_ACCESS = JSON.stringify({
    team,
    audience: "aud",
    roles: { "ada@example.com": "admin" },
    certsUrl: `${team}/keys`,
  });
  const assertion = await new SignJWT({ sub: "1", type: "app", email: "ada@example.com" })
    .setProtectedHeader({ alg: "ES256", kid: "k" })
    .setIssuer(team)
    .setAudience("aud")
    .setExpirationTime("5m")
    .sign(keys.privateKey);
  const ask = async (method: string, headers: Record<string, string>): Promise<number> => {
    const request = new Request(`${PUBLIC_URL}/admin/api/tenants/${own}/suspend`, {
      method,
      headers: { "cf-access-jwt-assertion": assertion, ...headers },
    });
    return (await appFetch(app, request, { ...env, OPERATOR_ACCESS })).status;
  };
  // The database is out of reach: these came as far as that.
  for (const headers of [{}, { origin: PUBLIC_URL }, { origin: PUBLIC_URL, "sec-fetch-site": "same-origin" }])
    expect(await ask("POST", headers as Record<string, string>), JSON.stringify(headers)).toBe(503);
  const foreign = [
    ...[{ origin: "https://evil.example" }, { origin: "null" }, { origin: `${PUBLIC_URL}.evil.example` }],
    ...[{ "sec-fetch-site": "cross-site" }, { "sec-fetch-site": "same-site" }],
  ];
  for (const headers of foreign)
    expect(await ask("POST", headers as unknown as Record<string, string>), JSON.stringify(headers)).toBe(401);
  // Another site cannot read the answer, and a link to a page works.
  expect(await ask("GET", { "sec-fetch-site": "cross-site" })).toBe(405);
});

test("each use of the operator token is a warning and is counted, unless the token is the normal way", async () => {
  const counted: string[] = [];
  await serve(({ query }) => {
    if (query.includes("operator_token_uses")) counted.push(query);
    return [];
  });
  const warned = vi.spyOn(console, "warn");
  await send({ method: "GET", path: "/admin/api/nothing" }, "the-operator-token");
  await vi.waitFor(() => expect(counted).toHaveLength(1));
  expect(warned.mock.calls.join()).toContain('"operator_token_used"');
  await send({ method: "GET", path: "/admin/api/nothing" }, await tokenOf("admin"));
  Object.assign(env, { OPERATOR_TOKEN_USE: "normal" });
  await send({ method: "GET", path: "/admin/api/nothing" }, "the-operator-token");
  expect(counted).toHaveLength(1);
});

// ---- impersonation

const impersonation = (id: string, tenantId: string = own, expiresAtMs = Date.now() + 60_000): Promise<string> =>
  mintCredential(CREDENTIAL_KEY, {
    ...{ kind: "impersonation", tenantId: tenantId as TenantId },
    fields: [id, String(expiresAtMs)],
  });

/** The control tables have the impersonation `i1` of the tenant `own`, and nothing else. */
function withImpersonation(overrides: Row = {}): Promise<void> {
  const row = {
    ...{ id: "i1", tenantId: own, reason: "Ticket 7", state: "active" },
    operator: { id: "sam", name: "Sam", through: "oidc" },
    ...{ createdAt: "2026-11-28T10:00:00.000Z", endedAt: null },
    expiresAt: new Date(Date.now() + 60_000).toISOString(),
    ...overrides,
  };
  return serve(({ query, params }) => {
    const isOwn = query.includes("FROM impersonations") && params[0] === "i1" && params[1] === own;
    return isOwn ? [{ ...row, operator: JSON.stringify(row.operator) }] : [];
  });
}

test("an impersonator passes the tenant's routes but for the end of the account and its people, and every log line names who and why", async () => {
  await withImpersonation();
  const lines: Row[] = [];
  for (const level of ["info", "warn", "error"] as const)
    vi.spyOn(console, level).mockImplementation((line) => void lines.push(JSON.parse(String(line)) as Row));
  const token = await impersonation("i1");
  for (const route of routes.filter(({ access }) => access === "tenant_admin")) {
    lines.length = 0;
    const answer = await send(route, token);
    const isPermitted = route.permission !== undefined && permissionsOfImpersonator.includes(route.permission);
    if (route.path.endsWith("/remove")) expect(isPermitted).toBe(false);
    if (!isPermitted) expect(answer, nameOf(route)).toMatchObject({ status: 403, code: "scope_missing" });
    else expect([401, 403], nameOf(route)).not.toContain(answer.status);
    expect(lines.length, nameOf(route)).toBeGreaterThan(0);
    for (const line of lines)
      expect(line, nameOf(route)).toMatchObject({ impersonation: "i1", operator: "sam", reason: "Ticket 7" });
  }
});

test("an impersonation credential opens no route of the operator's, of a buyer, or of another tenant, and no tools", async () => {
  await withImpersonation();
  const token = await impersonation("i1");
  for (const route of routes.filter(({ access }) => ["operator", "buyer", "monitor", "mcp"].includes(access))) {
    const asTenant = route.path === "/health" ? { ...route, path: `/health?tenant=${own}` } : route;
    const method = route.method === "ALL" ? "POST" : route.method;
    expect((await send({ ...asTenant, method }, token)).status, nameOf(route)).toBe(401);
  }
  const foreign = await impersonation("i1", "tenant-other");
  for (const route of routes.filter(({ access }) => access === "tenant_admin"))
    expect((await send(route, foreign)).status, nameOf(route)).toBe(404);
});

test("the credential in a cookie opens the pages of its tenant alone, and changes nothing for another site", async () => {
  await withImpersonation();
  const cookie = `__Host-tollgate-impersonation=${await impersonation("i1")}`;
  const ask = async ({ method, path }: Route, tenantId: string = own, headers = { origin: PUBLIC_URL }) => {
    const filled = path.replace(":tenantId", tenantId).replace(/:\w+/g, "1");
    const request = new Request(`${PUBLIC_URL}${filled}`, { method, headers: { cookie, ...headers } });
    const answer = await appFetch(app, request, env);
    return { status: answer.status, location: answer.headers.get("location") ?? "" };
  };
  for (const route of routes.filter(({ access }) => access === "tenant_admin")) {
    const isPage = route.isPage === true;
    const isVisit = isPage && route.method === "GET";
    const isPermitted = route.permission !== undefined && permissionsOfImpersonator.includes(route.permission);
    const { status, location } = await ask(route);
    if (isPage && isPermitted) {
      // A form may lead to another page, but not to the sign-in.
      expect([401, 403], nameOf(route)).not.toContain(status);
      expect(location, nameOf(route)).not.toContain("sign-in");
    } else expect(status, nameOf(route)).toBe(isPage ? 403 : 401);
    const refusal = isVisit ? 303 : 401;
    expect((await ask(route, "tenant-other")).status, nameOf(route)).toBe(refusal);
    if (isPage && route.method !== "GET")
      expect((await ask(route, own, { origin: "https://evil.example" })).status, nameOf(route)).toBe(403);
  }
  for (const route of routes.filter(({ access }) => access === "operator"))
    expect((await ask(route)).status, nameOf(route)).toBe(route.isPage === true && route.method === "GET" ? 303 : 401);
  await withImpersonation({ endedAt: "2026-11-28T10:05:00.000Z" });
  for (const route of routes.filter(({ access, isPage }) => access === "tenant_admin" && isPage === true))
    expect((await ask(route)).status, nameOf(route)).toBe(route.method === "GET" ? 303 : 401);
});

test("an impersonation credential makes and changes no credential, member, grant or impersonation, on any route", async () => {
  await withImpersonation();
  const token = await impersonation("i1");
  const outlives = /\/(?:keys|members|invitations|grants|sessions|impersonations|links|monitor-token|remove)\b/;
  const makers = routes.filter(
    ({ method, path }) => method !== "GET" && path.includes("tenants/") && outlives.test(path),
  );
  expect(makers.length).toBeGreaterThan(5);
  for (const route of makers) expect([401, 403], nameOf(route)).toContain((await send(route, token)).status);
});

test.each([
  ["that was ended", { endedAt: "2026-11-28T10:00:01.000Z" }, "i1", 60_000, "token_expired"],
  ["whose time is over", {}, "i1", 0, "token_expired"],
  ["whose row says that its time is over", { expiresAt: "2026-11-28T10:00:01.000Z" }, "i1", 60_000, "token_expired"],
  ["that is not in the table", {}, "i2", 60_000, "token_invalid"],
  ["of a tenant that is gone", { state: "gone" }, "i1", 60_000, "tenant_gone"],
])("a credential %s is refused", async (_, row, id, leftMs, code) => {
  await withImpersonation(row);
  const route = { method: "GET", path: "/api/tenants/:tenantId" } as const;
  expect(await send(route, await impersonation(id, own, Date.now() + leftMs))).toMatchObject({ code });
});
