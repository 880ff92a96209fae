// `npm run bench`: chooses a benchmark, gives it an empty folder, and stops and removes everything that it started.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readFlags, refuse, wholeNumber } from "../cli/flags.ts";
import { removePostgresData } from "../dev/postgres/postgres.ts";
import { benchCalls } from "./calls.ts";
import { benchCrowd } from "./crowd.ts";
import { benchFleet } from "./fleet.ts";
import { benchFlood } from "./flood.ts";
import { benchMove } from "./move.ts";
import { benchPages } from "./pages.ts";
import { benchSignUps } from "./sign-ups.ts";
import { benchTiers } from "./tiers.ts";
import { benchWebhooks } from "./webhooks.ts";

const command = "npm run bench";
const { values: flags, positionals } = readFlags({
  command,
  help: `
npm run bench [-- SUBJECT] [FLAGS]      measures this machine; linux only, because CPU time is read from /proc

SUBJECT
  calls       what a call costs, compared with a hand-written minimum (the default)
  sign-ups    time from the payment to the first tool call
  webhooks    time until a Stripe event is acknowledged
  tiers       the same calls in the three tiers, side by side
  move        a tenant that moves through the tiers under load
  fleet       a migration of many tenants' own schemas
  crowd       many tenants on few database connections
  flood       a tenant within its limits while others flood
  pages       CPU time, database round trips and bytes of each page

FLAGS
  --calls N       calls: calls in a round (1500)
  --rounds N      calls, tiers: rounds; figures are their medians (5)
  --only NAME     calls: only this variant; repeatable
  --profile       calls: a CPU profile of the first variant instead of a measurement
  --rows N        move: rows of the tenant (10000)
  --schemas N     fleet: tenants with a schema (1000)
  --tenants N     crowd: tenants (500)
  --budget N      crowd: database connections (50)
  --seconds N     flood: length of each measurement (15)
  --help          this text`,
  flags: {
    calls: { type: "string", default: "1500" },
    rounds: { type: "string", default: "5" },
    only: { type: "string", multiple: true, default: [] },
    profile: { type: "boolean", default: false },
    schemas: { type: "string", default: "1000" },
    rows: { type: "string", default: "10000" },
    tenants: { type: "string", default: "500" },
    budget: { type: "string", default: "50" },
    seconds: { type: "string", default: "15" },
  },
  positionals: true,
});
const count = (flag: "calls" | "rounds" | "schemas" | "rows" | "tenants" | "budget" | "seconds"): number =>
  wholeNumber(command, flag, flags[flag]);

const benchmarks: Record<string, () => Promise<void>> = {
  calls: () => {
    const { only, profile } = flags;
    return benchCalls({ dir, running, calls: count("calls"), rounds: count("rounds"), only, profile });
  },
  "sign-ups": () => benchSignUps({ dir, running }),
  webhooks: () => benchWebhooks({ dir, running }),
  // 120 calls of each kind in a round keep a round of the three tiers under a minute.
  tiers: () => benchTiers({ dir, running, calls: 120, rounds: count("rounds") }),
  move: () => benchMove({ dir, running, rows: count("rows") }),
  fleet: () => benchFleet({ running, schemas: count("schemas") }),
  crowd: () => benchCrowd({ dir, running, tenants: count("tenants"), budget: count("budget") }),
  pages: () => benchPages({ dir, running }),
  flood: () => benchFlood({ dir, running, seconds: count("seconds") }),
};
const [subject = "calls", ...more] = positionals;
const benchmark = benchmarks[subject];
if (benchmark === undefined || more.length > 0) {
  refuse(
    command,
    `There is no benchmark "${[subject, ...more].join(" ")}"; choose ${Object.keys(benchmarks).join(", ")}`,
  );
}
for (const flag of ["calls", "rounds", "schemas", "rows", "tenants", "budget", "seconds"] as const) count(flag);

const running: (() => Promise<unknown>)[] = [];
const dir = mkdtempSync(join(tmpdir(), "tollgate-bench-"));
for (const signal of ["SIGINT", "SIGTERM"] as const)
  process.once(signal, () => void stopAll().then(() => process.exit(1)));

try {
  await benchmark();
} catch (error) {
  print(error instanceof Error ? (error.stack ?? error.message) : String(error));
  process.exitCode = 1;
} finally {
  await stopAll();
}

async function stopAll(): Promise<void> {
  for (const stop of running.splice(0).toReversed())
    await stop().catch((error: unknown) => print(`stopping: ${String(error)}`));
  await removePostgresData(join(dir, "postgres"));
  rmSync(dir, { recursive: true, force: true });
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
