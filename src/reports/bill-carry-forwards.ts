// Bills usage that came too late for its invoice: an item of the customer's next one. An item has no identifier that
// Stripe refuses twice, so that the key of an attempt is recorded before it is used, and a new key is only used after a
// look for the item that the old one may have made.
import { type CarryForward, carryForwardsStore } from "./carry-forwards-store.ts";
import { connectControl } from "../adapters/neon.ts";
import { connectStripe } from "../adapters/stripe.ts";
import { attemptKey } from "../adapters/stripe-meter.ts";
import { ITEM_SPACING_MS, amountCents, lateCharge, nextItemKey } from "./carry-forward.ts";
import { log } from "../log.ts";
import type { ReportRun } from "./report-cron.ts";

const PER_CLAIM = 10;
/** Longer than ten of them take when Stripe lets each look and each call time out. */
const CLAIM_MS = 300_000;
/** Stripe's clock may be behind ours by this much; an item cannot be older than its carry-forward otherwise. */
const LOOK_BACK_SECONDS = 3_600;

/** Prices and bills what is due, one after the other, until the run's time is over. */
export async function billCarryForwards(env: Env, run: ReportRun): Promise<void> {
  const ledger = carryForwardsStore(connectControl(env));
  await ledger.price(run.nowMs());
  while (!run.isOver()) {
    const nowMs = run.nowMs();
    const due = await ledger.claim(nowMs, nowMs + CLAIM_MS, PER_CLAIM);
    if (due.length === 0) break;
    for (const each of due) await bill(env, run, each, nowMs + CLAIM_MS);
  }
}

async function bill(env: Env, run: ReportRun, late: CarryForward, claimedUntilMs: number): Promise<void> {
  const ledger = carryForwardsStore(connectControl(env));
  const stripe = connectStripe(env.STRIPE_SECRET_KEY, env.STRIPE_API_BASE);
  const { id, tenantId, customerId, startSeconds, endSeconds } = late;
  const charge = lateCharge(late, late.unitsBefore, late.units);
  if (charge.units === 0) return ledger.settle(id, "covered", null, run.nowMs());

  const item = { id, tenantId, customerId, startSeconds, endSeconds, ...charge };
  const { key, lookFirst } = nextItemKey({ number: late.keyNumber, sinceMs: late.keySinceMs }, run.nowMs());
  if (!(await ledger.recordKey(id, key, claimedUntilMs))) return;
  await run.turn();
  const found = lookFirst
    ? await stripe.invoices.findLateItem(item, late.frozenSeconds - LOOK_BACK_SECONDS)
    : undefined;
  const answer = found ?? (await stripe.invoices.createLateItem(item, attemptKey(id, key.number)));

  if (answer.kind === "item") {
    await ledger.settle(id, found === undefined ? "created" : "found", answer.id, run.nowMs());
    log("info", "usage_billed_late", { tenantId, carryForward: id, units: charge.units, cents: amountCents(charge) });
    return;
  }
  // No answer is no reason to look at it: the next run asks again.
  const refused = answer.kind === "refused" ? answer.message.slice(0, 300) : null;
  await ledger.postpone(id, refused, run.nowMs() + ITEM_SPACING_MS, claimedUntilMs);
  log("warn", "usage_not_billed_late", { tenantId, carryForward: id, refused: refused !== null });
}
