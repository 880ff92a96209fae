// Resources and prompts through the clients of both SDKs: listed for those who may use them, read and charged once, and refused in the
// words of a call.
import { Client as ModernClient, StreamableHTTPClientTransport as ModernTransport } from "@modelcontextprotocol/client";
import { expect, test } from "vitest";
import { type TestTenant, aTenant, anAgent, callTool, modernMeta, operator, postMcp, system } from "../support/flow.ts";

async function aModernAgent(token: string): Promise<ModernClient & AsyncDisposable> {
  const agent = new ModernClient(
    { name: "flow-test", version: "1" },
    { versionNegotiation: { mode: { pin: "2026-07-28" } } },
  );
  const requestInit = { headers: { authorization: `Bearer ${token}` } };
  await agent.connect(new ModernTransport(new URL(`${system.publicUrl}/mcp`), { requestInit }));
  return Object.assign(agent, { [Symbol.asyncDispose]: () => agent.close() });
}

const used = async ({ apiKey }: TestTenant): Promise<unknown> =>
  ((await callTool(apiKey, "get_usage")).data?.["hour"] as { used: number } | undefined)?.used;

const rpc = async (token: string, method: string, params: Record<string, unknown>) => {
  const name = typeof params["uri"] === "string" ? { "mcp-name": params["uri"] } : {};
  const answer = await postMcp(
    token,
    { jsonrpc: "2.0", id: 1, method, params: { ...params, _meta: modernMeta } },
    name,
  );
  const body = (await answer.json()) as { result?: object; error?: { code: number; message: string; data?: object } };
  return { status: answer.status, headers: answer.headers, ...body };
};

test("resources and prompts are listed, read and charged once through the clients of both SDKs", async () => {
  const tenant = await aTenant();
  await callTool(tenant.apiKey, "write_document", { path: "notes/Grüße.md", text: "# Hello" });
  const before = Number(await used(tenant));
  await using modern = await aModernAgent(tenant.apiKey);
  await using legacy = await anAgent(tenant.apiKey);
  for (const agent of [modern, legacy]) {
    expect((await agent.listResources()).resources).toEqual([
      {
        uri: "stock://low",
        name: "low_stock",
        title: "Low stock",
        description: "The ten lowest stocks. Costs 2 units.",
        mimeType: "application/json",
      },
    ]);
    expect((await agent.listResourceTemplates()).resourceTemplates).toMatchObject([
      { uriTemplate: "documents://files/{+path}", name: "document" },
    ]);
    expect((await agent.listPrompts()).prompts).toMatchObject([
      { name: "stock_review", arguments: [{ name: "category", description: "Only this category", required: false }] },
    ]);
    const low = await agent.readResource({ uri: "stock://low" });
    expect(low.contents).toMatchObject([{ uri: "stock://low", mimeType: "application/json" }]);
    expect(low._meta?.["tollgate/receipt"]).toMatchObject({ units: 2 });
    const uri = "documents://files/notes/Gr%C3%BC%C3%9Fe.md";
    expect((await agent.readResource({ uri })).contents).toEqual([{ uri, text: "# Hello" }]);
    const { messages, _meta } = await agent.getPrompt({ name: "stock_review", arguments: {} });
    expect(messages).toMatchObject([{ role: "user", content: { type: "text" } }]);
    expect(_meta?.["tollgate/receipt"]).toBeUndefined();
  }
  expect(Number(await used(tenant)) - before).toBe(6);
});

test("a resource or prompt that does not exist, or finds nothing, is an error that costs nothing", async () => {
  const tenant = await aTenant();
  const errorOf = async (method: string, params: Record<string, unknown>) =>
    (await rpc(tenant.apiKey, method, params)).error;
  for (const uri of ["stock://high", "documents://files/none.md", "documents://files/..%2Fother"])
    expect(await errorOf("resources/read", { uri }), uri).toMatchObject({ code: -32602 });
  expect(await errorOf("resources/read", { uri: "none" })).toMatchObject({ code: -32602 });
  expect(await errorOf("prompts/get", { name: "none" })).toMatchObject({ code: -32602 });
  const empty = await errorOf("prompts/get", { name: "stock_review", arguments: { category: "none" } });
  expect(empty).toMatchObject({
    code: -32602,
    message: expect.stringContaining("no product in this category") as unknown,
  });
  expect(await errorOf("prompts/get", { name: "stock_review", arguments: { wrong: "x" } })).toMatchObject({
    code: -32602,
  });
  expect(await used(tenant)).toBe(0);
});

test("a read passes the checks of a call: token, scopes, limits, tools and state of the account, and sees its rows only", async () => {
  const uri = "stock://low";
  const { status, headers } = await rpc("tg_wrong", "resources/read", { uri });
  expect([status, headers.get("www-authenticate")]).toEqual([401, expect.stringContaining("Bearer")]);

  const tenant = await aTenant({ limits: { unitsPerHour: 3 } });
  const made = await operator("POST", `/tenants/${tenant.id}/keys`, { name: "reads", scopes: ["tools:read"] });
  const { apiKey } = (await made.json()) as { apiKey: string };
  expect((await rpc(apiKey, "resources/list", {})).result).toMatchObject({ resources: [] });
  const unscoped = await rpc(apiKey, "resources/read", { uri });
  expect([unscoped.status, unscoped.headers.get("www-authenticate")]).toEqual([
    403,
    expect.stringContaining("tools:write"),
  ]);

  expect((await rpc(tenant.apiKey, "resources/read", { uri })).error).toBeUndefined();
  const limited = await rpc(tenant.apiKey, "resources/read", { uri });
  expect(limited.error).toMatchObject({
    message: expect.stringContaining("low_stock was not run") as unknown,
    data: { code: "window_exhausted", cost: 2, used: 2, limit: 3 },
  });
  expect(Number(limited.headers.get("retry-after"))).toBeGreaterThan(0);

  const other = await aTenant({ allowedTools: ["get_usage"] });
  expect((await rpc(other.apiKey, "resources/read", { uri })).error?.data).toMatchObject({ code: "tool_not_allowed" });
  expect((await rpc(other.apiKey, "resources/list", {})).result).toMatchObject({ resources: [] });
  expect((await rpc(other.apiKey, "prompts/list", {})).result).toMatchObject({ prompts: [] });

  await callTool(tenant.apiKey, "write_document", { path: "mine.md", text: "mine" });
  const foreign = await aTenant();
  const read = await rpc(foreign.apiKey, "resources/read", { uri: "documents://files/mine.md" });
  expect(read.error).toMatchObject({ code: -32602 });
  await operator("POST", `/tenants/${foreign.id}/suspend`, {});
  const suspended = await rpc(foreign.apiKey, "resources/read", { uri });
  expect(suspended.error?.data).toMatchObject({ code: "tenant_suspended" });
});
