// The migrations that the program carries, as text: for every tenant's own schema, and for every database of such schemas.
// cli/generate.ts finds the files by their folders.
import { branchOnlyMigrations, productMigrations } from "#migrations";
import type { Migration } from "./branch.ts";

/** Of every tenant's own schema. */
export const tenantMigrations: readonly Migration[] = productMigrations;

/** Of every database that has such schemas. */
export const branchMigrations: readonly Migration[] = branchOnlyMigrations;
