// Pools WebSocket sessions by transaction, like PgBouncer behind Neon's `-pooler` hosts.
//
// Decides when a client gets a server connection and when it returns it. Invariants: a server connection serves one client
// from the first message to the end of the transaction. Bytes are forwarded as they arrive. Settings are not reset: a SET
// of one client affects the next, even for the settings that PgBouncer separates (`application_name`, `TimeZone` and so on).
// Unlike PgBouncer, it refuses named prepared statements and cancel requests: it closes the connection of a cancel request
// and the statement continues. https://www.postgresql.org/docs/18/protocol.html
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import type { Duplex } from "node:stream";
import { Client as Login, DatabaseError } from "pg";
import { createWebSocketStream, type WebSocket } from "ws";
import { createPool, type Pooled } from "./pool.ts";
import { BatchError, type Target } from "./session.ts";

const CONNECT_TIMEOUT_MS = 3_000;
/** Maximum wait for a server to close a connection. It does not answer during a long statement. */
const CLOSE_TIMEOUT_MS = 1_000;
/** Neon's `query_wait_timeout`. */
const WAIT_TIMEOUT_MS = 120_000;
/** PostgreSQL's limit for a startup message. */
const MAX_LOGIN_MESSAGE_BYTES = 10_000;
const HEADER_BYTES = 5;

const PROTOCOL_3_0 = 196_608;
const CANCEL_REQUEST = 80_877_102;
/** Codes that request TLS and GSSAPI. */
const ENCRYPTION_REQUESTS = [80_877_103, 80_877_104];
/** The only version that PgBouncer accepts. */
const STARTUP_PARAMETER =
  /^(user|database|application_name|client_encoding|datestyle|timezone|intervalstyle|standard_conforming_strings)$/i;

export interface NeonPoolerOptions {
  /** Server connections per login and database. */
  maxPerTarget: number;
  log: (line: string) => void;
  /** Called when a server connection starts to connect and when it has closed. */
  onConnections: (change: 1 | -1) => void;
}

export interface NeonPooler {
  /** Serves a client of the server at `address` until it disconnects. Reports failures to the client and logs them. */
  serve(webSocket: WebSocket, address: { host: string; port: number }): Promise<void>;
  /** Ends every server connection. */
  close(): Promise<void>;
}

export function createNeonPooler({ log, ...options }: NeonPoolerOptions): NeonPooler {
  const pool = createPool(
    (target, onEnd) => new Server(target, { onEnd, onIdle: (server) => pool.release(server) }),
    // No limit over all logins.
    { ...options, maxTotal: Infinity, waitTimeoutMs: WAIT_TIMEOUT_MS },
  );

  /** Runs the login of a client. Undefined when it has disconnected. */
  async function admit(client: Client, address: { host: string; port: number }): Promise<Target | undefined> {
    const { stream, wire } = client;
    let startup = await wire.message(0);
    while (startup !== undefined && ENCRYPTION_REQUESTS.includes(startup.readInt32BE(4))) {
      stream.write("N");
      startup = await wire.message(0);
    }
    const version = startup?.readInt32BE(4) ?? CANCEL_REQUEST;
    if (startup === undefined || version === CANCEL_REQUEST) return undefined;
    if (version !== PROTOCOL_3_0) throw refusal("unsupported protocol version");
    const { user, database } = parseStartup(startup);
    stream.write(message("R", Buffer.from([0, 0, 0, 3]))); // requests the password in cleartext
    const answer = await wire.message(1);
    if (answer === undefined) return undefined;
    const password = answer.toString("utf8", HEADER_BYTES, answer.length - 1);
    const target = { ...address, user, password, database, applicationName: "neon-pooler" };
    // A connection that opens with this password proves that it is right.
    const key = JSON.stringify(target);
    let proof = [...pool.connections()].find((server) => server.isLoggedIn && JSON.stringify(server.target) === key);
    if (proof === undefined) {
      proof = await pool.acquire(target, client.leaving.signal);
      pool.release(proof);
    }
    const ready = [message("K", randomBytes(8)), message("Z", Buffer.from("I"))];
    stream.write(Buffer.concat([message("R", Buffer.alloc(4)), ...proof.greeting, ...ready]));
    return target;
  }

  async function passToServers(client: Client, target: Target): Promise<void> {
    for (let part = await client.wire.part(); part !== undefined; part = await client.wire.part()) {
      const { bytes, starts } = part;
      let from = 0;
      for (const at of starts) {
        const type = letter(bytes, at);
        if (type === "X") return void client.server?.stream.write(bytes.subarray(from, at));
        const isNamed = type === "P" && bytes[at + HEADER_BYTES] !== 0;
        if (isNamed) throw refusal("named prepared statements are not simulated", "0A000");
        if (client.server === undefined) {
          // Like PostgreSQL, ignore the remaining data of a failed COPY.
          if ("dcf".includes(type)) continue;
          client.attach(await pool.acquire(target, client.leaving.signal));
          from = at;
        }
        client.sends(type);
      }
      if (client.server !== undefined) await send(client.server.stream, bytes.subarray(from), client);
    }
  }

  return {
    serve: async (webSocket, address) => {
      const client = new Client(webSocket);
      try {
        const target = await admit(client, address);
        if (target !== undefined) await passToServers(client, target);
      } catch (error) {
        if (!client.leaving.signal.aborted) {
          log(`neon pooler: ${error instanceof Error ? error.message : String(error)}`);
          client.stream.write(toErrorResponse(error));
        }
      }
      // The client left in a transaction. Closing the connection ends it.
      if (client.server !== undefined) pool.release(client.server);
      await client.end();
    },
    close: () => pool.close(),
  };
}

/** The client of a session. It has a server connection during a transaction. */
class Client {
  stream: Duplex;
  wire: Wire;
  /** Aborted when the client or its server has disconnected. */
  readonly leaving = new AbortController();
  server: Server | undefined;
  /** Number of ReadyForQuery messages that the server still owes. */
  #awaited = 0;
  /** True while messages of the extended protocol wait for the client's Sync. */
  #isUnsynced = false;

  constructor(webSocket: WebSocket) {
    this.stream = createWebSocketStream(webSocket);
    this.wire = new Wire(this.stream);
    webSocket.on("close", () => this.leaving.abort());
    this.stream.on("error", () => this.leaving.abort());
  }

  attach(server: Server): void {
    this.server = server;
    server.client = this;
  }

  sends(type: string): void {
    const isAnswered = "QFS".includes(type);
    if (isAnswered) this.#awaited += 1;
    if (!"dcf".includes(type)) this.#isUnsynced = !isAnswered;
  }

  /** Records that the server is ready. Returns whether the client can return the connection. */
  isDone(status: string): boolean {
    this.#awaited -= 1;
    return status === "I" && this.#awaited === 0 && !this.#isUnsynced;
  }

  lose(): void {
    this.stream.end(toErrorResponse(refusal("server conn crashed?")));
    this.leaving.abort();
  }

  async end(): Promise<void> {
    await this.wire.chunks.return?.();
    this.stream.end();
    // Otherwise the closing handshake would wait behind data from the client.
    this.stream.resume();
  }
}

/** A server connection. `pg` logs in; after that, this class uses only its socket. */
class Server implements Pooled {
  target: Target;
  stream: Duplex;
  /** The ParameterStatus messages of the login. */
  greeting: Buffer[] = [];
  isLoggedIn = false;
  client: Client | undefined;
  readonly #login: Login;
  readonly #onIdle: (server: Server) => void;

  constructor(target: Target, { onIdle, onEnd }: { onIdle: (server: Server) => void; onEnd: () => void }) {
    this.target = target;
    this.#onIdle = onIdle;
    const { applicationName: application_name, ...login } = target;
    this.#login = new Login({ ...login, application_name, ssl: false, connectionTimeoutMillis: CONNECT_TIMEOUT_MS });
    this.stream = this.#login.connection.stream;
    this.#login.connection.on("parameterStatus", (status: { parameterName: string; parameterValue: string }) =>
      this.greeting.push(message("S", text(status.parameterName, status.parameterValue))),
    );
    this.#login.on("error", () => undefined);
    this.#login.on("end", () => {
      this.client?.lose();
      this.#detach();
      onEnd();
    });
  }

  async connect(): Promise<void> {
    await this.#login.connect();
    this.isLoggedIn = true;
    this.stream.removeAllListeners("data");
    void this.#passToClients().catch(() => this.stream.destroy());
  }

  async #passToClients(): Promise<void> {
    const wire = new Wire(this.stream);
    for (let part = await wire.part(); part !== undefined; part = await wire.part()) {
      const { bytes, starts } = part;
      let from = 0;
      for (const at of starts) {
        const end = at + HEADER_BYTES + 1;
        const { client } = this;
        if (letter(bytes, at) !== "Z" || client?.isDone(letter(bytes, end - 1)) !== true) continue;
        client.stream.write(bytes.subarray(from, end));
        from = end;
        this.#detach();
        this.#onIdle(this);
      }
      if (this.client !== undefined) await send(this.client.stream, bytes.subarray(from), this.client);
    }
  }

  isClean(): boolean {
    return this.client === undefined;
  }

  /** Sends Terminate in any state. */
  async end(): Promise<void> {
    this.#detach();
    const timer = setTimeout(() => this.stream.destroy(), CLOSE_TIMEOUT_MS);
    await this.#login.end().catch(() => undefined);
    clearTimeout(timer);
  }

  #detach(): void {
    if (this.client !== undefined) this.client.server = undefined;
    this.client = undefined;
  }
}

/** Resolves when the stream has room again, or when `client` disconnects. */
async function send(stream: Duplex, bytes: Buffer, { leaving }: Client): Promise<void> {
  if (bytes.length === 0 || stream.write(bytes)) return;
  await once(stream, "drain", { signal: leaving.signal }).catch(() => undefined);
}

// ---- the protocol

/** Reads one side: whole messages during the login, then parts that end where messages end or where the data ends. */
class Wire {
  chunks: AsyncIterator<Buffer, undefined>;
  /** Received and not yet returned. After the login, at most an incomplete header. */
  #kept: Buffer = Buffer.alloc(0);
  /** Bytes that the message at the end of the last part still lacks. */
  #rest = 0;

  constructor(stream: Duplex) {
    this.chunks = stream.iterator({ destroyOnReturn: false });
  }

  /** Undefined at the end of the stream. Only a startup message has no type byte. */
  async message(typeBytes: 0 | 1): Promise<Buffer | undefined> {
    if (!(await this.#has(typeBytes + 4))) return undefined;
    const sizeBytes = this.#sizeAt(0, typeBytes);
    if (sizeBytes > MAX_LOGIN_MESSAGE_BYTES) throw refusal("malformed message");
    return (await this.#has(sizeBytes)) ? this.#take(sizeBytes) : undefined;
  }

  /** Undefined at the end. Each start has a whole header, and the byte after it if the message has one. */
  async part(): Promise<{ bytes: Buffer; starts: number[] } | undefined> {
    for (let neededBytes = 1; await this.#has(neededBytes); neededBytes = this.#kept.length + 1) {
      const starts: number[] = [];
      let at = this.#rest;
      while (at + HEADER_BYTES <= this.#kept.length) {
        const sizeBytes = this.#sizeAt(at, 1);
        if (at + Math.min(sizeBytes, HEADER_BYTES + 1) > this.#kept.length) break;
        starts.push(at);
        at += sizeBytes;
      }
      const until = Math.min(at, this.#kept.length);
      this.#rest = at - until;
      if (until > 0) return { bytes: this.#take(until), starts };
    }
    return undefined;
  }

  async #has(sizeBytes: number): Promise<boolean> {
    while (this.#kept.length < sizeBytes) {
      const next = await this.chunks.next();
      if (next.done === true) return false;
      this.#kept = this.#kept.length === 0 ? next.value : Buffer.concat([this.#kept, next.value]);
    }
    return true;
  }

  #sizeAt(at: number, typeBytes: 0 | 1): number {
    const sizeBytes = typeBytes + this.#kept.readInt32BE(at + typeBytes);
    if (sizeBytes < HEADER_BYTES) throw refusal("malformed message");
    return sizeBytes;
  }

  #take(sizeBytes: number): Buffer {
    const taken = this.#kept.subarray(0, sizeBytes);
    this.#kept = this.#kept.subarray(sizeBytes);
    return taken;
  }
}

function parseStartup(startup: Buffer): { user: string; database: string } {
  const words = startup.toString("utf8", 8).split("\0");
  const values = new Map<string, string>();
  for (let i = 0; words[i]; i += 2) values.set(words[i] ?? "", words[i + 1] ?? "");
  const unsupported = [...values.keys()].find((name) => !STARTUP_PARAMETER.test(name));
  if (unsupported) throw refusal(`unsupported startup parameter: ${unsupported}`);
  const user = values.get("user") ?? "";
  return { user, database: values.get("database") ?? user };
}

/** PgBouncer uses 08P01 for all its own errors. */
function refusal(reason: string, code = "08P01"): DatabaseError {
  return Object.assign(new DatabaseError(reason, reason.length, "error"), { code });
}

/** The last message of a connection, worded like PostgreSQL's or PgBouncer's. */
function toErrorResponse(error: unknown): Buffer {
  const known = error instanceof BatchError && error.kind === "busy" ? refusal("query_wait_timeout") : error;
  const { code, message: reason } =
    known instanceof DatabaseError ? known : refusal("PostgreSQL cannot be reached", "08006");
  return message("E", text("SFATAL", "VFATAL", `C${code}`, `M${reason}`, ""));
}

function message(type: string, body: Buffer): Buffer {
  const header = Buffer.from(`${type}\0\0\0\0`);
  header.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([header, body]);
}

function letter(bytes: Buffer, at: number): string {
  return String.fromCharCode(bytes[at] ?? 0);
}

function text(...words: string[]): Buffer {
  return Buffer.from(words.map((word) => `${word}\0`).join(""));
}
