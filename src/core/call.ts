// The values that travel between the Worker and a tenant's object for one call. Plain data only: they cross an RPC.
import type { ErrorCode } from "./errors.ts";
import type { TenantId } from "./tenant.ts";

/** Who is calling, as the Worker proved it. Whether the key or the tenant is still good is the object's to say. */
export type Caller =
  | { kind: "key"; tenantId: TenantId; keyId: string; keyHash: string; scopes: readonly string[] }
  | {
      kind: "user";
      tenantId: TenantId;
      issuer: string;
      subject: string;
      scopes: readonly string[];
      expiresAtMs: number;
    }
  /** The canary of provisioning: good for one `health_check`, even before the tenant is active (DESIGN.md I5). */
  | { kind: "canary"; tenantId: TenantId; scopes: readonly string[]; expiresAtMs: number };

export interface CallRequest {
  /** Minted by the Worker: the ledger's key. */
  callId: string;
  /** 2 when the first attempt's outcome was lost, so that the object looks whether it was settled. */
  attempt: 1 | 2;
  caller: Caller;
  tool: string;
  args: Readonly<Record<string, unknown>>;
}

/** What a tenant has used of its limits, as clients see it. `limit` is `null` where there is none. */
export interface QuotaStatus {
  /** Units used in the sliding hour, running calls included. */
  hour: { limit: number | null; used: number; resetSeconds: number };
  /** Units used in the calendar month (UTC). */
  month: { limit: number | null; used: number; resetSeconds: number };
}

/** A refusal as a model can act on it. `retryAfterSeconds` is absent when waiting does not help. */
export interface Refusal {
  code: ErrorCode;
  message: string;
  cost?: number;
  limit?: number;
  used?: number;
  retryAfterSeconds?: number;
  upgradeUrl?: string;
  /** An answer on the way was lost: the call may have been charged all the same, once, under this id. */
  mayBeChargedAs?: string;
}

/** What a client keeps of a call that was charged: the ledger has a row of this id and these units. */
export interface Receipt {
  /** The call's id. */
  id: string;
  units: number;
}

/** Content that a tool may answer with: text for the model. */
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
      /** Why the tool gave no answer of its own: it threw, was stopped, or could not reach what it needs. */
      failure: ErrorCode | undefined;
      /** `undefined`: the call was not charged. */
      receipt: Receipt | undefined;
      quota: QuotaStatus;
    }
  /** A refused call was not charged, but for one: its first attempt was, and its answer cannot be had any more. */
  | { kind: "refused"; refusal: Refusal; receipt?: Receipt | undefined; quota: QuotaStatus | undefined };

/** The answer for every MCP method that is not a tool call. */
export type Authorization =
  | { kind: "authorized"; allowedTools: readonly string[] | null }
  | { kind: "refused"; refusal: Refusal };

/** Progress of a running tool, in the shape of MCP's `notifications/progress`. */
export interface Progress {
  progress: number;
  total?: number;
  message?: string;
}
