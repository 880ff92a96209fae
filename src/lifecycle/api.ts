// What a buyer and a tenant's admin use: checkout, the state of provisioning, the first API key.
import { Hono } from "hono";
import { type StepRecord, tenantsOf } from "../control/tenants-store.ts";
import { bearerToken, verifyCredential } from "../core/credentials.ts";
import { plans } from "../core/plans.ts";
import { provisioningSteps } from "./provisioning-steps.ts";
import { TenantId } from "../core/tenant.ts";
import { exportApi, newestImport } from "../backups/api.ts";
import { CheckoutRequest, openCheckout, soldPlans } from "../subscriptions/checkout.ts";
import { KeyRequest, issueKey } from "../identity/keys.ts";
import { accountApi } from "../subscriptions/api.ts";
import { type HttpEnv, problem, readJson } from "../http.ts";
import { leavingApi } from "./removal-api.ts";
import { ownUsageApi } from "../metering/api.ts";

export const tenantApi = new Hono<HttpEnv>();

tenantApi.route("/api/tenants", exportApi);
tenantApi.route("/api/tenants", ownUsageApi);
tenantApi.route("/api/tenants", accountApi);
tenantApi.route("/api/tenants", leavingApi);

/** What can be bought. */
tenantApi.get("/plans", (c) =>
  c.json({
    plans: soldPlans.map((name) => {
      const { amountCents, unitAmountCents, includedUnits, limits } = plans[name];
      return { name, amountCents, currency: "usd", interval: "month", unitAmountCents, includedUnits, limits };
    }),
  }),
);

tenantApi.post("/api/checkout", async (c) =>
  c.json(await openCheckout(c.env, c.get("requestId"), await readJson(c, CheckoutRequest)), 201),
);

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
