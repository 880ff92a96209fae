// Gives a tenant its place: reserved in the control tables first, with the password of its login, then made, then put in
// force. Each step finds what an earlier attempt has done, and attempts that overlap make the same thing, so that all of
// it can be repeated at any point. It runs in the tenant's object, where logins are opened.
import { openBranch } from "../adapters/branch.ts";
import { placementsOf } from "../adapters/control-placements.ts";
import { ownerUrl, sealLogin, unsealLogin } from "../adapters/dispatch.ts";
import { AppError } from "../core/errors.ts";
import { loginPurpose, ownName } from "../core/placement.ts";
import type { Strategy } from "../core/plans.ts";
import type { TenantId } from "../core/tenant.ts";
import { tenantMigrations } from "./tenant-migrations.ts";

/** Makes sure that the tenant has a place of this strategy. Throws `placement_unavailable` when there is no room. */
export async function placeTenant(
  env: Env,
  tenantId: TenantId,
  { strategy, region }: { strategy: Strategy; region: string | null },
): Promise<void> {
  const placements = placementsOf(env);
  const placed = await placements.place(tenantId, strategy, region);
  if (placed === undefined) {
    throw new AppError(
      "placement_unavailable",
      `no ${strategy} shard has room${region === null ? "" : ` in ${region}`}`,
    );
  }
  const { id: placementId, shard } = placed;
  if (placed.state === "preparing") {
    if (strategy === "shared") await placements.ready(placementId, null);
    else {
      const branch = openBranch(await ownerUrl(env, shard), env.NEON_FETCH_ENDPOINT, tenantMigrations);
      const purpose = loginPurpose.tenant(placementId);
      const password = crypto.randomUUID() + crypto.randomUUID();
      const offered = await sealLogin(env, purpose, `${ownName(placementId)}:${password}`);
      // The first offer stays: an attempt that was given up may still be on its way, and must set the same password.
      const login = await unsealLogin(env, purpose, await placements.keepLogin(placementId, offered));
      await branch.createTenant({ placementId, tenantId, password: login.slice(login.indexOf(":") + 1) });
      await placements.ready(placementId, tenantMigrations.at(-1)?.name ?? null);
    }
  }
  await placements.settle(tenantId, placementId);
}
