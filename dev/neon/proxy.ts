// Speaks Neon's protocol in front of a local PostgreSQL: `POST /sql` for batches over HTTP, and WebSocket `/v2` as a byte
// tunnel or as a client of a transaction pool.
//
// Parses requests and shapes answers like Neon's proxy (https://github.com/neondatabase/neon, proxy/src/serverless), for
// @neondatabase/serverless 1.2. It also counts traffic and injects faults. Invariants: it connects to this machine only. No
// password appears in logs or counts.
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { connect } from "node:net";
import { type Duplex, pipeline } from "node:stream";
import { DatabaseError } from "pg";
import { createWebSocketStream, type WebSocket, WebSocketServer } from "ws";
import { ZodError } from "zod";
import { listenOnLoopback, readBody } from "../loopback.ts";
import { createFaults, type FaultRule } from "./faults.ts";
import { createNeonPool } from "./pool.ts";
import { createNeonPooler } from "./pooler.ts";
import { BatchError, type Statement, type StatementResult, type Target } from "./session.ts";

/** Neon's limit for a request. */
const MAX_BODY_BYTES = 10 * 1024 * 1024;
const MAX_FRAME_BYTES = 64 * 1024 * 1024;
const CONNECT_TIMEOUT_MS = 3_000;
/** The protocol counts parameters in 16 bits. */
const MAX_PARAMS = 65_535;
/** Parsed connection strings kept in memory. A local run has a few dozen. */
const MAX_TARGETS = 1_000;

const ISOLATION_LEVELS: Record<string, string> = {
  ReadUncommitted: "READ UNCOMMITTED",
  ReadCommitted: "READ COMMITTED",
  RepeatableRead: "REPEATABLE READ",
  Serializable: "SERIALIZABLE",
};

const BATCH_ERROR_STATUS: Record<BatchError["kind"], number> = {
  unreachable: 500,
  busy: 503,
  "too-large": 507,
  unsupported: 400,
  // Neon reports a lost connection like an error of the statement, but without a code.
  lost: 400,
};

export interface NeonProxyOptions {
  /** 0 takes a free port. */
  port: number;
  /** Connections of HTTP per login and database, and in total. Defaults 16 and 120. */
  maxPerTarget?: number;
  maxTotal?: number;
  /** Makes `/v2` behave like Neon's `-pooler` hosts, with this many server connections per login and database. */
  pooler?: { maxPerTarget: number };
  log?: (line: string) => void;
}

export interface NeonProxyStats {
  /** HTTP requests that reached PostgreSQL, one round trip each, and their statements. */
  httpBatches: number;
  statements: number;
  websocketConnections: number;
  faults: number;
  /** Maximum of parallel server connections. Present when the start has set limits or a pooler. */
  peakConnections?: PeakConnections;
  /** Counts by `postgresql://user@host:port/database`. */
  connections: Record<string, { httpBatches: number; statements: number }>;
}

export interface PeakConnections {
  http: number;
  websocket: number;
  /** Maximum of both together, which can be less than their sum. */
  together: number;
}

export interface NeonProxy {
  url: string;
  port: number;
  stats(): NeonProxyStats;
  resetStats(): void;
  /** Replaces the fault rules. An empty list removes all faults. */
  setFaults(rules: FaultRule[]): void;
  /** Ends every connection on both sides. */
  close(): Promise<void>;
}

/** A request refused before it reaches PostgreSQL. */
class RefusedError extends Error {
  status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/**
 * Starts the proxy on 127.0.0.1. Also over HTTP: `GET /_proxy/stats`, `POST /_proxy/stats/reset`, `POST /_proxy/faults`
 * with the list of rules, `GET /_proxy/faults` for how often each has hit.
 */
export async function startNeonProxy(options: NeonProxyOptions): Promise<NeonProxy> {
  const { port, log = () => undefined, pooler: poolerOptions, ...poolOptions } = options;
  const open = countConnections();
  const showsPeaks = poolerOptions !== undefined || Object.keys(poolOptions).length > 0;
  const pool = createNeonPool({ ...poolOptions, onConnections: (change) => open.add("http", change) });
  const pooler =
    poolerOptions &&
    createNeonPooler({ ...poolerOptions, log, onConnections: (change) => open.add("websocket", change) });
  const faults = createFaults();
  const targets = new Map<string, Target>();
  let stats = emptyStats();
  let faultsBefore = 0;

  const currentStats = (): NeonProxyStats => ({
    ...stats,
    faults: faults.hits() - faultsBefore,
    ...(showsPeaks && { peakConnections: open.peaks() }),
  });
  const resetStats = (): void => {
    stats = emptyStats();
    faultsBefore = faults.hits();
    open.resetPeaks();
  };

  function targetOf(connectionString: string | undefined): Target {
    if (connectionString === undefined) throw new RefusedError(400, "The header Neon-Connection-String is missing.");
    let target = targets.get(connectionString);
    if (target === undefined) {
      if (targets.size >= MAX_TARGETS) targets.clear();
      targets.set(connectionString, (target = parseConnectionString(connectionString)));
    }
    return target;
  }

  function count(target: Target, statements: number): void {
    stats.httpBatches += 1;
    stats.statements += statements;
    const name = `postgresql://${target.user}@${target.host}:${target.port}/${target.database}`;
    const connection = (stats.connections[name] ??= { httpBatches: 0, statements: 0 });
    connection.httpBatches += 1;
    connection.statements += statements;
  }

  async function runSql(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const target = targetOf(header(request, "neon-connection-string"));
    if (header(request, "neon-raw-text-output") !== "true") {
      throw new RefusedError(400, "Only Neon-Raw-Text-Output: true is simulated.");
    }
    const asArrays = header(request, "neon-array-mode") === "true";
    const { statements, isBatch } = parseStatements(await readJson(request));
    const begin = isBatch ? beginFrom(request) : undefined;

    const gone = new AbortController();
    response.on("close", () => {
      if (!response.writableFinished) gone.abort();
    });
    const fault = await faults.strike(target.database, statements);
    if (fault === "refuse-before") throw new RefusedError(503, "Refused by a fault rule, before it ran.");
    count(target, statements.length);
    const results = await pool.run(target, statements, { signal: gone.signal, ...(begin !== undefined && { begin }) });
    if (fault === "lose-after") {
      request.socket.destroy();
      return;
    }
    const answers = results.map((result) => toAnswer(result, asArrays));
    reply(response, 200, isBatch ? { results: answers } : answers[0]);
  }

  async function route(request: IncomingMessage, response: ServerResponse): Promise<void> {
    switch (`${request.method} ${request.url}`) {
      case "POST /sql":
        return await runSql(request, response);
      case "GET /_proxy/stats":
        return reply(response, 200, currentStats());
      case "POST /_proxy/stats/reset":
        resetStats();
        return reply(response, 200, currentStats());
      case "POST /_proxy/faults":
        faults.set(await readJson(request));
        return reply(response, 200, {});
      case "GET /_proxy/faults":
        return reply(response, 200, { fired: faults.fired() });
      default:
        return reply(response, 404, { message: `${request.method} ${request.url} is not simulated.` });
    }
  }

  const server = createServer((request, response) => {
    route(request, response).catch((error: unknown) => {
      const { status, body } = toErrorAnswer(error);
      if (status >= 500) log(`neon proxy: ${status} ${String(body.message)}`);
      reply(response, status, body);
    });
  });
  const tunnels = new WebSocketServer({ noServer: true, maxPayload: MAX_FRAME_BYTES });
  server.on("upgrade", (request, socket: Duplex, head: Buffer) => {
    socket.on("error", () => socket.destroy());
    const address = tunnelAddress(request.url ?? "");
    if (address === undefined) {
      socket.end("HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
      return;
    }
    tunnels.handleUpgrade(request, socket, head, (client) => {
      stats.websocketConnections += 1;
      if (pooler === undefined) tunnel(client, address);
      else void pooler.serve(client, address);
    });
  });

  function tunnel(client: WebSocket, address: { host: string; port: number }): void {
    open.add("websocket", 1);
    const upstream = connect({ ...address, noDelay: true });
    const timer = setTimeout(
      () => upstream.destroy(new Error("PostgreSQL did not take the connection in time")),
      CONNECT_TIMEOUT_MS,
    );
    upstream.on("connect", () => clearTimeout(timer));
    upstream.on("close", () => {
      clearTimeout(timer);
      open.add("websocket", -1);
    });
    const downstream = createWebSocketStream(client);
    pipeline(downstream, upstream, downstream, (error) => {
      if (error !== undefined && error !== null) log(`neon proxy: tunnel ended: ${error.message}`);
    });
  }

  const listening = await listenOnLoopback(server, port);
  return {
    url: listening.url,
    port: listening.port,
    stats: currentStats,
    resetStats,
    setFaults: (rules) => faults.set(rules),
    close: async () => {
      for (const client of tunnels.clients) client.terminate();
      await Promise.all([listening.close(), pool.close(), pooler?.close()]);
    },
  };
}

function emptyStats(): Omit<NeonProxyStats, "faults" | "peakConnections"> {
  return { httpBatches: 0, statements: 0, websocketConnections: 0, connections: {} };
}

function countConnections() {
  const now: PeakConnections = { http: 0, websocket: 0, together: 0 };
  let peaks = { ...now };
  return {
    add(kind: "http" | "websocket", change: 1 | -1): void {
      now[kind] += change;
      now.together += change;
      for (const key of ["http", "websocket", "together"] as const) peaks[key] = Math.max(peaks[key], now[key]);
    },
    peaks: (): PeakConnections => ({ ...peaks }),
    resetPeaks: (): void => void (peaks = { ...now }),
  };
}

// ---- requests

function header(request: IncomingMessage, name: string): string | undefined {
  const value = request.headers[name];
  return typeof value === "string" ? value : undefined;
}

async function readJson(request: IncomingMessage): Promise<unknown> {
  const body = await readBody(request, MAX_BODY_BYTES);
  if (body === undefined) throw new RefusedError(413, "The request is larger than 10 MB.");
  try {
    return JSON.parse(body.toString("utf8"));
  } catch {
    throw new RefusedError(400, "The body is not JSON.");
  }
}

function parseStatements(body: unknown): { statements: Statement[]; isBatch: boolean } {
  if (typeof body !== "object" || body === null) throw new RefusedError(400, "The body is not an object.");
  if (!("queries" in body)) return { statements: [parseStatement(body)], isBatch: false };
  if (!Array.isArray(body.queries)) throw new RefusedError(400, "`queries` is not a list.");
  return { statements: body.queries.map(parseStatement), isBatch: true };
}

function parseStatement(query: unknown): Statement {
  if (typeof query !== "object" || query === null || !("query" in query) || typeof query.query !== "string") {
    throw new RefusedError(400, "A query needs `query`, a string.");
  }
  const params: unknown = "params" in query ? query.params : [];
  if (!Array.isArray(params) || params.length > MAX_PARAMS) {
    throw new RefusedError(400, `\`params\` is not a list of at most ${MAX_PARAMS}.`);
  }
  return { text: query.query, values: params.map(toTextParam) };
}

/** The driver sends strings and null. Hand-written clients may also send numbers and booleans. */
function toTextParam(param: unknown): string | null {
  if (param === null || typeof param === "string") return param;
  if (typeof param === "number" || typeof param === "boolean") return String(param);
  throw new RefusedError(400, "A parameter is text, a number, true, false or null.");
}

/** The explicit BEGIN for the batch headers. Undefined when the implicit transaction is enough. */
function beginFrom(request: IncomingMessage): string | undefined {
  const isolation = header(request, "neon-batch-isolation-level");
  const modes: string[] = [];
  if (isolation !== undefined) {
    const level = ISOLATION_LEVELS[isolation];
    if (level === undefined) throw new RefusedError(400, "invalid isolation level");
    modes.push(`ISOLATION LEVEL ${level}`);
  }
  if (header(request, "neon-batch-read-only") === "true") modes.push("READ ONLY");
  if (header(request, "neon-batch-deferrable") === "true") modes.push("DEFERRABLE");
  return modes.length === 0 ? undefined : `BEGIN ${modes.join(", ")}`;
}

function parseConnectionString(text: string): Target {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !/^postgres(ql)?:$/.test(url.protocol)) {
    throw new RefusedError(400, "The connection string is not a postgresql:// URL.");
  }
  const database = decodeURIComponent(url.pathname.slice(1));
  if (url.username === "" || database === "") {
    throw new RefusedError(400, "The connection string needs a user and a database.");
  }
  if (url.searchParams.has("options")) throw new RefusedError(400, "unsupported startup parameter: options");
  return {
    host: loopbackHost(url.hostname),
    port: Number(url.port === "" ? 5432 : url.port),
    user: decodeURIComponent(url.username),
    password: decodeURIComponent(url.password),
    database,
    applicationName: url.searchParams.get("application_name") ?? "neon-proxy",
  };
}

function tunnelAddress(path: string): { host: string; port: number } | undefined {
  const url = new URL(path, "ws://proxy");
  const [, host, port] = /^(.+):(\d{1,5})$/.exec(url.searchParams.get("address") ?? "") ?? [];
  if (url.pathname !== "/v2" || host === undefined) return undefined;
  try {
    return { host: loopbackHost(host), port: Number(port) };
  } catch {
    return undefined;
  }
}

function loopbackHost(host: string): string {
  if (host === "localhost" || /^127(\.\d{1,3}){3}$/.test(host)) return host === "localhost" ? "127.0.0.1" : host;
  if (host === "[::1]" || host === "::1") return "::1";
  throw new RefusedError(400, `${host} is not an address of this machine; this proxy reaches no other.`);
}

// ---- answers

function toAnswer({ fields, rows, commandTag }: StatementResult, asArrays: boolean): object {
  const [command, ...counts] = commandTag.split(" ");
  // `INSERT 0 5` and `SELECT 5` end with the count; `CREATE TABLE` has none.
  const rowCount = Number(counts.at(-1));
  return {
    command,
    rowCount: counts.length === 0 || Number.isNaN(rowCount) ? null : rowCount,
    rowAsArray: asArrays,
    fields,
    rows: asArrays ? rows : rows.map((row) => Object.fromEntries(row.map((value, i) => [fields[i]?.name, value]))),
  };
}

function toErrorAnswer(error: unknown): { status: number; body: Record<string, unknown> } {
  if (error instanceof DatabaseError) {
    const { message, severity, code, detail, hint, position, internalPosition, internalQuery } = error;
    const { where, schema, table, column, dataType, constraint, file, line, routine } = error;
    const first = { message, severity, code, detail, hint, position, internalPosition, internalQuery };
    return { status: 400, body: { ...first, where, schema, table, column, dataType, constraint, file, line, routine } };
  }
  if (error instanceof BatchError) return { status: BATCH_ERROR_STATUS[error.kind], body: { message: error.message } };
  if (error instanceof RefusedError) return { status: error.status, body: { message: error.message } };
  if (error instanceof ZodError) return { status: 400, body: { message: error.message } };
  return { status: 500, body: { message: error instanceof Error ? error.message : String(error) } };
}

function reply(response: ServerResponse, status: number, body: unknown): void {
  if (response.destroyed) return;
  const text = JSON.stringify(body);
  response
    .writeHead(status, { "content-type": "application/json", "content-length": Buffer.byteLength(text) })
    .end(text);
}
