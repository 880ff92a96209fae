// The same tools, the same answers and the same number of round trips in every tier.
import { beforeAll, describe, expect, test } from "vitest";
import {
  type TestTenant,
  aTenant,
  callTool,
  controlRows,
  fewestTrips,
  operator,
  rowsOf,
  system,
  until,
} from "../support/flow.ts";

describe.each(["shared", "schema", "database"])("in the %s tier", (strategy) => {
  let tenant: TestTenant;
  beforeAll(async () => {
    tenant = await aTenant({ plan: "pro", strategy, limits: { sessionIdleSeconds: 1 } });
  });
  const call = (name: string, args: Record<string, unknown> = {}) => callTool(tenant.apiKey, name, args);

  test("every tool gives the same answer as in the other tiers", async () => {
    expect((await call("health_check")).data).toMatchObject({ ok: true, tenant: tenant.id, settings: 3 });
    const found = await call("search_products", { query: "lamp", maxPriceCents: 5_000 });
    expect(found.data).toMatchObject({
      products: [{ id: "lamp-desk", name: "Desk lamp", priceCents: 3_900, stock: 120 }],
      nextCursor: null,
    });
    const page = await call("search_products", { query: "", limit: 4 });
    const next = await call("search_products", { query: "", limit: 50, cursor: page.data?.["nextCursor"] });
    expect([page, next].flatMap(({ data }) => data?.["products"] as unknown[])).toHaveLength(10);
    const report = await call("generate_report");
    expect(report.isError).toBeFalsy();
    expect(JSON.stringify(report.data)).toContain("furniture");
    await call("write_document", { path: "notes/a.md", text: "A note" });
    expect((await call("read_document", { path: "notes/a.md" })).data).toMatchObject({ text: "A note" });
    expect((await call("list_documents")).data).toMatchObject({ documents: [{ path: "notes/a.md" }] });
    expect((await call("delete_document", { path: "notes/a.md" })).isError).toBeFalsy();
    expect((await call("get_usage")).isError).toBeFalsy();
  });

  test("an upsert uses the same key", async () => {
    const statement = `INSERT INTO settings (key, value) VALUES ('theme', '"dark"')
      ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value RETURNING tenant_id, value`;
    for (let n = 0; n < 2; n += 1) {
      const { data } = await call("run_sql", { statements: [statement] });
      expect(data?.["results"]).toEqual([[{ tenant_id: tenant.id, value: "dark" }]]);
    }
  });

  test("a query is one round trip, and so is a list of statements", async () => {
    await call("health_check");
    // The prewarmed session is closed by now, so that every request is counted.
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    expect(await fewestTrips(() => call("search_products", { query: "lamp" }))).toEqual({ http: 1, sessions: 0 });
    const statements = ["SELECT 1 AS one", "UPDATE products SET stock = 1 WHERE id = 'mug-steel'", "SELECT 2 AS two"];
    const known = () => call("run_sql", { statements, as: "transaction" });
    expect(await fewestTrips(known)).toEqual({ http: 1, sessions: 0 });
  });

  test("the tenant's health shows that its rows can be reached", async () => {
    const { monitorToken } = (await (await operator("GET", `/tenants/${tenant.id}`)).json()) as {
      monitorToken: string;
    };
    const health = await fetch(`${system.publicUrl}/health?tenant=${tenant.id}&token=${monitorToken}`);
    expect(await health.json()).toMatchObject({ status: "ok" });
  });
});

test("/health reports a tenant's role with a right outside its schema", async () => {
  const [one, other] = await Promise.all([aTenant({ plan: "pro" }), aTenant({ plan: "pro" })]);
  const roles = await controlRows<{ role: string }>(
    "SELECT 'tenant_' || placement_id AS role FROM tenants WHERE id = ANY ($1) ORDER BY id = $2 DESC",
    [[one.id, other.id], one.id],
  );
  const [mine, foreign] = roles.map(({ role }) => role);
  const isolation = async () => {
    const { checks } = (await (await fetch(`${system.publicUrl}/health`)).json()) as {
      checks: { isolation: { ok: boolean; reason?: string } };
    };
    return checks.isolation;
  };
  await rowsOf(system.schemaOwnerUrl, `GRANT SELECT ON ${foreign}.products TO ${mine}`);
  try {
    await until(async () => !(await isolation()).ok, "the hole is seen", 30_000);
    expect((await isolation()).reason).toMatch(/rights_of_others/);
  } finally {
    await rowsOf(system.schemaOwnerUrl, `REVOKE SELECT ON ${foreign}.products FROM ${mine}`);
  }
  await until(async () => (await isolation()).ok, "the wall stands again", 30_000);
});

test("a plan change is in force at once, proposes its move, and keeps every tenant served", async () => {
  const tenant = await aTenant({ plan: "starter" });
  const changed = await operator("POST", `/tenants/${tenant.id}/plan`, { plan: "pro" });
  expect(await changed.json()).toMatchObject({
    plan: "pro",
    proposedMove: { from: "shared", to: "schema" },
    delivered: true,
  });
  expect((await callTool(tenant.apiKey, "search_products", { query: "lamp" })).isError).toBeFalsy();
  const usage = await callTool(tenant.apiKey, "get_usage");
  expect(JSON.stringify(usage.data)).toContain("10000");
  await operator("POST", `/tenants/${tenant.id}/move`, { strategy: "schema" });
  await until(
    async () =>
      ((await (await operator("GET", `/tenants/${tenant.id}`)).json()) as { proposedMove: unknown }).proposedMove ===
      null,
    "nothing is left to propose",
  );
});
