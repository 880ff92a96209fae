// A call in several rounds: a tool asks a person, or a person raises a limit while the agent waits.
import { CLIENT_CAPABILITIES_META_KEY, UrlElicitationRequiredError, inputRequired } from "@modelcontextprotocol/server";
import type {
  ElicitRequestFormParams,
  InputRequiredResult,
  JSONRPCRequest,
  McpServer,
  ServerContext,
} from "@modelcontextprotocol/server";
import type { Asking, Question } from "../../core/call.ts";
import type { SendQuestion } from "../tenant-calls.ts";
import { AnsweredForm, type CallStates } from "./call-state.ts";
import { isObject, opensUrls, sessionShows, showsForms } from "./message.ts";
import type { Ended } from "./result.ts";

/** Far below the time after which clients give up a request, which is a minute. */
export const RAISE_WAIT_MS = 25_000;
/** The name of the offer in an answer that asks for input. No tool's question has it. */
const RAISE = "raise_limit";

/** What a call says about the rounds before it, and what its client can show to a person. */
export interface Round {
  /** How the client takes a page: as a result that asks for input (2026-07-28), as an error (2025-11-25), or not at all. */
  page: "input" | "error" | undefined;
  /** What the person has answered to the offer to raise a limit; `undefined`: there was none. */
  raise: "accept" | "declined" | undefined;
  /** The answers so far, by the question's name. */
  answers: Asking["answers"];
  /** How a tool of this call can ask. */
  asking: Asking | undefined;
  /** Made with the first question or offer, and sent back with each answer: the rounds are one call, which is charged once. */
  key: string | undefined;
}

export async function roundOf(
  context: ServerContext,
  { states, streams }: { states: CallStates; streams: boolean },
): Promise<Round> {
  const { mcpReq, http } = context;
  const { envelope, inputResponses = {} } = mcpReq;
  if (envelope === undefined) {
    const { urls, forms } = sessionShows(http?.req?.headers);
    const asking: Asking | undefined = forms && streams ? { form: "stream", answers: {} } : undefined;
    return { page: urls ? "error" : undefined, raise: undefined, answers: {}, asking, key: undefined };
  }
  const capabilities: unknown = Reflect.get(envelope, CLIENT_CAPABILITIES_META_KEY);
  const state = await states.read(mcpReq.requestState(), context);
  const { [RAISE]: raise, ...others } = inputResponses;
  const given = Object.entries(others).flatMap(([name, response]) => {
    const answered = AnsweredForm.safeParse(response);
    return answered.success ? [[name, answered.data] as const] : [];
  });
  const answers = { ...state?.answers, ...Object.fromEntries(given) };
  return {
    page: opensUrls(capabilities) ? "input" : undefined,
    raise: raise === undefined ? undefined : isObject(raise) && raise["action"] === "accept" ? "accept" : "declined",
    answers,
    asking: showsForms(capabilities) ? { form: "input", answers } : undefined,
    key: state?.key,
  };
}

/** A tool's question, as the answer of a call that the client sends again with the person's answer. */
export async function questionFor(
  { name, message, schema }: Question,
  round: Round,
  mint: (answers: Round["answers"]) => Promise<string>,
): Promise<InputRequiredResult> {
  // An answer that was not accepted is no answer.
  const { [name]: _, ...answers } = round.answers;
  const requestedSchema = schema as ElicitRequestFormParams["requestedSchema"];
  const inputRequests = { [name]: inputRequired.elicit({ message, requestedSchema }) };
  return inputRequired({ inputRequests, requestState: await mint(answers) });
}

/**
 * The offer to raise the limit that has refused the call, for a client that can show its page to a person; `undefined` otherwise, and
 * when the person has declined. Throws it for a client of an older revision, which then sends the call again by itself.
 */
export async function offerToRaise(
  outcome: Ended,
  { page, raise, answers }: Round,
  mint: (answers: Round["answers"]) => Promise<string>,
): Promise<InputRequiredResult | undefined> {
  if (outcome.kind !== "refused" || page === undefined || raise === "declined") return undefined;
  const { raisable, upgradeUrl: url, message } = outcome.refusal;
  if (raisable === undefined || url === undefined) return undefined;
  const text = raise === "accept" ? `The limit was not raised yet. ${message}` : message;
  if (page === "error") {
    const elicitationId = crypto.randomUUID();
    throw new UrlElicitationRequiredError([{ mode: "url", elicitationId, url, message: text }], text);
  }
  const inputRequests = { [RAISE]: inputRequired.elicitUrl({ url, message: text }) };
  return inputRequired({ inputRequests, requestState: await mint(answers) });
}

/** Sends questions on the event stream of a call of an older revision (2025-11-25 and before). */
export function questionsTo(server: McpServer, { mcpReq }: ServerContext): SendQuestion {
  return async ({ id, message, schema }) => {
    const params = { message, requestedSchema: schema };
    const request: JSONRPCRequest = { jsonrpc: "2.0", id, method: "elicitation/create", params };
    await server.server.transport?.send(request, { relatedRequestId: mcpReq.id });
  };
}
