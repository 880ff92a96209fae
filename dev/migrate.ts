// `npm run migrate`: brings the databases that the environment or .dev.vars names to the state that the program expects,
// and makes the shards among them known to the control tables. Everything can be repeated.
import { existsSync, readFileSync } from "node:fs";
import { parseArgs, parseEnv } from "node:util";
import { parseContextKeys } from "../src/core/context.ts";
import { parseSealKeys } from "../src/core/seal.ts";
import { loginOf, prepareControl, prepareShared, registerShard } from "./databases.ts";
import { branchMigrations, controlMigrations, migrate, sharedMigrations } from "./migrations.ts";

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

async function main(): Promise<void> {
  const { values: flags } = parseArgs({
    options: { shard: { type: "string" }, region: { type: "string", default: "default" } },
  });
  const file = existsSync(".dev.vars") ? parseEnv(readFileSync(".dev.vars", "utf8")) : {};
  const variable = (name: string) => process.env[name] ?? file[name] ?? "";
  const controlUrl = variable("CONTROL_OWNER_URL");
  if (controlUrl === "") throw new Error("Set CONTROL_OWNER_URL, the control database's owner, here or in .dev.vars.");
  print("control database");
  await migrate({ url: controlUrl, directory: controlMigrations, log: print });
  const service = variable("CONTROL_DATABASE_URL");
  if (service !== "") await prepareControl({ ownerUrl: controlUrl, login: loginOf(service) });

  const { region } = flags;
  const sharedOwner = variable("SHARED_OWNER_URL");
  if (sharedOwner !== "") {
    const id = flags.shard ?? "shared-1";
    print(`shared tables, shard ${id}`);
    await migrate({ url: sharedOwner, directory: sharedMigrations, log: print });
    const appUrl = variable("SHARED_APP_URL");
    if (appUrl === "") throw new Error("Set SHARED_APP_URL: the shard's address with login tollgate_app_a or _b.");
    const contextKeys = parseContextKeys(variable("CONTEXT_KEYS"));
    await prepareShared({ ownerUrl: sharedOwner, logins: [loginOf(appUrl)], contextKeys });
    const sealKeys = parseSealKeys(variable("SEAL_KEYS"));
    await registerShard({ controlUrl, sealKeys, id, strategy: "shared", region, ownerUrl: sharedOwner, appUrl });
  }
  const schemaOwner = variable("SCHEMA_OWNER_URL");
  if (schemaOwner !== "") {
    const id = sharedOwner === "" ? (flags.shard ?? "schema-1") : "schema-1";
    print(`own schemas, shard ${id}`);
    await migrate({ url: schemaOwner, directory: branchMigrations, log: print });
    const sealKeys = parseSealKeys(variable("SEAL_KEYS"));
    const known = { controlUrl, sealKeys, id, region, ownerUrl: schemaOwner };
    await registerShard({ ...known, strategy: "schema", appUrl: undefined });
  }
  print("done");
}

if (import.meta.main) {
  try {
    await main();
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 1;
  }
}
