// The encrypted texts of the control tables: how the deployment's keys encrypt them, and the logins and client secrets by the key
// that encrypted them, for the rotation of keys.
import * as z from "zod";
import type { ControlDatabase } from "../adapters/neon.ts";
import { IV_BYTES, decrypt, encrypt, parseKeyRing } from "../core/keys/encryption.ts";
import { loginPurpose } from "../core/tenant/placement.ts";
import { TenantId } from "../core/tenant/tenant.ts";

export type EncryptionKeys = Pick<Env, "ENCRYPTION_KEYS">;

/** Encrypts a text for the control tables. In a row of another purpose it does not decrypt. */
export function encryptSecret(env: EncryptionKeys, purpose: string, secret: string): Promise<string> {
  const iv = crypto.getRandomValues(new Uint8Array(IV_BYTES));
  return encrypt(parseKeyRing("ENCRYPTION_KEYS", env.ENCRYPTION_KEYS), purpose, secret, iv);
}

/** Decrypts a text of the control tables. Throws when no key fits. */
export function decryptSecret(env: EncryptionKeys, purpose: string, encrypted: string): Promise<string> {
  return decrypt(parseKeyRing("ENCRYPTION_KEYS", env.ENCRYPTION_KEYS), purpose, encrypted);
}

/** The same text encrypted with the newest key. */
export async function encryptAgain(env: EncryptionKeys, purpose: string, encrypted: string): Promise<string> {
  return encryptSecret(env, purpose, await decryptSecret(env, purpose, encrypted));
}

const shardColumns = { owner_login: "owner", app_login: "app", analytics_login: "analytics" } as const;

const StoredLogin = z.object({
  shardId: z.string(),
  column: z.enum(["owner_login", "app_login", "analytics_login"]),
  login: z.string(),
});

export type EncryptedShardLogin = z.infer<typeof StoredLogin> & { purpose: string };

const StoredSecret = z.object({ providerId: z.string(), secret: z.string() });
export type EncryptedProviderSecret = z.infer<typeof StoredSecret>;

/** What the client secret of a tenant's provider is encrypted for. */
export function providerSecretPurpose(providerId: string): string {
  return `provider_secret:${providerId}`;
}

export function encryptedLoginsStore(control: ControlDatabase) {
  return {
    /** Shards' logins that another key than this one encrypted. */
    async shardLoginsNotUnder(keyId: string, limit: number): Promise<EncryptedShardLogin[]> {
      const selects = Object.keys(shardColumns).map(
        (column) => `SELECT id AS "shardId", '${column}' AS "column", ${column} AS login FROM shards
                     WHERE split_part(${column}, '.', 2) <> $1`,
      );
      const rows = await control.query(`${selects.join(" UNION ALL ")} LIMIT $2`, [keyId, limit]);
      return rows.map((row) => {
        const stored = StoredLogin.parse(row);
        return { ...stored, purpose: loginPurpose[shardColumns[stored.column]](stored.shardId) };
      });
    },

    /** Replaces a shard's login by the same one under another key, unless the login has changed since. */
    async replaceShardLogin({ shardId, column, login }: EncryptedShardLogin, encrypted: string): Promise<void> {
      await control.query(`UPDATE shards SET ${column} = $3 WHERE id = $1 AND ${column} = $2`, [
        shardId,
        login,
        encrypted,
      ]);
    },

    /** Client secrets of tenants' providers that another key than this one encrypted. */
    async providerSecretsNotUnder(keyId: string, limit: number): Promise<EncryptedProviderSecret[]> {
      const rows = await control.query(
        `SELECT id AS "providerId", client_secret AS secret FROM providers
         WHERE client_secret IS NOT NULL AND split_part(client_secret, '.', 2) <> $1 LIMIT $2`,
        [keyId, limit],
      );
      return rows.map((row) => StoredSecret.parse(row));
    },

    /** Replaces a client secret by the same one under another key, unless it has changed since. */
    async replaceProviderSecret({ providerId, secret }: EncryptedProviderSecret, encrypted: string): Promise<void> {
      await control.query(`UPDATE providers SET client_secret = $3 WHERE id = $1 AND client_secret = $2`, [
        providerId,
        secret,
        encrypted,
      ]);
    },

    /** Tenants whose own login another key than this one encrypted. Their objects encrypt it again. */
    async tenantsNotUnder(keyId: string, limit: number): Promise<TenantId[]> {
      const rows = await control.query(
        `SELECT t.id FROM tenants t JOIN placements p ON p.id = t.placement_id
         WHERE split_part(p.login, '.', 2) <> $1 ORDER BY p.id LIMIT $2`,
        [keyId, limit],
      );
      return rows.map((row) => TenantId.parse(row["id"]));
    },
  };
}
