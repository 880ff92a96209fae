// The calls of a campaign: a mix of tools with constant prices, prices that a tool decides, and questions to a person, of whom some
// never answer and some answer twice.
import { type TestTenant, type ToolAnswer, callTool } from "../support/flow.ts";
import { sendRound } from "../support/questions.ts";
import type { Seen } from "./invariants.ts";

const mix = [
  { tool: "search_products", args: { query: "", limit: 1 }, units: 1 },
  { tool: "search_products", args: { query: "lamp", limit: 2 }, units: 1 },
  { tool: "write_document", args: { path: "campaign/note.txt", text: "noted" }, units: 1 },
  { tool: "read_document", args: { path: "there/is/none.txt" }, units: 1 }, // fails, and is not charged
  { tool: "generate_report", args: {}, units: 20 },
  // Their price is decided by the tool: less than the maximum, or nothing.
  ...[1, 3, 7, 50].map((limit) => ({ tool: "export_products", args: { limit }, units: limit })),
  { tool: "export_products", args: { category: "none" }, units: 0 },
  { tool: "restock_product", args: { id: "mug-steel" }, units: 3, asks: true },
];
const CALLS_AT_ONCE = 6;

/** Makes some calls of the tenants, several at once, and adds what their clients were told to `seen`. */
export async function callAtOnce(
  tenants: readonly TestTenant[],
  seen: ReadonlyMap<string, Seen>,
  calls: number,
  random: () => number,
): Promise<void> {
  const wanted = Array.from({ length: calls }, () => ({
    tenant: tenants[Math.floor(random() * tenants.length)],
    what: mix[Math.floor(random() * mix.length)],
  }));
  const work = async (): Promise<void> => {
    for (let next = wanted.pop(); next !== undefined; next = wanted.pop()) {
      const { tenant, what } = next;
      const told = seen.get(tenant?.id ?? "");
      if (tenant === undefined || what === undefined || told === undefined) continue;
      const answers =
        "asks" in what
          ? await askedCall(tenant.apiKey, what, random)
          : [await callTool(tenant.apiKey, what.tool, what.args).catch(() => undefined)];
      const receipts = answers.flatMap((answer) => answer?.receipt ?? []);
      for (const { id, units } of receipts) told.receipts.set(id, units);
      const isUnknown = answers.some((answer) => answer === undefined || answer.refusal?.mayBeChargedAs !== undefined);
      // Answers to one question are one call.
      if (isUnknown && receipts.length === 0) {
        told.unknown += 1;
        told.unknownUnits += what.units;
      }
    }
  };
  await Promise.all(Array.from({ length: CALLS_AT_ONCE }, work));
}

/** A call whose tool asks. Returns how its rounds have ended; `undefined`: no answer came. A call that nobody answers has none. */
async function askedCall(
  apiKey: string,
  { tool, args }: { tool: string; args: Record<string, unknown> },
  random: () => number,
): Promise<(ToolAnswer | undefined)[]> {
  const call = { name: tool, arguments: args };
  const first = await sendRound(apiKey, call).catch(() => undefined);
  if (first?.asks === undefined) return first === undefined ? [] : [first.ended];
  const fate = random();
  if (fate < 0.3) return []; // the person never answers
  const { requestState } = first;
  const answer = fate < 0.4 ? { action: "decline" } : { action: "accept", content: { pieces: 1 } };
  const round = { inputResponses: { pieces_1: answer }, ...(requestState !== undefined && { requestState }) };
  const times = fate < 0.7 ? 2 : 1;
  const send = async () => (await sendRound(apiKey, call, round)).ended;
  return Promise.all(Array.from({ length: times }, () => send().catch(() => undefined)));
}
