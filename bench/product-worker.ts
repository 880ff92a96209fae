// The product as it is deployed, with counters of the calls that its objects receive, and with a member who agrees to every client.
import { createContext } from "../src/control/context.ts";
import { config } from "../src/core/app-config.ts";
import type { TenantId } from "../src/core/tenant/tenant.ts";
import { oauthEnv } from "../src/identity/oauth/api.ts";
import { grantAccess, readAuthorization } from "../src/identity/oauth/authorize.ts";
import { MEMBER_ID } from "./ground-names.ts";
import type { CallOutcome, CallRequest, Caller, Progress } from "../src/core/call.ts";
import { TenantObject as ProductTenantObject } from "../src/tenant-object.ts";
import product from "../src/worker.ts";

export * from "../src/worker.ts";

const counters = { call: 0, authorize: 0, cancel: 0, acknowledge: 0, alarm: 0 };

export class TenantObject extends ProductTenantObject {
  override call(request: CallRequest, progress?: (progress: Progress) => Promise<void>): Promise<CallOutcome> {
    counters.call += 1;
    return super.call(request, progress);
  }
  override authorize(caller: Caller) {
    counters.authorize += 1;
    return super.authorize(caller);
  }
  override cancel(callId: string): void {
    counters.cancel += 1;
    super.cancel(callId);
  }
  override acknowledge(epoch: string, watermark: number): void {
    counters.acknowledge += 1;
    super.acknowledge(epoch, watermark);
  }
  override alarm(): Promise<void> {
    counters.alarm += 1;
    return super.alarm();
  }
}

/** Stores the consent of the tenant's member to a client's request, as the consent page does. Answers where the browser goes. */
async function consent(request: Request, env: Env): Promise<Response> {
  const { tenantId, query } = await request.json<{ tenantId: TenantId; query: string }>();
  const context = createContext(env);
  const library = oauthEnv(context);
  const read = await readAuthorization(env, query, library);
  if (read.kind !== "asks") throw new Error(`the request is ${read.kind}`);
  const to = await grantAccess(
    {
      ...{ env: library, site: env, credentialKey: env.CREDENTIAL_KEY },
      extend: async (name, key, expiresAtMs) => context.oauthRegistry(name).extend(key, expiresAtMs),
    },
    {
      ...{ request: read.request, clientName: "bench", tenantId, memberId: MEMBER_ID },
      ...{ scopes: Object.keys(config.scopes), signedInAtMs: Date.now() },
    },
  );
  return Response.json({ to });
}

export default {
  ...product,
  // Locally the objects live in the Worker's isolate and share its globals.
  fetch: (request, env, ctx) => {
    const { pathname } = new URL(request.url);
    if (pathname === "/bench/counters") return Response.json(counters);
    return pathname === "/bench/consent" ? consent(request, env) : product.fetch(request, env, ctx);
  },
} satisfies ExportedHandler<Env>;
