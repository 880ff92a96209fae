// `npm run migrate`: brings the databases to the state that the program expects, and then every tenant's own schema: the
// control database first, the shards that it or the environment names, the fleet last. A new file that would lock out or
// break the program in use is refused before anything is done. Everything can be repeated.
import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs, parseEnv } from "node:util";
import { FleetOptions } from "../src/fleet/fleet.ts";
import { parseKeyRing } from "../src/core/encryption.ts";
import { migrationId } from "../src/tenant-db/branch.ts";
import {
  controlDatabase,
  giveAnalytics,
  loginOf,
  OWNER,
  prepareControl,
  prepareShared,
  registerReplica,
  registerShard,
} from "./migrations/prepare.ts";
import { type Database, fleetOfSchemas, knownShards, pendingIn, refuseUnsafe } from "./migrations/databases.ts";
import { dryRunFleet, migrateFleet } from "./migrations/fleet.ts";
import { showFleet } from "./migrations/status.ts";
import {
  appSeries,
  branchMigrations,
  controlMigrations,
  migrate,
  readMigrations,
  sharedMigrations,
  tenantMigrations,
} from "./migrations/apply.ts";
import { loadSettings, encryptionKeysOf } from "./settings.ts";

const help = `npm run migrate -- [status] [flags]

Brings the control database, the shards and then every tenant's own schema up to date.
A run that was killed or stopped is continued by running it again.

  status               shows the fleet: versions, what is pending, what failed, what was changed by hand
  --dry-run            says what would be done and changes nothing
  --concurrency N      schemas at once, 1 to 32 (8)
  --cohort N|ID,ID     so many tenants by chance, or these, go first and are waited for (0)
  --stop-above N|N%    stops when more than this fail; a share is of those tried (2%)
  --only ID,ID         no other tenant's schema
  --allow-drift        migrates schemas that somebody changed by hand, and takes them as they are
  --tenant-files DIR   the app's files for tenants' schemas (app/migrations)
  --local              the system that \`npm start\` runs in TOLLGATE_DIR (.dev), instead of the environment's
  --shard ID           what the shard of SHARED_OWNER_URL or SCHEMA_OWNER_URL is called (shared-1, schema-1)
  --region NAME        where it is (default)
  --replica [ID=]HOST  where a replica of that shard, or of shard ID, answers: analytics reads there; none for no more
  --help               this

Here or in .dev.vars: CONTROL_OWNER_URL, and ENCRYPTION_KEYS once there are shards. Besides, to set up or change them:
CONTROL_DATABASE_URL, SHARED_OWNER_URL with SHARED_APP_URL and CONTEXT_KEYS, SCHEMA_OWNER_URL, SHARED_REPLICA_HOST.
Tenants' schemas are reached by HTTP: NEON_FETCH_ENDPOINT, empty for Neon's own.
Ends with 0 when everything is where it should be, with 1 when something failed or was stopped.`;

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

function readFlags() {
  const text = { type: "string" } as const;
  const flag = { type: "boolean", default: false } as const;
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: {
        ...{ help: flag, local: flag, "dry-run": flag, "allow-drift": flag, shard: text },
        ...{ concurrency: text, cohort: text, "stop-above": text, only: text },
        "tenant-files": { type: "string", default: appSeries.directory },
        region: { type: "string", default: "default" },
        replica: text,
      },
    });
    const [command = "migrate", ...more] = positionals;
    if ((command !== "migrate" && command !== "status") || more.length > 0)
      throw new Error(`There is no command ${[command, ...more].join(" ")}: leave it out, or say status.`);
    const list = (value: string | undefined): string[] | undefined => value?.split(",").map((part) => part.trim());
    const number = (value: string | undefined): number | string | undefined =>
      value !== undefined && /^\d+$/.test(value) ? Number(value) : value;
    const { cohort } = values;
    const given = {
      dryRun: values["dry-run"],
      concurrency: number(values.concurrency),
      cohort: typeof number(cohort) === "number" ? number(cohort) : list(cohort),
      stopAbove: number(values["stop-above"]),
      only: list(values.only),
      allowDrift: values["allow-drift"],
    };
    const options = FleetOptions.safeParse(
      Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)),
    );
    if (!options.success) {
      const flagOf = (name: PropertyKey | undefined): string =>
        `--${String(name).replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
      throw new Error(options.error.issues.map(({ path, message }) => `${flagOf(path[0])}: ${message}`).join("\n"));
    }
    return { ...values, command, options: options.data };
  } catch (error) {
    // Node explains on further sentences how to pass a file that is named like a flag.
    const [said] = (error instanceof Error ? error.message : String(error)).split(". To specify");
    throw new Error(`${said}; see npm run migrate -- --help`, { cause: error });
  }
}

/** Where values are taken from: the environment, then .dev.vars; or the running local system alone. */
function variables(local: boolean): (name: string) => string {
  if (!local) {
    const file = existsSync(".dev.vars") ? parseEnv(readFileSync(".dev.vars", "utf8")) : {};
    return (name) => process.env[name] ?? file[name] ?? "";
  }
  const dir = resolve(process.env["TOLLGATE_DIR"] ?? ".dev");
  if (!existsSync(join(dir, "settings.json")))
    throw new Error(`No system has run in ${dir}: npm start first, or set TOLLGATE_DIR.`);
  const settings = loadSettings(dir);
  const { ports, secrets } = settings;
  const values: Record<string, string> = {
    CONTROL_OWNER_URL: `postgresql://${OWNER}:${secrets.ownerPassword}@127.0.0.1:${ports["postgres"]}/${controlDatabase}`,
    ENCRYPTION_KEYS: JSON.stringify(encryptionKeysOf(settings)),
    NEON_FETCH_ENDPOINT: `http://127.0.0.1:${ports["neon"]}/sql`,
  };
  return (name) => values[name] ?? "";
}

async function main(): Promise<boolean> {
  const flags = readFlags();
  if (flags.help) {
    print(help);
    return true;
  }
  const variable = variables(flags.local);
  const { options, region } = flags;
  const controlUrl = variable("CONTROL_OWNER_URL");
  if (controlUrl === "") throw new Error("Set CONTROL_OWNER_URL, the control database's owner, here or in .dev.vars.");
  const control = { title: "control database", url: controlUrl, series: controlMigrations };
  const encryptionKeys = variable("ENCRYPTION_KEYS");
  const files = readMigrations(
    tenantMigrations.map((series) =>
      series === appSeries ? { ...series, directory: resolve(flags["tenant-files"]) } : series,
    ),
  );
  const fleet = { controlUrl, fetchEndpoint: variable("NEON_FETCH_ENDPOINT"), encryptionKeys, files, options, print };

  // What the environment names is set up; what the control tables know besides is kept up to date.
  const [sharedOwner, schemaOwner] = [variable("SHARED_OWNER_URL"), variable("SCHEMA_OWNER_URL")];
  const sharedId = flags.shard ?? "shared-1";
  const schemaId = sharedOwner === "" ? (flags.shard ?? "schema-1") : "schema-1";
  const named = [
    { id: sharedId, title: `shared shard ${sharedId}`, url: sharedOwner, series: sharedMigrations },
    { id: schemaId, title: `schema shard ${schemaId}`, url: schemaOwner, series: branchMigrations },
  ].filter(({ url }) => url !== "");
  const pending = [{ database: control as Database, files: await pendingIn(control) }];
  const known = await knownShards(controlUrl, encryptionKeys);
  const shards = [...named, ...known.filter(({ id }) => !named.some((shard) => shard.id === id))];
  for (const database of shards) pending.push({ database, files: await pendingIn(database) });

  if (flags.command === "status" || options.dryRun) {
    for (const { database, files: lacking } of pending)
      if (lacking.length > 0) print(`${database.title}: pending ${lacking.map(migrationId).join(", ")}`);
    if (pending[0]?.files.length === 0) await (options.dryRun ? dryRunFleet(fleet) : showFleet(fleet));
    else print("The fleet is known once the control database is up to date.");
    return true;
  }

  for (const [series, tables] of databaseKinds) {
    const alike = pending.filter(({ database }) => database.series === series);
    const [first = { files: [] }, ...others] = alike;
    const nowhere = first.files.filter((file) =>
      others.every((other) => other.files.some((each) => migrationId(each) === migrationId(file))),
    );
    await refuseUnsafe(tables, nowhere);
  }
  const { schemas, applied } = await fleetOfSchemas(controlUrl);
  const newFiles = files.filter((file) => !applied.has(migrationId(file)));
  await refuseUnsafe("tenant", newFiles);

  for (const { title, ...database } of [control, ...shards]) {
    print(title);
    await migrate({ ...database, log: print });
  }
  const service = variable("CONTROL_DATABASE_URL");
  if (service !== "") await prepareControl({ ownerUrl: controlUrl, login: loginOf(service) });
  if (sharedOwner !== "") {
    const appUrl = variable("SHARED_APP_URL");
    if (appUrl === "") throw new Error("Set SHARED_APP_URL: the shard's address with login tollgate_app_a or _b.");
    const contextKeys = parseKeyRing("CONTEXT_KEYS", variable("CONTEXT_KEYS"));
    await prepareShared({ ownerUrl: sharedOwner, logins: [loginOf(appUrl)], contextKeys });
    const place = { controlUrl, encryptionKeys: parseKeyRing("ENCRYPTION_KEYS", encryptionKeys), id: sharedId, region };
    await registerShard({ ...place, strategy: "shared", ownerUrl: sharedOwner, appUrl });
  }
  if (schemaOwner !== "") {
    const place = { controlUrl, encryptionKeys: parseKeyRing("ENCRYPTION_KEYS", encryptionKeys), id: schemaId, region };
    await registerShard({ ...place, strategy: "schema", ownerUrl: schemaOwner, appUrl: undefined });
  }
  for (const { id, url: ownerUrl } of shards.slice(named.length)) {
    await giveAnalytics({ controlUrl, encryptionKeys: parseKeyRing("ENCRYPTION_KEYS", encryptionKeys), id, ownerUrl });
  }
  const replica = flags.replica ?? variable("SHARED_REPLICA_HOST");
  if (replica !== "") {
    const [host = "", id = sharedId] = replica.split("=").toReversed();
    await registerReplica({ controlUrl, id, replicaHost: host === "none" ? null : host });
  }
  if (schemas > 0) return migrateFleet(fleet);
  print("No tenant has a schema of its own.");
  return true;
}

/** Each kind of database by its series, and whose tables it holds. */
const databaseKinds = [
  [controlMigrations, "control"],
  [sharedMigrations, "shared"],
  [branchMigrations, "shared"],
] as const;

if (import.meta.main) {
  try {
    if (!(await main())) process.exitCode = 1;
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 1;
  }
}
