// Writing a batch with bad parts.
import fc from "fast-check";
import { expect, test } from "vitest";
import { writeWithBisection } from "../../src/metering/bisection.ts";

class Refused extends Error {}

interface Numbers {
  from: number;
  numbers: number[];
}

const halves = ({ from, numbers }: Numbers): readonly [Numbers, Numbers] | undefined => {
  const middle = Math.ceil(numbers.length / 2);
  if (numbers.length < 2) return undefined;
  return [
    { from, numbers: numbers.slice(0, middle) },
    { from, numbers: numbers.slice(middle) },
  ];
};

const ascending = (a: number, b: number): number => a - b;

/** Stores all numbers of a write, or none if one is negative. */
function aStore() {
  const stored: number[] = [];
  let writes = 0;
  return {
    stored,
    writes: () => writes,
    write: async (parts: readonly Numbers[]): Promise<number> => {
      writes += 1;
      const numbers = parts.flatMap((part) => part.numbers);
      if (numbers.some((number) => number < 0)) throw new Refused();
      stored.push(...numbers);
      return numbers.length;
    },
  };
}

const isRefusal = (error: unknown): boolean => error instanceof Refused;

test("every good number is stored once, every bad one is named, and nothing is left", async () => {
  const lists = fc.array(fc.array(fc.integer({ min: -3, max: 20 }), { minLength: 1, maxLength: 12 }), {
    maxLength: 12,
  });
  await fc.assert(
    fc.asyncProperty(lists, async (given) => {
      const parts = given.map((numbers, from) => ({ from, numbers }));
      const store = aStore();
      const outcome = await writeWithBisection(parts, {
        write: store.write,
        isRefusal,
        split: halves,
        maxWrites: 1_000,
      });
      const all = given.flat();
      const bad = all.filter((number) => number < 0).length;
      expect(store.stored.toSorted(ascending)).toEqual(all.filter((number) => number >= 0).toSorted(ascending));
      expect(outcome.refused.every(({ part }) => part.numbers.length === 1 && (part.numbers[0] ?? 0) < 0)).toBe(true);
      expect(outcome.refused.length).toBe(bad);
      expect(outcome.left).toEqual([]);
      if (bad === 0) expect(store.writes()).toBe(Math.min(1, given.length));
      // The first write, and two for each halving on the way to a bad number.
      const deepest = Math.ceil(Math.log2(Math.max(2, given.length))) + Math.ceil(Math.log2(12));
      expect(store.writes()).toBeLessThanOrEqual(1 + bad * 2 * (deepest + 1));
    }),
  );
});

test("with too few writes allowed, unwritten numbers are in `left`, and none is lost", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: -3, max: 20 }), { minLength: 1, maxLength: 40 }),
      fc.integer({ min: 0, max: 20 }),
      async (numbers, maxWrites) => {
        const store = aStore();
        const parts = numbers.map((number, from) => ({ from, numbers: [number] }));
        const outcome = await writeWithBisection(parts, { write: store.write, isRefusal, split: halves, maxWrites });
        const accounted = [
          ...store.stored,
          ...outcome.refused.flatMap(({ part }) => part.numbers),
          ...outcome.left.flatMap((part) => part.numbers),
        ];
        expect(accounted.toSorted(ascending)).toEqual(numbers.toSorted(ascending));
        expect(store.writes()).toBeLessThanOrEqual(maxWrites);
      },
    ),
  );
});

test("an outage blames no part and ends the bisection", async () => {
  const outage = new Error("away");
  const parts = [{ from: 0, numbers: [1, 2] }];
  const options = { write: () => Promise.reject(outage), isRefusal, split: halves, maxWrites: 10 };
  await expect(writeWithBisection(parts, options)).rejects.toBe(outage);
});
