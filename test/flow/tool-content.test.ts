// Answers of several blocks, through the client of each revision: pictures, audio, links and resources arrive as the tool wrote
// them, are charged once, and come again for the same idempotency key.
import { Client as ModernClient, StreamableHTTPClientTransport as ModernTransport } from "@modelcontextprotocol/client";
import { expect, test } from "vitest";
import { PIXEL } from "../support/content-tool.ts";
import { aTenant, anAgent, modernMeta, postMcp, system } from "../support/flow.ts";

const audio = { type: "audio", data: "UklGRiQAAABXQVZF", mimeType: "audio/wav" };
const image = {
  type: "image",
  data: PIXEL,
  mimeType: "image/png",
  annotations: { audience: ["user"], priority: 1 },
};
const blocks = [
  { type: "text", text: "The stock of today." },
  image,
  audio,
  {
    type: "resource_link",
    uri: "https://example.com/stock.csv",
    name: "stock.csv",
    title: "Stock list",
    mimeType: "text/csv",
    description: "One line for each product.",
  },
  { type: "resource", resource: { uri: "stock://note", mimeType: "text/plain", text: "Counted at noon." } },
  { type: "resource", resource: { uri: "stock://scan", mimeType: "image/png", blob: PIXEL } },
];

test("an answer of several blocks reaches the clients of both SDKs as the tool wrote it, charged once", async () => {
  const { apiKey } = await aTenant();
  const call = { name: "show_stock", arguments: {} };
  const requestInit = { headers: { authorization: `Bearer ${apiKey}` } };
  const modern = new ModernClient(
    { name: "flow-test", version: "1" },
    { versionNegotiation: { mode: { pin: "2026-07-28" } } },
  );
  await modern.connect(new ModernTransport(new URL(`${system.publicUrl}/mcp`), { requestInit }));
  const legacy = await anAgent(apiKey);
  for (const answer of [await modern.callTool(call), await legacy.callTool(call)]) {
    expect(answer.content).toEqual(blocks);
    expect(answer.structuredContent).toEqual({ products: 10, fail: false });
    expect(answer._meta?.["tollgate/receipt"]).toMatchObject({ units: 3 });
  }
  await modern.close();
  await legacy.close();

  // A client that names no revision has 2025-03-26, which knows no links.
  const message = { jsonrpc: "2.0", id: 1, method: "tools/call", params: call };
  const headers = { authorization: `Bearer ${apiKey}`, "content-type": "application/json", accept: "application/json" };
  const unnamed = await fetch(`${system.publicUrl}/mcp`, { method: "POST", headers, body: JSON.stringify(message) });
  const { result } = (await unnamed.json()) as { result: { content: unknown[] } };
  const text = "Stock list (text/csv): https://example.com/stock.csv\nOne line for each product.";
  expect(result.content).toEqual(blocks.with(3, { type: "text", text } as never));
});

test("a repeated key gets the same blocks without a second charge; a failed answer and a broken block cost nothing", async () => {
  const { apiKey } = await aTenant();
  const call = async (
    args: object,
    meta: object = {},
  ): Promise<{ content: unknown; _meta?: Record<string, unknown> }> => {
    const params = { name: "show_stock", arguments: args, _meta: { ...modernMeta, ...meta } };
    const answer = await postMcp(apiKey, { jsonrpc: "2.0", id: 1, method: "tools/call", params });
    return ((await answer.json()) as { result: { content: unknown } }).result;
  };
  const keyed = { "tollgate/idempotencyKey": "k-1" };
  const [first, again] = [await call({}, keyed), await call({}, keyed)];
  expect(first.content).toEqual(blocks);
  expect(again.content).toEqual(first.content);
  expect(again._meta?.["tollgate/receipt"]).toEqual(first._meta?.["tollgate/receipt"]);

  const failed = await call({ fail: true });
  expect(failed.content).toEqual(blocks);
  expect(failed._meta?.["tollgate/receipt"]).toBeUndefined();
  expect((await call({ mimeType: "text/html" }))._meta).toEqual({
    "tollgate/refusal": { code: "tool_failed" },
    "io.modelcontextprotocol/serverInfo": expect.anything() as unknown,
  });
  const usage = await postMcp(apiKey, {
    jsonrpc: "2.0",
    id: 1,
    method: "tools/call",
    params: { name: "get_usage", arguments: {}, _meta: modernMeta },
  });
  expect(await usage.json()).toMatchObject({ result: { structuredContent: { hour: { used: 3 } } } });
});
