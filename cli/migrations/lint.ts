// Refuses a migration that would lock out or break the running program, and names the safe way (expand, backfill,
// contract). Each file runs in one transaction, on hundreds of schemas, while the program knows only the earlier files.
// This file reads the text: statements and lines from PostgreSQL's own parser, the comments that accept a rule, the bodies
// of DO blocks, and what a transaction forbids. The rules about tables are in lint-rules.ts. The linter does not know what
// a called or replaced function does, how large a table is, or whether the running program keeps a new constraint.
import { hasSqlDetails, loadModule, parsePlPgSQLSync, parseSync, scanSync } from "libpg-query";
import type { Node, RawStmt } from "libpg-query";
import { isolatedBy, judgeAppTable } from "./lint-app.ts";
import { isConcurrent, judgeTables, rememberLock, rememberMade } from "./lint-rules.ts";
import { all, as, known, type MigrationFile, names, quoted, refuse, type Tables, type Verdict } from "./lint-tree.ts";

export interface Finding {
  /** The name for `-- allow <rule>: <reason>` directly above the statement, which accepts the finding. */
  rule: string;
  /** The first line is 1. */
  line: number;
  /** The first 80 characters of the statement, with its white space folded. */
  statement: string;
  reason: string;
  safeWay: string;
}

export interface Migration {
  /** The file's name: `0007_orders.sql`. */
  name: string;
  text: string;
  /** The kind of database that the file changes. */
  tables: Tables;
  /** Whether the file belongs to the app. Such a file must isolate each table that it creates. */
  isApp?: boolean;
  /** Tables of earlier files that no database has applied yet (`tablesMadeBy`). They count as new, as the file's own do. */
  tablesMadeBefore?: Iterable<string>;
}

/** Returns every finding, in the order of the text. A file without findings can be applied. */
export async function lintMigration({
  name,
  text,
  tables,
  tablesMadeBefore = [],
  isApp = false,
}: Migration): Promise<Finding[]> {
  await loadModule();
  const parsed = read(text);
  if ("safeWay" in parsed) return [parsed];

  const { statements, header } = parsed;
  const made = new Set(Array.from(tablesMadeBefore, (table) => `relation ${table}`));
  const file: MigrationFile = { tables, notContract: notContract(name, header), made, held: undefined };
  const newValues = new Set<string>();
  const isolated = isolatedBy(statements.map(({ node }) => node));
  const findings: Finding[] = [];
  for (const { allowed, ...outer } of statements) {
    for (const { node, line, sql, verdict } of unfold(outer)) {
      const verdicts = verdict ?? [
        ...judgeTables(node, file),
        ...(isApp ? judgeAppTable(node, isolated) : []),
        ...judgeTransaction(node, file, statements.length === 1 && node === outer.node),
        ...all(node, "A_Const").flatMap(({ sval }) =>
          sval && newValues.has(sval.sval ?? "") ? newValue(sval.sval) : [],
        ),
      ];
      for (const { rule, reason, safeWay } of verdicts) {
        const why = allowed.get(rule);
        if (why) continue;
        const missing = why === undefined ? "" : " (The -- allow above it gives no reason.)";
        const unknown =
          node !== outer.node && sql.includes("…") ? ' ("…" is a part that is known only at run time.)' : "";
        findings.push({ rule, line, statement: shorten(sql), reason: reason + unknown + missing, safeWay });
      }
      rememberLock(node, file, line);
      const added = as(node, "AlterEnumStmt");
      const typeIsNew = made.has(`type ${known(names(added?.typeName), file)}`);
      if (added?.newVal !== undefined && !typeIsNew) newValues.add(added.newVal);
    }
    rememberMade(outer.node, file);
  }
  return findings;
}

/** Whether the file is one statement with CONCURRENTLY, which runs outside of a transaction. Throws when it is not SQL. */
export async function runsOutsideTransaction(text: string): Promise<boolean> {
  await loadModule();
  const [first, ...more] = parse(text);
  return first?.stmt !== undefined && more.length === 0 && isConcurrent(first.stmt);
}

/** The tables that a file creates in any case, for the `tablesMadeBefore` of the next files. */
export async function tablesMadeBy({ text, tables }: Pick<Migration, "text" | "tables">): Promise<string[]> {
  await loadModule();
  const file: MigrationFile = { tables, notContract: undefined, made: new Set(), held: undefined };
  for (const { stmt } of parse(text)) if (stmt) rememberMade(stmt, file);
  return [...file.made].flatMap((key) => (key.startsWith("relation ") ? [key.slice("relation ".length)] : []));
}

/** The findings as text for a terminal: each with its line, the reason, and the safe way. */
export function describeFindings(file: string, findings: readonly Finding[]): string {
  return findings
    .map(({ rule, line, statement, reason, safeWay }) =>
      [`${file}:${line}  ${rule}`, `  ${statement}`, `  Why:      ${reason}`, `  Instead:  ${safeWay}`].join("\n"),
    )
    .join("\n\n");
}

const shorten = (sql: string): string => Array.from(sql.replace(/\s+/g, " ").trim()).slice(0, 80).join("");

/** The parser rejects an empty text, and PostgreSQL accepts it. */
const parse = (text: string): RawStmt[] => (text === "" ? [] : (parseSync(text).stmts ?? []));

interface Statement {
  node: Node;
  line: number;
  sql: string;
}

/** The rules that the comment lines directly above accept, each with its reason. A missing reason is an empty string. */
type Allowed = ReadonlyMap<string, string>;

/** Returns the statements with their lines, or a finding when the text is not SQL. The parser counts bytes of UTF-8. */
function read(text: string): { statements: (Statement & { allowed: Allowed })[]; header: string } | Finding {
  const bytes = Buffer.from(text);
  const lineAt = (offset: number): number => bytes.subarray(0, offset).filter((byte) => byte === 0x0a).length + 1;
  const nul = bytes.indexOf(0);
  if (nul >= 0) return { ...notSql("it contains a NUL byte, and the parser stops there"), line: lineAt(nul) };

  let parsed: RawStmt[];
  try {
    parsed = parse(text);
  } catch (error) {
    if (!hasSqlDetails(error)) throw error;
    // This position counts characters. All others count bytes.
    const before = Array.from(text).slice(0, error.sqlDetails?.cursorPosition);
    const line = before.filter((character) => character === "\n").length + 1;
    return { ...notSql(error.message), line, statement: shorten(text.split("\n")[line - 1] ?? "") };
  }

  const tokens = text === "" ? [] : scanSync(text).tokens;
  const isComment = ({ tokenName }: { tokenName: string }): boolean => tokenName.endsWith("COMMENT");
  const opensLine = (offset: number): boolean => {
    const before = bytes.subarray(0, offset).toString();
    return before.slice(before.lastIndexOf("\n") + 1).trim() === "";
  };
  const statements = parsed.flatMap(({ stmt, stmt_location: from = 0, stmt_len: length }) => {
    const first = tokens.findIndex((token) => token.start >= from && !isComment(token));
    const start = tokens[first]?.start ?? from;
    const allowed = new Map<string, string>();
    let [above, line] = [first - 1, lineAt(start)];
    for (; opensLine(start); above--, line--) {
      const comment = tokens[above];
      if (comment?.tokenName !== "SQL_COMMENT" || !opensLine(comment.start) || lineAt(comment.start) !== line - 1)
        break;
      const [, rule, reason = ""] = /^--\s*allow\s+([\w-]+)\s*:?\s*(.*)/i.exec(comment.text) ?? [];
      if (rule !== undefined) allowed.set(rule, reason.trim());
    }
    const sql = bytes.subarray(start, length === undefined ? undefined : from + length).toString();
    return stmt === undefined ? [] : [{ node: stmt, line: lineAt(start), sql, allowed }];
  });
  const body = tokens.findIndex((token) => !isComment(token));
  const header = tokens.slice(0, body < 0 ? undefined : body);
  return { statements, header: header.map((comment) => comment.text).join("\n") };
}

function notSql(message: string): Finding {
  const psql = message.includes('"\\"');
  const safeWay = psql
    ? "Remove psql's backslash commands: Tollgate sends the file to the server unchanged."
    : "Correct the statement: the server would refuse the whole file.";
  return { rule: "syntax", line: 1, statement: "", reason: `This is not SQL: ${message}.`, safeWay };
}

/** Why a file must not remove anything. Undefined for a contract file whose first comment names an earlier migration. */
function notContract(name: string, header: string): string | undefined {
  if (!name.endsWith("_contract.sql")) return "Only a file named ..._contract.sql may remove something.";
  const earlier = Array.from(header.matchAll(/\b(\d{4})_\w+/g), ([, number = ""]) => number);
  if (earlier.some((number) => number < name.slice(0, 4))) return undefined;
  return "The header comment of this contract file does not name the earlier migration that ended its use.";
}

type Unfolded = Statement & { verdict?: Verdict[] };

/**
 * Returns the statement and, for a DO block, the statements inside it. A verdict says why an inner statement cannot be
 * known.
 */
function unfold(outer: Statement): Unfolded[] {
  const options = all(as(outer.node, "DoStmt")?.args, "DefElem");
  if (options.length === 0) return [outer];
  const language = options.find(({ defname }) => defname === "language")?.arg;
  if (language !== undefined && as(language, "String")?.sval !== "plpgsql")
    return [{ ...outer, verdict: dynamic("a DO block in another language than plpgsql") }];
  try {
    // The parser counts the block's lines from its opening quote, which can be below the statement's first line.
    const code = as(options.find(({ defname }) => defname === "as")?.arg, "String")?.sval ?? "";
    const opens = outer.sql.slice(0, Math.max(0, outer.sql.indexOf(code))).split("\n").length - 1;
    return [outer, ...inBlock(parsePlPgSQLSync(outer.sql), outer.line + opens)];
  } catch (error) {
    return [{ ...outer, verdict: [notSql(error instanceof Error ? error.message : String(error))] }];
  }
}

interface PlExpression {
  PLpgSQL_expr: { query: string; parseMode: number };
}

/** All statements in a tree of plpgsql, at any depth. `line` is the block's first line in the file. */
function inBlock(tree: unknown, line: number, at = 1): Unfolded[] {
  if (typeof tree !== "object" || tree === null) return [];
  return Object.entries(tree).flatMap(([kind, body]: [string, Record<string, unknown> | null]): Unfolded[] => {
    const here = typeof body?.["lineno"] === "number" ? body["lineno"] : at;
    if (/^PLpgSQL_stmt_(commit|rollback)$/.test(kind)) return sqlAt(kind.replace(/.*_/, ""), line + here - 1);
    if (kind === "PLpgSQL_expr" && body?.["parseMode"] === 0) return sqlAt(String(body["query"]), line + here - 1);
    const expression = kind.startsWith("PLpgSQL_stmt_dyn") ? body?.["query"] : body?.["dynquery"];
    const executed = expression === undefined ? [] : executes(expression as PlExpression, line + here - 1);
    return [...executed, ...inBlock(body, line, here)];
  });
}

const sqlAt = (sql: string, line: number): Unfolded[] =>
  parse(sql).flatMap(({ stmt }) => (stmt === undefined ? [] : unfold({ node: stmt, line, sql })));

/** The statements that an EXECUTE runs, with "…" for each name that is known only at run time. */
function executes({ PLpgSQL_expr: { query } }: PlExpression, line: number): Unfolded[] {
  try {
    const [value] = as(parse(`SELECT ${query}`)[0]?.stmt, "SelectStmt")?.targetList ?? [];
    return sqlAt(render(as(value, "ResTarget")?.val), line);
  } catch (error) {
    if (!hasSqlDetails(error)) throw error;
    return [{ node: { DoStmt: {} }, line, sql: `EXECUTE ${query}`, verdict: dynamic("the statement of this EXECUTE") }];
  }
}

/** The string that an expression evaluates to, with "…" for each part that is known only at run time. */
function render(value: Node | undefined): string {
  const constant = as(value, "A_Const")?.sval?.sval;
  if (constant !== undefined) return constant;
  const { name, lexpr, rexpr } = as(value, "A_Expr") ?? {};
  if (names(name).join("") === '"||"') return render(lexpr) + render(rexpr);
  const { funcname, args: [template, ...args] = [] } = as(value, "FuncCall") ?? {};
  const call = names(funcname).at(-1);
  if (call === "quote_literal" || call === "quote_nullable") return "'…'";
  if (call !== "format") return '"…"';
  let next = 0;
  return render(template).replace(/%(?:(\d+)\$)?-?\d*([%IsL])/g, (_, position: string | undefined, type: string) => {
    if (type === "%") return "%";
    next = position === undefined ? next + 1 : Number(position);
    const argument = args[next - 1];
    const given = as(argument, "A_Const")?.sval?.sval;
    if (type === "L") return `'${given?.replaceAll("'", "''") ?? "…"}'`;
    return type === "I" && given !== undefined ? quoted(given) : render(argument);
  });
}

const dynamic = (what: string): Verdict[] =>
  refuse(
    "dynamic-sql",
    `The linter cannot read ${what} from the text.`,
    "Write the statement as plain SQL, or build it with format() from one literal, with %I for names and %L for values.",
  );

const newValue = (value = ""): Verdict[] =>
  refuse(
    "enum-value",
    `This file adds '${value}' to its type, and PostgreSQL refuses to use a new value before the commit.`,
    `Use '${value}' in a later file.`,
  );

const lasting = (what: string, safeWay: string): Verdict[] =>
  refuse("session-state", `${what} stays on the connection, which then migrates other schemas.`, safeWay);

/** Judges a change of a setting. `value` is undefined when the setting returns to its default. */
function setting(name: string, value: Node | undefined, ends: boolean): Verdict[] {
  const { sval, ival } = as(value, "A_Const") ?? {};
  if (
    name === "lock_timeout" &&
    (value === undefined || Number.parseFloat(sval?.sval ?? String(ival?.ival ?? 0)) === 0)
  )
    return refuse(
      "lock-timeout",
      "Without lock_timeout a statement waits for its lock without a limit, and all later statements queue behind it.",
      "Leave lock_timeout as it is, which limits the wait. Or SET LOCAL it to a few seconds.",
    );
  if (name === "session_replication_role")
    return refuse("trigger", "This disables triggers and foreign keys.", "Write rows that satisfy them.");
  if (name === "") return lasting("RESET ALL", "Remove RESET: the connection's settings do not belong to the file.");
  return ends
    ? []
    : lasting(
        `The setting ${name}`,
        name === "search_path"
          ? "Remove it, and qualify the names of objects in other schemas."
          : `SET LOCAL ${name} ends with the transaction.`,
      );
}

const outside = /^(AlterSystem|Createdb|Dropdb|CreateTableSpace|DropTableSpace)Stmt$/;

/** Judges what a file must not do because it runs in one transaction, on a connection that migrates other schemas later. */
function judgeTransaction(statement: Node, { tables }: MigrationFile, alone: boolean): Verdict[] {
  const [kind = ""] = Object.keys(statement);
  if (kind === "TransactionStmt")
    return refuse(
      "transaction-control",
      "Tollgate applies the file in one transaction, as a whole or not at all. This would end or nest that transaction.",
      "Remove it. Put statements that must commit first into a file of their own.",
    );
  if (outside.test(kind) || as(statement, "VacuumStmt")?.is_vacuumcmd)
    return refuse(
      "outside-transaction",
      "PostgreSQL refuses this inside a transaction, and Tollgate applies a file in one.",
      "Remove it. The operator or autovacuum does this; it does not belong to a schema.",
    );
  if (isConcurrent(statement) && (tables === "tenant" || !alone))
    return refuse(
      "concurrently",
      "CONCURRENTLY cannot run inside a transaction. Only a file with this one statement runs outside of one.",
      tables === "tenant"
        ? "Remove CONCURRENTLY: one tenant's table is small, and lock_timeout limits the wait for it."
        : "Move it into a file of its own. On a table that this file creates, remove CONCURRENTLY.",
    );
  const index = as(statement, "IndexStmt");
  if (index?.concurrent && (index.if_not_exists || index.idxname === undefined))
    return refuse(
      "concurrently",
      "A failed attempt leaves an invalid index. IF NOT EXISTS would keep it, and without a name it cannot be found.",
      "Name the index and remove IF NOT EXISTS: the next attempt then drops the invalid index first.",
    );
  if (["DiscardStmt", "PrepareStmt", "ListenStmt"].includes(kind))
    return lasting(kind.replace("Stmt", "").toUpperCase(), "Remove it: the next file would run with its effect.");
  const temporary = as(statement, "CreateStmt");
  const onCommit = temporary?.oncommit ?? as(statement, "CreateTableAsStmt")?.into?.onCommit;
  const made = temporary?.relation ?? as(statement, "CreateTableAsStmt")?.into?.rel;
  if (made?.relpersistence === "t" && onCommit !== "ONCOMMIT_DROP")
    return lasting(`The temporary table ${quoted(made.relname)}`, "CREATE TEMPORARY TABLE ... ON COMMIT DROP.");
  // A tenant's files can share one transaction, whose search_path is the tenant's schema.
  const ends = (name: string, isLocal?: boolean): boolean =>
    isLocal === true && !(tables === "tenant" && name === "search_path");
  const set = as(statement, "VariableSetStmt");
  if (set?.name === "TRANSACTION" || kind === "CreateFunctionStmt") return [];
  if (set) return setting(set.name ?? "", set.args?.[0], ends(set.name ?? "", set.is_local));
  return all(statement, "FuncCall").flatMap(({ funcname, args = [] }) => {
    const call = names(funcname).at(-1) ?? "";
    if (/^pg_(try_)?advisory_lock/.test(call)) return lasting(`${call}()`, "Take pg_advisory_xact_lock() instead.");
    if (call !== "set_config") return [];
    const name = as(args[0], "A_Const")?.sval?.sval ?? "…";
    return setting(name, args[1], ends(name, as(args[2], "A_Const")?.boolval?.boolval));
  });
}
