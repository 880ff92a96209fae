// Carries usage from the queue to the ledger, and the ledger's watermark back to the objects. A batch is written in one
// transaction and acknowledged after its commit; whatever fails in between comes again and changes nothing.
import { controlUsage } from "../adapters/control-usage.ts";
import { connectControl } from "../adapters/neon.ts";
import { UsageMessage } from "../core/usage.ts";
import { describeError, log } from "../log.ts";

export async function consumeUsage(batch: MessageBatch, env: Env): Promise<void> {
  const readable: { message: Message; usage: UsageMessage }[] = [];
  for (const message of batch.messages) {
    const parsed = UsageMessage.safeParse(message.body);
    if (parsed.success) readable.push({ message, usage: parsed.data });
    else {
      // Its retries take it to the dead-letter queue; its rows, if it had any, are sent again by their object.
      log("error", "usage_unreadable", { messageId: message.id });
      message.retry();
    }
  }
  if (readable.length === 0) return;

  const ledger = controlUsage(connectControl(env));
  let watermarks;
  try {
    watermarks = await ledger.record(readable.map(({ usage }) => usage));
  } catch (error) {
    log("warn", "ledger_write_failed", { messages: readable.length, error: describeError(error) });
    for (const { message } of readable) message.retry();
    return;
  }
  for (const { message } of readable) message.ack();

  const told = await Promise.allSettled(
    watermarks.map(({ tenantId, epoch, watermark }) => env.TENANT.getByName(tenantId).acknowledge(epoch, watermark)),
  );
  // An object that was not told sends its rows again and is told then.
  const untold = told.filter(({ status }) => status === "rejected").length;
  if (untold > 0) log("warn", "watermark_not_delivered", { objects: untold });
}
