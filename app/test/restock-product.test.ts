// Tests the restocking on its own: what it asks, what it adds, and what a person who declines or a client without forms gets.
import { expect, test } from "vitest";
import { callTool, toolContext } from "#tollgate/testing";
import { restockProduct } from "../tools/restock-product.ts";

const rows = [[{ name: "Oak desk", stock: 12 }], [{ stock: 17 }]];

test("restock_product asks how many pieces, and adds them", async () => {
  const { context, seen } = toolContext({ rows, answers: { answer: { action: "accept", content: { pieces: 5 } } } });
  expect(await callTool(restockProduct, { id: "desk-oak" }, context)).toMatchObject({
    failed: false,
    units: 5,
    data: { id: "desk-oak", added: 5, stock: 17 },
  });
  expect(seen.questions).toMatchObject([
    {
      message: "How many pieces of Oak desk do you want to add? There are 12.",
      schema: { properties: { pieces: { type: "integer", minimum: 1, maximum: 10_000 } }, required: ["pieces"] },
    },
  ]);
  expect(seen.queries[1]?.params).toEqual(["desk-oak", 5]);
});

test.each([
  ["declines", { answer: { action: "decline" as const } }],
  ["closes the question", { answer: { action: "cancel" as const } }],
])("a person who %s is charged nothing, and nothing is added", async (_, answers) => {
  const { context, seen } = toolContext({ rows, answers });
  expect(await callTool(restockProduct, { id: "desk-oak" }, context)).toMatchObject({ failed: true, units: 0 });
  expect(seen.queries).toHaveLength(1);
});

test("a client without forms gets the advice to ask by itself, and a call that says the number asks nothing", async () => {
  const silent = toolContext({ rows });
  const told = await callTool(restockProduct, { id: "desk-oak" }, silent.context);
  expect(told).toMatchObject({ failed: true, text: expect.stringContaining("call again with `pieces`") });
  const said = toolContext({ rows });
  expect(await callTool(restockProduct, { id: "desk-oak", pieces: 5 }, said.context)).toMatchObject({ units: 5 });
  expect(said.seen.questions).toEqual([]);
});

test("a product that does not exist is a failure in words", async () => {
  const { context } = toolContext({ rows: [[]] });
  expect(await callTool(restockProduct, { id: "none" }, context)).toMatchObject({
    failed: true,
    text: "There is no product none.",
  });
});
