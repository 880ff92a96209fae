// One of the campaign's lanes, which have a file and so a system each: every fourth seed, a test each. `CAMPAIGN_FROM` and
// `CAMPAIGN_SEEDS` choose the seeds; `npm test` runs fifty, `npm run campaign` a thousand.
import { inject, test } from "vitest";
import { runSeed } from "./seed.ts";
import { handIn } from "./tally.ts";

const FROM = Number(process.env["CAMPAIGN_FROM"] ?? 1);
const SEEDS = Number(process.env["CAMPAIGN_SEEDS"] ?? 4);

/** A seed waits for half of its time: more lanes than two cores have. */
const LANES = 4;

export function campaign(lane: number): void {
  const seeds = Array.from({ length: SEEDS }, (_, index) => FROM + index).filter((seed) => seed % LANES === lane);
  if (seeds.length === 0) test.skip("no seed is of this lane");
  test.each(seeds)("to the unit, whatever breaks: seed %i", async (seed) => {
    handIn(inject("campaignCounts"), seed, await runSeed(seed));
  });
}
