// Decides whether a call may start, exactly: every unit of the last hour is known with its instant, there are no
// buckets to round by. A running call holds its units from the moment it is admitted, so what is decided here is
// decided with the calls in flight. Synchronous, in memory, without a clock of its own.
//
// Invariants (DESIGN.md I2): no call is admitted that takes any position of a window over its limit, and none is
// refused that would not; a failed call gives its units back; free calls never meet a limit of units.
import type { QuotaStatus } from "../core/call.ts";
import type { AdmissionLimits } from "../core/plans.ts";

export const HOUR_MS = 3_600_000;
export const MINUTE_MS = 60_000;

/**
 * Where there is no limit, nothing is refused by the log and its sums may be coarse: entries of one second share a
 * place, so that a tenant without limits needs 3,600 places for its hour whatever it calls. Rounded up to the end of
 * the second: when a limit is set later, such an entry counts up to a second too long and never too short.
 */
const COARSE_MS = 1_000;

/** When a place in flight frees is not known; most calls take far less than a second. */
const IN_FLIGHT_RETRY_MS = 1_000;

const SMALLEST_CAPACITY = 64;
const LARGEST_OFFSET_MS = 2 ** 32 - 1;
/** A window that is never empty moves its base on every 24 days, long before the offsets end. */
const REBASE_AFTER_MS = 2 ** 31;

/**
 * The units of a sliding window with the instant of each. An entry counts while `now - atMs < windowMs`.
 *
 * Sorted by time in one stretch of two typed arrays: 8 bytes an entry (instants are offsets from a base), a quarter
 * more as room to grow. Entries of one instant share a place, which is exact, because they leave together; so an entry
 * is named by its instant. Entries may come out of order (restored rows, a clock that was set back) and are put where
 * they belong. Released ones lose their units at once and their place when room is needed, so that failures fill nothing.
 */
export class WindowLog {
  readonly windowMs: number;
  #baseMs = 0;
  #offsets = new Uint32Array(SMALLEST_CAPACITY);
  #units = new Uint32Array(SMALLEST_CAPACITY);
  #head = 0;
  #tail = 0;
  #total = 0;
  /** Everything at or before this instant has left and stays away, also when the clock is set back. */
  #leftUntilMs = -Infinity;

  constructor(windowMs: number) {
    this.windowMs = windowMs;
  }

  /** Bytes of the typed arrays. */
  get byteLength(): number {
    return this.#offsets.byteLength + this.#units.byteLength;
  }

  /** Counts `units` from now on. Returns the instant that names the entry: `atMs` rounded up to a multiple of `grainMs`. */
  add(atMs: number, units: number, grainMs = 1): number {
    const entryMs = Math.ceil(atMs / grainMs) * grainMs;
    if (units === 0 || entryMs <= this.#leftUntilMs) return entryMs;
    if (this.#head === this.#tail) {
      this.#head = this.#tail = 0;
      this.#baseMs = entryMs - this.windowMs; // older ones that come later still fit
    } else if (entryMs < this.#baseMs || entryMs - this.#baseMs > REBASE_AFTER_MS) {
      this.#rebase(Math.min(entryMs, this.#baseMs + at(this.#offsets, this.#head)) - this.windowMs);
    }
    const index = this.#place(this.#offset(entryMs));
    this.#units[index] = at(this.#units, index) + units;
    this.#total += units;
    return entryMs;
  }

  /** Takes `units` of the entry named `entryMs` back. One that has left the window has nothing to give. */
  release(entryMs: number, units: number): void {
    const offset = this.#offset(entryMs);
    const index = this.#search(offset);
    if (index === this.#tail || this.#offsets[index] !== offset) return;
    const held = Math.min(units, at(this.#units, index));
    this.#units[index] = at(this.#units, index) - held;
    this.#total -= held;
  }

  /** The units inside the window that ends at `nowMs`. */
  used(nowMs: number): number {
    this.advance(nowMs);
    return this.#total;
  }

  /** Lets go of what is out of the window that ends at `nowMs`. */
  advance(nowMs: number): void {
    const leftMs = nowMs - this.windowMs;
    if (leftMs > this.#leftUntilMs) this.#leftUntilMs = leftMs;
    const left = this.#leftUntilMs - this.#baseMs;
    while (this.#head < this.#tail) {
      const units = at(this.#units, this.#head);
      // Released entries leave from the front too: the first entry always has units.
      if (units > 0 && at(this.#offsets, this.#head) > left) break;
      this.#total -= units;
      this.#head += 1;
    }
  }

  /** The earliest instant at which `needed` of the units used now have left; `undefined` when there are not so many. */
  freesAt(nowMs: number, needed: number): number | undefined {
    if (needed <= 0) return nowMs;
    this.advance(nowMs);
    let left = 0;
    for (let index = this.#head; index < this.#tail; index++) {
      left += at(this.#units, index);
      if (left >= needed) return this.#baseMs + at(this.#offsets, index) + this.windowMs;
    }
    return undefined;
  }

  #offset(entryMs: number): number {
    // Only a clock that was wrong by 49 days gets cut here.
    return Math.min(entryMs - this.#baseMs, LARGEST_OFFSET_MS);
  }

  /** The index of the entry at this offset, made if there is none. */
  #place(offset: number): number {
    let index = this.#search(offset);
    if (index < this.#tail && this.#offsets[index] === offset) return index;
    if (this.#tail === this.#offsets.length) {
      this.#repack();
      index = this.#search(offset);
    }
    if (index < this.#tail) {
      this.#offsets.copyWithin(index + 1, index, this.#tail);
      this.#units.copyWithin(index + 1, index, this.#tail);
    }
    this.#offsets[index] = offset;
    this.#units[index] = 0;
    this.#tail += 1;
    return index;
  }

  /** The first index whose offset is at least this one; nearly always the end. */
  #search(offset: number): number {
    if (this.#head === this.#tail || offset > at(this.#offsets, this.#tail - 1)) return this.#tail;
    let low = this.#head;
    let high = this.#tail - 1;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (at(this.#offsets, middle) < offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Moves the entries that have units into arrays with a quarter of room: grows, shrinks and forgets in one way. */
  #repack(): void {
    let live = 0;
    for (let index = this.#head; index < this.#tail; index++) if (at(this.#units, index) > 0) live += 1;
    const capacity = Math.max(SMALLEST_CAPACITY, Math.ceil(live * 1.25));
    // One array after the other, so that old and new stand side by side only once.
    this.#offsets = this.#packed(this.#offsets, capacity);
    this.#units = this.#packed(this.#units, capacity);
    this.#head = 0;
    this.#tail = live;
  }

  #packed(from: Uint32Array<ArrayBuffer>, capacity: number): Uint32Array<ArrayBuffer> {
    const to = new Uint32Array(capacity);
    let next = 0;
    for (let index = this.#head; index < this.#tail; index++) {
      if (at(this.#units, index) > 0) to[next++] = at(from, index);
    }
    return to;
  }

  #rebase(baseMs: number): void {
    const shift = this.#baseMs - baseMs;
    for (let index = this.#head; index < this.#tail; index++) {
      this.#offsets[index] = Math.min(at(this.#offsets, index) + shift, LARGEST_OFFSET_MS);
    }
    this.#baseMs = baseMs;
  }
}

/** An admitted call. Given back once, by `settle` or `release`; a second time does nothing. */
export interface Ticket {
  /** The instant of admission, for the call's row: the window and the month count it there. */
  readonly atMs: number;
  readonly units: number;
  /** The calendar month of admission. */
  readonly period: string;
  /** The name of its entry in the window. */
  readonly entryMs: number;
  readonly tool: string;
}

export type AdmissionCode =
  | "rate_limited"
  | "too_many_in_flight"
  | "window_exhausted"
  | "tool_exhausted"
  | "period_exhausted"
  | "cost_over_limit";

/**
 * `limit`, `used` and `cost` are calls for `rate_limited` and `too_many_in_flight`, units otherwise. At `retryAfterMs`
 * the same call is admitted if nothing else was (for calls in flight that is an estimate); `undefined`: never.
 */
export interface Refused {
  admitted: false;
  code: AdmissionCode;
  limit: number;
  used: number;
  cost: number;
  retryAfterMs: number | undefined;
}

export type Decision = { admitted: true; ticket: Ticket } | Refused;

/** What one tenant has used, and the decision whether it may use more. */
export class Admission {
  readonly #hour = new WindowLog(HOUR_MS);
  readonly #minute = new WindowLog(MINUTE_MS);
  /** The windows of the tools that have a limit of their own. */
  readonly #byTool = new Map<string, WindowLog>();
  readonly #running = new Set<Ticket>();
  #period = "";
  #periodEndsAtMs = -Infinity;
  #monthUsed = 0;
  #latestMs = -Infinity;

  /** Calls that are running, free ones included. */
  get inFlight(): number {
    return this.#running.size;
  }

  /** Bytes of the logs' typed arrays. */
  get byteLength(): number {
    let bytes = this.#hour.byteLength + this.#minute.byteLength;
    for (const window of this.#byTool.values()) bytes += window.byteLength;
    return bytes;
  }

  /**
   * Starts from what was kept: one row per charged call, in any order (those older than an hour are passed over), and
   * the units charged in the calendar month of `nowMs`. Calls that failed or were free are not known and do not count
   * against the calls per minute. To be called once, before anything else.
   */
  restore(rows: Iterable<{ atMs: number; units: number }>, monthUsed: number, nowMs: number): void {
    const now = this.#tick(nowMs);
    for (const { atMs, units } of rows) {
      if (now - atMs < HOUR_MS) this.#hour.add(atMs, units);
      if (now - atMs < MINUTE_MS) this.#minute.add(atMs, 1);
    }
    this.#monthUsed = monthUsed;
  }

  /**
   * Counts charged calls that were not decided here, whatever the limits: each in the windows if it is in them still, and
   * in the month if that is its own.
   */
  include(calls: Iterable<{ atMs: number; units: number; tool: string }>, nowMs: number): void {
    const now = this.#tick(nowMs);
    for (const { atMs, units, tool } of calls) {
      if (now - atMs < HOUR_MS) {
        this.#hour.add(atMs, units);
        this.#byTool.get(tool)?.add(atMs, units);
      }
      if (now - atMs < MINUTE_MS) this.#minute.add(atMs, 1);
      if (periodOf(atMs).period === this.#period) this.#monthUsed += units;
    }
  }

  /**
   * Must be told of a tool with a limit of its own before it decides about one: `rows` are that tool's charged calls of
   * the last hour. Holds of running calls are added. Told again, it changes nothing.
   */
  watch(tool: string, rows: () => Iterable<{ atMs: number; units: number }>, nowMs: number): void {
    if (this.#byTool.has(tool)) return;
    const now = this.#tick(nowMs);
    const window = new WindowLog(HOUR_MS);
    for (const { atMs, units } of rows()) if (now - atMs < HOUR_MS) window.add(atMs, units);
    for (const ticket of this.#running) if (ticket.tool === tool) window.add(ticket.entryMs, ticket.units);
    this.#byTool.set(tool, window);
  }

  /**
   * Admits a call of `cost` units (an integer, 0 or more) and holds them, or says what is in the way. Where several
   * limits are, it is the one that lasts longest, so that a client which waits as told is admitted.
   */
  decide(cost: number, limits: AdmissionLimits, nowMs: number, tool = ""): Decision {
    const now = this.#tick(nowMs);
    const refused = this.#longest(cost, limits, now, tool);
    if (refused !== undefined) {
      const { retryAtMs, ...facts } = refused;
      // Counted from the caller's clock, which may be behind the latest instant that was seen.
      return { admitted: false, ...facts, retryAfterMs: retryAtMs === Infinity ? undefined : retryAtMs - nowMs };
    }
    this.#minute.add(now, 1, limits.callsPerMinute === null ? COARSE_MS : 1);
    const entryMs = this.#hour.add(now, cost, limits.unitsPerHour === null ? COARSE_MS : 1);
    this.#byTool.get(tool)?.add(entryMs, cost);
    this.#monthUsed += cost;
    const ticket: Ticket = { atMs: now, units: cost, period: this.#period, entryMs, tool };
    this.#running.add(ticket);
    return { admitted: true, ticket };
  }

  /** The call succeeded: what it held is charged. */
  settle(ticket: Ticket): void {
    this.#running.delete(ticket);
  }

  /** The call failed: its units are given back. Its place among the calls of the minute is not. */
  release(ticket: Ticket): void {
    if (!this.#running.delete(ticket)) return;
    this.#hour.release(ticket.entryMs, ticket.units);
    this.#byTool.get(ticket.tool)?.release(ticket.entryMs, ticket.units);
    if (ticket.period === this.#period) this.#monthUsed -= ticket.units;
  }

  /** What a client is told. The hour's `resetSeconds` is when the first of its used units come back, 0 if none are used. */
  quota(limits: AdmissionLimits, nowMs: number): QuotaStatus {
    const now = this.#tick(nowMs);
    const used = this.#hour.used(now);
    const seconds = (atMs: number): number => Math.ceil((atMs - nowMs) / 1_000);
    return {
      hour: { limit: limits.unitsPerHour, used, resetSeconds: seconds(this.#hour.freesAt(now, 1) ?? nowMs) },
      month: { limit: limits.unitsPerMonth, used: this.#monthUsed, resetSeconds: seconds(this.#periodEndsAtMs) },
    };
  }

  /** Of the limits that are in the way, in the order of the checks, the one whose end is the latest. */
  #longest(cost: number, limits: AdmissionLimits, now: number, tool: string): Blocked | undefined {
    let longest: Blocked | undefined;
    const inTheWay = (code: AdmissionCode, limit: number, used: number, costs: number, retryAtMs: number): void => {
      if (longest === undefined || retryAtMs > longest.retryAtMs)
        longest = { code, limit, used, cost: costs, retryAtMs };
    };

    const inTheWindow = (code: AdmissionCode, limit: number, window: WindowLog): void => {
      const used = window.used(now);
      const excess = used + cost - limit;
      if (cost > limit) inTheWay("cost_over_limit", limit, used, cost, Infinity);
      else if (excess > 0) inTheWay(code, limit, used, cost, window.freesAt(now, excess) ?? Infinity);
    };

    const { callsPerMinute, callsInFlight, unitsPerHour, unitsPerMonth, unitsPerHourByTool } = limits;
    if (callsPerMinute !== null) {
      const used = this.#minute.used(now);
      const excess = used + 1 - callsPerMinute;
      if (excess > 0) inTheWay("rate_limited", callsPerMinute, used, 1, this.#minute.freesAt(now, excess) ?? Infinity);
    }
    if (this.#running.size >= callsInFlight) {
      inTheWay("too_many_in_flight", callsInFlight, this.#running.size, 1, now + IN_FLIGHT_RETRY_MS);
    }
    if (cost === 0) return longest;
    if (unitsPerHour !== null) inTheWindow("window_exhausted", unitsPerHour, this.#hour);
    const ownWindow = this.#byTool.get(tool);
    const ownLimit = unitsPerHourByTool[tool];
    if (ownWindow !== undefined && ownLimit !== undefined) inTheWindow("tool_exhausted", ownLimit, ownWindow);
    if (unitsPerMonth !== null) {
      const used = this.#monthUsed;
      if (cost > unitsPerMonth) inTheWay("cost_over_limit", unitsPerMonth, used, cost, Infinity);
      else if (used + cost > unitsPerMonth) {
        inTheWay("period_exhausted", unitsPerMonth, used, cost, this.#periodEndsAtMs);
      }
    }
    return longest;
  }

  /**
   * The instant to decide at. It never goes back: what has left the window stays away, and a clock that was set back
   * would otherwise see a window that is emptier than it was.
   */
  #tick(nowMs: number): number {
    if (nowMs > this.#latestMs) this.#latestMs = nowMs;
    if (this.#latestMs >= this.#periodEndsAtMs) {
      const { period, endsAtMs } = periodOf(this.#latestMs);
      this.#period = period;
      this.#periodEndsAtMs = endsAtMs;
      this.#monthUsed = 0;
    }
    // Also where nothing is limited and so nobody asks: what has left must not pile up.
    this.#hour.advance(this.#latestMs);
    this.#minute.advance(this.#latestMs);
    for (const window of this.#byTool.values()) window.advance(this.#latestMs);
    return this.#latestMs;
  }
}

type Blocked = Omit<Refused, "admitted" | "retryAfterMs"> & { retryAtMs: number };

/** The calendar month (UTC) of an instant as `YYYY-MM`, and the instant at which the next one begins. */
export function periodOf(atMs: number): { period: string; endsAtMs: number } {
  const date = new Date(atMs);
  return {
    period: date.toISOString().slice(0, 7),
    endsAtMs: Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + 1),
  };
}

/** Typed arrays have a number at every index below their length; the compiler cannot know. */
function at(array: Uint32Array, index: number): number {
  return array[index] ?? 0;
}
