// Malformed input and outages: the refusal names the cause, nothing is charged, and the next correct request works.
import { createHmac } from "node:crypto";
import { afterEach, expect, test } from "vitest";
import {
  aJwt,
  aTenant,
  asSuperuser,
  callTool,
  controlRows,
  databaseFaults,
  fireCron,
  health,
  modernMeta,
  operator,
  postMcp,
  rowsOf,
  simulator,
  statusPage,
  storedCalls,
  system,
} from "../support/flow.ts";

// Runs also after a failed test, because the next test file uses the same databases.
afterEach(async () => {
  await databaseFaults([]);
  await simulator("/faults", { seed: 1, rules: [] });
});

const down = (database: string) => databaseFaults([{ kind: "refuse-before", database, probability: 1 }]);

/** A raw body to `/mcp`. */
const rawMcp = (token: string, body: string, headers: Record<string, string> = {}): Promise<Response> =>
  fetch(`${system.publicUrl}/mcp`, {
    method: "POST",
    headers: {
      authorization: `Bearer ${token}`,
      accept: "application/json, text/event-stream",
      "content-type": "application/json",
      ...headers,
    },
    body,
  });

const checkout = (body: unknown, headers: Record<string, string> = {}): Promise<Response> =>
  fetch(`${system.publicUrl}/api/checkout`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: typeof body === "string" ? body : JSON.stringify(body),
  });

const order = { plan: "free", name: "Well formed" };

async function expectProblem(response: Response, status: number, code: string, what = code): Promise<string> {
  expect(response.status, what).toBe(status);
  expect(response.headers.get("content-type"), what).toContain("application/problem+json");
  const body = (await response.json()) as { detail?: string };
  expect(body, what).toMatchObject({ status, code, title: expect.any(String), requestId: expect.any(String) });
  return body.detail ?? "";
}

async function expectJsonRpcError(response: Response, status: number, code: number, what: string): Promise<void> {
  expect(response.status, what).toBe(status);
  expect(await response.json(), what).toMatchObject({ jsonrpc: "2.0", error: { code, message: expect.any(String) } });
}

test("a body that is not an MCP message is refused with the reason and is not charged", async () => {
  const { id, apiKey } = await aTenant();
  const list = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/list" });
  await expectJsonRpcError(await rawMcp(apiKey, "{"), 400, -32_700, "malformed JSON");
  await expectJsonRpcError(await rawMcp(apiKey, ""), 400, -32_700, "an empty body");
  await expectJsonRpcError(await rawMcp(apiKey, "[]"), 400, -32_600, "an empty batch");
  const revision = { "mcp-protocol-version": "2025-11-25" };
  await expectJsonRpcError(await rawMcp(apiKey, `[${list}]`, revision), 400, -32_600, "a batch of a later revision");
  await expectJsonRpcError(await rawMcp(apiKey, list, { "content-type": "text/plain" }), 415, -32_000, "text");
  const large = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/list", params: { x: "x".repeat(1_100_000) } });
  await expectJsonRpcError(await rawMcp(apiKey, large), 413, -32_000, "an oversized body");
  for (const body of ["null", "1", '"x"', "{}", '{"jsonrpc":"1.0","id":1,"method":"tools/list"}', '{"method":5}']) {
    const response = await rawMcp(apiKey, body);
    expect(response.status, body).toBeGreaterThanOrEqual(400);
    expect(response.status, body).toBeLessThan(500);
    expect(await response.json(), body).toMatchObject({ error: { code: expect.any(Number) } });
  }
  expect(await storedCalls(id)).toEqual([]);
});

test("a browser of another origin is refused, and a GET gets 405 with Allow: POST", async () => {
  const { apiKey } = await aTenant();
  const list = { jsonrpc: "2.0", id: 1, method: "tools/list", params: { _meta: modernMeta } };
  for (const origin of ["https://evil.example", "null", `${system.publicUrl}.evil.example`]) {
    const response = await postMcp(apiKey, list, { origin });
    expect(response.headers.has("access-control-allow-origin"), origin).toBe(false);
    await expectJsonRpcError(response, 403, -32_000, origin);
  }
  const got = await fetch(`${system.publicUrl}/mcp`, { headers: { authorization: `Bearer ${apiKey}` } });
  expect(got.headers.get("allow")).toContain("POST");
  await expectJsonRpcError(got, 405, -32_000, "GET");
});

test("a GET without a credential gets 401, so that a client can look before it opens a browser", async () => {
  const got = await fetch(`${system.publicUrl}/mcp`);
  expect(got.status).toBe(401);
  expect(got.headers.get("www-authenticate")).toContain("resource_metadata=");
});

test("an unknown tool is refused and is not charged", async () => {
  const { id, apiKey } = await aTenant();
  for (const name of ["no_such_tool", "", "__proto__", "constructor", "search_products "]) {
    const response = await rawMcp(
      apiKey,
      JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/call", params: { name, arguments: {} } }),
      { "mcp-protocol-version": "2025-11-25" },
    );
    const body = (await response.json()) as { error?: { message: string }; result?: { isError?: boolean } };
    expect(response.status, name).toBeLessThan(500);
    expect(body.error !== undefined || body.result?.isError === true, name).toBe(true);
  }
  await expect(callTool(apiKey, "no_such_tool")).rejects.toThrow("no_such_tool");
  expect(await storedCalls(id)).toEqual([]);
});

test.each<[string, string, Record<string, unknown>]>([
  ["search_products", "query", {}],
  ["search_products", "query", { query: 7 }],
  ["search_products", "query", { query: "x".repeat(201) }],
  ["search_products", "limit", { query: "", limit: 51 }],
  ["search_products", "limit", { query: "", limit: 1.5 }],
  ["search_products", "tenant_id", { query: "", tenant_id: "somebody-else" }],
  ["generate_report", "lowStockBelow", { lowStockBelow: 0 }],
  ["write_document", "contentType", { path: "a.html", text: "x", contentType: "text/html" }],
  ["read_document", "path", { path: "" }],
])(
  "arguments that break the schema of %s are refused, the refusal names %s, and nothing is charged",
  async (tool, field, args) => {
    const { id, apiKey } = await aTenantForArguments();
    const answer = await callTool(apiKey, tool, args);
    expect(answer.isError).toBe(true);
    expect(answer.text).toContain(field);
    expect(await storedCalls(id)).toEqual([]);
  },
);

let shared: ReturnType<typeof aTenant> | undefined;
/** One tenant for all cases, because no call is charged. */
const aTenantForArguments = () => (shared ??= aTenant());

test("orders from one address have a rate, and other addresses are not refused", async () => {
  const from = (address: string): Promise<Response> => checkout({}, { "cf-connecting-ip": address });
  let refused: Response | undefined;
  // The platform counts by the minute of the clock, so a new one may begin meanwhile.
  for (let sent = 0; refused === undefined && sent < 300; sent += 20) {
    const answers = await Promise.all(Array.from({ length: 20 }, (_, index) => from(`2001:db8:1:2::${index}`)));
    refused = answers.find(({ status }) => status === 429);
    for (const { status } of answers) expect([400, 429]).toContain(status);
  }
  expect(refused?.headers.get("retry-after")).toBe("60");
  expect(await refused?.json()).toMatchObject({ code: "rate_limited", detail: expect.stringContaining("60 seconds") });
  expect((await from("2001:db8:1:3::1")).status).toBe(400);
});

test("a malformed order is refused with the names of the wrong fields", async () => {
  const before = await controlRows("SELECT count(*) AS n FROM checkouts");
  const cases: [unknown, string][] = [
    [{ name: "x", plan: "platinum" }, "plan"],
    [{ name: "x", plan: "enterprise" }, "plan"],
    [{ name: "x", plan: "__proto__" }, "plan"],
    [{ plan: "free" }, "name"],
    [{ plan: "free", name: "  " }, "name"],
    [{ plan: "free", name: "x".repeat(201) }, "name"],
    [{ ...order, email: "nobody" }, "email"],
    [{ ...order, successUrl: "not a url" }, "successUrl"],
    [{ ...order, successUrl: "javascript:alert(1)" }, "successUrl"],
    [{ ...order, successUrl: "data:text/html,x" }, "successUrl"],
    [{ ...order, successUrl: "https://evil.example/" }, "successUrl"],
    [{ ...order, successUrl: `${system.publicUrl.replace("//", "//user@")}/` }, "successUrl"],
    [{ ...order, cancelUrl: `${system.publicUrl}/${"x".repeat(2_000)}` }, "cancelUrl"],
    [{ ...order, price: 0 }, "price"],
    ["[]", "body"],
    ["null", "body"],
    ["{", "JSON"],
    ["", "JSON"],
  ];
  for (const [body, named] of cases) {
    const what = JSON.stringify(body);
    expect(await expectProblem(await checkout(body), 400, "bad_request", what), what).toContain(named);
  }
  const both = await expectProblem(await checkout({ plan: "platinum" }), 400, "bad_request");
  expect(both).toContain("plan");
  expect(both).toContain("name");
  await expectProblem(await checkout(order, { "content-type": "text/plain" }), 415, "content_type");
  await expectProblem(await checkout({ ...order, name: "x".repeat(300_000) }), 413, "body_too_large");
  expect(await controlRows("SELECT count(*) AS n FROM checkouts")).toEqual(before);
});

test("a malformed request of the operator is refused with the names of the wrong fields", async () => {
  for (const [body, named] of [
    [{ name: "x", plan: "free", limits: { unitsPerHour: -1 } }, "limits.unitsPerHour"],
    [{ name: "x", plan: "free", limits: { callsInFlight: null } }, "limits.callsInFlight"],
    [{ name: "x", plan: "free", allowedTools: ["no_such_tool"] }, "allowedTools.0"],
    [{ name: "x", plan: "free", id: "../x" }, "id"],
  ] as const) {
    const detail = await expectProblem(await operator("POST", "/tenants", body), 400, "bad_request", named);
    expect(detail).toContain(named);
  }
  const { id } = await aTenant();
  await expectProblem(await operator("POST", "/tenants", { id, name: "again", plan: "free" }), 409, "conflict");
  await expectProblem(await operator("GET", "/tenants/not-there"), 404, "not_found");
  await expectProblem(await operator("POST", "/tenants/not-there/suspend"), 404, "not_found");
  await expectProblem(await operator("DELETE", `/tenants/${id}/keys/not-there`), 404, "not_found");
  for (const list of ["plan", "move", "backups", "restores", "links", "export"])
    await expectProblem(await operator("GET", `/tenants/not-there/${list}`), 404, "not_found");
});

test("an unknown path gets a problem document with 404", async () => {
  for (const path of ["/no/such", "/api/no-such", "/api/tenants/not-there/status", "/api/tenants/..%2f/status"]) {
    await expectProblem(await fetch(`${system.publicUrl}${path}`), 404, "not_found", path);
  }
});

test("while the tenants' database is down, a tool call fails with that reason and is not charged", async () => {
  const { id, apiKey } = await aTenant();
  const query = { query: "" };
  expect((await callTool(apiKey, "search_products", query)).isError).toBeFalsy();
  await down("tollgate_shared_1");
  try {
    const failed = await callTool(apiKey, "search_products", query);
    expect(failed.isError).toBe(true);
    expect(failed.text).toContain("database_unavailable");
    // The text has no words of the database or the driver.
    expect(failed.text).not.toMatch(/neon|fetch|sql|503|127\.0\.0\.1/i);
    // Tools without a database keep working.
    expect((await callTool(apiKey, "get_usage")).data).toMatchObject({ hour: { used: 1 } });
    expect((await callTool(apiKey, "write_document", { path: "a.md", text: "x" })).isError).toBeFalsy();
  } finally {
    await databaseFaults([]);
  }
  expect(await storedCalls(id)).toHaveLength(2);
  expect((await callTool(apiKey, "search_products", query)).isError).toBeFalsy();
});

test("while the control database is down, known tenants are served and other requests get 503", async () => {
  const { id, apiKey } = await aTenant();
  const query = { query: "" };
  expect((await callTool(apiKey, "search_products", query)).isError).toBeFalsy();
  const event = { id: `evt_down_${Date.now()}`, object: "event", type: "invoice.paid", data: { object: {} } };
  const deliver = (): Promise<Response> => {
    const body = JSON.stringify(event);
    const atSeconds = Math.floor(Date.now() / 1000);
    const v1 = createHmac("sha256", system.stripeWebhookSecret).update(`${atSeconds}.${body}`).digest("hex");
    const headers = { "stripe-signature": `t=${atSeconds},v1=${v1}` };
    return fetch(`${system.publicUrl}/webhooks/stripe`, { method: "POST", headers, body });
  };
  await down("tollgate_control");
  try {
    expect((await callTool(apiKey, "search_products", query)).isError).toBeFalsy();
    expect((await checkout(order)).status).toBe(503);
    await expectProblem(await deliver(), 503, "control_unavailable", "webhook");
    expect((await statusPage(id)).status).toBe(503);
    expect((await operator("GET", `/tenants/${id}`)).status).toBe(503);
  } finally {
    await databaseFaults([]);
  }
  expect(await controlRows("SELECT event_id FROM webhook_inbox WHERE event_id = $1", [event.id])).toEqual([]);
  expect((await deliver()).status).toBe(200);
  // The event names no tenant. Remove the mark that would fail /health in later tests.
  await controlRows("UPDATE webhook_inbox SET outcome = 'seen_by_test' WHERE event_id = $1", [event.id]);
  expect((await checkout(order)).status).toBe(201);
});

test("while the control database is down, /health names every check, and tells strangers no facts", async () => {
  interface Health {
    status: string;
    checks: Record<string, { ok: boolean; reason?: string; facts?: unknown }>;
  }
  const ask = async (response: Promise<Response>): Promise<Health> => (await (await response).json()) as Health;
  const before = await ask(health());
  expect(before.checks["isolation"]?.facts).toMatchObject({ shared: expect.any(Number) });
  const strangers = async (): Promise<Health> => ask(fetch(`${system.publicUrl}/health`));
  const { checks } = await strangers();
  expect(Object.keys(checks)).toEqual(Object.keys(before.checks));
  expect(JSON.stringify(checks)).not.toContain("facts");
  await down("tollgate_control");
  try {
    // A cached answer is ten seconds old at most.
    await expect.poll(async () => (await strangers()).checks["control_database"]?.ok, { timeout: 30_000 }).toBe(false);
    const away = await strangers();
    expect(away.status).toBe("failing");
    expect(Object.keys(away.checks).toSorted()).toEqual(Object.keys(before.checks).toSorted());
    for (const name of ["isolation", "webhooks", "usage_reporting", "reconciliation", "stripe"])
      expect(away.checks[name], name).toEqual({ ok: false, reason: expect.stringContaining("control database") });
  } finally {
    await databaseFaults([]);
  }
}, 60_000);

test("while a shard's database is down, /health names the shard", async () => {
  await down("tollgate_shared_1");
  try {
    const reason = async (): Promise<string | undefined> => {
      const report = (await (await health()).json()) as { checks: { isolation: { reason?: string } } };
      return report.checks.isolation.reason;
    };
    await expect.poll(reason, { timeout: 30_000 }).toContain("shared-1");
  } finally {
    await databaseFaults([]);
  }
}, 60_000);

test("an outage of the control database has a code of its own", async () => {
  const tenant = await aTenant();
  const stranger = await aJwt({ tenant_id: tenant.id, scopes: ["tools:read"] });
  await down("tollgate_control");
  try {
    const list = { jsonrpc: "2.0", id: 1, method: "tools/list", params: { _meta: modernMeta } };
    const refusals = [
      await checkout(order),
      await operator("GET", `/tenants/${tenant.id}`),
      await statusPage(tenant.id),
      await postMcp(stranger, list),
    ];
    expect(refusals.map(({ status }) => status)).toEqual([503, 503, 503, 503]);
    for (const refusal of refusals) expect(await refusal.text(), refusal.url).toContain("control_unavailable");
  } finally {
    await databaseFaults([]);
  }
});

test("while Stripe is down, an order is refused with that reason, and it works afterwards", async () => {
  for (const kind of ["refused", "error-500-before", "429"]) {
    await simulator("/faults", { seed: 1, rules: [{ kind, path: "*", probability: 1 }] });
    try {
      const response = await checkout(order);
      // `type` is the address of our own page.
      const { type: _, ...said } = (await response.clone().json()) as Record<string, unknown>;
      await expectProblem(response, 503, "billing_unavailable", kind);
      expect(JSON.stringify(said)).not.toMatch(/stripe|sk_|api\.|http:/i);
    } finally {
      await simulator("/faults", { seed: 1, rules: [] });
    }
  }
  expect((await checkout(order)).status).toBe(201);
});

test("no door takes an id that Tollgate reserves for itself, and the sweep repairs a shared database", async () => {
  const tenant = await aTenant();
  for (const id of ["canary-a", "canary-b", "canary-x"]) {
    const create = await operator("POST", "/tenants", { id, name: "A canary", plan: "free" });
    expect(await expectProblem(create, 400, "bad_request", id)).toContain("canary-, which is reserved");
    const into = { backup: "x.jsonl.gz", into: { id, name: "A canary", plan: "free" } };
    await expectProblem(await operator("POST", `/tenants/${tenant.id}/restore`, into), 400, "bad_request", id);
    for (const route of ["", "/remove", "/links", "/move", "/import", "/keys"]) {
      const body = { issuer: "https://issuer.example", organisation: "x", strategy: "schema", name: "x" };
      const response = await operator(
        route === "" ? "GET" : "POST",
        `/tenants/${id}${route}`,
        route === "" ? undefined : body,
      );
      expect([400, 404, 415], `${id}${route}`).toContain(response.status);
    }
    const rows = ["tenants (id, name, plan, strategy, state, limits) VALUES ($1, '', '', '', 'active', '{}')"];
    rows.push("checkouts (tenant_id, name, plan) VALUES ($1, '', '')");
    for (const row of rows)
      await expect(controlRows(`INSERT INTO ${row}`, [id])).rejects.toMatchObject({ code: "23514" });
  }
  const database = asSuperuser(system.sharedOwnerUrl);
  await rowsOf(database, "DELETE FROM tollgate.isolation_proof");
  await rowsOf(database, "ALTER ROLE tollgate_app_a PASSWORD 'changed by a hostile statement'");
  await fireCron("* * * * *");
  const left = await rowsOf<{ id: string }>(
    database,
    "SELECT tenant_id AS id FROM tollgate.isolation_proof ORDER BY 1",
  );
  expect(left.map(({ id }) => id)).toEqual(["canary-a", "canary-b"]);
  // A connection that is new, because those in the pool stay open.
  expect(await rowsOf(system.appUrl, "SELECT 1 AS one")).toEqual([{ one: 1 }]);
  const { apiKey } = await aTenant();
  expect((await callTool(apiKey, "search_products", { query: "" })).isError).toBeFalsy();
});
