// Seals anew what the control tables hold under a key that is on its way out: shards' logins here, tenants' in their own
// objects. When nothing is left of the old key, it can be taken out of SEAL_KEYS.
import { controlSeals } from "../control/encrypted-logins-store.ts";
import { sealLogin, unsealLogin } from "../tenant-db/dispatch.ts";
import { connectControl } from "../adapters/neon.ts";
import { parseSealKeys } from "../core/encryption.ts";

/** In one run of the sweep. */
const BATCH = 50;

export async function rotateSeals(env: Env): Promise<void> {
  const newest = parseSealKeys(env.SEAL_KEYS)[0]?.id ?? "";
  const seals = controlSeals(connectControl(env));
  for (const sealed of await seals.shardLoginsNotUnder(newest, BATCH)) {
    const login = await unsealLogin(env, sealed.purpose, sealed.login);
    await seals.resealShard(sealed, await sealLogin(env, sealed.purpose, login));
  }
  const tenants = await seals.tenantsNotUnder(newest, BATCH);
  await Promise.allSettled(tenants.map((tenantId) => env.TENANT.getByName(tenantId).refresh()));
}
