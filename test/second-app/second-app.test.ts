// An operator replaces app/ and nothing else: their plans, prices, scopes and tools are sold, and nothing of another app.
import { expect, test } from "vitest";
import { aCustomer, aJwt, anAgent, callTool, operator, postMcp, modernMeta, system } from "../support/flow.ts";

test("/plans shows the second app's plans and prices only", async () => {
  const { plans } = (await (await fetch(`${system.publicUrl}/plans`)).json()) as { plans: Record<string, unknown>[] };
  expect(plans).toMatchObject([
    { name: "seedling", amountCents: 700, unitAmountCents: null, includedUnits: 5_000 },
    { name: "grove", amountCents: 8_100, unitAmountCents: "0.25", includedUnits: 20_000 },
  ]);
  expect(plans).toHaveLength(2);
});

test.each([
  ["seedling", "shared"],
  ["grove", "schema"],
])("a customer who signs up for %s calls the second app's tool on the strategy %s", async (plan, strategy) => {
  const customer = await aCustomer({ plan, name: `Customer of ${plan}` });
  expect(await (await operator("GET", `/tenants/${customer.id}`)).json()).toMatchObject({ plan, strategy });

  const first = await callTool(customer.apiKey, "keep_note", { name: "place", text: "under the birch" });
  expect(first.data).toEqual({ before: null, notes: 1 });
  expect(first.receipt?.units).toBe(3);
  const second = await callTool(customer.apiKey, "keep_note", { name: "place", text: "by the lake" });
  expect(second.data).toEqual({ before: "under the birch", notes: 1 });

  const other = await aCustomer({ plan, name: `Neighbour on ${plan}` });
  expect((await callTool(other.apiKey, "keep_note", { name: "place", text: "mine" })).data).toEqual({
    before: null,
    notes: 1,
  });
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
  expect((await callTool(allowed, "keep_note", keep)).data).toEqual({ before: null, notes: 1 });
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
