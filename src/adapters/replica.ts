// Reads from a replica: a copy of a database server that is moments behind its primary. When the replica cannot be reached,
// the primary answers, so that readers see no failure. An error of the statement itself is thrown, not retried.
import { type ErrorCode, errorCode } from "../core/errors.ts";
import { type NeonConnection, SqlError } from "./neon.ts";

/** Runs `work` with one of the connections. An abort of `signal` ends the attempts. */
export type Reader = <Result>(
  work: (connection: NeonConnection) => Promise<Result>,
  signal?: AbortSignal,
) => Promise<Result>;

export interface ReaderOptions {
  primary: NeonConnection;
  /** `undefined`: always read from the primary. */
  replica: NeonConnection | undefined;
  now: () => number;
  /** Called when the replica did not answer or refused the connection. */
  onAway: (error: unknown) => void;
}

/** How long an unreachable replica is not asked again. Each failed attempt can cost seconds. */
const AWAY_MS = 10_000;

const outages: ReadonlySet<ErrorCode> = new Set(["database_unavailable", "database_silent"]);

/** Reads from the replica while it can be reached, otherwise from the primary. `work` may run on both, so it only reads. */
export function preferReplica({ primary, replica, now, onAway }: ReaderOptions): Reader {
  let awayUntilMs = 0;
  return async (work, signal) => {
    if (replica === undefined || now() < awayUntilMs) return work(primary);
    try {
      return await work(replica);
    } catch (error) {
      const refused = error instanceof SqlError || !outages.has(errorCode(error));
      if (refused || signal?.aborted === true) throw error;
      awayUntilMs = now() + AWAY_MS;
      onAway(error);
      return work(primary);
    }
  };
}

export interface ReplicaState {
  inRecovery: boolean;
  /** Upper bound on the age of the replica's data. */
  lagSeconds: number;
}

/** Delay before a replica that is behind is checked again. Usually it has caught up by then. */
const RECHECK_MS = 1_000;
/** A running replica answers in milliseconds, a waking one within a second. */
const ANSWER_WITHIN_MS = 2_000;

/**
 * Returns whether a replica still follows its primary, and the age of its data: 0 if it has everything that was committed
 * before the question, otherwise the time since its last commit. With few writes that is more than the real delay. Throws
 * `AppError` when the replica or the primary does not answer.
 */
export async function replicaState(primary: NeonConnection, replica: NeonConnection): Promise<ReplicaState> {
  const [committed] = await primary.query(`SELECT pg_current_wal_flush_lsn()::text AS position`);
  const check = async () => {
    const [row] = await replica.query(
      `SELECT pg_is_in_recovery() AS follows, pg_last_wal_replay_lsn() >= $1::pg_lsn AS "hasAll",
              ceil(extract(epoch FROM now() - coalesce(pg_last_xact_replay_timestamp(), pg_postmaster_start_time())))::int AS age`,
      [committed?.["position"]],
      { signal: AbortSignal.timeout(ANSWER_WITHIN_MS) },
    );
    return { inRecovery: row?.["follows"] === true, lagSeconds: row?.["hasAll"] === true ? 0 : Number(row?.["age"]) };
  };
  const first = await check();
  if (!first.inRecovery || first.lagSeconds === 0) return first;
  await new Promise((resolve) => setTimeout(resolve, RECHECK_MS));
  return check();
}
