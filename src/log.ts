// One JSON line per event; the only user of console. Fields are ids, codes and numbers: never a token, an argument,
// a row or a customer's text.
import { AsyncLocalStorage } from "node:async_hooks";
import { AppError, errorCode } from "./core/errors.ts";
import { storable } from "./core/text/text.ts";

export type LogLevel = "info" | "warn" | "error";
export type LogFields = Readonly<Record<string, string | number | boolean | null | undefined>>;

/** What every line of a request carries. Plain data: it crosses RPCs. */
export interface RequestMarks {
  requestId: string;
  marks: LogFields;
}

const requests = new AsyncLocalStorage<RequestMarks>();

/** Does the work of a request. Every line that it writes carries the request's id and marks, also after the answer. */
export function inRequest<Result>(requestId: string | undefined, work: () => Result, marks: LogFields = {}): Result {
  return requestId === undefined ? work() : requests.run({ requestId, marks }, work);
}

/** Adds fields to every further line of the request that runs now. Does nothing outside of a request. */
export function markRequest(marks: LogFields): void {
  const request = requests.getStore();
  if (request !== undefined) request.marks = { ...request.marks, ...marks };
}

/** The request that runs now; `undefined` in a cron, a queue batch and a Workflow. */
export function currentRequest(): RequestMarks | undefined {
  return requests.getStore();
}

/** The id of the request that runs now, if there is one. */
export function currentRequestId(): string | undefined {
  return requests.getStore()?.requestId;
}

/** The trace of the request that runs now, if its client has sent one. */
export function currentTraceId(): string | undefined {
  const traceId = requests.getStore()?.marks["traceId"];
  return typeof traceId === "string" ? traceId : undefined;
}

/** The trace id in a `traceparent` (W3C Trace Context), or `undefined`. A client's text: only the form of an id is accepted. */
export function traceOf(traceparent: unknown): string | undefined {
  if (typeof traceparent !== "string") return undefined;
  const [, traceId] = /^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}/.exec(traceparent) ?? [];
  return traceId === undefined || /^0+$/.test(traceId) ? undefined : traceId;
}

/** Writes one line. `event` is a stable snake_case name. Lines of a request carry its `requestId`, others name the work. */
export function log(level: LogLevel, event: string, fields: LogFields = {}): void {
  const { requestId, marks } = requests.getStore() ?? {};
  console[level](JSON.stringify({ level, event, requestId, ...marks, ...fields }));
}

/**
 * Describes a thrown value for a log line. The message of an `AppError` is safe to log. Other messages may quote rows,
 * arguments or a customer, so the line has only their kind, codes and place. The control tables can store the description.
 */
export function describeError(error: unknown): string {
  if (!(error instanceof Error)) return `thrown: ${typeof error}`;
  // An object's error reaches its caller as a plain `Error` with the name, the code and the message.
  if (error instanceof AppError || (ownNames.has(error.name) && errorCode(error) !== "internal"))
    return storable(`${error.name}: ${error.message}`, LONGEST);
  const facts = told.flatMap((name) => {
    const value: unknown = Reflect.get(error, name);
    return typeof value === "string" || typeof value === "number" || value === true ? [`${name}=${String(value)}`] : [];
  });
  const place = /\n\s+(at .+)/.exec(error.stack ?? "")?.[1] ?? "";
  return storable([error.name, ...facts, place].join(" "), LONGEST);
}

/** Names of `AppError` and of its kinds. */
const ownNames = new Set(["AppError", "AnswerLost", "OutsideFailure", "NeonApiFailure", "MoveRefused", "ToolProblem"]);

/** Codes of Stripe's and PostgreSQL's errors, and flags of errors that a Durable Object's runtime throws. */
const told = ["code", "type", "statusCode", "requestId", "overloaded", "retryable", "durableObjectReset"] as const;
const LONGEST = 300;
