// Carries usage from the queue to the ledger, and what the ledger then has back to the objects. A batch is written in one
// transaction and acknowledged after its commit; whatever fails in between comes again and changes nothing. A message that
// is at fault itself is kept as a dead letter and keeps nobody waiting; in an outage all wait and are tried again.
import { type Recorded, ledgerStore } from "../control/ledger-store.ts";
import { connectControl, sqlStateOf } from "../adapters/neon.ts";
import { withTimeout } from "../adapters/timeout.ts";
import { USAGE_RETRY_SECONDS, retryAfterSeconds } from "./dead-letter.ts";
import { UsageMessage } from "../core/usage.ts";
import { writeWithBisection } from "./bisection.ts";
import { describeError, log } from "../log.ts";
import { type Unusable, keepUnusable } from "./dead-letters.ts";
import { TELL_WITHIN_MS, notifyFallbackCalls } from "./fallback-calls.ts";

/**
 * One bad row among 25 messages of 250 costs 27 writes to find. More than this is no accident of single rows, and a batch
 * must end long before the platform ends it.
 */
const MAX_WRITES = 100;

/** What PostgreSQL says when the fault is a row's: classes 22 (data) and 23 (constraint). All else is ours, or an outage. */
const faultOfARow = /^2[23]/;

interface Part {
  message: Message;
  usage: UsageMessage;
}

export async function consumeUsage(batch: MessageBatch, env: Env): Promise<void> {
  const parts: Part[] = [];
  const unusable: Unusable[] = [];
  for (const message of batch.messages) {
    const parsed = UsageMessage.safeParse(message.body);
    if (parsed.success) parts.push({ message, usage: parsed.data });
    else unusable.push({ message, why: "unreadable" });
  }

  const ledger = ledgerStore(connectControl(env));
  let recorded: Recorded[] = [];
  let waiting = new Set<Message>();
  try {
    const outcome = await writeWithBisection<Part, Recorded>(parts, {
      write: (some) => ledger.record(some.map(({ usage }) => usage)),
      isRefusal: (error) => faultOfARow.test(sqlStateOf(error) ?? ""),
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
  const settled = new Set(unusable.map(({ message }) => message));
  // A message that has a bad row is kept whole: sent again, its other rows change nothing.
  for (const { message } of parts) if (!waiting.has(message) && !settled.has(message)) message.ack();
  await keepUnusable(
    env,
    unusable.filter(({ message }) => !waiting.has(message)),
  );

  await tellObjects(env, recorded);
}

/** Whoever is not told now sends again and is told then, or is told by the sweep. */
async function tellObjects(env: Env, recorded: readonly Recorded[]): Promise<void> {
  const told = await Promise.allSettled([
    notifyFallbackCalls(
      env,
      recorded.flatMap(({ uncounted }) => uncounted),
    ),
    ...recorded
      .flatMap(({ watermarks }) => watermarks)
      .map(({ tenantId, epoch, watermark }) =>
        withTimeout(TELL_WITHIN_MS, env.TENANT.getByName(tenantId).acknowledge(epoch, watermark)),
      ),
  ]);
  const untold = told.filter(({ status }) => status === "rejected").length;
  if (untold > 0) log("warn", "watermark_not_delivered", { objects: untold });
}

/** Half of a message's rows each. One of a single row cannot be smaller. */
function halvesOf({ message, usage }: Part): readonly [Part, Part] | undefined {
  const { rows } = usage;
  if (rows.length < 2) return undefined;
  const middle = Math.ceil(rows.length / 2);
  return [
    { message, usage: { ...usage, rows: rows.slice(0, middle) } },
    { message, usage: { ...usage, rows: rows.slice(middle) } },
  ];
}
