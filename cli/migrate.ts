// `npm run migrate`: applies the migrations that are missing. First to the control database, then to the shards that the
// control tables or the environment name, last to every tenant's own schema. Refuses a new file that would lock out or break
// the running program, before it changes anything. Every step can be repeated.
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { FleetOptions, changedInShard } from "../src/fleet/fleet.ts";
import { parseKeyRing } from "../src/core/keys/encryption.ts";
import { ownerOfShard } from "../src/core/tenant/placement.ts";
import { migrationId } from "../src/tenant-db/branch.ts";
import {
  controlDatabase,
  giveAnalytics,
  loginOf,
  OWNER,
  prepareControl,
  prepareSharedShard,
  recordShardVersion,
  registerReplica,
  registerShard,
} from "./migrations/prepare.ts";
import {
  type Database,
  changedInSchemas,
  filesIn,
  fleetOfSchemas,
  knownShards,
  refuseChangedIn,
  refuseTakenId,
  refuseUnsafe,
} from "./migrations/databases.ts";
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
import { type Settings, encryptionKeysOf, readVariables } from "./settings.ts";

const help = `npm run migrate -- [status] [flags]

Brings the control database, the shards and then every tenant's own schema up to date.
A run that was killed or stopped is continued by running it again.

  status               shows the fleet: versions, pending files, failures, schemas that were changed by hand
  --dry-run            shows what a run would do or refuse, and changes nothing
  --concurrency N      migrates N schemas at once, 1 to 32 (8)
  --cohort N|ID,ID     first migrates N random tenants, or these; continues only if all succeed (0)
  --stop-above N|N%    stops when more than N schemas, or N% of those tried so far, have failed (2%)
  --only ID,ID         migrates the schemas of these tenants only
  --allow-drift        also migrates schemas that were changed by hand, and accepts their changes
  --tenant-files DIR   reads the app's files for tenants' schemas from DIR (app/migrations)
  --local              migrates the system that \`npm start\` runs in TOLLGATE_DIR (.dev) and ignores the variables below
  --shard ID           names the shard of SHARED_OWNER_URL or SCHEMA_OWNER_URL (shared-1, schema-1)
  --region NAME        names the region of that shard (default)
  --replica [ID=]HOST  sets the replica of that shard, or of shard ID, for analytics; "none" as HOST removes it
  --help               shows this text

Defaults are in parentheses. Variables of the environment or of .dev.vars:
  CONTROL_OWNER_URL      login of the control database's owner; always needed
  ENCRYPTION_KEYS        keys of the stored logins, [{"id":"…","secret":"…"}], newest first; needed when there are shards
  CONTROL_DATABASE_URL   the Worker's login for the control database; the run creates it or sets its password
  SHARED_OWNER_URL       login of a shared shard's owner; needs the next two
  SHARED_APP_URL         the login that tools use there; the run creates it or sets its password
  CONTEXT_KEYS           keys of signed contexts, same form as ENCRYPTION_KEYS; every shared shard gets them
  SCHEMA_OWNER_URL       login of a schema shard's owner
  SHARED_REPLICA_HOST    host of the shared shard's replica
  NEON_FETCH_ENDPOINT    where tenants' schemas are reached over HTTP; empty: Neon's own endpoint
The exit code is 0 when everything is up to date, and 1 when a step failed or was stopped.`;

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
      throw new Error(`There is no command ${[command, ...more].join(" ")}. Leave it out, or use status.`);
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
    const owner = values.shard === undefined ? undefined : ownerOfShard(values.shard);
    if (owner !== undefined)
      throw new Error(
        `--shard: ${values.shard} is a tenant's own database, which Tollgate creates and registers by itself. ` +
          `Leave --shard out: each run migrates it. --only ${owner} migrates this tenant alone`,
      );
    return { ...values, command, options: options.data };
  } catch (error) {
    // Node appends advice on arguments that look like flags. It does not apply here.
    const [message] = (error instanceof Error ? error.message : String(error)).split(". To specify");
    throw new Error(`${message}; see npm run migrate -- --help`, { cause: error });
  }
}

/** The variables that reach the local system with these settings. */
function localVariables(settings: Settings): Record<string, string> {
  const { ports, secrets } = settings;
  return {
    CONTROL_OWNER_URL: `postgresql://${OWNER}:${secrets.ownerPassword}@127.0.0.1:${ports["postgres"]}/${controlDatabase}`,
    ENCRYPTION_KEYS: JSON.stringify(encryptionKeysOf(settings)),
    NEON_FETCH_ENDPOINT: `http://127.0.0.1:${ports["neon"]}/sql`,
  };
}

async function main(): Promise<boolean> {
  const flags = readFlags();
  if (flags.help) {
    print(help);
    return true;
  }
  const variable = readVariables(flags.local ? localVariables : undefined);
  const { options, region } = flags;
  const controlUrl = variable("CONTROL_OWNER_URL");
  if (controlUrl === "")
    throw new Error(
      "Set CONTROL_OWNER_URL, the address of the control database with its owner's login, here or in .dev.vars.",
    );
  const control = { title: "control database", url: controlUrl, series: controlMigrations };
  const encryptionKeys = variable("ENCRYPTION_KEYS");
  const files = readMigrations(
    tenantMigrations.map((series) =>
      series === appSeries ? { ...series, directory: resolve(flags["tenant-files"]) } : series,
    ),
  );
  const fleet = { controlUrl, fetchEndpoint: variable("NEON_FETCH_ENDPOINT"), encryptionKeys, files, options, print };

  // Sets up the shards that the environment names. Updates the other shards that the control tables know.
  const [sharedOwner, schemaOwner] = [variable("SHARED_OWNER_URL"), variable("SCHEMA_OWNER_URL")];
  const sharedId = flags.shard ?? "shared-1";
  const schemaId = sharedOwner === "" ? (flags.shard ?? "schema-1") : "schema-1";
  const named = [
    { id: sharedId, title: `shared shard ${sharedId}`, url: sharedOwner, series: sharedMigrations },
    { id: schemaId, title: `schema shard ${schemaId}`, url: schemaOwner, series: branchMigrations },
  ].filter(({ url }) => url !== "");
  if (flags.shard !== undefined && named.length === 0 && flags.replica === undefined)
    throw new Error(
      `--shard ${flags.shard} names the database of SHARED_OWNER_URL or SCHEMA_OWNER_URL, and neither is set. ` +
        "Leave --shard out: each run migrates all shards that the control database knows.",
    );
  for (const shard of named) await refuseTakenId(controlUrl, shard);
  const read = async (database: Database) => {
    const { applied, pending: lacking } = await filesIn(database);
    return { database, applied, files: lacking };
  };
  const pending = [await read(control)];
  const known = await knownShards(controlUrl, encryptionKeys);
  for (const { id, series } of named) {
    const other = known.find((shard) => shard.id === id && shard.series !== series);
    if (other !== undefined)
      throw new Error(`There is a ${other.title}, whose tables are of another kind. Give --shard another name.`);
  }
  const shards = [...named, ...known.filter(({ id }) => !named.some((shard) => shard.id === id))];
  for (const database of shards) pending.push(await read(database));
  const changed = (
    await Promise.all(
      shards.map(async (database) =>
        (await changedInSchemas(database, files, options.only)).map((each) => changedInShard(database.title, each)),
      ),
    )
  ).flat();

  if (flags.command === "status" || options.dryRun) {
    for (const { database, files: lacking } of pending)
      if (lacking.length > 0) print(`${database.title}: pending ${lacking.map(migrationId).join(", ")}`);
    if (pending[0]?.files.length === 0) await (options.dryRun ? dryRunFleet(fleet) : showFleet(fleet));
    else print("Migrate the control database first: its tables list the tenants' schemas.");
  }
  if (flags.command === "status") {
    for (const line of changed) print(line);
    return true;
  }

  // A dry run refuses what the real one refuses.
  for (const { database, applied } of pending) refuseChangedIn(database, applied);
  if (changed.length > 0) throw new Error(`Nothing was done.\n\n${changed.join("\n")}`);
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
  if (options.dryRun) return true;

  for (const { title, ...database } of [control, ...shards]) {
    print(title);
    await migrate({ ...database, log: print });
  }
  const service = variable("CONTROL_DATABASE_URL");
  if (service !== "") await prepareControl({ ownerUrl: controlUrl, login: loginOf(service) });
  if (sharedOwner !== "") {
    const appUrl = variable("SHARED_APP_URL");
    if (appUrl === "")
      throw new Error("Set SHARED_APP_URL, the address of the shard with the login tollgate_app_a or tollgate_app_b.");
    const contextKeys = parseKeyRing("CONTEXT_KEYS", variable("CONTEXT_KEYS"));
    await prepareSharedShard({ ownerUrl: sharedOwner, logins: [loginOf(appUrl)], contextKeys });
    const place = { controlUrl, encryptionKeys: parseKeyRing("ENCRYPTION_KEYS", encryptionKeys), id: sharedId, region };
    await registerShard({ ...place, strategy: "shared", ownerUrl: sharedOwner, appUrl });
  }
  if (schemaOwner !== "") {
    const place = { controlUrl, encryptionKeys: parseKeyRing("ENCRYPTION_KEYS", encryptionKeys), id: schemaId, region };
    await registerShard({ ...place, strategy: "schema", ownerUrl: schemaOwner, appUrl: undefined });
  }
  for (const { id, series, url: ownerUrl } of shards.slice(named.length)) {
    if (series === sharedMigrations) {
      await recordShardVersion({ controlUrl, id, ownerUrl });
      const contextKeys = variable("CONTEXT_KEYS");
      if (contextKeys !== "")
        await prepareSharedShard({ ownerUrl, logins: [], contextKeys: parseKeyRing("CONTEXT_KEYS", contextKeys) });
    }
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

/** Each kind of database: its series, and the rules by which the linter judges its files. */
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
