// The door in front of every tool: closed until this isolate has proved that the shared tables keep tenants apart.
// A proof holds for `PROOF_TRUSTED_MS`; it is renewed by the first calls after that. Objects share when it was proved and
// never the proving itself: work that an object has begun ends with that object, and whoever waited would wait for ever.
import { proveOwnIsolation } from "../adapters/isolation.ts";
import { describeError, log } from "../log.ts";

/** What a proof looks at changes by migrations and by hand, both rare; /health looks every few seconds besides. */
const PROOF_TRUSTED_MS = 5 * 60_000;

let provenAtMs = -Infinity;

export type ProofOutcome = "proven" | "isolation_unproven" | "database_unavailable";

export const isolationProven = {
  /** Whether the last proof still holds. */
  fresh(nowMs: number): boolean {
    return nowMs - provenAtMs < PROOF_TRUSTED_MS;
  },

  /** Proves now. */
  async prove(env: Env, nowMs: number): Promise<ProofOutcome> {
    try {
      const proof = await proveOwnIsolation(env);
      if (proof.proven) provenAtMs = nowMs;
      else log("error", "isolation_unproven", { checks: proof.failures.map(({ check }) => check).join(",") });
      return proof.proven ? "proven" : "isolation_unproven";
    } catch (error) {
      log("error", "isolation_not_provable", { error: describeError(error) });
      return "database_unavailable";
    }
  },
};
