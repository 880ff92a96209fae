// A tool asks a person while its call is under way: through the clients of both revisions, with the answer sent twice, refused, late
// or never, and charged once, when the call completes.
import { randomUUID } from "node:crypto";
import { Client as ModernClient, StreamableHTTPClientTransport as ModernTransport } from "@modelcontextprotocol/client";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import { expect, test } from "vitest";
import {
  type TestTenant,
  aTenant,
  anAgent,
  callTool,
  controlRows,
  endObject,
  objectFault,
  system,
  until,
} from "../support/flow.ts";
import { type Round, type RoundAnswer, sendRound } from "../support/questions.ts";

type Person = (asked: { message: string; round: number }) => Promise<{
  action: "accept" | "decline" | "cancel";
  content?: Record<string, string | number | boolean | string[]>;
}>;

const accept = (pieces: number) => ({ action: "accept" as const, content: { pieces } });
const restock = (questions = 1) => ({ name: "restock_product", arguments: { id: "bag-canvas", questions } });
/** The bag's stock after provisioning. */
const STOCK = 3;

interface Agent extends AsyncDisposable {
  callTool(
    call: ReturnType<typeof restock>,
  ): Promise<{ isError?: unknown; structuredContent?: unknown; _meta?: unknown }>;
}

/** A client of the newest revision: its SDK asks the person, and sends the call again with the answer. */
async function aModernAgent(token: string, person: Person): Promise<Agent> {
  const client = new ModernClient(
    { name: "flow-test", version: "1" },
    { capabilities: { elicitation: { form: {} } }, versionNegotiation: { mode: "auto" } },
  );
  let round = 0;
  client.setRequestHandler("elicitation/create", ({ params }) => person({ message: params.message, round: ++round }));
  await client.connect(new ModernTransport(new URL(`${system.publicUrl}/mcp`), authorized(token)));
  return { callTool: (call) => client.callTool(call), [Symbol.asyncDispose]: () => client.close() };
}

/** A client of revision 2025-11-25: it answers while the call runs. */
async function anOlderAgent(token: string, person: Person): Promise<Agent> {
  const client = new Client({ name: "flow-test", version: "1" }, { capabilities: { elicitation: {} } });
  let round = 0;
  client.setRequestHandler(ElicitRequestSchema, ({ params }) => person({ message: params.message, round: ++round }));
  await client.connect(new StreamableHTTPClientTransport(new URL(`${system.publicUrl}/mcp`), authorized(token)));
  return { callTool: (call) => client.callTool(call), [Symbol.asyncDispose]: () => client.close() };
}

const authorized = (token: string) => ({ requestInit: { headers: { authorization: `Bearer ${token}` } } });
const agents = { "2026-07-28": aModernAgent, "2025-11-25": anOlderAgent };
const eras = ["2026-07-28", "2025-11-25"] as const;

test.each(eras)("a client of %s answers a tool's questions, and the call is charged once", async (era) => {
  const tenant = await aTenant({ plan: "starter" });
  const asked: string[] = [];
  await using agent = await agents[era](tenant.apiKey, async ({ message, round }) => {
    asked.push(message);
    // The second answer is none: the tool asks again.
    return round === 2 ? accept(1_000) : accept(2);
  });
  const answer = await agent.callTool(restock(2));
  expect(answer).toMatchObject({
    structuredContent: { stock: STOCK + 4 },
    _meta: { "tollgate/receipt": { units: 3 } },
  });
  expect(asked).toHaveLength(3);
  expect(asked[2]).toContain("was not accepted");
  await expectCharged(tenant, [3]);
  expect(await stock(tenant)).toBe(STOCK + 4);
});

test.each(eras)("with a client of %s a person who declines or closes the question pays nothing", async (era) => {
  const tenant = await aTenant({ plan: "starter" });
  for (const action of ["decline", "cancel"] as const) {
    await using agent = await agents[era](tenant.apiKey, async () => ({ action }));
    expect(await agent.callTool(restock())).toMatchObject({ isError: true });
  }
  expect(await stock(tenant)).toBe(STOCK);
  await expectCharged(tenant, []);
});

test("a client without forms gets the question in words, and pays nothing", async () => {
  const tenant = await aTenant({ plan: "starter" });
  await using agent = await anAgent(tenant.apiKey);
  const { isError, content } = await agent.callTool(restock());
  expect(isError).toBe(true);
  expect(JSON.stringify(content)).toMatch(
    /How many pieces of bag-canvas.*was not charged|not charged.*How many pieces/s,
  );
  await expectCharged(tenant, []);
});

// ---- rounds by hand

/** One round of a call, as a client of the newest revision sends it. */
const send = (tenant: TestTenant, round: Round = {}, questions = 1): Promise<RoundAnswer> =>
  sendRound(tenant.apiKey, restock(questions), round);

const answered = (requestState: string | undefined, pieces = 2): Round => ({
  ...(requestState !== undefined && { requestState }),
  inputResponses: { pieces_1: accept(pieces) },
});

test("an answer that is sent twice, at once or later, or with another content, is one call that is charged once", async () => {
  const tenant = await aTenant({ plan: "starter" });
  const { requestState, asks } = await send(tenant);
  expect(Object.keys(asks ?? {})).toEqual(["pieces_1"]);
  const [one, two] = await Promise.all([send(tenant, answered(requestState)), send(tenant, answered(requestState))]);
  await endObject(tenant.id);
  const later = await send(tenant, answered(requestState, 50));
  const receipts = [one, two, later].map((each) => each.ended?.receipt);
  expect(receipts[0]).toMatchObject({ units: 3 });
  expect(receipts).toEqual([receipts[0], receipts[0], receipts[0]]);
  expect(await stock(tenant)).toBe(STOCK + 2);
  await expectCharged(tenant, [3]);
});

test("questions that nobody answers cost nothing, and hold no place among the calls in flight", async () => {
  const tenant = await aTenant({ plan: "free" }); // four calls in flight, a hundred units an hour
  for (let call = 0; call < 12; call += 1) expect((await send(tenant)).asks).toBeDefined();
  expect((await callTool(tenant.apiKey, "get_usage")).data).toMatchObject({ hour: { used: 0 } });
  await expectCharged(tenant, []);
});

test("the answer to the last round is lost: the same answer again gets the first one's result", async () => {
  const tenant = await aTenant({ plan: "starter" });
  const { requestState } = await send(tenant);
  try {
    await objectFault(tenant.id, "answers-lost");
    const lost = await send(tenant, answered(requestState));
    expect(lost.ended?.refusal?.code).toMatch(/unknown|unavailable/);
  } finally {
    await objectFault(tenant.id);
  }
  await until(async () => (await charged(tenant)).length === 1, "it was charged");
  const again = await send(tenant, answered(requestState));
  expect(again.ended?.receipt).toMatchObject({ units: 3 });
  expect(await stock(tenant)).toBe(STOCK + 2);
  await expectCharged(tenant, [3]);
});

test("another caller's state counts for nothing", async () => {
  const [tenant, other] = await Promise.all([aTenant({ plan: "starter" }), aTenant({ plan: "starter" })]);
  const { requestState } = await send(tenant, {}, 2);
  const second = await send(tenant, answered(requestState), 2);
  // With the state alone the first answer is known to its own caller, who is asked the second question, and to no other.
  const round: Round = second.requestState === undefined ? {} : { requestState: second.requestState };
  const asks = async (each: TestTenant) => Object.keys((await send(each, round, 2)).asks ?? {});
  expect(await asks(tenant)).toEqual(["pieces_2"]);
  expect(await asks(other)).toEqual(["pieces_1"]);
});

test("an answer without a question, or to another caller's, reaches no call", async () => {
  const tenant = await aTenant({ plan: "starter" });
  for (const id of [`ask.${randomUUID()}.1`, "ask.", "ask.x.1"]) {
    const response = await fetch(`${system.publicUrl}/mcp`, {
      method: "POST",
      headers: { authorization: `Bearer ${tenant.apiKey}`, "content-type": "application/json" },
      body: JSON.stringify({ jsonrpc: "2.0", id, result: accept(1) }),
    });
    expect(response.status).toBe(202);
  }
  expect(await stock(tenant)).toBe(STOCK);
});

async function stock(tenant: TestTenant): Promise<number | undefined> {
  const { data } = await callTool(tenant.apiKey, "search_products", { query: "canvas bag" });
  return (data?.["products"] as { stock: number }[] | undefined)?.[0]?.stock;
}

/** Units of the tool's charged calls. */
async function charged(tenant: TestTenant): Promise<number[]> {
  const text = `SELECT units FROM ledger WHERE tenant_id = $1 AND tool = 'restock_product' ORDER BY at`;
  return (await controlRows<{ units: number }>(text, [tenant.id])).map(({ units }) => units);
}

async function expectCharged(tenant: TestTenant, units: number[]): Promise<void> {
  // A call after it: when the ledger has that one, it has all before it.
  const marker = await callTool(tenant.apiKey, "search_products", { query: "" });
  const text = `SELECT FROM ledger WHERE call_id = $1`;
  await until(
    async () => (await controlRows(text, [marker.receipt?.id])).length === 1,
    "the ledger has the calls so far",
  );
  expect(await charged(tenant)).toEqual(units);
}
