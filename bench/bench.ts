// `npm run bench`: what a call costs (calls.ts). `npm run bench -- sign-ups`: how long a customer waits (sign-ups.ts).
// `npm run bench -- webhooks`: how soon an event of Stripe's is acknowledged (webhooks.ts).
// `npm run bench -- fleet --schemas 1000`: what a migration of all tenants' own schemas takes (fleet.ts).
// `npm run bench -- tiers`: the same calls in the three tiers, side by side (tiers.ts). `npm run bench -- move`: a tenant
// that moves through them under load (move.ts). `npm run bench -- crowd`: many tenants on few connections (crowd.ts).
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { removePostgresData } from "../dev/postgres/postgres.ts";
import { benchCalls } from "./calls.ts";
import { benchCrowd } from "./crowd.ts";
import { benchFleet } from "./fleet.ts";
import { benchMove } from "./move.ts";
import { benchSignUps } from "./sign-ups.ts";
import { benchTiers } from "./tiers.ts";
import { benchWebhooks } from "./webhooks.ts";

const { values: flags, positionals } = parseArgs({
  options: {
    calls: { type: "string", default: "1500" },
    rounds: { type: "string", default: "5" },
    only: { type: "string", multiple: true, default: [] },
    profile: { type: "boolean", default: false },
    schemas: { type: "string", default: "1000" },
    rows: { type: "string", default: "10000" },
    tenants: { type: "string", default: "500" },
    budget: { type: "string", default: "50" },
  },
  allowPositionals: true,
});
const [subject = "calls"] = positionals;

const running: (() => Promise<unknown>)[] = [];
const dir = mkdtempSync(join(tmpdir(), "tollgate-bench-"));
for (const signal of ["SIGINT", "SIGTERM"] as const)
  process.once(signal, () => void stopAll().then(() => process.exit(1)));

try {
  if (subject === "calls") {
    const { only, profile } = flags;
    await benchCalls({ dir, running, calls: Number(flags.calls), rounds: Number(flags.rounds), only, profile });
  } else if (subject === "sign-ups") await benchSignUps({ dir, running });
  else if (subject === "webhooks") await benchWebhooks({ dir, running });
  else if (subject === "fleet") await benchFleet({ running, schemas: Number(flags.schemas) });
  else if (subject === "tiers") await benchTiers({ dir, running, calls: 120, rounds: Number(flags.rounds) });
  else if (subject === "move") await benchMove({ dir, running, rows: Number(flags.rows) });
  else if (subject === "crowd") {
    await benchCrowd({ dir, running, tenants: Number(flags.tenants), budget: Number(flags.budget) });
  } else
    throw new Error(`There is no benchmark ${subject}: choose calls, sign-ups, webhooks, fleet, tiers, move or crowd.`);
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
