// The outcome of a call as an MCP result: its content, its data, and its receipt or the facts of its refusal under `_meta`.
import type { CallToolResult } from "@modelcontextprotocol/server";
import type { CallOutcome, Receipt } from "../../core/call.ts";

/** The result of a call for the client. */
export function toResult(outcome: CallOutcome): CallToolResult {
  if (outcome.kind === "refused") {
    const { message, ...facts } = outcome.refusal;
    return refusalResult(message, facts, outcome.receipt);
  }
  const { content, data, isError, failure, receipt } = outcome;
  return {
    content,
    ...(data && { structuredContent: data }),
    ...(isError && { isError }),
    ...metaOf(failure && { code: failure }, receipt),
  };
}

/** A refusal as a result. `facts` are for programs. */
export function refusalResult(message: string, facts: Record<string, unknown>, receipt?: Receipt): CallToolResult {
  return { isError: true, content: [{ type: "text", text: message }], ...metaOf(facts, receipt) };
}

function metaOf(refusal: Record<string, unknown> | undefined, receipt: Receipt | undefined) {
  if (refusal === undefined && receipt === undefined) return {};
  return {
    _meta: { ...(refusal && { "tollgate/refusal": refusal }), ...(receipt && { "tollgate/receipt": receipt }) },
  };
}
