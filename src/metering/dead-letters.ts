// Keeps messages of the usage queue that could not be taken: at once those that are at fault themselves, and those that the
// platform gave up on from the queue that it puts them into. Each is acknowledged after it is kept.
import { connectControl } from "../adapters/neon.ts";
import { deadLettersStore } from "./dead-letters-store.ts";
import { DEAD_RETRY_SECONDS, retryAfterSeconds, textOfBody } from "./dead-letter.ts";
import { describeError, log } from "../log.ts";

/** The queue that wrangler.toml names for messages whose retries are used up. */
export const DEAD_QUEUE = "tollgate-usage-dead";

export interface Unusable {
  message: Message;
  /** In our words. */
  why: string;
}

/** What the platform gave up on. */
export function consumeDeadLetters({ messages }: MessageBatch, env: Env): Promise<void> {
  return keepUnusable(
    env,
    messages.map((message) => ({ message, why: "every retry failed" })),
  );
}

/** Keeps these messages and takes them out of their queue; in an outage they stay there and come again. */
export async function keepUnusable(env: Env, unusable: readonly Unusable[]): Promise<void> {
  if (unusable.length === 0) return;
  try {
    await deadLettersStore(connectControl(env)).keep(
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
