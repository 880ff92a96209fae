// `npm run verify-invoice`: adds up one tenant's calls from the ledger's rows and compares them: calls with their reports,
// reports with Stripe's meter by day, and calls with invoices. It only reads.
// Exit codes: 0 equal, 1 different, 2 not readable. A failed read never counts as equal.
import { connectControl } from "../src/adapters/neon.ts";
import { parseArgs } from "node:util";
import * as z from "zod";
import { receiptsStore } from "../src/metering/receipts-store.ts";
import { type PeriodsStore, periodsStore } from "../src/reports/periods-store.ts";
import { invoiceDrifts } from "../src/reports/reconciliation.ts";
import { type TenantSummary, tenantsStore } from "../src/control/tenants-store.ts";
import { type StripeConnection, connectStripe } from "../src/adapters/stripe/stripe.ts";
import {
  type CallSum,
  type DayComparison,
  type Discrepancy,
  type MeterSum,
  type Period,
  type FrozenReport,
  compareUsage,
  dayOf,
  daysFrom,
  daysOf,
  firstDifference,
  monthOf,
} from "../src/metering/invoice.ts";
import { planNames, planOf } from "../src/core/plans/plans.ts";
import { inDollars, isRounded, usagePrice } from "../src/core/plans/money.ts";
import type { SummaryRequest } from "../src/adapters/stripe/meter.ts";
import { TenantId } from "../src/core/tenant/tenant.ts";
import { localControl } from "./migrations/prepare.ts";
import { type Settings, localSystemRuns, readVariables } from "./settings.ts";

const help = `npm run verify-invoice -- --tenant ID --period 2026-11

Adds up a tenant's calls and compares them with the reports, with Stripe's meter by day, and with invoices.
Usage that is not reported yet also counts as a difference. The next report, a few minutes later, sends it to Stripe.

  --tenant ID          the tenant
  --period MONTH       a calendar month in UTC
  --from DAY --to DAY  these days instead, both included, for example the days of a billing period
  --local              checks the system that \`npm start\` runs in TOLLGATE_DIR (.dev), instead of the environment's.
                       Without CONTROL_DATABASE_URL, a system that runs there is found without this flag.
  --help               shows this text

Environment or .dev.vars: CONTROL_DATABASE_URL and STRIPE_SECRET_KEY. NEON_FETCH_ENDPOINT and STRIPE_API_BASE are empty for
Neon's and Stripe's own addresses. The exit code is 0 when all is equal, 1 for a difference, 2 when a read failed.`;

/** Differences that are printed in full. They fit on a screen, and more of them rarely help. */
const MOST_SHOWN = 20;

const Flags = z
  .object({
    tenant: TenantId,
    period: z
      .string()
      .regex(/^20\d{2}-(0[1-9]|1[0-2])$/, "is a month such as 2026-11")
      .optional(),
    from: z.iso.date().optional(),
    to: z.iso.date().optional(),
  })
  .transform(({ tenant, period, from, to }, context) => {
    if (period !== undefined && from === undefined && to === undefined) return { tenant, period: monthOf(period) };
    if (period === undefined && from !== undefined && to !== undefined && from <= to)
      return { tenant, period: daysFrom(from, to) };
    context.addIssue("Give --period MONTH, or --from DAY and --to DAY.");
    return z.NEVER;
  });

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** The variables that reach the local system with these settings. */
function localVariables(settings: Settings): Record<string, string> {
  return {
    ...localControl(settings),
    STRIPE_SECRET_KEY: settings.secrets.stripeSecretKey,
    STRIPE_API_BASE: `http://127.0.0.1:${settings.ports["stripe"]}`,
  };
}

/** Compares and prints. Returns whether everything is equal. */
async function main(): Promise<boolean> {
  const text = { type: "string" } as const;
  const flag = { type: "boolean", default: false } as const;
  const { values } = parseArgs({
    options: { tenant: text, period: text, from: text, to: text, local: flag, help: flag },
  });
  if (values.help) {
    print(help);
    return true;
  }
  const flags = Flags.safeParse(values);
  if (!flags.success)
    throw new Error(
      flags.error.issues
        .map(({ path, message }) => `${path.length > 0 ? `--${path.join()}: ` : ""}${message}`)
        .join("\n"),
    );
  const { tenant: tenantId, period } = flags.data;
  const isLocal = values.local || (readVariables()("CONTROL_DATABASE_URL") === "" && localSystemRuns());
  if (isLocal && !values.local) print("The system that npm start runs:");
  const variable = readVariables(isLocal ? localVariables : undefined);
  for (const name of ["CONTROL_DATABASE_URL", "STRIPE_SECRET_KEY"])
    if (variable(name) === "") throw new Error(`Set ${name}, here or in .dev.vars.`);
  const control = {
    CONTROL_DATABASE_URL: variable("CONTROL_DATABASE_URL"),
    NEON_FETCH_ENDPOINT: variable("NEON_FETCH_ENDPOINT"),
  };
  const tenant = await tenantsStore(connectControl(control)).summary(tenantId);
  if (tenant === undefined) throw new Error(`There is no tenant ${tenantId}.`);
  const ledger = receiptsStore(connectControl(control));
  const periods = periodsStore(connectControl(control));
  const stripe = connectStripe(variable("STRIPE_SECRET_KEY"), variable("STRIPE_API_BASE"));
  const customerId = tenant.stripeCustomerId;
  const who = customerId === null ? "without a Stripe customer: only calls and reports are compared" : customerId;
  print(`${tenantId}, plan ${tenant.plan}, ${who}`);
  print(`${dayOf(period.startMs)} to ${dayOf(period.endMs - 1)}, days in UTC\n`);

  const calls: CallSum[] = [];
  const reports: FrozenReport[] = [];
  // One statement reads calls and reports of a day, so that usage frozen meanwhile is no false difference.
  for (const day of daysOf(period)) {
    const sums = await ledger.sums(tenantId, day);
    calls.push(...sums.calls);
    reports.push(...sums.reports);
  }
  const counted =
    customerId === null ? undefined : await unitsAtStripe(stripe, customerId, { ...seconds(period), by: "day" });
  const { days, discrepancies } = compareUsage(calls, reports, counted);
  printDays(days, counted !== undefined);
  printPrice(days, tenant);
  const wrongInvoices =
    customerId === null ? 0 : await printInvoices({ stripe, periods, tenantId, customerId, period });
  for (const discrepancy of discrepancies.slice(0, MOST_SHOWN)) print(describe(discrepancy));
  if (discrepancies.length > MOST_SHOWN) print(`And ${discrepancies.length - MOST_SHOWN} more differences.`);
  const atStripe = discrepancies.find(({ kind }) => kind === "stripe");
  if (atStripe !== undefined && customerId !== null) print(await locate(stripe, customerId, atStripe.day, reports));
  const equal = discrepancies.length === 0 && wrongInvoices === 0;
  if (equal) print("All is equal.");
  return equal;
}

function printDays(days: readonly DayComparison[], hasStripe: boolean): void {
  const sum = (of: (day: DayComparison) => number): number => days.reduce((total, day) => total + of(day), 0);
  const total: DayComparison = {
    day: "total",
    calls: sum(({ calls }) => calls),
    ledgerUnits: sum(({ ledgerUnits }) => ledgerUnits),
    reportUnits: sum(({ reportUnits }) => reportUnits),
    carriedUnits: sum(({ carriedUnits }) => carriedUnits),
    stripeUnits: sum(({ stripeUnits }) => stripeUnits),
  };
  const rows = [...days, total].map(({ day, calls, ledgerUnits, reportUnits, carriedUnits, stripeUnits }) => {
    const counted = hasStripe ? stripeUnits : reportUnits;
    const compared = [hasStripe ? counted : "-", counted + carriedUnits - ledgerUnits];
    return [day, calls, ledgerUnits, reportUnits, carriedUnits, ...compared].map(String);
  });
  const table = [["day", "calls", "ledger", "reports", "carried", "Stripe", "difference"], ...rows];
  for (const row of table) print(row.map((cell, n) => (n === 0 ? cell.padEnd(10) : cell.padStart(12))).join(""));
  print("");
}

/** The price by the tenant's current plan. An invoice has the price of the plan that it names. */
function printPrice(days: readonly DayComparison[], tenant: TenantSummary): void {
  const name = planNames.find((each) => each === tenant.plan);
  const units = days.reduce((total, { ledgerUnits }) => total + ledgerUnits, 0);
  if (name === undefined || planOf(name).unitAmountCents === null) {
    print(`${units} units; plan ${tenant.plan} has no price for a unit.`);
    return;
  }
  const unit = inDollars(usagePrice(1, { includedUnits: 0, unitAmountCents: planOf(name).unitAmountCents }));
  const terms = `${planOf(name).includedUnits ?? 0} are included, each more is ${unit} USD`;
  print(
    `${units} units of one billing period of plan ${name} are ${inDollars(usagePrice(units, planOf(name)))} USD: ${terms}.`,
  );
}

/**
 * Compares the invoices of each period of a subscription with the calls that the period earned. Prints the lines of usage.
 * Returns how many differ.
 */
async function printInvoices(of: {
  stripe: StripeConnection;
  periods: PeriodsStore;
  tenantId: TenantId;
  customerId: string;
  period: Period;
}): Promise<number> {
  const { stripe, periods, tenantId, customerId, period } = of;
  let wrong = 0;
  const lines = await stripe.invoices.usage(customerId, seconds(period).startSeconds);
  const firstMs = Math.min(period.startMs, ...lines.map(({ startSeconds }) => startSeconds * 1000));
  const drifts = invoiceDrifts(await periods.earnedUnits(tenantId, firstMs, { withUnreported: true }), lines);
  for (const line of lines) {
    const own = { startMs: line.startSeconds * 1000, endMs: line.endSeconds * 1000 };
    if (own.endMs <= period.startMs || own.startMs >= period.endMs) continue;
    const drift = drifts.find(
      ({ subscriptionId, startSeconds, plan }) =>
        subscriptionId === line.subscriptionId && startSeconds === line.startSeconds && plan === line.plan,
    );
    const price = line.plan === undefined ? undefined : usagePrice(line.units, planOf(line.plan));
    const faults = [
      ...(drift === undefined ? [] : [`the calls of that time have ${drift.earnedUnits} units`]),
      ...(price === undefined || isRounded(line.amountCents, price) ? [] : [`the price is ${inDollars(price)} USD`]),
    ];
    if (faults.length > 0) wrong += 1;
    const amount = inDollars({ digits: BigInt(line.amountCents), scale: 0 });
    const span = `${new Date(own.startMs).toISOString()} to ${new Date(own.endMs).toISOString()}`;
    const verdict = faults.length === 0 ? "equal" : `DIFFERENT: ${faults.join(", ")}`;
    print(`Invoice ${line.invoiceId} (${line.status}), ${span}: ${line.units} units, ${amount} USD: ${verdict}.`);
  }
  // Periods whose usage is on no invoice at all.
  for (const { subscriptionId, startSeconds, earnedUnits, invoicedUnits } of drifts) {
    if (lines.some((line) => line.subscriptionId === subscriptionId && line.startSeconds === startSeconds)) continue;
    wrong += 1;
    const since = new Date(startSeconds * 1000).toISOString();
    print(`${subscriptionId}, since ${since}: ${invoicedUnits} units on invoices; the calls have ${earnedUnits}.`);
  }
  print("");
  return wrong;
}

function describe(discrepancy: Discrepancy): string {
  const { kind, day } = discrepancy;
  switch (kind) {
    case "calls": {
      const { reportId, report, calls } = discrepancy;
      const stated = report === null ? "is not of that day" : `has ${report.units} units in ${report.calls} calls`;
      return `${day}: report ${reportId} ${stated}; its calls have ${calls.units} units in ${calls.calls} calls.`;
    }
    case "unreported":
      return `${day}: ${discrepancy.calls.units} units in ${discrepancy.calls.calls} calls are in no report yet.`;
    case "stripe":
      return `${day}: Stripe counted ${discrepancy.stripeUnits} units, the reports have ${discrepancy.reportUnits}.`;
    default:
      return discrepancy satisfies never;
  }
}

/** Describes the first minute of a day in which Stripe and the reports differ, and the minute's report. */
async function locate(
  stripe: StripeConnection,
  customerId: string,
  day: string,
  reports: readonly FrozenReport[],
): Promise<string> {
  const ofDay = reports.filter(({ slotSeconds }) => dayOf(slotSeconds * 1000) === day);
  const hours = await unitsAtStripe(stripe, customerId, { ...seconds(daysFrom(day, day)), by: "hour" });
  const hour = firstDifference(ofDay, hours, 3600);
  if (hour === undefined) return `${day}: its hours are equal now.`;
  const minutes: MeterSum[] = [];
  // One after the other, because these are sixty requests and Stripe has a rate limit.
  for (let startSeconds = hour.startSeconds; startSeconds < hour.startSeconds + 3600; startSeconds += 60)
    minutes.push(
      ...(await unitsAtStripe(stripe, customerId, { startSeconds, endSeconds: startSeconds + 60, by: "whole" })),
    );
  const minute = firstDifference(hour.reports, minutes, 60);
  if (minute === undefined) return `${day}: the minutes of its first different hour are equal now.`;
  const [report] = minute.reports;
  const stated =
    report === undefined
      ? "has no report"
      : `has report ${report.id} with ${report.units} units${report.confirmed ? "" : ", not confirmed"}`;
  const at = new Date(minute.startSeconds * 1000).toISOString();
  return `${day}: the first different minute ${at} ${stated}; Stripe counted ${minute.stripeUnits} units.`;
}

async function unitsAtStripe(
  stripe: StripeConnection,
  customerId: string,
  request: SummaryRequest,
): Promise<MeterSum[]> {
  const answer = await stripe.meter.readUnits(customerId, request);
  if (answer.kind !== "read") throw new Error(`Stripe's meter could not be read: ${answer.message}`);
  return [...answer.units].map(([startSeconds, units]) => ({ startSeconds, units }));
}

function seconds({ startMs, endMs }: Period): { startSeconds: number; endSeconds: number } {
  return { startSeconds: startMs / 1000, endSeconds: endMs / 1000 };
}

if (import.meta.main) {
  try {
    if (!(await main())) process.exitCode = 1;
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 2;
  }
}
