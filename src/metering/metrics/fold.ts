// A fold: figures of a tenant's calls by hour, tool, caller and outcome. An object adds each call to a fold in memory, and sends
// the fold on once a minute, so that no call costs a row. Pure. Invariants: a fold has a bounded size with any calls,
// and the sums of its cells are the sums of its calls.
import * as z from "zod";
import { type CallEnd, type Caller, type FinishedCall, callEnds } from "../../core/call.ts";
import { TenantId } from "../../core/tenant/tenant.ts";
import { storable } from "../../core/text/text.ts";
import { HOUR_MS } from "../../core/time.ts";

/**
 * Upper bounds of the histogram's buckets, in milliseconds; one more bucket has no bound. They never change: sums of rows
 * with other bounds would mean nothing. Most calls take 5 to 50 ms, and no tool runs for longer than half a minute.
 */
export const LATENCY_BOUNDS_MS = [2, 5, 10, 20, 50, 75, 100, 150, 200, 300, 500, 1_000, 2_000, 5_000, 10_000, 30_000];
export const BUCKETS = LATENCY_BOUNDS_MS.length + 1;

const count = z.int().nonnegative();
export const Cell = z.object({
  /** The start of the hour (UTC) in which the calls were admitted, as the ledger has it. */
  hourMs: z.int().positive(),
  tool: z.string().min(1).max(64),
  /** As `callerName` writes it. */
  caller: z.string().min(1).max(90),
  outcome: z.enum(callEnds),
  /** The error code; empty where there is none. */
  code: z.string().max(64),
  calls: count,
  units: count,
  /** Milliseconds of the calls whose tool ran. `latency` has their number by bucket. */
  ms: count,
  dbMs: count,
  latency: z.array(count).length(BUCKETS),
});
export type Cell = z.infer<typeof Cell>;

/** Cells from which on a fold tells callers, tools and hours apart no longer. A minute of most tenants has fewer than ten. */
const DEGREES = { callers: 200, tools: 220, hours: 240 };
/** Beyond `DEGREES.hours` there is one more cell for each outcome. */
export const MAX_CELLS = DEGREES.hours + callEnds.length;
/** Stands for callers or tools that are not told apart. Neither a tool nor a caller can have this name. */
export const OTHER = "~other";
/** Stands for the caller of a fallback call: the ledger does not know it. */
export const FALLBACK_CALLER = "~fallback";

/** Longest subject of a provider in a caller's name. Providers use UUIDs and numbers. */
const MAX_SUBJECT = 80;

/** The caller of a call by kind and id: `key:ID`, `member:ID`, or `user:SUBJECT` for a person who is no member. */
export function callerName(caller: Caller): string {
  switch (caller.kind) {
    case "key":
      return `key:${caller.keyId}`;
    case "grant":
    case "member":
      return `member:${caller.memberId}`;
    case "user":
      return `user:${storable(caller.subject, MAX_SUBJECT)}`;
    case "canary":
      return "canary";
    default:
      return caller satisfies never;
  }
}

/** What a fold counts of a call. */
export interface CountedCall extends Pick<FinishedCall, "tool" | "atMs" | "units" | "end"> {
  caller: string;
  code: string;
  ms: number;
  dbMs: number;
  /** Whether `ms` counts in the histogram: a refusal is no work. */
  isTimed: boolean;
}

export function countedCall({ tool, atMs, units, end, code, caller, ms, parts, ran }: FinishedCall): CountedCall {
  const dbMs = parts.sqlMs;
  return { ...{ tool, atMs, units, end, ms, dbMs }, caller: callerName(caller), code: code ?? "", isTimed: ran };
}

export class Fold {
  readonly #cells = new Map<string, Cell>();

  constructor(cells: readonly Cell[] = []) {
    for (const cell of cells) this.#cells.set(keyOf(cell), cell);
  }

  get size(): number {
    return this.#cells.size;
  }

  /** Whether it no longer tells callers apart. */
  get isFull(): boolean {
    return this.#cells.size >= DEGREES.callers;
  }

  /** The cells as they are now. */
  cells(): Cell[] {
    return Array.from(this.#cells.values(), (cell) => ({ ...cell, latency: [...cell.latency] }));
  }

  /** Adds a call, or several like it. */
  add({ tool, caller, end, code, atMs, units, ms, dbMs, isTimed }: CountedCall, times = 1): void {
    const cell = this.#cellOf({ hourMs: atMs - (atMs % HOUR_MS), tool, caller, outcome: end, code });
    cell.calls += times;
    cell.units += units;
    cell.dbMs += dbMs;
    if (!isTimed) return;
    cell.ms += ms;
    const bucket = bucketOf(ms);
    cell.latency[bucket] = (cell.latency[bucket] ?? 0) + 1;
  }

  #cellOf(name: CellName): Cell {
    const known = this.#cells.get(keyOf(name));
    if (known !== undefined) return known;
    const broader = this.#broader(name);
    const key = keyOf(broader);
    const found = this.#cells.get(key);
    if (found !== undefined) return found;
    const cell = { ...broader, calls: 0, units: 0, ms: 0, dbMs: 0, latency: Array.from({ length: BUCKETS }, () => 0) };
    this.#cells.set(key, cell);
    return cell;
  }

  /** The cell's name without what a fold of this size no longer tells apart. */
  #broader(name: CellName): CellName {
    const { size } = this.#cells;
    if (size < DEGREES.callers) return name;
    if (size < DEGREES.tools) return { ...name, caller: OTHER };
    if (size < DEGREES.hours) return { ...name, caller: OTHER, tool: OTHER };
    const [first] = this.#cells.values();
    return { ...name, caller: OTHER, tool: OTHER, code: "", hourMs: first?.hourMs ?? name.hourMs };
  }
}

type CellName = Pick<Cell, "hourMs" | "tool" | "caller" | "outcome" | "code">;

function keyOf({ hourMs, tool, caller, outcome, code }: CellName): string {
  return `${hourMs} ${tool} ${outcome} ${code} ${caller}`;
}

function bucketOf(ms: number): number {
  const index = LATENCY_BOUNDS_MS.findIndex((bound) => ms <= bound);
  return index === -1 ? BUCKETS - 1 : index;
}

/**
 * The latency below which `share` of the calls are, in milliseconds, or `null` without calls. Exact to the bucket; within it
 * the calls count as evenly spread. Beyond the last bound it is that bound.
 */
export function percentile(latency: readonly number[], share: number): number | null {
  const total = latency.reduce((sum, each) => sum + each, 0);
  if (total === 0) return null;
  let left = share * total;
  for (const [index, calls] of latency.entries()) {
    const upper = LATENCY_BOUNDS_MS[index];
    if (upper === undefined) break;
    const lower = LATENCY_BOUNDS_MS[index - 1] ?? 0;
    if (calls > 0 && left <= calls) return Math.round((lower + ((upper - lower) * left) / calls) * 10) / 10;
    left -= calls;
  }
  return LATENCY_BOUNDS_MS.at(-1) ?? null;
}

/** Folds that an object has frozen and that the control tables may lack. */
export const FROZEN_AT_MOST = 2;

/**
 * The queue message that carries folds to the control tables. The numbers of folds grow within an epoch. A message has
 * every fold up to its last one that is not acknowledged, so the highest number that arrived says which ones did.
 */
export const MetricsMessage = z.object({
  kind: z.literal("metrics"),
  tenantId: TenantId,
  epoch: z.string().min(1).max(64),
  folds: z
    .array(z.object({ n: z.int().positive(), cells: z.array(Cell).min(1).max(MAX_CELLS) }))
    .min(1)
    .max(FROZEN_AT_MOST),
});
export type MetricsMessage = z.infer<typeof MetricsMessage>;

/** Whether the body of a queue message is a metrics message, well-formed or not. */
export function isMetrics(body: unknown): boolean {
  return typeof body === "object" && body !== null && "kind" in body && body.kind === "metrics";
}

/** One of the tenant's last calls, as its object remembers it. */
export const RecentCall = z.object({
  id: z.string(),
  atMs: z.number(),
  tool: z.string(),
  caller: z.string(),
  outcome: z.enum(callEnds),
  code: z.string().nullable(),
  units: z.number(),
  ms: z.number(),
  dbMs: z.number(),
});
export type RecentCall = z.infer<typeof RecentCall>;

export function recentCall({ callId: id, atMs, tool, caller, end, code, units, ms, parts }: FinishedCall): RecentCall {
  const outcome: CallEnd = end;
  return { id, atMs, tool, caller: callerName(caller), outcome, code: code ?? null, units, ms, dbMs: parts.sqlMs };
}
