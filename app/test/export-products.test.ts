// Tests the export of products on its own, with a fake context: what it returns, and what it charges for that.
import { expect, test } from "vitest";
import { callTool, toolContext } from "#tollgate/testing";
import { exportProducts } from "../tools/export-products.ts";

const product = (id: string) => ({
  id,
  name: `Product ${id}`,
  description: "",
  category: "c",
  priceCents: 1,
  stock: 1,
});

test("export_products charges one unit for each product that it returns", async () => {
  const { context, seen } = toolContext({ rows: [[product("1"), product("2"), product("3")], [product("3")], []] });
  const first = await callTool(exportProducts, { limit: 2 }, context);
  expect(first).toMatchObject({ data: { products: [{ id: "1" }, { id: "2" }], next: "2" }, units: 2 });
  const second = await callTool(exportProducts, { limit: 2, after: first.data?.next }, context);
  expect(second).toMatchObject({ data: { products: [{ id: "3" }], next: null }, units: 1 });
  expect(await callTool(exportProducts, { category: "none" }, context)).toMatchObject({ failed: false, units: 0 });
  expect(seen.queries.map(({ params }) => params)).toEqual([
    [null, null, 3],
    [null, "2", 3],
    ["none", null, 51],
  ]);
});

test.each([{ limit: 0 }, { limit: 51 }, { category: "" }, { after: "" }, { after: "a\0" }])(
  "export_products refuses the arguments %j",
  (args) => {
    expect(exportProducts.input.safeParse(args).success).toBe(false);
  },
);
