// What is sold: every plan's price, limits and isolation strategy, in one table. A tenant keeps the numbers it was
// sold (they are copied into its row), and each number can be overridden per tenant; nothing else in the program
// knows what a plan contains.
import * as z from "zod";

export const planNames = ["free", "starter", "pro", "enterprise"] as const;
export type PlanName = (typeof planNames)[number];

/**
 * How a tenant's rows are kept apart: tables with row security that many share, a schema with a login role of its own, or
 * a database of its own.
 */
export const strategies = ["shared", "schema", "database"] as const;
export type Strategy = (typeof strategies)[number];

/** The numbers a tenant is admitted by. `null` means: no such limit, and no such check. */
const AdmissionLimits = z.object({
  unitsPerHour: z.int().positive().nullable(),
  unitsPerMonth: z.int().positive().nullable(),
  callsPerMinute: z.int().positive().nullable(),
  callsInFlight: z.int().positive().max(1_000),
  /** Units an hour that single tools may take of the tenant's, by their names. */
  unitsPerHourByTool: z.record(z.string(), z.int().positive()).default({}),
});
export type AdmissionLimits = z.infer<typeof AdmissionLimits>;

/** All that was sold in numbers. */
export const Limits = AdmissionLimits.extend({
  /** Database sessions that may be open at once, for transactions. */
  sessions: z.int().positive().max(100).default(2),
  /** An idle session is closed after this long. */
  sessionIdleSeconds: z.int().min(1).max(300).default(30),
});
export type Limits = z.infer<typeof Limits>;

export interface Plan {
  readonly name: PlanName;
  /** Base price per month. `null`: by contract, never sold through Checkout. */
  readonly amountCents: number | null;
  /** Price of one unit beyond `includedUnits`, as a decimal string of cents. `null`: units beyond are refused instead. */
  readonly unitAmountCents: string | null;
  /** Units a month that the base price covers. `null`: not counted against anything. */
  readonly includedUnits: number | null;
  readonly limits: Limits;
  readonly strategy: Strategy;
}

export const plans: Readonly<Record<PlanName, Plan>> = {
  free: {
    name: "free",
    amountCents: 0,
    unitAmountCents: null,
    includedUnits: 1_000,
    limits: {
      unitsPerHour: 100,
      unitsPerMonth: 1_000,
      callsPerMinute: 100,
      callsInFlight: 4,
      unitsPerHourByTool: {},
      sessions: 2,
      sessionIdleSeconds: 30,
    },
    strategy: "shared",
  },
  starter: {
    name: "starter",
    amountCents: 1_900,
    unitAmountCents: null,
    includedUnits: 50_000,
    limits: {
      unitsPerHour: 1_000,
      unitsPerMonth: 50_000,
      callsPerMinute: 100,
      callsInFlight: 8,
      unitsPerHourByTool: {},
      sessions: 5,
      sessionIdleSeconds: 60,
    },
    strategy: "shared",
  },
  // Units beyond the included ones are sold, so the month has no cap of its own.
  pro: {
    name: "pro",
    amountCents: 4_900,
    unitAmountCents: "0.1",
    includedUnits: 50_000,
    limits: {
      unitsPerHour: 10_000,
      unitsPerMonth: null,
      callsPerMinute: 600,
      callsInFlight: 32,
      unitsPerHourByTool: {},
      sessions: 10,
      sessionIdleSeconds: 120,
    },
    strategy: "schema",
  },
  enterprise: {
    name: "enterprise",
    amountCents: null,
    unitAmountCents: null,
    includedUnits: null,
    limits: {
      unitsPerHour: null,
      unitsPerMonth: null,
      callsPerMinute: null,
      callsInFlight: 128,
      unitsPerHourByTool: {},
      sessions: 20,
      sessionIdleSeconds: 300,
    },
    strategy: "database",
  },
};
