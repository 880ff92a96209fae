// Drizzle on `ctx.db`: the same tables and queries in every tier, one round trip each.
import { and, asc, count, desc, eq, gt, like, sql } from "drizzle-orm";
import { integer, jsonb, pgTable, primaryKey, text, timestamp } from "drizzle-orm/pg-core";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { openSession } from "../../src/tenant-db/session.ts";
import { createSessionPool } from "../../src/tenant-db/session-pool.ts";
import { contextEntrance, createTenantDb, ownSchemaEntrance } from "../../src/tenant-db/tenant-db.ts";
import { ownName } from "../../src/core/tenant/placement.ts";
import { drizzleOn } from "../../src/tools/drizzle.ts";
import { acme, type Cluster, contextKeys, globex, startCluster } from "../support/shard.ts";

const tenantId = () =>
  text("tenant_id")
    .notNull()
    .default(sql`tollgate.current_tenant()`);
const products = pgTable(
  "products",
  {
    tenantId: tenantId(),
    id: text("id").notNull(),
    name: text("name").notNull(),
    priceCents: integer("price_cents").notNull(),
    stock: integer("stock").notNull().default(0),
    updatedAt: timestamp("updated_at", { withTimezone: true }).notNull().defaultNow(),
  },
  (table) => [primaryKey({ columns: [table.tenantId, table.id] })],
);
const settings = pgTable(
  "settings",
  {
    tenantId: tenantId(),
    key: text("key").notNull(),
    value: jsonb("value").notNull(),
    updatedAt: timestamp("updated_at", { withTimezone: true }).notNull().defaultNow(),
  },
  (table) => [primaryKey({ columns: [table.tenantId, table.key] })],
);

let cluster: Cluster;
beforeAll(async () => {
  cluster = await startCluster();
  await cluster.createShared("tier_shared");
  for (const name of ["tier_schema", "tier_database"]) {
    const branch = await cluster.createBranch(name);
    for (const [index, tenant] of (name === "tier_schema" ? [globex, acme] : [acme]).entries()) {
      const placementId = index + 1 + (name === "tier_schema" ? 0 : 10);
      await branch.createTenant({ placementId, tenantId: tenant, password: ownName(placementId) });
    }
  }
});
afterAll(() => cluster[Symbol.asyncDispose]());

const tiers = {
  shared: { login: "tollgate_app_a", database: "tier_shared" },
  schema: { login: ownName(2), database: "tier_schema" },
  database: { login: ownName(11), database: "tier_database" },
} as const;

describe.each(Object.keys(tiers) as (keyof typeof tiers)[])("on the %s tier", (tier) => {
  const { login, database } = tiers[tier];
  let trips = 0;

  function open() {
    const url = cluster.urlOf(login, database);
    const entrance =
      tier === "shared"
        ? contextEntrance({ contextKeys, tenantId: acme, database, now: Date.now })
        : ownSchemaEntrance(login);
    const sessions = createSessionPool({
      open: () => openSession({ url, wsProxy: `127.0.0.1:${cluster.proxy.port}/v2` }),
      limits: { maxSessions: 1, idleCloseMs: 1_000, maxWaiting: 1, waitWithinMs: 1_000 },
      lease: { take: async () => true, giveBack: () => undefined },
      now: Date.now,
    });
    const db = createTenantDb({
      ...{ url, fetchEndpoint: cluster.fetchEndpoint, entrance, sessions, now: Date.now },
      onRoundTrip: () => (trips += 1),
    });
    return { db, [Symbol.asyncDispose]: () => sessions.drain() };
  }

  /** The result of a query that took one round trip. */
  async function inOneTrip<Result>(query: PromiseLike<Result>): Promise<Result> {
    trips = 0;
    const result = await query;
    expect(trips).toBe(1);
    return result;
  }

  beforeEach(async () => {
    await using opened = open();
    await opened.db.transaction([
      { text: "DELETE FROM products" },
      { text: "DELETE FROM settings" },
      {
        text: `INSERT INTO products (id, name, price_cents, stock, updated_at) VALUES
                 ('arc', 'Arc lamp', 900, 3, '2026-01-02 03:04:05.678+00'), ('desk', 'Desk lamp', 300, 0, '2026-02-01'),
                 ('wall', 'Wall lamp', 500, 7, '2026-03-01'), ('rug', 'Rug', 100, 1, '2026-04-01')`,
      },
      {
        text: `INSERT INTO settings (key, value, updated_at) VALUES ('arc', '{"shown":true,"tags":["a"]}', '2026-05-01')`,
      },
    ]);
  });

  test("a tool selects, orders, joins and counts rows", async () => {
    await using opened = open();
    const db = drizzleOn(opened.db);
    const lamps = db
      .select({ id: products.id, price: products.priceCents })
      .from(products)
      .where(and(like(products.name, "%lamp"), gt(products.stock, 0)))
      .orderBy(desc(products.priceCents))
      .limit(2);
    expect(await inOneTrip(lamps)).toEqual([
      { id: "arc", price: 900 },
      { id: "wall", price: 500 },
    ]);
    // Both tables have columns of the same names.
    const joined = db
      .select()
      .from(products)
      .leftJoin(settings, eq(settings.key, products.id))
      .where(gt(products.priceCents, 400))
      .orderBy(asc(products.id));
    expect(await inOneTrip(joined)).toMatchObject([
      {
        products: { tenantId: acme, id: "arc", updatedAt: new Date("2026-01-02T03:04:05.678Z") },
        settings: { tenantId: acme, value: { shown: true, tags: ["a"] }, updatedAt: new Date("2026-05-01T00:00:00Z") },
      },
      { products: { id: "wall" }, settings: null },
    ]);
    const counted = db.select({ rows: count(), pieces: sql<number>`sum(${products.stock})::int` }).from(products);
    expect(await inOneTrip(counted)).toEqual([{ rows: 4, pieces: 11 }]);
    expect(await inOneTrip(db.$count(products, gt(products.stock, 0)))).toBe(3);
  });

  test("a tool inserts, upserts, updates and deletes only its own tenant's rows", async () => {
    await using opened = open();
    const db = drizzleOn(opened.db);
    const put = (stock: number) =>
      db
        .insert(products)
        .values({ id: "new", name: "New", priceCents: 1, stock })
        .onConflictDoUpdate({
          target: [products.tenantId, products.id],
          set: { stock: sql`${products.stock} + excluded.stock` },
        })
        .returning({ tenantId: products.tenantId, stock: products.stock, updatedAt: products.updatedAt });
    expect(await inOneTrip(put(2))).toEqual([{ tenantId: acme, stock: 2, updatedAt: expect.any(Date) }]);
    expect(await inOneTrip(put(3))).toMatchObject([{ stock: 5 }]);
    const at = new Date("2026-11-21T18:00:00.123Z");
    await inOneTrip(db.update(products).set({ updatedAt: at }).where(eq(products.id, "new")));
    const deleted = db.delete(products).where(eq(products.id, "new")).returning();
    expect(await inOneTrip(deleted)).toMatchObject([{ id: "new", stock: 5, updatedAt: at }]);
    // The database refuses another tenant's row, as it does for hand-written SQL.
    await expect(
      db.insert(products).values({ tenantId: globex, id: "x", name: "", priceCents: 0 }),
    ).rejects.toMatchObject({ cause: { code: "internal" } });
  });

  test.each([[{ deep: [1, null, "ü"] }], [["list"]], ["5"], ["true"], ["null"], [5], [true], [null]])(
    "a JSON value is read back unchanged: %j",
    async (value) => {
      await using opened = open();
      const db = drizzleOn(opened.db);
      // Sent as a statement parameter, because Drizzle turns a plain null into SQL's NULL.
      await db.insert(settings).values({ key: "json", value: sql`${JSON.stringify(value)}::jsonb` });
      const [found] = await db.select().from(settings).where(eq(settings.key, "json"));
      expect(found?.value).toEqual(value);
    },
  );

  test("a prepared query takes new placeholder values at each run, and raw SQL returns objects", async () => {
    await using opened = open();
    const db = drizzleOn(opened.db, { schema: { products, settings } });
    const byId = db
      .select({ name: products.name })
      .from(products)
      .where(eq(products.id, sql.placeholder("id")))
      .prepare("by_id");
    expect(await inOneTrip(byId.execute({ id: "arc" }))).toEqual([{ name: "Arc lamp" }]);
    expect(await inOneTrip(byId.execute({ id: "rug" }))).toEqual([{ name: "Rug" }]);
    expect(await inOneTrip(db.execute(sql`SELECT id, stock FROM products WHERE id = ${"rug"}`))).toEqual([
      { id: "rug", stock: 1 },
    ]);
    const first = db.query.products.findFirst({ columns: { id: true, updatedAt: true }, orderBy: asc(products.id) });
    expect(await inOneTrip(first)).toEqual({ id: "arc", updatedAt: new Date("2026-01-02T03:04:05.678Z") });
  });

  test("several queries run in one transaction, with one round trip each and one for the commit", async () => {
    await using opened = open();
    const raise = (fails: boolean) =>
      opened.db.transaction(async (transaction) => {
        const db = drizzleOn(transaction);
        const [arc] = await db.select().from(products).where(eq(products.id, "arc"));
        await db
          .update(products)
          .set({ stock: (arc?.stock ?? 0) + 10 })
          .where(eq(products.id, "arc"));
        if (fails) throw new Error("rolled back");
        return db
          .select({ stock: products.stock, at: products.updatedAt })
          .from(products)
          .where(eq(products.id, "arc"));
      });
    trips = 0;
    expect(await raise(false)).toEqual([{ stock: 13, at: new Date("2026-01-02T03:04:05.678Z") }]);
    expect(trips).toBe(4);
    await expect(raise(true)).rejects.toThrow("rolled back");
    expect(
      await drizzleOn(opened.db).select({ stock: products.stock }).from(products).where(eq(products.id, "arc")),
    ).toEqual([{ stock: 13 }]);
  });
});
