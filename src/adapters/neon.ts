// The one user of Neon's driver: SQL over HTTP, one request a batch, one transaction a batch, no socket to keep.
// It decides what a failure means. The database could not be asked: `database_unavailable`. It was asked and refused:
// `SqlError` with its SQLSTATE. Either way nothing of the batch stands, except when the answer itself was lost.
// The database's own words stay in `cause`: they may quote rows, so they are for a debugger and never for a log line.
import { neon, NeonDbError, neonConfig } from "@neondatabase/serverless";
import { AppError } from "../core/errors.ts";

export interface Statement {
  /** One statement with placeholders `$1`, `$2`. */
  text: string;
  params?: readonly unknown[];
}

export interface BatchOptions {
  signal?: AbortSignal | undefined;
  /** The transaction may change nothing. */
  readOnly?: boolean;
}

export type Row = Record<string, unknown>;

export interface NeonConnection {
  /** The database's name, as the connection string has it. */
  readonly database: string;
  /** Runs statements in one transaction and one round trip. The rows of each, as objects with parsed values. */
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

/** What the driver threw, as the rest of the program knows it. */
function failure(error: unknown): AppError {
  // Without a code: no connection, an aborted fetch, an answer of 5xx, or one that was cut off.
  const sqlState = error instanceof NeonDbError ? error.code : undefined;
  if (sqlState === undefined)
    return new AppError("database_unavailable", "the database did not answer", { cause: error });
  if (outage.test(sqlState)) {
    return new AppError("database_unavailable", `the database turned us away (SQLSTATE ${sqlState})`, { cause: error });
  }
  return new SqlError(sqlState, error instanceof NeonDbError ? error.constraint : undefined, error);
}

/**
 * Opens nothing: the first batch does. `fetchEndpoint` is where SQL is sent instead of Neon's own endpoint, empty for
 * Neon's; the driver keeps it globally, so the whole program has one.
 */
export function connectNeon(url: string, fetchEndpoint: string): NeonConnection {
  if (fetchEndpoint !== "") neonConfig.fetchEndpoint = fetchEndpoint;
  const database = databaseOf(url);
  const sql = neon(url, { disableWarningInBrowsers: true });

  async function batch(statements: readonly Statement[], options: BatchOptions = {}): Promise<Row[][]> {
    try {
      return await sql.transaction(
        statements.map(({ text, params }) => sql.query(text, params === undefined ? [] : [...params])),
        {
          ...(options.readOnly === true ? { readOnly: true } : {}),
          ...(options.signal === undefined ? {} : { fetchOptions: { signal: options.signal } }),
        },
      );
    } catch (error) {
      throw failure(error);
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

function databaseOf(url: string): string {
  // The errors of URL and of the driver quote the connection string, password included.
  if (!URL.canParse(url)) throw new Error("a database's connection string is not a URL");
  return decodeURIComponent(new URL(url).pathname.slice(1));
}
