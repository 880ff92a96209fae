// Sends fuzzed requests to a running system and judges every answer. An answer is a fault when it is a success that the
// description does not allow, when it shows the victim's data, when it is Tollgate's own failure (5xx, an internal JSON-RPC
// error), or when a refusal has no code or shows the inside of the program.
import { Agent, request } from "node:http";
import * as z from "zod";
import { seededRandom } from "../../dev/seeded-random.ts";
import { type Case, type Operation, type World, nextCase } from "./cases.ts";

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
    onFault,
    signal,
  }: {
    cases: number;
    seed: number;
    lanes: number;
    onProgress?: (done: number) => void;
    onFault?: (fault: Fault) => void;
    /** Ends the run early. The outcome has what was sent until then. */
    signal?: AbortSignal;
  },
): Promise<Outcome> {
  const random = seededRandom(seed);
  const agent = new Agent({ keepAlive: true, maxSockets: lanes });
  const outcome: Outcome = { cases: 0, byStatus: new Map(), successes: 0, faults: [] };
  let next = 0;
  const isDone = (): boolean => next >= cases || outcome.faults.length >= MAX_FAULTS || signal?.aborted === true;
  const lane = async (): Promise<void> => {
    while (!isDone()) {
      const number = (next += 1);
      const each = nextCase(world, random);
      const answer = await send(baseUrl, each, agent);
      outcome.cases += 1;
      outcome.byStatus.set(answer.status, (outcome.byStatus.get(answer.status) ?? 0) + 1);
      if (isSuccess(answer.status) && each.maySucceed) outcome.successes += 1;
      const why = faultOf(each, answer, world);
      if (why !== undefined) {
        const fault = faultReport(number, why, each, answer);
        outcome.faults.push(fault);
        onFault?.(fault);
      }
      if (outcome.cases % 5_000 === 0) onProgress?.(outcome.cases);
    }
  };
  await Promise.all(Array.from({ length: lanes }, lane));
  agent.destroy();
  return outcome;
}

const isSuccess = (status: number): boolean => status >= 200 && status < 400;

/** Why the answer is a fault; `undefined`: it is none. */
export function faultOf(
  each: Case,
  { status, headers, text }: Answer,
  { marker, victim, origins }: Pick<World, "marker" | "victim" | "origins">,
): string | undefined {
  if (status === 0) return `no answer: ${text}`;
  if (isSuccess(status) && !each.maySucceed) return "a success that the description does not allow";
  if (!each.mayReadMarker && text.includes(marker)) return "the answer shows the victim's data";
  if (!each.mayReadMarker && isSuccess(status) && new RegExp(`"tg[a-z]_${victim}\\.`).test(text))
    return "a credential of the victim";
  if (leadsAway(headers["location"], origins)) return "a redirect to a place that is not registered";
  if (status >= 500 && !isReport(each, text)) return "Tollgate failed";
  if (/"code":\s*-32603/.test(text)) return "an internal JSON-RPC error";
  if (status === 400 && text === "") return undefined; // the platform's own refusal of a request that is not HTTP
  if (headers["x-request-id"] === undefined) return "no X-Request-Id";
  if (/SQLSTATE|\bpg_|syntax error at|\.ts:\d+|node_modules|^\s+at \S+ \(/m.test(text) && status >= 400)
    return "the refusal shows the inside of the program";
  const isPage = String(headers["content-type"]).startsWith("text/html") && text.includes("<title>");
  if (status >= 400 && each.method !== "HEAD" && !isPage && !isReport(each, text) && !/"(code|error)":/.test(text))
    return "a refusal without a code";
  return undefined;
}

/** Whether a browser would leave for an origin that is neither Tollgate's, nor the provider's, nor the registered client's. */
function leadsAway(location: Answer["headers"][string], origins: readonly string[]): boolean {
  if (location === undefined) return false;
  const to = URL.parse(String(location), origins[0]);
  return to === null || !origins.includes(to.origin);
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
