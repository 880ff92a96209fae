// What one source of requests may send. The platform's counters are fakes here: each admits two requests of a key.
import { beforeAll, beforeEach, expect, test, vi } from "vitest";
import { encodeScopes, mintCredential } from "../../src/core/keys/credentials.ts";
import type { TenantId } from "../../src/core/tenant/tenant.ts";
import type { Route } from "../../src/http.ts";
import type { app as App } from "../../src/routes.ts";
import { appFetch } from "../support/app-requests.ts";

// Classes of the platform, which exist only in workerd.
vi.mock("cloudflare:workers", () => ({ DurableObject: Object, WorkflowEntrypoint: Object, RpcTarget: Object }));
vi.mock("cloudflare:workflows", () => ({ NonRetryableError: Error }));

const CREDENTIAL_KEY = "the root key of this test";
const OPERATOR_TOKEN = "operator-token-of-this-test";
const PUBLIC_URL = "http://127.0.0.1:8787";
const own = "tenant-own" as TenantId;
const LIMIT = 2;

let counts: Record<string, number> = {};
const counter = (name: string) => ({
  limit: async ({ key }: { key: string }) => {
    const count = (counts[`${name} ${key}`] = (counts[`${name} ${key}`] ?? 0) + 1);
    return { success: count <= LIMIT };
  },
});
const env = {
  ...{ CREDENTIAL_KEY, OPERATOR_TOKEN, OPERATOR_TOKEN_USE: "normal", OPERATOR_ISSUER: "", OPERATOR_ACCESS: "" },
  ...{ PUBLIC_URL, ALLOWED_ORIGINS: "", OIDC_ISSUERS: "[]", OAUTH_MODE: "server" },
  CONTROL_DATABASE_URL: "postgres://service:secret@127.0.0.1:1/control",
  NEON_FETCH_ENDPOINT: "http://127.0.0.1:1/sql",
  ADDRESS_RATE: counter("address"),
  REGISTRATION_RATE: counter("registration"),
  FAILURE_RATE: counter("failure"),
};

let app: typeof App;
let routes: readonly Route[];
beforeAll(async () => {
  ({ app, routes } = await import("../../src/routes.ts"));
});
beforeEach(() => (counts = {}));

const nameOf = ({ method, path }: Route): string => `${method} ${path}`;

async function send(
  { method, path }: Pick<Route, "method" | "path">,
  address: string,
  { token, form }: { token?: string; form?: string } = {},
): Promise<Response> {
  const verb = method === "ALL" ? "POST" : method;
  const filled = path.replace(":tenantId", own).replace(/:\w+/g, "1");
  const request = new Request(`${PUBLIC_URL}${filled}${path === "/health" ? `?tenant=${own}` : ""}`, {
    method: verb,
    headers: {
      "cf-connecting-ip": address,
      "content-type": form === undefined ? "application/json" : "application/x-www-form-urlencoded",
      ...(token !== undefined && { authorization: `Bearer ${token}` }),
    },
    ...(verb !== "GET" && { body: form ?? "{}" }),
  });
  return appFetch(app, request, env);
}

const isLimited = (answer: Response): boolean => {
  if (answer.status !== 429) return false;
  expect(answer.headers.get("retry-after")).toBe("60");
  return true;
};

test("wrong credentials have a rate at every door, and say when the next one is read", async () => {
  const doors = routes.filter(({ access }) => access !== "public" && access !== "stripe");
  expect(new Set(doors.map(({ access }) => access)).size).toBe(8);
  for (const [index, route] of doors.entries()) {
    const address = `203.0.113.${index % 250}`;
    counts = {};
    for (const expected of [false, false, true])
      expect(isLimited(await send(route, address, { token: "made-up" })), nameOf(route)).toBe(expected);
    expect((await send(route, "198.51.100.1", { token: "made-up" })).status, nameOf(route)).not.toBe(429);
  }
  const tokenEndpoint = { method: "POST", path: "/oauth/token" } as const;
  const form = "grant_type=refresh_token&refresh_token=made-up&client_id=c";
  counts = {};
  for (const expected of [false, false, true])
    expect(isLimited(await send(tokenEndpoint, "203.0.113.7", { form }))).toBe(expected);
});

test("a right credential does not pay for the failures of others at its address", async () => {
  const address = "203.0.113.7";
  const fields = ["key1", encodeScopes(["tools:read", "tenant:admin"]), "secret"];
  const key = await mintCredential(CREDENTIAL_KEY, { kind: "key", tenantId: own, fields });
  const expired = await mintCredential(CREDENTIAL_KEY, { kind: "setup", tenantId: own, fields: ["1"] });
  const usage = { method: "GET", path: "/api/tenants/:tenantId/usage" } as const;
  const shards = { method: "GET", path: "/admin/api/shards" } as const;
  for (let sent = 0; sent <= LIMIT; sent += 1)
    for (const route of [usage, shards]) await send(route, address, { token: "made-up" });
  expect((await send(usage, address, { token: "made-up" })).status).toBe(429);
  // The database is out of reach: these came as far as that.
  expect((await send(usage, address, { token: key })).status).toBe(503);
  expect((await send({ method: "ALL", path: "/mcp" }, address, { token: key })).status).toBe(503);
  expect((await send(shards, address, { token: OPERATOR_TOKEN })).status).toBe(503);
  // A genuine token that has expired learns that.
  const owner = { method: "POST", path: "/api/tenants/:tenantId/owner" } as const;
  expect((await send(owner, address, { token: expired })).status).toBe(401);
});

test("what strangers may do at a cost has a rate, and the loopback address has none", async () => {
  const limited = routes.filter(({ rate }) => rate !== undefined);
  expect(limited.map(nameOf)).toEqual(
    expect.arrayContaining([
      ...["GET /oauth/authorize", "POST /oauth/consent", "GET /oauth/callback", "GET /sign-in", "POST /oauth/register"],
      ...["GET /invitation", "POST /invitation", "POST /api/checkout", "GET /api/tenants/:tenantId/status"],
    ]),
  );
  const open = limited.filter(({ access }) => access === "public");
  for (const route of open) {
    counts = {};
    for (const expected of [false, false, true])
      expect(isLimited(await send(route, "2001:db8:1:2::3")), nameOf(route)).toBe(expected);
    // Another host of the same network, and another network.
    expect((await send(route, "2001:db8:1:2::4")).status, nameOf(route)).toBe(429);
    expect((await send(route, "2001:db8:1:3::4")).status, nameOf(route)).not.toBe(429);
    for (const local of ["127.0.0.1", "::1"])
      for (let sent = 0; sent <= LIMIT; sent += 1)
        expect((await send(route, local)).status, nameOf(route)).not.toBe(429);
  }
  expect(Object.keys(counts).filter((key) => key.includes("127."))).toEqual([]);
});

test("registrations of clients have a rate of their own, lower than that of other requests", async () => {
  const registers = routes.filter(({ rate }) => rate === "registration").map(nameOf);
  expect(registers).toEqual(["POST /oauth/register"]);
  await send({ method: "POST", path: "/oauth/register" }, "203.0.113.7");
  expect(Object.keys(counts).map((key) => key.split(" ")[0])).toEqual(["registration"]);
});

test("looks at the progress of one order do not slow down another buyer at the address", async () => {
  const status = { method: "GET", path: "/api/tenants/:tenantId/status" } as const;
  const tokenOf = (tenantId: TenantId): Promise<string> =>
    mintCredential(CREDENTIAL_KEY, { kind: "status", tenantId, fields: [String(Date.now() + 60_000)] });
  const [mine, others] = await Promise.all([tokenOf(own), tokenOf("tenant-other" as TenantId)]);
  for (const expected of [503, 503, 429])
    expect((await send(status, "203.0.113.7", { token: mine })).status).toBe(expected);
  const other = { ...status, path: "/api/tenants/tenant-other/status" };
  expect((await send(other, "203.0.113.7", { token: others })).status).toBe(503);
});
