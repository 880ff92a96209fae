// `npm run demo:month`: a billing month of a metered customer in a minute, on the system that `npm start` runs. The customer's
// agents use more than the plan includes, Stripe's simulated clock moves to the end of the billing period, and the final invoice
// is compared with every call.
import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { performance } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import * as z from "zod";
import { readFlags, wholeNumber } from "../cli/flags.ts";
import { inDollars, usagePrice } from "../src/core/plans/money.ts";
import { planNames, planOf } from "../src/core/plans/plans.ts";
import { HOUR_MS, MINUTE_MS } from "../src/core/time.ts";
import { type Tool, decidesUnits } from "../src/tools/tool.ts";
import { catalogue } from "../src/tools/catalogue.ts";
import { type Period, dayOf } from "../src/metering/invoice.ts";
import { childEnvironment } from "./child-environment.ts";

const command = "npm run demo:month";
const { values: flags } = readFlags({
  command,
  help: `
npm run demo:month [-- FLAGS]   a billing month in a minute, on the system that npm start runs

The agents of the metered demonstration customer call tools until the plan's included units are used up, and go on a little.
Stripe's simulated clock then moves to the end of the billing period. The final invoice is compared with every call.

  --over N   units beyond what the plan includes (400)
  --help     this text

TOLLGATE_DIR (.dev) names the system. Its month ends only once: npm start -- --fresh begins a new one.`,
  flags: { over: { type: "string", default: "400" } },
});

/** Calls that the agents make at the same time: as many as two cores serve without a queue. */
const AGENTS = 8;
/** Usage is on its way to the ledger for seconds. */
const LEDGER_WITHIN_MS = 120_000;
/** Stripe finalizes an invoice an hour after the end of the period. */
const AFTER_THE_END_MS = 2 * HOUR_MS;
const NO_LIMITS = {
  unitsPerHour: "none",
  unitsPerMonth: "none",
  callsPerMinute: "none",
  callsInFlight: 128,
  spendCapCents: "none",
};
/** The limits that the customer was sold. */
const SOLD_LIMITS = {
  unitsPerHour: null,
  unitsPerMonth: null,
  callsPerMinute: null,
  callsInFlight: null,
  spendCapCents: null,
};

const Demo = z.object({
  baseUrl: z.url(),
  mcpUrl: z.url(),
  operator: z.object({ token: z.string() }),
  tenants: z.array(z.object({ id: z.string(), name: z.string(), plan: z.enum(planNames), apiKey: z.string() })),
  stripe: z.object({ apiBase: z.url(), secretKey: z.string() }).optional(),
});
const Account = z.object({ stripeSubscriptionId: z.string() });
const Usage = z.object({ total: z.object({ units: z.number() }) });
const Subscription = z.object({
  items: z.object({
    data: z.tuple([z.object({ current_period_start: z.number(), current_period_end: z.number() })], z.unknown()),
  }),
});
const Clock = z.object({ nowMs: z.number(), offsetMs: z.number() });

/** `2026-11-30 00:00 UTC`. */
const atMinute = (ms: number): string => `${new Date(ms).toISOString().slice(0, 16).replace("T", " ")} UTC`;
const print = (line: string): void => void process.stdout.write(`${line}\n`);

/** The tool that costs most units, of those that change nothing, need no input and have a constant price. */
function costliestTool(): Tool & { units: number } {
  const [tool] = [...catalogue.values()]
    .filter((each): each is Tool & { units: number } => !decidesUnits(each))
    .filter(({ annotations, input }) => annotations.readOnly && input.safeParse({}).success)
    .toSorted((a, b) => b.units - a.units);
  if (tool === undefined) throw new Error("The app has no tool that reads without input.");
  return tool;
}

/** Calls the tool as the customer's agents until it has used the units. Returns how many calls succeeded. */
async function use(mcpUrl: string, apiKey: string, tool: Tool & { units: number }, units: number): Promise<number> {
  const wanted = Math.ceil(units / tool.units);
  let started = 0;
  const agent = async (): Promise<void> => {
    const client = new Client({ name: "tollgate-demo-month", version: "1" });
    const requestInit = { headers: { authorization: `Bearer ${apiKey}` } };
    await client.connect(new StreamableHTTPClientTransport(new URL(mcpUrl), { requestInit }));
    try {
      while (started < wanted) {
        started += 1;
        const { isError, content } = await client.callTool({ name: tool.name, arguments: {} });
        if (isError === true) throw new Error(`${tool.name} was refused: ${JSON.stringify(content)}`);
        if (started % 500 === 0) print(`    ${started} of ${wanted} calls`);
      }
    } finally {
      await client.close();
    }
  };
  await Promise.all(Array.from({ length: AGENTS }, agent));
  return wanted;
}

async function main(): Promise<number> {
  const startedAt = performance.now();
  const over = wholeNumber(command, "--over", flags.over);
  const dir = resolve(process.env["TOLLGATE_DIR"] ?? ".dev");
  const file = join(dir, "demo.json");
  if (!existsSync(file)) throw new Error(`No system runs in ${dir}. Run npm start in another terminal first.`);
  const { baseUrl, mcpUrl, operator, tenants, stripe } = Demo.parse(JSON.parse(readFileSync(file, "utf8")));
  if (stripe === undefined) throw new Error("This system uses the real Stripe, whose clock nothing moves.");
  const tenant = tenants.find(
    ({ plan }) => planOf(plan).unitAmountCents !== null && planOf(plan).includedUnits !== null,
  );
  if (tenant === undefined) throw new Error("No demonstration customer has a plan with included units.");
  const plan = planOf(tenant.plan);
  const included = plan.includedUnits ?? 0;

  const send = async (url: string, token: string, method = "GET", body?: object): Promise<unknown> => {
    const response = await fetch(url, {
      method,
      headers: { authorization: `Bearer ${token}`, ...(body && { "content-type": "application/json" }) },
      ...(body && { body: JSON.stringify(body) }),
    });
    if (!response.ok) throw new Error(`${url} answered ${response.status}: ${(await response.text()).slice(0, 300)}`);
    return response.json();
  };
  const accountUrl = `${baseUrl}/admin/api/tenants/${tenant.id}`;
  const account = Account.parse(await send(accountUrl, operator.token));
  const readPeriod = async (): Promise<{ startMs: number; endMs: number }> => {
    const url = `${stripe.apiBase}/v1/subscriptions/${account.stripeSubscriptionId}`;
    const [item] = Subscription.parse(await send(url, stripe.secretKey)).items.data;
    return { startMs: item.current_period_start * 1_000, endMs: item.current_period_end * 1_000 };
  };
  const period = await readPeriod();
  const { startMs } = period;
  if (startMs > Date.now())
    throw new Error("The month of this system has ended. npm start -- --fresh begins a new one.");
  const days = { from: dayOf(startMs), to: dayOf(Date.now()) };
  const unitsInLedger = async (): Promise<number> =>
    Usage.parse(await send(`${accountUrl}/usage?${new URLSearchParams(days).toString()}`, operator.token)).total.units;

  print(`${tenant.name}, plan ${tenant.plan}: ${included} units are included until ${atMinute(period.endMs)}`);
  const tool = costliestTool();
  const before = await unitsInLedger();
  const wanted = Math.max(0, included + over - before);
  print(`  Its agents use ${wanted} units with ${tool.name}, ${tool.units} units a call`);
  await send(accountUrl, operator.token, "PATCH", { limits: NO_LIMITS });
  let calls: number;
  try {
    calls = await use(mcpUrl, tenant.apiKey, tool, wanted);
  } finally {
    await send(accountUrl, operator.token, "PATCH", { limits: SOLD_LIMITS });
  }

  const units = before + calls * tool.units;
  const untilMs = Date.now() + LEDGER_WITHIN_MS;
  while ((await unitsInLedger()) < units) {
    if (Date.now() > untilMs) throw new Error("The ledger does not have all calls. See /health.");
    await sleep(500);
  }
  print(`  The ledger has ${units} units`);

  const fireCron = (cron: string, atMs: number): Promise<unknown> => {
    const query = new URLSearchParams({ cron, time: String(atMs), format: "json" });
    return send(`${baseUrl}/cdn-cgi/local/scheduled?${query.toString()}`, operator.token);
  };
  // Usage is reported once it is a minute old, and a report counts once Stripe has confirmed it.
  for (let minutes = 2; minutes <= 6; minutes += 2) await fireCron("*/5 * * * *", Date.now() + minutes * MINUTE_MS);
  print("  Stripe's meter has the reports");

  // The first period of a subscription ends at midnight; a whole month follows.
  const { nowMs, offsetMs } = Clock.parse(await send(`${stripe.apiBase}/_sim/clock`, stripe.secretKey));
  const moveTo = async (atMs: number): Promise<void> => {
    await send(`${stripe.apiBase}/_sim/clock`, stripe.secretKey, "POST", { offsetMs: offsetMs + atMs - nowMs });
    print(`  Stripe's clock is at ${atMinute(atMs)}, after the end of the period`);
  };
  await moveTo(period.endMs + AFTER_THE_END_MS);
  const month = await readPeriod();
  await moveTo(month.endMs + AFTER_THE_END_MS);
  const price = usagePrice(units, plan);
  print(`  ${units} units cost ${inDollars(price)} USD beside the plan's price. The invoice:\n`);
  const code = await verifyInvoice(dir, tenant.id, { startMs, endMs: month.endMs });
  print(`\nThe month took ${((performance.now() - startedAt) / 1_000).toFixed(0)} s. See it at ${baseUrl}/app`);
  return code;
}

/** Runs `npm run verify-invoice` on the customer. Returns its exit code. */
async function verifyInvoice(dir: string, tenantId: string, period: Period): Promise<number> {
  const root = resolve(import.meta.dirname, "..");
  const days = ["--from", dayOf(period.startMs), "--to", dayOf(period.endMs)];
  const program = [join(root, "cli/verify-invoice.ts"), "--local", "--tenant", tenantId, ...days];
  const child = spawn(process.execPath, ["--import", join(root, "cli/register-app.ts"), ...program], {
    ...{ cwd: process.cwd(), stdio: "inherit", env: childEnvironment({ TOLLGATE_DIR: dir }) },
  });
  return new Promise((settle) => child.once("exit", (code) => settle(code ?? 1)));
}

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}
