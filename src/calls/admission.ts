// Decides whether a call may start: requests a minute, calls in flight, units of the sliding hour, units of the calendar month,
// units of the month of one API key, and units that the spend cap pays for. Synchronous, in memory, without a clock of its own.
// A running call holds its units from its admission on.
//
// Invariants: no admitted call exceeds a limit at any position of a window, and no call that would fit is refused;
// a failed call gives its units back; a free call never meets a limit of units.
import type { QuotaStatus } from "../core/call.ts";
import { type SpendWindow, type Spender, spendStatus, spendWindow } from "../core/plans/money.ts";
import type { AdmissionLimits } from "../core/plans/plans.ts";
import { HOUR_MS, MINUTE_MS } from "../core/time.ts";
import { SlidingWindow } from "./sliding-window.ts";

/**
 * Grain of a window without a limit. Entries of one second share a place, so that a tenant without limits needs at most
 * 3,600 places for its hour. Instants are rounded up: if a limit is set later, such an entry counts up to a second too
 * long and never too short.
 */
const COARSE_MS = 1_000;

/** An estimate of when a call in flight ends. Most calls take far less than a second. */
const IN_FLIGHT_RETRY_MS = 1_000;

/** An admitted call. `settle` or `release` ends it; a second end does nothing. */
export interface Ticket {
  /** The instant of admission. The call's row carries it: the window and the month count the call there. */
  readonly atMs: number;
  /** What the call costs at most. */
  readonly units: number;
  /** The calendar month of admission. */
  readonly period: string;
  /** The name of its entry in the window. */
  readonly entryMs: number;
  readonly tool: string;
  /** The line of API keys whose units of the month it counts in. */
  readonly line: string | undefined;
}

/** An API key as admission knows it. Keys of one line count together. `unitsPerMonth: null`: counted without a limit. */
export interface KeyBudget {
  lineId: string;
  unitsPerMonth: number | null;
}

export type AdmissionCode =
  | "rate_limited"
  | "too_many_in_flight"
  | "window_exhausted"
  | "tool_exhausted"
  | "period_exhausted"
  | "key_budget_exhausted"
  | "spend_cap_reached"
  | "cost_over_limit";

/** The limit that refused: what it counts, and over which time. */
export type Measure = "minute" | "in_flight" | "hour" | "tool_hour" | "month" | "key_month" | "spend";

/**
 * `limit`, `used` and `cost` are requests for `rate_limited`, calls for `too_many_in_flight`, units otherwise. After `retryAfterMs`
 * the same call is admitted if no other was admitted meanwhile; for calls in flight it is an estimate. `undefined`: never.
 */
export interface Refused {
  admitted: false;
  code: AdmissionCode;
  measure: Measure;
  limit: number;
  used: number;
  cost: number;
  retryAfterMs: number | undefined;
}

export type Decision = { admitted: true; ticket: Ticket } | Refused;

/** One tenant's usage, and the decision whether it may use more. */
export class Admission {
  readonly #hour = new SlidingWindow(HOUR_MS);
  readonly #minute = new SlidingWindow(MINUTE_MS);
  /** Hour windows of the tools that have a limit of their own. */
  readonly #byTool = new Map<string, SlidingWindow>();
  readonly #running = new Set<Ticket>();
  #period = "";
  #periodEndsAtMs = -Infinity;
  #monthUsed = 0;
  /** Units of the month by line of API keys. */
  #monthByLine = new Map<string, number>();
  /** Units of the billing period from `startMs` on. */
  #spend = { startMs: Infinity, used: 0 };
  #latestMs = -Infinity;

  /** Running calls, free ones included. */
  get inFlight(): number {
    return this.#running.size;
  }

  /** Bytes of the windows' typed arrays. */
  get byteLength(): number {
    let bytes = this.#hour.byteLength + this.#minute.byteLength;
    for (const window of this.#byTool.values()) bytes += window.byteLength;
    return bytes;
  }

  /**
   * Starts from stored charges: one row per charged call, in any order (rows older than an hour are skipped), and the
   * units charged in the calendar month of `nowMs`, in all and by line of API keys. Failed and free calls have no row, so they
   * do not count against the calls per minute. Call it once, before anything else.
   */
  restore(
    rows: Iterable<{ atMs: number; units: number }>,
    monthUsed: number,
    nowMs: number,
    byLine: Iterable<{ lineId: string; units: number }> = [],
  ): void {
    const now = this.#tick(nowMs);
    for (const { atMs, units } of rows) {
      if (now - atMs < HOUR_MS) this.#hour.add(atMs, units);
      if (now - atMs < MINUTE_MS) this.#minute.add(atMs, 1);
    }
    this.#monthUsed = monthUsed;
    this.#monthByLine = new Map(Array.from(byLine, ({ lineId, units }) => [lineId, units]));
  }

  /**
   * Counts fallback calls, without a check of the limits. Each counts in the windows that still cover
   * its instant, and in the month if it was admitted in the current one.
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
      if (atMs >= this.#spend.startMs) this.#spend.used += units;
    }
  }

  /**
   * The billing period of a metered plan at this instant, whose units count from now on; `undefined` for any other plan. Needed before
   * each decision about the spend cap. `usedSince`: units of charged calls from the period's start on.
   */
  spendOf(
    spender: Spender,
    nowMs: number,
    usedSince: (startMs: number, nowMs: number) => number,
  ): SpendWindow | undefined {
    // The instant of the decision, which is later when an earlier one saw a later clock.
    const now = this.#tick(nowMs);
    const window = spendWindow(spender, now);
    if (window !== undefined) this.watchSpend(window.startMs, () => usedSince(window.startMs, now));
    return window;
  }

  /**
   * Counts the units of a billing period. `used`: the units of charged calls from `startMs` on; running calls are added. Repeating
   * it for the same start changes nothing.
   */
  watchSpend(startMs: number, used: () => number): void {
    if (this.#spend.startMs === startMs) return;
    let units = used();
    for (const { atMs, units: running } of this.#running) if (atMs >= startMs) units += running;
    this.#spend = { startMs, used: units };
  }

  /** Units of the watched billing period, running calls included. */
  get spendUsed(): number {
    return this.#spend.used;
  }

  /** Running calls that cost units. */
  get held(): readonly { atMs: number; units: number }[] {
    return [...this.#running].filter(({ units }) => units > 0);
  }

  /**
   * Starts the window of a tool with a limit of its own; needed before the first decision about that tool. `rows` are the
   * tool's charged calls of the last hour; its running calls are added. Repeating it changes nothing.
   */
  watch(tool: string, rows: () => Iterable<{ atMs: number; units: number }>, nowMs: number): void {
    if (this.#byTool.has(tool)) return;
    const now = this.#tick(nowMs);
    const window = new SlidingWindow(HOUR_MS);
    for (const { atMs, units } of rows()) if (now - atMs < HOUR_MS) window.add(atMs, units);
    for (const ticket of this.#running) if (ticket.tool === tool) window.add(ticket.entryMs, ticket.units);
    this.#byTool.set(tool, window);
  }

  /**
   * Admits a call that costs `cost` units at most (an integer, 0 or more) and holds them, or refuses it. When several limits refuse the
   * call, the longest refusal is the answer, so that a client which waits for it is admitted. `key`: the caller's API key.
   * `spend`: what `spendOf` returned.
   */
  decide(
    cost: number,
    limits: AdmissionLimits,
    nowMs: number,
    tool = "",
    { key, spend }: { key?: KeyBudget | undefined; spend?: SpendWindow | undefined } = {},
  ): Decision {
    const now = this.#tick(nowMs);
    const refused = this.#refusal(cost, limits, now, { tool, key, spend });
    if (refused !== undefined) {
      const { retryAtMs, ...facts } = refused;
      // Counted from the caller's clock, which may be behind the latest instant seen here.
      return { admitted: false, ...facts, retryAfterMs: retryAtMs === Infinity ? undefined : retryAtMs - nowMs };
    }
    this.#minute.add(now, 1, limits.callsPerMinute === null ? COARSE_MS : 1);
    const entryMs = this.#hour.add(now, cost, limits.unitsPerHour === null ? COARSE_MS : 1);
    this.#byTool.get(tool)?.add(entryMs, cost);
    this.#monthUsed += cost;
    if (now >= this.#spend.startMs) this.#spend.used += cost;
    this.#addToLine(key?.lineId, cost);
    const ticket: Ticket = { atMs: now, units: cost, period: this.#period, entryMs, tool, line: key?.lineId };
    this.#running.add(ticket);
    return { admitted: true, ticket };
  }

  /** Counts a message that is no call among the requests of the minute, or refuses it. */
  request(limits: AdmissionLimits, nowMs: number): Refused | undefined {
    const now = this.#tick(nowMs);
    const refused = this.#minuteRefusal(limits, now);
    if (refused !== undefined) {
      const { retryAtMs, ...facts } = refused;
      return { admitted: false, ...facts, retryAfterMs: retryAtMs - nowMs };
    }
    this.#minute.add(now, 1, limits.callsPerMinute === null ? COARSE_MS : 1);
    return undefined;
  }

  /** The call succeeded: the units that it costs, at most the ticket's, stay used. The rest is free again. */
  settle(ticket: Ticket, units: number = ticket.units): void {
    if (this.#running.delete(ticket)) this.#free(ticket, ticket.units - units);
  }

  /** The call failed: its units are free again. It still counts among the calls of the minute. */
  release(ticket: Ticket): void {
    if (this.#running.delete(ticket)) this.#free(ticket, ticket.units);
  }

  #free({ atMs, entryMs, tool, period, line }: Ticket, units: number): void {
    if (units === 0) return;
    this.#hour.release(entryMs, units);
    this.#byTool.get(tool)?.release(entryMs, units);
    if (atMs >= this.#spend.startMs) this.#spend.used -= units;
    if (period !== this.#period) return;
    this.#monthUsed -= units;
    this.#addToLine(line, -units);
  }

  /** Units of the calendar month of `nowMs` by line of API keys, running calls included. Lines without any are left out. */
  usedByLine(nowMs: number): { lineId: string; units: number }[] {
    this.#tick(nowMs);
    return Array.from(this.#monthByLine, ([lineId, units]) => ({ lineId, units })).filter(({ units }) => units > 0);
  }

  /**
   * The quota for clients. The hour's `resetSeconds` is the time until its first used units are free, 0 if none are used.
   * `key`: also the budget of this key. `spend`: what `spendOf` returned.
   */
  quota(
    limits: AdmissionLimits,
    nowMs: number,
    { key, spend }: { key?: KeyBudget | undefined; spend?: SpendWindow | undefined } = {},
  ): QuotaStatus {
    const now = this.#tick(nowMs);
    const used = this.#hour.used(now);
    const seconds = (atMs: number): number => Math.ceil((atMs - nowMs) / 1_000);
    const minute = this.#minute.used(now);
    const monthSeconds = seconds(this.#periodEndsAtMs);
    const budget = key?.unitsPerMonth ?? null;
    const ofKey = { used: this.#monthByLine.get(key?.lineId ?? "") ?? 0, resetSeconds: monthSeconds };
    return {
      minute: {
        limit: limits.callsPerMinute,
        used: minute,
        resetSeconds: seconds(this.#minute.freesAt(now, 1) ?? nowMs),
      },
      hour: { limit: limits.unitsPerHour, used, resetSeconds: seconds(this.#hour.freesAt(now, 1) ?? nowMs) },
      month: { limit: limits.unitsPerMonth, used: this.#monthUsed, resetSeconds: monthSeconds },
      ...(budget !== null && { key: { limit: budget, ...ofKey } }),
      ...(spend !== undefined && { spend: spendStatus(spend, this.#spend.used, nowMs) }),
    };
  }

  /** The limit that refuses the call for the longest time. Among equals, the first in the order of the checks. */
  #refusal(
    cost: number,
    limits: AdmissionLimits,
    now: number,
    { tool, key, spend }: { tool: string; key: KeyBudget | undefined; spend: SpendWindow | undefined },
  ): Blocked | undefined {
    let longest: Blocked | undefined;
    const refuse = (refused: Blocked): void => {
      if (longest === undefined || refused.retryAtMs > longest.retryAtMs) longest = refused;
    };

    const refuseIn = (code: AdmissionCode, measure: Measure, limit: number, window: SlidingWindow): void => {
      const used = window.used(now);
      const excess = used + cost - limit;
      if (cost > limit) refuse({ code: "cost_over_limit", measure, limit, used, cost, retryAtMs: Infinity });
      else if (excess > 0)
        refuse({ code, measure, limit, used, cost, retryAtMs: window.freesAt(now, excess) ?? Infinity });
    };

    const { callsInFlight, unitsPerHour, unitsPerMonth, unitsPerHourByTool } = limits;
    const minute = this.#minuteRefusal(limits, now);
    if (minute !== undefined) refuse(minute);
    if (this.#running.size >= callsInFlight) {
      const [code, measure] = ["too_many_in_flight", "in_flight"] as const;
      const retryAtMs = now + IN_FLIGHT_RETRY_MS;
      refuse({ code, measure, limit: callsInFlight, used: this.#running.size, cost: 1, retryAtMs });
    }
    if (cost === 0) return longest;
    if (unitsPerHour !== null) refuseIn("window_exhausted", "hour", unitsPerHour, this.#hour);
    const ownWindow = this.#byTool.get(tool);
    const ownLimit = unitsPerHourByTool[tool];
    if (ownWindow !== undefined && ownLimit !== undefined) {
      refuseIn("tool_exhausted", "tool_hour", ownLimit, ownWindow);
    }
    const refuseInMonth = (code: AdmissionCode, measure: Measure, limit: number | null, used: number): void => {
      if (limit === null || used + cost <= limit) return;
      const facts = { measure, limit, used, cost };
      if (cost > limit) refuse({ code: "cost_over_limit", ...facts, retryAtMs: Infinity });
      else refuse({ code, ...facts, retryAtMs: this.#periodEndsAtMs });
    };
    refuseInMonth("period_exhausted", "month", unitsPerMonth, this.#monthUsed);
    if (key !== undefined) {
      const used = this.#monthByLine.get(key.lineId) ?? 0;
      refuseInMonth("key_budget_exhausted", "key_month", key.unitsPerMonth, used);
    }
    if (spend !== undefined && spend.maxUnits !== null && this.#spend.used + cost > spend.maxUnits) {
      const [limit, used] = [spend.maxUnits, this.#spend.used];
      // The next period has the same cap at most. A higher cap admits the call in any case.
      const retryAtMs = cost > limit ? Infinity : spend.endMs;
      refuse({ code: "spend_cap_reached", measure: "spend", limit, used, cost, retryAtMs });
    }
    return longest;
  }

  #addToLine(lineId: string | undefined, units: number): void {
    if (lineId === undefined || units === 0) return;
    this.#monthByLine.set(lineId, (this.#monthByLine.get(lineId) ?? 0) + units);
  }

  #minuteRefusal({ callsPerMinute: limit }: AdmissionLimits, now: number): Blocked | undefined {
    if (limit === null) return undefined;
    const used = this.#minute.used(now);
    const excess = used + 1 - limit;
    if (excess <= 0) return undefined;
    const retryAtMs = this.#minute.freesAt(now, excess) ?? Infinity;
    return { code: "rate_limited", measure: "minute", limit, used, cost: 1, retryAtMs };
  }

  /**
   * The instant to decide at. It never goes back: entries leave a window for good, and a clock that was set back would
   * otherwise see a window that is emptier than it was.
   */
  #tick(nowMs: number): number {
    if (nowMs > this.#latestMs) this.#latestMs = nowMs;
    if (this.#latestMs >= this.#periodEndsAtMs) {
      const { period, endsAtMs } = periodOf(this.#latestMs);
      this.#period = period;
      this.#periodEndsAtMs = endsAtMs;
      this.#monthUsed = 0;
      this.#monthByLine.clear();
    }
    // Also when no limit needs the window: old entries must not pile up.
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
