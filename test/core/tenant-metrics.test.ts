// The metrics of a tenant's object on their way to the control tables, in a simulated world: messages are lost, repeated, late and out
// of order, the queue refuses them, and the object dies. Each call arrives once, unless the object died before it stored the call.
import * as fc from "fast-check";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { FinishedCall } from "../../src/core/call.ts";
import { TenantId } from "../../src/core/tenant/tenant.ts";
import { MINUTE_MS } from "../../src/core/time.ts";
import type { MetricsMessage } from "../../src/metering/metrics/fold.ts";
import { RECENT_CALLS, RESEND_MS, STORE_EVERY_MS, TenantMetrics } from "../../src/metering/metrics/tenant-metrics.ts";

const tenantId = TenantId.parse("acme");
const epoch = "5b0c2d0e";

beforeEach(() => {
  vi.useFakeTimers({ now: Date.UTC(2026, 10, 30, 20) });
  vi.spyOn(console, "warn").mockImplementation(() => undefined);
});
afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

function aCall(n: number, own: Partial<FinishedCall> = {}): FinishedCall {
  return {
    ...{ callId: `call-${n}`, tool: "t", atMs: Date.now(), end: "ok", code: undefined, units: 1, ms: 8, ran: true },
    caller: { kind: "key", tenantId, keyId: "k1", keyHash: "h", scopes: [] },
    parts: { admissionMs: 1, toolMs: 5, sqlMs: 4, fetches: 0, fetchMs: 0, settleMs: 1 },
    refusedBefore: 0,
    ...own,
  };
}

interface Fate {
  refused: boolean;
  /** Delays until the message arrives: once, twice or never. */
  arrivesMs: number[];
  /** Delay of the acknowledgement. `undefined`: it is lost. */
  ackMs: number | undefined;
}
const healthy: Fate = { refused: false, arrivesMs: [500], ackMs: 20 };

class World {
  metrics: TenantMetrics;
  /** The stored row. */
  row: string | undefined;
  stores = 0;
  alarms = 0;
  sent = 0;
  /** In the control tables: calls and units, and the last fold that was added. */
  added = { calls: 0, units: 0, n: 0 };
  fates: Fate[] = [];
  #alarm: ReturnType<typeof setTimeout> | undefined;
  #alarmAtMs = Infinity;

  constructor() {
    this.metrics = this.#start();
  }

  #start(): TenantMetrics {
    const isAlive = (): boolean => metrics === this.metrics;
    const metrics = new TenantMetrics({
      ...{ tenantId, epoch, stored: this.row },
      store: (text) => {
        if (!isAlive()) return;
        this.row = text;
        this.stores += 1;
      },
      send: (message) => this.#send(structuredClone(message)),
      wakeIn: (ms) => this.wakeIn(ms),
    });
    return metrics;
  }

  /** An alarm is durable: it outlives the object. */
  wakeIn(ms: number): void {
    const atMs = Date.now() + ms;
    if (this.#alarmAtMs <= atMs) return;
    clearTimeout(this.#alarm);
    this.alarms += 1;
    this.#alarmAtMs = atMs;
    this.#alarm = setTimeout(() => {
      this.#alarmAtMs = Infinity;
      void this.metrics.run();
    }, ms);
  }

  async #send(message: MetricsMessage): Promise<void> {
    this.sent += 1;
    const { refused, arrivesMs, ackMs } = this.fates.shift() ?? healthy;
    if (refused) throw new Error("The queue refuses messages.");
    for (const ms of arrivesMs)
      setTimeout(() => {
        const last = this.added.n;
        for (const { n, cells } of message.folds) {
          if (n <= last) continue;
          for (const { calls, units } of cells) {
            this.added.calls += calls;
            this.added.units += units;
          }
          this.added.n = n;
        }
        const highest = Math.max(...message.folds.map(({ n }) => n));
        if (ackMs !== undefined) setTimeout(() => this.metrics.acknowledge(message.epoch, highest), ackMs);
      }, ms);
  }

  /** The object dies: what it has not stored is lost, and so are its timers. */
  die(): void {
    this.metrics = this.#start();
  }
}

const fate: fc.Arbitrary<Fate> = fc.record({
  refused: fc.boolean(),
  arrivesMs: fc.array(fc.integer({ min: 1, max: 20 * MINUTE_MS }), { maxLength: 2 }),
  ackMs: fc.option(fc.integer({ min: 1, max: 60_000 }), { nil: undefined }),
});
const step = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constant("call" as const), units: fc.nat(5) }) },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant("wait" as const), ms: fc.integer({ min: 1, max: 3 * MINUTE_MS }) }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("die when stored" as const) }) },
);

test("each call is added once, with any fate of messages and acknowledgements, and any death of an object that has stored it", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60 }), fc.array(fate, { maxLength: 12 }), async (steps, fates) => {
      const world = new World();
      world.fates = fates;
      let made = { calls: 0, units: 0 };
      for (const [n, each] of steps.entries()) {
        if (each.do === "call") {
          made = { calls: made.calls + 1, units: made.units + each.units };
          world.metrics.add(aCall(n, { units: each.units }));
          // The alarm of the outbox, which a charged call sets.
          world.wakeIn(2_000);
        } else if (each.do === "wait") await vi.advanceTimersByTimeAsync(each.ms);
        else {
          await vi.advanceTimersByTimeAsync(STORE_EVERY_MS);
          world.die();
          world.wakeIn(0); // the platform repeats the alarm that the death has cut off
        }
      }
      // Further calls bring what a lost message or acknowledgement has left behind.
      for (let n = 0; n < 6; n += 1) {
        if (n === 4) world.fates = [];
        await vi.advanceTimersByTimeAsync(RESEND_MS + 20 * MINUTE_MS);
        made = { calls: made.calls + 1, units: made.units + 1 };
        world.metrics.add(aCall(1_000 + n));
        world.wakeIn(2_000);
      }
      await vi.advanceTimersByTimeAsync(RESEND_MS);
      expect({ calls: world.added.calls, units: world.added.units }).toEqual(made);
    }),
    { numRuns: 80 },
  );
});

test("an object that dies loses the calls of at most the last seconds", async () => {
  const world = new World();
  const madeAtMs: number[] = [];
  for (let n = 0; n < 400; n += 1) {
    world.metrics.add(aCall(n));
    madeAtMs.push(Date.now());
    await vi.advanceTimersByTimeAsync(100);
  }
  const diedAtMs = Date.now();
  world.die();
  world.wakeIn(0);
  await vi.advanceTimersByTimeAsync(2 * MINUTE_MS);
  const certain = madeAtMs.filter((atMs) => atMs <= diedAtMs - STORE_EVERY_MS).length;
  expect(world.added.calls).toBeGreaterThanOrEqual(certain);
  expect(world.added.calls).toBeLessThan(400);
  expect(world.metrics.recent().length).toBe(RECENT_CALLS);
});

test.each([
  { perSecond: 1 / 60, stores: 1.01, alarms: 0.1, sent: 1.01 },
  { perSecond: 1, stores: 0.15, alarms: 0.15, sent: 0.02 },
  { perSecond: 10, stores: 0.015, alarms: 0.015, sent: 0.002 },
  { perSecond: 100, stores: 0.0015, alarms: 0.0015, sent: 0.0005 },
])("at $perSecond calls a second, a call costs at most $stores stores and $alarms alarms of its own", async (most) => {
  const world = new World();
  const calls = Math.min(6_000, Math.max(60, Math.round(600 * most.perSecond)));
  for (let n = 0; n < calls; n += 1) {
    world.metrics.add(aCall(n));
    if (n % Math.max(1, Math.round(most.perSecond * 2)) === 0) {
      const before = world.alarms;
      world.wakeIn(2_000);
      world.alarms = before; // the outbox would have set it anyway
    }
    await vi.advanceTimersByTimeAsync(1_000 / most.perSecond);
  }
  expect(world.stores / calls).toBeLessThanOrEqual(most.stores);
  expect(world.alarms / calls).toBeLessThanOrEqual(most.alarms);
  expect(world.sent / calls).toBeLessThanOrEqual(most.sent);
});

test("a tenant with a caller for each call has a bounded number of rows in an hour", async () => {
  const world = new World();
  const callers = new Set<string>();
  const send = vi.spyOn(world.metrics, "run");
  for (let n = 0; n < 500; n += 1) {
    const subject = `person-${n}`;
    const user = {
      kind: "user",
      tenantId,
      issuer: "i",
      organisation: "o",
      subject,
      scopes: [],
      expiresAtMs: 1,
    } as const;
    world.metrics.add(aCall(n, { caller: user }));
    await vi.advanceTimersByTimeAsync(1_000);
    for (const { cells } of storedOf(world).frozen) for (const { caller } of cells) callers.add(caller);
  }
  expect(send).toHaveBeenCalled();
  expect(callers.size).toBeLessThanOrEqual(201);
  expect(callers).toContain("~other");
});

function storedOf({ row }: World): { frozen: { cells: { caller: string }[] }[] } {
  return JSON.parse(row ?? `{"frozen":[]}`) as ReturnType<typeof storedOf>;
}

test("calls that the Worker has refused are counted with the next call, and fallback calls without a latency", async () => {
  const world = new World();
  world.metrics.add(aCall(1, { refusedBefore: 40 }));
  world.metrics.addFallbackCalls([{ callId: "f1", tool: "t", units: 3, atMs: Date.now() }]);
  await vi.advanceTimersByTimeAsync(STORE_EVERY_MS);
  expect(world.added).toMatchObject({ calls: 42, units: 4 });
});

test("an unreadable row starts the metrics anew, with a larger number than before", async () => {
  const world = new World();
  world.metrics.add(aCall(1));
  await vi.advanceTimersByTimeAsync(MINUTE_MS);
  world.row = "{";
  const error = vi.spyOn(console, "error").mockImplementation(() => undefined);
  world.die();
  world.metrics.add(aCall(2));
  await vi.advanceTimersByTimeAsync(MINUTE_MS);
  expect(error).toHaveBeenCalledTimes(1);
  expect(world.added.calls).toBe(2);
});

test("a queue that never answers holds the object's alarm for seconds only, and gets the fold again", async () => {
  const world = new World();
  const sent: MetricsMessage[] = [];
  const metrics = new TenantMetrics({
    ...{ tenantId, epoch, stored: undefined, store: () => undefined },
    send: (message) => {
      sent.push(message);
      return sent.length === 1 ? new Promise<never>(() => undefined) : Promise.resolve();
    },
    wakeIn: (ms) => world.wakeIn(ms),
  });
  world.metrics = metrics;
  metrics.add(aCall(1));
  const run = metrics.run({ isDue: true });
  await vi.advanceTimersByTimeAsync(3_000);
  await run;
  await vi.advanceTimersByTimeAsync(5_000);
  expect(sent).toHaveLength(2);
  expect(sent[1]).toEqual(sent[0]);
});
