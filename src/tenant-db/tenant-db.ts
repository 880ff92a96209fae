// A tenant's rows, as a tool uses them. A query is one batch of two statements: the first resets the pooled connection and
// enters the tenant, by a signed context on shared tables and by the name of its schema elsewhere; the second is the tool's.
// The database keeps tenants apart (migrations/shared, migrations/branch). No code here is trusted to do so.
import type { KeyRing } from "../core/keys/encryption.ts";
import { signContext } from "./signed-context.ts";
import { AppError } from "../core/errors.ts";
import { type Row, type Statement, isDataStatement } from "../core/sql.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import { TOOL_TIMEOUT_MS, type TenantDb, type Transaction } from "../tools/tool.ts";
import { type NeonConnection, connectNeon, sqlStateOf } from "../adapters/neon.ts";
import { preferReplica } from "../adapters/replica.ts";
import { type SlotShare, withSlot } from "./database-slots.ts";
import type { SessionPool } from "./session-pool.ts";

/** Makes the statement that opens a batch and enters the tenant. */
export type Entrance = (statementTimeoutMs: number) => Promise<Statement>;

export interface TenantDbOptions {
  url: string;
  /** Empty means Neon's own. */
  fetchEndpoint: string;
  entrance: Entrance;
  now: () => number;
  /** For interactive transactions. Without it they are refused. */
  sessions?: SessionPool;
  /** The replica that `analytics` reads from. Without it, and while it is away, `analytics` reads from the primary. */
  analyticsUrl?: string;
  /** Called when the replica did not answer and the primary is read instead. */
  onReplicaAway?: (error: unknown) => void;
  /** The database stops a statement after this long. */
  statementTimeoutMs?: number;
  /** The tenant's claim to the isolate's database slots. Without it, statements never wait for one. */
  share?: () => SlotShare;
  /** Called before every request to the database. */
  onRoundTrip?: () => void;
}

export interface CallScopedDb extends TenantDb {
  /** The same rows for one call. An abort of its signal ends the call's waits. */
  forCall(signal: AbortSignal): TenantDb;
}

/** Long enough to sign rarely, short enough that a leaked context soon becomes useless. */
const CONTEXT_LIFE_MS = 120_000;
/** A context with less time left is replaced. More than a statement can wait to begin, clock differences included. */
const CONTEXT_LEFT_MS = 60_000;

/**
 * Opens a batch: resets what the connection's last user left and enters a tenant until the end of the transaction. `as` is
 * a signed context on shared tables (empty: no tenant) and the schema's name elsewhere.
 */
export function enterTenant(as: string, statementTimeoutMs: number): Statement {
  return { text: "SELECT tollgate.enter($1, $2)", params: [as, statementTimeoutMs] };
}

/**
 * Goes before `enterTenant` where the connection's default transaction mode must not matter. `enterTenant` comes too late
 * to change the mode: it is fixed once a statement has run.
 */
export const plainTransaction: Statement = { text: "SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE" };

/** The same for read-only batches. A replica accepts no other mode. */
const readOnlyTransaction: Statement = { text: "SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY" };
/** Goes first where a left-over limit on statements would end the opening of a batch. `enterTenant` sets the batch's own. */
const withoutLimit: Statement = { text: "SET LOCAL statement_timeout TO 0" };
const begin: Statement = { text: "BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE" };
const commit: Statement = { text: "COMMIT" };
const rollback: Statement = { text: "ROLLBACK" };

/** Errors that a left-over default mode causes in a correct batch: read-only (25006) and a serialization conflict (40001). */
const inheritedModes: readonly (string | undefined)[] = ["25006", "40001"];
const QUERY_CANCELED = "57014";

/** Enters by a signed context, which is reused while it has enough time left. */
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

/** Enters by the name of the login's own schema. */
export function ownSchemaEntrance(schema: string): Entrance {
  return async (statementTimeoutMs) => enterTenant(schema, statementTimeoutMs);
}

/** Connects on the first query, not before. */
export function createTenantDb(options: TenantDbOptions): CallScopedDb {
  const { entrance, now, sessions, statementTimeoutMs = TOOL_TIMEOUT_MS, share, onRoundTrip } = options;
  const { url, analyticsUrl, fetchEndpoint, onReplicaAway = () => undefined } = options;
  const connection = connectNeon(url, fetchEndpoint);
  const replica = analyticsUrl === undefined ? undefined : connectNeon(analyticsUrl, fetchEndpoint);
  const read = preferReplica({ primary: connection, replica, now, onAway: onReplicaAway });

  /** Goes before each further statement of a transaction, because the previous one may have raised the limit. */
  const bounded: Statement = {
    text: "SELECT pg_catalog.set_config('statement_timeout', $1, true)",
    params: [String(statementTimeoutMs)],
  };

  /** Sends statements inside the tenant with `send`. Returns the rows of each. */
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
      // Two kinds of left-over settings act before `enter` can reset them: a default transaction mode and a short timeout.
      // The database rolled the refused batch back, so it may be sent again. The second batch chooses its mode first, and its
      // commit leaves a clean connection.
      const sqlState = sqlStateOf(error);
      // A read-only batch has chosen its mode already. Its codes mean a write, or a replica's conflict with replayed changes.
      const cutShort = sqlState === QUERY_CANCELED && now() - startedAtMs < statementTimeoutMs;
      if (!cutShort && (readOnly || !inheritedModes.includes(sqlState))) throw error;
      return sent(readOnly ? [withoutLimit, ...batch] : [plainTransaction, withoutLimit, ...batch]);
    }
  }

  /** Sends over HTTP, where all tenants of the isolate share connections. A session is the tenant's own. */
  function sendTo(to: NeonConnection, signal?: AbortSignal): (batch: readonly Statement[]) => Promise<Row[][]> {
    const send = (batch: readonly Statement[]): Promise<Row[][]> => to.batch(batch, { signal });
    return share === undefined ? send : (batch) => withSlot(share(), () => send(batch), signal);
  }

  async function together(statements: readonly Statement[], signal?: AbortSignal): Promise<Row[][]> {
    for (const { text } of statements) refuseOtherStatements(text);
    if (statements.length === 0) return [];
    const all = statements.flatMap((statement, index) => (index === 0 ? [statement] : [bounded, statement]));
    // An idle session is as fast as HTTP. Opening one for a single round trip would be slower.
    const results =
      sessions !== undefined && sessions.stats().idle > 0
        ? await sessions.use((session) => run(all, (batch) => session.batch(batch, { signal })), { signal })
        : await run(all, sendTo(connection, signal));
    return results.filter((_, index) => index % 2 === 0);
  }

  function interact<Result>(
    work: (transaction: Transaction) => Promise<Result>,
    signal?: AbortSignal,
  ): Promise<Result> {
    if (sessions === undefined) throw new AppError("sessions_unavailable", "sessions are not available here");
    return sessions.use(
      async (session) => {
        let state: "fresh" | "open" | "over" = "fresh";
        const first = async (batch: readonly Statement[]): Promise<Row[][]> => {
          if (session.transaction !== "none") await session.batch([rollback], { signal });
          return session.batch([begin, ...batch.filter((statement) => statement !== plainTransaction)], { signal });
        };
        const one = async (statement: Statement): Promise<unknown[]> => {
          refuseOtherStatements(statement.text);
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
      refuseOtherStatements(statement.text);
      const [rows = []] = await run([statement], sendTo(connection, signal));
      return rows;
    }),
    transaction: <Result>(
      work: readonly Statement[] | ((transaction: Transaction) => Promise<Result>),
    ): Promise<Row[][]> & Promise<Result> =>
      // The overloads guarantee the result's type.
      (typeof work === "function" ? interact(work, signal) : together(work, signal)) as Promise<Row[][]> &
        Promise<Result>,
    analytics: async <Found extends Row>(text: string, params: readonly unknown[] = []) => {
      refuseOtherStatements(text);
      const [rows = []] = await read(
        (from) => run([{ text, params }], sendTo(from, signal), { readOnly: true }),
        signal,
      );
      return rows as Found[];
    },
  });
  return { ...forCall(), forCall };
}

/** Adds both forms of results, rows and values. */
function transactionOf(one: (statement: Statement) => Promise<unknown[]>): Transaction {
  return {
    query: async <Found extends Row>(text: string, params: readonly unknown[] = []) =>
      (await one({ text, params })) as Found[],
    values: async (text, params = []) => (await one({ text, params, asValues: true })) as unknown[][],
  };
}

/** Refuses statements that are not about data, which could undo the statement that entered the tenant. */
function refuseOtherStatements(text: string): void {
  if (isDataStatement(text)) return;
  throw new AppError("tool_failed", "a tool sends one SELECT, INSERT, UPDATE, DELETE, MERGE, VALUES or WITH statement");
}

/** Waits for `work` until the call ends. `work` may wait for something other than the database. */
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
    work.catch(() => undefined); // a later failure must not become an unhandled rejection
  }
}
