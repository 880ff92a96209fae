// A stand-in of an uptime monitor: keeps what it was asked to watch, and looks once per interval.
import { DatabaseSync } from "node:sqlite";
import { type ServerType, serve } from "@hono/node-server";
import { Hono } from "hono";
import * as z from "zod";

const Registration = z.object({
  url: z.url().refine((url) => ["127.0.0.1", "localhost"].includes(new URL(url).hostname), "only loopback addresses are probed"),
  headers: z.record(z.string(), z.string()).default({}),
  intervalSeconds: z.int().min(1).max(86_400).default(60),
});

const TICK_MS = 1_000;
const PROBE_TIMEOUT_MS = 5_000;
/** Probes in one tick; what is due beyond that waits for the next. */
const PROBES_PER_TICK = 20;

interface Monitor {
  id: string;
  url: string;
  headers: string;
  interval_seconds: number;
}

/** Starts on 127.0.0.1. Registrations are kept in `databaseFile`. */
export async function startMonitor({ port, databaseFile = ":memory:" }: { port: number; databaseFile?: string }): Promise<{ url: string; close(): Promise<void> }> {
  const database = new DatabaseSync(databaseFile);
  database.exec(`PRAGMA journal_mode = WAL;
    CREATE TABLE IF NOT EXISTS monitors (id TEXT PRIMARY KEY, url TEXT NOT NULL, headers TEXT NOT NULL, interval_seconds INTEGER NOT NULL,
      due_at_ms INTEGER NOT NULL, last_status INTEGER, last_probe_at TEXT, failures INTEGER NOT NULL DEFAULT 0)`);
  const shown = `id, url, interval_seconds AS intervalSeconds, last_status AS lastStatus, last_probe_at AS lastProbeAt, failures AS consecutiveFailures`;

  const app = new Hono();
  app.get("/monitors", (c) => c.json({ monitors: database.prepare(`SELECT ${shown} FROM monitors ORDER BY id`).all() }));
  app.get("/monitors/:id", (c) => {
    const monitor = database.prepare(`SELECT ${shown} FROM monitors WHERE id = ?`).get(c.req.param("id"));
    return monitor === undefined ? c.json({ error: "there is no such monitor" }, 404) : c.json(monitor);
  });
  app.put("/monitors/:id", async (c) => {
    const parsed = Registration.safeParse(await c.req.json().catch(() => undefined));
    if (!parsed.success) return c.json({ error: z.prettifyError(parsed.error) }, 400);
    const { url, headers, intervalSeconds } = parsed.data;
    database
      .prepare(
        `INSERT INTO monitors (id, url, headers, interval_seconds, due_at_ms) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (id) DO UPDATE SET url = excluded.url, headers = excluded.headers, interval_seconds = excluded.interval_seconds`,
      )
      .run(c.req.param("id"), url, JSON.stringify(headers), intervalSeconds, Date.now() + intervalSeconds * 1000);
    return c.json({ id: c.req.param("id"), url, intervalSeconds });
  });
  app.delete("/monitors/:id", (c) => {
    database.prepare(`DELETE FROM monitors WHERE id = ?`).run(c.req.param("id"));
    return c.body(null, 204);
  });

  const probe = async (monitor: Monitor): Promise<void> => {
    const headers = JSON.parse(monitor.headers) as Record<string, string>;
    const status = await fetch(monitor.url, { headers, signal: AbortSignal.timeout(PROBE_TIMEOUT_MS) }).then(
      async (response) => {
        await response.arrayBuffer();
        return response.status;
      },
      () => 0,
    );
    database
      .prepare(`UPDATE monitors SET last_status = ?, last_probe_at = ?, failures = CASE WHEN ? = 200 THEN 0 ELSE failures + 1 END WHERE id = ?`)
      .run(status, new Date().toISOString(), status, monitor.id);
  };
  let probing: Promise<unknown> = Promise.resolve();
  const timer = setInterval(() => {
    const due = database
      .prepare(`UPDATE monitors SET due_at_ms = ? + interval_seconds * 1000 WHERE id IN (SELECT id FROM monitors WHERE due_at_ms <= ? LIMIT ?) RETURNING id, url, headers, interval_seconds`)
      .all(Date.now(), Date.now(), PROBES_PER_TICK) as unknown as Monitor[];
    if (due.length > 0) probing = Promise.all([probing, ...due.map(probe)]);
  }, TICK_MS);

  const server = await new Promise<ServerType>((resolve, reject) => {
    const started = serve({ fetch: app.fetch, port, hostname: "127.0.0.1" }, () => resolve(started));
    started.once("error", reject);
  });
  const address = server.address();
  return {
    url: `http://127.0.0.1:${typeof address === "object" && address !== null ? address.port : port}`,
    async close() {
      clearInterval(timer);
      await probing;
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
        if ("closeAllConnections" in server) server.closeAllConnections();
      });
      database.close();
    },
  };
}
