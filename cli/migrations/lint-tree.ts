// How a migration's statements are read and refused: the vocabulary that all rules share. A statement is the parse tree
// of PostgreSQL's own parser; a table that the file itself makes is empty and used by nobody, so nothing done to it is
// refused; what takes something away is accepted in a contract file alone.
import type { Node, RangeVar } from "libpg-query";

/** Whose tables: `shared` and `control` grow without a bound, `tenant` are one tenant's own in a schema of its own. */
export type Tables = "shared" | "tenant" | "control";

export interface Verdict {
  rule: string;
  reason: string;
  safeWay: string;
}

/** What is known of a file when the next of its statements is judged. */
export interface MigrationFile {
  readonly tables: Tables;
  /** Why it may not take away what running code may use; undefined in a contract file that is in order. */
  readonly notContract: string | undefined;
  /** What it has made so far, which nobody uses yet: `relation products`, `function tollgate.enter`. */
  readonly made: Set<string>;
  /** The first lock on a table that stands, which lasts until the file commits: `line 3 keeps products locked`. */
  held: string | undefined;
}

type KeyOf<Union> = Union extends unknown ? keyof Union : never;
type Kind = KeyOf<Node>;
type Body<K extends Kind> = Extract<Node, { [P in K]: unknown }>[K];

/** A function for each of some kinds of statement. */
export type ByKind<Result> = { [K in Kind]?: (statement: Body<K>, file: MigrationFile) => Result };
export function applied<Result>(functions: ByKind<Result>, statement: Node, file: MigrationFile): Result | undefined {
  const [kind, body] = Object.entries(statement)[0] ?? [];
  return (functions[kind as Kind] as ((body: unknown, file: MigrationFile) => Result) | undefined)?.(body, file);
}

/** The node's content when it is of this kind. */
export const as = <K extends Kind>(node: Node | undefined, kind: K): Body<K> | undefined =>
  (node as { [P in K]?: Body<K> } | undefined)?.[kind];

/** The contents of all nodes of a kind, at any depth, in the order of the text. */
export function all<K extends Kind>(tree: unknown, kind: K): Body<K>[] {
  if (typeof tree !== "object" || tree === null) return [];
  return Object.entries(tree).flatMap(([key, inner]) =>
    (key === kind ? [inner as Body<K>] : []).concat(all(inner, kind)),
  );
}

/** A name as SQL would have it. */
export const quoted = (name = ""): string => (/^[a-z_][a-z0-9_$]*$/.test(name) ? name : `"${name}"`);
/** The names of a list of strings: a column list, or the parts of a qualified name. */
export const names = (nodes: Node[] = []): string[] => nodes.map((node) => quoted(as(node, "String")?.sval));

/** A name as all of a file's ways to write it: `public` is where unqualified ones live, except in a tenant's schema. */
export const known = (parts: string[], { tables }: MigrationFile): string =>
  parts.slice(tables !== "tenant" && parts[0] === "public" ? 1 : 0).join(".");
/** The same of a table, view, index or sequence; empty when the statement names none. */
export const nameOf = (relation: RangeVar | undefined, file: MigrationFile): string =>
  known(
    [relation?.schemaname, relation?.relname].flatMap((name) => (name ? [quoted(name)] : [])),
    file,
  );
/** Whether the file has made it. */
export const isNew = (relation: RangeVar | undefined, file: MigrationFile): boolean =>
  file.made.has(`relation ${nameOf(relation, file)}`);

/** One reason to refuse a statement. */
export const refuse = (rule: string, reason: string, safeWay: string): Verdict[] => [{ rule, reason, safeWay }];

/** Refuses what takes something away that running code may use, unless the file is there for that. */
export function contract(file: MigrationFile, rule: string, what: string, before: string): Verdict[] {
  if (file.notContract === undefined) return [];
  return refuse(
    rule,
    `The program that runs beside this migration may still use ${what}. ${file.notContract}`,
    `${before}, then do this in a later file named NNNN_..._contract.sql whose header comment names the migration ` +
      "since which nothing uses it.",
  );
}

/** Where a change of many rows belongs. */
export const inBatches = "in batches by key range, each a transaction of its own, outside of the migration";

export const rowSecurity = (table: string): Verdict[] =>
  refuse(
    "row-security",
    `This changes which rows of ${table} the running program sees, and row security is the wall between tenants.`,
    `SELECT tollgate.isolate(...) belongs in the file that creates a table; for ${table}, make a new table and move over.`,
  );

export const partition = (table: string, attached: string): Verdict[] =>
  refuse(
    "partition",
    `Making ${attached} a partition locks it, or ${table}, while rows are checked against its bounds.`,
    `CREATE TABLE ... (LIKE ${table} INCLUDING ALL) and ALTER TABLE ${table} ATTACH PARTITION in one file: it is empty then.`,
  );

export const rewriteTable = (what: string, table: string): Verdict[] =>
  refuse(
    "rewrite-table",
    `${what} writes all of ${table} anew while nobody can read or write it.`,
    `Make a new table as ${table} should be, write both, backfill ${inBatches}, and move over.`,
  );

/** What reads a whole table goes on for long, and a transaction gives no lock back before its end. */
export const underLock = (what: string, table: string, held: string): Verdict[] =>
  refuse(
    "work-under-lock",
    `${what} reads every row of ${table} while ${held} until the file commits.`,
    `Put ${what} into a file of its own after this one: alone it lets reads and writes of ${table} go on.`,
  );

export const unjudged = (what: string): Verdict[] =>
  refuse(
    "unjudged",
    `No rule knows ${what}: nothing says that it neither locks a table for long nor breaks the running program.`,
    "Look up what it locks (PostgreSQL's manual, Explicit Locking) and say what you found: -- allow unjudged: <reason>.",
  );
