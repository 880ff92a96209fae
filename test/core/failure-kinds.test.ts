// Permanent and temporary failures of outside systems: one classification, which every retry asks.
import Stripe from "stripe";
import { expect, onTestFinished, test, vi } from "vitest";
import { cancelMonitor, registerMonitor } from "../../src/adapters/monitor.ts";
import {
  StripeFailure,
  failureOf,
  isUnknownToStripe,
  mayPassLater,
  raising,
} from "../../src/adapters/stripe/client.ts";
import { NeonApiFailure } from "../../src/adapters/neon-api.ts";
import { AppError, errorCode, isPermanent } from "../../src/core/errors.ts";
import { TenantId } from "../../src/core/tenant/tenant.ts";
import { describeError } from "../../src/log.ts";

function stripeError(status: number | undefined, own: { message?: string; code?: string; param?: string } = {}) {
  const raw = { message: "It is wrong.", ...own, type: "invalid_request_error" as const, requestId: "req_1" };
  return status === undefined
    ? new Stripe.errors.StripeConnectionError({ ...raw, type: "api_error" })
    : new Stripe.errors.StripeInvalidRequestError({ ...raw, statusCode: status });
}

test.each([
  { status: undefined, permanent: false, code: "billing_unavailable" },
  { status: 400, permanent: true, code: "billing_refused" },
  { status: 401, permanent: false, code: "billing_unavailable" },
  { status: 402, permanent: true, code: "billing_refused" },
  { status: 403, permanent: false, code: "billing_unavailable" },
  { status: 404, permanent: true, code: "billing_refused" },
  { status: 409, permanent: false, code: "billing_unavailable" },
  { status: 429, permanent: false, code: "billing_unavailable" },
  { status: 500, permanent: false, code: "billing_unavailable" },
  { status: 503, permanent: false, code: "billing_unavailable" },
])("an answer of Stripe's with the status $status is permanent: $permanent", async ({ status, permanent, code }) => {
  const adapter = raising({ ask: async () => Promise.reject(stripeError(status)) });
  const error: unknown = await adapter.ask().catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(StripeFailure);
  expect(errorCode(error)).toBe(code);
  expect(isPermanent(error)).toBe(permanent);
  expect(mayPassLater(status)).toBe(!permanent);
  expect(failureOf(error)).toMatchObject({ status, message: "It is wrong." });
  // After an RPC only the fields are left. A failure that wraps another one has its kind.
  expect(isPermanent(Object.assign(new Error("crossed"), { kind: permanent ? "permanent" : "temporary" }))).toBe(
    permanent,
  );
  expect(isPermanent(new AppError("internal", "why", { cause: error }))).toBe(permanent);
});

test("the log names Stripe's code, parameter, request and message, without an address or a key", () => {
  const own = {
    code: "email_invalid",
    param: "customer_email",
    message: "Invalid email ada@example.com, sk_test_1234",
  };
  const line = describeError(new StripeFailure(stripeError(400, own)));
  expect(line).toBe("StripeFailure: Stripe: 400 email_invalid customer_email req_1: Invalid email … …");
});

test("an adapter's other results and errors pass unchanged, and its functions still find each other", async () => {
  const list = Object.assign(Promise.resolve([1]), { [Symbol.asyncIterator]: () => [1].values() });
  const adapter = raising({
    isLive: true,
    one: async (n: number) => n,
    async two(n: number): Promise<number> {
      return 2 * (await this.one(n));
    },
    list: () => list,
    fails: async () => Promise.reject(new RangeError("ours")),
  });
  expect(adapter.isLive).toBe(true);
  expect(await adapter.two(2)).toBe(4);
  expect(adapter.list()).toBe(list);
  await expect(adapter.fails()).rejects.toThrow(RangeError);
});

test("an object that Stripe does not have is unknown, by its path or by a parameter", () => {
  expect(isUnknownToStripe(new StripeFailure(stripeError(404)))).toBe(true);
  expect(isUnknownToStripe(new StripeFailure(stripeError(400, { code: "resource_missing" })))).toBe(true);
  expect(isUnknownToStripe(new StripeFailure(stripeError(400)))).toBe(false);
});

test.each([
  { status: undefined, permanent: false },
  { status: 400, permanent: true },
  { status: 401, permanent: false },
  { status: 403, permanent: false },
  { status: 404, permanent: false },
  { status: 413, permanent: true },
  { status: 422, permanent: true },
  { status: 429, permanent: false },
  { status: 500, permanent: false },
  { status: 503, permanent: false },
])("an answer of the monitor's with the status $status is permanent: $permanent", async ({ status, permanent }) => {
  const answer = async (): Promise<Response> => {
    if (status === undefined) throw new TypeError("fetch failed");
    return new Response(null, { status });
  };
  const fetched = vi.spyOn(globalThis, "fetch").mockImplementation(answer);
  onTestFinished(() => fetched.mockRestore());
  const tenantId = TenantId.parse("acme");
  const probe = { tenantId, healthUrl: "https://x.example/health?tenant=acme", token: "t" };
  for (const work of [
    () => registerMonitor("https://monitor.example", probe),
    () => cancelMonitor("https://monitor.example", tenantId),
  ]) {
    const error: unknown = await work().catch((thrown: unknown) => thrown);
    // A monitor that does not know the tenant has nothing to cancel.
    if (status === 404 && error === undefined) continue;
    expect(errorCode(error)).toBe(permanent ? "monitor_refused" : "monitor_unavailable");
    expect(isPermanent(error)).toBe(permanent);
  }
});

test("what a person corrects for the whole account of Neon is temporary for a tenant", () => {
  expect(isPermanent(new NeonApiFailure("Neon could not create project x: 400", false))).toBe(true);
  expect(isPermanent(new NeonApiFailure("Neon could not create project x: 503", true))).toBe(false);
  expect(isPermanent(new NeonApiFailure("NEON_API_KEY is not set", false, "temporary"))).toBe(false);
  expect(["text", null, undefined, {}, new Error("plain"), { cause: { cause: "x" } }].map(isPermanent)).not.toContain(
    true,
  );
});
