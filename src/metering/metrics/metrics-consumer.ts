// Adds the folds of a queue batch to the metrics in the control tables, and acknowledges them to the tenants' objects. It runs
// after the batch's usage is stored, and never delays or fails it.
import { sqlStateOf } from "../../adapters/neon.ts";
import { withTimeout } from "../../adapters/timeout.ts";
import type { Context } from "../../control/context.ts";
import { describeError, log } from "../../log.ts";
import { blamesRow, writeWithBisection } from "../bisection.ts";
import { NOTIFY_WITHIN_MS } from "../fallback-calls.ts";
import { USAGE_RETRY_SECONDS, retryAfterSeconds } from "../queue-message.ts";
import { type Cell, MetricsMessage } from "./fold.ts";
import { type Moved, metricsStore } from "./metrics-store.ts";

/** Enough to find several bad messages among the 25 of a batch. */
const MAX_WRITES = 50;
/** Analytics Engine takes this many points in one invocation. */
const MAX_POINTS = 250;

interface Part {
  message: Message;
  metrics: MetricsMessage;
}

/** `messages` are metrics messages, well-formed or not. Returns how many must be delivered again. */
export async function consumeMetrics(context: Context, messages: readonly Message[]): Promise<number> {
  const parts: Part[] = [];
  for (const message of messages) {
    const parsed = MetricsMessage.safeParse(message.body);
    if (parsed.success) parts.push({ message, metrics: parsed.data });
    else drop(message, "unreadable");
  }
  if (parts.length === 0) return 0;
  let left: readonly Part[] = parts;
  try {
    const outcome = await writeWithBisection<Part, Moved[]>(parts, {
      write: (some) => metricsStore(context.control).add(some.map(({ metrics }) => metrics)),
      isRefusal: blamesRow,
      split: () => undefined,
      maxWrites: MAX_WRITES,
    });
    ({ left } = outcome);
    for (const { part, error } of outcome.refused) drop(part.message, `refused: SQLSTATE ${sqlStateOf(error)}`);
    writePoints(context, parts, outcome.written.flat());
  } catch (error) {
    log("warn", "metrics_not_added", { messages: parts.length, error: describeError(error) });
  }
  const again = new Set(left);
  for (const { message } of again) {
    message.retry({ delaySeconds: retryAfterSeconds(message.attempts, USAGE_RETRY_SECONDS) });
  }
  const done = parts.filter((part) => !again.has(part));
  for (const { message } of done) message.ack();
  await acknowledge(
    context,
    done.map(({ metrics }) => metrics),
  );
  return again.size;
}

/** A message that can never be added. Its figures are lost; the ledger has its charges. */
function drop(message: Message, why: string): void {
  log("error", "metrics_dropped", { messageId: message.id, why });
  message.ack();
}

/** An object that misses it sends its folds again, which changes nothing, and is then acknowledged. */
async function acknowledge(context: Context, messages: readonly MetricsMessage[]): Promise<void> {
  const answers = await Promise.allSettled(
    messages.map(({ tenantId, epoch, folds }) => {
      const n = Math.max(...folds.map((fold) => fold.n));
      return withTimeout(NOTIFY_WITHIN_MS, context.tenantObject(tenantId).acknowledgeMetrics(epoch, n));
    }),
  );
  const failed = answers.filter(({ status }) => status === "rejected").length;
  if (failed > 0) log("warn", "metrics_not_acknowledged", { objects: failed });
}

/**
 * The binding METRICS (Analytics Engine), where a deployment has one: a point for each cell that was added. A crash right after
 * the write loses points, so they are for looking, not for counting.
 */
function writePoints({ env }: Context, parts: readonly Part[], moved: readonly Moved[]): void {
  const dataset = datasetOf(env);
  if (dataset === undefined) return;
  const points: { tenantId: string; plan: string; cell: Cell }[] = [];
  for (const { tenantId, epoch, previous, n: last, plan } of moved) {
    const numbers = new Set<number>();
    for (const { metrics } of parts.filter(
      (part) => part.metrics.tenantId === tenantId && part.metrics.epoch === epoch,
    ))
      for (const { n, cells } of metrics.folds) {
        if (n <= previous || n > last || numbers.has(n)) continue;
        numbers.add(n);
        points.push(...cells.map((cell) => ({ tenantId, plan, cell })));
      }
  }
  for (const { tenantId, plan, cell } of points.slice(0, MAX_POINTS)) {
    const { hourMs, tool, caller, outcome, code, calls, units, ms, dbMs, latency } = cell;
    dataset.writeDataPoint({
      indexes: [tenantId],
      blobs: [tool, caller, outcome, code, plan],
      doubles: [calls, units, ms, dbMs, hourMs, ...latency.slice(0, 15)],
    });
  }
  if (points.length > MAX_POINTS) log("warn", "metrics_points_left_out", { points: points.length - MAX_POINTS });
}

/** Optional, so it is not among the generated bindings. */
function datasetOf(env: Env): AnalyticsEngineDataset | undefined {
  const binding: unknown = Reflect.get(env, "METRICS");
  const isDataset = typeof binding === "object" && binding !== null && "writeDataPoint" in binding;
  return isDataset ? (binding as AnalyticsEngineDataset) : undefined;
}
