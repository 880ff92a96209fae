// The rules of a fleet migration, which runs over all tenants' schemas: which schemas it migrates and in which order, what it
// retries, when it stops and what it reports. A schema's version lists the files that it has, so that a file with a lower
// number that arrives later is pending too. Tenants do not wait for each other: different versions at the same time are normal.
import * as z from "zod";
import { TenantId } from "../core/tenant/tenant.ts";
import { type ChangedFile, type Difference, filesOf, pendingFiles } from "../tenant-db/branch.ts";

/** An operator's options for a run, from a terminal or by the API. */
export const FleetOptions = z.strictObject({
  /** Reports the plan and changes nothing. */
  dryRun: z.boolean().default(false),
  /** Schemas migrated concurrently, with one connection each. A database has about a hundred, which tenants need too. */
  concurrency: z.int().min(1).max(32).default(8),
  /** Schemas that are migrated first: a number of random ones, or these tenants'. The others wait for them. */
  cohort: z.union([z.int().min(0).max(1000), z.array(TenantId).min(1).max(1000)]).default(0),
  /** The run stops when more than this fail: a number, or a share of the tried schemas such as "2%". */
  stopAbove: z
    .union([
      z.int().min(0),
      z.string().regex(/^(\d{1,2}(\.\d{1,2})?|100)%$/, 'a number of schemas, or a share of them such as "2%"'),
    ])
    .default("2%"),
  /** Only these tenants. */
  only: z.array(TenantId).min(1).max(1000).nullable().default(null),
  /** Migrates schemas that were changed outside of migrations, too. */
  allowDrift: z.boolean().default(false),
});
export type FleetOptions = z.infer<typeof FleetOptions>;

/** One tenant's schema and its shard. */
export interface SchemaPlacement {
  placementId: number;
  tenantId: string;
  shardId: string;
  /** `null` before the first file. */
  version: string | null;
}

/** `current`: it had all files already. `busy`: a table was in use at every attempt. */
export const outcomes = ["applied", "current", "failed", "drifted", "busy"] as const;
export type Outcome = (typeof outcomes)[number];
export type Counts = Readonly<Record<Outcome, number>>;

export const noCounts: Counts = { applied: 0, current: 0, failed: 0, drifted: 0, busy: 0 };

export function counted(counts: Counts, outcome: Outcome): Counts {
  return { ...counts, [outcome]: counts[outcome] + 1 };
}

function tried(counts: Counts): number {
  return outcomes.reduce((sum, outcome) => sum + counts[outcome], 0);
}

/** A version in short, for people: the last file of each series. */
export function shortVersion(version: string | null): string {
  const last = new Map(filesOf(version).map((file) => [file.slice(0, file.indexOf("/")), file]));
  return [...last.values()].join(", ") || "none";
}

// ---- the plan

export const Plan = z.object({
  /** The version that schemas are migrated to. */
  target: z.string(),
  pending: z.int(),
  /** Schemas with all files of this program and others that it does not have. The run leaves them alone. */
  ahead: z.int(),
  /** `files`: the files that at least one schema of the shard lacks. */
  shards: z.array(z.object({ shardId: z.string(), schemas: z.int(), pending: z.int(), files: z.array(z.string()) })),
  /** The schemas that are migrated first. */
  cohort: z.array(z.object({ placementId: z.int(), tenantId: z.string() })),
});
export type Plan = z.infer<typeof Plan>;

export function emptyPlan(target: string): Plan {
  return { target, pending: 0, ahead: 0, shards: [], cohort: [] };
}

/** Adds a page of schemas to the plan. A plan holds counts and the cohort only, so that a large fleet does not enlarge it. */
export function planned(
  plan: Plan,
  schemas: readonly SchemaPlacement[],
  { cohort }: Pick<FleetOptions, "cohort">,
): Plan {
  const { target } = plan;
  const files = filesOf(target);
  const next = { ...plan, cohort: [...plan.cohort] };
  const shards = new Map(plan.shards.map((shard) => [shard.shardId, { ...shard }]));
  for (const { placementId, tenantId, shardId, version } of schemas) {
    const shard = shards.get(shardId) ?? { shardId, schemas: 0, pending: 0, files: [] };
    shards.set(shardId, shard);
    shard.schemas += 1;
    const lacks = pendingFiles(files, version);
    if (lacks.length === 0) {
      if (pendingFiles(filesOf(version), target).length > 0) next.ahead += 1;
      continue;
    }
    next.pending += 1;
    shard.pending += 1;
    shard.files = files.filter((file) => shard.files.includes(file) || lacks.includes(file));
    if (typeof cohort === "number" || cohort.some((id) => id === tenantId)) next.cohort.push({ placementId, tenantId });
  }
  if (typeof cohort === "number") {
    next.cohort = next.cohort
      .toSorted((a, b) => rank(target, a.placementId) - rank(target, b.placementId))
      .slice(0, cohort);
  }
  return { ...next, shards: [...shards.values()] };
}

/** A pseudo-random rank (FNV-1a hash): stable within one migration, different for the same tenant in another migration. */
function rank(target: string, placementId: number): number {
  let hash = 0x811c9dc5;
  for (const character of `${target}/${placementId}`) {
    hash = Math.imul(hash ^ character.charCodeAt(0), 0x01000193) >>> 0;
  }
  return hash;
}

// ---- one schema

/** The result of one attempt at one schema. `unreachable`: its database refused the connection or did not answer. */
export interface Attempt {
  outcome: Outcome | "unreachable";
  sqlState: string | null;
  /** In Tollgate's words, for the report. */
  reason: string | null;
}

/**
 * Each delay is at least the second that an attempt waits for a table, because the tenant's statements queue behind an
 * attempt. All attempts take about ten seconds; a schema that is in use for longer is left to another run.
 */
const retryDelaysMs = [1000, 2000, 4000] as const;

/** Milliseconds until the next attempt, after `tries` attempts; `undefined`: do not retry. */
export function retryAfterMs({ outcome }: Attempt, tries: number): number | undefined {
  return outcome === "busy" || outcome === "unreachable" ? retryDelaysMs[tries - 1] : undefined;
}

/** SQLSTATE codes and classes, the longer first: https://www.postgresql.org/docs/18/errcodes-appendix.html */
const reasons = [
  ["22004", "one of its files has no text"],
  ["23502", "existing rows lack a required value"],
  ["23505", "existing rows are not unique"],
  ["23514", "existing rows break a check"],
  ["40P01", "it and a tenant's statement deadlocked"],
  ["42501", "the owner of the database may not do this"],
  ["42701", "a column of this name exists"],
  ["42703", "a column does not exist"],
  ["42883", "a function does not exist; if it is tollgate.migrate, run the database's own migrations first"],
  ["42P01", "a table does not exist"],
  ["42P07", "a table or an index of this name exists"],
  ["55P03", "a table was in use for too long"],
  ["57014", "it took longer than a schema may take"],
  ["3F", "the schema does not exist"],
  ["22", "a value that exists does not fit"],
  ["23", "existing rows break a constraint"],
  ["2B", "other objects depend on what it removes"],
  ["42", "it does not fit what is there"],
] as const;

/** What an error code means, in Tollgate's words: the database's message may quote rows. */
export function explain(sqlState: string, constraint?: string): string {
  const reason = reasons.find(([code]) => sqlState.startsWith(code))?.[1] ?? "the database refused it";
  return constraint === undefined ? reason : `${reason} (constraint ${constraint})`;
}

/** Describes in one line how a schema was changed outside of migrations: the first three objects and the number of others. */
export function describeDrift(differences: readonly Difference[]): string {
  const shown = differences.slice(0, 3).map(({ object, expected, found }) => {
    if (expected === null) return `${object} was added`;
    if (found === null) return `${object} is missing`;
    return `${object} is "${shorten(found)}" instead of "${shorten(expected)}"`;
  });
  const more = differences.length - shown.length;
  return `it was changed outside of migrations: ${shown.join("; ")}${more > 0 ? `; and ${more} more` : ""}`;
}

function shorten(text: string): string {
  const line = text.replaceAll(/\s+/g, " ");
  return line.length > 120 ? `${line.slice(0, 119)}…` : line;
}

// ---- the run

export const STOPPED_BY_OPERATOR = "the operator stopped it";

/**
 * Why a run must stop, or `undefined`. Failed and drifted schemas count; a busy schema says nothing about the migration. A
 * share is relative to the tried schemas. Right after the cohort it is strict, because the cohort exists to find failures;
 * later one failure is always allowed, because it is a large share of the first few schemas.
 */
export function stopReason(
  stopAbove: FleetOptions["stopAbove"],
  counts: Counts,
  { cohort }: { cohort: number },
): string | undefined {
  const failed = counts.failed + counts.drifted;
  const all = tried(counts);
  const afterCohort = cohort > 0 && all <= cohort;
  if (typeof stopAbove === "number") return failed > stopAbove ? `${failed} of ${all} failed` : undefined;
  const share = Number.parseFloat(stopAbove) / 100;
  const allowed = afterCohort || share === 0 ? share * all : Math.max(share * all, 1);
  if (failed <= allowed) return undefined;
  return `${failed} of ${all} failed, more than ${stopAbove}${afterCohort ? " of the first cohort" : ""}`;
}

/** An applied file that was edited. No run may continue: schemas with one name for two texts cannot be told apart. */
export function changedFile(file: string): string {
  return `${file} has changed since it was applied: undo the change and write a new migration.`;
}

/** The same, with where it was applied. `title`: of the shard. */
export function changedInShard(title: string, { file, schemas }: ChangedFile): string {
  return `${title}, ${schemas} tenants' schemas: ${changedFile(file)}`;
}

/** The state of a run that has tried every schema. */
export function endState(counts: Counts): "done" | "failed" {
  return counts.failed + counts.drifted + counts.busy > 0 ? "failed" : "done";
}
