// The files of migrations/tenant and migrations/branch, which the bundler turns into text. One line per file, in their order.
import type { Migration } from "./branch.ts";
import branch from "../../migrations/branch/0001_branch.sql";
import structure from "../../migrations/branch/0002_structure.sql";
import changes from "../../migrations/branch/0003_changes.sql";
import analytics from "../../migrations/branch/0004_analytics.sql";
import staged from "../../migrations/branch/0005_staged.sql";
import tables from "../../migrations/tenant/0001_tables.sql";

/** Of every tenant's own schema. */
export const tenantMigrations: readonly Migration[] = [{ name: "0001_tables.sql", text: tables }];

/** Of every database that has such schemas. */
export const branchMigrations: readonly Migration[] = [
  { name: "0001_branch.sql", text: branch },
  { name: "0002_structure.sql", text: structure },
  { name: "0003_changes.sql", text: changes },
  { name: "0004_analytics.sql", text: analytics },
  { name: "0005_staged.sql", text: staged },
];
