// The rules of the audit log: which requests it records, what a row says about the actor and the target, and how the rows of a
// chain prove that none was changed, removed or inserted. Each tenant has a chain; the deployment has its own.
// Invariants: a row has ids, names, numbers and switches, never a secret and never the content of a request. The hash of a row
// covers every field and the hash of the row before it. migrations/control/0013_audit.sql computes the same hash.
import { createHash } from "node:crypto";
import * as z from "zod";
import type { Actor } from "../../core/actor.ts";
import { sha256Hex } from "../../core/keys/credentials.ts";
import type { ErrorCode } from "../../core/errors.ts";
import { TenantId } from "../../core/tenant/tenant.ts";
import { storable } from "../../core/text/text.ts";
import type { Route } from "../../http.ts";

/** unknown: the request had begun to act, and what came of it was lost. */
export const auditOutcomes = ["succeeded", "refused", "failed", "unknown"] as const;
export type AuditOutcome = (typeof auditOutcomes)[number];

/** Facts beside the fields, without depth. Numbers are integers. */
export const AuditDetail = z.record(z.string(), z.union([z.string(), z.int(), z.boolean()]));
export type AuditDetail = z.infer<typeof AuditDetail>;

/** Who acted, as a row has it. */
export interface ActorFields {
  actorKind: string;
  /** `null`: the kind says all. */
  actorId: string | null;
  /** Only people of the operator have one: the people of a tenant are known by their ids, and can be erased. */
  actorName: string | null;
  /** The tenant in whose name an operator acted. */
  onBehalfOf: string | null;
}

/** An event before the database gives it a place. */
export interface AuditEvent extends ActorFields {
  /** Stored once, also when it is sent again. */
  id: string;
  /** `null`: the deployment's chain. */
  tenantId: string | null;
  atMs: number;
  action: string;
  target: string | null;
  outcome: AuditOutcome;
  status: number | null;
  code: string | null;
  requestId: string | null;
  address: string | null;
  detail: AuditDetail;
}

const text = z.string().nullable();
export const AuditRow = z.object({
  seq: z.number(),
  tenantId: text,
  position: z.number(),
  id: z.string(),
  /** Milliseconds since 1970. */
  atMs: z.number(),
  recordedAtMs: z.number(),
  actorKind: z.string(),
  actorId: text,
  actorName: text,
  onBehalfOf: text,
  action: z.string(),
  target: text,
  outcome: z.enum(auditOutcomes),
  status: z.number().nullable(),
  code: text,
  requestId: text,
  address: text,
  detail: AuditDetail,
  previousHash: z.string(),
  hash: z.string(),
});
export type AuditRow = z.infer<typeof AuditRow>;

// ---- what is recorded

/**
 * When a request of a route is recorded. always: every request of a caller who is identified. changes: only when it succeeded,
 * because strangers send such requests. never: reads, and the MCP endpoint, whose calls are in the ledger.
 */
export type Recording = "always" | "changes" | "never";

export type RecordedRoute = Pick<Route, "method" | "access" | "isDownload" | "notAudited">;

/** How the requests of a route are recorded. Routes that read are not, unless a tenant's data leave through them. */
export function recordingOf({ method, access, isDownload, notAudited }: RecordedRoute): Recording {
  if (access === "mcp" || notAudited !== undefined || (method === "GET" && isDownload !== true)) return "never";
  return access === "public" || access === "stripe" ? "changes" : "always";
}

/** Acts that are not requests of a route. A request has the operationId of its route as its action. */
export const acts = {
  /** A client got a token by an assertion of the tenant's provider. No person was asked, so no consent is recorded. */
  grantedByAssertion: "assertion.grant",
  /** A tenant's credential on a route of another tenant. */
  crossTenant: "tenant.cross",
  refusedOperatorToken: "operator_token.refuse",
  usedOperatorToken: "operator_token.use",
  usedSetupToken: "setup_token.use",
  /** A person has signed in at a provider, or was refused. */
  signIn: "sign_in",
} as const;

/** What came of a request, by the status of its answer. */
export function outcomeOf(status: number): AuditOutcome {
  if (status < 400) return "succeeded";
  return status < 500 ? "refused" : "failed";
}

/** Longest name, id or reason. */
const MAX_CHARS = 200;

/**
 * The id of a person who is no member: 96 bits of a digest. The subject itself may be a name or an address, by the provider's
 * choice, and a row can never be erased.
 */
export function personId(issuer: string, subject: string): string {
  return `p_${createHash("sha256")
    .update(JSON.stringify([issuer, subject]))
    .digest("hex")
    .slice(0, 24)}`;
}

/** The actor of a request, and what else is known about it. */
export function actorFields(actor: Actor): ActorFields & { detail: AuditDetail } {
  const fields = { actorKind: actor.kind, actorId: null, actorName: null, onBehalfOf: null, detail: {} };
  const short = (value: string): string => storable(value, MAX_CHARS);
  switch (actor.kind) {
    case "operator":
      return {
        ...fields,
        actorId: short(actor.id),
        actorName: short(actor.name),
        detail: { role: actor.role, through: actor.through },
      };
    case "impersonator":
      return {
        ...fields,
        actorId: short(actor.operator.id),
        actorName: short(actor.operator.name),
        onBehalfOf: actor.tenantId,
        detail: { impersonation: short(actor.id), reason: short(actor.reason) },
      };
    case "member":
      return {
        ...fields,
        actorId: short(actor.id),
        detail: {
          ...{ role: actor.role, through: actor.through },
          ...(actor.through === "grant" && { grant: short(actor.grant.id), client: short(actor.grant.clientId) }),
        },
      };
    case "key":
      return { ...fields, actorId: short(actor.id) };
    case "person":
      return { ...fields, actorId: personId(actor.issuer, actor.subject), detail: { issuer: short(actor.issuer) } };
    case "reader":
      return { ...fields, detail: { of: actor.of } };
    case "anonymous":
    case "buyer":
    case "stripe":
      return fields;
    default:
      return actor satisfies never;
  }
}

/** Kinds of actors who are the operator's people. A tenant sees that the operator acted, not which person from where. */
const operatorKinds: readonly string[] = ["operator", "impersonator"];

/** The row as the tenant's own people see it. */
export function asTenantSees(row: AuditRow): AuditRow {
  if (!operatorKinds.includes(row.actorKind)) return row;
  return { ...row, actorId: null, actorName: null, address: null };
}

/** What a request acted on, as its parts tell. */
export interface TargetParts {
  /** The parameters of the path. */
  params: Readonly<Record<string, string>>;
  /** The JSON of a successful answer; `undefined` when there is none. */
  answer?: unknown;
  /** What the handler has named. */
  noted?: string | undefined;
  succeeded: boolean;
  /** The tenant of the path is the caller's own, by its credential. */
  isOwnTenant: boolean;
}

/** The form of ids and file names. */
const named = /^[A-Za-z0-9][A-Za-z0-9._:-]{0,119}$/;
/** Beginnings of credentials: ours, Stripe's, and JWTs. */
const credential = /^(?:tg[a-z]_|op_|sk_|rk_|whsec_|eyJ)/;
/** Ids that Tollgate makes are shorter than any secret. */
const SHORT_CHARS = 24;

/**
 * The target of a request: the id in its path, or the id that the answer gave to what was made. Before an act has succeeded,
 * only a short id is kept: a longer text may be a secret that a person has pasted into the path.
 */
export function targetOf({ params, answer, noted, succeeded, isOwnTenant }: TargetParts): string | null {
  if (noted !== undefined) return storable(noted, MAX_CHARS);
  const { tenantId, ...others } = params;
  const ids = Object.values(others).filter(
    (value) => named.test(value) && !credential.test(value) && (succeeded || value.length <= SHORT_CHARS),
  );
  if (ids.length > 0) return ids.join("/");
  const made = fieldsOf(answer);
  for (const value of [made["id"], made["tenantId"], succeeded || isOwnTenant ? tenantId : undefined]) {
    if (typeof value === "number") return String(value);
    if (typeof value === "string" && value.length <= 40 && named.test(value) && !credential.test(value)) return value;
  }
  return null;
}

/** Fields of answers that say what was done: each is a word of a fixed list. */
const words = ["plan", "state", "phase", "strategy", "kind"] as const;
/** Lists of the things that were done, or their number. */
const counts = ["replayed", "dismissed", "acknowledged", "retried"] as const;

/** What the answer tells about the act. Only words of Tollgate's own, and the other tenant that was made. */
export function detailOfAnswer(answer: unknown, tenantId: string | undefined): AuditDetail {
  const fields = fieldsOf(answer);
  const detail: AuditDetail = {};
  for (const word of words) {
    const value = fields[word];
    if (typeof value === "string" && /^[a-z_-]{1,40}$/.test(value)) detail[word] = value;
  }
  for (const name of counts) {
    const value = fields[name];
    if (Array.isArray(value)) detail[name] = value.length;
    else if (Number.isSafeInteger(value)) detail[name] = value as number;
  }
  const other = TenantId.safeParse(fields["tenantId"]);
  if (other.success && tenantId !== undefined && other.data !== tenantId) detail["tenant"] = other.data;
  return detail;
}

/** The tenant that a successful answer names. */
export function tenantOfAnswer(answer: unknown): TenantId | undefined {
  return TenantId.safeParse(fieldsOf(answer)["tenantId"]).data;
}

function fieldsOf(answer: unknown): Record<string, unknown> {
  return typeof answer === "object" && answer !== null && !Array.isArray(answer) ? { ...answer } : {};
}

/** Whether an accepted request changed nothing: a webhook that Stripe has sent before. */
export function changedNothing(answer: unknown): boolean {
  return fieldsOf(answer)["duplicate"] === true;
}

/** A refusal that is not recorded: the caller sends too many requests, and each row would be one more. */
export function isNoise(code: ErrorCode | undefined): boolean {
  return code === "rate_limited";
}

// ---- the chain

/** A place in a chain. Position 0 with an empty hash is the place before the first row. */
export interface Place {
  position: number;
  hash: string;
}

export const chainBreaks = ["missing", "order", "link", "content", "end", "rewritten"] as const;
/**
 * missing: there is no row at this position. order: two rows have it. link: the row does not follow the one before it. content:
 * the row's fields have changed. end: the chain is shorter or longer than it was. rewritten: the row was verified with another hash.
 */
export type ChainBreak = (typeof chainBreaks)[number];
export interface Broken {
  position: number;
  by: ChainBreak;
}

const encoder = new TextEncoder();

/** A field with its length in bytes, so that no two lists of fields have the same text. */
function field(value: string | number | null): string {
  if (value === null) return "-,";
  return `${encoder.encode(String(value)).length}:${value},`;
}

/** The text that the hash of a row covers: all fields but `seq` and the hash itself. */
export function canonicalText(row: Omit<AuditRow, "seq" | "hash">): string {
  const detail = Object.entries(row.detail)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => field(key) + field(typeof value) + field(String(value)));
  const fields = [
    ...[row.tenantId, row.position, row.id, row.atMs, row.recordedAtMs],
    ...[row.actorKind, row.actorId, row.actorName, row.onBehalfOf, row.action, row.target],
    ...[row.outcome, row.status, row.code, row.requestId, row.address, detail.join(""), row.previousHash],
  ];
  return `tollgate-audit-1,${fields.map(field).join("")}`;
}

export function hashOf(row: Omit<AuditRow, "seq" | "hash">): Promise<string> {
  return sha256Hex(canonicalText(row));
}

/**
 * Verifies rows of one chain in the order of their positions, where the first must follow `from`. Returns the place of the last
 * right row, and the first row that is wrong. `known`: a place that was verified before and must have the same hash.
 */
export async function verifyRows(
  rows: readonly AuditRow[],
  from: Place,
  known?: Place,
): Promise<{ end: Place; broken?: Broken }> {
  let end = from;
  for (const row of rows) {
    const position = end.position + 1;
    const broken = (by: ChainBreak) => ({ end, broken: { position, by } });
    if (row.position > position) return broken("missing");
    if (row.position < position) return broken("order");
    if (row.previousHash !== end.hash) return broken("link");
    if ((await hashOf(row)) !== row.hash) return broken("content");
    if (known?.position === position && known.hash !== row.hash) return broken("rewritten");
    end = { position, hash: row.hash };
  }
  return { end };
}
