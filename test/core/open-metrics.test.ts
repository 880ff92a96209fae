// The deployment's figures in OpenMetrics: a strict reader accepts the text, the figures are the sums, and no label names a tenant.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { callEnds } from "../../src/core/call.ts";
import { BUCKETS, LATENCY_BOUNDS_MS } from "../../src/metering/metrics/fold.ts";
import type { Total } from "../../src/metering/metrics/metrics-store.ts";
import { fleetMetrics, openMetrics } from "../../src/metering/metrics/open-metrics.ts";
import { type ReadFamily, readOpenMetrics } from "../support/open-metrics.ts";

const total: fc.Arbitrary<Total> = fc
  .record({
    tool: fc.constantFrom("search_products", 'quoted "tool"', "back\\slash", "line\nfeed"),
    plan: fc.constantFrom("free", "pro"),
    outcome: fc.constantFrom(...callEnds),
    code: fc.constantFrom("", "rate_limited", "tool_timeout"),
    units: fc.nat(1_000),
    dbMs: fc.nat(100_000),
    latency: fc.array(fc.nat(50), { minLength: BUCKETS, maxLength: BUCKETS }),
  })
  .map((each) => ({ ...each, calls: each.latency.reduce((sum, calls) => sum + calls, 0), ms: each.dbMs * 2 }));
const totals = fc.uniqueArray(total, {
  selector: ({ tool, plan, outcome, code }) => `${tool} ${plan} ${outcome} ${code}`,
});

const sumOf = (family: ReadFamily | undefined): number =>
  (family?.samples ?? []).reduce((sum, { value }) => sum + value, 0);

test("a strict reader accepts any figures, and their sums are those of the totals", () => {
  fc.assert(
    fc.property(totals, (all) => {
      const fleet = {
        totals: all,
        tenants: [{ state: "active", plan: "free", tenants: 3 }],
        indicators: [
          { name: "deadLetters", unit: "count", value: 2, level: 1 },
          { name: "outboxSeconds", unit: "seconds", value: null, level: 0 },
        ],
      };
      const families = readOpenMetrics(openMetrics(fleetMetrics(fleet)));
      const sum = (own: readonly Total[], of: (each: Total) => number): number =>
        own.reduce((result, each) => result + of(each), 0);
      expect(sumOf(families.get("tollgate_calls"))).toBe(sum(all, ({ calls }) => calls));
      expect(sumOf(families.get("tollgate_units"))).toBe(sum(all, ({ units }) => units));
      const refused = all.filter(({ outcome }) => outcome === "refused");
      expect(sumOf(families.get("tollgate_refusals"))).toBe(sum(refused, ({ calls }) => calls));
      expect(sumOf(families.get("tollgate_database_seconds"))).toBeCloseTo(sum(all, ({ dbMs }) => dbMs) / 1_000);
      const counts = families
        .get("tollgate_call_duration_seconds")
        ?.samples.filter(({ name }) => name.endsWith("_count"));
      expect((counts ?? []).reduce((result, { value }) => result + value, 0)).toBe(sum(all, ({ calls }) => calls));
      expect(families.get("tollgate_tenants")?.samples).toEqual([
        { name: "tollgate_tenants", labels: { state: "active", plan: "free" }, value: 3 },
      ]);
      expect(families.get("tollgate_indicator")?.samples).toHaveLength(1);
      expect(families.get("tollgate_indicator_level")?.samples.map(({ value }) => value)).toEqual([1, 0]);
      const labels = [...families.values()].flatMap(({ samples }) =>
        samples.flatMap((each) => Object.keys(each.labels)),
      );
      expect(["code", "le", "name", "outcome", "plan", "state", "tool", "unit"]).toEqual(
        expect.arrayContaining(labels),
      );
    }),
  );
});

test("a histogram has the bounds in seconds", () => {
  const latency = Array.from({ length: BUCKETS }, () => 1);
  const one: Total = {
    tool: "t",
    plan: "free",
    outcome: "ok",
    code: "",
    calls: 17,
    units: 17,
    ms: 9,
    dbMs: 1,
    latency,
  };
  const text = openMetrics(fleetMetrics({ totals: [one], tenants: [], indicators: [] }));
  const bounds = [...text.matchAll(/le="(?<le>[^"]+)"/g)].map(({ groups }) => groups?.["le"]);
  expect(bounds.map(Number).slice(0, -1)).toEqual(LATENCY_BOUNDS_MS.map((ms) => ms / 1_000));
  expect(bounds.slice(-3)).toEqual(["10.0", "30.0", "+Inf"]);
  expect(text).toContain('tollgate_call_duration_seconds_count{tool="t",plan="free"} 17\n');
});

test.each([
  ["no end", "# TYPE a gauge\na 1\n"],
  ["a counter without its suffix", "# TYPE a counter\na 1\n# EOF\n"],
  ["a sample twice", '# TYPE a gauge\na{b="1"} 1\na{b="1"} 2\n# EOF\n'],
  ["an interrupted family", "# TYPE a gauge\na 1\n# TYPE b gauge\n# TYPE a gauge\n# EOF\n"],
  ["a bucket too many", '# TYPE a histogram\na_bucket{le="1.0"} 2\na_bucket{le="+Inf"} 1\na_count 1\na_sum 1\n# EOF\n'],
  ["an unescaped quote", '# TYPE a gauge\na{b="1"2"} 1\n# EOF\n'],
])("the reader refuses %s", (_, text) => expect(() => readOpenMetrics(text)).toThrow());
