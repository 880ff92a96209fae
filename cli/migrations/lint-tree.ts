// The vocabulary that all rules of the linter share: how they read a statement and how they refuse it. A statement is the
// parse tree of PostgreSQL's own parser. A table that the file itself creates is empty and unused, so the rules accept any
// change of it. Only a contract file may remove something.
import type { Node, RangeVar } from "libpg-query";

/** The kind of tables. Those of `shared` and `control` grow without a limit. Those of `tenant` belong to one tenant. */
export type Tables = "shared" | "tenant" | "control";

export interface Verdict {
  rule: string;
  reason: string;
  safeWay: string;
}

/** The state of a file before its next statement. */
export interface MigrationFile {
  readonly tables: Tables;
  /** Why the file must not remove what running code may use. Undefined in a valid contract file. */
  readonly notContract: string | undefined;
  /** The objects that the file has created so far: `relation products`, `function tollgate.enter`. */
  readonly made: Set<string>;
  /** The first lock on an existing table, which lasts until the file commits: `line 3 keeps products locked`. */
  held: string | undefined;
}

type KeyOf<Union> = Union extends unknown ? keyof Union : never;
type Kind = KeyOf<Node>;
type Body<K extends Kind> = Extract<Node, { [P in K]: unknown }>[K];

/** Functions by the kind of statement that they take. */
export type ByKind<Result> = { [K in Kind]?: (statement: Body<K>, file: MigrationFile) => Result };
export function applied<Result>(functions: ByKind<Result>, statement: Node, file: MigrationFile): Result | undefined {
  const [kind, body] = Object.entries(statement)[0] ?? [];
  return (functions[kind as Kind] as ((body: unknown, file: MigrationFile) => Result) | undefined)?.(body, file);
}

/** The content of a node of this kind, undefined for another kind. */
export const as = <K extends Kind>(node: Node | undefined, kind: K): Body<K> | undefined =>
  (node as { [P in K]?: Body<K> } | undefined)?.[kind];

/** The contents of all nodes of a kind, at any depth, in the order of the text. */
export function all<K extends Kind>(tree: unknown, kind: K): Body<K>[] {
  if (typeof tree !== "object" || tree === null) return [];
  return Object.entries(tree).flatMap(([key, inner]) =>
    (key === kind ? [inner as Body<K>] : []).concat(all(inner, kind)),
  );
}

/** A name as SQL writes it, with quotes when it needs them. */
export const quoted = (name = ""): string => (/^[a-z_][a-z0-9_$]*$/.test(name) ? name : `"${name}"`);
/** The names of a list of strings: a column list, or the parts of a qualified name. */
export const names = (nodes: Node[] = []): string[] => nodes.map((node) => quoted(as(node, "String")?.sval));

/** A name without `public`, which unqualified names mean except in a tenant's schema. */
export const known = (parts: string[], { tables }: MigrationFile): string =>
  parts.slice(tables !== "tenant" && parts[0] === "public" ? 1 : 0).join(".");
/** The name of a table, view, index or sequence. Empty when the statement names none. */
export const nameOf = (relation: RangeVar | undefined, file: MigrationFile): string =>
  known(
    [relation?.schemaname, relation?.relname].flatMap((name) => (name ? [quoted(name)] : [])),
    file,
  );
/** Whether the file created the relation. */
export const isNew = (relation: RangeVar | undefined, file: MigrationFile): boolean =>
  file.made.has(`relation ${nameOf(relation, file)}`);

/** Refuses a statement for one reason. */
export const refuse = (rule: string, reason: string, safeWay: string): Verdict[] => [{ rule, reason, safeWay }];

/** Refuses to remove something that running code may use, except in a contract file. */
export function contract(file: MigrationFile, rule: string, what: string, before: string): Verdict[] {
  if (file.notContract === undefined) return [];
  return refuse(
    rule,
    `The running program may still use ${what}. ${file.notContract}`,
    `${before}, then do this in a later file named NNNN_..._contract.sql. Its header comment names the migration that ` +
      "ended the use.",
  );
}

/** How to change many rows. */
export const inBatches = "in batches by key range, each in its own transaction, outside of the migration";

export const rowSecurity = (table: string): Verdict[] =>
  refuse(
    "row-security",
    `This changes which rows of ${table} the running program sees, and row security is the wall between tenants.`,
    `Call tollgate.isolate(...) in the file that creates a table. For ${table}, create a new table and move the rows.`,
  );

export const partition = (table: string, attached: string): Verdict[] =>
  refuse(
    "partition",
    `Making ${attached} a partition locks it, or ${table}, while PostgreSQL checks rows against its bounds.`,
    `CREATE TABLE ... (LIKE ${table} INCLUDING ALL) and ALTER TABLE ${table} ATTACH PARTITION in one file, while it is empty.`,
  );

export const rewriteTable = (what: string, table: string): Verdict[] =>
  refuse(
    "rewrite-table",
    `${what} rewrites ${table} and blocks all reads and writes meanwhile.`,
    `Create a new table as ${table} should be, write both, backfill ${inBatches}, then use the new one.`,
  );

/** Reading a whole table takes long, and a transaction keeps its locks until its end. */
export const underLock = (what: string, table: string, held: string): Verdict[] =>
  refuse(
    "work-under-lock",
    `${what} reads every row of ${table} while ${held} until the file commits.`,
    `Put ${what} into a file of its own after this one. There it blocks neither reads nor writes of ${table}.`,
  );

export const unjudged = (what: string): Verdict[] =>
  refuse(
    "unjudged",
    `The linter has no rule for ${what}. It may lock a table for long or break the running program.`,
    "Look up its locks (PostgreSQL's manual, Explicit Locking) and state them: -- allow unjudged: <reason>.",
  );
