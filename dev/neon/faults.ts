// Fault rules of the Neon stand-in on matching batches, for tests and demonstrations.
//
// Decides which rule hits which batch. Invariant: the same rules, seeds and order of batches give the same faults.
import { setTimeout as sleep } from "node:timers/promises";
import * as z from "zod";
import type { Statement } from "./session.ts";
import { seededRandom } from "../seeded-random.ts";

export const FaultRules = z.array(
  z.strictObject({
    /** refuse-before: 503 without running · lose-after: commits, then closes the connection · slow: runs late. */
    kind: z.enum(["refuse-before", "lose-after", "slow"]),
    /** Only batches on this database. */
    database: z.string().optional(),
    /** Only batches with a statement that contains this text. */
    sql: z.string().optional(),
    /** Only batches with a parameter that equals this text or contains it as a JSON string, such as a tenant's id. */
    param: z.string().optional(),
    /** Delay of a slow batch. */
    ms: z.number().int().nonnegative().default(1_000),
    /** Share of the matching batches to hit, from 0 to 1. */
    probability: z.number().min(0).max(1).default(1),
    seed: z.number().int().default(1),
    /** Maximum number of hits. Absent for no limit. */
    times: z.number().int().positive().optional(),
  }),
);
export type FaultRule = z.input<typeof FaultRules>[number];

export interface Faults {
  /** Replaces all rules. An invalid rule throws a ZodError and changes nothing. */
  set(rules: unknown): void;
  /** Waits for the delays of this batch, then returns its fault. */
  strike(database: string, statements: readonly Statement[]): Promise<"refuse-before" | "lose-after" | undefined>;
  /** Number of hits of all rules since the start. */
  hits(): number;
  /** Number of hits of each current rule, in their order. */
  fired(): number[];
}

export function createFaults(): Faults {
  let active: (z.output<typeof FaultRules>[number] & { fired: number; random: () => number })[] = [];
  let hits = 0;
  return {
    set: (rules) => {
      active = FaultRules.parse(rules).map((rule) => ({
        ...rule,
        fired: 0,
        random: seededRandom(rule.seed),
      }));
    },
    strike: async (database, statements) => {
      for (const rule of active) {
        const { sql, param, times = Infinity } = rule;
        if (rule.fired >= times || (rule.database !== undefined && rule.database !== database)) continue;
        if (sql !== undefined && !statements.some(({ text }) => text.includes(sql))) continue;
        if (param !== undefined && !statements.some(({ values }) => values.some((value) => names(value, param))))
          continue;
        if (rule.random() >= rule.probability) continue;
        rule.fired += 1;
        hits += 1;
        if (rule.kind !== "slow") return rule.kind;
        await sleep(rule.ms);
      }
      return undefined;
    },
    hits: () => hits,
    fired: () => active.map((rule) => rule.fired),
  };
}

function names(value: string | null, text: string): boolean {
  return value === text || value?.includes(JSON.stringify(text)) === true;
}
