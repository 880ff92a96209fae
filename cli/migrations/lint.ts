// Refuses a migration that would lock out or break the program which runs while it is applied, and names the safe way.
// The files are applied in one transaction each, to hundreds of schemas, under a program that knows only the files
// before (expand, backfill, contract). This is the text's side: statements and lines from PostgreSQL's own parser, the
// comments that accept a rule, the bodies of DO blocks, what a transaction forbids; the rules about tables are in
// lint-rules.ts. It cannot see what a called or replaced function does, how large a table is, and whether the
// running program keeps a new constraint.
import { hasSqlDetails, loadModule, parsePlPgSQLSync, parseSync, scanSync } from "libpg-query";
import type { Node, RawStmt } from "libpg-query";
import { isolatedBy, judgeAppTable } from "./lint-app.ts";
import { isConcurrent, judgeTables, rememberLock, rememberMade } from "./lint-rules.ts";
import { all, as, known, type MigrationFile, names, quoted, refuse, type Tables, type Verdict } from "./lint-tree.ts";

export interface Finding {
  /** What `-- allow <rule>: <reason>`, directly above the statement, would accept. */
  rule: string;
  /** Counted from 1. */
  line: number;
  /** Its first 80 characters, white space folded. */
  statement: string;
  reason: string;
  safeWay: string;
}

export interface Migration {
  /** The file's name: `0007_orders.sql`. */
  name: string;
  text: string;
  /** Whose tables the directory is about. */
  tables: Tables;
  /** Whether the file belongs to the app: it must isolate each table that it makes. */
  isApp?: boolean;
  /** Tables of earlier files that no database has applied yet (`tablesMadeBy`): as new as this file's own. */
  tablesMadeBefore?: Iterable<string>;
}

/** Everything that is to be refused, in the order of the text; none if the file may be applied. */
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
        const unknown = node !== outer.node && sql.includes("…") ? ' ("…" is what only the run will know.)' : "";
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

/** Whether the file is one statement with CONCURRENTLY, to be applied as it is. Rejects what is not SQL. */
export async function runsOutsideTransaction(text: string): Promise<boolean> {
  await loadModule();
  const [first, ...more] = parse(text);
  return first?.stmt !== undefined && more.length === 0 && isConcurrent(first.stmt);
}

/** The tables that a file certainly makes, for the `tablesMadeBefore` of the files after it. */
export async function tablesMadeBy({ text, tables }: Pick<Migration, "text" | "tables">): Promise<string[]> {
  await loadModule();
  const file: MigrationFile = { tables, notContract: undefined, made: new Set(), held: undefined };
  for (const { stmt } of parse(text)) if (stmt) rememberMade(stmt, file);
  return [...file.made].flatMap((key) => (key.startsWith("relation ") ? [key.slice("relation ".length)] : []));
}

/** For a terminal: each with its place, why, and what to do instead. */
export function describeFindings(file: string, findings: readonly Finding[]): string {
  return findings
    .map(({ rule, line, statement, reason, safeWay }) =>
      [`${file}:${line}  ${rule}`, `  ${statement}`, `  Why:      ${reason}`, `  Instead:  ${safeWay}`].join("\n"),
    )
    .join("\n\n");
}

const shorten = (sql: string): string => Array.from(sql.replace(/\s+/g, " ").trim()).slice(0, 80).join("");

/** The parser takes an empty text for a mistake, where PostgreSQL does not. */
const parse = (text: string): RawStmt[] => (text === "" ? [] : (parseSync(text).stmts ?? []));

interface Statement {
  node: Node;
  line: number;
  sql: string;
}

/** Rules accepted by the comment lines right above, with the reason that each gives, which may be missing. */
type Allowed = ReadonlyMap<string, string>;

/** The statements with their lines; or what is wrong when it is not SQL. The parser counts in bytes of UTF-8. */
function read(text: string): { statements: (Statement & { allowed: Allowed })[]; header: string } | Finding {
  const bytes = Buffer.from(text);
  const lineAt = (offset: number): number => bytes.subarray(0, offset).filter((byte) => byte === 0x0a).length + 1;
  const nul = bytes.indexOf(0);
  if (nul >= 0) return { ...notSql("it holds a NUL byte, behind which nothing would be seen"), line: lineAt(nul) };

  let parsed: RawStmt[];
  try {
    parsed = parse(text);
  } catch (error) {
    if (!hasSqlDetails(error)) throw error;
    // Unlike all other positions this one counts characters.
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
    ? "Leave psql's backslash commands out: the file is sent to the server as it is."
    : "Correct it: the server would refuse the whole file.";
  return { rule: "syntax", line: 1, statement: "", reason: `This is not SQL: ${message}.`, safeWay };
}

/** Why a file may not take anything away; undefined when its name and its first comment say why it may. */
function notContract(name: string, header: string): string | undefined {
  if (!name.endsWith("_contract.sql")) return "Only a file named ..._contract.sql takes things away.";
  const earlier = Array.from(header.matchAll(/\b(\d{4})_\w+/g), ([, number = ""]) => number);
  if (earlier.some((number) => number < name.slice(0, 4))) return undefined;
  return "The comment at the head of this contract file names no earlier migration since which nothing uses it.";
}

type Unfolded = Statement & { verdict?: Verdict[] };

/** The statement, and those that run inside of it when it is a DO block: what they are, or why that cannot be known. */
function unfold(outer: Statement): Unfolded[] {
  const options = all(as(outer.node, "DoStmt")?.args, "DefElem");
  if (options.length === 0) return [outer];
  const language = options.find(({ defname }) => defname === "language")?.arg;
  if (language !== undefined && as(language, "String")?.sval !== "plpgsql")
    return [{ ...outer, verdict: dynamic("a DO block in another language than plpgsql") }];
  try {
    // The block's lines are counted from its opening quote, which need not stand in the statement's first line.
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

/** All statements in a tree of plpgsql, at any depth: `line` is the block's first, which counts its own from 1. */
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

/** What EXECUTE runs, with "…" for every name that only the run will know. */
function executes({ PLpgSQL_expr: { query } }: PlExpression, line: number): Unfolded[] {
  try {
    const [value] = as(parse(`SELECT ${query}`)[0]?.stmt, "SelectStmt")?.targetList ?? [];
    return sqlAt(render(as(value, "ResTarget")?.val), line);
  } catch (error) {
    if (!hasSqlDetails(error)) throw error;
    return [{ node: { DoStmt: {} }, line, sql: `EXECUTE ${query}`, verdict: dynamic("what this EXECUTE runs") }];
  }
}

/** The string that an expression makes, as far as its text tells. */
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
    `Nobody can tell from the text ${what}.`,
    "Write the statement out, or build it by format() from one literal with %I and %L for the names and values alone.",
  );

const newValue = (value = ""): Verdict[] =>
  refuse(
    "enum-value",
    `'${value}' was added to its type in this file, and PostgreSQL lets nobody use a new value before the commit.`,
    `Use '${value}' in a later file.`,
  );

const lasting = (what: string, safeWay: string): Verdict[] =>
  refuse("session-state", `${what} outlives the file, on a connection that goes on to other schemas.`, safeWay);

/** A setting, however it is made; `value` is missing where it is put back to its default. */
function setting(name: string, value: Node | undefined, ends: boolean): Verdict[] {
  const { sval, ival } = as(value, "A_Const") ?? {};
  if (
    name === "lock_timeout" &&
    (value === undefined || Number.parseFloat(sval?.sval ?? String(ival?.ival ?? 0)) === 0)
  )
    return refuse(
      "lock-timeout",
      "Without lock_timeout a statement waits for its lock for ever, and everybody who comes later waits behind it.",
      "Leave lock_timeout as it is, which bounds the wait; or SET LOCAL it to some seconds.",
    );
  if (name === "session_replication_role")
    return refuse("trigger", "This switches triggers and foreign keys off.", "Write rows that keep the rules.");
  if (name === "") return lasting("RESET ALL", "Leave RESET out: nothing of the connection is the file's.");
  return ends
    ? []
    : lasting(
        `The setting ${name}`,
        name === "search_path"
          ? "Qualify names that mean another schema."
          : `SET LOCAL ${name} ends with the transaction.`,
      );
}

const outside = /^(AlterSystem|Createdb|Dropdb|CreateTableSpace|DropTableSpace)Stmt$/;

/** What a file must not do because one transaction applies it, over a connection that applies others afterwards. */
function judgeTransaction(statement: Node, { tables }: MigrationFile, alone: boolean): Verdict[] {
  const [kind = ""] = Object.keys(statement);
  if (kind === "TransactionStmt")
    return refuse(
      "transaction-control",
      "The file is applied in a transaction of its own, as a whole or not at all: this would end it, or nest in it.",
      "Leave it out. What has to be committed before the rest belongs into a file of its own.",
    );
  if (outside.test(kind) || as(statement, "VacuumStmt")?.is_vacuumcmd)
    return refuse(
      "outside-transaction",
      "PostgreSQL refuses this inside a transaction, and a file is applied in one.",
      "Leave it to the operator, or to autovacuum: it is no part of a schema.",
    );
  if (isConcurrent(statement) && (tables === "tenant" || !alone))
    return refuse(
      "concurrently",
      "CONCURRENTLY cannot run inside a transaction, and only a file that is this one statement is applied without.",
      tables === "tenant"
        ? "Leave CONCURRENTLY out: one tenant's table is small, and lock_timeout bounds the wait for it."
        : "Move it into a file of its own. On a table that this file makes, leave CONCURRENTLY out.",
    );
  const index = as(statement, "IndexStmt");
  if (index?.concurrent && (index.if_not_exists || index.idxname === undefined))
    return refuse(
      "concurrently",
      "A failed attempt leaves an invalid index, which IF NOT EXISTS takes for the real one and nobody finds unnamed.",
      "Name the index and leave IF NOT EXISTS out: the next attempt fails until the invalid one is dropped.",
    );
  if (["DiscardStmt", "PrepareStmt", "ListenStmt"].includes(kind))
    return lasting(kind.replace("Stmt", "").toUpperCase(), "Leave it out: the next file finds the connection so.");
  const temporary = as(statement, "CreateStmt");
  const onCommit = temporary?.oncommit ?? as(statement, "CreateTableAsStmt")?.into?.onCommit;
  const made = temporary?.relation ?? as(statement, "CreateTableAsStmt")?.into?.rel;
  if (made?.relpersistence === "t" && onCommit !== "ONCOMMIT_DROP")
    return lasting(`The temporary table ${quoted(made.relname)}`, "CREATE TEMPORARY TABLE ... ON COMMIT DROP.");
  // A tenant's files may share one transaction, for which the path to its schema was set.
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
