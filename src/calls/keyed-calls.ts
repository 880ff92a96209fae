// Calls with an idempotency key of the client's. A client that lost an answer sends the call again with the same key, and gets
// the first call's answer. The tenant's object keeps what became of each key for `KEY_LIFE_MS`.
//
// Invariants: a key is charged once; a key never answers for another tool or other arguments; a tool that must not run twice
// has a durable row before it starts, so that its key never starts it again. The id of a keyed call follows from tenant, key,
// tool, arguments and day, so that the ledger takes it once from either path. A call that was charged on the day before keeps
// that charge's id. No call runs without its object so near to midnight that the other attempt's charge may not be known yet.
import * as z from "zod";
import type { CallOutcome, Idempotency } from "../core/call.ts";
import { utf8Bytes } from "../core/text/document-path.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import { DAY_MS, MINUTE_MS } from "../core/time.ts";
import type { ChargedCall } from "../core/usage.ts";
import { SentBlock } from "../tools/content.ts";

/** Where a client sends its key. MCP reserves only prefixes with `modelcontextprotocol` or `mcp` as their second label. */
export const IDEMPOTENCY_META_KEY = "tollgate/idempotencyKey";
/** A UUID has 36 characters; this leaves room for ids with a prefix. */
export const MAX_KEY_LENGTH = 255;

/** A client retries within minutes. A day also covers a job that is run again by hand. */
export const KEY_LIFE_MS = DAY_MS;
/** About 200 bytes each. */
const MAX_KEYS = 100_000;
/** Larger answers are not kept; most are a few KiB. */
const MAX_ANSWER_BYTES = 32_768;
/** With the above at most 32 MiB of an object's storage. */
const MAX_ANSWERS = 1_000;
/** Rows that one insert prunes. It adds one, so the table shrinks. */
const PRUNED_AT_ONCE = 20;
/**
 * A charge is known to the ledger and to the tenant's object within this time, usually within seconds. Longer than a client's
 * automatic retries.
 */
export const CHARGE_KNOWN_MS = 10 * MINUTE_MS;
/** A call is charged within this time after it was sent: a lost attempt, a second one, and the time of the tool in each. */
export const CHARGED_WITHIN_MS = MINUTE_MS;

/** The id of a keyed call, and its key as the object keeps it. `args` match the tool's schema. */
export async function keyedCall(
  tenantId: TenantId,
  { key, tool, args, nowMs }: { key: string; tool: string; args: Readonly<Record<string, unknown>>; nowMs: number },
): Promise<{ callId: string; idempotency: Idempotency }> {
  const fingerprint = await digest([tool, sorted(args)]);
  const keyHash = await digest([tenantId, key]);
  const idOf = async (day: number): Promise<string> => {
    const own = await digest([keyHash, fingerprint, day]);
    const time = day.toString(16).padStart(12, "0");
    // A UUID of version 8 (RFC 9562), which starts with the day as the id of any other call starts with its time.
    return `${time.slice(0, 8)}-${time.slice(8)}-8${own.slice(0, 3)}-a${own.slice(3, 6)}-${own.slice(6, 18)}`;
  };
  const day = startOfDay(nowMs);
  const [callId, earlierId] = await Promise.all([idOf(day), idOf(day - DAY_MS)]);
  return { callId, idempotency: { key: keyHash, fingerprint, atMs: nowMs, earlierId } };
}

/**
 * The charge that a keyed call already has, or `undefined`. `charges` have the call's id or its `earlierId`. An older
 * charge is of an earlier use of the key.
 */
export function chargedAs(charges: readonly ChargedCall[], nowMs: number): ChargedCall | undefined {
  return charges.find(({ atMs }) => nowMs - atMs < KEY_LIFE_MS);
}

/**
 * Whether a keyed call that was sent at `sentAtMs` may run at `nowMs` without its object. Every attempt that is too near to
 * know this one's charge, or to be known, must have the same id: no midnight (UTC) lies between them.
 */
export function mayRunWithoutObject(sentAtMs: number, nowMs: number): boolean {
  return startOfDay(sentAtMs - CHARGED_WITHIN_MS - CHARGE_KNOWN_MS) === startOfDay(nowMs + CHARGE_KNOWN_MS);
}

function startOfDay(atMs: number): number {
  return atMs - (atMs % DAY_MS);
}

/** What a success returned. */
const Answer = z.object({
  content: z.array(SentBlock),
  data: z.record(z.string(), z.unknown()).optional(),
  isError: z.boolean(),
});
export type Answer = z.infer<typeof Answer>;

/** What became of a key's first call. */
export type Earlier =
  | { state: "none" }
  /** The key belongs to a call of another tool or with other arguments. */
  | { state: "other" }
  /** The object keeps as many keys as it may. */
  | { state: "full" }
  | { state: "running"; outcome: Promise<CallOutcome> }
  /** It started, and it is not known whether it took effect. */
  | { state: "unknown"; callId: string }
  /** `answer` is `undefined` when it was too large to keep, or when newer ones took its place. */
  | { state: "done"; callId: string; units: number; answer: Answer | undefined };

interface Row extends Record<string, SqlStorageValue> {
  n: number;
  fingerprint: string;
  call_id: string;
  at_ms: number;
  /** `null`: it started, and its end is not known. */
  units: number | null;
  answer: string | null;
}

/** One call and its key. Every method is synchronous, so its writes commit with the caller's other writes. */
export interface KeyedCall {
  find(nowMs: number): Earlier;
  /** The call starts. `once`: its tool must not run twice, so the start is stored. Returns the function that ends it. */
  begin(call: { callId: string; nowMs: number; once: boolean }): (outcome: CallOutcome | undefined) => void;
  /** The call succeeded. Use it in the turn of the charge, so that both are stored or neither. */
  keep(success: { callId: string; nowMs: number; units: number; answer: Answer }): void;
  /** The call failed without an effect: its key may start it again. */
  drop(): void;
}

/** The keys of one tenant's object. */
export class KeyedCalls {
  readonly #sql: SqlStorage;
  /** Calls that run at the moment, by key. */
  readonly #running = new Map<string, { fingerprint: string; outcome: Promise<CallOutcome> }>();
  #isOpen = false;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
  }

  of(idempotency: Idempotency): KeyedCall {
    return {
      find: (nowMs) => this.#find(idempotency, nowMs),
      begin: (call) => this.#begin(idempotency, call),
      keep: ({ answer: { content, data, isError }, ...call }) => {
        const answer = JSON.stringify({ content, data, isError } satisfies Answer);
        this.#store(idempotency, { ...call, answer: utf8Bytes(answer) > MAX_ANSWER_BYTES ? null : answer });
      },
      drop: () => {
        this.#open();
        this.#sql.exec(`DELETE FROM keyed_calls WHERE key = ?`, idempotency.key);
      },
    };
  }

  #find({ key, fingerprint }: Idempotency, nowMs: number): Earlier {
    const running = this.#running.get(key);
    if (running !== undefined) {
      return running.fingerprint === fingerprint ? { state: "running", outcome: running.outcome } : { state: "other" };
    }
    this.#open();
    const [row] = this.#sql.exec<Row>(`SELECT * FROM keyed_calls WHERE key = ?`, key).toArray();
    if (row === undefined || nowMs - row.at_ms >= KEY_LIFE_MS) return { state: this.#isFull(nowMs) ? "full" : "none" };
    if (row.fingerprint !== fingerprint) return { state: "other" };
    const { call_id: callId, units, answer } = row;
    if (units === null) return { state: "unknown", callId };
    return { state: "done", callId, units, answer: answer === null ? undefined : Answer.parse(JSON.parse(answer)) };
  }

  #begin(
    idempotency: Idempotency,
    { callId, nowMs, once }: Parameters<KeyedCall["begin"]>[0],
  ): ReturnType<KeyedCall["begin"]> {
    const { promise, resolve, reject } = Promise.withResolvers<CallOutcome>();
    promise.catch(() => undefined); // there may be no second caller
    this.#running.set(idempotency.key, { fingerprint: idempotency.fingerprint, outcome: promise });
    if (once) this.#store(idempotency, { callId, nowMs, units: null, answer: null });
    return (outcome) => {
      this.#running.delete(idempotency.key);
      if (outcome === undefined) reject(new Error("the first call with this key ended without an outcome"));
      else resolve(outcome);
    };
  }

  #store(
    { key, fingerprint }: Idempotency,
    { callId, nowMs, units, answer }: { callId: string; nowMs: number; units: number | null; answer: string | null },
  ): void {
    this.#open();
    const [{ n } = { n: 0 }] = this.#sql
      .exec<{ n: number }>(
        `INSERT OR REPLACE INTO keyed_calls (key, fingerprint, call_id, at_ms, units, answer) VALUES (?, ?, ?, ?, ?, ?) RETURNING n`,
        ...[key, fingerprint, callId, nowMs, units, answer],
      )
      .toArray();
    if (answer !== null) this.#sql.exec(`UPDATE keyed_calls SET answer = NULL WHERE n = ?`, n - MAX_ANSWERS);
    this.#prune(nowMs);
  }

  /** Rows are in order of time, so the oldest come first. */
  #prune(nowMs: number): void {
    this.#sql.exec(
      `DELETE FROM keyed_calls WHERE at_ms <= ?1 AND n IN (SELECT n FROM keyed_calls ORDER BY n LIMIT ?2)`,
      nowMs - KEY_LIFE_MS,
      PRUNED_AT_ONCE,
    );
  }

  #isFull(nowMs: number): boolean {
    const bounds = `SELECT coalesce(max(n) - min(n) + 1, 0) AS kept FROM keyed_calls`;
    if (this.#sql.exec<{ kept: number }>(bounds).one().kept < MAX_KEYS) return false;
    this.#prune(nowMs);
    return this.#sql.exec<{ kept: number }>(bounds).one().kept >= MAX_KEYS;
  }

  #open(): void {
    if (this.#isOpen) return;
    this.#sql.exec(
      `CREATE TABLE IF NOT EXISTS keyed_calls (n INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, fingerprint TEXT NOT NULL,
         call_id TEXT NOT NULL, at_ms INTEGER NOT NULL, units INTEGER, answer TEXT)`,
    );
    this.#isOpen = true;
  }
}

async function digest(value: unknown): Promise<string> {
  const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(JSON.stringify(value)));
  return Array.from(new Uint8Array(hash), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The same value with the members of its objects in one order: clients do not promise any. */
function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, member]) => [name, sorted(member)]),
  );
}
