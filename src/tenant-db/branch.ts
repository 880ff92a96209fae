// A branch: a database in which tenants have schemas of their own, as its owner. Sets it up, makes, migrates and removes
// tenants' schemas, and proves that their roles stay inside them. Functions in the database (migrations/branch) do the work,
// each in one transaction and one round trip. Every step can be repeated, also concurrently.
import * as z from "zod";
import { type NeonConnection, connectNeon } from "../adapters/neon.ts";
import { sha256Hex } from "../core/keys/credentials.ts";
import { AppError } from "../core/errors.ts";
import { ownName } from "../core/tenant/placement.ts";
import type { Statement } from "../core/sql.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import type { IsolationProof } from "./isolation.ts";

/** A numbered SQL file. Series and name together identify it, so that two series may use the same numbers. */
export interface Migration {
  series: string;
  name: string;
  text: string;
}

/** A migration's id in reports and records: `app/0001_products.sql`. */
export const migrationId = ({ series, name }: Pick<Migration, "series" | "name">): string => `${series}/${name}`;

/** The version of a schema or shared database that has these files: their ids, separated by spaces. */
export function versionOf(files: readonly string[]): string {
  return files.join(" ");
}

/** The files of a version. None for `null` and for the empty version. */
export function filesOf(version: string | null): string[] {
  return (version ?? "").split(" ").filter((file) => file !== "");
}

/** Those of `files` that a schema or shared database of this version lacks. */
export function pendingFiles(files: readonly string[], version: string | null): string[] {
  const applied = new Set(filesOf(version));
  return files.filter((file) => !applied.has(file));
}

const AppliedFile = z.object({ series: z.string(), name: z.string() });

/** The version of a shared database: the files that it has, as its owner reads them. */
export async function sharedVersion(owner: NeonConnection): Promise<string> {
  const rows = await owner.query("SELECT series, name FROM public.schema_migrations ORDER BY applied_at, series, name");
  return versionOf(z.array(AppliedFile).parse(rows).map(migrationId));
}

/** An object of a schema as its last migration left it and as it is now; `null`: absent. */
const Difference = z.object({
  object: z.string(),
  expected: z.string().nullable(),
  found: z.string().nullable(),
});
export type Difference = z.infer<typeof Difference>;

const Migrated = z.union([
  z.object({ applied: z.array(z.string()) }),
  z.object({ refused: z.enum(["changed", "unknown"]), file: z.string() }),
  z.object({ refused: z.literal("drift"), differences: z.array(Difference) }),
]);
/**
 * The files that were run, or why none was. `changed`: a file that ran here has another text now. `unknown`: a file that
 * ran here is not in the bundle. `drift`: the schema was changed outside of migrations.
 */
export type Migrated = z.infer<typeof Migrated>;

const Comparison = z.object({
  schema: z.string(),
  mark: z.string().nullable(),
  differences: z.array(Difference).nullable(),
});
export type Comparison = z.infer<typeof Comparison> & { placementId: number };

export interface Branch {
  /** Makes the tenant's role with this password and its schema, and migrates the schema. Can be repeated. */
  createTenant(tenant: { placementId: number; tenantId: TenantId; password: string }): Promise<void>;
  /** Removes role, schema and rows. Can be repeated. */
  dropTenant(placementId: number): Promise<void>;
  /**
   * Runs the files that the schema lacks, in one transaction. Throws `SqlError`; 55P03 when a table was in use for longer
   * than its tenant can be made to wait.
   */
  migrateTenant(placementId: number, options?: { allowDrift: boolean }): Promise<Migrated>;
  /**
   * Compares schemas with what their last migrations left. Equal schemas have the same mark; a schema that was never
   * migrated has none. Schemas that do not exist here are left out.
   */
  compare(placementIds: readonly number[]): Promise<Comparison[]>;
  /** The files that schemas have applied and that have another text now. `only`: looks at these tenants; `null`: at all. */
  changedFiles(only: readonly string[] | null): Promise<ChangedFile[]>;
}

/** A file that this many schemas have applied with another text. */
export const ChangedFile = z.object({ file: z.string(), schemas: z.int() });
export type ChangedFile = z.infer<typeof ChangedFile>;

/** SQL for the `ChangedFile`s of a branch. `$1`: the files with their checksums. `$2`: the tenants, or null. */
export const changedFiles = `SELECT c.file, count(*)::int AS schemas
  FROM tollgate.changed_files($1::jsonb) c JOIN tollgate.tenants t ON t.role = c.schema
  WHERE $2::text[] IS NULL OR t.tenant_id = ANY ($2) GROUP BY c.file ORDER BY c.file`;

/** Shorter than the connection's wait for an answer, so that the database ends a slow statement and reports it. */
const STATEMENT_TIMEOUT_MS = 20_000;
const bounded: Statement = {
  text: "SELECT set_config('statement_timeout', $1, true)",
  params: [String(STATEMENT_TIMEOUT_MS)],
};

/** Opens a branch by its owner's connection string. `migrations` are the files of a tenant's schema, in their order. */
export function openBranch(ownerUrl: string, fetchEndpoint: string, migrations: readonly Migration[]): Branch {
  const connection: NeonConnection = connectNeon(ownerUrl, fetchEndpoint);
  let files: Promise<string> | undefined;
  const migrate = async (placementId: number, allowDrift: boolean) => ({
    text: "SELECT tollgate.migrate($1, $2::jsonb, $3) AS migrated",
    params: [ownName(placementId), await (files ??= withChecksums(migrations)), allowDrift],
  });

  return {
    async createTenant({ placementId, tenantId, password }) {
      const [, , rows = []] = await connection.batch([
        bounded,
        { text: "SELECT tollgate.create_tenant($1, $2, $3)", params: [ownName(placementId), tenantId, password] },
        await migrate(placementId, false),
      ]);
      const migrated = Migrated.parse(rows[0]?.["migrated"]);
      if ("refused" in migrated) throw new AppError("internal", `the schema cannot be migrated: ${migrated.refused}`);
    },
    async dropTenant(placementId) {
      await connection.batch([{ text: "SELECT tollgate.drop_tenant($1)", params: [ownName(placementId)] }]);
    },
    async migrateTenant(placementId, { allowDrift } = { allowDrift: false }) {
      const [, rows = []] = await connection.batch([bounded, await migrate(placementId, allowDrift)]);
      return Migrated.parse(rows[0]?.["migrated"]);
    },
    async compare(placementIds) {
      const bySchema = new Map(placementIds.map((id) => [ownName(id), id]));
      const [, rows = []] = await connection.batch([
        bounded,
        { text: "SELECT * FROM tollgate.drift($1)", params: [[...bySchema.keys()]] },
      ]);
      return rows.flatMap((row) => {
        const comparison = Comparison.parse(row);
        const placementId = bySchema.get(comparison.schema);
        return placementId === undefined ? [] : [{ ...comparison, placementId }];
      });
    },
    async changedFiles(only) {
      const given = await (files ??= withChecksums(migrations));
      const [, rows = []] = await connection.batch([
        bounded,
        { text: changedFiles, params: [given, only && [...only]] },
      ]);
      return rows.map((row) => ChangedFile.parse(row));
    },
  };
}

async function withChecksums(migrations: readonly Migration[]): Promise<string> {
  const files = migrations.map(async ({ series, name, text }) => {
    const sha256 = await sha256Hex(text);
    return { series, name, sha256, text };
  });
  return JSON.stringify(await Promise.all(files));
}

// ---- setting a fresh database up

/** Key of the advisory lock that every migration of a database takes. The number is arbitrary. */
export const MIGRATION_LOCK = 7_402_118;
/** Takes that lock until the transaction ends. */
export const migrationLock: Statement = { text: "SELECT pg_advisory_xact_lock($1)", params: [MIGRATION_LOCK] };

/** Creates the table that records the files of a database. */
export const migrationsTable = `CREATE TABLE IF NOT EXISTS public.schema_migrations
  (series text NOT NULL, name text NOT NULL, sha256 text NOT NULL,
   applied_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (series, name))`;

/**
 * Sets up a fresh database: runs `files` in their order, each in one transaction, and records them where `npm run migrate`
 * records them. `owner` is connected to it. Can be repeated, also concurrently.
 */
export async function setUpDatabase(owner: NeonConnection, files: readonly Migration[]): Promise<void> {
  await owner.batch([migrationLock, { text: migrationsTable }]);
  for (const file of files) await owner.batch([migrationLock, onceOnly(file, await sha256Hex(file.text))]);
}

/**
 * A file's text for a database that nothing uses yet. Indexes need no CONCURRENTLY there, and a transaction may not
 * contain it.
 */
export function textForFreshDatabase(text: string): string {
  return text
    .replace(/\b(INDEX|TABLE)\s+CONCURRENTLY\b/gi, "$1")
    .replace(/\bREINDEX\s*\(\s*CONCURRENTLY\s*\)/gi, "REINDEX")
    .replace(/\b(DETACH\s+PARTITION\s+[\w."]+)\s+CONCURRENTLY\b/gi, "$1");
}

/** Runs a file unless it has run. A message of the protocol carries one statement, so a DO block carries the file. */
function onceOnly({ series, name, text }: Migration, sha256: string): Statement {
  return {
    text: `DO ${quoted(`
      BEGIN
        IF NOT EXISTS (SELECT FROM public.schema_migrations WHERE series = ${quoted(series)} AND name = ${quoted(name)}) THEN
          EXECUTE ${quoted(textForFreshDatabase(text))};
          INSERT INTO public.schema_migrations (series, name, sha256)
          VALUES (${quoted(series)}, ${quoted(name)}, ${quoted(sha256)});
        END IF;
      END`)}`,
  };
}

/** A dollar-quoted literal, whose tag does not occur in the text. */
function quoted(text: string): string {
  let tag = "file";
  while (text.includes(`$${tag}$`)) tag += "x";
  return `$${tag}$${text}$${tag}$`;
}

// ---- the proof over all tenants' roles

const ofTheHost = `n.nspname IN ('pg_catalog', 'information_schema', 'pg_toast')`;

const faults = `
  WITH own AS (SELECT r.* FROM pg_roles r JOIN tollgate.tenants t ON t.role = r.rolname),
  granted AS (
    SELECT n.nspname, c.relname AS name, a.grantee FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      CROSS JOIN LATERAL aclexplode(c.relacl) AS a WHERE NOT ${ofTheHost}
    UNION ALL
    SELECT n.nspname, c.relname || '.' || t.attname, a.grantee FROM pg_attribute t JOIN pg_class c ON c.oid = t.attrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace CROSS JOIN LATERAL aclexplode(t.attacl) AS a WHERE NOT ${ofTheHost}
    UNION ALL
    SELECT n.nspname, 'schema', a.grantee FROM pg_namespace n CROSS JOIN LATERAL aclexplode(n.nspacl) AS a
      WHERE NOT ${ofTheHost} AND n.nspname <> 'tollgate')
  SELECT 'login_powers' AS "check", rolname::text AS detail FROM own
    WHERE rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication
  UNION ALL
  SELECT 'login_memberships', own.rolname FROM pg_auth_members m JOIN own ON own.oid = m.member
  UNION ALL
  SELECT 'login_owns_nothing', own.rolname FROM pg_shdepend d JOIN own ON own.oid = d.refobjid
    WHERE d.refclassid = 'pg_authid'::regclass AND d.deptype = 'o' AND d.classid <> 'pg_largeobject'::regclass
  UNION ALL
  SELECT 'rights_of_others', own.rolname || ' on ' || g.nspname || '.' || g.name FROM granted g JOIN own ON own.oid = g.grantee
    WHERE g.nspname <> own.rolname
  UNION ALL
  SELECT 'rights_of_everybody', g.nspname || '.' || g.name FROM granted g WHERE g.grantee = 0`;

/**
 * Proves that no tenant's role in a branch reaches outside of its schema: the owner reads all of them from the catalogue in
 * one round trip. Each tenant's object also proves its own login (isolation.ts). Throws `AppError` when the database is
 * away.
 */
export async function proveBranch(ownerUrl: string, fetchEndpoint: string): Promise<IsolationProof> {
  const rows = await connectNeon(ownerUrl, fetchEndpoint).query(faults);
  const failures = rows.map((row) => ({ check: String(row["check"]), detail: String(row["detail"]) }));
  return failures.length === 0 ? { proven: true, leftOpen: [] } : { proven: false, failures };
}
