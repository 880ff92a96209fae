// An operator replaces app/ and nothing else. Tollgate then sells that app's plans, prices, scopes and tools, creates its
// tables in all three tiers, and contains nothing of another app.
import { expect, test } from "vitest";
import { aCustomer, aJwt, anAgent, callTool, operator, postMcp, modernMeta, rowsOf, system } from "../support/flow.ts";

test("/plans shows the second app's plans and prices only", async () => {
  const { plans } = (await (await fetch(`${system.publicUrl}/plans`)).json()) as { plans: Record<string, unknown>[] };
  expect(plans).toMatchObject([
    { name: "seedling", amountCents: 700, unitAmountCents: null, includedUnits: 5_000 },
    { name: "grove", amountCents: 8_100, unitAmountCents: "0.25", includedUnits: 20_000 },
    { name: "forest", amountCents: 64_000, unitAmountCents: null, includedUnits: 50_000 },
  ]);
  expect(plans).toHaveLength(3);
});

test.each([
  ["seedling", "shared"],
  ["grove", "schema"],
  ["forest", "database"],
])(
  "customers of %s use the second app's table on the strategy %s, and each sees only its own rows",
  async (plan, strategy) => {
    const [customer, neighbour] = await Promise.all([
      aCustomer({ plan, name: `Customer of ${plan}` }),
      aCustomer({ plan, name: `Neighbour on ${plan}` }),
    ]);
    expect(await (await operator("GET", `/tenants/${customer.id}`)).json()).toMatchObject({ plan, strategy });
    const keep = (who: { apiKey: string }, name: string, text: string) =>
      callTool(who.apiKey, "keep_note", { name, text });

    const first = await keep(customer, "place", "under the birch");
    expect(first.data).toEqual({ before: null, names: ["place"] });
    expect(first.receipt?.units).toBe(3);
    expect((await keep(neighbour, "place", "mine")).data).toEqual({ before: null, names: ["place"] });
    expect((await keep(neighbour, "time", "noon")).data).toEqual({ before: null, names: ["place", "time"] });
    expect((await keep(customer, "place", "by the lake")).data).toEqual({
      before: "under the birch",
      names: ["place"],
    });
  },
);

test("a shared database has the second app's table and no table of another app", async () => {
  const found = await rowsOf(
    system.sharedOwnerUrl,
    `SELECT to_regclass('notes')::text AS notes, to_regclass('products')::text AS products`,
  );
  expect(found).toEqual([{ notes: "notes", products: null }]);
});

test("an agent sees the product's own tools and the second app's, with the price after the description", async () => {
  const { apiKey } = await aCustomer({ plan: "seedling", name: "Reader of lists" });
  await using agent = await anAgent(apiKey);
  expect(agent.getServerVersion()).toMatchObject({ name: "birch-ledger", title: "Birch Ledger" });
  const { tools } = await agent.listTools();
  expect(tools.map(({ name }) => name)).toEqual(["health_check", "get_usage", "keep_note"]);
  expect(tools.find(({ name }) => name === "keep_note")?.description).toMatch(/Costs 3 units\.$/);
  const body = { jsonrpc: "2.0", id: 1, method: "tools/call" };
  const params = { name: "search_products", arguments: { query: "lamp" }, _meta: modernMeta };
  const answer = (await (await postMcp(apiKey, { ...body, params })).json()) as { error?: { message: string } };
  expect(answer.error?.message).toContain("search_products");
});

test("a token needs the second app's scope for its tool", async () => {
  const { id } = await aCustomer({ plan: "seedling", name: "Scoped" });
  const claims = { tenant_id: id, sub: "someone", exp: Math.floor(Date.now() / 1000) + 600 };
  const keep = { name: "place", text: "here" };
  await expect(callTool(await aJwt({ ...claims, scope: "tools:read" }), "keep_note", keep)).rejects.toThrow("403");
  const allowed = await aJwt({ ...claims, scope: "tools:read notes:keep" });
  expect((await callTool(allowed, "keep_note", keep)).data).toEqual({ before: null, names: ["place"] });
});

test("clients find the second app's name, scopes, terms and privacy policy", async () => {
  const metadata = await fetch(`${system.publicUrl}/.well-known/oauth-protected-resource`);
  expect(await metadata.json()).toMatchObject({
    resource_name: "Birch Ledger",
    scopes_supported: ["tools:read", "notes:keep"],
    resource_tos_uri: "https://birch.example/terms",
    resource_policy_uri: "https://birch.example/privacy",
  });
});
