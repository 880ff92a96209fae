// Proves that a login which tools run as reaches only its own tenant. Runs at start-up and in /health.
// The proof reads the login's rights from the catalogue. On shared tables it also tries forbidden actions: to read without a
// context, with a forged one and with an expired one, to cross between two canary tenants, and to create objects.
// Invariant: each attempt that must fail runs in a transaction that is rolled back, so that a missing protection leaves
// nothing behind. All requests are sent concurrently and take the time of one round trip.
import type { KeyRing } from "../core/keys/encryption.ts";
import { migrationLock } from "./branch.ts";
import { signContext } from "./signed-context.ts";
import { AppError } from "../core/errors.ts";
import { RESERVED_PREFIX, type TenantId } from "../core/tenant/tenant.ts";
import {
  type BatchOptions,
  connectNeon,
  type NeonConnection,
  type Row,
  SqlError,
  type Statement,
} from "../adapters/neon.ts";
import { enterTenant, plainTransaction } from "./tenant-db.ts";

export interface IsolationFailure {
  /** Stable name of the check. */
  check: string;
  /** Names of the roles, tables or functions at fault. Never rows or secrets. */
  detail: string;
}

/** `leftOpen` names built-in functions that only the host's superuser could revoke. None reaches another tenant's rows. */
export type IsolationProof = { proven: true; leftOpen: string[] } | { proven: false; failures: IsolationFailure[] };

/**
 * The two tenants of the proof. Each owns one row of `tollgate.isolation_proof`, both under the same id. Not parsed:
 * `TenantId` refuses their ids, so that no customer can have one.
 */
const canaryTenants = [`${RESERVED_PREFIX}a` as TenantId, `${RESERVED_PREFIX}b` as TenantId] as const;
const CANARY_ROW = "canary";

/** The checks take milliseconds. A database that needs longer counts as unavailable. */
const TIMEOUT_MS = 5_000;
/** Life of a canary's context: longer than any wait for the database. */
const CANARY_LIFE_MS = 60_000;
const REFUSED = "42501"; // insufficient_privilege
const ROLLED_BACK = "22012"; // division_by_zero, by which `rollBack` ends a transaction
const rollBack: Statement = { text: "SELECT 1 / 0" };
/** These errors come from the load or from a pooled connection's settings, and prove nothing: read-only, serialization, lock, time limit. */
const inconclusive = /^(25006|40|55P03|57014)/;

/** The condition of a tenant's policy. A permissive policy with any other condition would show more rows. */
const POLICY = "(tenant_id = ( SELECT tollgate.current_tenant() AS current_tenant))";

/** The one other policy that is accepted: analytics reads by it, and no login of tools can become that role. */
const ofAnalytics = `p.polcmd = 'r' AND p.polroles = ARRAY(
  SELECT r.oid FROM pg_roles r WHERE r.rolname = tollgate.analytics_role() AND NOT pg_has_role(r.oid, 'MEMBER'))`;

/** SQL: the object belongs to the catalogue or to an extension. The host is responsible for these; they hold no tenant's rows. */
const ofTheHost = (relation: string, schemaColumn: string, oidColumn: string) => `
  ${schemaColumn} IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace, 'pg_toast'::regnamespace)
  OR EXISTS (SELECT FROM pg_depend WHERE classid = '${relation}'::regclass AND objid = ${oidColumn} AND deptype = 'e')`;

const touchable = `c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT (${ofTheHost("pg_class", "c.relnamespace", "c.oid")})
  AND (has_table_privilege(c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER, MAINTAIN')
    OR has_any_column_privilege(c.oid, 'SELECT, INSERT, UPDATE, REFERENCES'))`;

/** Checks for the login of tools in every tier. Each selects one text for each fault. `itsGroup` is an SQL expression. */
const loginChecks = (itsGroup: string): Readonly<Record<string, string>> => ({
  login_powers: `
    SELECT r.rolname || ' has ' || power FROM pg_roles r CROSS JOIN LATERAL (VALUES ('SUPERUSER', r.rolsuper),
      ('BYPASSRLS', r.rolbypassrls), ('CREATEROLE', r.rolcreaterole), ('CREATEDB', r.rolcreatedb),
      ('REPLICATION', r.rolreplication)) AS p (power, has)
    WHERE has AND (r.rolname = current_user OR pg_has_role(r.oid, 'MEMBER'))`,
  login_memberships: `
    SELECT 'member of ' || rolname FROM pg_roles
    WHERE pg_has_role(oid, 'MEMBER') AND rolname NOT IN (current_user, ${itsGroup})`,
  // Ignores large objects. Some hosts let any login create one. It holds only its creator's data, and refusing all tenants
  // because of it would do more harm.
  login_owns_nothing: `
    SELECT r.rolname || ' owns ' || d.classid::regclass || ' ' || d.objid
    FROM pg_shdepend d JOIN pg_roles r ON r.oid = d.refobjid
    WHERE d.refclassid = 'pg_authid'::regclass AND d.deptype = 'o' AND d.classid <> 'pg_largeobject'::regclass
      AND r.rolname IN (current_user, ${itsGroup})`,
  creates_nothing: `
    SELECT 'schema ' || nspname FROM pg_namespace WHERE has_schema_privilege(oid, 'CREATE')
    UNION ALL
    SELECT 'database: ' || p FROM unnest(ARRAY['CREATE', 'TEMPORARY']) AS p WHERE has_database_privilege(current_database(), p)`,
  // A function that runs with its owner's rights could reach other tenants' rows. The listed ones are safe: the first names
  // the tenant, and the others touch only that tenant's rows.
  definer_functions: `
    SELECT p.oid::regprocedure::text FROM pg_proc p
    WHERE p.prosecdef AND has_function_privilege(p.oid, 'EXECUTE')
      AND NOT (${ofTheHost("pg_proc", "p.pronamespace", "p.oid")}) AND p.oid <> ALL (array_remove(ARRAY[to_regprocedure('tollgate.current_tenant()'),
        to_regprocedure('tollgate.loading(bigint)'), to_regprocedure('tollgate.staged_rows(bigint,name)'),
        to_regprocedure('tollgate.put_back(bigint,integer)')], NULL))`,
});

const sharedChecks: Readonly<Record<string, string>> = {
  ...loginChecks("tollgate.app_role()"),
  tables_walled: `
    SELECT c.oid::regclass || ': row security is not enabled and forced' FROM pg_class c
    WHERE ${touchable} AND c.relkind IN ('r', 'p') AND NOT (c.relrowsecurity AND c.relforcerowsecurity)
    UNION ALL
    SELECT c.oid::regclass || ': not a table with row security' FROM pg_class c
    WHERE ${touchable} AND c.relkind NOT IN ('r', 'p')
      AND NOT (c.relkind = 'v' AND 'security_invoker=true' = ANY (COALESCE(c.reloptions, '{}')))
    UNION ALL
    SELECT c.oid::regclass || ': TRUNCATE is granted' FROM pg_class c
    WHERE ${touchable} AND has_table_privilege(c.oid, 'TRUNCATE')`,
  policies: `
    SELECT c.oid::regclass || ': has no policy' FROM pg_class c
    WHERE ${touchable} AND c.relkind IN ('r', 'p') AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid)
    UNION ALL
    SELECT c.oid::regclass || ': policy ' || p.polname FROM pg_class c JOIN pg_policy p ON p.polrelid = c.oid
    WHERE ${touchable} AND p.polpermissive AND NOT (${ofAnalytics})
      AND (COALESCE(pg_get_expr(p.polqual, p.polrelid), $1) <> $1
        OR COALESCE(pg_get_expr(p.polwithcheck, p.polrelid), $1) <> $1)`,
  keys_start_with_tenant: `
    SELECT i.indexrelid::regclass::text FROM pg_class c JOIN pg_index i ON i.indrelid = c.oid
    WHERE ${touchable} AND (i.indisunique OR i.indisexclusion) AND NOT EXISTS (
      SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = i.indkey[0] AND a.attname = 'tenant_id')
    UNION ALL
    SELECT k.conname::text FROM pg_class c JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype = 'f'
    WHERE ${touchable} AND NOT EXISTS (
      SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = k.conkey[1] AND a.attname = 'tenant_id')`,
  context_keys_unreadable: `
    SELECT 'tollgate.context_keys' WHERE has_table_privilege('tollgate.context_keys', 'SELECT, INSERT, UPDATE, DELETE')
      OR has_any_column_privilege('tollgate.context_keys', 'SELECT, INSERT, UPDATE')`,
};

/** Checks for a login with a schema of its own. `$1`: the schema's name. `$2`: its tenant. */
const ownChecks: Readonly<Record<string, string>> = {
  ...loginChecks("''"),
  only_its_tables: `SELECT c.oid::regclass FROM pg_class c WHERE ${touchable} AND c.relnamespace <> $1::regnamespace`,
  only_its_schema: `
    SELECT n.nspname FROM pg_namespace n WHERE has_schema_privilege(n.oid, 'USAGE') AND n.oid <> $1::regnamespace
      AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'tollgate') AND NOT (${ofTheHost("pg_namespace", "n.oid", "n.oid")})`,
  is_its_tenant: `SELECT 'the login is of another tenant' WHERE tollgate.current_tenant() IS DISTINCT FROM $2::text`,
};

/** One statement for all checks. It returns a row for each fault. */
function faultsOf(checks: Readonly<Record<string, string>>, params: readonly unknown[]): Statement {
  const selects = Object.entries(checks).map(
    ([check, sql]) => `SELECT '${check}' AS "check", fault::text AS detail FROM (${sql}) AS faults (fault)`,
  );
  return { text: selects.join("\nUNION ALL\n"), params };
}

const failuresOf = (rows: readonly Row[] | undefined): IsolationFailure[] =>
  (rows ?? []).map((row) => ({ check: String(row["check"]), detail: String(row["detail"]) }));

const hostFunctions: Statement = {
  text: `SELECT f FROM unnest(ARRAY['lo_create(oid)', 'pg_advisory_lock(bigint)', 'pg_notify(text,text)',
    'pg_sleep(double precision)', 'pg_terminate_backend(integer,bigint)', 'pg_stat_get_activity(integer)']) AS f
    WHERE has_function_privilege(f, 'EXECUTE')`,
};

export interface ProofOptions {
  url: string;
  fetchEndpoint: string;
  contextKeys: KeyRing;
  now: () => number;
}

export interface OwnProofOptions {
  url: string;
  fetchEndpoint: string;
  schema: string;
  tenantId: TenantId;
}

/**
 * Proves that the login of `url` reaches only its own schema, or lists what else it can reach. Throws `AppError`
 * (`database_unavailable`) when the database cannot be reached.
 */
export async function proveOwnSchema({
  url,
  fetchEndpoint,
  schema,
  tenantId,
}: OwnProofOptions): Promise<IsolationProof> {
  try {
    const [, , faults, open] = await connectNeon(url, fetchEndpoint).batch([
      plainTransaction,
      enterTenant(schema, TIMEOUT_MS),
      faultsOf(ownChecks, [schema, tenantId]),
      hostFunctions,
    ]);
    const failures = failuresOf(faults);
    if (failures.length > 0) return { proven: false, failures };
    return { proven: true, leftOpen: (open ?? []).map((row) => String(row["f"])) };
  } catch (error) {
    return { proven: false, failures: [{ check: "readable", detail: `ended with SQLSTATE ${conclusive(error)}` }] };
  }
}

/**
 * Proves that the login of `url` is kept within one tenant, or lists what else it can reach. Throws `AppError`
 * (`database_unavailable`) when the database cannot be reached.
 */
export async function proveIsolation({ url, fetchEndpoint, contextKeys, now }: ProofOptions): Promise<IsolationProof> {
  const connection = connectNeon(url, fetchEndpoint);
  const [{ id: keyId, secret }] = contextKeys;
  const [canaryA, canaryB] = canaryTenants;
  const sign = (tenantId: TenantId, lifeMs: number) =>
    signContext({ keyId, secret, tenantId, database: connection.database, expiresAtMs: now() + lifeMs });
  const [a, b, expired] = await Promise.all([sign(canaryA, 60_000), sign(canaryB, 60_000), sign(canaryA, -5_000)]);
  const forged = a.slice(0, -1) + (a.endsWith("0") ? "1" : "0");

  /** Runs a forbidden statement. Returns a failure unless the database refused it. */
  async function mustBeRefused(check: string, context: string, text: string): Promise<IsolationFailure[]> {
    try {
      await connection.batch([plainTransaction, enterTenant(context, TIMEOUT_MS), { text }, rollBack]);
    } catch (error) {
      const sqlState = conclusive(error);
      if (sqlState === REFUSED) return [];
      return [{ check, detail: sqlState === ROLLED_BACK ? "was allowed" : `ended with SQLSTATE ${sqlState}` }];
    }
    return [{ check, detail: "was allowed" }];
  }

  async function attempts(): Promise<{ failures: IsolationFailure[]; leftOpen: string[] }> {
    // LIMIT and the named tenant bound the statements: without row security they would read or rewrite the whole table.
    const mine: Statement = { text: "SELECT tenant_id, id FROM tollgate.isolation_proof LIMIT 2" };
    const ofOthers: Statement = {
      text: "SELECT tenant_id FROM tollgate.isolation_proof WHERE tenant_id = $1 AND id = $2",
      params: [canaryB, CANARY_ROW],
    };
    const rewritten: Statement = {
      text: "UPDATE tollgate.isolation_proof SET note = note WHERE tenant_id = $1 RETURNING tenant_id",
      params: [canaryB],
    };
    try {
      const [, , without, faults, open, , seenByA, othersByA, rewrittenByA, , seenByB] = await connection.batch([
        plainTransaction,
        enterTenant("", TIMEOUT_MS),
        { text: "SELECT FROM tollgate.isolation_proof LIMIT 1" },
        faultsOf(sharedChecks, [POLICY]),
        hostFunctions,
        enterTenant(a, TIMEOUT_MS),
        mine,
        ofOthers,
        rewritten,
        enterTenant(b, TIMEOUT_MS),
        mine,
      ]);
      const failures = failuresOf(faults);
      const demand = (holds: boolean, check: string, detail: string) => holds || failures.push({ check, detail });
      demand(without?.length === 0, "no_context_no_rows", "rows without a context");
      demand(isCanaryOf(canaryA, seenByA), "canary_rows", `${canaryA} does not see exactly its own row`);
      demand(isCanaryOf(canaryB, seenByB), "canary_rows", `${canaryB} does not see exactly its own row`);
      demand(othersByA?.length === 0, "canary_crossed", `${canaryA} reads another tenant's row`);
      demand(rewrittenByA?.length === 0, "canary_crossed", `${canaryA} writes another tenant's row`);
      return { failures, leftOpen: (open ?? []).map((row) => String(row["f"])) };
    } catch (error) {
      // The migrations are missing, or the database does not know the signing key.
      return { failures: [{ check: "readable", detail: `ended with SQLSTATE ${conclusive(error)}` }], leftOpen: [] };
    }
  }

  const [tried, ...refusals] = await Promise.all([
    attempts(),
    mustBeRefused("forged_context", forged, "SELECT count(*) FROM tollgate.isolation_proof"),
    mustBeRefused("expired_context", expired, "SELECT count(*) FROM tollgate.isolation_proof"),
    mustBeRefused("temporary_table", a, "CREATE TEMPORARY TABLE tollgate_proof ()"),
    mustBeRefused("durable_table", a, "CREATE TABLE public.tollgate_proof ()"),
    mustBeRefused(
      "foreign_insert",
      a,
      `INSERT INTO tollgate.isolation_proof (tenant_id, id) VALUES ('${canaryB}', 'proof')`,
    ),
  ]);
  const failures = [...tried.failures, ...refusals.flat()];
  return failures.length === 0 ? { proven: true, leftOpen: tried.leftOpen } : { proven: false, failures };
}

/**
 * Writes the canaries' rows that are missing in a shared database, and deletes others of theirs. `owner` is connected to it.
 * Without exactly these rows the proof fails and every tenant of the database is refused. Can be repeated.
 */
export async function restoreCanaries(
  owner: NeonConnection,
  [{ id: keyId, secret }]: KeyRing,
  options: BatchOptions = {},
): Promise<void> {
  const { database } = owner;
  const statements = canaryTenants.map(async (tenantId): Promise<Statement[]> => {
    // Row security applies to the owner too, so that the statements need the canary's context.
    const context = await signContext({ keyId, secret, tenantId, database, expiresAtMs: Date.now() + CANARY_LIFE_MS });
    return [
      { text: "SELECT set_config('tollgate.context', $1, true)", params: [context] },
      { text: "DELETE FROM tollgate.isolation_proof WHERE id <> $1", params: [CANARY_ROW] },
      {
        text: "INSERT INTO tollgate.isolation_proof (tenant_id, id, note) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        params: [tenantId, CANARY_ROW, `proves that ${tenantId} sees only its own rows`],
      },
    ];
  });
  await owner.batch((await Promise.all(statements)).flat(), options);
}

/**
 * Sets up in a migrated shared database what the proof needs: the logins' passwords and settings, the keys that verify
 * contexts, and the canaries' rows. `owner` is connected to it. Can be repeated, also concurrently.
 */
export async function prepareShared(
  owner: NeonConnection,
  { logins, contextKeys }: { logins: readonly { name: string; password: string }[]; contextKeys: KeyRing },
): Promise<void> {
  await owner.batch([
    migrationLock,
    ...logins.map(({ name, password }) => ({
      text: "SELECT tollgate.restore_login($1, $2)",
      params: [name, password],
    })),
    ...contextKeys.map(({ id, secret }) => ({
      text: "SELECT tollgate.install_context_key($1, $2)",
      params: [id, secret],
    })),
  ]);
  await restoreCanaries(owner, contextKeys);
}

function isCanaryOf(tenantId: TenantId, rows: readonly Row[] | undefined): boolean {
  return rows?.length === 1 && rows[0]?.["tenant_id"] === tenantId && rows[0]?.["id"] === CANARY_ROW;
}

/** The SQLSTATE of the database's answer. Throws when the error proves nothing. */
function conclusive(error: unknown): string {
  if (!(error instanceof SqlError)) throw error;
  if (inconclusive.test(error.sqlState)) throw new AppError("database_unavailable", undefined, { cause: error });
  return error.sqlState;
}
