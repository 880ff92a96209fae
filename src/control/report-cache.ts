// Reports that are costly to make and asked for by many. One look serves all requests of some seconds, also of a crowd that
// comes at once: at most one request of the isolate looks at a time, and the others get its report or the one before.
// A request never awaits another one's promise: the platform cancels the work of a request whose client has gone. So it
// polls, and looks itself when the look of another one has not ended in time.
import { BoundedMap } from "../core/concurrency/bounded-map.ts";

export interface ReportCacheOptions {
  /** How long a report is used. */
  cachedMs: number;
  /** Longer than a look takes. After this time the look counts as cancelled. */
  lookMs: number;
  /** The oldest report leaves first. */
  maxReports: number;
}

/** How often a request without a report sees whether the look of another one has ended. */
const POLL_MS = 25;

interface Entry<Report> {
  /** When the next request looks. */
  untilMs: number;
  /** `undefined`: the first look has not ended. */
  report: Report | undefined;
}

export class ReportCache<Report> {
  readonly #entries: BoundedMap<string, Entry<Report>>;
  readonly #options: ReportCacheOptions;

  constructor(options: ReportCacheOptions) {
    this.#options = options;
    this.#entries = new BoundedMap(options.maxReports);
  }

  /** The report of the last moments, or a new one that `look` makes. Throws what its own look throws. */
  async get(key: string, look: () => Promise<Report>): Promise<Report> {
    for (;;) {
      const known = this.#entries.get(key);
      if (known === undefined || Date.now() >= known.untilMs) return this.#look(key, known?.report, look);
      if (known.report !== undefined) return known.report;
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  async #look(key: string, previous: Report | undefined, look: () => Promise<Report>): Promise<Report> {
    this.#entries.set(key, { untilMs: Date.now() + this.#options.lookMs, report: previous });
    try {
      const report = await look();
      this.#entries.set(key, { untilMs: Date.now() + this.#options.cachedMs, report });
      return report;
    } catch (error) {
      this.#entries.delete(key);
      throw error;
    }
  }
}
