// The moves in the control tables. A switchover changes the move and the tenant's row in one transaction.
import * as z from "zod";
import { idOfRow, readableList } from "../control/failures-store.ts";
import { Move, moveStates } from "./move.ts";
import { type Strategy, strategies } from "../core/plans/plans.ts";
import { TenantId } from "../core/tenant/tenant.ts";
import { toIso } from "../core/time.ts";
import { placementJson } from "../control/placements-store.ts";
import type { ControlDatabase } from "../adapters/neon.ts";

const moveJson = `jsonb_build_object('id', m.id, 'tenantId', m.tenant_id, 'state', m.state, 'strategy', m.strategy,
  'shardId', m.shard_id, 'from', ${placementJson("m.from_placement")}, 'to', ${placementJson("m.to_placement")}, 'cursor', m.cursor, 'copied', m.copied,
  'mark', m.mark, 'rowsCopied', m.rows_copied, 'rounds', m.rounds, 'attempt', m.attempt, 'pauseMs', m.pause_ms, 'error', m.error)`;

/** A move as the operator sees it. `from` and `to` are shards. */
export const MoveSummary = z.object({
  id: z.int(),
  tenantId: z.string(),
  state: z.enum(moveStates),
  strategy: z.enum(strategies),
  from: z.string(),
  to: z.string().nullable(),
  rowsCopied: z.int(),
  rounds: z.int(),
  pauseMs: z.int().nullable(),
  error: z.string().nullable(),
  startedAt: z.string(),
  movedAt: z.string().nullable(),
  finishedAt: z.string().nullable(),
});
export type MoveSummary = z.infer<typeof MoveSummary>;

export function movesStore(control: ControlDatabase) {
  return {
    /** Opens a move of a tenant that has a placement, unless a move is open. Returns the open move. */
    async open(tenantId: TenantId, to: { strategy: Strategy; shardId: string | null }): Promise<Move | undefined> {
      await control.query(
        `INSERT INTO moves (tenant_id, strategy, shard_id, from_placement)
         SELECT t.id, $2, $3, t.placement_id FROM tenants t WHERE t.id = $1 AND t.placement_id IS NOT NULL AND t.state <> 'gone'
         ON CONFLICT DO NOTHING`,
        [tenantId, to.strategy, to.shardId],
      );
      return this.live(tenantId);
    },

    /** The tenant's open move: one that is running or waits to be confirmed. */
    async live(tenantId: TenantId): Promise<Move | undefined> {
      const [row] = await control.query(
        `SELECT ${moveJson} AS move FROM moves m WHERE m.tenant_id = $1 AND m.state NOT IN ('confirmed', 'undone')`,
        [tenantId],
      );
      return row === undefined ? undefined : Move.parse(row["move"]);
    },

    /**
     * Up to `limit` moves of the tenant, or of all tenants, for an operator, newest first. `before`: those older than this move.
     */
    async history(
      tenantId: TenantId | undefined,
      { before, limit }: { before?: number | undefined; limit: number },
    ): Promise<MoveSummary[]> {
      return readableList(control, limit, MoveSummary, { part: "moves", idOf: idOfRow }, (count) =>
        control.query(
          `SELECT m.id::int AS id, m.tenant_id AS "tenantId", m.state, m.strategy, f.shard_id AS "from", g.shard_id AS "to",
                  m.rows_copied::int AS "rowsCopied", m.rounds, m.pause_ms AS "pauseMs", m.error,
                  ${toIso("m.started_at")} AS "startedAt", ${toIso("m.moved_at")} AS "movedAt",
                  ${toIso("m.finished_at")} AS "finishedAt"
           FROM moves m JOIN placements f ON f.id = m.from_placement LEFT JOIN placements g ON g.id = m.to_placement
           WHERE ($1::text IS NULL OR m.tenant_id = $1) AND ($3::bigint IS NULL OR m.id < $3) ORDER BY m.id DESC LIMIT $2`,
          [tenantId ?? null, count, before ?? null],
        ),
      );
    },

    /**
     * Reserves the placement that a move goes to, on the requested shard or on another shard of the strategy with room,
     * in the tenant's region if it has one. Returns false when no shard has room.
     */
    async reserve(moveId: number): Promise<boolean> {
      const [, , rows = []] = await control.batch([
        {
          text: `SELECT pg_advisory_xact_lock(hashtext('placements.' || strategy)) FROM moves WHERE id = $1`,
          params: [moveId],
        },
        {
          text: `WITH room AS (
                   SELECT m.id AS move_id, m.tenant_id, s.id FROM moves m JOIN placements f ON f.id = m.from_placement
                   JOIN tenants t ON t.id = m.tenant_id JOIN shards s ON s.strategy = m.strategy AND s.host IS NOT NULL AND s.id <> f.shard_id AND (s.strategy <> 'database' OR s.id = 'database-' || m.tenant_id)
                     AND CASE WHEN m.shard_id IS NULL THEN s.accepts AND (s.strategy = 'database' OR t.region IS NULL OR s.region = t.region) ELSE s.id = m.shard_id END
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

    /** Records how far the copy is. */
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
      await control.query(
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

    /** Records why a step failed. `quietMs`: how long no sweep resumes the move. */
    async failed(moveId: number, error: string, quietMs = 0): Promise<void> {
      await control.query(
        `UPDATE moves SET error = $2, progressed_at = now() + make_interval(secs => $3::double precision / 1000) WHERE id = $1`,
        [moveId, error, quietMs],
      );
    },

    /** Starts a new attempt, which invalidates all earlier ones. Returns its number. */
    async nextAttempt(moveId: number): Promise<number> {
      const [row] = await control.query(
        `UPDATE moves SET attempt = attempt + 1, progressed_at = now() WHERE id = $1 RETURNING attempt`,
        [moveId],
      );
      return Number(row?.["attempt"]);
    },

    /**
     * Puts the other placement in force, if this attempt is still the newest. `pausedMs`: how long the tenant has waited so
     * far. Returns whether the other placement is in force. After a lost answer the repetition returns the same.
     */
    async flip(move: Move, attempt: number, mark: string, pausedMs: number): Promise<boolean> {
      const [from, to, state] =
        move.state === "returning" ? [move.to, move.from, "undone"] : [move.from, move.to, "moved"];
      if (from === null || to === null) return false;
      const [, rows = []] = await control.batch([
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

    /** Starts the way back of a finished move. It copies what has changed since the switchover. */
    async goBack(moveId: number): Promise<void> {
      await control.query(
        `UPDATE moves SET state = 'returning', rounds = 0, error = NULL, progressed_at = now() WHERE id = $1 AND state = 'moved'`,
        [moveId],
      );
    },

    async paused(moveId: number, pauseMs: number): Promise<void> {
      await control.query(`UPDATE moves SET pause_ms = greatest(pause_ms, $2) WHERE id = $1`, [moveId, pauseMs]);
    },

    /** Ends the move. `dropped`: the placement that was dropped with it. */
    async finish(moveId: number, state: "confirmed" | "undone", dropped: number | null): Promise<void> {
      await control.batch([
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

    /** Tenants with a running move that has recorded nothing for `silenceMs`. */
    async silent(silenceMs: number, limit: number): Promise<TenantId[]> {
      const rows = await control.query(
        `SELECT tenant_id AS id FROM moves WHERE state IN ('preparing', 'copying', 'returning')
           AND progressed_at < now() - make_interval(secs => $1::double precision / 1000) ORDER BY progressed_at LIMIT $2`,
        [silenceMs, limit],
      );
      return rows.map((row) => TenantId.parse(row["id"]));
    },
  };
}

export type MovesStore = ReturnType<typeof movesStore>;
