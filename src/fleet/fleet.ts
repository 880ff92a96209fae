// How a change of the tenants' own schemas goes through the fleet: which schemas it is for, in which order they are tried,
// what is tried again, when a run stops, and what it says in the end. A schema's version is the name of its last file; the
// files are numbered, so names compare as versions do. Nobody waits for anybody: tenants on different versions are normal.
import * as z from "zod";
import { TenantId } from "../core/tenant.ts";
import type { Difference } from "../tenant-db/branch.ts";

/** What an operator may ask of a run, from a terminal or by the API. */
export const FleetOptions = z.strictObject({
  /** Says what would be done and does nothing. */
  dryRun: z.boolean().default(false),
  /** Schemas at once, each of which takes one connection. A database has some hundred of them, for its tenants. */
  concurrency: z.int().min(1).max(32).default(8),
  /** Who goes first and is waited for: so many, picked by chance, or these. */
  cohort: z.union([z.int().min(0).max(1000), z.array(TenantId).min(1).max(1000)]).default(0),
  /** The run stops when more than this fail: a number, or a share of those tried such as "2%". */
  stopAbove: z
    .union([
      z.int().min(0),
      z.string().regex(/^(\d{1,2}(\.\d{1,2})?|100)%$/, 'a number of schemas, or a share of them such as "2%"'),
    ])
    .default("2%"),
  /** Nobody but these. */
  only: z.array(TenantId).min(1).max(1000).nullable().default(null),
  /** Takes schemas that somebody changed by hand as they are. */
  allowDrift: z.boolean().default(false),
});
export type FleetOptions = z.infer<typeof FleetOptions>;

/** One tenant's schema, and where it is. */
export interface SchemaPlacement {
  placementId: number;
  tenantId: string;
  shardId: string;
  /** `null` before the first file. */
  version: string | null;
}

/** current: it was there already. busy: a table was in use whenever it was tried. */
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

/** The files that a schema of this version lacks. None for one that is ahead of them, made by a newer program. */
export function pendingFiles(files: readonly string[], version: string | null): string[] {
  return files.filter((file) => file > (version ?? ""));
}

// ---- the plan

export interface Plan {
  /** The version that schemas are brought to. */
  target: string;
  pending: number;
  /** Schemas that know files which this program does not. They are left alone. */
  ahead: number;
  /** `oldest` is the version, empty for none, of the pending schema that lacks most. */
  shards: { shardId: string; schemas: number; pending: number; oldest: string }[];
  /** Those who go first. */
  cohort: { placementId: number; tenantId: string }[];
}

export function emptyPlan(target: string): Plan {
  return { target, pending: 0, ahead: 0, shards: [], cohort: [] };
}

/** The plan with some more of the fleet in it. It keeps numbers and the cohort, however large the fleet is. */
export function planned(
  plan: Plan,
  schemas: readonly SchemaPlacement[],
  { cohort }: Pick<FleetOptions, "cohort">,
): Plan {
  const { target } = plan;
  const next = { ...plan, cohort: [...plan.cohort] };
  const shards = new Map(plan.shards.map((shard) => [shard.shardId, { ...shard }]));
  for (const { placementId, tenantId, shardId, version } of schemas) {
    const shard = shards.get(shardId) ?? { shardId, schemas: 0, pending: 0, oldest: target };
    shards.set(shardId, shard);
    shard.schemas += 1;
    const at = version ?? "";
    if (at > target) next.ahead += 1;
    if (at >= target) continue;
    next.pending += 1;
    shard.pending += 1;
    if (at < shard.oldest) shard.oldest = at;
    if (typeof cohort === "number" || cohort.some((id) => id === tenantId)) next.cohort.push({ placementId, tenantId });
  }
  if (typeof cohort === "number") {
    next.cohort = next.cohort
      .toSorted((a, b) => rank(target, a.placementId) - rank(target, b.placementId))
      .slice(0, cohort);
  }
  return { ...next, shards: [...shards.values()] };
}

/** A number by chance (FNV-1a): the same whenever it is asked for, and another for another migration's same tenant. */
function rank(target: string, placementId: number): number {
  let hash = 0x811c9dc5;
  for (const character of `${target}/${placementId}`) {
    hash = Math.imul(hash ^ character.charCodeAt(0), 0x01000193) >>> 0;
  }
  return hash;
}

// ---- one schema

/** How one attempt at one schema went. unreachable: its database turned us away or did not answer. */
export interface Attempt {
  outcome: Outcome | "unreachable";
  sqlState: string | null;
  /** In our words, for whoever reads the report. */
  reason: string | null;
}

/**
 * Longer than the second that an attempt waits for a table, because its tenant waits behind it; together some ten seconds:
 * a schema that is in use for longer is left for another run.
 */
const retryDelaysMs = [1000, 2000, 4000] as const;

/** When to try a schema again after so many tries; `undefined` when trying again would not help. */
export function retryAfterMs({ outcome }: Attempt, tries: number): number | undefined {
  return outcome === "busy" || outcome === "unreachable" ? retryDelaysMs[tries - 1] : undefined;
}

/** SQLSTATE codes and classes, the longer first: https://www.postgresql.org/docs/18/errcodes-appendix.html */
const reasons = [
  ["22004", "one of its files has no text"],
  ["23502", "rows have no value where one is required"],
  ["23505", "rows that exist are not unique"],
  ["23514", "rows that exist break a check"],
  ["40P01", "it and a tenant's statement waited for each other"],
  ["42501", "the owner of the database may not do this"],
  ["42701", "a column of this name exists"],
  ["42703", "a column does not exist"],
  ["42883", "a function does not exist; if it is tollgate.migrate, the database's own migrations come first"],
  ["42P01", "a table does not exist"],
  ["42P07", "a table or an index of this name exists"],
  ["55P03", "a table was in use for too long"],
  ["57014", "it took longer than a schema may take"],
  ["3F", "the schema does not exist"],
  ["22", "a value that exists does not fit"],
  ["23", "rows that exist break a constraint"],
  ["2B", "other objects depend on what it removes"],
  ["42", "it does not fit what is there"],
] as const;

/** What the database's refusal means, without what it said: that may quote rows. */
export function explain(sqlState: string, constraint?: string): string {
  const reason = reasons.find(([code]) => sqlState.startsWith(code))?.[1] ?? "the database refused it";
  return constraint === undefined ? reason : `${reason} (constraint ${constraint})`;
}

/** How a schema was changed by hand, in a line: the first objects, and how many there are. */
export function describeDrift(differences: readonly Difference[]): string {
  const shown = differences.slice(0, 3).map(({ object, expected, found }) => {
    if (expected === null) return `${object} was added`;
    if (found === null) return `${object} is missing`;
    return `${object} is "${shorten(found)}" instead of "${shorten(expected)}"`;
  });
  const more = differences.length - shown.length;
  return `somebody changed it: ${shown.join("; ")}${more > 0 ? `; and ${more} more` : ""}`;
}

function shorten(text: string): string {
  const line = text.replaceAll(/\s+/g, " ");
  return line.length > 120 ? `${line.slice(0, 119)}…` : line;
}

// ---- the run

export const STOPPED_BY_OPERATOR = "the operator stopped it";

/**
 * Why a run must not go on, or `undefined`. What fails or has drifted counts; what was busy says nothing about a change. A
 * share is of those tried: strictly when the cohort has just been tried, which is what it is for; later one failure is
 * always let pass, because it is a large share of the first few.
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

/** What a run has become that has tried everything. */
export function endState(counts: Counts): "done" | "failed" {
  return counts.failed + counts.drifted + counts.busy > 0 ? "failed" : "done";
}
