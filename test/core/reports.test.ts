// The next step for a report, first case by case. Then a model of Stripe with all faults, against which the rules must count
// a report once or leave it to a carry-forward.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { type MeterAnswer, classifyMeterFailure } from "../../src/adapters/stripe/meter.ts";
import {
  BLIND_RESEND_MS,
  type OpenReport,
  type ReportProgress,
  afterFailedRead,
  afterRead,
  afterSend,
  nextStep,
} from "../../src/reports/report.ts";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const NOW_MS = 1_800_000_000_000;

function aReport(overrides: Partial<OpenReport> = {}): OpenReport {
  return {
    slotMs: NOW_MS - HOUR_MS,
    units: 40,
    firstAttemptAtMs: null,
    doubtedAtMs: null,
    absentSinceMs: null,
    invoiceFinal: false,
    alarm: null,
    stripeUnits: null,
    error: null,
    ...overrides,
  };
}

test.each([
  ["a fresh report is sent", {}, "send"],
  ["a report with an attempt is sent again", { firstAttemptAtMs: NOW_MS - BLIND_RESEND_MS + 1 }, "send"],
  ["20 hours after its first attempt a report is only read", { firstAttemptAtMs: NOW_MS - BLIND_RESEND_MS }, "read"],
  ["an attempt by a reporter whose clock is a little ahead counts", { firstAttemptAtMs: NOW_MS + HOUR_MS / 4 }, "send"],
  ["an attempt far in the future has no usable date", { firstAttemptAtMs: NOW_MS + HOUR_MS }, "read"],
  ["a doubted report is read", { firstAttemptAtMs: NOW_MS - 1, doubtedAtMs: NOW_MS }, "read"],
  ["attempts after a proof that Stripe had nothing are new", { firstAttemptAtMs: NOW_MS, doubtedAtMs: 0 }, "send"],
  ["a report is sent after that proof", { doubtedAtMs: 0 }, "send"],
  ["a report whose invoice is final is read", { invoiceFinal: true }, "read"],
  ["a report whose minute is too old for Stripe is read", { slotMs: NOW_MS - 34 * DAY_MS }, "read"],
  ["a report whose minute is just recent enough is sent", { slotMs: NOW_MS - 34 * DAY_MS + 1 }, "send"],
  ["a report whose minute is too far ahead waits", { slotMs: NOW_MS + 5 * 60_000 }, "wait"],
] as const)("%s", (_, overrides, step) => {
  expect(nextStep(aReport(overrides), NOW_MS)).toBe(step);
});

test("a refusal for an old minute is recognised by its code or text, and then only a summary decides", () => {
  const answer = classifyMeterFailure(400, "whatever", "timestamp_too_far_in_past");
  expect(answer).toEqual({ kind: "too_old" });
  expect(classifyMeterFailure(400, "The timestamp must be within the past 35 calendar days.")).toEqual(answer);
  expect(afterSend(aReport(), answer, "too_old", NOW_MS)).toMatchObject({ answer: null, doubtedAtMs: NOW_MS });
});

test("a refused report shows its reason until it is settled", () => {
  const refused = afterSend(aReport(), { kind: "refused" }, "No such meter", NOW_MS);
  expect(refused).toMatchObject({ alarm: "refused", error: "No such meter", doubtedAtMs: null });
  const report = aReport({ ...refused });
  const read = afterRead(report, 0, NOW_MS + DAY_MS);
  if (read === "carry") throw new Error("the report became a carry-forward at once");
  const doubted = aReport({ ...read });
  expect(doubted).toMatchObject({ alarm: "refused", error: "No such meter", doubtedAtMs: NOW_MS + DAY_MS });
  expect(afterFailedRead(doubted, "summary", true, NOW_MS)).toMatchObject({ alarm: "refused", error: "summary" });
  expect(afterRead(doubted, 40, NOW_MS + DAY_MS)).toMatchObject({ answer: "summary", alarm: null, error: null });
});

test("a different value in a report's minute raises an alarm, and nothing is sent until Stripe has the reported value", () => {
  const tried = { firstAttemptAtMs: NOW_MS - DAY_MS, doubtedAtMs: NOW_MS };
  const report = aReport({ ...tried, absentSinceMs: NOW_MS - 2 * DAY_MS });
  for (const units of [1, 39, 41, 80]) {
    const found = afterRead(report, units, NOW_MS);
    expect(found).toMatchObject({ answer: null, alarm: "mismatch", stripeUnits: units, absentSinceMs: null });
    const again = aReport({ ...(found as ReportProgress) });
    expect(nextStep(again, NOW_MS + 90 * DAY_MS)).toBe("read");
    expect(afterRead(again, 40, NOW_MS)).toMatchObject({ answer: "summary", alarm: null, nextAtMs: null });
  }
});

test("a report is not resent without a check after Stripe has forgotten its key, even when the clock jumps", () => {
  const jumped = aReport({ firstAttemptAtMs: NOW_MS + 30 * HOUR_MS });
  const read = afterFailedRead(jumped, "down", false, NOW_MS);
  for (const hours of [1, 20, 31, 49]) expect(nextStep(aReport({ ...read }), NOW_MS + hours * HOUR_MS)).toBe("read");
});

test("a report becomes a carry-forward only when sending is too late and a day of reads found nothing", () => {
  const late = { invoiceFinal: true, doubtedAtMs: NOW_MS };
  const first = afterRead(aReport(late), 0, NOW_MS);
  expect(first).toMatchObject({ absentSinceMs: NOW_MS });
  const waiting = aReport({ ...late, absentSinceMs: NOW_MS });
  expect(afterRead(waiting, 0, NOW_MS + DAY_MS - 1)).not.toBe("carry");
  expect(afterRead(waiting, 0, NOW_MS + DAY_MS)).toBe("carry");
  const again = afterRead({ ...waiting, firstAttemptAtMs: NOW_MS, invoiceFinal: false }, 0, NOW_MS + DAY_MS);
  expect(again).toMatchObject({ firstAttemptAtMs: null, absentSinceMs: null, nextAtMs: NOW_MS + DAY_MS });
});

/** One visit of the reporter: its fault, and the time since the visit before. */
const visit = fc.record({
  fate: fc.constantFrom("well", "well", "down", "before", "after", "lost", "unstored"),
  delayMs: fc.oneof(fc.integer({ min: 0, max: HOUR_MS }), fc.integer({ min: 0, max: 60 * HOUR_MS })),
});

test("a report's units are billed once under any faults: at Stripe, or in a carry-forward and not at Stripe", () => {
  const plan = fc.record({
    visits: fc.array(visit, { maxLength: 40 }),
    lagMs: fc.integer({ min: 0, max: 20 * HOUR_MS }),
    finalAfterMs: fc.integer({ min: HOUR_MS, max: 20 * DAY_MS }),
  });
  fc.assert(
    fc.property(plan, ({ visits, lagMs, finalAfterMs }) => {
      const stripe: { receivedMs: number }[] = [];
      let report = aReport();
      let nowMs = NOW_MS;
      let outcome: "open" | "confirmed" | "carried" = "open";
      const settling = Array.from({ length: 200 }, () => ({ fate: "well", delayMs: 0 }));
      for (const { fate, delayMs } of [...visits, ...settling]) {
        if (outcome !== "open") break;
        nowMs += delayMs;
        report = { ...report, invoiceFinal: nowMs >= NOW_MS + finalAfterMs };
        const step = nextStep(report, nowMs);
        let after: ReportProgress | "carry";
        if (step === "send") {
          report = { ...report, firstAttemptAtMs: report.firstAttemptAtMs ?? nowMs }; // recorded before it is made
          const answer = sendTo(stripe, fate, nowMs);
          after = afterSend(report, answer, answer.kind, nowMs);
        } else {
          const visible = stripe.filter(({ receivedMs }) => receivedMs + lagMs <= nowMs).length;
          after =
            fate === "down" || fate === "lost"
              ? afterFailedRead(report, "down", false, nowMs)
              : afterRead(report, visible * report.units, nowMs);
        }
        expect(stripe.length).toBeLessThanOrEqual(1);
        if (fate === "unstored") continue;
        if (after === "carry") outcome = "carried";
        else if (after.answer !== null) outcome = "confirmed";
        else {
          expect(after.alarm).toBeNull();
          report = { ...report, ...after };
          nowMs = Math.max(nowMs, after.nextAtMs ?? nowMs);
        }
      }
      expect({ outcome, inStripe: stripe.length }).toEqual({ outcome, inStripe: outcome === "carried" ? 0 : 1 });
      expect(outcome).not.toBe("open");
    }),
    { numRuns: 2_000 },
  );
});

/** Stripe with the shortest memory that it promises: it forgets an identifier after exactly a day. */
function sendTo(stripe: { receivedMs: number }[], fate: string, nowMs: number): MeterAnswer {
  if (fate === "down" || fate === "before") return classifyMeterFailure(fate === "down" ? undefined : 500, "");
  if (stripe.some(({ receivedMs }) => nowMs - receivedMs < DAY_MS)) {
    return fate === "lost"
      ? { kind: "again" }
      : classifyMeterFailure(400, "An event already exists with identifier u1.acme.1.");
  }
  stripe.push({ receivedMs: nowMs });
  if (fate === "lost" || fate === "after") return classifyMeterFailure(fate === "lost" ? undefined : 500, "");
  return { kind: "confirmed", answer: "accepted" };
}
