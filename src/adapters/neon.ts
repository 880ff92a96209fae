// SQL over HTTP with Neon's driver. A batch is one request and one transaction; no socket stays open. A failure is one of:
// - the database refused the connection: `database_unavailable`, or `control_unavailable` for the control database;
// - it did not answer: `AnswerLost` with the same code. The batch may have been committed. A server that answers nothing at
//   all for 3 s ends the wait early, with a code of its own; one that runs a long statement does not;
// - it refused a statement: `SqlError`. Nothing of the batch is stored.
// A batch that met a connection which a left-over limit of its last user was about to end is sent again: nothing of it ran.
// The database's own message stays in `cause`. It may quote rows, so it must never reach a log line.
import { DatabaseError, type HTTPQueryOptions, neon, NeonDbError, neonConfig, types } from "@neondatabase/serverless";
import { BoundedMap } from "../core/concurrency/bounded-map.ts";
import { AnswerLost, AppError, type ErrorCode } from "../core/errors.ts";
import type { Row, Statement } from "../core/sql.ts";

export { AnswerLost };
export type { Row, Statement };

export interface BatchOptions {
  /** Ends the wait. Without it, the connection's `answerWithinMs` does. */
  signal?: AbortSignal | undefined;
}

export interface ConnectionOptions {
  /** The error code of an outage. */
  outageCode: ErrorCode;
  /** The error code of a server that does not answer. */
  silentCode: ErrorCode;
  answerWithinMs: number;
}

/** Longer than a tool's statement may run, so that the database ends a slow statement and reports it. */
const tenantDatabase: ConnectionOptions = {
  outageCode: "database_unavailable",
  silentCode: "database_silent",
  answerWithinMs: 25_000,
};
/** Control statements take milliseconds and calls wait for them; a waking database needs a second or two. */
const controlDatabase: ConnectionOptions = {
  outageCode: "control_unavailable",
  silentCode: "control_unavailable",
  answerWithinMs: 10_000,
};

export interface NeonConnection {
  /** The database's name in the connection string. */
  readonly database: string;
  /**
   * Runs statements in one transaction and one round trip. Returns the rows of each statement: objects with parsed values,
   * or arrays with `asValues`.
   */
  batch(statements: readonly Statement[], options?: BatchOptions): Promise<Row[][]>;
  /** A batch of one. */
  query(text: string, params?: readonly unknown[], options?: BatchOptions): Promise<Row[]>;
}

/** A text that the database's encoding lacks: a NUL in a text (22021) or in JSON (22P05). */
const textStates = new Set(["22021", "22P05"]);

/**
 * The database refused a statement and rolled its transaction back. Its code is `internal`, because the statement is ours,
 * or `text_invalid`: the sender's text passed every check and yet cannot be stored.
 */
export class SqlError extends AppError {
  /** SQL's five-character error code, such as `23505` for a violated unique key. */
  readonly sqlState: string;
  readonly constraint: string | undefined;
  /** The column that lacks a value, of a violated NOT NULL. */
  readonly column: string | undefined;
  constructor(sqlState: string, constraint: string | undefined, cause: unknown, column?: string) {
    const place = constraint === undefined ? "" : `, constraint ${constraint}`;
    super(
      textStates.has(sqlState) ? "text_invalid" : "internal",
      `the database refused a statement (SQLSTATE ${sqlState}${place})`,
      { cause },
    );
    this.name = "SqlError";
    this.sqlState = sqlState;
    this.constraint = constraint;
    this.column = column;
  }
}

/** The SQLSTATE of a thrown value, `undefined` for any other error. */
export function sqlStateOf(error: unknown): string | undefined {
  return error instanceof SqlError ? error.sqlState : undefined;
}

/**
 * Whether the server refuses the login of a connection string (SQLSTATE class 28). False for every other outcome. It asks
 * under a name of its own, because a pooled connection stays open when its login's password changes.
 */
export async function isLoginRefused(url: string, fetchEndpoint: string, options: BatchOptions = {}): Promise<boolean> {
  const asked = named(url, `tollgate-login-${crypto.randomUUID()}`);
  try {
    await connectNeon(asked, fetchEndpoint).query("SELECT 1", [], options);
    return false;
  } catch (error) {
    const cause = error instanceof AppError ? error.cause : undefined;
    return (cause instanceof NeonDbError || cause instanceof DatabaseError) && cause.code?.startsWith("28") === true;
  }
}

/** The connection string under this application name. Poolers keep the connections of each name apart. */
function named(url: string, applicationName: string): string {
  const other = new URL(url);
  other.searchParams.set("application_name", applicationName);
  return other.href;
}

/**
 * SQLSTATE classes and codes about the server or the connection, not about the statement: connection (08), login (28), no
 * such database (3D), resources (53), shutdown (57P), system (58), and connections that a session timeout ended (25P03,
 * 25P04).
 */
const outage = /^(08|28|3D|53|57P|58|25P0[34])/;
/** The server or a pooler ended the connection. A batch that ran on it may have been committed a moment before. */
const ended = /^(08|57P0[12])/;

/**
 * Codes with which PostgreSQL ends a connection whose last user left a limit of a moment on it: `idle_session_timeout`,
 * `idle_in_transaction_session_timeout`, `transaction_timeout`.
 */
const endedByLimit = new Set(["57P05", "25P03", "25P04"]);
/** Each resend has used up one connection with such a limit. A hostile tenant can leave it on several at once. */
const MAX_RESENDS = 3;

/**
 * Whether a limit that was left on the connection ended it, and nothing of the batch is stored. The proof for each code:
 * - 57P05: PostgreSQL checks this limit only between transactions, while it waits for a command. No statement of the batch
 *   had begun.
 * - 25P03: it checks this one only while an open transaction waits for its next command. The COMMIT had not arrived, and
 *   the end of a connection rolls its transaction back.
 * - 25P04: it ends the transaction that ran, which rolls it back. `tollgate.enter` puts a limit of the connection's last
 *   user back to the login's own, which is longer than any batch, so the limit acts only before the tenant is entered. It
 *   could act right after a commit if a statement of the batch itself sets it: a batch that names it is not sent again.
 * Each arrives as FATAL. A statement that raises one of the codes by itself sends ERROR.
 */
export function endedUnstarted(error: unknown, statements: readonly Statement[]): boolean {
  if (!(error instanceof NeonDbError || error instanceof DatabaseError)) return false;
  if (error.severity !== "FATAL" || !endedByLimit.has(error.code ?? "")) return false;
  return error.code !== "25P04" || !statements.some(({ text }) => /transaction_timeout/i.test(text));
}

/** Translates what the driver threw, over HTTP or in a session. */
export function failure(error: unknown, outageCode: ErrorCode): AppError {
  const refusal = error instanceof NeonDbError || error instanceof DatabaseError ? error : undefined;
  // No code: no connection, an aborted fetch, a 5xx answer, or a truncated one.
  const sqlState = refusal?.code;
  if (sqlState === undefined || ended.test(sqlState)) return new AnswerLost(outageCode, error);
  if (outage.test(sqlState)) {
    return new AppError(outageCode, `the database refused the connection (SQLSTATE ${sqlState})`, { cause: error });
  }
  return new SqlError(sqlState, refusal?.constraint, error, refusal?.column);
}

// ---- silence

/** Most batches take milliseconds, so this spares nearly all of them the question whether their server is alive. */
const SILENT_AFTER_MS = 1_000;
/** Together with the above this is the bound for a connection, 3 s: a waking database answers within it. */
const PROBE_WITHIN_MS = 2_000;

/** A batch that waits for another batch's probe looks again this often. */
const LOOK_AGAIN_MS = 100;

/** When this isolate last had an answer of a server, by its host. A forgotten one costs a probe. */
const answeredAtMs = new BoundedMap<string, number>(1_000);

/** The newest probe of each server, by its host. One at a time: a slow server must not get a probe for each waiting batch. */
const probes = new BoundedMap<string, Probe>(1_000);
interface Probe {
  sentAtMs: number;
  state: "asking" | "silent" | "over";
}

/** A database server, as far as its being alive is concerned. */
export interface Server {
  host: string;
  /** Asks for a moment's work on a connection of its own, so that it does not wait behind slow statements. */
  probe(signal: AbortSignal): Promise<unknown>;
}

/** The server of a connection string. `connectNeon` or the driver's settings give the SQL endpoint. */
export function serverOf(url: string): Server {
  return {
    host: new URL(url).host,
    probe: (signal) =>
      neon(named(url, "tollgate-probe"), { disableWarningInBrowsers: true }).query("SELECT 1", [], {
        fetchOptions: { signal },
      }),
  };
}

/** Notes that the server answered just now, so that other batches need not ask it. */
export function recordAnswer({ host }: Server): void {
  answeredAtMs.set(host, Date.now());
}

/**
 * Calls `onSilent` once the server has answered this isolate nothing for `SILENT_AFTER_MS` and then did not answer a probe
 * either. Returns the function that ends the watch. A server that answers, even with an error, may take its time.
 */
export function watchServer(server: Server, onSilent: () => void): () => void {
  const over = new AbortController();
  const sentAtMs = Date.now();
  let timer: ReturnType<typeof setTimeout>;
  const wait = (ms: number): void => void (timer = setTimeout(() => void check(), ms));
  const check = async (): Promise<void> => {
    const nowMs = Date.now();
    const answered = answeredAtMs.get(server.host) ?? 0;
    const quietMs = nowMs - Math.max(sentAtMs, answered);
    if (quietMs < SILENT_AFTER_MS) return wait(SILENT_AFTER_MS - quietMs);
    const newest = probes.get(server.host);
    if (newest !== undefined && newest.sentAtMs > answered) {
      const ageMs = nowMs - newest.sentAtMs;
      if (newest.state === "silent" && ageMs < 2 * PROBE_WITHIN_MS) return onSilent();
      // A probe that is older was lost with its object.
      if (newest.state === "asking" && ageMs <= PROBE_WITHIN_MS + LOOK_AGAIN_MS) return wait(LOOK_AGAIN_MS);
    }
    const probe: Probe = { sentAtMs: nowMs, state: "asking" };
    probes.set(server.host, probe);
    const late = setTimeout(() => over.abort("silent"), PROBE_WITHIN_MS);
    try {
      await server.probe(over.signal);
    } catch {
      // A refusal comes from a server, or from a proxy that reports the batch's own end.
    } finally {
      clearTimeout(late);
    }
    probe.state = over.signal.reason === "silent" ? "silent" : "over";
    if (probe.state === "silent") return onSilent();
    if (over.signal.aborted) return undefined;
    recordAnswer(server);
    return wait(SILENT_AFTER_MS);
  };
  wait(SILENT_AFTER_MS);
  return () => {
    clearTimeout(timer);
    over.abort("over");
  };
}

// ---- connections

/** The settings of the connection to the control database. */
export type ControlSettings = Pick<Env, "CONTROL_DATABASE_URL" | "NEON_FETCH_ENDPOINT">;

/** A connection to the control database. Every store takes one. */
export type ControlDatabase = NeonConnection;

/** Connects to the control tables. Their outage has its own error code. */
export function connectControl(env: ControlSettings): ControlDatabase {
  return connectNeon(env.CONTROL_DATABASE_URL, env.NEON_FETCH_ENDPOINT, controlDatabase);
}

/**
 * Connects on the first batch, not before. `fetchEndpoint` replaces Neon's own SQL endpoint; empty means Neon's own. The
 * driver keeps it globally, so the whole program has one.
 */
export function connectNeon(
  url: string,
  fetchEndpoint: string,
  { outageCode, silentCode, answerWithinMs }: ConnectionOptions = tenantDatabase,
): NeonConnection {
  if (fetchEndpoint !== "") neonConfig.fetchEndpoint = fetchEndpoint;
  const database = databaseOf(url);
  const sql = neon(url, { disableWarningInBrowsers: true });
  const server = serverOf(url);

  async function batch(statements: readonly Statement[], { signal }: BatchOptions = {}): Promise<Row[][]> {
    // The driver has no time limit of its own.
    const over = new AbortController();
    const timer = signal === undefined ? setTimeout(() => over.abort(), answerWithinMs) : undefined;
    let code = outageCode;
    const endWatch = watchServer(server, () => {
      code = silentCode;
      over.abort();
    });
    try {
      return await send(statements, signal === undefined ? over.signal : AbortSignal.any([signal, over.signal]));
    } catch (error) {
      throw failure(error, code);
    } finally {
      endWatch();
      clearTimeout(timer);
    }
  }

  async function send(statements: readonly Statement[], signal: AbortSignal): Promise<Row[][]> {
    for (let resends = 0; ; resends += 1) {
      try {
        const rows = await sql.transaction(
          statements.map(({ text, params = [], asValues = false }) =>
            sql.query(text, [...params], asValues ? valuesOnly : {}),
          ),
          { fetchOptions: { signal } },
        );
        recordAnswer(server);
        return rows;
      } catch (error) {
        if (resends >= MAX_RESENDS || !endedUnstarted(error, statements)) throw error;
      }
    }
  }

  return {
    database,
    batch,
    async query(text, params, options) {
      const [rows = []] = await batch([params === undefined ? { text } : { text, params }], options);
      return rows;
    },
  };
}

/**
 * A connection that sends all batches of one turn as one: one round trip for reads that do not depend on each other. They
 * share a transaction, so they fail together. It takes no options.
 */
export function joinBatches(database: NeonConnection): NeonConnection {
  let waiting: { statements: readonly Statement[]; answered: PromiseWithResolvers<Row[][]> }[] = [];
  const send = async (): Promise<void> => {
    const sent = waiting;
    waiting = [];
    try {
      const results = await database.batch(sent.flatMap(({ statements }) => statements));
      for (const { statements, answered } of sent) answered.resolve(results.splice(0, statements.length));
    } catch (error) {
      for (const { answered } of sent) answered.reject(error);
    }
  };
  const batch = (statements: readonly Statement[]): Promise<Row[][]> => {
    if (waiting.length === 0) queueMicrotask(() => void send());
    const answered = Promise.withResolvers<Row[][]>();
    waiting.push({ statements, answered });
    return answered.promise;
  };
  return {
    database: database.database,
    batch,
    async query(text, params) {
      const [rows = []] = await batch([params === undefined ? { text } : { text, params }]);
      return rows;
    },
  };
}

/** json, jsonb, date, time, timetz, timestamp, timestamptz, interval, and lists of them. */
const leftAsText = new Set([
  ...[114, 3802, 1082, 1083, 1266, 1114, 1184, 1186],
  ...[199, 3807, 1182, 1183, 1270, 1115, 1185, 1187],
]);

/** The parser of a type's text. With `asValues` it leaves JSON and times as text, as query builders expect. */
export function parserOf(typeId: number, asValues: boolean): (text: string) => unknown {
  if (asValues && leftAsText.has(typeId)) return (text) => text;
  return types.getTypeParser(typeId, "text") as (text: string) => unknown;
}

/** The driver's types allow one form of rows per batch; at run time each statement has its own. */
const valuesOnly = {
  arrayMode: true as boolean,
  types: { getTypeParser: (typeId: number) => parserOf(typeId, true) },
} as HTTPQueryOptions<false, false>;

function databaseOf(url: string): string {
  // The errors of URL and of the driver quote the connection string with its password.
  if (!URL.canParse(url)) throw new Error("a database's connection string is not a URL");
  return decodeURIComponent(new URL(url).pathname.slice(1));
}
