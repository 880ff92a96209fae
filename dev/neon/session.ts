// One PostgreSQL connection of the Neon stand-in, and a batch of statements as one pipelined write on it.
//
// `pg` speaks the protocol; this file decides what is sent and when a batch ends. Invariants: a batch is one write and one
// transaction, so it runs as a whole or not at all. It settles only when the server is ready again or the connection ends.
import { connect } from "node:net";
import { Client, type Connection, DatabaseError, type FieldDef, type Submittable } from "pg";

const CONNECT_TIMEOUT_MS = 3_000;
/** Maximum wait for a server to close a connection. A stopped server does not answer. */
const CLOSE_TIMEOUT_MS = 1_000;
/** Maximum size of a result, which is held in memory. Neon has such a limit, too. */
const MAX_RESULT_BYTES = 64 * 1024 * 1024;

/** One address and login. Two strings with different passwords are two targets. */
export interface Target {
  host: string;
  port: number;
  user: string;
  password: string;
  database: string;
  applicationName: string;
}

export interface Statement {
  text: string;
  values: (string | null)[];
}

export interface StatementResult {
  fields: FieldDef[];
  rows: (string | null)[][];
  /** PostgreSQL's command tag, such as `INSERT 0 1`; empty for an empty statement. */
  commandTag: string;
}

/** Why a batch has no result: `unreachable` and `busy` never ran, `too-large` was rolled back, `lost` may have run. */
export class BatchError extends Error {
  kind: "unreachable" | "busy" | "too-large" | "lost" | "unsupported";
  constructor(kind: BatchError["kind"], message: string, cause?: unknown) {
    super(message, { cause });
    this.kind = kind;
  }
}

/** One connection. Its owner calls `run` again only after the last run has settled and `isClean` is true. */
export class Session {
  readonly #target: Target;
  readonly #client: Client;
  #batch: Batch | undefined;
  #cancelled = false;
  #cancelKey: { processID: number; secretKey: number } | undefined;

  /** Calls `onEnd` at least once when the connection ends, for any reason. */
  constructor(target: Target, onEnd: () => void) {
    this.#target = target;
    const { applicationName, ...login } = target;
    const client = new Client({
      ...login,
      application_name: applicationName,
      ssl: false,
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    });
    this.#client = client;
    const ended = (): void => {
      onEnd();
      this.#batch?.settle(new BatchError("lost", "The connection to PostgreSQL was lost during the batch."));
    };
    client.on("error", ended).on("end", ended);
    client.connection.on("backendKeyData", (key: { processID: number; secretKey: number }) => (this.#cancelKey = key));
    // After an error `pg` reports nothing more to its query, but the server is ready only now.
    client.connection.on("readyForQuery", () => this.#batch?.settle());
  }

  async connect(): Promise<void> {
    try {
      await this.#client.connect();
    } catch (cause) {
      // A wrong login or database is the caller's error. Any other error describes the server's state.
      if (cause instanceof DatabaseError && /^(28|3D)/.test(cause.code ?? "")) throw cause;
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new BatchError("unreachable", `Could not connect to PostgreSQL: ${reason}`, cause);
    }
  }

  async run(statements: Statement[], begin: string | undefined): Promise<StatementResult[]> {
    const wrapped = begin === undefined ? statements : [alone(begin), ...statements, alone("COMMIT")];
    const batch = new Batch(wrapped);
    this.#batch = batch;
    try {
      this.#client.query(batch);
      const results = await batch.results;
      return begin === undefined ? results : results.slice(1, -1);
    } finally {
      this.#batch = undefined;
      // Roll back before the caller gets the answer, so that no lock outlives it.
      if (this.#client.getTransactionStatus() !== "I") await this.#client.query("ROLLBACK").catch(() => undefined);
    }
  }

  /** True if the connection can serve another batch. */
  isClean(): boolean {
    // A late cancellation would hit the next batch.
    return !this.#cancelled && this.#client.getTransactionStatus() === "I";
  }

  /** Asks the server to cancel the running statement. https://www.postgresql.org/docs/18/protocol-flow.html#PROTOCOL-FLOW-CANCELING-REQUESTS */
  cancel(): void {
    this.#cancelled = true;
    if (this.#cancelKey === undefined) return;
    const request = Buffer.alloc(16);
    [16, 80877102, this.#cancelKey.processID, this.#cancelKey.secretKey].forEach((word, i) =>
      request.writeInt32BE(word, i * 4),
    );
    const { host, port } = this.#target;
    connect({ host, port })
      .on("error", () => undefined)
      .end(request);
  }

  /** Sends Terminate, then closes the socket if the server does not close it in time. */
  async end(): Promise<void> {
    const { stream } = this.#client.connection;
    const timer = setTimeout(() => stream.destroy(), CLOSE_TIMEOUT_MS);
    await this.#client.end().catch(() => undefined);
    clearTimeout(timer);
  }
}

function alone(text: string): Statement {
  return { text, values: [] };
}

/**
 * n x Parse, Bind, Describe, Execute and one Sync in one write: PostgreSQL runs them as one implicit transaction, and on
 * an error skips to the Sync. `pg` calls the handlers below with the parsed messages.
 */
class Batch implements Submittable {
  results: Promise<StatementResult[]>;
  readonly #statements: Statement[];
  readonly #done: StatementResult[] = [];
  #current: StatementResult = { fields: [], rows: [], commandTag: "" };
  #error: Error | undefined;
  #sizeBytes = 0;
  #connection: Connection | undefined;
  readonly #resolve: (results: StatementResult[]) => void;
  readonly #reject: (error: Error) => void;

  constructor(statements: Statement[]) {
    this.#statements = statements;
    const { promise, resolve, reject } = Promise.withResolvers<StatementResult[]>();
    this.results = promise;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  submit(connection: Connection): void {
    this.#connection = connection;
    connection.stream.cork();
    for (const { text, values } of this.#statements) {
      connection.parse({ name: "", text, types: [] }, true);
      connection.bind({ values }, true);
      connection.describe({ type: "P" }, true);
      connection.execute(null, true);
    }
    connection.sync();
    connection.stream.uncork();
  }

  /** Keeps the first error. Later ones are its consequences. */
  settle(error?: Error): void {
    const failure = this.#error ?? error;
    if (failure === undefined) this.#resolve(this.#done);
    else this.#reject(failure);
  }

  handleRowDescription({ fields }: { fields: FieldDef[] }): void {
    this.#current.fields = fields;
  }

  handleDataRow({ fields, length }: { fields: (string | null)[]; length: number }): void {
    this.#sizeBytes += length;
    if (this.#sizeBytes > MAX_RESULT_BYTES) return this.#abandon("too-large", "The result is larger than 64 MB.");
    this.#current.rows.push(fields);
  }

  handleCommandComplete({ text }: { text: string }): void {
    this.#current.commandTag = text;
    this.#done.push(this.#current);
    this.#current = { fields: [], rows: [], commandTag: "" };
  }

  handleEmptyQuery(): void {
    this.handleCommandComplete({ text: "" });
  }

  handleError(error: Error): void {
    this.#error ??= error instanceof DatabaseError ? error : new BatchError("lost", error.message, error);
    // Only after its own error does the server report that it is ready again.
    if (!(error instanceof DatabaseError)) this.settle();
  }

  handleCopyInResponse(): void {
    this.#abandon("unsupported", "COPY is not possible over HTTP.");
  }

  handleCopyData(): void {
    this.#abandon("unsupported", "COPY is not possible over HTTP.");
  }

  /** Success settles like failure: when the server reports that it is ready. */
  handleReadyForQuery(): void {}

  handlePortalSuspended(): void {}

  #abandon(kind: BatchError["kind"], message: string): void {
    if (this.#error !== undefined) return;
    this.#error = new BatchError(kind, message);
    this.#connection?.stream.destroy();
  }
}
