// Runs one tool within its bounds: a time limit, an abort, and a size of result. What comes back says whether it is
// charged; nothing that a tool throws reaches the client as it stands.
import type { Progress, ToolText } from "../core/call.ts";
import { type ErrorCode, errorCode, errors } from "../core/errors.ts";
import { describeError, log } from "../log.ts";
import { TOOL_TIMEOUT_MS, type Tool, type ToolContext, contentOf } from "../tools/tool.ts";

/** A result crosses an RPC and a JSON encoder; 1 MiB is what a model could still use, many times over. */
const MAX_RESULT_CHARS = 1_048_576;

export interface ToolRun {
  charged: boolean;
  isError: boolean;
  content: ToolText[];
  data: Record<string, unknown> | undefined;
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
    if ((content[0]?.text.length ?? 0) > MAX_RESULT_CHARS) return failure("result_too_large");
    return { charged: !tool.failed(result), isError: "isError" in result, content, data };
  } catch (error) {
    const code = error instanceof Stopped ? error.code : toolErrorCode(error);
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

function toolErrorCode(error: unknown): ErrorCode {
  const code = errorCode(error);
  return code === "internal" ? "tool_failed" : code;
}

function failure(code: ErrorCode, detail?: string): ToolRun {
  const text = [`${code}: ${errors[code].advice}`, ...(detail === undefined ? [] : [detail])].join(" ");
  return { charged: false, isError: true, content: [{ type: "text", text }], data: undefined };
}
