// A `SqlPort` over an SQLite database in memory: what an object's storage is, without a platform.
import { DatabaseSync } from "node:sqlite";
import type { SqlPort } from "../../src/identity/oauth/entries.ts";

export function sqlitePort(): SqlPort {
  const database = new DatabaseSync(":memory:");
  return {
    exec(query, ...bindings) {
      const statement = database.prepare(query);
      const rows = statement.all(...bindings);
      return { toArray: () => rows };
    },
  };
}
