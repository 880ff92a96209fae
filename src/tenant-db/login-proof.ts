// Whether a placement's login is kept within its tenant, as far as this isolate knows: proved lately, or to be proved now.
// Without a proof that still holds, no tool gets to the rows.
import type { Placement } from "../core/placement.ts";
import type { TenantId } from "../core/tenant.ts";
import { describeError, log } from "../log.ts";
import { type TenantDatabases, provePlacement } from "./dispatch.ts";

/** What a proof looks at changes by migrations and by hand, both rare; /health looks every few seconds besides. */
const PROOF_TRUSTED_MS = 5 * 60_000;

/**
 * When this isolate last proved a login, by login. Objects and requests share when it was proved and never the proving
 * itself: work that one of them has begun ends with it, and whoever waited would wait for ever.
 */
const provenAtMs = new Map<string, number>();

export type ProofOutcome = "proven" | "isolation_unproven" | "database_unavailable";

/** The login that the placement's tools run as. The tenants of a shared shard have one, the others one each. */
export function loginOf({ strategy, shardId, id }: Placement): string {
  return strategy === "shared" ? shardId : `${shardId}/${id}`;
}

/** Whether the placement's login was proved lately. */
export function isProven(placement: Placement, nowMs: number): boolean {
  return nowMs - (provenAtMs.get(loginOf(placement)) ?? -Infinity) < PROOF_TRUSTED_MS;
}

/** Proves the placement's login now, or says why that cannot be. */
export async function proveLogin(
  env: TenantDatabases,
  tenantId: TenantId,
  placement: Placement,
  nowMs: number,
): Promise<ProofOutcome> {
  try {
    const proof = await provePlacement(env, tenantId, placement);
    if (proof.proven) {
      provenAtMs.set(loginOf(placement), nowMs);
      return "proven";
    }
    log("error", "isolation_unproven", { tenantId, checks: proof.failures.map(({ check }) => check).join(",") });
    return "isolation_unproven";
  } catch (error) {
    log("error", "isolation_not_provable", { tenantId, error: describeError(error) });
    return "database_unavailable";
  }
}
