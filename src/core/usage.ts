// A usage row and the message that carries rows to the ledger. The ledger's key is `callId`; `(tenant, object, epoch, n)`
// is its order, so that a missing row shows as a gap. A call that ran while its tenant's object could not be reached is an
// open call: a message and a stream of its own, since nobody was there to give it a place in the object's sequence.
import * as z from "zod";
import { TenantId } from "./tenant.ts";

export const UsageRow = z.object({
  callId: z.string().min(1).max(64),
  /** Place in the object's sequence: 1, 2, 3 … without a gap. */
  n: z.int().positive(),
  tool: z.string().min(1).max(64),
  units: z.int().positive(),
  /** When the call was admitted. */
  atMs: z.int().positive(),
});
export type UsageRow = z.infer<typeof UsageRow>;

/** Stands where an object's name would, for open calls. No tenant, and so no object, can have this name. */
export const FALLBACK_STREAM = "~fallback";

export const UsageMessage = z
  .object({
    tenantId: TenantId,
    /** Name of the object that keeps the sequence; a tenant may come to have several. */
    object: z.string().min(1).max(64),
    /** A new one after an object's storage was restored to an earlier time. */
    epoch: z.string().min(1).max(64),
    rows: z.array(UsageRow).min(1).max(1_000),
  })
  .refine(
    ({ object, epoch, rows }) =>
      object !== FALLBACK_STREAM || (rows.length === 1 && rows[0]?.callId === epoch && rows[0].n === 1),
    "an open call is a stream of its own",
  );
export type UsageMessage = z.infer<typeof UsageMessage>;

/** A call that was charged past its tenant's object, as the object is told of it. */
export interface FallbackCall {
  callId: string;
  tool: string;
  units: number;
  /** When the call was admitted. */
  atMs: number;
}

/** The message that charges an open call. Sent again it is the same, so that the ledger takes it once. */
export function fallbackUsage(tenantId: TenantId, { callId, tool, units, atMs }: FallbackCall): UsageMessage {
  return { tenantId, object: FALLBACK_STREAM, epoch: callId, rows: [{ callId, n: 1, tool, units, atMs }] };
}

/** A row is about 110 bytes of JSON; 250 of them stay far below the queue's 128 KB a message. */
export const ROWS_PER_MESSAGE = 250;
/** One alarm sends at most this many messages, below the queue's 256 KB a batch; the next alarm follows at once. */
export const MESSAGES_PER_ALARM = 4;

/** Packs rows, in their order, into messages. */
export function packUsage(stream: Omit<UsageMessage, "rows">, rows: readonly UsageRow[]): UsageMessage[] {
  const messages: UsageMessage[] = [];
  for (let start = 0; start < rows.length; start += ROWS_PER_MESSAGE) {
    messages.push({ ...stream, rows: rows.slice(start, start + ROWS_PER_MESSAGE) });
  }
  return messages;
}
