// When Tollgate creates the next shard, and which text of a migration runs on it.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { type Occupancy, fullestPercent, strategiesToExtend } from "../../src/core/tenant/placement.ts";
import { textForFreshDatabase } from "../../src/tenant-db/branch.ts";

const occupancy = (strategy: Occupancy["strategy"]): fc.Arbitrary<Occupancy> =>
  fc.record({
    strategy: fc.constant(strategy),
    tenants: fc.integer({ min: 0, max: 30_000 }),
    capacity: fc.integer({ min: 1, max: 20_000 }),
    shards: fc.constant(1),
    room: fc.constant(0),
  });

test("the next shard is created before the alarm about full shards, and before the last place is taken", () => {
  fc.assert(
    fc.property(occupancy("shared"), occupancy("schema"), (shared, schema) => {
      const extended = strategiesToExtend([shared, schema]);
      for (const each of [shared, schema]) {
        const percent = fullestPercent([each]) ?? 0;
        if (percent >= 90 || each.tenants >= each.capacity) expect(extended).toContain(each.strategy);
        if (percent < 85) expect(extended).not.toContain(each.strategy);
      }
    }),
  );
  expect(fullestPercent([])).toBeNull();
  expect(strategiesToExtend([])).toEqual(["shared", "schema"]);
});

test.each([
  ["CREATE INDEX CONCURRENTLY i ON t (c);", "CREATE INDEX i ON t (c);"],
  [
    "-- why\ncreate unique index\n  concurrently if not exists i on t (c)",
    "-- why\ncreate unique index if not exists i on t (c)",
  ],
  ["DROP INDEX CONCURRENTLY i", "DROP INDEX i"],
  ["REINDEX TABLE CONCURRENTLY t", "REINDEX TABLE t"],
  ["REINDEX (CONCURRENTLY) INDEX i", "REINDEX INDEX i"],
  ["ALTER TABLE t DETACH PARTITION s.p CONCURRENTLY;", "ALTER TABLE t DETACH PARTITION s.p;"],
  ["REFRESH MATERIALIZED VIEW CONCURRENTLY v", "REFRESH MATERIALIZED VIEW CONCURRENTLY v"],
  ["CREATE TABLE t (concurrently text)", "CREATE TABLE t (concurrently text)"],
])("a file that needs to run outside of a transaction runs inside one on a fresh database: %s", (text, expected) => {
  expect(textForFreshDatabase(text)).toBe(expected);
});
