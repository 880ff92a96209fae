// A list of a tenant's calls from two sources: the ledger, and what the tenant's object remembers. Pure.
import type { CallEnd } from "../../core/call.ts";
import type { LedgerCall } from "../receipts-store.ts";
import type { RecentCall } from "./fold.ts";

export interface ListedCall {
  /** The id on the call's receipt. A call that is answered again has the id of its first run. */
  id: string;
  at: string;
  tool: string;
  units: number;
  outcome: CallEnd;
  code: string | null;
  /** `null`: the object no longer remembers the call. */
  caller: string | null;
  ms: number | null;
  dbMs: number | null;
  /** Whether the ledger has it. A charged call gets there within seconds. */
  inLedger: boolean;
  /** The meter report or carry-forward that bills it. */
  reportId: string | null;
}

/** Both sources as one list, the newest first. A charged call that both have is one. */
export function mergeCalls(charged: readonly LedgerCall[], recent: readonly RecentCall[]): ListedCall[] {
  const remembered = new Map(recent.filter(({ units }) => units > 0).map((call) => [call.id, call]));
  const ofLedger = charged.map((call): ListedCall => {
    const own = remembered.get(call.id);
    const { caller = null, ms = null, dbMs = null } = own ?? {};
    const { id, at, tool, units, reportId } = call;
    return { ...{ id, at, tool, units, reportId }, outcome: "ok", code: null, caller, ms, dbMs, inLedger: true };
  });
  const known = new Set(charged.map(({ id }) => id));
  const others = recent
    .filter(({ id, units }) => units === 0 || !known.has(id))
    .map(({ atMs, ...call }): ListedCall => ({
      ...call,
      at: new Date(atMs).toISOString(),
      ...{ inLedger: false, reportId: null },
    }));
  return [...ofLedger, ...others].toSorted((a, b) => order(b, a));
}

/** Whether a remembered call comes after the last one of a page, in a list with the newest first. */
export function beforeCursor({ atMs, id }: RecentCall, cursor: { at: string; id: string }): boolean {
  return order({ at: new Date(atMs).toISOString(), id }, cursor) < 0;
}

function order(a: { at: string; id: string }, b: { at: string; id: string }): number {
  if (a.at !== b.at) return a.at < b.at ? -1 : 1;
  return a.id === b.id ? 0 : a.id < b.id ? -1 : 1;
}
