// Every other seed of the campaign, a test each: few in the suite, which has ten minutes for everything. `CAMPAIGN_FROM`
// and `CAMPAIGN_SEEDS` choose others, and `npm run campaign` runs a thousand.
import { inject, test } from "vitest";
import { runSeed } from "./seed.ts";
import { handIn } from "./tally.ts";

const FROM = Number(process.env["CAMPAIGN_FROM"] ?? 1);
const SEEDS = Number(process.env["CAMPAIGN_SEEDS"] ?? 8);

/** `half`: 0 or 1. Each has a file and so a system of its own. */
export function campaign(half: 0 | 1): void {
  const seeds = Array.from({ length: SEEDS }, (_, index) => FROM + index).filter((seed) => seed % 2 === half);
  test.each(seeds)("to the unit, whatever breaks: seed %i", async (seed) => {
    handIn(inject("campaignCounts"), seed, await runSeed(seed));
  });
}
