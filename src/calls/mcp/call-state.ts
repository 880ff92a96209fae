// What a client keeps for the server between two rounds of one call, as `requestState` (MCP 2026-07-28): the answers so far, and
// the idempotency key that makes the rounds one call. It is signed, so that a client sends back only what it was given, and bound to
// the caller. It is not encrypted: it has nothing that the client has not said itself.
import { type ServerContext, createRequestStateCodec } from "@modelcontextprotocol/server";
import * as z from "zod";
import type { Answered } from "../../core/call.ts";
import { newestRootKey } from "../../core/keys/root-keys.ts";

/** A person may look something up before they answer. */
const STATE_LIFE_SECONDS = 3_600;

/** A person's answer as MCP's clients send it. */
export const AnsweredForm: z.ZodType<Answered> = z.union([
  z.object({ action: z.literal("accept"), content: z.record(z.string(), z.unknown()).default({}) }),
  z.object({ action: z.enum(["decline", "cancel"]) }),
]);

const CallState = z.object({
  /** The idempotency key of the rounds: two answers to one question are one call. */
  key: z.string(),
  answers: z.record(z.string(), AnsweredForm),
});
export type CallState = z.infer<typeof CallState>;

export interface CallStates {
  /** The text for the client. */
  mint(state: CallState, context: ServerContext): Promise<string>;
  /** `undefined`: no state, or one that is altered, too old, or another caller's. The tool then asks again. */
  read(text: unknown, context: ServerContext): Promise<CallState | undefined>;
}

/** The states of one caller. `principal` names the person or key, also after its token was refreshed. */
export function callStates({ CREDENTIAL_KEY }: Pick<Env, "CREDENTIAL_KEY">, principal: string): CallStates {
  const codec = async () => {
    const { secret } = await newestRootKey(CREDENTIAL_KEY);
    // The prefix keeps these MACs apart from all others of the root key.
    return createRequestStateCodec<CallState>({
      key: `mcp-request-state:${secret}`,
      ttlSeconds: STATE_LIFE_SECONDS,
      bind: () => principal,
    });
  };
  return {
    mint: async (state, context) => (await codec()).mint(state, context),
    read: async (text, context) => {
      if (typeof text !== "string") return undefined;
      try {
        return CallState.safeParse(await (await codec()).verify(text, context)).data;
      } catch {
        return undefined;
      }
    },
  };
}
