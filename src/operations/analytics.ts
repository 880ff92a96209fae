// Operator analytics: runs one SELECT on every shard with the shard's analytics login, which can only read tenants' tables
// (migrations/shared, migrations/branch). Tools have no access to it. Where tenants have schemas of their own, the SELECT runs
// once in each schema. A tenant counts where its rows are in force; a tenant that moves at that moment may be missed or
// counted twice.
import type { Context } from "../control/context.ts";
import { AppError } from "../core/errors.ts";
import { ownName } from "../core/tenant/placement.ts";
import type { Strategy } from "../core/plans/plans.ts";
import type { Statement } from "../core/sql.ts";
import type { TenantId } from "../core/tenant/tenant.ts";
import { describeError, log } from "../log.ts";
import { type AnalyticsShard, placementsStore } from "../control/placements-store.ts";
import { analyticsConnections } from "../tenant-db/dispatch.ts";
import { SqlError } from "../adapters/neon.ts";
import { type Reader, preferReplica } from "../adapters/replica.ts";

/** Time limit of a question over all shards. With the grace below it is less than the 30 s that many clients wait. */
const TIME_LIMIT_MS = 20_000;
/** The database ends a statement at the time limit; the request ends this much later, so that the database's error arrives. */
const GRACE_MS = 2_000;
/** Size of an answer. A larger one is an export, and a Worker's memory holds only a few answers of this size. */
const MAX_ROWS = 10_000;
const MAX_BYTES = 5_000_000;
/** Schemas in one request, with two statements each. More would make one request too slow. */
const SCHEMAS_AT_ONCE = 25;
/** A Worker has six connections at a time; other work needs two of them. */
const SHARDS_AT_ONCE = 4;

export interface AnalyticsAnswer {
  /** `json`: the row as PostgreSQL writes it, with numbers of any size. `tenant`: the owner of the schema, if it has one. */
  rows: { shard: string; tenant: TenantId | null; json: string }[];
  sizeBytes: number;
  /** Whether there are more rows than an answer holds. */
  truncated: boolean;
  shards: ShardReport[];
}

export interface ShardReport {
  id: string;
  strategy: Strategy;
  readFrom: "replica" | "primary";
  rows: number;
  /** Schemas that were read completely: all of them, unless an error occurred or the answer is full. */
  schemas?: number;
  /** Why rows are missing. The database's message is about the operator's own statement, so it may be shown. */
  error?: { sqlState?: string; message: string };
}

type Databases = Pick<Context, "env" | "control">;

/**
 * Runs one SELECT on every shard, or on those of one strategy. A shard that fails reports its error beside the others' rows. Ends
 * soon after `limitMs`.
 */
export async function askAllTenants(
  { env, control }: Databases,
  sql: string,
  strategy: Strategy | null,
  limitMs = TIME_LIMIT_MS,
): Promise<AnalyticsAnswer> {
  const answer: AnalyticsAnswer = { rows: [], sizeBytes: 0, truncated: false, shards: [] };
  const untilMs = Date.now() + limitMs;
  const queue = (await placementsStore(control).analyticsShards(strategy)).values();
  const lane = async (): Promise<void> => {
    for (const shard of queue) await readShard(env, shard, { sql, limitMs, untilMs, answer });
  };
  await Promise.all(Array.from({ length: SHARDS_AT_ONCE }, lane));
  answer.shards.sort((a, b) => (a.id < b.id ? -1 : 1));
  return answer;
}

/** The query, its time limit, and the result that every shard adds rows to. */
interface Asking {
  sql: string;
  limitMs: number;
  untilMs: number;
  answer: AnalyticsAnswer;
}

/** Where a SELECT runs. */
interface Scope {
  schema: string;
  tenant: TenantId | null;
}

interface FoundRow {
  /** `null`: the row exceeds the requested size. */
  json: string | null;
  sizeBytes: number;
}

async function readShard(env: Env, shard: AnalyticsShard, asking: Asking): Promise<void> {
  const { id, strategy } = shard;
  const { answer } = asking;
  const report: ShardReport = { id, strategy, readFrom: shard.replicaHost === null ? "primary" : "replica", rows: 0 };
  answer.shards.push(report);
  const scopes: Scope[] =
    strategy === "shared"
      ? [{ schema: "public", tenant: null }]
      : shard.tenants.map((tenant) => ({ schema: ownName(tenant.placementId), tenant: tenant.id }));
  try {
    const { primary, replica } = await analyticsConnections(env, shard);
    const read = preferReplica({
      primary,
      replica,
      now: () => Date.now(),
      onAway: () => (report.readFrom = "primary"),
    });
    if (strategy !== "shared") report.schemas = 0;
    for (let at = 0; at < scopes.length && !answer.truncated; at += SCHEMAS_AT_ONCE) {
      const some = scopes.slice(at, at + SCHEMAS_AT_ONCE);
      const found = await ask(read, some, shard.copies, asking);
      for (const [index, scope] of some.entries()) {
        const rows = found[index] ?? [];
        // The schema's share of the answer was too small. Alone it can use all that is left.
        const [all = []] =
          some.length > 1 && rows.some(({ json }) => json === null)
            ? await ask(read, [scope], shard.copies, asking)
            : [rows];
        report.rows += take(answer, { shard: id, tenant: scope.tenant }, all);
        if (report.schemas !== undefined && !answer.truncated) report.schemas += 1;
      }
    }
  } catch (error) {
    log("warn", "analytics_shard_failed", { shardId: id, error: describeError(error) });
    report.error = describe(error, asking);
  }
}

/** Runs the SELECT in each of these scopes, in one read-only transaction. `leftOut`: tenants whose rows do not count. */
async function ask(
  read: Reader,
  scopes: readonly Scope[],
  leftOut: readonly string[],
  { sql, untilMs, answer }: Asking,
): Promise<FoundRow[][]> {
  const leftMs = untilMs - Date.now();
  if (leftMs <= 0) throw new AppError("database_unavailable", "the time limit passed before this was read");
  const select = bounded(sql, {
    rows: MAX_ROWS - answer.rows.length,
    sizeBytes: Math.floor((MAX_BYTES - answer.sizeBytes) / scopes.length),
  });
  const opening: Statement[] = [
    { text: "SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY" },
    { text: "RESET ALL" }, // settings that an earlier question left on this pooled connection
    {
      text: "SELECT set_config('statement_timeout', $1, true), set_config('tollgate.left_out', $2, true)",
      params: [String(leftMs), leftOut.join(",")],
    },
  ];
  const statements = scopes.flatMap(({ schema }): Statement[] => [
    { text: "SELECT set_config('search_path', format('pg_catalog, %I, pg_temp', $1::text), true)", params: [schema] },
    { text: select },
  ]);
  const signal = AbortSignal.timeout(leftMs + GRACE_MS);
  const results = await read((connection) => connection.batch([...opening, ...statements], { signal }), signal);
  return scopes.map((_, index) =>
    (results[opening.length + 2 * index + 1] ?? []).map(({ json, sizeBytes }) => ({
      json: typeof json === "string" ? json : null,
      sizeBytes: Number(sizeBytes),
    })),
  );
}

/**
 * Wraps the SELECT as a subquery that returns rows as JSON, up to a number and a total size. The first row over the limit
 * comes without its text. As a subquery, a statement that is not a SELECT is a syntax error.
 */
function bounded(sql: string, { rows, sizeBytes }: { rows: number; sizeBytes: number }): string {
  return `SELECT CASE WHEN place <= ${rows} AND total <= ${sizeBytes} THEN json END AS json, octet_length(json) AS "sizeBytes"
    FROM (SELECT json, row_number() OVER () AS place, sum(octet_length(json)) OVER (ROWS UNBOUNDED PRECEDING) AS total
          FROM (SELECT to_json(question.*)::text AS json FROM (
${sql.replace(/;\s*$/, "")}
          ) AS question LIMIT ${rows + 1}) AS page) AS counted
    WHERE total - octet_length(json) <= ${sizeBytes}`;
}

/** Adds rows to the answer until it is full. Returns how many were added. */
function take(
  answer: AnalyticsAnswer,
  from: { shard: string; tenant: TenantId | null },
  rows: readonly FoundRow[],
): number {
  let taken = 0;
  for (const { json, sizeBytes } of rows) {
    // Another shard may have filled the answer since these rows were requested.
    answer.truncated ||= json === null || answer.rows.length >= MAX_ROWS || answer.sizeBytes + sizeBytes > MAX_BYTES;
    if (answer.truncated || json === null) break;
    answer.rows.push({ ...from, json });
    answer.sizeBytes += sizeBytes;
    taken += 1;
  }
  return taken;
}

function describe(error: unknown, { limitMs, untilMs }: Asking): { sqlState?: string; message: string } {
  const tooLong = `The question takes longer than the ${limitMs / 1_000} s that it may take over all shards. Ask for less, or name one strategy.`;
  if (error instanceof SqlError && error.sqlState === "57014") return { sqlState: error.sqlState, message: tooLong };
  if (Date.now() >= untilMs && !(error instanceof SqlError)) return { message: tooLong };
  if (error instanceof SqlError) {
    const { sqlState, cause, message } = error;
    return { sqlState, message: cause instanceof Error ? cause.message : message };
  }
  return { message: error instanceof AppError ? error.message : "The shard could not be read." };
}
