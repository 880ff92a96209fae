import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type IncomingMessage } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import * as z from "zod";
import { type Listening, listenOnLoopback } from "../../dev/loopback.ts";
import { type Monitor, startMonitor } from "../../dev/monitor.ts";

let folder: string;
let monitor: Monitor;
let target: Listening;
let status: number;
let probes: IncomingMessage[];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "tollgate-monitor-test-"));
  status = 200;
  probes = [];
  target = await listenOnLoopback(
    createServer((request, response) => {
      probes.push(request);
      if (status !== 0) response.writeHead(status, status === 302 ? { location: "http://192.0.2.1/" } : {}).end("body");
    }),
    0,
  );
  monitor = await startMonitor({ port: 0, databaseFile: join(folder, "monitor.db") });
});

afterEach(async () => {
  await monitor.close();
  await target.close();
  await rm(folder, { recursive: true, force: true });
});

async function call(method: string, path: string, body?: unknown): Promise<{ status: number; body: unknown }> {
  const response = await fetch(`${monitor.url}${path}`, {
    method,
    ...(body !== undefined && { body: typeof body === "string" ? body : JSON.stringify(body) }),
  });
  const text = await response.text();
  return { status: response.status, body: text === "" ? undefined : JSON.parse(text) };
}

function aMonitor(overrides: object = {}): object {
  return { url: `${target.url}/health?tenant=t1`, intervalSeconds: 0.1, ...overrides };
}

const lastProbe = z.object({ lastProbeAt: z.string().nullable() });

test("a monitor sends its first probe after one interval, then one each interval, with its headers", async () => {
  const created = await call("PUT", "/monitors/t1", aMonitor({ headers: { authorization: "Bearer secret" } }));
  expect(created).toEqual({
    status: 201,
    body: {
      id: "t1",
      url: `${target.url}/health?tenant=t1`,
      headerNames: ["authorization"],
      intervalSeconds: 0.1,
      lastStatus: null,
      lastError: null,
      lastProbeAt: null,
      consecutiveFailures: 0,
    },
  });
  expect(probes).toHaveLength(0);
  await expect.poll(() => probes.length).toBeGreaterThanOrEqual(2);
  expect(probes[0]).toMatchObject({ url: "/health?tenant=t1", headers: { authorization: "Bearer secret" } });
  await expect.poll(async () => (await call("GET", "/monitors/t1")).body).toMatchObject({ lastStatus: 200 });
  const all = await call("GET", "/monitors");
  expect(all.body).toMatchObject({ monitors: [{ id: "t1", lastStatus: 200, consecutiveFailures: 0 }] });
  expect(JSON.stringify(all.body)).not.toContain("secret");
});

test("a monitor counts failures until the next success", async () => {
  status = 503;
  await call("PUT", "/monitors/t1", aMonitor());
  const state = async () => (await call("GET", "/monitors/t1")).body;
  const failed = { lastStatus: 503, lastError: "status 503", consecutiveFailures: expect.toSatisfy((n) => n >= 2) };
  await expect.poll(state).toMatchObject(failed);
  status = 200;
  await expect.poll(state).toMatchObject({ lastStatus: 200, lastError: null, consecutiveFailures: 0 });
});

test("a monitor counts an unreachable target and a redirect as failures", async () => {
  const gone = await listenOnLoopback(createServer(), 0);
  await gone.close();
  status = 302;
  await call("PUT", "/monitors/gone", aMonitor({ url: gone.url }));
  await call("PUT", "/monitors/moved", aMonitor());
  await expect
    .poll(async () => (await call("GET", "/monitors/gone")).body)
    .toMatchObject({ lastStatus: null, lastError: expect.stringContaining("ECONNREFUSED") });
  await expect
    .poll(async () => (await call("GET", "/monitors/moved")).body)
    .toMatchObject({ lastStatus: 302, consecutiveFailures: expect.toSatisfy((n) => n >= 1) });
});

test("an identical PUT changes nothing, and a different PUT restarts the monitor", async () => {
  await call("PUT", "/monitors/t1", aMonitor());
  // Repeated PUTs must not postpone the first probe.
  await expect
    .poll(async () => lastProbe.parse((await call("PUT", "/monitors/t1", aMonitor())).body).lastProbeAt, {
      interval: 20,
    })
    .not.toBeNull();
  const changed = await call("PUT", "/monitors/t1", aMonitor({ intervalSeconds: 60 }));
  expect(changed).toMatchObject({ status: 200, body: { lastProbeAt: null, intervalSeconds: 60 } });
});

test("a removed monitor sends no more probes, and a second removal succeeds", async () => {
  await call("PUT", "/monitors/t1", aMonitor());
  expect((await call("DELETE", "/monitors/t1")).status).toBe(204);
  expect((await call("DELETE", "/monitors/t1")).status).toBe(204);
  expect((await call("GET", "/monitors/t1")).status).toBe(404);
  await call("PUT", "/monitors/other", aMonitor({ url: `${target.url}/other` }));
  await expect.poll(() => probes.length).toBeGreaterThanOrEqual(2);
  expect(new Set(probes.map(({ url }) => url))).toEqual(new Set(["/other"]));
});

test("monitors survive a restart of the process", async () => {
  await call("PUT", "/monitors/t1", aMonitor());
  // A second instance on the same file simulates a start after a kill.
  const second = await startMonitor({ port: 0, databaseFile: join(folder, "monitor.db") });
  const response = await fetch(`${second.url}/monitors/t1`);
  expect(await response.json()).toMatchObject({ id: "t1", intervalSeconds: 0.1 });
  await second.close();
});

test("close does not wait for a target that does not answer", async () => {
  status = 0;
  await call("PUT", "/monitors/t1", aMonitor());
  await expect.poll(() => probes.length).toBe(1);
  const startedAtMs = performance.now();
  await monitor.close();
  expect(performance.now() - startedAtMs).toBeLessThan(4_000);
  monitor = await startMonitor({ port: 0 });
});

test.each([
  ["{", "t1"],
  [{}, "t1"],
  [{ url: "http://192.0.2.1/health", intervalSeconds: 60 }, "t1"],
  [{ url: "http://127.0.0.1.example.com/", intervalSeconds: 60 }, "t1"],
  [{ url: "file:///etc/passwd", intervalSeconds: 60 }, "t1"],
  [{ url: "http://127.0.0.1/", intervalSeconds: 0 }, "t1"],
  [{ url: "http://127.0.0.1/", intervalSeconds: 60, headers: { a: 1 } }, "t1"],
  [{ url: "http://127.0.0.1/", intervalSeconds: 60 }, "a%20b"],
])("%j as %s is refused with a reason", async (body, id) => {
  expect(await call("PUT", `/monitors/${id}`, body)).toEqual({ status: 400, body: { error: expect.any(String) } });
  expect((await call("GET", "/monitors")).body).toEqual({ monitors: [] });
});
