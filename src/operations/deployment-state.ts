// Reads the values that indicators measure: all from the control tables, without a connection to a tenant's database.
import type { Context } from "../control/context.ts";
import { ledgerStore } from "../control/ledger-store.ts";
import { placementsStore } from "../control/placements-store.ts";
import { fullestPercent } from "../core/tenant/placement.ts";
import { keysWithoutRoot, rootKeysOf, usedRootKeys } from "../core/keys/root-keys.ts";
import { type ShardBehind, fleetStore } from "../fleet/fleet-store.ts";
import { auditStore } from "../identity/audit/audit-store.ts";
import { keysStore } from "../identity/keys/keys-store.ts";
import { operatorsStore } from "../identity/operators/operators-store.ts";
import { expectedVersion } from "../tenant-db/migrations.ts";
import type { DeploymentState } from "./indicators.ts";

export async function readDeployment({ env, control }: Context, nowMs: number): Promise<DeploymentState> {
  // Where the token is the normal way, its uses are not counted.
  const isTokenNormal = env.OPERATOR_TOKEN_USE === "normal";
  const [pipeline, behind, occupancy, operatorTokenUses, audit, rootKeyUses, rootKeys] = await Promise.all([
    ledgerStore(control).pipeline(nowMs),
    fleetStore(control).shardsBehind(expectedVersion()),
    placementsStore(control).occupancy(),
    isTokenNormal ? null : operatorsStore(control).tokenUses(),
    auditStore(control).state(),
    keysStore(control).byRootKey(),
    // A malformed setting refuses every credential. The state of the rest must still be readable.
    rootKeysOf(env.CREDENTIAL_KEY).catch(() => undefined),
  ]);
  return {
    ...pipeline,
    ...audit,
    ...countBehind(behind),
    shardsFullPercent: fullestPercent(occupancy),
    operatorTokenUses,
    keysWithoutRoot: rootKeys === undefined ? null : keysWithoutRoot(usedRootKeys(rootKeys, rootKeyUses)),
  };
}

function countBehind(shards: readonly ShardBehind[]): Pick<DeploymentState, "tenantsBehind" | "behindByShard"> {
  const behindByShard: Record<string, number> = {};
  let tenantsBehind = 0;
  for (const { shardId, strategy, tenants } of shards) {
    const name = strategy === "database" ? strategy : shardId;
    behindByShard[name] = (behindByShard[name] ?? 0) + tenants;
    tenantsBehind += tenants;
  }
  return { tenantsBehind, behindByShard };
}
