// What a buyer and a tenant's admin use: checkout, the state of provisioning, the first API key.
import { Hono } from "hono";
import * as z from "zod";
import { type StepRecord, tenantsOf } from "../adapters/control-tenants.ts";
import { connectStripe } from "../adapters/stripe.ts";
import { bearerToken, mintCredential, verifyCredential } from "../core/credentials.ts";
import { AppError } from "../core/errors.ts";
import { type PlanName, plans } from "../core/plans.ts";
import { provisioningSteps } from "../core/provisioning.ts";
import { TenantId } from "../core/tenant.ts";
import { describeError, log } from "../log.ts";
import { exportApi, newestImport } from "./backup-api.ts";
import { DisplayName, KeyRequest, issueKey } from "./keys.ts";
import { type HttpEnv, problem, readJson } from "./problem.ts";
import { ownUsageApi } from "./usage-api.ts";

/** It counts from the order: paying may take a day and a bank transfer weeks. The first key spends it. */
const SETUP_LIFE_MS = 30 * 86_400_000;

const soldPlans = Object.values(plans)
  .filter((plan) => plan.amountCents !== null)
  .map((plan) => plan.name) as [PlanName, ...PlanName[]];

const CheckoutRequest = z.strictObject({
  plan: z.enum(soldPlans, { error: `must be one of ${soldPlans.join(", ")}` }),
  name: DisplayName,
  email: z.email().max(320).optional(),
  successUrl: z.url().optional(),
  cancelUrl: z.url().optional(),
});

export const tenantApi = new Hono<HttpEnv>();

tenantApi.route("/api/tenants", exportApi);
tenantApi.route("/api/tenants", ownUsageApi);

/** What can be bought. */
tenantApi.get("/plans", (c) =>
  c.json({
    plans: soldPlans.map((name) => {
      const { amountCents, unitAmountCents, includedUnits, limits } = plans[name];
      return { name, amountCents, currency: "usd", interval: "month", unitAmountCents, includedUnits, limits };
    }),
  }),
);

tenantApi.post("/api/checkout", async (c) => {
  const order = await readJson(c, CheckoutRequest);
  const tenantId = newTenantId();
  const email = order.email ?? null;
  const tenants = tenantsOf(c.env);
  // Kept first: a payment for a tenant that nobody knows could not be applied.
  await tenants.insertCheckout({ tenantId, name: order.name, email, plan: order.plan });
  const statusUrl = `${c.env.PUBLIC_URL}/api/tenants/${tenantId}/status`;
  let session;
  try {
    session = await connectStripe(c.env.STRIPE_SECRET_KEY, c.env.STRIPE_API_BASE).createCheckout({
      tenantId,
      plan: order.plan,
      email,
      successUrl: order.successUrl ?? statusUrl,
      cancelUrl: order.cancelUrl ?? `${c.env.PUBLIC_URL}/plans`,
    });
  } catch (error) {
    log("error", "checkout_failed", { requestId: c.get("requestId"), tenantId, error: describeError(error) });
    throw new AppError("billing_unavailable", "No Checkout session could be made", { cause: error });
  }
  const setupToken = await mintCredential(c.env.CREDENTIAL_KEY, {
    kind: "setup",
    tenantId,
    fields: [String(Date.now() + SETUP_LIFE_MS)],
  });
  return c.json({ tenantId, checkoutUrl: session.url, statusUrl, setupToken }, 201);
});

/** For the page after checkout to poll: each step, its time, a failure in plain words. No secret, no one's data. */
tenantApi.get("/api/tenants/:id/status", async (c) => {
  const id = TenantId.safeParse(c.req.param("id"));
  if (!id.success) return problem(c, "not_found");
  const tenants = tenantsOf(c.env);
  const [tenant, provisioning, imported] = await Promise.all([
    tenants.summary(id.data),
    tenants.provisioning(id.data),
    newestImport(c.env, id.data),
  ]);
  if (tenant === undefined) {
    const ordered = await tenants.checkout(id.data);
    if (ordered === undefined) return problem(c, "not_found");
    return c.json(
      { tenantId: id.data, state: "awaiting_payment", plan: ordered.plan, steps: pendingSteps() },
      200,
      noStore,
    );
  }
  const done = new Map(provisioning.steps.map((step) => [step.step, step]));
  return c.json(
    {
      tenantId: tenant.id,
      state: tenant.state,
      plan: tenant.plan,
      createdAt: tenant.createdAt,
      provisionedAt: tenant.provisionedAt,
      attempts: provisioning.attempts,
      error: provisioning.error,
      mcpUrl: `${c.env.PUBLIC_URL}/mcp`,
      steps: provisioningSteps.map(({ name, title }) => {
        const step = done.get(name);
        const status = step === undefined ? "pending" : stepStatus(step);
        return {
          name,
          title,
          status,
          startedAt: step?.startedAt ?? null,
          finishedAt: step?.finishedAt ?? null,
          error: step?.error ?? null,
        };
      }),
      import: imported,
    },
    200,
    noStore,
  );
});

/** The first API key, for the one who holds the setup token of the checkout. Shown once. */
tenantApi.post("/api/tenants/:id/keys", async (c) => {
  const token = bearerToken(c.req.header("authorization"));
  if (token === undefined)
    return problem(c, "token_missing", "This route takes the setupToken that POST /api/checkout answered with.");
  const credential = await verifyCredential(c.env.CREDENTIAL_KEY, token);
  if (credential?.kind !== "setup" || credential.tenantId !== c.req.param("id")) return problem(c, "token_invalid");
  if (Date.now() >= Number(credential.fields[0])) return problem(c, "token_expired");
  const request = await readJson(c, KeyRequest);
  const key = await issueKey(c.env, credential.tenantId, request, { first: true });
  if (key === undefined)
    return problem(c, "conflict", "The account is not set up yet, or its first key was made already.");
  return c.json(key, 201, noStore);
});

function stepStatus(step: StepRecord): "done" | "running" | "retrying" {
  if (step.finishedAt !== null) return "done";
  return step.error === null ? "running" : "retrying";
}

const noStore = { "cache-control": "no-store" };

function pendingSteps() {
  return provisioningSteps.map(({ name, title }) => ({
    name,
    title,
    status: "pending",
    startedAt: null,
    finishedAt: null,
    error: null,
  }));
}

/** 80 random bits in letters and digits: nobody guesses one, and it fits every name that is made of it. */
function newTenantId(): TenantId {
  const alphabet = "abcdefghijklmnopqrstuvwxyz234567"; // 32 characters, so that a byte's low five bits are unbiased
  const random = crypto.getRandomValues(new Uint8Array(16));
  return TenantId.parse(`t${Array.from(random, (byte) => alphabet[byte & 31]).join("")}`);
}
