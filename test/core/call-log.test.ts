// The rows of a tenant's object, over an SQLite database in memory: what a line of API keys has used survives restarts and the
// removal of old rows, and last uses cost few writes.
import { DatabaseSync, type SQLInputValue } from "node:sqlite";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { periodOf } from "../../src/calls/admission.ts";
import { DAY_MS, HOUR_MS, MINUTE_MS } from "../../src/core/time.ts";
import { KeyUses, openCallLog } from "../../src/metering/call-log.ts";

const START_MS = Date.UTC(2026, 10, 29, 20);

/** An object's storage without its object. `writes` counts the statements that change something. */
function aStorage() {
  const database = new DatabaseSync(":memory:");
  const seen = { writes: 0 };
  const exec = (query: string, ...bindings: SQLInputValue[]) => {
    if (!/^\s*SELECT/.test(query)) seen.writes += 1;
    const rows = database.prepare(query).all(...bindings);
    return { toArray: () => rows, one: () => rows[0], [Symbol.iterator]: () => rows[Symbol.iterator]() };
  };
  const storage = { sql: { exec }, transactionSync: (work: () => void) => work() };
  return { storage: storage as unknown as DurableObjectStorage, seen };
}

const step = fc.oneof(
  fc.record({
    do: fc.constant("charge" as const),
    units: fc.integer({ min: 1, max: 9 }),
    line: fc.constantFrom("line-1", "line-2", undefined),
  }),
  fc.record({ do: fc.constant("wait" as const), ms: fc.integer({ min: 0, max: 9 * HOUR_MS }) }),
  fc.record({ do: fc.constantFrom("acknowledge" as const, "restart" as const, "fallback" as const) }),
);

test("units of the month by line are those of the charges, with any acknowledgements, restarts and months", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const { storage } = aStorage();
      let rows = openCallLog(storage, "epoch");
      let nowMs = START_MS;
      const charges: { atMs: number; units: number; line: string | undefined }[] = [];
      for (const [index, each] of steps.entries()) {
        const callId = `call-${index}`;
        if (each.do === "wait") nowMs += each.ms;
        else if (each.do === "restart") rows = openCallLog(storage, "another epoch");
        else if (each.do === "acknowledge") rows.acknowledge(rows.lastN, nowMs);
        else if (each.do === "fallback") rows.countFallbackCalls([{ callId, atMs: nowMs, tool: "t", units: 1 }]);
        else if (each.do === "charge") {
          rows.append({ callId, atMs: nowMs, tool: "t", units: each.units }, each.line);
          charges.push({ atMs: nowMs, units: each.units, line: each.line });
        }
        const { period } = periodOf(nowMs);
        const expected = (line: string): number =>
          charges
            .filter((charge) => charge.line === line && periodOf(charge.atMs).period === period)
            .reduce((sum, { units }) => sum + units, 0);
        const byLine = new Map(rows.monthByLine(nowMs).map(({ lineId, units }) => [lineId, units]));
        for (const line of ["line-1", "line-2"]) expect(byLine.get(line) ?? 0).toBe(expected(line));
      }
    }),
    { numRuns: 100 },
  );
});

test("rows of earlier months do not pile up", () => {
  const { storage } = aStorage();
  const rows = openCallLog(storage, "epoch");
  for (let month = 0; month < 12; month += 1) {
    const atMs = START_MS + month * 31 * DAY_MS;
    rows.append({ callId: `call-${month}`, atMs, tool: "t", units: 1 }, "line-1");
    rows.acknowledge(rows.lastN, atMs + 2 * HOUR_MS);
  }
  expect(storage.sql.exec(`SELECT count(*) AS n FROM line_months`).one()).toEqual({ n: 1 });
});

test("a key's last use is exact while the object lives, and a minute old at most after a restart", () => {
  const { storage, seen } = aStorage();
  openCallLog(storage, "epoch");
  const uses = new KeyUses(storage.sql);
  seen.writes = 0;
  for (let second = 0; second < 600; second += 1) uses.note("k1", START_MS + second * 1_000);
  expect(seen.writes).toBe(10);
  uses.note("k1", START_MS); // a clock that was set back
  uses.note("k2", START_MS);
  const lastMs = START_MS + 599_000;
  expect(uses.all()).toEqual([
    { keyId: "k1", atMs: lastMs },
    { keyId: "k2", atMs: START_MS },
  ]);
  const [restored] = new KeyUses(storage.sql).all();
  expect(restored?.atMs).toBeGreaterThan(lastMs - MINUTE_MS);
  expect(restored?.atMs).toBeLessThanOrEqual(lastMs);
});

test("the object's rows count every unit since a start that was known within an hour, and never too few after that", () => {
  const stepWithStarts = fc.oneof(
    { weight: 5, arbitrary: fc.record({ units: fc.integer({ min: 1, max: 9 }), ms: fc.nat({ max: 3 * HOUR_MS }) }) },
    { weight: 1, arbitrary: fc.constant("start" as const) },
    { weight: 2, arbitrary: fc.constant("fold" as const) },
  );
  fc.assert(
    fc.property(
      fc.array(stepWithStarts, { minLength: 5, maxLength: 60 }),
      fc.nat({ max: 3 * HOUR_MS }),
      (steps, lateMs) => {
        const { storage } = aStorage();
        let rows = openCallLog(storage, "epoch");
        const charged: { atMs: number; units: number }[] = [];
        let [nowMs, startMs] = [START_MS, START_MS];
        let knownAtMs = START_MS;
        rows.usedSince(startMs, nowMs);
        for (const [index, each] of steps.entries()) {
          if (each === "fold") {
            rows.acknowledge(rows.lastN, nowMs);
            rows = openCallLog(storage, "epoch");
          } else if (each === "start") {
            [startMs, knownAtMs] = [nowMs, nowMs + lateMs];
          } else {
            nowMs += each.ms;
            charged.push({ atMs: nowMs, units: each.units });
            rows.append({ callId: `call-${index}`, atMs: nowMs, tool: "t", units: each.units }, undefined);
          }
          if (nowMs < knownAtMs) continue;
          const exact = charged.filter(({ atMs }) => atMs >= startMs).reduce((sum, { units }) => sum + units, 0);
          const counted = rows.usedSince(startMs, nowMs);
          if (lateMs < HOUR_MS && nowMs - startMs < HOUR_MS) expect(counted).toBe(exact);
          else expect(counted).toBeGreaterThanOrEqual(exact);
          const month = charged
            .filter(({ atMs }) => atMs < Date.UTC(2026, 11))
            .reduce((sum, { units }) => sum + units, 0);
          if (nowMs < Date.UTC(2026, 11)) expect(rows.monthUsed(nowMs)).toBe(month);
        }
      },
    ),
    { numRuns: 100 },
  );
});
