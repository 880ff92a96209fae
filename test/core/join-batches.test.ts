// Reads that do not depend on each other share one round trip, and each gets its own rows.
import { expect, test } from "vitest";
import { type NeonConnection, type Statement, joinBatches } from "../../src/adapters/neon.ts";

/** Answers each statement with its own text. Keeps the batches that it got. */
function echo() {
  const batches: string[][] = [];
  const batch = async (statements: readonly Statement[]) => {
    batches.push(statements.map(({ text }) => text));
    if (statements.some(({ text }) => text === "fails")) throw new Error("refused");
    return statements.map(({ text }) => [{ text }]);
  };
  const connection: NeonConnection = {
    database: "d",
    batch,
    query: async (text) => (await batch([{ text }]))[0] ?? [],
  };
  return { batches, joined: joinBatches(connection) };
}

test("batches of one turn are one batch, and each gets its own rows", async () => {
  const { batches, joined } = echo();
  expect(
    await Promise.all([joined.query("a"), joined.batch([{ text: "b" }, { text: "c" }]), joined.query("d", [])]),
  ).toEqual([[{ text: "a" }], [[{ text: "b" }], [{ text: "c" }]], [{ text: "d" }]]);
  await joined.query("e");
  expect(batches).toEqual([["a", "b", "c", "d"], ["e"]]);
});

test("batches that were sent as one fail together, and the next is sent again", async () => {
  const { joined } = echo();
  const outcomes = await Promise.allSettled([joined.query("a"), joined.query("fails")]);
  expect(outcomes.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
  expect(await joined.query("b")).toEqual([{ text: "b" }]);
});
