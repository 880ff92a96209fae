// Consumes the usage queue: writes the rows of a batch to the ledger in one transaction, then acknowledges the messages and
// notifies the tenants' objects. A message that is delivered again changes nothing. A message that can never be written
// becomes a dead letter and does not delay the others. In an outage every message is retried. Metrics come by the same queue;
// they are added after the usage (metrics/metrics-consumer.ts).
import { type Recorded, ledgerStore } from "../control/ledger-store.ts";
import { sqlStateOf } from "../adapters/neon.ts";
import type { Context } from "../control/context.ts";
import { withTimeout } from "../adapters/timeout.ts";
import { USAGE_RETRY_SECONDS, retryAfterSeconds } from "./queue-message.ts";
import { UsageMessage } from "../core/usage.ts";
import { blamesRow, writeWithBisection } from "./bisection.ts";
import { describeError, log } from "../log.ts";
import { isMetrics } from "./metrics/fold.ts";
import { consumeMetrics } from "./metrics/metrics-consumer.ts";
import { type Unusable, keepUnusable } from "./dead-letters/dead-letters.ts";
import { NOTIFY_WITHIN_MS, notifyFallbackCalls } from "./fallback-calls.ts";

/**
 * Finding one bad row among 25 messages of 250 rows costs 27 writes, so this is enough for several. A batch with more bad
 * rows must still end long before the platform ends it.
 */
const MAX_WRITES = 100;

interface Part {
  message: Message;
  usage: UsageMessage;
}

export async function consumeUsage(context: Context, batch: MessageBatch): Promise<void> {
  const startedAtMs = Date.now();
  const parts: Part[] = [];
  const unusable: Unusable[] = [];
  const metrics: Message[] = [];
  for (const message of batch.messages) {
    if (isMetrics(message.body)) {
      metrics.push(message);
      continue;
    }
    const parsed = UsageMessage.safeParse(message.body);
    if (parsed.success) parts.push({ message, usage: parsed.data });
    else unusable.push({ message, why: "unreadable" });
  }

  const ledger = ledgerStore(context.control);
  let recorded: Recorded[] = [];
  let waiting = new Set<Message>();
  try {
    const outcome = await writeWithBisection<Part, Recorded>(parts, {
      write: (some) => ledger.record(some.map(({ usage }) => usage)),
      isRefusal: blamesRow,
      split: halvesOf,
      maxWrites: MAX_WRITES,
    });
    recorded = outcome.written;
    waiting = new Set(outcome.left.map(({ message }) => message));
    const refused = new Map(outcome.refused.map(({ part, error }) => [part.message, sqlStateOf(error)] as const));
    for (const [message, sqlState] of refused) unusable.push({ message, why: `refused: SQLSTATE ${sqlState}` });
  } catch (error) {
    log("warn", "ledger_write_failed", { messages: parts.length, error: describeError(error) });
    waiting = new Set(parts.map(({ message }) => message));
  }
  for (const message of waiting) {
    message.retry({ delaySeconds: retryAfterSeconds(message.attempts, USAGE_RETRY_SECONDS) });
  }
  const unusableMessages = new Set(unusable.map(({ message }) => message));
  // A message with a bad row is kept whole: when it is replayed, its other rows change nothing.
  for (const { message } of parts) if (!waiting.has(message) && !unusableMessages.has(message)) message.ack();
  await keepUnusable(
    context,
    unusable.filter(({ message }) => !waiting.has(message)),
  );

  await notifyObjects(context, recorded);
  const again = await consumeMetrics(context, metrics);
  log("info", "queue_batch", {
    ...{ queue: batch.queue, messages: batch.messages.length, metrics: metrics.length, attempts: mostAttempts(batch) },
    rows: parts.reduce((sum, { usage }) => sum + usage.rows.length, 0),
    tenants: new Set(parts.map(({ usage }) => usage.tenantId)).size,
    ...{ retried: waiting.size + again, dead: unusable.length, oldestMs: oldestMs(batch, startedAtMs) },
    ms: Date.now() - startedAtMs,
  });
}

/** Age of the batch's oldest message when it arrived here. */
export function oldestMs({ messages }: MessageBatch, nowMs: number): number {
  return Math.max(0, nowMs - Math.min(...messages.map(({ timestamp }) => timestamp.getTime()), nowMs));
}

export function mostAttempts({ messages }: MessageBatch): number {
  return Math.max(0, ...messages.map(({ attempts }) => attempts));
}

/** Sends each object its watermark. An object that misses it sends its rows again and then gets a new one. */
async function notifyObjects(context: Context, recorded: readonly Recorded[]): Promise<void> {
  const answers = await Promise.allSettled([
    notifyFallbackCalls(
      context,
      recorded.flatMap(({ uncounted }) => uncounted),
    ),
    ...recorded
      .flatMap(({ watermarks }) => watermarks)
      .map(({ tenantId, epoch, watermark }) =>
        withTimeout(NOTIFY_WITHIN_MS, context.tenantObject(tenantId).acknowledge(epoch, watermark)),
      ),
  ]);
  const failed = answers.filter(({ status }) => status === "rejected").length;
  if (failed > 0) log("warn", "watermark_not_delivered", { objects: failed });
}

/** A message as two halves of its rows. A single row cannot be split. */
function halvesOf({ message, usage }: Part): readonly [Part, Part] | undefined {
  const { rows } = usage;
  if (rows.length < 2) return undefined;
  const middle = Math.ceil(rows.length / 2);
  return [
    { message, usage: { ...usage, rows: rows.slice(0, middle) } },
    { message, usage: { ...usage, rows: rows.slice(middle) } },
  ];
}
