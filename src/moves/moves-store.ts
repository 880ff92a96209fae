// The control tables' rows of moves. What a change-over decides stands in one transaction with the tenant's row.
import { Move, type MoveState } from "./move.ts";
import type { Strategy } from "../core/plans.ts";
import type { TenantId } from "../core/tenant.ts";
import { placementJson } from "../control/placements-store.ts";
import { instant } from "../control/tenants-store.ts";
import type { ControlDatabase } from "../adapters/neon.ts";

const moveJson = `jsonb_build_object('id', m.id, 'tenantId', m.tenant_id, 'state', m.state, 'strategy', m.strategy,
  'shardId', m.shard_id, 'from', ${placementJson("m.from_placement")}, 'to', ${placementJson("m.to_placement")}, 'cursor', m.cursor, 'copied', m.copied,
  'mark', m.mark, 'rowsCopied', m.rows_copied, 'rounds', m.rounds, 'attempt', m.attempt, 'pauseMs', m.pause_ms, 'error', m.error)`;

export interface MoveSummary {
  id: number;
  tenantId: string;
  state: MoveState;
  from: string;
  to: string | null;
  strategy: Strategy;
  rowsCopied: number;
  rounds: number;
  pauseMs: number | null;
  error: string | null;
  startedAt: string;
  movedAt: string | null;
  finishedAt: string | null;
}

export function movesStore(db: ControlDatabase) {
  return {
    /** Opens a move of a placed tenant, unless one is going on. Returns the one that is open now. */
    async open(tenantId: TenantId, to: { strategy: Strategy; shardId: string | null }): Promise<Move | undefined> {
      await db.query(
        `INSERT INTO moves (tenant_id, strategy, shard_id, from_placement)
         SELECT t.id, $2, $3, t.placement_id FROM tenants t WHERE t.id = $1 AND t.placement_id IS NOT NULL AND t.state <> 'gone'
         ON CONFLICT DO NOTHING`,
        [tenantId, to.strategy, to.shardId],
      );
      return this.live(tenantId);
    },

    /** The tenant's move that is going on or waits to be confirmed. */
    async live(tenantId: TenantId): Promise<Move | undefined> {
      const [row] = await db.query(
        `SELECT ${moveJson} AS move FROM moves m WHERE m.tenant_id = $1 AND m.state NOT IN ('confirmed', 'undone')`,
        [tenantId],
      );
      return row === undefined ? undefined : Move.parse(row["move"]);
    },

    /** The tenant's moves, newest first, in words for an operator. */
    async history(tenantId: TenantId): Promise<MoveSummary[]> {
      const rows = await db.query(
        `SELECT m.id::int AS id, m.tenant_id AS "tenantId", m.state, m.strategy, f.shard_id AS "from", g.shard_id AS "to",
                m.rows_copied::int AS "rowsCopied", m.rounds, m.pause_ms AS "pauseMs", m.error,
                ${instant("m.started_at")} AS "startedAt", ${instant("m.moved_at")} AS "movedAt",
                ${instant("m.finished_at")} AS "finishedAt"
         FROM moves m JOIN placements f ON f.id = m.from_placement LEFT JOIN placements g ON g.id = m.to_placement
         WHERE m.tenant_id = $1 ORDER BY m.id DESC LIMIT 50`,
        [tenantId],
      );
      return rows as unknown as MoveSummary[];
    },

    /**
     * Reserves the place that a move goes to: a shard of its strategy with room, other than the one it leaves; the one
     * that was asked for, if one was. Returns false when there is none.
     */
    async reserve(moveId: number): Promise<boolean> {
      const [, , rows = []] = await db.batch([
        {
          text: `SELECT pg_advisory_xact_lock(hashtext('placements.' || strategy)) FROM moves WHERE id = $1`,
          params: [moveId],
        },
        {
          text: `WITH room AS (
                   SELECT m.id AS move_id, m.tenant_id, s.id FROM moves m JOIN placements f ON f.id = m.from_placement
                   JOIN shards s ON s.strategy = m.strategy AND s.host IS NOT NULL AND s.id <> f.shard_id AND (s.strategy <> 'database' OR s.id = 'database-' || m.tenant_id)
                     AND CASE WHEN m.shard_id IS NULL THEN s.accepts ELSE s.id = m.shard_id END
                   CROSS JOIN LATERAL (SELECT count(*) AS tenants FROM placements p
                                       WHERE p.shard_id = s.id AND p.state <> 'dropped') AS held
                   WHERE m.id = $1 AND m.to_placement IS NULL AND held.tenants < s.capacity
                   ORDER BY CASE WHEN s.strategy = 'shared' THEN held.tenants ELSE -held.tenants END, s.id LIMIT 1),
                 placed AS (INSERT INTO placements (tenant_id, shard_id) SELECT tenant_id, id FROM room RETURNING id)
                 UPDATE moves SET to_placement = placed.id FROM placed WHERE moves.id = $1`,
          params: [moveId],
        },
        { text: `SELECT FROM moves WHERE id = $1 AND to_placement IS NOT NULL`, params: [moveId] },
      ]);
      return rows.length > 0;
    },

    /** Notes how far the copy is. `null` leaves a value as it is. */
    async progress(
      moveId: number,
      now: {
        state: "preparing" | "copying" | "returning";
        cursor: Move["cursor"];
        copied: boolean;
        mark: string | null;
        rows: number;
        round: boolean;
      },
    ): Promise<void> {
      await db.query(
        `UPDATE moves SET cursor = $3::jsonb, copied = $4, mark = $5, rows_copied = rows_copied + $6,
                rounds = rounds + CASE WHEN $7::boolean THEN 1 ELSE 0 END,
                state = CASE WHEN $2 = 'copying' THEN 'copying' ELSE state END, error = NULL, progressed_at = now()
         WHERE id = $1 AND state IN ('preparing', 'copying', 'returning')`,
        [
          moveId,
          now.state,
          now.cursor === null ? null : JSON.stringify(now.cursor),
          now.copied,
          now.mark,
          now.rows,
          now.round,
        ],
      );
    },

    async failed(moveId: number, error: string): Promise<void> {
      await db.query(`UPDATE moves SET error = $2, progressed_at = now() WHERE id = $1`, [moveId, error]);
    },

    /** Begins an attempt at the change-over, or breaks off those that are under way. Returns its number. */
    async nextAttempt(moveId: number): Promise<number> {
      const [row] = await db.query(
        `UPDATE moves SET attempt = attempt + 1, progressed_at = now() WHERE id = $1 RETURNING attempt`,
        [moveId],
      );
      return Number(row?.["attempt"]);
    },

    /**
     * Puts the other place in force, if this attempt is still the newest one. `pausedMs`: for how long the tenant has
     * waited by now. Returns whether the other place is in
     * force now; repeating it after a lost answer says the same.
     */
    async flip(move: Move, attempt: number, mark: string, pausedMs: number): Promise<boolean> {
      const [from, to, state] =
        move.state === "returning" ? [move.to, move.from, "undone"] : [move.from, move.to, "moved"];
      if (from === null || to === null) return false;
      const [, rows = []] = await db.batch([
        {
          text: `WITH flipped AS (
                   UPDATE moves SET state = $4, moved_at = now(), mark = $6, pause_ms = $8, progressed_at = now(),
                          finished_at = CASE WHEN $4 = 'undone' THEN now() END
                   WHERE id = $1 AND attempt = $5 AND state = $7 RETURNING tenant_id)
                 UPDATE tenants t SET placement_id = $3, version = version + 1 FROM flipped
                 WHERE t.id = flipped.tenant_id AND t.placement_id = $2`,
          params: [move.id, from.id, to.id, state, attempt, mark, move.state, pausedMs],
        },
        { text: `SELECT FROM tenants WHERE id = $1 AND placement_id = $2`, params: [move.tenantId, to.id] },
      ]);
      return rows.length > 0;
    },

    /** Sends a moved tenant back: the same, the other way round, from where the old copy stopped being written. */
    async goBack(moveId: number): Promise<void> {
      await db.query(
        `UPDATE moves SET state = 'returning', rounds = 0, error = NULL, progressed_at = now() WHERE id = $1 AND state = 'moved'`,
        [moveId],
      );
    },

    async paused(moveId: number, pauseMs: number): Promise<void> {
      await db.query(`UPDATE moves SET pause_ms = greatest(pause_ms, $2) WHERE id = $1`, [moveId, pauseMs]);
    },

    /** The move is over, and the place that it leaves is gone. */
    async finish(moveId: number, state: "confirmed" | "undone", dropped: number | null): Promise<void> {
      await db.batch([
        {
          text: `UPDATE placements SET state = 'dropped', dropped_at = now(), login = NULL WHERE id = $1`,
          params: [dropped],
        },
        {
          text: `UPDATE moves SET state = $2, finished_at = coalesce(finished_at, now()), progressed_at = now() WHERE id = $1`,
          params: [moveId, state],
        },
      ]);
    },

    /** Moves that should be going on and have been silent for `silenceMs`. */
    async silent(silenceMs: number, limit: number): Promise<TenantId[]> {
      const rows = await db.query(
        `SELECT tenant_id AS id FROM moves WHERE state IN ('preparing', 'copying', 'returning')
           AND progressed_at < now() - make_interval(secs => $1::double precision / 1000) ORDER BY progressed_at LIMIT $2`,
        [silenceMs, limit],
      );
      return rows.map((row) => row["id"] as TenantId);
    },
  };
}

export type MovesStore = ReturnType<typeof movesStore>;
