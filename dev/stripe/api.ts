// Handles one API request: key, route, parameters, idempotency, lock, fault, effect.
// As in Stripe's v1, the first answer under an Idempotency-Key is replayed for 24 hours, also a 500. Refusals before the
// endpoint runs (parameters, conflicts, 429) are not stored.
import { timingSafeEqual, createHash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import * as z from "zod";
import type { Context } from "./context.ts";
import { ApiError, badRequest, internalError, lockTimeout, rateLimited } from "./errors.ts";
import type { Fault } from "./faults.ts";
import { decodeForm, decodeJson, type Form } from "./form.ts";
import { API_VERSION, present } from "./objects.ts";
import { matchRoute, type Operation } from "./routes.ts";
import { newId, type Store } from "./store.ts";

const IDEMPOTENCY_TTL_MS = 86_400_000;

export interface ApiRequest {
  method: string;
  path: string;
  query: string;
  body: string;
  header: (name: string) => string | undefined;
}
export interface Answer {
  status: number;
  headers: Record<string, string>;
  body: string;
}
/** An answer, or a connection that closes without one. */
export type Outcome = Answer | "closed";

type Transact = (request: { id: string; key: string | null }, work: (context: Context) => Answer) => Answer;
interface Kept {
  key: string;
  path: string;
  params: string;
}

export class Api {
  readonly #store: Store;
  readonly #secretKey: string;
  readonly #transact: Transact;
  /** Idempotency keys and locks of running requests. */
  readonly #busy = new Set<string>();

  constructor(store: Store, secretKey: string, transact: Transact) {
    this.#store = store;
    this.#secretKey = secretKey;
    this.#transact = transact;
  }

  /** Answers one request. `nowMs` is the time of its arrival. */
  async handle(request: ApiRequest, fault: Fault, nowMs: number): Promise<Outcome> {
    if (fault.kind === "refused") return "closed";
    const requestId = newId("req_");
    const answer = await this.#execute(request, requestId, fault, nowMs).catch((error: unknown) => {
      if (error instanceof ApiError) return errorAnswer(error, requestId);
      throw error;
    });
    return fault.kind === "lost" ? "closed" : answer;
  }

  async #execute(request: ApiRequest, requestId: string, fault: Fault, nowMs: number): Promise<Answer> {
    this.#authenticate(request);
    if (fault.kind === "429") throw rateLimited();
    if (fault.kind === "400")
      throw badRequest("A rule of the simulator refuses this request.", { code: "parameter_invalid" });
    const match = matchRoute(request.method, request.path);
    if (match === undefined) {
      const message = `Unrecognized request URL (${request.method}: ${request.path}). The simulator does not know this path.`;
      throw new ApiError(404, { type: "invalid_request_error", message });
    }
    const { expand, form } = parameters(request);
    const operation = match.route.prepare(this.#store, form, match.id);
    const key = request.method === "POST" ? request.header("idempotency-key") : undefined;
    if (key === undefined) return this.#locked(operation, undefined, requestId, fault, expand);

    if (key.length > 255) throw badRequest("Idempotency keys are limited to 255 characters.");
    const kept: Kept = { key, path: request.path, params: digest(JSON.stringify([form, expand])) };
    const busyName = `key ${key}`;
    if (this.#busy.has(busyName)) throw keyInUse(key);
    const replay = this.#replay(kept, nowMs);
    if (replay !== undefined) return replay;
    this.#busy.add(busyName);
    try {
      return await this.#locked(operation, kept, requestId, fault, expand);
    } finally {
      this.#busy.delete(busyName);
    }
  }

  async #locked(
    operation: Operation,
    kept: Kept | undefined,
    requestId: string,
    fault: Fault,
    expand: readonly string[],
  ): Promise<Answer> {
    const busyName = operation.lock === undefined ? undefined : `lock ${operation.lock}`;
    if (busyName !== undefined && this.#busy.has(busyName)) throw lockTimeout();
    if (busyName !== undefined) this.#busy.add(busyName);
    try {
      if (fault.delayMs > 0) await sleep(fault.delayMs);
      return this.#run(operation, kept, requestId, fault, expand);
    } finally {
      if (busyName !== undefined) this.#busy.delete(busyName);
    }
  }

  #run(
    operation: Operation,
    kept: Kept | undefined,
    requestId: string,
    fault: Fault,
    expand: readonly string[],
  ): Answer {
    const request = { id: requestId, key: kept?.key ?? null };
    try {
      return this.#transact(request, (context) => {
        if (fault.kind === "error-500-before") throw internalError();
        const result = operation.run(context);
        const shown = () => present(result, expand, (id) => context.store.findAny(id));
        // A returned refusal keeps its effect, unlike a thrown one: a declined payment was attempted.
        const refusal = fault.kind === "error-500-after" ? internalError() : result;
        const answer =
          refusal instanceof ApiError ? errorAnswer(refusal, requestId) : jsonAnswer(200, shown(), requestId);
        return this.#keep(kept, answer, context.nowMs);
      });
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      const answer = errorAnswer(error, requestId);
      // The effect is rolled back, but the answer is stored as the first one under its key.
      return this.#transact(request, (context) => this.#keep(kept, answer, context.nowMs));
    }
  }

  #authenticate(request: ApiRequest): void {
    const given = /^Bearer (.+)$/.exec(request.header("authorization") ?? "")?.[1];
    if (given === undefined) {
      const message = "You did not provide an API key. Provide it in the Authorization header, using Bearer auth.";
      throw new ApiError(401, { type: "invalid_request_error", message });
    }
    if (!timingSafeEqual(Buffer.from(digest(given)), Buffer.from(digest(this.#secretKey)))) {
      const masked = `${given.slice(0, 8)}${"*".repeat(8)}${given.slice(-4)}`;
      throw new ApiError(401, { type: "invalid_request_error", message: `Invalid API Key provided: ${masked}` });
    }
    const version = request.header("stripe-version") ?? API_VERSION;
    if (version !== API_VERSION)
      throw badRequest(`The simulator answers API version ${API_VERSION} only, not ${version}.`);
  }

  #replay(kept: Kept, nowMs: number): Answer | undefined {
    const row = this.#store.sql.get`SELECT path, params, answer FROM idempotency
      WHERE key = ${kept.key} AND created_ms > ${nowMs - IDEMPOTENCY_TTL_MS}`;
    if (row === undefined) return undefined;
    if (row["path"] !== kept.path || row["params"] !== kept.params) {
      const what = row["path"] === kept.path ? "with the same parameters" : "for the same endpoint";
      const message = `Keys for idempotent requests can only be used ${what} they were first used with. Try using a key other than '${kept.key}' if you meant to execute a different request.`;
      throw new ApiError(400, { type: "idempotency_error", message });
    }
    const first: Answer = JSON.parse(String(row["answer"]));
    const original = first.headers["request-id"] ?? "";
    return { ...first, headers: { ...first.headers, "idempotent-replayed": "true", "original-request": original } };
  }

  #keep(kept: Kept | undefined, answer: Answer, nowMs: number): Answer {
    if (kept === undefined || (isV2(kept) && answer.status >= 400)) return answer;
    const named = { ...answer, headers: { ...answer.headers, "idempotency-key": kept.key } };
    void this.#store.sql.run`INSERT OR REPLACE INTO idempotency (key, path, params, answer, created_ms)
      VALUES (${kept.key}, ${kept.path}, ${kept.params}, ${JSON.stringify(named)}, ${nowMs})`;
    return named;
  }
}

const expansions = z.array(z.string()).max(20);

/** Query and body together: the SDK puts the parameters of GET and DELETE into the query. */
function parameters(request: ApiRequest): { expand: string[]; form: Form } {
  const { query, body } = request;
  const decoded = isV2(request)
    ? { ...decodeForm(query), ...decodeJson(body) }
    : decodeForm([query, body].filter((part) => part !== "").join("&"));
  const { expand, ...form } = decoded;
  const paths = expansions.safeParse(expand ?? []);
  if (!paths.success) throw badRequest("Invalid array", { param: "expand" });
  return { expand: paths.data, form };
}

/** v2 of the API uses JSON in requests and answers, and repeats a failed request under the same key. */
function isV2({ path }: { path: string }): boolean {
  return path.startsWith("/v2/");
}

function jsonAnswer(status: number, body: unknown, requestId: string): Answer {
  const headers = { "content-type": "application/json", "request-id": requestId, "stripe-version": API_VERSION };
  return { status, headers, body: JSON.stringify(body, null, 2) };
}

function errorAnswer(error: ApiError, requestId: string): Answer {
  const answer = jsonAnswer(error.status, { error: error.body }, requestId);
  if (error.shouldRetry === undefined) return answer;
  return { ...answer, headers: { ...answer.headers, "stripe-should-retry": String(error.shouldRetry) } };
}

function keyInUse(key: string): ApiError {
  const message = `There is currently another in-progress request using this Idempotent Key: ${key}. Try again in a moment.`;
  return new ApiError(409, { type: "idempotency_error", code: "idempotency_key_in_use", message });
}

function digest(value: string): string {
  return createHash("sha256").update(value).digest("hex");
}
