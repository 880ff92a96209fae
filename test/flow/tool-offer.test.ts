// What an account is offered: the list shows each caller the tools of its plan, features and scopes, and a call of any other tool is
// refused with what it needs.
import { expect, test } from "vitest";
import { type TestTenant, aTenant, anAgent, callTool, modernMeta, operator, postMcp } from "../support/flow.ts";

const listed = async (apiKey: string): Promise<Map<string, string | undefined>> => {
  await using agent = await anAgent(apiKey);
  const { tools } = await agent.listTools();
  return new Map(tools.map(({ name, description }) => [name, description]));
};
const call = ({ apiKey }: TestTenant, name: string) => callTool(apiKey, name);

test("a tool of other plans is not listed, and its call says which plans have it; a plan that has it lists and runs it", async () => {
  const free = await aTenant();
  expect([...(await listed(free.apiKey)).keys()]).not.toContain("of_two_plans");
  const { refusal, receipt, text } = await call(free, "of_two_plans");
  expect(refusal).toMatchObject({ code: "tool_not_in_plan", upgradeUrl: expect.stringMatching(/\/plans$/) as unknown });
  expect([receipt, text]).toEqual([
    undefined,
    expect.stringContaining("in the plans pro and enterprise. Upgrade at http"),
  ]);

  const pro = await aTenant({ plan: "pro" });
  expect([...(await listed(pro.apiKey)).keys()]).toContain("of_two_plans");
  expect(await call(pro, "of_two_plans")).toMatchObject({ data: { ok: true }, receipt: { units: 1 } });
});

test("a feature that the operator gives to an account opens its tools on the next request", async () => {
  const tenant = await aTenant();
  expect((await call(tenant, "of_a_feature")).refusal).toMatchObject({ code: "feature_missing" });
  await operator("PATCH", `/tenants/${tenant.id}`, { features: { audit_export: true } });
  expect(await call(tenant, "of_a_feature")).toMatchObject({ data: { ok: true }, receipt: { units: 1 } });
  expect([...(await listed(tenant.apiKey)).keys()]).toContain("of_a_feature");
});

test("a tool that is ending says so in its description and in each answer; one that has ended names its replacement", async () => {
  const tenant = await aTenant();
  const tools = await listed(tenant.apiKey);
  expect(tools.get("ending")).toMatch(
    /^Deprecated: use get_usage instead\. This tool works until 2999-12-31 \(UTC\)\. /,
  );
  const params = { name: "ending", arguments: {}, _meta: modernMeta };
  const answer = await postMcp(tenant.apiKey, { jsonrpc: "2.0", id: 1, method: "tools/call", params });
  expect(await answer.json()).toMatchObject({
    result: {
      _meta: { "tollgate/deprecated": { use: "get_usage", until: "2999-12-31" }, "tollgate/receipt": { units: 1 } },
    },
  });
  expect(tools.has("ended")).toBe(false);
  expect(await call(tenant, "ended")).toMatchObject({
    refusal: { code: "tool_ended" },
    text: expect.stringContaining("Use get_usage instead.") as unknown,
  });
});

test("a key lists the tools that its scopes cover, and a call of another still names the scope", async () => {
  const { id } = await aTenant();
  const made = await operator("POST", `/tenants/${id}/keys`, { name: "reads", scopes: ["tools:read"] });
  const { apiKey } = (await made.json()) as { apiKey: string };
  const names = [...(await listed(apiKey)).keys()];
  expect(names).toContain("read_document");
  expect(names).not.toContain("write_document");
  const params = { name: "write_document", arguments: { path: "a.md", text: "a" }, _meta: modernMeta };
  const refused = await postMcp(apiKey, { jsonrpc: "2.0", id: 1, method: "tools/call", params });
  expect([refused.status, refused.headers.get("www-authenticate")]).toEqual([
    403,
    expect.stringContaining("tools:write"),
  ]);
});
