// `npm run migrate -- status`: shows the versions of tenants' schemas by shard, and each schema that differs from what its
// last migration left. It reads the schemas in pages, and bounds what it keeps and prints.
import {
  type Comparison,
  type Difference,
  filesOf,
  migrationId,
  openBranch,
  pendingFiles,
} from "../../src/tenant-db/branch.ts";
import type { FleetStore, StoredSchema } from "../../src/fleet/fleet-store.ts";
import { ownerUrl } from "../../src/tenant-db/dispatch.ts";
import { failureOf } from "../../src/fleet/runner.ts";
import { shortVersion } from "../../src/fleet/fleet.ts";
import { type FleetCommand, fleetFor } from "./fleet.ts";

/** Schemas compared in one statement. At about 5 ms each, a statement stays far below its timeout. */
const PAGE = 50;
/** Bound on the tenants of a line, on the differences of a schema, and on the schemas of a shard. A screen holds so much. */
const MOST_NAMED = 20;

/** Prints the status. Names the shards that cannot be reached and shows the others. */
export async function showFleet(command: FleetCommand): Promise<void> {
  const { print } = command;
  const fleet = fleetFor(command);
  // What the newest run could not apply is pending too, also when its files are not in this folder any more.
  const [last] = await fleet.runs({ limit: 1 });
  const isUnfinished = last !== undefined && last.state !== "done" && !last.options.dryRun;
  const ofRun = isUnfinished ? filesOf(last.plan?.target ?? null) : [];
  const files = [...new Set([...command.files.map(migrationId), ...ofRun])];
  const { drifted, lines } = await compareFleet(fleet, command);
  const rows = (await fleet.shards()).map(({ shardId, schemas, versions, failed }) => {
    const behind = Object.entries(versions).filter(([version]) => pendingFiles(files, version).length > 0);
    const pending = behind.reduce((sum, [, n]) => sum + n, 0);
    const known = Object.entries(versions).map(([version, n]) => `${shortVersion(version)} (${n})`);
    return [shardId, ...[schemas, pending, drifted.get(shardId) ?? 0, failed].map(String), known.join(", ")];
  });
  const table = [["shard", "tenants", "pending", "drifted", "failed", "versions"], ...rows];
  const width = (column: number): number => Math.max(...table.map((row) => row[column]?.length ?? 0));
  for (const row of table)
    print(
      row
        .map((cell, column) => cell.padEnd(width(column) + 2))
        .join("")
        .trimEnd(),
    );
  for (const line of lines) print(line);
  if (isUnfinished)
    print(
      `Run ${last.id} ${last.state === "running" ? "is running" : last.state}${last.reason === null ? "" : `: ${last.reason}`}. ` +
        `Its target was ${shortVersion(last.plan?.target ?? null)}. Run npm run migrate again.`,
    );
}

async function compareFleet(fleet: FleetStore, { fetchEndpoint, encryptionKeys }: FleetCommand) {
  const drifted = new Map<string, number>();
  const unreachable = new Map<string, string>();
  /** Tenants by their applied files and by the structure of their schema after the last migration. */
  const alike = new Map<string, { version: string; n: number; tenants: string[] }>();
  const lines: string[] = [];

  const compare = async (schemas: readonly StoredSchema[]): Promise<Map<number, Comparison>> => {
    const [first] = schemas;
    if (first === undefined) return new Map();
    const branch = openBranch(await ownerUrl({ ENCRYPTION_KEYS: encryptionKeys }, first.shard), fetchEndpoint, []);
    const compared = await branch.compare(schemas.map(({ placementId }) => placementId));
    return new Map(compared.map((comparison) => [comparison.placementId, comparison]));
  };
  const note = ({ tenantId, shardId, version }: StoredSchema, comparison: Comparison | undefined): void => {
    const group = `${version} ${comparison?.mark}`;
    const { n, tenants } = alike.get(group) ?? { n: 0, tenants: new Array<string>() };
    if (tenants.length < MOST_NAMED) tenants.push(tenantId);
    alike.set(group, { version: shortVersion(version), n: n + 1, tenants });
    const differences = comparison === undefined ? notThere : comparison.differences;
    if (differences === null) return;
    const before = drifted.get(shardId) ?? 0;
    drifted.set(shardId, before + 1);
    if (before < MOST_NAMED) lines.push(...describe(`${tenantId} on ${shardId}`, differences));
  };

  for (let after = 0, more = true; more;) {
    const page = await fleet.schemas({ after, limit: PAGE });
    after = page.at(-1)?.placementId ?? after;
    more = page.length === PAGE;
    for (const [shardId, schemas] of Map.groupBy(page, (schema) => schema.shardId)) {
      try {
        const compared = await compare(schemas);
        for (const schema of schemas) note(schema, compared.get(schema.placementId));
      } catch (error) {
        unreachable.set(shardId, `${shardId} could not be compared: ${failureOf(error).reason}`);
      }
    }
  }
  for (const groups of Map.groupBy(alike.values(), ({ version }) => version).values()) {
    const [most, ...others] = groups.toSorted((a, b) => b.n - a.n);
    for (const { version, n, tenants } of others)
      lines.push("", `${version}: ${n} unlike the ${most?.n} others after their migrations: ${tenants.join(", ")}`);
  }
  return { drifted, lines: [...lines, ...unreachable.values()] };
}

const notThere: readonly Difference[] = [{ object: "schema", expected: "exists", found: null }];

function describe(who: string, differences: readonly Difference[]): string[] {
  const shown = differences
    .slice(0, MOST_NAMED)
    .flatMap(({ object, expected, found }) => [
      `  ${object}`,
      `    expected  ${expected ?? "nothing"}`,
      `    found     ${found ?? "nothing"}`,
    ]);
  const more = differences.length > MOST_NAMED ? [`  and ${differences.length - MOST_NAMED} more`] : [];
  return ["", `${who} differs from what its last migration left:`, ...shown, ...more];
}
