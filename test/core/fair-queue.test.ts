// Which tenant gets the next database slot of an isolate: higher plans first, and no tenant starves.
import fc from "fast-check";
import { afterEach, expect, test, vi } from "vitest";
import { FairQueue, type Job } from "../../src/core/concurrency/fair-queue.ts";
import { plans, weightOf } from "../../src/core/plans/plans.ts";
import { withSlot } from "../../src/tenant-db/database-slots.ts";

afterEach(() => {
  vi.useRealTimers();
});

const weights: Readonly<Record<string, number>> = { free1: 1, free2: 1, starter: 2, pro: 4, enterprise: 8 };
const tenants = Object.keys(weights);
const tenant = fc.constantFrom(...tenants);
const roomy = { capacity: 1, reserved: 0, perTenant: 1 };

test("places are never exceeded, and none stays empty while a job may have it", () => {
  const options = { capacity: 4, reserved: 1, perTenant: 3 };
  fc.assert(
    fc.property(fc.array(fc.oneof(tenant, fc.nat(20)), { maxLength: 200 }), (steps) => {
      const queue = new FairQueue(options);
      const running: Job[] = [];
      const waiting = new Set<Job>();
      for (const step of steps) {
        if (typeof step === "string") waiting.add(queue.add(step, weights[step] ?? 1, 0));
        else {
          const [ended] = running.splice(step % Math.max(running.length, 1), 1);
          if (ended !== undefined) queue.end(ended);
        }
        for (let job = queue.next(0); job !== undefined; job = queue.next(0)) {
          expect(waiting.delete(job)).toBe(true);
          running.push(job);
        }
        const of = (name: string): number => running.filter((job) => job.tenant === name).length;
        expect(running.length).toBeLessThanOrEqual(options.capacity);
        for (const name of tenants) expect(of(name)).toBeLessThanOrEqual(options.perTenant);
        for (const { tenant: name, weight } of waiting) {
          const places = weight > 1 ? options.capacity : options.capacity - options.reserved;
          expect(running.length >= places || of(name) >= options.perTenant).toBe(true);
        }
        expect([queue.running, queue.waiting]).toEqual([running.length, waiting.size]);
      }
    }),
  );
});

test("the first job of a tenant waits for at most w'/w + 1 jobs of each other tenant, however many they add", () => {
  fc.assert(
    fc.property(
      tenant,
      fc.array(tenant, { maxLength: 60 }),
      fc.array(tenant, { maxLength: 200 }),
      (own, before, later) => {
        const queue = new FairQueue(roomy);
        let current = queue.add("free1", 1, 0);
        queue.next(0);
        for (const other of before) if (other !== own) queue.add(other, weights[other] ?? 1, 0);
        const first = queue.add(own, weights[own] ?? 1, 0);
        const served = new Map<string, number>();
        const adding = later.values();
        while (first.state === "waiting") {
          for (const other of [adding.next().value, adding.next().value])
            if (other !== undefined && other !== own) queue.add(other, weights[other] ?? 1, 0);
          queue.end(current);
          current = queue.next(0) ?? expect.fail("a place is free and a job waits");
          served.set(current.tenant, (served.get(current.tenant) ?? 0) + 1);
        }
        for (const [other, jobs] of served)
          if (other !== own) expect(jobs).toBeLessThanOrEqual((weights[other] ?? 1) / (weights[own] ?? 1) + 1);
      },
    ),
  );
});

test("tenants that always wait get places in proportion to their weights", () => {
  const queue = new FairQueue(roomy);
  const served = new Map<string, number>();
  for (const name of tenants) for (let n = 0; n < 3; n += 1) queue.add(name, weights[name] ?? 1, 0);
  for (let n = 0; n < 1_600; n += 1) {
    const job = queue.next(0) ?? expect.fail("a place is free and a job waits");
    served.set(job.tenant, (served.get(job.tenant) ?? 0) + 1);
    queue.end(job);
    queue.add(job.tenant, job.weight, 0);
  }
  for (const name of tenants) expect(Math.abs((served.get(name) ?? 0) - (weights[name] ?? 0) * 100)).toBeLessThan(5);
});

test("a job of a higher plan that arrives goes before those that wait", () => {
  const queue = new FairQueue(roomy);
  const current = queue.add("free1", 1, 0);
  queue.next(0);
  for (let n = 0; n < 20; n += 1) queue.add(n % 2 === 0 ? "free1" : "free2", 1, 0);
  const pro = queue.add("pro", 4, 0);
  queue.end(current);
  expect(queue.next(0)).toBe(pro);
});

test("jobs of the lowest plan leave places for the others", () => {
  const queue = new FairQueue({ capacity: 4, reserved: 1, perTenant: 4 });
  for (let n = 0; n < 10; n += 1) queue.add("free1", 1, 0);
  const started = [queue.next(0), queue.next(0), queue.next(0), queue.next(0)];
  expect(started.map((job) => job?.tenant)).toEqual(["free1", "free1", "free1", undefined]);
  expect(queue.next(0)).toBeUndefined();
  expect(queue.next(0) ?? queue.add("pro", 4, 0)).toMatchObject({ tenant: "pro" });
  expect(queue.next(0)).toMatchObject({ tenant: "pro", state: "running" });
});

test("a place whose owner died is given to others after a while", () => {
  const queue = new FairQueue(roomy);
  const dead = queue.add("free1", 1, 0);
  queue.next(0);
  const forgotten = queue.add("free1", 1, 0);
  queue.expire(1_000, { runMs: 30_000, waitMs: 2_000 });
  expect([dead.state, forgotten.state]).toEqual(["running", "waiting"]);
  const alive = queue.add("free2", 1, 30_000);
  queue.expire(30_001, { runMs: 30_000, waitMs: 2_000 });
  expect([dead.state, forgotten.state]).toEqual(["over", "over"]);
  expect(queue.next(30_001)).toBe(alive);
  queue.end(dead);
  expect(queue.running).toBe(1);
});

test("while the lowest plan fills its slots, a statement of a higher plan is sent at once, and none waits over a second", async () => {
  vi.useFakeTimers();
  const started: string[] = [];
  const { promise: answered, resolve: answer } = Promise.withResolvers<void>();
  const send = (name: string, weight: number, signal?: AbortSignal) =>
    withSlot(
      { tenant: name, weight },
      () => {
        started.push(name);
        return answered;
      },
      signal,
    );
  const all = Array.from({ length: 30 }, (_, n) => send(`free${n % 3}`, 1));
  await vi.advanceTimersByTimeAsync(0);
  expect(started).toHaveLength(12);
  all.push(send("pro", 4));
  expect(started.at(-1)).toBe("pro");
  const leaving = new AbortController();
  all.push(send("gone", 1, leaving.signal));
  leaving.abort();
  await vi.advanceTimersByTimeAsync(1_000);
  expect(started).toHaveLength(32);
  answer();
  await Promise.all(all);
  // Every slot is free again.
  started.length = 0;
  await Promise.all(Array.from({ length: 12 }, (_, n) => send(`free${n % 3}`, 1)));
  expect(started).toHaveLength(12);
});

test("a plan has twice the weight of the next cheaper one; a plan by contract has the most", () => {
  const byPrice = [...plans.values()].toSorted((a, b) => (a.amountCents ?? Infinity) - (b.amountCents ?? Infinity));
  expect(byPrice.map(({ name }) => weightOf(name))).toEqual([1, 2, 4, 8]);
  expect(weightOf("unknown")).toBe(1);
});
