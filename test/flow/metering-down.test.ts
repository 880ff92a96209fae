// While a tenant's object cannot be reached, the free plan is refused and paid plans run fallback calls. Each fallback call is
// charged once, and the object counts it when it is back. A message that cannot be written is kept, listed and replayed.
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, describe, expect, test } from "vitest";
import {
  aTenant,
  anAgent,
  callTool,
  controlRows,
  databaseFaults,
  fireCron,
  objectFault,
  operator,
  rowsOf,
  setClock,
  storedCalls,
  system,
  type TestTenant,
  toQueue,
  until,
} from "../support/flow.ts";

const faulty = new Set<string>();
afterEach(async () => {
  await databaseFaults([]);
  for (const id of faulty) await objectFault(id);
  faulty.clear();
});

const reading = ["search_products", { query: "canvas bag" }] as const;
const taking = ["take_from_stock", { id: "bag-canvas" }] as const;
/** Costs one unit a product. */
const exporting = (limit: number) => ["export_products", { limit }] as const;
/** The bag's stock after provisioning. */
const STOCK = 3;
const HOUR_MS = 3_600_000;

describe("while a tenant's object cannot be reached", () => {
  test("the free plan is refused with a time to retry, and is not charged", async () => {
    const tenant = await aTenant({ plan: "free" });
    await put(tenant, "away");
    const { refusal, isError } = await callTool(tenant.apiKey, ...reading);
    expect(isError).toBe(true);
    expect(refusal).toMatchObject({ code: "metering_unavailable", retryAfterSeconds: expect.any(Number) });
    await objectFault(tenant.id);
    await expectUsed(tenant, 0);
  });

  test.each(["starter", "pro", "enterprise"])(
    "a read of a tenant on %s succeeds, is charged once, and the object counts it when it is back",
    async (plan) => {
      const tenant = await aTenant({ plan });
      expect((await callTool(tenant.apiKey, ...reading)).isError).toBeFalsy();
      await until(async () => (await ledger(tenant)).length === 1, "the object's own call is in the ledger");
      await put(tenant, "away");
      const answer = await callTool(tenant.apiKey, ...reading);
      expect(answer.isError).toBeFalsy();
      expect(answer.data).toMatchObject({ products: [expect.objectContaining({ stock: STOCK })] });
      await until(async () => (await ledger(tenant)).length === 2, "the fallback call is in the ledger");
      expect((await ledger(tenant)).map(({ object }) => object)).toEqual([tenant.id, "~fallback"]);
      const [receipt] = await controlRows(
        `SELECT call_id AS id, units FROM ledger WHERE tenant_id = $1 AND object = '~fallback'`,
        [tenant.id],
      );
      expect(answer.receipt).toEqual(receipt);
      // An agent can connect, and get_usage answers from the ledger.
      await using agent = await anAgent(tenant.apiKey);
      expect((await agent.listTools()).tools.length).toBeGreaterThan(3);
      await fireCron("* * * * *");
      expect(await uncounted(tenant)).toBe(1);
      await objectFault(tenant.id);
      await fireCron("* * * * *");
      expect(await uncounted(tenant)).toBe(0);
      await expectUsed(tenant, 2);
      await fireCron("* * * * *");
      await expectUsed(tenant, 2);
      expect(await conflicts(tenant)).toBe(0);
    },
    90_000,
  );

  test("the control tables decide about the tenant's state, key, tools and limits", async () => {
    const tenant = await aTenant({ plan: "starter", limits: { unitsPerHour: 3 }, allowedTools: ["search_products"] });
    expect((await callTool(tenant.apiKey, ...reading)).isError).toBeFalsy();
    await until(async () => (await ledger(tenant)).length === 1, "the object's own call is in the ledger");
    await put(tenant, "away");
    expect((await callTool(tenant.apiKey, "list_documents")).refusal?.code).toBe("tool_not_allowed");
    for (let call = 2; call <= 3; call += 1) expect((await callTool(tenant.apiKey, ...reading)).isError).toBeFalsy();
    expect((await callTool(tenant.apiKey, ...reading)).refusal).toMatchObject({ code: "window_exhausted", used: 3 });

    await controlRows(`UPDATE tenants SET state = 'suspended' WHERE id = $1`, [tenant.id]);
    expect((await callTool(tenant.apiKey, ...reading)).refusal?.code).toBe("tenant_suspended");
    await controlRows(`UPDATE tenants SET state = 'active' WHERE id = $1`, [tenant.id]);
    await controlRows(`UPDATE api_keys SET revoked_at = now() WHERE tenant_id = $1`, [tenant.id]);
    await expect(callTool(tenant.apiKey, ...reading)).rejects.toThrow("HTTP 401");
  });

  test("a call is refused when the control tables cannot be read either", async () => {
    const tenant = await aTenant({ plan: "starter" });
    await put(tenant, "away");
    await databaseFaults([{ kind: "refuse-before", sql: "'allowedTools'" }]);
    const { refusal } = await callTool(tenant.apiKey, ...reading);
    expect(refusal).toMatchObject({ code: "control_unavailable", retryAfterSeconds: expect.any(Number) });
  });

  test("a call whose usage the queue refuses is not answered and not charged", async () => {
    const tenant = await aTenant({ plan: "starter" });
    await put(tenant, "no-queue");
    expect((await callTool(tenant.apiKey, ...reading)).refusal).toMatchObject({
      code: "metering_unavailable",
      retryAfterSeconds: expect.any(Number),
    });
    // It runs once, because the object was probed and never sent the call. The refusal says that its changes remain.
    const { refusal, text } = await callTool(tenant.apiKey, ...taking);
    expect(refusal?.code).toBe("metering_unavailable");
    expect(refusal?.retryAfterSeconds).toBeUndefined();
    expect(text).toContain("its changes remain");
    await objectFault(tenant.id);
    await expectUsed(tenant, 0);
    expect(await ledger(tenant)).toEqual([]);
    expect(await stock(tenant)).toBe(STOCK - 1);
  });

  test("a call that must not run twice has an unknown outcome if it was sent, and runs once if it was not", async () => {
    const tenant = await aTenant({ plan: "starter" });
    await put(tenant, "away");
    const before = await objectFault(tenant.id, "away");
    expect((await callTool(tenant.apiKey, ...taking)).refusal?.code).toBe("outcome_unknown");
    expect((await callTool(tenant.apiKey, ...taking)).data).toEqual({ stock: STOCK - 1 });
    expect((await objectFault(tenant.id, "away")) - before).toBe(1);
    await until(async () => (await ledger(tenant)).length === 1, "the one that ran is charged");
    expect(await ledger(tenant)).toMatchObject([{ object: "~fallback", tool: "take_from_stock", units: 1 }]);
  });

  test("a call whose tool decides its price runs without the object only if no other attempt can have been charged", async () => {
    const tenant = await aTenant({ plan: "starter" });
    await put(tenant, "away");
    const before = await objectFault(tenant.id, "away");
    const sent = await callTool(tenant.apiKey, ...exporting(3));
    expect(sent.refusal).toMatchObject({
      code: "tenant_unavailable",
      retryAfterSeconds: expect.any(Number),
      mayBeChargedAs: expect.any(String),
    });
    // The object is probed from now on, and is sent nothing.
    expect((await callTool(tenant.apiKey, ...exporting(4))).receipt).toMatchObject({ units: 4 });
    expect((await callTool(tenant.apiKey, "export_products", { category: "none" })).receipt).toBeUndefined();
    const keyed = await callTool(tenant.apiKey, ...exporting(5), { "tollgate/idempotencyKey": crypto.randomUUID() });
    expect(keyed.refusal?.code).toBe("tenant_unavailable");
    expect((await objectFault(tenant.id, "away")) - before).toBe(1);
    await until(async () => (await ledger(tenant)).length === 1, "the one with a receipt is charged");
    expect(await ledger(tenant)).toMatchObject([{ object: "~fallback", tool: "export_products", units: 4 }]);
    await objectFault(tenant.id);
    await fireCron("* * * * *");
    await expectUsed(tenant, 4);
  });

  test("an overloaded object is not bypassed", async () => {
    const tenant = await aTenant({ plan: "enterprise" });
    await put(tenant, "overloaded");
    for (const [tool, args] of [reading, taking, reading]) {
      expect((await callTool(tenant.apiKey, tool, args)).refusal).toMatchObject({
        code: "tenant_unavailable",
        retryAfterSeconds: expect.any(Number),
      });
    }
    await objectFault(tenant.id);
    await expectUsed(tenant, 0);
    expect(await stock(tenant)).toBe(STOCK);
  });

  test("a silent object counts as lost, and is then probed before it is sent a call", async () => {
    const tenant = await aTenant({ plan: "starter" });
    await put(tenant, "silent");
    const before = await objectFault(tenant.id, "silent");
    expect((await callTool(tenant.apiKey, "set_stock", { id: "bag-canvas", stock: 7 })).data).toEqual({ stock: 7 });
    expect((await objectFault(tenant.id, "silent")) - before).toBe(1);
    await objectFault(tenant.id);
    expect(await stock(tenant)).toBe(7);
    await until(async () => (await ledger(tenant)).length === 2, "both calls are charged");
  });

  test("a transaction of known statements runs; an interactive one is refused clearly", async () => {
    const tenant = await aTenant({ plan: "pro" });
    await put(tenant, "away");
    const statements = ["UPDATE products SET stock = 9 WHERE id = 'bag-canvas'", "SELECT stock FROM products LIMIT 1"];
    expect((await callTool(tenant.apiKey, "run_sql", { statements })).refusal?.code).toBe("outcome_unknown");
    expect((await callTool(tenant.apiKey, "run_sql", { statements, as: "transaction" })).isError).toBeFalsy();
    const { refusal, text } = await callTool(tenant.apiKey, "run_sql", { statements, as: "conversation" });
    expect(refusal?.code).toBe("sessions_unavailable");
    expect(text).toContain("Try again");
  });

  test("a login without a proof of isolation runs no tool", async () => {
    const id = `unproved-${crypto.randomUUID().slice(0, 8)}`;
    await setClock(id, -HOUR_MS); // so that what the object proves is too old a proof for the Worker
    const tenant = await aTenant({ id, plan: "pro" });
    await put(tenant, "away");
    const [placed] = await controlRows<{ role: string }>(
      `SELECT 'tenant_' || placement_id AS role FROM tenants WHERE id = $1`,
      [id],
    );
    await rowsOf(system.superuserUrl, `ALTER ROLE ${placed?.role} BYPASSRLS`);
    expect((await callTool(tenant.apiKey, ...reading)).refusal?.code).toBe("isolation_unproven");
    await rowsOf(system.superuserUrl, `ALTER ROLE ${placed?.role} NOBYPASSRLS`);
    expect((await callTool(tenant.apiKey, ...reading)).isError).toBeFalsy();
  });
});

describe("a call that the object charged before its answer was lost", () => {
  test("has the price of the run that was charged, although its tool would find another one now", async () => {
    const tenant = await aTenant({ plan: "starter" });
    const key = { "tollgate/idempotencyKey": crypto.randomUUID() };
    await put(tenant, "answers-lost");
    const lost = await callTool(tenant.apiKey, ...exporting(20), key);
    expect(lost.refusal).toMatchObject({ code: "tenant_unavailable", mayBeChargedAs: expect.any(String) });
    await objectFault(tenant.id);
    await until(async () => (await ledger(tenant)).length === 1, "it is charged");
    const [charged] = await ledger(tenant);
    const statements = ["DELETE FROM products WHERE id IN ('bag-canvas', 'pen-gel')"];
    expect((await callTool(tenant.apiKey, "run_sql", { statements })).isError).toBeFalsy();
    const again = await callTool(tenant.apiKey, ...exporting(20), key);
    expect(again.receipt).toEqual({ id: charged?.call_id, units: 10 });
    expect(again.receipt?.id).toBe(lost.refusal?.mayBeChargedAs);
    await until(async () => (await ledger(tenant)).length === 2, "the statement is charged, too");
    expect((await ledger(tenant)).map(({ units }) => units)).toEqual([10, 1]);
    expect(await conflicts(tenant)).toBe(0);
    await expectUsed(tenant, 11);
  });

  test("is charged once, leaves no gap, and is no conflict", async () => {
    const tenant = await aTenant({ plan: "starter" });
    expect((await callTool(tenant.apiKey, ...reading)).isError).toBeFalsy();
    await put(tenant, "answers-lost");
    expect((await callTool(tenant.apiKey, ...reading)).isError).toBeFalsy();
    await objectFault(tenant.id);
    expect((await callTool(tenant.apiKey, ...reading)).isError).toBeFalsy();

    await until(async () => (await ledger(tenant)).length === 3, "every call is charged");
    await until(async () => (await stream(tenant))[0]?.watermark === 3, "the object's sequence is whole");
    expect(await stream(tenant)).toEqual([{ watermark: 3, highest: 3, gap_since: null }]);
    await fireCron("* * * * *");
    expect(await uncounted(tenant)).toBe(0);
    expect(await conflicts(tenant)).toBe(0);
    await expectUsed(tenant, 3);
    expect((await controlRows(`SELECT FROM fallback_calls WHERE tenant_id = $1`, [tenant.id])).length).toBe(1);
  });

  test("a call that the object still runs when it hears of the fallback call is stopped there and counted once", async () => {
    const tenant = await aTenant({ plan: "starter" });
    await put(tenant, "cut-off");
    // The first statement is the object's own.
    await databaseFaults([{ kind: "slow", sql: "ILIKE ALL", ms: 8_000, times: 1 }]);
    expect((await callTool(tenant.apiKey, ...reading)).isError).toBeFalsy();
    await objectFault(tenant.id);
    await fireCron("* * * * *"); // in case the consumer came while the object was away
    await until(async () => (await controlRows(counted, [tenant.id])).length === 1, "the object was told", 6_000);
    await expectUsed(tenant, 1);
    await sleep(8_000); // until the object's own statement has answered, and some more
    await expectUsed(tenant, 1);
    expect(await storedCalls(tenant.id)).toMatchObject([{ n: -1 }]);
    expect((await ledger(tenant)).length).toBe(1);
  });
});

test("a fallback call leaves the window after an hour, and stays in the month", async () => {
  const tenant = await aTenant({ plan: "starter" });
  await put(tenant, "away");
  expect((await callTool(tenant.apiKey, ...reading)).isError).toBeFalsy();
  await until(async () => (await uncounted(tenant)) === 1, "the fallback call is in the ledger");
  await objectFault(tenant.id);
  await fireCron("* * * * *");
  expect(await storedCalls(tenant.id)).toMatchObject([{ n: -1, units: 1 }]);
  await setClock(tenant.id, HOUR_MS + 1_000);
  // At the end of a month, a new month begins within the hour.
  const sameMonth = new Date().getUTCMonth() === new Date(Date.now() + HOUR_MS + 1_000).getUTCMonth();
  expect((await callTool(tenant.apiKey, "get_usage")).data).toMatchObject({
    hour: { used: 0 },
    month: { used: sameMonth ? 1 : 0 },
  });
});

describe("messages that cannot be written to the ledger", () => {
  test("a row that the database refuses is kept, and the other rows of its batch are recorded", async () => {
    const tenant = await aTenant({ plan: "starter" });
    const bad = usageOf(tenant, { units: 3_000_000_000 });
    const mixed = {
      ...usageOf(tenant),
      rows: [row({ n: 1 }), row({ n: 2, units: 3_000_000_000 }), row({ n: 3 })],
    };
    await Promise.all([bad, mixed, usageOf(tenant)].map((body) => toQueue("queue", body)));
    await until(async () => (await waitingLetters(tenant)).length === 2, "both are kept");
    expect((await ledger(tenant)).length).toBe(3);
    for (const { why, body } of await waitingLetters(tenant)) {
      expect(why).toMatch(/^refused: SQLSTATE 22/);
      expect([bad, mixed]).toContainEqual(body);
    }
    await dismiss(tenant);
  });

  test("an unreadable message is kept unchanged", async () => {
    const tenant = await aTenant();
    const bodies = ["\u0000 no JSON of ours", { tenantId: tenant.id, rows: "none" }, 7];
    await Promise.all(bodies.map((body) => toQueue("queue", body)));
    await until(async () => (await letters()).filter(({ why }) => why === "unreadable").length >= 3, "they are kept");
    const kept = (await letters()).map(({ body }) => body);
    for (const body of bodies) expect(kept).toContainEqual(body);
    await until(async () => !(await healthOf("dead_letters")).ok, "/health says so"); // an answer of /health is cached for ten seconds
    await dismiss();
    expect((await letters()).length).toBe(0);
  });

  test("a message whose retries all failed is kept, replayed on demand, and is in the ledger once", async () => {
    const tenant = await aTenant({ plan: "starter" });
    const usage = usageOf(tenant);
    await databaseFaults([{ kind: "refuse-before", sql: "INTO dead_letters" }]);
    expect((await toQueue("dead-queue", usage)).outcomes).toEqual(["retry"]);
    await databaseFaults([]);
    const { id, outcomes } = await toQueue("dead-queue", usage);
    expect(outcomes).toEqual(["ack"]);
    expect(await letters()).toContainEqual(expect.objectContaining({ id, body: usage, replayedAt: null }));

    for (let time = 0; time < 2; time += 1) {
      const replayed = await operator("POST", "/dead-letters/replay", { ids: [id] });
      expect(await replayed.json()).toMatchObject({ replayed: [id] });
    }
    await until(async () => (await ledger(tenant)).length === 1, "it is in the ledger");
    expect(await conflicts(tenant)).toBe(0);
    expect((await letters()).map((letter) => letter.id)).not.toContain(id);
    const all = (await (await operator("GET", "/dead-letters?all=true")).json()) as { deadLetters: Letter[] };
    expect(all.deadLetters.find((letter) => letter.id === id)?.replayedAt).toEqual(expect.any(String));
  });
});

interface Letter {
  id: string;
  body: unknown;
  why: string;
  replayedAt: string | null;
}

async function put(tenant: TestTenant, fault: NonNullable<Parameters<typeof objectFault>[1]>): Promise<void> {
  faulty.add(tenant.id);
  await objectFault(tenant.id, fault);
}

function ledger(tenant: TestTenant): Promise<{ call_id: string; object: string; tool: string; units: number }[]> {
  return controlRows(`SELECT call_id, object, tool, units FROM ledger WHERE tenant_id = $1 ORDER BY at`, [tenant.id]);
}

function stream(tenant: TestTenant): Promise<{ watermark: number; highest: number; gap_since: Date | null }[]> {
  return controlRows(
    `SELECT watermark::int AS watermark, highest::int AS highest, gap_since FROM usage_streams WHERE tenant_id = $1`,
    [tenant.id],
  );
}

const counted = `SELECT FROM fallback_calls WHERE tenant_id = $1 AND counted_at IS NOT NULL`;

async function uncounted(tenant: TestTenant): Promise<number> {
  const text = `SELECT FROM fallback_calls WHERE tenant_id = $1 AND counted_at IS NULL`;
  return (await controlRows(text, [tenant.id])).length;
}

async function conflicts(tenant: TestTenant): Promise<number> {
  const text = `SELECT FROM ledger_conflicts WHERE incoming->>'tenant_id' = $1`;
  return (await controlRows(text, [tenant.id])).length;
}

async function expectUsed(tenant: TestTenant, units: number): Promise<void> {
  expect((await callTool(tenant.apiKey, "get_usage")).data).toMatchObject({
    hour: { used: units },
    month: { used: units },
  });
}

async function stock(tenant: TestTenant): Promise<unknown> {
  const found = await callTool(tenant.apiKey, ...reading);
  return (found.data?.["products"] as { stock: number }[] | undefined)?.[0]?.stock;
}

function row(overrides: Record<string, unknown> = {}): Record<string, unknown> {
  return { callId: crypto.randomUUID(), n: 1, tool: "search_products", units: 1, atMs: Date.now(), ...overrides };
}

/** A message in the form that the tenant's object sends. */
function usageOf(tenant: TestTenant, overrides: Record<string, unknown> = {}) {
  return { tenantId: tenant.id, object: tenant.id, epoch: crypto.randomUUID(), rows: [row(overrides)] };
}

async function letters(): Promise<Letter[]> {
  return ((await (await operator("GET", "/dead-letters")).json()) as { deadLetters: Letter[] }).deadLetters;
}

async function waitingLetters({ id }: TestTenant): Promise<Letter[]> {
  return (await letters()).filter(({ body }) => (body as { tenantId?: string }).tenantId === id);
}

async function dismiss(tenant?: TestTenant): Promise<void> {
  const ids = (tenant === undefined ? await letters() : await waitingLetters(tenant)).map(({ id }) => id);
  expect((await operator("POST", "/dead-letters/dismiss", { ids })).status).toBe(200);
}

async function healthOf(name: string): Promise<{ ok: boolean }> {
  const { checks } = (await (await fetch(`${system.publicUrl}/health`)).json()) as {
    checks: Record<string, { ok: boolean }>;
  };
  return checks[name] ?? { ok: true };
}
