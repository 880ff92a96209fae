// A tool's questions: the form that clients can show, the check of an answer, and that only the last round of a call is charged.
import { expect, test, vi } from "vitest";
import * as z from "zod";
import { TenantCalls } from "../../src/calls/tenant-calls.ts";
import type { Answered, Asking, CallRequest, Question } from "../../src/core/call.ts";
import { Questions, questionOf, readAnswer } from "../../src/tools/question.ts";
import { NOW_MS, config, request, startHost } from "../support/call-host.ts";
import { toolContext } from "../support/tool-context.ts";

test("a question has the keywords that clients show, and no others", () => {
  const schema = z.strictObject({
    mail: z.email().describe("Where to"),
    name: z.string().min(2).max(40).optional(),
    pieces: z.int().min(1).max(9).default(3),
    share: z.number(),
    colour: z.enum(["red", "blue"]),
    days: z.array(z.enum(["mon", "tue"])).max(2),
    sure: z.boolean(),
    day: z.iso.date(),
  });
  expect(questionOf({ message: "Well?", schema })).toEqual({
    name: "answer",
    message: "Well?",
    schema: {
      type: "object",
      properties: {
        mail: { type: "string", format: "email", description: "Where to" },
        name: { type: "string", minLength: 2, maxLength: 40 },
        pieces: { type: "integer", minimum: 1, maximum: 9, default: 3 },
        share: { type: "number" },
        colour: { type: "string", enum: ["red", "blue"] },
        days: { type: "array", items: { type: "string", enum: ["mon", "tue"] }, maxItems: 2 },
        sure: { type: "boolean" },
        day: { type: "string", format: "date" },
      },
      required: ["mail", "share", "colour", "days", "sure", "day"],
    },
  });
});

test.each([
  ["address", z.strictObject({ address: z.strictObject({ city: z.string() }) })],
  ["tags", z.strictObject({ tags: z.array(z.string()) })],
  ["other", z.strictObject({ other: z.unknown() })],
])("the field %s, which no client can show, is refused by its name", (field, schema) => {
  expect(() => questionOf({ message: "?", schema })).toThrow(new RegExp(`field ${field} cannot be shown`));
});

test("an answer is checked by the whole schema, and a person may decline", () => {
  const schema = z.strictObject({ code: z.string().regex(/^[A-Z]{3}$/) });
  const read = (answered: Answered) => readAnswer(schema, answered);
  expect(read({ action: "accept", content: { code: "ABC" } })).toEqual({
    answer: { action: "accept", content: { code: "ABC" } },
  });
  expect(read({ action: "decline" })).toEqual({ answer: { action: "decline" } });
  expect(read({ action: "accept", content: { code: "abc" } })).toMatchObject({
    problem: expect.stringContaining("code"),
  });
  expect(read({ action: "accept", content: { code: "ABC", more: 1 } })).toHaveProperty("problem");
});

const pieces = (many: unknown): Answered => ({ action: "accept", content: { pieces: many } });
const restock: CallRequest = {
  ...request,
  tool: "restock_product",
  args: { id: "p1", questions: 1 },
  caller: { ...request.caller, scopes: ["tools:write"] } as CallRequest["caller"],
};
const asking = (answers: Asking["answers"] = {}): Asking => ({ form: "input", answers });
const roomy = { ...config, limits: { ...config.limits, unitsPerHour: 100 } };
/** Rows whose one statement is the tool's write. */
function writes() {
  const { context, seen } = toolContext({ rows: [[{ stock: 7 }], [{ stock: 9 }]] });
  const { db } = context;
  return { seen, host: { tenant: () => roomy, rows: () => ({ ...db, forCall: () => db }) } };
}

test("a call that asks is not charged and holds nothing; the round with the answer is charged once", async () => {
  const { host, seen } = writes();
  const { admission, call, charges, finished, used } = startHost({ host });
  const first = await call({ ...restock, asking: asking() });
  expect(first).toMatchObject({ kind: "asks", question: { name: "pieces_1", message: "How many pieces of p1?" } });
  expect([admission.inFlight, used(), charges.length, finished.length, seen.queries.length]).toEqual([0, 0, 0, 0, 0]);

  const again = await call({ ...restock, callId: "call-2", asking: asking({ pieces_1: pieces("many") }) });
  expect(again).toMatchObject({ kind: "asks", question: { message: expect.stringContaining("not accepted: pieces") } });

  const answered = await call({ ...restock, callId: "call-3", asking: asking({ pieces_1: pieces(2) }) });
  expect(answered).toMatchObject({ kind: "result", data: { stock: 7 }, receipt: { id: "call-3", units: 3 } });
  expect([charges.length, finished.length, seen.queries.length]).toEqual([1, 1, 1]);

  const declined = await call({ ...restock, callId: "call-4", asking: asking({ pieces_1: { action: "decline" } }) });
  expect(declined).toMatchObject({ isError: true, receipt: undefined });
  expect(charges).toHaveLength(1);
});

test("each question of a call has its own answer", async () => {
  const { host, seen } = writes();
  const { call } = startHost({ host });
  const two = { ...restock, args: { id: "p1", questions: 2 } };
  const first = await call({ ...two, asking: asking({ pieces_1: pieces(2) }) });
  expect(first).toMatchObject({ kind: "asks", question: { name: "pieces_2" } });
  await call({ ...two, asking: asking({ pieces_1: pieces(2), pieces_2: pieces(3) }) });
  expect(seen.queries).toEqual([{ text: expect.stringContaining("UPDATE"), params: ["p1", 5] }]);
});

test("a client that cannot ask gets the question in words, and pays nothing", async () => {
  const { call, charges } = startHost({ host: writes().host });
  const outcome = await call(restock);
  expect(outcome).toMatchObject({ kind: "result", isError: true, failure: "question_unsupported", receipt: undefined });
  expect(JSON.stringify(outcome)).toContain("How many pieces of p1?");
  expect(charges).toEqual([]);
});

test("a tool that catches the question's error still asks", async () => {
  const questions = new Questions({ asking: asking(), askClient: undefined, pause: (work) => work });
  await questions.ask({ message: "?", schema: z.strictObject({}) }).catch(() => undefined);
  expect(questions.open).toMatchObject({ name: "answer" });
});

// ---- the answer comes while the call runs

/** A call of an older revision in a tenant's object, and the questions that it sends. */
function streamed() {
  const { host } = writes();
  const { callHost, charges, used } = startHost({ host });
  const calls = new TenantCalls(callHost);
  const sent: (Question & { id: string })[] = [];
  const run = (overrides: Partial<CallRequest> = {}) =>
    calls.run({ ...restock, asking: { form: "stream", answers: {} }, ...overrides }, undefined, async (each) => {
      sent.push(each);
    });
  return { calls, run, sent, charges, used };
}

test("a running call waits for its caller's answer alone, and is charged once", async () => {
  const { calls, run, sent, charges, used } = streamed();
  const outcome = run();
  await vi.waitFor(() => expect(sent).toHaveLength(1));
  const id = sent[0]?.id ?? "";
  expect(used()).toBe(3); // held while a person thinks
  const other = { ...request.caller, keyId: "k2" } as CallRequest["caller"];
  expect(calls.answer(other, id, pieces(9))).toBe(false);
  expect(calls.answer(restock.caller, "ask.other.1", pieces(9))).toBe(false);
  expect(calls.answer(restock.caller, id, pieces("many"))).toBe(true);
  await vi.waitFor(() => expect(sent).toHaveLength(2));
  expect(sent[1]?.message).toContain("not accepted");
  expect(calls.answer(restock.caller, sent[1]?.id ?? "", pieces(2))).toBe(true);
  expect(await outcome).toMatchObject({ kind: "result", data: { stock: 7 }, receipt: { units: 3 } });
  expect(calls.answer(restock.caller, id, pieces(2))).toBe(false);
  expect(charges).toHaveLength(1);
});

test("a person who does not answer in time, and a client that leaves, are charged nothing", async () => {
  vi.useFakeTimers({ now: NOW_MS });
  try {
    const { calls, run, sent, charges, used } = streamed();
    const late = run();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(sent).toHaveLength(1); // far beyond the tool's own time limit
    await vi.advanceTimersByTimeAsync(60_001);
    expect(await late).toMatchObject({ failure: "question_unanswered", receipt: undefined });
    const left = run({ callId: "call-2" });
    await vi.advanceTimersByTimeAsync(10);
    calls.cancel("call-2");
    expect(await left).toMatchObject({ failure: "tool_aborted", receipt: undefined });
    expect([charges.length, used()]).toEqual([0, 0]);
  } finally {
    vi.useRealTimers();
  }
});
