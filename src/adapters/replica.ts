// Reading from a replica: a copy of the whole server that follows its primary at a distance of moments. Whatever fails on
// the way there is no failure of the reader's, because the primary answers the same; what a replica refuses is refused.
import { errorCode } from "../core/errors.ts";
import type { ReplicaState } from "../operations/health-checks.ts";
import { type NeonConnection, SqlError } from "./neon.ts";

/** Reads with one of the connections. Abandoned when `signal` is aborted. */
export type Reader = <Result>(
  work: (connection: NeonConnection) => Promise<Result>,
  signal?: AbortSignal,
) => Promise<Result>;

export interface ReaderOptions {
  primary: NeonConnection;
  /** Without one, the primary is read from. */
  replica: NeonConnection | undefined;
  now: () => number;
  /** Told when the replica did not answer or turned us away. */
  onAway: (error: unknown) => void;
}

/** A replica that is away is left alone for so long: it may take seconds to find out that it still is. */
const AWAY_MS = 10_000;

/** Reads from the replica as long as it can be reached, otherwise from the primary. `work` only reads: it may run on both. */
export function preferReplica({ primary, replica, now, onAway }: ReaderOptions): Reader {
  let awayUntilMs = 0;
  return async (work, signal) => {
    if (replica === undefined || now() < awayUntilMs) return work(primary);
    try {
      return await work(replica);
    } catch (error) {
      const refused = error instanceof SqlError || errorCode(error) !== "database_unavailable";
      if (refused || signal?.aborted === true) throw error;
      awayUntilMs = now() + AWAY_MS;
      onAway(error);
      return work(primary);
    }
  };
}

/** A replica that is behind is looked at once more after this long: it usually was only on its way. */
const SECOND_LOOK_MS = 1_000;
/** A replica that is there answers in milliseconds, one that wakes up in a second. */
const ANSWER_WITHIN_MS = 2_000;

/**
 * Whether a replica still follows, and how old what it shows is: 0 when it has all that was committed before it was asked,
 * otherwise the time since the last commit that it shows, which is more than its delay if little is written. Throws
 * `AppError` when it or its primary does not answer.
 */
export async function lookAtReplica(primary: NeonConnection, replica: NeonConnection): Promise<ReplicaState> {
  const [committed] = await primary.query(`SELECT pg_current_wal_flush_lsn()::text AS position`);
  const look = async () => {
    const [row] = await replica.query(
      `SELECT pg_is_in_recovery() AS follows, pg_last_wal_replay_lsn() >= $1::pg_lsn AS "hasAll",
              ceil(extract(epoch FROM now() - coalesce(pg_last_xact_replay_timestamp(), pg_postmaster_start_time())))::int AS age`,
      [committed?.["position"]],
      { signal: AbortSignal.timeout(ANSWER_WITHIN_MS) },
    );
    return { inRecovery: row?.["follows"] === true, lagSeconds: row?.["hasAll"] === true ? 0 : Number(row?.["age"]) };
  };
  const first = await look();
  if (!first.inRecovery || first.lagSeconds === 0) return first;
  await new Promise((resolve) => setTimeout(resolve, SECOND_LOOK_MS));
  return look();
}
