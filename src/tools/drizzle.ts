// Drizzle on a tenant's rows, for tools that rather build queries than write them: `drizzleOn(context.db)`. It sends what a
// tool could have written by hand, one round trip a query; tables need no tenant in their WHERE. Several queries in one
// transaction: `context.db.transaction((transaction) => work(drizzleOn(transaction)))`, since Drizzle's own begins none here.
import type { DrizzleConfig } from "drizzle-orm";
import { type PgRemoteDatabase, drizzle } from "drizzle-orm/pg-proxy";
import type { Transaction } from "./tool.ts";

/** `config.schema` is for relational queries. `config.logger` writes every query with its values: leave it off. */
export function drizzleOn<Schema extends Record<string, unknown> = Record<string, never>>(
  db: Transaction,
  config: DrizzleConfig<Schema> = {},
): PgRemoteDatabase<Schema> {
  return drizzle(
    async (text, params: unknown[], method) => ({
      rows: method === "all" ? await db.values(text, params) : await db.query(text, params),
    }),
    config,
  );
}
