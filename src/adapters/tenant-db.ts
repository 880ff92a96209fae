// A tenant's rows. Each call is one batch of two statements: the first undoes what was left on the pooled connection and
// enters the tenant, by a signed context on shared tables, by naming its schema elsewhere; the second is the tool's own.
// The wall is in the database (migrations/shared/0002_context.sql, migrations/branch): nothing here is trusted to keep
// tenants apart.
import { type ContextKeys, signContext } from "../core/context.ts";
import { AppError } from "../core/errors.ts";
import type { TenantId } from "../core/tenant.ts";
import { TOOL_TIMEOUT_MS, type TenantDb } from "../tools/tool.ts";
import { connectNeon, sqlStateOf, type Statement } from "./neon.ts";

/** How a batch enters the tenant: the statement that opens it. */
export type Entrance = (statementTimeoutMs: number) => Promise<Statement>;

export interface TenantDbOptions {
  url: string;
  /** Empty for Neon's own. */
  fetchEndpoint: string;
  entrance: Entrance;
  now: () => number;
  /** The database stops a statement after this long. */
  statementTimeoutMs?: number;
  /** Called before every request to the database. */
  onRoundTrip?: () => void;
}

export interface CallScopedDb extends TenantDb {
  /** The same rows for one call: an abort of its signal abandons what the call is waiting for. */
  forCall(signal: AbortSignal): TenantDb;
}

/** Long enough to be signed rarely, short enough that one that leaked is soon worthless. */
const CONTEXT_LIFE_MS = 120_000;
/** Signed anew when less is left: more than any statement may wait to begin, the clocks' difference included. */
const CONTEXT_LEFT_MS = 60_000;

/**
 * Opens a batch: what the connection's last user left is gone, and `context` holds until the end of the transaction.
 * An empty context is none.
 */
export function enterTenant(context: string, statementTimeoutMs: number): Statement {
  return { text: "SELECT tollgate.enter($1, $2)", params: [context, statementTimeoutMs] };
}

/**
 * Goes before `enterTenant` where the connection's own default for transactions must not matter: `enterTenant` comes too
 * late for that, since a transaction's mode is fixed once a statement has run in it.
 */
export const plainTransaction: Statement = { text: "SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE" };

/** What a default that somebody left makes of a good batch: read-only (25006), or in conflict with others (40001). */
const inheritedModes: readonly (string | undefined)[] = ["25006", "40001"];
const QUERY_CANCELED = "57014";

/** By its first word the parser takes a text for a data statement or for none; PostgreSQL takes one statement a message. */
const dataStatement = /^\s*(?:select|insert|update|delete|merge|values|with)\b/i;

/** Opens a batch of a login with a schema of its own. */
export function enterOwnSchema(schema: string, statementTimeoutMs: number): Statement {
  return { text: "SELECT tollgate.enter($1, $2)", params: [schema, statementTimeoutMs] };
}

/** By a signed context, used for as long as it is good. */
export function contextEntrance(options: {
  contextKeys: ContextKeys;
  tenantId: TenantId;
  database: string;
  now: () => number;
}): Entrance {
  const { contextKeys, tenantId, database, now } = options;
  let held: { context: string; expiresAtMs: number } | undefined;
  return async (statementTimeoutMs) => {
    if (held === undefined || held.expiresAtMs - now() < CONTEXT_LEFT_MS) {
      const [{ id: keyId, secret }] = contextKeys;
      const expiresAtMs = now() + CONTEXT_LIFE_MS;
      held = { context: await signContext({ keyId, secret, tenantId, database, expiresAtMs }), expiresAtMs };
    }
    return enterTenant(held.context, statementTimeoutMs);
  };
}

/** By the name of the login's own schema. */
export function ownSchemaEntrance(schema: string): Entrance {
  return async (statementTimeoutMs) => enterOwnSchema(schema, statementTimeoutMs);
}

/** Opens nothing: the first query does. */
export function createTenantDb(options: TenantDbOptions): CallScopedDb {
  const { entrance, now, statementTimeoutMs = TOOL_TIMEOUT_MS, onRoundTrip } = options;
  const connection = connectNeon(options.url, options.fetchEndpoint);

  async function run<Row>(text: string, params: readonly unknown[], signal?: AbortSignal): Promise<Row[]> {
    if (!dataStatement.test(text)) {
      throw new AppError(
        "tool_failed",
        "a tool sends one SELECT, INSERT, UPDATE, DELETE, MERGE, VALUES or WITH statement",
      );
    }
    const batch = [await entrance(statementTimeoutMs), { text, params }];
    const startedAtMs = now();
    const send = async (statements: readonly Statement[]): Promise<Row[]> => {
      onRoundTrip?.();
      return (await connection.batch(statements, { signal })).at(-1) as Row[];
    };
    try {
      return await send(batch);
    } catch (error) {
      // Two kinds of leftovers act before `enterTenant` can undo them: a default mode for transactions, and a timeout
      // shorter than ours. The refused batch was rolled back, so it may be sent again; this one begins by choosing its
      // mode, and when it commits, the connection is clean for whoever is next.
      const sqlState = sqlStateOf(error);
      const cutShort = sqlState === QUERY_CANCELED && now() - startedAtMs < statementTimeoutMs;
      if (!cutShort && !inheritedModes.includes(sqlState)) throw error;
      return send([plainTransaction, ...batch]);
    }
  }

  return {
    query: (text, params = []) => run(text, params),
    forCall: (signal) => ({ query: (text, params = []) => run(text, params, signal) }),
  };
}
