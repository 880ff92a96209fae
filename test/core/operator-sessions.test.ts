// Sessions of the operator's people in browsers, walked from the table of routes: which role they have, what ends them, and that
// they and customers' sessions are strangers to each other. The control database answers from here.
import { afterEach, beforeAll, expect, test, vi } from "vitest";
import { operatorRoles, hasRole, tokenOperator } from "../../src/core/actor.ts";
import { sha256Hex } from "../../src/core/keys/credentials.ts";
import type { TenantId } from "../../src/core/tenant/tenant.ts";
import type { Route } from "../../src/http.ts";
import type { OperatorSession } from "../../src/identity/operators/operator-sessions-store.ts";
import {
  OPERATOR_IDLE_MS,
  OPERATOR_SESSION_MS,
  TOKEN_SESSION_MS,
  operatorTokenOf,
  standsFor,
  startOperatorSession,
} from "../../src/identity/operators/operator-sessions.ts";
import type { OperatorEnv } from "../../src/identity/operators/operators.ts";
import type { app as App } from "../../src/routes.ts";
import { appFetch } from "../support/app-requests.ts";

// Classes of the platform, which exist only in workerd.
vi.mock("cloudflare:workers", () => ({ DurableObject: Object, WorkflowEntrypoint: Object, RpcTarget: Object }));
vi.mock("cloudflare:workflows", () => ({ NonRetryableError: Error }));

const PUBLIC_URL = "http://127.0.0.1:8787";
const ISSUER = "https://people.operator.example";
const own = "tenant-own" as TenantId;
const env = {
  ...{ CREDENTIAL_KEY: "the root key of this test", PUBLIC_URL, OPERATOR_TOKEN: "the-token, the-older-token" },
  OPERATOR_ISSUER: JSON.stringify({ issuer: ISSUER, jwksUrl: `${ISSUER}/keys`, clientId: "tollgate" }),
  ...{ OPERATOR_TOKEN_USE: "break-glass", OIDC_ISSUERS: "[]", ALLOWED_ORIGINS: "" },
  CONTROL_DATABASE_URL: "postgres://service:secret@control.example/control",
  NEON_FETCH_ENDPOINT: "https://control.example/sql",
  ...{ STRIPE_API_BASE: "https://stripe.example", STRIPE_SECRET_KEY: "sk_test_x" },
};

let app: typeof App;
let routes: readonly Route[];
beforeAll(async () => {
  ({ app, routes } = await import("../../src/routes.ts"));
});
afterEach(() => vi.restoreAllMocks());

interface Query {
  query: string;
  params: unknown[];
}

/** The control tables have these operators' sessions, by the digest of their tokens. Returns the statements that were sent. */
function serve(sessions: ReadonlyMap<string, OperatorSession>): Query[] {
  const sent: Query[] = [];
  vi.spyOn(globalThis, "fetch").mockImplementation(async (_, init) => {
    const { queries } = JSON.parse(typeof init?.body === "string" ? init.body : "{}") as { queries: Query[] };
    sent.push(...queries);
    const results = queries.map(({ query, params }) => {
      const found = query.startsWith("UPDATE operator_sessions s") ? sessions.get(String(params[0])) : undefined;
      const fields = Object.keys(found ?? {}).map((name) => ({ name, dataTypeID: 25 }));
      const rows = found === undefined ? [] : [Object.values(found)];
      return { fields, rows, command: "SELECT", rowCount: rows.length, rowAsArray: true };
    });
    return Response.json({ results });
  });
  return sent;
}

const tokenFor = (name: string): string => name.padEnd(43, "0");
const sessionOf = (role: OperatorSession["role"]): OperatorSession => ({
  ...{ operatorId: `a-${role}`, name: role, role, through: "oidc", boundTo: ISSUER },
});

async function everyRole(): Promise<Map<string, OperatorSession>> {
  const pairs = operatorRoles.map(async (role): Promise<[string, OperatorSession]> => [
    await sha256Hex(tokenFor(role)),
    sessionOf(role),
  ]);
  return new Map(await Promise.all(pairs));
}

async function send(
  { method, path }: Pick<Route, "method" | "path">,
  cookie: string,
  headers: Record<string, string> = { origin: PUBLIC_URL },
): Promise<{ status: number; code: string | undefined; location: string | null }> {
  const filled = path.replace(":tenantId", own).replace(/:\w+/g, "1");
  const hasBody = !["GET", "DELETE"].includes(method);
  const request = new Request(`${PUBLIC_URL}${filled}`, {
    method,
    headers: { cookie, "content-type": "application/json", ...headers },
    ...(hasBody && { body: "{}" }),
  });
  const answer = await appFetch(app, request, env);
  const text = await answer.text();
  const code = /<meta name="error-code" content="(\w+)"|"code":"(\w+)"/.exec(text)?.slice(1).find(Boolean);
  return { status: answer.status, code, location: answer.headers.get("location") };
}

const nameOf = ({ method, path }: Route): string => `${method} ${path}`;
const operators = (): Route[] => routes.filter(({ access }) => access === "operator");
const cookieOf = (token: string): string => `__Host-tollgate-operator=${token}`;

test("a session opens the operator's pages and API as far as the role of its sign-in permits", async () => {
  serve(await everyRole());
  for (const route of operators())
    for (const role of operatorRoles) {
      const { status, code } = await send(route, cookieOf(tokenFor(role)));
      const what = `${nameOf(route)} as ${role}: ${status} ${code}`;
      if (hasRole(role, route.role ?? "admin")) expect([401, 403], what).not.toContain(status);
      else expect({ status, code }, what).toEqual({ status: 403, code: "role_missing" });
    }
});

test("a session that has ended or never was is refused, and a page leads to the sign-in of operators", async () => {
  serve(new Map());
  for (const route of operators()) {
    const { status, code, location } = await send(route, cookieOf(tokenFor("ended")));
    if (route.isPage === true && route.method === "GET") {
      expect(status, nameOf(route)).toBe(303);
      expect(location, nameOf(route)).toMatch(/^\/admin\/sign-in\?return=%2Fadmin/);
    } else expect({ status, code }, nameOf(route)).toEqual({ status: 401, code: "token_expired" });
  }
});

test("a request of another site changes nothing with a session", async () => {
  serve(await everyRole());
  const foreign: Record<string, string>[] = [
    {},
    { origin: "https://evil.example" },
    { origin: "null" },
    { "sec-fetch-site": "cross-site" },
    { "sec-fetch-site": "same-site" },
  ];
  for (const route of operators().filter(({ method }) => method !== "GET"))
    for (const headers of foreign)
      expect(await send(route, cookieOf(tokenFor("admin")), headers), nameOf(route)).toMatchObject({
        ...{ status: 403, code: "origin_refused" },
      });
});

test("a customer's session opens nothing of the operator's, and an operator's session nothing of a customer's", async () => {
  const sent = serve(await everyRole());
  for (const route of operators()) {
    const { status } = await send(route, `__Host-tollgate-session=${tokenFor("admin")}`);
    expect(status, nameOf(route)).toBe(route.isPage === true && route.method === "GET" ? 303 : 401);
  }
  expect(sent).toEqual([]);
  for (const route of routes.filter(({ access }) =>
    ["tenant_admin", "person", "buyer", "key_maker"].includes(access),
  )) {
    const { status } = await send(route, cookieOf(tokenFor("admin")));
    expect(status, nameOf(route)).toBe(route.isPage === true && route.method === "GET" ? 303 : 401);
  }
  expect(sent).toEqual([]);
});

test("another credential of the request counts instead of its session", async () => {
  const sent = serve(await everyRole());
  const route = { method: "GET", path: "/admin/api/tenants" } as const;
  const answer = await send(route, cookieOf(tokenFor("admin")), { authorization: "Bearer made-up" });
  expect(answer).toMatchObject({ status: 401, code: "token_invalid" });
  expect(sent).toEqual([]);
});

// ---- what a session stands for

interface Started {
  session: OperatorSession;
  token: string;
  /** Milliseconds from the start to the end. */
  lifeMs: number;
  cookie: string;
}

/** Starts a session and returns the row that the store has written. */
async function start(beginning: Parameters<typeof startOperatorSession>[2]): Promise<Started> {
  const rows: unknown[][] = [];
  const control = { query: async (_: string, params: unknown[] = []) => (rows.push(params), []) };
  const isToken = "operatorToken" in beginning;
  const operator = isToken
    ? tokenOperator
    : ({ kind: "operator", id: "ada", name: "Ada", role: "support", through: "oidc" } as const);
  const context = { control } as unknown as Parameters<typeof startOperatorSession>[0];
  const cookie = await startOperatorSession(context, operator, beginning, 0);
  const token = operatorTokenOf(cookie.split(";")[0]) ?? "";
  const [digest, operatorId, name, role, through, boundTo, startedMs, expiresMs] = rows[0] ?? [];
  expect(digest).toBe(await sha256Hex(token));
  expect(JSON.stringify(rows)).not.toContain(token);
  const session = { operatorId, name, role, through, boundTo } as OperatorSession;
  return { session, token, lifeMs: Number(expiresMs) - Number(startedMs), cookie };
}

const changed = (over: Partial<OperatorEnv>): OperatorEnv => ({ ...env, ...over });

test("a session of the issuer stands for its person while the issuer is configured", async () => {
  const { session, token, lifeMs, cookie } = await start({ issuer: ISSUER });
  expect(lifeMs).toBe(OPERATOR_SESSION_MS);
  expect(cookie).toMatch(
    /^__Host-tollgate-operator=[\w-]{43}; Path=\/; Secure; HttpOnly; SameSite=Lax; Max-Age=14400$/,
  );
  expect(await standsFor(env, session, token)).toEqual({
    ...{ kind: "operator", id: "ada", name: "Ada", role: "support", through: "oidc" },
  });
  const other = JSON.stringify({ issuer: "https://other.example", jwksUrl: "https://other.example/keys" });
  for (const OPERATOR_ISSUER of ["", other])
    expect(await standsFor(changed({ OPERATOR_ISSUER }), session, token)).toBeUndefined();
});

test("a session of the operator token ends with that token, and works while another setting is malformed", async () => {
  const { session, token, lifeMs } = await start({ operatorToken: "the-older-token" });
  expect(lifeMs).toBe(TOKEN_SESSION_MS);
  expect(OPERATOR_IDLE_MS).toBeLessThan(TOKEN_SESSION_MS);
  expect(session.boundTo).not.toContain("the-older-token");
  for (const over of [{}, { OPERATOR_TOKEN: "new, the-older-token" }, { OPERATOR_ISSUER: "{" }])
    expect(await standsFor(changed(over), session, token)).toEqual(tokenOperator);
  for (const over of [{ OPERATOR_TOKEN: "the-token" }, { OPERATOR_TOKEN: "" }, { OPERATOR_TOKEN_USE: "off" }])
    expect(await standsFor(changed(over), session, token)).toBeUndefined();
  // The row alone, with another session's token, stands for no operator.
  expect(await standsFor(env, session, tokenFor("other"))).toBeUndefined();
});
