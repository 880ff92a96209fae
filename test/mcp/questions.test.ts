// A tool's question on the wire: what a client of each revision gets, and what it sends back.
import { expect, test } from "vitest";
import { callStates } from "../../src/calls/mcp/call-state.ts";
import type { CallTool, ToolCallOptions } from "../../src/calls/mcp/server.ts";
import { sessionOf } from "../../src/calls/mcp/message.ts";
import type { CallOutcome, Question } from "../../src/core/call.ts";
import { aResult, answer, message, messages, quota, states } from "../support/mcp-requests.ts";

const call = { name: "search_products", arguments: { query: "chair" } };
const question: Question = {
  name: "pieces",
  message: "How many?",
  schema: { type: "object", properties: { pieces: { type: "integer", minimum: 1 } }, required: ["pieces"] },
};
const asks: CallOutcome = { kind: "asks", question, quota };
const forms = { capabilities: { elicitation: {} } };
const five = { action: "accept", content: { pieces: 5 } } as const;

/** What the call's tool was given by a message with these parameters. */
async function given(params: Record<string, unknown>, options = {}, outcome: CallOutcome = asks) {
  let seen: ToolCallOptions | undefined;
  const callTool: CallTool = (_tool, _args, each) => {
    seen = each;
    return Promise.resolve(outcome);
  };
  const era = "2026-07-28";
  const request = message(era, "tools/call", { ...call, ...params }, { ...forms, ...options });
  const { last } = await messages(await answer(request, { callTool }));
  return { seen, result: last.result };
}

test("a question is an answer that asks for input, and the state that comes back makes its rounds one call", async () => {
  const first = await given({});
  expect(first.seen).toMatchObject({ asking: { form: "input", answers: {} } });
  expect(first.seen?.idempotencyKey).toBeUndefined();
  expect(first.result).toMatchObject({
    resultType: "input_required",
    inputRequests: {
      pieces: { method: "elicitation/create", params: { message: "How many?", requestedSchema: question.schema } },
    },
    requestState: expect.stringMatching(/^v1\./),
  });
  const requestState = first.result?.["requestState"];

  // A second question keeps the first answer, which the client does not send again.
  const other = { kind: "asks" as const, question: { ...question, name: "colour" }, quota };
  const second = await given({ requestState, inputResponses: { pieces: five } }, {}, other);
  expect(second.seen).toMatchObject({ asking: { answers: { pieces: five } } });
  const red = { action: "accept", content: { colour: "red" } };
  const third = await given(
    { requestState: second.result?.["requestState"], inputResponses: { colour: red } },
    {},
    aResult(),
  );
  expect(third.seen).toMatchObject({ asking: { answers: { pieces: five, colour: red } } });
  expect(third.result).toMatchObject({ structuredContent: { found: 3 } });
  const keys = [second, third].map(({ seen }) => seen?.idempotencyKey);
  expect(new Set(keys).size).toBe(1);
  expect(keys[0]).toMatch(/^[\da-f-]{36}$/);
});

test("an answer that the tool did not accept is asked for again, and is not kept", async () => {
  const wrong = { action: "accept", content: { pieces: "many" } };
  const again = await given({ inputResponses: { pieces: wrong } });
  const next = await given({ requestState: again.result?.["requestState"] });
  expect(next.seen).toMatchObject({ asking: { answers: {} } });
});

test("the client's own idempotency key is the key of all rounds", async () => {
  const own = { _meta: { "tollgate/idempotencyKey": "own-1" } };
  const era = "2026-07-28";
  let seen: ToolCallOptions | undefined;
  const callTool: CallTool = (_tool, _args, each) => Promise.resolve(((seen = each), asks));
  const request = message(era, "tools/call", call, forms);
  const body = (await request.json()) as { params: { _meta: object } };
  body.params._meta = { ...body.params._meta, ...own["_meta"] };
  const headers = new Headers(request.headers);
  await answer(new Request(request.url, { method: "POST", headers, body: JSON.stringify(body) }), { callTool });
  expect(seen?.idempotencyKey).toBe("own-1");
});

test.each([
  [
    "altered",
    async () => (await states.mint({ key: "k", answers: { pieces: five } }, {} as never)).replace(/.$/, "A~"),
  ],
  [
    "another caller's",
    () =>
      callStates({ CREDENTIAL_KEY: "a secret of these tests alone, of 40 bytes" }, "another").mint(
        { key: "k", answers: { pieces: five } },
        {} as never,
      ),
  ],
  ["made up", async () => "raise.1"],
])("a state that is %s counts for nothing: the tool asks again", async (_, state) => {
  const { seen } = await given({ requestState: await state() });
  expect(seen).toMatchObject({ asking: { answers: {} } });
  expect(seen?.idempotencyKey).toBeUndefined();
});

test.each([
  ["2026-07-28", "without the capability", {}, undefined],
  ["2026-07-28", "with URLs alone", { capabilities: { elicitation: { url: {} } } }, undefined],
  ["2026-07-28", "with forms", forms, "input"],
  ["2025-11-25", "without a session", {}, undefined],
  ["2025-11-25", "with a session of forms", { headers: session({ elicitation: {} }) }, "stream"],
  ["2025-11-25", "with a session of URLs alone", { headers: session({ elicitation: { url: {} } }) }, undefined],
  [
    "2025-11-25",
    "that takes no event stream",
    { headers: { ...session({ elicitation: {} }), accept: "application/json" } },
    undefined,
  ],
] as const)("a client of %s %s", async (era, _, options, form) => {
  let seen: ToolCallOptions | undefined;
  const callTool: CallTool = (_tool, _args, each) => Promise.resolve(((seen = each), aResult()));
  await answer(message(era, "tools/call", call, options), { callTool });
  expect(seen?.asking?.form).toBe(form);
  expect(seen?.sendQuestion !== undefined).toBe(form === "stream");
});

test("a client of an older revision gets the question on the stream of its call, then the result", async () => {
  const callTool: CallTool = async (_tool, _args, { sendQuestion }) => {
    await sendQuestion?.({ ...question, id: "ask.call-1.1" });
    return aResult();
  };
  const headers = session({ elicitation: {} });
  const response = await answer(message("2025-11-25", "tools/call", call, { headers }), { callTool });
  expect(response.headers.get("content-type")).toBe("text/event-stream");
  const events = (await response.text())
    .split("\n\n")
    .filter((event) => event !== "")
    .map((event) => JSON.parse(event.replace(/^[\s\S]*?data: /, "")) as Record<string, unknown>);
  expect(events).toMatchObject([
    {
      id: "ask.call-1.1",
      method: "elicitation/create",
      params: { message: "How many?", requestedSchema: question.schema },
    },
    { result: { structuredContent: { found: 3 } } },
  ]);
});

function session(capabilities: unknown): Record<string, string> {
  const id = sessionOf({ jsonrpc: "2.0", id: 1, method: "initialize", params: { capabilities } });
  return { "mcp-session-id": id ?? "" };
}
