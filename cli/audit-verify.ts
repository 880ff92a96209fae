// `npm run audit:verify`: reads every chain of the audit log and computes each hash anew. It only reads.
// Exit codes: 0 every chain is right, 1 a chain is broken, 2 not readable. A failed read never counts as right.
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { connectControl } from "../src/adapters/neon.ts";
import { TenantId } from "../src/core/tenant/tenant.ts";
import { type Place, type ChainBreak } from "../src/identity/audit/audit.ts";
import { verifyChain } from "../src/identity/audit/check.ts";
import { auditStore } from "../src/identity/audit/audit-store.ts";
import { localControl } from "./migrations/prepare.ts";
import { readVariables } from "./settings.ts";

const help = `npm run audit:verify -- [flags]

Verifies the audit log: each row has the hash of its fields and of the row before it, and no row is missing.
Prints one line for each chain: its name, the position and the hash of its last row, how many rows are left, and the verdict.

  --tenant ID    verifies the chain of this tenant only
  --deployment   verifies the deployment's own chain only
  --known FILE   also compares with the output of an earlier run. Keep it where the database's owner cannot change it:
                 an owner who rewrites a whole chain makes a chain that is right in itself
  --local        verifies the system that \`npm start\` runs in TOLLGATE_DIR (.dev), instead of the environment's
  --help         shows this text

Environment or .dev.vars: CONTROL_DATABASE_URL. NEON_FETCH_ENDPOINT is empty for Neon's own address. The exit code is 0 when
every chain is right, 1 when one is broken, 2 when a read failed.`;

/** The deployment's own chain has no tenant's id. */
const DEPLOYMENT = "(deployment)";
/** Chains in one statement. */
const CHAINS_AT_ONCE = 200;

const words: Readonly<Record<ChainBreak, string>> = {
  missing: "this row is missing",
  order: "two rows have this position",
  link: "this row does not follow the one before it",
  content: "a field of this row has changed",
  end: "the chain does not end where it ended",
  rewritten: "this row had another hash when it was verified before",
};

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** The end of each chain in the output of an earlier run. Other lines are skipped. */
function knownPlaces(output: string): Map<string, Place> {
  const lines = [...output.matchAll(/^(?<chain>\S+) (?<position>\d+) (?<hash>[0-9a-f]{64}) /gm)];
  return new Map(
    lines.map(({ groups }) => [
      groups?.["chain"] ?? "",
      { position: Number(groups?.["position"]), hash: groups?.["hash"] ?? "" },
    ]),
  );
}

/** Verifies and prints. Returns whether every chain is right. */
async function main(): Promise<boolean> {
  const text = { type: "string" } as const;
  const flag = { type: "boolean", default: false } as const;
  const { values } = parseArgs({ options: { tenant: text, deployment: flag, known: text, local: flag, help: flag } });
  if (values.help) {
    print(help);
    return true;
  }
  if (values.tenant !== undefined && values.deployment) throw new Error("Give --tenant or --deployment, not both.");
  const tenant = values.tenant === undefined ? undefined : TenantId.safeParse(values.tenant);
  if (tenant?.success === false) throw new Error(`--tenant: ${values.tenant} is no tenant's id.`);
  const variable = readVariables(values.local ? localControl : undefined);
  const url = variable("CONTROL_DATABASE_URL");
  if (url === "") throw new Error("Set CONTROL_DATABASE_URL, here or in .dev.vars.");
  const known = values.known === undefined ? new Map<string, Place>() : knownPlaces(readFileSync(values.known, "utf8"));
  const store = auditStore(
    connectControl({ CONTROL_DATABASE_URL: url, NEON_FETCH_ENDPOINT: variable("NEON_FETCH_ENDPOINT") }),
  );
  const only = values.deployment ? "" : tenant?.data;
  const unseen = new Set(known.keys());
  let broken = 0;
  let rows = 0;
  let chains = 0;
  let after: string | null = null;
  for (;;) {
    const page = await store.chains(after, CHAINS_AT_ONCE, only);
    for (const chain of page) {
      const name = chain.chain === "" ? DEPLOYMENT : chain.chain;
      const report = await verifyChain(store, chain, known.get(name));
      unseen.delete(name);
      chains += 1;
      rows += report.rows;
      if (report.broken !== undefined) broken += 1;
      const { position, hash } = report.chain.end;
      const verdict =
        report.broken === undefined ? "right" : `BROKEN at ${report.broken.position}: ${words[report.broken.by]}`;
      const leftOut = chain.leftOut === 0 ? "" : `, ${chain.leftOut} refused requests left out`;
      print(`${name} ${position} ${hash} ${report.rows} rows, ${verdict}${leftOut}`);
    }
    if (page.length < CHAINS_AT_ONCE) break;
    after = page.at(-1)?.chain ?? null;
  }
  // A chain that was there before is not there any more.
  const gone = only === undefined ? [...unseen] : [];
  for (const name of gone) print(`${name}: BROKEN: the chain is missing`);
  print(`${chains} chains, ${rows} rows, ${broken + gone.length} broken.`);
  return broken + gone.length === 0;
}

if (import.meta.main) {
  try {
    if (!(await main())) process.exitCode = 1;
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 2;
  }
}
