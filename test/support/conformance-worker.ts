// The product's Worker, with the conformance fixtures added to its MCP endpoint. The request checks, the authentication, the
// admission by the tenant's object and the protocol layer are the product's own.
import { handleMcp } from "../../src/calls/endpoint.ts";
import { createContext } from "../../src/control/context.ts";
import worker from "../../src/worker.ts";
import { registerFixtures } from "./conformance-fixtures.ts";

export * from "../../src/worker.ts";

export default {
  ...worker,
  fetch: (request, env, ctx) =>
    new URL(request.url).pathname === "/mcp"
      ? handleMcp(request, createContext(env), ctx, registerFixtures)
      : worker.fetch(request, env, ctx),
} satisfies ExportedHandler<Env>;
