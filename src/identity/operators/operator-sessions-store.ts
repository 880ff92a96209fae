// Browser sessions of the operator's people in the control tables. A row has the digest of the session's token, never the token.
import * as z from "zod";
import type { ControlDatabase } from "../../adapters/neon.ts";
import { type Operator, operatorRoles } from "../../core/actor.ts";
import { sha256Hex } from "../../core/keys/credentials.ts";
import { fromMs, toIso } from "../../core/time.ts";
import type { PageQuery } from "../../http.ts";
import { endSessionOfToken, isLive, shortId, touchSession } from "../sessions/session-rows.ts";

const TABLE = "operator_sessions";

const OperatorSession = z.object({
  operatorId: z.string(),
  name: z.string(),
  role: z.enum(operatorRoles),
  through: z.enum(["oidc", "token"]),
  /** The issuer, or a digest of the operator token and the session's token. */
  boundTo: z.string(),
});
export type OperatorSession = z.infer<typeof OperatorSession>;

/** A session as operators see it. The id is a part of the digest: it opens nothing. */
export const OperatorSessionSummary = z.object({
  id: z.string(),
  operator: z.object({ id: z.string(), name: z.string(), role: z.enum(operatorRoles), through: z.string() }),
  startedAt: z.string(),
  lastSeenAt: z.string(),
  expiresAt: z.string(),
});
export type OperatorSessionSummary = z.infer<typeof OperatorSessionSummary>;

export function operatorSessionsStore(control: ControlDatabase) {
  return {
    async start(session: {
      token: string;
      operator: Operator;
      boundTo: string;
      nowMs: number;
      expiresAtMs: number;
    }): Promise<void> {
      const { token, operator, boundTo, nowMs, expiresAtMs } = session;
      await control.query(
        `INSERT INTO operator_sessions
           (id_hash, operator_id, name, role, through, bound_to, created_at, last_seen_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, ${fromMs("$7")}, ${fromMs("$7")}, ${fromMs("$8")})`,
        [
          ...[await sha256Hex(token), operator.id, operator.name, operator.role, operator.through],
          ...[boundTo, nowMs, expiresAtMs],
        ],
      );
    },

    /** The session of a token, which this use prolongs; `undefined` when it has ended. `idleMs`: the oldest last use. */
    async find(token: string, nowMs: number, idleMs: number): Promise<OperatorSession | undefined> {
      const columns = `operator_id AS "operatorId", name, role, through, bound_to AS "boundTo"`;
      const row = await touchSession(control, TABLE, { token, nowMs, idleMs, columns });
      return row === undefined ? undefined : OperatorSession.parse(row);
    },

    /** Ends the session of a token. */
    end(token: string, nowMs: number): Promise<void> {
      return endSessionOfToken(control, TABLE, { token, nowMs });
    },

    /** The live sessions, one more than `limit`, so that the last page is known. */
    async list({ after, limit }: PageQuery, nowMs: number, idleMs: number): Promise<OperatorSessionSummary[]> {
      const rows = await control.query(
        `SELECT ${shortId} AS id,
           jsonb_build_object('id', s.operator_id, 'name', s.name, 'role', s.role, 'through', s.through) AS operator,
           ${toIso("s.created_at")} AS "startedAt", ${toIso("s.last_seen_at")} AS "lastSeenAt",
           ${toIso("s.expires_at")} AS "expiresAt"
         FROM operator_sessions s WHERE ${isLive("$1", "$2")} AND ${shortId} > $3 ORDER BY ${shortId} LIMIT $4`,
        [nowMs, idleMs, after, limit + 1],
      );
      return rows.map((row) => OperatorSessionSummary.parse(row));
    },

    /** Ends a session by its id. Returns whether there was a live one. */
    async endById(id: string, nowMs: number, idleMs: number): Promise<boolean> {
      const rows = await control.query(
        `UPDATE operator_sessions s SET ended_at = ${fromMs("$1")}
         WHERE ${isLive("$1", "$2")} AND ${shortId} = $3 RETURNING s.id_hash`,
        [nowMs, idleMs, id],
      );
      return rows.length > 0;
    },
  };
}
