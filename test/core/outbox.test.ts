// Simulates the outbox (docs/architecture.md, "A unit of money"): an object, a queue and a ledger. Messages are lost, duplicated,
// late and out of order; the queue refuses batches and is slow; the object restarts.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import {
  ACKNOWLEDGE_WITHIN_MS,
  OUTBOX_DELAY_MS,
  type OutboxState,
  afterAcknowledge,
  afterSend,
  freshOutbox,
  nextWake,
  sendAfter,
} from "../../src/metering/outbox.ts";

/** Small, so that a few rows need several messages and several alarms. */
const ROWS_PER_MESSAGE = 3;
const MESSAGES_PER_ALARM = 2;
const RETRY_MS = 5_000;
/** Far more steps than any history needs. A history that reaches it never ends. */
const MAX_STEPS = 5_000;

interface SendFate {
  takesMs: number;
  refused: boolean;
}
interface MessageFate {
  /** Delays after the send until it arrives at the ledger: once, twice or never. */
  arrivesMs: number[];
  /** Delay of the watermark's return. `undefined`: it is lost. */
  ackMs: number | undefined;
}

const healthySend: SendFate = { takesMs: 20, refused: false };
const healthyMessage: MessageFate = { arrivesMs: [1_000], ackMs: 10 };

/** Rows and alarm of a tenant's object, its queue and its ledger, on a simulated clock. */
class World {
  nowMs = 1_000_000;
  lastN = 0;
  acknowledged = 0;
  readonly sends: { fromN: number; toN: number }[] = [];
  readonly timesSent = new Map<number, number>();
  idleAlarms = 0;
  acknowledgements = 0;
  restarts = 0;
  /** When the last scripted fault happened. */
  faultsUntilMs = 0;
  acknowledgedAtMs = 0;

  readonly #script: { sends: SendFate[]; messages: MessageFate[] };
  #events: { atMs: number; run: () => void }[] = [];
  #state: OutboxState = freshOutbox(0);
  #instance = 0;
  #sending = false;
  #afterSending: (() => void) | undefined;
  #alarm: { atMs: number } | undefined;
  readonly #ledger = new Set<number>();
  #watermark = 0;
  // Rows that the queue accepted from this instance of the object, to judge whether it sends too often.
  readonly #takenAtMs = new Map<number, number>();
  #takenTo = 0;
  #movedAtMs = -Infinity;

  constructor(script: { sends?: SendFate[]; messages?: MessageFate[] } = {}) {
    this.#script = { sends: [...(script.sends ?? [])], messages: [...(script.messages ?? [])] };
  }

  /** Runs the events of the next `ms`. Without `ms`, runs until no event is left. */
  run(ms = Infinity): void {
    const untilMs = this.nowMs + ms;
    for (let step = 0; ; step += 1) {
      const [next] = this.#events.toSorted((a, b) => a.atMs - b.atMs);
      if (next === undefined || next.atMs > untilMs) break;
      if (step > MAX_STEPS) expect.fail(`still busy after ${step} steps`);
      this.#events = this.#events.filter((each) => each !== next);
      this.nowMs = next.atMs;
      next.run();
    }
    if (untilMs < Infinity) this.nowMs = untilMs;
  }

  append(count: number): void {
    this.lastN += count;
    this.#wakeIn(OUTBOX_DELAY_MS);
  }

  restart(): void {
    this.restarts += 1;
    this.#instance += 1;
    this.#state = freshOutbox(this.acknowledged);
    this.#takenAtMs.clear();
    this.#takenTo = this.acknowledged;
    this.#movedAtMs = -Infinity;
    this.#alarm = undefined;
    this.#sending = false;
    this.#afterSending = undefined;
    if (this.lastN > this.acknowledged) this.#wakeIn(OUTBOX_DELAY_MS);
  }

  #later(ms: number, run: () => void): void {
    this.#events.push({ atMs: this.nowMs + ms, run });
  }

  #wakeIn(ms: number): void {
    if (this.#alarm !== undefined && this.#alarm.atMs <= this.nowMs + ms) return;
    const alarm = { atMs: this.nowMs + ms };
    this.#alarm = alarm;
    const ring = (): void => {
      // One alarm runs at a time: the next waits for the queue's answer.
      if (this.#alarm === alarm && !this.#sending) this.#wake();
      else if (this.#alarm === alarm) this.#afterSending = ring;
    };
    this.#later(ms, ring);
  }

  #wake(): void {
    this.#alarm = undefined;
    const fromN = sendAfter(this.#state, this.acknowledged, this.nowMs);
    const toN = Math.min(this.lastN, fromN + ROWS_PER_MESSAGE * MESSAGES_PER_ALARM);
    if (toN > fromN) {
      this.#send(fromN, toN);
      return;
    }
    this.idleAlarms += 1;
    const wakeInMs = nextWake(this.#state, this, this.nowMs);
    if (wakeInMs === undefined) return;
    expect(wakeInMs, "an idle alarm does not repeat at once").toBeGreaterThan(0);
    this.#wakeIn(wakeInMs);
  }

  #send(fromN: number, toN: number): void {
    this.#judge(fromN);
    this.sends.push({ fromN, toN });
    for (let n = fromN + 1; n <= toN; n += 1) this.timesSent.set(n, (this.timesSent.get(n) ?? 0) + 1);
    const send = this.#script.sends.shift();
    const { takesMs, refused } = send ?? healthySend;
    for (let first = fromN + 1; first <= toN; first += ROWS_PER_MESSAGE) {
      this.#carry(first, Math.min(toN, first + ROWS_PER_MESSAGE - 1));
    }
    const instance = this.#instance;
    this.#sending = true;
    this.#later(takesMs, () => {
      if (send !== undefined) this.faultsUntilMs = this.nowMs;
      if (instance !== this.#instance) return;
      this.#sending = false;
      if (!refused) {
        for (let n = fromN + 1; n <= toN; n += 1) this.#takenAtMs.set(n, this.nowMs);
        this.#takenTo = toN;
        this.#state = afterSend(this.#state, { fromN, toN, acknowledged: this.acknowledged }, this.nowMs);
      }
      const wakeInMs = refused ? RETRY_MS : nextWake(this.#state, this, this.nowMs);
      if (wakeInMs !== undefined) this.#wakeIn(wakeInMs);
      const waiting = this.#afterSending;
      this.#afterSending = undefined;
      waiting?.();
    });
  }

  /** Checks that rows are sent again only when they count as lost. */
  #judge(fromN: number): void {
    expect(fromN, "acknowledged rows are not sent").toBeGreaterThanOrEqual(this.acknowledged);
    if (fromN >= this.#takenTo) return;
    expect(fromN, "every sent row counts as lost").toBe(this.acknowledged);
    expect(this.nowMs - this.#movedAtMs, "since the watermark moved").toBeGreaterThanOrEqual(ACKNOWLEDGE_WITHIN_MS);
    const takenAtMs = this.#takenAtMs.get(fromN + 1) ?? Number.NaN;
    expect(this.nowMs - takenAtMs, "since it was sent").toBeGreaterThanOrEqual(ACKNOWLEDGE_WITHIN_MS);
  }

  #carry(first: number, last: number): void {
    const fate = this.#script.messages.shift();
    if (fate !== undefined) this.faultsUntilMs = this.nowMs;
    const { arrivesMs, ackMs } = fate ?? healthyMessage;
    for (const ms of arrivesMs) {
      this.#later(ms, () => {
        for (let n = first; n <= last; n += 1) this.#ledger.add(n);
        while (this.#ledger.has(this.#watermark + 1)) this.#watermark += 1;
        if (fate !== undefined) this.faultsUntilMs = this.nowMs;
        const watermark = this.#watermark;
        if (ackMs === undefined) return;
        this.#later(ackMs, () => {
          if (fate !== undefined) this.faultsUntilMs = this.nowMs;
          this.#acknowledge(watermark);
        });
      });
    }
  }

  #acknowledge(watermark: number): void {
    const before = this.acknowledged;
    this.acknowledged = Math.max(before, watermark);
    this.acknowledgements += 1;
    if (this.acknowledged > before) this.#movedAtMs = this.acknowledgedAtMs = this.nowMs;
    this.#state = afterAcknowledge(this.#state, before, this.acknowledged, this.nowMs);
  }
}

const sendFate = fc.record({
  takesMs: fc.oneof(fc.nat(100), fc.nat(2 * ACKNOWLEDGE_WITHIN_MS)),
  refused: fc.oneof({ weight: 3, arbitrary: fc.constant(false) }, { weight: 1, arbitrary: fc.constant(true) }),
});
const delay = fc.oneof(fc.nat(100), fc.nat(5_000), fc.nat(3 * ACKNOWLEDGE_WITHIN_MS));
const messageFate = fc.record({
  arrivesMs: fc.array(delay, { maxLength: 2 }),
  ackMs: fc.option(delay, { nil: undefined, freq: 3 }),
});
const actions = fc.array(
  fc.record({
    waitMs: delay,
    append: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 20 })), // 0: the object restarts
  }),
  { minLength: 1, maxLength: 12 },
);

test("every row is acknowledged once faults end, without an early or endless retry", () => {
  fc.assert(
    fc.property(
      fc.array(sendFate, { maxLength: 12 }),
      fc.array(messageFate, { maxLength: 20 }),
      actions,
      (sends, messages, steps) => {
        const world = new World({ sends, messages });
        for (const { waitMs, append } of steps) {
          world.run(waitMs);
          if (append === 0) world.restart();
          else world.append(append);
        }
        const scriptEndsAtMs = world.nowMs;
        world.run();
        expect(world.acknowledged).toBe(world.lastN);
        // The last fault may have cost one wait. Then the alarms send all rows, and the answers arrive.
        const calmAtMs = Math.max(scriptEndsAtMs, world.faultsUntilMs) + RETRY_MS;
        expect(world.acknowledgedAtMs).toBeLessThanOrEqual(calmAtMs + ACKNOWLEDGE_WITHIN_MS + RETRY_MS);
        // An idle alarm is one that was set before the watermark moved.
        expect(world.idleAlarms).toBeLessThanOrEqual(
          world.sends.length + world.acknowledgements + world.restarts + steps.length,
        );
      },
    ),
    { numRuns: 1_000 },
  );
});

test("each row is sent once while every answer arrives in time, in any order", () => {
  const inTime = fc.record({
    arrivesMs: fc.array(fc.nat(ACKNOWLEDGE_WITHIN_MS / 2 - 1), { minLength: 1, maxLength: 2 }),
    ackMs: fc.nat(ACKNOWLEDGE_WITHIN_MS / 2),
  });
  // A send may be slower than the acknowledgement of its rows.
  const slow = fc.record({ takesMs: fc.nat(2 * ACKNOWLEDGE_WITHIN_MS), refused: fc.constant(false) });
  fc.assert(
    fc.property(
      fc.array(slow, { maxLength: 12 }),
      fc.array(inTime, { maxLength: 40 }),
      actions,
      (sends, messages, steps) => {
        const world = new World({ sends, messages });
        for (const { waitMs, append } of steps) {
          world.run(waitMs);
          world.append(Math.max(1, append));
        }
        world.run();
        expect(world.acknowledged).toBe(world.lastN);
        expect([...world.timesSent.values()]).toEqual(Array.from({ length: world.lastN }, () => 1));
      },
    ),
    { numRuns: 500 },
  );
});

test("an outbox without unacknowledged rows sets no alarm", () => {
  const rows = { acknowledged: 7, lastN: 7 };
  expect(nextWake(freshOutbox(7), rows, 0)).toBeUndefined();
  const sent = afterSend(freshOutbox(5), { fromN: 5, toN: 7, acknowledged: 5 }, 1_000);
  expect(nextWake(sent, { acknowledged: 5, lastN: 7 }, 1_000)).toBe(ACKNOWLEDGE_WITHIN_MS);
  expect(nextWake(afterAcknowledge(sent, 5, 7, 2_000), rows, 2_000)).toBeUndefined();
});

test("rows count as lost at the exact millisecond of the alarm", () => {
  const sent = afterSend(freshOutbox(0), { fromN: 0, toN: 4, acknowledged: 0 }, 1_000);
  expect(sendAfter(sent, 0, 1_000 + ACKNOWLEDGE_WITHIN_MS - 1)).toBe(4);
  expect(sendAfter(sent, 0, 1_000 + ACKNOWLEDGE_WITHIN_MS)).toBe(0);
  expect(nextWake(sent, { acknowledged: 0, lastN: 4 }, 1_000 + ACKNOWLEDGE_WITHIN_MS)).toBe(0);
  expect(nextWake(sent, { acknowledged: 0, lastN: 4 }, 1_000 + 2 * ACKNOWLEDGE_WITHIN_MS)).toBe(0);
});

test("a lost message is resent in time although later messages are acknowledged", () => {
  const world = new World({ messages: [{ arrivesMs: [], ackMs: undefined }] });
  for (let second = 0; second < 70; second += 1) {
    world.append(1);
    world.run(1_000);
  }
  expect(world.timesSent.get(1)).toBe(2);
  expect(world.acknowledged).toBeGreaterThan(60);
});

test("a refused send is retried, and its rows do not count as sent", () => {
  const refused = { takesMs: 20, refused: true };
  const lost = { arrivesMs: [], ackMs: undefined };
  const world = new World({ sends: [refused, refused], messages: [lost, lost] });
  world.append(2);
  world.run(OUTBOX_DELAY_MS + 2 * RETRY_MS + 2_000);
  expect(world.sends.map(({ fromN, toN }) => [fromN, toN])).toEqual(Array.from({ length: 3 }, () => [0, 2]));
  expect(world.acknowledged).toBe(2);
});

test("a restarted object sends only the unacknowledged rows, and at once", () => {
  const lost = { arrivesMs: [], ackMs: undefined };
  const world = new World({ messages: [healthyMessage, lost] });
  world.append(5);
  world.run(OUTBOX_DELAY_MS + 5_000);
  expect(world.acknowledged).toBe(3);
  world.restart();
  world.run(OUTBOX_DELAY_MS + 5_000);
  expect(world.sends.map(({ fromN, toN }) => [fromN, toN])).toEqual([
    [0, 5],
    [3, 5],
  ]);
  expect(world.acknowledged).toBe(5);
});
