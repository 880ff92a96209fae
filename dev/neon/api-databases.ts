// The databases behind the stand-in for Neon's API, in one PostgreSQL cluster: a branch is a database, a project is a role
// that owns databases.
//
// Invariants: every step can be repeated after a kill at any point. Only the owner, and roles that the owner allows, can
// connect. Only roles that the owner made are dropped.
import { setTimeout as sleep } from "node:timers/promises";
import { Client, DatabaseError, escapeIdentifier, escapeLiteral } from "pg";

/** https://neon.com/docs/manage/roles: the limit of roles of a branch, its owner included. */
const MAX_ROLES = 500;
/** The local proxy keeps an idle connection for 30 s. A parent in constant use never becomes free, so the wait is bounded. */
const COPY_PATIENCE_MS = 60_000;
const COPY_RETRY_MS = 100;
/** The mark of a database whose DROP was killed: it is unusable and can only be dropped again. */
const INVALID_DATABASE = -2;

export interface Databases {
  /** Creates the owner's login and an empty database. */
  create(place: { database: string; owner: string; password: string }): Promise<void>;
  /**
   * Creates a database with the content and the rights of `parent`. PostgreSQL copies only a database without connections,
   * so this waits, and rejects when the parent stays in use.
   */
  copy(place: { database: string; parent: string; owner: string; signal: AbortSignal }): Promise<void>;
  /** Drops a database despite its connections, and the owner's roles that no other database uses. */
  remove(place: { database: string; owner: string }): Promise<void>;
  /** Drops the owner with all its databases and roles. */
  removeAll(place: { databases: string[]; owner: string }): Promise<void>;
}

export function connectDatabases(superuserUrl: string, maxRoles: number = MAX_ROLES): Databases {
  const remove: Databases["remove"] = async ({ database, owner }) => {
    await withSuperuser(superuserUrl, { lock: owner }, async (client) => {
      const letIn = (await rights(client, database)).map(({ role }) => role);
      const made = await rolesMadeBy(client, owner);
      await client.query(`DROP DATABASE IF EXISTS ${escapeIdentifier(database)} WITH (FORCE)`);
      await dropUnused(
        client,
        made.filter((role) => letIn.includes(role)),
      );
    });
  };

  return {
    create: async ({ database, owner, password }) => {
      await withSuperuser(superuserUrl, { lock: owner }, async (client) => {
        const known = await client.query("SELECT FROM pg_roles WHERE rolname = $1", [owner]);
        const verb = known.rows.length === 0 ? "CREATE" : "ALTER";
        await client.query(
          `${verb} ROLE ${escapeIdentifier(owner)} LOGIN CREATEROLE PASSWORD ${escapeLiteral(password)}`,
        );
        await makeDatabase(client, database, owner, "template0");
        // On Neon the roles of other projects do not exist in a branch. PUBLIC keeps its other rights, as on Neon.
        await client.query(`REVOKE CONNECT ON DATABASE ${escapeIdentifier(database)} FROM PUBLIC`);
      });
      await limitRoles(superuserUrl, database, maxRoles);
    },

    copy: async ({ database, parent, owner, signal }) => {
      const untilMs = Date.now() + COPY_PATIENCE_MS;
      await withSuperuser(superuserUrl, { lock: owner }, async (client) => {
        while (!(await tryCopy(client, database, owner, parent))) {
          if (Date.now() > untilMs)
            throw new Error(`${parent} is in use. PostgreSQL copies a database only when it has no connections.`);
          await sleep(COPY_RETRY_MS, undefined, { signal });
        }
        // PostgreSQL copies a database's content, but not its CONNECT rights.
        const name = escapeIdentifier(database);
        await client.query(`REVOKE ALL ON DATABASE ${name} FROM PUBLIC`);
        for (const { role, privileges } of await rights(client, parent)) {
          const grantee = role === "" ? "PUBLIC" : escapeIdentifier(role);
          await client.query(`GRANT ${privileges} ON DATABASE ${name} TO ${grantee}`);
        }
      });
      await limitRoles(superuserUrl, database, maxRoles);
    },

    remove,

    removeAll: async ({ databases, owner }) => {
      for (const database of databases) await remove({ database, owner });
      await withSuperuser(superuserUrl, { lock: owner }, async (client) => {
        await dropUnused(client, await rolesMadeBy(client, owner));
        await dropUnused(client, [owner]);
      });
    },
  };
}

/**
 * Makes a database refuse more than `maxRoles` roles, like Neon; here roles that can connect to it count. PostgreSQL has no
 * event for CREATE ROLE, so the next CREATE SCHEMA is refused, in the same transaction if the role is made for that schema:
 * SQLSTATE 54000, "too many roles". Can be repeated, also with another limit.
 */
export async function limitRoles(superuserUrl: string, database: string, maxRoles: number = MAX_ROLES): Promise<void> {
  const limit = Math.trunc(maxRoles);
  await withSuperuser(superuserUrl, { database, lock: "neon_limit_roles" }, async (client) => {
    // One message is one transaction.
    await client.query(`
      CREATE SCHEMA IF NOT EXISTS neon;
      CREATE OR REPLACE FUNCTION neon.limit_roles() RETURNS event_trigger LANGUAGE plpgsql
      SET search_path = pg_catalog, pg_temp
      AS $$
      BEGIN
        IF (SELECT count(DISTINCT acl.grantee) FROM pg_database d CROSS JOIN LATERAL aclexplode(d.datacl) acl
            WHERE d.datname = current_database() AND acl.privilege_type = 'CONNECT' AND acl.grantee <> 0) > ${limit} THEN
          RAISE EXCEPTION 'too many roles' USING ERRCODE = 'program_limit_exceeded',
            DETAIL = 'A branch of Neon takes ${limit} roles.';
        END IF;
      END $$;
      REVOKE ALL ON FUNCTION neon.limit_roles() FROM PUBLIC;
      DROP EVENT TRIGGER IF EXISTS neon_limit_roles;
      CREATE EVENT TRIGGER neon_limit_roles ON ddl_command_end WHEN TAG IN ('CREATE SCHEMA')
        EXECUTE FUNCTION neon.limit_roles();`);
  });
}

/** PostgreSQL is down, starting, stopping or out of connections. The work can succeed later. */
export class ServerAway extends Error {}

/**
 * Runs work on its own connection, one at a time for each lock. The server may still run a statement of a killed process;
 * the lock waits for it. Rejects with `ServerAway` or with the error of the work.
 */
async function withSuperuser<T>(
  superuserUrl: string,
  { database, lock }: { database?: string; lock: string },
  work: (client: Client) => Promise<T>,
): Promise<T> {
  const url = new URL(superuserUrl);
  if (database !== undefined) url.pathname = `/${encodeURIComponent(database)}`;
  const client = new Client({ connectionString: url.href, application_name: "neon-api" });
  let isConnected = false;
  let isLost = false;
  // Without a listener, a broken connection would end the process. It can break before `connect` returns.
  client.on("error", () => (isLost = true));
  try {
    await client.connect();
    isConnected = true;
    await client.query("SELECT pg_advisory_lock(hashtext($1))", [lock]);
    return await work(client);
  } catch (error) {
    const sqlState = error instanceof DatabaseError ? (error.code ?? "") : undefined;
    const isAway = sqlState === undefined ? isLost || !isConnected : /^(08|53|57P)/.test(sqlState);
    throw isAway ? new ServerAway("PostgreSQL is away", { cause: error }) : error;
  } finally {
    await client.end().catch(() => undefined);
  }
}

/** Creates a database if it does not exist. It exists completely or not at all. */
async function makeDatabase(client: Client, database: string, owner: string, template: string): Promise<void> {
  const name = escapeIdentifier(database);
  const found = await client.query<{ datconnlimit: number }>(
    "SELECT datconnlimit FROM pg_database WHERE datname = $1",
    [database],
  );
  if (found.rows[0]?.datconnlimit === INVALID_DATABASE) await client.query(`DROP DATABASE ${name}`);
  else if (found.rows.length > 0) return;
  await client.query(`CREATE DATABASE ${name} OWNER ${escapeIdentifier(owner)} TEMPLATE ${escapeIdentifier(template)}`);
}

async function tryCopy(client: Client, database: string, owner: string, parent: string): Promise<boolean> {
  const users = await client.query(
    "SELECT FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend' LIMIT 1",
    [parent],
  );
  if (users.rows.length > 0) return false;
  try {
    await makeDatabase(client, database, owner, parent);
    return true;
  } catch (error) {
    // A client has connected in the meantime.
    if (error instanceof DatabaseError && error.code === "55006") return false;
    throw error;
  }
}

/** The rights on a database. The empty role name is PUBLIC. */
async function rights(client: Client, database: string): Promise<{ role: string; privileges: string }[]> {
  const { rows } = await client.query<{ role: string; privileges: string }>(
    `SELECT coalesce(r.rolname, '') AS role, string_agg(DISTINCT acl.privilege_type, ', ') AS privileges
     FROM pg_database d CROSS JOIN LATERAL aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) acl
     LEFT JOIN pg_roles r ON r.oid = acl.grantee
     WHERE d.datname = $1 GROUP BY 1`,
    [database],
  );
  return rows;
}

/** Roles made by the owner: PostgreSQL grants their creator the ADMIN option. */
async function rolesMadeBy(client: Client, owner: string): Promise<string[]> {
  const { rows } = await client.query<{ role: string }>(
    `SELECT made.rolname AS role FROM pg_auth_members m
     JOIN pg_roles made ON made.oid = m.roleid JOIN pg_roles owner ON owner.oid = m.member
     WHERE owner.rolname = $1 AND m.admin_option AND NOT made.rolsuper AND made.rolname NOT LIKE 'pg\\_%'`,
    [owner],
  );
  return rows.map(({ role }) => role);
}

/** Keeps roles with dependent objects: in one cluster a role belongs to every branch that has a copy of it. */
async function dropUnused(client: Client, roles: readonly string[]): Promise<void> {
  for (const role of roles) {
    try {
      await client.query(`DROP ROLE IF EXISTS ${escapeIdentifier(role)}`);
    } catch (error) {
      if (!(error instanceof DatabaseError && error.code === "2BP01")) throw error;
    }
  }
}
