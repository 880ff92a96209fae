// Backups and restores of one tenant in every tier. A backup holds one moment although the tenant writes. A restore checks
// the whole file first, replaces all rows in one transaction, and can be undone.
import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import {
  type Backup,
  type Footer,
  backUp,
  download,
  fileOf,
  finished,
  generous,
  nowAt,
  restore,
  restores,
  rowsOfFile,
  run,
  tiers,
} from "../support/backups.ts";
import {
  type TestTenant,
  aTenant,
  callTool,
  controlRows,
  databaseFaults,
  endObject,
  fireCron,
  operator,
  rowsOf,
  setClock,
  status,
  system,
  until,
} from "../support/flow.ts";

const awkward = `INSERT INTO settings (key, value) VALUES ('null', 'null'), ('text', '"a\\n\\"b\\u00e9\\u2028"'), ('number', '12345678901234567890.1230')`;

test.each(tiers)(
  "an export on $strategy under load contains each transaction as a whole or not at all",
  async (tier) => {
    const tenant = await aTenant({ ...tier, ...generous });
    await run(
      tenant,
      `INSERT INTO products (id, name, description, price_cents, stock) SELECT 'p-' || n, 'P', repeat('x', 100), n, 100 FROM generate_series(1, 6000) n`,
    );
    const stop = new AbortController();
    let written = 0;
    const agents = Array.from({ length: 3 }, async (_, agent) => {
      for (let n = 0; !stop.signal.aborted; n += 1, written += 1) {
        // Moves stock from one product to another, adds a pair of products, and deletes an older pair.
        const [from, to] = [1 + Math.floor(Math.random() * 6000), 1 + Math.floor(Math.random() * 6000)];
        await run(
          tenant,
          `UPDATE products SET stock = stock - 1 WHERE id = 'p-${from}'`,
          `UPDATE products SET stock = stock + 1 WHERE id = 'p-${to}'`,
          `INSERT INTO products (id, name, price_cents) VALUES ('a-${agent}-${n}', 'Pair', 1), ('z-${agent}-${n}', 'Pair', 1)`,
          `DELETE FROM products WHERE id IN ('a-${agent}-${n - 5}', 'z-${agent}-${n - 5}')`,
        );
      }
    });
    await until(async () => written > 5, "some writes");
    const files = [await fileOf(await download(tenant)), await fileOf(await download(tenant))];
    const backup = await backUp(tenant);
    files.push(await fileOf(await operator("GET", `/tenants/${tenant.id}/backups/${backup.name}`)));
    stop.abort();
    await Promise.all(agents);
    for (const file of files) {
      const products = rowsOfFile(file).filter(([table]) => table === "products");
      const stock = products.filter(([, [id]]) => id?.startsWith("p-")).map(([, cells]) => Number(cells[5]));
      expect(stock.length).toBe(6000);
      expect(stock.reduce((sum, each) => sum + each)).toBe(600_000);
      const pairs = products.map(([, [id]]) => id ?? "").filter((id) => /^[az]-\d/.test(id));
      expect(pairs.filter((id) => id.startsWith("a-")).map((id) => id.slice(1))).toEqual(
        pairs.filter((id) => id.startsWith("z-")).map((id) => id.slice(1)),
      );
      expect(file.header).toMatchObject({ tenant: tenant.id, strategy: tier.strategy });
    }
    expect(backup).toMatchObject({ rows: files[2]?.footer.rows, sha256: files[2]?.footer.sha256 });
    expect(backup.sizeBytes).toBeGreaterThan(600_000);
  },
);

test.each(tiers)("a restore on $strategy brings lost rows back, and can be undone", async (tier) => {
  const tenant = await aTenant({ ...tier, ...generous });
  await run(tenant, awkward);
  await callTool(tenant.apiKey, "write_document", { path: "notes/é.md", text: "kept\n\u0000\"'\u2028" });
  const backup = await backUp(tenant);
  const before = await fileOf(await download(tenant));
  expect(before.footer.tables).toEqual(backup.tables);

  await run(
    tenant,
    `DELETE FROM products WHERE id < 'm'`,
    `UPDATE settings SET value = '"wrecked"'`,
    `INSERT INTO products (id, name, price_cents) VALUES ('new', 'New', 1)`,
  );
  await callTool(tenant.apiKey, "delete_document", { path: "notes/é.md" });
  await callTool(tenant.apiKey, "write_document", { path: "later.md", text: "later" });
  const wrecked = await fileOf(await download(tenant));

  const restored = await restore(tenant, { backup: backup.name });
  expect(restored).toMatchObject({ state: "done", error: null, rows: backup.rows });
  const after = await fileOf(await download(tenant));
  expect(after.footer.tables).toEqual(before.footer.tables);
  const document = await callTool(tenant.apiKey, "read_document", { path: "notes/é.md" });
  expect(document.data?.["text"] ?? document.text).toContain("kept\n");

  // The tenant's tools work, and two ways lead back to the rows before the restore.
  await run(tenant, `UPDATE products SET stock = 7 WHERE id = 'mug-steel'`);
  const safety = await operator("GET", `/tenants/${tenant.id}/backups/${restored.safetyBackup}`);
  expect((await fileOf(safety)).footer.tables).toEqual(wrecked.footer.tables);
  expect(await restore(tenant, { at: restored.undoAt })).toMatchObject({ state: "done", error: null });
  expect((await fileOf(await download(tenant))).footer.tables).toEqual(wrecked.footer.tables);
});

test.each(tiers)("a tenant on $strategy is restored to three instants of a random history", async (tier) => {
  const tenant = await aTenant({ ...tier, ...generous });
  const recorded: { at: string; tables: Footer["tables"] }[] = [];
  for (let n = 0; n < 24; n += 1) {
    const some = `'r' || (random() * 20)::int`;
    await run(
      tenant,
      `INSERT INTO products (id, name, price_cents) SELECT ${some}, md5(random()::text), 1 FROM generate_series(1, 3) ON CONFLICT DO NOTHING`,
      n % 3 === 0
        ? `DELETE FROM products WHERE id = ${some}`
        : `UPDATE products SET id = 'u' || md5(random()::text) WHERE id = ${some}`,
      `UPDATE settings SET value = to_jsonb(random()) WHERE key = 'alert_threshold'`,
    );
    if (n % 8 === 5) {
      const { footer } = await fileOf(await download(tenant));
      recorded.push({ at: await nowAt(tenant), tables: footer.tables });
    }
  }
  // In any order: the change log records a restore like any other change.
  for (const { at, tables } of [recorded[1], recorded[0], recorded[2]].filter((each) => each !== undefined)) {
    const restored = await restore(tenant, { at });
    expect(restored).toMatchObject({ state: "done", error: null });
    expect((await fileOf(await download(tenant))).footer.tables).toEqual(tables);
  }
  const early = await operator("POST", `/tenants/${tenant.id}/restore`, { at: "2020-01-01T00:00:00Z" });
  expect(early.status).toBe(400);
  expect(((await early.json()) as { detail: string }).detail).toMatch(/log of changes starts at 20/);
});

test("a backup and a point in time are restored into new tenants in other tiers", async () => {
  const tenant = await aTenant({ plan: "starter", strategy: "shared", ...generous });
  await run(tenant, awkward, `DELETE FROM products WHERE id < 'k'`);
  await callTool(tenant.apiKey, "write_document", { path: "a.md", text: "a document" });
  const at = await nowAt(tenant);
  const backup = await backUp(tenant);
  await run(tenant, `DELETE FROM products`);
  const cases = [
    { request: { backup: backup.name }, plan: "pro", documents: 1 },
    { request: { at }, plan: "free", documents: 0 },
  ];
  for (const { request, plan, documents } of cases) {
    const { tenantId, ...restored } = await restore(tenant, { ...request, into: { name: "A copy", plan } });
    expect(restored).toMatchObject({ state: "done", error: null, safetyBackup: null });
    const file = await fileOf(await operator("GET", `/tenants/${tenantId}/export`));
    expect(file.header).toMatchObject({ tenant: tenantId, strategy: plan === "pro" ? "schema" : "shared" });
    expect(file.footer.tables).toEqual(backup.tables);
    expect(file.footer.documents.lines).toBe(documents);
    expect((await status(tenantId)).state).toBe("active");
  }
});

test("a damaged file, a cut-off file and another tenant's file are refused, and nothing changes", async () => {
  const [tenant, other] = await Promise.all([aTenant(generous), aTenant(generous)]);
  const backup = await backUp(tenant);
  const whole = await (await operator("GET", `/tenants/${tenant.id}/backups/${backup.name}`)).text();
  const put = async (owner: TestTenant, name: string, body: string): Promise<void> => {
    const response = await fetch(`${system.publicUrl}/admin/api/tenants/${owner.id}/backups/${name}`, {
      method: "PUT",
      headers: { authorization: `Bearer ${system.operatorToken}` },
      body,
    });
    expect(response.status, await response.text()).toBe(201);
  };
  const lines = whole.trimEnd().split("\n");
  const cases: [string, string, RegExp][] = [
    ["changed", whole.replace("Oak desk", "Oak dish"), /rows of table products have changed/],
    ["lacking", lines.toSpliced(3, 1).join("\n"), /rows instead of/],
    ["cut-off", lines.slice(0, -1).join("\n"), /cut off/],
    ["cut-in-a-line", whole.slice(0, -20), /not JSON/],
    ["headless", lines.slice(1).join("\n"), /first line must be the header/],
    ["longer", `${whole}["products",[]]\n`, /line follows the footer/],
    ["newer", whole.replace('{"name":"stock"', '{"name":"shelf"'), /lack column products.shelf/],
  ];
  const before = await fileOf(await download(tenant));
  for (const [name, body, why] of cases) {
    await put(tenant, name, body);
    const refused = await restore(tenant, { backup: name });
    expect(refused, name).toMatchObject({ state: "failed" });
    expect(refused.error).toMatch(why);
  }
  await put(other, "foreign", whole);
  expect((await restore(other, { backup: "foreign" })).error).toMatch(/belongs to tenant/);
  expect((await operator("POST", `/tenants/${tenant.id}/restore`, { backup: "none" })).status).toBe(404);
  expect((await fileOf(await download(tenant))).footer.tables).toEqual(before.footer.tables);
});

test("a restore of a file with an older schema fills missing columns with defaults", async () => {
  const tenant = await aTenant(generous);
  const backup = await backUp(tenant);
  const text = await (await operator("GET", `/tenants/${tenant.id}/backups/${backup.name}`)).text();
  // As if a later migration had added `stock`, which has a default.
  const [header = "", ...rest] = text.trimEnd().split("\n");
  const older = [
    header.replace('{"name":"stock","type":"integer"},', ""),
    ...rest.slice(0, -1).map((line) => {
      const [table, cells] = JSON.parse(line) as [string, string[]];
      return JSON.stringify(table === "products" ? [table, cells.toSpliced(5, 1)] : [table, cells]);
    }),
  ].map((line) => `${line}\n`);
  const sha = (which: string[]) => createHash("sha256").update(which.join("")).digest("hex");
  const tables = Object.fromEntries(
    Object.keys(backup.tables).map((table) => {
      const of = older.filter((line) => line.startsWith(`["${table}",`));
      return [table, { lines: of.length, sha256: sha(of) }];
    }),
  );
  const end = { tables, documents: { lines: 0, sha256: sha([]) }, rows: backup.rows, sha256: sha(older) };
  const put = await fetch(`${system.publicUrl}/admin/api/tenants/${tenant.id}/backups/older`, {
    method: "PUT",
    headers: { authorization: `Bearer ${system.operatorToken}` },
    body: `${older.join("")}${JSON.stringify({ end })}\n`,
  });
  expect(put.status).toBe(201);
  await run(tenant, `DELETE FROM products WHERE id = 'desk-oak'`);
  expect(await restore(tenant, { backup: "older" })).toMatchObject({ state: "done", error: null });
  const [rows] = await run(tenant, `SELECT id, stock FROM products WHERE id IN ('desk-oak', 'mug-steel') ORDER BY id`);
  expect(rows).toEqual([
    { id: "desk-oak", stock: 0 }, // inserted with the default
    { id: "mug-steel", stock: 300 }, // kept its value
  ]);
});

test("a suspended tenant exports its data with a tenant:admin key, and a removed tenant cannot", async () => {
  const tenant = await aTenant(generous);
  const scoped = async (scopes: string[]): Promise<string> => {
    const made = await operator("POST", `/tenants/${tenant.id}/keys`, { name: "admin", scopes });
    return ((await made.json()) as { apiKey: string }).apiKey;
  };
  const admin = await scoped(["tenant:admin"]);
  const asAdmin = (token: string, id = tenant.id) =>
    fetch(`${system.publicUrl}/api/tenants/${id}/export`, { headers: { authorization: `Bearer ${token}` } });
  expect((await operator("POST", `/tenants/${tenant.id}/suspend`)).status).toBe(200);
  expect((await callTool(tenant.apiKey, "health_check")).refusal?.code).toBe("tenant_suspended");
  expect((await fileOf(await asAdmin(admin))).footer.rows).toBeGreaterThan(10);
  expect((await asAdmin(tenant.apiKey)).status).toBe(403);
  expect((await asAdmin(admin, (await aTenant()).id)).status).toBe(404);
  expect((await backUp(tenant)).rows).toBeGreaterThan(10);
  const [key] = await controlRows<{ id: string }>(
    `SELECT id FROM api_keys WHERE tenant_id = $1 AND 'tenant:admin' = ANY (scopes)`,
    [tenant.id],
  );
  await operator("DELETE", `/tenants/${tenant.id}/keys/${key?.id}`);
  expect((await asAdmin(admin)).status).toBe(401);
  await controlRows(`UPDATE tenants SET state = 'gone', version = version + 1 WHERE id = $1`, [tenant.id]);
  await setClock(tenant.id, 6 * 60_000); // then the object's copy of the configuration is too old
  expect((await download(tenant)).status).toBe(403);
  expect((await operator("POST", `/tenants/${tenant.id}/backups`, {})).status).toBe(409);
});

test("a backup of many parts and its restore complete although the object dies repeatedly", async () => {
  const tenant = await aTenant({ plan: "pro", ...generous });
  for (let n = 0; n < 6; n += 1) {
    await run(
      tenant,
      `INSERT INTO products (id, name, description, price_cents) SELECT 'big-${n}-' || n, 'Big', repeat(md5(n::text), 12), n FROM generate_series(1, 5000) n`,
    );
  }
  const untilDone = async (over: () => Promise<boolean>): Promise<void> => {
    for (let n = 0; !(await over()); n += 1) {
      if (n < 3) await endObject(tenant.id);
      await new Promise((resolve) => setTimeout(resolve, 150 + n * 200));
      if (n > 60) throw new Error("the job does not end");
    }
  };
  const asked = (await (await operator("POST", `/tenants/${tenant.id}/backups`, {})).json()) as { name: string };
  const listed = async (): Promise<Backup | undefined> =>
    ((await (await operator("GET", `/tenants/${tenant.id}/backups`)).json()) as { backups: Backup[] }).backups.find(
      ({ name }) => name === asked.name,
    );
  await untilDone(async () => (await listed())?.state !== "running");
  const backup = await finished(tenant, asked.name);
  expect(backup.sizeBytes).toBeGreaterThan(10_000_000); // more than two parts
  const file = await fileOf(await operator("GET", `/tenants/${tenant.id}/backups/${backup.name}`));
  expect(file.footer.tables).toEqual((await fileOf(await download(tenant))).footer.tables);

  await run(tenant, `DELETE FROM products WHERE id > 'big-2'`, `UPDATE products SET stock = 1`);
  const started = await operator("POST", `/tenants/${tenant.id}/restore`, { backup: backup.name });
  expect(started.status).toBe(202);
  await untilDone(async () => (await restores(tenant.id))[0]?.state !== "running");
  expect((await restores(tenant.id))[0]).toMatchObject({ state: "done", error: null, rows: backup.rows });
  expect((await fileOf(await download(tenant))).footer.tables).toEqual(backup.tables);
});

test("rows are restored once although the answer is lost, and later writes stay", async () => {
  const tenant = await aTenant(generous);
  const backup = await backUp(tenant);
  const stop = new AbortController();
  let written = 0;
  const writing = (async () => {
    for (; !stop.signal.aborted; written += 1)
      await run(tenant, `INSERT INTO products (id, name, price_cents) VALUES ('w-${written}', 'Written', 1)`);
  })();
  await until(async () => written > 3, "some writes");
  await databaseFaults([
    { kind: "lose-after", sql: "tollgate.put_back", times: 1 },
    { kind: "lose-after", sql: "tollgate.staged", probability: 0.3 },
    { kind: "refuse-before", sql: "tollgate.changes", probability: 0.3 },
  ]);
  try {
    expect(await restore(tenant, { backup: backup.name })).toMatchObject({ state: "done", error: null });
  } finally {
    await databaseFaults([]);
  }
  stop.abort();
  await writing;
  const [left] = await run(tenant, `SELECT substr(id, 3)::int AS n FROM products WHERE id LIKE 'w-%' ORDER BY n`);
  const numbers = (left ?? []).map(({ n }) => Number(n));
  expect(numbers.length).toBeGreaterThan(0);
  expect(numbers).toEqual(Array.from({ length: numbers.length }, (_, n) => written - numbers.length + n));
  const [undone] = await rowsOf<{ transactions: number }>(
    system.sharedOwnerUrl,
    `SELECT count(DISTINCT xid)::int AS transactions FROM tollgate.changes WHERE tenant_id = $1 AND before ->> 'id' LIKE 'w-%'`,
    [tenant.id],
  );
  expect(undone?.transactions).toBe(1);
});

test("a backup and a restore are correct although the tenant moves at the same time", async () => {
  const tenant = await aTenant({ plan: "starter", ...generous });
  await run(
    tenant,
    `INSERT INTO products (id, name, description, price_cents) SELECT 'm-' || n, 'M', repeat('x', 200), n FROM generate_series(1, 20000) n`,
  );
  const backup = await backUp(tenant);
  const before = await nowAt(tenant);
  const moveTo = async (strategy: string): Promise<void> => {
    expect((await operator("POST", `/tenants/${tenant.id}/move`, { strategy })).status).toBe(202);
    const moved = async (): Promise<boolean> => {
      const { moves } = (await (await operator("GET", `/tenants/${tenant.id}/move`)).json()) as {
        moves: { state: string }[];
      };
      return moves[0]?.state === "moved";
    };
    await until(moved, `the move to ${strategy}`);
    expect((await operator("POST", `/tenants/${tenant.id}/move/confirm`)).status).toBe(200);
  };
  const [, second] = await Promise.all([moveTo("schema"), backUp(tenant)]);
  expect(second.tables).toEqual(backup.tables);
  await fileOf(await operator("GET", `/tenants/${tenant.id}/backups/${second.name}`));
  // The change log of the old placement was dropped with it.
  expect((await operator("POST", `/tenants/${tenant.id}/restore`, { at: before })).status).toBe(400);

  await run(tenant, `DELETE FROM products WHERE id < 'm-5'`, `UPDATE products SET stock = 1`);
  const [, restored] = await Promise.all([moveTo("shared"), restore(tenant, { backup: backup.name })]);
  expect(restored).toMatchObject({ state: "done", error: null });
  const after = await fileOf(await download(tenant));
  expect(after.header).toMatchObject({ strategy: "shared" });
  expect(after.footer.tables).toEqual(backup.tables);
});

test("the sweep resumes a silent job and prunes the change log", async () => {
  const tenant = await aTenant(generous);
  await run(tenant, `UPDATE products SET stock = 1`);
  const [job] = await controlRows<{ id: number }>(
    `INSERT INTO jobs (tenant_id, kind, request, progressed_at) VALUES ($1, 'backup', $2, now() - interval '1 hour') RETURNING id::int AS id`,
    [tenant.id, JSON.stringify({ key: `backups/${tenant.id}/silent.ndjson` })],
  );
  expect(job).toBeDefined();
  await controlRows(`UPDATE shards SET pruned_at = now() - interval '2 days' WHERE id = 'shared-1'`);
  await fireCron("* * * * *");
  expect((await finished(tenant, "silent.ndjson")).rows).toBeGreaterThan(10);
  const [shard] = await controlRows<{ fresh: boolean }>(
    `SELECT pruned_at > now() - interval '1 minute' AS fresh FROM shards WHERE id = 'shared-1'`,
  );
  expect(shard?.fresh).toBe(true);
});
