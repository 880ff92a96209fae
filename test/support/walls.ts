// The walls between tenants in every tier, and how to take each one down and restore it. An isolation test that still passes
// without the wall it relies on proves nothing.
import { OWNER } from "../../cli/migrations/prepare.ts";
import type { Front, Rows, Shard } from "./shard.ts";

/** Statements that take a wall down and restore it, run as superuser. */
interface Swap {
  down: string;
  up: string;
}

/** A wall inside a function. It is taken down by replacing a part of the function's body. */
interface Weakening {
  function: string;
  part: string;
  by: string;
}

export type Wall = (Swap | Weakening) & {
  /** The check of the isolation proof that names this wall when it is down. Absent if the proof does not check it. */
  check?: string;
  /** The wall is in the other tenant's database. */
  there?: boolean;
};

/** Built-in functions that 0005_host_functions.sql revokes from tenants and that an attack tries. */
const hostFunctions = `lo_from_bytea(oid, bytea), lo_creat(integer), lo_create(oid), lo_put(oid, bigint, bytea),
  lo_unlink(oid), lo_open(oid, integer), pg_stat_get_activity(integer), pg_stat_get_backend_activity(integer), pg_notify(text, text),
  pg_advisory_lock(bigint), pg_advisory_xact_lock(integer, integer), pg_try_advisory_lock(bigint), pg_advisory_xact_lock(bigint),
  pg_terminate_backend(integer, bigint), pg_cancel_backend(integer), pg_sleep(double precision), pg_sleep_for(interval),
  pg_logical_emit_message(boolean, text, text, boolean), pg_export_snapshot()`;

/** Built-in functions that PostgreSQL reserves for the superuser and that an attack tries. */
const superuserFunctions = `pg_read_file(text), pg_read_binary_file(text), pg_ls_dir(text), pg_stat_file(text),
  lo_import(text), lo_export(oid, text), pg_ls_logdir(), pg_ls_waldir(), pg_ls_tmpdir(), pg_current_logfile(),
  pg_rotate_logfile(), pg_hba_file_rules(), pg_show_all_file_settings(), pg_stat_reset(), pg_reload_conf(), pg_switch_wal()`;

const hostRoles = "pg_execute_server_program, pg_read_server_files, pg_write_server_files, pg_read_all_data";
const statsRoles = "pg_monitor, pg_checkpoint";

/** Lets every role call the owner's functions with the owner's rights, and reverts that. */
const ownersFunctions = ({ grantee }: Front): Swap => {
  const each = (which: string, ...changes: string[]): string => `
    DO $do$ DECLARE f regprocedure; BEGIN
      FOR f IN SELECT oid FROM pg_proc WHERE pronamespace = 'tollgate'::regnamespace AND proname <> 'enter' AND ${which}
      LOOP ${changes.map((change) => `EXECUTE format('${change}', f);`).join(" ")} END LOOP;
    END $do$`;
  return {
    down: each(
      `NOT prosecdef AND NOT has_function_privilege('${grantee}', oid, 'EXECUTE')`,
      "ALTER FUNCTION %s SECURITY DEFINER",
      `GRANT EXECUTE ON FUNCTION %s TO ${grantee}`,
      "COMMENT ON FUNCTION %s IS ''opened''",
    ),
    up: each(
      "obj_description(oid) = 'opened'",
      "ALTER FUNCTION %s SECURITY INVOKER",
      `REVOKE EXECUTE ON FUNCTION %s FROM ${grantee}`,
      "COMMENT ON FUNCTION %s IS NULL",
    ),
  };
};

/** Comments and names with a tenant's name, which an operator might leave where every login can read them. */
const names = ({ otherRole, database }: Front): Swap => ({
  down: `
    COMMENT ON SCHEMA tollgate IS 'for globex'; COMMENT ON ROLE ${otherRole} IS 'of globex';
    COMMENT ON DATABASE ${database} IS 'of globex'; ALTER ROLE ${otherRole} SET tollgate.tenant = 'globex';
    CREATE ROLE globex_login; CREATE SCHEMA globex;
    CREATE TABLE globex.t (x text DEFAULT 'globex' CONSTRAINT c CHECK (x <> 'globex'));
    CREATE INDEX i ON globex.t (x) WHERE x = 'globex'; CREATE STATISTICS globex.s ON (x || 'globex') FROM globex.t;
    CREATE POLICY p ON globex.t USING (x = 'globex'); CREATE TYPE globex.e AS ENUM ('globex');
    CREATE TRIGGER g BEFORE UPDATE ON globex.t FOR EACH ROW WHEN (old.x = 'globex')
      EXECUTE FUNCTION suppress_redundant_updates_trigger();
    CREATE RULE r AS ON INSERT TO globex.t WHERE new.x = 'globex' DO INSTEAD NOTHING;
    CREATE FUNCTION globex.f() RETURNS text LANGUAGE sql AS $f$ SELECT 'globex' $f$; CREATE PUBLICATION globex`,
  up: `
    COMMENT ON SCHEMA tollgate IS NULL; COMMENT ON ROLE ${otherRole} IS NULL; COMMENT ON DATABASE ${database} IS NULL;
    ALTER ROLE ${otherRole} RESET tollgate.tenant; DROP ROLE globex_login; DROP PUBLICATION globex; DROP SCHEMA globex CASCADE`,
});

/** Opens a link out of the database. `apart`: also imports the other tenant's tables. */
const linkTo = ({ grantee, victimSchema, link }: Front, apart: boolean): Swap => {
  const everybody = ["CURRENT_USER", grantee];
  const door = `
    CREATE SERVER link FOREIGN DATA WRAPPER postgres_fdw
      OPTIONS (host '127.0.0.1', port '${link.port}', dbname '${link.database}');
    ${everybody.map((role) => `CREATE USER MAPPING FOR ${role} SERVER link OPTIONS (user 'postgres', password '${link.password}');`).join("")}
    CREATE SCHEMA ${victimSchema}; GRANT USAGE ON SCHEMA ${victimSchema} TO ${grantee};
    IMPORT FOREIGN SCHEMA ${victimSchema} FROM SERVER link INTO ${victimSchema};
    GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA ${victimSchema} TO ${grantee}`;
  return {
    down: `CREATE EXTENSION dblink SCHEMA tollgate; CREATE EXTENSION postgres_fdw; CREATE EXTENSION file_fdw;
      GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO ${grantee}; ${apart ? door : ""}`,
    up: `DROP EXTENSION dblink, postgres_fdw, file_fdw CASCADE; ${apart ? `DROP SCHEMA ${victimSchema} CASCADE` : ""}`,
  };
};

const granted = (what: string, to: string): Swap => ({
  down: `GRANT ${what} TO ${to}`,
  up: `REVOKE ${what} FROM ${to}`,
});
const joined = (roles: string, login: string): Swap => ({
  down: `GRANT ${roles} TO ${login} WITH INHERIT TRUE, SET TRUE`,
  up: `REVOKE ${roles} FROM ${login}`,
});
const attribute = (login: string, power: string): Swap => ({
  down: `ALTER ROLE ${login} ${power}`,
  up: `ALTER ROLE ${login} NO${power}`,
});

/** Walls of every tier. */
function commonWalls(front: Front) {
  const { database, login, schema, grantee, otherRole, secrets, analytics } = front;
  return {
    "no superuser": { ...attribute(login, "SUPERUSER"), check: "login_powers" },
    "no right to create roles": { ...attribute(login, "CREATEROLE"), check: "login_powers" },
    "no right to create databases": { ...attribute(login, "CREATEDB"), check: "login_powers" },
    "no replication": { ...attribute(login, "REPLICATION"), check: "login_powers" },
    "no role of the host": { ...joined(hostRoles, login), check: "login_memberships" },
    "no monitoring role": { ...joined(statsRoles, login), check: "login_memberships" },
    "no functions of the host": granted(`EXECUTE ON FUNCTION ${hostFunctions}`, "PUBLIC"),
    "no functions of the superuser": granted(`EXECUTE ON FUNCTION ${superuserFunctions}`, grantee),
    "no language for blocks": granted("USAGE ON LANGUAGE plpgsql", "PUBLIC"),
    "no temporary objects": { ...granted(`TEMPORARY ON DATABASE ${database}`, grantee), check: "creates_nothing" },
    "no durable objects": {
      down: `GRANT CREATE ON SCHEMA ${schema} TO ${grantee}; GRANT CREATE ON DATABASE ${database} TO ${grantee}`,
      up: `REVOKE CREATE ON SCHEMA ${schema} FROM ${grantee}; REVOKE CREATE ON DATABASE ${database} FROM ${grantee}`,
      check: "creates_nothing",
    },
    "no other role's name": joined(otherRole, login),
    "no analytics role": { ...joined(analytics, login), check: "login_memberships" },
    "the owner's tables revoked": granted(`SELECT, INSERT, UPDATE, DELETE ON ${secrets}`, grantee),
    "the change log revoked": granted(
      "SELECT, INSERT, UPDATE, DELETE ON tollgate.changes, tollgate.gates, tollgate.staged, tollgate.undone",
      grantee,
    ),
    "the owner's functions revoked": {
      ...ownersFunctions(front),
      check: "definer_functions",
    },
    "no ownership of the owner's functions": {
      down: `ALTER FUNCTION tollgate.enter(text, integer) OWNER TO ${login};
        ALTER FUNCTION tollgate.current_tenant() OWNER TO ${login}; GRANT CREATE ON SCHEMA tollgate TO ${login}`,
      up: `ALTER FUNCTION tollgate.enter(text, integer) OWNER TO ${OWNER};
        ALTER FUNCTION tollgate.current_tenant() OWNER TO ${OWNER}; REVOKE CREATE ON SCHEMA tollgate FROM ${login};
        GRANT EXECUTE ON FUNCTION tollgate.enter(text, integer), tollgate.current_tenant() TO ${grantee}`,
      check: "readable", // the proof can no longer identify the tenant
    },
    "no tenant's name in the catalogue": names(front),
    "the statement timeout": {
      function: "tollgate.enter(text, integer)",
      part: "pg_catalog.set_config('statement_timeout', statement_timeout_ms::pg_catalog.text, true)",
      by: "pg_catalog.set_config('statement_timeout', '5s', true)",
    },
  } satisfies Record<string, Wall>;
}

const sameMac =
  "sha256(found_inner || convert_to(encode(expected, 'hex'), 'UTF8')) = sha256(found_inner || convert_to(fields[6], 'UTF8'))";
const condition = (part: string, by = "true"): Weakening => ({ function: "tollgate.current_tenant()", part, by });

/** Walls of shared tables. */
export function sharedWalls(front: Front) {
  const { login, grantee, products } = front;
  const common = commonWalls(front);
  return {
    ...common,
    "row security": {
      down: `ALTER TABLE ${products} DISABLE ROW LEVEL SECURITY`,
      up: `ALTER TABLE ${products} ENABLE ROW LEVEL SECURITY`,
      check: "tables_walled",
    },
    "row security forced on the owner": {
      down: `ALTER TABLE ${products} NO FORCE ROW LEVEL SECURITY`,
      up: `ALTER TABLE ${products} FORCE ROW LEVEL SECURITY`,
      check: "tables_walled",
    },
    "a login that cannot bypass it": { ...attribute(login, "BYPASSRLS"), check: "login_powers" },
    "no policy but the tenant's": {
      down: `CREATE POLICY hole ON ${products} USING (true) WITH CHECK (true)`,
      up: `DROP POLICY hole ON ${products}`,
      check: "policies",
    },
    "no link to another database": linkTo(front, false),
    "no TRUNCATE": { ...granted(`TRUNCATE ON ${products}`, grantee), check: "tables_walled" },
    "keys that start with the tenant": {
      down: `CREATE UNIQUE INDEX leak ON ${products} (id) WHERE id LIKE 'secret-%'`,
      up: "DROP INDEX leak",
      check: "keys_start_with_tenant",
    },
    "no ownership": {
      down: `ALTER TABLE ${products} OWNER TO ${login}`,
      up: `ALTER TABLE ${products} OWNER TO ${OWNER}; GRANT SELECT, INSERT, UPDATE, DELETE ON ${products} TO ${grantee}`,
      check: "login_owns_nothing",
    },
    "the owner's tables revoked": { ...common["the owner's tables revoked"], check: "context_keys_unreadable" },
    "the change log revoked": { ...common["the change log revoked"], check: "tables_walled" },
    "the context's MAC": { ...condition(sameMac), check: "forged_context" },
    "the context's MAC and key": {
      ...condition(`${sameMac}\n      AND found_outer IS NOT NULL`),
      check: "forged_context",
    },
    "an installed key": condition("found_outer IS NOT NULL"),
    "the context's database": condition("fields[4] = current_database()"),
    "the context's expiry": { ...condition("seconds_left > 0 AND", ""), check: "expired_context" },
    "the longest life of a context": condition("seconds_left <= 600"),
  } satisfies Record<string, Wall>;
}

export type SharedWallName = keyof ReturnType<typeof sharedWalls>;
const nowhere = {
  database: "",
  login: "",
  schema: "",
  grantee: "",
  otherRole: "",
  analytics: "",
  products: "",
  victimSchema: "",
  secrets: "",
};
export const wallNames = Object.keys(
  sharedWalls({ ...nowhere, link: { port: 0, database: "", password: "" } }),
) as SharedWallName[];
type OwnWallName = keyof ReturnType<typeof ownWalls>;
export type WallName = SharedWallName | OwnWallName;

/** Walls of own schemas. `apart`: the other tenant's schema is in its own database. */
export function ownWalls(front: Front, { apart }: { apart: boolean }) {
  const { login, schema, victimSchema, products, link } = front;
  const common = commonWalls(front);
  const there = apart ? { there: true } : {};
  return {
    ...common,
    "rights on its own schema only": {
      down: `GRANT USAGE ON SCHEMA ${victimSchema} TO ${login};
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA ${victimSchema} TO ${login}`,
      up: `REVOKE ALL ON ALL TABLES IN SCHEMA ${victimSchema} FROM ${login}; REVOKE ALL ON SCHEMA ${victimSchema} FROM ${login}`,
      ...(apart ? there : { check: "only_its_schema" }),
    },
    "no other role's name": { ...common["no other role's name"], check: "login_memberships" },
    "no link to another database": { ...linkTo(front, apart), ...(apart && { check: "only_its_tables" }) },
    ...(apart && {
      "no CONNECT on the other database": { ...granted(`CONNECT ON DATABASE ${link.database}`, login), ...there },
    }),
    "the owner's tables revoked": { ...common["the owner's tables revoked"], check: "only_its_tables" },
    "the change log revoked": { ...common["the change log revoked"], check: "only_its_tables" },
    "no TRUNCATE": {
      ...granted(`TRUNCATE ON ${products}`, login),
      ...(apart ? there : { check: "only_its_tables" }),
    },
    "no ownership": {
      down: `ALTER TABLE ${products} OWNER TO ${login}`,
      up: `ALTER TABLE ${products} OWNER TO ${OWNER}; GRANT SELECT, INSERT, UPDATE, DELETE ON ${products} TO ${victimSchema}`,
      check: "login_owns_nothing", // in any database
      ...there,
    },
    "no ownership of its own tables": {
      down: `ALTER TABLE ${schema}.products OWNER TO ${login}; GRANT CREATE ON SCHEMA ${schema} TO ${login}`,
      up: `ALTER TABLE ${schema}.products OWNER TO ${OWNER}; REVOKE CREATE ON SCHEMA ${schema} FROM ${login};
        GRANT SELECT, INSERT, UPDATE, DELETE ON ${schema}.products TO ${login}`,
      check: "login_owns_nothing",
    },
    "the check on tenant_id": {
      down: `ALTER TABLE ${products} DROP CONSTRAINT tenant_id_is_mine`,
      up: `ALTER TABLE ${products} ADD CONSTRAINT tenant_id_is_mine CHECK (tenant_id = tollgate.current_tenant()) NOT VALID`,
      ...there,
    },
    "the check on its own tenant_id": {
      down: `ALTER TABLE ${schema}.products DROP CONSTRAINT tenant_id_is_mine`,
      up: `DELETE FROM ${schema}.products WHERE tenant_id <> 'acme';
        ALTER TABLE ${schema}.products ADD CONSTRAINT tenant_id_is_mine CHECK (tenant_id = tollgate.current_tenant()) NOT VALID`,
    },
    "the function quotes the schema's name": {
      function: "tollgate.enter(text, integer)",
      part: "'pg_catalog, %I, pg_temp'",
      by: "'pg_catalog, %s, pg_temp'",
    },
    "the tenant of the login": {
      function: "tollgate.current_tenant()",
      part: "(t.role = SESSION_USER)",
      by: "(t.tenant_id = current_setting('tollgate.context'))",
      check: "readable",
    },
  } satisfies Record<string, Wall>;
}

/** Takes a wall down as superuser of its database. Returns the function that restores it. */
export async function takeDown(
  superuser: (sql: string, params?: unknown[]) => Promise<Rows>,
  wall: Wall,
): Promise<() => Promise<void>> {
  let { down, up } = wall as Swap;
  if ("part" in wall) {
    const [row] = await superuser("SELECT pg_get_functiondef($1::regprocedure) AS definition", [wall.function]);
    up = String(row?.["definition"]);
    if (!up.includes(wall.part)) throw new Error(`${wall.function} no longer contains: ${wall.part}`);
    down = up.replace(wall.part, () => wall.by);
  }
  await superuser(down);
  return async () => void (await superuser(up));
}

/** Runs `work` while a wall is down. Always restores the wall afterwards. */
export async function withoutWall<Result>(
  shard: Pick<Shard, "front" | "superuser">,
  name: SharedWallName,
  work: (check: string | undefined) => Promise<Result>,
): Promise<Result> {
  const wall: Wall = sharedWalls(shard.front)[name];
  const putUp = await takeDown(shard.superuser, wall);
  try {
    return await work(wall.check);
  } finally {
    await putUp();
  }
}
