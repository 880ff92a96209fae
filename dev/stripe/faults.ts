// Seeded faults. A rule fires with a probability or a number of times. The same seed and the same order of requests hit the
// same requests. Rules live in memory and end with a restart.
import * as z from "zod";
import { seededRandom } from "../seeded-random.ts";

/** Fires with `probability` (1 if absent), at most `times` (no limit if absent). */
export const chance = z.strictObject({
  probability: z.number().min(0).max(1).default(1),
  times: z.int().min(1).optional(),
});

/**
 * refused: closes the connection before the effect · 400, 429 and error-500-before: no effect · error-500-after: answers 500 after
 * the effect · lost: closes the connection after the effect · slow: waits `ms` while it holds its locks; then another rule
 * may fire, too.
 */
export const faultRules = z.strictObject({
  seed: z.int().default(1),
  rules: z.array(
    z.strictObject({
      ...chance.shape,
      kind: z.enum(["refused", "400", "429", "error-500-before", "error-500-after", "lost", "slow"]),
      method: z.enum(["GET", "POST", "DELETE"]).optional(),
      /** Exact path, `*` for any characters. */
      path: z.string().default("*"),
      ms: z.int().min(0).max(600_000).default(0),
    }),
  ),
});
type Rule = z.output<typeof faultRules>["rules"][number];
export interface Fault {
  kind: Exclude<Rule["kind"], "slow"> | "none";
  delayMs: number;
}

/** A probability with a count of its hits. */
export class Die {
  fired = 0;
  readonly #chance: z.output<typeof chance>;
  readonly #random: () => number;

  constructor(given: z.output<typeof chance>, random: () => number) {
    this.#chance = given;
    this.#random = random;
  }

  roll(): boolean {
    const { probability, times } = this.#chance;
    // Draw on every roll: an exhausted rule must not shift the draws of the next one.
    const hit = this.#random() < probability && (times === undefined || this.fired < times);
    if (hit) this.fired += 1;
    return hit;
  }
}

export class Faults {
  #settings: z.output<typeof faultRules> = { seed: 1, rules: [] };
  #rules: { rule: Rule; pattern: RegExp; die: Die }[] = [];

  configure(settings: z.output<typeof faultRules>): void {
    const random = seededRandom(settings.seed);
    this.#settings = settings;
    this.#rules = settings.rules.map((rule) => ({ rule, pattern: wildcard(rule.path), die: new Die(rule, random) }));
  }

  /** The fault of one request. The first matching rule that fires wins; delays add up. */
  next(method: string, path: string): Fault {
    let delayMs = 0;
    for (const { rule, pattern, die } of this.#rules) {
      if ((rule.method !== undefined && rule.method !== method) || !pattern.test(path) || !die.roll()) continue;
      if (rule.kind !== "slow") return { kind: rule.kind, delayMs };
      delayMs += rule.ms;
    }
    return { kind: "none", delayMs };
  }

  report() {
    return { seed: this.#settings.seed, rules: this.#rules.map(({ rule, die }) => ({ ...rule, fired: die.fired })) };
  }
}

function wildcard(path: string): RegExp {
  const parts = path.split("*").map((part) => part.replace(/[.+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(`^${parts.join(".*")}$`);
}
