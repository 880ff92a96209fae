// Reading from a replica: a copy of a whole server that follows its primary within moments. When the replica is away, the
// primary answers instead, so that readers see no failure. A statement that the replica refuses is refused.
import { errorCode } from "../core/errors.ts";
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

/** How long a replica that was away is not tried again: finding out that it still is can take seconds. */
const AWAY_MS = 10_000;

/** Reads from the replica while it can be reached, otherwise from the primary. `work` may run on both, so it only reads. */
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

export interface ReplicaState {
  inRecovery: boolean;
  /** Upper bound on the age of what the replica shows. */
  lagSeconds: number;
}

/** A replica that is behind gets a second look after this time: usually it has caught up by then. */
const SECOND_LOOK_MS = 1_000;
/** A running replica answers in milliseconds, a waking one within a second. */
const ANSWER_WITHIN_MS = 2_000;

/**
 * Whether a replica still follows its primary, and how old its data is: 0 when it has everything that was committed before
 * the question, otherwise the time since the last commit that it shows. When little is written, that is more than its real
 * delay. Throws `AppError` when the replica or the primary does not answer.
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
