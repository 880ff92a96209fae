// Rules for the tables of the app's migrations. The same file creates a table in shared databases and in tenants' own
// schemas. So each table needs, in that file: `tenant_id text NOT NULL`, keys that start with it, and
// `SELECT tollgate.isolate('table')`.
import type { ColumnDef, Constraint, Node } from "libpg-query";
import { all, as, names, refuse, type Verdict } from "./lint-tree.ts";

const TENANT = "tenant_id";
const keyTypes = new Set(["CONSTR_PRIMARY", "CONSTR_UNIQUE", "CONSTR_FOREIGN", "CONSTR_EXCLUSION"]);

/** The tables that a file isolates, without their schema. */
export function isolatedBy(statements: readonly Node[]): Set<string> {
  const calls = statements.flatMap((node) => all(node, "FuncCall"));
  return new Set(
    calls.flatMap(({ funcname, args = [] }) => {
      if (names(funcname).join(".") !== "tollgate.isolate") return [];
      const table = all(args, "A_Const")[0]?.sval?.sval ?? "";
      return [table.split(".").at(-1)?.replaceAll('"', "") ?? ""];
    }),
  );
}

/** Returns the reasons to refuse a table or an index of the app's file. */
export function judgeAppTable(node: Node, isolated: ReadonlySet<string>): Verdict[] {
  const created = as(node, "CreateStmt");
  const queried = as(node, "CreateTableAsStmt")?.into?.rel;
  const relation = created?.relation ?? queried;
  if (relation !== undefined && relation.relpersistence !== "t") {
    const table = relation.relname ?? "";
    return [
      ...(isolated.has(table) ? [] : notIsolated(table)),
      ...(created === undefined ? [] : judgeColumns(table, created.tableElts ?? [])),
    ];
  }
  const index = as(node, "IndexStmt");
  if (index?.unique !== true) return [];
  const first = as(index.indexParams?.[0], "IndexElem")?.name;
  return first === TENANT ? [] : otherKey(index.relation?.relname ?? "", index.idxname ?? "a unique index");
}

function judgeColumns(table: string, elements: readonly Node[]): Verdict[] {
  const columns = elements.flatMap((element) => as(element, "ColumnDef") ?? []);
  const constraints = elements.flatMap((element) => as(element, "Constraint") ?? []);
  const tenant = columns.find(({ colname }) => colname === TENANT);
  const isText = tenant !== undefined && names(tenant.typeName?.names).at(-1) === "text";
  const hasTenant =
    isText &&
    (constraintsOf(tenant).some(({ contype }) => contype === "CONSTR_NOTNULL" || contype === "CONSTR_PRIMARY") ||
      constraints.some(({ contype, keys }) => contype === "CONSTR_PRIMARY" && names(keys).includes(TENANT)));
  const keys = [
    ...columns.flatMap((column) =>
      constraintsOf(column).map((constraint) => ({ constraint, first: column.colname ?? "" })),
    ),
    ...constraints.map((constraint) => ({ constraint, first: firstColumn(constraint) })),
  ].filter(({ constraint }) => keyTypes.has(constraint.contype ?? ""));
  const hasPrimary = keys.some(({ constraint }) => constraint.contype === "CONSTR_PRIMARY");
  return [
    ...(hasTenant ? [] : noTenant(table)),
    ...(hasPrimary ? [] : noPrimaryKey(table)),
    ...keys.flatMap(({ constraint, first }) =>
      first === TENANT ? [] : otherKey(table, constraint.conname ?? `a key that starts with ${first}`),
    ),
  ];
}

const constraintsOf = ({ constraints = [] }: ColumnDef): Constraint[] =>
  constraints.flatMap((constraint) => as(constraint, "Constraint") ?? []);

function firstColumn({ contype, keys, fk_attrs: foreign, exclusions }: Constraint): string {
  if (contype !== "CONSTR_EXCLUSION") return names(contype === "CONSTR_FOREIGN" ? foreign : keys)[0] ?? "";
  return all(exclusions?.[0], "IndexElem")[0]?.name ?? "";
}

const notIsolated = (table: string): Verdict[] =>
  refuse(
    "isolate",
    `The table ${table} is not isolated: no tenant can use it, and no rule separates tenants' rows.`,
    `Add SELECT tollgate.isolate('${table}'); below the table, in the same file.`,
  );

const noTenant = (table: string): Verdict[] =>
  refuse(
    "tenant-column",
    `The table ${table} has no column for the tenant of a row.`,
    `Give ${table} the column tenant_id text NOT NULL.`,
  );

const noPrimaryKey = (table: string): Verdict[] =>
  refuse(
    "tenant-key",
    `The table ${table} has no primary key, so its changes cannot be logged.`,
    `Give ${table} a primary key that starts with tenant_id: PRIMARY KEY (tenant_id, id).`,
  );

const otherKey = (table: string, key: string): Verdict[] =>
  refuse(
    "tenant-key",
    `The table ${table} has ${key}, which does not start with tenant_id: a violated key would reveal another tenant's row.`,
    `Put tenant_id first in every primary, unique and foreign key of ${table}: PRIMARY KEY (tenant_id, id).`,
  );
