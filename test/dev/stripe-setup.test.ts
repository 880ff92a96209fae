// `npm run stripe:setup` against an empty simulator.
import { execFile } from "node:child_process";
import { tmpdir } from "node:os";
import { resolve } from "node:path";
import { promisify } from "node:util";
import { Stripe } from "stripe";
import { expect, test } from "vitest";
import { childEnvironment } from "../../dev/child-environment.ts";
import { startStripeSimulator } from "../../dev/stripe/simulator.ts";

const secretKey = "sk_test_setup";
const preload = resolve(import.meta.dirname, "../../cli/register-app.ts");
const program = resolve(import.meta.dirname, "../../cli/stripe-setup.ts");

test("a second run changes nothing, and a portal that sells plans is repaired", async () => {
  const simulator = await startStripeSimulator({ port: 0, databaseFile: ":memory:", secretKey });
  try {
    const stripe = new Stripe(secretKey, { host: "127.0.0.1", port: simulator.port, protocol: "http" });
    const run = async (...args: string[]): Promise<string> => {
      const env = childEnvironment({ STRIPE_SECRET_KEY: secretKey, STRIPE_API_BASE: simulator.url });
      // A folder without .dev.vars.
      const options = { cwd: tmpdir(), env };
      return (await promisify(execFile)(process.execPath, ["--import", preload, program, ...args], options)).stdout;
    };
    const webhooks = ["--webhooks", "http://127.0.0.1:9"];
    const first = await run(...webhooks);
    for (const made of ["mcp_units", "tollgate_pro_units", "portal", "/webhooks/stripe:", "/webhooks/stripe-thin:"])
      expect(first).toContain(made);
    expect(first.match(/its secret is whsec_/g)).toHaveLength(2);
    const counts = async () => ({
      prices: (await stripe.prices.list({ limit: 100 })).data.length,
      portals: (await stripe.billingPortal.configurations.list({ limit: 100 })).data.length,
      destinations: (await stripe.v2.core.eventDestinations.list()).data.length,
    });
    const before = await counts();
    const second = await run(...webhooks);
    expect(second).toContain("Everything exists already.");
    expect(second).not.toContain("whsec_");
    expect(await counts()).toEqual(before);

    const [portal] = (await stripe.billingPortal.configurations.list({ limit: 1 })).data;
    const { prices, product } = await sellable(stripe);
    await stripe.billingPortal.configurations.update(portal?.id ?? "", {
      features: {
        subscription_update: { enabled: true, default_allowed_updates: ["price"], products: [{ product, prices }] },
      },
    });
    expect(await run()).toContain("portal, repaired");
    const [repaired] = (await stripe.billingPortal.configurations.list({ limit: 1 })).data;
    expect(repaired?.features.subscription_update.enabled).toBe(false);
    expect(await run()).toContain("Everything exists already.");
  } finally {
    await simulator.close();
  }
});

async function sellable(stripe: Stripe): Promise<{ product: string; prices: string[] }> {
  const prices = (await stripe.prices.list({ limit: 100 })).data.filter(
    ({ recurring }) => recurring?.usage_type === "licensed",
  );
  return { product: "tollgate_mcp", prices: prices.slice(0, 1).map(({ id }) => id) };
}
