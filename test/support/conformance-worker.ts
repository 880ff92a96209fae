// The conformance fixtures behind the product's request checks and protocol layer, without authentication: what the
// suite finds here is the protocol layer's doing alone.
import { serveMcp } from "../../src/mcp/server.ts";
import { corsHeaders, readMcpRequest } from "../../src/mcp/transport.ts";
import { registerFixtures } from "./conformance-fixtures.ts";

interface ConformanceEnv {
  /** Comma-separated: the suite comes through a proxy, and calls that its origin. */
  ALLOWED_ORIGINS: string;
}

export default {
  async fetch(request, env) {
    const allowedOrigins = env.ALLOWED_ORIGINS.split(",");
    const read = await readMcpRequest(request, { allowedHosts: ["localhost", "127.0.0.1"], allowedOrigins });
    if ("response" in read) return read.response;
    const response = await serveMcp({ request, body: read.body, authInfo: undefined, register: registerFixtures });
    for (const [name, value] of Object.entries(corsHeaders(request, allowedOrigins))) response.headers.set(name, value);
    return response;
  },
} satisfies ExportedHandler<ConformanceEnv>;
