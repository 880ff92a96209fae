// Rounds of a call whose tool asks a person, as a client of revision 2026-07-28 sends them.
import { type ToolAnswer, modernMeta, postMcp, toolAnswer } from "./flow.ts";

export interface Round {
  requestState?: string;
  inputResponses?: Record<string, unknown>;
}

/** What the server answers to a round: a question, or the call's end. */
export type RoundAnswer =
  | { asks: Record<string, unknown>; requestState: string | undefined; ended: undefined }
  | { asks: undefined; requestState: undefined; ended: ToolAnswer };

/** Sends one round of a call for a client that shows forms. Throws when there is no answer. */
export async function sendRound(
  token: string,
  call: { name: string; arguments: Record<string, unknown> },
  { requestState, inputResponses }: Round = {},
): Promise<RoundAnswer> {
  const capabilities = { "io.modelcontextprotocol/clientCapabilities": { elicitation: {} } };
  const response = await postMcp(token, {
    jsonrpc: "2.0",
    id: 1,
    method: "tools/call",
    params: { ...call, requestState, inputResponses, _meta: { ...modernMeta, ...capabilities } },
  });
  const { result } = (await response.clone().json()) as {
    result?: Round & { inputRequests?: Record<string, unknown> };
  };
  if (result?.inputRequests === undefined)
    return { asks: undefined, requestState: undefined, ended: await toolAnswer(response) };
  return { asks: result.inputRequests, requestState: result.requestState, ended: undefined };
}
