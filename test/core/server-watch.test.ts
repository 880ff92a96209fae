// The watch over a database server that does not answer: one probe asks for all batches that wait.
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { type Server, recordAnswer, watchServer } from "../../src/adapters/neon.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

/** A server whose probes take `probeMs`, and the number of its probes. */
function aServer(probeMs: number): Server & { probes: number } {
  const server = {
    host: crypto.randomUUID(),
    probes: 0,
    async probe(signal: AbortSignal): Promise<void> {
      server.probes += 1;
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      const timer = setTimeout(resolve, probeMs);
      signal.addEventListener("abort", () => (clearTimeout(timer), reject(new Error("aborted"))));
      return promise;
    },
  };
  return server;
}

/** Watches that begin in half a second, and how many of them found the server silent. */
async function watches(server: Server, count: number) {
  const found = { silent: 0 };
  const ends: (() => void)[] = [];
  for (let n = 0; n < count; n += 1) {
    ends.push(watchServer(server, () => void (found.silent += 1)));
    await vi.advanceTimersByTimeAsync(500 / count);
  }
  return { found, end: () => ends.forEach((each) => each()) };
}

test("a hundred batches that wait for a silent server send it one probe, and each learns of it within three seconds", async () => {
  const server = aServer(60_000);
  const { found } = await watches(server, 100);
  await vi.advanceTimersByTimeAsync(3_000);
  expect(found.silent).toBe(100);
  expect(server.probes).toBe(1);
});

test("batches that wait for a server which answers probes are not ended, and send one probe a second together", async () => {
  const server = aServer(50);
  const { found, end } = await watches(server, 100);
  await vi.advanceTimersByTimeAsync(10_000);
  expect(found.silent).toBe(0);
  expect(server.probes).toBeLessThanOrEqual(11);
  end();
});

test("the end of the batch that had sent the probe does not hide a silent server from the others", async () => {
  const server = aServer(60_000);
  const first = watchServer(server, () => undefined);
  await vi.advanceTimersByTimeAsync(500);
  const { found } = await watches(server, 3);
  await vi.advanceTimersByTimeAsync(500);
  first();
  await vi.advanceTimersByTimeAsync(3_500);
  expect(found.silent).toBe(3);
  expect(server.probes).toBe(2);
});

test("a server that has answered another batch is not asked", async () => {
  const server = aServer(60_000);
  const { found, end } = await watches(server, 3);
  for (let n = 0; n < 10; n += 1) {
    recordAnswer(server);
    await vi.advanceTimersByTimeAsync(900);
  }
  end();
  expect(found.silent).toBe(0);
  expect(server.probes).toBe(0);
});
