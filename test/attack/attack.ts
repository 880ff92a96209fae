// Defines an attack and runs it: as SQL of the login over both protocol forms, and through `ctx.db` when `ctx.db` sends
// such a statement. An attack either gets something or is refused. Any other outcome, such as a mistyped name, is a mistake
// in the attack and fails the test.
import { DatabaseError } from "pg";
import { SqlError } from "../../src/adapters/neon.ts";
import { AppError } from "../../src/core/errors.ts";
import type { Strategy } from "../../src/core/plans/plans.ts";
import { isDataStatement } from "../../src/core/sql.ts";
import type { Rows } from "../support/shard.ts";
import type { WallName } from "../support/walls.ts";
import type { WireForm } from "./line.ts";
import { marker, type Target, type Tier } from "./tiers.ts";

/** The only wall outside the database: `ctx.db` sends nothing but data statements. */
export const FILTER = "data statements only";
export type NamedWall = WallName | typeof FILTER;
/** One wall, or several walls that each stop the attack and must fall together. */
export type Fall = NamedWall | readonly NamedWall[];
/** A text instead of walls says why the attack does not apply to the tier. It is not counted there. */
export type Walls = readonly Fall[] | Readonly<Record<Strategy, readonly Fall[] | string>>;

export interface Attack {
  name: string;
  /** One message, or several messages in one transaction. */
  sql: string | ((target: Target) => string | readonly string[]);
  /** The attack succeeds without any one of them. Walls that a tier lacks are skipped there. */
  walls: Walls;
  /** Decides from the rows whether an attack without an error got something. By default: any row. */
  crossed?: (rows: Rows) => boolean;
  /** An error that reveals something by itself. */
  tell?: string;
  /** Errors that refuse it, in addition to insufficient_privilege. */
  refusals?: readonly string[];
  /** Only the simple protocol form allows it: several statements in a message, or rows from the client. */
  simpleAlone?: boolean;
  /** Runs outside a transaction, because it cannot be part of one. */
  outside?: boolean;
  /** Succeeds only once, because it removes its own target. */
  once?: boolean;
  /** Tiers where only `ctx.db` refuses the statement. */
  onlyThroughDb?: boolean;
  /** Removes the traces of a successful attack, as superuser of the attacker's database. */
  undo?: string | ((target: Target) => string);
  timeoutMs?: number;
}

export interface Family {
  name: string;
  attacks: readonly Attack[];
}

/** The attack succeeds when it ends without an error. */
export const done = (): boolean => true;

export type Form = WireForm | "db" | "db, in a transaction" | "past ctx.db" | "there, simple" | "there, extended";

const TIMEOUT_MS = 5_000;
const INSUFFICIENT_PRIVILEGE = "42501";
const SYNTAX_ERROR = "42601";
/** Errors in a separate database, where the victim's objects do not exist: no such table, schema or object. */
const ABSENT = ["42P01", "3F000", "42704"];

/** The walls of an attack in a tier, or the reason why it does not apply there. */
export function fallsOf(attack: Attack, tier: Tier): (readonly NamedWall[])[] | string {
  const named = "length" in attack.walls ? attack.walls : attack.walls[tier.name];
  if (typeof named === "string") return named;
  return named
    .map((fall) => (typeof fall === "string" ? [fall] : fall))
    .filter((fall) => fall.every((wall) => wall === FILTER || tier.walls[wall] !== undefined));
}

/** True if the fall opens the other tenant's database. */
const opensThere = (fall: readonly NamedWall[], tier: Tier): boolean =>
  fall.some((wall) => wall !== FILTER && tier.walls[wall]?.there === true);

/** All forms in which an attack runs while all walls stand. */
export function allForms(attack: Attack, tier: Tier): Form[] {
  if (attack.onlyThroughDb === true) return ["db"];
  const falls = fallsOf(attack, tier);
  const forms: Form[] = ["simple", "extended"];
  const [first = "", ...rest] = messagesOf(attack, tier.target);
  if (rest.length === 0) forms.push("db");
  if (rest.length === 0 && isDataStatement(first)) forms.push("db, in a transaction");
  const reaches = Array.isArray(falls) && falls.some((fall) => opensThere(fall, tier));
  if (reaches) forms.push("there, simple", "there, extended");
  return forms;
}

/** The forms in which an attack must succeed without these walls. One protocol form stands for both. */
export function formsWithout(attack: Attack, tier: Tier, fall: readonly NamedWall[]): Form[] {
  if (fall.includes(FILTER)) return ["past ctx.db"];
  if (opensThere(fall, tier)) return ["there, simple"];
  const [first = "", ...rest] = messagesOf(attack, tier.target);
  const isTools = rest.length === 0 && attack.outside !== true && isDataStatement(first) && attack.simpleAlone !== true;
  return isTools && attack.once !== true ? ["simple", "db"] : ["simple"];
}

function messagesOf({ sql }: Attack, target: Target): readonly string[] {
  const messages = typeof sql === "string" ? sql : sql(target);
  return typeof messages === "string" ? [messages] : messages;
}

/** Runs the attack. Returns whether it got something. No answer or error may contain a value of the victim. */
export async function crosses(attack: Attack, tier: Tier, form: Form): Promise<{ crossed: boolean; told: string }> {
  const { crossed = (rows) => rows.length > 0, tell, refusals = [], simpleAlone = false } = attack;
  try {
    const rows = await send(attack, tier, form);
    return { crossed: crossed(rows), told: JSON.stringify(rows) };
  } catch (error) {
    const state = stateOf(error);
    const told = `${String(error)} ${JSON.stringify(error)} ${JSON.stringify((error as Error).cause)}`;
    if (state === tell) return { crossed: true, told };
    const known = [INSUFFICIENT_PRIVILEGE, ...refusals, ...(tier.name === "database" ? ABSENT : [])];
    if (simpleAlone && !form.endsWith("simple")) known.push(SYNTAX_ERROR);
    if (state === undefined || !known.includes(state))
      throw new Error(`${form}: ${state} ${String(error)}`, { cause: error });
    return { crossed: false, told };
  }
}

async function send(attack: Attack, tier: Tier, form: Form): Promise<Rows> {
  const { timeoutMs = TIMEOUT_MS, outside = false } = attack;
  const messages = messagesOf(attack, tier.target);
  const [text = ""] = messages;
  if (form === "db") return tier.db({ statementTimeoutMs: timeoutMs }).query(text);
  if (form === "db, in a transaction") {
    return tier.db({ statementTimeoutMs: timeoutMs }).transaction((transaction) => transaction.query(text));
  }
  if (form === "past ctx.db") return tier.batch(text, timeoutMs);
  const line = form.startsWith("there") ? tier.there : tier.here;
  if (line === undefined) throw new Error(`the ${tier.name} tier has no other database`);
  const entrance = outside ? undefined : await tier.entrance(timeoutMs);
  return line.run({ form: form.endsWith("simple") ? "simple" : "extended", entrance, messages });
}

function stateOf(error: unknown): string | undefined {
  if (error instanceof DatabaseError) return error.code;
  if (error instanceof SqlError) return error.sqlState;
  // `ctx.db` did not send the text.
  if (error instanceof AppError && error.code === "tool_failed") return INSUFFICIENT_PRIVILEGE;
  return undefined;
}

export const holdsMarker = (told: string): boolean => told.includes(marker);
