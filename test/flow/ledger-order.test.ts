// One call may reach the ledger twice: from the Worker, which ran it while the object was unreachable, and from the object,
// whose answer was lost after it charged the call. Invariants for every order, batching and repetition: the call is charged
// once, the object's sequence has no gap, no alarm fires, and the object is notified of exactly the calls it lacks.
import fc from "fast-check";
import { afterAll, expect, test } from "vitest";
import { fallbackCallsStore } from "../../src/calls/fallback-calls-store.ts";
import { ledgerStore } from "../../src/control/ledger-store.ts";
import { connectNeon } from "../../src/adapters/neon.ts";
import { TenantId } from "../../src/core/tenant/tenant.ts";
import { type UsageMessage, fallbackUsage } from "../../src/core/usage.ts";
import { aTenant, controlRows, system } from "../support/flow.ts";

const db = connectNeon(system.serviceUrl, `${system.proxyUrl}/sql`);
const NOW_MS = Date.UTC(2026, 10, 21, 12);

// Usage of tenants without a control row is never frozen, and would fail /health in later tests.
const made: TenantId[] = [];
afterAll(async () => {
  for (const table of ["ledger", "fallback_calls", "usage_streams"]) {
    await controlRows(`DELETE FROM ${table} WHERE tenant_id = ANY($1::text[])`, [made]);
  }
});

/** A tenant id without a tenant. */
function aTenantId(name: string): TenantId {
  const tenantId = TenantId.parse(`${name}-${crypto.randomUUID().slice(0, 13)}`);
  made.push(tenantId);
  return tenantId;
}

/** Who charged a call: only the object, only the Worker, or both. */
const fate = fc.constantFrom("object" as const, "open" as const, "both" as const);

test("a call that the Worker and the object both send is charged once, and the sequence has no gap", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fate, { minLength: 1, maxLength: 6 }),
      fc.array(fc.nat(), { minLength: 24, maxLength: 24 }),
      fc.integer({ min: 1, max: 4 }),
      async (fates, order, batchSize) => {
        const tenantId = aTenantId("order");
        const epoch = crypto.randomUUID();
        const calls = fates.map((came, index) => {
          const call = { callId: crypto.randomUUID(), tool: "search_products", units: 1 + index, atMs: NOW_MS + index };
          return { ...call, came };
        });
        const rows = calls
          .filter(({ came }) => came !== "open")
          .map(({ callId, tool, units, atMs }, index) => ({ callId, tool, units, atMs, n: index + 1 }));
        const messages: UsageMessage[] = [
          ...rows.map((row) => ({ tenantId, object: tenantId, epoch, rows: [row] })),
          // The Worker's own instant differs from the object's.
          ...calls
            .filter(({ came }) => came !== "object")
            .map((call) => fallbackUsage(tenantId, { ...call, atMs: call.atMs + 500 })),
        ];
        // Send each message twice, in random order.
        const deliveries = [...messages, ...messages]
          .map((message, index) => ({ message, at: order[index] ?? index }))
          .toSorted((a, b) => a.at - b.at)
          .map(({ message }) => message);

        const ledger = ledgerStore(db);
        let watermark = 0;
        for (let start = 0; start < deliveries.length; start += batchSize) {
          const { watermarks } = await ledger.record(deliveries.slice(start, start + batchSize));
          watermark = watermarks.find((each) => each.epoch === epoch)?.watermark ?? watermark;
          expect(watermarks.every(({ object }) => object === tenantId)).toBe(true);
        }
        expect(watermark).toBe(rows.length);
        const charged = await controlRows<{ call_id: string; units: number }>(
          `SELECT call_id, units FROM ledger WHERE tenant_id = $1 ORDER BY units`,
          [tenantId],
        );
        expect(charged).toEqual(calls.map(({ callId, units }) => ({ call_id: callId, units })));
        const streams = `SELECT watermark::int AS watermark, highest::int AS highest, gap_since FROM usage_streams WHERE tenant_id = $1`;
        expect(await controlRows(streams, [tenantId])).toEqual(
          rows.length === 0 ? [] : [{ watermark: rows.length, highest: rows.length, gap_since: null }],
        );
        expect(
          await controlRows(`SELECT * FROM ledger_conflicts WHERE incoming->>'tenant_id' = $1`, [tenantId]),
        ).toEqual([]);
        const untold = `SELECT call_id FROM fallback_calls WHERE tenant_id = $1 AND counted_at IS NULL ORDER BY call_id`;
        expect((await controlRows<{ call_id: string }>(untold, [tenantId])).map((row) => row.call_id)).toEqual(
          calls
            .filter(({ came }) => came === "open")
            .map(({ callId }) => callId)
            .toSorted(),
        );
      },
    ),
    { numRuns: 60 },
  );
});

test("a call that both sides send with different prices raises an alarm, and the sequence continues", async () => {
  const tenantId = aTenantId("price");
  const call = { callId: crypto.randomUUID(), tool: "search_products", units: 1, atMs: NOW_MS };
  const ledger = ledgerStore(db);
  await ledger.record([fallbackUsage(tenantId, call)]);
  const { watermarks } = await ledger.record([
    { tenantId, object: tenantId, epoch: "e", rows: [{ ...call, units: 2, n: 1 }] },
  ]);
  expect(watermarks).toMatchObject([{ watermark: 1 }]);
  const alarms = `SELECT call_id FROM ledger_conflicts WHERE incoming->>'tenant_id' = $1`;
  expect(await controlRows(alarms, [tenantId])).toEqual([{ call_id: call.callId }]);
  expect(await controlRows(`SELECT units FROM ledger WHERE tenant_id = $1`, [tenantId])).toEqual([{ units: 1 }]);
  await controlRows(`DELETE FROM ledger_conflicts WHERE incoming->>'tenant_id' = $1`, [tenantId]);
});

test("a fallback call with another tenant's call id does not change the other tenant's charge", async () => {
  const own = aTenantId("own");
  const other = aTenantId("other");
  const call = { callId: crypto.randomUUID(), tool: "search_products", units: 1, atMs: NOW_MS };
  const ledger = ledgerStore(db);
  await ledger.record([fallbackUsage(own, call)]);
  await ledger.record([{ tenantId: other, object: other, epoch: "e", rows: [{ ...call, n: 1 }] }]);
  expect(await controlRows(`SELECT tenant_id, n FROM fallback_calls WHERE call_id = $1`, [call.callId])).toEqual([
    { tenant_id: own, n: null },
  ]);
  const alarms = `SELECT FROM ledger_conflicts WHERE call_id = $1`;
  expect((await controlRows(alarms, [call.callId])).length).toBe(1);
  // The operator sees the conflict and ends its alarm.
  const shown = async (): Promise<string[]> => (await ledger.conflicts(100)).map(({ callId }) => callId);
  expect(await shown()).toContain(call.callId);
  expect(await ledger.acknowledgeConflicts([call.callId])).toEqual([call.callId]);
  expect(await shown()).not.toContain(call.callId);
  await controlRows(`DELETE FROM ledger_conflicts WHERE call_id = $1`, [call.callId]);
});

test("unreachable objects do not stop the notification of other objects", async () => {
  const [busy, quiet] = await Promise.all([aTenant({ plan: "starter" }), aTenant({ plan: "starter" })]);
  const open = (tenant: string) =>
    fallbackUsage(TenantId.parse(tenant), {
      callId: crypto.randomUUID(),
      tool: "search_products",
      units: 1,
      atMs: Date.now(),
    });
  await ledgerStore(db).record([...Array.from({ length: 9 }, () => open(busy.id)), open(quiet.id)]);
  const ledger = fallbackCallsStore(db);
  const each = Map.groupBy(await ledger.uncounted(50, 4), ({ tenantId }) => tenantId);
  expect([each.get(busy.id as TenantId)?.length, each.get(quiet.id as TenantId)?.length]).toEqual([4, 1]);
  const seen = new Set<string>();
  for (let run = 0; run < 50 && seen.size < 2; run += 1) {
    for (const { tenantId } of await ledger.uncounted(1, 1)) seen.add(tenantId);
  }
  expect(seen.size).toBe(2);
  await ledger.counted([...each.values()].flat().map(({ callId }) => callId));
  const left = Map.groupBy(await ledger.uncounted(50, 10), ({ tenantId }) => tenantId);
  expect([left.get(busy.id as TenantId)?.length, left.get(quiet.id as TenantId)?.length]).toEqual([5, undefined]);
});
