// Runs the fixtures of Stripe's CLI against the simulator: an independent check of the API that they use. No request leaves
// this machine, because the CLI gets a proxy that does not exist.
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { childEnvironment } from "../../dev/child-environment.ts";
import { SECRET_KEY, aSimulator } from "./harness.ts";

const cli = resolve(import.meta.dirname, "../../node_modules/@stripe/cli/bin/shim.js");
const TRIGGER_WITHIN_MS = 25_000;

let simulator: Awaited<ReturnType<typeof aSimulator>>;
let home: string;
beforeAll(async () => {
  simulator = await aSimulator();
  home = await mkdtemp(join(tmpdir(), "tollgate-stripe-cli-"));
});
afterAll(async () => {
  await simulator[Symbol.asyncDispose]();
  await rm(home, { recursive: true, force: true });
});

async function trigger(event: string): Promise<{ code: number | null; output: string }> {
  const flags = ["--api-base", simulator.url, "--api-key", SECRET_KEY, "--config", join(home, "config.toml")];
  const nowhere = "http://127.0.0.1:9";
  const child = spawn(process.execPath, [cli, "trigger", event, ...flags], {
    stdio: ["ignore", "pipe", "pipe"],
    signal: AbortSignal.timeout(TRIGGER_WITHIN_MS),
    env: childEnvironment({
      ...{ HOME: home, STRIPE_CLI_TELEMETRY_OPTOUT: "1" },
      ...{ HTTP_PROXY: nowhere, HTTPS_PROXY: nowhere, NO_PROXY: "127.0.0.1" },
    }),
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (output += String(chunk)));
  const code = await new Promise<number | null>((done, fail) => {
    child.once("error", fail);
    child.once("close", done);
  });
  return { code, output };
}

const itsOwn = [
  ...["customer.created", "customer.updated", "product.created", "product.updated", "price.created", "price.updated"],
  ...["customer.subscription.created", "customer.subscription.updated", "customer.subscription.deleted"],
  ...["checkout.session.completed", "checkout.session.expired"],
  ...["invoice.created", "invoice.updated", "invoice.finalized", "invoice.paid", "invoice.payment_succeeded"],
  ...["invoice.payment_failed", "invoice.voided", "invoice.marked_uncollectible", "invoice.deleted"],
  ...["invoiceitem.created", "invoiceitem.deleted", "payment_method.attached"],
  ...["billing_portal.configuration.created", "billing_portal.configuration.updated"],
].map((event) => [event, event] as const);

test.each([
  ...itsOwn,
  ["subscription.payment_succeeded", "invoice.payment_succeeded"],
  ["subscription.payment_failed", "invoice.payment_failed"],
] as const)("the fixture of %s comes to its event", async (fixture, event) => {
  const before = Math.floor(Date.now() / 1000);
  const { code, output } = await trigger(fixture);
  expect(code, output).toBe(0);
  const { data } = await simulator.stripe.events.list({ type: event, created: { gte: before } });
  expect(data.map(({ type }) => type)).toContain(event);
});
