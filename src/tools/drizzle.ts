// Drizzle, a query builder, for a tenant's rows: `drizzleOn(context.db)`. Each query is one round trip. Queries need no
// condition on the tenant, because the database shows a tenant only its own rows.
// Drizzle's own transactions do not work here. Use `context.db.transaction((transaction) => work(drizzleOn(transaction)))`.
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
