// A database in which tenants have schemas of their own, as its owner: makes and removes them and runs their migrations.
// The work is done by functions in the database (migrations/branch), each in one transaction and one round trip.
import * as z from "zod";
import { sha256Hex } from "../core/credentials.ts";
import { AppError } from "../core/errors.ts";
import { Difference } from "../fleet/fleet.ts";
import { ownName } from "../core/placement.ts";
import type { TenantId } from "../core/tenant.ts";
import { type NeonConnection, connectNeon } from "../adapters/neon.ts";

/** A numbered SQL file. */
export interface Migration {
  name: string;
  text: string;
}

const Migrated = z.union([
  z.object({ applied: z.array(z.string()) }),
  z.object({ refused: z.enum(["changed", "unknown"]), file: z.string() }),
  z.object({ refused: z.literal("drift"), differences: z.array(Difference) }),
]);
/**
 * The files that were run, or why none was: the schema has seen a file that reads differently now (`changed`) or that is
 * not among ours (`unknown`), or somebody has changed the schema by hand (`drift`).
 */
export type Migrated = z.infer<typeof Migrated>;

const Comparison = z.object({
  schema: z.string(),
  mark: z.string().nullable(),
  differences: z.array(Difference).nullable(),
});

export interface Branch {
  /** Gives the tenant a role with this password and a schema, and brings the schema up to date. May be repeated. */
  createTenant(tenant: { placementId: number; tenantId: TenantId; password: string }): Promise<void>;
  /** Removes role, schema and rows. May be repeated. */
  dropTenant(placementId: number): Promise<void>;
  /**
   * Runs what the schema has not seen, in one transaction. Throws `SqlError`; 55P03 when a table was in use for longer
   * than its tenant can be made to wait.
   */
  migrateTenant(placementId: number, options?: { allowDrift: boolean }): Promise<Migrated>;
  /**
   * Compares schemas with what their last migrations left. Two that were left alike have the same mark; a schema that was
   * never migrated has none. Those that are not here are left out.
   */
  compare(placementIds: readonly number[]): Promise<Comparison[]>;
}
export type Comparison = z.infer<typeof Comparison> & { placementId: number };

/** Shorter than the wait for an answer, so that it is the database that ends it and says so. */
const STATEMENT_TIMEOUT_MS = 20_000;
const bounded = {
  text: "SELECT set_config('statement_timeout', $1, true)",
  params: [String(STATEMENT_TIMEOUT_MS)],
};

/** `migrations` are those of a tenant's schema, in their order. */
export function openBranch(ownerUrl: string, fetchEndpoint: string, migrations: readonly Migration[]): Branch {
  const connection: NeonConnection = connectNeon(ownerUrl, fetchEndpoint);
  let files: Promise<string> | undefined;
  const migrate = async (placementId: number, allowDrift: boolean) => ({
    text: "SELECT tollgate.migrate($1, $2::jsonb, $3) AS migrated",
    params: [ownName(placementId), await (files ??= withChecksums(migrations)), allowDrift],
  });

  return {
    async createTenant({ placementId, tenantId, password }) {
      const [, , rows = []] = await connection.batch([
        bounded,
        { text: "SELECT tollgate.create_tenant($1, $2, $3)", params: [ownName(placementId), tenantId, password] },
        await migrate(placementId, false),
      ]);
      const migrated = Migrated.parse(rows[0]?.["migrated"]);
      if ("refused" in migrated) throw new AppError("internal", `the schema cannot be migrated: ${migrated.refused}`);
    },
    async dropTenant(placementId) {
      await connection.batch([{ text: "SELECT tollgate.drop_tenant($1)", params: [ownName(placementId)] }]);
    },
    async migrateTenant(placementId, { allowDrift } = { allowDrift: false }) {
      const [, rows = []] = await connection.batch([bounded, await migrate(placementId, allowDrift)]);
      return Migrated.parse(rows[0]?.["migrated"]);
    },
    async compare(placementIds) {
      const bySchema = new Map(placementIds.map((id) => [ownName(id), id]));
      const [, rows = []] = await connection.batch([
        bounded,
        { text: "SELECT * FROM tollgate.drift($1)", params: [[...bySchema.keys()]] },
      ]);
      return rows.flatMap((row) => {
        const comparison = Comparison.parse(row);
        const placementId = bySchema.get(comparison.schema);
        return placementId === undefined ? [] : [{ ...comparison, placementId }];
      });
    },
  };
}

async function withChecksums(migrations: readonly Migration[]): Promise<string> {
  const files = migrations.map(async ({ name, text }) => {
    const sha256 = await sha256Hex(text);
    return { name, sha256, text };
  });
  return JSON.stringify(await Promise.all(files));
}
