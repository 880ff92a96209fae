// Rotates ENCRYPTION_KEYS: encrypts again, with the newest key, the logins, webhook secrets, client secrets and tools' secrets that an
// older key encrypted. Shards' logins and the secrets are encrypted here, and each tenant's login in the tenant's object. Once nothing is left
// under a key, that key can be removed.
import type { Context } from "../control/context.ts";
import { encryptAgain, encryptedLoginsStore, providerSecretPurpose } from "../control/encrypted-logins-store.ts";
import { isolated } from "../control/failures-store.ts";
import { parseKeyRing } from "../core/keys/encryption.ts";
import { secretPurpose } from "../metering/alerts.ts";
import { alertsStore } from "../metering/alerts-store.ts";
import { tenantSecretPurpose } from "../core/tenant/tool-secrets.ts";
import { secretsStore } from "./secrets/secrets-store.ts";

/** Logins of each kind in one sweep: about a second's work. The next sweep continues. */
const BATCH = 50;

export async function rotateEncryptionKeys(context: Context): Promise<void> {
  const { env, control } = context;
  const [newest] = parseKeyRing("ENCRYPTION_KEYS", env.ENCRYPTION_KEYS);
  const logins = encryptedLoginsStore(control);
  const old = await logins.shardLoginsNotUnder(newest.id, BATCH);
  await isolated(
    control,
    old,
    { part: "shard_login_keys", idOf: ({ shardId }) => shardId, atOnce: 4 },
    async (stored) => {
      await logins.replaceShardLogin(stored, await encryptAgain(env, stored.purpose, stored.login));
    },
  );
  const alerts = alertsStore(control);
  const secrets = await alerts.secretsNotUnder(newest.id, BATCH);
  await isolated(
    control,
    secrets,
    { part: "webhook_secret_keys", idOf: ({ tenantId }) => tenantId },
    async (stored) => {
      const purpose = secretPurpose(stored.tenantId);
      const former = stored.former === null ? null : await encryptAgain(env, purpose, stored.former);
      await alerts.replaceSecrets(stored, { secret: await encryptAgain(env, purpose, stored.secret), former });
    },
  );
  await isolated(
    control,
    await logins.providerSecretsNotUnder(newest.id, BATCH),
    { part: "provider_secret_keys", idOf: ({ providerId }) => providerId, atOnce: 4 },
    async (stored) => {
      const purpose = providerSecretPurpose(stored.providerId);
      await logins.replaceProviderSecret(stored, await encryptAgain(env, purpose, stored.secret));
    },
  );
  const toolSecrets = secretsStore(control);
  await isolated(
    control,
    await toolSecrets.notUnder(newest.id, BATCH),
    { part: "tool_secret_keys", idOf: ({ tenantId, name }) => `${tenantId}/${name}` },
    async (stored) => {
      const { tenantId, name, value } = stored;
      await toolSecrets.replace(stored, await encryptAgain(env, tenantSecretPurpose(tenantId, name), value));
      // The tenant's object has the value in its copy, under the old key.
      await context.tenantObject(tenantId).refresh();
    },
  );
  const tenants = await logins.tenantsNotUnder(newest.id, BATCH);
  await isolated(control, tenants, { part: "tenant_login_keys", idOf: String }, (tenantId) =>
    context.tenantObject(tenantId).refresh(),
  );
}
