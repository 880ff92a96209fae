// Runs one tool within its bounds: a time limit, an abort, and a size of result. What comes back says whether it is
// charged; nothing that a tool throws reaches the client as it stands.
import type { Progress, ToolText } from "../core/call.ts";
import { AnswerLost, type ErrorCode, errorCode, errors } from "../core/errors.ts";
import { utf8Bytes } from "../core/document-path.ts";
import { describeError, log } from "../log.ts";
import {
  TOOL_TIMEOUT_MS,
  type Tool,
  type ToolContext,
  type ToolFailure,
  type ToolResult,
  contentOf,
} from "../tools/tool.ts";

/** A result crosses an RPC and a JSON encoder; 1 MiB is what a model could still use, many times over. */
const MAX_RESULT_BYTES = 1_048_576;

export interface ToolRun {
  charged: boolean;
  isError: boolean;
  content: ToolText[];
  data: Record<string, unknown> | undefined;
  /** Why there is no answer of the tool's own. */
  failure: ErrorCode | undefined;
}

/**
 * Runs the tool until it answers, its time is over or `abort` fires, whichever is first. A tool that goes on after
 * that is not waited for; its `signal` has told it, and what it still does is not charged.
 */
export async function runTool(
  tool: Tool,
  args: Readonly<Record<string, unknown>>,
  context: Omit<ToolContext, "progress" | "signal">,
  options: { abort: AbortController; progress: ((progress: Progress) => Promise<void>) | undefined },
): Promise<ToolRun> {
  const { abort, progress } = options;
  const { promise: stopped, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(new Stopped(abort.signal.reason === TIMED_OUT ? "tool_timeout" : "tool_aborted"));
  if (abort.signal.aborted) onAbort(); // while the call waited to be admitted
  abort.signal.addEventListener("abort", onAbort, { once: true });
  const timer = setTimeout(() => abort.abort(TIMED_OUT), tool.timeoutMs ?? TOOL_TIMEOUT_MS);
  try {
    // Assigned, not spread: the context has methods that live on it.
    const full: ToolContext = Object.assign(context, {
      signal: abort.signal,
      // Progress is a courtesy: a client that cannot be told is no reason to fail.
      progress: progress === undefined ? noProgress : (step: Progress) => progress(step).catch(() => undefined),
    });
    const result = await Promise.race([tool.run(args, full), stopped]);
    const content = contentOf(result);
    // Checked before it is charged: a result that breaks the tool's own promise is a failure of the tool.
    const data = "isError" in result ? undefined : tool.output.parse(result.data);
    if (resultBytes(result, content) > MAX_RESULT_BYTES) return failure("result_too_large");
    return { charged: !tool.failed(result), isError: "isError" in result, content, data, failure: undefined };
  } catch (error) {
    const code = failureCode(error, tool);
    log("warn", "tool_failed", {
      callId: context.callId,
      tenantId: context.tenant.id,
      tool: tool.name,
      code,
      error: describeError(error),
    });
    const mayHaveWritten = error instanceof Stopped && !tool.annotations.readOnly;
    return failure(code, mayHaveWritten ? "What it had written by then may remain." : undefined);
  } finally {
    clearTimeout(timer);
    abort.signal.removeEventListener("abort", onAbort);
  }
}

const TIMED_OUT = "timed out";

class Stopped extends Error {
  readonly code: "tool_timeout" | "tool_aborted";
  constructor(code: "tool_timeout" | "tool_aborted") {
    super(code);
    this.code = code;
  }
}

async function noProgress(): Promise<void> {}

function failureCode(error: unknown, tool: Tool): ErrorCode {
  if (error instanceof Stopped) return error.code;
  // A statement whose answer was lost may have been committed.
  if (error instanceof AnswerLost && !tool.annotations.readOnly) return "outcome_unknown";
  const code = errorCode(error);
  return code === "internal" ? "tool_failed" : code;
}

/** What the result takes in UTF-8: its text, and its data as JSON. */
function resultBytes(result: ToolResult<unknown> | ToolFailure, content: readonly ToolText[]): number {
  const text = content.map((block) => block.text).join("");
  const data = "isError" in result ? "" : result.text === undefined ? text : JSON.stringify(result.data);
  // No character of a string takes more than three bytes: most results are small enough without a count.
  const most = (text.length + data.length) * 3;
  return most <= MAX_RESULT_BYTES ? most : utf8Bytes(text) + utf8Bytes(data);
}

function failure(code: ErrorCode, detail?: string): ToolRun {
  const text = [`${code}: ${errors[code].advice}`, ...(detail === undefined ? [] : [detail])].join(" ");
  return { charged: false, isError: true, content: [{ type: "text", text }], data: undefined, failure: code };
}
