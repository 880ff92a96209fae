// `npm run fuzz`: starts a whole system and sends it fuzzed requests. Ends with 1 when an answer is a fault.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readFlags, wholeNumber } from "../../cli/flags.ts";
import { freePort } from "../../cli/ports.ts";
import { bundle } from "../../dev/bundle.ts";
import { removePostgresData } from "../../dev/postgres/postgres.ts";
import { type System, startSystem } from "../../dev/system.ts";
import { fuzz } from "./run.ts";
import { makeWorld } from "./world.ts";

const command = "npm run fuzz";
const { values: flags } = readFlags({
  command,
  help: `
npm run fuzz [-- FLAGS]     sends requests with right, wrong and hostile tokens, headers, paths, ids and bodies to every route

  --cases N    how many (100000)
  --seed N     seed of the requests (random)
  --lanes N    requests at a time (16)
  --help       this text`,
  flags: {
    cases: { type: "string", default: "100000" },
    seed: { type: "string", default: String(Date.now() % 100_000) },
    lanes: { type: "string", default: "16" },
  },
});
const cases = wholeNumber(command, "cases", flags.cases);
const seed = wholeNumber(command, "seed", flags.seed, 0);
const lanes = wholeNumber(command, "lanes", flags.lanes);
const print = (text: string): void => void process.stdout.write(`${text}\n`);

const dir = mkdtempSync(join(tmpdir(), "tollgate-fuzz-"));
let system: System | undefined;
const end = async (): Promise<void> => {
  await system?.stop();
  await removePostgresData(join(dir, "postgres"));
  rmSync(dir, { recursive: true, force: true });
};
// The first signal ends the cases, and the report has those until then. The second one ends the program.
const stopping = new AbortController();
let isSending = false;
for (const signal of ["SIGINT", "SIGTERM"] as const)
  process.on(signal, () => {
    if (stopping.signal.aborted || !isSending) void end().finally(() => process.exit(1));
    stopping.abort();
  });

try {
  const script = await bundle({ outDir: join(dir, "bundle") });
  system = await startSystem({ dir, port: await freePort(), bundle: script });
  const { publicUrl, settings, issuer } = system;
  if (issuer === undefined) throw new Error("The fuzzer needs the local issuer");
  const world = await makeWorld({
    baseUrl: publicUrl,
    operatorToken: settings.secrets.operatorToken,
    tokenUrl: issuer.tokenUrl,
    issuerUrl: issuer.url,
  });
  print(`seed ${seed}: ${world.operations.length} operations, ${world.tools.length} tools`);
  const startedAt = performance.now();
  isSending = true;
  const { byStatus, successes, faults, ...done } = await fuzz(publicUrl, world, {
    ...{ cases, seed, lanes, signal: stopping.signal },
    onFault: ({ number, why, what, request, answer }) =>
      print(`\nFAULT ${number}: ${why}\n  ${what}\n  ${request}\n  ${answer}`),
    onProgress: (sent) => print(`${sent} cases, ${((performance.now() - startedAt) / 1000).toFixed(0)} s`),
  });
  const statuses = [...byStatus].toSorted(([a], [b]) => a - b).map(([status, count]) => `${status}: ${count}`);
  const tookS = Math.round((performance.now() - startedAt) / 1_000);
  print(`\n${done.cases} cases of seed ${seed} in ${tookS} s: ${successes} allowed successes, ${faults.length} faults`);
  print(`by status: ${statuses.join(", ")}`);
  process.exitCode = faults.length === 0 ? 0 : 1;
} finally {
  await end();
}
