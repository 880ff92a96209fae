// The walls that protect each kind of access, for each tier.
import type { Fall, Walls } from "../attack.ts";

/** A condition that selects the victim's rows in every tier. The attacker has no such rows of its own. */
export const theirs = "tenant_id = 'globex'";

const rowSecurity = ["row security", "a login that cannot bypass it", "no policy but the tenant's"] as const;
const otherDatabase = ["no CONNECT on the other database", "rights on its own schema only"] as const;

/** Reading the victim's rows, and removing them. */
export const rows = {
  shared: rowSecurity,
  schema: ["rights on its own schema only", "no other role's name"],
  database: ["no link to another database", otherDatabase],
} satisfies Walls;

/** The same for attacks that are impossible through a foreign table. */
export const rowsAtHome = { ...rows, database: [otherDatabase] } satisfies Walls;

/** The same for attacks that also need the attacker's own tables. */
export const rowsBesideOwn = { ...rows, database: ["no link to another database"] } satisfies Walls;

/** Writing rows in the victim's name. */
export const writes = {
  shared: rowSecurity,
  schema: [["rights on its own schema only", "the check on tenant_id"]],
  // In the victim's database, the check on tenant_id knows no tenant for the attacker's login, as for the owner, and passes.
  database: rows.database,
} satisfies Walls;
export const writesAtHome = { ...writes, database: rowsAtHome.database } satisfies Walls;

/** Actions that need ownership of the victim's table, and access to its schema. */
export const ownership = {
  shared: ["no ownership"],
  schema: [["rights on its own schema only", "no ownership"]],
  database: [[...otherDatabase, "no ownership"]],
} satisfies Walls;

export const onlyShared = (walls: readonly Fall[], why: string): Walls => ({
  shared: walls,
  schema: why,
  database: why,
});
export const onlyOwn = (walls: readonly Fall[], why: string): Walls => ({
  shared: why,
  schema: walls,
  database: walls,
});
