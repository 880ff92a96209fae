import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { ReportCache } from "../../src/control/report-cache.ts";

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

const options = { cachedMs: 10_000, lookMs: 6_000, maxReports: 10 };

/** A look that takes a second and returns its number. */
function aLook() {
  let looks = 0;
  const look = async (): Promise<number> => {
    const number = (looks += 1);
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    return number;
  };
  return { look, looks: () => looks };
}

test("200 requests at once on a cold isolate make one look, and so do those of the next ten seconds", async () => {
  const cache = new ReportCache<number>(options);
  const { look, looks } = aLook();
  const crowd = Promise.all(Array.from({ length: 200 }, () => cache.get("", look)));
  await vi.advanceTimersByTimeAsync(1_100);
  expect(new Set(await crowd)).toEqual(new Set([1]));
  await vi.advanceTimersByTimeAsync(9_800);
  expect([await cache.get("", look), looks()]).toEqual([1, 1]);
});

test("while one request looks again, the others get the report before", async () => {
  const cache = new ReportCache<number>(options);
  const { look, looks } = aLook();
  const first = cache.get("", look);
  await vi.advanceTimersByTimeAsync(12_000);
  const [looking, other] = [cache.get("", look), cache.get("", look)];
  expect([await first, await other, looks()]).toEqual([1, 1, 2]);
  await vi.advanceTimersByTimeAsync(1_000);
  expect(await looking).toBe(2);
});

test("when the request that looks is cancelled, another one looks", async () => {
  const cache = new ReportCache<number>(options);
  void cache.get("", () => new Promise(() => undefined));
  const { look } = aLook();
  const waiting = cache.get("", look);
  await vi.advanceTimersByTimeAsync(7_100);
  expect(await waiting).toBe(1);
});

test("a look that fails is not kept, and reports of different keys are apart", async () => {
  const cache = new ReportCache<number>(options);
  await expect(cache.get("a", () => Promise.reject(new Error("no")))).rejects.toThrow("no");
  expect(await cache.get("a", async () => 7)).toBe(7);
  expect(await cache.get("b", async () => 8)).toBe(8);
});
