// The blocks of a tool's answer: which ones are sent, which are refused with the reason, how they are bounded, how an older client
// gets them, and that a later call with the same idempotency key gets them again.
import { DatabaseSync } from "node:sqlite";
import { expect, test, vi } from "vitest";
import * as z from "zod";
import { CallSecrets } from "../../src/tools/call-secrets.ts";
import { KeyedCalls } from "../../src/calls/keyed-calls.ts";
import { knownBlock } from "../../src/calls/mcp/result.ts";
import { type ToolRun, runTool } from "../../src/calls/tool-runner.ts";
import type { ContentBlock } from "../../src/core/call.ts";
import { type WrittenBlock, MAX_RESULT_BYTES, contentOf, sentBlocks } from "../../src/tools/content.ts";
import { type ToolResult, defineTool, isFailure } from "../../src/tools/tool.ts";
import { callTool, toolContext } from "../support/tool-context.ts";

const png = { type: "image", data: "aGVsbG8=", mimeType: "image/png" } as const;
const link = { type: "resource_link", uri: "https://example.com/a", name: "a" } as const;
const embedded = (resource: object): WrittenBlock => ({ type: "resource", resource }) as WrittenBlock;

test("bytes and base64 are sent as base64, with the annotations of the tool", () => {
  const annotations = { audience: ["user" as const], priority: 0.5, lastModified: "2026-11-29T08:00:00Z" };
  const bytes = new TextEncoder().encode("__hello__").subarray(2, 7);
  const blob = { uri: "files://a", mimeType: "application/pdf", blob: bytes };
  expect(sentBlocks([{ ...png, data: bytes, annotations }, png, embedded(blob)])).toEqual([
    { ...png, annotations },
    png,
    { type: "resource", resource: { ...blob, blob: "aGVsbG8=" } },
  ]);
});

test("the text comes first; without any text the data is sent as JSON", () => {
  const types = (result: ToolResult<unknown>) =>
    contentOf(result).map((each) => ("text" in each ? each.text : each.type));
  const own = { type: "text", text: "own" } as const;
  expect(types({ data: { n: 1 } })).toEqual(['{"n":1}']);
  expect(types({ data: { n: 1 }, content: [png] })).toEqual(['{"n":1}', "image"]);
  expect(types({ data: { n: 1 }, content: [png, own] })).toEqual(["image", "own"]);
  expect(types({ data: { n: 1 }, text: "first", content: [own, png] })).toEqual(["first", "own", "image"]);
});

test.each<[string, unknown, RegExp]>([
  ["an image that is none", { ...png, mimeType: "text/html" }, /^content\[0\]\.mimeType must be of image/],
  ["a media type that is none", embedded({ uri: "a://b", mimeType: "png", text: "" }), /must be a media type/],
  ["a header in a media type", { ...png, mimeType: "image/png; a=b\r\nx: y" }, /must be a media type/],
  ["base64 without padding", { ...png, data: "aGVsbG8" }, /content\[0\]\.data must be base64/],
  ["base64 for URLs", { ...png, data: "aGVs-_8=" }, /must be base64/],
  ["no bytes", { ...png, data: new Uint8Array() }, /must not be empty/],
  ["a link without TLS", { ...link, uri: "http://example.com" }, /content\[0\]\.uri must be an https URL/],
  ["a link that runs", { ...link, uri: "javascript:alert(1)" }, /https URL/],
  ["a link to data", { ...link, uri: "data:text/html,hi" }, /https URL/],
  ["a link to the reader's disk", { ...link, uri: "file:///etc/passwd" }, /https URL/],
  ["a relative link", { ...link, uri: "/a" }, /https URL/],
  ["a link without a name", { ...link, name: "" }, /content\[0\]\.name/],
  ["an unknown audience", { ...png, annotations: { audience: ["operator"] } }, /annotations\.audience/],
  ["a priority above 1", { ...png, annotations: { priority: 2 } }, /annotations\.priority/],
  ["an unknown kind", { type: "video", data: "aGVsbG8=", mimeType: "video/mp4" }, /content\[0\]/],
  ["a member that MCP does not have", { ...png, alt: "A picture" }, /alt/],
])("%s is refused, and the reason names the block's member", (_, block, message) => {
  expect(() => sentBlocks([block as WrittenBlock])).toThrow(message);
});

test("a reason has no value of the tool's", () => {
  expect(() => sentBlocks([{ ...link, uri: "http://secret.example" }])).toThrow(/^(?!.*secret)/);
});

test("links to own schemes and to https pages are sent", () => {
  const uris = ["https://example.com/a?b#c", "stock://lamp", "urn:isbn:1"];
  expect(sentBlocks(uris.map((uri) => ({ ...link, uri })))).toHaveLength(3);
});

test("more than a hundred blocks are refused", () => {
  const text = { type: "text", text: "a" } as const;
  expect(sentBlocks(Array.from({ length: 100 }, () => text))).toHaveLength(100);
  expect(() => sentBlocks(Array.from({ length: 101 }, () => text))).toThrow(/use 100 at most/);
});

// ---- running

const shows = (result: () => ToolResult<{ ok: boolean }>) =>
  defineTool({
    name: "shows",
    title: "Shows",
    description: "Shows.",
    units: 2,
    scopes: ["tools:read"],
    input: z.strictObject({}),
    output: z.strictObject({ ok: z.boolean() }),
    annotations: { readOnly: true, idempotent: true, destructive: false },
    failed: (given) => isFailure(given) || !given.data.ok,
    run: async () => result(),
  });
const run = async (result: () => ToolResult<{ ok: boolean }>): Promise<ToolRun> => {
  const warn = vi.spyOn(console, "warn").mockImplementation(() => undefined);
  const tool = shows(result);
  const secrets = new CallSecrets(tool, () => Promise.reject(new Error("no secret is set")));
  const ended = await runTool(
    tool,
    {},
    { ...toolContext().context, secrets },
    {
      abort: new AbortController(),
      progress: undefined,
    },
  );
  warn.mockRestore();
  return ended;
};

test("a result is bounded by what is sent: base64, not bytes, and all blocks together", async () => {
  const data = { ok: true };
  const image = (bytes: number): WrittenBlock => ({ ...png, data: new Uint8Array(bytes) });
  const around = JSON.stringify({ ...png, data: "" }).length + 2 * JSON.stringify(data).length;
  const most = Math.floor((MAX_RESULT_BYTES - around) / 4) * 3;
  const sent = (...bytes: number[]) => run(() => ({ data, content: bytes.map(image) }));
  expect(await sent(most)).toMatchObject({ charged: true, units: 2, failure: undefined });
  expect(await sent(most + 3)).toMatchObject({ charged: false, units: 0, failure: "result_too_large" });
  expect(await sent(most - 30_000, 30_000)).toMatchObject({ failure: "result_too_large" });
  expect(await sent(64 * MAX_RESULT_BYTES)).toMatchObject({ failure: "result_too_large" });
});

test("a block that clients refuse fails the call, which is not charged; `failed` decides about any other", async () => {
  const broken = await run(() => ({ data: { ok: true }, content: [{ ...png, mimeType: "png" }] }));
  expect(broken).toMatchObject({ charged: false, isError: true, failure: "tool_failed" });
  expect(await run(() => ({ data: { ok: false }, content: [png] }))).toMatchObject({
    charged: false,
    isError: false,
    content: [{ type: "text" }, png],
  });
});

test("a test of a tool sees its blocks and its texts", async () => {
  const tool = shows(() => ({
    data: { ok: true },
    content: [{ type: "text", text: "one" }, png, { type: "text", text: "two" }],
  }));
  expect(await callTool(tool, {}, toolContext().context)).toMatchObject({ text: "one\ntwo", content: [{}, png, {}] });
});

// ---- keys and revisions

const every: ContentBlock[] = sentBlocks([
  { type: "text", text: "Grüße" },
  { ...png, annotations: { audience: ["assistant"], priority: 0 } },
  { type: "audio", data: "aGVsbG8=", mimeType: "audio/wav" },
  { ...link, title: "A", description: "B", mimeType: "text/csv", size: 3 },
  embedded({ uri: "stock://a", mimeType: "text/plain", text: "a" }),
  embedded({ uri: "stock://b", blob: "aGVsbG8=" }),
]);

test("a later call with the same idempotency key gets equal blocks", () => {
  const database = new DatabaseSync(":memory:");
  const sql = {
    exec(query: string, ...bindings: (string | number | null)[]) {
      const rows = database.prepare(query).all(...bindings);
      return { toArray: () => rows, one: () => rows[0] };
    },
  };
  const idempotency = { key: "k", fingerprint: "f", atMs: 0, earlierId: "e" };
  const keyed = new KeyedCalls(sql as unknown as SqlStorage).of(idempotency);
  const answer = { content: every, data: { ok: true }, isError: false };
  keyed.keep({ callId: "c", nowMs: 1, units: 2, answer });
  expect(keyed.find(2)).toEqual({ state: "done", callId: "c", units: 2, answer });
});

test("a client of an older revision gets links as text and audio as a resource; any other block stays", () => {
  const sentTo = (revision: string) => every.map((block) => knownBlock(block, revision));
  expect(sentTo("2025-06-18")).toEqual(every);
  expect(sentTo("2026-07-28")).toEqual(every);
  const text = { type: "text", text: "A (text/csv): https://example.com/a\nB" };
  expect(sentTo("2025-03-26")).toEqual(every.with(3, text as ContentBlock));
  expect(sentTo("2024-11-05")[2]).toEqual({
    type: "resource",
    resource: { uri: "content:audio", mimeType: "audio/wav", blob: "aGVsbG8=" },
  });
});
