// One suite of hostile statements for all three tiers. Every attack runs with all walls up and must get nothing. It also
// runs without each wall, or set of walls, that it names, and must succeed: otherwise the test could not fail. Where several
// walls stand behind each other, each of them must also hold alone.
import { afterAll, afterEach, beforeAll, describe, expect, inject, test } from "vitest";
import type { Strategy } from "../../src/core/plans/plans.ts";
import {
  allForms,
  type Attack,
  crosses,
  fallsOf,
  FILTER,
  type Form,
  formsWithout,
  holdsMarker,
  type NamedWall,
} from "./attack.ts";
import { globex } from "../support/shard.ts";
import { families } from "./families/families.ts";
import { createTally } from "./tally.ts";
import { startTier, type Tier } from "./tiers.ts";

const attacks = families.flatMap((family) => family.attacks.map((attack) => ({ family: family.name, attack })));

/** The tests of one tier. Each tier has its own file, so that the tiers run in parallel. */
export async function attackTier(name: Strategy): Promise<void> {
  const { tier, ...ground } = await startTier(name);
  afterAll(() => ground[Symbol.asyncDispose]());
  afterEach(() => tier.mend());

  const tally = createTally(name);
  afterAll(() => tally.handIn(inject("tallies")));

  const mine = attacks.flatMap(({ family, attack }) => {
    const falls = fallsOf(attack, tier);
    return typeof falls === "string" ? [] : [{ family, attack, falls, name: attack.name }];
  });

  test("the suite has at least 150 attacks, and at least 8 in each family", () => {
    expect(mine.length).toBeGreaterThanOrEqual(150);
    for (const { name: family } of families) {
      expect(mine.filter((each) => each.family === family).length, family).toBeGreaterThanOrEqual(8);
    }
  });

  /** Runs an attack in each form and removes its traces. */
  async function tryAll(forms: readonly Form[], attack: Attack, attempt: (form: Form) => Promise<void>): Promise<void> {
    const undo = typeof attack.undo === "function" ? attack.undo(tier.target) : attack.undo;
    for (const form of forms) {
      try {
        await attempt(form);
        tally.sent();
      } finally {
        if (undo !== undefined) await tier.superuser(undo);
      }
    }
  }

  describe("with every wall up", () => {
    test.each(mine)("$family: $name", async ({ family, attack, falls }) => {
      expect(falls, "an attack names the walls that stop it").not.toEqual([]);
      tally.counts(family);
      await tryAll(allForms(attack, tier), attack, async (form) => {
        const { crossed, told } = await crosses(attack, tier, form);
        expect(crossed, form).toBe(false);
        expect(holdsMarker(told), `${form}: told of the victim's rows`).toBe(false);
      });
      expect(await tier.victimRows()).toBe(tier.untouched);
      tally.refused(family);
      // The victim is next on the proxy's only connection.
      expect(await tier.db({ tenantId: globex }).query("SELECT count(*)::int AS n FROM products")).toEqual([{ n: 2 }]);
    });
  });

  const groups = Map.groupBy(
    mine.flatMap((each) => each.falls.map((fall) => ({ ...each, fall }))),
    ({ fall }) => fall.join(" + "),
  );

  describe.each([...groups.entries()])("without: %s", (_, without) => {
    const [{ fall } = { fall: [] as readonly NamedWall[] }] = without;
    takenDown(tier, fall, () => {
      test.each(without)("$family: $name", async ({ family, attack }) => {
        await tryAll(formsWithout(attack, tier, fall), attack, async (form) => {
          expect((await crosses(attack, tier, form)).crossed, form).toBe(true);
        });
        tally.shown(family, attack.name);
      });
    });
  });

  const layered = [...groups.values()].flatMap((without) => {
    const [{ fall } = { fall: [] as readonly NamedWall[] }] = without;
    return fall.length < 2 ? [] : fall.map((standing) => [fall.join(" + "), standing, without, fall] as const);
  });
  describe.each(layered)("without: %s, but with: %s", (_, standing, without, fall) => {
    const fallen = fall.filter((wall) => wall !== standing);
    takenDown(tier, fallen, () => {
      test.each(without)("$family: $name", async ({ attack }) => {
        await tryAll(formsWithout(attack, tier, fall), attack, async (form) => {
          expect((await crosses(attack, tier, form)).crossed, form).toBe(false);
        });
      });
    });
  });
}

/** Tests that run while these walls are down. */
function takenDown(tier: Tier, walls: readonly NamedWall[], tests: () => void): void {
  const over = Promise.withResolvers<void>();
  let standing: Promise<void>;
  beforeAll(async () => {
    const down = Promise.withResolvers<void>();
    standing = tier.without(
      walls.filter((wall) => wall !== FILTER),
      async () => {
        down.resolve();
        await over.promise;
      },
    );
    await Promise.race([down.promise, standing]);
  });
  afterAll(async () => {
    over.resolve();
    await standing;
  });
  tests();
}
