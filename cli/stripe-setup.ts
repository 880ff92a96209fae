// `npm run stripe:setup`: creates what Tollgate needs in a Stripe account. A second run creates nothing.
import { config } from "../src/core/app-config.ts";
import { connectSetup } from "../src/adapters/stripe/setup.ts";
import { appliedEventTypes, thinEventTypes } from "../src/adapters/stripe/stripe.ts";
import { readFlags } from "./flags.ts";
import { readDevVars } from "./settings.ts";

const { values: flags } = readFlags({
  command: "npm run stripe:setup",
  help: `
npm run stripe:setup [-- --webhooks URL]     creates the product, the meter, the prices and the portal's configuration in the
                                             Stripe account of STRIPE_SECRET_KEY, and keeps those that exist

  --webhooks URL   also makes Stripe send its events to this Tollgate, e.g. https://tollgate.example.com, and prints the
                   signing secrets, which Stripe shows only once
  --help           shows this text

STRIPE_SECRET_KEY comes from the environment or from .dev.vars.`,
  flags: { webhooks: { type: "string" } },
});
const vars = { ...readDevVars(".dev.vars"), ...process.env };
const secretKey = vars["STRIPE_SECRET_KEY"];
if (secretKey === undefined) {
  process.stderr.write("Set STRIPE_SECRET_KEY, in the environment or in .dev.vars.\n");
  process.exitCode = 1;
} else {
  const setup = connectSetup(secretKey, vars["STRIPE_API_BASE"] ?? "");
  const made = await setup.setUp(config.product.invoiceLine);
  print(made.length === 0 ? "Everything exists already." : `Created ${made.join(", ")}.`);
  if (flags.webhooks === undefined) {
    print("Stripe must send events to two destinations, which `-- --webhooks URL` creates:");
    print(`  /webhooks/stripe       snapshot, secret STRIPE_WEBHOOK_SECRET: ${appliedEventTypes.join(", ")}`);
    print(`  /webhooks/stripe-thin  thin, secret STRIPE_THIN_WEBHOOK_SECRET: ${thinEventTypes.join(", ")}`);
  } else {
    for (const { path, id, signingSecret } of await setup.setUpDestinations(flags.webhooks))
      print(`${path}: ${id}${signingSecret === undefined ? ", exists already" : `, its secret is ${signingSecret}`}`);
  }
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
