// `npm run bench`: what a call costs (calls.ts). `npm run bench -- sign-ups`: how long a customer waits (sign-ups.ts).
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { removePostgresData } from "../dev/postgres.ts";
import { benchCalls } from "./calls.ts";
import { benchSignUps } from "./sign-ups.ts";

const { values: flags, positionals } = parseArgs({
  options: {
    calls: { type: "string", default: "1500" },
    rounds: { type: "string", default: "5" },
    only: { type: "string", multiple: true, default: [] },
    profile: { type: "boolean", default: false },
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
  else throw new Error(`There is no benchmark ${subject}: choose calls or sign-ups.`);
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
