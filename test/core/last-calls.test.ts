// The list of last calls: the ledger and the object's memory as one list, page by page, each call once.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import type { RecentCall } from "../../src/metering/metrics/fold.ts";
import { beforeCursor, mergeCalls } from "../../src/metering/metrics/last-calls.ts";
import type { LedgerCall } from "../../src/metering/receipts-store.ts";

const START_MS = Date.UTC(2026, 10, 30, 20);

interface Made extends RecentCall {
  isCharged: boolean;
  isInLedger: boolean;
  isRemembered: boolean;
}
const made: fc.Arbitrary<Made[]> = fc
  .array(fc.record({ charged: fc.boolean(), arrived: fc.boolean(), remembered: fc.boolean(), gapMs: fc.nat(2) }), {
    maxLength: 40,
  })
  .map((all) => {
    let atMs = START_MS;
    return all.map(({ charged, arrived, remembered, gapMs }, n) => {
      atMs += gapMs;
      const known = { id: `call-${String(n).padStart(3, "0")}`, atMs, tool: "t", caller: "key:k1", ms: 5, dbMs: 2 };
      const outcome = charged ? ("ok" as const) : ("refused" as const);
      const code = charged ? null : "rate_limited";
      const isInLedger = charged && (arrived || !remembered);
      return {
        ...known,
        outcome,
        code,
        units: charged ? 1 : 0,
        ...{ isCharged: charged, isInLedger, isRemembered: remembered },
      };
    });
  });

/** The ledger's page, as its store answers it. */
function ledgerPage(all: readonly Made[], before: { at: string; id: string } | undefined, limit: number): LedgerCall[] {
  return all
    .filter((call) => call.isInLedger && (before === undefined || beforeCursor(call, before)))
    .map(({ id, tool, units, atMs }) => ({ id, tool, units, at: new Date(atMs).toISOString(), reportId: null }))
    .toSorted((a, b) => (`${b.at} ${b.id}` < `${a.at} ${a.id}` ? -1 : 1))
    .slice(0, limit);
}

test("pages of any size have each known call once, the newest first", () => {
  fc.assert(
    fc.property(made, fc.integer({ min: 1, max: 7 }), (all, limit) => {
      const known = all.filter(({ isInLedger, isRemembered }) => isInLedger || isRemembered);
      const listed: string[] = [];
      let before: { at: string; id: string } | undefined;
      for (let pages = 0; pages <= known.length; pages += 1) {
        const last = before;
        const recent = all.filter((call) => call.isRemembered && (last === undefined || beforeCursor(call, last)));
        const page = mergeCalls(ledgerPage(all, before, limit + 1), recent).slice(0, limit);
        listed.push(...page.map(({ id }) => id));
        before = page.at(-1);
        if (before === undefined) break;
      }
      expect(listed).toEqual(known.toReversed().map(({ id }) => id));
    }),
  );
});

test("a charged call has what each source knows of it, and a repeated answer is an entry of its own", () => {
  const at = new Date(START_MS).toISOString();
  const charged: LedgerCall = { id: "c1", tool: "t", units: 2, at, reportId: "r1" };
  const call: RecentCall = {
    ...{ id: "c1", atMs: START_MS, tool: "t", caller: "key:k1", outcome: "ok", code: null, units: 2, ms: 7, dbMs: 3 },
  };
  const again: RecentCall = { ...call, atMs: START_MS + 5, outcome: "repeated", units: 0, ms: 1, dbMs: 0 };
  expect(mergeCalls([charged], [call, again])).toEqual([
    expect.objectContaining({ id: "c1", outcome: "repeated", units: 0, inLedger: false }),
    {
      ...{ id: "c1", at, tool: "t", units: 2, outcome: "ok", code: null, caller: "key:k1", ms: 7, dbMs: 3 },
      ...{ inLedger: true, reportId: "r1" },
    },
  ]);
  expect(mergeCalls([charged], [])).toMatchObject([{ caller: null, ms: null, inLedger: true }]);
});
