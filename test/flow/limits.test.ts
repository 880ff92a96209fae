// A tenant gets exactly the units that it bought, and a failed call is not charged.
import { expect, test } from "vitest";
import { periodOf } from "../../src/calls/admission.ts";
import { HOUR_MS, MINUTE_MS } from "../../src/core/time.ts";
import {
  aCustomer,
  anAgent,
  aTenant,
  callTool,
  databaseFaults,
  endObject,
  type ToolAnswer,
  modernMeta,
  postMcp,
  setClock,
  storedCalls,
  system,
  until,
} from "../support/flow.ts";

const unlimited = { unitsPerHour: null, unitsPerMonth: null, callsPerMinute: null, callsInFlight: 100 };

const search = (token: string): Promise<ToolAnswer> => callTool(token, "search_products", { query: "" });

async function searches(token: string, count: number): Promise<void> {
  for (let n = 1; n <= count; n += 1) expect((await search(token)).refusal, `search ${n} of ${count}`).toBeUndefined();
}

/** Sets the clock of a tenant's object to an instant. The clock runs on from there. */
const setClockTo = (tenantId: string, atMs: number): Promise<void> => setClock(tenantId, atMs - Date.now());

/** When the tenant's first charged call was admitted: the window slides from there. */
const firstChargeAtMs = async (tenantId: string): Promise<number> =>
  Number((await storedCalls(tenantId))[0]?.["at_ms"]);

/** Whether the seconds, rounded up, lead from a moment between `askedAtMs` and now to `untilMs`. */
function expectWait(seconds: number | undefined, untilMs: number, askedAtMs: number): void {
  expect(seconds).toBeLessThanOrEqual(Math.ceil((untilMs - askedAtMs) / 1000));
  expect(seconds).toBeGreaterThanOrEqual(Math.ceil((untilMs - Date.now()) / 1000));
}

const chargedUnits = async (tenantId: string): Promise<number> =>
  (await storedCalls(tenantId)).reduce((sum, row) => sum + Number(row["units"]), 0);

test("the free plan has 100 units an hour, and the refusal of the 101st has every fact that an agent needs", async () => {
  const { id, apiKey } = await aCustomer({ plan: "free", name: "A hundred" });
  await Promise.all([25, 25, 25, 25].map((count) => searches(apiKey, count)));
  const askedAtMs = Date.now();
  const refused = await search(apiKey);
  expect(refused.isError).toBe(true);
  const upgradeUrl = `${system.publicUrl}/plans`;
  expect(refused.refusal).toEqual({
    code: "window_exhausted",
    limit: 100,
    used: 100,
    cost: 1,
    retryAfterSeconds: expect.any(Number),
    upgradeUrl,
  });
  const { retryAfterSeconds = 0 } = refused.refusal ?? {};
  expectWait(retryAfterSeconds, (await firstChargeAtMs(id)) + HOUR_MS, askedAtMs);
  for (const fact of ["100 units", "100 are used", "costs 1", `${retryAfterSeconds} seconds`, upgradeUrl])
    expect(refused.text).toContain(fact);
  expect((await fetch(upgradeUrl)).status).toBe(200);
  expect(refused.headers.get("ratelimit-policy")).toBe(
    '"minute";q=100;w=60;qu="requests", "hour";q=100;w=3600;tollgate-unit="units", ' +
      '"month";q=1000;w=2678400;tollgate-unit="units"',
  );
  expect(refused.headers.get("ratelimit")).toMatch(/^"minute";r=\d+;t=\d+, "hour";r=0;t=\d+, "month";r=900;t=\d+$/);
  expect(refused.headers.get("retry-after")).toBe(String(retryAfterSeconds));
  expect(await storedCalls(id)).toHaveLength(100);
});

test("an agent built on the official SDK sees the refusal as text and as data", async () => {
  const { apiKey } = await aTenant({ limits: { unitsPerHour: 1 } });
  await using agent = await anAgent(apiKey);
  const call = { name: "search_products", arguments: { query: "" } };
  expect((await agent.callTool(call)).isError).toBeFalsy();
  const refused = await agent.callTool(call);
  expect(refused.isError).toBe(true);
  expect(refused._meta?.["tollgate/refusal"]).toMatchObject({ code: "window_exhausted", limit: 1, used: 1, cost: 1 });
});

test("units come back one by one as the hour slides, and not a second early", async () => {
  const { id, apiKey } = await aTenant({ limits: { unitsPerHour: 3 } });
  await searches(apiKey, 1);
  const firstMs = await firstChargeAtMs(id);
  await setClockTo(id, firstMs + HOUR_MS / 2);
  await searches(apiKey, 2);

  // The first call after the clock was set ahead reads the tenant again, which takes time.
  await setClockTo(id, firstMs + HOUR_MS - 10_000);
  expect((await search(apiKey)).refusal?.code).toBe("window_exhausted");

  await setClockTo(id, firstMs + HOUR_MS - 1_000);
  expect((await search(apiKey)).refusal).toMatchObject({ limit: 3, used: 3, cost: 1, retryAfterSeconds: 1 });
  await setClockTo(id, firstMs + HOUR_MS);
  expect((await search(apiKey)).refusal).toBeUndefined();
  // One unit had left the window, not three.
  expect((await search(apiKey)).refusal).toMatchObject({ code: "window_exhausted", used: 3 });
});

test("an agent that waits for the time in the refusal is admitted", async () => {
  const { id, apiKey } = await aTenant({ limits: { unitsPerHour: 1 } });
  await searches(apiKey, 1);
  const { retryAfterSeconds = 0 } = (await search(apiKey)).refusal ?? {};
  expect(retryAfterSeconds).toBeGreaterThan(3_590);
  await setClock(id, retryAfterSeconds * 1000);
  expect((await search(apiKey)).refusal).toBeUndefined();
});

test("a call costs the units of its tool: 1 for a search, 20 for a report", async () => {
  const { id, apiKey } = await aTenant({ limits: { unitsPerHour: 41 } });
  expect((await callTool(apiKey, "generate_report")).refusal).toBeUndefined();
  await searches(apiKey, 2);
  // 22 are used: a second report would need 42.
  expect((await callTool(apiKey, "generate_report")).refusal).toMatchObject({ limit: 41, used: 22, cost: 20 });
  await searches(apiKey, 19);
  expect((await search(apiKey)).refusal).toMatchObject({ limit: 41, used: 41, cost: 1 });
  expect(await chargedUnits(id)).toBe(41);

  // The report's 20 units leave together, and are enough for the next one.
  await setClockTo(id, (await firstChargeAtMs(id)) + HOUR_MS);
  expect((await callTool(apiKey, "generate_report")).refusal).toBeUndefined();
});

test("a tool that costs more than the whole allowance is refused without a time to retry", async () => {
  const { id, apiKey } = await aTenant({ limits: { unitsPerHour: 10 } });
  const { refusal } = await callTool(apiKey, "generate_report");
  expect(refusal).toMatchObject({ code: "cost_over_limit", limit: 10, used: 0, cost: 20 });
  expect(refusal).not.toHaveProperty("retryAfterSeconds");
  expect(await storedCalls(id)).toEqual([]);
});

test("a tool with a limit of its own is refused at that limit while others run, also after the object restarts", async () => {
  const { id, apiKey } = await aTenant({ limits: { unitsPerHour: 50, unitsPerHourByTool: { search_products: 3 } } });
  const refused = { code: "tool_exhausted", limit: 3, used: 3, cost: 1 };
  await searches(apiKey, 1);
  const firstMs = await firstChargeAtMs(id);
  await setClockTo(id, firstMs + HOUR_MS / 2);
  await searches(apiKey, 2);
  expect((await search(apiKey)).refusal).toMatchObject({ ...refused, retryAfterSeconds: expect.any(Number) });
  expect((await callTool(apiKey, "list_documents")).refusal).toBeUndefined();
  expect((await callTool(apiKey, "generate_report")).refusal).toBeUndefined();

  await endObject(id);
  expect((await search(apiKey)).refusal).toMatchObject(refused);
  expect((await callTool(apiKey, "generate_report")).refusal).toBeUndefined();
  // The tenant's own limit holds as well: 44 of the 50 units are used.
  expect((await callTool(apiKey, "generate_report")).refusal).toMatchObject({ code: "window_exhausted", used: 44 });

  // The first call after the clock was set ahead reads the tenant again, which takes time.
  await setClockTo(id, firstMs + HOUR_MS - 10_000);
  expect((await search(apiKey)).refusal).toMatchObject(refused);
  await setClockTo(id, firstMs + HOUR_MS - 1_000);
  expect((await search(apiKey)).refusal).toMatchObject({ ...refused, retryAfterSeconds: 1 });
  await setClockTo(id, firstMs + HOUR_MS);
  await searches(apiKey, 1);
  expect((await search(apiKey)).refusal).toMatchObject(refused);
  expect(await storedCalls(id)).toHaveLength(7);
});

test("with many concurrent calls a tool's own limit holds to the unit", async () => {
  const { id, apiKey } = await aTenant({ limits: { ...unlimited, unitsPerHourByTool: { search_products: 20 } } });
  const answers = await Promise.all(Array.from({ length: 30 }, () => search(apiKey)));
  const codes = answers.map(({ refusal, isError }) => refusal?.code ?? (isError === true ? "failure" : "success"));
  expect(codes.filter((code) => code === "success")).toHaveLength(20);
  expect(codes.filter((code) => code === "tool_exhausted")).toHaveLength(10);
  expect(await storedCalls(id)).toHaveLength(20);
});

test("with twenty calls always in flight exactly the limit is admitted", async () => {
  const limit = 100;
  const { id, apiKey } = await aTenant({ limits: { ...unlimited, unitsPerHour: limit, callsInFlight: 20 } });
  let left = 140;
  let admitted = 0;
  const refusals: ToolAnswer["refusal"][] = [];
  await Promise.all(
    Array.from({ length: 20 }, async () => {
      while (left-- > 0) {
        const { refusal, isError } = await search(apiKey);
        if (refusal !== undefined) refusals.push(refusal);
        else if (isError !== true) admitted += 1;
      }
    }),
  );
  expect(admitted).toBe(limit);
  expect(refusals).toHaveLength(40);
  for (const refusal of refusals) expect(refusal).toMatchObject({ code: "window_exhausted", limit, used: limit });
  expect(await chargedUnits(id)).toBe(limit);
});

test("concurrent tools of different cost fill the limit and never exceed it", async () => {
  const limit = 80;
  const { id, apiKey } = await aTenant({ limits: { ...unlimited, unitsPerHour: limit, callsInFlight: 20 } });
  const weights: Record<string, number> = { search_products: 1, generate_report: 20 };
  let admittedUnits = 0;
  await Promise.all(
    Array.from({ length: 20 }, async (_, agent) => {
      for (let n = 0; n < 6; n += 1) {
        const tool = (agent + n) % 4 === 0 ? "generate_report" : "search_products";
        const answer = await callTool(apiKey, tool, tool === "search_products" ? { query: "" } : {});
        if (answer.refusal === undefined) admittedUnits += weights[tool] ?? 0;
      }
    }),
  );
  // 90 of the 120 calls cost one unit, so that what a report cannot use a search can.
  expect(admittedUnits).toBe(limit);
  expect(await chargedUnits(id)).toBe(limit);
});

test("a failed call is not charged", async () => {
  const { id, apiKey } = await aTenant();
  await searches(apiKey, 2);
  const before = { rows: await storedCalls(id), usage: (await callTool(apiKey, "get_usage")).data?.["month"] };
  await databaseFaults([{ kind: "refuse-before", sql: "FROM products", probability: 1 }]);
  try {
    for (const tool of ["search_products", "generate_report"]) {
      const failed = await callTool(apiKey, tool, tool === "search_products" ? { query: "" } : {});
      expect(failed.isError).toBe(true);
      expect(failed.refusal).toEqual({ code: "database_unavailable" });
    }
  } finally {
    await databaseFaults([]);
  }
  // Nor is one whose tool explains why it cannot.
  expect((await callTool(apiKey, "read_document", { path: "no/such.md" })).isError).toBe(true);
  const { data, headers } = await callTool(apiKey, "get_usage");
  expect(data).toMatchObject({ hour: { used: 2, left: 98 }, month: { used: 2, left: 998 } });
  expect((data?.["month"] as { used: number } | undefined)?.used).toBe((before.usage as { used: number }).used);
  expect(headers.get("ratelimit")).toMatch(/^"minute";r=\d+;t=\d+, "hour";r=98;t=\d+, "month";r=998;t=\d+$/);
  expect(await storedCalls(id)).toEqual(before.rows);
});

test("failed calls among successful ones leave the limit exact", async () => {
  const limit = 50;
  const { id, apiKey } = await aTenant({ limits: { ...unlimited, unitsPerHour: limit, callsInFlight: 20 } });
  let admitted = 0;
  await databaseFaults([{ kind: "refuse-before", sql: "FROM products", probability: 0.3, seed: 7 }]);
  try {
    await Promise.all(
      Array.from({ length: 20 }, async () => {
        for (let n = 0; n < 6; n += 1) if ((await search(apiKey)).isError !== true) admitted += 1;
      }),
    );
  } finally {
    await databaseFaults([]);
  }
  expect(admitted).toBeLessThanOrEqual(limit);
  expect(await chargedUnits(id)).toBe(admitted);
  // The units that the failed calls gave back can be used, to the last one.
  await searches(apiKey, limit - admitted);
  expect((await search(apiKey)).refusal).toMatchObject({ code: "window_exhausted", used: limit });
});

test("a call over the limit in flight is refused, and admitted when another has ended", async () => {
  const { id, apiKey } = await aTenant({ limits: { callsInFlight: 1, callsPerMinute: null } });
  await databaseFaults([{ kind: "slow", sql: "FROM products", ms: 1_500, times: 1 }]);
  try {
    const slow = search(apiKey);
    let refused: ToolAnswer | undefined;
    await until(async () => (refused = await callTool(apiKey, "get_usage")).isError === true, "the slow call runs");
    expect(refused?.refusal).toMatchObject({ code: "too_many_in_flight", limit: 1, used: 1, retryAfterSeconds: 1 });
    expect((await search(apiKey)).refusal).toMatchObject({ code: "too_many_in_flight", limit: 1, used: 1, cost: 1 });
    expect((await slow).isError).toBeFalsy();
    await searches(apiKey, 1);
  } finally {
    await databaseFaults([]);
  }
  expect(await storedCalls(id)).toHaveLength(2);
});

test("the month's allowance ends even if the hour has units left, and the next month begins a new one", async () => {
  const { id, apiKey } = await aTenant({ limits: { unitsPerMonth: 3 } });
  await searches(apiKey, 3);
  const askedAtMs = Date.now();
  const { endsAtMs } = periodOf(askedAtMs);
  const { refusal } = await search(apiKey);
  expect(refusal).toMatchObject({ code: "period_exhausted", limit: 3, used: 3, cost: 1 });
  expectWait(refusal?.retryAfterSeconds, endsAtMs, askedAtMs);

  await setClockTo(id, endsAtMs - 10_000);
  expect((await search(apiKey)).refusal).toMatchObject({ code: "period_exhausted" });
  await setClockTo(id, endsAtMs - 1_000);
  expect((await search(apiKey)).refusal).toMatchObject({ code: "period_exhausted", retryAfterSeconds: 1 });
  await setClockTo(id, endsAtMs);
  expect((await search(apiKey)).refusal).toBeUndefined();
  expect((await callTool(apiKey, "get_usage")).data).toMatchObject({ month: { limit: 3, used: 1, left: 2 } });
});

test("calls per minute are counted separately and include free calls", async () => {
  const { id, apiKey } = await aTenant({ limits: { callsPerMinute: 3, unitsPerHour: 1_000 } });
  // More than a minute after provisioning's own call.
  await setClock(id, 2 * MINUTE_MS);
  await searches(apiKey, 2);
  await callTool(apiKey, "get_usage");
  const { refusal } = await search(apiKey);
  expect(refusal).toMatchObject({ code: "rate_limited", limit: 3, used: 3, cost: 1 });
  expect(refusal?.retryAfterSeconds).toBeGreaterThan(55);
  const firstMs = await firstChargeAtMs(id);
  await setClockTo(id, firstMs + MINUTE_MS - 1_000);
  expect((await search(apiKey)).refusal).toMatchObject({ code: "rate_limited", retryAfterSeconds: 1 });
  await setClockTo(id, firstMs + MINUTE_MS);
  expect((await search(apiKey)).refusal).toBeUndefined();
});

test("every method counts among the requests of the minute, and its refusal says when to come again", async () => {
  const { id, apiKey } = await aTenant({ limits: { callsPerMinute: 3 } });
  await setClock(id, 2 * MINUTE_MS);
  const send = (method: string, params: Record<string, unknown> = {}): Promise<Response> =>
    postMcp(apiKey, { jsonrpc: "2.0", id: 1, method, params: { ...params, _meta: modernMeta } });
  const listed = await send("tools/list");
  expect(listed.headers.get("ratelimit-policy")).toContain('"minute";q=3;w=60;qu="requests"');
  expect(listed.headers.get("ratelimit")).toMatch(/^"minute";r=2;t=\d+/);
  // A call whose arguments are wrong, and a tool that does not exist, are requests, too.
  expect((await send("tools/call", { name: "search_products", arguments: {} })).status).toBe(200);
  await send("tools/call", { name: "no_such_tool", arguments: {} });
  for (const method of ["tools/list", "server/discover", "no/such"]) {
    const refused = await send(method);
    expect(refused.status, method).toBe(429);
    const seconds = Number(refused.headers.get("retry-after"));
    expect(seconds, method).toBeGreaterThan(50);
    expect(refused.headers.get("ratelimit"), method).toMatch(/^"minute";r=0;t=\d+/);
    expect(await refused.json(), method).toMatchObject({
      error: { data: { code: "rate_limited", limit: 3, used: 3, retryAfterSeconds: seconds } },
    });
  }
  expect((await search(apiKey)).refusal).toMatchObject({ code: "rate_limited" });
  await setClock(id, 3 * MINUTE_MS + 1_000);
  expect((await send("tools/list")).status).toBe(200);
  expect(await storedCalls(id)).toEqual([]);
});

test("of a flood exactly the limit is served, and the tenant is served again when its minute has room", async () => {
  const { id, apiKey } = await aTenant({ limits: { callsPerMinute: 3 } });
  await setClock(id, 2 * MINUTE_MS);
  const flood = async (): Promise<number> => {
    const answers = await Promise.all(Array.from({ length: 40 }, () => search(apiKey)));
    for (const { refusal } of answers) if (refusal !== undefined) expect(refusal.code).toBe("rate_limited");
    return answers.filter(({ refusal }) => refusal === undefined).length;
  };
  expect(await flood()).toBe(3);
  expect(await flood()).toBe(0);
  await setClock(id, 4 * MINUTE_MS);
  await until(async () => (await search(apiKey)).refusal === undefined, "the tenant is served again", 10_000);
  expect(await storedCalls(id)).toHaveLength(4);
});

test("each call of a batch is charged once", async () => {
  const { id, apiKey } = await aTenant();
  const calls = [1, 2, 3].map((n) => ({
    jsonrpc: "2.0",
    id: n,
    method: "tools/call",
    params: { name: "search_products", arguments: { query: "", toolCallId: `call_${n}`, category: null } },
  }));
  const response = await fetch(`${system.publicUrl}/mcp/`, {
    method: "POST",
    headers: {
      authorization: `Bearer ${apiKey}`,
      "content-type": "application/json",
      "mcp-protocol-version": "2025-03-26",
      accept: "*/*",
    },
    body: JSON.stringify(calls),
  });
  const answers = (await response.json()) as { id: number; result: { _meta: Record<string, unknown> } }[];
  expect(answers.map((answer) => answer.id)).toEqual([1, 2, 3]);
  for (const { result } of answers) expect(result._meta["tollgate/receipt"]).toMatchObject({ units: 1 });
  expect(response.headers.get("ratelimit")).toContain('"hour";r=97');
  expect(await storedCalls(id)).toHaveLength(3);
});

test("provisioning's own call uses none of the customer's units", async () => {
  const { apiKey } = await aTenant({ limits: { callsPerMinute: 3 } });
  await searches(apiKey, 3);
  expect((await search(apiKey)).refusal).toMatchObject({ code: "rate_limited", limit: 3, used: 3 });
});

test("free tools answer when all units are used up, and are not recorded", async () => {
  const { id, apiKey } = await aTenant({ limits: { unitsPerHour: 1, unitsPerMonth: 1 } });
  await searches(apiKey, 1);
  expect((await search(apiKey)).isError).toBe(true);
  const usage = await callTool(apiKey, "get_usage");
  expect(usage.isError).toBeFalsy();
  expect(usage.data).toMatchObject({ hour: { limit: 1, used: 1, left: 0 }, month: { limit: 1, used: 1, left: 0 } });
  expect((await callTool(apiKey, "health_check")).isError).toBeFalsy();
  expect(await storedCalls(id)).toHaveLength(1);
});

test("an object that restarts knows what was used", async () => {
  const { id, apiKey } = await aTenant({ limits: { unitsPerHour: 5 } });
  await searches(apiKey, 4);
  await endObject(id);
  await searches(apiKey, 1);
  expect((await search(apiKey)).refusal).toMatchObject({ code: "window_exhausted", limit: 5, used: 5 });
});

test("a tenant at its limit does not limit any other tenant", async () => {
  const [full, other] = await Promise.all([aTenant({ limits: { unitsPerHour: 1 } }), aTenant()]);
  await searches(full.apiKey, 1);
  expect((await search(full.apiKey)).isError).toBe(true);
  expect((await callTool(other.apiKey, "get_usage")).data).toMatchObject({ hour: { used: 0 } });
  await searches(other.apiKey, 1);
});

test("a tenant sees and calls only its allowed tools", async () => {
  const { id, apiKey } = await aTenant({ allowedTools: ["search_products", "get_usage"] });
  const listed = await postMcp(apiKey, { jsonrpc: "2.0", id: 1, method: "tools/list", params: { _meta: modernMeta } });
  const { result } = (await listed.json()) as { result: { tools: { name: string }[] } };
  expect(result.tools.map(({ name }) => name).toSorted()).toEqual(["get_usage", "search_products"]);
  await searches(apiKey, 1);
  const refused = await callTool(apiKey, "generate_report");
  expect(refused).toMatchObject({ isError: true, refusal: { code: "tool_not_allowed" } });
  expect(await storedCalls(id)).toHaveLength(1);
});
