// `npm run crash`: kills `npm start` with `kill -9` at random moments under load and starts it again each time.
// At the end the receipts of the clients, the ledger and Stripe's count must agree. A call whose answer was lost in a kill
// may have been charged once; such calls are counted apart.
import { setTimeout as sleep } from "node:timers/promises";
import { readFlags, wholeNumber } from "../../cli/flags.ts";
import { seededRandom } from "../../dev/seeded-random.ts";
import {
  type Demo,
  type Seen,
  TOOL,
  areStreamsWhole,
  callUntil,
  controlRows,
  demoSystem,
  ledgerIds,
  until,
} from "./demo-system.ts";

const command = "npm run crash";
const { values: flags } = readFlags({
  command,
  help: `
npm run crash [-- FLAGS]     kills the whole local system under load again and again, then compares receipts, ledger and Stripe

  --kills N    how often (20)
  --seed N     seed of the moments of the kills (random)
  --help       this text`,
  flags: {
    kills: { type: "string", default: "20" },
    seed: { type: "string", default: String(Date.now() % 100_000) },
  },
});
const kills = wholeNumber(command, "kills", flags.kills);
const random = seededRandom(wholeNumber(command, "seed", flags.seed, 0));
/** Upper bound of the random time between the system's readiness and its kill. */
const WITHIN_MS = 3_000;
const CALLERS = 4;

const system = await demoSystem();
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => void system.end().finally(() => process.exit(1)));
}
try {
  process.exitCode = (await crash()) ? 0 : 1;
} finally {
  await system.end();
}

/** True if receipts, ledger and Stripe agree at the end. */
async function crash(): Promise<boolean> {
  const seen = new Map<string, Seen>();
  for (let n = 1; n <= kills; n += 1) {
    const started = await system.start();
    const killed = new AbortController();
    const calling = started.demo.tenants.flatMap(({ id, apiKey }) => {
      const own = seen.get(id) ?? { receipts: new Set<string>(), unanswered: 0 };
      seen.set(id, own);
      return Array.from({ length: CALLERS }, () => callUntil(killed.signal, started.demo.baseUrl, apiKey, own));
    });
    // Some kills happen while the report cron runs.
    const reporting = reportUntil(killed.signal, started.demo);
    const afterMs = Math.round(random() * WITHIN_MS);
    await sleep(afterMs);
    await system.kill(started);
    killed.abort();
    await Promise.all([...calling, reporting]);
    const known = [...seen.values()].reduce((sum, { receipts }) => sum + receipts.size, 0);
    print(
      `kill ${String(n).padStart(2)}: ${String(afterMs).padStart(4)} ms after it was ready; ${known} receipts so far`,
    );
  }
  const { demo } = await system.start();
  // No call wakes a tenant's object here. Its alarm must.
  await until(
    async () => {
      const ids = await ledgerIds(demo);
      const arrived = [...seen].every(([id, { receipts }]) => receipts.isSubsetOf(ids.get(id) ?? new Set()));
      return arrived && (await areStreamsWhole(demo));
    },
    "all that was charged is in the ledger",
    120_000,
  ).catch((error: unknown) => print(String(error))); // the checks below report what is missing
  await until(
    async () => {
      await fireReport(demo);
      const [left] = await controlRows<{ left: number }>(
        demo,
        `SELECT (SELECT count(*) FROM ledger WHERE report_id IS NULL AND carry_forward_id IS NULL)::int
              + (SELECT count(*) FROM reports r JOIN tenants t ON t.id = r.tenant_id
                 WHERE confirmed_at IS NULL AND t.stripe_customer_id IS NOT NULL)::int AS left`,
      );
      return left?.left === 0;
    },
    "everything is reported",
    600_000,
  );
  return await isRight(demo, seen);
}

async function isRight(demo: Demo, seen: ReadonlyMap<string, Seen>): Promise<boolean> {
  const totals = (await (await fetch(`${demo.stripe.apiBase}/_sim/meter-totals`)).json()) as Record<
    string,
    Record<string, number>
  >;
  let right = true;
  for (const { id, plan } of demo.tenants) {
    const own = seen.get(id) ?? { receipts: new Set<string>(), unanswered: 0 };
    const rows = await controlRows<{ call_id: string; units: number; tool: string; carried: boolean }>(
      demo,
      `SELECT call_id, units, tool, carry_forward_id IS NOT NULL AS carried FROM ledger WHERE tenant_id = $1`,
      [id],
    );
    const [tenant] = await controlRows<{ customer: string | null }>(
      demo,
      `SELECT stripe_customer_id AS customer FROM tenants WHERE id = $1`,
      [id],
    );
    const ours = new Set(rows.filter(({ tool }) => tool === TOOL).map(({ call_id: callId }) => callId));
    const lost = own.receipts.difference(ours).size;
    const beyond = ours.difference(own.receipts).size;
    const units = rows.reduce((sum, row) => sum + row.units, 0);
    // A later invoice bills these, not the meter.
    const carried = rows.reduce((sum, row) => sum + (row.carried ? row.units : 0), 0);
    const counted = Object.values(totals[tenant?.customer ?? ""] ?? {}).reduce((sum, value) => sum + value, 0);
    const atStripe = tenant?.customer === null ? units - carried : counted; // a tenant by contract has no meter reports
    const good = lost === 0 && beyond <= own.unanswered && units === atStripe + carried;
    right &&= good;
    print(
      `${good ? "right" : "WRONG"}  ${plan.padEnd(10)} receipts ${own.receipts.size}, lost ${lost}; without an answer ` +
        `${own.unanswered}, of them charged ${beyond}; ledger ${units} units, carried forward ${carried}, Stripe ` +
        `${tenant?.customer === null ? "none" : counted}`,
    );
  }
  return right;
}

async function reportUntil(ended: AbortSignal, demo: Demo): Promise<void> {
  while (!ended.aborted) {
    await fireReport(demo).catch(() => undefined);
    await sleep(200);
  }
}

/** Fires the cron for a time at which the newest charge is old enough to be frozen. */
async function fireReport({ baseUrl }: Demo): Promise<void> {
  const query = new URLSearchParams({ cron: "*/5 * * * *", time: String(Date.now() + 100_000) });
  await (await fetch(`${baseUrl}/cdn-cgi/handler/scheduled?${query.toString()}`)).arrayBuffer();
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
