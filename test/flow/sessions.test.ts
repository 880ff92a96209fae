// A tool's interactive transactions, on the few sessions of the tenant's object. Calls share them, and the session budget
// limits them over all tenants.
import { afterEach, describe, expect, test } from "vitest";
import {
  type TestTenant,
  aTenant,
  asSuperuser,
  callTool,
  fewestTrips,
  endObject,
  rowsOf,
  sessionHolders,
  system,
  until,
  health,
} from "../support/flow.ts";

type Way = "queries" | "transaction" | "conversation" | "analytics";
const run = (tenant: TestTenant, as: Way, statements: string[], options: { pauseMs?: number; fail?: boolean } = {}) =>
  callTool(tenant.apiKey, "run_sql", { statements, as, ...options });

interface Sessions {
  budget: number;
  [strategy: string]: { slots: number; used: number; idle: number; waiting: number } | number;
}
const slotsOf = async (tenant: TestTenant) => (await sessionHolders())[tenant.id] ?? 0;

/** The server's process behind the session that a conversation gets. */
async function backendOf(tenant: TestTenant): Promise<unknown> {
  const { data } = await run(tenant, "conversation", ["SELECT pg_backend_pid() AS pid"]);
  return (data?.["results"] as { pid: number }[][] | undefined)?.[0]?.[0]?.pid;
}

afterEach(async () => {
  await fetch(`${system.publicUrl}/test/budget`);
});

describe.each(["shared", "schema"])("on the %s tier", (strategy) => {
  const tenantOf = () => aTenant({ plan: "pro", strategy });
  const stock = "SELECT stock FROM products WHERE id = 'lamp-arc'";

  test("a list of statements is one transaction and one round trip", async () => {
    const tenant = await tenantOf();
    const trips = await fewestTrips(async () => {
      const done = await run(tenant, "transaction", [
        "UPDATE products SET stock = 1 WHERE id = 'lamp-arc'",
        "UPDATE products SET stock = stock + 1 WHERE id = 'lamp-arc'",
        stock,
      ]);
      expect(done.data).toEqual({ results: [[], [], [{ stock: 2 }]] });
    });
    // The session that provisioning prewarmed carries it. If it is closed by now, one HTTP request does.
    expect([0, 1]).toContain(trips.http + trips.sessions);
    const failed = await run(tenant, "transaction", [
      "UPDATE products SET stock = 9 WHERE id = 'lamp-arc'",
      "SELECT 1 / 0",
    ]);
    expect(failed.isError).toBe(true);
    expect((await run(tenant, "queries", [stock])).data).toEqual({ results: [[{ stock: 2 }]] });
  });

  test("an interactive transaction commits when it returns and rolls back when it throws", async () => {
    const tenant = await tenantOf();
    const raise = "UPDATE products SET stock = stock + 100 WHERE id = 'lamp-arc' RETURNING stock";
    expect((await run(tenant, "conversation", [raise, raise])).data).toEqual({
      results: [[{ stock: 164 }], [{ stock: 264 }]],
    });
    expect((await run(tenant, "conversation", [raise], { fail: true })).isError).toBe(true);
    expect((await run(tenant, "conversation", [raise, "SELECT 1 / 0"])).isError).toBe(true);
    expect((await run(tenant, "queries", [stock])).data).toEqual({ results: [[{ stock: 264 }]] });
  });

  test("an interactive transaction sees only its own tenant and cannot leave the transaction", async () => {
    const tenant = await tenantOf();
    const seen = await run(tenant, "conversation", ["SELECT DISTINCT tenant_id FROM products"]);
    expect(seen.data).toEqual({ results: [[{ tenant_id: tenant.id }]] });
    for (const statement of ["COMMIT", "SET ROLE postgres", "RESET ALL"]) {
      expect((await run(tenant, "conversation", ["SELECT 1", statement])).isError, statement).toBe(true);
    }
  });

  test("analytics can read and cannot write", async () => {
    const tenant = await tenantOf();
    expect((await run(tenant, "analytics", [stock])).data).toEqual({ results: [[{ stock: 64 }]] });
    expect((await run(tenant, "analytics", ["UPDATE products SET stock = 0"])).isError).toBe(true);
    expect((await run(tenant, "queries", [stock])).data).toEqual({ results: [[{ stock: 64 }]] });
  });

  test("a session that the server dropped is replaced, and no call fails", async () => {
    const tenant = await tenantOf();
    const pid = await backendOf(tenant);
    const url = strategy === "shared" ? system.sharedOwnerUrl : system.schemaOwnerUrl;
    await rowsOf(asSuperuser(url), "SELECT pg_terminate_backend($1)", [pid]);
    expect(await backendOf(tenant)).not.toBe(pid);
    expect(await backendOf(tenant)).toBeDefined();
  });
});

test("more interactive transactions than the plan has sessions wait for each other, and none fails", async () => {
  const tenant = await aTenant({ plan: "pro", limits: { sessions: 2 } });
  const calls = await Promise.all(
    Array.from({ length: 12 }, () => run(tenant, "conversation", ["SELECT pg_backend_pid() AS pid"], { pauseMs: 50 })),
  );
  expect(calls.filter(({ isError }) => isError === true)).toEqual([]);
  const pids = new Set(calls.map(({ data }) => JSON.stringify(data?.["results"])));
  expect(pids.size).toBeLessThanOrEqual(2);
});

test("an interactive transaction that waits too long is refused with advice", async () => {
  const tenant = await aTenant({ plan: "pro", limits: { sessions: 1 } });
  const long = run(tenant, "conversation", ["SELECT 1", "SELECT 1"], { pauseMs: 7_000 });
  await until(async () => (await slotsOf(tenant)) > 0, "the session is held");
  const refused = await run(tenant, "conversation", ["SELECT 1"]);
  expect(refused.text).toMatch(/sessions_exhausted.*Try again/);
  expect((await long).isError).toBeFalsy();
});

test("an idle session is closed and its slot is returned", async () => {
  const tenant = await aTenant({ plan: "pro", limits: { sessionIdleSeconds: 1 } });
  const pid = await backendOf(tenant);
  const open = () => rowsOf(asSuperuser(system.schemaOwnerUrl), "SELECT FROM pg_stat_activity WHERE pid = $1", [pid]);
  expect(await open()).toHaveLength(1);
  expect(await slotsOf(tenant)).toBe(1);
  await until(async () => (await open()).length === 0, "the session is closed");
  await until(async () => (await slotsOf(tenant)) === 0, "no slot is held");
});

test("when the session budget is used up, lists of statements use HTTP and interactive transactions wait for each other", async () => {
  await fetch(`${system.publicUrl}/test/budget?sessions=2&forget=true`);
  const tenants = await Promise.all(Array.from({ length: 8 }, () => aTenant({ plan: "pro" })));
  const calls = await Promise.all(
    tenants.flatMap((tenant) => [
      run(tenant, "transaction", ["SELECT 1 AS one", "SELECT 2 AS two"]),
      run(tenant, "conversation", ["SELECT 1 AS one", "SELECT 2 AS two"]),
    ]),
  );
  expect(calls.map(({ text, isError }) => (isError === true ? text : "well"))).toEqual(calls.map(() => "well"));
  const slots = await Promise.all(tenants.map(slotsOf));
  expect(slots.reduce((sum, each) => sum + each, 0)).toBeLessThanOrEqual(2);
});

test("the slots of an object that died are free after their lease, and its tenant can call at once", async () => {
  const tenant = await aTenant({ plan: "pro" });
  await run(tenant, "conversation", ["SELECT 1"]);
  await endObject(tenant.id);
  expect((await run(tenant, "conversation", ["SELECT 1 AS one"])).data).toEqual({ results: [[{ one: 1 }]] });
});

test("/health shows the sessions of every strategy and the budget", async () => {
  const report = (await (await health()).json()) as { checks: { sessions: { facts: Sessions } } };
  const { facts } = report.checks.sessions;
  expect(facts.budget).toBeGreaterThan(0);
  for (const strategy of ["shared", "schema", "database"]) {
    expect(facts[strategy]).toEqual({
      slots: expect.any(Number),
      used: expect.any(Number),
      idle: expect.any(Number),
      waiting: expect.any(Number),
    });
  }
});
