// The migrations in the bundle, as text. cli/generate.ts finds the files by their folders.
import { appMigrations } from "#app/migrations";
import { branchOnlyMigrations, commonMigrations, productMigrations, sharedOnlyMigrations } from "#migrations";
import { type Migration, migrationId, pendingFiles, versionOf } from "./branch.ts";

/** The tables of tenants: the product's, then the app's. They apply to shared databases and to every tenant's own schema. */
export const tenantMigrations: readonly Migration[] = [...productMigrations, ...appMigrations];

/** The version of a tenant's tables that this program expects. */
export function expectedVersion(): string {
  return versionOf(tenantMigrations.map(migrationId));
}

/** The files of this program that a tenant's tables of this version lack. `null`: they have no version yet. */
export function missingFiles(version: string | null): string[] {
  return pendingFiles(tenantMigrations.map(migrationId), version);
}

/** For every database in which tenants have schemas of their own. */
export const branchMigrations: readonly Migration[] = [...commonMigrations, ...branchOnlyMigrations];

/** For every database whose tables tenants share. `tenantMigrations` follow there. */
export const sharedMigrations: readonly Migration[] = [...commonMigrations, ...sharedOnlyMigrations];
