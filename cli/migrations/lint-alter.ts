// Rules for ALTER TABLE, the statement with the most ways to lock or break. The locks, scans and rewrites of each form were
// measured on PostgreSQL 18 (pg_locks, messages at DEBUG1). A brief lock is accepted, because `npm run migrate` sets
// lock_timeout, which limits the wait for it. A form without a rule is refused.
import type { AlterTableCmd, AlterTableStmt, ColumnDef, Constraint, Node } from "libpg-query";
import { all, as, contract, inBatches, isNew, nameOf, names, partition, quoted, refuse } from "./lint-tree.ts";
import { rewriteTable, rowSecurity, underLock, unjudged } from "./lint-tree.ts";
import type { MigrationFile, Verdict } from "./lint-tree.ts";

/** Functions that return the same value for all rows of a statement. A column with such a default needs no rewrite. */
const steady = new Set(
  (
    "now transaction_timestamp statement_timestamp timezone date_trunc date_part extract make_date make_interval " +
    "make_timestamptz to_timestamp current_setting current_database lower upper concat format repeat md5 sha256 " +
    "encode decode convert_to length jsonb_build_object jsonb_build_array json_build_object json_build_array to_jsonb to_json"
  ).split(" "),
);

/** A missing default and DEFAULT NULL mean the same. */
const isNull = (value: Node | undefined): boolean => {
  const inner = as(value, "TypeCast")?.arg ?? value;
  return inner === undefined || as(inner, "A_Const")?.isnull === true;
};

function addColumn(column: ColumnDef, table: string): Verdict[] {
  const name = quoted(column.colname);
  const constraints = all(column.constraints, "Constraint");
  const find = (type: string): Constraint | undefined => constraints.find(({ contype }) => contype === type);
  const value = find("CONSTR_DEFAULT")?.raw_expr;
  const [notNull, primary] = [find("CONSTR_NOTNULL"), find("CONSTR_PRIMARY")];
  const generated = find("CONSTR_GENERATED")?.generated_kind;
  const type = names(column.typeName?.names).at(-1) ?? "";
  const call = all(value, "FuncCall")
    .map(({ funcname }) => names(funcname).join("."))
    .find((each) => !steady.has(each.replace(/^pg_catalog\./, "")));
  const rewrite = (what: string): Verdict[] =>
    refuse(
      "add-column-rewrite",
      `Adding ${what} computes a value for every row: PostgreSQL rewrites ${table} and blocks all reads and writes meanwhile.`,
      `Add ${name} as a plain column without a default, ALTER COLUMN ${name} SET DEFAULT (or a trigger, or a VIRTUAL ` +
        `column) for new rows in the same file, and backfill the old rows of ${table} ${inBatches}.`,
    );

  const found: Verdict[][] = [];
  if (generated === "s") found.push(rewrite(`the stored generated column ${name}`));
  if (/^(small|big)?serial[248]?$/.test(type) || find("CONSTR_IDENTITY")) {
    found.push(rewrite(`the numbered column ${name}`));
  }
  if (call) found.push(rewrite(`${name}, whose default calls ${call}(), which may be volatile,`));
  if (generated === "v" && notNull) found.push(setNotNull(table, name));
  else if (found.length === 0 && (notNull ?? primary) && isNull(value)) {
    found.push(
      refuse(
        "add-column-not-null",
        `${name} is NOT NULL without a default. The statement fails when ${table} has rows. Later, every INSERT of the ` +
          `running program fails, because it does not know ${name}.`,
        `Give ${name} a constant default; or add it nullable, let the program write it, backfill it ${inBatches}, then ` +
          `ALTER TABLE ${table} ADD CONSTRAINT ${named(name)} NOT NULL ${name} NOT VALID and VALIDATE in a later file.`,
      ),
    );
  }
  if (find("CONSTR_CHECK")) found.push(notValid("CHECK", table, name));
  if (find("CONSTR_FOREIGN") && !isNull(value)) found.push(notValid("FOREIGN KEY", table, name));
  if (primary ?? find("CONSTR_UNIQUE")) found.push(usingIndex(primary ? "PRIMARY KEY" : "UNIQUE", table, name));
  return found.flat();
}

/** The name of a constraint in an advice. */
const named = (column: string): string => quoted(`${column.replaceAll('"', "")}_given`);

const setNotNull = (table: string, column: string): Verdict[] =>
  refuse(
    "set-not-null",
    `NOT NULL on ${column} reads every row of ${table} and blocks all reads and writes meanwhile.`,
    `ALTER TABLE ${table} ADD CONSTRAINT ${named(column)} NOT NULL ${column} NOT VALID (before PostgreSQL 18: CHECK ` +
      `(${column} IS NOT NULL) NOT VALID) and VALIDATE in a later file. SET NOT NULL after that reads no rows: accept it ` +
      "with -- allow set-not-null: <reason>.",
  );

const notValid = (kind: string, table: string, what: string): Verdict[] =>
  refuse(
    "constraint-not-valid",
    `PostgreSQL checks the ${kind} on ${what} against every row of ${table} and blocks all writes meanwhile.`,
    `Add it to ${table} with ADD CONSTRAINT ... ${kind} ... NOT VALID, which checks new rows only, and VALIDATE ` +
      "CONSTRAINT in a later file, which blocks neither reads nor writes.",
  );

const usingIndex = (kind: string, table: string, columns: string): Verdict[] =>
  refuse(
    "constraint-index",
    `${kind} on ${columns} builds its index and blocks all reads and writes of ${table} meanwhile.`,
    kind === "EXCLUDE"
      ? `Create a new table with the constraint in place of ${table}, write both, backfill ${inBatches}.`
      : `CREATE UNIQUE INDEX CONCURRENTLY on ${table} (${columns}) in a file of its own (tenants' tables: without ` +
          `CONCURRENTLY), then ALTER TABLE ${table} ADD CONSTRAINT ... ${kind} USING INDEX, with its columns NOT NULL before.`,
  );

function addConstraint(constraint: Constraint, table: string): Verdict[] {
  const { contype, conname, keys, fk_attrs: attributes, skip_validation: unchecked, indexname } = constraint;
  const columns = names(attributes ?? keys).join(", ") || (conname ?? "its columns");
  if (contype === "CONSTR_EXCLUSION") return usingIndex("EXCLUDE", table, columns);
  if (unchecked || indexname) return [];
  if (contype === "CONSTR_NOTNULL") return setNotNull(table, columns);
  if (contype === "CONSTR_CHECK") return notValid("CHECK", table, columns);
  if (contype === "CONSTR_FOREIGN") return notValid("FOREIGN KEY", table, columns);
  return usingIndex(contype === "CONSTR_PRIMARY" ? "PRIMARY KEY" : "UNIQUE", table, columns);
}

const triggers = (table: string): Verdict[] =>
  refuse(
    "trigger",
    `Enabling or disabling triggers on ${table} applies to the running program too, whose writes are then not checked.`,
    `CREATE TRIGGER on ${table} is accepted. Remove a trigger with DROP TRIGGER in a contract file.`,
  );

/** Forms that block neither reads nor writes of the table. */
const mild = new Set<string>([
  "AT_ValidateConstraint",
  "AT_SetStatistics",
  "AT_SetRelOptions",
  "AT_ResetRelOptions",
  "AT_ClusterOn",
  "AT_DropCluster",
]);
/** Forms that lock the table briefly. After DROP NOT NULL the running program reads NULL only if another program writes it. */
const brief = new Set<string>([
  "AT_DropNotNull",
  "AT_SetOptions",
  "AT_ResetOptions",
  "AT_SetStorage",
  "AT_SetCompression",
  "AT_ChangeOwner",
]);

function alter(command: AlterTableCmd, table: string, file: MigrationFile): Verdict[] {
  const { name, def } = command;
  const subtype: string = command.subtype ?? "";
  const column = quoted(name);
  switch (subtype) {
    case "AT_AddColumn":
      return addColumn(as(def, "ColumnDef") ?? {}, table);
    case "AT_AddConstraint":
      return addConstraint(as(def, "Constraint") ?? {}, table);
    case "AT_SetNotNull":
      return setNotNull(table, column);
    case "AT_AlterColumnType":
      return refuse(
        "column-type",
        `A new type for ${column} rewrites ${table} and blocks all use of it meanwhile. The running program expects the ` +
          "old type.",
        `Add a column of the new type to ${table}, write both (a trigger, or the program), backfill ${inBatches}, read ` +
          `the new one, drop ${column} in a contract file. A longer varchar(n), or text instead of varchar(n), rewrites ` +
          "nothing: accept it with -- allow column-type: <reason>.",
      );
    case "AT_ValidateConstraint":
      return file.held === undefined ? [] : underLock(`VALIDATE CONSTRAINT ${column}`, table, file.held);
    case "AT_ColumnDefault":
      return def ? [] : contract(file, "drop", `the default of ${table}.${column}`, `Let the program write ${column}`);
    case "AT_DropColumn":
      return contract(file, "drop", `${table}.${column}`, `Ship a program that neither reads nor writes ${column}`);
    case "AT_DropExpression":
      return contract(file, "drop", `the expression of ${table}.${column}`, `Let the program write ${column}`);
    case "AT_DropConstraint":
      return contract(
        file,
        "drop",
        `constraint ${column} of ${table}, for example in ON CONFLICT`,
        "To widen a CHECK or FOREIGN KEY, add its successor NOT VALID in the same ALTER TABLE. Otherwise ship a program " +
          `that does not rely on ${column}`,
      );
    case "AT_DetachPartition":
      return contract(file, "drop", `the rows of a partition of ${table}`, "Ship a program that does not need them");
    case "AT_AttachPartition": {
      const attached = as(def, "PartitionCmd")?.name;
      return isNew(attached, file) ? [] : partition(table, nameOf(attached, file));
    }
    case "AT_SetExpression":
    case "AT_SetLogged":
    case "AT_SetUnLogged":
    case "AT_SetTableSpace":
    case "AT_SetAccessMethod":
      return rewriteTable("This ALTER TABLE", table);
    case "AT_EnableRowSecurity":
    case "AT_DisableRowSecurity":
    case "AT_ForceRowSecurity":
    case "AT_NoForceRowSecurity":
      return rowSecurity(table);
    default:
      if (subtype.includes("Trig")) return triggers(table);
      return mild.has(subtype) || brief.has(subtype) ? [] : unjudged(`${subtype} on ${table}`);
  }
}

/** Whether other sessions can read and write the table while the statement runs. */
export const isMild = ({ cmds }: AlterTableStmt): boolean =>
  all(cmds, "AlterTableCmd").every(({ subtype }) => mild.has(subtype ?? ""));

/** Returns the reasons to refuse the statement. */
export function alterTable(statement: AlterTableStmt, file: MigrationFile): Verdict[] {
  const { relation, cmds } = statement;
  if (isNew(relation, file)) return [];
  // A dropped constraint with a successor in the same statement is a wider one: the running program's rows satisfy both.
  const successor = all(cmds, "Constraint").some(({ contype }) => /CHECK|FOREIGN/.test(contype ?? ""));
  const table = nameOf(relation, file);
  const held = file.held ?? (isMild(statement) ? undefined : `this ALTER TABLE keeps ${table} locked`);
  return all(cmds, "AlterTableCmd")
    .filter(({ subtype }) => !(successor && subtype === "AT_DropConstraint"))
    .flatMap((command) => alter(command, table, { ...file, held }));
}
