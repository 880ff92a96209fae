// Bills usage that came too late for its invoice as an item of a later invoice: usage of a period whose invoice is final,
// or usage that is too old for the meter. Its price is the price of the period with these units, minus the price without
// them. So included units count first, and the carry-forwards of a period add up to the price of all their units.
//
// Stripe does not refuse a second item with the same id. So Tollgate records the idempotency key of an attempt before it
// uses the key. It uses a new key only after a search for the item that the old key may have created.
import { attemptKey } from "../adapters/stripe/meter.ts";
import type { StripeConnection } from "../adapters/stripe/stripe.ts";
import type { Context } from "../control/context.ts";
import { isolated } from "../control/failures-store.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import { costOf, inCents } from "../core/plans/money.ts";
import { storable } from "../core/text/text.ts";
import { HOUR_MS, MINUTE_MS } from "../core/time.ts";
import { log } from "../log.ts";
import {
  type CarryForward,
  type CarryForwardsStore,
  type ItemKey,
  type Tariff,
  carryForwardsStore,
} from "./carry-forwards-store.ts";
import type { ReportRun } from "./report-cron.ts";

export interface LateCharge {
  /** Units that are not included in the plan. 0: Tollgate bills nothing. */
  readonly units: number;
  readonly unitAmountCents: string;
}

/** The charge for `units` more in a period that had `unitsBefore`: a whole number of units at one exact price each. */
export function lateCharge(tariff: Tariff, unitsBefore: number, units: number): LateCharge {
  const { includedUnits, unitAmountCents } = tariff;
  if (unitAmountCents === null || !/[1-9]/.test(unitAmountCents)) return { units: 0, unitAmountCents: "0" };
  const beyond = (count: number): number => Math.max(0, count - includedUnits);
  return { units: beyond(unitsBefore + units) - beyond(unitsBefore), unitAmountCents };
}

/**
 * How long a key is reused. Stripe replays the first result of a key for 24 hours, even a stored 500. So a key that has no
 * answer after an hour may never get one. No request runs for an hour.
 */
const KEY_LIFE_MS = HOUR_MS;

/** Minimum time between two attempts at a carry-forward: the interval of the cron. */
const ITEM_SPACING_MS = 5 * MINUTE_MS;

/**
 * The key of the next attempt. A key is reused during its life, so that it creates one item. A new key does not protect
 * against the old key's item. Then `lookFirst` asks for a search for an item with the carry-forward's id.
 */
export function nextItemKey(key: ItemKey, nowMs: number): { key: ItemKey; lookFirst: boolean } {
  if (key.sinceMs !== null && Math.abs(nowMs - key.sinceMs) < KEY_LIFE_MS) return { key, lookFirst: key.number > 1 };
  return { key: { number: key.number + 1, sinceMs: nowMs }, lookFirst: key.number > 0 };
}

// ---- one run

/** A small claim leaves little to repeat when a run is cut short. */
const PER_CLAIM = 10;
/** Longer than ten carry-forwards take when each search and each request to Stripe times out. */
const CLAIM_MS = 300_000;
/** Allowance for Stripe's clock. An item is never older than its carry-forward. */
const LOOK_BACK_SECONDS = 3_600;

/** Prices and bills due carry-forwards, of all tenants or of one, one after the other, until the run's time is over. */
export async function billCarryForwards(
  { control, stripe }: Context,
  run: ReportRun,
  tenantId?: TenantId,
): Promise<void> {
  const store = carryForwardsStore(control);
  await store.price(run.nowMs(), tenantId);
  while (!run.isOver()) {
    const nowMs = run.nowMs();
    const due = await store.claim({ nowMs, untilMs: nowMs + CLAIM_MS, limit: PER_CLAIM, tenantId });
    if (due.length === 0) break;
    // One that fails is due again when its claim ends.
    await isolated(control, due, { part: "carry_forwards", idOf: ({ id }) => id, atOnce: 1 }, (each) =>
      bill({ store, stripe, run }, each, nowMs + CLAIM_MS),
    );
  }
}

async function bill(
  { store, stripe, run }: { store: CarryForwardsStore; stripe: StripeConnection; run: ReportRun },
  late: CarryForward,
  claimedUntilMs: number,
): Promise<void> {
  const { id, tenantId, customerId, startSeconds, endSeconds } = late;
  const charge = lateCharge(late, late.unitsBefore, late.units);
  if (charge.units === 0) return store.settle(id, "covered", null, run.nowMs());

  const item = { id, tenantId, customerId, startSeconds, endSeconds, ...charge };
  const { key, lookFirst } = nextItemKey({ number: late.keyNumber, sinceMs: late.keySinceMs }, run.nowMs());
  if (!(await store.recordKey(id, key, claimedUntilMs))) return;
  await run.acquire();
  const found = lookFirst
    ? await stripe.invoices.findLateItem(item, late.frozenSeconds - LOOK_BACK_SECONDS)
    : undefined;
  const made = found ?? (await stripe.invoices.createLateItem(item, attemptKey(id, key.number)));
  // No further invoice of an ended subscription would take the item.
  const isAlone = made.kind === "item" && late.ended;
  const answer = isAlone ? await stripe.invoices.invoiceLateItem(made.id, item, attemptKey(id, key.number)) : made;

  if (answer.kind === "item") {
    await store.settle(id, found === undefined ? "created" : "found", answer.id, run.nowMs());
    const cents = inCents(costOf(charge.units, charge.unitAmountCents));
    log("info", "usage_billed_late", { tenantId, carryForward: id, units: charge.units, cents });
    return;
  }
  // An attempt without an answer needs no operator, because the next run repeats it.
  const refused = answer.kind === "refused" ? storable(answer.message, 300) : null;
  await store.postpone(id, refused, run.nowMs() + ITEM_SPACING_MS, claimedUntilMs);
  log("warn", "usage_not_billed_late", { tenantId, carryForward: id, refused: refused !== null });
}
