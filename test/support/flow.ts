// Helpers of flow tests, which act from outside: as customers, agents and the operator, and with faults of the stand-ins.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import pg from "pg";
import { inject } from "vitest";
import { firstKey, signUp } from "../../dev/demo.ts";
import type { NeonProxyStats } from "../../dev/neon/proxy.ts";
import type { CallOutcome, CallRequest } from "../../src/core/call.ts";
import type { Limits } from "../../src/core/plans/plans.ts";
import type { FlowSystem } from "./flow-setup.ts";
import { watchFetch } from "./watched-fetch.ts";

/** The system of this vitest worker. The first file that imports this module starts it. */
export const system = await systemOf(Number(process.env["VITEST_POOL_ID"]));
watchFetch(system);

async function systemOf(worker: number): Promise<FlowSystem> {
  const response = await fetch(`${inject("systems")}/?worker=${worker}`);
  if (!response.ok) throw new Error(`The system of vitest worker ${worker} did not start: ${await response.text()}`);
  return (await response.json()) as FlowSystem;
}

export interface TestTenant {
  id: string;
  apiKey: string;
}

/** A customer after the whole sign-up: ordered, paid, provisioned, with a first key. */
export async function aCustomer({ plan = "free", name = "A customer" } = {}): Promise<TestTenant> {
  const signedUp = await signUp(system.publicUrl, { plan, name });
  return { id: signedUp.tenantId, apiKey: await firstKey(system.publicUrl, signedUp) };
}

/** A tenant that the operator creates, with its own limits. */
export async function aTenant(
  overrides: {
    name?: string;
    plan?: string;
    limits?: Partial<Limits>;
    allowedTools?: string[];
    id?: string;
    trialDays?: number;
    strategy?: string;
    region?: string;
  } = {},
): Promise<TestTenant> {
  const created = await operator("POST", "/tenants", { plan: "free", name: "A tenant", ...overrides });
  const { id } = (await created.json()) as { id: string };
  const served = overrides.trialDays === undefined ? "active" : "trial";
  await until(async () => (await status(id)).state === served, `tenant ${id} is ${served}`);
  const key = (await (await operator("POST", `/tenants/${id}/keys`, { name: "test" })).json()) as { apiKey: string };
  return { id, apiKey: key.apiKey };
}

export async function status(tenantId: string): Promise<{
  state: string;
  steps: { name: string; status: string; startedAt: string | null; finishedAt: string | null }[];
}> {
  const response = await statusPage(tenantId);
  return (await response.json()) as Awaited<ReturnType<typeof status>>;
}

/** The page that shows the progress of provisioning, for the holder of `token`. */
export function statusPage(tenantId: string, token: string | null = system.operatorToken): Promise<Response> {
  const headers = token === null ? {} : { authorization: `Bearer ${token}` };
  return fetch(`${system.publicUrl}/api/tenants/${tenantId}/status`, { headers });
}

/** The health of the deployment with its facts, as the operator sees it. */
export function health(): Promise<Response> {
  return fetch(`${system.publicUrl}/health`, { headers: { authorization: `Bearer ${system.operatorToken}` } });
}

export function operator(
  method: string,
  path: string,
  body?: unknown,
  token = system.operatorToken,
): Promise<Response> {
  return fetch(`${system.publicUrl}/admin/api${path}`, {
    method,
    headers: {
      authorization: `Bearer ${token}`,
      ...(body === undefined ? {} : { "content-type": "application/json" }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
}

/** A token of the local issuer. */
export async function aJwt(claims: Record<string, unknown>): Promise<string> {
  const response = await fetch(system.tokenUrl, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(claims),
  });
  return ((await response.json()) as { access_token: string }).access_token;
}

/** A connected MCP client of the official SDK. */
export async function anAgent(token: string): Promise<Client & AsyncDisposable> {
  const client = new Client({ name: "flow-test", version: "1" });
  await client.connect(
    new StreamableHTTPClientTransport(new URL(`${system.publicUrl}/mcp`), {
      requestInit: { headers: { authorization: `Bearer ${token}` } },
    }),
  );
  return Object.assign(client, { [Symbol.asyncDispose]: () => client.close() });
}

export interface ToolAnswer {
  isError?: boolean;
  text: string;
  data: Record<string, unknown> | undefined;
  refusal:
    | {
        code: string;
        limit?: number;
        used?: number;
        cost?: number;
        retryAfterSeconds?: number;
        upgradeUrl?: string;
        mayBeChargedAs?: string;
      }
    | undefined;
  /** The charged units and the charge's id. */
  receipt: { id: string; units: number } | undefined;
  headers: Headers;
}

/** Sends one `tools/call` of the 2026-07-28 revision without an MCP client. */
export async function callTool(
  token: string,
  name: string,
  args: Record<string, unknown> = {},
  meta: Record<string, unknown> = {},
): Promise<ToolAnswer> {
  const response = await postMcp(token, {
    jsonrpc: "2.0",
    id: 1,
    method: "tools/call",
    params: { name, arguments: args, _meta: { ...modernMeta, ...meta } },
  });
  return toolAnswer(response);
}

/** Reads the answer of a `tools/call`. Throws when it has no result. */
export async function toolAnswer(response: Response): Promise<ToolAnswer> {
  const body = (await response.json()) as {
    result?: {
      isError?: boolean;
      content: { text: string }[];
      structuredContent?: Record<string, unknown>;
      _meta?: Record<string, unknown>;
    };
    error?: { message: string };
  };
  if (body.result === undefined)
    throw new Error(`HTTP ${response.status}: ${body.error?.message ?? JSON.stringify(body)}`);
  return {
    ...(body.result.isError === undefined ? {} : { isError: body.result.isError }),
    text: body.result.content.map((block) => block.text).join("\n"),
    data: body.result.structuredContent,
    refusal: body.result._meta?.["tollgate/refusal"] as ToolAnswer["refusal"],
    receipt: body.result._meta?.["tollgate/receipt"] as ToolAnswer["receipt"],
    headers: response.headers,
  };
}

export const modernMeta = {
  "io.modelcontextprotocol/protocolVersion": "2026-07-28",
  "io.modelcontextprotocol/clientCapabilities": {},
  "io.modelcontextprotocol/clientInfo": { name: "flow-test", version: "1" },
};

/** Sends any body to `/mcp`, with the headers that the revision requires. `path`: another path, or a URL of another host. */
export function postMcp(
  token: string | undefined,
  body: { method: string; params?: { name?: string; [key: string]: unknown }; [key: string]: unknown },
  headers: Record<string, string> = {},
  path = "/mcp",
): Promise<Response> {
  const name = body.params?.name;
  return fetch(path.startsWith("/") ? system.publicUrl + path : path, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
      "mcp-protocol-version": "2026-07-28",
      "mcp-method": body.method,
      ...(name === undefined ? {} : { "mcp-name": name }),
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      ...headers,
    },
    body: JSON.stringify(body),
  });
}

/** Sends one attempt of a call directly to the tenant's object. Otherwise the MCP endpoint decides on attempts. */
export async function callObject(token: string, call: Omit<CallRequest, "caller">): Promise<CallOutcome> {
  const response = await fetch(`${system.publicUrl}/test/call`, {
    method: "POST",
    headers: { authorization: `Bearer ${token}` },
    body: JSON.stringify(call),
  });
  if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
  return (await response.json()) as CallOutcome;
}

/** Sets the clock of one tenant's object ahead. */
export async function setClock(tenantId: string, offsetMs: number): Promise<void> {
  await fetch(`${system.publicUrl}/test/clock?tenant=${tenantId}&offsetMs=${offsetMs}`);
}

/** How often clients of the tenant have renewed their tokens so far. */
export async function renewalsOf(tenantId: string): Promise<number> {
  const response = await fetch(`${system.publicUrl}/test/renewals?tenant=${tenantId}`);
  return ((await response.json()) as { renewals: number }).renewals;
}

export async function endObject(tenantId: string): Promise<void> {
  await fetch(`${system.publicUrl}/test/end?tenant=${tenantId}`);
}

/** Sets or clears a fault of a tenant's object. Returns the number of calls sent to objects with a fault. */
export async function objectFault(
  tenantId: string,
  fault?: "away" | "overloaded" | "silent" | "answers-lost" | "cut-off" | "no-queue",
): Promise<number> {
  const query = new URLSearchParams({ tenant: tenantId, ...(fault && { fault }) });
  const response = await fetch(`${system.publicUrl}/test/object?${query.toString()}`);
  return ((await response.json()) as { callsSent: number }).callsSent;
}

/** Sets whether the queue refuses messages of one tenant's object. */
export async function queueRefuses(tenantId: string, refuses: boolean): Promise<void> {
  await fetch(`${system.publicUrl}/test/queue-refuses?tenant=${tenantId}&refuses=${refuses}`);
}

/** Sends any body to the usage queue, or directly to its dead-letter queue. */
export async function toQueue(
  queue: "queue" | "dead-queue",
  body: unknown,
): Promise<{ id: string; outcomes: string[] }> {
  return (await postJson(`${system.publicUrl}/test/${queue}`, body)) as { id: string; outcomes: string[] };
}

export async function storedCalls(tenantId: string): Promise<Record<string, unknown>[]> {
  return (await (await fetch(`${system.publicUrl}/test/stored?tenant=${tenantId}`)).json()) as Record<
    string,
    unknown
  >[];
}

export async function fireCron(cron: "* * * * *" | "*/5 * * * *", atMs = Date.now()): Promise<void> {
  const query = new URLSearchParams({ cron, time: String(atMs), format: "json" });
  const response = await fetch(`${system.publicUrl}/cdn-cgi/local/scheduled?${query.toString()}`);
  const text = await response.text();
  if (!response.ok || text.includes('"exception"')) throw new Error(`cron ${cron}: ${response.status} ${text}`);
}

/** Faults of the database's proxy; an empty list clears them. */
export async function databaseFaults(rules: readonly Record<string, unknown>[]): Promise<void> {
  await postJson(`${system.proxyUrl}/_proxy/faults`, rules);
}

/** The simulator's control plane. */
export function simulator(path: string, body?: unknown): Promise<unknown> {
  return body === undefined
    ? fetch(`${system.stripeUrl}/_sim${path}`).then((response) => response.json())
    : postJson(`${system.stripeUrl}/_sim${path}`, body);
}

/** Writes to Stripe's API as another program with the account's key does. */
export async function stripeApi<Created>(path: string, form: Record<string, string>): Promise<Created> {
  const response = await fetch(`${system.stripeUrl}/v1${path}`, {
    method: "POST",
    headers: { authorization: `Bearer ${system.stripeSecretKey}` },
    body: new URLSearchParams(form),
  });
  if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
  return (await response.json()) as Created;
}

export async function stripeRead<Found>(path: string): Promise<Found> {
  const response = await fetch(`${system.stripeUrl}/v1${path}`, {
    headers: { authorization: `Bearer ${system.stripeSecretKey}` },
  });
  if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
  return (await response.json()) as Found;
}

/** Totals so far: requests that the tools' logins sent over HTTP, and sessions opened. */
export async function databaseStats(): Promise<{ tenantTrips: number; websocketConnections: number }> {
  const stats = (await (await fetch(`${system.proxyUrl}/_proxy/stats`)).json()) as NeonProxyStats;
  const tenantTrips = Object.entries(stats.connections)
    .filter(([name]) => /^postgresql:\/\/(tenant_\d+|tollgate_app_[ab])@/.test(name))
    .reduce((sum, [, { httpBatches }]) => sum + httpBatches, 0);
  return { tenantTrips, websocketConnections: stats.websocketConnections };
}

/** The fewest round trips of up to 20 runs. The counters include other tenants' calls and probes, so the minimum is exact. */
export async function fewestTrips(work: () => Promise<unknown>): Promise<{ http: number; sessions: number }> {
  const seen: { http: number; sessions: number }[] = [];
  // Work of other tenants only adds round trips. It may last for a second, so the runs have pauses.
  for (let run = 0; run < 20 && !seen.some(({ http, sessions }) => http + sessions <= 1); run += 1) {
    if (run > 0) await new Promise((resolve) => setTimeout(resolve, 100));
    const before = await databaseStats();
    await work();
    const after = await databaseStats();
    seen.push({
      http: after.tenantTrips - before.tenantTrips,
      sessions: after.websocketConnections - before.websocketConnections,
    });
  }
  return seen.reduce((least, each) => (each.http + each.sessions < least.http + least.sessions ? each : least));
}

/** The same database, as the server's superuser. */
export function asSuperuser(url: string): string {
  const superuser = new URL(system.superuserUrl);
  superuser.pathname = new URL(url).pathname;
  return superuser.href;
}

/** Slots of the fleet's session budget, by the tenants that hold them. */
export async function sessionHolders(): Promise<Record<string, number>> {
  return (await (await fetch(`${system.publicUrl}/test/holders`)).json()) as Record<string, number>;
}

/** Number of times that a fault rule has applied so far. */
export async function databaseHits(): Promise<number> {
  return ((await (await fetch(`${system.proxyUrl}/_proxy/stats`)).json()) as { faults: number }).faults;
}

/** Number of times that each current rule has applied, in order. */
export async function faultsFired(): Promise<number[]> {
  return ((await (await fetch(`${system.proxyUrl}/_proxy/faults`)).json()) as { fired: number[] }).fired;
}

async function postJson(url: string, body: unknown): Promise<unknown> {
  const response = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${url}: ${response.status} ${text}`);
  return text === "" ? undefined : JSON.parse(text);
}

/** Rows of the control database, read as its owner. */
export function controlRows<Row extends pg.QueryResultRow>(
  text: string,
  params: readonly unknown[] = [],
): Promise<Row[]> {
  return rowsOf<Row>(system.controlUrl, text, params);
}

export async function rowsOf<Row extends pg.QueryResultRow>(
  url: string,
  text: string,
  params: readonly unknown[] = [],
): Promise<Row[]> {
  return (await poolOf(url).query<Row>(text, [...params])).rows;
}

/** Connections are pooled, because tests poll often and a new connection costs more than most queries. */
const pools = new Map<string, pg.Pool>();

function poolOf(url: string): pg.Pool {
  const known = pools.get(url);
  if (known !== undefined) return known;
  const pool = new pg.Pool({ connectionString: url, max: 4, idleTimeoutMillis: 1_000, allowExitOnIdle: true });
  pool.on("error", () => undefined); // an idle connection failed; the next query opens a new one
  pools.set(url, pool);
  return pool;
}

/** Polls until the condition holds, for a minute at most: a busy machine takes ten times as long as an idle one. */
export async function until(condition: () => Promise<boolean>, what: string, withinMs = 60_000): Promise<void> {
  const deadline = Date.now() + withinMs;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`It did not happen within ${withinMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
