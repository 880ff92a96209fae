// Webhook delivery: signed, at least once, after the request, in no guaranteed order.
// The transaction of an event writes a row for its delivery. The row stays until the receiver answers 2xx or the simulator
// gives up, so it survives a restart. Deliveries in flight at a crash are sent again.
import { createHmac } from "node:crypto";
import * as z from "zod";
import { seededRandom } from "../seeded-random.ts";
import { Die, chance } from "./faults.ts";
import type { Event, ThinEvent } from "./objects.ts";
import { type Store, where } from "./store.ts";
import { notification } from "./thin-events.ts";

export interface WebhookEndpoint {
  url: string;
  secret: string;
  /** Event types to deliver. Absent for all. */
  enabledEvents?: readonly string[];
  retry?: Partial<RetryPolicy>;
}

export interface RetryPolicy {
  /** Pause after the first failure; doubles after each further failure. */
  firstDelayMs: number;
  maxDelayMs: number;
  /** Age at which the simulator gives up. The event stays in `events.list({ delivery_success: false })`. */
  giveUpAfterMs: number;
  /** Timeout of one delivery. */
  timeoutMs: number;
}

const DAY_MS = 86_400_000;
/** Stripe also gives up after 3 days. Its pauses are longer; these are short because a developer waits for them. */
const RETRY: RetryPolicy = { firstDelayMs: 1000, maxDelayMs: 60_000, giveUpAfterMs: 3 * DAY_MS, timeoutMs: 20_000 };
/** Parallel deliveries: enough that a slow one does not block the rest, few enough for a local receiver. */
const MAX_IN_FLIGHT = 32;
/** Maximum sleep. `setTimeout` overflows after 24.8 days, and an extra wake-up an hour is cheap. */
const MAX_TIMER_MS = 3_600_000;

const selected = z.strictObject({ ...chance.shape, types: z.array(z.string()).optional() });
/** drop: never sent, as after Stripe gives up · duplicate: sent twice · reorder: delayed by up to `windowMs`. */
export const webhookSettings = z.strictObject({
  seed: z.int().default(1),
  pause: z.boolean().default(false),
  delayMs: z.int().min(0).default(0),
  drop: selected.optional(),
  duplicate: selected.optional(),
  reorder: z.strictObject({ ...selected.shape, windowMs: z.int().min(1).default(500) }).optional(),
});
type Settings = z.output<typeof webhookSettings>;
type AnyEvent = Event | ThinEvent;
/** Receivers of snapshot events, and of thin events until a destination is registered. */
interface Endpoints {
  snapshot: WebhookEndpoint | undefined;
  thin: WebhookEndpoint | undefined;
}
interface Row {
  seq: number;
  eventId: string;
  attempts: number;
  firstMs: number;
}

export class Webhooks {
  readonly #store: Store;
  readonly #endpoints: Endpoints;
  readonly #nowMs: () => number;
  readonly #log: (line: string) => void;
  readonly #closing = new AbortController();
  #settings: Settings = webhookSettings.parse({});
  #dice: Partial<Record<"drop" | "duplicate" | "reorder", Die>> = {};
  #random = seededRandom(1);
  #inFlight = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(store: Store, endpoints: Endpoints, nowMs: () => number, log: (line: string) => void) {
    this.#store = store;
    this.#endpoints = endpoints;
    this.#nowMs = nowMs;
    this.#log = log;
    void store.sql.run`UPDATE deliveries SET state = 'pending' WHERE state = 'sending'`;
  }

  configure(settings: Settings): void {
    this.#settings = settings;
    this.#random = seededRandom(settings.seed);
    this.#dice = {};
    for (const name of ["drop", "duplicate", "reorder"] as const) {
      const rule = settings[name];
      if (rule !== undefined) this.#dice[name] = new Die(rule, this.#random);
    }
    this.kick();
  }

  report() {
    const { drop, duplicate, reorder } = this.#dice;
    const fired = { drop: drop?.fired ?? 0, duplicate: duplicate?.fired ?? 0, reorder: reorder?.fired ?? 0 };
    return { ...this.#settings, fired };
  }

  /** Schedules the delivery of an event. Call it in the event's transaction. */
  plan(event: AnyEvent): void {
    const endpoint = this.#endpointFor(event);
    const enabled = endpoint?.enabledEvents ?? ["*"];
    if (endpoint === undefined || !(enabled.includes("*") || enabled.includes(event.type))) return;
    const now = this.#nowMs();
    const reorder = this.#settings.reorder;
    const held = reorder !== undefined && this.#hits("reorder", event.type) ? this.#random() * reorder.windowMs : 0;
    const due = now + this.#settings.delayMs + Math.round(held);
    const state = this.#hits("drop", event.type) ? "failed" : "pending";
    const copies = this.#hits("duplicate", event.type) ? [0, 1] : [0];
    for (const extra of copies) {
      void this.#store.sql.run`INSERT INTO deliveries (event_id, extra, state, attempts, due_ms, first_ms)
        VALUES (${event.id}, ${extra}, ${state}, 0, ${due}, ${now})`;
    }
  }

  #endpointFor(event: AnyEvent): WebhookEndpoint | undefined {
    if (event.object === "event") return this.#endpoints.snapshot;
    const registered = this.#store
      .all("v2.core.event_destination", [where("status", "enabled"), where("event_payload", "thin")])
      .at(-1);
    const { url, signing_secret: secret } = registered?.webhook_endpoint ?? {};
    if (registered === undefined || url === undefined || secret === undefined) return this.#endpoints.thin;
    return { ...this.#endpoints.thin, url, secret, enabledEvents: registered.enabled_events };
  }

  #hits(name: "drop" | "duplicate" | "reorder", type: string): boolean {
    const types = this.#settings[name]?.types;
    return (types === undefined || types.includes(type)) && (this.#dice[name]?.roll() ?? false);
  }

  /** Starts due deliveries and sets a timer for the next one. Call it after every commit and every change of the clock. */
  kick(): void {
    clearTimeout(this.#timer);
    if (this.#settings.pause || this.#closing.signal.aborted) return;
    const { sql } = this.#store;
    const now = this.#nowMs();
    const rows = sql.all`SELECT seq, event_id, attempts, first_ms FROM deliveries
      WHERE state = 'pending' AND due_ms <= ${now} ORDER BY due_ms, seq LIMIT ${MAX_IN_FLIGHT - this.#inFlight}`;
    for (const row of rows) {
      const seq = Number(row["seq"]);
      void sql.run`UPDATE deliveries SET state = 'sending' WHERE seq = ${seq}`;
      void this.#deliver({
        seq,
        eventId: String(row["event_id"]),
        attempts: Number(row["attempts"]),
        firstMs: Number(row["first_ms"]),
      });
    }
    const next = sql.get`SELECT min(due_ms) AS due FROM deliveries WHERE state = 'pending'`?.["due"];
    // All slots are busy. The next delivery that ends calls `kick` again.
    if (typeof next !== "number" || this.#inFlight >= MAX_IN_FLIGHT) return;
    this.#timer = setTimeout(() => this.kick(), Math.min(Math.max(next - now, 1), MAX_TIMER_MS));
  }

  /** Makes all waiting deliveries due now. For a receiver that has just started. */
  retryNow(): void {
    void this.#store.sql.run`UPDATE deliveries SET due_ms = ${this.#nowMs()} WHERE state = 'pending'`;
    this.kick();
  }

  /** Delivers one event again, in any state. Returns the receiver's status or the error. */
  async deliverAgain(event: AnyEvent): Promise<string> {
    const endpoint = this.#endpointFor(event);
    if (endpoint === undefined) return "no endpoint";
    const result = await this.#post(endpoint, event);
    if (isSuccess(result)) {
      void this.#store.sql
        .run`UPDATE deliveries SET state = 'delivered', last_result = ${result} WHERE event_id = ${event.id}`;
    }
    return result;
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#closing.abort();
  }

  async #deliver(row: Row): Promise<void> {
    const event = this.#store.find("event", row.eventId) ?? this.#store.find("v2.core.event", row.eventId);
    const endpoint = event === undefined ? undefined : this.#endpointFor(event);
    if (event === undefined || endpoint === undefined) return;
    this.#inFlight += 1;
    const result = await this.#post(endpoint, event);
    this.#inFlight -= 1;
    // The store is closed. The row still says 'sending', so the next start sends it again.
    if (this.#closing.signal.aborted) return;
    const { sql } = this.#store;
    if (isSuccess(result)) {
      void sql.run`UPDATE deliveries SET state = 'delivered', attempts = attempts + 1, last_result = ${result} WHERE seq = ${row.seq}`;
    } else {
      const now = this.#nowMs();
      const retry = { ...RETRY, ...endpoint.retry };
      const wait = Math.min(retry.firstDelayMs * 2 ** row.attempts, retry.maxDelayMs);
      const state = now + wait - row.firstMs > retry.giveUpAfterMs ? "failed" : "pending";
      void sql.run`UPDATE deliveries SET state = ${state}, attempts = attempts + 1, due_ms = ${now + wait},
        last_result = ${result} WHERE seq = ${row.seq}`;
    }
    this.#log(`webhook ${event.type} ${event.id}: ${result}`);
    this.kick();
  }

  async #post(endpoint: WebhookEndpoint, event: AnyEvent): Promise<string> {
    const body = event.object === "event" ? { ...event, pending_webhooks: 1 } : notification(event);
    const payload = JSON.stringify(body, null, 2);
    try {
      const response = await fetch(endpoint.url, {
        method: "POST",
        headers: {
          "content-type": "application/json; charset=utf-8",
          "stripe-signature": sign(payload, endpoint.secret, Math.floor(this.#nowMs() / 1000)),
          "user-agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        },
        body: payload,
        // Stripe counts a redirect as a failure.
        redirect: "manual",
        signal: AbortSignal.any([this.#closing.signal, AbortSignal.timeout({ ...RETRY, ...endpoint.retry }.timeoutMs)]),
      });
      await response.body?.cancel();
      return String(response.status);
    } catch (error) {
      return error instanceof Error && error.name === "TimeoutError" ? "no answer in time" : "no connection";
    }
  }
}

/** The `Stripe-Signature` of a payload, sent at `atSeconds`. */
export function sign(payload: string, secret: string, atSeconds: number): string {
  const signature = createHmac("sha256", secret).update(`${atSeconds}.${payload}`).digest("hex");
  return `t=${atSeconds},v1=${signature}`;
}

function isSuccess(result: string): boolean {
  return /^2\d\d$/.test(result);
}
