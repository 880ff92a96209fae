// Removal: the order of its steps, the state after a reactivation, and the usage archive.
import fc from "fast-check";
import { expect, test } from "vitest";
import {
  type RemovalStep,
  type WorkingStep,
  closingSteps,
  droppingSteps,
  newPeriod,
  phaseOf,
  afterReactivation,
  reactivationTerms,
  stepAfter,
} from "../../src/lifecycle/removal.ts";
import { tenantStates } from "../../src/core/tenant/tenant.ts";
import {
  type Part,
  type Summary,
  addsUp,
  archiveKey,
  isPart,
  partFile,
  readSummary,
  summaryFile,
} from "../../src/lifecycle/usage-archive.ts";

test("a removal runs every step once, and is irreversible from the first step that drops data", () => {
  const seen: RemovalStep[] = [];
  let step: RemovalStep = "usage";
  for (; step !== "done" && seen.length < 20; step = step === "grace" ? "archive" : stepAfter(step as WorkingStep))
    seen.push(step);
  expect(seen).toEqual([...closingSteps, "grace", ...droppingSteps]);
  expect(seen.map(phaseOf)).toEqual([
    ...closingSteps.map(() => "closing"),
    "grace",
    ...droppingSteps.map(() => "dropping"),
  ]);
  // Nothing is dropped that was not archived, and its charges are forgotten by the object last but for the name.
  expect(droppingSteps.indexOf("verify")).toBeLessThan(droppingSteps.indexOf("places"));
  expect(droppingSteps.slice(-2)).toEqual(["object", "erase"]);
});

test("a reactivated tenant returns to its earlier state, and a new subscription leaves no debt, trial or suspension by billing behind", () => {
  const nowMs = 1_000_000;
  for (const from of tenantStates.filter((each) => each !== "leaving" && each !== "gone")) {
    for (const askedBy of ["operator", "tenant", "billing"] as const) {
      const facts = {
        state: "leaving" as const,
        suspendedBy:
          from === "suspended" ? (askedBy === "billing" ? ("billing" as const) : ("operator" as const)) : null,
        trialUntilMs: from === "trial" ? nowMs + 1 : null,
        pastDueSinceMs: from === "past_due" ? nowMs - 1 : null,
        endedAtMs: from === "suspended" && askedBy === "billing" ? nowMs - 1 : null,
      };
      const back = (newSubscription: boolean) => afterReactivation(facts, { from, askedBy, newSubscription }, nowMs);
      expect(back(false).state).toBe(from);
      const held = from === "provisioning" || (from === "suspended" && askedBy !== "billing");
      expect(back(true)).toEqual({
        state: held ? from : "active",
        suspendedBy: held && from === "suspended" ? "operator" : null,
        trialUntilMs: null,
        pastDueSinceMs: null,
      });
    }
  }
});

test("a new subscription's periods begin at the next midnight, strictly in the future, or when the time that was paid ends", () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 4e12 }), fc.integer({ min: -10, max: 800 }), (nowMs, hours) => {
      const { endSeconds, isPaid } = newPeriod(null, nowMs);
      expect([endSeconds % 86_400, isPaid]).toEqual([0, false]);
      expect(endSeconds * 1000).toBeGreaterThan(nowMs);
      expect(endSeconds * 1000 - nowMs).toBeLessThanOrEqual(86_400_000);
      const paidUntilMs = nowMs + hours * 3_600_000;
      expect(newPeriod(paidUntilMs, nowMs)).toEqual(
        hours > 0 ? { endSeconds: paidUntilMs / 1000, isPaid: true } : { endSeconds, isPaid: false },
      );
    }),
  );
});

test("a reactivation says what it charges: nothing for time that was paid, else the share of the base price until midnight", () => {
  const at = (text: string): number => Date.parse(text);
  const left = { step: "grace", plan: "pro", subscriptionId: "sub_1", paidUntilMs: null } as const;
  const now = at("2026-11-10T12:00:00Z");
  const terms = { plan: "pro", currency: "usd", monthlyCents: 4_900 };
  // Half a day of the month that ends on the 11th: 4,900 x 0.5 / 31.
  expect(reactivationTerms(left, now)).toEqual({ ...terms, chargeCents: 79, coveredUntil: "2026-11-11T00:00:00.000Z" });
  expect(reactivationTerms({ ...left, paidUntilMs: at("2026-12-01T00:00:00Z") }, now)).toEqual({
    ...terms,
    ...{ chargeCents: 0, coveredUntil: "2026-12-01T00:00:00.000Z" },
  });
  expect(reactivationTerms({ ...left, paidUntilMs: now }, now)).toMatchObject({ chargeCents: 79 });
  // The subscription has not ended yet.
  expect(reactivationTerms({ ...left, step: "usage" }, now)).toEqual({ ...terms, chargeCents: 0, coveredUntil: null });
  expect(reactivationTerms({ ...left, plan: "enterprise" }, now)).toBeNull();
  expect(reactivationTerms({ ...left, step: "archive" }, now)).toBeUndefined();
});

const call = fc.record({
  call: fc.uuid(),
  tool: fc.string({ maxLength: 10 }),
  units: fc.integer({ min: 1, max: 1000 }),
  at: fc.constantFrom("2026-11-30T23:59:59.999Z", "2026-12-01T00:00:00.000Z"),
  report: fc.option(fc.string({ maxLength: 10 })),
});

/** A usage archive of these calls, in small parts. */
async function anArchive(calls: { units: number; at: string }[], atOnce: number) {
  const files = new Map<string, string>();
  const parts: Part[] = [];
  for (let from = 0; from < calls.length; from += atOnce) {
    const rows = calls.slice(from, from + atOnce);
    const { text, part } = await partFile("acme", {
      kind: "calls",
      part: parts.length + 1,
      rows: rows.length,
      units: rows.reduce((sum, { units }) => sum + units, 0),
      body: rows.map((row) => `${JSON.stringify(row)}\n`).join(""),
    });
    files.set(archiveKey("acme", part), text);
    parts.push(part);
  }
  const units = calls.reduce((sum, each) => sum + each.units, 0);
  const totals = { calls: { rows: calls.length, units }, reports: { rows: 0, units: 0 } };
  const months = [...Map.groupBy(calls, ({ at }) => at.slice(0, 7))].map(([month, own]) => ({
    month,
    calls: own.length,
    units: own.reduce((sum, each) => sum + each.units, 0),
  }));
  const summary: Summary = { totals, parts, months };
  return { files, summary, text: await summaryFile("acme", summary) };
}

test("an archive is read back unchanged, and its sum equals the ledger's", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(call, { maxLength: 12 }), fc.integer({ min: 1, max: 5 }), async (calls, atOnce) => {
      const { files, summary, text } = await anArchive(calls, atOnce);
      const read = await readSummary("acme", text);
      expect(read).toEqual(summary);
      for (const part of read?.parts ?? [])
        expect(await isPart("acme", part, files.get(archiveKey("acme", part)) ?? "")).toBe(true);
      expect(addsUp(summary, summary.totals)).toBe(true);
      const more = { ...summary.totals, calls: { rows: calls.length + 1, units: summary.totals.calls.units + 1 } };
      expect(addsUp(summary, more)).toBe(false);
    }),
  );
});

test("an archive that is changed, truncated or another tenant's is detected", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(call, { minLength: 1, maxLength: 4 }),
      fc.nat(),
      fc.boolean(),
      async (calls, place, isCut) => {
        const { files, summary, text } = await anArchive(calls, 10);
        const [part] = summary.parts;
        if (part === undefined) throw new Error("there is no part");
        const spoil = (whole: string): string => {
          const at = place % whole.length;
          return isCut ? whole.slice(0, at) : `${whole.slice(0, at)}\u0001${whole.slice(at + 1)}`;
        };
        expect(await isPart("acme", part, spoil(files.get(archiveKey("acme", part)) ?? ""))).toBe(false);
        expect(await readSummary("acme", spoil(text))).toBeUndefined();
        expect(await isPart("other", part, files.get(archiveKey("acme", part)) ?? "")).toBe(false);
      },
    ),
  );
});
