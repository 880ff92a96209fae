// Compares an account's final invoices with its calls, from outside of the program: the ledger's rows as their owner, and
// Stripe's API. Every unit is on one invoice of the period that earned it, and no hour of a base price is paid twice.
import { fromStripe, superuserSql } from "./invariants.ts";

interface Subscription {
  id: string;
  created: number;
  billing_cycle_anchor: number;
  ended_at: number | null;
  trial_end: number | null;
}

interface Line {
  amount: number;
  quantity: number | null;
  period: { start: number; end: number };
  pricing: { price_details: { price: string } | null } | null;
  parent: {
    subscription_item_details: { subscription: string | null } | null;
    invoice_item_details: { subscription: string | null } | null;
  } | null;
}

interface Price {
  id: string;
  lookup_key: string | null;
  recurring: { usage_type: string } | null;
}

/** A billing period in epoch seconds, end exclusive. */
interface Period {
  subscription: string;
  start: number;
  end: number;
  trial: boolean;
}

interface Call {
  units: number;
  atSeconds: number;
  /** The plan under which the call was reported to the meter. `null`: a carry-forward has it. */
  plan: string | null;
}

/** A carry-forward. */
interface Late extends Record<string, unknown> {
  id: string;
  answer: string | null;
  reason: string;
  units: number;
  startSeconds: number;
}

export async function customerOf(tenantId: string): Promise<string> {
  const [row] = await superuserSql<{ id: string }>(`SELECT stripe_customer_id AS id FROM tenants WHERE id = $1`, [
    tenantId,
  ]);
  return row?.id ?? "";
}

/** Returns a description of each violation. All subscriptions of the customer have ended, and no invoice is a draft. */
export async function invoiceViolations(tenantId: string, customer: string, nowMs: number): Promise<string[]> {
  const [subscriptions, invoices, prices, calls, items, late, [overlap]] = await Promise.all([
    fromStripe<{ data: Subscription[] }>(`/subscriptions?customer=${customer}&status=all&limit=100`),
    fromStripe<{ data: { id: string; status: string }[] }>(`/invoices?customer=${customer}&limit=100`),
    fromStripe<{ data: Price[] }>(`/prices?limit=100`),
    superuserSql<{ units: number; atSeconds: number; plan: string | null }>(
      `SELECT l.units, extract(epoch FROM l.at)::double precision AS "atSeconds", CASE WHEN r.answer <> 'carried' THEN r.plan END AS plan
       FROM ledger l LEFT JOIN reports r ON r.id = l.report_id WHERE l.tenant_id = $1`,
      [tenantId],
    ),
    fromStripe<{ data: { invoice: string | null; metadata: Record<string, string> | null }[] }>(
      `/invoiceitems?customer=${customer}&limit=100`,
    ),
    superuserSql<Late>(
      `SELECT id, answer, reason, units::int AS units, extract(epoch FROM from_at)::double precision AS "startSeconds"
       FROM carry_forwards WHERE tenant_id = $1`,
      [tenantId],
    ),
    superuserSql<{ periods: number }>(
      `WITH p AS (SELECT starts_at, ends_at FROM subscription_periods WHERE tenant_id = $1
                  UNION SELECT starts_at, ends_at FROM billing_periods WHERE tenant_id = $1)
       SELECT count(*)::int AS periods FROM p a JOIN p b ON b.starts_at > a.starts_at AND b.starts_at < a.ends_at`,
      [tenantId],
    ),
  ]);
  const wrong: string[] = [];
  if ((overlap?.periods ?? 0) > 0) wrong.push(`${overlap?.periods} periods overlap`);
  const drafts = invoices.data.filter(({ status }) => status === "draft");
  if (drafts.length > 0) wrong.push(`${drafts.length} invoices are still drafts`);
  const linesOf = async (...wanted: string[]): Promise<Line[]> => {
    const own = invoices.data.filter(({ status }) => wanted.includes(status));
    const pages = own.map(({ id }) => fromStripe<{ data: Line[] }>(`/invoices/${id}/lines?limit=100`));
    return (await Promise.all(pages)).flatMap(({ data }) => data);
  };
  const periods = periodsOf(subscriptions.data, nowMs / 1000);
  wrong.push(...usageViolations(periods, await linesOf("open", "paid"), calls, prices.data, late));
  wrong.push(...doublePayments(await linesOf("paid"), prices.data));
  for (const { id, answer } of late) {
    const own = items.data.filter(({ metadata }) => metadata?.["carry_forward"] === id);
    const wanted = answer === "created" || answer === "found" ? 1 : 0;
    if (answer === null || own.length !== wanted)
      wrong.push(`${id} is settled as ${answer} and has ${own.length} invoice items`);
    if (own.some(({ invoice }) => invoice === null)) wrong.push(`the invoice item of ${id} is on no invoice`);
  }
  if (wrong.length > 0)
    wrong.push(await evidence(tenantId, subscriptions.data, await linesOf("open", "paid", "draft")));
  return wrong.map((each) => `${tenantId}: ${each}`);
}

/** The rows that a person needs to find the cause: one line each, times in epoch seconds. */
async function evidence(
  tenantId: string,
  subscriptions: readonly Subscription[],
  lines: readonly Line[],
): Promise<string> {
  const seconds = (column: string): string => `extract(epoch FROM ${column})::double precision AS ${column}`;
  const tables = {
    subscription_periods: `SELECT subscription_id, ${seconds("starts_at")}, ${seconds("ends_at")}, ended, trial FROM subscription_periods WHERE tenant_id = $1 ORDER BY starts_at`,
    billing_periods: `SELECT invoice_id, ${seconds("starts_at")}, ${seconds("ends_at")}, plan, invoiced_units FROM billing_periods WHERE tenant_id = $1 ORDER BY starts_at`,
    reports: `SELECT id, ${seconds("slot")}, ${seconds("stamp")}, ${seconds("frozen_at")}, ${seconds("confirmed_at")}, plan, units, answer FROM reports WHERE tenant_id = $1 ORDER BY stamp`,
    carry_forwards: `SELECT id, ${seconds("from_at")}, ${seconds("frozen_at")}, units, reason, answer, invoice_id FROM carry_forwards WHERE tenant_id = $1 ORDER BY from_at`,
    ledger: `SELECT ${seconds("at")}, units, report_id, carry_forward_id FROM ledger WHERE tenant_id = $1 ORDER BY at`,
    removals: `SELECT id, step FROM removals WHERE tenant_id = $1 ORDER BY id`,
  };
  const rows = await Promise.all(
    Object.entries(tables).map(async ([name, text]) =>
      (await superuserSql(text, [tenantId]).catch((error: unknown) => [{ error: String(error) }])).map(
        (row) => `${name} ${Object.values(row).join(" ")}`,
      ),
    ),
  );
  return [
    "evidence",
    ...subscriptions.map(
      (each) => `subscription ${each.id} ${each.created} to ${each.ended_at} trial ${each.trial_end}`,
    ),
    ...lines.map(
      (each) => `line ${JSON.stringify([each.amount, each.quantity, each.period, each.parent, each.pricing])}`,
    ),
    ...rows.flat(),
  ].join("\n  ");
}

/** Periods begin at the start of a subscription and at each boundary after its anchor. They end at the next subscription's start. */
function periodsOf(subscriptions: readonly Subscription[], now: number): Period[] {
  const sorted = subscriptions.toSorted((a, b) => a.created - b.created);
  return sorted.flatMap(
    ({ id, created, billing_cycle_anchor: anchor, ended_at: endedAt, trial_end: trialEnd }, index) => {
      // Stripe rounds its times down to a second.
      const end = Math.min(endedAt === null ? now : endedAt + 1, sorted[index + 1]?.created ?? Infinity);
      const starts = [created];
      for (let month = 0; month < 24; month += 1) {
        const date = new Date(anchor * 1000);
        const at = Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + month, date.getUTCDate()) / 1000;
        if (at > created && at < end) starts.push(at);
      }
      return starts.map((start, nth) => ({
        ...{ subscription: id, start, end: starts[nth + 1] ?? end },
        trial: trialEnd !== null && start < trialEnd,
      }));
    },
  );
}

function usageViolations(
  periods: readonly Period[],
  lines: readonly Line[],
  calls: readonly Call[],
  prices: readonly Price[],
  late: readonly Late[],
): string[] {
  const metered = new Map(
    prices.filter(({ recurring }) => recurring?.usage_type === "metered").map((price) => [price.id, price]),
  );
  const plans = new Set([...metered.values()].map(({ lookup_key: key }) => key?.split("_")[1] ?? ""));
  const usage = lines.filter(({ pricing }) => metered.has(pricing?.price_details?.price ?? ""));
  const subscriptionOf = ({ parent }: Line): string | null | undefined =>
    parent?.subscription_item_details?.subscription ?? parent?.invoice_item_details?.subscription;
  const wrong: string[] = [];
  let inPeriods = 0;
  for (const { subscription, start, end, trial } of periods) {
    const own = calls.filter(({ atSeconds }) => atSeconds >= start && atSeconds < end);
    inPeriods += own.length;
    const earned = trial
      ? 0
      : sum(own.filter(({ plan }) => plan !== null && plans.has(plan)).map(({ units }) => units));
    const invoiced = sum(
      usage
        .filter((line) => subscriptionOf(line) === subscription && line.period.start === start)
        .map(({ quantity }) => quantity ?? 0),
    );
    // Units that reached the meter after the invoice are billed with an item of their own.
    const missed = late.filter(({ reason, startSeconds }) => reason === "not_invoiced" && startSeconds === start);
    if (earned !== invoiced + sum(missed.map(({ units }) => units)))
      wrong.push(`${subscription} from ${start}: the calls have ${earned} units, the invoices ${invoiced}`);
  }
  if (inPeriods !== calls.length) wrong.push(`${calls.length - inPeriods} calls are in no period, or in two`);
  const known = usage.filter((line) =>
    periods.some(({ subscription, start }) => subscriptionOf(line) === subscription && line.period.start === start),
  );
  if (known.length !== usage.length) wrong.push(`${usage.length - known.length} lines of usage are of no period`);
  return wrong;
}

/** Base prices less credits for the same time: at each instant the customer pays for one plan at most. */
function doublePayments(lines: readonly Line[], prices: readonly Price[]): string[] {
  const base = new Set(prices.filter(({ recurring }) => recurring?.usage_type === "licensed").map(({ id }) => id));
  const paid = lines.filter(({ amount, pricing }) => amount !== 0 && base.has(pricing?.price_details?.price ?? ""));
  return [...new Set(paid.map(({ period }) => period.start))].flatMap((at) => {
    const times = sum(
      paid.filter(({ period }) => period.start <= at && period.end > at).map(({ amount }) => Math.sign(amount)),
    );
    return times > 1 ? [`the base price at ${at} is paid ${times} times`] : [];
  });
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, each) => total + each, 0);
}
