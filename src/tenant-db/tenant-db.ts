// A tenant's rows. Each call is one batch of two statements: the first undoes what was left on the pooled connection and
// enters the tenant, by a signed context on shared tables, by naming its schema elsewhere; the second is the tool's own.
// The wall is in the database (migrations/shared/0002_context.sql, migrations/branch): nothing here is trusted to keep
// tenants apart.
import type { KeyRing } from "../core/encryption.ts";
import { signContext } from "./signed-context.ts";
import { AppError } from "../core/errors.ts";
import { type Row, type Statement, isDataStatement } from "../core/sql.ts";
import type { TenantId } from "../core/tenant.ts";
import { TOOL_TIMEOUT_MS, type TenantDb, type Transaction } from "../tools/tool.ts";
import { connectNeon, sqlStateOf } from "../adapters/neon.ts";
import { preferReplica } from "../adapters/replica.ts";
import type { SessionPool } from "./session-pool.ts";

/** How a batch enters the tenant: the statement that opens it. */
export type Entrance = (statementTimeoutMs: number) => Promise<Statement>;

export interface TenantDbOptions {
  url: string;
  /** Empty for Neon's own. */
  fetchEndpoint: string;
  entrance: Entrance;
  now: () => number;
  /** For transactions that take turns with the tool; without them, those are refused. */
  sessions?: SessionPool;
  /** Where `analytics` reads while it answers; the primary if there is no replica. */
  analyticsUrl?: string;
  /** Told when that did not answer and the primary was asked instead. */
  onReplicaAway?: (error: unknown) => void;
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

/** The same for what only reads, and for a replica, which accepts nothing else. */
const readOnlyTransaction: Statement = { text: "SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY" };
const begin: Statement = { text: "BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE" };
const commit: Statement = { text: "COMMIT" };
const rollback: Statement = { text: "ROLLBACK" };

/** What a default that somebody left makes of a good batch: read-only (25006), or in conflict with others (40001). */
const inheritedModes: readonly (string | undefined)[] = ["25006", "40001"];
const QUERY_CANCELED = "57014";

/** Opens a batch of a login with a schema of its own. */
export function enterOwnSchema(schema: string, statementTimeoutMs: number): Statement {
  return { text: "SELECT tollgate.enter($1, $2)", params: [schema, statementTimeoutMs] };
}

/** By a signed context, used for as long as it is good. */
export function contextEntrance(options: {
  contextKeys: KeyRing;
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
  const { entrance, now, sessions, statementTimeoutMs = TOOL_TIMEOUT_MS, onRoundTrip } = options;
  const { url, analyticsUrl, fetchEndpoint, onReplicaAway = () => undefined } = options;
  const connection = connectNeon(url, fetchEndpoint);
  const replica = analyticsUrl === undefined ? undefined : connectNeon(analyticsUrl, fetchEndpoint);
  const read = preferReplica({ primary: connection, replica, now, onAway: onReplicaAway });

  /** Goes before each further statement of a transaction: the one before may have lifted the limit for those after it. */
  const bounded: Statement = {
    text: "SELECT pg_catalog.set_config('statement_timeout', $1, true)",
    params: [String(statementTimeoutMs)],
  };

  /** Sends statements inside the tenant, over whatever carries a batch. The rows of each of them. */
  async function run(
    statements: readonly Statement[],
    send: (batch: readonly Statement[]) => Promise<Row[][]>,
    { readOnly = false } = {},
  ): Promise<Row[][]> {
    const entered = [await entrance(statementTimeoutMs), ...statements];
    const batch = readOnly ? [readOnlyTransaction, ...entered] : entered;
    const startedAtMs = now();
    const sent = async (all: readonly Statement[]): Promise<Row[][]> => {
      onRoundTrip?.();
      return (await send(all)).slice(-statements.length);
    };
    try {
      return await sent(batch);
    } catch (error) {
      // Two kinds of leftovers act before `enter` can undo them: a default mode for transactions, and a timeout shorter
      // than ours. The refused batch was rolled back, so it may be sent again; this one begins by choosing its mode, and
      // when it commits, the connection is clean for whoever is next.
      const sqlState = sqlStateOf(error);
      // What only reads has chosen its mode: there these codes are a write, and a replica's conflict with what it replays.
      const cutShort = sqlState === QUERY_CANCELED && now() - startedAtMs < statementTimeoutMs;
      if (!cutShort && (readOnly || !inheritedModes.includes(sqlState))) throw error;
      return sent(readOnly ? batch : [plainTransaction, ...batch]);
    }
  }

  async function together(statements: readonly Statement[], signal?: AbortSignal): Promise<Row[][]> {
    for (const { text } of statements) refuseOthers(text);
    if (statements.length === 0) return [];
    const all = statements.flatMap((statement, index) => (index === 0 ? [statement] : [bounded, statement]));
    // A session that is open anyway is as fast; opening one for a single round trip would not be.
    const results =
      sessions !== undefined && sessions.stats().idle > 0
        ? await sessions.use((session) => run(all, (batch) => session.batch(batch, { signal })), { signal })
        : await run(all, (batch) => connection.batch(batch, { signal }));
    return results.filter((_, index) => index % 2 === 0);
  }

  function interact<Result>(
    work: (transaction: Transaction) => Promise<Result>,
    signal?: AbortSignal,
  ): Promise<Result> {
    if (sessions === undefined) throw new AppError("sessions_unavailable", "this way to the rows has no sessions");
    return sessions.use(
      async (session) => {
        let state: "fresh" | "open" | "over" = "fresh";
        const first = async (batch: readonly Statement[]): Promise<Row[][]> => {
          if (session.transaction !== "none") await session.batch([rollback], { signal });
          return session.batch([begin, ...batch.filter((statement) => statement !== plainTransaction)], { signal });
        };
        const one = async (statement: Statement): Promise<unknown[]> => {
          refuseOthers(statement.text);
          if (state === "over") throw new AppError("tool_failed", "the transaction is over");
          if (state === "open") onRoundTrip?.();
          const results =
            state === "fresh" ? await run([statement], first) : await session.batch([bounded, statement], { signal });
          state = "open";
          return results.at(-1) ?? [];
        };
        try {
          const result = await orAborted(work(transactionOf(one)), signal);
          // PostgreSQL would answer the COMMIT of a failed transaction with a rollback, and without an error.
          if (session.transaction === "failed")
            throw new AppError("tool_failed", "a statement of the transaction failed");
          if (session.transaction === "open") {
            onRoundTrip?.();
            await session.batch([commit], { signal });
          }
          return result;
        } finally {
          state = "over";
        }
      },
      { signal },
    );
  }

  const forCall = (signal?: AbortSignal): TenantDb => ({
    ...transactionOf(async (statement) => {
      refuseOthers(statement.text);
      const [rows = []] = await run([statement], (batch) => connection.batch(batch, { signal }));
      return rows;
    }),
    transaction: <Result>(
      work: readonly Statement[] | ((transaction: Transaction) => Promise<Result>),
    ): Promise<Row[][]> & Promise<Result> =>
      // The overloads tell which of the two is meant.
      (typeof work === "function" ? interact(work, signal) : together(work, signal)) as Promise<Row[][]> &
        Promise<Result>,
    analytics: async <Found extends Row>(text: string, params: readonly unknown[] = []) => {
      refuseOthers(text);
      const [rows = []] = await read(
        (from) => run([{ text, params }], (batch) => from.batch(batch, { signal }), { readOnly: true }),
        signal,
      );
      return rows as Found[];
    },
  });
  return { ...forCall(), forCall };
}

/** Both forms of rows. */
function transactionOf(one: (statement: Statement) => Promise<unknown[]>): Transaction {
  return {
    query: async <Found extends Row>(text: string, params: readonly unknown[] = []) =>
      (await one({ text, params })) as Found[],
    values: async (text, params = []) => (await one({ text, params, asValues: true })) as unknown[][],
  };
}

/** A tool sends statements about data alone: what opens a batch must hold until its end. */
function refuseOthers(text: string): void {
  if (isDataStatement(text)) return;
  throw new AppError("tool_failed", "a tool sends one SELECT, INSERT, UPDATE, DELETE, MERGE, VALUES or WITH statement");
}

/** Stops waiting when the call is over: `work` may hang in something else than the database. */
export async function orAborted<Result>(work: Promise<Result>, signal: AbortSignal | undefined): Promise<Result> {
  if (signal === undefined) return work;
  const aborted = Promise.withResolvers<never>();
  const onAbort = (): void => aborted.reject(new AppError("tool_aborted", "the call is over"));
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  try {
    return await Promise.race([work, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
    work.catch(() => undefined); // nobody waits for it any more
  }
}
