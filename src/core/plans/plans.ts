// Plans: their types, and every plan of app/config.ts by its name. A tenant keeps the numbers it bought, which are copied
// into its row, and the operator can override each number per tenant. No code names a plan: it asks for a plan's price,
// limits and strategy, and for the lookup keys of its prices at Stripe.
import * as z from "zod";
import { config } from "../app-config.ts";

/** A name of app/config.ts. */
export type PlanName = string;

/**
 * How a tenant's rows are kept apart: tables with row security that many share, a schema with a login role of its own, or
 * a database of its own.
 */
export const strategies = ["shared", "schema", "database"] as const;
export type Strategy = (typeof strategies)[number];

/** The limits of admission. `null`: no limit, and no check. */
const AdmissionLimits = z.object({
  unitsPerHour: z.int().positive().nullable(),
  unitsPerMonth: z.int().positive().nullable(),
  callsPerMinute: z.int().positive().nullable(),
  callsInFlight: z.int().positive().max(1_000),
  /** Units an hour for single tools, by tool name. These units also count against `unitsPerHour`. */
  unitsPerHourByTool: z.record(z.string(), z.int().positive()).default({}),
});
export type AdmissionLimits = z.infer<typeof AdmissionLimits>;

/** Every number that a plan sells. */
export const Limits = AdmissionLimits.extend({
  /** Database sessions that may be open at once, for transactions. */
  sessions: z.int().positive().max(100).default(2),
  /** An idle session is closed after this long. */
  sessionIdleSeconds: z.int().min(1).max(300).default(30),
  /** Where the price of units beyond the included ones stops in a billing period, unless an owner says otherwise. `null`: nowhere. */
  spendCapCents: z.int().min(0).nullable().default(null),
  /** The highest spend cap that an owner may set. `null`: any. */
  maxSpendCapCents: z.int().min(0).nullable().default(null),
});
export type Limits = z.infer<typeof Limits>;

const { shape } = Limits;
/** No limit, where a plan can have none. `null` would be the same text as in a stored limit, and mean something else. */
const orNone = <Schema extends z.ZodType>(limit: Schema) => z.union([limit, z.literal("none")]).nullable();

/**
 * How the operator changes single limits of a tenant. What is left out stays as it is, `null` takes the number that was sold,
 * and `none` removes a limit.
 */
export const LimitChanges = z
  .strictObject({
    unitsPerHour: orNone(shape.unitsPerHour.unwrap()),
    unitsPerMonth: orNone(shape.unitsPerMonth.unwrap()),
    callsPerMinute: orNone(shape.callsPerMinute.unwrap()),
    callsInFlight: shape.callsInFlight.nullable(),
    /** By tool: `null` takes the number that was sold for this tool, or none. */
    unitsPerHourByTool: z.record(z.string(), z.int().positive().nullable()).nullable(),
    sessions: shape.sessions.unwrap().nullable(),
    sessionIdleSeconds: shape.sessionIdleSeconds.unwrap().nullable(),
    spendCapCents: orNone(shape.spendCapCents.unwrap().unwrap()),
    maxSpendCapCents: orNone(shape.maxSpendCapCents.unwrap().unwrap()),
  })
  .partial();
export type LimitChanges = z.infer<typeof LimitChanges>;

/** The limits after the changes. `sold`: the numbers that the tenant was sold. */
export function changedLimits(current: Limits, changes: LimitChanges, sold: Limits): Limits {
  const { unitsPerHourByTool: byTool, ...single } = changes;
  const next: Record<string, unknown> = { ...current };
  for (const [name, change] of Object.entries(single))
    if (change !== undefined)
      next[name] = change === "none" ? null : (change ?? sold[name as Exclude<keyof Limits, "unitsPerHourByTool">]);
  if (byTool === null) next["unitsPerHourByTool"] = sold.unitsPerHourByTool;
  else if (byTool !== undefined) {
    const tools = new Map(Object.entries(current.unitsPerHourByTool));
    for (const [tool, change] of Object.entries(byTool)) {
      const units = change ?? sold.unitsPerHourByTool[tool];
      if (units === undefined) tools.delete(tool);
      else tools.set(tool, units);
    }
    next["unitsPerHourByTool"] = Object.fromEntries(tools);
  }
  return Limits.parse(next);
}

/** A JSON number that arrives as it was sent. The parser rounds integers above 2^53. */
const ExactNumber = z
  .number()
  .refine((value) => !Number.isInteger(value) || Number.isSafeInteger(value), "must be between -2^53 and 2^53");

/** Feature switches that tools read. A plan has some, and the operator sets others for one tenant. */
export const Features = z.record(z.string().min(1).max(60), z.union([z.boolean(), ExactNumber, z.string().max(200)]));
export type Features = z.infer<typeof Features>;

/** What differs between the limits and those that were sold, as the changes that lead from these to those. */
export function overriddenLimits(limits: Limits, sold: Limits): LimitChanges {
  const { unitsPerHourByTool: byTool, ...single } = limits;
  const changed = Object.entries(single).filter(([name, value]) => value !== sold[name as keyof typeof single]);
  const changedByTool = Object.entries(byTool).filter(([tool, units]) => units !== sold.unitsPerHourByTool[tool]);
  return {
    ...Object.fromEntries(changed.map(([name, value]) => [name, value ?? "none"])),
    ...(changedByTool.length > 0 && { unitsPerHourByTool: Object.fromEntries(changedByTool) }),
  };
}

export interface Plan {
  readonly name: PlanName;
  /** Base price per month. `null`: by contract, never sold through Checkout. */
  readonly amountCents: number | null;
  /** Price of one unit beyond `includedUnits`, as a decimal string of cents. `null`: units beyond are refused instead. */
  readonly unitAmountCents: string | null;
  /** Units a month that the base price covers. `null`: none. */
  readonly includedUnits: number | null;
  readonly limits: Limits;
  readonly strategy: Strategy;
  /** Features of every tenant of the plan, as app/config.ts says today. */
  readonly features?: Features;
  /** What a call of single tools costs on this plan, by tool name, as app/config.ts says today. Other tools have their own price. */
  readonly toolUnits?: Readonly<Record<string, number>>;
}

/** A plan as app/config.ts writes it: what it leaves out of the limits has a default. */
export type WrittenPlan = Omit<Plan, "name" | "limits"> & { readonly limits: z.input<typeof Limits> };

const PlanDefinition = z.strictObject({
  amountCents: z.int().min(0).nullable(),
  unitAmountCents: z
    .string()
    .regex(/^\d+(\.\d{1,12})?$/, "a decimal string of cents, such as 0.1")
    .nullable(),
  includedUnits: z.int().min(0).nullable(),
  limits: Limits,
  strategy: z.enum(strategies),
  features: Features.default({}),
  toolUnits: z.record(z.string(), z.int().min(0)).default({}),
});

const PlanTable = z
  .record(z.string().regex(/^[a-z][a-z0-9_-]{0,39}$/, "lower-case letters, digits, - and _"), PlanDefinition)
  .refine((table) => Object.keys(table).length > 0, "there must be at least one plan");

/** The plans by name. `planOf` finds the one of a stored name. */
export const plans: ReadonlyMap<PlanName, Plan> = readPlans(config.plans);
export const planNames: readonly [PlanName, ...PlanName[]] = namesOf(plans);

/** The plan of this name. Throws when app/config.ts has no such plan: a plan with tenants must not be removed. */
export function planOf(name: PlanName): Plan {
  const plan = plans.get(name);
  if (plan === undefined) throw new Error(`app/config.ts has no plan ${name}, but a tenant has it. Put the plan back.`);
  return plan;
}

/** The features of a tenant: its own, and those of its plan besides. A tenant's own `false` takes a feature away. */
export function featuresOf({ plan, features }: { plan: PlanName; features: Features }): Features {
  return { ...plans.get(plan)?.features, ...features };
}

/** Each step of price doubles a tenant's share of what tenants compete for. Plans by contract come last. */
const MAX_WEIGHT = 64;

/**
 * The weight of a plan's tenants where they compete for a shared resource: 1 for the cheapest plan, twice as much for the
 * next. Also 1 for a name that app/config.ts lacks: sharing must not fail.
 */
export function weightOf(name: PlanName): number {
  const price = ({ amountCents }: Plan): number => amountCents ?? Infinity;
  const plan = plans.get(name);
  if (plan === undefined) return 1;
  const own = price(plan);
  const cheaper = new Set([...plans.values()].map(price).filter((other) => other < own));
  return Math.min(2 ** cheaper.size, MAX_WEIGHT);
}

function readPlans(table: unknown): ReadonlyMap<PlanName, Plan> {
  const parsed = PlanTable.safeParse(table);
  if (!parsed.success) throw new Error(`The plans of app/config.ts cannot be used.\n${z.prettifyError(parsed.error)}`);
  return new Map(Object.entries(parsed.data).map(([name, plan]) => [name, { name, ...plan }]));
}

function namesOf(table: ReadonlyMap<PlanName, Plan>): readonly [PlanName, ...PlanName[]] {
  const [first, ...rest] = table.keys();
  if (first === undefined) throw new Error("app/config.ts has no plan.");
  return [first, ...rest];
}

// ---- Stripe's prices: one for a plan's base price, one for its price per unit

/** The lookup keys of the prices that a subscription to a plan consists of. Empty when Stripe does not sell the plan. */
export function priceKeys(name: PlanName): string[] {
  const { amountCents, unitAmountCents } = planOf(name);
  if (amountCents === null) return [];
  return unitAmountCents === null ? [baseKey(name)] : [baseKey(name), unitsKey(name)];
}

export function baseKey(plan: PlanName): string {
  return `tollgate_${plan}_base`;
}

export function unitsKey(plan: PlanName): string {
  return `tollgate_${plan}_units`;
}

/** The plan that has a price among these lookup keys. */
export function planOfKeys(lookupKeys: readonly (string | null)[]): PlanName | null {
  return planNames.find((name) => priceKeys(name).some((key) => lookupKeys.includes(key))) ?? null;
}
