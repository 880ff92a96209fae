// A database in which tenants have schemas of their own, as its owner: makes and removes them and runs their migrations.
// The work is done by functions in the database (migrations/branch), each in one transaction and one round trip.
import { ownName } from "../core/placement.ts";
import type { TenantId } from "../core/tenant.ts";
import { type NeonConnection, connectNeon } from "./neon.ts";

/** A numbered SQL file. */
export interface Migration {
  name: string;
  text: string;
}

export interface Branch {
  /** Gives the tenant a role with this password and a schema, and brings the schema up to date. May be repeated. */
  createTenant(tenant: { placementId: number; tenantId: TenantId; password: string }): Promise<void>;
  /** Removes role, schema and rows. May be repeated. */
  dropTenant(placementId: number): Promise<void>;
  /** Runs what the schema has not seen, in one transaction. Returns the names of what was run. */
  migrateTenant(placementId: number): Promise<string[]>;
}

/** `migrations` are those of a tenant's schema, in their order. */
export function openBranch(ownerUrl: string, fetchEndpoint: string, migrations: readonly Migration[]): Branch {
  const connection: NeonConnection = connectNeon(ownerUrl, fetchEndpoint);
  let files: Promise<string> | undefined;
  const migrate = async (placementId: number) => ({
    text: "SELECT tollgate.migrate($1, $2::jsonb) AS applied",
    params: [ownName(placementId), await (files ??= withChecksums(migrations))],
  });

  return {
    async createTenant({ placementId, tenantId, password }) {
      await connection.batch([
        { text: "SELECT tollgate.create_tenant($1, $2, $3)", params: [ownName(placementId), tenantId, password] },
        await migrate(placementId),
      ]);
    },
    async dropTenant(placementId) {
      await connection.batch([{ text: "SELECT tollgate.drop_tenant($1)", params: [ownName(placementId)] }]);
    },
    async migrateTenant(placementId) {
      const [rows = []] = await connection.batch([await migrate(placementId)]);
      return rows[0]?.["applied"] as string[];
    },
  };
}

async function withChecksums(migrations: readonly Migration[]): Promise<string> {
  const files = migrations.map(async ({ name, text }) => {
    const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
    const sha256 = Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
    return { name, sha256, text };
  });
  return JSON.stringify(await Promise.all(files));
}
