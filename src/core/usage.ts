// A usage row and the queue message that carries rows to the ledger. `callId` is the ledger's key. `(tenant, object, epoch,
// n)` orders the rows of one object, so that a missing row shows as a gap. A fallback call ran while its tenant's object
// could not be reached: no object gave it a number, so it has its own message and its own stream.
import * as z from "zod";
import { TenantId } from "./tenant/tenant.ts";

export const UsageRow = z.object({
  callId: z.string().min(1).max(64),
  /** Place in the object's sequence: 1, 2, 3 ... without a gap. */
  n: z.int().positive(),
  tool: z.string().min(1).max(64),
  units: z.int().positive(),
  /** When the call was admitted. */
  atMs: z.int().positive(),
});
export type UsageRow = z.infer<typeof UsageRow>;

/** One charged call. */
export type Charge = Omit<UsageRow, "n">;

/** What is known of a call that was charged before. */
export type ChargedCall = Pick<Charge, "callId" | "atMs" | "units">;

/** A call that was charged without its tenant's object. */
export type FallbackCall = Charge;

/** Stands for an object's name in fallback calls. No tenant, and so no object, can have this name. */
export const FALLBACK_STREAM = "~fallback";

export const UsageMessage = z
  .object({
    tenantId: TenantId,
    /** Name of the object that numbers the rows. A tenant may get several objects. */
    object: z.string().min(1).max(64),
    /** Names the sequence. It changes when an object's storage is restored to an earlier time. */
    epoch: z.string().min(1).max(64),
    rows: z.array(UsageRow).min(1).max(1_000),
  })
  .refine(
    ({ object, epoch, rows }) =>
      object !== FALLBACK_STREAM || (rows.length === 1 && rows[0]?.callId === epoch && rows[0].n === 1),
    "a fallback call is a stream of its own",
  );
export type UsageMessage = z.infer<typeof UsageMessage>;

/** The message that charges a fallback call. It is the same each time, so that the ledger stores the call once. */
export function fallbackUsage(tenantId: TenantId, { callId, tool, units, atMs }: FallbackCall): UsageMessage {
  return { tenantId, object: FALLBACK_STREAM, epoch: callId, rows: [{ callId, n: 1, tool, units, atMs }] };
}

/** A row is about 110 bytes of JSON. 250 rows stay far below the queue's limit of 128 KB a message. */
export const ROWS_PER_MESSAGE = 250;
/** Most messages in one alarm, below the queue's limit of 256 KB a batch. The next alarm follows at once. */
export const MESSAGES_PER_ALARM = 4;

/** Packs rows, in their order, into messages. */
export function packUsage(stream: Omit<UsageMessage, "rows">, rows: readonly UsageRow[]): UsageMessage[] {
  const messages: UsageMessage[] = [];
  for (let start = 0; start < rows.length; start += ROWS_PER_MESSAGE) {
    messages.push({ ...stream, rows: rows.slice(start, start + ROWS_PER_MESSAGE) });
  }
  return messages;
}
