// Tenants with a schema and a login role of their own, through the whole system: provisioning places them, the same tools
// serve them, and database rights that no statement can bypass keep them apart.
import pg from "pg";
import { expect, test } from "vitest";
import { loginPurpose } from "../../src/core/tenant/placement.ts";
import { IV_BYTES, decrypt, encrypt, parseKeyRing } from "../../src/core/keys/encryption.ts";
import {
  aCustomer,
  aTenant,
  asSuperuser,
  callTool,
  controlRows,
  endObject,
  fireCron,
  operator,
  rowsOf,
  status,
  system,
  until,
} from "../support/flow.ts";

/** A tenant's placement in the control tables. */
async function placementOf(tenantId: string) {
  const [row] = await controlRows<{
    id: number;
    strategy: string;
    login: string | null;
    host: string;
    database: string;
  }>(
    `SELECT p.id::int AS id, s.strategy, p.login, s.host, s.database
     FROM tenants t JOIN placements p ON p.id = t.placement_id JOIN shards s ON s.id = p.shard_id WHERE t.id = $1`,
    [tenantId],
  );
  if (row === undefined) throw new Error(`${tenantId} is not placed`);
  return row;
}

test("a customer of the pro plan gets a schema and a login role of its own, and its tools work", async () => {
  const customer = await aCustomer({ plan: "pro" });
  const placement = await placementOf(customer.id);
  expect(placement.strategy).toBe("schema");
  const found = await callTool(customer.apiKey, "search_products", { query: "lamp" });
  expect(found.data?.["products"]).toHaveLength(2);
  const [role] = await rowsOf(
    system.schemaOwnerUrl,
    `SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolcanlogin FROM pg_roles WHERE rolname = $1`,
    [`tenant_${placement.id}`],
  );
  expect(role).toEqual({
    rolsuper: false,
    rolbypassrls: false,
    rolcreaterole: false,
    rolcreatedb: false,
    rolcanlogin: true,
  });
  // The stored login is encrypted and shows neither role nor password.
  expect(placement.login).toMatch(/^v1\.local\.[\w-]{16}\.[\w-]+$/);
});

test("tenants whose ids differ in one character only are separate tenants in the schema tier", async () => {
  const suffix = Math.random().toString(36).slice(2, 8);
  const ids = [`a-b${suffix}`, `a_b${suffix}`, `ab${suffix}`];
  const tenants = await Promise.all(ids.map((id) => aTenant({ id, plan: "pro" })));
  const places = await Promise.all(ids.map(placementOf));
  expect(new Set(places.map(({ id }) => id)).size).toBe(3);
  for (const { id, apiKey } of tenants) {
    expect((await callTool(apiKey, "health_check")).data).toMatchObject({ ok: true, tenant: id });
  }
});

test("a tenant's login role reaches only its own schema", async () => {
  const [mine, other] = await Promise.all([aTenant({ plan: "pro" }), aTenant({ plan: "pro" })]);
  const [own, foreign] = await Promise.all([placementOf(mine.id), placementOf(other.id)]);
  const [owner] = await rowsOf<{ password: string }>(
    system.schemaOwnerUrl,
    `SELECT 'known' AS password FROM (SELECT tollgate.create_tenant($1, $2, 'known')) AS made`,
    [`tenant_${own.id}`, mine.id],
  );
  const client = new pg.Client({
    connectionString: `postgresql://tenant_${own.id}:${owner?.password}@${own.host}/${own.database}`,
  });
  await client.connect();
  try {
    const rows = await client.query(`SELECT count(*)::int AS n FROM tenant_${own.id}.products`);
    expect(rows.rows).toEqual([{ n: 10 }]);
    for (const sql of [
      `SELECT * FROM tenant_${foreign.id}.products`,
      `INSERT INTO tenant_${foreign.id}.settings (tenant_id, key, value) VALUES ('x', 'y', '1')`,
      `SET ROLE tenant_${foreign.id}`,
      `CREATE TABLE tenant_${own.id}.mine ()`,
      `CREATE TEMPORARY TABLE mine ()`,
      `SELECT * FROM tollgate.tenants`,
      `SELECT tollgate.drop_tenant('tenant_${foreign.id}')`,
    ]) {
      await expect(client.query(sql), sql).rejects.toMatchObject({ code: "42501" });
    }
  } finally {
    await client.end();
  }
});

test("default privileges of a tenant's own role end with the next sweep, and its calls work", async () => {
  const tenant = await aTenant({ plan: "pro" });
  const { id } = await placementOf(tenant.id);
  const role = `tenant_${id}`;
  await rowsOf(
    asSuperuser(system.schemaOwnerUrl),
    `ALTER DEFAULT PRIVILEGES FOR ROLE ${role} GRANT ALL ON TABLES TO PUBLIC`,
  );
  const left = () => rowsOf(system.schemaOwnerUrl, "SELECT FROM pg_default_acl WHERE defaclrole = $1::regrole", [role]);
  expect(await left()).toHaveLength(1);
  await fireCron("* * * * *");
  expect(await left()).toEqual([]);
  await endObject(tenant.id); // the new object proves the login
  expect((await callTool(tenant.apiKey, "search_products", { query: "lamp" })).data?.["products"]).toHaveLength(2);
});

test("the operator sees a tenant's placement and the version of its schema", async () => {
  const tenant = await aTenant({ plan: "pro" });
  expect(await (await operator("GET", `/tenants/${tenant.id}`)).json()).toMatchObject({
    strategy: "schema",
    placement: {
      strategy: "schema",
      shardId: "schema-1",
      schemaVersion: "product/0001_settings.sql app/0001_products.sql",
    },
  });
});

test("a tenant of the database tier gets its own database, its progress is visible, and its tools work", async () => {
  const created = await operator("POST", "/tenants", { plan: "enterprise", name: "By contract" });
  const { id } = (await created.json()) as { id: string };
  const seen = new Set<string>();
  await until(async () => {
    const { state, steps } = await status(id);
    seen.add(steps.find(({ name }) => name === "placement")?.status ?? "");
    return state === "active";
  }, "the tenant is active");
  expect(seen).toContain("running");
  const placement = await placementOf(id);
  expect(placement).toMatchObject({ strategy: "database", database: expect.stringMatching(/^neon_/) });
  const key = (await (await operator("POST", `/tenants/${id}/keys`, { name: "test" })).json()) as { apiKey: string };
  expect((await callTool(key.apiKey, "search_products", { query: "lamp" })).data?.["products"]).toHaveLength(2);
});

test("a database whose creation fails or whose answer is lost is created once, and the tenant gets it", async () => {
  const faults = (rules: unknown[]) =>
    fetch(new URL("/_neon/faults", system.neonApiUrl), { method: "POST", body: JSON.stringify(rules) });
  await faults([
    { kind: "lose-after", method: "POST", path: "/projects", times: 1 },
    { kind: "rate-limit", times: 1 },
    { kind: "error-after", method: "GET", times: 1 },
  ]);
  const tenant = await aTenant({ plan: "enterprise" });
  await faults([]);
  expect((await callTool(tenant.apiKey, "health_check")).data).toMatchObject({ ok: true });
  const projects = await controlRows("SELECT neon_project_id FROM shards WHERE id = $1", [`database-${tenant.id}`]);
  expect(projects).toEqual([{ neon_project_id: expect.any(String) }]);
});

test("when the schema shards are nearly full, the next shard is created ahead and takes the next tenants", async () => {
  await controlRows(
    "UPDATE shards SET capacity = (SELECT count(*) + 1 FROM placements WHERE shard_id = 'schema-1' AND state <> 'dropped') WHERE id = 'schema-1'",
  );
  try {
    await aTenant({ plan: "pro" });
    await until(
      async () => (await controlRows("SELECT FROM shards WHERE id = 'schema-2' AND host IS NOT NULL")).length > 0,
      "the next shard stands",
    );
    const next = await aTenant({ plan: "pro" });
    expect((await callTool(next.apiKey, "health_check")).data).toMatchObject({ ok: true });
    const [row] = await controlRows("SELECT shard_id FROM placements WHERE tenant_id = $1", [next.id]);
    expect(row).toEqual({ shard_id: "schema-2" });
  } finally {
    await controlRows("UPDATE shards SET capacity = 400 WHERE id = 'schema-1'");
  }
});

test("the key that encrypts logins is rotated while the tenant is served", async () => {
  const tenant = await aTenant({ plan: "pro" });
  const served = async () => (await callTool(tenant.apiKey, "search_products", { query: "lamp" })).isError !== true;
  const keyOfShard = async () => {
    const [row] = await controlRows("SELECT split_part(owner_login, '.', 2) AS key FROM shards WHERE id = 'schema-1'");
    return row?.["key"];
  };
  const { id, login } = await placementOf(tenant.id);
  const purpose = loginPurpose.tenant(id);
  const decrypted = await decrypt(system.encryptionKeys, purpose, login ?? "");
  const iv = crypto.getRandomValues(new Uint8Array(IV_BYTES));
  const underOther = await encrypt(
    parseKeyRing("ENCRYPTION_KEYS", JSON.stringify(system.encryptionKeys.toReversed())),
    purpose,
    decrypted,
    iv,
  );
  await controlRows("UPDATE placements SET login = $2 WHERE id = $1", [id, underOther]);
  await controlRows("UPDATE tenants SET version = version + 1 WHERE id = $1", [tenant.id]);
  await fetch(`${system.publicUrl}/test/rotate`);
  expect(await keyOfShard()).toBe("other");
  await endObject(tenant.id);
  expect(await served()).toBe(true);

  await fireCron("* * * * *");
  expect(await keyOfShard()).toBe("local");
  expect((await placementOf(tenant.id)).login).toMatch(/^v1\.local\./);
  expect(await served()).toBe(true);
  expect(await aTenant({ plan: "pro" })).toBeDefined();
});
