// Fleet migrations by the operator's API, through the whole system: a Workflow migrates tenants' own schemas while their
// agents call.
import { afterEach, expect, test } from "vitest";
import {
  aTenant,
  callTool,
  controlRows,
  fireCron,
  health,
  operator,
  rowsOf,
  status,
  system,
  until,
} from "../support/flow.ts";

interface Report {
  id: number;
  state: string;
  reason: string | null;
  plan: { pending: number; cohort: { tenantId: string }[] } | null;
  counts: Record<string, number>;
  failures: { tenantId: string; outcome: string; reason: string }[];
}

/** Adds these files to the app's migrations in the Worker's bundle. */
const release = (files: { name: string; text: string }[]) =>
  fetch(`${system.publicUrl}/test/migrations`, {
    method: "POST",
    body: JSON.stringify(files.map((file) => ({ series: "app", ...file }))),
  });
afterEach(() => release([]));

const report = async (id: number): Promise<Report> =>
  (await (await operator("GET", `/migrations/${id}`)).json()) as Report;

async function start(options: Record<string, unknown>): Promise<number> {
  const response = await operator("POST", "/migrations", options);
  expect(response.status).toBe(202);
  return ((await response.json()) as Report).id;
}

async function finished(id: number): Promise<Report> {
  await until(async () => (await report(id)).state !== "running", `run ${id} ends`);
  return report(id);
}

/** The last file of the tenant's schema. */
async function versionOf(tenantId: string): Promise<string> {
  const tenant = (await (await operator("GET", `/tenants/${tenantId}`)).json()) as {
    placement: { schemaVersion: string };
  };
  return tenant.placement.schemaVersion.split(" ").at(-1) ?? "";
}

async function schemaOf(tenantId: string): Promise<string> {
  const [row] = await controlRows<{ id: number }>(`SELECT placement_id::int AS id FROM tenants WHERE id = $1`, [
    tenantId,
  ]);
  return `tenant_${row?.id}`;
}

const note = { name: "9001_note.sql", text: "ALTER TABLE products ADD COLUMN note text" };

test("the operator's API migrates tenants' schemas, the first cohort before the others, while their agents call", async () => {
  const [one, two, other] = await Promise.all([
    aTenant({ plan: "pro" }),
    aTenant({ plan: "pro" }),
    aTenant({ plan: "pro" }),
  ]);
  const before = await versionOf(one.id);
  await release([note]);
  const dry = await finished(await start({ dryRun: true, only: [one.id, two.id] }));
  expect(dry).toMatchObject({ state: "done", plan: { pending: 2 }, counts: { applied: 0 } });
  expect(await versionOf(one.id)).toBe(before);

  const id = await start({ only: [one.id, two.id], cohort: [two.id], concurrency: 2 });
  const calls = [];
  for (let n = 0; n < 10; n += 1) calls.push(await callTool(one.apiKey, "search_products", { query: "" }));
  expect(calls.filter(({ isError }) => isError === true)).toEqual([]);
  const done = await finished(id);
  expect(done).toMatchObject({
    state: "done",
    counts: { applied: 2, failed: 0 },
    plan: { cohort: [{ tenantId: two.id }] },
  });
  expect(await Promise.all([one, two, other].map((tenant) => versionOf(tenant.id)))).toEqual([
    `app/${note.name}`,
    `app/${note.name}`,
    before,
  ]);
  const columns = await rowsOf(
    system.schemaOwnerUrl,
    `SELECT FROM information_schema.columns WHERE table_name = 'products' AND column_name = 'note' AND table_schema = ANY ($1)`,
    [[await schemaOf(one.id), await schemaOf(two.id), await schemaOf(other.id)]],
  );
  expect(columns).toHaveLength(2);
  // The program works with both versions.
  for (const { apiKey } of [one, other]) {
    expect((await callTool(apiKey, "search_products", { query: "lamp" })).data?.["products"]).toHaveLength(2);
    expect((await callTool(apiKey, "health_check")).data).toMatchObject({ ok: true });
  }
  expect(await (await operator("GET", "/migrations")).json()).toMatchObject({
    runs: expect.arrayContaining([expect.objectContaining({ id, state: "done" })]),
    shards: expect.arrayContaining([expect.objectContaining({ shardId: "schema-1" })]),
  });
});

test("a failing file stops the run, reports the reason without the database's text, and leaves the schema unchanged", async () => {
  const tenant = await aTenant({ plan: "pro" });
  await release([note, { name: "9002_wrong.sql", text: "SELECT 'secret'::integer" }]);
  const failed = await finished(await start({ only: [tenant.id] }));
  expect(failed).toMatchObject({
    state: "failed",
    counts: { applied: 0, failed: 1 },
    failures: [
      { tenantId: tenant.id, outcome: "failed", sqlState: "22P02", reason: "a value that exists does not fit" },
    ],
  });
  expect(JSON.stringify(failed)).not.toContain("secret");
  expect(await versionOf(tenant.id)).not.toContain(note.name);
  expect((await callTool(tenant.apiKey, "health_check")).data).toMatchObject({ ok: true });
});

test("a run by the API names an applied file that was edited, also when no file is pending, and changes nothing", async () => {
  const tenant = await aTenant({ plan: "pro" });
  const file = { name: "9004_edited.sql", text: "ALTER TABLE products ADD COLUMN edited text" };
  await release([file]);
  expect(await finished(await start({ only: [tenant.id] }))).toMatchObject({ state: "done", counts: { applied: 1 } });
  await release([{ ...file, text: "ALTER TABLE products ADD COLUMN edited int" }]);
  for (const dryRun of [true, false]) {
    const { state, reason, plan } = await finished(await start({ only: [tenant.id], dryRun }));
    expect({ state, plan }).toEqual({ state: "failed", plan: null });
    expect(reason).toBe(
      "Nothing was done. schema shard schema-1, 1 tenants' schemas: app/9004_edited.sql has changed since it was applied: undo the change and write a new migration.",
    );
  }
});

test("a second start names the running run, and that run can be stopped", async () => {
  const tenants = await Promise.all([1, 2, 3].map(() => aTenant({ plan: "pro" })));
  const only = tenants.map(({ id }) => id);
  await release([{ name: "9001_slow.sql", text: "SELECT pg_sleep(1)" }]);
  const id = await start({ only, concurrency: 1 });
  const second = await operator("POST", "/migrations", {});
  expect(second.status).toBe(409);
  expect(await second.json()).toMatchObject({
    code: "conflict",
    detail: expect.stringContaining(`/admin/api/migrations/${id}`),
  });
  await until(async () => (await report(id)).counts["applied"] === 1, "one schema is done");
  expect((await operator("POST", `/migrations/${id}/stop`)).status).toBe(202);
  const stopped = await finished(id);
  expect(stopped).toMatchObject({ state: "stopped", reason: "the operator stopped it" });
  expect(stopped.counts["applied"]).toBeLessThan(3);
  expect((await operator("POST", `/migrations/${id}/stop`)).status).toBe(409);
  // A new run migrates the remaining schemas.
  const rest = await finished(await start({ only }));
  expect((stopped.counts["applied"] ?? 0) + (rest.counts["applied"] ?? 0) + (rest.counts["current"] ?? 0)).toBe(3);
});

test("the sweep resumes a run whose Workflow died", async () => {
  const tenant = await aTenant({ plan: "pro" });
  await release([note]);
  // A runtime that is killed right after the start leaves a run without a runner.
  const [run] = await controlRows<{ id: number }>(
    `INSERT INTO migration_runs (started_by, runner, options, progressed_at)
     VALUES ('a test', 'workflow', $1, now() - interval '1 minute') RETURNING id::int AS id`,
    [JSON.stringify({ only: [tenant.id] })],
  );
  await fireCron("* * * * *");
  expect(await finished(run?.id ?? 0)).toMatchObject({ state: "done", attempt: 2, counts: { applied: 1 } });
  expect(await versionOf(tenant.id)).toBe(`app/${note.name}`);
});

/** A fresh health report of the tenant. */
async function healthOf(tenantId: string): Promise<{ status: number; migrations: { ok: boolean; reason?: string } }> {
  const { monitorToken } = (await (await operator("GET", `/tenants/${tenantId}`)).json()) as { monitorToken: string };
  const response = await fetch(`${system.publicUrl}/health?tenant=${tenantId}`, {
    headers: { authorization: `Bearer ${monitorToken}` },
  });
  const { checks } = (await response.json()) as { checks: Record<string, { ok: boolean; reason?: string }> };
  return { status: response.status, migrations: checks["migrations"] ?? { ok: true } };
}

test("health names the tenants whose tables lack a migration of the program, on shared tables and in own schemas", async () => {
  const [own, shared, current] = await Promise.all([
    aTenant({ plan: "pro" }),
    aTenant({ plan: "free" }),
    aTenant({ plan: "pro" }),
  ]);
  await release([note]);
  expect(await finished(await start({ only: [current.id] }))).toMatchObject({ state: "done" });

  for (const { id } of [own, shared]) {
    expect(await healthOf(id)).toMatchObject({
      status: 503,
      migrations: { ok: false, reason: `the tenant's tables lack app/${note.name}: run npm run migrate` },
    });
  }
  expect(await healthOf(current.id)).toMatchObject({ status: 200, migrations: { ok: true } });

  const { behind } = (await (await operator("GET", "/migrations")).json()) as { behind: { tenantId: string }[] };
  expect(behind).toEqual(
    expect.arrayContaining(
      [own, shared].map(({ id }) => expect.objectContaining({ tenantId: id, lacks: [`app/${note.name}`] })),
    ),
  );
  expect(behind.map(({ tenantId }) => tenantId)).not.toContain(current.id);

  let failing: { ok: boolean; reason?: string; facts?: Record<string, unknown> } | undefined;
  await until(async () => {
    const { checks } = (await (await health()).json()) as { checks: Record<string, NonNullable<typeof failing>> };
    failing = checks["migrations"];
    return failing?.ok === false;
  }, "the cached answer of /health has expired");
  expect(failing).toMatchObject({
    reason: expect.stringContaining("npm run migrate"),
    facts: { shards: { "schema-1": expect.any(Number), "shared-1": expect.any(Number) } },
  });
});

/** Puts the tenant back into the middle of its provisioning: its placement is ready, and its attempt has ended. */
async function stopProvisioning(tenantId: string): Promise<void> {
  await controlRows(
    `UPDATE tenants SET state = 'provisioning', monitored_at = NULL, version = version + 1 WHERE id = $1`,
    [tenantId],
  );
}

test("a stopped provisioning that resumes under a newer program migrates the schema that it made before", async () => {
  const tenant = await aTenant({ plan: "pro" });
  await stopProvisioning(tenant.id);
  await release([note]);
  await fireCron("* * * * *");
  await until(async () => (await status(tenant.id)).state === "active", "the tenant is active");
  expect(await versionOf(tenant.id)).toBe(`app/${note.name}`);
  expect(await healthOf(tenant.id)).toMatchObject({ migrations: { ok: true } });
});

test("a stopped provisioning on shared tables resumes only once they have the program's migrations", async () => {
  const tenant = await aTenant({ plan: "free" });
  await stopProvisioning(tenant.id);
  await release([note]);
  await fireCron("* * * * *");
  const isolation = async () => (await status(tenant.id)).steps.find(({ name }) => name === "isolation");
  await until(async () => (await isolation())?.status === "retrying", "the shared tables are refused");
  expect(await status(tenant.id)).toMatchObject({ state: "provisioning" });
  await release([]);
  await until(async () => (await status(tenant.id)).state === "active", "the tenant is active");
});

test.each([
  [{ concurrency: 100 }, 400],
  [{ only: ["nobody-of-this-name"] }, 400],
  [{ stopAbove: "a lot" }, 400],
  [{ unknown: true }, 400],
])("the operator's API refuses to start a run with %j", async (options, expected) => {
  expect((await operator("POST", "/migrations", options)).status).toBe(expected);
});

test("only the operator can see and start runs", async () => {
  expect((await operator("GET", "/migrations", undefined, "wrong")).status).toBe(401);
  expect((await operator("GET", "/migrations/999999")).status).toBe(404);
  expect((await operator("POST", "/migrations/999999/stop")).status).toBe(404);
});
