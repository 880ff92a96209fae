// A tenant's object dies during calls. Calls that may run again do; each success that the client saw is charged once and no
// failure is; the window, the sequence of rows and the outbox continue.
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import {
  aTenant,
  callTool,
  controlRows,
  databaseFaults,
  databaseHits,
  endObject,
  setClock,
  storedCalls,
  type ToolAnswer,
  until,
} from "../support/flow.ts";

/** How long a slow query takes: long enough to end the object well before it is over. */
const SLOW_MS = 1_500;
const DAY_MS = 86_400_000;
const slowProducts = { kind: "slow", sql: "FROM products" };

test("running read-only calls run again, succeed and are charged once", async () => {
  const tenant = await aTenant();
  await databaseFaults([{ ...slowProducts, ms: SLOW_MS }]);
  try {
    const startedAt = performance.now();
    const running = search(tenant.apiKey, 4);
    await sleep(500);
    await endObject(tenant.id);
    const answers = await running;
    // A whole slow query after the object died: these are second attempts, not late first ones.
    expect(performance.now() - startedAt).toBeGreaterThanOrEqual(500 + SLOW_MS);
    expect(answers.map(outcome)).toEqual(["success", "success", "success", "success"]);
  } finally {
    await databaseFaults([]);
  }
  await expectCharged(tenant, 4);
});

test("the client's successes equal the charges, whenever the object dies around a call's end", async () => {
  const tenant = await aTenant({
    limits: { unitsPerHour: null, unitsPerMonth: null, callsPerMinute: null, callsInFlight: 8 },
  });
  await databaseFaults([{ ...slowProducts, ms: 60 }]);
  let successes = 0;
  try {
    for (let delayMs = 30; delayMs <= 110; delayMs += 10) {
      const running = search(tenant.apiKey, 3);
      await sleep(delayMs);
      await endObject(tenant.id);
      const answers = await running;
      expect(answers.map(outcome)).toEqual(["success", "success", "success"]);
      successes += answers.length;
    }
  } finally {
    await databaseFaults([]);
  }
  await expectCharged(tenant, successes);
});

test("on the free plan, a read-only call that is lost twice is refused, is not charged and holds nothing", async () => {
  const tenant = await aTenant();
  await databaseFaults([{ ...slowProducts, ms: SLOW_MS }]);
  try {
    const running = search(tenant.apiKey, 4);
    await sleep(400);
    await endObject(tenant.id);
    await sleep(600);
    await endObject(tenant.id);
    const answers = await running;
    expect(answers.map(outcome)).toEqual(Array.from({ length: 4 }, () => "metering_unavailable"));
  } finally {
    await databaseFaults([]);
  }
  expect(await storedCalls(tenant.id)).toEqual([]);
  // All four places in flight are free again.
  expect((await search(tenant.apiKey, 4)).map(outcome)).toEqual(["success", "success", "success", "success"]);
  await expectCharged(tenant, 4);
});

test("idempotent writes run again and are charged once; an outcome that stays unknown is outcome_unknown", async () => {
  const tenant = await aTenant({
    limits: { unitsPerHour: null, unitsPerMonth: null, callsPerMinute: null, callsInFlight: 16 },
  });
  let successes = 0;
  let unknown = 0;
  for (let round = 0; round < 8; round += 1) {
    const texts = Array.from({ length: 4 }, (_, n) => `${round}.${n}`);
    const running = texts.map((text) => callTool(tenant.apiKey, "write_document", { path: `notes/${text}.md`, text }));
    await sleep(round * 4);
    await endObject(tenant.id);
    for (const [n, answer] of (await Promise.all(running)).entries()) {
      const seen = outcome(answer);
      expect(["success", "outcome_unknown"]).toContain(seen);
      if (seen === "success") {
        successes += 1;
        expect(await stored(tenant.apiKey, `notes/${texts[n]}.md`)).toBe(texts[n]);
        successes += 1; // the reading is a charged call, too
      } else {
        unknown += 1;
        expect(answer.text).toContain("The call's id is");
      }
    }
  }
  // One death never costs both attempts.
  expect(unknown).toBe(0);
  await expectCharged(tenant, successes);
});

test("an object that dies during its proof of isolation does not delay another tenant", async () => {
  const [dying, other] = await Promise.all([aTenant(), aTenant()]);
  // Later than any proof of another test's clock, so that both must prove again.
  for (const { id } of [dying, other]) await setClock(id, 3_650 * DAY_MS);
  await databaseFaults([{ kind: "slow", sql: "tollgate.context_keys", ms: SLOW_MS }]);
  try {
    const before = await databaseHits();
    const running = search(dying.apiKey, 1);
    await until(async () => (await databaseHits()) > before, "the proof is under way");
    const waiting = search(other.apiKey, 1);
    await endObject(dying.id);
    const startedAt = performance.now();
    expect((await waiting).map(outcome)).toEqual(["success"]);
    expect((await running).map(outcome)).toEqual(["success"]);
    expect(performance.now() - startedAt).toBeLessThan(10 * SLOW_MS);
  } finally {
    await databaseFaults([]);
  }
});

test("a call that failed before the object died is not charged afterwards", async () => {
  const tenant = await aTenant();
  expect(outcome(await callTool(tenant.apiKey, "read_document", { path: "no/such.md" }))).toBe("failure");
  await databaseFaults([{ kind: "refuse-before", sql: "FROM products" }]);
  try {
    const code = "database_unavailable";
    expect((await search(tenant.apiKey, 3)).map(outcome)).toEqual([code, code, code]);
  } finally {
    await databaseFaults([]);
  }
  await endObject(tenant.id);
  expect(outcome(await callTool(tenant.apiKey, "search_products", { query: "" }))).toBe("success");
  await expectCharged(tenant, 1);
});

test("the window survives the object: the limit holds to the unit", async () => {
  const tenant = await aTenant({ limits: { unitsPerHour: 6 } });
  expect((await search(tenant.apiKey, 4)).map(outcome)).toEqual(["success", "success", "success", "success"]);
  await endObject(tenant.id);
  const answers = [...(await search(tenant.apiKey, 2)), ...(await search(tenant.apiKey, 1))];
  expect(answers.slice(0, 2).map(outcome)).toEqual(["success", "success"]);
  expect(answers[2]?.refusal).toMatchObject({ limit: 6, used: 6 });
  await endObject(tenant.id);
  expect((await search(tenant.apiKey, 1))[0]?.refusal).toMatchObject({ limit: 6, used: 6 });
  await expectCharged(tenant, 6);
});

test("the outbox is sent after the object died, without a new call", async () => {
  const tenant = await aTenant();
  await search(tenant.apiKey, 3);
  await endObject(tenant.id);
  expect(await ledgerRows(tenant.id)).toEqual([]);
  await until(async () => (await ledgerRows(tenant.id)).length === 3, "the rows are in the ledger");
  await expectCharged(tenant, 3);
});

test("rows that the ledger could not take arrive after both the object and the ledger are back", async () => {
  const tenant = await aTenant();
  await databaseFaults([{ kind: "refuse-before", sql: "INTO ledger" }]);
  try {
    await search(tenant.apiKey, 3);
    await sleep(3_500); // past the outbox's delay and the queue's: the batch has been refused by now
    await endObject(tenant.id);
    expect(await ledgerRows(tenant.id)).toEqual([]);
  } finally {
    await databaseFaults([]);
  }
  await search(tenant.apiKey, 1);
  await expectCharged(tenant, 4);
});

function search(apiKey: string, count: number): Promise<ToolAnswer[]> {
  return Promise.all(Array.from({ length: count }, () => callTool(apiKey, "search_products", { query: "", limit: 1 })));
}

function outcome(answer: ToolAnswer): string {
  return answer.refusal?.code ?? (answer.isError === true ? "failure" : "success");
}

async function stored(apiKey: string, path: string): Promise<unknown> {
  return (await callTool(apiKey, "read_document", { path })).data?.["text"];
}

function ledgerRows(tenantId: string): Promise<{ n: number; call_id: string; units: number }[]> {
  return controlRows(`SELECT n::int AS n, call_id, units FROM ledger WHERE tenant_id = $1 ORDER BY n`, [tenantId]);
}

/** `calls` calls of one unit each are charged: in the object, in its window, in its sequence and in the ledger. */
async function expectCharged(tenant: { id: string; apiKey: string }, calls: number): Promise<void> {
  const { hour, month } = (await callTool(tenant.apiKey, "get_usage")).data as {
    hour: { used: number };
    month: { used: number };
  };
  expect({ hour: hour.used, month: month.used }).toEqual({ hour: calls, month: calls });
  const kept = (await storedCalls(tenant.id)).map(({ n, call_id: callId, units }) => ({ n, call_id: callId, units }));
  expect(kept.map(({ n }) => n)).toEqual(Array.from({ length: calls }, (_, index) => index + 1));
  expect(new Set(kept.map(({ call_id: callId }) => callId)).size).toBe(calls);
  await until(async () => (await ledgerRows(tenant.id)).length >= calls, `${calls} rows are in the ledger`);
  expect(await ledgerRows(tenant.id)).toEqual(kept);
  const streams = await controlRows(
    `SELECT watermark::int AS watermark, highest::int AS highest, gap_since FROM usage_streams WHERE tenant_id = $1`,
    [tenant.id],
  );
  expect(streams).toEqual([{ watermark: calls, highest: calls, gap_since: null }]);
}
