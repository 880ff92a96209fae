// The canary: a real MCP client that calls `health_check` through the public URL, as the tenant's own agent would.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { AppError } from "../core/errors.ts";

/** A new tenant answers in well under a second. Provisioning retries a canary that times out. */
const CANARY_TIMEOUT_MS = 10_000;

/** Connects, calls and checks the answer. Throws `tenant_unavailable` with what went wrong. */
export async function callCanary(publicUrl: string, token: string): Promise<void> {
  const client = new Client({ name: "tollgate-canary", version: "1" });
  try {
    await client.connect(
      new StreamableHTTPClientTransport(new URL(`${publicUrl}/mcp`), {
        requestInit: { headers: { authorization: `Bearer ${token}` } },
      }),
      { timeout: CANARY_TIMEOUT_MS },
    );
    const result = await client.callTool({ name: "health_check", arguments: {} }, undefined, {
      timeout: CANARY_TIMEOUT_MS,
    });
    if (result.isError === true)
      throw new Error(`health_check failed: ${JSON.stringify(result.content).slice(0, 200)}`);
  } catch (error) {
    throw new AppError(
      "tenant_unavailable",
      `The canary call failed: ${error instanceof Error ? error.message : "unknown"}`,
      { cause: error },
    );
  } finally {
    await client.close();
  }
}
