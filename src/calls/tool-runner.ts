// Runs one tool within its bounds: a time limit, an abort and a maximum size of the result. The outcome says whether the
// call is charged. The text of an exception that a tool throws goes to the log and never to the client.
import * as z from "zod";
import type { CallRequest, Caller, ContentBlock, Progress, Question } from "../core/call.ts";
import { createTenantFiles } from "../adapters/files.ts";
import { type Outside, fetchOutside } from "../adapters/tool-fetch.ts";
import { decryptSecret } from "../control/encrypted-logins-store.ts";
import { config as appConfig } from "../core/app-config.ts";
import { AnswerLost, AppError, type ErrorCode, ToolProblem, errorCode, errors, support } from "../core/errors.ts";
import { sqlStateOf } from "../adapters/neon.ts";
import { featuresOf } from "../core/plans/plans.ts";
import type { TenantConfig } from "../core/tenant/tenant.ts";
import { setterOf, tenantSecretPurpose } from "../core/tenant/tool-secrets.ts";
import { describeError, log } from "../log.ts";
import { CallSecrets } from "../tools/call-secrets.ts";
import { MAX_RESULT_BYTES, contentOf, resultBytes } from "../tools/content.ts";
import { type Ask, type QuestionOptions, Questions } from "../tools/question.ts";
import { TOOL_TIMEOUT_MS, type TenantDb, type Tool, type ToolContext, UnitMeter } from "../tools/tool.ts";

export interface ToolRun {
  charged: boolean;
  /** What the call costs if it is charged. */
  units: number;
  isError: boolean;
  content: ContentBlock[];
  data: Record<string, unknown> | undefined;
  /** Why there is no answer of the tool. `undefined`: the tool answered, or it asks. */
  failure: ErrorCode | undefined;
  /** What the client has to answer before the call can complete. */
  question?: Question;
}

/** The bindings that tools reach through their context. */
export type ToolEnv = Pick<Env, "FILES" | "ENCRYPTION_KEYS"> & Outside["env"];

/** What the host of a call knows of its tool's context. The rest belongs to the run. `secrets`: those that the call has read. */
type OfHost = Omit<ToolContext, "charge" | "ask" | "canAsk" | "progress" | "signal" | "secrets"> & {
  readonly secrets: CallSecrets;
};

/** Builds a tool's context for one call. `own` differs between the tenant's object and the fallback path. */
export function toolContext(
  env: ToolEnv,
  config: TenantConfig,
  { callId, caller, tool }: Pick<CallRequest, "callId" | "caller"> & { tool: Tool },
  own: Pick<ToolContext, "db" | "usage" | "history"> & Pick<Outside, "signal"> & { fetched: (ms: number) => void },
): OfHost {
  const { id, name, plan } = config;
  const secrets = new CallSecrets(tool, (secret) => readSecret(env, config, secret));
  const { db, usage, history, signal, fetched } = own;
  const outside: Outside = {
    ...{ env, hosts: tool.hosts ?? [], isReadOnly: tool.annotations.readOnly, signal },
    hasSecret: (text) => secrets.hasAny(text),
  };
  return {
    ...{ db, usage, history },
    tenant: { id, name, plan, features: featuresOf(config) },
    // To a tool a member is a user, however the member signed in.
    caller: { kind: caller.kind === "grant" || caller.kind === "member" ? "user" : caller.kind, id: callerId(caller) },
    callId,
    files: createTenantFiles({ bucket: env.FILES, tenantId: id }),
    secrets,
    fetch: (url, request = {}) => timed(fetchOutside(url, request, outside), fetched),
    log: (event, fields = {}) =>
      log("info", secrets.hide(event), { ...secrets.hideIn(fields), callId, tenantId: id, tool: tool.name }),
  };
}

/** A secret's value. Throws `secret_missing`, which names the secret and who sets it where. */
async function readSecret(env: ToolEnv, { id, secrets }: TenantConfig, name: string): Promise<string> {
  if (setterOf(appConfig.secrets ?? {}, name) === "operator") {
    const value: unknown = Reflect.get(env, name);
    if (typeof value === "string" && value !== "") return value;
    const text = `The operator of this server has not set the secret ${name}. Ask support: ${support}.`;
    throw new ToolProblem("secret_missing", text, "permanent");
  }
  const encrypted = secrets[name];
  if (encrypted === undefined) {
    const text = `The secret ${name} is not set. An administrator of the account sets it at ${env.PUBLIC_URL}/app/${id}/secrets.`;
    throw new ToolProblem("secret_missing", text, "permanent");
  }
  try {
    return await decryptSecret(env, tenantSecretPurpose(id, name), encrypted);
  } catch (error) {
    throw new AppError("internal", `the secret ${name} does not decrypt`, { cause: error });
  }
}

/** The same result. `spent` gets the milliseconds until it was there, or until it failed. */
async function timed<Result>(work: Promise<Result>, spent: (ms: number) => void): Promise<Result> {
  const startedAtMs = Date.now();
  try {
    return await work;
  } finally {
    spent(Date.now() - startedAtMs);
  }
}

/**
 * The same rows. `spent` gets the milliseconds of each use of the database, with its waits; a transaction counts from its
 * begin to its end. Uses at the same time count each.
 */
export function timedDb(db: TenantDb, spent: (ms: number) => void): TenantDb {
  return {
    query: (text, params) => timed(db.query(text, params), spent),
    values: (text, params) => timed(db.values(text, params), spent),
    analytics: (text, params) => timed(db.analytics(text, params), spent),
    transaction: (work: Parameters<TenantDb["transaction"]>[0]) => timed(db.transaction(work), spent),
  } as TenantDb;
}

/** The caller's id as tools see it. */
function callerId(caller: Caller): string {
  if (caller.kind === "key") return caller.keyId;
  if (caller.kind === "grant" || caller.kind === "member") return caller.memberId;
  return caller.kind === "user" ? caller.subject : "canary";
}

/**
 * Runs the tool until it answers, its time limit passes or `abort` fires, whichever is first. Tollgate does not wait for
 * a tool that keeps running after that: its `signal` has fired, and its call is not charged.
 */
export async function runTool(
  tool: Tool,
  args: Readonly<Record<string, unknown>>,
  context: OfHost,
  options: {
    abort: AbortController;
    progress: ((progress: Progress) => Promise<void>) | undefined;
    /** Whether a failed answer tells its cause. Only for a system on the developer's own machine: a cause may quote rows. */
    tellsCause?: boolean;
  } & Pick<QuestionOptions, "asking" | "askClient">,
): Promise<ToolRun> {
  const { abort, progress } = options;
  const { secrets } = context;
  const { promise: stopped, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(new Stopped(abort.signal.reason === TIMED_OUT ? "tool_timeout" : "tool_aborted"));
  if (abort.signal.aborted) onAbort(); // aborted before the tool started
  abort.signal.addEventListener("abort", onAbort, { once: true });
  const meter = new UnitMeter(tool);
  const limit = new TimeLimit(tool.timeoutMs ?? TOOL_TIMEOUT_MS, () => abort.abort(TIMED_OUT));
  const questions = new Questions({
    ...options,
    pause: (work) => limit.pausedFor(work),
    check: (question) => {
      if (secrets.isIn(question)) throw new AppError("secret_in_result");
    },
  });
  try {
    // Assigned, not spread: a caller's context may have methods on its prototype.
    const full: ToolContext = Object.assign(context, {
      signal: abort.signal,
      charge: (units: number) => meter.charge(units),
      ask: <Shape extends z.ZodObject>(ask: Ask<Shape>) => questions.ask(ask),
      canAsk: questions.canAsk,
      // A client that does not take progress must not fail the tool.
      progress:
        progress === undefined
          ? noProgress
          : (step: Progress) => progress(withoutSecrets(step, secrets)).catch(() => undefined),
    });
    const result = await Promise.race([tool.run(args, full), stopped]);
    if (questions.open !== undefined) return asked(questions.open);
    const units = meter.end();
    const content = contentOf(result);
    // Checked before the charge: a result that breaks the tool's own schema is a failure of the tool.
    const data = "isError" in result ? undefined : tool.output.parse(result.data);
    if (resultBytes(content, data) > MAX_RESULT_BYTES) return failure("result_too_large");
    if (secrets.isIn([content, data])) {
      const { callId, tenant } = context;
      log("error", "secret_in_result", { callId, tenantId: tenant.id, tool: tool.name });
      return failure("secret_in_result");
    }
    return { charged: !tool.failed(result), units, isError: "isError" in result, content, data, failure: undefined };
  } catch (error) {
    if (questions.open !== undefined) return asked(questions.open);
    const code = failureCode(error, tool);
    log("warn", "tool_failed", {
      callId: context.callId,
      tenantId: context.tenant.id,
      tool: tool.name,
      code,
      error: secrets.hide(describeError(error)),
    });
    const parts = [detailOf(error, tool), options.tellsCause === true ? causeOf(error) : undefined];
    const detail = parts.filter((each) => each !== undefined).join(" ");
    return failure(code, detail === "" ? undefined : secrets.hide(detail));
  } finally {
    meter.end();
    limit.end();
    abort.signal.removeEventListener("abort", onAbort);
  }
}

/** A tool's time limit. It stands still while a person thinks. */
class TimeLimit {
  #leftMs: number;
  readonly #onEnd: () => void;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #startedAtMs = 0;
  #pauses = 0;

  constructor(leftMs: number, onEnd: () => void) {
    this.#leftMs = leftMs;
    this.#onEnd = onEnd;
    this.#start();
  }

  async pausedFor<Result>(work: Promise<Result>): Promise<Result> {
    this.#pauses += 1;
    if (this.#pauses === 1) {
      clearTimeout(this.#timer);
      this.#leftMs -= Date.now() - this.#startedAtMs;
    }
    try {
      return await work;
    } finally {
      this.#pauses -= 1;
      if (this.#pauses === 0) this.#start();
    }
  }

  end(): void {
    this.#pauses = Infinity; // a question that is answered later starts nothing
    clearTimeout(this.#timer);
  }

  #start(): void {
    this.#startedAtMs = Date.now();
    this.#timer = setTimeout(this.#onEnd, Math.max(0, this.#leftMs));
  }
}

const TIMED_OUT = "timed out";

class Stopped extends Error {
  readonly code: "tool_timeout" | "tool_aborted";
  constructor(code: "tool_timeout" | "tool_aborted") {
    super(code);
    this.code = code;
  }
}

function asked(question: Question): ToolRun {
  return { charged: false, units: 0, isError: false, content: [], data: undefined, failure: undefined, question };
}

async function noProgress(): Promise<void> {}

function withoutSecrets({ message, ...step }: Progress, secrets: CallSecrets): Progress {
  return { ...step, ...(message !== undefined && { message: secrets.hide(message) }) };
}

function failureCode(error: unknown, tool: Tool): ErrorCode {
  if (error instanceof Stopped) return error.code;
  // A statement whose answer was lost may have been committed.
  if (error instanceof AnswerLost && !tool.annotations.readOnly) return "outcome_unknown";
  const code = errorCode(error);
  return code === "internal" ? "tool_failed" : code;
}

/** What a thrown value says to the tool's developer: PostgreSQL's words, or the tool's own error. */
function causeOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || error instanceof Stopped || error instanceof ToolProblem) return undefined;
  if (errorCode(error) === "question_unsupported") return undefined;
  if (error instanceof z.ZodError) return `The data does not match \`output\`: ${z.prettifyError(error)}`;
  const { cause } = error;
  if (sqlStateOf(error) === undefined || !(cause instanceof Error)) return `${error.name}: ${error.message}`;
  const hint: unknown = Reflect.get(cause, "hint");
  const advice = typeof hint === "string" && hint !== "" ? ` Hint: ${hint}` : "";
  return `PostgreSQL: ${cause.message} (SQLSTATE ${sqlStateOf(error)}).${advice}`;
}

function detailOf(error: unknown, { annotations }: Tool): string | undefined {
  if (error instanceof ToolProblem) return error.message;
  // It asks before it writes, and its question says what it wants.
  if (errorCode(error) === "question_unsupported" && error instanceof Error) return error.message;
  if (annotations.readOnly) return undefined;
  if (error instanceof Stopped) return "Changes that it had already made may remain.";
  return error instanceof AnswerLost ? "The database did not answer." : undefined;
}

function failure(code: ErrorCode, detail?: string): ToolRun {
  const { advice } = errors[code];
  // A client cannot know it of a call that has failed, and the advice is also read where there is no call.
  const isSaid = advice.includes("charged") || code === "outcome_unknown";
  const sentences = [`${code}: ${advice}`, isSaid ? undefined : "The call was not charged.", detail];
  const text = sentences.filter((each) => each !== undefined).join(" ");
  const content: ContentBlock[] = [{ type: "text", text }];
  return { charged: false, units: 0, isError: true, content, data: undefined, failure: code };
}
