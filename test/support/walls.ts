// The walls between tenants, one by one, and how to take each down and put it up again. A test of isolation that still
// passes without the wall it relies on has proved nothing.
import type { Shard } from "./shard.ts";

interface Wall {
  /** SQL of the superuser. */
  down: string;
  up: string;
  /** The check of `proveIsolation` that names this wall when it is down; without one the proof does not look at it. */
  check?: string;
}

const plainWalls = {
  "row security": {
    down: "ALTER TABLE products DISABLE ROW LEVEL SECURITY",
    up: "ALTER TABLE products ENABLE ROW LEVEL SECURITY",
    check: "tables_walled",
  },
  "row security forced on the owner": {
    down: "ALTER TABLE products NO FORCE ROW LEVEL SECURITY",
    up: "ALTER TABLE products FORCE ROW LEVEL SECURITY",
    check: "tables_walled",
  },
  "a login that cannot bypass it": {
    down: "ALTER ROLE tollgate_app_a BYPASSRLS",
    up: "ALTER ROLE tollgate_app_a NOBYPASSRLS",
    check: "login_powers",
  },
  "no policy but the tenant's": {
    down: "CREATE POLICY hole ON products USING (true) WITH CHECK (true)",
    up: "DROP POLICY hole ON products",
    check: "policies",
  },
  "no TRUNCATE": {
    down: "GRANT TRUNCATE ON products TO tollgate_app",
    up: "REVOKE TRUNCATE ON products FROM tollgate_app",
    check: "tables_walled",
  },
  "keys that start with the tenant": {
    down: "CREATE UNIQUE INDEX leak ON products (id) WHERE id LIKE 'secret-%'",
    up: "DROP INDEX leak",
    check: "keys_start_with_tenant",
  },
  "no temporary objects": {
    down: "GRANT TEMPORARY ON DATABASE shard_test TO tollgate_app",
    up: "REVOKE TEMPORARY ON DATABASE shard_test FROM tollgate_app",
    check: "creates_nothing",
  },
  "no durable objects": {
    down: "GRANT CREATE ON SCHEMA public TO tollgate_app",
    up: "REVOKE CREATE ON SCHEMA public FROM tollgate_app",
    check: "creates_nothing",
  },
  "no functions of the host": {
    down: `GRANT EXECUTE ON FUNCTION lo_from_bytea(oid, bytea), pg_stat_get_activity(integer), pg_notify(text, text),
      pg_advisory_lock(bigint), pg_terminate_backend(integer, bigint), pg_sleep(double precision) TO PUBLIC`,
    up: `REVOKE EXECUTE ON FUNCTION lo_from_bytea(oid, bytea), pg_stat_get_activity(integer), pg_notify(text, text),
      pg_advisory_lock(bigint), pg_terminate_backend(integer, bigint), pg_sleep(double precision) FROM PUBLIC`,
  },
  "no language for blocks": {
    down: "GRANT USAGE ON LANGUAGE plpgsql TO PUBLIC",
    up: "REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC",
  },
  "no role of the host": {
    down: "GRANT pg_execute_server_program, pg_read_all_data TO tollgate_app_a",
    up: "REVOKE pg_execute_server_program, pg_read_all_data FROM tollgate_app_a",
    check: "login_memberships",
  },
  "no superuser": {
    down: "ALTER ROLE tollgate_app_a SUPERUSER",
    up: "ALTER ROLE tollgate_app_a NOSUPERUSER",
    check: "login_powers",
  },
  "the group's name withheld": {
    down: "GRANT tollgate_app TO tollgate_app_a WITH SET TRUE",
    up: "REVOKE tollgate_app FROM tollgate_app_a",
  },
  "context keys withheld": {
    down: "GRANT SELECT ON tollgate.context_keys TO tollgate_app",
    up: "REVOKE SELECT ON tollgate.context_keys FROM tollgate_app",
    check: "context_keys_unreadable",
  },
  "key functions withheld": {
    down: `GRANT EXECUTE ON FUNCTION tollgate.install_context_key(text, text) TO tollgate_app;
      ALTER FUNCTION tollgate.install_context_key(text, text) SECURITY DEFINER`,
    up: `REVOKE EXECUTE ON FUNCTION tollgate.install_context_key(text, text) FROM tollgate_app;
      ALTER FUNCTION tollgate.install_context_key(text, text) SECURITY INVOKER`,
    check: "definer_functions",
  },
  "no ownership": {
    down: "ALTER TABLE products OWNER TO tollgate_app_a",
    up: "ALTER TABLE products OWNER TO tollgate_owner; GRANT SELECT, INSERT, UPDATE, DELETE ON products TO tollgate_app",
    check: "login_owns_nothing",
  },
} satisfies Record<string, Wall>;

/** The conditions of `tollgate.current_tenant()`, each with what it becomes when it is taken out. */
const comparison =
  "sha256(found_inner || convert_to(encode(expected, 'hex'), 'UTF8')) = sha256(found_inner || convert_to(fields[6], 'UTF8'))";
const conditions = {
  "the context's MAC": { condition: comparison, without: "true", check: "forged_context" },
  "the context's MAC and key": {
    condition: `${comparison}\n      AND found_outer IS NOT NULL`,
    without: "true",
    check: "forged_context",
  },
  "an installed key": { condition: "found_outer IS NOT NULL", without: "true", check: undefined },
  "the context's database": { condition: "fields[4] = current_database()", without: "true", check: undefined },
  "the context's expiry": { condition: "seconds_left > 0 AND", without: "", check: "expired_context" },
  "the longest life of a context": { condition: "seconds_left <= 600", without: "true", check: undefined },
} as const;

type PlainWall = keyof typeof plainWalls;
type Condition = keyof typeof conditions;
export type WallName = PlainWall | Condition;
const isCondition = (name: string): name is Condition => Object.hasOwn(conditions, name);
const isPlainWall = (name: string): name is PlainWall => Object.hasOwn(plainWalls, name);
export const wallNames: readonly WallName[] = [
  ...Object.keys(plainWalls).filter(isPlainWall),
  ...Object.keys(conditions).filter(isCondition),
];

/** The definition of a function, from the catalogue. */
export async function definitionOf(shard: Shard, signature: string): Promise<string> {
  const [row] = await shard.superuser("SELECT pg_get_functiondef($1::regprocedure) AS definition", [signature]);
  return String(row?.["definition"]);
}

async function wall(shard: Shard, name: WallName): Promise<Wall> {
  if (!isCondition(name)) return plainWalls[name];
  const { condition, without, check } = conditions[name];
  const definition = await definitionOf(shard, "tollgate.current_tenant()");
  if (!definition.includes(condition)) throw new Error(`current_tenant() has no longer the condition: ${condition}`);
  const weaker = definition.replace(condition, without);
  return { down: weaker, up: definition, ...(check === undefined ? {} : { check }) };
}

/** Runs `work` while a wall is down; it stands again afterwards, whatever happened. */
export async function withoutWall<Result>(
  shard: Shard,
  name: WallName,
  work: (check: string | undefined) => Promise<Result>,
): Promise<Result> {
  const { down, up, check } = await wall(shard, name);
  await shard.superuser(down);
  try {
    return await work(check);
  } finally {
    await shard.superuser(up);
  }
}
