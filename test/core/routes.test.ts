// The table of routes decides who may do what. These tests walk the whole table, so that a new route is covered at once.
// No system runs: the database and the tenants' objects are out of reach, and a refusal must not need them.
import { beforeAll, expect, onTestFinished, test, vi } from "vitest";
import { encodeScopes, mintCredential } from "../../src/core/keys/credentials.ts";
import type { TenantId } from "../../src/core/tenant/tenant.ts";
import { AnyQuery, type Route } from "../../src/http.ts";
import type { app as App } from "../../src/routes.ts";
import { appFetch } from "../support/app-requests.ts";

// Classes of the platform, which exist only in workerd.
vi.mock("cloudflare:workers", () => ({ DurableObject: Object, WorkflowEntrypoint: Object, RpcTarget: Object }));
vi.mock("cloudflare:workflows", () => ({ NonRetryableError: Error }));

const CREDENTIAL_KEY = "the root key of this test";
const OPERATOR_TOKEN = "operator-token-of-this-test";
const nowhere = "127.0.0.1:1";

const env = {
  CREDENTIAL_KEY,
  OPERATOR_TOKEN,
  PUBLIC_URL: "http://127.0.0.1:8787",
  ALLOWED_ORIGINS: "",
  OIDC_ISSUERS: JSON.stringify([
    { issuer: "http://issuer.test", jwksUrl: `http://${nowhere}/keys`, tenantClaim: "org" },
  ]),
  CONTROL_DATABASE_URL: `postgres://service:secret@${nowhere}/control`,
  NEON_FETCH_ENDPOINT: `http://${nowhere}/sql`,
  STRIPE_API_BASE: `http://${nowhere}`,
  STRIPE_SECRET_KEY: "sk_test_x",
  STRIPE_WEBHOOK_SECRET: "whsec_x",
  STRIPE_THIN_WEBHOOK_SECRET: "whsec_y",
};

let app: typeof App;
let routes: readonly Route[];
beforeAll(async () => {
  ({ app, routes } = await import("../../src/routes.ts"));
});

const own = "tenant-own" as TenantId;
const other = "tenant-other" as TenantId;

const key = (tenantId: TenantId, scopes: string[]): Promise<string> =>
  mintCredential(CREDENTIAL_KEY, { kind: "key", tenantId, fields: ["id", encodeScopes(scopes), "secret"] });
const setupToken = (tenantId: TenantId, expiresAtMs = Date.now() + 60_000): Promise<string> =>
  mintCredential(CREDENTIAL_KEY, { kind: "setup", tenantId, fields: [String(expiresAtMs)] });
const statusToken = (tenantId: TenantId, expiresAtMs = Date.now() + 60_000): Promise<string> =>
  mintCredential(CREDENTIAL_KEY, { kind: "status", tenantId, fields: [String(expiresAtMs)] });
const monitorToken = (tenantId: TenantId): Promise<string> =>
  mintCredential(CREDENTIAL_KEY, { kind: "monitor", tenantId, fields: ["1"] });

/** A token that only its issuer's keys, which are out of reach, could refuse. */
const unverifiable = [{ alg: "ES256", kid: "k1" }, { iss: "http://issuer.test" }]
  .map((part) => Buffer.from(JSON.stringify(part)).toString("base64url"))
  .join(".");

/** The credentials that open routes of each access for the tenant `own`. */
const credentials: Readonly<Record<Route["access"], () => Promise<string | undefined>>> = {
  public: async () => undefined,
  stripe: async () => undefined,
  buyer: () => setupToken(own),
  tenant_admin: () => key(own, ["tools:read", "tenant:admin"]),
  person: async () => `${unverifiable}.c2lnbmF0dXJl`,
  key_maker: () => setupToken(own),
  mcp: () => key(own, ["tools:read", "tenant:admin"]),
  status: () => statusToken(own),
  operator: async () => OPERATOR_TOKEN,
  monitor: () => monitorToken(own),
};

/** Sends a request to the route with the tenant `own` in its path. */
async function send({ method, path }: Pick<Route, "method" | "path">, token?: string): Promise<Response> {
  const filled = path.replace(":tenantId", own).replace(/:\w+/g, "1");
  const query = /^\/health\/?$/.test(path) ? `?tenant=${own}` : "";
  const verb = method === "ALL" ? "POST" : method;
  const request = new Request(`http://127.0.0.1:8787${filled}${query}`, {
    method: verb,
    headers: {
      accept: "application/json, text/event-stream",
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      ...(verb === "POST" ? { "content-type": "application/json" } : {}),
    },
    ...(verb === "POST" ? { body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/list" }) } : {}),
  });
  return appFetch(app, request, env);
}

/** Whether the route refuses a caller without its credential with 401. A status route then finds no tenant. */
const isGuarded = (access: Route["access"]): boolean => !["public", "stripe", "status"].includes(access);

/** A page that a person opens leads to the sign-in instead. */
const isVisit = ({ isPage, method }: Route): boolean => isPage === true && method === "GET";

const nameOf = ({ method, path }: Route): string => `${method} ${path}`;

test("every route that is not public refuses a caller without a credential", async () => {
  for (const route of routes.filter(({ access }) => isGuarded(access))) {
    const answer = await send(route);
    const signIn = route.access === "operator" ? /^\/admin\/sign-in\?return=/ : /^\/sign-in\?return=/;
    if (isVisit(route)) expect(answer.headers.get("location"), nameOf(route)).toMatch(signIn);
    expect(answer.status, nameOf(route)).toBe(isVisit(route) ? 303 : 401);
  }
});

test("every route that is not public refuses every credential but its own kind", async () => {
  const wrong: Record<string, string> = {
    "a made-up token": "wrong",
    "a forged key": await mintCredential("another root key", { kind: "key", tenantId: own, fields: ["i", "c", "s"] }),
    "part of the operator's token": OPERATOR_TOKEN.slice(0, -1),
  };
  for (const route of routes.filter(({ access }) => isGuarded(access))) {
    const tokens = { ...wrong };
    for (const access of ["buyer", "tenant_admin", "operator", "monitor"] as const) {
      const isKey =
        (access === "tenant_admin" && ["mcp", "key_maker"].includes(route.access)) ||
        (access === "buyer" && route.access === "key_maker");
      const token = await credentials[access]();
      if (access !== route.access && !isKey && token !== undefined) tokens[`the credential of a ${access}`] = token;
    }
    for (const [what, token] of Object.entries(tokens))
      expect((await send(route, token)).status, `${nameOf(route)} with ${what}`).toBe(401);
  }
});

test("another tenant's credential finds no tenant on a tenant's route, and the log names both", async () => {
  const logged = vi.spyOn(console, "warn");
  onTestFinished(() => logged.mockRestore());
  for (const route of routes) {
    const token = ["buyer", "key_maker"].includes(route.access)
      ? await setupToken(other)
      : route.access === "tenant_admin"
        ? await key(other, ["tenant:admin"])
        : route.access === "monitor"
          ? await monitorToken(other)
          : undefined;
    if (token === undefined) continue;
    logged.mockClear();
    expect((await send(route, token)).status, nameOf(route)).toBe(404);
    const lines = logged.mock.calls.map(([line]) => JSON.parse(String(line)) as Record<string, unknown>);
    expect(lines, nameOf(route)).toContainEqual(
      expect.objectContaining({ event: "cross_tenant_refused", tenantId: other, target: own }),
    );
  }
});

test("a key without the admin scope and an expired setup token are refused on every route", async () => {
  for (const route of routes) {
    if (route.access === "tenant_admin")
      expect((await send(route, await key(own, ["tools:read", "tools:write"]))).status, nameOf(route)).toBe(403);
    if (["buyer", "key_maker"].includes(route.access))
      expect((await send(route, await setupToken(own, Date.now() - 1))).status, nameOf(route)).toBe(401);
  }
});

test("the right credential passes, and the request then fails only because the database is unreachable", async () => {
  for (const route of routes.filter(({ access }) => access !== "public" && access !== "stripe"))
    expect([401, 403], nameOf(route)).not.toContain((await send(route, await credentials[route.access]())).status);
});

test("a text that PostgreSQL cannot store is refused at every door before the database is asked", async () => {
  // The key of a tenant's admin is looked up in the database first, and a person's token at its issuer. Stripe's handlers and MCP read their
  // bodies themselves.
  const others = ["tenant_admin", "person", "stripe", "mcp"];
  for (const route of routes.filter(({ access }) => !others.includes(access))) {
    const token = await credentials[route.access]();
    const ask = (path: string, body?: string): Promise<Response> =>
      appFetch(
        app,
        new Request(`http://127.0.0.1:8787${path.replace(":tenantId", own).replace(/:\w+/g, "1")}`, {
          method: route.method,
          headers: {
            "content-type": "application/json",
            ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
          },
          ...(body === undefined ? {} : { body }),
        }),
        env,
      );
    const refused = async (response: Response, what: string): Promise<void> => {
      if (route.isPage === true) {
        expect(response.status, `${nameOf(route)} with ${what}`).toBe(400);
        return expect(await response.text(), `${nameOf(route)} with ${what}`).toMatch(/NUL|surrogate|UTF-8/);
      }
      const { code, detail } = (await response.json()) as { code: string; detail?: string };
      expect({ code, detail }, `${nameOf(route)} with ${what}`).toEqual({
        code: "bad_request",
        detail: expect.stringMatching(/NUL|surrogate|UTF-8/),
      });
    };
    for (const text of ["%00", "x%00y"]) {
      const named = route.path.replace(/:(?!tenantId)\w+/, text);
      if (named !== route.path) await refused(await ask(named), text);
      if (route.query !== undefined && route.access !== "monitor")
        await refused(await ask(`${route.path}?after=${text}&period=${text}`), text);
    }
    for (const text of [String.raw`\u0000`, String.raw`\ud83d`, "\u00e9"]) {
      if (route.body === undefined) continue;
      const latin1 = text.length === 1;
      const body = `{"name":"${text}","ids":["${text}"],"features":{"${text}":1},"limits":{"x":["${text}"]}}`;
      await refused(await ask(route.path, latin1 ? (Buffer.from(body, "latin1") as unknown as string) : body), text);
    }
  }
});

test("a webhook without Stripe's signature is refused", async () => {
  for (const route of routes.filter(({ access }) => access === "stripe")) {
    const response = await send(route);
    expect(await response.json(), nameOf(route)).toMatchObject({ code: "signature_invalid" });
    expect(response.status, nameOf(route)).toBe(400);
  }
});

test("the operator's routes are those below /admin but for the sign-in, and no tenant's route is public without a reason", () => {
  const ways = /^\/admin\/sign-(in|out)(\/|$)/;
  for (const route of routes.filter(({ path }) => !ways.test(path)))
    expect(route.access === "operator", nameOf(route)).toBe(/^\/admin(\/|$)/.test(route.path));
  for (const route of routes.filter(({ path }) => ways.test(path))) expect(route.access, nameOf(route)).toBe("public");
  const open = routes.filter(({ access, path }) => access === "public" && path.includes(":tenantId"));
  expect(open.map(nameOf)).toEqual([]);
});

test("a tenant's status shows nothing without a credential of the tenant: the answer is that of an id without a tenant", async () => {
  const ask = async (token?: string, query = "", id: string = own): Promise<{ status: number; body: unknown }> => {
    const answer = await send({ method: "GET", path: `/api/tenants/${id}/status${query}` }, token);
    const { requestId: _, ...body } = (await answer.json()) as Record<string, unknown>;
    return { status: answer.status, body };
  };
  const nothing = await ask(undefined, "", "no-such-tenant");
  expect(nothing).toMatchObject({ status: 404, body: { code: "not_found" } });
  const useless = ["wrong", OPERATOR_TOKEN.slice(0, -1), await monitorToken(own), await statusToken(other)];
  for (const token of [undefined, ...useless, await setupToken(other), await key(other, ["tools:read"])])
    expect(await ask(token), token).toEqual(nothing);
  expect(await ask(undefined, `?token=${await statusToken(other)}`)).toEqual(nothing);
  for (const expired of [await statusToken(own, Date.now() - 1), await setupToken(own, Date.now() - 1)])
    expect((await ask(expired)).status).toBe(401);
  // The database is out of reach: these came as far as that.
  for (const token of [await statusToken(own), await setupToken(own), await key(own, ["tools:read"]), OPERATOR_TOKEN])
    expect((await ask(token)).status, token).toBe(503);
  expect((await ask(undefined, `?token=${await statusToken(own)}`)).status).toBe(503);
});

test("a known path answers 405 to another method and lists those it takes", async () => {
  const paths = new Map<string, Route[]>();
  for (const route of routes) paths.set(route.path, [...(paths.get(route.path) ?? []), route]);
  for (const [path, rows] of paths) {
    const [first] = rows;
    if (first === undefined || first.method === "ALL") continue;
    const request = { method: "PURGE", path } as unknown as Route;
    const response = await send(request, await credentials[first.access]());
    expect(response.status, path).toBe(405);
    expect(response.headers.get("content-type"), path).toContain("application/problem+json");
    const allowed = rows.flatMap(({ method }) => (method === "GET" ? ["GET", "HEAD"] : [method]));
    expect(response.headers.get("allow")?.split(", "), path).toEqual(allowed);
    if (first.access === "operator") expect((await send(request)).status, path).toBe(401);
  }
});

test("a query parameter or field that a route does not know is refused by name, with those that it knows", async () => {
  const ask = async (method: string, path: string, token: string | undefined, body?: unknown) => {
    const request = new Request(`http://127.0.0.1:8787${path}`, {
      method,
      headers: { ...(token && { authorization: `Bearer ${token}` }), "content-type": "application/json" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const response = await appFetch(app, request, env);
    const text = await response.text();
    const isPage = response.headers.get("content-type")?.startsWith("text/html") === true;
    const detail = isPage ? text : ((JSON.parse(text) as { detail?: string }).detail ?? "");
    return { status: response.status, detail };
  };
  for (const { method, path, access, query } of routes.filter(
    (each) => each.access !== "mcp" && each.access !== "stripe",
  )) {
    // Some guards ask the database or the issuer first. Some documents and pages take any query.
    if (["tenant_admin", "person"].includes(access) || query === AnyQuery) continue;
    const filled = `${path.replace(":tenantId", own).replace(/:\w+/g, "1")}?madeUp=1${path === "/health" ? `&tenant=${own}` : ""}`;
    const answer = await ask(method, filled, await credentials[access](), method === "GET" ? undefined : {});
    expect(answer, `${method} ${path}`).toMatchObject({ status: 400, detail: expect.stringContaining("madeUp") });
  }
  const post = (path: string, body: unknown) => ask("POST", path, OPERATOR_TOKEN, body);
  const tenant = { name: "A", plan: "free" };
  expect(await post("/admin/api/tenants", { ...tenant, trialdays: 3 })).toMatchObject({
    status: 400,
    detail: expect.stringMatching(/^trialdays: there is no such field\. Known: .*trialDays/),
  });
  expect((await post("/admin/api/tenants", { ...tenant, limits: { unitsPerDay: 3 } })).detail).toMatch(
    /^limits\.unitsPerDay: .*unitsPerHour/,
  );
  expect((await post(`/admin/api/tenants/${own}/restore`, { backup: "a", onto: tenant })).detail).toMatch(
    /^onto: .*backup, into, at/,
  );
  expect((await post(`/admin/api/tenants/${own}/suspend`, { reason: "late" })).detail).toContain("takes no body");
});

test("every operator's route that names a tenant answers 404 in words when there is no such tenant", async () => {
  // A control database without rows.
  const noRows = async (_: unknown, init?: RequestInit): Promise<Response> => {
    const { queries } = JSON.parse(typeof init?.body === "string" ? init.body : "{}") as { queries: unknown[] };
    return Response.json({ results: queries.map(() => ({ fields: [], rows: [], command: "SELECT", rowCount: 0 })) });
  };
  const asked = vi.spyOn(globalThis, "fetch").mockImplementation(noRows);
  onTestFinished(() => asked.mockRestore());
  const link = { issuer: "https://issuer.example", organisation: "o" };
  const bodies: Record<string, unknown> = {
    "PATCH /admin/api/tenants/:tenantId": { name: "A" },
    "PATCH /admin/api/tenants/:tenantId/configuration": { branding: null },
    "POST /admin/api/tenants/:tenantId/impersonations": { reason: "A" },
    "POST /admin/api/tenants/:tenantId/keys": { name: "A", scopes: ["tools:read"] },
    "PATCH /admin/api/tenants/:tenantId/keys/:keyId": { name: "A" },
    "POST /admin/api/tenants/:tenantId/keys/:keyId/rotate": {},
    "POST /admin/api/tenants/:tenantId/links": link,
    "PUT /admin/api/tenants/:tenantId/provider": { kind: "oidc", issuer: "https://a.example", clientId: "c" },
    "POST /admin/api/tenants/:tenantId/members": { email: "ada@acme.example" },
    "POST /admin/api/tenants/:tenantId/plan": { plan: "free" },
    "POST /admin/api/tenants/:tenantId/move": { strategy: "schema" },
    "POST /admin/api/tenants/:tenantId/backups": {},
    "POST /admin/api/tenants/:tenantId/restore": { backup: "a" },
    "POST /admin/api/tenants/:tenantId/import": { importFrom: "a.ndjson" },
  };
  for (const route of routes.filter(({ access, path }) => access === "operator" && path.includes(":tenantId"))) {
    const name = nameOf(route);
    const query =
      name === "DELETE /admin/api/tenants/:tenantId/links" ? `?${new URLSearchParams(link).toString()}` : "";
    const body = bodies[name];
    const request = new Request(
      `http://127.0.0.1:8787${route.path.replace(":tenantId", "no-such-tenant").replace(/:\w+/g, "1")}${query}`,
      {
        method: route.method,
        headers: { authorization: `Bearer ${OPERATOR_TOKEN}`, "content-type": "application/json" },
        ...(body !== undefined && { body: JSON.stringify(body) }),
      },
    );
    const answer = await appFetch(app, request, env);
    // The code and the words are in the problem document, and in a page.
    expect({ name, status: answer.status, text: await answer.text() }).toMatchObject({
      ...{ name, status: 404 },
      text: expect.stringMatching(/not_found.*There is no such tenant\./s),
    });
  }
});

test("a browser client of any origin reads the metadata, and its preflight for the revision's header succeeds", async () => {
  const paths = routes.map(({ path }) => path).filter((path) => path.startsWith("/.well-known/"));
  expect(paths).toContain("/.well-known/oauth-protected-resource/mcp");
  // Clients also look for documents that do not exist, and must be able to read that.
  for (const path of [...paths, "/.well-known/oauth-authorization-server/other"]) {
    const preflight = await send({ method: "OPTIONS", path } as unknown as Route);
    expect(preflight.status, path).toBe(204);
    expect(preflight.headers.get("access-control-allow-origin"), path).toBe("*");
    expect(preflight.headers.get("access-control-allow-headers"), path).toMatch(/MCP-Protocol-Version/);
    const answer = await send({ method: "GET", path });
    expect(answer.status, path).toBe(paths.includes(path) ? 200 : 404);
    expect(answer.headers.get("access-control-allow-origin"), path).toBe("*");
  }
});

test("a slash at the end of a path changes nothing", async () => {
  for (const route of routes) {
    const [plain, slashed] = await Promise.all([route.path, `${route.path}/`].map((path) => send({ ...route, path })));
    expect(slashed?.status, nameOf(route)).toBe(plain?.status);
  }
  for (const path of ["/mcp", "/mcp/"]) {
    const answer = await send({ method: "ALL", path }, await credentials.mcp());
    // The database is out of reach: the request came as far as on the plain path.
    expect(await answer.json(), path).toMatchObject({ id: 1, error: { data: { code: "control_unavailable" } } });
  }
});

test("every 401 has a challenge, which names no error where there was no token (RFC 6750, 3.1)", async () => {
  for (const route of routes.filter(({ access }) => isGuarded(access))) {
    if (!isVisit(route)) {
      const challenge = (await send(route)).headers.get("www-authenticate") ?? "";
      expect(challenge, nameOf(route)).toMatch(/^Bearer/);
      expect(challenge, nameOf(route)).not.toContain("error=");
    }
    expect((await send(route, "wrong")).headers.get("www-authenticate"), nameOf(route)).toContain(
      'error="invalid_token"',
    );
  }
  const basic = new Request("http://127.0.0.1:8787/mcp", {
    method: "POST",
    headers: { "content-type": "application/json", authorization: "Basic dTpw" },
    body: "{}",
  });
  const answer = await appFetch(app, basic, env);
  expect(answer.status).toBe(401);
  expect(answer.headers.get("www-authenticate")).not.toContain("error=");
});

test("a compressed body is refused as that on every route that takes JSON", async () => {
  for (const route of routes.filter(({ body, access }) => body !== undefined && access !== "mcp")) {
    const path = route.path.replace(":tenantId", own).replace(/:\w+/g, "1");
    const token = await credentials[route.access]();
    const request = new Request(`http://127.0.0.1:8787${path}`, {
      method: route.method,
      headers: {
        "content-type": "application/json",
        "content-encoding": "gzip",
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      },
      body: "{}",
    });
    const answer = await appFetch(app, request, env);
    // A tenant's key is checked in the database first, and a person's token at its issuer. Both are out of reach.
    const isCheckedElsewhere = route.access === "tenant_admin" || route.access === "person";
    expect(answer.status, nameOf(route)).toBe(isCheckedElsewhere ? 503 : 415);
  }
});

test("the body of a stranger's MCP message is not read", async () => {
  for (const token of [
    undefined,
    "made-up",
    await mintCredential("another key", { kind: "key", tenantId: own, fields: ["a", "b", "c"] }),
  ]) {
    let pulled = 0;
    const body = new ReadableStream(
      { pull: (stream) => stream.enqueue(new Uint8Array((pulled += 1))) },
      { highWaterMark: 0 },
    );
    const headers = { "content-type": "application/json", ...(token && { authorization: `Bearer ${token}` }) };
    const request = new Request("http://127.0.0.1:8787/mcp", {
      method: "POST",
      headers,
      body,
      duplex: "half",
    } as RequestInit);
    const answer = await appFetch(app, request, env);
    expect([answer.status, pulled]).toEqual([401, 0]);
  }
});

test("HEAD answers as GET does, without a body", async () => {
  for (const path of ["/plans", "/.well-known/oauth-protected-resource"]) {
    const [get, head] = await Promise.all(["GET", "HEAD"].map((method) => send({ method, path } as unknown as Route)));
    expect([get?.status, head?.status], path).toEqual([200, 200]);
    expect(head?.headers.get("content-type"), path).toBe(get?.headers.get("content-type"));
    expect(await head?.text(), path).toBe("");
  }
});

test("an unknown path answers 404, but below the operator's API only to the operator's token", async () => {
  const unknown = (path: string, token?: string) => send({ method: "GET", path }, token);
  expect((await unknown("/nothing")).status).toBe(404);
  expect((await unknown("/api/nothing")).status).toBe(404);
  expect((await unknown("/admin/api/nothing")).status).toBe(401);
  expect((await unknown("/admin/api/nothing", OPERATOR_TOKEN)).status).toBe(404);
});
