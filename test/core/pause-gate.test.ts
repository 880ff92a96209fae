// Work waits during a pause and never fails because of it; a mutex runs work in order; a bounded map stays bounded.
import { expect, test } from "vitest";
import { BoundedMap } from "../../src/core/concurrency/bounded-map.ts";
import { Mutex } from "../../src/core/concurrency/mutex.ts";
import { PauseGate } from "../../src/core/concurrency/pause-gate.ts";

/** Longer than any wait of these tests, so that the bound does not end a pause. */
const LONG_MS = 60_000;

test("work that arrives during a pause waits and then runs", async () => {
  const gate = new PauseGate();
  const done: string[] = [];
  const running = Promise.withResolvers<void>();
  const first = gate.run(() => running.promise.then(() => done.push("first")));
  const paused = gate.pauseFor({ maxMs: LONG_MS, drainMs: LONG_MS }, async () => done.push("change"));
  const second = gate.run(async () => done.push("second"));
  expect(gate.isPaused).toBe(true);
  running.resolve();
  await Promise.all([first, paused, second]);
  expect(done).toEqual(["first", "change", "second"]);
  expect(gate.isPaused).toBe(false);
});

test("a pause reports work that outlasts it and holds until `resume`", async () => {
  const gate = new PauseGate();
  const running = Promise.withResolvers<void>();
  const first = gate.run(() => running.promise);
  expect(await gate.pause(1)).toBe(false);
  expect(gate.isPaused).toBe(true);
  running.resolve();
  await first;
  expect(await gate.pause(1)).toBe(true);
  const second = gate.run(async () => "ran");
  gate.resume();
  expect(await second).toBe("ran");
});

test("a pause ends after its bound even while its work runs, and ends when its work fails", async () => {
  const gate = new PauseGate();
  const change = Promise.withResolvers<void>();
  const paused = gate.pauseFor({ maxMs: 1, drainMs: LONG_MS }, () => change.promise);
  expect(await gate.run(async () => "ran")).toBe("ran");
  change.reject(new Error("failed"));
  await expect(paused).rejects.toThrow("failed");
  expect(gate.isPaused).toBe(false);
});

test("a waiting caller can give up", async () => {
  const gate = new PauseGate();
  await gate.pause(LONG_MS);
  const giveUp = (): Promise<void> => Promise.reject(new Error("gave up"));
  await expect(gate.run(async () => "ran", giveUp)).rejects.toThrow("gave up");
  gate.resume();
  expect(await gate.run(async () => "ran", giveUp)).toBe("ran");
});

test("a mutex runs work one after the other, also after a failure", async () => {
  const mutex = new Mutex();
  const done: number[] = [];
  const first = mutex.run(() => Promise.reject(new Error("failed")));
  const second = mutex.run(async () => done.push(2));
  const third = mutex.run(async () => done.push(3));
  await expect(first).rejects.toThrow("failed");
  await Promise.all([second, third]);
  expect(done).toEqual([2, 3]);
});

test("a full bounded map drops the entry that was set longest ago", () => {
  const map = new BoundedMap<string, number>(2);
  map.set("a", 1);
  map.set("b", 2);
  map.set("a", 3);
  map.set("c", 4);
  expect([map.get("a"), map.get("b"), map.get("c")]).toEqual([3, undefined, 4]);
  map.delete("a");
  expect(map.get("a")).toBeUndefined();
});
