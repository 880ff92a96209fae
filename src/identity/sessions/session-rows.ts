// What the sessions of members and of the operator's people have in common in the control tables: a row is found by the digest of its
// token, lives until it expires, is ended or was not used for too long, and has a short id that opens nothing.
import type { ControlDatabase } from "../../adapters/neon.ts";
import { sha256Hex } from "../../core/keys/credentials.ts";
import { fromMs } from "../../core/time.ts";
import type { Row } from "../../core/sql.ts";

type SessionTable = "sessions" | "operator_sessions";

/** 96 bits of the digest name the session `s`. */
export const shortId = `left(s.id_hash, 24)`;

/** The session `s` has not ended at `nowMs`, and was used after the instant `idleMs`. Both name parameters. */
export const isLive = (nowMs: string, idleMs: string): string =>
  `s.ended_at IS NULL AND s.expires_at > ${fromMs(nowMs)} AND s.last_seen_at > ${fromMs(idleMs)}`;

interface Use {
  token: string;
  nowMs: number;
  /** The oldest last use. */
  idleMs: number;
  /** What the answer has of the row. */
  columns: string;
}

/** The live session of a token, which this use prolongs; `undefined` when it has ended. */
export async function touchSession(control: ControlDatabase, table: SessionTable, use: Use): Promise<Row | undefined> {
  const [row] = await control.query(
    `UPDATE ${table} s SET last_seen_at = greatest(last_seen_at, ${fromMs("$2")})
     WHERE id_hash = $1 AND ${isLive("$2", "$3")} RETURNING ${use.columns}`,
    [await sha256Hex(use.token), use.nowMs, use.idleMs],
  );
  return row;
}

/** Ends the session of a token. */
export async function endSessionOfToken(
  control: ControlDatabase,
  table: SessionTable,
  { token, nowMs }: { token: string; nowMs: number },
): Promise<void> {
  await control.query(`UPDATE ${table} SET ended_at = ${fromMs("$2")} WHERE id_hash = $1 AND ended_at IS NULL`, [
    await sha256Hex(token),
    nowMs,
  ]);
}
