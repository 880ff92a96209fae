// `npm run stripe:setup`: makes product, meter and prices in the Stripe account of STRIPE_SECRET_KEY. Safe to run again.
import { connectStripe } from "../src/adapters/stripe.ts";
import { readDevVars } from "./settings.ts";

const vars = { ...readDevVars(".dev.vars"), ...process.env };
const secretKey = vars["STRIPE_SECRET_KEY"];
if (secretKey === undefined) {
  process.stderr.write("Set STRIPE_SECRET_KEY, in the environment or in .dev.vars.\n");
  process.exitCode = 1;
} else {
  const made = await connectStripe(secretKey, vars["STRIPE_API_BASE"] ?? "").setUpCatalogue();
  process.stdout.write(made.length === 0 ? "Everything was there already.\n" : `Made ${made.join(", ")}.\n`);
}
