// SQL over HTTP by Neon's driver: one request a batch, one transaction a batch, no socket to keep.
// It decides what a failure means. The database turned us away: `database_unavailable`, or `control_unavailable` for the
// control database. It did not answer: the same code as `AnswerLost`. It refused a statement: `SqlError`. Nothing of the
// batch stands, except that a lost answer may have been that of a batch that was committed.
// The database's own words stay in `cause`: they may quote rows, so they are for a debugger and never for a log line.
import { DatabaseError, type HTTPQueryOptions, neon, NeonDbError, neonConfig, types } from "@neondatabase/serverless";
import { AnswerLost, AppError, type ErrorCode } from "../core/errors.ts";
import type { Row, Statement } from "../core/sql.ts";

export { AnswerLost };
export type { Row, Statement };

export interface BatchOptions {
  /** Abandons the wait. Without one, the connection's own time limit does. */
  signal?: AbortSignal | undefined;
}

export interface ConnectionOptions {
  /** Of outages. */
  outageCode: ErrorCode;
  answerWithinMs: number;
}

/** Longer than any statement of a tool may run, so that it is the database that ends one. */
const tenantDatabase: ConnectionOptions = { outageCode: "database_unavailable", answerWithinMs: 25_000 };
/** Its statements take milliseconds, and much waits for them; a database that wakes up takes a second or two. */
const controlDatabase: ConnectionOptions = { outageCode: "control_unavailable", answerWithinMs: 10_000 };

export interface NeonConnection {
  /** The database's name, as the connection string has it. */
  readonly database: string;
  /**
   * Runs statements in one transaction and one round trip. The rows of each, as objects with parsed values, or as arrays
   * where a statement asks for values.
   */
  batch(statements: readonly Statement[], options?: BatchOptions): Promise<Row[][]>;
  /** A batch of one. */
  query(text: string, params?: readonly unknown[], options?: BatchOptions): Promise<Row[]>;
}

/** The database refused a statement, and rolled its transaction back. Its code is `internal`: no client caused it by right. */
export class SqlError extends AppError {
  /** The five characters of SQL's error class and code, such as `23505` for a violated unique key. */
  readonly sqlState: string;
  readonly constraint: string | undefined;
  constructor(sqlState: string, constraint: string | undefined, cause: unknown) {
    const place = constraint === undefined ? "" : `, constraint ${constraint}`;
    super("internal", `the database refused a statement (SQLSTATE ${sqlState}${place})`, { cause });
    this.name = "SqlError";
    this.sqlState = sqlState;
    this.constraint = constraint;
  }
}

/** The SQLSTATE of a thrown value, `undefined` for anything that is no `SqlError`. */
export function sqlStateOf(error: unknown): string | undefined {
  return error instanceof SqlError ? error.sqlState : undefined;
}

/**
 * SQLSTATE classes and codes that speak of the server or the way to it, not of the statement: connection (08), login
 * (28), no such database (3D), resources (53), shutdown (57P), the system under it (58), and a connection that a
 * timeout of the session ended (25P03, 25P04).
 */
const outage = /^(08|28|3D|53|57P|58|25P0[34])/;

/** What the driver threw, over HTTP or in a session, as the rest of the program knows it. */
export function failure(error: unknown, outageCode: ErrorCode): AppError {
  const refusal = error instanceof NeonDbError || error instanceof DatabaseError ? error : undefined;
  // Without a code: no connection, an aborted fetch, an answer of 5xx, or one that was cut off.
  const sqlState = refusal?.code;
  if (sqlState === undefined) return new AnswerLost(outageCode, error);
  if (outage.test(sqlState)) {
    return new AppError(outageCode, `the database turned us away (SQLSTATE ${sqlState})`, { cause: error });
  }
  return new SqlError(sqlState, refusal?.constraint, error);
}

/** The settings that the control database is reached with. */
export type ControlSettings = Pick<Env, "CONTROL_DATABASE_URL" | "NEON_FETCH_ENDPOINT">;

/** A connection to the control database: what every store takes. */
export type ControlDatabase = NeonConnection;

/** The control tables, whose outage is a refusal of its own. */
export function connectControl(env: ControlSettings): ControlDatabase {
  return connectNeon(env.CONTROL_DATABASE_URL, env.NEON_FETCH_ENDPOINT, controlDatabase);
}

/**
 * Opens nothing: the first batch does. `fetchEndpoint` is where SQL is sent instead of Neon's own endpoint, empty for
 * Neon's; the driver keeps it globally, so the whole program has one.
 */
export function connectNeon(
  url: string,
  fetchEndpoint: string,
  { outageCode, answerWithinMs }: ConnectionOptions = tenantDatabase,
): NeonConnection {
  if (fetchEndpoint !== "") neonConfig.fetchEndpoint = fetchEndpoint;
  const database = databaseOf(url);
  const sql = neon(url, { disableWarningInBrowsers: true });

  async function batch(statements: readonly Statement[], options: BatchOptions = {}): Promise<Row[][]> {
    try {
      return await sql.transaction(
        statements.map(({ text, params = [], asValues = false }) =>
          sql.query(text, [...params], asValues ? valuesOnly : {}),
        ),
        // The driver itself waits for ever.
        { fetchOptions: { signal: options.signal ?? AbortSignal.timeout(answerWithinMs) } },
      );
    } catch (error) {
      throw failure(error, outageCode);
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

/** json, jsonb, date, time, timetz, timestamp, timestamptz, interval, and lists of them. */
const leftAsText = new Set([
  ...[114, 3802, 1082, 1083, 1266, 1114, 1184, 1186],
  ...[199, 3807, 1182, 1183, 1270, 1115, 1185, 1187],
]);

/** Parses a type's text; with `asValues`, as little as a library that maps values by itself needs. */
export function parserOf(typeId: number, asValues: boolean): (text: string) => unknown {
  if (asValues && leftAsText.has(typeId)) return (text) => text;
  return types.getTypeParser(typeId, "text") as (text: string) => unknown;
}

/** The driver's types would have one form of rows for all statements of a batch; it keeps to each one's own. */
const valuesOnly = {
  arrayMode: true as boolean,
  types: { getTypeParser: (typeId: number) => parserOf(typeId, true) },
} as HTTPQueryOptions<false, false>;

function databaseOf(url: string): string {
  // The errors of URL and of the driver quote the connection string, password included.
  if (!URL.canParse(url)) throw new Error("a database's connection string is not a URL");
  return decodeURIComponent(new URL(url).pathname.slice(1));
}
