// Provisioning while the program is newer than its databases.
import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { expect, test } from "vitest";
import { migrate, sharedMigrationsOf } from "../../cli/migrations/apply.ts";
import { callTool, controlRows, fireCron, operator, rowsOf, status, system, until } from "../support/flow.ts";

const later = {
  name: "9001_reminders.sql",
  text: "CREATE TABLE reminders (tenant_id text PRIMARY KEY); SELECT tollgate.isolate('reminders');",
};

/** Adds these files to the app's migrations in the Worker's bundle. */
const release = (files: (typeof later)[]) =>
  fetch(`${system.publicUrl}/test/migrations`, {
    method: "POST",
    body: JSON.stringify(files.map((file) => ({ series: "app", ...file }))),
  });

test("a new tenant waits while its shard lacks a file of the bundle, and becomes active after migrate", async () => {
  const app = await mkdtemp(join(tmpdir(), "tollgate-app-"));
  try {
    await release([later]);
    const created = await operator("POST", "/tenants", { plan: "free", name: "Ahead of its shard" });
    const { id } = (await created.json()) as { id: string };
    const isolation = async () => (await status(id)).steps.find(({ name }) => name === "isolation");
    await until(async () => (await isolation())?.status === "retrying", "the placement is refused");
    // The operator reads the reason, and the buyer does not.
    const shown = (await (await operator("GET", `/tenants/${id}`)).json()) as {
      provisioning: { attemptLog: { attempt: number; reason: string | null }[] };
    };
    expect(shown.provisioning.attemptLog[0]).toMatchObject({
      attempt: 1,
      reason: expect.stringMatching(/^isolation: .*lacks app\/9001_reminders\.sql: run npm run migrate/),
    });
    expect(JSON.stringify(await status(id))).not.toContain("9001_reminders");
    expect(await isolation()).toMatchObject({ error: expect.stringContaining("cannot be created yet") });
    expect((await status(id)).state).toBe("provisioning");
    expect(await controlRows("SELECT state FROM placements WHERE tenant_id = $1", [id])).toEqual([
      { state: "preparing" },
    ]);

    await cp(resolve("test/support/fixture-app/migrations"), join(app, "migrations"), { recursive: true });
    await writeFile(join(app, "migrations", later.name), later.text);
    expect(await migrate({ url: system.sharedOwnerUrl, series: sharedMigrationsOf(app) })).toEqual([later.name]);
    await until(async () => (await status(id)).state === "active", "the retry finds the table", 30_000);
    const key = (await (await operator("POST", `/tenants/${id}/keys`, { name: "test" })).json()) as { apiKey: string };
    expect((await callTool(key.apiKey, "health_check")).data).toMatchObject({ ok: true });
  } finally {
    await release([]);
    await rowsOf(system.sharedOwnerUrl, "DROP TABLE IF EXISTS reminders");
    await rowsOf(system.sharedOwnerUrl, "DELETE FROM schema_migrations WHERE name = $1", [later.name]);
    await rm(app, { recursive: true });
  }
});

test("a region that Neon does not have ends the provisioning with a reason, without a shard, until the operator acts", async () => {
  const created = await operator("POST", "/tenants", {
    ...{ plan: "enterprise", strategy: "database", region: "moon-1", name: "Far away" },
  });
  const { id } = (await created.json()) as { id: string };
  const shown = async () =>
    (await (await operator("GET", `/tenants/${id}`)).json()) as {
      provisioning: { error: string | null; attempts: number };
      waysBack: { request: string }[];
    };
  await until(async () => (await shown()).provisioning.error !== null, "the provisioning fails");
  const { provisioning, waysBack } = await shown();
  expect(provisioning).toMatchObject({ attempts: 1, error: expect.stringMatching(/refused .*does not try again/) });
  expect(waysBack.map(({ request }) => request)).toEqual([expect.stringContaining(`/tenants/${id}/resume`)]);
  expect(await controlRows("SELECT FROM shards WHERE region = 'moon-1'")).toEqual([]);

  // No sweep repeats it.
  await controlRows(
    "UPDATE provisioning_attempts SET started_at = now() - interval '1 day', progressed_at = now() - interval '1 day' WHERE tenant_id = $1",
    [id],
  );
  await fireCron("* * * * *");
  expect((await shown()).provisioning.attempts).toBe(1);

  // The operator corrects the region and resumes it.
  expect((await operator("PATCH", `/tenants/${id}`, { region: null })).status).toBe(200);
  expect((await operator("POST", `/tenants/${id}/resume`)).status).toBe(200);
  await until(async () => (await status(id)).state === "active", "it is active", 30_000);
});
