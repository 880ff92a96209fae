// The rate of a tenant's admin: the requests outside the MCP endpoint in the last minute, which the tenant's object holds.
// Calls of agents do not count there: an agent that uses up its rate must not keep the admin from the usage, the invoices and
// the export. address-rate.ts has the rates of strangers.
// Invariant: no more requests are admitted in any minute than the limit, and a refused request does not count.
import { MINUTE_MS } from "../core/time.ts";

/** Requests that cost more than others, and how many of each kind one account may send a minute. */
export const costlyPerMinute = {
  /**
   * Pages of Stripe (portal, Checkout). Each costs two or three requests to Stripe, which allows the whole account 25 a second. No
   * person needs as many.
   */
  stripePage: 10,
  /**
   * Documents that are stored by people and programs, without a charge. A tool's are charged, so a program that stores many uses the
   * tool, or an import.
   */
  document: 30,
} as const;
export type CostlyRequest = keyof typeof costlyPerMinute;
/** For a plan without a limit of requests a minute: more than any page or script of an admin needs. */
export const UNLIMITED_PER_MINUTE = 600;

export class RequestRate {
  #admittedAtMs: number[] = [];

  /** Admits a request and returns 0, or returns after how many milliseconds the next one is admitted. */
  admit(perMinute: number, nowMs: number): number {
    // An instant in the future is of a clock that was set back.
    this.#admittedAtMs = this.#admittedAtMs.filter((atMs) => atMs <= nowMs && nowMs - atMs < MINUTE_MS);
    const blocking = this.#admittedAtMs.at(-perMinute);
    if (blocking !== undefined && this.#admittedAtMs.length >= perMinute) return blocking + MINUTE_MS - nowMs;
    this.#admittedAtMs.push(nowMs);
    return 0;
  }
}
