// A sample of `npm run fuzz`, which sends a hundred times as many requests.
import { expect, test } from "vitest";
import { fuzz } from "../fuzz/run.ts";
import { makeWorld } from "../fuzz/world.ts";
import { system } from "../support/flow.ts";

/** Enough that each route meets several kinds of credentials, in five seconds. */
const CASES = 500;

test("no fuzzed request of another tenant succeeds, reads its data, or makes Tollgate fail", async () => {
  const { publicUrl, operatorToken, tokenUrl, issuerUrl } = system;
  const world = await makeWorld({ baseUrl: publicUrl, operatorToken, tokenUrl, issuerUrl });
  const seed = 20_261_128;
  const { faults, successes, cases } = await fuzz(publicUrl, world, { cases: CASES, seed, lanes: 8 });
  expect(faults).toEqual([]);
  expect(cases).toBe(CASES);
  // Most successes would be missing if the fuzzer's own credentials were wrong.
  expect(successes).toBeGreaterThan(25);
});
