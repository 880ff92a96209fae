// Stores dead letters: usage messages that can never be written to the ledger, and messages whose retries the platform has
// used up. A message is acknowledged only after it is stored.
import type { Context } from "../../control/context.ts";
import { deadLettersStore } from "./dead-letters-store.ts";
import { DEAD_RETRY_SECONDS, retryAfterSeconds, textOfBody } from "../queue-message.ts";
import { describeError, log } from "../../log.ts";

/** The dead-letter queue in wrangler.toml. The platform moves a message into it after the last retry. */
export const DEAD_QUEUE = "tollgate-usage-dead";

export interface Unusable {
  message: Message;
  /** The reason for the operator, in Tollgate's words. */
  why: string;
}

/** Consumes the dead-letter queue. */
export async function consumeDeadLetters(context: Context, { queue, messages }: MessageBatch): Promise<void> {
  const startedAtMs = Date.now();
  await keepUnusable(
    context,
    messages.map((message) => ({ message, why: "every retry failed" })),
  );
  log("info", "queue_batch", { queue, messages: messages.length, ms: Date.now() - startedAtMs });
}

/** Stores these messages as dead letters and acknowledges them. If they cannot be stored, the queue delivers them again. */
export async function keepUnusable({ control }: Context, unusable: readonly Unusable[]): Promise<void> {
  if (unusable.length === 0) return;
  try {
    await deadLettersStore(control).keep(
      unusable.map(({ message, why }) => ({ id: message.id, body: textOfBody(message.body), why })),
    );
  } catch (error) {
    log("error", "dead_letters_not_kept", { messages: unusable.length, error: describeError(error) });
    for (const { message } of unusable) {
      message.retry({ delaySeconds: retryAfterSeconds(message.attempts, DEAD_RETRY_SECONDS) });
    }
    return;
  }
  for (const { message, why } of unusable) {
    message.ack();
    log("error", "dead_letter_kept", { messageId: message.id, why });
  }
}
