// The audit log over the whole table of routes: each request that changes something is recorded once, with its actor, tenant and
// outcome, and no secret that it carries is in the row. The control database is a stand-in that knows one tenant and keeps what
// is written to the audit tables.
import { SignJWT, exportJWK, generateKeyPair } from "jose";
import { beforeAll, beforeEach, expect, onTestFinished, test, vi } from "vitest";
import { encodeScopes, mintCredential, sha256Hex } from "../../src/core/keys/credentials.ts";
import { planOf } from "../../src/core/plans/plans.ts";
import type { TenantId } from "../../src/core/tenant/tenant.ts";
import type { Route } from "../../src/http.ts";
import { personId, recordingOf } from "../../src/identity/audit/audit.ts";
import { actionOptions } from "../../src/pages/app/people/audit-actions.ts";
import { actionOf, endpoints } from "../../src/pages/endpoints.ts";
import type { app as App } from "../../src/routes.ts";
import { appFetch } from "../support/app-requests.ts";

vi.mock("cloudflare:workers", () => ({ DurableObject: Object, WorkflowEntrypoint: Object, RpcTarget: Object }));
vi.mock("cloudflare:workflows", () => ({ NonRetryableError: Error }));

const CREDENTIAL_KEY = "the root key of this test";
const OPERATOR_TOKEN = "a-planted-operator-token-of-this-test";
const SECRETS = {
  OPERATOR_TOKEN,
  STRIPE_WEBHOOK_SECRET: "whsec_planted",
  query: "planted-in-the-query",
  body: "planted-in-the-body",
  path: "planted-in-the-path-of-the-request",
  tenant: "planted-in-place-of-a-tenant",
  header: "planted-in-a-header",
};
const ISSUER = "http://issuer.test";
const own = "tenant-own" as TenantId;
const other = "tenant-other" as TenantId;

const env = {
  CREDENTIAL_KEY,
  OPERATOR_TOKEN,
  OPERATOR_TOKEN_USE: "normal",
  OPERATOR_ISSUER: "",
  OPERATOR_ACCESS: "",
  PUBLIC_URL: "http://127.0.0.1:8787",
  ALLOWED_ORIGINS: "",
  OIDC_ISSUERS: JSON.stringify([{ issuer: ISSUER, jwksUrl: `${ISSUER}/keys`, tenantClaim: "org" }]),
  CONTROL_DATABASE_URL: "postgres://service:secret@127.0.0.1:1/control",
  NEON_FETCH_ENDPOINT: "http://127.0.0.1:1/sql",
  STRIPE_API_BASE: "http://127.0.0.1:1",
  STRIPE_SECRET_KEY: "sk_test_x",
  STRIPE_WEBHOOK_SECRET: SECRETS.STRIPE_WEBHOOK_SECRET,
  STRIPE_THIN_WEBHOOK_SECRET: "whsec_y",
  BACKUPS: { get: async () => null, head: async () => null },
  TENANT: {
    getByName: () => ({ admitAdmin: async () => 0, refresh: async () => undefined }),
  },
};

let app: typeof App;
let routes: readonly Route[];
let apiKey: string;
let personToken: string;
let jwks: object;
beforeAll(async () => {
  ({ app, routes } = await import("../../src/routes.ts"));
  const fields = ["key1", encodeScopes(["tools:read", "tenant:admin"]), "secret"];
  apiKey = await mintCredential(CREDENTIAL_KEY, { kind: "key", tenantId: own, fields });
  const { privateKey, publicKey } = await generateKeyPair("ES256");
  jwks = { keys: [{ ...(await exportJWK(publicKey)), kid: "k1", alg: "ES256" }] };
  personToken = await new SignJWT({ email: "ada@acme.example", email_verified: true })
    .setProtectedHeader({ alg: "ES256", kid: "k1" })
    .setIssuer(ISSUER)
    .setSubject("ada")
    .setAudience("http://127.0.0.1:8787/mcp")
    .setIssuedAt()
    .setExpirationTime("1h")
    .sign(privateKey);
});

interface Written {
  table: string;
  row: Record<string, string | null>;
}
let written: Written[] = [];
let isAway = false;

/** The rows that a statement of this text writes, by their columns. Events come as one list. */
function writes({ query, params }: { query: string; params: (string | null)[] }): Written[] {
  const [, table = "", columns = ""] = /INSERT INTO (audit_events|audit_intents) \(([^)]*)\)/.exec(query) ?? [];
  if (table === "") return [];
  if (!query.includes("jsonb_to_recordset")) {
    const names = columns.split(",").map((name) => name.trim());
    return [inItsChain(table, Object.fromEntries(names.map((name, index) => [name, params[index] ?? null])))];
  }
  const events = JSON.parse(params[0] ?? "[]") as Record<string, unknown>[];
  return events.map((event) => {
    const cells = Object.entries(event).map(([name, value]) => [
      name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
      typeof value === "string" || value === null ? value : JSON.stringify(value),
    ]);
    return inItsChain(table, Object.fromEntries(cells) as Written["row"]);
  });
}

/** As the trigger does: the deployment's chain takes what names no tenant that exists. */
function inItsChain(table: string, row: Written["row"]): Written {
  const isKnown = [own, other].some((id) => id === row["tenant_id"]);
  return { table, row: isKnown ? row : { ...row, tenant_id: null } };
}

/** A result of the driver's: every value is text. */
function result(row?: Record<string, unknown>) {
  const fields = Object.keys(row ?? {}).map((name) => ({ name, dataTypeID: 114 }));
  const rows = row === undefined ? [] : [Object.values(row).map((value) => JSON.stringify(value))];
  return { fields, rows, command: "SELECT", rowCount: rows.length, rowAsArray: true };
}

beforeEach(async () => {
  written = [];
  isAway = false;
  const limits = planOf("free").limits;
  const hash = await sha256Hex(apiKey);
  const config = {
    ...{ id: own, version: 1, name: "Own", plan: "free", strategy: "shared", state: "active", placement: null },
    ...{
      trialUntilMs: null,
      suspendedBy: null,
      leavingUntilMs: null,
      pastDueSinceMs: null,
      limits,
      allowedTools: null,
    },
    ...{ features: {}, keys: [{ id: "key1", hash, expiresAtMs: null, lineId: "key1" }], links: [] },
    ...{ members: [], removedMembers: [] },
  };
  const answer = async (url: unknown, init?: RequestInit): Promise<Response> => {
    if (url === `${ISSUER}/keys` || (url instanceof Request && url.url === `${ISSUER}/keys`))
      return Response.json(jwks);
    const sent = JSON.parse(typeof init?.body === "string" ? init.body : "{}") as {
      queries?: { query: string; params: (string | null)[] }[];
    };
    if (isAway || sent.queries === undefined) throw new TypeError("away");
    written.push(...sent.queries.flatMap(writes));
    return Response.json({
      results: sent.queries.map(({ query, params }) => {
        if (query.includes("'keys', coalesce")) return result({ config });
        if (query.includes("INTO cross_tenant_attempts")) return result({ target: params[1] === own ? own : null });
        return result();
      }),
    });
  };
  const asked = vi.spyOn(globalThis, "fetch").mockImplementation(answer);
  const lines = ["info", "warn", "error"].map((level) => vi.spyOn(console, level as "info").mockReturnValue());
  onTestFinished(() => [asked, ...lines].forEach((spy) => spy.mockRestore()));
});

const setupToken = (tenantId: TenantId = own): Promise<string> =>
  mintCredential(CREDENTIAL_KEY, { kind: "setup", tenantId, fields: [String(Date.now() + 60_000)] });

/** Sends a request and waits for what it does after its answer. */
async function send(
  { method, path }: Pick<Route, "method" | "path">,
  {
    token,
    body,
    query = "",
    headers = {},
  }: { token?: string; body?: unknown; query?: string; headers?: Record<string, string> } = {},
): Promise<Response> {
  const after: Promise<unknown>[] = [];
  const filled = path.replace(":tenantId", own).replace(/:\w+/g, "1");
  const response = await appFetch(
    app,
    new Request(`http://127.0.0.1:8787${filled}${query}`, {
      method: method === "ALL" ? "POST" : method,
      headers: {
        "content-type": "application/json",
        "cf-connecting-ip": "192.0.2.7",
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        ...headers,
      },
      ...(method === "GET" || body === undefined ? {} : { body: JSON.stringify(body) }),
    }),
    env,
    after,
  );
  await Promise.all(after);
  return response;
}

const events = () => written.flatMap(({ table, row }) => (table === "audit_events" ? [row] : []));
const nameOf = ({ method, path }: Pick<Route, "method" | "path">): string => `${method} ${path}`;
const audited = () => routes.filter((route) => recordingOf(route) === "always");

/** The credential of each access, and the actor that it stands for. */
async function identified({ access }: Route): Promise<{ token: string; actor: Record<string, string | null> }> {
  if (access === "operator")
    return { token: OPERATOR_TOKEN, actor: { actor_kind: "operator", actor_id: "operator-token" } };
  if (access === "buyer") return { token: await setupToken(), actor: { actor_kind: "buyer", actor_id: null } };
  if (access === "person")
    return { token: personToken, actor: { actor_kind: "person", actor_id: personId(ISSUER, "ada") } };
  return { token: apiKey, actor: { actor_kind: "key", actor_id: "key1" } };
}

test("every route that changes something or gives data away is recorded, and the exceptions are these", () => {
  const never = routes.filter((route) => recordingOf(route) === "never" && route.method !== "GET");
  expect(never.filter(({ notAudited }) => notAudited === undefined).map(nameOf)).toEqual(["ALL /mcp"]);
  const downloads = routes.filter((route) => recordingOf(route) !== "never" && route.method === "GET");
  expect(downloads.map(nameOf)).toEqual(
    routes
      .filter(
        ({ path, method }) =>
          method === "GET" && /\/(export|backups\/:name|(?:documents|files)\/content)$|\.csv$/.test(path),
      )
      .map(nameOf),
  );
});

test("each request of an identified caller to such a route is recorded once, with actor, tenant, outcome, status and address", async () => {
  for (const route of audited()) {
    written = [];
    const { token, actor } = await identified(route);
    const response = await send(route, { token, body: {} });
    const outcome = response.status < 400 ? "succeeded" : response.status < 500 ? "refused" : "failed";
    const requestId = response.headers.get("x-request-id");
    expect(events(), `${nameOf(route)}: ${response.status}`).toEqual([
      expect.objectContaining({
        ...actor,
        ...{ id: requestId, request_id: requestId, outcome, status: String(response.status), address: "192.0.2.7" },
        ...{
          action: route.action ?? endpoints[nameOf(route)]?.id,
          tenant_id: route.path.includes(":tenantId") ? own : null,
        },
      }),
    ]);
  }
});

test("a request without a credential, and one with a wrong one, is recorded on no route but the operator's, and there in bounds", async () => {
  const now = vi.spyOn(Date, "now").mockReturnValue(Date.now() + 3_600_000);
  onTestFinished(() => now.mockRestore());
  for (const route of routes.filter(({ access }) => access !== "mcp")) {
    await send(route, { body: {} });
    if (route.access !== "operator") await send(route, { token: "wrong", body: {} });
  }
  expect(events()).toEqual([]);
  for (const route of routes.filter(({ access }) => access === "operator"))
    await send(route, { token: "wrong", body: {} });
  await send({ method: "GET", path: "/admin/api/nothing" }, { token: "wrong" });
  expect(events()).toHaveLength(10);
  for (const event of events())
    expect(event).toMatchObject({
      action: "operator_token.refuse",
      actor_kind: "anonymous",
      tenant_id: null,
      outcome: "refused",
      address: "192.0.2.7",
    });
});

test("another tenant's credential is recorded once in that tenant's chain, with the tenant of the path as the target", async () => {
  const fields = ["key2", encodeScopes(["tenant:admin"]), "secret"];
  const tokens: Partial<Record<Route["access"], string>> = {
    buyer: await setupToken(other),
    tenant_admin: await mintCredential(CREDENTIAL_KEY, { kind: "key", tenantId: other, fields }),
    status: await setupToken(other),
  };
  for (const route of routes) {
    const token = tokens[route.access];
    if (token === undefined) continue;
    written = [];
    const response = await send(route, { token, body: {} });
    expect(response.status, nameOf(route)).toBe(404);
    const isKey = route.access === "tenant_admin";
    expect(events(), nameOf(route)).toEqual([
      expect.objectContaining({
        ...{ action: "tenant.cross", tenant_id: other, target: own, outcome: "refused", status: "404" },
        ...{ actor_kind: isKey ? "key" : "buyer", actor_id: isKey ? "key2" : null },
      }),
    ]);
  }
});

test("the act of an identified caller is noted before it begins, and the event has the same id", async () => {
  const suspend = { method: "POST", path: "/admin/api/tenants/:tenantId/keys/1" } as const;
  await send({ ...suspend, method: "DELETE" }, { token: OPERATOR_TOKEN });
  // The stand-in has no summary of the tenant, so that the operator's request ends before the act.
  expect(written.map(({ table }) => table)).toEqual(["audit_events"]);
  written = [];
  await send({ method: "DELETE", path: "/api/tenants/:tenantId/plan" }, { token: apiKey });
  const [first, second] = written;
  expect([first?.table, second?.table]).toEqual(["audit_intents", "audit_events"]);
  expect(first?.row["id"]).toBe(second?.row["id"]);
  expect(first?.row).toMatchObject({
    tenant_id: own,
    actor_kind: "key",
    actor_id: "key1",
    action: "cancelOwnPlanChange",
  });
});

test("a control database that is away fails no request because of the record, and the log has the event", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout"] });
  onTestFinished(() => void vi.useRealTimers());
  isAway = true;
  const logged = vi.spyOn(console, "error").mockReturnValue();
  const sent = send(
    { method: "POST", path: "/admin/api/dead-letters/dismiss" },
    { token: OPERATOR_TOKEN, body: { ids: ["1"] } },
  );
  const progress = { isOver: false };
  void sent.finally(() => (progress.isOver = true));
  while (!progress.isOver) {
    await vi.advanceTimersByTimeAsync(500);
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect((await sent).status).toBe(503);
  const lines = logged.mock.calls.map(([line]) => JSON.parse(String(line)) as Record<string, unknown>);
  expect(lines).toContainEqual(
    expect.objectContaining({
      event: "audit_event_not_stored",
      action: "dismissDeadLetters",
      outcome: "failed",
      actorId: "operator-token",
    }),
  );
});

test("no secret of a request is in a row or in a line of the log: not of its path, query, headers, body or credential", async () => {
  const lines = ["info", "warn", "error"].map((level) => vi.spyOn(console, level as "info").mockReturnValue());
  const forged = await mintCredential("another root key", {
    kind: "key",
    tenantId: own,
    fields: ["a", "b", "planted"],
  });
  const tokens = [OPERATOR_TOKEN, apiKey, await setupToken(), await setupToken(other), forged];
  const planted = [...Object.values(SECRETS), ...tokens];
  const body = {
    name: SECRETS.body,
    ids: [SECRETS.body],
    sql: `SELECT '${SECRETS.body}'`,
    email: SECRETS.body,
    plan: SECRETS.body,
  };
  for (const route of routes) {
    for (const token of tokens) {
      const headers = {
        "idempotency-key": SECRETS.header,
        "user-agent": SECRETS.header,
        "stripe-signature": SECRETS.header,
      };
      const named = { ...route, path: route.path.replace(/:(?!tenantId)\w+/, SECRETS.path) };
      await send(named, { token, body, headers, query: `?token=${SECRETS.query}&after=${SECRETS.query}` });
      await send(named, { token, body, headers: { ...headers, "cf-connecting-ip": SECRETS.header } });
      await send({ ...route, path: route.path.replace(":tenantId", SECRETS.tenant) }, { token, body });
    }
  }
  expect(written.length).toBeGreaterThan(100);
  const rows = JSON.stringify(written);
  const log = JSON.stringify(lines.flatMap((spy) => spy.mock.calls));
  for (const secret of planted) expect(rows.includes(secret), secret).toBe(false);
  // What has the form of a tenant's id is in the log: an attempt at another tenant names both.
  for (const secret of planted.filter((each) => each !== SECRETS.tenant))
    expect(log.includes(secret), secret).toBe(false);
});

test("the operator token is recorded once an hour where it is for emergencies", async () => {
  // An hour of its own: the program remembers what it has recorded.
  const now = vi.spyOn(Date, "now").mockReturnValue(Date.now() + 5 * 3_600_000);
  onTestFinished(() => now.mockRestore());
  Object.assign(env, { OPERATOR_TOKEN_USE: "break-glass" });
  onTestFinished(() => void Object.assign(env, { OPERATOR_TOKEN_USE: "normal" }));
  const route = { method: "GET", path: "/admin/api/shards" } as const;
  await send(route, { token: OPERATOR_TOKEN });
  await send(route, { token: OPERATOR_TOKEN });
  expect(events()).toEqual([
    expect.objectContaining({
      action: "operator_token.use",
      tenant_id: null,
      actor_id: "operator-token",
      address: "192.0.2.7",
    }),
  ]);
});

test("the search of an account's audit log offers each act of its people by the API's name, and no two in the same words", () => {
  const offered = actionOptions(undefined);
  const names = offered.map(({ value }) => value);
  const isOwn = ({ access, isPage }: Route): boolean => access === "tenant_admin" && isPage !== true;
  const ownActs = routes.filter((route) => isOwn(route) && recordingOf(route) === "always").map(actionOf);
  expect(ownActs.length).toBeGreaterThan(20);
  expect(names).toEqual(expect.arrayContaining(ownActs));
  for (const values of [names, offered.map(({ text }) => text)]) expect(new Set(values).size).toBe(values.length);
  expect(actionOptions("of an earlier version").at(-1)).toMatchObject({ value: "of an earlier version" });
});
