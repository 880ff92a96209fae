// An operator acts as one tenant's admin for ten minutes, with a credential of its own and a reason. Everything that the
// credential does carries the operator and the reason.
// Invariants: it makes nothing that outlives it, because it has no permission for credentials, members and grants. It works
// only for its tenant, and ends on the very next request when an operator ends it.
import * as z from "zod";
import type { Context } from "../../control/context.ts";
import type { Actor, Operator } from "../../core/actor.ts";
import { type Credential, mintCredential, toBase64Url } from "../../core/keys/credentials.ts";
import type { ErrorCode } from "../../core/errors.ts";
import { DisplayName, type TenantId } from "../../core/tenant/tenant.ts";
import { cookieOf, hostCookie } from "../../core/text/text.ts";
import { MINUTE_MS } from "../../core/time.ts";
import { type Impersonation, operatorsStore } from "./operators-store.ts";

/** Enough to look at one problem. A longer task starts another one, with its own line in the log. */
export const IMPERSONATION_MS = 10 * MINUTE_MS;

export const ImpersonationRequest = z.strictObject({
  /** For the tenant and the log: a ticket, or a question that the tenant asked. */
  reason: DisplayName,
});

export type Impersonator = Extract<Actor, { kind: "impersonator" }>;

/** On pages of the tenant, the credential is in this cookie. */
const COOKIE = "__Host-tollgate-impersonation";

/** The credential in a `Cookie` header. */
export function impersonationTokenOf(cookies: string | undefined): string | undefined {
  return cookieOf(cookies, COOKIE);
}

/** The `Set-Cookie` header of a credential that has just begun. It goes when the credential ends. */
export function impersonationCookie(token: string): string {
  return hostCookie(COOKIE, token, IMPERSONATION_MS / 1_000);
}

/** The `Set-Cookie` header that removes the credential. */
export const endedImpersonationCookie = hostCookie(COOKIE, "", 0);

/** Starts one. `undefined`: there is no such tenant, or it is gone. */
export async function startImpersonation(
  { env, control }: Context,
  tenantId: TenantId,
  operator: Operator,
  reason: string,
  nowMs: number,
): Promise<(Impersonation & { token: string }) | undefined> {
  const id = toBase64Url(crypto.getRandomValues(new Uint8Array(9)));
  const expiresAtMs = nowMs + IMPERSONATION_MS;
  const stored = await operatorsStore(control).startImpersonation({ id, tenantId, operator, reason, expiresAtMs });
  if (stored === undefined) return undefined;
  const fields = [id, String(expiresAtMs)];
  return { ...stored, token: await mintCredential(env.CREDENTIAL_KEY, { kind: "impersonation", tenantId, fields }) };
}

/** Who acts with a verified impersonation credential, or why it does not work any more. */
export async function impersonatorOf(
  { control }: Pick<Context, "control">,
  { tenantId, fields: [id = "", expiresAtMs = "0"] }: Credential,
  nowMs: number,
): Promise<Impersonator | ErrorCode> {
  if (nowMs >= Number(expiresAtMs)) return "token_expired";
  const found = await operatorsStore(control).impersonation(tenantId, id);
  if (found === undefined) return "token_invalid";
  if (found.endedAt !== null || nowMs >= Date.parse(found.expiresAt)) return "token_expired";
  if (found.state === "gone") return "tenant_gone";
  const { operator, reason } = found;
  return { kind: "impersonator", tenantId, id, operator: { id: operator.id, name: operator.name }, reason };
}
