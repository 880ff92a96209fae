// Fault rules of the stand-in for Neon's API, for tests and demonstrations.
//
// Decides which rule hits which request or operation. Invariant: the same rules, seeds and order of requests give the
// same faults. Rules live in memory and end with a restart.
import { setTimeout as sleep } from "node:timers/promises";
import * as z from "zod";
import { seededRandom } from "../seeded-random.ts";
import { chance, Die } from "../stripe/faults.ts";

export const NeonApiFaultRules = z.array(
  z.strictObject({
    ...chance.shape,
    /**
     * error-before: 500 without effect · rate-limit: 429 without effect · locked: 423 without effect · error-after: 500
     * after the effect · lose-after: closes the connection after the effect · incomplete-list: leaves out some projects,
     * as Neon does when it cannot read them in time · slow: waits `ms`, and another rule may hit, too · fail-operation: an
     * operation has no effect and ends as failed.
     */
    kind: z.enum([
      ...(["error-before", "rate-limit", "locked", "error-after", "lose-after", "incomplete-list"] as const),
      ...(["slow", "fail-operation"] as const),
    ]),
    /** Only requests of this method. */
    method: z.enum(["GET", "POST", "DELETE"]).optional(),
    /** Only requests whose path contains this text. */
    path: z.string().optional(),
    /** Only operations of this action, for instance `create_branch`. */
    action: z.string().optional(),
    ms: z.number().int().nonnegative().default(1_000),
    seed: z.number().int().default(1),
  }),
);
export type NeonApiFaultRule = z.input<typeof NeonApiFaultRules>[number];
type Rule = z.output<typeof NeonApiFaultRules>[number];
export type RequestFault = Exclude<Rule["kind"], "slow" | "fail-operation">;

export interface NeonApiFaults {
  /** Replaces all rules. An invalid rule throws a ZodError and changes nothing. */
  set(rules: unknown): void;
  /** Waits for the delays of this request, then returns its fault. */
  strike(method: string, path: string): Promise<RequestFault | undefined>;
  /** Decides whether this operation fails. */
  failsOperation(action: string): boolean;
}

export function createNeonApiFaults(): NeonApiFaults {
  let active: { rule: Rule; die: Die }[] = [];
  return {
    set: (rules) => {
      active = NeonApiFaultRules.parse(rules).map((rule) => ({ rule, die: new Die(rule, seededRandom(rule.seed)) }));
    },
    strike: async (method, path) => {
      for (const { rule, die } of active) {
        if (rule.kind === "fail-operation" || (rule.method !== undefined && rule.method !== method)) continue;
        if ((rule.path !== undefined && !path.includes(rule.path)) || !die.roll()) continue;
        if (rule.kind !== "slow") return rule.kind;
        await sleep(rule.ms);
      }
      return undefined;
    },
    failsOperation: (action) =>
      active.some(
        ({ rule, die }) =>
          rule.kind === "fail-operation" && (rule.action === undefined || rule.action === action) && die.roll(),
      ),
  };
}
