// Lost answers of the object, of the database and to the client. A call that may have changed something never runs twice and
// ends as `outcome_unknown`. A lost answer is not charged.
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, describe, expect, test } from "vitest";
import { CONFIG_TRUSTED_MS } from "../../src/core/tenant/tenant.ts";
import {
  aTenant,
  callObject,
  callTool,
  controlRows,
  databaseFaults,
  databaseHits,
  endObject,
  modernMeta,
  objectFault,
  postMcp,
  setClock,
  storedCalls,
  type TestTenant,
  until,
} from "../support/flow.ts";

afterEach(() => databaseFaults([]));

// `sql` matches the tool's one statement, and no statement of /health or of the isolation proof.
/** The test Worker's own tool, neither read-only nor idempotent. */
const writing = { tool: "take_from_stock", args: { id: "bag-canvas" }, sql: "SET stock = stock - 1" };
const reading = { tool: "search_products", args: { query: "", limit: 10 }, sql: "ILIKE ALL" };
/** The bag's stock after provisioning. */
const STOCK = 3;
/** Long enough to end the object well before the statement ends. */
const SLOW_MS = 1_500;

describe("when the object dies in the middle of a call", () => {
  test("a write that cannot be repeated ends as outcome_unknown, does not run again and is not charged", async () => {
    const tenant = await aTenant();
    const { answer, statements } = await dyingObject(tenant, writing);
    expect(answer.refusal?.code).toBe("outcome_unknown");
    expect(statements).toBe(1);
    await expectUsed(tenant, 0);
  });

  test("a read runs again, and is charged once", async () => {
    const tenant = await aTenant();
    const { answer, statements } = await dyingObject(tenant, reading);
    expect(answer.isError).toBeFalsy();
    expect(statements).toBe(2);
    await expectUsed(tenant, 1);
  });
});

describe("when the database's answer is lost after the commit", () => {
  test("a write ends as outcome_unknown, took effect once, does not run again and is not charged", async () => {
    const tenant = await aTenant();
    const { answer, statements } = await losingDatabase(tenant, writing);
    expect(answer).toMatchObject({ isError: true, refusal: { code: "outcome_unknown" } });
    expect(statements).toBe(1);
    await expectUsed(tenant, 0);
    expect(await stock(tenant)).toBe(STOCK - 1);
  });

  test("a read ends as database_unavailable and is not charged", async () => {
    const tenant = await aTenant();
    const { answer, statements } = await losingDatabase(tenant, reading);
    expect(answer).toMatchObject({ isError: true, text: expect.stringMatching(/^database_unavailable: /) });
    expect(statements).toBe(1);
    await expectUsed(tenant, 0);
    expect((await callTool(tenant.apiKey, reading.tool, reading.args)).isError).toBeFalsy();
  });
});

describe("a second attempt of a call", () => {
  test("joins the first attempt that still runs: one effect, one row, one charge, the same answer", async () => {
    const tenant = await aTenant();
    const call = { callId: crypto.randomUUID(), tool: writing.tool, args: writing.args };
    await databaseFaults([{ kind: "slow", sql: writing.sql, ms: SLOW_MS }]);
    const before = await databaseHits();
    const first = callObject(tenant.apiKey, { ...call, attempt: 1 });
    await until(async () => (await databaseHits()) > before, "the first attempt runs");
    const outcomes = await Promise.all([first, callObject(tenant.apiKey, { ...call, attempt: 2 })]);
    expect(outcomes[0]).toMatchObject({ kind: "result", isError: false, data: { stock: STOCK - 1 } });
    expect(outcomes[0]).toMatchObject({ receipt: { id: call.callId, units: 1 } });
    expect(outcomes[1]).toEqual(outcomes[0]);
    expect((await databaseHits()) - before).toBe(1);
    await databaseFaults([]);
    await expectUsed(tenant, 1);
    expect(await stock(tenant)).toBe(STOCK - 1);
  });

  test("of a charged call runs without a second charge, also at the limit", async () => {
    const tenant = await aTenant({ limits: { unitsPerHour: 1 } });
    const call = { callId: crypto.randomUUID(), tool: reading.tool, args: reading.args };
    const first = await callObject(tenant.apiKey, { ...call, attempt: 1 });
    expect(await callObject(tenant.apiKey, { ...call, attempt: 2 })).toMatchObject({
      kind: "result",
      isError: false,
      receipt: { id: call.callId, units: 1 },
      data: "data" in first ? first.data : undefined,
    });
    await expectUsed(tenant, 1);
    // The call was charged, so the refusal must not deny a charge.
    await databaseFaults([{ kind: "refuse-before", sql: reading.sql }]);
    expect(await callObject(tenant.apiKey, { ...call, attempt: 2 })).toMatchObject({
      kind: "refused",
      refusal: { code: "outcome_unknown" },
      receipt: { id: call.callId, units: 1 },
    });
    await expectUsed(tenant, 1);
  });
});

describe("a call that its client sends again with the same idempotency key", () => {
  const keyed = (
    tenant: TestTenant,
    { tool, args }: Pick<Call, "tool"> & { args: Record<string, unknown> },
    key = "k-1",
  ) => callTool(tenant.apiKey, tool, args, { "tollgate/idempotencyKey": key });

  test("takes effect once, is charged once, and gets the first answer, also after the object has restarted", async () => {
    const tenant = await aTenant();
    const first = await keyed(tenant, writing);
    expect(first).toMatchObject({ data: { stock: STOCK - 1 }, receipt: { units: 1 } });
    const again = await keyed(tenant, writing);
    await endObject(tenant.id);
    const restarted = await keyed(tenant, writing);
    for (const each of [again, restarted])
      expect(each).toMatchObject({ text: first.text, data: first.data, receipt: first.receipt });
    expect(await keyed(tenant, { ...writing, args: { id: "mug-enamel" } })).toMatchObject({
      isError: true,
      refusal: { code: "idempotency_key_reused" },
      receipt: undefined,
    });
    await expectUsed(tenant, 1);
    // Another key is another call.
    expect(await keyed(tenant, writing, "k-2")).toMatchObject({ data: { stock: STOCK - 2 } });
    await expectUsed(tenant, 2);
  });

  test("waits for the first while it runs, also when the first client has gone", async () => {
    const tenant = await aTenant();
    await databaseFaults([{ kind: "slow", sql: writing.sql, ms: SLOW_MS }]);
    const _meta = { ...modernMeta, "tollgate/idempotencyKey": "k-1" };
    const gone = leave(tenant, SLOW_MS / 2, "2026-07-28", { name: writing.tool, arguments: writing.args, _meta });
    await sleep(SLOW_MS / 4);
    const answers = await Promise.all([keyed(tenant, writing), keyed(tenant, writing)]);
    await gone;
    for (const each of answers) expect(each).toMatchObject({ data: { stock: STOCK - 1 }, receipt: { units: 1 } });
    expect(answers[0]?.receipt).toEqual(answers[1]?.receipt);
    await databaseFaults([]);
    await expectUsed(tenant, 1);
    expect(await stock(tenant)).toBe(STOCK - 1);
  });

  test("is not run again when it is not known whether the first took effect", async () => {
    const tenant = await aTenant();
    await databaseFaults([{ kind: "lose-after", sql: writing.sql }]);
    expect((await keyed(tenant, writing)).refusal?.code).toBe("outcome_unknown");
    await databaseFaults([]);
    await endObject(tenant.id);
    expect(await keyed(tenant, writing)).toMatchObject({ refusal: { code: "outcome_unknown" }, receipt: undefined });
    await expectUsed(tenant, 0);
    expect(await stock(tenant)).toBe(STOCK - 1);
    // A failure that is known to have changed nothing leaves the key free.
    expect((await keyed(tenant, { ...writing, args: { id: "nothing" } }, "k-2")).isError).toBe(true);
    expect((await keyed(tenant, writing, "k-2")).data).toEqual({ stock: STOCK - 2 });
  });

  test("learns that it was charged once when its result is too large to keep", async () => {
    const tenant = await aTenant();
    await callTool(tenant.apiKey, "write_document", { path: "long.txt", text: "x".repeat(40_000) });
    const readingAll = { tool: "read_document", args: { path: "long.txt" } };
    const first = await keyed(tenant, readingAll);
    expect(first.receipt).toMatchObject({ units: 1 });
    const again = await keyed(tenant, readingAll);
    expect(again).toMatchObject({ isError: true, refusal: { code: "result_not_kept" }, receipt: first.receipt });
    await expectUsed(tenant, 2);
  });

  test("is charged once when the object cannot be reached, before or after it was", async () => {
    const tenant = await aTenant({ plan: "pro" });
    const inObject = await keyed(tenant, reading);
    await objectFault(tenant.id, "away");
    try {
      const without = await keyed(tenant, reading);
      expect(without.receipt).toEqual(inObject.receipt);
      const other = await keyed(tenant, reading, "k-2");
      expect(await keyed(tenant, reading, "k-2")).toMatchObject({ data: other.data, receipt: other.receipt });
      // Only the object knows whether such a call took effect.
      expect(await keyed(tenant, writing, "k-3")).toMatchObject({ refusal: { code: "tenant_unavailable" } });
      const ledger = () =>
        controlRows<{ id: string }>(`SELECT call_id AS id FROM ledger WHERE tenant_id = $1`, [tenant.id]);
      await until(async () => (await ledger()).length === 2, "both calls are in the ledger");
      expect(await controlRows(`SELECT call_id FROM ledger_conflicts`)).toEqual([]);
    } finally {
      await objectFault(tenant.id);
    }
    expect((await keyed(tenant, writing, "k-3")).data).toEqual({ stock: STOCK - 1 });
  });

  test("is charged once when it ran without the object before midnight and is sent again after it", async () => {
    const tenant = await aTenant({ plan: "pro" });
    await objectFault(tenant.id, "away");
    const { receipt } = await keyed(tenant, reading).finally(() => void objectFault(tenant.id));
    const counted = `SELECT FROM fallback_calls WHERE tenant_id = $1 AND counted_at IS NOT NULL`;
    await until(async () => (await controlRows(counted, [tenant.id])).length === 1, "the object counts the call");
    // As on the next day: the call has another id, and the day before's is this charge's.
    const idempotency = { key: "k-1", fingerprint: "f-1", atMs: Date.now(), earlierId: receipt?.id ?? "" };
    const { tool, args } = reading;
    const again = { callId: crypto.randomUUID(), attempt: 1, idempotency, tool, args } as const;
    for (const each of [again, again]) expect(await callObject(tenant.apiKey, each)).toMatchObject({ receipt });
    await expectUsed(tenant, 1);
  });

  test("is refused with words when the key is none", async () => {
    const tenant = await aTenant();
    for (const key of ["", "x".repeat(256), 7, {}]) {
      const params = {
        name: reading.tool,
        arguments: reading.args,
        _meta: { ...modernMeta, "tollgate/idempotencyKey": key },
      };
      const answer = await postMcp(tenant.apiKey, { jsonrpc: "2.0", id: 1, method: "tools/call", params });
      expect(await answer.json()).toMatchObject({
        error: { code: -32602, message: expect.stringContaining("must be a text of 1 to 255 characters") },
      });
    }
    await expectUsed(tenant, 0);
  });
});

describe("a call whose client disconnects is stopped, no longer counts as in flight and is not charged", () => {
  const revisions = [
    ["2026-07-28", modernMeta],
    ["2025-11-25", {}],
  ] as const;

  test.each(revisions)("while it runs in revision %s", async (revision, meta) => {
    const tenant = await aTenant({ limits: { callsInFlight: 1 } });
    // Far longer than the test waits for the call to end.
    await databaseFaults([{ kind: "slow", sql: reading.sql, ms: 15_000, times: 1 }]);
    const params = { name: reading.tool, arguments: reading.args, _meta: meta };
    const leaving = leave(tenant, 500, revision, params);
    await until(() => isBusy(tenant), "the call runs");
    await until(async () => !(await isBusy(tenant)), "the call has ended", 5_000);
    await leaving;
    await expectUsed(tenant, 0);
    expect((await callTool(tenant.apiKey, reading.tool, reading.args)).isError).toBeFalsy();
  });

  test.each(revisions)("while it waits to be admitted in revision %s", async (revision, meta) => {
    const tenant = await aTenant();
    await setClock(tenant.id, CONFIG_TRUSTED_MS); // so that the object reads the tenant again before it decides
    await databaseFaults([{ kind: "slow", sql: "FROM tenants t WHERE t.id", ms: SLOW_MS }]);
    // A tool without a database statement: the abort of a statement would also end the call.
    await leave(tenant, 300, revision, { name: "list_documents", arguments: {}, _meta: meta });
    await sleep(SLOW_MS + 500);
    await expectUsed(tenant, 0);
  });
});

/** Makes a call and disconnects after `afterMs`. */
async function leave(
  tenant: TestTenant,
  afterMs: number,
  revision: string,
  params: { name: string; arguments: object; _meta: object },
): Promise<void> {
  const body = { jsonrpc: "2.0", id: 1, method: "tools/call", params };
  const path = `/test/leave?afterMs=${afterMs}`;
  await (await postMcp(tenant.apiKey, body, { "mcp-protocol-version": revision }, path)).text();
}

/** Whether a tenant with `callsInFlight: 1` has a call in flight. */
async function isBusy(tenant: TestTenant): Promise<boolean> {
  return (await callTool(tenant.apiKey, "get_usage")).refusal?.code === "too_many_in_flight";
}

type Call = typeof writing | typeof reading;

/** One call whose object ends while its statement waits. `statements` counts how often the statement was sent. */
async function dyingObject(tenant: TestTenant, { tool, args, sql }: Call) {
  await databaseFaults([{ kind: "slow", sql, ms: SLOW_MS }]);
  const before = await databaseHits();
  const running = callTool(tenant.apiKey, tool, args);
  await until(async () => (await databaseHits()) > before, "the statement runs");
  await endObject(tenant.id);
  const answer = await running;
  await sleep(SLOW_MS); // time for another statement, if there is one
  const statements = (await databaseHits()) - before;
  await databaseFaults([]);
  return { answer, statements };
}

async function losingDatabase(tenant: TestTenant, { tool, args, sql }: Call) {
  await databaseFaults([{ kind: "lose-after", sql }]);
  const before = await databaseHits();
  const answer = await callTool(tenant.apiKey, tool, args);
  const statements = (await databaseHits()) - before;
  await databaseFaults([]);
  return { answer, statements };
}

/** Expects `units` charged calls of one unit each, in the object's rows and in its window, and no reservation. */
async function expectUsed(tenant: TestTenant, units: number): Promise<void> {
  expect(await storedCalls(tenant.id)).toHaveLength(units);
  expect((await callTool(tenant.apiKey, "get_usage")).data).toMatchObject({
    hour: { used: units },
    month: { used: units },
  });
}

/** The bag's stock. Reading it costs a unit. */
async function stock(tenant: TestTenant): Promise<unknown> {
  const found = await callTool(tenant.apiKey, "search_products", { query: "canvas bag" });
  return (found.data?.["products"] as { stock: number }[] | undefined)?.[0]?.stock;
}
