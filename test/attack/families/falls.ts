// The walls that protect each kind of access, for each tier.
import type { Fall, Walls } from "../attack.ts";

/** By what the victim's rows are named in every tier; in its own tables an attacker has none that match. */
export const theirs = "tenant_id = 'globex'";

const rowSecurity = ["row security", "a login that cannot bypass it", "no policy but the tenant's"] as const;
const otherDatabase = ["the other database's door", "rights on its own schema alone"] as const;

/** Reading the victim's rows, and removing them. */
export const rows = {
  shared: rowSecurity,
  schema: ["rights on its own schema alone", "no other role's name"],
  database: ["no link to another database", otherDatabase],
} satisfies Walls;

/** The same for what cannot be done to a foreign table. */
export const rowsAtHome = { ...rows, database: [otherDatabase] } satisfies Walls;

/** The same for what needs the attacker's own tables, too. */
export const rowsBesideOwn = { ...rows, database: ["no link to another database"] } satisfies Walls;

/** Writing rows in the victim's name. */
export const writes = {
  shared: rowSecurity,
  schema: [["rights on its own schema alone", "rows that name their tenant"]],
  // There the rule about names knows the login for nobody's, as it does the owner's, and lets it be.
  database: rows.database,
} satisfies Walls;
export const writesAtHome = { ...writes, database: rowsAtHome.database } satisfies Walls;

/** What the owner of the victim's table may do with it, once its schema can be named. */
export const ownership = {
  shared: ["no ownership"],
  schema: [["rights on its own schema alone", "no ownership"]],
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
