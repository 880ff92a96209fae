// Stand-in for an uptime monitor: probes each registered address at its interval, and receives alarms.
// Decides when a monitor is due and what a failure is: no answer within the time limit, or a status other than 2xx.
// Invariants: state is in SQLite before a request is answered, so a kill loses nothing; registering an unchanged monitor does
// not move its next probe; probes stay on this machine; header values are secrets and never shown.
import { Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import { DatabaseSync } from "node:sqlite";
import { z } from "zod";
import { serveOnLoopback } from "./loopback.ts";

const PROBE_TIMEOUT_MS = 5_000;
/** Several at once, so that a slow target does not delay the others; few enough not to load the machine. */
const MAX_PROBES_AT_ONCE = 8;
/** Short enough for intervals of a tenth of a second. */
const TICK_MS = 50;
const MAX_BODY_BYTES = 64 * 1024;

/** More than anybody reads. */
const MAX_ALARMS = 200;

const AlarmSetting = z.strictObject({ takesAlarms: z.boolean() });

const LOOPBACK_HOSTS = /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/;

const MonitorRequest = z.strictObject({
  url: z
    .url({ protocol: /^https?$/ })
    .refine((url) => LOOPBACK_HOSTS.test(new URL(url).hostname), "is not an address of this machine"),
  headers: z.record(z.string(), z.string()).default({}),
  /** At most a day. */
  intervalSeconds: z.number().min(0.1).max(86_400),
});
const MonitorId = z.string().regex(/^[\w.-]{1,100}$/, "is not made of 1 to 100 letters, digits, dots, dashes");

const MonitorRow = z.object({
  id: z.string(),
  url: z.string(),
  headers: z.string(),
  intervalMs: z.number(),
  nextProbeAtMs: z.number(),
  lastStatus: z.number().nullable(),
  lastError: z.string().nullable(),
  lastProbeAtMs: z.number().nullable(),
  consecutiveFailures: z.number(),
});
type MonitorRow = z.output<typeof MonitorRow>;

export interface Monitor {
  url: string;
  /** Aborts running probes, which leave no result. */
  close(): Promise<void>;
}

/**
 * Starts the monitor on 127.0.0.1; port 0 takes a free one. Without `databaseFile` it forgets everything when closed.
 * `PUT /monitors/:id` with `{ url, headers?, intervalSeconds }`, `GET /monitors`, `GET` and `DELETE /monitors/:id`.
 * `POST /alarms` takes one, unless `PUT /alarms` with `{ takesAlarms: false }` came before; `GET /alarms` lists them.
 */
export async function startMonitor(options: {
  port: number;
  databaseFile?: string;
  log?: (line: string) => void;
}): Promise<Monitor> {
  const log = options.log ?? (() => undefined);
  const database = new DatabaseSync(options.databaseFile ?? ":memory:");
  database.exec(`
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    CREATE TABLE IF NOT EXISTS monitor (
      id TEXT PRIMARY KEY, url TEXT NOT NULL, headers TEXT NOT NULL, intervalMs REAL NOT NULL,
      nextProbeAtMs REAL NOT NULL, lastStatus INTEGER, lastError TEXT, lastProbeAtMs REAL,
      consecutiveFailures INTEGER NOT NULL DEFAULT 0
    ) STRICT`);
  const selectOne = database.prepare("SELECT * FROM monitor WHERE id = ?");
  const selectAll = database.prepare("SELECT * FROM monitor ORDER BY id");
  const selectDue = database.prepare("SELECT * FROM monitor WHERE nextProbeAtMs <= ? ORDER BY nextProbeAtMs");
  // A change of address or interval starts the schedule anew; the same values change nothing.
  const upsert = database.prepare(`
    INSERT INTO monitor (id, url, headers, intervalMs, nextProbeAtMs) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET url = excluded.url, headers = excluded.headers, intervalMs = excluded.intervalMs,
      nextProbeAtMs = excluded.nextProbeAtMs, lastStatus = NULL, lastError = NULL, lastProbeAtMs = NULL,
      consecutiveFailures = 0
    WHERE (url, headers, intervalMs) IS NOT (excluded.url, excluded.headers, excluded.intervalMs)`);
  const remove = database.prepare("DELETE FROM monitor WHERE id = ?");
  // Discard the result if the monitor was changed or removed during the probe.
  const record = database.prepare(`
    UPDATE monitor SET lastStatus = ?, lastError = ?, lastProbeAtMs = ?, nextProbeAtMs = ? + intervalMs,
      consecutiveFailures = CASE WHEN ? THEN 0 ELSE consecutiveFailures + 1 END
    WHERE id = ? AND url = ? AND headers = ?`);

  const find = (id: string): MonitorRow | undefined => MonitorRow.optional().parse(selectOne.get(id));

  const closing = new AbortController();
  const probing = new Map<string, Promise<void>>();

  async function probe(monitor: MonitorRow): Promise<void> {
    const startedAtMs = Date.now();
    let status: number | null = null;
    let failure: string | null = null;
    try {
      const response = await fetch(monitor.url, {
        headers: z.record(z.string(), z.string()).parse(JSON.parse(monitor.headers)),
        // Do not follow redirects: they could lead away from this machine. Their status is the result.
        redirect: "manual",
        signal: AbortSignal.any([closing.signal, AbortSignal.timeout(PROBE_TIMEOUT_MS)]),
      });
      await response.body?.cancel();
      status = response.status;
      if (!response.ok) failure = `status ${status}`;
    } catch (error) {
      failure = error instanceof Error ? describe(error) : String(error);
    }
    if (closing.signal.aborted) return;
    if (failure !== null) log(`monitor: ${monitor.id} failed: ${failure}`);
    const isHealthy = failure === null ? 1 : 0;
    record.run(status, failure, startedAtMs, startedAtMs, isHealthy, monitor.id, monitor.url, monitor.headers);
  }

  const timer = setInterval(() => {
    for (const monitor of MonitorRow.array().parse(selectDue.all(Date.now()))) {
      if (probing.size >= MAX_PROBES_AT_ONCE) return;
      if (probing.has(monitor.id)) continue;
      const done = probe(monitor)
        .catch((error: unknown) => log(`monitor: ${String(error)}`))
        .finally(() => probing.delete(monitor.id));
      probing.set(monitor.id, done);
    }
  }, TICK_MS);

  const app = new Hono();
  const limit = bodyLimit({ maxSize: MAX_BODY_BYTES, onError: (c) => c.json({ error: "body too large" }, 413) });
  app.put("/monitors/:id", limit, async (c) => {
    const id = MonitorId.parse(c.req.param("id"));
    const { url, headers, intervalSeconds } = MonitorRequest.parse(await c.req.json());
    const existed = find(id) !== undefined;
    const intervalMs = intervalSeconds * 1_000;
    upsert.run(id, url, JSON.stringify(headers), intervalMs, Date.now() + intervalMs);
    return c.json(view(MonitorRow.parse(selectOne.get(id))), existed ? 200 : 201);
  });
  app.get("/monitors", (c) => c.json({ monitors: MonitorRow.array().parse(selectAll.all()).map(view) }));
  app.get("/monitors/:id", (c) => {
    const monitor = find(c.req.param("id"));
    return monitor === undefined ? c.json({ error: "no such monitor" }, 404) : c.json(view(monitor));
  });
  app.delete("/monitors/:id", (c) => {
    remove.run(c.req.param("id"));
    return c.body(null, 204);
  });
  // Received alarms, newest last, and whether alarms are accepted.
  const alarms: unknown[] = [];
  let takesAlarms = true;
  app.post("/alarms", limit, async (c) => {
    if (!takesAlarms) return c.json({ error: "the monitor takes no alarms" }, 503);
    alarms.push(await c.req.json());
    if (alarms.length > MAX_ALARMS) alarms.shift();
    return c.body(null, 204);
  });
  app.get("/alarms", (c) => c.json({ alarms }));
  app.put("/alarms", limit, async (c) => {
    ({ takesAlarms } = AlarmSetting.parse(await c.req.json()));
    return c.json({ takesAlarms });
  });
  app.notFound((c) => c.json({ error: `${c.req.method} ${c.req.path} is not simulated` }, 404));
  app.onError((error, c) => {
    if (error instanceof z.ZodError) return c.json({ error: z.prettifyError(error) }, 400);
    if (error instanceof SyntaxError) return c.json({ error: "the body is not JSON" }, 400);
    log(`monitor: ${error.message}`);
    return c.json({ error: "internal error" }, 500);
  });

  const listening = await serveOnLoopback(app.fetch, options.port);
  return {
    url: listening.url,
    close: async () => {
      clearInterval(timer);
      closing.abort();
      await Promise.all([listening.close(), ...probing.values()]);
      database.close();
    },
  };
}

/** A monitor as the API shows it. */
function view(monitor: MonitorRow): object {
  const { id, url, intervalMs, lastStatus, lastError, lastProbeAtMs, consecutiveFailures } = monitor;
  const headerNames = Object.keys(z.record(z.string(), z.string()).parse(JSON.parse(monitor.headers)));
  const lastProbeAt = lastProbeAtMs === null ? null : new Date(lastProbeAtMs).toISOString();
  const intervalSeconds = intervalMs / 1_000;
  return { id, url, headerNames, intervalSeconds, lastStatus, lastError, lastProbeAt, consecutiveFailures };
}

/** The text of a failed fetch. The error itself only says `fetch failed`; its cause has the reason. */
function describe(error: Error): string {
  return error.cause instanceof Error ? error.cause.message : error.message;
}
