// Tool calls and lists over both eras of the protocol: how a client of each sees a result, a refusal, progress, missing
// scopes and its own mistakes. Callers never see each other's tools or results.
import { expect, test } from "vitest";
import type { CallTool } from "../../src/calls/mcp/server.ts";
import { sessionOf } from "../../src/calls/mcp/message.ts";
import type { CallOutcome } from "../../src/core/call.ts";
import { inRequest } from "../../src/log.ts";
import {
  aResult,
  aTool,
  answer,
  eras,
  httpRequest,
  message,
  messages,
  quota,
  states,
} from "../support/mcp-requests.ts";

const mustNotRun: CallTool = () => Promise.reject(new Error("must not run"));
const call = { name: "search_products", arguments: { query: "chair" } };

test.each(eras)("%s lists the tools with their schemas and annotations", async (era) => {
  const { last } = await messages(await answer(message(era, "tools/list")));
  expect(last.result).toMatchObject({
    tools: [
      {
        name: "search_products",
        title: "Search products",
        inputSchema: { type: "object", required: ["query"] },
        outputSchema: { type: "object", required: ["found"] },
        annotations: { readOnlyHint: true, idempotentHint: true, destructiveHint: false, openWorldHint: false },
      },
    ],
  });
});

test("only the tenant's own client may cache lists and discovery, for a minute", async () => {
  for (const method of ["tools/list", "server/discover"]) {
    const { last } = await messages(await answer(message("2026-07-28", method)));
    expect(last.result).toMatchObject({ ttlMs: 60_000, cacheScope: "private" });
  }
});

test("the newer era learns that lists never announce a change", async () => {
  const { last } = await messages(await answer(message("2026-07-28", "server/discover")));
  expect(last.result).toMatchObject({ capabilities: { tools: { listChanged: false } } });
});

test("the older era initializes without a session", async () => {
  const params = { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "test", version: "1" } };
  const response = await answer(message("2025-11-25", "initialize", params));
  expect(response.headers.get("mcp-session-id")).toBeNull();
  const { last } = await messages(response);
  expect(last.result).toMatchObject({ protocolVersion: "2025-11-25", serverInfo: { name: "tollgate" } });
});

test.each(eras)("%s calls a tool with its arguments and their defaults and answers as JSON", async (era) => {
  const calls: unknown[] = [];
  const callTool: CallTool = (tool, args, { progress }) => {
    calls.push({ tool: tool.name, args, progress });
    return Promise.resolve(aResult());
  };
  const response = await answer(message(era, "tools/call", call), { callTool });
  const { streamed, last } = await messages(response);
  expect(response.status).toBe(200);
  expect(streamed).toBe(false);
  expect(calls).toEqual([{ tool: "search_products", args: { query: "chair", limit: 10 }, progress: undefined }]);
  expect(last).toMatchObject({ id: 7, result: { content: [{ text: "3 found" }], structuredContent: { found: 3 } } });
  expect(last.result).not.toHaveProperty("isError");
});

const reportTwice: CallTool = async (_tool, _args, { progress }) => {
  await progress?.({ progress: 1, total: 2, message: "half" });
  await progress?.({ progress: 2, total: 2 });
  return aResult();
};

test.each(eras)("%s streams progress that the client asked for and the tool reports, then the result", async (era) => {
  const response = await answer(message(era, "tools/call", call, { progressToken: "p1" }), { callTool: reportTwice });
  const { streamed, all, last } = await messages(response);
  expect(streamed).toBe(true);
  expect(all.map(({ method }) => method)).toEqual(["notifications/progress", "notifications/progress", undefined]);
  expect(all[0]?.params).toMatchObject({ progressToken: "p1", progress: 1, total: 2, message: "half" });
  expect(last.result).toMatchObject({ structuredContent: { found: 3 } });
});

test.each(eras)("%s answers as JSON when the client asked for progress and the tool reports none", async (era) => {
  const response = await answer(message(era, "tools/call", call, { progressToken: "p1" }));
  expect((await messages(response)).streamed).toBe(false);
});

test.each(
  eras.flatMap((era) => [
    { era, departure: "cancels the stream" },
    { era, departure: "drops the connection" },
  ]),
)("a $era client that $departure aborts its tool, and progress then fails nothing", async ({ era, departure }) => {
  const client = new AbortController();
  const reported = Promise.withResolvers<string>();
  const callTool: CallTool = async (_tool, _args, { progress, signal }) => {
    await progress?.({ progress: 1 });
    await new Promise((resolve) => signal.addEventListener("abort", resolve));
    await progress?.({ progress: 2 });
    reported.resolve("reported after the abort");
    return aResult();
  };
  const request = message(era, "tools/call", call, { progressToken: "p1", signal: client.signal });
  const response = await answer(request, { callTool });
  expect(response.headers.get("content-type")).toBe("text/event-stream");
  if (departure === "cancels the stream") await response.body?.cancel();
  else client.abort();
  expect(await reported.promise).toBe("reported after the abort");
});

test.each(eras)("%s ends a call whose client leaves before any answer", async (era) => {
  const client = new AbortController();
  const callTool: CallTool = (_tool, _args, { signal }) => {
    client.abort();
    return Promise.resolve(aResult({ isError: signal.aborted }));
  };
  const response = await answer(message(era, "tools/call", call, { signal: client.signal }), { callTool });
  expect(response.status).toBe(499);
});

test.each(eras)("%s gets a refusal as a result for the model, with its facts as data", async (era) => {
  const refusal = {
    code: "window_exhausted" as const,
    message: "100 of 100 units an hour are used; try again in 30 seconds.",
    cost: 1,
    limit: 100,
    used: 100,
    retryAfterSeconds: 30,
    upgradeUrl: "https://tollgate.example/app",
  };
  const callTool: CallTool = () => Promise.resolve({ kind: "refused", refusal, quota });
  const response = await answer(message(era, "tools/call", call), { callTool });
  const { message: text, ...facts } = refusal;
  expect(response.status).toBe(200);
  expect((await messages(response)).last.result).toMatchObject({
    isError: true,
    content: [{ type: "text", text }],
    _meta: { "tollgate/refusal": facts },
  });
});

test.each(eras)(
  "%s gives a receipt to a call that was charged, also without its answer, and to no other",
  async (era) => {
    const receipt = { id: "019a0000-0000-7000-8000-000000000001", units: 20 };
    const refusal = { code: "outcome_unknown" as const, message: "It was charged, and its answer was lost." };
    const metaOf = async (outcome: ReturnType<typeof aResult>) => {
      const { last } = await messages(
        await answer(message(era, "tools/call", call), { callTool: async () => outcome }),
      );
      return last.result?.["_meta"] ?? {};
    };
    expect(await metaOf(aResult({ receipt }))).toMatchObject({ "tollgate/receipt": receipt });
    expect(await metaOf({ kind: "refused", refusal, receipt, quota })).toMatchObject({
      "tollgate/receipt": receipt,
      "tollgate/refusal": { code: "outcome_unknown" },
    });
    expect(await metaOf(aResult())).not.toHaveProperty("tollgate/receipt");
    expect(await metaOf(aResult({ isError: true, failure: "tool_timeout" }))).not.toHaveProperty("tollgate/receipt");
    expect(await metaOf({ kind: "refused", refusal, quota })).not.toHaveProperty("tollgate/receipt");
  },
);

test.each(eras)("%s gets a tool's own failure as an error without structured content", async (era) => {
  const content = [{ type: "text" as const, text: "No such product." }];
  const callTool: CallTool = () => Promise.resolve(aResult({ content, data: undefined, isError: true }));
  const { last } = await messages(await answer(message(era, "tools/call", call), { callTool }));
  expect(last.result).toMatchObject({ isError: true, content });
});

const leak: CallTool = () => Promise.reject(new Error("password=hunter2"));

test.each(eras)("%s never shows the text of an exception", async (era) => {
  const response = await answer(message(era, "tools/call", call), { callTool: leak });
  const { last } = await messages(response);
  expect(last.result).toMatchObject({ isError: true, _meta: { "tollgate/refusal": { code: "internal" } } });
  expect(JSON.stringify(last)).not.toContain("hunter2");
});

test.each(eras)("%s learns the request's id where the message asks to be sent to support", async (era) => {
  const asked = inRequest("request-1", () => answer(message(era, "tools/call", call), { callTool: leak }));
  const { last } = await messages(await asked);
  expect(JSON.stringify(last.result)).toMatch(/send this message to support.* Request: request-1\./);
});

test.each(eras)("%s challenges a caller without all of a tool's scopes, names them, and runs nothing", async (era) => {
  const tools = [aTool({ scopes: ["tools:read", "tools:write"] })];
  const response = await answer(message(era, "tools/call", call), {
    tools,
    callTool: mustNotRun,
    scopes: ["tools:read"],
  });
  expect(response.status).toBe(403);
  const challenge = response.headers.get("www-authenticate");
  expect(challenge).toContain('error="insufficient_scope"');
  expect(challenge).toContain('scope="tools:read tools:write"');
  expect(challenge).toContain("resource_metadata=");
});

test.each(eras)("%s serves a caller who has all of a tool's scopes", async (era) => {
  const tools = [aTool({ scopes: ["tools:read"] })];
  const response = await answer(message(era, "tools/call", call), { tools, scopes: ["tools:read", "other"] });
  expect((await messages(response)).last.result).toMatchObject({ structuredContent: { found: 3 } });
});

test.each(eras)("%s learns that a tool does not exist", async (era) => {
  const { last } = await messages(await answer(message(era, "tools/call", { name: "no_such_tool", arguments: {} })));
  expect(last).toMatchObject({ id: 7, error: { code: -32602 } });
  expect(last.error?.message).toContain("no_such_tool");
});

test.each(eras)("%s learns which argument breaks the schema, in a result that the model can correct", async (era) => {
  const wrong = { name: "search_products", arguments: { query: "chair", limit: 1000 } };
  const { last } = await messages(await answer(message(era, "tools/call", wrong), { callTool: mustNotRun }));
  expect(last.result).toMatchObject({ isError: true });
  expect(JSON.stringify(last.result?.content)).toContain("limit");
});

test("an unknown method is not found, with 404 in the newer era", async () => {
  const modern = await answer(message("2026-07-28", "no/such"));
  expect(modern.status).toBe(404);
  expect((await messages(modern)).last).toMatchObject({ id: 7, error: { code: -32601 } });
  const legacy = await answer(message("2025-11-25", "no/such"));
  expect((await messages(legacy)).last).toMatchObject({ id: 7, error: { code: -32601 } });
});

test("an unknown revision is refused with the list of known ones", async () => {
  const body = (await message("2026-07-28", "tools/list").text()).replace("2026-07-28", "2031-01-01");
  const headers = { "mcp-protocol-version": "2031-01-01", "mcp-method": "tools/list" };
  const response = await answer(httpRequest(body, { headers }));
  expect(response.status).toBe(400);
  expect((await messages(response)).last.error).toMatchObject({ code: -32022, data: { supported: ["2026-07-28"] } });
});

test("headers that disagree with the message are refused in the newer era", async () => {
  const response = await answer(message("2026-07-28", "tools/call", call, { headers: { "mcp-name": "other_tool" } }));
  expect(response.status).toBe(400);
  expect((await messages(response)).last.error).toMatchObject({ code: -32020 });
});

test("two concurrent callers each get their own tools, arguments and results", async () => {
  const arrived: string[] = [];
  const both = Promise.withResolvers<void>();
  const serve = async (era: (typeof eras)[number], name: string) => {
    const callTool: CallTool = async (tool, args) => {
      arrived.push(name);
      if (arrived.length === 4) both.resolve();
      await both.promise;
      return aResult({ content: [{ type: "text", text: `${tool.name} for ${String(args.query)}` }] });
    };
    const request = message(era, "tools/call", { name: `tool_of_${name}`, arguments: { query: name } });
    const { last } = await messages(await answer(request, { tools: [aTool({ name: `tool_of_${name}` })], callTool }));
    return JSON.stringify(last.result?.content);
  };
  const names = ["ann", "bob", "cid", "dan"] as const;
  const answers = await Promise.all(names.map((name, index) => serve(eras[index % 2 === 0 ? 0 : 1], name)));
  expect(answers).toEqual(names.map((name) => `[{"type":"text","text":"tool_of_${name} for ${name}"}]`));
});

test.each(eras)(
  "%s gets a failure for a text with half of a surrogate pair, and the tool does not run",
  async (era) => {
    const broken = { name: "search_products", arguments: { query: "a\ud83db" } };
    const { last } = await messages(await answer(message(era, "tools/call", broken), { callTool: mustNotRun }));
    expect(last.result).toMatchObject({ isError: true });
    expect(JSON.stringify(last.result)).toMatch(/query.*surrogate|surrogate.*query/);
  },
);

// ---- a limit that a person can raise

const page = "https://tollgate.example/app/acme/limit";
const raisable: Extract<CallOutcome, { kind: "refused" }> = {
  kind: "refused",
  refusal: { code: "spend_cap_reached", message: "The cap is reached.", upgradeUrl: page, raisable: true },
  quota,
};
const opensUrls = { elicitation: { url: {} } };
const session = { "mcp-session-id": sessionOf(initializeOf(opensUrls)) ?? "" };
const state = await states.mint({ key: "the key of the rounds", answers: {} }, {} as never);
const accepted = { inputResponses: { raise_limit: { action: "accept" } }, requestState: state };
const declined = { ...accepted, inputResponses: { raise_limit: { action: "decline" } } };

function initializeOf(capabilities: unknown): unknown {
  return { jsonrpc: "2.0", id: 1, method: "initialize", params: { capabilities } };
}

test.each([
  ["2026-07-28", "that can open a URL", { capabilities: opensUrls }, {}, { offered: "input" }],
  ["2026-07-28", "with forms alone", { capabilities: { elicitation: {} } }, {}, {}],
  ["2026-07-28", "without the capability", {}, {}, {}],
  [
    "2026-07-28",
    "whose person accepts",
    { capabilities: opensUrls },
    accepted,
    { offered: "input", waits: true, key: "the key of the rounds" },
  ],
  ["2026-07-28", "whose person declines", { capabilities: opensUrls }, declined, { key: "the key of the rounds" }],
  [
    "2026-07-28",
    "that makes up a state",
    { capabilities: opensUrls },
    { ...accepted, requestState: "x" },
    { offered: "input", waits: true },
  ],
  ["2025-11-25", "that named the capability", { headers: session }, {}, { offered: "error" }],
  ["2025-11-25", "with a session of another kind", { headers: { "mcp-session-id": "abc" } }, {}, {}],
  ["2025-11-25", "without the capability", {}, {}, {}],
] as const)("a client of %s %s gets the offer that it can show", async (era, _, options, params, expected) => {
  let seen: { waitsMs?: number; idempotencyKey?: string } = {};
  const callTool: CallTool = (_tool, _args, given) => {
    seen = given;
    return Promise.resolve(raisable);
  };
  const { last } = await messages(
    await answer(message(era, "tools/call", { ...call, ...params }, options), { callTool }),
  );
  const { offered, waits = false, key }: { offered?: string; waits?: boolean; key?: string } = expected;
  expect({ waits: (seen.waitsMs ?? 0) > 0, key: seen.idempotencyKey }).toEqual({ waits, key });
  if (offered === "error")
    expect(last.error).toMatchObject({ code: -32042, data: { elicitations: [{ mode: "url", url: page }] } });
  else if (offered === "input")
    expect(last.result).toMatchObject({
      resultType: "input_required",
      inputRequests: { raise_limit: { method: "elicitation/create", params: { mode: "url", url: page } } },
      requestState: expect.stringMatching(/^v1\./),
    });
  else expect(last.result).toMatchObject({ isError: true, _meta: { "tollgate/refusal": { upgradeUrl: page } } });
});

test("a refusal that no person can lift is no offer, and a session id is only for clients that can show something to a person", async () => {
  const { raisable: _, ...refusal } = raisable.refusal;
  const callTool: CallTool = () => Promise.resolve({ kind: "refused", refusal, quota });
  for (const [era, options] of [
    ["2026-07-28", { capabilities: opensUrls }],
    ["2025-11-25", { headers: session }],
  ] as const)
    expect(
      (await messages(await answer(message(era, "tools/call", call, options), { callTool }))).last.result,
    ).toMatchObject({
      isError: true,
    });
  for (const [capabilities, kind] of [
    [undefined, undefined],
    [{}, undefined],
    [{ elicitation: {} }, "form"],
    [{ elicitation: { form: {} } }, "form"],
    [{ elicitation: { url: {} } }, "url"],
    [{ elicitation: { url: {}, form: {} } }, "url-form"],
  ] as const)
    expect(sessionOf(initializeOf(capabilities))?.split("-elicitation.")[0], JSON.stringify(capabilities)).toBe(kind);
});
