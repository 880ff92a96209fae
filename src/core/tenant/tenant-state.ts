// The life of a tenant in one table: for each condition, what is allowed, which event leads where, and the ways back to a
// served account with who can take them. Everything that changes or shows a tenant's state asks this table.
//
// Invariants: every condition but `gone` has a path to `active`. Every way back that a refusal states is a transition of
// this table over a route that exists. Only the operator ends an operator's suspension. `gone` is final.
import { type ErrorCode, support } from "../errors.ts";
import type { TenantState } from "./tenant.ts";
import { DAY_MS } from "../time.ts";

/** A stored state, refined by the clock and by who suspended the tenant. */
export const conditions = [
  "provisioning",
  "trial",
  "trial_over",
  "active",
  "past_due",
  "overdue",
  "suspended_by_operator",
  "suspended_by_billing",
  "paused",
  "leaving",
  "gone",
] as const;
export type Condition = (typeof conditions)[number];

/** What happens to a tenant. The time alone leads from `trial` to `trial_over` and from `past_due` to `overdue`. */
export const tenantEvents = {
  provisioned: "its first call succeeds",
  subscription_trialing: "Stripe has a trial",
  subscription_active: "Stripe has an active subscription",
  subscription_past_due: "Stripe has an unpaid invoice",
  subscription_suspended: "Stripe has no running subscription",
  subscription_paused: "the operator stops its collection at Stripe (`void`)",
  suspend: "the operator suspends it",
  resume: "the operator resumes it",
  set_trial: "the operator sets when its trial ends",
  change_plan: "a plan change takes effect",
  leave_stripe: "a change to a plan by contract takes effect",
  remove: "it is removed, or its subscription ended",
  reactivate: "it is reactivated",
  grace_over: "the grace period ends",
} as const;
export type TenantEvent = keyof typeof tenantEvents;

/**
 * Where an event leads. `settled`: to what the subscription and the trial say. `resumed`: the same, and a trial that has
 * passed ends. `before`: to the state before the removal, and from there as `settled` unless the operator had suspended it.
 */
type Next = Exclude<Condition, "trial_over" | "overdue"> | "settled" | "resumed" | "before";

/** What a tenant's people can do in a condition, besides reading usage and invoices. */
export const permissions = ["export", "portal", "change_plan", "checkout"] as const;
export type Permission = (typeof permissions)[number];

/** The ways back: who can take each with one request, and what it does. The plan's name is in the body of `buy` and `change_plan`. */
export const ways = {
  pay: {
    by: "administrator",
    route: "POST /api/tenants/:tenantId/portal",
    event: "subscription_active",
    does: "pay the open invoice or add a way to pay at Stripe",
  },
  buy: {
    by: "administrator",
    route: "POST /api/tenants/:tenantId/checkout",
    event: "subscription_active",
    does: "buy a plan",
  },
  return: {
    by: "administrator",
    route: "POST /api/tenants/:tenantId/reactivate",
    event: "reactivate",
    does: "reactivate it",
  },
  resume: { by: "operator", route: "POST /admin/api/tenants/:tenantId/resume", event: "resume", does: "resume it" },
  change_plan: {
    by: "operator",
    route: "POST /admin/api/tenants/:tenantId/plan",
    event: "change_plan",
    does: "give it a plan",
  },
  change_to_contract: {
    by: "operator",
    route: "POST /admin/api/tenants/:tenantId/plan",
    event: "leave_stripe",
    does: "give it a plan by contract",
  },
  reactivate: {
    by: "operator",
    route: "POST /admin/api/tenants/:tenantId/reactivate",
    event: "reactivate",
    does: "reactivate it",
  },
} as const satisfies Record<
  string,
  { by: "administrator" | "operator"; route: string; event: TenantEvent; does: string }
>;
export type Way = keyof typeof ways;

interface Row {
  /** Whether calls are served. Otherwise the code of their refusal. */
  calls: "served" | ErrorCode;
  allows: readonly Permission[];
  /** Events that are not listed change nothing, or are refused. */
  next: Readonly<Partial<Record<TenantEvent, Next>>>;
  ways: readonly Way[];
  meaning: string;
  /**
   * What the refusal of a call says after the code's advice. It names what the account's administrator can do. Where only the
   * operator can act, it says so.
   */
  says?: (account: Account, publicUrl: string) => string;
}

/** What the sentences of a refusal name. */
export interface Account {
  id: string;
  leavingUntilMs: number | null;
}

/** Stripe decides the state of a tenant that is neither being set up, held by the operator, nor leaving. */
const stripeDecides = {
  subscription_trialing: "trial",
  subscription_active: "active",
  subscription_past_due: "past_due",
  subscription_suspended: "suspended_by_billing",
  subscription_paused: "paused",
} as const;
/** Its subscription waits: `settled` applies it later. */
const stripeWaits = (same: "provisioning" | "suspended_by_operator" | "leaving") => ({
  subscription_trialing: same,
  subscription_active: same,
  subscription_past_due: same,
  subscription_suspended: same,
  subscription_paused: same,
});

export const tenantTable: Readonly<Record<Condition, Row>> = {
  provisioning: {
    calls: "tenant_provisioning",
    allows: ["portal"],
    next: {
      ...stripeWaits("provisioning"),
      provisioned: "settled",
      resume: "provisioning", // starts another attempt
      set_trial: "provisioning",
      change_plan: "provisioning",
      leave_stripe: "provisioning",
      remove: "leaving",
    },
    ways: ["resume"],
    meaning: "Tollgate sets it up and retries by itself. After a refusal that will not pass, `resume` starts again.",
  },
  trial: {
    calls: "served",
    allows: ["export", "portal", "change_plan", "checkout"],
    next: {
      ...stripeDecides,
      suspend: "suspended_by_operator",
      resume: "trial",
      set_trial: "settled",
      change_plan: "trial",
      leave_stripe: "active",
      remove: "leaving",
    },
    ways: [],
    meaning: "A trial by Stripe or by the operator.",
  },
  trial_over: {
    calls: "trial_expired",
    allows: ["export", "portal", "change_plan", "checkout"],
    next: {
      ...stripeDecides,
      suspend: "suspended_by_operator",
      resume: "resumed",
      set_trial: "settled",
      change_plan: "active",
      leave_stripe: "active",
      remove: "leaving",
    },
    ways: ["buy", "resume", "change_plan"],
    meaning: "The trial has passed, and no subscription followed.",
    says: ({ id }, publicUrl) =>
      `The account's administrator can buy a plan with ${requestOf("buy", id, publicUrl)}. The plans: ${publicUrl}/plans. For another arrangement ask support: ${support}.`,
  },
  active: {
    calls: "served",
    allows: ["export", "portal", "change_plan", "checkout"],
    next: {
      ...stripeDecides,
      suspend: "suspended_by_operator",
      resume: "active",
      set_trial: "settled",
      change_plan: "active",
      leave_stripe: "active",
      remove: "leaving",
    },
    ways: [],
    meaning: "Paid, or served by contract.",
  },
  past_due: {
    calls: "served",
    allows: ["export", "portal", "change_plan"],
    next: {
      ...stripeDecides,
      suspend: "suspended_by_operator",
      resume: "past_due",
      change_plan: "past_due",
      leave_stripe: "active",
      remove: "leaving",
    },
    ways: [],
    meaning: "An invoice is unpaid for less than a week.",
  },
  overdue: {
    calls: "payment_required",
    allows: ["export", "portal", "change_plan"],
    next: {
      ...stripeDecides,
      suspend: "suspended_by_operator",
      change_plan: "past_due",
      leave_stripe: "active",
      remove: "leaving",
    },
    ways: ["pay", "change_to_contract"],
    meaning: "An invoice is unpaid for a week.",
    says: ({ id }, publicUrl) =>
      `The account's administrator can open the invoice with ${requestOf("pay", id, publicUrl)}.`,
  },
  suspended_by_operator: {
    calls: "tenant_suspended",
    allows: ["export", "portal"],
    next: {
      ...stripeWaits("suspended_by_operator"),
      suspend: "suspended_by_operator",
      resume: "resumed",
      set_trial: "suspended_by_operator",
      change_plan: "suspended_by_operator",
      leave_stripe: "suspended_by_operator",
      remove: "leaving",
    },
    ways: ["resume"],
    meaning: "The operator suspended it. No payment and no event of Stripe's ends this.",
    says: () => `The operator suspended it, and only the operator can resume it. Ask support: ${support}.`,
  },
  suspended_by_billing: {
    calls: "tenant_suspended",
    allows: ["export", "portal"],
    next: {
      ...stripeDecides,
      suspend: "suspended_by_operator",
      change_plan: "suspended_by_billing",
      leave_stripe: "active",
      remove: "leaving",
      reactivate: "settled",
    },
    ways: ["pay", "return", "reactivate", "change_to_contract"],
    meaning: "Its subscription is paused or was never paid. One that has ended begins the removal.",
    says: ({ id }, publicUrl) =>
      `Its subscription is paused, unpaid or has ended. The account's administrator can pay or add a way to pay with ${requestOf("pay", id, publicUrl)}, and reactivate it with ${requestOf("return", id, publicUrl)}.`,
  },
  paused: {
    calls: "tenant_suspended",
    allows: ["export", "portal"],
    next: {
      ...stripeDecides,
      suspend: "suspended_by_operator",
      change_plan: "paused",
      leave_stripe: "active",
      remove: "leaving",
      reactivate: "settled",
    },
    ways: ["reactivate", "change_to_contract"],
    meaning:
      "The operator has stopped the collection of payments at Stripe, because it does not serve the account for now.",
    says: () =>
      `The operator has paused its subscription, and only the operator can resume it. Ask support: ${support}.`,
  },
  leaving: {
    calls: "tenant_leaving",
    allows: ["export", "portal"],
    next: { ...stripeWaits("leaving"), remove: "leaving", reactivate: "before", grace_over: "gone" },
    ways: ["return", "reactivate"],
    meaning: "The account is being closed, and can return for 30 days.",
    says: ({ id, leavingUntilMs }, publicUrl) => {
      const until = leavingUntilMs === null ? "The" : `Until ${new Date(leavingUntilMs).toISOString()} the`;
      return `${until} account's administrator can reactivate it with ${requestOf("return", id, publicUrl)} and export its data with GET ${publicUrl}/api/tenants/${id}/export.`;
    },
  },
  gone: {
    calls: "tenant_gone",
    allows: [],
    next: {},
    ways: [],
    meaning: "The data is deleted. Nothing leads back.",
  },
};

/** operator: by its API. billing: no running subscription. pause: the operator stopped the collection at Stripe. */
export const suspenders = ["operator", "billing", "pause"] as const;
export type Suspender = (typeof suspenders)[number];

/** The fields of a tenant's row that decide its condition. */
export interface StateFacts {
  state: TenantState;
  /** `null`: not suspended, or suspended by the operator. Kept while the tenant leaves. */
  suspendedBy: Suspender | null;
  trialUntilMs: number | null;
  pastDueSinceMs: number | null;
}

/** The facts that `settled` needs, too. */
export interface SettlingFacts extends StateFacts {
  /** When the subscription ended. `null`: it runs, or there is none. */
  endedAtMs: number | null;
  /** The state before the removal, for a tenant that leaves. */
  stateBefore?: TenantState | undefined;
}

/** The fields that an event changes. */
export type StateChange = StateFacts;

/**
 * How long Tollgate serves a tenant after a failed payment. Stripe retries within days, and most failing cards are replaced
 * within a week; serving longer would only add to the debt.
 */
export const PAST_DUE_SERVICE_MS = 7 * DAY_MS;

export function conditionOf(facts: StateFacts, nowMs: number): Condition {
  const { state, suspendedBy, trialUntilMs, pastDueSinceMs } = facts;
  if (state === "suspended") {
    if (suspendedBy === "pause") return "paused";
    return suspendedBy === "billing" ? "suspended_by_billing" : "suspended_by_operator";
  }
  if (state === "trial") return trialUntilMs !== null && nowMs >= trialUntilMs ? "trial_over" : "trial";
  if (state !== "past_due") return state;
  return pastDueSinceMs !== null && nowMs >= pastDueSinceMs + PAST_DUE_SERVICE_MS ? "overdue" : "past_due";
}

/** The error code that refuses this tenant's calls now, or `undefined` when it is served. */
export function refusedByState(facts: StateFacts, nowMs: number): ErrorCode | undefined {
  const { calls } = tenantTable[conditionOf(facts, nowMs)];
  return calls === "served" ? undefined : calls;
}

export function allows(facts: StateFacts, permission: Permission, nowMs: number): boolean {
  return tenantTable[conditionOf(facts, nowMs)].allows.includes(permission);
}

/** The fields after an event. `undefined`: the event is not possible in this condition. */
export function afterEvent(facts: SettlingFacts, event: TenantEvent, nowMs: number): StateChange | undefined {
  const next = tenantTable[conditionOf(facts, nowMs)].next[event];
  if (next === undefined) return undefined;
  if (next === "before") return before(facts);
  if (next === "settled") return settled(facts);
  if (next === "resumed") return settled(trialEnded(facts, nowMs));
  const clears = next === "active" || event === "leave_stripe";
  return { ...kept(facts), ...fieldsOf[next], ...(clears && { trialUntilMs: null, pastDueSinceMs: null }) };
}

function settled(facts: SettlingFacts): StateChange {
  const own = kept(facts);
  if (facts.endedAtMs !== null) return { ...own, ...fieldsOf.suspended_by_billing };
  if (facts.pastDueSinceMs !== null) return { ...own, ...fieldsOf.past_due };
  if (facts.trialUntilMs !== null) return { ...own, ...fieldsOf.trial };
  return { ...own, ...fieldsOf.active };
}

function trialEnded(facts: SettlingFacts, nowMs: number): SettlingFacts {
  return facts.trialUntilMs !== null && nowMs >= facts.trialUntilMs ? { ...facts, trialUntilMs: null } : facts;
}

function before(facts: SettlingFacts): StateChange {
  const was = facts.stateBefore;
  if (was === "provisioning") return { ...kept(facts), ...fieldsOf.provisioning };
  if (was === "suspended") {
    if (facts.suspendedBy === "operator" || facts.suspendedBy === null)
      return { ...kept(facts), ...fieldsOf.suspended_by_operator };
    if (facts.endedAtMs !== null) return { ...kept(facts), ...fieldsOf.suspended_by_billing };
  }
  return settled(facts);
}

function kept({ state, suspendedBy, trialUntilMs, pastDueSinceMs }: StateFacts): StateChange {
  return { state, suspendedBy, trialUntilMs, pastDueSinceMs };
}

/** How a condition is stored. Time alone makes `trial_over` and `overdue`, so no event leads there. */
const fieldsOf = {
  provisioning: { state: "provisioning", suspendedBy: null },
  trial: { state: "trial", suspendedBy: null },
  active: { state: "active", suspendedBy: null },
  past_due: { state: "past_due", suspendedBy: null },
  suspended_by_operator: { state: "suspended", suspendedBy: "operator" },
  suspended_by_billing: { state: "suspended", suspendedBy: "billing" },
  paused: { state: "suspended", suspendedBy: "pause" },
  leaving: { state: "leaving" },
  gone: { state: "gone" },
} as const satisfies Record<Exclude<Next, "settled" | "resumed" | "before">, Partial<StateFacts>>;

/** A way back with its address, as the API shows it. */
export interface WayBack {
  by: "administrator" | "operator";
  does: string;
  /** Method and URL. */
  request: string;
}

export function waysBack(condition: Condition, tenantId: string, publicUrl: string): WayBack[] {
  return tenantTable[condition].ways.map((way) => {
    const { by, does } = ways[way];
    return { by, does, request: requestOf(way, tenantId, publicUrl) };
  });
}

function requestOf(way: Way, tenantId: string, publicUrl: string): string {
  return ways[way].route.replace(" ", ` ${publicUrl}`).replace(":tenantId", tenantId);
}

/** Whether calls are served now, and otherwise why not and the ways back. The API answers a change of state with it. */
export function serviceOf(
  facts: StateFacts,
  { tenantId, publicUrl, nowMs }: { tenantId: string; publicUrl: string; nowMs: number },
): { served: boolean; refusedWith: ErrorCode | null; waysBack: WayBack[] } {
  const refusedWith = refusedByState(facts, nowMs) ?? null;
  return {
    served: refusedWith === null,
    refusedWith,
    waysBack: waysBack(conditionOf(facts, nowMs), tenantId, publicUrl),
  };
}

/** The stored states in which an event is possible at some time. For conditions of SQL statements. */
export function statesThatTake(event: TenantEvent): TenantState[] {
  const taking = conditions.filter((each) => tenantTable[each].next[event] !== undefined);
  return [...new Set(taking.map(storedState))];
}

function storedState(condition: Condition): TenantState {
  if (condition === "trial_over") return "trial";
  return condition === "overdue" ? "past_due" : fieldsOf[condition].state;
}
