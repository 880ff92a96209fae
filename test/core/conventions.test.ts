// What every answer of every route has in common: the request's id, the headers that keep tenants' data out of caches, frames
// and referrers, and problem documents. No system runs: the database and the tenants' objects are out of reach.
import { beforeAll, expect, onTestFinished, test, vi } from "vitest";
import { encodeScopes, mintCredential } from "../../src/core/keys/credentials.ts";
import type { TenantId } from "../../src/core/tenant/tenant.ts";
import { BadRequest, type Route, decodeCursor, encodeCursor, pageOf, pageOfAll, pageQuery } from "../../src/http.ts";
import type { app as App } from "../../src/routes.ts";
import { appFetch } from "../support/app-requests.ts";

// Classes of the platform, which exist only in workerd.
vi.mock("cloudflare:workers", () => ({ DurableObject: Object, WorkflowEntrypoint: Object, RpcTarget: Object }));
vi.mock("cloudflare:workflows", () => ({ NonRetryableError: Error }));

const OPERATOR_TOKEN = "operator-token-of-this-test";
const CREDENTIAL_KEY = "the root key of this test";
const PUBLIC_URL = "http://127.0.0.1:8787";
const own = "tenant-own" as TenantId;
const env = {
  ...{ CREDENTIAL_KEY, OPERATOR_TOKEN, PUBLIC_URL, ALLOWED_ORIGINS: "", OIDC_ISSUERS: "[]" },
  CONTROL_DATABASE_URL: "postgres://service:secret@127.0.0.1:1/control",
  NEON_FETCH_ENDPOINT: "http://127.0.0.1:1/sql",
  ...{ STRIPE_API_BASE: "http://127.0.0.1:1", STRIPE_SECRET_KEY: "sk_test_x" },
  ...{ STRIPE_WEBHOOK_SECRET: "whsec_x", STRIPE_THIN_WEBHOOK_SECRET: "whsec_y" },
};

let app: typeof App;
let routes: readonly Route[];
beforeAll(async () => {
  ({ app, routes } = await import("../../src/routes.ts"));
});

interface Sent {
  method?: string;
  path: string;
  headers?: Record<string, string>;
  body?: string;
  publicUrl?: string;
}

async function send({ method = "GET", path, headers = {}, body, publicUrl = PUBLIC_URL }: Sent): Promise<Response> {
  const request = new Request(`${publicUrl}${path}`, { method, headers, ...(body !== undefined && { body }) });
  const bindings = { ...env, PUBLIC_URL: publicUrl } as unknown as Env;
  return appFetch(app, request, bindings);
}

const filled = (path: string): string => path.replace(":tenantId", own).replaceAll(/:\w+/g, "1");

/** Requests to every route without a credential, with a made-up one and with the operator's, and to what no route has. */
function* requests(): Iterable<Sent> {
  for (const { method, path } of routes) {
    const verb = method === "ALL" ? "POST" : method;
    for (const token of [undefined, "made-up", OPERATOR_TOKEN])
      yield {
        ...{ method: verb, path: filled(path) },
        headers: {
          "content-type": "application/json",
          ...(token !== undefined && { authorization: `Bearer ${token}` }),
        },
        ...(verb !== "GET" && { body: verb === "DELETE" ? "" : "{}" }),
      };
    yield { method: "PURGE", path: filled(path) };
    yield { method: "OPTIONS", path: filled(path) };
  }
  yield { path: "/nothing" };
  yield { path: "/admin/api/nothing" };
  yield { method: "HEAD", path: "/plans" };
  yield { method: "POST", path: "/mcp", headers: { host: "elsewhere.example", "content-type": "application/json" } };
}

test("every answer has an id of its own, which no client chooses, and the problem document and the log name it", async () => {
  const spies = (["info", "warn", "error"] as const).map((level) =>
    vi.spyOn(console, level).mockImplementation(() => {}),
  );
  onTestFinished(() => spies.forEach((spy) => spy.mockRestore()));
  const seen = new Set<string>();
  let logged = 0;
  for (const request of requests()) {
    for (const spy of spies) spy.mockClear();
    const what = `${request.method ?? "GET"} ${request.path}`;
    const chosen = { "x-request-id": "chosen", "cf-ray": "chosen" };
    const answer = await send({ ...request, headers: { ...request.headers, ...chosen } });
    const id = answer.headers.get("x-request-id") ?? "";
    expect(id, what).toMatch(/^[\w-]{16,}$/);
    expect(seen.has(id), what).toBe(false);
    seen.add(id);
    if (answer.headers.get("content-type")?.includes("problem+json"))
      expect(await answer.json(), what).toMatchObject({
        type: expect.stringMatching(/^http:\/\/127\.0\.0\.1:8787\/docs\/errors#\w+$/),
        requestId: id,
      });
    for (const line of spies.flatMap((spy) => spy.mock.calls.map(([text]) => String(text)))) {
      const written = JSON.parse(line) as { event: string; requestId?: string };
      // The audit log gives an event up after ten seconds. Its line names the request of then.
      if (written.event === "audit_event_not_stored" && written.requestId !== undefined) continue;
      expect(written, what).toMatchObject({ requestId: id });
      logged += 1;
    }
  }
  expect(logged).toBeGreaterThan(50);
});

test("no answer is sniffed, framed, referred or, unless it is the same for everyone, cached", async () => {
  const forEveryone = ["/plans", "/openapi.json", "/docs", "/llms.txt", "/.well-known/"];
  for (const request of requests()) {
    const what = `${request.method ?? "GET"} ${request.path}`;
    const answer = await send(request);
    const { headers, status } = answer;
    expect(headers.get("x-content-type-options"), what).toBe("nosniff");
    // With `no-referrer`, browsers would hide the origin of a form of our own.
    const hasForm = headers.get("content-type")?.startsWith("text/html") === true && /<form/.test(await answer.text());
    expect(headers.get("referrer-policy"), what).toBe(hasForm ? "same-origin" : "no-referrer");
    expect(headers.get("content-security-policy"), what).toMatch(/default-src 'none'.*frame-ancestors 'none'/);
    expect(headers.get("strict-transport-security"), what).toBeNull();
    const isPublic =
      status === 200 && (request.path === "/" || forEveryone.some((start) => request.path.startsWith(start)));
    expect(headers.get("cache-control"), what).toMatch(isPublic ? /^public, max-age=300$/ : /no-store|no-cache/);
  }
});

test("every 401 says how to authenticate, every 405 which methods there are, and every refusal for now when to retry", async () => {
  const counts = new Map<number, number>();
  for (const request of requests()) {
    const { headers, status } = await send(request);
    counts.set(status, (counts.get(status) ?? 0) + 1);
    const what = `${request.method ?? "GET"} ${request.path}`;
    if (status === 401) expect(headers.get("www-authenticate"), what).toMatch(/^Bearer/);
    if (status === 405) expect(headers.get("allow"), what).toMatch(/^[A-Z]+(, [A-Z]+)*$/);
    // /health answers 503 with its checks.
    if (status === 429 || (status === 503 && !request.path.startsWith("/health")))
      expect(headers.get("retry-after"), what).toMatch(/^\d+$/);
  }
  for (const status of [401, 405, 503]) expect(counts.get(status), String(status)).toBeGreaterThan(10);
});

test("over HTTPS every answer demands HTTPS", async () => {
  const publicUrl = "https://tollgate.example";
  for (const path of ["/plans", "/nothing", "/docs/errors", "/mcp"])
    expect((await send({ path, publicUrl })).headers.get("strict-transport-security"), path).toMatch(/^max-age=\d{8}$/);
});

test("an answer of the MCP endpoint has the id too, and a browser client may read it", async () => {
  const key = await mintCredential(CREDENTIAL_KEY, {
    ...{ kind: "key", tenantId: own },
    fields: ["id", encodeScopes(["tools:read"]), "secret"],
  });
  const headers = { "content-type": "application/json", origin: PUBLIC_URL, accept: "application/json" };
  const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/list" });
  for (const authorization of ["", `Bearer ${key}`]) {
    const answer = await send({ method: "POST", path: "/mcp", headers: { ...headers, authorization }, body });
    expect(answer.headers.get("x-request-id")).toMatch(/^[\w-]{16,}$/);
    expect(answer.headers.get("access-control-expose-headers")).toContain("X-Request-Id");
  }
});

test("the pages of a list are its items, each once and in order, with any page size", () => {
  const items = Array.from({ length: 7 }, (_, index) => ({ id: `item ${index}` }));
  for (let limit = 1; limit <= 8; limit += 1) {
    const found: string[] = [];
    let after: string | null = "";
    while (after !== null) {
      const page: { items: { id: string }[]; next: string | null } = pageOfAll(
        "items",
        items,
        { after, limit },
        ({ id }) => id,
      );
      expect(page.items.length).toBeLessThanOrEqual(limit);
      expect(page.items.length).toBeGreaterThan(0);
      found.push(...page.items.map(({ id }) => id));
      after = page.next;
    }
    expect(found).toEqual(items.map(({ id }) => id));
  }
  expect(pageOfAll("items", [], { after: "", limit: 3 }, String)).toEqual({ items: [], next: null });
  expect(() => pageOfAll("items", items, { after: "gone", limit: 3 }, ({ id }) => id)).toThrow(BadRequest);
});

test("the last page of a store's rows says that it is the last", () => {
  expect(pageOf("rows", [1, 2, 3], 2, (row) => row)).toEqual({ rows: [1, 2], next: "2" });
  expect(pageOf("rows", [1, 2], 2, (row) => row)).toEqual({ rows: [1, 2], next: null });
  expect(pageOf("rows", [], 2, String)).toEqual({ rows: [], next: null });
});

test("a list takes a limit from 1 to its most, which is the default", () => {
  const Query = pageQuery(50);
  expect(Query.parse({})).toEqual({ after: "", limit: 50 });
  expect(Query.parse({ limit: "7", after: "x" })).toEqual({ after: "x", limit: 7 });
  for (const limit of ["0", "51", "-1", "1.5", "", "all"])
    expect(Query.safeParse({ limit }).success, limit).toBe(false);
});

const INSTANT = "2026-11-28T12:00:00.000Z";

test.each([[[INSTANT, "part", "item"]], [[INSTANT, "ü", '"]']]])("the cursor of %j leads back", (parts) => {
  expect(decodeCursor(encodeCursor(parts), 3)).toEqual(parts);
  expect(() => decodeCursor(encodeCursor(parts), 2)).toThrow(BadRequest);
});

test.each([
  ...["x", "!", "e30"],
  ...[[INSTANT], ["yesterday", "b", "c"], ["0000-01-01T00:00:00Z", "b", "c"], [INSTANT, "b", "\0"]].map(encodeCursor),
])("%j is no cursor", (after) => {
  expect(() => decodeCursor(after, 3)).toThrow(BadRequest);
});

test("the first page has no cursor", () => {
  expect(decodeCursor("", 3)).toBeUndefined();
});
