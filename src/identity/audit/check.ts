// Verifies the chains of the audit log: a part of them in each sweep, all of them in `npm run audit:verify`. The sweep reads each
// chain from its cursor to its end and then from its start again, so that a change of an old row is found, too.
import type { Context } from "../../control/context.ts";
import { log } from "../../log.ts";
import { type Broken, type Place, verifyRows } from "./audit.ts";
import { type AuditStore, type Chain, auditStore } from "./audit-store.ts";

/** Rows that one sweep reads: some 300 KB. A sweep a minute reads 700,000 a day. */
const ROWS_PER_SWEEP = 500;
/** Chains that one sweep looks at, each with two statements. Those with new rows come first. */
const CHAINS_PER_SWEEP = 10;
/** Rows in one statement of the command. */
const ROWS_AT_ONCE = 1_000;

/** A part of a chain that was read. */
interface Part {
  /** The last right row. */
  end: Place;
  broken?: Broken;
  /** How many rows were read. */
  rows: number;
  /** Whether the chain was read to its end. */
  ended: boolean;
}

/** Reads up to `limit` rows of a chain after `from`. The chain ends where its row in `audit_chains` says. */
async function readPart(
  store: AuditStore,
  { chain, end, verified }: Pick<Chain, "chain" | "end" | "verified">,
  from: Place,
  limit: number,
): Promise<Part> {
  // Rows that came after `end` was read are verified next time.
  const most = Math.min(limit, end.position - from.position);
  const found = most <= 0 ? [] : await store.rowsAfter(chain, from.position, most);
  const readable = found.findIndex((row) => row === undefined);
  const rows = found.slice(0, readable < 0 ? found.length : readable).filter((row) => row !== undefined);
  const part = await verifyRows(rows, from, verified);
  const next = part.end.position + 1;
  const counted = { ...part, rows: found.length, ended: true };
  if (part.broken !== undefined) return counted;
  // A field that the program never writes.
  if (readable >= 0) return { ...counted, broken: { position: next, by: "content" } };
  if (part.end.position < end.position && found.length < most)
    return { ...counted, broken: { position: next, by: "missing" } };
  const ended = part.end.position >= end.position;
  if (ended && (part.end.position !== end.position || part.end.hash !== end.hash))
    return { ...counted, broken: { position: end.position, by: "end" } };
  // The verified rows must still be there.
  if (ended && verified.position > end.position)
    return { ...counted, broken: { position: verified.position, by: "end" } };
  return { ...counted, ended };
}

/** The chain as it is now, when rows that were to be read have been deleted after their retention. `undefined`: none have. */
async function afterPruning(store: AuditStore, { chain, anchor }: Chain): Promise<Chain | undefined> {
  const [now] = await store.chains(null, 1, chain);
  return now !== undefined && now.anchor.position > anchor.position ? now : undefined;
}

/** Verifies a part of the chains and keeps how far it came. A broken chain is logged, and its alarm stays until it is right. */
export async function checkAuditChains({ control }: Pick<Context, "control">): Promise<void> {
  const store = auditStore(control);
  let left = ROWS_PER_SWEEP;
  for (const chain of await store.dueChains(CHAINS_PER_SWEEP)) {
    if (left <= 0) return;
    // Rows up to the anchor were deleted after their retention.
    const from = chain.cursor.position >= chain.anchor.position ? chain.cursor : chain.anchor;
    const { end, broken, ended, rows } = await readPart(store, chain, from, left);
    left -= rows;
    if (broken !== undefined && (await afterPruning(store, chain)) !== undefined) continue;
    const isNew = end.position > chain.verified.position;
    if (broken !== undefined)
      log("error", "audit_chain_broken", { chain: chain.chain, position: broken.position, by: broken.by });
    // The log keeps the end of each chain outside of the database, whose owner could rewrite all of it.
    else if (ended && isNew)
      log("info", "audit_chain_verified", { chain: chain.chain, position: end.position, hash: end.hash });
    await store.recordCheck(chain.chain, {
      // After a break the whole chain is read again, so that reaching its end shows that the break is over.
      cursor: ended ? chain.anchor : end,
      verified: broken === undefined && isNew ? end : chain.verified,
      broken: broken ?? (ended ? null : chain.broken),
      ended,
    });
  }
}

export interface ChainReport {
  chain: Chain;
  /** Rows that are left, after the anchor. */
  rows: number;
  broken: Broken | undefined;
}

/** Verifies a whole chain from its anchor. `known`: a place that an earlier run has printed. */
export async function verifyChain(store: AuditStore, chain: Chain, known?: Place): Promise<ChainReport> {
  let from = chain.anchor;
  let rows = 0;
  for (;;) {
    const part = await readPart(store, { ...chain, verified: known ?? chain.verified }, from, ROWS_AT_ONCE);
    rows += part.rows;
    const later = part.broken === undefined ? undefined : await afterPruning(store, chain);
    if (later !== undefined) return verifyChain(store, later, known);
    if (part.broken !== undefined || part.ended) return { chain, rows, broken: part.broken };
    from = part.end;
  }
}
