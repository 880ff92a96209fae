// The start of an account under lost answers and repeated requests: its trial, its first key and its monitor.
import pg from "pg";
import { afterEach, expect, test } from "vitest";
import { signUp } from "../../dev/demo.ts";
import {
  aTenant,
  callTool,
  controlRows,
  databaseFaults,
  fireCron,
  operator,
  setClock,
  status,
  stripeRead,
  system,
  until,
} from "../support/flow.ts";

const DAY_MS = 86_400_000;

afterEach(async () => {
  await databaseFaults([]);
  await fetch(`${system.publicUrl}/test/monitor?down=false`);
});

test("a trial is served until its last day, and a suspension does not change its length", async () => {
  const { id, apiKey } = await aTenant({ trialDays: 2 });
  const usageCode = async () => (await callTool(apiKey, "get_usage")).refusal?.code;
  const becomes = async (action: "suspend" | "resume"): Promise<unknown> =>
    ((await (await operator("POST", `/tenants/${id}/${action}`)).json()) as { state: string }).state;
  expect(await usageCode()).toBeUndefined();

  expect(await becomes("suspend")).toBe("suspended");
  expect(await usageCode()).toBe("tenant_suspended");
  expect(await becomes("resume")).toBe("trial");
  expect(await usageCode()).toBeUndefined();

  await setClock(id, 2 * DAY_MS - 60_000);
  expect(await usageCode()).toBeUndefined();
  await setClock(id, 2 * DAY_MS);
  expect(await usageCode()).toBe("trial_expired");

  expect(await becomes("suspend")).toBe("suspended");
  expect(await becomes("resume")).toBe("trial");
  expect(await usageCode()).toBe("trial_expired");
});

/** A request that creates something, with an Idempotency-Key. */
async function create(path: string, key: string, body: unknown, token = system.operatorToken) {
  const response = await fetch(`${system.publicUrl}${path}`, {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json", "idempotency-key": key },
    body: JSON.stringify(body),
  });
  return { status: response.status, body: (await response.json()) as Record<string, unknown> };
}

test("a request to create a tenant, an order or a key that is sent twice with one Idempotency-Key creates one", async () => {
  const named = async (name: string) => controlRows(`SELECT id FROM tenants WHERE name = $1`, [name]);
  const key = crypto.randomUUID();
  const request = { plan: "free", name: `Once ${key}` };
  const both = await Promise.all([1, 2].map(() => create("/admin/api/tenants", key, request)));
  expect(both.map(({ status: each }) => each)).toContain(201);
  expect(both.every(({ status: each }) => each === 201 || each === 409)).toBe(true);
  const first = both.find((answer) => answer.status === 201);
  // The order of the fields and the form of the header do not matter.
  expect(await create("/admin/api/tenants", `"${key}"`, { name: request.name, plan: "free" })).toEqual(first);
  expect(await named(request.name)).toHaveLength(1);
  const other = await create("/admin/api/tenants", key, { ...request, plan: "pro" });
  expect(other).toMatchObject({ status: 422, body: { code: "idempotency_key_mismatch" } });
  expect(await create("/admin/api/tenants", "two words", request)).toMatchObject({ status: 400 });
  expect(await named(request.name)).toHaveLength(1);

  const order = { plan: "free", name: `Ordered ${key}` };
  const ordered = await create("/api/checkout", key, order, "none");
  expect(ordered.status).toBe(201);
  expect(await create("/api/checkout", key, order, "none")).toEqual(ordered);
  expect(await controlRows(`SELECT FROM checkouts WHERE name = $1`, [order.name])).toHaveLength(1);

  const keys = `/admin/api/tenants/${String(first?.body["id"])}/keys`;
  const issued = await create(keys, key, { name: "one" });
  expect(issued.status).toBe(201);
  expect(await create(keys, key, { name: "one" })).toEqual(issued);
  const kept = await controlRows<{ answer: string }>(`SELECT answer FROM idempotent_requests WHERE key = $1`, [key]);
  expect(kept).toHaveLength(3);
  for (const { answer } of kept) expect(answer).toMatch(/^v1\./); // encrypted
});

test("a request whose outcome was lost runs again with its Idempotency-Key, and finds what the first run made", async () => {
  const key = crypto.randomUUID();
  const request = { plan: "free", name: `Lost ${key}` };
  await databaseFaults([{ kind: "lose-after", sql: "INSERT INTO tenants", times: 1 }]);
  expect((await create("/admin/api/tenants", key, request)).status).toBe(503);
  const made = await create("/admin/api/tenants", key, request);
  expect(made.status).toBe(201);
  expect(await controlRows(`SELECT id FROM tenants WHERE name = $1`, [request.name])).toEqual([
    { id: made.body["id"] },
  ]);

  // The answer was not kept, and the lease of the dead request has ended.
  const keys = `/admin/api/tenants/${String(made.body["id"])}/keys`;
  const issued = await create(keys, key, { name: "one" });
  await controlRows(
    `UPDATE idempotent_requests SET answer = NULL, locked_until = now() - interval '1 second' WHERE key = $1`,
    [key],
  );
  expect((await create(keys, key, { name: "one" })).body["apiKey"]).toBe(issued.body["apiKey"]);
  expect(await keysOf(String(made.body["id"]))).toHaveLength(1);
  expect((await create("/admin/api/tenants", key, request)).body["id"]).toBe(made.body["id"]);
});

test("of two concurrent requests for the first key exactly one gets a key", async () => {
  const buyer = await signUp(system.publicUrl, { plan: "free", name: "In a hurry" });
  await using lock = await aLockOn(buyer.tenantId);
  const asked = [firstKey(buyer), firstKey(buyer)];
  await until(async () => (await lock.waiting()) >= 2, "both requests wait for the tenant's row");
  await lock.release();
  const answers = await Promise.all(asked);
  expect(answers.map((answer) => answer.status).toSorted((a, b) => a - b)).toEqual([201, 409]);
  const made = (await answers.find((answer) => answer.ok)?.json()) as { apiKey: string };
  expect((await callTool(made.apiKey, "get_usage")).isError).toBeFalsy();
  expect(await keysOf(buyer.tenantId)).toHaveLength(1);
});

test("when the database's answer to the first key is lost, the buyer still gets one working key", async () => {
  const buyer = await signUp(system.publicUrl, { plan: "free", name: "Cut off" });
  await databaseFaults([{ kind: "lose-after", sql: "INTO api_keys", times: 1 }]);
  const answer = await firstKey(buyer);
  expect(answer.status).toBe(201);
  const { apiKey } = (await answer.json()) as { apiKey: string };
  expect((await callTool(apiKey, "get_usage")).isError).toBeFalsy();
  expect((await firstKey(buyer)).status).toBe(409);
  expect(await keysOf(buyer.tenantId)).toHaveLength(1);
});

test("a tenant whose monitor could not be registered is served, and the sweep registers it later", async () => {
  await fetch(`${system.publicUrl}/test/monitor?down=true`);
  const { id, apiKey } = await aTenant();
  const monitored = async () => (await fetch(`${system.monitorUrl}/monitors/${id}`)).ok;
  await until(async () => (await attempts(id)).some(({ over }) => over), "the first attempt has given up", 40_000);
  expect(await stepStatus(id, "monitor")).toBe("retrying");
  expect(await monitored()).toBe(false);
  expect((await callTool(apiKey, "search_products", { query: "" })).isError).toBeFalsy();

  await fetch(`${system.publicUrl}/test/monitor?down=false`);
  await fireCron("* * * * *");
  await until(async () => (await attempts(id)).every(({ over }) => over), "the second attempt is over");
  expect(await stepStatus(id, "monitor")).toBe("done");
  expect(await monitored()).toBe(true);
  // The next sweep has nothing to do.
  await fireCron("* * * * *");
  expect(await attempts(id)).toEqual([
    { attempt: 1, over: true, failed: true },
    { attempt: 2, over: true, failed: false },
  ]);
  expect((await status(id)).state).toBe("active");
  expect((await callTool(apiKey, "get_usage")).data).toMatchObject({ hour: { used: 1 } });
});

function firstKey({ tenantId, setupToken }: { tenantId: string; setupToken: string }): Promise<Response> {
  return fetch(`${system.publicUrl}/api/tenants/${tenantId}/keys`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${setupToken}` },
    body: "{}",
  });
}

function keysOf(tenantId: string): Promise<{ id: string }[]> {
  return controlRows(`SELECT id FROM api_keys WHERE tenant_id = $1`, [tenantId]);
}

function attempts(tenantId: string): Promise<{ attempt: number; over: boolean; failed: boolean }[]> {
  return controlRows(
    `SELECT attempt, finished_at IS NOT NULL AS over, error IS NOT NULL AS failed FROM provisioning_attempts
     WHERE tenant_id = $1 ORDER BY attempt`,
    [tenantId],
  );
}

async function stepStatus(tenantId: string, name: string): Promise<string | undefined> {
  return (await status(tenantId)).steps.find((step) => step.name === name)?.status;
}

/** Locks a tenant's row, so that other writers wait. */
async function aLockOn(tenantId: string) {
  const client = new pg.Client({ connectionString: system.controlUrl });
  await client.connect();
  await client.query(`BEGIN`);
  await client.query(`SELECT FROM tenants WHERE id = $1 FOR UPDATE`, [tenantId]);
  return {
    /** The number of requests that wait for a lock. */
    async waiting(): Promise<number> {
      const [row] = await controlRows<{ n: number }>(
        `SELECT count(DISTINCT pid)::int AS n FROM pg_locks WHERE NOT granted`,
      );
      return row?.n ?? 0;
    },
    async release(): Promise<void> {
      await client.query(`COMMIT`);
    },
    [Symbol.asyncDispose]: () => client.end(),
  };
}

test("what is set at creation can be read and changed, and a change of one thing leaves the others", async () => {
  const { id, apiKey } = await aTenant({ limits: { unitsPerHour: 7, callsInFlight: 9 }, allowedTools: ["get_usage"] });
  const read = async () => (await (await operator("GET", `/tenants/${id}`)).json()) as Record<string, unknown>;
  const change = async (body: unknown): Promise<Record<string, unknown>> => {
    const response = await operator("PATCH", `/tenants/${id}`, body);
    return { status: response.status, ...((await response.json()) as Record<string, unknown>) };
  };
  expect(await read()).toMatchObject({
    allowedTools: ["get_usage"],
    limits: { unitsPerHour: 7, unitsPerMonth: 1_000, callsInFlight: 9 },
    trialUntil: null,
  });
  expect((await callTool(apiKey, "health_check")).refusal?.code).toBe("tool_not_allowed");
  const trialUntil = "2040-01-01T00:00:00Z";
  const changed = await change({
    allowedTools: null,
    limits: { unitsPerMonth: 50, callsInFlight: null },
    features: { beta: true },
    name: "Renamed",
    email: "it@example.com",
    trialUntil,
  });
  const expected = {
    ...{ name: "Renamed", email: "it@example.com", allowedTools: null, state: "trial", features: { beta: true } },
    limits: { unitsPerHour: 7, unitsPerMonth: 50, callsInFlight: 4 },
  };
  expect(changed).toMatchObject({ status: 200, delivered: true, ...expected });
  expect(new Date(String((await read())["trialUntil"])).toISOString()).toBe("2040-01-01T00:00:00.000Z");
  expect((await callTool(apiKey, "health_check")).data).toMatchObject({ ok: true });
  const customer = await stripeRead<{ name: string; email: string }>(
    `/customers/${String(changed["stripeCustomerId"])}`,
  );
  expect(customer).toMatchObject({ name: "Renamed", email: "it@example.com" });

  // The same plan with one limit keeps the limits that were changed before.
  expect((await operator("POST", `/tenants/${id}/plan`, { plan: "free", limits: { unitsPerHour: 8 } })).status).toBe(
    200,
  );
  expect(await change({ trialUntil: null, features: { beta: null, seats: 3 } })).toMatchObject({
    state: "active",
    features: { seats: 3 },
    limits: { unitsPerHour: 8, unitsPerMonth: 50 },
  });
  for (const wrong of [{ limits: { unitsPerDay: 1 } }, { plan: "pro" }, { allowedTools: ["no_such_tool"] }])
    expect(await change(wrong), JSON.stringify(wrong)).toMatchObject({ status: 400 });
  expect((await operator("PATCH", "/tenants/no-such-tenant", { name: "x" })).status).toBe(404);

  const admin = await operator("POST", `/tenants/${id}/keys`, { name: "admin", scopes: ["tenant:admin"] });
  const { apiKey: adminKey } = (await admin.json()) as { apiKey: string };
  const own = async (method: string, body?: unknown) => {
    const response = await fetch(`${system.publicUrl}/api/tenants/${id}`, {
      method,
      headers: { authorization: `Bearer ${adminKey}`, "content-type": "application/json" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    return { status: response.status, body: (await response.json()) as Record<string, unknown> };
  };
  expect(await own("PATCH", { name: "By itself" })).toMatchObject({ status: 200, body: { name: "By itself" } });
  expect((await own("PATCH", { limits: { unitsPerHour: 1_000_000 } })).status).toBe(400);
  const { body } = await own("GET");
  expect(body).toMatchObject({ name: "By itself", limits: { unitsPerHour: 8 }, allowedTools: null });
  expect(Object.keys(body)).not.toContain("placement");
});
