// The files of migrations/tenant, which the bundler turns into text. One line per file, in their order.
import type { Migration } from "../adapters/branch.ts";
import tables from "../../migrations/tenant/0001_tables.sql";

export const tenantMigrations: readonly Migration[] = [{ name: "0001_tables.sql", text: tables }];
