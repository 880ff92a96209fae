// Tests the product search on its own, with a fake context.
import { expect, test } from "vitest";
import { callTool, toolContext } from "#tollgate/testing";
import { patternsOf, searchProducts } from "../tools/search-products.ts";

const product = (id: string) => ({
  id,
  name: `Product ${id}`,
  description: "",
  category: "c",
  priceCents: 100,
  stock: 1,
  updatedAt: "2026-11-30T20:00:00.000Z",
});

test("search_products pages with one statement each, by name and id", async () => {
  const { context, seen } = toolContext({ rows: [[product("1"), product("2"), product("3")], [product("3")]] });
  const first = await callTool(searchProducts, { query: "pro", limit: 2 }, context);
  expect(first.data).toMatchObject({ products: [{ id: "1" }, { id: "2" }], nextCursor: '["Product 2","2"]' });
  const second = await callTool(searchProducts, { query: "pro", limit: 2, cursor: first.data?.nextCursor }, context);
  expect(second.data).toMatchObject({ products: [{ id: "3" }], nextCursor: null });
  expect(seen.queries.map(({ params }) => params)).toEqual([
    [["%pro%"], null, null, null, null, 3],
    [["%pro%"], null, null, "Product 2", "2", 3],
  ]);
  expect(seen.queries[1]?.text).toBe(seen.queries[0]?.text);
});

test.each(["x", "[]", '["a"]', "[1,2]", '["a","b","c"]', '{"0":"a"}', String.raw`["a\u0000","b"]`])(
  "search_products refuses the foreign cursor %j and asks no database",
  async (cursor) => {
    const { context, seen } = toolContext();
    expect(await callTool(searchProducts, { query: "a", cursor }, context)).toMatchObject({ failed: true });
    expect(seen.queries).toEqual([]);
  },
);

test("a word is searched in one form, however it is written", async () => {
  const { context, seen } = toolContext();
  for (const form of ["NFC", "NFD"]) {
    const args = { query: "cr\u00e8me brulee".normalize(form), category: "caf\u00e9".normalize(form) };
    await callTool(searchProducts, args, context);
  }
  const [first, second] = seen.queries.map(({ params }) => params);
  expect(first).toEqual(second);
  expect(first?.[0]).toEqual(["%cr\u00e8me%", "%brulee%"]);
  expect(first?.[1]).toEqual(["caf\u00e9", "cafe\u0301"]);
  expect(patternsOf("\ufb01ne \uff26\uff35\uff2c\uff2c caf\u00e9\u00a0x")).toEqual([
    "%fine%",
    "%FULL%",
    "%caf\u00e9%",
    "%x%",
  ]);
});

test("a product with an unusual time is on its page", async () => {
  const { context } = toolContext({ rows: [[{ ...product("1"), updatedAt: null }]] });
  expect(await callTool(searchProducts, { query: "" }, context)).toMatchObject({ data: { products: [{ id: "1" }] } });
});

test("the words of a search mean themselves", () => {
  expect(patternsOf(String.raw`  50% off_a \b `)).toEqual([
    String.raw`%50\%%`,
    String.raw`%off\_a%`,
    String.raw`%\\b%`,
  ]);
  expect(patternsOf(" ")).toEqual([]);
});

test.each([
  {},
  { query: "a", limit: 51 },
  { query: "a", limit: 0 },
  { query: "a\0" },
  { query: "a\ud83d" },
  { query: "a".repeat(201) },
  { query: "a", maxPriceCents: -1 },
  { query: "a", category: "" },
  { query: "a", cursor: "" },
])("search_products refuses the arguments %j", (args) => {
  expect(searchProducts.input.safeParse(args).success).toBe(false);
});
