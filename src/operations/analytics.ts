// Answers the operator's questions about all tenants: one SELECT on every shard, by the shard's analytics login, which reads
// tenants' tables and does nothing else (migrations/shared/0007_analytics.sql, migrations/branch/0004_analytics.sql). Tools
// have no way here. Where tenants have schemas of their own, the SELECT runs once in each. A tenant is counted where its
// rows are in force; one that is just then changing its place may be missed, or counted twice.
import { AppError } from "../core/errors.ts";
import { ownName } from "../core/placement.ts";
import type { Strategy } from "../core/plans.ts";
import type { Statement } from "../core/sql.ts";
import type { TenantId } from "../core/tenant.ts";
import { describeError, log } from "../log.ts";
import { type AnalyticsShard, placementsOf } from "../control/placements-store.ts";
import { analyticsConnections } from "../tenant-db/dispatch.ts";
import { canaryTenants } from "../tenant-db/isolation.ts";
import { SqlError } from "../adapters/neon.ts";
import { type Reader, preferReplica } from "../adapters/replica.ts";

/** For all shards together: what an operator waits for, and a Worker may. */
const TIME_LIMIT_MS = 30_000;
/** After which it is not the database that has ended a statement. */
const GRACE_MS = 2_000;
/** Of an answer: more is an export, and no Worker's memory holds many of these. */
const MAX_ROWS = 10_000;
const MAX_BYTES = 5_000_000;
/** Schemas in one request: two statements each. */
const SCHEMAS_AT_ONCE = 25;
/** A Worker has six connections at a time, and others need some. */
const SHARDS_AT_ONCE = 4;

export interface AnalyticsAnswer {
  /** `json`: the row as PostgreSQL writes it, numbers of any size included. `tenant`: whose schema it is from, if one's. */
  rows: { shard: string; tenant: TenantId | null; json: string }[];
  sizeBytes: number;
  /** There are more rows than an answer holds. */
  truncated: boolean;
  shards: ShardReport[];
}

export interface ShardReport {
  id: string;
  strategy: Strategy;
  readFrom: "replica" | "primary";
  rows: number;
  /** Schemas that were read to the end; all of them unless there is an error or the answer is full. */
  schemas?: number;
  /** Why there are no rows, or no more. The database's words are about the operator's own statement. */
  error?: { sqlState?: string; message: string };
}

/** What of the environment all shards are read with. */
export type AnalyticsEnv = Pick<Env, "CONTROL_DATABASE_URL" | "NEON_FETCH_ENDPOINT" | "ENCRYPTION_KEYS">;

/** Runs one SELECT on every shard, or on those of one strategy. A shard that fails says so beside the others' rows. */
export async function askAllTenants(
  env: AnalyticsEnv,
  sql: string,
  strategy: Strategy | null,
): Promise<AnalyticsAnswer> {
  const answer: AnalyticsAnswer = { rows: [], sizeBytes: 0, truncated: false, shards: [] };
  const untilMs = Date.now() + TIME_LIMIT_MS;
  const queue = (await placementsOf(env).analyticsShards(strategy)).values();
  const lane = async (): Promise<void> => {
    for (const shard of queue) await readShard(env, shard, { sql, untilMs, answer });
  };
  await Promise.all(Array.from({ length: SHARDS_AT_ONCE }, lane));
  answer.shards.sort((a, b) => (a.id < b.id ? -1 : 1));
  return answer;
}

/** What all shards share: one question, one time limit, one answer that fills. */
interface Asking {
  sql: string;
  untilMs: number;
  answer: AnalyticsAnswer;
}

/** Where a SELECT runs. */
interface Place {
  schema: string;
  tenant: TenantId | null;
}

interface FoundRow {
  /** `null`: it is beyond what was asked for. */
  json: string | null;
  sizeBytes: number;
}

async function readShard(env: AnalyticsEnv, shard: AnalyticsShard, asking: Asking): Promise<void> {
  const { id, strategy } = shard;
  const { answer } = asking;
  const report: ShardReport = { id, strategy, readFrom: shard.replicaHost === null ? "primary" : "replica", rows: 0 };
  answer.shards.push(report);
  const places: Place[] =
    strategy === "shared"
      ? [{ schema: "public", tenant: null }]
      : shard.tenants.map((tenant) => ({ schema: ownName(tenant.placementId), tenant: tenant.id }));
  const leftOut = [...canaryTenants, ...shard.copies];
  try {
    const { primary, replica } = await analyticsConnections(env, shard);
    const read = preferReplica({
      primary,
      replica,
      now: () => Date.now(),
      onAway: () => (report.readFrom = "primary"),
    });
    if (strategy !== "shared") report.schemas = 0;
    for (let at = 0; at < places.length && !answer.truncated; at += SCHEMAS_AT_ONCE) {
      const some = places.slice(at, at + SCHEMAS_AT_ONCE);
      const found = await ask(read, some, leftOut, asking);
      for (const [index, place] of some.entries()) {
        const rows = found[index] ?? [];
        // Its share of the answer is too small; alone it has all that is left.
        const [all = []] =
          some.length > 1 && rows.some(({ json }) => json === null)
            ? await ask(read, [place], leftOut, asking)
            : [rows];
        report.rows += take(answer, { shard: id, tenant: place.tenant }, all);
        if (report.schemas !== undefined && !answer.truncated) report.schemas += 1;
      }
    }
  } catch (error) {
    log("warn", "analytics_shard_failed", { shardId: id, error: describeError(error) });
    report.error = inWords(error);
  }
}

/** Runs the SELECT in each of these places, in one transaction that cannot write. */
async function ask(
  read: Reader,
  places: readonly Place[],
  leftOut: readonly string[],
  { sql, untilMs, answer }: Asking,
): Promise<FoundRow[][]> {
  const leftMs = untilMs - Date.now();
  if (leftMs <= 0) throw new AppError("database_unavailable", "the time was up before this was read");
  const select = bounded(sql, {
    rows: MAX_ROWS - answer.rows.length,
    sizeBytes: Math.floor((MAX_BYTES - answer.sizeBytes) / places.length),
  });
  const opening: Statement[] = [
    { text: "SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY" },
    { text: "RESET ALL" }, // what an earlier question left on this pooled connection
    {
      text: "SELECT set_config('statement_timeout', $1, true), set_config('tollgate.left_out', $2, true)",
      params: [String(leftMs), leftOut.join(",")],
    },
  ];
  const statements = places.flatMap(({ schema }): Statement[] => [
    { text: "SELECT set_config('search_path', format('pg_catalog, %I, pg_temp', $1::text), true)", params: [schema] },
    { text: select },
  ]);
  const signal = AbortSignal.timeout(leftMs + GRACE_MS);
  const results = await read((connection) => connection.batch([...opening, ...statements], { signal }), signal);
  return places.map((_, index) =>
    (results[opening.length + 2 * index + 1] ?? []).map(({ json, sizeBytes }) => ({
      json: typeof json === "string" ? json : null,
      sizeBytes: Number(sizeBytes),
    })),
  );
}

/**
 * The SELECT as a subquery, whose rows come as JSON and end when there are more, or more of them, than asked for: the
 * first that is too much comes without its text. A statement that is no SELECT is none here either.
 */
function bounded(sql: string, { rows, sizeBytes }: { rows: number; sizeBytes: number }): string {
  return `SELECT CASE WHEN place <= ${rows} AND total <= ${sizeBytes} THEN json END AS json, octet_length(json) AS "sizeBytes"
    FROM (SELECT json, row_number() OVER () AS place, sum(octet_length(json)) OVER (ROWS UNBOUNDED PRECEDING) AS total
          FROM (SELECT to_json(question.*)::text AS json FROM (
${sql.replace(/;\s*$/, "")}
          ) AS question LIMIT ${rows + 1}) AS page) AS counted
    WHERE total - octet_length(json) <= ${sizeBytes}`;
}

/** Adds rows to the answer until it is full. How many were added. */
function take(
  answer: AnalyticsAnswer,
  from: { shard: string; tenant: TenantId | null },
  rows: readonly FoundRow[],
): number {
  let taken = 0;
  for (const { json, sizeBytes } of rows) {
    // Another shard may have filled it since these were asked for.
    answer.truncated ||= json === null || answer.rows.length >= MAX_ROWS || answer.sizeBytes + sizeBytes > MAX_BYTES;
    if (answer.truncated || json === null) break;
    answer.rows.push({ ...from, json });
    answer.sizeBytes += sizeBytes;
    taken += 1;
  }
  return taken;
}

function inWords(error: unknown): { sqlState?: string; message: string } {
  if (error instanceof SqlError) {
    const { sqlState, cause, message } = error;
    return { sqlState, message: cause instanceof Error ? cause.message : message };
  }
  return { message: error instanceof AppError ? error.message : "It could not be read." };
}
