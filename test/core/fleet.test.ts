import fc from "fast-check";
import { expect, test } from "vitest";
import { pendingFiles, versionOf } from "../../src/tenant-db/branch.ts";
import type { ActiveRun, Result, StoredSchema } from "../../src/fleet/fleet-store.ts";
import { type FleetWork, advance } from "../../src/fleet/runner.ts";
import {
  type Attempt,
  FleetOptions,
  counted,
  describeDrift,
  emptyPlan,
  explain,
  noCounts,
  outcomes,
  planned,
  stopReason,
} from "../../src/fleet/fleet.ts";

const files = ["product/0001_a.sql", "product/0002_b.sql", "app/0001_c.sql"];
const target = versionOf(files);
/** Each has one file more than the one before it; the last has one that the program does not have. */
const versions = [null, ...[1, 2, 3].map((n) => versionOf(files.slice(0, n))), `${target} app/0002_newer.sql`];

interface World {
  /** Placement ids, from 1 on, to versions. */
  versions: (string | null)[];
  outcomes?: readonly Attempt["outcome"][];
  options?: Partial<FleetOptions>;
  /** The results after whose keeping the runner dies, counted from 0. */
  deaths?: readonly number[];
  pageSize?: number;
}

/** Executes a run to its end over schemas in memory. Each death is followed by another runner. */
async function runFleet(world: World) {
  const options = FleetOptions.parse({ stopAbove: 1_000_000, ...world.options });
  const schemas = world.versions.map((version, n) => ({
    placementId: n + 1,
    tenantId: `t${n + 1}`,
    shardId: "s",
    version,
  }));
  const { cohort } = planned(emptyPlan(target), schemas, options);
  const run = { state: "running", reason: null as string | null, reached: 0, counts: noCounts };
  const results = new Map<number, Result>();
  const tried: number[] = [];
  const recorded: number[] = [];
  /** Tried before the cohort was finished. */
  const overtaking: number[] = [];
  let open = 0;
  let peak = 0;
  let kept = 0;
  const work: FleetWork = {
    files,
    heartbeat: async () =>
      run.state === "running"
        ? ({ ...run, options, cohort: cohort.map((c) => c.placementId), stopRequested: false } as ActiveRun)
        : undefined,
    untried: async ({ after, limit, among }) =>
      schemas
        .filter(
          ({ placementId, version }) => placementId > after && (version ?? "") < target && !results.has(placementId),
        )
        .filter(({ placementId }) => among === undefined || among.includes(placementId))
        .slice(0, limit) as unknown as StoredSchema[],
    async migrate({ placementId }) {
      tried.push(placementId);
      const others = cohort.every((member) => member.placementId !== placementId);
      if (others && !cohort.every((member) => results.has(member.placementId))) overtaking.push(placementId);
      peak = Math.max(peak, ++open);
      await new Promise((resolve) => setImmediate(resolve));
      open -= 1;
      return { outcome: world.outcomes?.[placementId - 1] ?? "applied", sqlState: null, reason: null };
    },
    async record(result) {
      const schema = schemas[result.placementId - 1];
      if (schema !== undefined && result.version !== null) schema.version = result.version;
      results.set(result.placementId, result);
      recorded.push(result.placementId);
      run.counts = counted(run.counts, result.outcome);
      if (world.deaths?.includes(kept++) === true) throw new Error("killed");
      return { stop: false };
    },
    async recordReached(placementId) {
      run.reached = placementId;
    },
    async finish(state, reason) {
      Object.assign(run, { state, reason });
    },
    sleep: async () => undefined,
    nowMs: () => 0,
  };
  for (let state = "more"; state === "more";) {
    state = await advance(work, { limit: world.pageSize ?? 7 }).catch(() => "more");
  }
  const pending = world.versions.flatMap((version, n) => ((version ?? "") < target ? [n + 1] : []));
  return {
    run,
    results,
    recorded,
    overtaking,
    tried,
    peak,
    cohort: cohort.map(({ placementId }) => placementId),
    pending,
    schemas,
  };
}

const someVersions = fc.array(fc.constantFrom(...versions), { maxLength: 40 });
const byNumber = (a: number, b: number): number => a - b;

test("a run without failures tries every schema that lacks files once, and no other schema", () =>
  fc.assert(
    fc.asyncProperty(
      someVersions,
      fc.integer({ min: 1, max: 9 }),
      fc.integer({ min: 0, max: 9 }),
      async (world, pageSize, cohort) => {
        const { tried, pending, run, schemas } = await runFleet({ versions: world, pageSize, options: { cohort } });
        expect(tried.toSorted(byNumber)).toEqual(pending);
        expect(run.state).toBe("done");
        for (const [n, version] of world.entries())
          expect(schemas[n]?.version).toBe((version ?? "") < target ? target : version);
      },
    ),
  ));

test("a run never migrates more schemas concurrently than its option allows", () =>
  fc.assert(
    fc.asyncProperty(someVersions, fc.integer({ min: 1, max: 8 }), async (world, concurrency) => {
      const { peak, pending } = await runFleet({ versions: world, pageSize: 50, options: { concurrency } });
      expect(peak).toBe(Math.min(concurrency, pending.length));
    }),
  ));

test("the first cohort is finished before any other schema is tried, also when the runner is killed", () =>
  fc.assert(
    fc.asyncProperty(
      someVersions,
      fc.integer({ min: 1, max: 12 }),
      fc.array(fc.nat(40)),
      async (world, size, deaths) => {
        const { overtaking, cohort, pending } = await runFleet({
          versions: world,
          deaths,
          options: { cohort: size, concurrency: 3 },
        });
        expect(cohort).toHaveLength(Math.min(size, pending.length));
        expect(overtaking).toEqual([]);
      },
    ),
  ));

test("a run whose runner is killed repeatedly does the same as an undisturbed run, and stores each result once", () =>
  fc.assert(
    fc.asyncProperty(
      someVersions,
      fc.array(fc.constantFrom<Attempt["outcome"]>(...outcomes), { maxLength: 40 }),
      fc.array(fc.nat(40)),
      fc.integer({ min: 1, max: 5 }),
      async (world, fates, deaths, concurrency) => {
        const { recorded, run, pending } = await runFleet({
          versions: world,
          outcomes: fates,
          deaths,
          options: { concurrency },
        });
        expect(recorded.toSorted(byNumber)).toEqual(pending);
        const bad = pending.some((id) => !["applied", "current"].includes(fates[id - 1] ?? "applied"));
        expect(run.state).toBe(bad ? "failed" : "done");
      },
    ),
  ));

test("a run stops soon after more schemas have failed than allowed", () =>
  fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 0, max: 5 }),
      fc.array(fc.boolean(), { minLength: 30, maxLength: 40 }),
      async (stopAbove, fails) => {
        const concurrency = 3;
        const fates = fails.map((fail): Attempt["outcome"] => (fail ? "failed" : "applied"));
        const { run } = await runFleet({
          versions: fails.map(() => null),
          outcomes: fates,
          options: { stopAbove, concurrency },
        });
        const failures = fails.filter(Boolean).length;
        expect(run.state).toBe(failures > stopAbove ? "stopped" : failures > 0 ? "failed" : "done");
        // Running schemas are finished.
        expect(run.counts.failed).toBeLessThanOrEqual(stopAbove + concurrency);
      },
    ),
  ));

test("a share of failures is judged after the cohort, and later one failure is always allowed", () => {
  const counts = (applied: number, failed: number) => ({ ...noCounts, applied, failed });
  expect(stopReason("2%", counts(9, 1), { cohort: 10 })).toBe("1 of 10 failed, more than 2% of the first cohort");
  expect(stopReason("10%", counts(9, 1), { cohort: 10 })).toBeUndefined();
  expect(stopReason("2%", counts(10, 1), { cohort: 10 })).toBeUndefined();
  expect(stopReason("2%", counts(20, 2), { cohort: 10 })).toBeDefined();
  expect(stopReason("2%", counts(98, 2), { cohort: 0 })).toBeUndefined();
  expect(stopReason("0%", counts(98, 1), { cohort: 0 })).toBeDefined();
  // A busy schema says nothing about the migration; a drifted schema does.
  expect(stopReason(0, { ...noCounts, busy: 5 }, { cohort: 0 })).toBeUndefined();
  expect(stopReason(0, { ...noCounts, drifted: 1 }, { cohort: 0 })).toBeDefined();
});

test("a table in use and an unreachable database are tried four times, a failing file once", async () => {
  const fates = ["busy", "unreachable", "failed", "drifted"] as const;
  const { results } = await runFleet({ versions: [null, null, null, null], outcomes: fates });
  expect([...results.values()].toSorted((a, b) => a.placementId - b.placementId)).toMatchObject([
    { outcome: "busy", tries: 4 },
    { outcome: "failed", tries: 4 },
    { outcome: "failed", tries: 1 },
    { outcome: "drifted", tries: 1 },
  ]);
});

test("the random cohort is the same at every planning, for any size of the pages", () => {
  const schemas = Array.from({ length: 100 }, (_, n) => ({
    placementId: n + 1,
    tenantId: `t${n}`,
    shardId: "s",
    version: null,
  }));
  const cohortOf = (size: number, name = target) => {
    let plan = emptyPlan(name);
    for (let n = 0; n < schemas.length; n += size) plan = planned(plan, schemas.slice(n, n + size), { cohort: 5 });
    return plan.cohort;
  };
  expect(cohortOf(100)).toHaveLength(5);
  expect(cohortOf(3)).toEqual(cohortOf(100));
  expect(cohortOf(100, "0004_next.sql")).not.toEqual(cohortOf(100));
});

test("the pending files of a schema follow from its version", () => {
  expect(pendingFiles(files, null)).toEqual(files);
  expect(pendingFiles(files, "product/0001_a.sql product/0002_b.sql")).toEqual(["app/0001_c.sql"]);
  expect(pendingFiles(files, `${target} app/0002_newer.sql`)).toEqual([]);
  // A file with a lower number that arrived later, and one that only the schema has.
  expect(pendingFiles(files, "product/0002_b.sql app/0001_c.sql app/0009_x.sql")).toEqual(["product/0001_a.sql"]);
});

test("invalid options are refused", () => {
  for (const wrong of [
    { concurrency: 0 },
    { stopAbove: "101%" },
    { stopAbove: -1 },
    { cohort: "x" },
    { only: [] },
    { more: 1 },
  ]) {
    const parsed = FleetOptions.safeParse(wrong);
    expect(parsed.success, JSON.stringify(wrong)).toBe(false);
  }
});

test("reasons are in Tollgate's own words", () => {
  expect(explain("23505", "products_pkey")).toBe("existing rows are not unique (constraint products_pkey)");
  expect(explain("XX000")).toBe("the database refused it");
  const added = { object: "index odd", expected: null, found: "CREATE INDEX odd" };
  expect(describeDrift([added, { ...added, expected: "x", found: null }])).toBe(
    "it was changed outside of migrations: index odd was added; index odd is missing",
  );
});
