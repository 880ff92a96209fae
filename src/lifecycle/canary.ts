// The canary: a real MCP call of `health_check` through the public URL, as the tenant's own agent would send it. It uses
// revision 2026-07-28, in which a call is one request without a handshake.
import * as z from "zod";
import { AppError } from "../core/errors.ts";

/** A new tenant answers in well under a second. Provisioning retries a canary that times out. */
const CANARY_TIMEOUT_MS = 10_000;

const REVISION = "2026-07-28";
const TOOL = "health_check";

const Answer = z.object({
  jsonrpc: z.literal("2.0"),
  id: z.literal(1),
  result: z.object({ content: z.array(z.unknown()), isError: z.literal(false).optional() }),
});

/** Calls and checks the answer. Throws `tenant_unavailable` with what went wrong. */
export async function callCanary(publicUrl: string, token: string): Promise<void> {
  try {
    const response = await fetch(`${publicUrl}/mcp`, {
      method: "POST",
      headers: {
        authorization: `Bearer ${token}`,
        "content-type": "application/json",
        accept: "application/json, text/event-stream",
        "mcp-protocol-version": REVISION,
        "mcp-method": "tools/call",
        "mcp-name": TOOL,
      },
      body: JSON.stringify({
        jsonrpc: "2.0",
        id: 1,
        method: "tools/call",
        params: {
          name: TOOL,
          arguments: {},
          _meta: {
            "io.modelcontextprotocol/protocolVersion": REVISION,
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": { name: "tollgate-canary", version: "1" },
          },
        },
      }),
      signal: AbortSignal.timeout(CANARY_TIMEOUT_MS),
    });
    const text = await response.text();
    if (!Answer.safeParse(parsed(text)).success) throw new Error(`status ${response.status}: ${text.slice(0, 200)}`);
  } catch (error) {
    throw new AppError(
      "tenant_unavailable",
      `The canary call failed: ${error instanceof Error ? error.message : "unknown"}`,
      { cause: error },
    );
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
