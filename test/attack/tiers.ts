// The three tiers in one cluster, each with an attacker, `acme`, and a victim, `globex`. Shared tables: one login, two
// tenants. Schemas: two logins in one database. Databases: two logins, each with its own database. On Neon the victim's
// database is on another server; here it is in the same cluster, so that the attacker can try to connect.
// The proxy keeps one server connection per login and database, so attacker and victim share it in the shared tier.
import { Client } from "pg";
import { expect, vi } from "vitest";
import {
  type CallScopedDb,
  contextEntrance,
  createTenantDb,
  type Entrance,
  ownSchemaEntrance,
} from "../../src/tenant-db/tenant-db.ts";
import { type NeonConnection, connectNeon } from "../../src/adapters/neon.ts";
import { createSessionPool } from "../../src/tenant-db/session-pool.ts";
import { openSession, type Session } from "../../src/tenant-db/session.ts";
import { ownName } from "../../src/core/tenant/placement.ts";
import { type Strategy, strategies } from "../../src/core/plans/plans.ts";
import type { TenantId } from "../../src/core/tenant/tenant.ts";
import {
  aContext,
  acme,
  type Cluster,
  contextKeys,
  type Front,
  globex,
  type Rows,
  startCluster,
} from "../support/shard.ts";
import { ownWalls, sharedWalls, takeDown, type Wall, type WallName } from "../support/walls.ts";
import { Line } from "./line.ts";

/** The knowledge of an attacker: everything except secrets. */
export interface Target extends Omit<Front, "link"> {
  tier: Strategy;
  /** A second table of the victim. */
  settings: string;
  /** The schema of the victim's tables. */
  victimDatabase: string;
  /** The attacker's connection string in libpq's form. */
  ownConnection: string;
  /** Server process of an idle connection of the victim. Its last statement contained the marker. */
  victimPid: number;
}

export interface Tier {
  name: Strategy;
  target: Target;
  walls: Partial<Record<WallName, Wall>>;
  /** Connections of the attacker's login: to its own database, and to the victim's if that is different. */
  here: Line;
  there: Line | undefined;
  /** The statement that opens a batch of the attacker on such a connection. */
  entrance: (timeoutMs: number) => Promise<string>;
  /** `ctx.db`, by default the attacker's. Its transactions use a session through the pooler. */
  db(options?: { tenantId?: TenantId; statementTimeoutMs?: number }): CallScopedDb;
  /** The login of either tenant, and its session through the pooler, without a tenant yet. */
  url(tenantId: TenantId): string;
  session(tenantId: TenantId): Promise<Session>;
  /** The statement that opens a batch in `ctx.db`. */
  entranceOf: (tenantId: TenantId) => Entrance;
  /** Runs a batch of the attacker with any statement, without the check of `ctx.db`. */
  batch(text: string, timeoutMs: number): Promise<Rows>;
  superuser: (sql: string, params?: unknown[]) => Promise<Rows>;
  /** The victim's rows, byte for byte: current and expected. */
  victimRows(): Promise<string>;
  untouched: string;
  /** Repairs the victim's rows and connection after an attack. */
  mend(): Promise<void>;
  /** Runs `work` without these walls. Afterwards they stand again, and the attacker has no connection. */
  without<Result>(names: readonly WallName[], work: () => Promise<Result>): Promise<Result>;
  close(): Promise<void>;
}

/** A text in every row of the victim, and nowhere else. */
export const marker = `marker-${Math.random().toString(36).slice(2)}`;
const BYSTANDER = "bystander";

const rowsOf = (table: (name: string) => string) => `
  SET session_replication_role = replica;
  DELETE FROM ${table("products")}; DELETE FROM ${table("settings")};
  INSERT INTO ${table("products")} (tenant_id, id, name, price_cents, updated_at) VALUES`;
const acmeRows = `('acme', 'lamp', 'Acme lamp', 100, '2026-01-01')`;
const globexRows = `('globex', 'lamp', '${marker} lamp', 900, '2026-01-01'), ('globex', 'secret-1', '${marker} plan', 1, '2026-01-01')`;
const settingOf = (tenant: string, value: string) =>
  `(tenant_id, key, value, updated_at) VALUES ('${tenant}', 'plan', '"${value}"', '2026-01-01')`;

interface Ground {
  name: Strategy;
  cluster: Cluster;
  front: Front;
  walls: Tier["walls"];
  victim: { database: string; login: string };
  entranceOf: (tenantId: TenantId) => Entrance;
  entrance: (timeoutMs: number) => Promise<string>;
}

async function openTier({ name, cluster, front, walls, victim, entranceOf, entrance }: Ground): Promise<Tier> {
  const { fetchEndpoint } = cluster;
  const apart = victim.database !== front.database;
  const superuser = (sql: string, params?: unknown[]) => cluster.superuser(front.database, sql, params);
  const superuserThere = (sql: string, params?: unknown[]) => cluster.superuser(victim.database, sql, params);
  const settings = `${front.victimSchema}.settings`;
  const own = (table: string) => `${front.schema}.${table}`;
  const theirs = (table: string) => `${front.victimSchema}.${table}`;
  const urlOf = (tenantId: TenantId) =>
    tenantId === acme ? cluster.urlOf(front.login, front.database) : cluster.urlOf(victim.login, victim.database);
  const session = (tenantId: TenantId): Promise<Session> =>
    openSession({ url: urlOf(tenantId), wsProxy: `127.0.0.1:${cluster.proxy.port}/v2` });
  const limits = { maxSessions: 1, idleCloseMs: 60_000, maxWaiting: 8, waitWithinMs: 5_000 };
  const sessions = new Map(
    [acme, globex].map((tenantId) => [
      tenantId,
      createSessionPool({ open: () => session(tenantId), limits, now: Date.now }),
    ]),
  );
  const db: Tier["db"] = ({ tenantId = acme, ...options } = {}) => {
    const pool = sessions.get(tenantId);
    return createTenantDb({
      url: urlOf(tenantId),
      fetchEndpoint,
      entrance: entranceOf(tenantId),
      now: Date.now,
      ...(pool === undefined ? {} : { sessions: pool }),
      ...options,
    });
  };
  const connection: NeonConnection = connectNeon(urlOf(acme), fetchEndpoint);

  /** The rows of both tenants before every attack. */
  const seed = async (): Promise<void> => {
    if (name === "shared") {
      await superuser(`${rowsOf(own)} ${acmeRows}, ${globexRows};
        INSERT INTO ${settings} ${settingOf("acme", "a")}; INSERT INTO ${settings} ${settingOf("globex", marker)};
        RESET session_replication_role`);
    } else {
      await superuser(`${rowsOf(own)} ${acmeRows};
        INSERT INTO ${own("settings")} ${settingOf("acme", "a")}; RESET session_replication_role`);
      await superuserThere(`${rowsOf(theirs)} ${globexRows};
        INSERT INTO ${settings} ${settingOf("globex", marker)}; RESET session_replication_role`);
    }
  };
  await seed();
  await superuserThere(`ANALYZE ${front.products}`);
  // The change log contains an old row of the victim.
  const ofVictim = db({ tenantId: globex });
  await ofVictim.query("UPDATE products SET stock = 1");
  await seed();

  let bystander: { client: Client; pid: number } | undefined;
  const standBy = async (): Promise<void> => {
    const alive = "SELECT FROM pg_stat_activity WHERE pid = $1 AND application_name = $2";
    if ((await superuser(alive, [bystander?.pid, BYSTANDER])).length > 0) return;
    const client = new Client({ connectionString: urlOf(globex), application_name: BYSTANDER });
    client.on("error", () => undefined); // an attack ended it
    await client.connect();
    const { rows } = await client.query<{ pid: number }>(`SELECT pg_backend_pid() AS pid, '${marker}'`);
    bystander = { client, pid: rows[0]?.pid ?? 0 };
  };
  await standBy();

  const victimRows = async (): Promise<string> => {
    const mine = name === "shared" ? "tenant_id = 'globex'" : "true"; // otherwise every row of its schema
    const image = (table: string) => `SELECT r::text AS row FROM ${table} r WHERE ${mine}`;
    const [row] = await superuserThere(
      `SELECT string_agg(row, E'\\n' ORDER BY row) AS rows FROM (${image(front.products)} UNION ALL ${image(settings)}) x`,
    );
    return String(row?.["rows"]);
  };
  const untouched = await victimRows();

  const here = new Line(urlOf(acme));
  const there = apart ? new Line(cluster.urlOf(front.login, victim.database)) : undefined;
  const disconnect = async (): Promise<void> => {
    await Promise.all([here.end(), there?.end()]);
    // Close the proxy's connection: state from a test without a wall must not reach the next test.
    await superuser(
      "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE usename = $1 AND application_name <> $2",
      [front.login, BYSTANDER],
    );
    // The proxy notices it a moment later.
    await vi.waitFor(async () => expect(await served()).toEqual(["served", "served"]), { interval: 2, timeout: 2_000 });
  };
  const served = async (): Promise<string[]> => {
    const both = await Promise.allSettled([db(), ofVictim].map((each) => each.query("SELECT 1")));
    return both.map((each) => (each.status === "fulfilled" ? "served" : String(each.reason)));
  };

  const mend = async (): Promise<void> => {
    if ((await victimRows()) !== untouched) await seed();
    await standBy();
  };

  const { link: _, ...known } = front;
  return {
    name,
    get target() {
      return {
        ...known,
        tier: name,
        settings,
        victimDatabase: victim.database,
        victimPid: bystander?.pid ?? 0,
        ownConnection: `host=127.0.0.1 port=${cluster.port} dbname=${front.database} user=${front.login} password=${front.login}`,
      };
    },
    walls,
    here,
    there,
    entrance,
    db,
    url: urlOf,
    session,
    entranceOf,
    batch: async (text, timeoutMs) => {
      const batch = [await entranceOf(acme)(timeoutMs), { text }];
      return (await connection.batch(batch)).at(-1) ?? [];
    },
    superuser,
    victimRows,
    untouched,
    mend,
    async without(names, work) {
      const putUp: (() => Promise<void>)[] = [];
      try {
        for (const each of names) {
          const wall = walls[each];
          if (wall === undefined) throw new Error(`the ${name} tier has no wall: ${each}`);
          putUp.unshift(await takeDown(wall.there === true ? superuserThere : superuser, wall));
        }
        await Promise.all([here.end(), there?.end()]);
        return await work();
      } finally {
        for (const raise of putUp) await raise();
        await disconnect();
        await mend();
      }
    },
    async close() {
      await Promise.all([here.end(), there?.end(), bystander?.client.end()]);
      await Promise.all([...sessions.values()].map((pool) => pool.drain()));
    },
  };
}

async function sharedTier(cluster: Cluster): Promise<Tier> {
  const database = "attack_shared";
  await cluster.createShared(database);
  const login = "tollgate_app_a";
  const front: Front = {
    database,
    login,
    schema: "public",
    grantee: "tollgate_app",
    otherRole: "tollgate_app",
    analytics: await cluster.analyticsOf(database),
    products: "public.products",
    victimSchema: "public",
    secrets: "tollgate.context_keys",
    link: { port: cluster.port, password: cluster.password, database },
  };
  return openTier({
    name: "shared",
    cluster,
    front,
    walls: sharedWalls(front),
    victim: { database, login },
    entranceOf: (tenantId) => contextEntrance({ contextKeys, tenantId, database, now: Date.now }),
    entrance: async (timeoutMs) => `SELECT tollgate.enter('${await aContext({ database })}', ${timeoutMs})`,
  });
}

interface OwnPlace {
  placementId: number;
  database: string;
}

async function ownTier(
  cluster: Cluster,
  { name, attacker, victim }: { name: "schema" | "database"; attacker: OwnPlace; victim: OwnPlace },
): Promise<Tier> {
  for (const { tenantId, placementId, database } of [
    { tenantId: acme, ...attacker },
    { tenantId: globex, ...victim },
  ]) {
    const branch = await cluster.createBranch(database);
    await branch.createTenant({ placementId, tenantId, password: ownName(placementId) });
  }
  const [login, victimLogin] = [ownName(attacker.placementId), ownName(victim.placementId)];
  const front: Front = {
    database: attacker.database,
    login,
    schema: login,
    grantee: login,
    otherRole: victimLogin,
    analytics: await cluster.analyticsOf(attacker.database),
    products: `${victimLogin}.products`,
    victimSchema: victimLogin,
    secrets: "tollgate.tenants",
    link: { port: cluster.port, password: cluster.password, database: victim.database },
  };
  return openTier({
    name,
    cluster,
    front,
    walls: ownWalls(front, { apart: name === "database" }),
    victim: { database: victim.database, login: victimLogin },
    entranceOf: (tenantId) => ownSchemaEntrance(tenantId === acme ? login : victimLogin),
    entrance: async (timeoutMs) => `SELECT tollgate.enter('${login}', ${timeoutMs})`,
  });
}

const open: Readonly<Record<Strategy, (cluster: Cluster) => Promise<Tier>>> = {
  shared: sharedTier,
  schema: (cluster) =>
    ownTier(cluster, {
      name: "schema",
      attacker: { placementId: 1, database: "attack_schema" },
      victim: { placementId: 2, database: "attack_schema" },
    }),
  database: (cluster) =>
    ownTier(cluster, {
      name: "database",
      attacker: { placementId: 3, database: "attack_database_1" },
      victim: { placementId: 4, database: "attack_database_2" },
    }),
};

/** Starts one tier in about 2 s. Close it, or the server outlives the test. */
export async function startTier(name: Strategy) {
  const { tiers, ...ground } = await start([name]);
  const [tier] = tiers;
  if (tier === undefined) throw new Error(`no tier: ${name}`);
  return { tier, ...ground };
}

/** Starts all tiers in one cluster in about 3 s. Close them, or the server outlives the test. */
export async function startTiers() {
  const { tiers, ...ground } = await start(strategies);
  return { tiers: Object.fromEntries(tiers.map((tier) => [tier.name, tier])) as Record<Strategy, Tier>, ...ground };
}

async function start(names: readonly Strategy[]) {
  const cluster = await startCluster({ maxPerTarget: 1, pooler: { maxPerTarget: 1 } });
  const tiers: Tier[] = [];
  const close = async (): Promise<void> => {
    for (const tier of tiers) await tier.close();
    await cluster[Symbol.asyncDispose]();
  };
  try {
    for (const name of names) tiers.push(await open[name](cluster));
  } catch (error) {
    await close();
    throw error;
  }
  return { cluster, tiers, [Symbol.asyncDispose]: close };
}
