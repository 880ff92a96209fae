// The outcome of a call as an MCP result: its content, its data, and its receipt or the facts of its refusal under `_meta`.
import type { CallToolResult } from "@modelcontextprotocol/server";
import type { CallOutcome, ContentBlock, Receipt } from "../../core/call.ts";

/** The outcome of a call that does not wait for a person. */
export type Ended = Exclude<CallOutcome, { kind: "asks" }>;

/** The result of a call for a client of this revision. `ending`: the facts of a tool that is deprecated. */
export function toResult(outcome: Ended, revision: string, ending?: Readonly<Record<string, unknown>>): CallToolResult {
  if (outcome.kind === "refused") {
    const { message, ...facts } = outcome.refusal;
    return refusalResult(message, facts, outcome.receipt);
  }
  const { content, data, isError, failure, receipt } = outcome;
  return {
    content: content.map((block) => knownBlock(block, revision)) as CallToolResult["content"],
    ...(data && { structuredContent: data }),
    ...(isError && { isError }),
    ...metaOf(failure && { code: failure }, receipt, ending),
  };
}

/** A refusal as a result. `facts` are for programs. */
export function refusalResult(message: string, facts: Record<string, unknown>, receipt?: Receipt): CallToolResult {
  return { isError: true, content: [{ type: "text", text: message }], ...metaOf(facts, receipt) };
}

/** What Tollgate adds to an answer. */
export function metaOf(
  refusal: Record<string, unknown> | undefined,
  receipt: Receipt | undefined,
  ending?: Readonly<Record<string, unknown>>,
) {
  if (refusal === undefined && receipt === undefined && ending === undefined) return {};
  return {
    _meta: {
      ...(refusal && { "tollgate/refusal": refusal }),
      ...(receipt && { "tollgate/receipt": receipt }),
      ...(ending && { "tollgate/deprecated": ending }),
    },
  };
}

/** The first revision that has audio, and the first that has links. A client refuses a whole answer with a block that it does not know. */
const AUDIO_SINCE = "2025-03-26";
const LINKS_SINCE = "2025-06-18";
/** The revision of a client that names none: those with another one must name it. */
export const UNNAMED_REVISION = "2025-03-26";

/** A block as this revision knows it: an older one gets a link as text, and audio as a resource. The SDK changes none. */
export function knownBlock(block: ContentBlock, revision: string): ContentBlock {
  const kept = block.annotations && { annotations: block.annotations };
  if (block.type === "resource_link" && revision < LINKS_SINCE) {
    const { title, name, mimeType, description, uri } = block;
    const label = `${title ?? name}${mimeType === undefined ? "" : ` (${mimeType})`}`;
    const text = [`${label}: ${uri}`, ...(description === undefined ? [] : [description])].join("\n");
    return { type: "text", text, ...kept };
  }
  if (block.type === "audio" && revision < AUDIO_SINCE) {
    const { mimeType, data } = block;
    return { type: "resource", resource: { uri: "content:audio", mimeType, blob: data }, ...kept };
  }
  return block;
}
