// ALTER TABLE, the statement with the most ways to lock or break. What each form locks, scans and rewrites was measured
// on PostgreSQL 18 (pg_locks, messages at DEBUG1). A lock that is held for a moment is accepted: whoever applies the
// files sets lock_timeout, which bounds the wait for it. A form that no rule knows is refused.
import type { AlterTableCmd, AlterTableStmt, ColumnDef, Constraint, Node } from "libpg-query";
import { all, as, contract, inBatches, isNew, nameOf, names, partition, quoted, refuse } from "./lint-tree.ts";
import { rewriteTable, rowSecurity, underLock, unjudged } from "./lint-tree.ts";
import type { MigrationFile, Verdict } from "./lint-tree.ts";

/** Functions that give all rows of a statement one value, so that a column with such a default needs no rewrite. */
const steady = new Set(
  (
    "now transaction_timestamp statement_timestamp timezone date_trunc date_part extract make_date make_interval " +
    "make_timestamptz to_timestamp current_setting current_database lower upper concat format repeat md5 sha256 " +
    "encode decode convert_to length jsonb_build_object jsonb_build_array json_build_object json_build_array to_jsonb to_json"
  ).split(" "),
);

/** A default that is missing and DEFAULT NULL are the same. */
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
      `Adding ${what} computes a value for every row: ${table} is rewritten while nobody can read or write it.`,
      `Add ${name} as a plain column without a default, ALTER COLUMN ${name} SET DEFAULT (or a trigger, or a VIRTUAL ` +
        `column) for new rows in the same file, and backfill the old rows of ${table} ${inBatches}.`,
    );

  const found: Verdict[][] = [];
  if (generated === "s") found.push(rewrite(`the stored generated column ${name}`));
  if (/^(small|big)?serial[248]?$/.test(type) || find("CONSTR_IDENTITY")) {
    found.push(rewrite(`the numbered column ${name}`));
  }
  if (call) found.push(rewrite(`${name}, whose default calls ${call}(), volatile or not known not to be,`));
  if (generated === "v" && notNull) found.push(setNotNull(table, name));
  else if (found.length === 0 && (notNull ?? primary) && isNull(value)) {
    found.push(
      refuse(
        "add-column-not-null",
        `${name} is NOT NULL without a default: this fails when ${table} has rows, and so does every later INSERT of the ` +
          `program that runs now, which does not know ${name}.`,
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

/** A constraint's name for advice to give. */
const named = (column: string): string => quoted(`${column.replaceAll('"', "")}_given`);

const setNotNull = (table: string, column: string): Verdict[] =>
  refuse(
    "set-not-null",
    `NOT NULL on ${column} reads every row of ${table} while nobody else can read or write it.`,
    `ALTER TABLE ${table} ADD CONSTRAINT ${named(column)} NOT NULL ${column} NOT VALID (before PostgreSQL 18: CHECK ` +
      `(${column} IS NOT NULL) NOT VALID) and VALIDATE in a later file. SET NOT NULL after that reads nothing: it may ` +
      "say so by -- allow set-not-null: <reason>.",
  );

const notValid = (kind: string, table: string, what: string): Verdict[] =>
  refuse(
    "constraint-not-valid",
    `The ${kind} on ${what} is checked against every row of ${table} while nobody can write to it.`,
    `Add it to ${table} by ADD CONSTRAINT ... ${kind} ... NOT VALID, which holds for new rows at once, and VALIDATE ` +
      "CONSTRAINT in a later file, which lets reads and writes go on.",
  );

const usingIndex = (kind: string, table: string, columns: string): Verdict[] =>
  refuse(
    "constraint-index",
    `${kind} on ${columns} builds its index while nobody can read or write ${table}.`,
    kind === "EXCLUDE"
      ? `There is no online way to ${table}: make a new table with the constraint, write both, backfill ${inBatches}.`
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
    `Switching triggers on or off on ${table} does it for the running program, too, whose writes then go unchecked.`,
    `CREATE TRIGGER on ${table} is accepted; end one by DROP TRIGGER in a contract file.`,
  );

/** These leave reads and writes of the table alone. */
const mild = new Set<string>([
  "AT_ValidateConstraint",
  "AT_SetStatistics",
  "AT_SetRelOptions",
  "AT_ResetRelOptions",
  "AT_ClusterOn",
  "AT_DropCluster",
]);
/** These lock it for a moment. After DROP NOT NULL a program meets NULL only when another one writes it. */
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
        `Another type for ${column} rewrites ${table} while nobody can use it, and the running program expects the old one.`,
        `Add a column of the new type to ${table}, write both (a trigger, or the program), backfill ${inBatches}, read ` +
          `the new one, drop ${column} in a contract file. From varchar(n) to a longer one or to text nothing is ` +
          "rewritten: say so by -- allow column-type: <reason>.",
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
        `constraint ${column} of ${table}, for ON CONFLICT say`,
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

/** Whether other sessions read and write the table on while this runs. */
export const isMild = ({ cmds }: AlterTableStmt): boolean =>
  all(cmds, "AlterTableCmd").every(({ subtype }) => mild.has(subtype ?? ""));

/** What there is against it. */
export function alterTable(statement: AlterTableStmt, file: MigrationFile): Verdict[] {
  const { relation, cmds } = statement;
  if (isNew(relation, file)) return [];
  // With a successor in the same statement a rule is widened: the rows of the running program obey both.
  const successor = all(cmds, "Constraint").some(({ contype }) => /CHECK|FOREIGN/.test(contype ?? ""));
  const table = nameOf(relation, file);
  const held = file.held ?? (isMild(statement) ? undefined : `this ALTER TABLE keeps ${table} locked`);
  return all(cmds, "AlterTableCmd")
    .filter(({ subtype }) => !(successor && subtype === "AT_DropConstraint"))
    .flatMap((command) => alter(command, table, { ...file, held }));
}
