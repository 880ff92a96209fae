// A fold of a tenant's calls: its sums are those of its calls, its size is bounded, and its percentiles are right to the bucket.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { type Caller, callEnds } from "../../src/core/call.ts";
import { TenantId } from "../../src/core/tenant/tenant.ts";
import { HOUR_MS } from "../../src/core/time.ts";
import {
  BUCKETS,
  type Cell,
  type CountedCall,
  Fold,
  LATENCY_BOUNDS_MS,
  MAX_CELLS,
  MetricsMessage,
  callerName,
  percentile,
} from "../../src/metering/metrics/fold.ts";

const START_MS = Date.UTC(2026, 10, 30, 23, 59);
const tenantId = TenantId.parse("acme");

const aCall: fc.Arbitrary<CountedCall> = fc.record({
  tool: fc.integer({ min: 1, max: 60 }).map((n) => `tool_${n}`),
  caller: fc.integer({ min: 1, max: 400 }).map((n) => `key:${n}`),
  end: fc.constantFrom(...callEnds),
  code: fc.constantFrom("", "rate_limited", "tool_timeout"),
  atMs: fc.integer({ min: 0, max: 3 * HOUR_MS }).map((ms) => START_MS + ms),
  units: fc.nat(50),
  ms: fc.nat(60_000),
  dbMs: fc.nat(1_000),
  isTimed: fc.boolean(),
});

const sum = <Item>(items: readonly Item[], of: (item: Item) => number): number =>
  items.reduce((total, item) => total + of(item), 0);

test("the sums of a fold's cells are the sums of its calls, for each outcome, with any number of names", () => {
  fc.assert(
    fc.property(fc.array(aCall, { maxLength: 1_500 }), (calls) => {
      const fold = new Fold();
      for (const call of calls) fold.add(call);
      const cells = fold.cells();
      expect(cells.length).toBeLessThanOrEqual(MAX_CELLS);
      for (const end of callEnds) {
        const own = calls.filter((call) => call.end === end);
        const timed = own.filter(({ isTimed }) => isTimed);
        const inFold = cells.filter(({ outcome }) => outcome === end);
        expect(sum(inFold, (cell) => cell.calls)).toBe(own.length);
        expect(sum(inFold, (cell) => cell.units)).toBe(sum(own, ({ units }) => units));
        expect(sum(inFold, (cell) => cell.dbMs)).toBe(sum(own, ({ dbMs }) => dbMs));
        expect(sum(inFold, (cell) => cell.ms)).toBe(sum(timed, ({ ms }) => ms));
        expect(sum(inFold, (cell) => sum(cell.latency, (each) => each))).toBe(timed.length);
      }
    }),
    { numRuns: 30 },
  );
});

test("a fold with few names keeps each, by the hour in which the call was admitted", () => {
  const fold = new Fold();
  const call = { tool: "t", caller: "key:k1", code: "", units: 2, ms: 7, dbMs: 3, isTimed: true } as const;
  fold.add({ ...call, end: "ok", atMs: START_MS });
  fold.add({ ...call, end: "ok", atMs: START_MS + 1 });
  fold.add({ ...call, end: "ok", atMs: START_MS + 60_000 });
  fold.add({ ...call, end: "refused", code: "rate_limited", units: 0, isTimed: false, atMs: START_MS }, 3);
  const hours = (cells: readonly Cell[]) =>
    cells.map(({ hourMs, outcome, calls, units }) => [hourMs, outcome, calls, units]);
  const hour = Date.UTC(2026, 10, 30, 23);
  expect(hours(fold.cells())).toEqual([
    [hour, "ok", 2, 4],
    [hour + HOUR_MS, "ok", 1, 2],
    [hour, "refused", 3, 0],
  ]);
  // A stored fold continues where it was.
  const again = new Fold(fold.cells());
  again.add({ ...call, end: "ok", atMs: START_MS });
  expect(again.cells()[0]).toMatchObject({ calls: 3, units: 6, ms: 21, dbMs: 9 });
  expect(fold.cells()[0]).toMatchObject({ calls: 2 });
});

test("a full fold with the longest names stays below the queue's limit for a message", () => {
  const fold = new Fold();
  for (let n = 0; n < 2_000; n += 1) {
    const call = {
      units: 9_999,
      ms: n * 20,
      dbMs: 99_999,
      isTimed: true,
      code: "c".repeat(40),
      atMs: START_MS,
    } as const;
    const end = callEnds[n % callEnds.length] ?? "ok";
    fold.add({ ...call, end, tool: `${n}`.padEnd(64, "t"), caller: `user:${n}`.padEnd(85, "c") }, 10_000);
  }
  const message = { kind: "metrics", tenantId, epoch: "e".repeat(64), folds: [{ n: Date.now(), cells: fold.cells() }] };
  expect(MetricsMessage.safeParse(message).success).toBe(true);
  expect(JSON.stringify(message).length).toBeLessThan(128_000);
});

test("a percentile is in the bucket of the call that has it, and merged histograms give those of all calls", () => {
  const latencies = fc.array(fc.nat(40_000), { minLength: 1, maxLength: 300 });
  const histogramOf = (all: readonly number[]): number[] => {
    const fold = new Fold();
    for (const ms of all)
      fold.add({ tool: "t", caller: "c", end: "ok", code: "", atMs: START_MS, units: 0, ms, dbMs: 0, isTimed: true });
    return fold.cells()[0]?.latency ?? [];
  };
  fc.assert(
    fc.property(latencies, latencies, fc.constantFrom(0.5, 0.95, 0.99, 1), (some, others, share) => {
      const all = [...some, ...others].toSorted((a, b) => a - b);
      const [first, second] = [histogramOf(some), histogramOf(others)];
      const found =
        percentile(
          first.map((calls, index) => calls + (second[index] ?? 0)),
          share,
        ) ?? -1;
      const exact = all[Math.ceil(share * all.length) - 1] ?? -1;
      const index = LATENCY_BOUNDS_MS.findIndex((bound) => exact <= bound);
      if (index === -1) expect(found).toBe(LATENCY_BOUNDS_MS.at(-1));
      else {
        expect(found).toBeLessThanOrEqual(LATENCY_BOUNDS_MS[index] ?? 0);
        expect(found).toBeGreaterThanOrEqual(LATENCY_BOUNDS_MS[index - 1] ?? 0);
      }
    }),
  );
  expect(
    percentile(
      Array.from({ length: BUCKETS }, () => 0),
      0.5,
    ),
  ).toBeNull();
});

test.each<[string, Caller]>([
  ["key:k1", { kind: "key", tenantId, keyId: "k1", keyHash: "h", scopes: [] }],
  ["member:m1", { kind: "member", tenantId, memberId: "m1", scopes: [] }],
  ["member:m1", { kind: "grant", tenantId, memberId: "m1", subject: "s", grantId: "g", tokenHash: "h", scopes: [] }],
  [
    "user:a\uFFFDb",
    { kind: "user", tenantId, issuer: "i", organisation: "o", subject: "a\0b", scopes: [], expiresAtMs: 1 },
  ],
  [
    `user:${"s".repeat(80)}`,
    { kind: "user", tenantId, issuer: "i", organisation: "o", subject: "s".repeat(200), scopes: [], expiresAtMs: 1 },
  ],
])("the caller %s", (name, caller) => expect(callerName(caller)).toBe(name));
