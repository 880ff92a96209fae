// A session with a database: one WebSocket with PostgreSQL's own protocol, for interactive transactions. Decides how a batch
// is sent and what its end means.
// A batch is n x Parse, Bind, Describe and Execute with one Sync, in one message: one round trip and, outside of BEGIN and
// COMMIT, one transaction. It ends when the server reports that it is ready; then the result is rows, or the error that HTTP
// would throw. Any other end (a lost or silent socket, an abort, a server shutdown) also ends the session, so that no caller
// gets a session with a running statement: `AnswerLost` for a sent batch, `NeverSent` for one that was not sent.
// Nothing here is global: every session has its own driver settings.
import { type BindConfig, Client, type Connection, DatabaseError, type FieldDef } from "@neondatabase/serverless";
import { AppError, errorCode } from "../core/errors.ts";
import type { Row, Statement } from "../core/sql.ts";
import {
  AnswerLost,
  type BatchOptions,
  type Server,
  endedUnstarted,
  failure,
  parserOf,
  recordAnswer,
  watchServer,
} from "../adapters/neon.ts";

export interface Session {
  /**
   * Runs statements in one round trip and returns the rows of each, with the same form and values as over HTTP. Batches run
   * one after the other. Throws `SqlError` for a refused statement (nothing of the batch is stored), `AnswerLost` when the
   * outcome is unknown, `NeverSent` when the batch was not sent.
   */
  batch(statements: readonly Statement[], options?: BatchOptions): Promise<Row[][]>;
  /** Whether another batch may be sent. Once false, it stays false. */
  readonly usable: boolean;
  /** The transaction that the last batch left. `failed` accepts only its end, and a COMMIT would roll it back. */
  readonly transaction: "none" | "open" | "failed";
  /** Ends the session and its running batch. Resolves when the socket is closed, after 1 s at the latest; never rejects. */
  close(): Promise<void>;
}

export interface SessionOptions {
  url: string;
  /** Host, port and path of a local proxy without TLS, such as `127.0.0.1:5488/v2`. Empty means Neon's own. */
  wsProxy: string;
  /** Asked whether it is alive when a batch takes long. Without it, a batch has only its time limit. */
  server?: Server;
  connectWithinMs?: number;
  /** Time limit of a batch. */
  answerWithinMs?: number;
  /** Ends the attempt to connect. */
  signal?: AbortSignal | undefined;
}

/** The session ended before the batch was sent, or before the server began it. Nothing happened: another session may run it. */
export class NeverSent extends AppError {
  constructor(cause: unknown) {
    super("database_unavailable", "the session ended before the batch was sent", { cause });
    this.name = "NeverSent";
  }
}

/** Neon wakes a sleeping database in about 500 ms. A longer wait is an outage, which the caller should learn soon. */
const CONNECT_WITHIN_MS = 3_000;
/** As over HTTP: longer than a tool's statement may run, so that the database ends a slow statement and reports it. */
const ANSWER_WITHIN_MS = 25_000;
/** A live peer closes in one round trip. */
const CLOSE_WITHIN_MS = 1_000;
/** Neon's own limit over HTTP. A tool's result is a tenth of it; an object's memory holds about ten such answers. */
const MAX_ANSWER_BYTES = 10 * 1024 * 1024;

const transactionStates = { I: "none", T: "open", E: "failed" } as const;

/** Connects, logs in and waits until the server is ready. Throws `AppError` and leaves nothing open. */
export async function openSession(options: SessionOptions): Promise<Session> {
  const { url, wsProxy, connectWithinMs = CONNECT_WITHIN_MS, answerWithinMs = ANSWER_WITHIN_MS, signal } = options;
  const { server } = options;
  // The driver's own error would quote the connection string with its password.
  if (!URL.canParse(url)) throw new Error("a database's connection string is not a URL");
  const client = new Client(url);
  const { connection, neonConfig: socket } = client;
  // Write at once. Otherwise the driver gathers writes for one turn of the loop and fails where no caller can catch it.
  socket.coalesceWrites = false;
  if (wsProxy !== "") {
    socket.wsProxy = wsProxy;
    socket.useSecureWebSocket = false;
  }

  const ready = Promise.withResolvers<void>();
  const socketClosed = Promise.withResolvers<void>();
  /** In order of sending, which is the order of the answers. */
  const unanswered: Batch[] = [];
  let transaction: Session["transaction"] = "none";
  let over: { cause: unknown } | undefined;

  function end(cause: unknown): void {
    if (over !== undefined) return;
    over = { cause };
    ready.reject(cause);
    for (const batch of unanswered.splice(0)) batch.lose(cause);
    hangUp();
  }

  function hangUp(): void {
    // Both throw when no socket is open. Then there is nothing to close.
    try {
      connection.end(); // PostgreSQL's Terminate message
    } catch {}
    try {
      socket.end();
    } catch {}
  }

  client.on("error", end);
  connection.once("end", () => {
    socketClosed.resolve();
    end(new Error("the socket was closed"));
  });
  client.connect().catch(end);
  // Listen only after `connect`, which removes all listeners first. It does not wait for the server, so no message is missed.
  connection.on("readyForQuery", ({ status }: { status: keyof typeof transactionStates }) => {
    transaction = transactionStates[status];
    ready.resolve();
    if (unanswered[0]?.sent === true) unanswered.shift()?.settle();
  });

  /** Waits for an answer. The time limit and an abort end the session, which rejects the answer. */
  async function answerOrEnd<T>(answer: Promise<T>, limitMs: number, abort: AbortSignal | undefined): Promise<T> {
    const onAbort = (): void => end(abort?.reason);
    const late = new AppError("database_silent", `the database did not answer within ${limitMs} ms`);
    const timer = setTimeout(() => end(late), limitMs);
    if (abort?.aborted === true) onAbort();
    abort?.addEventListener("abort", onAbort, { once: true });
    try {
      return await answer;
    } finally {
      clearTimeout(timer);
      abort?.removeEventListener("abort", onAbort);
    }
  }

  try {
    await answerOrEnd(ready.promise, connectWithinMs, signal);
  } catch (cause) {
    throw notOpened(cause);
  }

  return {
    async batch(statements, { signal: abort } = {}) {
      if (abort?.aborted === true) {
        throw new AppError("database_unavailable", "the batch was abandoned before it was sent", {
          cause: abort.reason,
        });
      }
      if (over !== undefined) throw new NeverSent(over.cause);
      const message = encode(connection, statements);
      const batch = new Batch(statements, { write: () => socket.write(message), endSession: end });
      unanswered.push(batch);
      client.query(batch);
      const endWatch = server && watchServer(server, () => end(new AppError("database_silent")));
      const answers = await answerOrEnd(batch.answers, answerWithinMs, abort).finally(endWatch);
      if (server !== undefined) recordAnswer(server);
      return answers.map((answer, index) => rowsOf(answer, statements[index]?.asValues ?? false));
    },
    get usable() {
      return over === undefined;
    },
    get transaction() {
      return transaction;
    },
    async close() {
      end(new Error("the session was closed"));
      const timer = setTimeout(() => socketClosed.resolve(), CLOSE_WITHIN_MS);
      await socketClosed.promise;
      clearTimeout(timer);
    },
  };
}

/** The error of a failed connection attempt. No statement was sent. */
function notOpened(cause: unknown): AppError {
  if (cause instanceof AppError) return cause;
  const why =
    cause instanceof DatabaseError ? `refused the connection (SQLSTATE ${cause.code})` : "could not be reached";
  return new AppError("database_unavailable", `the database ${why}`, { cause });
}

interface Answer {
  fields: FieldDef[];
  values: (string | null)[][];
}

/** A running batch. The driver's client calls these methods with the server's messages. */
class Batch {
  readonly answers: Promise<Answer[]>;
  sent = false;
  readonly #statements: readonly Statement[];
  readonly #write: () => void;
  readonly #endSession: (cause: unknown) => void;
  readonly #resolve: (answers: Answer[]) => void;
  readonly #reject: (error: AppError) => void;
  readonly #done: Answer[] = [];
  #current: Answer = { fields: [], values: [] };
  #sizeBytes = 0;
  #error: unknown;

  constructor(
    statements: readonly Statement[],
    { write, endSession }: { write: () => void; endSession: (cause: unknown) => void },
  ) {
    this.#statements = statements;
    this.#write = write;
    this.#endSession = endSession;
    ({ promise: this.answers, resolve: this.#resolve, reject: this.#reject } = Promise.withResolvers<Answer[]>());
  }

  /** The server is ready again, so its answer to this batch is complete. */
  settle(): void {
    if (this.#error === undefined) this.#resolve(this.#done);
    else this.#reject(failure(this.#error, "database_unavailable"));
  }

  /** The session ended first. Even after most error messages the outcome is unknown: the server may have committed. */
  lose(cause: unknown): void {
    const lost = this.#error ?? cause;
    const isKnown = !this.sent || this.#isUnstarted();
    const code = errorCode(lost) === "database_silent" ? "database_silent" : "database_unavailable";
    this.#reject(isKnown ? new NeverSent(lost) : new AnswerLost(code, lost));
  }

  /** A limit that the connection's last user left ended it before the batch could take effect. A COMMIT may have taken it. */
  #isUnstarted(): boolean {
    const statements = this.#statements;
    const isCommitted = statements.some(({ text }) => /^\s*(COMMIT|END)\b/i.test(text));
    return !isCommitted && this.#done.length < statements.length && endedUnstarted(this.#error, statements);
  }

  submit(): void {
    try {
      this.#write();
      this.sent = true;
    } catch (error) {
      this.#endSession(error);
    }
  }

  handleRowDescription({ fields }: { fields: FieldDef[] }): void {
    this.#current.fields = fields;
  }

  handleDataRow({ fields, length }: { fields: (string | null)[]; length: number }): void {
    this.#sizeBytes += length;
    if (this.#sizeBytes > MAX_ANSWER_BYTES) this.#endSession(new Error(`an answer of over ${MAX_ANSWER_BYTES} bytes`));
    else this.#current.values.push(fields);
  }

  handleCommandComplete(): void {
    this.#done.push(this.#current);
    this.#current = { fields: [], values: [] };
  }

  handleEmptyQuery(): void {
    this.handleCommandComplete();
  }

  handleError(error: unknown): void {
    this.#error ??= error;
  }

  /** Ends the session: COPY consumes the Sync message, so later answers would no longer match their batches. */
  handleCopyInResponse(): void {
    this.#endSession(new Error("COPY is not possible in a session"));
  }

  handleCopyData(): void {}
  handlePortalSuspended(): void {}
  /** The session listens for this message itself, because the client does not forward it after an error. */
  handleReadyForQuery(): void {}
}

/** Encodes all messages of a batch into one. The driver's own connection writes them to a stream that only collects. */
function encode(connection: Connection, statements: readonly Statement[]): Uint8Array {
  const chunks: Uint8Array[] = [];
  const stream = { writable: true, write: (chunk: Uint8Array) => chunks.push(chunk) };
  const writer = Object.create(connection, { stream: { value: stream } }) as Connection;
  for (const { text, params = [] } of statements) {
    writer.parse({ name: "", text, types: [] }, true);
    writer.bind({ values: params.map(toText) }, true);
    writer.describe({ type: "P" }, true);
    writer.execute(null, true);
  }
  writer.sync();
  const message = new Uint8Array(chunks.reduce((sizeBytes, { length }) => sizeBytes + length, 0));
  let at = 0;
  for (const chunk of chunks) {
    message.set(chunk, at);
    at += chunk.length;
  }
  return message;
}

/** Encodes a parameter as HTTP does: text without a type, which PostgreSQL converts to the type that the statement needs. */
function toText(value: unknown): string | null {
  const prepared = prepareValue(value, 0) as string | Buffer | null;
  return typeof prepared === "string" || prepared === null ? prepared : `\\x${prepared.toString("hex")}`;
}

/** The driver's own encoding of parameters. The driver does not export it, but passes it to a connection with every query. */
const prepareValue = ((): NonNullable<BindConfig["valueMapper"]> => {
  let mapper: BindConfig["valueMapper"];
  const { Query } = Client as unknown as { Query: new (config: object) => { submit(connection: object): void } };
  const ignore = (): void => undefined;
  new Query({ text: "SELECT $1", values: [null] }).submit({
    parsedStatements: {},
    bind: ({ valueMapper }: BindConfig) => (mapper = valueMapper),
    parse: ignore,
    describe: ignore,
    execute: ignore,
    sync: ignore,
  });
  if (mapper === undefined) throw new Error("this version of Neon's driver encodes parameters in another way");
  return mapper;
})();

function rowsOf({ fields, values }: Answer, asValues: boolean): Row[] {
  const columns = fields.map(({ name, dataTypeID }) => ({ name, parse: parserOf(dataTypeID, asValues) }));
  const parsed = values.map((row) =>
    columns.map(({ parse }, i) => {
      const value = row[i] ?? null;
      return value === null ? null : parse(value);
    }),
  );
  if (asValues) return parsed as unknown[] as Row[];
  return parsed.map((row) => Object.fromEntries(columns.map(({ name }, i) => [name, row[i]])));
}
