// Random tenants with random rows, and random statements against each other, combined from verbs, table names, conditions
// and wrappings. Afterwards no row of another tenant has changed, byte for byte, and no answer or error contains a value of
// another tenant. To prove that the search is effective, the same search with a wall down must find a crossing statement,
// and most statements must be valid SQL.
import fc from "fast-check";
import { DatabaseError } from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ownName } from "../../src/core/tenant/placement.ts";
import { type Strategy, strategies } from "../../src/core/plans/plans.ts";
import { TenantId, tenantIdPattern } from "../../src/core/tenant/tenant.ts";
import { aContext, type Cluster, type Front, startCluster } from "../support/shard.ts";
import { ownWalls, sharedWalls, takeDown, type Wall } from "../support/walls.ts";
import { Line, type WireForm } from "./line.ts";

const RUNS = 150;
/** With a wall down, one crossing statement is enough. */
const RUNS_TO_BREACH = 400;
/** SQLSTATEs of invalid statements. */
const SYNTAX_ERROR = "42601";
const TENANTS: Record<Strategy, number> = { shared: 6, schema: 5, database: 3 };

interface Tenant {
  id: TenantId;
  database: string;
  login: string;
  schema: string;
  /** A text in every row of the tenant, and nowhere else. */
  marker: string;
  line: Line;
}

const tenantIds = (count: number): TenantId[] => {
  const id = fc.stringMatching(tenantIdPattern).map((text) => TenantId.parse(text));
  return fc.sample(fc.uniqueArray(id, { minLength: count, maxLength: count }), 1).flat();
};

let cluster: Cluster;
const SHARED = "properties_shared";
let placements = 100;

async function aTenant(strategy: Strategy, id: TenantId): Promise<Tenant> {
  const marker = `marker-${id}-${Math.random().toString(36).slice(2)}`;
  const placementId = placements++;
  const own = ownName(placementId);
  const place =
    strategy === "shared"
      ? { database: SHARED, login: "tollgate_app_a", schema: "public" }
      : {
          database: strategy === "schema" ? "properties_schema" : `properties_${placementId}`,
          login: own,
          schema: own,
        };
  if (strategy !== "shared") {
    const branch = await cluster.createBranch(place.database);
    await branch.createTenant({ placementId, tenantId: id, password: own });
  }
  return { id, marker, ...place, line: new Line(cluster.urlOf(place.login, place.database)) };
}

async function tenantsOf(strategy: Strategy): Promise<Tenant[]> {
  if (strategy === "shared") await cluster.createShared(SHARED);
  const tenants: Tenant[] = [];
  for (const id of tenantIds(TENANTS[strategy])) tenants.push(await aTenant(strategy, id));
  return tenants;
}

const world: Record<Strategy, Tenant[]> = { shared: [], schema: [], database: [] };
beforeAll(async () => {
  cluster = await startCluster();
  for (const strategy of strategies) world[strategy] = await tenantsOf(strategy);
});
afterAll(async () => {
  await Promise.all(Object.values(world).flatMap((tenants) => tenants.map(({ line }) => line.end())));
  await cluster[Symbol.asyncDispose]();
});

// ---- rows

const word = fc.string({ unit: "grapheme", maxLength: 12 }).filter((text) => !text.includes("\0"));
const product = fc.record({
  name: word,
  description: word,
  category: fc.constantFrom("", "lamps", "desks"),
  price_cents: fc.nat(1_000),
  stock: fc.nat(3),
});
const someRows = fc.array(product, { minLength: 1, maxLength: 4 });

async function seed(tenant: Tenant, rows: readonly object[]): Promise<void> {
  const table = `${tenant.schema}.products`;
  const marked = rows.map((row, i) => ({
    ...row,
    tenant_id: tenant.id,
    id: `p${i}`,
    name: `${tenant.marker} ${"name" in row ? String(row.name) : ""}`,
    updated_at: "2026-01-01",
  }));
  await cluster.superuser(tenant.database, "SET session_replication_role = replica");
  await cluster.superuser(tenant.database, `DELETE FROM ${table} WHERE tenant_id = $1`, [tenant.id]);
  await cluster.superuser(
    tenant.database,
    `INSERT INTO ${table} SELECT * FROM jsonb_populate_recordset(NULL::${table}, $1)`,
    [JSON.stringify(marked)],
  );
}

async function rowsOf(tenant: Tenant): Promise<string> {
  const mine = tenant.database === SHARED ? "tenant_id = $1" : "$1 <> ''"; // otherwise every row of its schema
  const sql = `SELECT string_agg(p::text, E'\\n' ORDER BY id) AS rows FROM ${tenant.schema}.products p WHERE ${mine}`;
  const [row] = await cluster.superuser(tenant.database, sql, [tenant.id]);
  return String(row?.["rows"]);
}

async function allRowsOf(tenants: readonly Tenant[]): Promise<string[]> {
  const all: string[] = [];
  for (const tenant of tenants) all.push(await rowsOf(tenant));
  return all;
}

// ---- statements

interface Words {
  verb: (table: string, condition: string) => string;
  naming: (schema: string) => string;
  condition: (tenant: string, table: string) => string;
  wrapping: (sql: string, table: string) => readonly string[];
  noise: (sql: string) => string;
}

const columns = "(tenant_id, id, name, description, category, price_cents, stock, updated_at)";
const values = "'r' || (random() * 1e9)::int, 'planted', '', '', 1, 1, '2026-01-01'::timestamptz";
const words: fc.Arbitrary<Words> = fc.record({
  verb: fc.constantFrom<Words["verb"][]>(
    (table, condition) => `SELECT * FROM ${table} AS p WHERE ${condition}`,
    (table, condition) => `SELECT * FROM ${table} AS p WHERE ${condition}`,
    (table, condition) => `SELECT max(name), count(*) FROM ${table} AS p WHERE ${condition}`,
    (table, condition) => `SELECT p::text, to_jsonb(p) FROM ${table} AS p WHERE ${condition}`,
    (table, condition) => `SELECT name::int FROM ${table} AS p WHERE ${condition}`,
    (table, condition) => `SELECT * FROM ${table} AS p WHERE ${condition} FOR UPDATE`,
    (table, condition) =>
      `SELECT v.* FROM products m LEFT JOIN ${table} AS p ON true, LATERAL (SELECT p.*) v WHERE ${condition}`,
    (table, condition) =>
      `UPDATE ${table} AS p SET stock = p.stock + 1, name = p.name || '!' WHERE ${condition} RETURNING *`,
    (table, condition) => `UPDATE ${table} AS p SET tenant_id = 'x', id = p.id || 'x' WHERE ${condition} RETURNING *`,
    (table, condition) => `DELETE FROM ${table} AS p WHERE ${condition} RETURNING *`,
    (table, condition) =>
      `INSERT INTO ${table} ${columns} SELECT tenant_id, ${values} FROM ${table} AS p WHERE ${condition} LIMIT 1 RETURNING *`,
    (table, condition) =>
      `INSERT INTO products ${columns} SELECT tollgate.current_tenant(), ${values} FROM ${table} AS p WHERE ${condition} LIMIT 1 RETURNING *`,
    (table, condition) => `INSERT INTO ${table} AS p SELECT * FROM ${table} AS p WHERE ${condition}
      ON CONFLICT (tenant_id, id) DO UPDATE SET stock = 0 RETURNING *`,
    (table, condition) => `MERGE INTO ${table} AS p USING (VALUES (1)) AS v (n) ON ${condition}
      WHEN MATCHED AND p.stock > 1 THEN DELETE WHEN MATCHED THEN UPDATE SET stock = 9 RETURNING p.*`,
    (table, condition) => `COPY (SELECT * FROM ${table} AS p WHERE ${condition}) TO STDOUT`,
    (table, condition) => `EXPLAIN (ANALYZE, VERBOSE) SELECT * FROM ${table} AS p WHERE ${condition}`,
  ),
  naming: fc.constantFrom<Words["naming"][]>(
    (schema) => `${schema}.products`,
    (schema) => `${schema}.products`,
    (schema) => `"${schema}"."products"`,
    (schema) => `${schema.toUpperCase()}.PRODUCTS`,
    (schema) => `${schema}.U&"pr\\006fducts"`,
    (schema) => `ONLY ${schema}.products`,
    () => "products",
  ),
  condition: fc.constantFrom<Words["condition"][]>(
    () => "true",
    (tenant) => `p.tenant_id = '${tenant}'`,
    (tenant) => `p.tenant_id = '${tenant}' AND p.id = 'p0'`,
    () => "p.tenant_id <> tollgate.current_tenant()",
    () => "p.stock >= 0 OR p.name LIKE '%marker%'",
    () => "1 / (p.price_cents + 1) >= 0",
    (_, table) => `EXISTS (SELECT FROM ${table} AS x WHERE x.id = p.id)`,
    (_, table) => `p.id IN (SELECT id FROM ${table} WHERE stock < 9)`,
    (tenant) => `CASE WHEN p.tenant_id = '${tenant}' THEN p.name::int > 0 ELSE true END`,
  ),
  wrapping: fc.constantFrom<Words["wrapping"][]>(
    (sql) => [sql],
    (sql) => [sql],
    (sql) => [`WITH w AS (${sql}) SELECT * FROM w`],
    (sql) => [`WITH w AS MATERIALIZED (${sql}) SELECT w::text FROM w`],
    (sql) => [`SELECT query_to_xml($q$${sql}$q$, true, false, '')`],
    (sql) => [`SELECT * FROM ts_stat($q$SELECT to_tsvector('simple', w::text) FROM (${sql}) w$q$)`],
    (sql) => [`SELECT 1; ${sql}`],
    (sql) => [`COMMIT; ${sql}`],
    (sql) => [`SAVEPOINT s; SET LOCAL row_security = off; ROLLBACK TO s; ${sql}`],
    (sql) => ["PREPARE w AS " + sql, "EXECUTE w"],
    (sql) => [`DECLARE w CURSOR FOR ${sql}`, "FETCH ALL FROM w"],
    (sql, table) => [`SET LOCAL search_path = ${table.split(".")[0] ?? "public"}, pg_catalog`, sql],
    ...["row_security', 'off", "role', 'none", "tollgate.context', '", "search_path', 'pg_catalog"].map(
      (setting) => (sql: string) => [`SELECT set_config('${setting}', true)`, sql],
    ),
  ),
  noise: fc.constantFrom<Words["noise"][]>(
    (sql) => sql,
    (sql) => sql,
    (sql) => sql.replaceAll(" FROM ", " /* FROM x; -- */ FROM "),
    (sql) => sql.replaceAll(" WHERE ", " -- ' WHERE false\n WHERE "),
    (sql) => `/* $q$ */ ${sql} /* ' /* " */ */`,
    (sql) => `;${sql};`,
  ),
});

interface RandomAttack {
  /** The attacker and the victim: any numbers, modulo the number of tenants. */
  from: number;
  to: number;
  form: WireForm;
  /** The attacker's own rows. */
  rows: readonly object[];
  statements: readonly Words[];
}
const attack: fc.Arbitrary<RandomAttack> = fc.record({
  from: fc.nat(),
  to: fc.nat(),
  form: fc.constantFrom("simple" as const, "simple" as const, "extended" as const),
  rows: someRows,
  statements: fc.array(words, { minLength: 1, maxLength: 3 }),
});

function textsOf(victim: Tenant, { verb, naming, condition, wrapping, noise }: Words): readonly string[] {
  const table = naming(victim.schema);
  return wrapping(verb(table, condition(victim.id, table)), table).map(noise);
}

/** Runs an attack. Returns whether it reached another tenant's rows, the last SQLSTATE, and the statements. */
async function crossing(tenants: readonly Tenant[], { from, to, form, rows, statements }: RandomAttack) {
  const attacker = tenants[from % tenants.length];
  const others = tenants.filter((tenant) => tenant !== attacker);
  const victim = others[to % others.length];
  if (attacker === undefined || victim === undefined) throw new Error("too few tenants");
  await seed(attacker, rows);
  const before = await allRowsOf(others);
  const isShared = attacker.database === SHARED;
  const enter = isShared ? await aContext({ tenantId: attacker.id, database: SHARED }) : attacker.schema;
  // The COMMIT keeps the changes, so that the comparison finds them.
  const messages = [...statements.flatMap((each) => textsOf(victim, each)), "COMMIT"];
  let told = "";
  let state = "00000";
  try {
    const entrance = `SELECT tollgate.enter('${enter}', 2000)`;
    told = JSON.stringify(await attacker.line.run({ form, entrance, messages, ofAll: true }));
  } catch (error) {
    if (!(error instanceof DatabaseError)) throw error;
    state = error.code ?? "";
    told = `${String(error)} ${JSON.stringify(error)}`;
  }
  const after = await allRowsOf(others);
  const leaked = others.find(({ marker }) => told.includes(marker));
  const changed = others.find((_, i) => before[i] !== after[i]);
  return { crossed: leaked !== undefined || changed !== undefined, state, messages };
}
/** The walls between the first and the second tenant. One is taken down. */
function wallBetween(strategy: Strategy, attacker: Tenant, victim: Tenant): Wall {
  const front: Front = {
    database: attacker.database,
    login: attacker.login,
    schema: attacker.schema,
    grantee: strategy === "shared" ? "tollgate_app" : attacker.login,
    otherRole: victim.login,
    analytics: "tollgate_analytics",
    products: `${victim.schema}.products`,
    victimSchema: victim.schema,
    secrets: "",
    link: { port: cluster.port, password: cluster.password, database: victim.database },
  };
  if (strategy === "shared") return sharedWalls(front)["row security"];
  const walls = ownWalls(front, { apart: strategy === "database" });
  return strategy === "schema" ? walls["rights on its own schema only"] : walls["no link to another database"];
}

describe.each(strategies)("in the %s tier", (strategy) => {
  test("no random statement reaches another tenant's rows", { timeout: 60_000 }, async () => {
    const tenants = world[strategy];
    for (const tenant of tenants) await seed(tenant, fc.sample(someRows, 1).flat());
    let sent = 0;
    const ends = new Map<string, number>();
    await fc.assert(
      fc.asyncProperty(attack, async (one) => {
        const { crossed, state, messages } = await crossing(tenants, one);
        sent += 1;
        ends.set(state, (ends.get(state) ?? 0) + 1);
        expect(crossed, messages.join("\n")).toBe(false);
      }),
      { numRuns: RUNS },
    );
    expect((ends.get(SYNTAX_ERROR) ?? 0) / sent, JSON.stringify([...ends])).toBeLessThan(0.6);
  });

  test("without a wall, the search finds a statement that does", { timeout: 60_000 }, async () => {
    const [attacker, victim] = world[strategy];
    if (attacker === undefined || victim === undefined) throw new Error("too few tenants");
    const superuser = (sql: string, params?: unknown[]) => cluster.superuser(attacker.database, sql, params);
    const putUp = await takeDown(superuser, wallBetween(strategy, attacker, victim));
    try {
      const found = await fc.check(
        fc.asyncProperty(
          attack,
          async (one) => !(await crossing([attacker, victim], { ...one, from: 0, to: 0 })).crossed,
        ),
        { numRuns: RUNS_TO_BREACH, endOnFailure: true },
      );
      expect(found.failed).toBe(true);
    } finally {
      await putUp();
    }
  });
});
