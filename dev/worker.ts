// The Worker of `npm start`: the product's, for which customers' providers exist at public names with TLS, as some features need
// them. The local issuer is their host. A deployment runs src/worker.ts, which has nothing of this.
import { env as bindings } from "cloudflare:workers";
import worker from "../src/worker.ts";
import { servedAt } from "./issuer/public-names.ts";

export * from "../src/worker.ts";

/** The local issuer is the resolver of customers' domains, too. `undefined`: a real resolver replaces it. */
const issuerUrl = /^(?<issuer>http:\/\/127\.0\.0\.1:\d+)\/dns\/query$/.exec(bindings.DNS_URL)?.groups?.["issuer"];

const placeOf = (url: string): string | undefined => (issuerUrl === undefined ? undefined : servedAt(url, issuerUrl));

const outside = globalThis.fetch.bind(globalThis);
globalThis.fetch = (input, init) => {
  const place = placeOf(input instanceof Request ? input.url : String(input));
  if (place === undefined) return outside(input, init);
  return outside(place, input instanceof Request ? input : init);
};

export default {
  ...worker,
  async fetch(request: Request, env: Env, ctx: ExecutionContext): Promise<Response> {
    const response = await worker.fetch(request, env, ctx);
    // The browser could not look the public name up.
    const place = placeOf(response.headers.get("location") ?? "");
    if (place === undefined) return response;
    const headers = new Headers(response.headers);
    headers.set("location", place);
    return new Response(response.body, { status: response.status, headers });
  },
} satisfies ExportedHandler<Env>;
