// What an attack is, and how one is carried out: by hand-written SQL of the login over both wire forms, and through
// `ctx.db` when it is a statement that `ctx.db` sends. It may end in two ways: it got something, or it was refused. Anything
// else (a mistyped name, a statement that means nothing) is a mistake in the attack and an error.
import { DatabaseError } from "pg";
import { SqlError } from "../../src/adapters/neon.ts";
import { AppError } from "../../src/core/errors.ts";
import type { Strategy } from "../../src/core/plans.ts";
import { isDataStatement } from "../../src/core/sql.ts";
import type { Rows } from "../support/shard.ts";
import type { WallName } from "../support/walls.ts";
import type { WireForm } from "./line.ts";
import { marker, type Target, type Tier } from "./tiers.ts";

/** The one wall that is not in the database: `ctx.db` sends no other statements. */
export const FILTER = "a tool's data statements alone";
export type NamedWall = WallName | typeof FILTER;
/** One wall whose fall is enough, or several that must fall together because each of them is. */
export type Fall = NamedWall | readonly NamedWall[];
/** A text in place of the walls says why the attack makes no sense in that tier; it is not counted there. */
export type Walls = readonly Fall[] | Readonly<Record<Strategy, readonly Fall[] | string>>;

export interface Attack {
  name: string;
  /** One message, or several that are sent one after the other in one transaction. */
  sql: string | ((target: Target) => string | readonly string[]);
  /** Without any one of them it succeeds. Those that a tier does not have are skipped there. */
  walls: Walls;
  /** What shows that it got something, when it came back without an error. By default: any row. */
  crossed?: (rows: Rows) => boolean;
  /** An error that itself shows it. */
  tell?: string;
  /** What refuses it besides insufficient_privilege. */
  refusals?: readonly string[];
  /** Only the simple form knows it: several statements in a message, and rows that the client sends. */
  simpleAlone?: boolean;
  /** On a bare connection, because it cannot be part of a transaction. */
  outside?: boolean;
  /** It succeeds once: what it is about is gone then. */
  once?: boolean;
  /** Where the login's own hands are free and only `ctx.db` refuses. */
  onlyThroughDb?: boolean;
  /** Takes away what it leaves behind where it succeeds. As the superuser of the attacker's database. */
  undo?: string | ((target: Target) => string);
  timeoutMs?: number;
}

export interface Family {
  name: string;
  attacks: readonly Attack[];
}

/** It came back without an error, and that is what it wanted. */
export const done = (): boolean => true;

export type Form = WireForm | "db" | "db, in a transaction" | "past ctx.db" | "there, simple" | "there, extended";

const TIMEOUT_MS = 5_000;
const INSUFFICIENT_PRIVILEGE = "42501";
const SYNTAX_ERROR = "42601";
/** In a database of its own, what is not there cannot be named: no such table, schema, object. */
const ABSENT = ["42P01", "3F000", "42704"];

/** The falls of an attack that a tier has walls for, or why it is not for this tier. */
export function fallsOf(attack: Attack, tier: Tier): (readonly NamedWall[])[] | string {
  const named = "length" in attack.walls ? attack.walls : attack.walls[tier.name];
  if (typeof named === "string") return named;
  return named
    .map((fall) => (typeof fall === "string" ? [fall] : fall))
    .filter((fall) => fall.every((wall) => wall === FILTER || tier.walls[wall] !== undefined));
}

/** Whether the fall opens the other tenant's database. */
const opensThere = (fall: readonly NamedWall[], tier: Tier): boolean =>
  fall.some((wall) => wall !== FILTER && tier.walls[wall]?.there === true);

/** Every form that an attack is tried in while all walls stand. */
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

/** The forms in which it must succeed without these walls. What holds for one wire form then does for the other. */
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

/** Whether the attack gets something, with the walls as they are. Nothing it is told may hold a value of the victim's. */
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
  // The text was not sent at all.
  if (error instanceof AppError && error.code === "tool_failed") return INSUFFICIENT_PRIVILEGE;
  return undefined;
}

export const holdsMarker = (told: string): boolean => told.includes(marker);
