// The values of one call that the Worker and a tenant's object exchange. Plain data only, because they cross an RPC.
import type { ErrorCode } from "./errors.ts";
import type { Branding, TenantId } from "./tenant.ts";

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
  /** A member who is signed in to pages. Calls no tools. */
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
  /** An answer was lost: the call may have been charged once, under this id. */
  mayBeChargedAs?: string;
}

/** A client's proof of a charged call: the ledger has a row with this id and these units. */
export interface Receipt {
  /** The call's id. */
  id: string;
  units: number;
}

/** Content of a tool's answer: text for the model. */
export interface ToolText {
  type: "text";
  text: string;
}

export type CallOutcome =
  | {
      kind: "result";
      content: ToolText[];
      data: Record<string, unknown> | undefined;
      isError: boolean;
      /** Why there is no answer of the tool: it threw, was stopped, or could not reach its data. */
      failure: ErrorCode | undefined;
      /** `undefined`: the call was not charged. */
      receipt: Receipt | undefined;
      quota: QuotaStatus;
    }
  /** Not charged. With a receipt: the first attempt was charged, and the retry could not return its answer. */
  | { kind: "refused"; refusal: Refusal; receipt?: Receipt | undefined; quota: QuotaStatus | undefined };

/** The answer for every MCP method that is not a tool call. */
export type Authorization =
  | { kind: "authorized"; allowedTools: readonly string[] | null; branding: Branding; quota: QuotaStatus }
  /** `quota` is known when a limit refused the message. */
  | { kind: "refused"; refusal: Refusal; quota?: QuotaStatus };

/** Progress of a running tool, in the shape of MCP's `notifications/progress`. */
export interface Progress {
  progress: number;
  total?: number;
  message?: string;
}
