// What a tenant's object holds of the tenant's rows: the opened login of the placement in force, and the proof that this
// login is kept within the tenant. Without a proof that still holds, no tool gets to the rows.
import { placementsOf } from "../adapters/control-placements.ts";
import { openTenantDb, provePlacement, resealed } from "../adapters/dispatch.ts";
import type { CallScopedDb } from "../adapters/tenant-db.ts";
import type { Placement } from "../core/placement.ts";
import type { TenantId } from "../core/tenant.ts";
import { describeError, log } from "../log.ts";

/** What a proof looks at changes by migrations and by hand, both rare; /health looks every few seconds besides. */
const PROOF_TRUSTED_MS = 5 * 60_000;

/**
 * When this isolate last proved a login, by login. Objects share when it was proved and never the proving itself: work
 * that an object has begun ends with that object, and whoever waited would wait for ever.
 */
const provenAtMs = new Map<string, number>();

/** The tenants of a shared shard have one login, the others one each. */
const loginOf = ({ strategy, shardId, id }: Placement): string =>
  strategy === "shared" ? shardId : `${shardId}/${id}`;

export type ProofOutcome = "proven" | "isolation_unproven" | "database_unavailable";

export class TenantData {
  readonly #env: Env;
  readonly #tenantId: TenantId;
  #opened: { placement: Placement; db: CallScopedDb } | undefined;
  #proving: Promise<ProofOutcome> | undefined;

  constructor(env: Env, tenantId: TenantId) {
    this.#env = env;
    this.#tenantId = tenantId;
  }

  /** The rows of this placement if they can be had without waiting: opened before, by a login whose proof holds. */
  atHand(placement: Placement | null, nowMs: number): CallScopedDb | undefined {
    if (placement === null) return undefined;
    const fresh = nowMs - (provenAtMs.get(loginOf(placement)) ?? -Infinity) < PROOF_TRUSTED_MS;
    return fresh && this.#opened !== undefined && samePlace(this.#opened.placement, placement)
      ? this.#opened.db
      : undefined;
  }

  /** The rows of this placement, or why nobody gets them now. */
  async open(placement: Placement, nowMs: number): Promise<CallScopedDb | Exclude<ProofOutcome, "proven">> {
    // One proof for all calls of this object that wait for one; an object never waits for another's.
    this.#proving ??= this.#prove(placement, nowMs).finally(() => (this.#proving = undefined));
    const outcome = await this.#proving;
    if (outcome !== "proven") return outcome;
    if (this.#opened === undefined || !samePlace(this.#opened.placement, placement)) {
      this.#opened = { placement, db: await openTenantDb(this.#env, this.#tenantId, placement) };
    }
    return this.#opened.db;
  }

  async #prove(placement: Placement, nowMs: number): Promise<ProofOutcome> {
    try {
      const proof = await provePlacement(this.#env, this.#tenantId, placement);
      if (proof.proven) {
        provenAtMs.set(loginOf(placement), nowMs);
        return "proven";
      }
      log("error", "isolation_unproven", {
        tenantId: this.#tenantId,
        checks: proof.failures.map(({ check }) => check).join(","),
      });
      return "isolation_unproven";
    } catch (error) {
      log("error", "isolation_not_provable", { tenantId: this.#tenantId, error: describeError(error) });
      return "database_unavailable";
    }
  }

  /** Seals the placement's login anew if its key is on its way out. */
  async rotateSeal(placement: Placement): Promise<void> {
    const login = await resealed(this.#env, placement);
    if (login !== undefined) await placementsOf(this.#env).reseal(placement, login);
  }
}

function samePlace(a: Placement, b: Placement): boolean {
  return a.id === b.id && a.host === b.host && a.database === b.database && a.login === b.login;
}
