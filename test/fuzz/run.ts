// Sends fuzzed requests to a running system and judges every answer. An answer is a fault when it is a success that the
// description does not allow, when it shows the victim's data, when it is Tollgate's own failure (5xx, an internal JSON-RPC
// error), or when a refusal has no code or shows the inside of the program.
import { Agent, request } from "node:http";
import * as z from "zod";
import { seededRandom } from "../../dev/seeded-random.ts";
import { type Case, type Credential, type Operation, type World, nextCase } from "./cases.ts";

export interface Fault {
  number: number;
  why: string;
  what: string;
  request: string;
  answer: string;
}

export interface Outcome {
  cases: number;
  byStatus: Map<number, number>;
  /** Successes that the description allows. Without them the fuzzer would have tested only the guards. */
  successes: number;
  faults: Fault[];
}

interface Answer {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  text: string;
}

/** An answer of this size is read; the rest of a longer one is left. */
const MAX_ANSWER_CHARS = 300_000;
/** The slowest route waits 22 s for a question that the database does not answer. */
const ANSWER_WITHIN_MS = 40_000;
/** Faults are alike: the first ones show the kinds. */
const MAX_FAULTS = 40;

/** Sends `cases` requests of this seed, several at a time. */
export async function fuzz(
  baseUrl: string,
  world: World,
  {
    cases,
    seed,
    lanes,
    onProgress,
  }: { cases: number; seed: number; lanes: number; onProgress?: (done: number) => void },
): Promise<Outcome> {
  const random = seededRandom(seed);
  const agent = new Agent({ keepAlive: true, maxSockets: lanes });
  const outcome: Outcome = { cases: 0, byStatus: new Map(), successes: 0, faults: [] };
  let next = 0;
  const lane = async (): Promise<void> => {
    while (next < cases && outcome.faults.length < MAX_FAULTS) {
      const number = (next += 1);
      const each = nextCase(world, random);
      const answer = await send(baseUrl, each, agent);
      outcome.cases += 1;
      outcome.byStatus.set(answer.status, (outcome.byStatus.get(answer.status) ?? 0) + 1);
      if (isSuccess(answer.status) && each.maySucceed) outcome.successes += 1;
      const why = faultOf(each, answer, world.marker);
      if (why !== undefined) outcome.faults.push(faultReport(number, why, each, answer));
      if (outcome.cases % 5_000 === 0) onProgress?.(outcome.cases);
    }
  };
  await Promise.all(Array.from({ length: lanes }, lane));
  agent.destroy();
  return outcome;
}

const isSuccess = (status: number): boolean => status >= 200 && status < 400;

/** Why the answer is a fault; `undefined`: it is none. */
export function faultOf(each: Case, { status, headers, text }: Answer, marker: string): string | undefined {
  if (status === 0) return `no answer: ${text}`;
  if (isSuccess(status) && !each.maySucceed) return "a success that the description does not allow";
  if (!each.mayReadMarker && text.includes(marker)) return "the answer shows the victim's data";
  if (status >= 500 && !isReport(each, text)) return "Tollgate failed";
  if (/"code":\s*-32603/.test(text)) return "an internal JSON-RPC error";
  if (status === 400 && text === "") return undefined; // the platform's own refusal of a request that is not HTTP
  if (headers["x-request-id"] === undefined) return "no X-Request-Id";
  if (/SQLSTATE|\bpg_|syntax error at|\.ts:\d+|node_modules|^\s+at \S+ \(/m.test(text) && status >= 400)
    return "the refusal shows the inside of the program";
  const isPage = String(headers["content-type"]).startsWith("text/html") && text.includes("<title>");
  if (status >= 400 && each.method !== "HEAD" && !isPage && !/"(code|error)":/.test(text))
    return "a refusal without a code";
  return undefined;
}

/** /health answers 503 while something is wrong, such as what earlier requests have spoiled. */
function isReport({ path }: Case, text: string): boolean {
  return path.startsWith("/health") && text.includes('"status":"failing"');
}

function send(baseUrl: string, { method, path, headers, body }: Case, agent: Agent): Promise<Answer> {
  const { hostname, port } = new URL(baseUrl);
  return new Promise((resolve) => {
    const failed = (error: Error): void => resolve({ status: 0, headers: {}, text: error.message });
    const sent = request({ hostname, port, method, path, agent, timeout: ANSWER_WITHIN_MS }, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => {
        if (text.length < MAX_ANSWER_CHARS) text += chunk;
        else response.destroy();
      });
      response.on("close", () => resolve({ status: response.statusCode ?? 0, headers: response.headers, text }));
    });
    sent.on("error", failed);
    sent.on("timeout", () => sent.destroy(new Error(`no answer in ${ANSWER_WITHIN_MS / 1000} s`)));
    for (const [name, value] of headers) sent.setHeader(name, value);
    // Node sends the body of a DELETE without a length, which the server then reads as the next request.
    if (body !== undefined) sent.setHeader("content-length", body.length);
    sent.end(body);
  });
}

function faultReport(number: number, why: string, each: Case, { status, text }: Answer): Fault {
  const headers = each.headers.map(([name, value]) => `${name}: ${value.slice(0, 120)}`).join(" | ");
  const body = each.body === undefined ? "" : ` ${each.body.toString("utf8").slice(0, 400)}`;
  return {
    number,
    why,
    what: each.what,
    request: `${each.method} ${each.path.slice(0, 400)} [${headers}]${body}`,
    answer: `${status} ${text.slice(0, 400)}`,
  };
}

const Described = z.object({
  paths: z.record(
    z.string(),
    z.record(
      z.string(),
      z.object({
        security: z.array(z.record(z.string(), z.unknown())),
        parameters: z
          .array(z.object({ name: z.string(), in: z.string(), schema: z.record(z.string(), z.unknown()) }))
          .default([]),
        requestBody: z
          .object({ content: z.record(z.string(), z.object({ schema: z.record(z.string(), z.unknown()) })) })
          .optional(),
      }),
    ),
  ),
});

/** The operations of the description that the system publishes. */
export async function operationsOf(baseUrl: string): Promise<Operation[]> {
  const { paths } = Described.parse(await (await fetch(`${baseUrl}/openapi.json`)).json());
  return Object.entries(paths).flatMap(([template, methods]) =>
    Object.entries(methods).map(([method, { security, parameters, requestBody }]) => ({
      method: method.toUpperCase(),
      template,
      schemes: security.flatMap((each) => (Object.keys(each).length === 0 ? ["everyone"] : Object.keys(each))),
      body: requestBody?.content["application/json"]?.schema,
      query: parameters.filter((each) => each.in === "query").map(({ name, schema }) => ({ name, schema })),
    })),
  );
}

interface Site {
  baseUrl: string;
  operatorToken: string;
  /** Signs any claims. */
  tokenUrl: string;
}

const Made = z.object({ id: z.string(), statusUrl: z.url() });
const Key = z.object({ id: z.string(), apiKey: z.string() });
const Order = z.object({ tenantId: z.string(), setupToken: z.string(), checkoutUrl: z.url(), statusUrl: z.url() });
const State = z.object({ state: z.string() });
const Tools = z.object({
  result: z.object({ tools: z.array(z.object({ name: z.string(), inputSchema: z.record(z.string(), z.unknown()) })) }),
});

/** Generous enough that the tenants' own limits refuse nothing. */
const noLimits = { callsPerMinute: null, unitsPerHour: null, unitsPerMonth: null };

/** Signs up an attacker, a victim and tenants to spoil, and collects every kind of credential of the attacker. */
export async function makeWorld({ baseUrl, operatorToken, tokenUrl }: Site): Promise<World> {
  const post = async (path: string, body: unknown, token?: string): Promise<unknown> => {
    const response = await fetch(`${baseUrl}${path}`, {
      method: "POST",
      headers: { "content-type": "application/json", ...(token !== undefined && { authorization: `Bearer ${token}` }) },
      body: JSON.stringify(body),
    });
    if (!response.ok) throw new Error(`${path} answered ${response.status}: ${await response.text()}`);
    return response.json();
  };
  const active = async (statusUrl: string): Promise<void> => {
    for (let polls = 0; polls < 400; polls += 1)
      if (State.parse(await (await fetch(statusUrl)).json()).state === "active") return;
    throw new Error("a tenant was not set up");
  };
  const marker = `fuzz-secret-${crypto.randomUUID()}`;
  const create = async (name: string): Promise<string> => {
    const made = Made.parse(await post("/admin/api/tenants", { plan: "pro", name, limits: noLimits }, operatorToken));
    await active(made.statusUrl);
    return made.id;
  };
  const keyOf = async (id: string, scopes?: string[]): Promise<z.infer<typeof Key>> =>
    Key.parse(
      await post(
        `/admin/api/tenants/${id}/keys`,
        { name: "fuzz", ...(scopes !== undefined && { scopes }) },
        operatorToken,
      ),
    );

  const order = Order.parse(await post("/api/checkout", { plan: "free", name: "The attacker" }));
  await (await fetch(order.checkoutUrl, { method: "POST", redirect: "manual" })).arrayBuffer();
  await active(order.statusUrl);
  const attacker = order.tenantId;
  const victim = await create(marker);
  const disposable = [await create("Spoiled 1"), await create("Spoiled 2")];
  await fetch(`${baseUrl}/admin/api/tenants/${attacker}`, {
    method: "PATCH",
    headers: { authorization: `Bearer ${operatorToken}`, "content-type": "application/json" },
    body: JSON.stringify({ limits: noLimits }),
  });
  const [full, reader, victims] = [
    await keyOf(attacker, ["tools:read", "tools:write", "tenant:admin"]),
    await keyOf(attacker, ["tools:read"]),
    await keyOf(victim, ["tools:read", "tools:write"]),
  ];
  // A document of the victim's, so that its rows and files hold the marker, too.
  await mcp(baseUrl, victims.apiKey, "tools/call", {
    name: "write_document",
    arguments: { path: "secret.txt", content: marker },
  });
  const monitor = z
    .object({ monitorToken: z.string() })
    .parse(await post(`/admin/api/tenants/${attacker}/monitor-token`, {}, operatorToken)).monitorToken;
  const sign = async (claims: object): Promise<string> =>
    z.object({ access_token: z.string() }).parse(
      await (
        await fetch(tokenUrl, {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: JSON.stringify(claims),
        })
      ).json(),
    ).access_token;
  const claims = { tenant_id: attacker, sub: "fuzz-user", scope: "tools:read tools:write" };
  const jwt = await sign(claims);
  const nowS = Math.floor(Date.now() / 1000);
  const statusToken = new URL(order.statusUrl).searchParams.get("token") ?? "";

  const own = (name: string, token: string, schemes: string[]): Credential => ({
    name,
    token,
    schemes,
    tenantId: attacker,
  });
  const credentials: Credential[] = [
    own("a key with every scope", full.apiKey, ["adminKey", "agentToken", "statusToken", "statusLink"]),
    own("a key that reads", reader.apiKey, ["agentToken", "statusToken", "statusLink"]),
    own("the set-up token", order.setupToken, ["setupToken", "statusToken", "statusLink"]),
    own("the status token", statusToken, ["statusToken", "statusLink"]),
    own("the monitor token", monitor, ["monitorToken", "monitorLink"]),
    own("a user's token", jwt, ["agentToken", "personToken"]),
    {
      name: "the operator's token",
      token: operatorToken,
      schemes: ["operatorToken", "statusToken", "statusLink"],
      tenantId: undefined,
    },
  ];
  const useless = [
    { name: "an expired token", token: await sign({ ...claims, exp: nowS - 3_600 }) },
    { name: "a token of later", token: await sign({ ...claims, nbf: nowS + 3_600 }) },
    { name: "a token for another audience", token: await sign({ ...claims, aud: "https://other.example/mcp" }) },
    { name: "a token of an unknown organisation", token: await sign({ ...claims, tenant_id: "no-such-organisation" }) },
    { name: "a token without an organisation", token: await sign({ sub: "fuzz-user", scope: "tools:read" }) },
    { name: "part of the operator's token", token: operatorToken.slice(0, -1) },
  ];
  const { tools } = Tools.parse(await mcp(baseUrl, full.apiKey, "tools/list", {})).result;
  return {
    operations: await operationsOf(baseUrl),
    credentials,
    useless,
    attacker,
    victim,
    marker,
    disposable,
    ids: [attacker, victim, full.id, reader.id, victims.id, "secret.txt", ...disposable, "no-such-tenant"],
    tools,
  };
}

async function mcp(baseUrl: string, token: string, method: string, params: object): Promise<unknown> {
  const response = await fetch(`${baseUrl}/mcp`, {
    method: "POST",
    headers: {
      authorization: `Bearer ${token}`,
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
      "mcp-protocol-version": "2025-11-25",
    },
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method, params }),
  });
  return response.json();
}
