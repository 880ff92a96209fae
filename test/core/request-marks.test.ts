// What log lines say about the request that they belong to, on both sides of an RPC to the tenant's object.
import { expect, onTestFinished, test, vi } from "vitest";
import { createContext, runInRequests } from "../../src/control/context.ts";
import type { TenantId } from "../../src/core/tenant/tenant.ts";
import { currentRequestId, inRequest, log, markRequest } from "../../src/log.ts";

/** Stands for the tenant's object: its methods log. */
class Logging {
  refresh(...values: unknown[]): number {
    log("info", "refreshed", { values: values.length, requestId: currentRequestId() });
    return values.length;
  }
  async revokeGrants(which: object): Promise<object> {
    await Promise.resolve();
    log("info", "revoked");
    return which;
  }
}
runInRequests(Logging.prototype);

const context = createContext({ TENANT: { getByName: () => new Logging() } } as unknown as Env);
const objectOf = () => context.tenantObject("acme" as TenantId);

/** The lines that the work logs. */
async function linesOf(work: () => Promise<unknown>): Promise<unknown[]> {
  const spy = vi.spyOn(console, "info").mockReturnValue();
  onTestFinished(() => spy.mockRestore());
  await work();
  return spy.mock.calls.map(([line]) => JSON.parse(String(line)) as unknown);
}

test("log lines of the tenant's object carry the request, the actor's kind and the mark of an impersonation", async () => {
  const marks = { actor: "impersonator", impersonation: "i1", operator: "o1", reason: "Ticket 7" };
  const lines = await linesOf(() =>
    inRequest("request-1", async () => {
      markRequest(marks);
      await objectOf().refresh();
      // The method gets what its caller sent, and its answer arrives.
      expect(await objectOf().revokeGrants({ memberIds: ["m1"] })).toEqual({ memberIds: ["m1"] });
    }),
  );
  expect(lines).toEqual([
    { level: "info", event: "refreshed", requestId: "request-1", ...marks, values: 0 },
    { level: "info", event: "revoked", requestId: "request-1", ...marks },
  ]);
});

test("an RPC of a cron and one of an agent's call have nothing added", async () => {
  const lines = await linesOf(async () => {
    await objectOf().refresh();
    await inRequest("request-2", async () => objectOf().refresh());
  });
  expect(lines).toEqual([
    { level: "info", event: "refreshed", values: 0 },
    // The object runs in the same process here, so the line has the request's id all the same.
    { level: "info", event: "refreshed", requestId: "request-2", values: 0 },
  ]);
});
