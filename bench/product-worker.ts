// The product as it is deployed, with counters of the calls that its objects receive.
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

export default {
  ...product,
  // Locally the objects live in the Worker's isolate and share its globals.
  fetch: (request, env, ctx) =>
    request.url.endsWith("/bench/counters") ? Response.json(counters) : product.fetch(request, env, ctx),
} satisfies ExportedHandler<Env>;
