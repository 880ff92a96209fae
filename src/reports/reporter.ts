// Reports usage to Stripe. It freezes usage of the ledger into reports, then does the next step for each report: it sends
// the report, or reads Stripe's summary of the report's minute. Two reporters at the same time do no harm: freezing takes
// a lock, a reporter claims a report before each step, and a report that is sent twice has the same identifier. The process
// may die at any await: an attempt is recorded before it is made, and a claim ends by itself.
import type { StripeConnection } from "../adapters/stripe/stripe.ts";
import type { Context, ControlDatabase } from "../control/context.ts";
import { isolated } from "../control/failures-store.ts";
import { ledgerStore } from "../control/ledger-store.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import { storable } from "../core/text/text.ts";
import { describeError, log } from "../log.ts";
import type { ReportRun } from "./report-cron.ts";
import {
  type ReportProgress,
  FREEZE_AGE_MS,
  afterFailedRead,
  afterRead,
  afterSend,
  postponedUntil,
  nextStep,
} from "./report.ts";
import { type ClaimedReport, type ReportsStore, reportsStore } from "./reports-store.ts";

/** Answers are recorded after each claim. A small claim leaves little to repeat when a run is cut short. */
const REPORTS_PER_CLAIM = 50;
/** A Worker may have six connections. Stripe allows one request at a time for a customer and meter. */
const CUSTOMERS_AT_ONCE = 5;
/** Longer than a claim takes when every request times out: 50 requests of 10 s, five at a time. */
const CLAIM_MS = 180_000;
/** No request starts when less of its claim is left: a request takes at most 10 s. */
const REQUEST_MS = 15_000;

interface Outcome {
  progress: (ReportProgress & { id: string })[];
  carried: string[];
  /** Whether Stripe answered any request. */
  answered: boolean;
  failed: number;
}

/** Freezes and reports due usage of all tenants until the run's time is over. The next run continues. */
export async function reportUsage(context: Context, run: ReportRun): Promise<void> {
  // Reports that are frozen already are sent even when freezing fails.
  const frozen = await freezeUsage(context, run, run.nowMs() - FREEZE_AGE_MS).catch((error: unknown) => {
    log("error", "usage_not_frozen", { error: describeError(error) });
    return { reports: 0, carryForwards: 0 };
  });
  const { confirmed, failed } = await sendReports(context, run);
  await ledgerStore(context.control).heartbeat("report", run.nowMs());
  log(failed > 0 ? "warn" : "info", "usage_reported", { ...frozen, confirmed, failed });
}

/** Freezes usage admitted before `cutoffMs`, of all tenants or of one. `waits`: as in `ReportsStore.freeze`. */
export async function freezeUsage(
  { control }: Context,
  run: ReportRun,
  cutoffMs: number,
  of: { tenantId?: TenantId; waits?: boolean } = {},
) {
  const store = reportsStore(control);
  const total = { reports: 0, carryForwards: 0 };
  while (!run.isOver()) {
    const { rows, reports, carryForwards } = await store.freeze(cutoffMs, run.nowMs(), of);
    if (rows === 0) break;
    total.reports += reports;
    total.carryForwards += carryForwards;
  }
  return total;
}

/** Sends due reports of all tenants, or of one. */
export async function sendReports({ control, stripe }: Context, run: ReportRun, tenantId?: TenantId) {
  const store = reportsStore(control);
  const total = { confirmed: 0, failed: 0 };
  while (!run.isOver()) {
    const nowMs = run.nowMs();
    const untilMs = nowMs + CLAIM_MS;
    const reports = await store.claim(nowMs, untilMs, REPORTS_PER_CLAIM, tenantId);
    if (reports.length === 0) break;
    const { progress, carried, answered, failed } = await doSteps({ control, store, stripe, run }, reports, untilMs);
    if (progress.length > 0) await store.progress(progress, untilMs, run.nowMs());
    await isolated(control, carried, { part: "reports", idOf: String, atOnce: 1 }, (id) =>
      store.carry(id, untilMs, run.nowMs()),
    );
    if (answered) await ledgerStore(control).heartbeat("stripe", run.nowMs());
    total.confirmed += progress.filter((each) => each.answer !== null).length;
    total.failed += failed;
    // Stripe is down or limits our rate, so the remaining reports would fail, too.
    if (!answered) break;
  }
  return total;
}

interface Means {
  control: ControlDatabase;
  store: ReportsStore;
  stripe: StripeConnection;
  run: ReportRun;
}

/** Does the next step for each claimed report. A report that gets no step is due again when its claim ends. */
async function doSteps(
  { control, store, stripe, run }: Means,
  reports: readonly ClaimedReport[],
  untilMs: number,
): Promise<Outcome> {
  const startedMs = run.nowMs();
  const outcome: Outcome = { progress: [], carried: [], answered: false, failed: 0 };
  const toSend = reports.filter((report) => nextStep(report, startedMs) === "send").map(({ id }) => id);
  const attempts =
    toSend.length === 0 ? new Map<string, number>() : await store.recordAttempts(toSend, untilMs, startedMs);

  const keep = (id: string, progress: ReportProgress): void => {
    outcome.progress.push({ id, ...progress });
    if (progress.error !== null) outcome.failed += 1;
  };
  const send = async (report: ClaimedReport, attempt: number): Promise<void> => {
    const answer = await stripe.meter.send({ ...report, stampSeconds: report.stampMs / 1000, attempt });
    if (answer.kind !== "again") outcome.answered = true;
    keep(report.id, afterSend(report, answer, storable(`${answer.kind}: ${answer.message ?? ""}`, 300), startedMs));
  };
  const read = async (report: ClaimedReport): Promise<void> => {
    const startSeconds = report.slotMs / 1000;
    await run.acquire();
    const found = await stripe.meter.readUnits(report.customerId, {
      startSeconds,
      endSeconds: startSeconds + 60,
      by: "whole",
    });
    const nowMs = run.nowMs();
    if (found.kind !== "again") outcome.answered = true;
    if (found.kind !== "read") {
      const error = storable(`summary, ${found.kind}: ${found.message}`, 300);
      return keep(report.id, afterFailedRead(report, error, found.kind === "refused", nowMs));
    }
    const after = afterRead(report, found.units.get(startSeconds) ?? 0, nowMs);
    if (after === "carry") outcome.carried.push(report.id);
    else keep(report.id, after);
  };
  const advance = async (report: ClaimedReport): Promise<void> => {
    const attempt = attempts.get(report.id);
    if (attempt !== undefined) return send(report, attempt);
    const step = nextStep(report, startedMs);
    if (step === "read") return read(report);
    if (step === "wait") keep(report.id, postponedUntil(report, report.slotMs));
    outcome.answered ||= step === "wait";
  };

  const customers = [...Map.groupBy(reports, (report) => report.customerId).values()];
  const alone = {
    part: "reports",
    idOf: ([first]: ClaimedReport[]) => first?.tenantId ?? "",
    atOnce: CUSTOMERS_AT_ONCE,
  };
  // One that fails is due again when its claim ends.
  await isolated(control, customers, alone, async (own) => {
    for (const report of own) if (run.nowMs() < untilMs - REQUEST_MS) await advance(report);
  });
  return outcome;
}
