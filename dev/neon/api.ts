// A stand-in for the part of Neon's management API v2 that the product uses, in front of the local PostgreSQL.
//
// Simulated: projects, branches, operations that take time and can fail, 423 while a project is busy, 429 over the rate
// limit, 401, the limits of projects and roles, project names that are not unique, and a POST that creates another object
// each time. Not simulated: history (a branch copies its parent's current state, once the parent has no connections),
// sleeping computes, the pooler (it has the same host), separate roles for each branch (branches of a project share roles,
// so a role that a branch has copied cannot be dropped in the parent), further rights of the owner, and settings of a
// database. Everything else is answered 404 or 400, never with an invented success.
//
// Invariant: an answered change survives a kill of this process and of PostgreSQL.
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import * as z from "zod";
import { listenOnLoopback, readBody } from "../loopback.ts";
import { connectDatabases } from "./api-databases.ts";
import { type NeonApiFaultRule, type RequestFault, createNeonApiFaults } from "./api-faults.ts";
import { type Answer, ApiError, createRoutes } from "./api-routes.ts";
import { openStore } from "./api-state.ts";
import { createWork } from "./api-work.ts";

const BASE_PATH = "/api/v2";
const MAX_BODY_BYTES = 64 * 1024;
/** https://neon.com/docs/reference/api/key-concepts */
const REQUESTS_PER_MINUTE = 700;
const MINUTE_MS = 60_000;
/** Requests kept for inspection. Bounded, so that a run of days does not fill the memory. */
const KEPT_REQUESTS = 1_000;

export interface NeonApiRequest {
  method: string;
  /** The path without the query. */
  path: string;
  /** Undefined when no answer was sent. */
  status: number | undefined;
}

export interface NeonApiServer {
  /** Base URL of the API: the SDK's `baseUrl`. */
  url: string;
  /** Replaces the fault rules. An empty list removes all faults. Over HTTP: `POST /_neon/faults` with the list. */
  setFaults(rules: NeonApiFaultRule[]): void;
  /** The last requests, oldest first. */
  requests(): NeonApiRequest[];
  /** Stops. A start with the same file resumes the operations. */
  close(): Promise<void>;
}

/** Starts the stand-in on 127.0.0.1; port 0 takes a free one. Creates `stateFile` if it is missing. */
export async function startNeonApi(options: {
  port: number;
  stateFile: string;
  /** Superuser URL of the cluster that holds the branches' databases. */
  superuserUrl: string;
  /** Duration of creating a project. Other operations take a share of it. */
  operationMs?: number;
  apiKey: string;
  maxProjects?: number;
  maxRoles?: number;
  requestsPerMinute?: number;
  /** Maximum page size of lists. */
  maxPerPage?: number;
  log?: (line: string) => void;
}): Promise<NeonApiServer> {
  const { superuserUrl, apiKey, log = () => undefined } = options;
  const { requestsPerMinute = REQUESTS_PER_MINUTE } = options;
  const store = openStore(options.stateFile);
  const faults = createNeonApiFaults();
  const work = createWork({
    store,
    databases: connectDatabases(superuserUrl, options.maxRoles),
    operationMs: options.operationMs ?? 600,
    failsOperation: (action) => faults.failsOperation(action),
    log,
  });
  const { maxProjects, maxPerPage } = options;
  const answer = createRoutes({ store, work, host: new URL(superuserUrl).host, maxProjects, maxPerPage });
  const requests: NeonApiRequest[] = [];
  const recentAtMs: number[] = [];
  let isClosed = false;

  /** The answer of a request. Undefined when the connection is to be closed instead. */
  async function handle(request: IncomingMessage, url: URL): Promise<Answer | undefined> {
    const method = request.method ?? "GET";
    const body = await readJson(request);
    if (`${method} ${url.pathname}` === "POST /_neon/faults") {
      faults.set(body);
      return { status: 200, body: {} };
    }
    if (!url.pathname.startsWith(`${BASE_PATH}/`)) throw new ApiError(404, "this address is not simulated");
    const nowMs = Date.now();
    while ((recentAtMs[0] ?? nowMs) <= nowMs - MINUTE_MS) recentAtMs.shift();
    if (recentAtMs.length >= requestsPerMinute) throw new ApiError(429, "rate limit exceeded");
    recentAtMs.push(nowMs);
    if (request.headers.authorization !== `Bearer ${apiKey}`) throw new ApiError(401, "supplied credentials are wrong");
    const path = url.pathname.slice(BASE_PATH.length);
    const fault = await faults.strike(method, path);
    // A delayed request must not overwrite the state that the next start has read.
    if (isClosed) return undefined;
    refuseByFault(fault);
    if (fault === "incomplete-list") {
      return { status: 200, body: { projects: [], unavailable_project_ids: store.projects.map(({ id }) => id) } };
    }
    const result = answer(method, path, url.searchParams, body);
    if (fault === "error-after") throw new ApiError(500, "failed by a fault rule, after it was done");
    return fault === "lose-after" ? undefined : result;
  }

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "/", "http://127.0.0.1");
    const entry: NeonApiRequest = { method: request.method ?? "GET", path: url.pathname, status: undefined };
    if (requests.push(entry) > KEPT_REQUESTS) requests.shift();
    const result = await handle(request, url).catch(toErrorAnswer);
    if (result === undefined) {
      request.socket.destroy();
      return;
    }
    entry.status = result.status;
    if (result.status >= 500) log(`neon api: ${entry.method} ${entry.path}: ${result.status}`);
    if (response.destroyed) return;
    if (result.status === 204) response.writeHead(204).end();
    else response.writeHead(result.status, { "content-type": "application/json" }).end(JSON.stringify(result.body));
  }

  const listening = await listenOnLoopback(
    createServer((request, response) => void serve(request, response)),
    options.port,
  );
  for (const project of store.projects) work.start(project);
  return {
    url: `${listening.url}${BASE_PATH}`,
    setFaults: (rules) => faults.set(rules),
    requests: () => structuredClone(requests),
    close: async () => {
      isClosed = true;
      await listening.close();
      await work.stop();
    },
  };
}

function refuseByFault(fault: RequestFault | undefined): void {
  if (fault === "error-before") throw new ApiError(500, "failed by a fault rule, before anything was done");
  if (fault === "rate-limit") throw new ApiError(429, "rate limit exceeded");
  if (fault === "locked") throw new ApiError(423, "locked by a fault rule");
}

async function readJson(request: IncomingMessage): Promise<unknown> {
  const body = await readBody(request, MAX_BODY_BYTES);
  if (body === undefined) throw new ApiError(413, "the request is too large");
  if (body.length === 0) return undefined;
  try {
    return JSON.parse(body.toString("utf8"));
  } catch {
    throw new ApiError(400, "the body is not JSON");
  }
}

function toErrorAnswer(error: unknown): Answer {
  if (error instanceof ApiError) return { status: error.status, body: { code: error.code, message: error.message } };
  if (error instanceof z.ZodError) return { status: 400, body: { code: "", message: z.prettifyError(error) } };
  return { status: 500, body: { code: "", message: error instanceof Error ? error.message : String(error) } };
}
