// From calls to money: the ledger, the frozen reports and Stripe's count are equal to the unit, despite faults of the queue,
// the database and Stripe.
import { expect, test } from "vitest";
import { seededRandom } from "../../dev/seeded-random.ts";
import {
  aTenant,
  callTool,
  controlRows,
  databaseFaults,
  fireCron,
  simulator,
  storedCalls,
  system,
  type TestTenant,
  until,
} from "../support/flow.ts";

const TENANTS = 20;
const ROUNDS = 4;
const CALLS_A_ROUND = 250;
const CALLS_AT_ONCE = 16;
/** With these seeds, each fault hits at least a tenth of the batches, for any number of batches from 8 to 400. */
const refusing = { probability: 0.25, seed: 3 };
const losing = { probability: 0.25, seed: 5 };
const METER = "mcp_units";
/** The reporter retries a failed report 30 s after it was sent, on its own clock. */
const RETRY_AFTER_MS = 60_000;
/** Usage is frozen when it is a minute old. */
const FROZEN_AFTER_MS = 61_000;

const unlimited = { unitsPerHour: null, unitsPerMonth: null, callsPerMinute: null, callsInFlight: 128 };

interface Money {
  calls: number;
  units: number;
}

test("1,000 calls of 20 tenants are in the ledger, in reports and at Stripe to the unit, despite faults of all three", async () => {
  const clock = reporterClock();
  const tenants = await Promise.all(Array.from({ length: TENANTS }, () => aTenant({ plan: "pro", limits: unlimited })));
  const ids = tenants.map(({ id }) => id);
  const expected = new Map<string, Money>(ids.map((id) => [id, { calls: 0, units: 0 }]));
  const stripeFaults = new Map<string, number>();
  let struck = { batches: 0, refused: 0, lost: 0 };

  try {
    const hitsBefore = await proxyHits();
    await databaseFaults([
      { kind: "slow", ms: 0, sql: "INTO ledger" }, // delays nothing: it hits and so counts every batch
      { kind: "refuse-before", sql: "INTO ledger", ...refusing },
      { kind: "lose-after", sql: "INTO ledger", ...losing },
    ]);
    for (let round = 0; round < ROUNDS; round += 1) {
      await inParallel(CALLS_A_ROUND, CALLS_AT_ONCE, async (n) => {
        const tenant = at(tenants, (round * CALLS_A_ROUND + n) % TENANTS);
        const units = await succeed(tenant, n);
        const money = expected.get(tenant.id);
        if (money === undefined) throw new Error(`${tenant.id} is none of this test`);
        money.calls += 1;
        money.units += units;
      });
      const wanted = total(expected.values());
      await until(
        async () => total((await ledgerOf(ids)).values()).calls === wanted.calls,
        "all calls are in the ledger",
      );

      // Several rounds within one minute: later usage must get another minute.
      await simulator("/faults", stripeFaultRules(round));
      await (round === 1
        ? Promise.all([fireCron("*/5 * * * *", clock.next()), fireCron("*/5 * * * *", clock.now())])
        : fireCron("*/5 * * * *", clock.next()));
      await fireCron("*/5 * * * *", clock.next());
      for (const [name, fired] of await firedStripeFaults())
        stripeFaults.set(name, (stripeFaults.get(name) ?? 0) + fired);
    }
    await settleStreams(ids);
    struck = batchesBehind((await proxyHits()) - hitsBefore);
  } finally {
    await databaseFaults([]);
    await simulator("/faults", { rules: [] });
  }

  // The faults of this test did happen.
  const { batches, refused, lost } = struck;
  expect(
    refused / batches,
    `${refused} of ${batches} ledger batches failed before their commit`,
  ).toBeGreaterThanOrEqual(0.1);
  expect(lost / batches, `${lost} of ${batches} ledger batches failed after their commit`).toBeGreaterThanOrEqual(0.1);
  for (const kind of ["refused", "429", "error-500-before", "error-500-after", "lost"]) {
    expect(stripeFaults.get(kind) ?? 0, `Stripe's fault ${kind}`).toBeGreaterThan(0);
  }

  for (let run = 0; run < 10 && (await unconfirmed(ids)) > 0; run += 1) await fireCron("*/5 * * * *", clock.next());
  expect(await unconfirmed(ids)).toBe(0);

  const ledger = await ledgerOf(ids);
  expect(total(expected.values()).calls).toBe(ROUNDS * CALLS_A_ROUND);
  expect(Object.fromEntries(ledger)).toEqual(Object.fromEntries(expected));
  expect(Object.fromEntries(await reportsOf(ids))).toEqual(Object.fromEntries(expected));
  expect(await metered(ids)).toEqual(Object.fromEntries([...expected].map(([id, { units }]) => [id, units])));
  // Each report is the sum of the rows that carry its id.
  expect(
    await controlRows(
      `SELECT r.id FROM reports r LEFT JOIN ledger l ON l.report_id = r.id WHERE r.tenant_id = ANY ($1)
       GROUP BY r.id HAVING r.units IS DISTINCT FROM sum(l.units) OR r.calls <> count(l.call_id) OR bool_or(l.tenant_id <> r.tenant_id)`,
      [ids],
    ),
  ).toEqual([]);
  // The ledger equals the objects' rows, one by one.
  for (const id of ids) {
    const stored = (await storedCalls(id)).map(({ n, call_id: callId, units }) => ({ n, callId, units }));
    const kept = await controlRows(
      `SELECT n::int AS n, call_id AS "callId", units FROM ledger WHERE tenant_id = $1 ORDER BY n`,
      [id],
    );
    expect(kept).toEqual(stored);
  }
  await expectIntactStreams(ids);
}, 240_000);

test("when Stripe's answer was lost, its refusal of the duplicate confirms the report", async () => {
  const clock = reporterClock();
  const tenant = await aTenant({ plan: "pro", limits: unlimited });
  let units = 0;
  for (let n = 0; n < 3; n += 1) units += await succeed(tenant, n);
  await settleStreams([tenant.id], 3);
  await simulator("/faults", { rules: [{ kind: "lost", method: "POST", path: "/v1/billing/meter_events" }] });
  try {
    await fireCron("*/5 * * * *", clock.next());
  } finally {
    await simulator("/faults", { rules: [] });
  }
  expect(await unconfirmed([tenant.id])).toBe(1);
  // Stripe counted it although the answer was lost.
  expect(await metered([tenant.id])).toEqual({ [tenant.id]: units });

  await fireCron("*/5 * * * *", clock.now() + 1_000); // too soon: the first attempt may still run
  expect(await unconfirmed([tenant.id])).toBe(1);
  await fireCron("*/5 * * * *", clock.next());
  expect(
    await controlRows(`SELECT units::int AS units, attempts, answer FROM reports WHERE tenant_id = $1`, [tenant.id]),
  ).toEqual([{ units, attempts: 2, answer: "duplicate" }]);
  expect(await metered([tenant.id])).toEqual({ [tenant.id]: units });
});

test("two reporters at the same time report each unit once", async () => {
  const clock = reporterClock();
  const tenants = await Promise.all(Array.from({ length: 4 }, () => aTenant({ plan: "pro", limits: unlimited })));
  const ids = tenants.map(({ id }) => id);
  await inParallel(20, 8, async (n) => void (await succeed(at(tenants, n % tenants.length), 0)));
  await settleStreams(ids, 5);
  const atMs = clock.next();
  await Promise.all([fireCron("*/5 * * * *", atMs), fireCron("*/5 * * * *", atMs), fireCron("*/5 * * * *", atMs + 1)]);
  expect(await unconfirmed(ids)).toBe(0);
  expect(Object.fromEntries(await reportsOf(ids))).toEqual(Object.fromEntries(await ledgerOf(ids)));
  expect(await metered(ids)).toEqual(Object.fromEntries(ids.map((id) => [id, 5])));
  expect(await controlRows(`SELECT id FROM reports WHERE tenant_id = ANY ($1) AND attempts <> 1`, [ids])).toEqual([]);
});

test("a call that fails is not in the ledger", async () => {
  const tenant = await aTenant({ plan: "pro", limits: unlimited });
  await succeed(tenant, 0);
  expect((await callTool(tenant.apiKey, "read_document", { path: "there/is/none.txt" })).isError).toBe(true);
  expect((await callTool(tenant.apiKey, "write_document", { path: "../out.txt", text: "x" })).isError).toBe(true);
  await databaseFaults([{ kind: "refuse-before", sql: "FROM products" }]);
  try {
    expect((await callTool(tenant.apiKey, "search_products", { query: "" })).isError).toBe(true);
  } finally {
    await databaseFaults([]);
  }
  await succeed(tenant, 0);
  await settleStreams([tenant.id], 2);
  expect(
    await controlRows(`SELECT n::int AS n, tool, units FROM ledger WHERE tenant_id = $1 ORDER BY n`, [tenant.id]),
  ).toEqual([
    { n: 1, tool: "search_products", units: 1 },
    { n: 2, tool: "search_products", units: 1 },
  ]);
  const { hour } = (await callTool(tenant.apiKey, "get_usage")).data as { hour: { used: number } };
  expect(hour.used).toBe(2);
});

test("a frozen report never changes: later usage of the same minute gets its own report", async () => {
  const clock = reporterClock();
  const tenant = await aTenant({ plan: "pro", limits: unlimited });
  const frozen = () =>
    controlRows(`SELECT id, slot, units, calls, frozen_at FROM reports WHERE tenant_id = $1 ORDER BY frozen_at`, [
      tenant.id,
    ]);
  await succeed(tenant, 0);
  await settleStreams([tenant.id], 1);
  await fireCron("*/5 * * * *", clock.next());
  const first = await frozen();
  expect(first).toHaveLength(1);
  await succeed(tenant, 0);
  await settleStreams([tenant.id], 2);
  await fireCron("*/5 * * * *", clock.next());
  const both = await frozen();
  expect(both).toHaveLength(2);
  expect(both[0]).toEqual(first[0]);
  expect(await metered([tenant.id])).toEqual({ [tenant.id]: 2 });
});

test("the product's database login can change neither a ledger row nor the content of a report", async () => {
  const { connections } = await proxyStats();
  const logins = new Set(
    Object.keys(connections)
      .filter((name) => name.endsWith("/tollgate_control"))
      .map((name) => new URL(name).username),
  );
  expect([...logins]).toEqual(["tollgate_service"]);
  const rights = await controlRows<{ table: string; columns: string[] | null; removes: boolean }>(
    `SELECT c.relname AS "table", array_agg(a.attname::text ORDER BY a.attname::text)
              FILTER (WHERE has_column_privilege('tollgate_service', c.oid, a.attnum, 'UPDATE')) AS columns,
            has_table_privilege('tollgate_service', c.oid, 'DELETE') OR has_table_privilege('tollgate_service', c.oid, 'TRUNCATE') AS removes
     FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
     WHERE c.oid IN ('ledger'::regclass, 'reports'::regclass) GROUP BY c.oid, c.relname ORDER BY c.relname`,
  );
  expect(rights).toEqual([
    { table: "ledger", columns: ["carry_forward_id", "report_id"], removes: false },
    {
      table: "reports",
      columns: [
        ...["absent_since", "alarm", "answer", "attempts", "confirmed_at", "doubted_at", "error"],
        ...["first_attempt_at", "last_attempt_at", "next_at", "stripe_units"],
      ],
      removes: false,
    },
  ]);
  const [role] = await controlRows<{ super: boolean; owns: boolean }>(
    `SELECT r.rolsuper AS super, pg_has_role(r.oid, c.relowner, 'MEMBER') AS owns
     FROM pg_roles r, pg_class c WHERE r.rolname = 'tollgate_service' AND c.oid = 'reports'::regclass`,
  );
  expect(role).toEqual({ super: false, owns: false });
});

/** Makes a call that must succeed and returns its units. `n` alone decides which call. */
async function succeed(tenant: TestTenant, n: number): Promise<number> {
  const [tool, args, units] =
    n % 50 === 49
      ? (["generate_report", {}, 20] as const)
      : n % 10 === 7
        ? (["write_document", { path: `calls/${n}.txt`, text: String(n) }, 1] as const)
        : (["search_products", { query: "", limit: 1 }, 1] as const);
  const answer = await callTool(tenant.apiKey, tool, args);
  if (answer.isError === true) throw new Error(`${tool}: ${answer.text}`);
  return units;
}

/** Times for the report cron, far enough apart that a failed report is due again. */
function reporterClock(): { next: () => number; now: () => number } {
  let atMs = 0;
  return {
    next: () => (atMs = Math.max(atMs + RETRY_AFTER_MS, Date.now() + FROZEN_AFTER_MS)),
    now: () => atMs,
  };
}

function stripeFaultRules(seed: number): unknown {
  const kinds = ["refused", "429", "error-500-before", "error-500-after", "lost"];
  const [method, path] = ["POST", "/v1/billing/meter_events"];
  return { seed: seed + 1, rules: kinds.map((kind) => ({ kind, method, path, probability: 0.15 })) };
}

async function firedStripeFaults(): Promise<[string, number][]> {
  const { rules } = (await simulator("/faults")) as { rules: { kind: string; fired: number }[] };
  return rules.map(({ kind, fired }) => [kind, fired]);
}

interface ProxyStats {
  faults: number;
  connections: Record<string, { httpBatches: number }>;
}

async function proxyStats(): Promise<ProxyStats> {
  return (await (await fetch(`${system.proxyUrl}/_proxy/stats`)).json()) as ProxyStats;
}

async function proxyHits(): Promise<number> {
  return (await proxyStats()).faults;
}

/**
 * The exact number of batches and faults behind `hits`. It replays the proxy's random numbers. Each batch is one hit of the
 * counting rule and at most one hit of another rule.
 */
function batchesBehind(hits: number): { batches: number; refused: number; lost: number } {
  const refuse = seededRandom(refusing.seed);
  const lose = seededRandom(losing.seed);
  const counts = { batches: 0, refused: 0, lost: 0 };
  while (counts.batches + counts.refused + counts.lost < hits) {
    counts.batches += 1;
    if (refuse() < refusing.probability) counts.refused += 1;
    else if (lose() < losing.probability) counts.lost += 1;
  }
  return counts;
}

async function ledgerOf(ids: readonly string[]): Promise<Map<string, Money>> {
  return moneyBy(
    `SELECT tenant_id, count(*) AS calls, sum(units) AS units FROM ledger WHERE tenant_id = ANY ($1) GROUP BY tenant_id`,
    ids,
  );
}

async function reportsOf(ids: readonly string[]): Promise<Map<string, Money>> {
  return moneyBy(
    `SELECT tenant_id, sum(calls) AS calls, sum(units) AS units FROM reports WHERE tenant_id = ANY ($1) GROUP BY tenant_id`,
    ids,
  );
}

async function moneyBy(text: string, ids: readonly string[]): Promise<Map<string, Money>> {
  const rows = await controlRows<{ tenant_id: string; calls: string; units: string }>(text, [ids]);
  return new Map(rows.map(({ tenant_id: id, calls, units }) => [id, { calls: Number(calls), units: Number(units) }]));
}

/** Units that Stripe has counted, by tenant. */
async function metered(ids: readonly string[]): Promise<Record<string, number>> {
  const totals = (await simulator("/meter-totals")) as Record<string, Record<string, number>>;
  const customers = await controlRows<{ id: string; customer: string }>(
    `SELECT id, stripe_customer_id AS customer FROM tenants WHERE id = ANY ($1)`,
    [ids],
  );
  return Object.fromEntries(customers.map(({ id, customer }) => [id, totals[customer]?.[METER] ?? 0]));
}

async function unconfirmed(ids: readonly string[]): Promise<number> {
  const [row] = await controlRows<{ n: number }>(
    `SELECT (SELECT count(*) FROM reports WHERE tenant_id = ANY ($1) AND confirmed_at IS NULL)::int
          + (SELECT count(*) FROM ledger WHERE tenant_id = ANY ($1) AND report_id IS NULL)::int AS n`,
    [ids],
  );
  return row?.n ?? 0;
}

/** Waits until each stream has no gap and has reached row `atLeast`. */
async function settleStreams(ids: readonly string[], atLeast = 1): Promise<void> {
  await until(async () => {
    const whole = await controlRows(
      `SELECT tenant_id FROM usage_streams WHERE tenant_id = ANY ($1) AND watermark = highest AND watermark >= $2`,
      [ids, atLeast],
    );
    return whole.length === ids.length;
  }, "every stream is in the ledger without a gap");
}

async function expectIntactStreams(ids: readonly string[]): Promise<void> {
  const streams = await controlRows(
    `SELECT s.tenant_id, s.watermark = s.highest AND s.gap_since IS NULL AS whole, count(*) = s.highest AND max(l.n) = s.highest AS counted
     FROM usage_streams s JOIN ledger l USING (tenant_id, object, epoch) WHERE s.tenant_id = ANY ($1)
     GROUP BY s.tenant_id, s.object, s.epoch ORDER BY s.tenant_id`,
    [ids],
  );
  expect(streams).toEqual(ids.toSorted().map((id) => ({ tenant_id: id, whole: true, counted: true })));
  expect(
    await controlRows(`SELECT call_id FROM ledger_conflicts WHERE incoming ->> 'tenant_id' = ANY ($1)`, [ids]),
  ).toEqual([]);
}

function total(parts: Iterable<Money>): Money {
  const sum = { calls: 0, units: 0 };
  for (const { calls, units } of parts) {
    sum.calls += calls;
    sum.units += units;
  }
  return sum;
}

async function inParallel(count: number, atOnce: number, work: (n: number) => Promise<void>): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let n = next++; n < count; n = next++) await work(n);
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
}

function at<T>(list: readonly T[], index: number): T {
  const item = list[index];
  if (item === undefined) throw new Error(`There is no element ${index}`);
  return item;
}
