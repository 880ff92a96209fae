// Rules for each kind of statement: a migration must not break the previous version of the program, which still runs. There
// are two reasons to refuse: the statement holds a lock for a time that grows with the table, or it removes something that
// running code uses. Both concern existing tables only: a table that the file itself creates is empty and unused. A brief
// lock is accepted, also that of CREATE TRIGGER, because triggers let two versions of a program write the same columns. A
// statement without a rule is refused. lint-alter.ts has the rules for ALTER TABLE.
import type { DefElem, Node, RangeVar, SelectStmt, TypeName } from "libpg-query";
import { alterTable, isMild } from "./lint-alter.ts";
import { all, applied, as, contract, inBatches, isNew, known, nameOf } from "./lint-tree.ts";
import { names, partition, quoted, refuse, rewriteTable, rowSecurity, underLock, unjudged } from "./lint-tree.ts";
import type { ByKind, MigrationFile, Verdict } from "./lint-tree.ts";

/** Whether a condition selects few rows: it compares a column with a value, and not with NULL or another column. */
function bounds(where: Node | undefined): boolean {
  const logic = as(where, "BoolExpr");
  if (logic?.boolop === "AND_EXPR") return (logic.args ?? []).some(bounds);
  if (logic?.boolop === "OR_EXPR") return (logic.args ?? []).every(bounds);
  const chosen = as(as(where, "SubLink")?.subselect, "SelectStmt");
  if (chosen) return chosen.limitCount !== undefined || bounds(chosen.whereClause);
  const { kind, name, lexpr, rexpr } = as(where, "A_Expr") ?? {};
  if (kind === "AEXPR_DISTINCT" || /<>|!|NOT/.test(names(name).join(""))) return false;
  return [lexpr, rexpr].filter((side) => all(side, "ColumnRef").length > 0).length === 1;
}

function changeRows(verb: string, relation: RangeVar | undefined, where: Node | undefined, file: MigrationFile) {
  const table = nameOf(relation, file);
  if (isNew(relation, file)) return [];
  if (verb === "DELETE" && all(where, "ColumnRef").length === 0)
    return contract(file, "delete-all", `the rows of ${table}, and this deletes all of them`, `Stop using ${table}`);
  // A tenant's own tables contain the rows of one tenant. A brief lock on them affects no other tenant.
  if (file.tables === "tenant" || bounds(where)) return [];
  return refuse(
    "backfill",
    `This ${verb} is not bounded: every row of ${table} that it changes stays locked until the file commits.`,
    `Change the rows of ${table} ${inBatches}. For few rows, compare a column with a value in WHERE.`,
  );
}

/** The types of a function's arguments, which identify it together with its name. */
const signature = (types: (TypeName | undefined)[]): string =>
  `(${types.map((type) => `${names(type?.names).at(-1)}${"[]".repeat(type?.arrayBounds?.length ?? 0)}`).join(", ")})`;
const withSignature = (name: Node[] | undefined, types: (TypeName | undefined)[]): string[] => {
  const parts = names(name);
  return [...parts.slice(0, -1), `${parts.at(-1)}${signature(types)}`];
};

/** The parts of an object's name, in a statement that names objects of any kind. */
function partsOf(object: Node | undefined): string[] {
  const routine = as(object, "ObjectWithArgs");
  if (routine && !routine.args_unspecified) return withSignature(routine.objname, all(routine.objargs, "TypeName"));
  const list = as(object, "List")?.items ?? routine?.objname ?? as(object, "TypeName")?.names;
  return names(list ?? (object && "String" in object ? [object] : []));
}

const kindOf = (type = ""): string => type.replace("OBJECT_", "").toLowerCase().replaceAll("_", " ");

/** Whether the file created the object, or the table that it belongs to. */
function isMade(type = "", parts: string[], file: MigrationFile): boolean {
  const family = [
    { name: "relation", types: /TABLE$|VIEW|INDEX|SEQUENCE/ },
    { name: "function", types: /FUNCTION|PROCEDURE|ROUTINE/ },
    { name: "type", types: /TYPE|DOMAIN/ },
  ].find(({ types }) => types.test(type));
  if (/TRIGGER|POLICY|RULE/.test(type) && file.made.has(`relation ${known(parts.slice(0, -1), file)}`)) return true;
  return file.made.has(`${family?.name ?? kindOf(type)} ${known(parts, file)}`);
}

const rename = (what: string, file: MigrationFile): Verdict[] =>
  contract(
    file,
    "rename",
    `${what} by its old name`,
    `Add the new name beside the old one (a view for a table; a column that both programs write, backfilled ${inBatches}) ` +
      "and ship a program that uses only the new one",
  );

/** Whether an option such as CONCURRENTLY or (FULL off) is present and on. */
const isOn = (options: Node[] | undefined, name: string): boolean =>
  all(options, "DefElem").some(({ defname, arg }: DefElem) => {
    const value = as(arg, "String")?.sval ?? String(as(arg, "Integer")?.ival ?? 0);
    return defname === name && (arg === undefined || !/^(0|false|off)$/i.test(value));
  });

/** Whether the statement has CONCURRENTLY. Such a statement blocks no writes, and PostgreSQL refuses it inside a transaction. */
export const isConcurrent = (statement: Node): boolean =>
  as(statement, "IndexStmt")?.concurrent === true ||
  as(statement, "DropStmt")?.concurrent === true ||
  isOn(as(statement, "ReindexStmt")?.params, "concurrently") ||
  all(statement, "PartitionCmd").some(({ concurrent }) => concurrent === true);

const lockAll = (rule: string, what: string, relation: RangeVar | undefined, file: MigrationFile, safeWay: string) =>
  isNew(relation, file)
    ? []
    : refuse(
        rule,
        `${what} locks ${nameOf(relation, file) || "everything"} until it ends, or until the file commits.`,
        safeWay,
      );

/** The tables whose rows a query reads. */
const sources = ({ fromClause, larg, rarg }: SelectStmt): RangeVar[] => [
  ...all(fromClause, "RangeVar"),
  ...(larg ? sources(larg) : []),
  ...(rarg ? sources(rarg) : []),
];

/** Copying rows from an existing table is harmless unless the file holds a lock meanwhile. */
function copies(what: string, query: Node | undefined, file: MigrationFile): Verdict[] {
  const select = as(query, "SelectStmt") ?? {};
  const source = sources(select).find((relation) => !isNew(relation, file));
  if (file.held === undefined || file.tables === "tenant" || source === undefined || bounds(select.whereClause))
    return [];
  return underLock(what, nameOf(source, file), file.held);
}

const domain = (): Verdict[] =>
  refuse(
    "domain",
    "Adding a column whose domain has a constraint rewrites its table, and a change of the constraint reads every table " +
      "that uses the domain.",
    "Use the plain type and put the CHECK on the table (NOT VALID first, if the table exists).",
  );

const rules: ByKind<Verdict[]> = {
  AlterTableStmt: alterTable,
  IndexStmt({ relation, concurrent }, file) {
    // In a tenant's schema the table is small, CONCURRENTLY is impossible, and lock_timeout limits the wait.
    if (concurrent || file.tables === "tenant" || isNew(relation, file)) return [];
    const table = nameOf(relation, file);
    return refuse(
      "create-index",
      `Building an index on ${table} blocks all writes to it until the index is complete.`,
      `CREATE INDEX CONCURRENTLY on ${table} in a file with this statement only: it then runs outside of a transaction.`,
    );
  },
  DropStmt: ({ objects = [], removeType }, file) =>
    objects.flatMap((object) => {
      const parts = partsOf(object);
      const what = `${kindOf(removeType)} ${parts.join(".")}`;
      if (isMade(removeType, parts, file)) return [];
      if (removeType === "OBJECT_POLICY") return rowSecurity(parts.slice(0, -1).join("."));
      return contract(file, "drop", what, `Ship a program that does not use ${what}`);
    }),
  RenameStmt({ renameType, relation, object, subname }, file) {
    if (/INDEX|TABCONSTRAINT|TRIGGER|POLICY/.test(renameType ?? "") || (relation && isNew(relation, file))) return [];
    const parts = relation ? [nameOf(relation, file)] : partsOf(object);
    if (isMade(renameType, parts, file)) return [];
    return rename(`${kindOf(renameType)} ${[...parts, ...(subname ? [quoted(subname)] : [])].join(".")}`, file);
  },
  AlterObjectSchemaStmt({ objectType, relation, object }, file) {
    const parts = relation ? [nameOf(relation, file)] : partsOf(object);
    return isMade(objectType, parts, file) ? [] : rename(`${kindOf(objectType)} ${parts.join(".")}`, file);
  },
  AlterEnumStmt: ({ oldVal, typeName }, file) =>
    oldVal === undefined ? [] : rename(`the value '${oldVal}' of type ${names(typeName).join(".")}`, file),
  AlterDomainStmt: domain,
  CreateDomainStmt: ({ constraints = [] }) => (constraints.length > 0 ? domain() : []),
  CreateStmt: ({ relation, partbound, inhRelations }, file) =>
    all(partbound ? inhRelations : [], "RangeVar").flatMap((parent) =>
      isNew(parent, file) ? [] : partition(nameOf(parent, file), nameOf(relation, file)),
    ),
  CreateTableAsStmt: ({ query }, file) => copies("CREATE TABLE AS", query, file),
  InsertStmt: ({ selectStmt }, file) => copies("INSERT ... SELECT", selectStmt, file),
  TruncateStmt: ({ relations }, file) =>
    all(relations, "RangeVar").flatMap((relation) => {
      const table = nameOf(relation, file);
      return lockAll(
        "truncate",
        "TRUNCATE, which also deletes every row that the running program uses,",
        relation,
        file,
        `Delete the rows of ${table} ${inBatches}, or stop using ${table} and drop it in a contract file.`,
      );
    }),
  LockStmt: ({ relations }, file) =>
    all(relations, "RangeVar").flatMap((relation) =>
      lockAll(
        "lock-table",
        "LOCK TABLE",
        relation,
        file,
        `Remove it: every statement takes the lock that it needs on ${nameOf(relation, file)} by itself.`,
      ),
    ),
  ClusterStmt: ({ relation }, file) =>
    isNew(relation, file) ? [] : rewriteTable("CLUSTER", nameOf(relation, file) || "all tables"),
  ReindexStmt: (statement, file) =>
    isConcurrent({ ReindexStmt: statement })
      ? []
      : lockAll(
          "reindex",
          "REINDEX",
          statement.relation,
          file,
          "REINDEX ... CONCURRENTLY in a file with this statement only: it then runs outside of a transaction.",
        ),
  RefreshMatViewStmt: ({ relation, concurrent }, file) =>
    concurrent
      ? []
      : lockAll(
          "refresh",
          "REFRESH MATERIALIZED VIEW",
          relation,
          file,
          `REFRESH MATERIALIZED VIEW CONCURRENTLY ${nameOf(relation, file)}, which needs a unique index on it.`,
        ),
  VacuumStmt: ({ is_vacuumcmd: isVacuum, options, rels }, file) => {
    const table = nameOf(all(rels, "VacuumRelation")[0]?.relation, file) || "every table";
    return isVacuum && isOn(options, "full") ? rewriteTable("VACUUM FULL", table) : [];
  },
  RuleStmt: ({ relation }, file) =>
    lockAll(
      "create-rule",
      "CREATE RULE, which rewrites the running program's statements,",
      relation,
      file,
      `CREATE TRIGGER on ${nameOf(relation, file)} instead.`,
    ),
  CreatePolicyStmt: ({ table }, file) => (isNew(table, file) ? [] : rowSecurity(nameOf(table, file))),
  AlterPolicyStmt: ({ table }, file) => (isNew(table, file) ? [] : rowSecurity(nameOf(table, file))),
  DropRoleStmt: ({ roles }, file) =>
    contract(file, "drop", `role ${rolesOf(roles)}`, "Move every program to another login"),
  DropOwnedStmt: ({ roles }, file) =>
    contract(file, "drop", `the objects of ${rolesOf(roles)}`, "Ship a program that uses none of them"),
  GrantRoleStmt: ({ is_grant: isGrant, grantee_roles: from }, file) =>
    isGrant
      ? []
      : contract(file, "revoke", `the membership of ${rolesOf(from)}`, "Ship a program that works without it"),
  GrantStmt({ is_grant: isGrant, targtype, objtype, objects = [], grantees }, file) {
    const from = rolesOf(grantees);
    if (isGrant || from === "") return [];
    const old = objects.filter((object) => {
      const parts = "RangeVar" in object ? [nameOf(object.RangeVar, file)] : partsOf(object);
      return targtype !== "ACL_TARGET_OBJECT" || !isMade(objtype, parts, file);
    });
    return old.length === 0
      ? []
      : contract(file, "revoke", `a right of ${from}`, "Ship a program that works without it");
  },
};

/** The roles by name. PUBLIC is left out: a program with a login of its own depends on none of its rights. */
const rolesOf = (roles: Node[] | undefined): string =>
  all(roles, "RoleSpec")
    .flatMap(({ rolename }) => (rolename === undefined ? [] : [quoted(rolename)]))
    .join(", ");

/** Statements that neither remove anything nor lock for long. The linter judges the statements inside them separately. */
const harmless = new Set<string>([
  ...["SelectStmt", "UpdateStmt", "DeleteStmt", "MergeStmt", "CallStmt", "DoStmt", "VariableShowStmt"],
  ...["CreateFunctionStmt", "CreateTrigStmt", "CreateSeqStmt", "CreateEnumStmt", "CompositeTypeStmt", "ViewStmt"],
  ...["CreateSchemaStmt", "CreateRoleStmt", "CreateStatsStmt", "CreateExtensionStmt", "AlterFunctionStmt"],
  ...["AlterRoleStmt", "AlterRoleSetStmt", "AlterOwnerStmt", "AlterDefaultPrivilegesStmt", "CommentStmt"],
  // lint.ts judges these.
  ...["TransactionStmt", "VariableSetStmt", "ConstraintsSetStmt", "DiscardStmt", "PrepareStmt", "ListenStmt"],
  ...["AlterSystemStmt", "CreatedbStmt", "DropdbStmt", "CreateTableSpaceStmt", "DropTableSpaceStmt"],
]);

/** Returns the reasons to refuse a statement because of existing tables and the program that uses them. */
export function judgeTables(statement: Node, file: MigrationFile): Verdict[] {
  const [kind = ""] = Object.keys(statement);
  const found = applied(rules, statement, file) ?? (harmless.has(kind) ? [] : unjudged(kind));
  if (kind === "CreateFunctionStmt" || kind === "RuleStmt") return found; // their bodies do not run now
  return [
    ...found,
    ...all(statement, "UpdateStmt").flatMap((each) => changeRows("UPDATE", each.relation, each.whereClause, file)),
    ...all(statement, "DeleteStmt").flatMap((each) => changeRows("DELETE", each.relation, each.whereClause, file)),
    ...all(statement, "MergeStmt").flatMap((each) => changeRows("MERGE", each.relation, undefined, file)),
    ...all(statement, "FuncCall").flatMap(({ funcname, args }) => {
      const target = as(args?.[0], "A_Const")?.sval?.sval;
      if (names(funcname).join(".") !== "tollgate.isolate" || target === undefined) return [];
      return file.made.has(`relation ${known(target.split("."), file)}`) ? [] : rowSecurity(target);
    }),
  ];
}

/** The object that a statement creates in any case. With IF NOT EXISTS or OR REPLACE it may have existed before. */
const makes: ByKind<string | false> = {
  CreateStmt: ({ relation, if_not_exists: perhaps }, file) => !perhaps && `relation ${nameOf(relation, file)}`,
  CreateTableAsStmt: ({ into, if_not_exists: perhaps }, file) => !perhaps && `relation ${nameOf(into?.rel, file)}`,
  CreateSeqStmt: ({ sequence, if_not_exists: perhaps }, file) => !perhaps && `relation ${nameOf(sequence, file)}`,
  ViewStmt: ({ view, replace }, file) => !replace && `relation ${nameOf(view, file)}`,
  IndexStmt: ({ relation, idxname = "", if_not_exists: perhaps }, file) =>
    !perhaps && idxname !== "" && `relation ${nameOf({ ...relation, relname: idxname }, file)}`,
  CreateTrigStmt: ({ relation, trigname, replace }, file) =>
    !replace && `trigger ${nameOf(relation, file)}.${quoted(trigname)}`,
  CreateFunctionStmt({ funcname, parameters, replace }, file) {
    const given = all(parameters, "FunctionParameter").filter(({ mode }) => !/_OUT$|TABLE/.test(mode ?? ""));
    const types = given.map(({ argType }) => argType);
    return !replace && `function ${known(withSignature(funcname, types), file)}`;
  },
  CreateEnumStmt: ({ typeName }, file) => `type ${known(names(typeName), file)}`,
  CompositeTypeStmt: ({ typevar }, file) => `type ${nameOf(typevar, file)}`,
  CreateDomainStmt: ({ domainname }, file) => `type ${known(names(domainname), file)}`,
  CreateSchemaStmt: ({ schemaname, if_not_exists: perhaps }) => !perhaps && `schema ${quoted(schemaname)}`,
};

/** The first table older than this file that a statement locks, against writes or all access, until the transaction ends. */
function locks(statement: Node, file: MigrationFile): string | undefined {
  const altered = as(statement, "AlterTableStmt");
  const index = as(statement, "IndexStmt");
  const drop = as(statement, "DropStmt");
  const relations = [
    altered && !isMild(altered) ? altered.relation : undefined,
    index?.concurrent ? undefined : index?.relation,
    as(statement, "CreateTrigStmt")?.relation,
    as(statement, "RenameStmt")?.relation,
    ...all(statement, "Constraint").map(({ pktable }) => pktable),
  ];
  const stands = relations.find((relation) => relation !== undefined && !isNew(relation, file));
  if (stands) return nameOf(stands, file);
  const dropped = drop?.concurrent ? [] : (drop?.objects ?? []).filter((object) => "List" in object).map(partsOf);
  return dropped.find((parts) => !isMade(drop?.removeType, parts, file))?.join(".");
}

/** Records the table that a statement locks until the file commits. */
export function rememberLock(statement: Node, file: MigrationFile, line: number): void {
  const locked = locks(statement, file);
  if (locked !== undefined) file.held ??= `line ${line} keeps ${locked} locked`;
}

/** Records the object that a statement creates. Do not call it for statements in a DO block, which may be skipped. */
export function rememberMade(statement: Node, file: MigrationFile): void {
  const made = applied(makes, statement, file);
  if (made) file.made.add(made);
}
