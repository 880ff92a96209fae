// The table of all refusals: a stable code, the HTTP status, and advice to the reader. Expected refusals are returned as
// values; bugs and outages are thrown as `AppError`. The text of a database, of Stripe or of a tool's exception never
// reaches a client.
import { config } from "./app-config.ts";

/** The operator's support: a mail address or a URL. */
export const support = config.product.supportUrl.replace(/^mailto:/, "");

export const errors = {
  // who is calling
  token_missing: { status: 401, advice: "Send `Authorization: Bearer <API key or access token>`." },
  token_invalid: {
    status: 401,
    advice: "This server does not accept the token. Sign in again, or get a new key from your administrator.",
  },
  issuer_unavailable: {
    status: 503,
    advice: "The token's issuer cannot be reached, so the token cannot be checked. Try again shortly.",
  },
  token_expired: { status: 401, advice: "The token has expired. Get a new one and send the request again." },
  key_revoked: {
    status: 401,
    advice: "This API key was revoked or has expired. Ask your administrator for a new one.",
  },
  tenant_unknown: { status: 403, advice: "No account is linked to this identity." },
  scope_missing: { status: 403, advice: "The token lacks a scope that this request needs." },
  origin_refused: { status: 403, advice: "With a sign-in session, only a page of this service may send this." },
  role_missing: { status: 403, advice: "Your role does not allow this." },
  // 401: a client that reads it signs in again, and the person then reads which organisation has removed them.
  member_removed: {
    status: 401,
    advice: "Your membership of this account has ended. Ask its administrator for a new invitation.",
  },
  invitation_ended: {
    status: 410,
    advice: "This invitation was used or withdrawn, or it has expired. Ask for a new one.",
  },
  // the tenant's state
  tenant_provisioning: { status: 403, advice: "The account is being set up, which takes seconds. Try again shortly." },
  trial_expired: { status: 403, advice: "The trial has ended." },
  payment_required: {
    status: 402,
    advice: "A payment has been overdue for a week. Calls work again as soon as the open invoice is paid.",
  },
  tenant_suspended: { status: 403, advice: "The account is suspended." },
  tenant_leaving: { status: 403, advice: "The account is being closed; only export works until it is reactivated." },
  payment_failed: {
    status: 402,
    advice: "Stripe could not charge the account. Add a valid payment method, then try again.",
  },
  tenant_gone: { status: 403, advice: "The account was closed." },
  // admission
  tool_not_allowed: { status: 403, advice: "This account may not call this tool." },
  tool_not_in_plan: { status: 403, advice: "This account's plan does not have this tool." },
  feature_missing: { status: 403, advice: "This tool needs a feature that the account does not have." },
  tool_ended: { status: 410, advice: "This tool has ended." },
  tool_not_in_key: { status: 403, advice: "This API key may not call this tool." },
  rate_limited: { status: 429, advice: "Too many requests in a minute." },
  too_many_in_flight: { status: 429, advice: "Too many calls are running at once." },
  window_exhausted: { status: 429, advice: "This hour's units are used up." },
  tool_exhausted: { status: 429, advice: "This hour's units for this tool are used up." },
  period_exhausted: { status: 429, advice: "This month's units are used up." },
  key_budget_exhausted: { status: 429, advice: "This API key's units of the month are used up." },
  spend_cap_reached: { status: 429, advice: "The spend cap of this billing period is reached." },
  cost_over_limit: { status: 403, advice: "This call costs more than the plan's whole allowance." },
  // running a tool
  tool_unknown: { status: 404, advice: "There is no such tool. Call `tools/list` for the tools that exist." },
  tool_failed: { status: 500, advice: "The tool failed and was not charged. Trying again may help." },
  tool_timeout: { status: 504, advice: "The tool took too long. It was stopped and was not charged." },
  tool_aborted: { status: 499, advice: "The call was cancelled by the client and was not charged." },
  question_unsupported: {
    status: 400,
    advice:
      "The tool needs an answer from a person, and this client cannot ask for one. Use a client with MCP elicitation (forms).",
  },
  question_unanswered: { status: 504, advice: "The tool asked a question, and no usable answer came in time." },
  result_too_large: { status: 500, advice: "The result is over 1 MiB and was not charged. Ask for less." },
  secret_missing: { status: 409, advice: "The tool needs a secret that is not set." },
  secret_in_result: {
    status: 500,
    advice: `The tool's result contained a secret, so it was withheld and was not charged. Ask support: ${support}.`,
  },
  fetch_refused: { status: 403, advice: "The tool asked another service for something that the rules refuse." },
  fetch_failed: { status: 503, advice: "A service that the tool needs cannot be reached. Try again shortly." },
  fetch_timeout: { status: 504, advice: "A service that the tool needs took too long. Try again shortly." },
  fetch_too_large: {
    status: 502,
    advice: "A service that the tool needs sent more than a tool may read. Ask for less.",
  },
  outcome_unknown: {
    status: 500,
    advice: "It is not known whether the call took effect. Check before you call again.",
  },
  idempotency_key_reused: {
    status: 409,
    advice: "This idempotency key belongs to a call of another tool or with other arguments. Send a new key.",
  },
  idempotency_keys_exhausted: {
    status: 429,
    advice: "The account has used more idempotency keys in 24 hours than the server keeps. Send the call without one.",
  },
  result_not_kept: {
    status: 410,
    advice: "A call with this idempotency key has succeeded before and was charged once. Its result is no longer kept.",
  },
  database_unavailable: {
    status: 503,
    advice: "The database cannot be reached. Try again shortly.",
  },
  database_silent: {
    status: 503,
    advice: "The database does not answer. Try again shortly.",
  },
  sessions_exhausted: {
    status: 503,
    advice: "All database sessions of the account are in use. Try again shortly.",
  },
  sessions_unavailable: {
    status: 503,
    advice:
      "This tool needs a database session, which is not available while usage cannot be counted. Try again shortly.",
  },
  isolation_unproven: {
    status: 503,
    advice: "The server could not prove that tenants are isolated from each other, so it runs no tool.",
  },
  tenant_unavailable: { status: 503, advice: "The account's data cannot be reached. Try again shortly." },
  metering_unavailable: {
    status: 503,
    advice: "Usage cannot be counted right now, so the call was not answered.",
  },
  placement_unavailable: {
    status: 503,
    advice: "Storage for this account cannot be created yet. Tollgate retries automatically.",
  },
  // HTTP and outside systems
  bad_request: { status: 400, advice: "The request is malformed." },
  text_invalid: {
    status: 400,
    advice:
      "A text contains NUL or half of a surrogate pair, which cannot be stored. Remove it and send the text again.",
  },
  not_found: { status: 404, advice: "There is nothing at this address." },
  method_not_allowed: { status: 405, advice: "This address takes other methods. The `Allow` header lists them." },
  conflict: { status: 409, advice: "This is not possible in the current state." },
  idempotency_key_mismatch: {
    status: 422,
    advice: "This Idempotency-Key was used with another body. Send the first body again, or use a new key.",
  },
  precondition_required: {
    status: 428,
    advice: "Send `If-Match` with the ETag of the version that you have read.",
  },
  precondition_failed: {
    status: 412,
    advice: "Another change came first. Read the current version, then send the change again with its ETag.",
  },
  body_too_large: { status: 413, advice: "The body is larger than this server accepts." },
  content_type: { status: 415, advice: "Send `Content-Type: application/json`." },
  signature_invalid: { status: 400, advice: "The webhook's signature is missing, wrong or too old." },
  billing_unavailable: {
    status: 503,
    advice: "The billing provider cannot be reached. Try again shortly.",
  },
  billing_refused: {
    status: 502,
    advice: `The billing provider refused this. Trying again does not help. Ask support: ${support}.`,
  },
  monitor_unavailable: {
    status: 503,
    advice: "The outside monitor cannot be reached. Tollgate retries automatically.",
  },
  monitor_refused: {
    status: 502,
    advice: "The outside monitor refused this. The log names its answer.",
  },
  control_unavailable: {
    status: 503,
    advice: "The control database cannot be reached. Nothing was lost; try again shortly.",
  },
  internal: {
    status: 500,
    advice: `Something failed on our side. If it happens again, send this message to support: ${support}.`,
  },
} as const satisfies Record<string, { status: number; advice: string }>;

export type ErrorCode = keyof typeof errors;

/**
 * Whether the same request can succeed later. wait: yes, after a pause. change: only when something else changes first, which
 * the advice names. check: perhaps, after a look at the current state.
 */
export type RetryAdvice = "wait" | "change" | "check";

/** Codes whose status says something else. */
const retryAdvice: Readonly<Partial<Record<ErrorCode, RetryAdvice>>> = {
  tenant_provisioning: "wait",
  tool_aborted: "wait",
  question_unanswered: "change",
  outcome_unknown: "check",
  conflict: "check",
  precondition_failed: "check",
  result_too_large: "change",
  secret_in_result: "change",
  idempotency_keys_exhausted: "change",
};

/** Whether a retry of a request that was refused with this code can help. */
export function retryOf(code: ErrorCode): RetryAdvice {
  const { status } = errors[code];
  return retryAdvice[code] ?? ([429, 500, 503, 504].some((each) => each === status) ? "wait" : "change");
}

/** An outage or a bug. `message` goes to the log; a client sees the code and its advice. */
export class AppError extends Error {
  readonly code: ErrorCode;
  constructor(code: ErrorCode, message: string = errors[code].advice, options?: { cause?: unknown }) {
    super(message, options);
    this.name = "AppError";
    this.code = code;
  }
}

/**
 * Whether the same request may succeed later. permanent: an outside system refused it as it is, and only a change of the
 * request helps. temporary: no answer, an outage, a limit, or a credential that an operator can correct.
 */
export type FailureKind = "permanent" | "temporary";

/** An outside system did not do what it was asked. Every adapter of such a system throws this, and every retry asks its kind. */
export class OutsideFailure extends AppError {
  readonly kind: FailureKind;
  constructor(code: ErrorCode, message: string, kind: FailureKind) {
    super(code, message);
    this.name = "OutsideFailure";
    this.kind = kind;
  }
}

/** Whether a retry of the same request is useless. Also true for an error whose cause is such a failure, and after an RPC. */
export function isPermanent(error: unknown): boolean {
  if (typeof error !== "object" || error === null) return false;
  if ("kind" in error && error.kind === "permanent") return true;
  return "cause" in error && isPermanent(error.cause);
}

/**
 * Why a tool's call failed, in words that its client and the log may have: the message names secrets and hosts, and never a value,
 * a path or a query.
 */
export class ToolProblem extends AppError {
  readonly kind: FailureKind;
  constructor(code: ErrorCode, message: string, kind: FailureKind) {
    super(code, message);
    this.name = "ToolProblem";
    this.kind = kind;
  }
}

/** The database did not answer. Whether the batch was committed is not known. */
export class AnswerLost extends AppError {
  constructor(code: ErrorCode, cause: unknown) {
    super(code, "the database did not answer", { cause });
    this.name = "AnswerLost";
  }
}

/** Failures that pass, in words for everyone. The others are bugs, and statements that a database refuses. */
const outages: Readonly<Partial<Record<ErrorCode, string>>> = {
  control_unavailable: "The control database cannot be reached.",
  database_unavailable: "The tenant's database cannot be reached.",
  database_silent: "The tenant's database does not answer.",
  tenant_unavailable: "The tenant's rows or files cannot be reached.",
  placement_unavailable: "The tenant's shard is not available.",
  isolation_unproven: "The isolation of the tenant's login is not proved.",
  tenant_provisioning: "The tenant is being set up.",
  billing_unavailable: "Stripe does not answer.",
  monitor_unavailable: "The outside monitor does not answer.",
  conflict: "Another step was at work.",
};

/** SQLSTATE classes that pass: conflicts with other transactions, locks, time limits, and Tollgate's own write gate. */
const busy = /^(40|55|57|TG)/;

/** The outage that a thrown value tells of, in words for everyone. `undefined`: it is none. */
export function outageOf(error: unknown): string | undefined {
  const sqlState = sqlStateIn(error);
  return sqlState === undefined
    ? outages[errorCode(error)]
    : busy.test(sqlState)
      ? "The database was busy."
      : undefined;
}

/** Why a step failed, in Tollgate's words. Never the text of a database, of Stripe or of a tenant. */
export function reasonOf(error: unknown): string {
  const sqlState = sqlStateIn(error);
  const ours = sqlState === undefined ? "The log names the cause." : `The database refused it (SQLSTATE ${sqlState}).`;
  return outageOf(error) ?? ours;
}

function sqlStateIn(error: unknown): string | undefined {
  const state = typeof error === "object" && error !== null && "sqlState" in error ? error.sqlState : undefined;
  return typeof state === "string" ? state : undefined;
}

/** The code of a thrown value: that of an `AppError`, also after an RPC, and `internal` for anything else. */
export function errorCode(error: unknown): ErrorCode {
  const code = typeof error === "object" && error !== null && "code" in error ? error.code : undefined;
  return typeof code === "string" && Object.hasOwn(errors, code) ? (code as ErrorCode) : "internal";
}
