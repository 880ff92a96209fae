// One lane of the campaign. Each lane has its own file, so its own system, and runs each of its seeds as one test.
// `CAMPAIGN_FROM` and `CAMPAIGN_SEEDS` choose the seeds, `CAMPAIGN_LANES` the number of lanes. `npm test` runs four, `npm run campaign` a thousand.
import { inject, test } from "vitest";
import { runSeed } from "./seed.ts";
import { handIn } from "./tally.ts";

const FROM = Number(process.env["CAMPAIGN_FROM"] ?? 1);
const SEEDS = Number(process.env["CAMPAIGN_SEEDS"] ?? 4);

/** A seed spends half of its time waiting, so there are more lanes than cores. */
const LANES = Number(process.env["CAMPAIGN_LANES"] ?? 4);

export function campaign(lane: number): void {
  const seeds = Array.from({ length: SEEDS }, (_, index) => FROM + index).filter((seed) => seed % LANES === lane);
  if (seeds.length === 0) test.skip("no seed is of this lane");
  test.each(seeds)("every unit is charged and billed once under the faults of seed %i", async (seed) => {
    // A lane runs for up to an hour, and the reporter waits for its end. Each seed counts also in a run that is interrupted.
    const counts = await runSeed(seed).catch((error: unknown) => {
      process.stderr.write(`${String(error)}\n`);
      throw error;
    });
    process.stderr.write(`seed ${seed} passed\n`);
    handIn(inject("campaignCounts"), seed, counts);
  });
}
