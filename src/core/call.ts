// The values of one call that the Worker and a tenant's object exchange. Plain data only, because they cross an RPC.
import type { ErrorCode } from "./errors.ts";
import type { Features, PlanName } from "./plans/plans.ts";
import type { Branding, TenantId } from "./tenant/tenant.ts";

/** The caller, whose credential the Worker has verified. The object decides whether the key and the tenant are still valid. */
export type Caller =
  | { kind: "key"; tenantId: TenantId; keyId: string; keyHash: string; scopes: readonly string[] }
  | {
      kind: "user";
      tenantId: TenantId;
      issuer: string;
      organisation: string;
      subject: string;
      scopes: readonly string[];
      expiresAtMs: number;
    }
  /**
   * A client that a member has let in. The Worker knows that Tollgate made the subject, and nothing else: whether the token
   * works and with which scopes is in the tenant's object. `scopes` are all that a token can have.
   */
  | {
      kind: "grant";
      tenantId: TenantId;
      memberId: string;
      subject: string;
      grantId: string;
      tokenHash: string;
      scopes: readonly string[];
    }
  /** A member who is signed in to pages. Calls tools on the playground alone. */
  | { kind: "member"; tenantId: TenantId; memberId: string; scopes: readonly string[] }
  /** Provisioning's test call: one `health_check` before the tenant is active. A tenant is active only after it succeeded. */
  | { kind: "canary"; tenantId: TenantId; scopes: readonly string[]; expiresAtMs: number };

/** A client's idempotency key, as digests: the key within its tenant, and the tool with its arguments. */
export interface Idempotency {
  key: string;
  fingerprint: string;
  /** The instant whose day the call's id has. */
  atMs: number;
  /** The id of the same call, sent on the day before. */
  earlierId: string;
}

export interface CallRequest {
  /** Made by the Worker. The ledger's key. */
  callId: string;
  /** Set when the client sent a key. `callId` follows from it. */
  idempotency?: Idempotency | undefined;
  /** 2 when the first attempt's outcome was lost: the object then checks whether that attempt was charged. */
  attempt: 1 | 2;
  caller: Caller;
  tool: string;
  args: Readonly<Record<string, unknown>>;
  /** For the object's log. */
  requestId?: string | undefined;
  traceId?: string | undefined;
  /** How long a call that a raisable limit refuses waits for someone to raise it. */
  waitsMs?: number | undefined;
  /** How its tool can ask the person who uses it. `undefined`: it cannot. */
  asking?: Asking | undefined;
  /** Calls that the Worker has refused in the object's place since its last call: `rate_limited`, which is what it repeats. */
  refusedBefore?: number | undefined;
}

/** One field of an answer, as the client shows it: a JSON Schema of a primitive, or of a list of enum values. */
export type QuestionField = Readonly<Record<string, unknown>> & { type: string };

/** A tool's question to the person who uses it. `schema`: of the answer, a flat JSON Schema. */
export interface Question {
  name: string;
  message: string;
  schema: { type: "object"; properties: Record<string, QuestionField>; required: string[] };
}

/** A person's answer, before the tool's schema has checked it. */
export type Answered = { action: "accept"; content: Record<string, unknown> } | { action: "decline" | "cancel" };

/** How a client asks a person. input: it calls again with the answer. stream: it answers while the call runs. */
export interface Asking {
  form: "input" | "stream";
  /** Those of earlier rounds, by the question's name. */
  answers: Readonly<Record<string, Answered>>;
}

/** A tenant's use of its limits, as clients see it. `limit: null` means no limit. */
export interface QuotaStatus {
  /** Requests of the sliding minute: calls, and every other MCP message. */
  minute: { limit: number | null; used: number; resetSeconds: number };
  /** Units used in the sliding hour, running calls included. */
  hour: { limit: number | null; used: number; resetSeconds: number };
  /** Units used in the calendar month (UTC). */
  month: { limit: number | null; used: number; resetSeconds: number };
  /** Units that the caller's API key has used in the calendar month. Only for a key with a budget, and only within a call. */
  key?: { limit: number; used: number; resetSeconds: number };
  /** What a metered plan has cost beyond its included units. Only within a call. */
  spend?: SpendStatus;
}

/** The spend cap of a billing period. Amounts are decimal strings of cents. */
export interface SpendStatus {
  /** `null`: no cap. */
  capCents: number | null;
  spentCents: string;
  /** `null`: no cap. */
  leftCents: string | null;
  /** Units until calls stop, the included ones among them; `null`: no cap. */
  leftUnits: number | null;
  resetSeconds: number;
}

/** A refusal that a model can act on. `retryAfterSeconds` is absent when waiting does not help. */
export interface Refusal {
  code: ErrorCode;
  message: string;
  cost?: number;
  limit?: number;
  used?: number;
  retryAfterSeconds?: number;
  upgradeUrl?: string;
  /** The spend cap that refused, in cents. */
  capCents?: number;
  /** Who may pay for the account raises this limit at `upgradeUrl`, and the same call is then admitted. */
  raisable?: true;
  /** An answer was lost: the call may have been charged once, under this id. */
  mayBeChargedAs?: string;
}

/** A client's proof of a charged call: the ledger has a row with this id and these units. */
export interface Receipt {
  /** The call's id. */
  id: string;
  units: number;
}

/** For whom a block of content is, and how much it matters, from 0 (optional) to 1 (needed). */
export interface BlockAnnotations {
  audience?: ("user" | "assistant")[] | undefined;
  priority?: number | undefined;
  /** An instant with its offset. */
  lastModified?: string | undefined;
}

/** One block of a tool's answer, as MCP has it. `data` and `blob` are base64. */
export type ContentBlock = { annotations?: BlockAnnotations | undefined } & (
  | { type: "text"; text: string }
  | { type: "image"; data: string; mimeType: string }
  | { type: "audio"; data: string; mimeType: string }
  /** A link to a resource, which the client reads when it needs it. */
  | {
      type: "resource_link";
      uri: string;
      name: string;
      title?: string | undefined;
      description?: string | undefined;
      mimeType?: string | undefined;
      /** In bytes. */
      size?: number | undefined;
    }
  | {
      type: "resource";
      resource: { uri: string; mimeType?: string | undefined } & ({ text: string } | { blob: string });
    }
);

export type CallOutcome =
  | {
      kind: "result";
      content: ContentBlock[];
      data: Record<string, unknown> | undefined;
      isError: boolean;
      /** Why there is no answer of the tool: it threw, was stopped, or could not reach its data. */
      failure: ErrorCode | undefined;
      /** `undefined`: the call was not charged. */
      receipt: Receipt | undefined;
      quota: QuotaStatus;
    }
  /** The tool waits for a person's answer. Not charged; the client calls again. */
  | { kind: "asks"; question: Question; quota: QuotaStatus }
  /** Not charged. With a receipt: the first attempt was charged, and the retry could not return its answer. */
  | { kind: "refused"; refusal: Refusal; receipt?: Receipt | undefined; quota: QuotaStatus | undefined };

/** The answer for every MCP method that is not a tool call. */
export type Authorization =
  | {
      kind: "authorized";
      /** Of the tenant and of the key; `null`: all. */
      allowedTools: readonly string[] | null;
      plan: PlanName;
      features: Features;
      /** Those of the caller's credential. */
      scopes: readonly string[];
      branding: Branding;
      quota: QuotaStatus;
    }
  /** `quota` is known when a limit refused the message. */
  | { kind: "refused"; refusal: Refusal; quota?: QuotaStatus };

/** Progress of a running tool, in the shape of MCP's `notifications/progress`. */
export interface Progress {
  progress: number;
  total?: number;
  message?: string;
}

/** How a call ended. `repeated`: it got the answer of an earlier call, or only the answer that was lost. Never charged again. */
export const callEnds = ["ok", "failed", "refused", "repeated"] as const;
export type CallEnd = (typeof callEnds)[number];

/** A call that has ended, for its line in the log and for the tenant's metrics. */
export interface FinishedCall {
  /** The id of its charge, if it has one. */
  callId: string;
  tool: string;
  caller: Caller;
  /** When it was admitted, or refused. */
  atMs: number;
  end: CallEnd;
  /** Why it failed or was refused. `undefined`: the tool itself answered with an error, or there was none. */
  code: ErrorCode | undefined;
  /** What this run has charged. A repeated answer charges nothing. */
  units: number;
  /** From its arrival in the object to its answer. */
  ms: number;
  /** Time until the decision, in the tool, in the tool's database and its requests, and from the tool's end to the answer. */
  parts: { admissionMs: number; toolMs: number; sqlMs: number; fetches: number; fetchMs: number; settleMs: number };
  /** Whether the tool ran. */
  ran: boolean;
  /** As in the request. */
  refusedBefore: number;
}

/** What a running call leaves for `FinishedCall`. Instants are 0 until they are known. */
export interface CallTrace {
  startedAtMs: number;
  decidedAtMs: number;
  ranAtMs: number;
  sqlMs: number;
  /** The tool's requests to other services, and their time. */
  fetches: number;
  fetchMs: number;
  /** The instant of the ticket: the ledger has the same. */
  admittedAtMs: number;
  callId: string;
  units: number;
  /** The tool gave an answer that counts. */
  answered: boolean;
  repeated: boolean;
}

export function newTrace(callId: string, startedAtMs: number): CallTrace {
  const instants = { startedAtMs, decidedAtMs: 0, ranAtMs: 0, admittedAtMs: 0 };
  return { ...instants, sqlMs: 0, fetches: 0, fetchMs: 0, callId, units: 0, answered: false, repeated: false };
}

/** Sums up a call that ended now. `thrown`: the code of an outage, when there is no outcome. */
export function finishedCall(
  trace: CallTrace,
  { tool, caller, refusedBefore = 0 }: Pick<CallRequest, "tool" | "caller" | "refusedBefore">,
  outcome: CallOutcome | undefined,
  thrown: ErrorCode | undefined,
  nowMs: number,
): FinishedCall {
  const { startedAtMs, decidedAtMs, ranAtMs, sqlMs, admittedAtMs, callId, units, answered, repeated } = trace;
  const between = (fromMs: number, toMs: number): number => (fromMs === 0 ? 0 : Math.max(0, toMs - fromMs));
  const refusal = outcome?.kind === "refused" ? outcome.refusal.code : undefined;
  const code = refusal ?? (outcome?.kind === "result" ? outcome.failure : thrown);
  const end =
    refusal !== undefined ? "refused" : repeated && code === undefined ? "repeated" : answered ? "ok" : "failed";
  return {
    ...{ callId, tool, caller, code, end, units },
    atMs: admittedAtMs === 0 ? startedAtMs : admittedAtMs,
    ms: between(startedAtMs, nowMs),
    parts: {
      admissionMs: between(startedAtMs, decidedAtMs === 0 ? nowMs : decidedAtMs),
      toolMs: between(decidedAtMs, ranAtMs === 0 ? nowMs : ranAtMs),
      sqlMs: Math.round(sqlMs),
      fetches: trace.fetches,
      fetchMs: Math.round(trace.fetchMs),
      settleMs: between(ranAtMs, nowMs),
    },
    ran: decidedAtMs !== 0,
    refusedBefore,
  };
}
