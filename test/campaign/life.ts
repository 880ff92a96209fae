// The steps of an account's life in the campaign: it leaves, returns, is refused a return, and cancels and resumes its
// subscription. Each step may be interrupted by a fault.
import { fireCron, operator, simulator, status, stripeApi, until } from "../support/flow.ts";
import { subscriptionOf, superuserSql } from "./invariants.ts";

/** The schedule of the sweep. */
export const SWEEP = "* * * * *";

/** The one clock of Stripe, the crons and the Worker. It never moves backwards. */
export interface VirtualClock {
  nowMs(): number;
  ahead(ms: number): Promise<void>;
}

/** Changes to another plan and back. Stripe confirms the usage under each plan before the next one is in force. */
export const planOfRound = ["starter", "pro"] as const;

/** Events of a life that often come in this order, within one minute. Others come in any order. */
export const habits = [
  ["call", "leave", "return", "call", "leave", "return", "call"],
  ["leave", "return", "call", "leave", "return", "change", "call"],
  ["call", "change", "call", "leave", "return", "call", "change"],
  ["call", "leave", "refused", "return", "call", "change", "call"],
] as const;
export const lifeEvents = ["call", "leave", "return", "refused", "change", "mind", "fail", "pay", "wait"] as const;

/** Cancels and resumes the subscription a few times. Stripe's current state decides, whichever event arrives last. */
export async function changeMind(tenantId: string, random: () => number): Promise<void> {
  const subscription = await subscriptionOf(tenantId);
  for (let left = Math.floor(random() * 3); left > 0; left -= 1) {
    for (const cancels of ["true", "false"]) {
      await stripeApi(`/subscriptions/${subscription}`, { cancel_at_period_end: cancels }).catch(() => undefined);
    }
  }
}

/** Backdates heartbeats, because the sweep measures silence on the database's real clock, not on the virtual one. */
export async function beSilentForLong(tenantIds: readonly string[]): Promise<void> {
  for (const text of [
    `UPDATE webhook_inbox SET received_at = received_at - interval '1 minute' WHERE tenant_id = ANY ($1) AND applied_at IS NULL`,
    `UPDATE plan_changes SET progressed_at = progressed_at - interval '10 minutes' WHERE tenant_id = ANY ($1) AND state = 'waiting'`,
    `UPDATE removals SET progressed_at = progressed_at - interval '10 minutes' WHERE tenant_id = ANY ($1) AND step NOT IN ('done', 'undone')`,
    `UPDATE provisioning_attempts SET progressed_at = progressed_at - interval '10 minutes' WHERE tenant_id = ANY ($1) AND finished_at IS NULL`,
  ]) {
    await superuserSql(text, [tenantIds]);
  }
}

/** Removes the account. `waits`: until its subscription has ended, or for some seconds. */
export async function leave(clock: VirtualClock, tenantId: string, waits: boolean): Promise<void> {
  await operator("POST", `/tenants/${tenantId}/remove`).catch(() => undefined);
  const isGrace = async (): Promise<boolean> => {
    const removal = (await (await operator("GET", `/tenants/${tenantId}/removal`)).json()) as { phase?: string };
    return removal.phase === "grace";
  };
  if (!waits) return;
  const hasLeft = (): Promise<boolean> =>
    until(isGrace, "it has left", 2_500).then(
      () => true,
      () => false,
    );
  if (await hasLeft()) return;
  // A fault has interrupted it. A failed report is due again after half a minute, and the sweep resumes a removal.
  await clock.ahead(31_000);
  await beSilentForLong([tenantId]);
  await fireCron(SWEEP, clock.nowMs()).catch(() => undefined);
  await hasLeft();
}

/** Reactivates the account, if it has left. */
export async function comeBack(tenantId: string, withinMs: number): Promise<void> {
  const isBack = async (): Promise<boolean> => {
    if ((await status(tenantId)).state !== "leaving") return true;
    return (await operator("POST", `/tenants/${tenantId}/reactivate`)).ok;
  };
  await until(isBack, "it is back", withinMs).catch(() => undefined);
}

/** Asks for a return that Stripe refuses to charge. Later the customer could pay, but did not ask again. */
export async function comeBackUnpaid(clock: VirtualClock, tenantId: string): Promise<void> {
  await simulator("/payments", { everybody: "fail" });
  const { status: answer } = await operator("POST", `/tenants/${tenantId}/reactivate`);
  await simulator("/payments", {});
  if (answer !== 402) return; // it had not left, it has paid for the time already, or a fault came first
  await beSilentForLong([tenantId]);
  await fireCron(SWEEP, clock.nowMs()).catch(() => undefined);
  const { state } = await status(tenantId);
  if (state !== "leaving") throw new Error(`${tenantId} is ${state} after a return that Stripe refused`);
}
