// The product's Worker, whose MCP endpoint offers the conformance fixtures besides the catalogue. Everything before them
// is the product's own: request checks, authentication, the question to the tenant's object, the protocol layer.
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
